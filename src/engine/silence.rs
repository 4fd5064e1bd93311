//! Silence: a series that stops is an anomaly too.
//!
//! A series is due one `after` after its last sample, and decided as of the full minute *D* at or
//! after that, when its group's clock is a [`GRACE`] past *D*. What is decided hangs on the samples
//! before *D*. One that comes from *D* on, before the decision, waits in [`Watch::then`]; outputs of
//! samples within the grace are withheld whether they come before or after it. So nothing that is
//! said depends on how series interleave, as long as no sample is later than the grace, and the
//! outputs of a series keep their order.

use super::apply::{Effects, Work, let_out};
use super::output::{Output, OutputValue};
use super::pulse::{AWAY, Due, GRACE, Presence, ceil, target_of};
use super::series::select;
use crate::registry::partition::{Heard, NEVER, NONE, TOLD_FOR, Watch};
use crate::registry::{Partition, Signal};
use crate::rules::{Rule, Silence};
use crate::stats::math::ln;
use crate::time::{Millis, Span};
use std::sync::Arc;

/// Repeated at least so often: under Prometheus's look-back of five minutes.
const REPEAT: (Span, Span) = (Span::MINUTE, Span::minutes(4));
/// What the score grows by at most.
const GROWTH: f64 = 5.0;

/// Until when outputs wait for what falls due at `due`.
fn held_until(due: Millis) -> Millis {
    ceil(due).plus(GRACE.0)
}

/// The score of a silence: 1 after `after`, and growing.
fn score(elapsed: i64, after: Span) -> f64 {
    1.0 + ln(elapsed.max(after.0) as f64 / after.0 as f64).clamp(0.0, GROWTH)
}

impl Work<'_> {
    /// A sample was heard: whether its outputs are withheld.
    pub(super) fn heard(&self, partition: &mut Partition, slot: u32, at: Millis, rule: &Rule) -> bool {
        let Some(series) = partition.series.get_mut(slot) else { return false };
        let Some(Silence { after }) = rule.silence else {
            // The rules no longer ask for it.
            partition.watches.remove(std::mem::replace(&mut series.watch, NONE));
            return false;
        };
        let heard = Heard { at, ended: Millis::MIN };
        let next = at.plus(after.0);
        let Some(watch) = partition.watches.get_mut(series.watch) else {
            let target = |name| series.labels.get(name).unwrap_or_default();
            let target = target_of(target("job"), target("instance"));
            let held = Millis::MIN;
            let watch = Watch { slot, target, now: heard, then: None, next, first: next, held, told: false };
            series.watch = partition.watches.insert(watch);
            return false;
        };
        if watch.waits(at) {
            watch.then = Some(heard);
            return true;
        }
        *watch = Watch { now: heard, then: None, next, first: next, told: false, ..*watch };
        at < watch.held
    }

    /// A stale marker came: whether its outputs are withheld.
    pub(super) fn ended(&self, partition: &mut Partition, slot: u32, at: Millis) -> bool {
        let watch = partition.series.get(slot).map_or(NONE, |series| series.watch);
        let Some(watch) = partition.watches.get_mut(watch) else { return false };
        let waits = watch.waits(at);
        let heard = watch.then.as_mut().unwrap_or(&mut watch.now);
        if heard.ended == Millis::MIN {
            heard.ended = at;
        }
        waits || at < watch.held
    }

    /// Decides what fell due before a minute.
    pub(super) fn decide(&self, partition: &mut Partition, due: &Due, effects: &mut Effects) {
        for at in 0..partition.watches.bound() {
            let Some(watch) = partition.watches.get(at) else { continue };
            let Some(series) = partition.series.get(watch.slot) else { continue };
            let waiting = due.back.is_none() && held_until(watch.next) > due.at;
            if series.group != due.group || waiting || watch.next == NEVER {
                continue;
            }
            // A silent series learns of new rules here.
            let rules = &self.context.rules;
            let number = match series.generation == self.context.generation {
                true => series.rule,
                false => select(rules, &series.labels),
            };
            let rule = number.and_then(|number| rules.rules.get(usize::from(number))).cloned();
            let Some((rule, silence)) = rule.and_then(|rule| rule.silence.map(|silence| (rule, silence)))
            else {
                let slot = watch.slot;
                partition.watches.remove(at);
                if let Some(series) = partition.series.get_mut(slot) {
                    series.watch = NONE;
                }
                continue;
            };
            self.watch(partition, at, &rule, silence, due, effects);
        }
    }

    fn watch(
        &self,
        partition: &mut Partition,
        at: u32,
        rule: &Arc<Rule>,
        Silence { after }: Silence,
        due: &Due,
        effects: &mut Effects,
    ) {
        let Some(watch) = partition.watches.get_mut(at) else { return };
        if let Some((back, away)) = due.back
            && away > Span((after.0 / 2).max(AWAY.0))
        {
            // Nobody knows what went on while the source was away: all are given their time anew.
            watch.now = watch.then.take().unwrap_or(watch.now);
            watch.next = watch.now.at.max(back).plus(after.0);
            (watch.first, watch.told) = (watch.next, false);
            return;
        }
        while let Some(watch) = partition.watches.get_mut(at) {
            let next = watch.next;
            if next == NEVER || held_until(next) > due.at {
                break;
            }
            let mut now = *watch;
            self.one(partition, &mut now, rule, after, due, effects);
            now.held = held_until(next);
            if let Some(then) = now.then.take() {
                now.now = then;
                now.next = then.at.plus(after.0);
                (now.first, now.told) = (now.next, false);
            }
            if let Some(watch) = partition.watches.get_mut(at) {
                *watch = now;
            }
        }
    }

    /// Decides about one moment at which a series is due.
    fn one(
        &self,
        partition: &mut Partition,
        watch: &mut Watch,
        rule: &Arc<Rule>,
        after: Span,
        due: &Due,
        effects: &mut Effects,
    ) {
        let Some(series) = partition.series.get(watch.slot) else { return };
        let (at, minute) = (watch.next, ceil(watch.next));
        let Heard { at: heard, ended } = watch.now;
        let removed = match due.targets.presence(watch.target, minute, heard, after) {
            Presence::There => false,
            Presence::Gone => true,
            Presence::Unknown => ended != Millis::MIN && ended < minute,
        };
        let forgotten = at.since(heard) > self.context.rules.forget_after.0;
        if removed || forgotten || at.since(watch.first) >= TOLD_FOR.0 {
            watch.next = NEVER;
            return self.over(partition, watch, rule, at, effects);
        }
        if let Some(until) = rule.ignore.open_until(at, |name| series.labels.get(name)) {
            watch.next = until.plus(after.0);
            watch.first = watch.next;
            return self.over(partition, watch, rule, at, effects);
        }
        watch.next = at.plus(after.0.clamp(REPEAT.0.0, REPEAT.1.0));
        let score = score(at.since(heard), after);
        let number = self.number(rule);
        self.each(partition, watch.slot, |labels, signal| {
            if signal.last.0.is_nan() {
                return;
            }
            watch.told = true;
            signal.scored = true;
            let emit = let_out(rule, &mut signal.emitted, score, at);
            effects.tally.flagged += 1;
            effects.outputs.push(Output {
                labels: labels.clone(),
                rule: number,
                transform: signal.transform,
                at,
                value: OutputValue::Silent { score, since: heard, value: signal.last.1 },
                emit,
            });
        });
        if !watch.told {
            // It was never scored, so it has no outputs, and none of its signals will have any.
            watch.next = NEVER;
        }
    }

    /// Ends the outputs of a silence that was told.
    fn over(
        &self,
        partition: &mut Partition,
        watch: &mut Watch,
        rule: &Arc<Rule>,
        at: Millis,
        effects: &mut Effects,
    ) {
        if !std::mem::take(&mut watch.told) {
            return;
        }
        let number = self.number(rule);
        self.each(partition, watch.slot, |labels, signal| {
            effects.outputs.extend(Output::end(signal, labels, number, at, self.want_all));
        });
    }

    fn each(
        &self,
        partition: &mut Partition,
        slot: u32,
        mut f: impl FnMut(&crate::labels::Labels, &mut Signal),
    ) {
        let Some(series) = partition.series.get(slot) else { return };
        let mut next = series.first;
        while let Some(signal) = partition.signals.get_mut(next) {
            next = signal.next;
            f(&series.labels, signal);
        }
    }
}

impl Watch {
    /// Whether a sample at `at` comes after a moment that is due and not yet decided.
    fn waits(&self, at: Millis) -> bool {
        self.next != NEVER && ceil(self.next) <= at
    }
}

#[cfg(test)]
mod tests;
