//! Metrics of the receiver.

use super::Sources;
use super::write::Writer;
use crate::ingest::Gate;
use crate::ingest::metrics::DURATION_BUCKETS;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) fn write(sources: &Sources, out: &mut Writer<'_, '_>) -> fmt::Result {
    let receiver = &sources.receiver;
    let metrics = receiver.metrics();
    let handled = metrics.handled();
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed) as f64;
    out.counter(
        "oddity_samples_received",
        "Samples and native histograms received by remote write",
        of(&metrics.received),
    )?;
    let scored = handled.get("scored").copied().unwrap_or(0);
    out.counters("oddity_samples_handled", "What became of the samples received", "reason", handled)?;
    out.counter("oddity_samples_scored", "Samples scored", scored as f64)?;
    out.counter(
        "oddity_exemplars_received",
        "Exemplars received; they are not used",
        of(&metrics.exemplars),
    )?;
    let requests = metrics.requests().into_iter().map(|((protocol, code), n)| {
        (vec![("protocol", protocol.to_string()), ("code", code.to_string())], n)
    });
    out.labelled_counters("oddity_requests", "Remote write requests answered", requests)?;
    let (sum, buckets) = metrics.durations();
    out.histogram(
        "oddity_request_duration_seconds",
        "From the end of the body to the answer",
        sum,
        &DURATION_BUCKETS,
        &buckets,
    )?;
    out.counter(
        "oddity_request_compressed_bytes",
        "Bytes of bodies as they came",
        of(&metrics.compressed_bytes),
    )?;
    out.counter(
        "oddity_request_decompressed_bytes",
        "Bytes of bodies decompressed",
        of(&metrics.decompressed_bytes),
    )?;
    let admission = receiver.admission();
    out.gauges(
        "oddity_in_flight_bytes",
        "Bytes of requests in flight",
        "stage",
        [("reading", admission.reading.in_use() as f64), ("working", admission.working.in_use() as f64)],
    )?;
    let waiting = admission.reading.waiting() + admission.working.waiting() + receiver.queued();
    out.gauge("oddity_requests_waiting", "Requests that wait for bytes or a thread", waiting as f64)?;
    out.gauge(
        "oddity_queue_age_seconds",
        "How long the oldest request in the queue has been waiting for a thread",
        receiver.queue_age().as_secs_f64(),
    )?;
    out.counters(
        "oddity_requests_overloaded",
        "Requests refused with 503, by what there was too much of",
        "reason",
        metrics.overloads(),
    )?;
    out.counters(
        "oddity_limit_exceeded",
        "Requests refused whole because of a limit, by limit",
        "limit",
        metrics.limits(),
    )?;
    out.counters(
        "oddity_malformed_series",
        "Malformed series, by what is wrong with them",
        "defect",
        metrics.defects(),
    )?;
    out.counter(
        "oddity_ha_elections",
        "Times another replica of an HA pair was elected",
        of(&metrics.elections),
    )?;
    match receiver.gate() {
        Some(gate) => gaps(gate, out),
        None => Ok(()),
    }
}

fn gaps(gate: &Gate, out: &mut Writer<'_, '_>) -> fmt::Result {
    let metrics = gate.metrics();
    let seconds = |millis: &AtomicU64| millis.load(Relaxed) as f64 / 1e3;
    out.counters(
        "oddity_gap_fills",
        "Gaps in what sources send, by how filling them ended",
        "result",
        metrics.results(),
    )?;
    out.counter(
        "oddity_gap_fill_samples",
        "Samples filled in by remote read",
        metrics.samples.load(Relaxed) as f64,
    )?;
    out.counter("oddity_gap_seconds", "Time that gaps spanned", seconds(&metrics.spanned))?;
    out.counter("oddity_gap_fill_seconds", "Time that filling them took", seconds(&metrics.took))?;
    out.gauge("oddity_gaps_filling", "Gaps being filled", gate.filling() as f64)?;
    out.counter(
        "oddity_requests_held",
        "Requests answered 503 while a gap was filled",
        metrics.held.load(Relaxed) as f64,
    )
}
