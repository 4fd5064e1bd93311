//! Records that were applied before are applied again, each at the place that it had.
//!
//! Some at a time are decompressed, decoded and identified by several threads, while the lanes work on those
//! before. Only then does each get its place, one after the other: a change of the rules among them finds no one
//! who still goes by the old ones, and a body that did is identified again.

use super::identify::Prepared;
use super::lanes::Pending;
use super::{Engine, Place};
use crate::record::{Body, Kept, Logged, Record};
use std::collections::VecDeque;
use std::thread;

/// Records that a thread is given at a time: a thread is not begun for less, and more would only wait.
const EACH: usize = 4;
/// Threads at most. Few are faster than the lanes are.
const THREADS: usize = 8;

/// Threads that decode the records of a replay.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

/// A record, read, and a body made ready for its place.
enum Ready {
    Body(Body, Box<Prepared>),
    Other(Logged),
}

/// Applies records again. Does not wait for each.
pub struct Replay<'a> {
    engine: &'a Engine,
    /// Bytes that one body may decompress to.
    limit: usize,
    threads: usize,
    next: Vec<Kept>,
    waiting: VecDeque<Pending>,
    passed_over: Vec<String>,
}

impl Engine {
    /// Begins to apply records that have been applied before. `limit`: bytes that one body may decompress to.
    pub fn replay(&self, limit: usize) -> Replay<'_> {
        let (next, waiting, passed_over) = Default::default();
        Replay { engine: self, limit, threads: threads(), next, waiting, passed_over }
    }

    fn ready(&self, kept: &Kept, limit: usize) -> Result<Ready, String> {
        let read = Logged::read(kept.kind, kept.payload.clone(), limit);
        match read.map_err(|error| error.to_string())? {
            Logged::Record(Record::Body(body)) => {
                let work = self.identify(&body).map_err(|error| error.to_string())?;
                Ok(Ready::Body(body, Box::new(work)))
            }
            other => Ok(Ready::Other(other)),
        }
    }

    /// Gives a record the place that it had.
    fn again(&self, sequence: u64, ready: Ready) -> Result<Option<Pending>, String> {
        let place = Place::At(sequence);
        match ready {
            Ready::Body(body, work) => {
                self.submit(&body, *work, place).map(Some).map_err(|error| error.to_string())
            }
            Ready::Other(Logged::Record(record)) => Ok(self.other(record, place).1),
            Ready::Other(Logged::Published { through, models }) => {
                self.published(sequence, through, &models).map_err(|error| error.to_string())?;
                Ok(None)
            }
        }
    }
}

impl Replay<'_> {
    /// Takes a record. They are to come in their order.
    pub fn take(&mut self, kept: Kept) {
        self.next.push(kept);
        if self.next.len() >= EACH * self.threads {
            self.apply();
        }
    }

    /// Waits until all is applied. Returns what was wrong with records that cannot be, for people: one line each.
    pub fn finish(mut self) -> Vec<String> {
        self.apply();
        self.settle(0);
        std::mem::take(&mut self.passed_over)
    }

    fn apply(&mut self) {
        let next = std::mem::take(&mut self.next);
        let (engine, limit) = (self.engine, self.limit);
        let ready = |some: &[Kept]| -> Vec<_> { some.iter().map(|kept| engine.ready(kept, limit)).collect() };
        let ready: Vec<Vec<_>> = thread::scope(|scope| {
            let threads: Vec<_> = next.chunks(EACH).map(|some| scope.spawn(move || ready(some))).collect();
            let result = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(result).collect()
        });
        for (kept, ready) in next.iter().zip(ready.into_iter().flatten()) {
            match ready.and_then(|ready| engine.again(kept.sequence, ready)) {
                Ok(pending) => self.waiting.extend(pending),
                Err(why) => self.passed_over.push(format!("record {} was passed over: {why}", kept.sequence)),
            }
        }
        // Enough for the lanes to be busy while the next are decoded.
        self.settle(EACH * self.threads);
    }

    fn settle(&mut self, left: usize) {
        while self.waiting.len() > left {
            let Some(pending) = self.waiting.pop_front() else { break };
            if let Some((_, _, work)) = pending.wait() {
                self.engine.keep(work);
            }
        }
    }
}

impl Drop for Replay<'_> {
    /// Waits for the lanes, also where the log could not be read to its end.
    fn drop(&mut self) {
        self.settle(0);
    }
}
