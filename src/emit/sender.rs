//! The sender of one shard: one request at a time, so that each series keeps its order.

use super::backoff::Backoff;
use super::metrics::{Dropped, Rejected};
use super::names;
use super::queue::{Due, Item};
use super::request::{Body, Encoding};
use super::target::Target;
use super::verdict::{Sent, Verdict, judge};
use crate::time::Millis;
use crate::wire::{Version, WireError};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Requests that looking for bad samples in one batch may cost: enough for some ten of them in two
/// thousand. Where more are bad, a refused part is given up as it is.
const MAX_SPLITS: usize = 256;

/// Sends what comes, until told to drain.
pub(super) async fn run(target: Arc<Target>, index: usize) {
    let Some(shard) = target.shards.get(index) else { return };
    let deadline = target.config.queue.batch_send_deadline.as_std();
    let mut encoding = Encoding::default();
    loop {
        let draining = target.draining.load(Relaxed);
        match shard.due(Instant::now(), deadline, draining) {
            Due::Never if draining => return,
            Due::Never => shard.wake.notified().await,
            Due::At(at) => {
                // Woken early, it looks again; a wake-up is never lost (the permit is kept).
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = shard.wake.notified() => {}
                }
            }
            Due::Now => {
                let items = shard.begin(Instant::now(), &target.metrics);
                if !items.is_empty() {
                    deliver(&target, &mut encoding, &items).await;
                    shard.complete(&target.metrics);
                }
            }
        }
    }
}

/// How a part of a batch ended.
enum End {
    Done,
    Split { why: Rejected, status: u16, message: String },
}

/// Sends outputs until each of their samples is accepted or given up.
async fn deliver(target: &Target, encoding: &mut Encoding, items: &[Item]) {
    let mut first =
        match encoding.encode(items, &target.relabel, target.protocol(Instant::now()), 0..usize::MAX) {
            Ok(body) => Some(body),
            Err(error) => return unencodable(target, items, &error),
        };
    let total = first.as_ref().map_or(0, |body| body.total);
    target.metrics.give_up(Dropped::Relabel, first.as_ref().map_or(0, |body| body.dropped));
    target.metrics.sent.fetch_add(total as u64, Relaxed);
    if total == 0 {
        return;
    }
    let mut splits = 0;
    // The left half is on top: the order of a series holds while its batch is halved.
    let mut stack = vec![(0, total)];
    while let Some((start, end)) = stack.pop() {
        let samples = end - start;
        match send(target, encoding, items, start..end, first.take()).await {
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
            Err(error) => return unencodable(target, items, &error),
        }
    }
}

/// A message snappy cannot hold (4 GiB): cannot happen with requests of any sane size.
fn unencodable(target: &Target, items: &[Item], error: &WireError) {
    let samples = items.iter().map(|item| item.samples).sum();
    target.refused(Rejected::TooLarge, samples, 0, &error.to_string(), Instant::now());
}

/// Sends a part, again and again while that may help.
async fn send(
    target: &Target,
    encoding: &mut Encoding,
    items: &[Item],
    part: Range<usize>,
    encoded: Option<Body>,
) -> Result<End, WireError> {
    let queue = &target.config.queue;
    let mut backoff = Backoff::new(queue.min_backoff.as_std(), queue.max_backoff.as_std());
    let mut body = match encoded {
        Some(body) => body,
        None => encoding.encode(items, &target.relabel, target.protocol(Instant::now()), part.clone())?,
    };
    let whole = body.samples == body.total;
    loop {
        let answer = target.client.send(&body, backoff.attempts).await;
        let now = Instant::now();
        target.metrics.request(answer.as_ref().ok().map(|answer| answer.status));
        let (why, after, misconfigured) = match answer {
            Err(error) => (error.0, None, false),
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
                            acknowledged(target, items, whole);
                        }
                        return Ok(End::Done);
                    }
                    Verdict::FallBack => {
                        target.fall_back(answer.status, now);
                        body = encoding.encode(items, &target.relabel, Version::V1, part.clone())?;
                        continue;
                    }
                    Verdict::Split(why) => {
                        target.answered(now);
                        return Ok(End::Split { why, status: answer.status, message: answer.message });
                    }
                    Verdict::Retry { after, misconfigured } => {
                        if answer.status == 415 && target.auto() {
                            target.distrust_v1();
                        }
                        (format!("HTTP status {} {}", answer.status, answer.message), after, misconfigured)
                    }
                }
            }
        };
        target.failed(&why, misconfigured, now);
        tokio::time::sleep(backoff.wait(after)).await;
        let now = Instant::now();
        let limit = queue.sample_age_limit.as_std();
        if items.last().is_none_or(|newest| now.duration_since(newest.queued) > limit) {
            target.metrics.give_up(Dropped::Age, body.samples);
            return Ok(End::Done);
        }
        target.metrics.retries.fetch_add(1, Relaxed);
        let version = target.protocol(now);
        if version != body.version {
            body = encoding.encode(items, &target.relabel, version, part.clone())?;
        }
    }
}

/// Notes when accepted samples arrived. Parts of a halved batch count only towards `accepted`.
fn acknowledged(target: &Target, items: &[Item], whole: bool) {
    if !whole {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    for item in items {
        for output in item.batch.outputs.get(item.start..item.end).unwrap_or(&[]) {
            let samples = names::count(output, item.batch.names);
            if samples > 0 {
                target.metrics.acknowledged(output.at, samples as u64, now);
            }
        }
    }
}
