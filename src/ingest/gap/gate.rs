//! The rule of gaps at work: with a clock, for many threads, counted.

use super::{Gaps, Hole, Verdict};
use crate::ingest::peek;
use crate::time::{Millis, Span};
use crate::wire::Version;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bodies are held for at most this long for one gap.
const HOLD: Duration = Duration::from_secs(30);
/// Gaps that may wait to be filled.
const WAITING: usize = 64;

/// How filling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FillResult {
    /// All that was skipped is filled.
    Filled,
    /// Everything was asked for, and there was nothing that had not been seen.
    Nothing,
    /// Part of it.
    Partial,
    /// Nothing could be read.
    Failed,
}

impl FillResult {
    /// All of them.
    pub const ALL: [FillResult; 4] =
        [FillResult::Filled, FillResult::Nothing, FillResult::Partial, FillResult::Failed];

    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            FillResult::Filled => "filled",
            FillResult::Nothing => "nothing",
            FillResult::Partial => "partial",
            FillResult::Failed => "failed",
        }
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct GateMetrics {
    results: Mutex<BTreeMap<FillResult, u64>>,
    /// Samples that were filled in.
    pub samples: AtomicU64,
    /// Milliseconds that gaps spanned.
    pub spanned: AtomicU64,
    /// Milliseconds that filling took.
    pub took: AtomicU64,
    /// Requests that were held back.
    pub held: AtomicU64,
}

impl GateMetrics {
    /// Gaps by how filling them ended.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let results = self.results.lock().clone();
        FillResult::ALL
            .into_iter()
            .map(move |result| (result.name(), results.get(&result).copied().unwrap_or(0)))
    }
}

/// Stands before the engine; see [`Gaps`]. It lets everything pass until it is told that there is
/// somebody who fills gaps.
#[derive(Debug)]
pub struct Gate {
    active: AtomicBool,
    gaps: Mutex<Gaps>,
    begun: Instant,
    holes: mpsc::Sender<Hole>,
    metrics: GateMetrics,
}

impl Gate {
    /// A gate, and the gaps it finds: to be filled by whoever has the other end.
    pub fn new() -> (Gate, mpsc::Receiver<Hole>) {
        let (holes, found) = mpsc::channel(WAITING);
        let gate = Gate {
            active: AtomicBool::new(false),
            gaps: Mutex::new(Gaps::new(HOLD)),
            begun: Instant::now(),
            holes,
            metrics: GateMetrics::default(),
        };
        (gate, found)
    }

    /// Begins or ends to watch. `seen` is how far each group's samples have come.
    pub fn watch(&self, active: bool, seen: &[(String, Millis)]) {
        let mut gaps = self.gaps.lock();
        if !active {
            gaps.clear();
        }
        for (group, seen) in seen.iter().filter(|_| active) {
            gaps.start(group, *seen);
        }
        self.active.store(active, Relaxed);
    }

    /// What it counted.
    pub fn metrics(&self) -> &GateMetrics {
        &self.metrics
    }

    /// Gaps being filled.
    pub fn filling(&self) -> usize {
        self.gaps.lock().filling()
    }

    /// When a gap that is found now is no longer waited for.
    pub fn until(&self) -> Instant {
        Instant::now() + HOLD
    }

    /// Whether it is worth going on to fill this gap.
    pub fn open(&self, hole: &Hole) -> bool {
        self.active.load(Relaxed) && self.gaps.lock().open(hole, self.begun.elapsed())
    }

    /// Filling is over: bodies pass again.
    pub fn done(&self, hole: &Hole, result: FillResult, samples: u64, took: Duration) {
        *self.metrics.results.lock().entry(result).or_default() += 1;
        self.metrics.samples.fetch_add(samples, Relaxed);
        let spanned = u64::try_from(hole.to.since(hole.from)).unwrap_or(0);
        self.metrics.spanned.fetch_add(spanned, Relaxed);
        self.metrics.took.fetch_add(took.as_millis() as u64, Relaxed);
        self.gaps.lock().done(hole, result != FillResult::Nothing);
    }

    /// Whether a body of this group may be applied; what to tell its sender otherwise. A body that may
    /// be is noted with [`Gate::passed`] once it is applied.
    pub(in crate::ingest) fn judge(
        &self,
        group: &str,
        version: Version,
        body: &[u8],
        received: Millis,
    ) -> Result<Passing, String> {
        let times = peek::times(version, body).filter(|_| self.active.load(Relaxed));
        let Some((first, last)) = times else { return Ok(Passing(None)) };
        // A stamp that is ahead of its receipt says nothing about what was skipped.
        let last = last.min(received);
        let mut first = first.min(received);
        let suspect = self.gaps.lock().suspect(group, first);
        if let Some(seen) = suspect {
            first = peek::first_after(version, body, seen).map_or(first, |exact| exact.min(received));
        }
        let verdict = self.gaps.lock().judge(group, first, last, self.begun.elapsed());
        match verdict {
            Verdict::Pass => return Ok(Passing(Some(last))),
            Verdict::Hold => {}
            Verdict::Begin(hole) => {
                if self.holes.try_send(hole.clone()).is_err() {
                    tracing::warn!(group, "a gap is not filled: too many gaps wait to be filled");
                    self.done(&hole, FillResult::Failed, 0, Duration::ZERO);
                    return Ok(Passing(Some(last)));
                }
                let gap = Span(hole.to.since(hole.from));
                tracing::info!(group, gap = %gap, "samples were skipped; reading them by remote read");
            }
        }
        self.metrics.held.fetch_add(1, Relaxed);
        Err("what was skipped before these samples is being filled in by remote read".into())
    }

    /// A body was applied.
    pub(in crate::ingest) fn passed(&self, group: &str, passing: Passing) {
        if let Passing(Some(last)) = passing {
            self.gaps.lock().passed(group, last);
        }
    }
}

/// How far a body comes, where that is watched.
#[derive(Clone, Copy, Debug)]
pub(in crate::ingest) struct Passing(Option<Millis>);
