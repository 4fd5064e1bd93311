//! What a target counts, as plain atomics; the telemetry room registers and names them.

use super::queue::Item;
use crate::time::{Millis, Span};
use crate::wire::Version;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Why samples never reached a target although nobody refused them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Dropped {
    /// The queue was full.
    Capacity = 0,
    /// They waited longer than `sample_age_limit`.
    Age = 1,
    /// `write_relabel_configs` dropped them.
    Relabel = 2,
    /// The queue on disk was full.
    DiskCapacity = 3,
    /// A block on disk could not be read.
    Corrupt = 4,
}

/// Why samples were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Rejected {
    /// 400 or 422.
    BadRequest = 0,
    /// 413 to a request that could not be made smaller.
    TooLarge = 1,
    /// The receiver said it wrote fewer than were sent.
    NotWritten = 2,
    /// A redirect, which is never followed.
    Redirect = 3,
    /// Another status that says not to retry.
    Status = 4,
    /// 2.0 is demanded and a 2xx did not say what was written.
    Unconfirmed = 5,
}

const DROPPED: [&str; 5] = ["capacity", "age", "relabel", "disk_capacity", "corrupt"];
const REJECTED: [&str; 6] =
    ["bad_request", "too_large", "not_written", "redirect", "other_status", "unconfirmed"];
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "error"];

/// Upper bounds of [`Lag`]'s buckets, in seconds; a last bucket has no bound.
pub const LAG_BOUNDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

#[derive(Debug)]
pub(super) struct Metrics {
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    rejected: [AtomicU64; REJECTED.len()],
    dropped: [AtomicU64; DROPPED.len()],
    pub retries: AtomicU64,
    requests: [AtomicU64; CLASSES.len()],
    pub pending: AtomicUsize,
    memory_bytes: AtomicUsize,
    /// Samples written to the disk.
    pub spilled: AtomicU64,
    highest: AtomicI64,
    lag: [AtomicU64; LAG_BOUNDS.len() + 1],
    lag_sum_ms: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            sent: AtomicU64::default(),
            accepted: AtomicU64::default(),
            rejected: Default::default(),
            dropped: Default::default(),
            retries: AtomicU64::default(),
            requests: Default::default(),
            pending: AtomicUsize::default(),
            memory_bytes: AtomicUsize::default(),
            spilled: AtomicU64::default(),
            highest: AtomicI64::new(i64::MIN),
            lag: Default::default(),
            lag_sum_ms: AtomicU64::default(),
        }
    }
}

fn named<const N: usize>(names: [&'static str; N], counts: &[AtomicU64; N]) -> [(&'static str, u64); N] {
    let mut out = names.map(|name| (name, 0));
    for (slot, count) in out.iter_mut().zip(counts) {
        slot.1 = count.load(Relaxed);
    }
    out
}

impl Metrics {
    pub fn reject(&self, why: Rejected, samples: usize) {
        self.rejected[why as usize].fetch_add(samples as u64, Relaxed);
    }
    pub fn give_up(&self, why: Dropped, samples: usize) {
        self.dropped[why as usize].fetch_add(samples as u64, Relaxed);
    }
    /// Counts a request by its status; `None`: no answer came.
    pub fn request(&self, status: Option<u16>) {
        let class = match status {
            Some(200..300) => 0,
            Some(300..400) => 1,
            Some(400..500) => 2,
            Some(_) => 3,
            None => 4,
        };
        self.requests[class].fetch_add(1, Relaxed);
    }
    pub fn queued(&self, samples: usize) {
        self.pending.fetch_add(samples, Relaxed);
    }
    pub fn unqueued(&self, samples: usize) {
        self.pending.fetch_sub(samples, Relaxed);
    }
    /// A batch waits in memory.
    pub fn in_memory(&self, item: &Item) {
        self.queued(item.samples);
        self.memory_bytes.fetch_add(item.bytes(), Relaxed);
    }
    /// It does no more.
    pub fn left_memory(&self, item: &Item) {
        self.unqueued(item.samples);
        self.memory_bytes.fetch_sub(item.bytes(), Relaxed);
    }
    /// Notes that samples of these times were accepted at `now`; each time with how many.
    pub fn acknowledged(&self, times: &[(Millis, u32)], now: Millis) {
        let mut counts = [0; LAG_BOUNDS.len() + 1];
        let (mut highest, mut sum) = (Millis::MIN, 0u64);
        for (at, samples) in times {
            highest = highest.max(*at);
            let lag = now.since(*at).max(0);
            let bucket = LAG_BOUNDS.partition_point(|bound| *bound * 1e3 < lag as f64);
            counts[bucket] += u64::from(*samples);
            sum = sum.saturating_add((lag as u64).saturating_mul(u64::from(*samples)));
        }
        self.highest.fetch_max(highest.0, Relaxed);
        self.lag_sum_ms.fetch_add(sum, Relaxed);
        for (slot, count) in self.lag.iter().zip(counts).filter(|(_, count)| *count > 0) {
            slot.fetch_add(count, Relaxed);
        }
    }

    pub fn snapshot(&self) -> TargetSnapshot {
        let highest = Millis(self.highest.load(Relaxed));
        let mut lag = Lag { counts: [0; LAG_BOUNDS.len() + 1], sum_seconds: 0.0 };
        for (slot, count) in lag.counts.iter_mut().zip(&self.lag) {
            *slot = count.load(Relaxed);
        }
        lag.sum_seconds = self.lag_sum_ms.load(Relaxed) as f64 / 1e3;
        TargetSnapshot {
            target: String::new(),
            sent: self.sent.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            rejected: named(REJECTED, &self.rejected),
            dropped: named(DROPPED, &self.dropped),
            retries: self.retries.load(Relaxed),
            requests: named(CLASSES, &self.requests),
            pending_samples: self.pending.load(Relaxed) as u64,
            pending_bytes: self.memory_bytes.load(Relaxed) as u64,
            spilled: self.spilled.load(Relaxed),
            disk_bytes: 0,
            disk_failing: false,
            highest_acknowledged: (highest != Millis::MIN).then_some(highest),
            oldest_pending: Span(0),
            protocol: Version::V2,
            down: false,
            lag,
        }
    }
}

/// How long samples took from their own time to acceptance by the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// Samples in each bucket of [`LAG_BOUNDS`] (not cumulative); the last has no bound.
    pub counts: [u64; LAG_BOUNDS.len() + 1],
    /// Sum of all, in seconds.
    pub sum_seconds: f64,
}

/// One target's figures. Counters start with the process and survive a reload of the target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSnapshot {
    /// The target's name.
    pub target: String,
    /// Samples put into requests, each once however often it was retried.
    pub sent: u64,
    /// Samples the target said it took.
    pub accepted: u64,
    /// Samples refused, by reason.
    pub rejected: [(&'static str, u64); REJECTED.len()],
    /// Samples given up unsent, by reason.
    pub dropped: [(&'static str, u64); DROPPED.len()],
    /// Requests sent again.
    pub retries: u64,
    /// Requests by class of the answer's status, or `error` where none came.
    pub requests: [(&'static str, u64); CLASSES.len()],
    /// Samples queued, in memory or on disk, or in flight.
    pub pending_samples: u64,
    /// About what those in memory hold, in bytes (shared with the other targets).
    pub pending_bytes: u64,
    /// Samples written to the queue on disk.
    pub spilled: u64,
    /// Bytes of the queue on disk.
    pub disk_bytes: u64,
    /// The disk cannot be written.
    pub disk_failing: bool,
    /// The newest sample time the target took.
    pub highest_acknowledged: Option<Millis>,
    /// How long the oldest pending sample has waited.
    pub oldest_pending: Span,
    /// The protocol the next request speaks.
    pub protocol: Version,
    /// Whether the last request failed in a way that is retried.
    pub down: bool,
    /// Sample time to acceptance.
    pub lag: Lag,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_falls_into_its_bucket() {
        let metrics = Metrics::default();
        for (lag, samples) in [(0, 1), (100, 2), (101, 4), (7_200_000, 8), (7_200_001, 16), (-5, 32)] {
            metrics.acknowledged(&[(Millis(10_000_000 - lag), samples)], Millis(10_000_000));
        }
        let lag = metrics.snapshot().lag;
        assert_eq!((lag.counts[0], lag.counts[1], lag.counts[11], lag.counts[12]), (35, 4, 8, 16));
        assert_eq!(metrics.snapshot().highest_acknowledged, Some(Millis(10_000_005)));
    }
}
