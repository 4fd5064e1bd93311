//! Lanes: worker threads that own partitions and work through records in sequence order.

use super::apply::{Effects, Work};
use super::context::Context;
use super::effort;
use super::epochs::Closing;
use super::identify::Prepared;
use super::pulse::Due;
use super::{OutputBatch, Shared, Tally};
use crate::fail::{self, Point};
use crate::registry::{PARTITIONS, Partition, partition::Series};
use crate::time::{Millis, Span};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A slot is looked at for a forgotten series for every so many records that touch a partition, and for
/// every so many samples in them: each look may wait for memory.
const SWEEP_EVERY: (u64, usize) = (8, 32);

/// A body with its place in the order.
pub(super) struct Step {
    sequence: u64,
    context: Arc<Context>,
    work: Prepared,
    bytes: Bytes,
    latest: Millis,
    dues: Vec<Due>,
}

impl Step {
    pub(super) fn new(
        sequence: u64,
        context: Arc<Context>,
        work: Prepared,
        bytes: Bytes,
        latest: Millis,
        dues: Vec<Due>,
    ) -> Step {
        Step { sequence, context, work, bytes, latest, dues }
    }
}

/// What lanes work through.
enum Task {
    Body(Arc<Shipped>),
    Close(Arc<Closing>),
    Image(usize, Vec<u8>, Sender<(u64, Vec<u8>)>),
}

/// A step on its way through the lanes. The last lane to let go of it sends it back.
struct Shipped {
    step: Step,
    tally: Mutex<Tally>,
    done: Sender<(Step, Tally)>,
}

/// Waits for a step to be applied by every lane.
pub(super) struct Pending {
    /// The step's place in the order.
    pub sequence: u64,
    done: Receiver<(Step, Tally)>,
}

impl Pending {
    /// Blocks until the step is applied; gives back its sequence, its tally and its memory. `None`
    /// where the lanes have ended with the step in their queue.
    pub(super) fn wait(self) -> Option<(u64, Tally, Prepared)> {
        let (step, tally) = self.done.recv().ok()?;
        Some((step.sequence, tally, step.work))
    }
}

/// The lanes.
pub(super) struct Lanes {
    queues: Vec<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
    efforts: Vec<Arc<Effort>>,
}

/// CPU time that a lane has spent, ns.
#[derive(Default)]
struct Effort {
    /// On images: a replay takes none.
    images: AtomicU64,
    /// On all other tasks.
    records: AtomicU64,
}

impl Lanes {
    /// Starts `count` lanes.
    pub(super) fn start(count: usize, shared: &Arc<Shared>) -> Lanes {
        let mut lanes = Lanes { queues: Vec::new(), threads: Vec::new(), efforts: Vec::new() };
        for lane in 0..count {
            let (queue, steps) = unbounded::<Task>();
            let shared = shared.clone();
            let effort = Arc::new(Effort::default());
            lanes.efforts.push(effort.clone());
            let work = move || {
                for step in steps {
                    let started = effort::so_far();
                    let mut count_in = &effort.records;
                    match step {
                        Task::Body(shipped) => {
                            shipped.run(&shared, lane, count);
                            Shipped::let_go(shipped);
                        }
                        Task::Close(closing) => {
                            closing.run(&shared, lane, count);
                            Closing::let_go(closing);
                        }
                        Task::Image(number, room, to) => {
                            count_in = &effort.images;
                            // Nobody waits any more where a checkpoint was given up.
                            let _ = to.send(image(&shared, number, room));
                        }
                    }
                    let worked = effort::so_far().saturating_sub(started);
                    count_in.fetch_add(worked.as_nanos() as u64, Ordering::Relaxed);
                }
            };
            match std::thread::Builder::new().name(format!("lane-{lane}")).spawn(work) {
                Ok(thread) => {
                    lanes.queues.push(queue);
                    lanes.threads.push(thread);
                }
                Err(error) => {
                    // Partitions belong to lanes by number, so it is all of them or none.
                    tracing::error!(%error, "cannot start worker threads; scoring on the receiving threads");
                    lanes.queues.clear();
                    break;
                }
            }
        }
        lanes
    }

    /// Hands a step to the lanes. Called under the lock of the order, so queues are in its order.
    /// Without lanes the step is applied here and now.
    pub(super) fn submit(&self, step: Step, shared: &Shared) -> Pending {
        let (done, wait) = bounded(1);
        let sequence = step.sequence;
        let shipped = Arc::new(Shipped { step, tally: Mutex::default(), done });
        if self.queues.is_empty() {
            shipped.run(shared, 0, 1);
        }
        for queue in &self.queues {
            // A lane ends only when the engine is dropped.
            let _ = queue.send(Task::Body(shipped.clone()));
        }
        Shipped::let_go(shipped);
        Pending { sequence, done: wait }
    }

    /// A partition as it is after all steps submitted before: the last of them that touched it, and its
    /// image, in `room`. Waits for its lane; without lanes it must be called under the lock of the order.
    pub(super) fn image(
        &self,
        number: usize,
        room: Vec<u8>,
        shared: &Shared,
    ) -> Option<Receiver<(u64, Vec<u8>)>> {
        let (to, wait) = bounded(1);
        match self.queues.get(number % self.queues.len().max(1)) {
            None => {
                // The receiver is right here.
                let _ = to.send(image(shared, number, room));
                Some(wait)
            }
            Some(queue) => queue.send(Task::Image(number, room, to)).ok().map(|()| wait),
        }
    }

    /// The mean CPU time that a lane has spent on its tasks, images apart, ns.
    pub(super) fn busy(&self) -> u64 {
        self.mean(|effort| &effort.records)
    }

    /// The mean CPU time that a lane has spent on images, ns.
    pub(super) fn imaged(&self) -> u64 {
        self.mean(|effort| &effort.images)
    }

    fn mean(&self, of: impl Fn(&Effort) -> &AtomicU64) -> u64 {
        let all: u64 = self.efforts.iter().map(|effort| of(effort).load(Ordering::Relaxed)).sum();
        all / self.efforts.len().max(1) as u64
    }

    /// Hands the step that closes epochs to the lanes; called as [`Lanes::submit`] is.
    pub(super) fn close(&self, closing: Arc<Closing>, shared: &Shared) {
        if self.queues.is_empty() {
            closing.run(shared, 0, 1);
        }
        for queue in &self.queues {
            let _ = queue.send(Task::Close(closing.clone()));
        }
        Closing::let_go(closing);
    }
}

fn image(shared: &Shared, number: usize, mut bytes: Vec<u8>) -> (u64, Vec<u8>) {
    bytes.clear();
    let Some(partition) = shared.partitions.get(&(number as u8)) else { return (0, bytes) };
    partition.store(&mut bytes);
    (partition.sequence, bytes)
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shipped {
    fn let_go(shipped: Arc<Shipped>) {
        if let Some(Shipped { step, tally, done }) = Arc::into_inner(shipped) {
            // Nobody waits any more where the caller has panicked.
            let _ = done.send((step, tally.into_inner()));
        }
    }

    /// Applies the step to the partitions of one lane.
    fn run(&self, shared: &Shared, lane: usize, lanes: usize) {
        let mut tally = Tally::default();
        let all = AssertUnwindSafe(|| {
            for number in (lane..PARTITIONS).step_by(lanes) {
                if number / lanes == PARTITIONS / lanes / 2 {
                    fail::point(Point::Apply);
                }
                if !self.step.dues.is_empty() || !self.step.work.of(number).is_empty() {
                    self.partition(shared, number, &mut tally);
                }
            }
        });
        // A defect of ours must cost one record's share, not the lane and with it every sender.
        if catch_unwind(all).is_err() {
            tracing::error!(sequence = self.step.sequence, lane, "a record was not applied in full: a bug");
        }
        self.tally.lock().join(&tally);
    }

    fn partition(&self, shared: &Shared, number: usize, tally: &mut Tally) {
        let Some(mut partition) = shared.partitions.get_mut(&(number as u8)) else { return };
        if partition.watches.is_empty() && self.step.work.of(number).is_empty() {
            return;
        }
        // A replay begins before the images of most partitions were taken.
        if partition.sequence >= self.step.sequence {
            return;
        }
        let mut effects = Effects::default();
        let context = &*self.step.context;
        let work = Work {
            context,
            body: &self.step.work,
            dues: &self.step.dues,
            bytes: &self.step.bytes,
            identifier: &shared.identifier,
            latest: self.step.latest,
            want_all: shared.want_all,
            kept: &shared.kept,
            cardinality: &shared.cardinality,
            counters: &shared.epochs,
        };
        work.apply(&mut partition, number, &mut effects);
        partition.sequence = self.step.sequence;
        let (records, samples) = SWEEP_EVERY;
        let turn = (self.step.sequence + number as u64).is_multiple_of(records);
        let slots = usize::from(turn) + self.step.work.of(number).len() / samples;
        sweep(&mut partition, context, slots, shared);
        drop(partition);
        shared.identifier.aliases.learn(self.step.work.generation, effects.aliases.drain(..));
        tally.join(&effects.tally);
        if effects.outputs.is_empty() {
            return;
        }
        let batch = Arc::new(OutputBatch {
            sequence: self.step.sequence,
            partition: number as u16,
            rules: context.rules.clone(),
            outputs: effects.outputs,
        });
        for sink in &shared.sinks {
            sink.take(&batch);
        }
    }
}

/// Looks at the next few slots and forgets the series that have been silent for `forget_after` and
/// a quarter (at most an hour) more, so that samples that come a little late still find theirs.
pub(super) fn sweep(partition: &mut Partition, context: &Context, slots: usize, shared: &Shared) -> usize {
    let limit = context.rules.forget_after.0;
    let limit = limit.saturating_add((limit / 4).min(Span::HOUR.0));
    let silent = |series: &Series| context.observed(series.group).0.saturating_sub(series.newest.0) > limit;
    let mut removed = 0;
    for _ in 0..slots {
        let bound = partition.series.bound();
        if bound == 0 {
            break;
        }
        let at = partition.sweep_from % bound;
        partition.sweep_from = at + 1;
        if let Some(series) = partition.series.get(at).filter(|series| silent(series)) {
            shared.cardinality.leave(series.counted);
            partition.remove(at);
            removed += 1;
        }
    }
    shared.kept.fetch_sub(removed, Ordering::Relaxed);
    removed
}
