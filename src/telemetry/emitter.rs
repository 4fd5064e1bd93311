//! Metrics of the way out.

use super::write::Writer;
use crate::emit::{Emitter, LAG_BOUNDS, TargetSnapshot};
use std::fmt;

pub(super) fn write(emitter: &Emitter, out: &mut Writer<'_, '_>) -> fmt::Result {
    let targets = emitter.snapshot();
    let counts = |of: fn(&TargetSnapshot) -> u64| targets.iter().map(move |t| (&t.target, of(t)));
    let gauges = |of: fn(&TargetSnapshot) -> f64| targets.iter().map(move |t| (&t.target, of(t)));
    out.counters(
        "oddity_remote_write_samples",
        "Samples accepted by the target",
        "target",
        counts(|t| t.accepted),
    )?;
    out.counters(
        "oddity_remote_write_sent_samples",
        "Samples put into requests, each once",
        "target",
        counts(|t| t.sent),
    )?;
    out.gauges(
        "oddity_remote_write_pending_samples",
        "Samples that wait for the target",
        "target",
        gauges(|t| t.pending_samples as f64),
    )?;
    out.gauges(
        "oddity_remote_write_pending_bytes",
        "About what they hold in memory",
        "target",
        gauges(|t| t.pending_bytes as f64),
    )?;
    out.gauges(
        "oddity_remote_write_disk_bytes",
        "What the queue holds on disk",
        "target",
        gauges(|t| t.disk_bytes as f64),
    )?;
    out.gauges(
        "oddity_remote_write_disk_failing",
        "1 while the queue cannot be written to its disk",
        "target",
        gauges(|t| f64::from(u8::from(t.disk_failing))),
    )?;
    out.counters(
        "oddity_remote_write_spilled_samples",
        "Samples written to the queue on disk",
        "target",
        counts(|t| t.spilled),
    )?;
    out.gauges(
        "oddity_remote_write_oldest_pending_seconds",
        "How long the oldest pending sample has waited",
        "target",
        gauges(|t| t.oldest_pending.as_secs_f64()),
    )?;
    out.gauges(
        "oddity_remote_write_up",
        "0 while requests to the target fail and are retried",
        "target",
        gauges(|t| f64::from(u8::from(!t.down))),
    )?;
    out.counters("oddity_remote_write_retries", "Requests sent again", "target", counts(|t| t.retries))?;
    out.gauges(
        "oddity_remote_write_highest_acknowledged_timestamp_seconds",
        "The newest sample time the target took",
        "target",
        targets.iter().filter_map(|t| Some((&t.target, t.highest_acknowledged?.0 as f64 / 1e3))),
    )?;
    out.labelled_counters(
        "oddity_remote_write_rejected_samples",
        "Samples refused by the target",
        by(&targets, "reason", |t| &t.rejected),
    )?;
    out.labelled_counters(
        "oddity_remote_write_dropped_samples",
        "Samples given up unsent",
        by(&targets, "reason", |t| &t.dropped),
    )?;
    out.labelled_counters(
        "oddity_remote_write_requests",
        "Requests by class of the answer",
        by(&targets, "status", |t| &t.requests),
    )?;
    let lags = targets.iter().map(|t| (t.target.as_str(), t.lag.sum_seconds, t.lag.counts.as_slice()));
    out.histograms(
        "oddity_remote_write_lag_seconds",
        "From a sample's own time to its acceptance by the target",
        "target",
        &LAG_BOUNDS,
        lags,
    )
}

fn by<'a>(
    targets: &'a [TargetSnapshot],
    label: &'static str,
    of: fn(&TargetSnapshot) -> &[(&'static str, u64)],
) -> impl Iterator<Item = (Vec<(&'static str, String)>, u64)> + 'a {
    targets.iter().flat_map(move |target| {
        of(target)
            .iter()
            .map(move |(value, n)| (vec![("target", target.target.clone()), (label, value.to_string())], *n))
    })
}
