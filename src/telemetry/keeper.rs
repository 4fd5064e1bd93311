//! Metrics of state on disk.

use super::write::Writer;
use crate::keeper::Report;
use std::fmt;

pub(super) fn write(report: &Report, out: &mut Writer<'_, '_>) -> fmt::Result {
    let log = &report.log;
    out.counter("oddity_log_records", "Records written to the log", log.records as f64)?;
    out.counter("oddity_log_bytes_written", "Bytes written to the log", log.bytes as f64)?;
    out.counter(
        "oddity_log_records_lost",
        "Records scored and not logged, for want of room",
        log.lost as f64,
    )?;
    out.counter("oddity_log_syncs", "Times the log was synced to disk", log.syncs as f64)?;
    out.counter("oddity_log_failures", "Times the log could not be written or synced", log.failures as f64)?;
    out.gauge("oddity_log_bytes", "Bytes of the log's segments", log.held as f64)?;
    out.gauge(
        "oddity_log_failing",
        "1 while the log cannot be written, and until a checkpoint has what it lacks",
        f64::from(u8::from(report.failing)),
    )?;
    out.counter("oddity_checkpoints", "Checkpoints taken", report.checkpoints as f64)?;
    out.counter("oddity_checkpoint_failures", "Checkpoints that could not be taken", report.failures as f64)?;
    if let Some(last) = report.last {
        out.gauge("oddity_checkpoint_bytes", "Bytes of the last checkpoint", last.bytes as f64)?;
        out.gauge("oddity_checkpoint_sequence", "The record it stands for", last.sequence as f64)?;
        out.gauge("oddity_checkpoint_seconds", "How long it took", last.took.as_secs_f64())?;
    }
    out.gauge(
        "oddity_replay_debt_seconds",
        "Work that a restart would have to do again",
        report.debt.as_secs_f64(),
    )?;
    out.gauge("oddity_restore_seconds", "How long the start took", report.found.took.as_secs_f64())?;
    out.gauge("oddity_restore_records", "Records replayed at the start", report.found.replayed as f64)
}
