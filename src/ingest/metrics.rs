//! What the receiver counts; plain numbers that anybody may read.

use crate::engine::{Applied, Reason};
use crate::wire::Version;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the duration histogram's buckets, in seconds.
pub const DURATION_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The reason under which malformed samples are counted.
const MALFORMED: &str = "malformed";

/// Limits on a request. What meets one of them is refused whole.
const LIMITS: [&str; 10] = [
    "body_bytes",
    "body_time",
    "decompressed_bytes",
    "series",
    "samples",
    "histograms",
    "buckets",
    "labels",
    "symbols",
    "metadata",
];

/// Kinds of malformed series told apart; there are a dozen.
const MAX_DEFECTS: usize = 64;

/// What there was too much of when a request was refused with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OverloadBy {
    /// Bytes of bodies being read.
    Reading,
    /// Bytes of bodies being worked on.
    Working,
    /// Requests that wait for a thread.
    Queue,
    /// The time that the oldest of them has waited.
    QueueAge,
    /// The disk that must keep what is taken.
    Disk,
}

impl OverloadBy {
    /// Their names in the `reason` label, in their order.
    pub const NAMES: [&'static str; 5] = ["reading_bytes", "working_bytes", "queue", "queue_age", "disk"];

    /// For people.
    pub(super) fn why(self) -> &'static str {
        match self {
            OverloadBy::Reading => "the bytes of requests being read are at their limit",
            OverloadBy::Working => "the bytes of requests being worked on are at their limit",
            OverloadBy::Queue => "the queue is full",
            OverloadBy::QueueAge => "the queue is too old",
            OverloadBy::Disk => "the disk has no room for what must not be lost",
        }
    }
}

/// The receiver's counters.
#[derive(Debug)]
pub struct Metrics {
    /// Samples and native histograms received.
    pub received: AtomicU64,
    /// Of those, scores of at least 1.
    pub flagged: AtomicU64,
    /// Exemplars received; they are not used.
    pub exemplars: AtomicU64,
    /// Compressed bytes of bodies worked on.
    pub compressed_bytes: AtomicU64,
    /// Their decompressed bytes.
    pub decompressed_bytes: AtomicU64,
    /// Changes of an elected HA replica.
    pub elections: AtomicU64,
    overloads: [AtomicU64; OverloadBy::NAMES.len()],
    limits: Mutex<BTreeMap<&'static str, u64>>,
    defects: Mutex<BTreeMap<String, u64>>,
    handled: Mutex<BTreeMap<&'static str, u64>>,
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    duration_counts: [AtomicU64; DURATION_BUCKETS.len() + 1],
    duration_micros: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            received: AtomicU64::new(0),
            flagged: AtomicU64::new(0),
            exemplars: AtomicU64::new(0),
            compressed_bytes: AtomicU64::new(0),
            decompressed_bytes: AtomicU64::new(0),
            elections: AtomicU64::new(0),
            overloads: Default::default(),
            limits: Mutex::new(LIMITS.into_iter().map(|limit| (limit, 0)).collect()),
            defects: Mutex::default(),
            // All from the start, so that a rate over them has a beginning.
            handled: Mutex::new(Reason::NAMES.into_iter().chain([MALFORMED]).map(|r| (r, 0)).collect()),
            requests: Mutex::default(),
            duration_counts: Default::default(),
            duration_micros: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    pub(super) fn applied(&self, applied: &Applied) {
        self.received.fetch_add(applied.samples + applied.histograms, Relaxed);
        self.flagged.fetch_add(applied.flagged, Relaxed);
        self.exemplars.fetch_add(applied.exemplars, Relaxed);
        let mut handled = self.handled.lock();
        for (reason, count) in &applied.handled {
            *handled.entry(reason).or_default() += count;
        }
        let malformed = applied.malformed_samples + applied.malformed_histograms;
        *handled.entry(MALFORMED).or_default() += malformed;
        drop(handled);
        if applied.defects.is_empty() {
            return;
        }
        let mut defects = self.defects.lock();
        for (defect, count) in &applied.defects {
            let room = defects.len() < MAX_DEFECTS;
            match defects.get_mut(defect) {
                Some(have) => *have += count,
                None if room => drop(defects.insert(defect.clone(), *count)),
                None => {}
            }
        }
    }

    pub(super) fn answered(&self, version: Option<Version>, status: u16, took: Duration) {
        let protocol = match version {
            Some(Version::V1) => "1.0",
            Some(Version::V2) => "2.0",
            None => "unknown",
        };
        *self.requests.lock().entry((protocol, status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BUCKETS.partition_point(|upper| *upper < seconds);
        if let Some(count) = self.duration_counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.duration_micros.fetch_add(took.as_micros() as u64, Relaxed);
    }

    pub(super) fn overloaded(&self, by: OverloadBy) {
        if let Some(count) = self.overloads.get(by as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn limit(&self, limit: &'static str) {
        *self.limits.lock().entry(limit).or_default() += 1;
    }

    /// Requests refused with 503, by what there was too much of.
    pub fn overloads(&self) -> [(&'static str, u64); OverloadBy::NAMES.len()] {
        std::array::from_fn(|i| (OverloadBy::NAMES[i], self.overloads[i].load(Relaxed)))
    }

    /// Requests refused whole because of a limit, by limit.
    pub fn limits(&self) -> BTreeMap<&'static str, u64> {
        self.limits.lock().clone()
    }

    /// Malformed series, by what is wrong with them.
    pub fn defects(&self) -> BTreeMap<String, u64> {
        self.defects.lock().clone()
    }

    /// Samples by what became of them.
    pub fn handled(&self) -> BTreeMap<&'static str, u64> {
        self.handled.lock().clone()
    }

    /// Requests by protocol (`1.0`, `2.0`, `unknown`) and status code.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.requests.lock().clone()
    }

    /// Durations of requests: the sum in seconds and the count of each bucket (not cumulated), the
    /// last one without an upper bound.
    pub fn durations(&self) -> (f64, [u64; DURATION_BUCKETS.len() + 1]) {
        let counts = std::array::from_fn(|i| self.duration_counts[i].load(Relaxed));
        (self.duration_micros.load(Relaxed) as f64 / 1e6, counts)
    }
}
