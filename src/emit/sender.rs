//! The sender of one shard: one request at a time, so that each series keeps its order.

use super::advice::Failure;
use super::backoff::Backoff;
use super::clock;
use super::metrics::{Dropped, Rejected};
use super::queue::{Due, Work};
use super::request::{Body, Encoding, Outputs};
use super::target::Target;
use super::verdict::{Sent, Verdict, judge};
use crate::wire::{Version, WireError};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Requests that looking for bad samples in one batch may cost: enough for some ten of them in two
/// thousand. Where more are bad, a refused part is given up as it is.
const MAX_SPLITS: usize = 256;

/// Sends what comes, until told to drain.
pub(super) async fn run(target: Arc<Target>, index: usize) {
    let Some(shard) = target.shards.get(index) else { return };
    let deadline = target.config.queue.batch_send_deadline;
    let mut encoding = Encoding::default();
    loop {
        let draining = target.draining.load(Relaxed);
        match shard.due(clock::now(), deadline, draining) {
            Due::Never if draining => return,
            Due::Never | Due::Later => shard.wake.notified().await,
            Due::In(wait) => {
                // Woken early, it looks again; a wake-up is never lost (the permit is kept).
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shard.wake.notified() => {}
                }
            }
            Due::Now => {
                match shard.begin(clock::now(), &target.metrics) {
                    None => {}
                    Some(Work::Memory(items)) => {
                        deliver(&target, &mut encoding, &Outputs::Live(items)).await;
                    }
                    Some(Work::Disk(block)) => {
                        let reader = target.clone();
                        let stored = blocking(move || reader.load(index, &block)).await;
                        if let Some(stored) = stored.flatten() {
                            deliver(&target, &mut encoding, &Outputs::Stored(Box::new(stored))).await;
                        }
                    }
                }
                complete(&target, index).await;
            }
        }
    }
}

/// Settles what was in flight, durably where there is a disk. Once begun it ends, also where the
/// sender is stopped meanwhile.
async fn complete(target: &Arc<Target>, index: usize) {
    if target.disk.is_none() {
        target.complete(index);
        return;
    }
    let target = target.clone();
    blocking(move || target.complete(index)).await;
}

/// Runs what may wait for a disk where it holds nobody up; `None` where it panicked, which is logged
/// by the panic itself.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// How a part of a batch ended.
enum End {
    Done,
    Split { why: Rejected, status: u16, message: String },
}

/// Sends outputs until each of their samples is accepted or given up.
async fn deliver(target: &Target, encoding: &mut Encoding, outputs: &Outputs) {
    let size = target.config.queue.max_samples_per_send.max(1);
    let version = target.protocol(Instant::now());
    let mut first = match encoding.encode(outputs, &target.relabel, version, 0..size) {
        Ok(body) => Some(body),
        Err(error) => return unencodable(target, outputs, &error),
    };
    let total = first.as_ref().map_or(0, |body| body.total);
    target.metrics.give_up(Dropped::Relabel, first.as_ref().map_or(0, |body| body.dropped));
    target.metrics.sent.fetch_add(total as u64, Relaxed);
    let mut splits = 0;
    // A batch larger than a request goes in several. What comes first is on top: the order of a
    // series holds while its batch is cut and halved.
    let mut stack: Vec<(usize, usize)> =
        (0..total).step_by(size).map(|start| (start, total.min(start + size))).rev().collect();
    while let Some((start, end)) = stack.pop() {
        let samples = end - start;
        match send(target, encoding, outputs, start..end, first.take()).await {
            Ok(End::Done) => {}
            Ok(End::Split { why, status, message }) => {
                if samples > 1 && splits < MAX_SPLITS {
                    splits += 1;
                    let middle = start + samples / 2;
                    stack.push((middle, end));
                    stack.push((start, middle));
                } else {
                    target.refused(why, samples, status, &message, Instant::now());
                }
            }
            Err(error) => return unencodable(target, outputs, &error),
        }
    }
}

/// A message snappy cannot hold (4 GiB): cannot happen with requests of any sane size.
fn unencodable(target: &Target, outputs: &Outputs, error: &WireError) {
    target.refused(Rejected::TooLarge, outputs.samples(), 0, &error.to_string(), Instant::now());
}

/// Sends a part, again and again while that may help.
async fn send(
    target: &Target,
    encoding: &mut Encoding,
    outputs: &Outputs,
    part: Range<usize>,
    encoded: Option<Body>,
) -> Result<End, WireError> {
    let queue = &target.config.queue;
    let mut backoff = Backoff::new(queue.min_backoff.as_std(), queue.max_backoff.as_std());
    let mut body = match encoded {
        Some(body) => body,
        None => encoding.encode(outputs, &target.relabel, target.protocol(Instant::now()), part.clone())?,
    };
    loop {
        let answer = target.client.send(&body, backoff.attempts).await;
        let now = Instant::now();
        target.metrics.request(answer.as_ref().ok().map(|answer| answer.status));
        let (failure, after) = match answer {
            Err(error) => (Failure::unanswered(&error), None),
            Ok(answer) => {
                let sent = Sent {
                    version: body.version,
                    auto: target.auto(),
                    confirmed: target.confirmed(),
                    samples: body.samples,
                };
                match judge(&answer, sent) {
                    Verdict::Done { accepted, rejected } => {
                        target.answered(now);
                        if accepted > 0 || (body.version == Version::V2 && answer.written.is_some()) {
                            target.confirm(body.version);
                        }
                        target.metrics.accepted.fetch_add(accepted as u64, Relaxed);
                        if let Some((why, samples)) = rejected {
                            target.refused(why, samples, answer.status, &answer.message, now);
                        }
                        if accepted == body.samples {
                            target.metrics.acknowledged(&body.times, clock::wall());
                        }
                        return Ok(End::Done);
                    }
                    Verdict::FallBack => {
                        target.fall_back(answer.status, now);
                        body = encoding.encode(outputs, &target.relabel, Version::V1, part.clone())?;
                        continue;
                    }
                    Verdict::Split(why) => {
                        target.answered(now);
                        return Ok(End::Split { why, status: answer.status, message: answer.message });
                    }
                    Verdict::Retry { after } => {
                        if answer.status == 415 && target.auto() {
                            target.distrust_v1();
                        }
                        (Failure::answered(answer.status, &answer.message), after)
                    }
                }
            }
        };
        target.failed(&failure, now);
        tokio::time::sleep(backoff.wait(after)).await;
        let now = Instant::now();
        if clock::now().since(outputs.queued()) > queue.sample_age_limit.0 {
            target.metrics.give_up(Dropped::Age, body.samples);
            return Ok(End::Done);
        }
        target.metrics.retries.fetch_add(1, Relaxed);
        let version = target.protocol(now);
        if version != body.version {
            body = encoding.encode(outputs, &target.relabel, version, part.clone())?;
        }
    }
}
