//! The queue of one shard of a target: bounded, in order, with acknowledgement by partition.

use super::metrics::{Dropped, Metrics};
use super::names;
use crate::engine::OutputBatch;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Outputs `start..end` of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// The batch, shared with the other targets.
    pub batch: Arc<OutputBatch>,
    /// The first output.
    pub start: usize,
    /// One past the last output.
    pub end: usize,
    /// Samples they make, before relabelling.
    pub samples: usize,
    /// When the batch was queued.
    pub queued: Instant,
}

impl Item {
    fn outputs(&self) -> usize {
        self.end - self.start
    }
    /// Whether the batch ends here.
    fn last(&self) -> bool {
        self.end == self.batch.outputs.len()
    }
}

/// How far a partition has come at this target. Sequences of a partition only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Everything up to here was accepted or given up.
    acked: Option<u64>,
    /// Batches queued or in flight.
    waiting: usize,
    /// Items in the current request.
    in_flight: usize,
    /// Given up behind the request in flight: counts once that has ended.
    given_up: Option<u64>,
    /// The newest batch without samples behind all that wait.
    trailing: Option<u64>,
}

impl Progress {
    fn settle(&mut self) {
        if self.in_flight == 0 {
            self.acked = self.acked.max(self.given_up.take());
        }
        if self.waiting == 0 && self.in_flight == 0 {
            self.acked = self.acked.max(self.trailing.take());
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    /// Samples in `queue`.
    samples: usize,
    in_flight: Vec<Item>,
    progress: BTreeMap<u16, Progress>,
    /// Emptied for a successor: what a late sender reports no longer counts.
    closed: bool,
}

impl State {
    fn give_up_front(&mut self, outputs: usize, why: Dropped, metrics: &Metrics) {
        let Some(front) = self.queue.front_mut() else { return };
        let outputs = outputs.min(front.outputs());
        let given = front.batch.outputs.iter().skip(front.start).take(outputs);
        let samples: usize = given.map(|output| names::count(output, front.batch.names)).sum();
        front.start += outputs;
        front.samples = front.samples.saturating_sub(samples);
        self.samples = self.samples.saturating_sub(samples);
        metrics.unqueued(samples, outputs);
        metrics.give_up(why, samples);
        if front.start == front.end {
            let (partition, sequence, last) = (front.batch.partition, front.batch.sequence, front.last());
            self.queue.pop_front();
            if last {
                let progress = self.progress.entry(partition).or_default();
                progress.waiting = progress.waiting.saturating_sub(1);
                progress.given_up = Some(sequence);
                progress.settle();
            }
        }
    }

    fn expire(&mut self, now: Instant, age_limit: Duration, metrics: &Metrics) {
        while self.queue.front().is_some_and(|item| now.duration_since(item.queued) > age_limit) {
            self.give_up_front(usize::MAX, Dropped::Age, metrics);
        }
    }
}

/// What a closed shard leaves, by partition.
#[derive(Debug)]
pub struct Estate {
    /// All that is pending, in order.
    pub items: Vec<Item>,
    /// What is acknowledged.
    pub acked: BTreeMap<u16, u64>,
    /// What is acknowledged once nothing is pending.
    pub behind: BTreeMap<u16, u64>,
}

/// When the next request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// Then, unless it fills before.
    At(Instant),
    /// There is nothing to send.
    Never,
}

/// One shard's queue.
#[derive(Debug)]
pub struct Shard {
    state: Mutex<State>,
    /// Wakes the sender.
    pub wake: Notify,
    capacity: usize,
    max_samples: usize,
    age_limit: Duration,
}

impl Shard {
    /// Holds `capacity` samples, in requests of up to `max_samples`.
    pub fn new(capacity: usize, max_samples: usize, age_limit: Duration) -> Shard {
        Shard {
            state: Mutex::default(),
            wake: Notify::new(),
            capacity: capacity.max(1),
            max_samples: max_samples.max(1),
            age_limit,
        }
    }

    /// Queues a batch that makes `samples` samples, and makes room by giving up the oldest.
    pub fn push(&self, batch: &Arc<OutputBatch>, samples: usize, now: Instant, metrics: &Metrics) {
        if samples == 0 {
            let mut state = self.state.lock();
            let progress = state.progress.entry(batch.partition).or_default();
            progress.trailing = Some(batch.sequence);
            progress.settle();
            return;
        }
        let end = batch.outputs.len();
        self.push_item(Item { batch: batch.clone(), start: 0, end, samples, queued: now }, now, metrics);
    }

    fn push_item(&self, item: Item, now: Instant, metrics: &Metrics) {
        let mut state = self.state.lock();
        let before = state.samples;
        metrics.queued(item.samples, item.outputs());
        if item.last() {
            state.progress.entry(item.batch.partition).or_default().waiting += 1;
        }
        state.samples += item.samples;
        state.queue.push_back(item);
        state.expire(now, self.age_limit, metrics);
        while state.samples > self.capacity && !state.queue.is_empty() {
            let excess = state.samples - self.capacity;
            // Whole batches where they are small enough to go whole, else output by output.
            let whole = state.queue.front().is_some_and(|front| front.samples <= excess);
            state.give_up_front(if whole { usize::MAX } else { 1 }, Dropped::Capacity, metrics);
        }
        let wake = before == 0 || (before < self.max_samples && state.samples >= self.max_samples);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// When the next request is due; `hurry` does not wait for it to fill.
    pub fn due(&self, now: Instant, deadline: Duration, hurry: bool) -> Due {
        let state = self.state.lock();
        let Some(front) = state.queue.front() else { return Due::Never };
        let at = front.queued + deadline;
        if hurry || state.samples >= self.max_samples || at <= now { Due::Now } else { Due::At(at) }
    }

    /// Takes the next request's outputs. They stay pending until [`Shard::complete`].
    pub fn begin(&self, now: Instant, metrics: &Metrics) -> Vec<Item> {
        let mut state = self.state.lock();
        state.expire(now, self.age_limit, metrics);
        let mut left = self.max_samples;
        let mut taken: Vec<Item> = Vec::new();
        while let Some(front) = state.queue.front_mut() {
            if front.samples <= left {
                left -= front.samples;
                taken.extend(state.queue.pop_front());
            } else {
                let mut part = Item { end: front.start, samples: 0, ..front.clone() };
                for output in front.batch.outputs.get(front.start..front.end).unwrap_or(&[]) {
                    let samples = names::count(output, front.batch.names);
                    // An output stays whole; one that is larger than a request is a request.
                    if samples > left && !(taken.is_empty() && part.outputs() == 0) {
                        break;
                    }
                    left = left.saturating_sub(samples);
                    part.samples += samples;
                    part.end += 1;
                }
                front.start = part.end;
                front.samples = front.samples.saturating_sub(part.samples);
                let used_up = front.start == front.end;
                if part.outputs() > 0 {
                    taken.push(part);
                }
                if used_up {
                    state.queue.pop_front();
                }
                break;
            }
        }
        state.samples = state.samples.saturating_sub(taken.iter().map(|item| item.samples).sum());
        for item in &taken {
            state.progress.entry(item.batch.partition).or_default().in_flight += 1;
        }
        state.in_flight = taken.clone();
        taken
    }

    /// The request that was begun has ended: everything in it was accepted or given up.
    pub fn complete(&self, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for item in std::mem::take(&mut state.in_flight) {
            metrics.unqueued(item.samples, item.outputs());
            let progress = state.progress.entry(item.batch.partition).or_default();
            progress.in_flight = progress.in_flight.saturating_sub(1);
            if item.last() {
                progress.waiting = progress.waiting.saturating_sub(1);
                progress.acked = progress.acked.max(Some(item.batch.sequence));
            }
            progress.settle();
        }
    }

    /// Closes the shard and returns all that a successor needs.
    pub fn dismantle(&self, metrics: &Metrics) -> Estate {
        let mut state = self.state.lock();
        state.closed = true;
        let mut items = std::mem::take(&mut state.in_flight);
        items.extend(state.queue.drain(..));
        state.samples = 0;
        for item in &items {
            metrics.unqueued(item.samples, item.outputs());
        }
        let behind = |(partition, progress): (&u16, &Progress)| {
            Some((*partition, progress.trailing.max(progress.given_up)?))
        };
        Estate { items, acked: acked(&state), behind: state.progress.iter().filter_map(behind).collect() }
    }

    /// Takes over an acknowledgement from a predecessor.
    pub fn adopt_acked(&self, partition: u16, sequence: u64) {
        let mut state = self.state.lock();
        let progress = state.progress.entry(partition).or_default();
        progress.acked = progress.acked.max(Some(sequence));
    }

    /// Takes over, after all pending outputs, a sequence behind them from a predecessor.
    pub fn adopt_behind(&self, partition: u16, sequence: u64) {
        let mut state = self.state.lock();
        let progress = state.progress.entry(partition).or_default();
        progress.trailing = progress.trailing.max(Some(sequence));
        progress.settle();
    }

    /// Takes over pending outputs from a predecessor.
    pub fn adopt(&self, item: Item, now: Instant, metrics: &Metrics) {
        self.push_item(item, now, metrics);
    }

    /// For each partition, the sequence up to which everything was accepted or given up.
    pub fn acked(&self) -> BTreeMap<u16, u64> {
        acked(&self.state.lock())
    }

    /// When the oldest pending output was queued.
    pub fn oldest(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.in_flight.first().or(state.queue.front()).map(|item| item.queued)
    }
}

fn acked(state: &State) -> BTreeMap<u16, u64> {
    state.progress.iter().filter_map(|(partition, progress)| Some((*partition, progress.acked?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::{SCORE_ONLY, rule};
    use super::*;
    use crate::engine::{Output, OutputValue};
    use crate::labels::{Labels, NAME};
    use crate::rules::{As, OutputNames, Rule};
    use crate::time::Millis;
    use proptest::prelude::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn batch(rule: &Arc<Rule>, partition: u16, sequence: u64, outputs: usize) -> Arc<OutputBatch> {
        let output = |at| Output {
            labels: Labels::from_pairs(&[(NAME, "up")]),
            rule: rule.clone(),
            transform: As::Value,
            at: Millis(at),
            value: OutputValue::Stale,
            emit: true,
        };
        let outputs = (0..outputs as i64).map(output).collect();
        Arc::new(OutputBatch { sequence, partition, names: OutputNames::Oddity, outputs })
    }

    #[test]
    fn a_request_is_due_when_it_is_full_or_old_enough() {
        let (rule, metrics, now) = (Arc::new(rule(SCORE_ONLY, &[])), Metrics::default(), Instant::now());
        let (deadline, limit) = (Duration::from_millis(200), Duration::from_secs(3600));
        let shard = Shard::new(100, 10, limit);
        assert_eq!(shard.due(now, deadline, true), Due::Never);
        shard.push(&batch(&rule, 0, 1, 6), 6, now, &metrics);
        assert_eq!(shard.due(now, deadline, false), Due::At(now + deadline));
        assert_eq!(shard.due(now, deadline, true), Due::Now);
        assert_eq!(shard.due(now + deadline, deadline, false), Due::Now);
        shard.push(&batch(&rule, 0, 2, 6), 6, now, &metrics);
        assert_eq!(shard.due(now, deadline, false), Due::Now);
        let sizes = |items: Vec<Item>| items.iter().map(|item| (item.start, item.end)).collect::<Vec<_>>();
        assert_eq!(sizes(shard.begin(now, &metrics)), [(0, 6), (0, 4)]);
        shard.complete(&metrics);
        assert_eq!(shard.acked(), BTreeMap::from([(0, 1)]));
        assert_eq!(sizes(shard.begin(now + limit, &metrics)), [(4, 6)]);
        shard.complete(&metrics);
        assert_eq!(shard.acked(), BTreeMap::from([(0, 2)]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { partition: u16, outputs: usize },
        Begin,
        Complete,
        Wait,
        Move,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u16..3, 0usize..9).prop_map(|(partition, outputs)| Step::Push { partition, outputs }),
            3 => Just(Step::Begin),
            3 => Just(Step::Complete),
            1 => Just(Step::Wait),
            1 => Just(Step::Move),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: nothing is acknowledged while a sample of it or of
        /// anything before it is pending, all is in the end, and the accounts agree.
        #[test]
        fn acknowledgement_never_overtakes_what_is_pending(steps in prop::collection::vec(step(), 0..80)) {
            let (rule, metrics) = (Arc::new(rule(SCORE_ONLY, &[])), Metrics::default());
            let mut now = Instant::now();
            let new = || Shard::new(20, 7, Duration::from_secs(10));
            let (mut shard, mut busy) = (new(), false);
            let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
            let mut before: BTreeMap<u16, u64> = BTreeMap::new();
            let mut pushed = 0;
            let mut done = 0;
            for (sequence, step) in steps.into_iter().enumerate() {
                let sequence = sequence as u64;
                match step {
                    Step::Push { partition, outputs } => {
                        shard.push(&batch(&rule, partition, sequence, outputs), outputs, now, &metrics);
                        newest.insert(partition, sequence);
                        pushed += outputs;
                    }
                    Step::Begin if !busy => busy = !shard.begin(now, &metrics).is_empty(),
                    Step::Complete if busy => {
                        done += shard.state.lock().in_flight.iter().map(|item| item.samples).sum::<usize>();
                        shard.complete(&metrics);
                        busy = false;
                    }
                    Step::Wait => now += Duration::from_secs(6),
                    Step::Move => {
                        let estate = shard.dismantle(&metrics);
                        shard = new();
                        for (partition, sequence) in estate.acked {
                            shard.adopt_acked(partition, sequence);
                        }
                        estate.items.into_iter().for_each(|item| shard.adopt(item, now, &metrics));
                        for (partition, sequence) in estate.behind {
                            shard.adopt_behind(partition, sequence);
                        }
                        busy = false;
                    }
                    Step::Begin | Step::Complete => {}
                }
                let state = shard.state.lock();
                let all = || state.in_flight.iter().chain(&state.queue);
                let pending: usize = all().map(|item| item.samples).sum();
                prop_assert_eq!(metrics.pending.load(Relaxed), pending);
                prop_assert_eq!(state.queue.iter().map(|item| item.samples).sum::<usize>(), state.samples);
                prop_assert!(state.samples <= 20);
                let dropped: u64 = metrics.snapshot().dropped.iter().map(|(_, n)| n).sum();
                prop_assert_eq!(pushed, done + pending + dropped as usize);
                let acked = acked(&state);
                for item in all() {
                    let (partition, sequence) = (item.batch.partition, item.batch.sequence);
                    prop_assert!(acked.get(&partition).is_none_or(|acked| *acked < sequence));
                }
                for (partition, sequence) in &before {
                    prop_assert!(acked.get(partition) >= Some(sequence), "never goes back");
                }
                before = acked;
            }
            while busy || shard.due(now, Duration::ZERO, true) != Due::Never {
                shard.complete(&metrics);
                busy = !shard.begin(now, &metrics).is_empty();
            }
            prop_assert_eq!(shard.acked(), newest);
            prop_assert_eq!(metrics.pending.load(Relaxed), 0);
        }
    }
}
