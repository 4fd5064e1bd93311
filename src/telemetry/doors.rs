//! Metrics of the doors.

use super::write::Writer;
use crate::secure::Doors;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn write(doors: &Doors, out: &mut Writer<'_, '_>) -> fmt::Result {
    let connections = doors.connections();
    out.gauge("oddity_connections", "Open connections", connections.open() as f64)?;
    out.gauge("oddity_connections_limit", "Open connections that there may be", connections.max() as f64)?;
    out.counter("oddity_connections_accepted", "Connections accepted", connections.accepted() as f64)?;
    out.counters(
        "oddity_connections_cut_off",
        "Connections that a bound has ended, by reason",
        "reason",
        connections.endings(),
    )?;
    let metrics = doors.metrics();
    let refusals = metrics.refusals().into_iter();
    let refusals = refusals
        .map(|(door, reason, n)| (vec![("door", door.to_string()), ("reason", reason.to_string())], n));
    out.labelled_counters("oddity_auth_failures", "Requests refused at a door, by reason", refusals)?;
    out.counter(
        "oddity_tls_handshakes_failed",
        "TLS handshakes that failed, clients without a certificate that is taken among them",
        metrics.handshakes_failed.load(Relaxed) as f64,
    )?;
    out.counters(
        "oddity_secret_files_reloads",
        "Times that changed certificates, passwords or tokens were read again, by result",
        "result",
        [("ok", metrics.files_read.load(Relaxed)), ("refused", metrics.files_refused.load(Relaxed))],
    )?;
    out.gauge(
        "oddity_secret_files_last_reload_successful",
        "Whether certificates, passwords and tokens could be used when they were last read",
        f64::from(u8::from(metrics.files_ok.load(Relaxed))),
    )
}
