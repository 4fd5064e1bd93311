//! What the engine tells of itself.

use super::cardinality::{Cardinality, top};
use super::identify::partition;
use super::lanes::sweep;
use super::{Account, Engine};
use crate::labels::{Labels, Selector, series_id};
use crate::registry::{Partition, Series, Signal};
use crate::rules::{As, Identity};
use crate::time::Millis;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a known series is or is not scored.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// No rule takes it any more.
    Unmatched,
    /// Has seen `have` of the `need` samples.
    Warming {
        /// Samples seen.
        have: u32,
        /// Samples needed.
        need: u32,
    },
    /// Scored.
    Scored {
        /// The last score.
        score: f64,
        /// The last value of the signal.
        value: f64,
    },
    /// Silent for longer than its rule allows, and told so.
    Silent {
        /// Its last sample's time.
        since: Millis,
    },
    /// Ended with a stale marker.
    Stale,
}

/// A signal of a known series, for people.
#[derive(Clone, Debug)]
pub struct SignalStatus {
    /// The series.
    pub labels: Labels,
    /// The rule that takes it.
    pub rule: Option<String>,
    /// The signal.
    pub transform: As,
    /// Why it is or is not scored.
    pub standing: Standing,
    /// The newest sample's time.
    pub newest: Millis,
}

/// Sizes, for `/api/v1/status` and `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Series kept.
    pub series: u64,
    /// Signals still warming up.
    pub warming: u64,
    /// Signals scored.
    pub scored: u64,
    /// Signals that ended with a stale marker and are not yet forgotten.
    pub stale: u64,
    /// Alias cache entries.
    pub aliases: u64,
    /// Pairs of a label's name and value, shared by all series.
    pub labels: u64,
    /// Bytes by part.
    pub memory: Account,
    /// The last sequence given out.
    pub sequence: u64,
    /// Rule-set generation.
    pub generation: u64,
    /// Epochs of which shared models were made.
    pub epochs: u64,
    /// Cohorts that lend.
    pub cohorts: u64,
    /// Rules that have an isolation forest.
    pub forests: u64,
    /// Contributions that came after their epoch was closed.
    pub late: u64,
    /// Contributions of series whose cohort is beyond the bound.
    pub refused: u64,
}

impl Engine {
    /// Known signals of series that fit any of the selectors (all when empty), at most `limit`, in
    /// no particular order.
    pub fn signals(&self, selectors: &[Selector], limit: usize) -> Vec<SignalStatus> {
        let rules = self.rules();
        let mut found = Vec::new();
        for entry in &self.shared.partitions {
            let partition: &Partition = &entry;
            for (_, series) in partition.series.iter() {
                let fits = |selector: &Selector| selector.matches(|name| series.labels.get(name));
                if !selectors.is_empty() && !selectors.iter().any(fits) {
                    continue;
                }
                let rule = rules.select(|name| series.labels.get(name)).map(|at| &rules.rules[at]);
                for signal in partition.signals_of(series) {
                    if found.len() == limit {
                        return found;
                    }
                    let watch = partition.watches.get(series.watch);
                    let standing = match (rule, watch) {
                        (None, _) => Standing::Unmatched,
                        (_, Some(watch)) if watch.told => Standing::Silent { since: watch.now.at },
                        (Some(rule), _) => standing(series, signal, rule.params.min_samples),
                    };
                    found.push(SignalStatus {
                        labels: series.labels.clone(),
                        rule: rule.map(|rule| rule.name.clone()),
                        transform: signal.transform,
                        standing,
                        newest: series.newest,
                    });
                }
            }
        }
        found
    }

    /// Whether a series with these canonical labels, without the replica's, is kept under this identity.
    pub fn knows(&self, labels: &[(&str, &str)], identity: &Identity) -> bool {
        let id = series_id(labels);
        let partition = partition(id, labels, identity);
        self.shared.partitions.get(&partition).is_some_and(|partition| partition.find(id).is_some())
    }

    /// Observed time of each source group that has any, by name.
    pub fn sources(&self) -> Vec<(String, Millis)> {
        let context = self.order.lock().context.clone();
        let sources = self.shared.identifier.sources.lock();
        let all = sources
            .groups()
            .chain([("", 0)])
            .map(|(name, group)| (name.to_string(), context.observed(group)));
        all.filter(|(_, observed)| *observed != Millis::MIN).collect()
    }

    /// How many series each rule has, and who was refused.
    pub fn cardinality(&self) -> &Cardinality {
        &self.shared.cardinality
    }

    /// The metrics with most series kept, each with how many. Walks all series.
    pub fn largest_metrics(&self, most: usize) -> Vec<(String, u64)> {
        let mut names: HashMap<String, u64> = HashMap::new();
        for entry in &self.shared.partitions {
            for (_, series) in entry.series.iter() {
                let name = series.labels.name();
                match names.get_mut(name) {
                    Some(count) => *count += 1,
                    None => drop(names.insert(name.to_string(), 1)),
                }
            }
        }
        top(names.into_iter().collect(), most)
    }

    /// Names of metrics that no rule takes, with how many label sets were seen of each (bounded).
    pub fn unmatched(&self) -> Vec<(String, u64)> {
        self.shared.identifier.unmatched.lock().iter().map(|(name, seen)| (name.clone(), *seen)).collect()
    }

    /// Forgets what has been silent by observed time, in every partition, and labels and aliases that are
    /// not used any more; returns how many series.
    /// Partitions that receive samples do this by themselves, bit by bit.
    pub fn sweep(&self) -> usize {
        let context = self.order.lock().context.clone();
        let mut removed = 0;
        for mut entry in self.shared.partitions.iter_mut() {
            let slots = entry.series.bound() as usize;
            removed += sweep(&mut entry, &context, slots, &self.shared);
        }
        self.shared.identifier.interner.sweep();
        if let Some(now) = context.observed.iter().max().filter(|now| **now != Millis::MIN) {
            self.shared.identifier.aliases.age(*now, context.rules.forget_after);
        }
        removed
    }

    /// Sizes. Walks all states: not for every second.
    pub fn stats(&self) -> EngineStats {
        let (sequence, context) = {
            let order = self.order.lock();
            (order.sequence, order.context.clone())
        };
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let epochs = &self.shared.epochs;
        let mut stats = EngineStats {
            sequence,
            generation: context.generation.into(),
            epochs: of(&epochs.closed),
            cohorts: context.frozen.first().map_or(0, |frozen| frozen.priors.len() as u64),
            forests: context.frozen.first().map_or(0, |frozen| frozen.forests.len() as u64),
            late: of(&epochs.late),
            refused: of(&epochs.refused),
            ..EngineStats::default()
        };
        stats.memory.shared = context.frozen.iter().map(|frozen| frozen.bytes() as u64).sum();
        for entry in &self.shared.partitions {
            let partition: &Partition = &entry;
            stats.memory.partition(partition);
            for (_, series) in partition.series.iter() {
                stats.series += 1;
                for signal in partition.signals_of(series) {
                    stats.memory.signal(signal);
                    match standing(series, signal, 0) {
                        Standing::Scored { .. } => stats.scored += 1,
                        Standing::Stale => stats.stale += 1,
                        _ => stats.warming += 1,
                    }
                }
            }
        }
        stats.memory.common(&self.shared);
        stats.aliases = self.shared.identifier.aliases.len() as u64;
        stats.labels = self.shared.identifier.interner.len() as u64;
        stats
    }
}

fn standing(series: &Series, signal: &Signal, need: u32) -> Standing {
    let (score, value) = signal.last;
    if series.stale {
        Standing::Stale
    } else if score.is_nan() {
        Standing::Warming { have: signal.model.samples(), need }
    } else {
        Standing::Scored { score, value }
    }
}
