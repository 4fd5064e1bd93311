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
use std::sync::OnceLock;
use std::thread;

/// Records that a thread is given at a time.
const EACH: usize = 4;
/// Threads at most: few are faster than the lanes are.
const THREADS: usize = 8;
/// Bytes of bodies that are decoded together, and as many that wait for the lanes: as one body may be larger,
/// one at a time always goes.
const BYTES: usize = 64 << 20;

/// Threads that decode the records of a replay.
pub(super) fn threads() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from));
    cores.min(THREADS)
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
    /// Of those, read.
    next_bytes: usize,
    /// What the lanes have not done yet, each with the bytes of its record.
    waiting: VecDeque<(Pending, usize)>,
    waiting_bytes: usize,
    passed_over: Vec<String>,
}

impl Engine {
    /// Begins to apply records that have been applied before. `limit`: bytes that one body may decompress to.
    pub fn replay(&self, limit: usize) -> Replay<'_> {
        self.replay_by(threads(), limit)
    }

    fn replay_by(&self, threads: usize, limit: usize) -> Replay<'_> {
        Replay {
            engine: self,
            limit,
            threads,
            next: Vec::new(),
            next_bytes: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            passed_over: Vec::new(),
        }
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
        let size = kept.size(self.limit);
        if self.next_bytes + size > BYTES {
            self.apply();
        }
        self.next_bytes += size;
        self.next.push(kept);
        if self.next.len() >= EACH * self.threads {
            self.apply();
        }
    }

    /// Waits until all is applied. Returns what was wrong with records that cannot be, for people: one line each.
    pub fn finish(mut self) -> Vec<String> {
        self.apply();
        self.settle(0, 0);
        std::mem::take(&mut self.passed_over)
    }

    fn apply(&mut self) {
        let next = std::mem::take(&mut self.next);
        self.next_bytes = 0;
        let (engine, limit) = (self.engine, self.limit);
        let ready = |some: &[Kept]| -> Vec<_> { some.iter().map(|kept| engine.ready(kept, limit)).collect() };
        let ready: Vec<_> = if self.threads == 1 || next.len() <= EACH {
            ready(&next)
        } else {
            thread::scope(|scope| {
                let begin = |some| scope.spawn(move || ready(some));
                let threads: Vec<_> = next.chunks(EACH).map(begin).collect();
                let result = |thread: thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                threads.into_iter().flat_map(result).collect()
            })
        };
        for (kept, ready) in next.iter().zip(ready) {
            if let Ok(Ready::Other(Logged::Record(Record::Rules(_)))) = ready {
                // As a single sender has it: lanes have told all that they found by the old rules.
                self.settle(0, 0);
            }
            match ready.and_then(|ready| engine.again(kept.sequence, ready)) {
                Ok(None) => {}
                Ok(Some(pending)) => {
                    let size = kept.size(limit);
                    self.waiting_bytes += size;
                    self.waiting.push_back((pending, size));
                }
                Err(why) => self.passed_over.push(format!("record {} was passed over: {why}", kept.sequence)),
            }
        }
        // Enough for the lanes to be busy while the next are decoded.
        self.settle(EACH * self.threads, BYTES);
    }

    /// Waits until no more records, and no more bytes, are left to the lanes.
    fn settle(&mut self, records: usize, bytes: usize) {
        while self.waiting.len() > records || self.waiting_bytes > bytes {
            let Some((pending, size)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= size;
            if let Some((_, _, work)) = pending.wait() {
                self.engine.keep(work);
            }
        }
    }
}

impl Drop for Replay<'_> {
    /// Waits for the lanes, also where the log could not be read to its end.
    fn drop(&mut self) {
        self.settle(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Kept as Outputs, body, digest};
    use super::*;
    use crate::engine::OutputSink;
    use crate::record::Entry;
    use crate::rules::RuleSet;
    use crate::time::Millis;
    use crate::wire::Version;
    use std::sync::Arc;

    fn rule_set(ignored: &str) -> Arc<RuleSet> {
        let text = format!(
            "ha: {{replica_label: {ignored}}}\nrules:\n- name: r\n  match: '{{__name__=~\"m.*\"}}'\n"
        );
        Arc::new(RuleSet::parse("test", &text).expect("valid").0)
    }

    /// Ninety minutes of three series, with what else may come between them.
    fn records() -> Vec<Record> {
        let mut records = Vec::new();
        for minute in 0..90 {
            let value = 100.0 + f64::from(minute * 37 % 11);
            let at = i64::from(minute) * 60;
            records.push(body(Version::V2, &[("m", "a", at, value), ("m2", "b", at, -value)]));
            records.push(body(Version::V1, &[("m3", "a", at, value * if minute == 80 { 9.0 } else { 1.0 })]));
            match minute {
                30 => records.push(Record::Elect { cluster: "c".into(), replica: "x".into() }),
                50 => records.push(Record::Tick { group: String::new(), to: Millis(at * 1000 + 30_000) }),
                _ => {}
            }
        }
        records
    }

    fn kept(sequence: u64, record: &Record) -> Kept {
        let Entry { kind, head, body, .. } = Entry::of(record);
        Kept { sequence, kind, payload: [head.as_slice(), &body].concat().into() }
    }

    fn engine(rules: &Arc<RuleSet>) -> (Engine, Arc<Outputs>) {
        let outputs = Arc::new(Outputs::default());
        (Engine::new(rules.clone(), 2, vec![outputs.clone() as Arc<dyn OutputSink>]), outputs)
    }

    #[test]
    fn a_replay_is_what_was_whatever_the_number_of_threads() {
        let first = rule_set("__replica__");
        let (live, said) = engine(&first);
        let mut log = Vec::new();
        for (number, record) in records().into_iter().enumerate() {
            // The pod is no part of a series' identity for a while.
            let change = match number {
                101 => Some(rule_set("pod")),
                103 => Some(rule_set("__replica__")),
                _ => None,
            };
            for record in change.map(Record::Rules).into_iter().chain([record]) {
                let applied = live.apply(record.clone()).expect("applies");
                log.push(kept(applied.sequence, &record));
            }
        }
        assert!(said.0.lock().iter().any(|batch| batch.outputs.iter().any(|output| output.flagged())));
        for threads in [1, 2, 3, 8] {
            let (again, told) = engine(&first);
            let mut replay = again.replay_by(threads, 1 << 20);
            log.iter().cloned().for_each(|kept| replay.take(kept));
            let newest = log.last().map_or(0, |kept| kept.sequence);
            let unknown = Kept { sequence: newest + 1, kind: 99, payload: Default::default() };
            replay.take(unknown);
            let passed_over = replay.finish();
            assert!(matches!(&*passed_over, [why] if why.contains("unknown kind 99")), "{passed_over:?}");
            assert_eq!(again.digest(), live.digest(), "{threads} threads");
            assert_eq!(digest(&told), digest(&said), "{threads} threads");
            assert_eq!(again.sequence(), newest);
        }
    }

    #[test]
    fn large_bodies_are_decoded_one_at_a_time() {
        let (engine, _) = engine(&rule_set("__replica__"));
        let mut replay = engine.replay_by(8, BYTES);
        let large = |sequence| {
            // Snappy of some 60 MB that nothing follows.
            let payload = [&[0; 8][..], &[2, 1], &[0x80, 0xb8, 0x8e, 0x1c]].concat().into();
            Kept { sequence, kind: 1, payload }
        };
        assert_eq!(large(1).size(usize::MAX), 58_956_800);
        for sequence in 1..=3 {
            replay.take(large(sequence));
            assert_eq!(replay.next.len(), 1);
        }
        assert_eq!(replay.finish().len(), 3, "none can be read");
    }
}
