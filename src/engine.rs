//! The engine: records in, scores out.
//!
//! A body is decoded and identified on its caller's thread. It then takes its sequence under one
//! lock, together with the context as of that place in the order, and its samples go to the lanes:
//! worker threads that each own every n-th partition and work through their queue in sequence
//! order. So every partition applies records in log order, whatever the number of threads.

mod account;
pub mod apply;
pub mod cardinality;
pub mod context;
mod effort;
mod epochs;
#[cfg(test)]
mod holes;
pub mod identify;
#[cfg(test)]
mod images;
mod lanes;
pub mod output;
pub mod own;
pub mod pulse;
mod replay;
mod restore;
mod series;
pub mod signal;
mod silence;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use crate::registry::partition::FORMAT;
pub use account::Account;
pub use output::{Detail, Output, OutputBatch, OutputSink, OutputValue};
pub use replay::Replay;
pub use restore::{Image, check_models};
pub use status::{EngineStats, SignalStatus, Standing};

use crate::labels::Interner;
use crate::record::{Body, Entry, Journal, NotKept, Record};
use crate::registry::summary::epoch;
use crate::registry::{AliasCache, Partitions, partitions};
use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::{Batch, WireError};
use context::Context;
use identify::{Identifier, Prepared};
use lanes::{Lanes, Pending, Step};
use parking_lot::Mutex;
use pulse::Pulses;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What became of a well-formed sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)] // each is explained by its name below
pub enum Reason {
    Scored,
    Warming,
    Unmatched,
    Duplicate,
    OutOfOrder,
    OwnOutput,
    OverLimit,
    TooFarAhead,
    StaleMarker,
    NotFinite,
    Replica,
    NoSignal,
    Ignored,
    Withheld,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 14;
    /// Their names, as `oddity_samples_handled_total{reason}` has them.
    pub const NAMES: [&'static str; Reason::COUNT] = [
        "scored",
        "warming",
        "unmatched",
        "duplicate",
        "out_of_order",
        "own_output",
        "over_limit",
        "too_far_ahead",
        "stale_marker",
        "not_finite",
        "replica",
        "no_signal",
        "ignored",
        "withheld",
    ];
}

/// Counts of samples by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    counts: [u64; Reason::COUNT],
    flagged: u64,
}

impl Tally {
    /// Counts samples.
    pub fn add(&mut self, reason: Reason, samples: u64) {
        self.counts[reason as usize] += samples;
    }
    fn join(&mut self, other: &Tally) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.flagged += other.flagged;
    }
}

/// Why a record was not applied, or must not be acknowledged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// The body cannot be decoded; nothing of it is kept.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It was applied, and a crash would lose it: the sender must send it again.
    #[error(transparent)]
    NotKept(#[from] NotKept),
}

/// What became of a record, sample by sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The record's position in the log.
    pub sequence: u64,
    /// Float samples received in it.
    pub samples: u64,
    /// Native histograms received in it.
    pub histograms: u64,
    /// Exemplars received in it.
    pub exemplars: u64,
    /// Samples refused as malformed (not among those "written").
    pub malformed_samples: u64,
    /// The same for histograms.
    pub malformed_histograms: u64,
    /// Exemplars of malformed series.
    pub malformed_exemplars: u64,
    /// What is wrong with them, each with how many series.
    pub defects: BTreeMap<String, u64>,
    /// What became of the well-formed samples, by the names in [`Reason::NAMES`]; zeros left out.
    pub handled: BTreeMap<&'static str, u64>,
    /// Scores of at least 1.
    pub flagged: u64,
}

/// The engine. See the module page.
pub struct Engine {
    shared: Arc<Shared>,
    order: Mutex<Order>,
    lanes: Lanes,
    spare: Mutex<Vec<Prepared>>,
    seed: u64,
    /// Where records are kept; none in back-tests, and not before a replay is over.
    journal: OnceLock<Arc<dyn Journal>>,
    /// Time spent on decoding and identifying, ns.
    preparing: AtomicU64,
}

/// The place of a record in the order.
enum Place {
    /// The next one; the record, as it is to be kept.
    Next(Option<Entry>),
    /// The one that it had when it was applied first.
    At(u64),
}

/// What lanes and callers share.
pub(crate) struct Shared {
    pub partitions: Partitions,
    pub identifier: Identifier,
    pub sinks: Vec<Arc<dyn OutputSink>>,
    pub want_all: bool,
    pub kept: AtomicUsize,
    pub cardinality: cardinality::Cardinality,
    pub epochs: epochs::Counters,
}

/// The order of records: the next sequence, the context as of now, and the clocks of silence.
struct Order {
    sequence: u64,
    context: Arc<Context>,
    pulses: Pulses,
    /// Whether there was ever a rule whose series make models together.
    sharing: bool,
}

/// Spare bodies kept for their memory.
const MAX_SPARE: usize = 16;

impl Engine {
    /// An engine with `lanes` worker threads; with 0, records are applied on the caller's thread.
    pub fn new(rules: Arc<RuleSet>, lanes: usize, sinks: Vec<Arc<dyn OutputSink>>) -> Engine {
        let shared = Arc::new(Shared {
            partitions: partitions(),
            identifier: Identifier {
                aliases: AliasCache::new(rules.limits.max_aliases),
                interner: Interner::default(),
                sources: Mutex::default(),
                unmatched: Mutex::default(),
            },
            want_all: sinks.iter().any(|sink| sink.wants_all()),
            sinks,
            kept: AtomicUsize::new(0),
            cardinality: cardinality::Cardinality::default(),
            epochs: epochs::Counters::default(),
        });
        let sharing = rules.shares();
        let context = Arc::new(Context::new(rules));
        Engine::assemble(shared, Order { sequence: 0, context, pulses: Pulses::default(), sharing }, lanes)
    }

    /// From here on records are kept in a journal before [`Engine::apply`] returns. Once.
    pub fn keep_in(&self, journal: Arc<dyn Journal>) {
        // A second journal would have to begin where the first one ends: there is none.
        let _ = self.journal.set(journal);
    }

    /// Whether records can be kept at present, or need not be.
    pub fn can_keep(&self) -> bool {
        !self.journal.get().is_some_and(|journal| journal.refuses())
    }

    /// Time that applying all records so far would take, were it done again: threads share the decoding then,
    /// and lanes work beside them on the same cores. By the CPU time that it has taken; decompressing is not in it.
    pub fn worked(&self) -> Duration {
        let decoding = self.preparing.load(Ordering::Relaxed) / replay::threads() as u64;
        Duration::from_nanos(decoding + self.lanes.busy())
    }

    /// The same for what images of partitions have cost: [`Engine::worked`] does not count it.
    pub fn imaged(&self) -> Duration {
        Duration::from_nanos(self.lanes.imaged())
    }

    /// Takes a record: gives it its place in the order, applies it and hands the outputs to the
    /// sinks. Returns when all of it is applied. Blocks meanwhile; may be called by many threads.
    ///
    /// # Errors
    /// A body that cannot be decoded, or a record that cannot be kept.
    pub fn apply(&self, record: Record) -> Result<Applied, ApplyError> {
        let entry = self.journal.get().map(|_| Entry::of(&record));
        let place = Place::Next(entry);
        let (applied, pending) = match record {
            Record::Body(body) => (Applied::default(), Some(self.body(&body, place)?)),
            other => self.other(other, place),
        };
        // The disk is busy while the lanes are.
        let sequence = pending.as_ref().map_or(applied.sequence, |pending| pending.sequence);
        let kept = self.journal.get().map_or(Ok(()), |journal| journal.commit(sequence));
        let applied = self.applied(applied, pending);
        kept?;
        Ok(applied)
    }

    /// Waits for what the lanes make of a record.
    fn applied(&self, so_far: Applied, pending: Option<Pending>) -> Applied {
        // The lanes end with the engine, which is borrowed here.
        let Some((sequence, tally, work)) = pending.and_then(Pending::wait) else { return so_far };
        let applied = applied(sequence, &tally, &work);
        self.keep(work);
        applied
    }

    /// Applies a record that is no body.
    fn other(&self, record: Record, place: Place) -> (Applied, Option<Pending>) {
        match record {
            Record::Body(_) => (Applied::default(), None),
            Record::Rules(rules) => (self.rule_set(rules, place), None),
            Record::Elect { cluster, replica } => {
                let mut sources = self.shared.identifier.sources.lock();
                let group = sources.group(&cluster);
                let replica = sources.replica(group, &replica);
                drop(sources);
                (self.fold(place, |context| context.elect(group, replica)), None)
            }
            Record::Tick { group, to } => {
                let group = self.shared.identifier.sources.lock().group(&group);
                self.tick(group, to, place)
            }
        }
    }

    /// Gives a record its place, under the lock of the order.
    fn place(&self, order: &mut Order, place: Place) {
        match place {
            Place::At(sequence) => order.sequence = sequence,
            Place::Next(entry) => {
                order.sequence += 1;
                if let (Some(journal), Some(entry)) = (self.journal.get(), entry) {
                    journal.append(order.sequence, entry);
                }
            }
        }
    }

    fn body(&self, body: &Body, place: Place) -> Result<Pending, WireError> {
        let work = self.identify(body)?;
        self.submit(body, work, place)
    }

    /// Decodes a body and identifies its series under the rules in force.
    fn identify(&self, body: &Body) -> Result<Prepared, WireError> {
        let mut work = self.spare.lock().pop().unwrap_or_default();
        work.batch.seed = self.seed;
        let context = self.order.lock().context.clone();
        self.prepare(work, body, &context)
    }

    fn prepare(&self, mut work: Prepared, body: &Body, context: &Context) -> Result<Prepared, WireError> {
        let started = effort::so_far();
        let Context { generation, rules, .. } = context;
        let identifier = &self.shared.identifier;
        let prepared = identifier.prepare(&mut work, body.version, &body.bytes, *generation, rules);
        match prepared {
            Ok(()) => {
                let took = effort::so_far().saturating_sub(started);
                self.preparing.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
                Ok(work)
            }
            Err(error) => {
                self.keep(work);
                Err(error)
            }
        }
    }

    /// Gives an identified body its place, and its samples to the lanes.
    fn submit(&self, body: &Body, mut work: Prepared, place: Place) -> Result<Pending, WireError> {
        let step = loop {
            let mut order = self.order.lock();
            if order.context.generation != work.generation {
                // Rules changed meanwhile: what the body's series are must be asked again.
                let context = order.context.clone();
                drop(order);
                work = self.prepare(work, body, &context)?;
                continue;
            }
            if let Place::At(sequence) = place {
                // Epochs were closed by a record of their own, unless it was lost.
                order.sequence = sequence.saturating_sub(2);
            }
            let latest = body.received.plus(order.context.rules.limits.max_ahead.0);
            if let Some(newest) = work.newest.iter().map(|(_, newest)| *newest).max() {
                self.event_time(&mut order, newest.min(latest));
            }
            if !work.newest.is_empty() || !work.families.is_empty() {
                let next = Arc::make_mut(&mut order.context);
                for (group, newest) in &work.newest {
                    next.advance(*group, (*newest).min(latest));
                }
                next.learn(&work.families);
            }
            self.place(&mut order, place);
            let Order { sequence, context, pulses, .. } = &mut *order;
            let dues = match context.rules.silence_keep() {
                Some(keep) => pulses.body(&work, body.received, keep, |group, of| context.follows(group, of)),
                None => Vec::new(),
            };
            let step = Step::new(*sequence, context.clone(), work, body.bytes.clone(), latest, dues);
            break self.lanes.submit(step, &self.shared);
        };
        Ok(step)
    }

    /// Samples have come as far as `newest`: closes the epochs that are two or more behind. Waits for
    /// the lanes, once an epoch; they never take the lock of the order.
    fn event_time(&self, order: &mut Order, newest: Millis) {
        let through = epoch(newest).saturating_sub(2);
        if through <= order.context.closed {
            return;
        }
        let started = order.context.closed != i64::MIN;
        let next = Arc::make_mut(&mut order.context);
        next.closed = through;
        if !started || !order.sharing {
            return;
        }
        order.sequence += 1;
        let (closing, taken) = epochs::Closing::new(order.sequence, through);
        self.lanes.close(closing, &self.shared);
        // The lanes end with the engine, which is borrowed here.
        if let Ok(taken) = taken.recv() {
            let frozen = epochs::freeze(next, taken, &self.shared.epochs);
            if let Some(journal) = self.journal.get() {
                journal.append(order.sequence, Entry::published(through, restore::models(&frozen)));
            }
        }
    }

    /// Observed time has come further without samples: what is silent may fall due.
    fn tick(&self, group: u16, to: Millis, place: Place) -> (Applied, Option<Pending>) {
        let mut order = self.order.lock();
        self.place(&mut order, place);
        Arc::make_mut(&mut order.context).tick(group, to);
        let Order { sequence, context, pulses, .. } = &mut *order;
        let sequence = *sequence;
        let dues = context.rules.silence_keep().map(|keep| pulses.tick(group, to, keep)).unwrap_or_default();
        let applied = Applied { sequence, ..Applied::default() };
        if dues.is_empty() {
            return (applied, None);
        }
        let nothing = Prepared::default();
        let step = Step::new(sequence, context.clone(), nothing, bytes::Bytes::new(), to, dues);
        (applied, Some(self.lanes.submit(step, &self.shared)))
    }

    fn keep(&self, work: Prepared) {
        let mut spare = self.spare.lock();
        // The memory of a giant is not kept for the next one.
        if spare.len() < MAX_SPARE && !work.is_giant() {
            spare.push(work);
        }
    }

    fn rule_set(&self, rules: Arc<RuleSet>, place: Place) -> Applied {
        let aliases = &self.shared.identifier.aliases;
        aliases.set_capacity(rules.limits.max_aliases);
        self.order.lock().sharing |= rules.shares();
        self.fold(place, |context| {
            let same = context.rules.identity == rules.identity
                && context.rules.limits.labels == rules.limits.labels;
            context.generation += 1;
            if !same {
                aliases.clear(context.generation);
            }
            self.shared.identifier.unmatched.lock().clear();
            context.rules = rules;
        })
    }

    /// Gives a record without samples its place: bodies before it are not touched by it, bodies
    /// after it are.
    fn fold(&self, place: Place, change: impl FnOnce(&mut Context)) -> Applied {
        let mut order = self.order.lock();
        self.place(&mut order, place);
        change(Arc::make_mut(&mut order.context));
        Applied { sequence: order.sequence, ..Applied::default() }
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        self.order.lock().context.rules.clone()
    }

    /// The newest observed time of all source groups; `None` before the first sample.
    pub fn newest_observed(&self) -> Option<Millis> {
        let context = self.order.lock().context.clone();
        context.observed.iter().max().copied().filter(|newest| *newest != Millis::MIN)
    }

    /// Observed time of the unnamed source group; `None` before its first sample.
    pub fn observed(&self) -> Option<Millis> {
        let newest = self.order.lock().context.observed(0);
        (newest != Millis::MIN).then_some(newest)
    }
}

fn applied(sequence: u64, tally: &Tally, work: &Prepared) -> Applied {
    let batch: &Batch = &work.batch;
    let handled = Reason::NAMES
        .iter()
        .zip(tally.counts.iter().zip(&work.dropped))
        .map(|(name, (here, dropped))| (*name, here + dropped))
        .filter(|(_, count)| *count > 0)
        .collect();
    Applied {
        sequence,
        samples: batch.samples.len() as u64,
        histograms: batch.histograms.len() as u64,
        exemplars: batch.exemplars,
        malformed_samples: work.malformed[0],
        malformed_histograms: work.malformed[1],
        malformed_exemplars: work.malformed[2],
        defects: work.defects.clone(),
        handled,
        flagged: tally.flagged,
    }
}
