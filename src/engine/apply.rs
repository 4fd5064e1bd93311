//! One partition and one body: the only place where a sample changes a score.

use super::context::Context;
use super::identify::{Head, Identifier, Prepared};
use super::output::{Output, OutputValue};
use super::signal::{Reading, read_float, read_histogram, reads_histograms};
use super::{Reason, Tally};
use crate::detect::{Detector, Model, Verdict};
use crate::registry::partition::NONE;
use crate::registry::{Known, Partition, Previous, Series, Signal};
use crate::rules::{As, EmitWhen, Rule, RuleSet};
use crate::time::{Millis, Span};
use crate::wire::{self, Histogram, MetricKind};
use std::sync::Arc;

/// `emit_when: changed` lets a score out that moved by more than this,
const CHANGED_BY: f32 = 0.05;
/// or whose last output is this old: under Prometheus's look-back of five minutes.
const KEEP_ALIVE: Span = Span::minutes(4);

/// What applying a body to a partition leaves to others.
#[derive(Debug, Default)]
pub struct Effects {
    /// What became of the samples.
    pub tally: Tally,
    /// Outputs in the order of the samples.
    pub outputs: Vec<Output>,
    /// Aliases learnt.
    pub aliases: Vec<(u128, Known)>,
}

/// A body at work on one partition.
pub struct Work<'a> {
    /// The context as of the body's place in the order.
    pub context: &'a Context,
    /// The body, identified.
    pub body: &'a Prepared,
    /// The body's bytes.
    pub bytes: &'a [u8],
    /// Where labels are shared.
    pub identifier: &'a Identifier,
    /// Samples after this are too far ahead of receipt.
    pub latest: Millis,
    /// Whether somebody wants outputs that remote write does not send.
    pub want_all: bool,
    /// Counts series kept in all partitions, against `limits.max_series`.
    pub kept: &'a std::sync::atomic::AtomicUsize,
    /// Counts what comes late for its epoch.
    pub(super) counters: &'a super::epochs::Counters,
}

enum Payload<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

impl Work<'_> {
    /// Applies the body's share to its partition.
    pub fn apply(&self, partition: &mut Partition, number: usize, effects: &mut Effects) {
        for head in self.body.of(number) {
            self.series(partition, head, effects);
        }
    }

    fn series(&self, partition: &mut Partition, head: &Head, effects: &mut Effects) {
        let series = &self.body.batch.series[head.at as usize];
        let floats = self.body.batch.floats(series);
        let histograms = self.body.batch.native(series);
        let count = (floats.len() + histograms.len()) as u64;
        if !self.context.follows(head.group, head.replica) {
            return effects.tally.add(Reason::Replica, count);
        }
        let Some(slot) = self.slot(partition, head, series.kind, effects) else {
            return effects.tally.add(Reason::OverLimit, count);
        };
        for sample in floats {
            self.sample(
                partition,
                slot,
                Millis(sample.timestamp),
                Payload::Float(sample.value),
                series.kind,
                effects,
            );
        }
        for (at, histogram) in histograms {
            self.sample(partition, slot, Millis(*at), Payload::Histogram(histogram), series.kind, effects);
        }
    }

    /// The series' slot, made on first sight; `None` over the limit.
    fn slot(
        &self,
        partition: &mut Partition,
        head: &Head,
        said: MetricKind,
        effects: &mut Effects,
    ) -> Option<u32> {
        use std::sync::atomic::Ordering::Relaxed;
        let found = partition.find(head.id, head.slot);
        if let Some(slot) = found.filter(|slot| *slot == head.slot) {
            return Some(slot);
        }
        let slot = match found {
            Some(slot) => slot,
            None => {
                let batch = &self.body.batch;
                let rules = &self.context.rules;
                let again = || self.identifier.labels_again(batch, head.at as usize, self.bytes, rules);
                let labels = self.body.fresh.get(head.fresh as usize).cloned().or_else(again)?;
                if self.kept.fetch_add(1, Relaxed) >= self.context.rules.limits.max_series {
                    self.kept.fetch_sub(1, Relaxed);
                    return None;
                }
                partition.insert(Series {
                    id: head.id,
                    kind: self.context.kind(labels.name(), said),
                    rule: select(rules, &labels),
                    labels,
                    newest: Millis::MIN,
                    generation: self.context.generation,
                    group: head.group,
                    stale: false,
                    floats: false,
                    histograms: false,
                    first: NONE,
                })
            }
        };
        let Head { id, partition, group, replica, .. } = *head;
        effects.aliases.push((head.alias, Known::Series { id, partition, slot, group, replica }));
        Some(slot)
    }

    fn sample(
        &self,
        partition: &mut Partition,
        slot: u32,
        at: Millis,
        payload: Payload<'_>,
        said: MetricKind,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        if at > self.latest {
            return effects.tally.add(Reason::TooFarAhead, 1);
        }
        if at <= series.newest {
            let reason = if at == series.newest { Reason::Duplicate } else { Reason::OutOfOrder };
            return effects.tally.add(reason, 1);
        }
        let forgotten =
            series.newest != Millis::MIN && at.since(series.newest) > self.context.rules.forget_after.0;
        series.newest = at;
        let stale = match payload {
            Payload::Float(value) => wire::is_stale(value),
            Payload::Histogram(histogram) => histogram.is_stale(),
        };
        if forgotten {
            partition.drop_signals(slot);
        }
        self.refresh(partition, slot, &payload, stale, said, forgotten);
        let Some(rule) = partition.series.get(slot).and_then(|s| s.rule) else {
            return effects.tally.add(Reason::Unmatched, 1);
        };
        let rule = &self.context.rules.rules[usize::from(rule)];
        if stale {
            self.stale(partition, slot, at, rule, effects);
            return effects.tally.add(Reason::StaleMarker, 1);
        }
        self.signals(partition, slot, at, payload, rule, effects);
    }

    /// Brings the series' rule and signals up to date with the generation and its type.
    fn refresh(
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
            let kind = self.context.kind(series.labels.name(), said);
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
        let rule = series.rule.map(|rule| self.context.rules.rules[usize::from(rule)].clone());
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
                    emitted: None,
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

    /// A stale marker ends the outputs of every signal that has any.
    fn stale(
        &self,
        partition: &mut Partition,
        slot: u32,
        at: Millis,
        rule: &Arc<Rule>,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        if std::mem::replace(&mut series.stale, true) {
            return;
        }
        let (labels, mut next) = (series.labels.clone(), series.first);
        while let Some(signal) = partition.signals.get_mut(next) {
            next = signal.next;
            signal.previous = Previous::Nothing;
            let emit = signal.emitted.take().is_some();
            if std::mem::take(&mut signal.scored) && (emit || self.want_all) {
                effects.outputs.push(Output {
                    labels: labels.clone(),
                    rule: rule.clone(),
                    transform: signal.transform,
                    at,
                    value: OutputValue::Stale,
                    emit,
                });
            }
        }
    }

    fn signals(
        &self,
        partition: &mut Partition,
        slot: u32,
        at: Millis,
        payload: Payload<'_>,
        rule: &Arc<Rule>,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        series.stale = false;
        let mut next = series.first;
        let mut reason = Reason::NoSignal;
        while let Some(signal) = partition.signals.get_mut(next) {
            next = signal.next;
            let reading = match &payload {
                Payload::Float(_) if reads_histograms(signal.transform) => continue,
                Payload::Float(value) => read_float(signal.transform, &mut signal.previous, at, *value),
                Payload::Histogram(_) if !reads_histograms(signal.transform) => continue,
                Payload::Histogram(now) => read_histogram(signal.transform, &mut signal.previous, at, now),
            };
            let mut step = Reason::Warming;
            if let Reading::Value(value) = reading {
                if rule.lends() && value.is_finite() {
                    self.cohort(&mut partition.open, series, rule, signal, at);
                }
                let (params, read) = (&rule.params, &rule.read);
                let (forest, isolated) = match params.detectors.has(Detector::Isolation) {
                    true => self.isolation(&mut partition.open, series, rule, signal, at, value),
                    false => (None, 0.0),
                };
                let band = rule.emit.bands.then(|| signal.model.band_beside(params, read, at, forest));
                let band = band.flatten();
                match signal.model.observe_beside(params, read, at, value, isolated) {
                    Some(verdict) => {
                        step = Reason::Scored;
                        signal.scored = true;
                        signal.last = (verdict.score, value);
                        let emit = let_out(rule, &mut signal.emitted, verdict.score, at);
                        let flagged = verdict.score >= 1.0;
                        effects.tally.flagged += u64::from(flagged);
                        if emit || flagged || self.want_all {
                            let Verdict { score, expected, evidence } = verdict;
                            effects.outputs.push(Output {
                                labels: series.labels.clone(),
                                rule: rule.clone(),
                                transform: signal.transform,
                                at,
                                value: OutputValue::Scored { value, score, expected, band, evidence },
                                emit,
                            });
                        }
                    }
                    None if !value.is_finite() => step = Reason::NotFinite,
                    None => {}
                }
            }
            // A sample counts once, by the best that became of it among its signals.
            if reason == Reason::NoSignal || step == Reason::Scored {
                reason = step;
            }
        }
        effects.tally.add(reason, 1);
    }
}

fn select(rules: &RuleSet, labels: &crate::labels::Labels) -> Option<u16> {
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

/// Whether `emit` and `emit_when` let a score out; remembers what was.
fn let_out(rule: &Rule, emitted: &mut Option<(f32, Millis)>, score: f64, at: Millis) -> bool {
    let set = rule.emit;
    if !(set.score || set.flag || set.bands || set.detectors) {
        return false;
    }
    let now = score as f32;
    let flag = score >= 1.0;
    let out = match (rule.emit_when, *emitted) {
        (EmitWhen::Always, _) => true,
        (EmitWhen::Changed, None) => true,
        (EmitWhen::Changed, Some((before, when))) => {
            (now - before).abs() > CHANGED_BY || flag != (before >= 1.0) || at.since(when) >= KEEP_ALIVE.0
        }
        (EmitWhen::Anomalous, before) => flag || before.is_some_and(|(before, _)| before >= 1.0),
    };
    if out {
        // Rounding to f32 must not move a score across the threshold.
        let kept = if flag { now.max(1.0) } else { now.min(1.0f32.next_down()) };
        *emitted = Some((kept, at));
    }
    out
}
