//! Epochs of event time: what series tell in them, and their closing.
//!
//! A body that brings the event clock into epoch k closes every epoch up to k − 2 first: a step goes
//! through all lanes and takes what the partitions were told, and the models frozen from it are in the
//! context of that body and of all later ones. A sample of epoch e is judged by the newest models of
//! an epoch up to e − 2, so it does not matter what else had come when it came.

use super::Shared;
use super::apply::Work;
use super::context::Context;
use crate::detect::cohort::SHOWN;
use crate::detect::isolation::Forest;
use crate::detect::{Detector, Model};
use crate::labels::Labels;
use crate::registry::summary::{EPOCH, Open, Summary, epoch};
use crate::registry::{Frozen, PARTITIONS, Series, Signal};
use crate::rules::{As, Rule};
use crate::time::Millis;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Frozen models kept: a sample may be this many epochs late and still find its own.
const KEPT: usize = 3;

/// What came of epochs so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Epochs of which models were frozen.
    pub closed: AtomicU64,
    /// Contributions that came after their epoch was closed.
    pub late: AtomicU64,
    /// Contributions of series whose cohort is beyond the bound.
    pub refused: AtomicU64,
}

/// Parts of summaries by epoch and partition.
type Taken = BTreeMap<(i64, usize), Summary>;

/// The step that closes epochs, on its way through the lanes.
pub(super) struct Closing {
    sequence: u64,
    through: i64,
    taken: Mutex<Taken>,
    done: Sender<Taken>,
}

impl Closing {
    /// The step that closes all epochs up to `through`, and where its result will come.
    pub(super) fn new(sequence: u64, through: i64) -> (Arc<Closing>, Receiver<Taken>) {
        let (done, wait) = bounded(1);
        (Arc::new(Closing { sequence, through, taken: Mutex::default(), done }), wait)
    }

    /// Takes what the partitions of one lane were told.
    pub(super) fn run(&self, shared: &Shared, lane: usize, lanes: usize) {
        let all = AssertUnwindSafe(|| {
            let mut mine = Taken::new();
            for number in (lane..PARTITIONS).step_by(lanes) {
                let Some(mut partition) = shared.partitions.get_mut(&(number as u8)) else { continue };
                if partition.sequence >= self.sequence {
                    continue;
                }
                let later = partition.open.split_off(&self.through.saturating_add(1));
                let closed = std::mem::replace(&mut partition.open, later);
                partition.sequence = self.sequence;
                mine.extend(closed.into_iter().map(|(epoch, summary)| ((epoch, number), summary)));
            }
            self.taken.lock().append(&mut mine);
        });
        if catch_unwind(all).is_err() {
            tracing::error!(sequence = self.sequence, lane, "an epoch was not closed in full: a bug");
        }
    }

    /// Lets go of the step; the last to do so sends the result.
    pub(super) fn let_go(closing: Arc<Closing>) {
        if let Some(Closing { taken, done, .. }) = Arc::into_inner(closing) {
            // Nobody waits any more where the caller has panicked.
            let _ = done.send(taken.into_inner());
        }
    }
}

/// Merges the parts in the order of epochs and partitions, and freezes each epoch on top of those
/// before it. Returns the new ones, the oldest first.
pub(super) fn freeze(context: &mut Context, taken: Taken, counters: &Counters) -> Vec<Arc<Frozen>> {
    let mut epochs: BTreeMap<i64, Summary> = BTreeMap::new();
    for ((epoch, _), part) in taken {
        epochs.entry(epoch).or_default().merge(part);
    }
    let mut made = Vec::with_capacity(epochs.len());
    for (epoch, summary) in epochs {
        let frozen = Frozen::of(epoch, summary, context.frozen.first().map(Arc::as_ref));
        counters.closed.fetch_add(1, Ordering::Relaxed);
        counters.refused.fetch_add(frozen.priors.refused, Ordering::Relaxed);
        let frozen = Arc::new(frozen);
        publish(context, frozen.clone());
        made.push(frozen);
    }
    made
}

/// From here on samples may ask these models.
pub(super) fn publish(context: &mut Context, frozen: Arc<Frozen>) {
    let older = context.frozen.iter().take(KEPT - 1).cloned();
    context.frozen = std::iter::once(frozen).chain(older).collect();
}

/// The cohorts of a signal, the finest first.
fn cohorts(rule: &Rule, signal: &Signal, labels: &Labels) -> impl Iterator<Item = u64> {
    let key = |kind: u8| {
        let mut hash = Xxh3::new();
        hash.update(&[kind]);
        hash.update(&signal.params.to_le_bytes());
        for text in [rule.name.as_str(), &signal.transform.to_string()] {
            part(&mut hash, text);
        }
        hash
    };
    let finest = (!rule.identity_without.is_empty()).then(|| {
        let mut hash = key(0);
        for (name, value) in labels.iter() {
            if !rule.identity_without.iter().any(|without| without == name) {
                part(&mut hash, name);
                part(&mut hash, value);
            }
        }
        hash.digest()
    });
    let named = (!rule.cohort.is_empty()).then(|| {
        let mut hash = key(1);
        for name in &rule.cohort {
            let label = if name == "metric" { crate::labels::NAME } else { name };
            part(&mut hash, name);
            part(&mut hash, labels.get(label).unwrap_or_default());
        }
        hash.digest()
    });
    finest.into_iter().chain(named)
}

/// A text, told apart from its neighbours by its length.
fn part(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// Tells the signals of a series apart.
fn number(transform: As) -> u64 {
    match transform {
        As::Value => 0,
        As::Rate => 1,
        As::Delta => 2,
        As::CountRate => 3,
        As::Mean => 4,
        As::Quantile(q) => q.get().to_bits() | 1 << 63,
    }
}

fn hash_of(series: &Series, at: i64, of: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&series.id.0.to_le_bytes());
    bytes[16..].copy_from_slice(&at.to_le_bytes());
    xxh3_64_with_seed(&bytes, of)
}

impl Work<'_> {
    /// A signal is about to take and learn a value at `at`: what it tells others and what they tell it.
    pub(super) fn share(
        &self,
        open: &mut Open,
        series: &Series,
        rule: &Rule,
        signal: &mut Signal,
        at: Millis,
        value: f64,
    ) -> (Option<&Forest>, f32) {
        if rule.lends() && value.is_finite() {
            self.cohort(open, series, rule, signal, at);
        }
        match rule.params.detectors.has(Detector::Isolation) {
            true => self.isolation(open, series, rule, signal, at, value),
            false => (None, 0.0),
        }
    }

    /// A signal of a rule with cohorts is about to take a value at `at`: it tells the epoch that ended
    /// with its last sample, or starts from what its cohort lends.
    fn cohort(&self, open: &mut Open, series: &Series, rule: &Rule, signal: &mut Signal, at: Millis) {
        if signal.model.samples() == SHOWN {
            if let Some(model) = self.borrowed(series, rule, signal, at) {
                signal.model = model;
            }
            return;
        }
        // Whether it tells hangs on its own samples only, and in time for all that come less than half
        // an epoch late.
        let told = epoch(signal.model.last_at());
        let now = epoch(at);
        if told.checked_add(1) != Some(now) || at.0.rem_euclid(EPOCH.0) >= EPOCH.0 / 2 {
            return;
        }
        if told <= self.context.closed {
            self.counters.late.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let keys = cohorts(rule, signal, &series.labels);
        let hash = hash_of(series, told, 0);
        open.entry(told).or_default().cohorts.add(keys, hash, &rule.params, &signal.model);
    }

    /// A signal of a rule with isolation is about to take a value at `at`: its point is told, and the
    /// forest asked for its nats.
    fn isolation(
        &self,
        open: &mut Open,
        series: &Series,
        rule: &Rule,
        signal: &Signal,
        at: Millis,
        value: f64,
    ) -> (Option<&Forest>, f32) {
        let Some(point) = signal.model.features(&rule.params, at, value) else { return (None, 0.0) };
        let key = xxh3_64_with_seed(rule.name.as_bytes(), signal.params);
        let forest = self.context.frozen(at).and_then(|frozen| frozen.forests.get(key));
        let hash = hash_of(series, at.0, number(signal.transform));
        let wanted = hash <= forest.map_or(u64::MAX, Forest::limit);
        if wanted && signal.model.teaches(&rule.params) {
            let now = epoch(at);
            if now > self.context.closed {
                open.entry(now).or_default().points.add(key, hash, point);
            } else {
                self.counters.late.fetch_add(1, Ordering::Relaxed);
            }
        }
        (forest, forest.map_or(0.0, |forest| forest.nats(&point)))
    }

    fn borrowed(&self, series: &Series, rule: &Rule, signal: &Signal, at: Millis) -> Option<Model> {
        let frozen = self.context.frozen(at)?;
        cohorts(rule, signal, &series.labels)
            .filter_map(|cohort| frozen.priors.get(cohort))
            .find_map(|prior| prior.adopt(&rule.params, &signal.model, at, epoch(at)))
    }
}

#[cfg(test)]
mod tests;
