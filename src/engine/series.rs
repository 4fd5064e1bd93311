//! A series as the rules want it: its slot, the rule that takes it, its signals.

use super::apply::{Effects, Payload, Work};
use super::cardinality::Bound;
use super::identify::Head;
use super::signal::reads_histograms;
use crate::detect::Model;
use crate::registry::partition::{NONE, UNCOUNTED};
use crate::registry::{Alias, Emitted, Known, Partition, Previous, Series, Signal};
use crate::rules::{As, Rule, RuleSet};
use crate::time::Millis;
use crate::wire::MetricKind;
use std::sync::Arc;

impl Work<'_> {
    /// The series' slot, made on first sight; `None` over the limit.
    pub(super) fn slot(&self, partition: &mut Partition, head: &Head, effects: &mut Effects) -> Option<u32> {
        use std::sync::atomic::Ordering::Relaxed;
        if partition.holds(head.slot, head.mark) {
            return Some(head.slot);
        }
        let (batch, rules) = (&self.body.batch, &self.context.rules);
        let known = self.body.id(head);
        let id = known.or_else(|| self.identifier.id(batch, head.at as usize, self.bytes, rules))?;
        let slot = match partition.find(id) {
            Some(slot) => slot,
            None => {
                let labels = self.identifier.labels(batch, head.at as usize, self.bytes, rules)?;
                let chosen = select(rules, &labels);
                let rule = chosen.and_then(|at| rules.rules.get(usize::from(at))).map(|rule| &**rule);
                if self.kept.fetch_add(1, Relaxed) >= rules.limits.max_series {
                    self.kept.fetch_sub(1, Relaxed);
                    self.cardinality.refuse(rule, labels.name(), Bound::All);
                    return None;
                }
                let Some(counted) = rule.map_or(Some(UNCOUNTED), |rule| self.cardinality.enter(rule)) else {
                    self.kept.fetch_sub(1, Relaxed);
                    self.cardinality.refuse(rule, labels.name(), Bound::Rule);
                    return None;
                };
                partition.insert(Series {
                    id,
                    kind: self.context.kind(labels.name(), head.kind),
                    rule: chosen,
                    labels,
                    newest: Millis::MIN,
                    generation: self.context.generation,
                    group: head.group,
                    stale: false,
                    floats: false,
                    histograms: false,
                    first: NONE,
                    watch: NONE,
                    counted,
                })
            }
        };
        let Head { mark, partition, group, replica, up, .. } = *head;
        let known = Known::Series { mark, partition, slot, group, replica, up };
        let key = batch.series.get(head.at as usize)?.alias;
        effects.aliases.push(Alias { key, known });
        Some(slot)
    }

    /// The rule that a series found in this generation.
    pub(super) fn rule(&self, series: &Series) -> Option<&Arc<Rule>> {
        series.rule.and_then(|rule| self.context.rules.rules.get(usize::from(rule)))
    }

    /// Brings the series' rule and signals up to date with the generation and its type.
    pub(super) fn refresh(
        &self,
        partition: &mut Partition,
        slot: u32,
        payload: &Payload<'_>,
        stale: bool,
        said: MetricKind,
        forgotten: bool,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        let mut changed = forgotten;
        if series.generation != self.context.generation {
            series.generation = self.context.generation;
            series.rule = select(&self.context.rules, &series.labels);
            let rule = series.rule.and_then(|at| self.context.rules.rules.get(usize::from(at)));
            series.counted = self.cardinality.shift(series.counted, rule.map(|rule| &**rule));
            changed = true;
        }
        if !stale {
            let seen = match payload {
                Payload::Float(_) => &mut series.floats,
                Payload::Histogram(_) => &mut series.histograms,
            };
            changed |= !std::mem::replace(seen, true);
        }
        let first = series.first;
        let unscored = partition.signals.get(first).is_none_or(|signal| signal.last.0.is_nan());
        if unscored && let Some(series) = partition.series.get_mut(slot) {
            // Metadata that comes before the first score may still change what is modelled.
            let kind = match self.context.families.is_empty() {
                true => said,
                false => self.context.kind(series.labels.name(), said),
            };
            if kind != series.kind && kind != MetricKind::Unknown {
                series.kind = kind;
                changed = true;
            }
        }
        if changed {
            self.rebuild(partition, slot);
        }
    }

    /// Makes the signals the rule asks for, keeping those that are there with the same key.
    fn rebuild(&self, partition: &mut Partition, slot: u32) {
        let Some(series) = partition.series.get(slot) else { return };
        let rule = self.rule(series).cloned();
        let wanted = rule.as_deref().map(|rule| transforms(rule, series)).unwrap_or_default();
        let key = rule.as_ref().map_or(0, |rule| rule.params.key());

        let mut have = Vec::new();
        let mut next = series.first;
        while let Some(signal) = partition.signals.remove(next) {
            next = signal.next;
            have.push(signal);
        }
        let mut first = NONE;
        for transform in wanted.into_iter().rev() {
            let kept = have.iter().position(|s| s.transform == transform && s.params == key);
            let mut signal = match (kept, rule.as_deref()) {
                (Some(at), _) => have.swap_remove(at),
                (None, Some(rule)) => Signal {
                    transform,
                    params: key,
                    next: NONE,
                    scored: false,
                    previous: Previous::Nothing,
                    last: (f64::NAN, f64::NAN),
                    emitted: Emitted::default(),
                    model: Model::new(&rule.params),
                },
                (None, None) => continue,
            };
            signal.next = first;
            first = partition.signals.insert(signal);
        }
        if let Some(series) = partition.series.get_mut(slot) {
            series.first = first;
        }
    }
}

pub(super) fn select(rules: &RuleSet, labels: &crate::labels::Labels) -> Option<u16> {
    rules.select(|name| labels.get(name)).and_then(|rule| u16::try_from(rule).ok())
}

/// The signals a rule asks of a series, given what kinds of samples it has.
fn transforms(rule: &Rule, series: &Series) -> Vec<As> {
    let mut wanted: Vec<As> = Vec::new();
    let chosen = |histograms: bool| {
        rule.transforms.iter().copied().filter(move |transform| reads_histograms(*transform) == histograms)
    };
    if series.floats {
        if rule.transforms.is_empty() {
            wanted.push(crate::rules::model::auto_transform(series.kind, series.labels.name(), false));
        }
        wanted.extend(chosen(false));
    }
    if series.histograms {
        let before = wanted.len();
        wanted.extend(chosen(true));
        if wanted.len() == before {
            wanted.push(As::CountRate);
        }
    }
    wanted
}
