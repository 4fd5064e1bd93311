//! The queue of one shard of a target: bounded, in order, with acknowledgement by partition.
//!
//! What waits is first the backlog on disk, then what is in memory. Writing moves all of the memory
//! behind the backlog, so for each partition there is no gap on disk.

use super::disk::BlockRef;
use super::metrics::{Dropped, Metrics};
use super::progress::Progress;
use crate::engine::{Output, OutputBatch};
use crate::time::{Millis, Span};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A batch in memory.
#[derive(Clone, Debug)]
pub struct Item {
    /// The batch, shared with the other targets.
    pub batch: Arc<OutputBatch>,
    /// Samples it makes, before relabelling.
    pub samples: usize,
    /// When it was queued.
    pub queued: Millis,
}

impl Item {
    /// About what it holds in memory, as if it were not shared.
    pub fn bytes(&self) -> usize {
        size_of::<OutputBatch>() + size_of::<Item>() + self.batch.outputs.len() * size_of::<Output>()
    }
}

/// What the next request is made of.
#[derive(Clone, Debug)]
pub enum Work {
    /// Batches in memory.
    Memory(Vec<Item>),
    /// A block on disk; of its batches those that [`Shard::wants`].
    Disk(Arc<BlockRef>),
}

#[derive(Debug, Default)]
enum Flight {
    #[default]
    Nothing,
    Memory {
        items: Vec<Item>,
        /// They are in the first block of the backlog as well, and counted there.
        on_disk: bool,
    },
    Disk(Arc<BlockRef>),
}

/// Bounds of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Samples in memory.
    pub capacity: usize,
    /// Bytes in memory from which on batches are to be written to the disk.
    pub spill_bytes: usize,
    /// Bytes in memory; where the disk does not keep up, the oldest go.
    pub memory_bytes: usize,
    /// Samples in a request; a batch is never cut.
    pub max_samples: usize,
    /// How long outputs may wait.
    pub age_limit: Span,
}

#[derive(Debug, Default)]
struct State {
    backlog: VecDeque<Arc<BlockRef>>,
    queue: VecDeque<Item>,
    /// Samples in `queue`.
    samples: usize,
    /// Bytes of `queue`.
    bytes: usize,
    in_flight: Flight,
    progress: BTreeMap<u16, Progress>,
    /// By partition, sequences that were settled or on disk at the start: not to be queued again.
    floors: BTreeMap<u16, u64>,
    /// Blocks that are settled, for the disk to hear of.
    released: Vec<Arc<BlockRef>>,
    /// The queue is being written to the disk: nothing is taken from its front.
    writing: bool,
    /// Emptied for a successor: what a late sender reports no longer counts.
    closed: bool,
}

impl State {
    fn of(&mut self, item: &Item) -> &mut Progress {
        self.progress.entry(item.batch.partition).or_default()
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.samples = self.samples.saturating_sub(item.samples);
        self.bytes = self.bytes.saturating_sub(item.bytes());
        Some(item)
    }

    fn give_up_front(&mut self, why: Dropped, metrics: &Metrics) {
        if let Some(item) = self.pop() {
            metrics.left_memory(&item);
            metrics.give_up(why, item.samples);
            self.of(&item).settled(item.batch.sequence);
        }
    }

    /// A block is accepted or given up.
    fn release(&mut self, block: Arc<BlockRef>, metrics: &Metrics) {
        metrics.unqueued(block.samples);
        for (partition, sequence) in &block.partitions {
            self.progress.entry(*partition).or_default().block_settled(block.reached(*sequence));
        }
        self.released.push(block);
    }

    /// Whether all of a block was acknowledged by other means: it was in flight when it was written.
    fn acked(&self, block: &BlockRef) -> bool {
        block.partitions.iter().all(|(partition, sequence)| {
            let acked = self.progress.get(partition).and_then(Progress::acked);
            acked >= block.reached(*sequence) && block.reached(*sequence).is_some()
        })
    }

    fn expire(&mut self, now: Millis, age_limit: Span, metrics: &Metrics) {
        let old = |queued: Millis| now.since(queued) > age_limit.0;
        while self.backlog.front().is_some_and(|block| old(block.queued.1)) {
            let Some(block) = self.backlog.pop_front() else { break };
            if !self.acked(&block) {
                metrics.give_up(Dropped::Age, block.samples);
            }
            self.release(block, metrics);
        }
        while !self.writing && self.queue.front().is_some_and(|item| old(item.queued)) {
            self.give_up_front(Dropped::Age, metrics);
        }
    }
}

/// What a closed shard leaves.
#[derive(Debug)]
pub struct Estate {
    /// Blocks on disk, in order.
    pub backlog: VecDeque<Arc<BlockRef>>,
    /// Batches in memory behind them, in order.
    pub items: Vec<Item>,
    /// How far each partition is.
    pub progress: BTreeMap<u16, Progress>,
    /// Sequences not to be queued again.
    pub floors: BTreeMap<u16, u64>,
    /// Settled blocks that the disk has not heard of.
    pub released: Vec<Arc<BlockRef>>,
}

/// When the next request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// After this time, unless it fills before.
    In(Duration),
    /// When what is being written to the disk has been; the shard wakes then.
    Later,
    /// There is nothing to send.
    Never,
}

/// One shard's queue.
#[derive(Debug)]
pub struct Shard {
    state: Mutex<State>,
    /// Wakes the sender.
    pub wake: Notify,
    bounds: Bounds,
}

impl Shard {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Shard {
        Shard { state: Mutex::default(), wake: Notify::new(), bounds }
    }

    /// Queues a batch that makes `samples` samples, and makes room by giving up the oldest. Whether
    /// it is time to write to the disk.
    pub fn push(&self, batch: &Arc<OutputBatch>, samples: usize, now: Millis, metrics: &Metrics) -> bool {
        let mut state = self.state.lock();
        if state.floors.get(&batch.partition).is_some_and(|floor| batch.sequence <= *floor) {
            return false;
        }
        let progress = state.progress.entry(batch.partition).or_default();
        if samples == 0 {
            progress.nothing(batch.sequence);
            return false;
        }
        progress.queued(batch.sequence);
        let before = state.samples;
        self.enqueue(&mut state, Item { batch: batch.clone(), samples, queued: now }, metrics);
        state.expire(now, self.bounds.age_limit, metrics);
        self.make_room(&mut state, metrics);
        let full = self.bounds.max_samples;
        let wake = before == 0 || (before < full && state.samples >= full);
        let spill = state.bytes > self.bounds.spill_bytes;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        spill
    }

    fn enqueue(&self, state: &mut State, item: Item, metrics: &Metrics) {
        metrics.in_memory(&item);
        state.samples += item.samples;
        state.bytes += item.bytes();
        state.queue.push_back(item);
    }

    fn make_room(&self, state: &mut State, metrics: &Metrics) {
        let over =
            |state: &State| state.samples > self.bounds.capacity || state.bytes > self.bounds.memory_bytes;
        while !state.writing && state.queue.len() > 1 && over(state) {
            state.give_up_front(Dropped::Capacity, metrics);
        }
    }

    /// When the next request is due; `hurry` does not wait for it to fill.
    pub fn due(&self, now: Millis, deadline: Span, hurry: bool) -> Due {
        let state = self.state.lock();
        let Some(front) = state.queue.front() else {
            return if state.backlog.is_empty() { Due::Never } else { Due::Now };
        };
        if state.writing {
            return Due::Later;
        }
        let left = deadline.0.saturating_sub(now.since(front.queued));
        if hurry || !state.backlog.is_empty() || state.samples >= self.bounds.max_samples || left <= 0 {
            Due::Now
        } else {
            Due::In(Span(left).as_std())
        }
    }

    /// Takes the next request's outputs. They stay pending until [`Shard::complete`].
    pub fn begin(&self, now: Millis, metrics: &Metrics) -> Option<Work> {
        let mut state = self.state.lock();
        if state.writing {
            return None;
        }
        state.expire(now, self.bounds.age_limit, metrics);
        while let Some(block) = state.backlog.pop_front() {
            if !state.acked(&block) {
                for (partition, _) in &block.partitions {
                    state.progress.entry(*partition).or_default().takes_off();
                }
                state.in_flight = Flight::Disk(block.clone());
                return Some(Work::Disk(block));
            }
            state.release(block, metrics);
        }
        let mut taken: Vec<Item> = Vec::new();
        let mut left = self.bounds.max_samples;
        while state.queue.front().is_some_and(|front| front.samples <= left || taken.is_empty()) {
            let Some(item) = state.pop() else { break };
            left = left.saturating_sub(item.samples);
            state.of(&item).takes_off();
            taken.push(item);
        }
        if taken.is_empty() {
            return None;
        }
        state.in_flight = Flight::Memory { items: taken.clone(), on_disk: false };
        Some(Work::Memory(taken))
    }

    /// The partitions of a block that are to be sent, each with the sequence up to which it is settled
    /// already.
    pub fn wants(&self, block: &BlockRef) -> BTreeMap<u16, Option<u64>> {
        let state = self.state.lock();
        let acked = |(partition, sequence): &(u16, u64)| {
            let acked = state.progress.get(partition).and_then(Progress::acked);
            (*partition, block.reached(*sequence).and(acked))
        };
        block.partitions.iter().map(acked).collect()
    }

    /// The request that was begun has ended: everything in it was accepted or given up. How far its
    /// partitions have come.
    pub fn complete(&self, metrics: &Metrics) -> Vec<(u16, u64)> {
        let mut state = self.state.lock();
        if state.closed {
            return Vec::new();
        }
        let flight = std::mem::take(&mut state.in_flight);
        let mut partitions: Vec<u16> = match &flight {
            Flight::Nothing => Vec::new(),
            Flight::Memory { items, .. } => items.iter().map(|item| item.batch.partition).collect(),
            Flight::Disk(block) => block.partitions.iter().map(|(partition, _)| *partition).collect(),
        };
        partitions.sort_unstable();
        partitions.dedup();
        for partition in &partitions {
            state.progress.entry(*partition).or_default().lands();
        }
        match flight {
            Flight::Nothing => {}
            Flight::Memory { items, on_disk } => {
                for item in items {
                    if on_disk {
                        state.of(&item).reached(Some(item.batch.sequence));
                    } else {
                        metrics.left_memory(&item);
                        state.of(&item).settled(item.batch.sequence);
                    }
                }
            }
            Flight::Disk(block) => state.release(block, metrics),
        }
        let acked = |partition: u16| Some((partition, state.progress.get(&partition)?.acked()?));
        partitions.into_iter().filter_map(acked).collect()
    }

    /// Settled blocks that the disk has not heard of; what is too old is given up before.
    pub fn released(&self, now: Millis, metrics: &Metrics) -> Vec<Arc<BlockRef>> {
        let mut state = self.state.lock();
        state.expire(now, self.bounds.age_limit, metrics);
        std::mem::take(&mut state.released)
    }

    /// Whether there is more in memory than there should be.
    pub fn over(&self) -> bool {
        self.state.lock().bytes > self.bounds.spill_bytes
    }

    /// All that is in memory and not on disk, in order, a request in flight first; nothing is taken
    /// from the queue until [`Shard::written`]. Empty where there is nothing to write.
    pub fn write(&self) -> Vec<Item> {
        let mut state = self.state.lock();
        if state.closed || state.writing {
            return Vec::new();
        }
        let mut items = match &state.in_flight {
            Flight::Memory { items, on_disk: false } => items.clone(),
            _ => Vec::new(),
        };
        items.extend(state.queue.iter().cloned());
        state.writing = !items.is_empty();
        items
    }

    /// These items, as [`Shard::write`] gave them, are in these blocks now; `None`: they could not be
    /// written and stay in memory.
    pub fn written(&self, items: &[Item], blocks: Option<Vec<Arc<BlockRef>>>, metrics: &Metrics) {
        let mut state = self.state.lock();
        state.writing = false;
        if let Some(blocks) = blocks {
            if let Flight::Memory { items, on_disk: on_disk @ false } = &mut state.in_flight {
                *on_disk = true;
                items.iter().for_each(|item| metrics.left_memory(item));
            }
            // Behind a request in flight, which may have ended meanwhile, `items` are the queue's first.
            for item in items {
                let queued = |front: &Item| Arc::ptr_eq(&front.batch, &item.batch);
                if state.queue.front().is_some_and(queued) && state.pop().is_some() {
                    metrics.left_memory(item);
                }
                state.of(item).moved(item.batch.sequence);
            }
            for block in &blocks {
                metrics.queued(block.samples);
                for (partition, _) in &block.partitions {
                    state.progress.entry(*partition).or_default().block();
                }
            }
            state.backlog.extend(blocks);
        }
        self.make_room(&mut state, metrics);
        drop(state);
        self.wake.notify_one();
    }

    /// Gives up the blocks of a segment that had to go.
    pub fn give_up_segment(&self, number: u64, metrics: &Metrics) {
        let mut state = self.state.lock();
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.backlog).into_iter().partition(|block| block.segment.number == number);
        state.backlog = kept;
        for block in gone {
            if !state.acked(&block) {
                metrics.give_up(Dropped::DiskCapacity, block.samples);
            }
            state.release(block, metrics);
        }
    }

    /// Closes the shard and returns all that a successor needs.
    pub fn dismantle(&self, metrics: &Metrics) -> Estate {
        let mut state = self.state.lock();
        state.closed = true;
        let mut items = Vec::new();
        let mut backlog = std::mem::take(&mut state.backlog);
        match std::mem::take(&mut state.in_flight) {
            Flight::Memory { items: flying, on_disk: false } => items = flying,
            Flight::Disk(block) => backlog.push_front(block),
            Flight::Memory { .. } | Flight::Nothing => {}
        }
        items.extend(std::iter::from_fn(|| state.pop()));
        items.iter().for_each(|item| metrics.left_memory(item));
        metrics.unqueued(backlog.iter().map(|block| block.samples).sum());
        state.progress.values_mut().for_each(Progress::put_back);
        Estate {
            items,
            backlog,
            progress: std::mem::take(&mut state.progress),
            floors: std::mem::take(&mut state.floors),
            released: std::mem::take(&mut state.released),
        }
    }

    /// Takes over how far a partition is from a predecessor, or from a file.
    pub fn adopt_progress(&self, partition: u16, progress: Progress, floor: Option<u64>) {
        let mut state = self.state.lock();
        state.progress.insert(partition, progress);
        if let Some(floor) = floor {
            state.floors.insert(partition, floor);
        }
    }

    /// Takes over a block behind those that are there. `counted`: its partitions' progress knows of it.
    pub fn adopt_block(&self, block: Arc<BlockRef>, counted: bool, metrics: &Metrics) {
        let mut state = self.state.lock();
        metrics.queued(block.samples);
        if !counted {
            for (partition, _) in &block.partitions {
                state.progress.entry(*partition).or_default().block();
            }
        }
        state.backlog.push_back(block);
    }

    /// Takes over a batch in memory, which its partition's progress knows of.
    pub fn adopt(&self, item: Item, now: Millis, metrics: &Metrics) {
        let mut state = self.state.lock();
        self.enqueue(&mut state, item, metrics);
        state.expire(now, self.bounds.age_limit, metrics);
        self.make_room(&mut state, metrics);
        drop(state);
        self.wake.notify_one();
    }

    /// For each partition, the sequence up to which everything was accepted or given up.
    pub fn acked(&self) -> BTreeMap<u16, u64> {
        let state = self.state.lock();
        let acked = |(partition, progress): (&u16, &Progress)| Some((*partition, progress.acked()?));
        state.progress.iter().filter_map(acked).collect()
    }

    /// When the oldest pending output was queued.
    pub fn oldest(&self) -> Option<Millis> {
        let state = self.state.lock();
        let flying = match &state.in_flight {
            Flight::Memory { items, .. } => items.first().map(|item| item.queued),
            Flight::Disk(block) => Some(block.queued.0),
            Flight::Nothing => None,
        };
        flying
            .or(state.backlog.front().map(|block| block.queued.0))
            .or(state.queue.front().map(|item| item.queued))
    }
}

#[cfg(test)]
mod tests;
