//! One partition and one body: the only place where a sample changes a score.

use super::cardinality::Cardinality;
use super::context::Context;
use super::identify::{Head, Identifier, Prepared};
use super::output::{Output, OutputValue};
use super::pulse::Due;
use super::signal::{Reading, read_float, read_histogram, reads_histograms};
use super::{Reason, Tally};
use crate::detect::isolation::Forest;
use crate::detect::{Band, Model, Verdict};
use crate::registry::partition::{NEVER, NONE};
use crate::registry::{Alias, Emitted, Partition, Previous};
use crate::rules::{EmitWhen, Rule};
use crate::time::{Millis, Span};
use crate::wire::{self, Histogram, MetricKind, Sample};
use std::collections::HashSet;
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
    pub aliases: Vec<Alias>,
}

/// A body at work on one partition.
pub struct Work<'a> {
    /// The context as of the body's place in the order.
    pub context: &'a Context,
    /// The body, identified.
    pub body: &'a Prepared,
    /// What falls due on the way through the body, in the order of time.
    pub dues: &'a [Due],
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
    /// Counts them by rule, against its `max_series`.
    pub cardinality: &'a Cardinality,
    /// Counts what comes late for its epoch.
    pub(super) counters: &'a super::epochs::Counters,
}

/// A sample's value.
pub(super) enum Payload<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

impl Work<'_> {
    /// Applies the body's share to its partition.
    pub fn apply(&self, partition: &mut Partition, number: usize, effects: &mut Effects) {
        // Series lie anywhere: asked for together, their memory comes while the first are worked on.
        let told = self.want_all || self.context.rules.rules.iter().any(|rule| rule.emit.any());
        let heads = self.body.of(number).iter();
        let near = heads.clone().fold(0, |near, head| near ^ partition.near(head.slot, told));
        let near = heads.clone().fold(near, |near, head| near ^ partition.nearer(head.slot));
        std::hint::black_box(near);
        if self.dues.is_empty() {
            for head in heads {
                self.series(partition, head, &mut 0, NEVER, effects);
            }
            return;
        }
        let mut heads: Vec<(&Head, usize)> = heads.map(|head| (head, 0)).collect();
        let mut waiting = HashSet::new();
        let mut until = |partition: &mut Partition, before: Millis, effects: &mut Effects| {
            waiting.clear();
            for (head, done) in &mut heads {
                // A series may stand in a body more than once: its samples keep their order.
                if waiting.contains(&head.mark) {
                    continue;
                }
                self.series(partition, head, done, before, effects);
                if *done < self.floats(head).len() + self.native(head).len() {
                    waiting.insert(head.mark);
                }
            }
        };
        for due in self.dues {
            until(partition, due.at, effects);
            self.decide(partition, due, effects);
        }
        until(partition, NEVER, effects);
    }

    fn floats(&self, head: &Head) -> &[Sample] {
        let (from, to) = head.samples;
        self.body.batch.samples.get(from as usize..to as usize).unwrap_or_default()
    }

    fn native(&self, head: &Head) -> &[(i64, Histogram)] {
        let batch = &self.body.batch;
        match batch.series.get(head.at as usize).filter(|_| head.native) {
            Some(series) => batch.native(series),
            None => &[],
        }
    }

    /// Applies the samples of a series from number `done` on, in their order, until one that is not
    /// before `before` ([`NEVER`]: all of them).
    fn series(
        &self,
        partition: &mut Partition,
        head: &Head,
        done: &mut usize,
        before: Millis,
        effects: &mut Effects,
    ) {
        let floats = self.floats(head).iter();
        let floats = floats.map(|sample| (Millis(sample.timestamp), Payload::Float(sample.value)));
        let histograms = self.native(head).iter();
        let histograms = histograms.map(|(at, histogram)| (Millis(*at), Payload::Histogram(histogram)));
        let all = floats.chain(histograms).skip(*done);
        let mut now = all.take_while(|(at, _)| before == NEVER || *at < before).peekable();
        if now.peek().is_none() {
            return;
        }
        if !self.context.follows(head.group, head.replica) {
            let count = now.count();
            *done += count;
            return effects.tally.add(Reason::Replica, count as u64);
        }
        let Some(slot) = self.slot(partition, head, effects) else {
            let count = now.count();
            *done += count;
            return effects.tally.add(Reason::OverLimit, count as u64);
        };
        for (at, payload) in now {
            *done += 1;
            self.sample(partition, slot, at, payload, head.kind, effects);
        }
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
        let rule = partition.series.get(slot).and_then(|series| self.rule(series));
        let Some(rule) = rule else { return effects.tally.add(Reason::Unmatched, 1) };
        let watched = partition.series.get(slot).is_some_and(|series| series.watch != NONE);
        if stale {
            let withheld = watched && self.ended(partition, slot, at);
            self.stale(partition, slot, at, rule, withheld, effects);
            return effects.tally.add(Reason::StaleMarker, 1);
        }
        let watched = watched || rule.silence.is_some();
        let withheld = watched && self.heard(partition, slot, at, rule);
        self.signals(partition, slot, at, payload, rule, withheld, effects);
    }

    /// The number of one of the rules in force.
    pub(super) fn number(&self, rule: &Rule) -> u16 {
        let number = self.context.rules.rules.iter().position(|have| std::ptr::eq(&**have, rule));
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX)
    }

    /// A stale marker ends the outputs of every signal that has any.
    fn stale(
        &self,
        partition: &mut Partition,
        slot: u32,
        at: Millis,
        rule: &Arc<Rule>,
        withheld: bool,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        if std::mem::replace(&mut series.stale, true) {
            return;
        }
        let (labels, mut next) = (series.labels.clone(), series.first);
        let number = self.number(rule);
        while let Some(signal) = partition.signals.get_mut(next) {
            next = signal.next;
            signal.previous = Previous::Nothing;
            // What is said of this series' silence may come before this marker or after it, and has an
            // end of its own.
            if withheld {
                continue;
            }
            effects.outputs.extend(Output::end(signal, &labels, number, at, self.want_all));
        }
    }

    #[allow(clippy::too_many_arguments)] // a sample, where it belongs, and what is said of it
    fn signals(
        &self,
        partition: &mut Partition,
        slot: u32,
        at: Millis,
        payload: Payload<'_>,
        rule: &Arc<Rule>,
        withheld: bool,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get_mut(slot) else { return };
        series.stale = false;
        let number = series.rule.unwrap_or_default();
        let explains = self.want_all || rule.emit.bands || rule.emit.detectors;
        let ignored = rule.ignore.open_until(at, |name| series.labels.get(name)).is_some();
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
            let mut step = if ignored { Reason::Ignored } else { Reason::Warming };
            if let Reading::Value(value) = reading {
                // What teaches nothing tells nothing.
                let beside = match ignored || !rule.shares() {
                    true => (None, 0.0),
                    false => self.share(&mut partition.open, series, rule, signal, at, value),
                };
                let (band, verdict) = judge(rule, &mut signal.model, at, value, ignored, beside);
                match verdict {
                    Some(verdict) => {
                        if !ignored {
                            step = Reason::Scored;
                        }
                        if withheld {
                            // A word on this series' silence before it may still be on its way.
                            reason = Reason::Withheld;
                            continue;
                        }
                        signal.scored = true;
                        signal.last = (verdict.score, value);
                        let emit = let_out(rule, &mut signal.emitted, verdict.score, at);
                        let flagged = verdict.score >= 1.0;
                        effects.tally.flagged += u64::from(flagged);
                        if emit || flagged || self.want_all {
                            effects.outputs.push(Output {
                                labels: series.labels.clone(),
                                rule: number,
                                transform: signal.transform,
                                at,
                                value: OutputValue::scored(
                                    signal.transform,
                                    value,
                                    verdict,
                                    band,
                                    explains || flagged,
                                ),
                                emit,
                            });
                        }
                    }
                    None if !value.is_finite() => step = Reason::NotFinite,
                    None => {}
                }
            }
            // A sample counts once, by the best that became of it among its signals.
            if reason == Reason::NoSignal || step == Reason::Scored && reason != Reason::Withheld {
                reason = step;
            }
        }
        effects.tally.add(reason, 1);
    }
}

/// Judges a value and, outside maintenance windows, learns it. In a window no value would flag, so
/// the band has no sides.
fn judge(
    rule: &Rule,
    model: &mut Model,
    at: Millis,
    value: f64,
    ignored: bool,
    (forest, isolated): (Option<&Forest>, f32),
) -> (Option<Band>, Option<Verdict>) {
    if ignored {
        let band = Band { lower: f64::NEG_INFINITY, upper: f64::INFINITY };
        return (rule.emit.bands.then_some(band), model.glance(&rule.params, &rule.read, at, value));
    }
    let band = rule.emit.bands.then(|| model.band_beside(&rule.params, &rule.read, at, forest)).flatten();
    (band, model.observe_beside(&rule.params, &rule.read, at, value, isolated))
}

/// Whether `emit` and `emit_when` let a score out; remembers what was.
pub(super) fn let_out(rule: &Rule, emitted: &mut Emitted, score: f64, at: Millis) -> bool {
    if !rule.emit.any() {
        return false;
    }
    let now = score as f32;
    let flag = score >= 1.0;
    let out = match (rule.emit_when, emitted.get()) {
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
        *emitted = Emitted::new(kept, at);
    }
    out
}
