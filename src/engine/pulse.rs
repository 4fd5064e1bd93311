//! The clock by which silence is told: for each source group how far its samples have come, when it
//! was away, and which scrape targets it still watches (`up`).
//!
//! Silence is decided at the full minutes of this clock. When a body's samples carry it over one, a
//! [`Due`] goes to every partition, between the body's samples before that minute and those after.
//! So what is decided hangs on the samples' own times and not on how bodies are cut.
//!
//! All of it is folded under the lock of the order, and only while a rule asks for silence.

use super::identify::Prepared;
use crate::codec::{Damaged, Reader, Stored, stored};
use crate::labels::value_of;
use crate::time::{Millis, Span};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The step in which silence is decided.
pub const MINUTE: Span = Span::MINUTE;
/// A sample may come this late, by its group's clock, and still be heard in time.
pub const GRACE: Span = Span::MINUTE;
/// A source without any sample for longer than this was away itself.
pub const AWAY: Span = Span::minutes(2);
/// Targets of a group whose `up` is remembered.
const MAX_TARGETS: usize = 100_000;
/// Minutes of one body that are told apart; a body that spans more counts as a source that was away.
const MAX_DUES: usize = 64;

/// The full minute at or before a time.
pub fn floor(at: Millis) -> Millis {
    Millis(at.0.div_euclid(MINUTE.0).saturating_mul(MINUTE.0))
}

/// The full minute at or after a time.
pub fn ceil(at: Millis) -> Millis {
    let floor = floor(at);
    if floor == at { at } else { floor.plus(MINUTE.0) }
}

/// The target that a label set is of: a hash of `job` and `instance`; `None` where it has not both.
pub fn target(labels: &[(&str, &str)]) -> Option<u64> {
    target_of(value_of(labels, "job")?, value_of(labels, "instance")?)
}

/// See [`target`].
pub fn target_of(job: &str, instance: &str) -> Option<u64> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&(job.len() as u64).to_le_bytes());
    hash.update(job.as_bytes());
    hash.update(instance.as_bytes());
    (!job.is_empty() && !instance.is_empty()).then(|| hash.digest())
}

/// The newest samples of one `up` series, the last of each of the last few minutes that had any.
#[derive(Clone, Copy, Debug, Default)]
struct Beats([Option<(Millis, bool)>; 4]);

stored!(struct Beats(_));

impl Beats {
    fn beat(&mut self, at: Millis, stale: bool) {
        let minute = floor(at);
        if let Some(have) = self.0.iter_mut().flatten().find(|have| floor(have.0) == minute) {
            if at > have.0 {
                *have = (at, stale);
            }
            return;
        }
        // The oldest gives way, unless this one is older still.
        let oldest = self.0.iter_mut().min_by_key(|beat| beat.map_or(Millis::MIN, |beat| beat.0));
        if let Some(slot) = oldest.filter(|slot| slot.is_none_or(|have| have.0 < at)) {
            *slot = Some((at, stale));
        }
    }

    /// The last one before a full minute.
    fn before(&self, minute: Millis) -> Option<(Millis, bool)> {
        self.0.iter().flatten().filter(|beat| beat.0 < minute).max_by_key(|beat| beat.0).copied()
    }
}

/// What is known of a series' target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its `up` still comes, whatever it says.
    There,
    /// Its `up` has gone stale, or is silent itself: it was removed.
    Gone,
    /// No `up` of it is known.
    Unknown,
}

/// The targets of a group.
#[derive(Clone, Debug, Default)]
pub struct Targets(HashMap<u64, Beats>);

stored!(struct Targets(_));

impl Targets {
    /// What was known at a full minute of the target of a series last heard of at `heard`, that is
    /// silent after `after`.
    pub fn presence(&self, target: Option<u64>, minute: Millis, heard: Millis, after: Span) -> Presence {
        let known = target.and_then(|target| self.0.get(&target)).and_then(|beats| beats.before(minute));
        let Some((at, stale)) = known else { return Presence::Unknown };
        // An `up` that stopped together with the series, or not much later, was taken away with it.
        let fresh = Span((after.0 / 2).max(AWAY.0).min(after.0));
        match !stale && at > heard && at > minute.plus(-fresh.0) {
            true => Presence::There,
            false => Presence::Gone,
        }
    }
}

/// A full minute of a group's clock: what fell due before is decided now.
#[derive(Clone, Debug)]
pub struct Due {
    /// The group.
    pub group: u16,
    /// The minute. Samples before it that come in time have been applied.
    pub at: Millis,
    /// When the source was away until now: its first sample, and for how long it had none.
    pub back: Option<(Millis, Span)>,
    /// Its targets.
    pub targets: Arc<Targets>,
}

#[derive(Clone, Debug)]
struct Pulse {
    newest: Millis,
    targets: Arc<Targets>,
}

impl Stored for Pulse {
    fn store(&self, to: &mut Vec<u8>) {
        let Pulse { newest, targets } = self;
        newest.store(to);
        targets.store(to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Pulse { newest: Stored::load(from)?, targets: Arc::new(Stored::load(from)?) })
    }
}

/// A sample of an `up` series.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// Its source group.
    pub group: u16,
    /// Its HA pair member.
    pub replica: u16,
    /// Its target.
    pub target: u64,
    /// When.
    pub at: Millis,
    /// Whether it is a stale marker.
    pub stale: bool,
}

/// What a body says of time, before it has its place.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// First and last sample in each minute of a group.
    pub minutes: BTreeMap<(u16, Millis), (Millis, Millis)>,
    /// Its `up` samples.
    pub beats: Vec<Beat>,
}

impl Heartbeat {
    /// Takes a sample's time.
    pub fn saw(&mut self, group: u16, at: Millis) {
        let (first, last) = self.minutes.entry((group, floor(at))).or_insert((at, at));
        *first = (*first).min(at);
        *last = (*last).max(at);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.minutes.clear();
        self.beats.clear();
    }
}

/// The clocks of all groups.
#[derive(Debug, Default)]
pub struct Pulses(HashMap<u16, Pulse>);

stored!(struct Pulses(_));

impl Pulses {
    /// Takes a body's samples. `keep` is how long a target without `up` is remembered; `follows`
    /// says of a group's replica whether it counts. Returns what falls due, in the order of time.
    pub fn body(
        &mut self,
        work: &Prepared,
        received: Millis,
        keep: Span,
        follows: impl Fn(u16, u16) -> bool,
    ) -> Vec<Due> {
        let mut beats: Vec<Beat> =
            work.heartbeat.beats.iter().filter(|beat| follows(beat.group, beat.replica)).copied().collect();
        beats.sort_by_key(|beat| (beat.group, beat.at, beat.target, beat.stale));
        let mut beats = beats.into_iter().peekable();
        let mut dues: Vec<Due> = Vec::new();
        let (mut last_group, mut count) = (None, 0);
        for ((group, minute), (first, last)) in &work.heartbeat.minutes {
            if last_group.replace(*group) != Some(*group) {
                count = 0;
            }
            // What is stamped ahead of its receipt carries the clock to the receipt and no further.
            let (first, last) = (*first.min(&received), *last.min(&received));
            let pulse =
                self.0.entry(*group).or_insert_with(|| Pulse { newest: first, targets: Arc::default() });
            if let Some(due) = pulse.reach(*group, first, keep) {
                count += 1;
                match dues.last_mut() {
                    Some(merged) if count > MAX_DUES => {
                        *merged = Due { back: Some((first, Span(i64::MAX))), ..due };
                    }
                    _ => dues.push(due),
                }
            }
            let end = minute.plus(MINUTE.0);
            while let Some(beat) = beats.next_if(|beat| beat.group == *group && beat.at < end) {
                pulse.beat(&beat);
            }
            pulse.newest = pulse.newest.max(last);
        }
        dues.sort_by_key(|due| (due.at, due.group));
        dues
    }

    /// Time has come as far as `to` without samples.
    pub fn tick(&mut self, group: u16, to: Millis, keep: Span) -> Vec<Due> {
        let start = Pulse { newest: to, targets: Arc::default() };
        let pulse = self.0.entry(group).or_insert(start);
        let due = pulse.reach(group, to, keep).map(|due| Due { back: None, ..due });
        pulse.newest = pulse.newest.max(to);
        due.into_iter().collect()
    }
}

impl Pulse {
    /// The clock comes to `at`: what falls due, where that carries it over a full minute.
    fn reach(&mut self, group: u16, at: Millis, keep: Span) -> Option<Due> {
        let minute = floor(at);
        if minute <= floor(self.newest) {
            return None;
        }
        if minute.0.div_euclid(Span::HOUR.0) != self.newest.0.div_euclid(Span::HOUR.0) {
            let since = minute.plus(-keep.0);
            Arc::make_mut(&mut self.targets)
                .0
                .retain(|_, beats| beats.0.iter().flatten().any(|beat| beat.0 >= since));
        }
        let away = Span(at.since(self.newest));
        let back = (away > AWAY).then_some((at, away));
        Some(Due { group, at: minute, back, targets: self.targets.clone() })
    }

    fn beat(&mut self, beat: &Beat) {
        if self.targets.0.len() >= MAX_TARGETS && !self.targets.0.contains_key(&beat.target) {
            return;
        }
        Arc::make_mut(&mut self.targets).0.entry(beat.target).or_default().beat(beat.at, beat.stale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(samples: &[(i64, Option<bool>)]) -> Prepared {
        let mut work = Prepared::default();
        for (seconds, up) in samples {
            let at = Millis(seconds * 1000);
            work.heartbeat.saw(3, at);
            if let Some(stale) = up {
                work.heartbeat.beats.push(Beat { group: 3, replica: 0, target: 9, at, stale: *stale });
            }
        }
        work
    }

    fn minutes(dues: &[Due]) -> Vec<(i64, Option<i64>)> {
        dues.iter().map(|due| (due.at.0 / 60_000, due.back.map(|(_, away)| away.0 / 1000))).collect()
    }

    const KEEP: Span = Span::hours(3);
    const LATER: Millis = Millis(i64::MAX);

    #[test]
    fn however_bodies_are_cut_the_same_minutes_fall_due() {
        let times: Vec<i64> = (0..40).map(|i| i * 15).chain((0..20).map(|i| 900 + i * 15)).collect();
        let mut all = Vec::new();
        for cut in [1, 3, 7, 60] {
            let mut pulses = Pulses::default();
            let mut dues = Vec::new();
            for chunk in times.chunks(cut) {
                let rows: Vec<_> = chunk.iter().map(|t| (*t, None)).collect();
                dues.extend(pulses.body(&work(&rows), LATER, KEEP, |_, _| true));
            }
            all.push(minutes(&dues));
        }
        let there = (1..10).map(|minute| (minute, None)).chain([(15, Some(315))]);
        let expected: Vec<_> = there.chain((16..20).map(|minute| (minute, None))).collect();
        for found in all {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_stamped_ahead_moves_the_clock_to_its_receipt() {
        let mut pulses = Pulses::default();
        pulses.body(&work(&[(0, None)]), Millis(0), KEEP, |_, _| true);
        let dues = pulses.body(&work(&[(70, None), (500, None)]), Millis(75_000), KEEP, |_, _| true);
        assert_eq!(minutes(&dues), [(1, None)]);
    }

    #[test]
    fn presence_is_as_of_the_minute_asked() {
        let mut pulses = Pulses::default();
        let rows: Vec<_> = (0..40).map(|i| (i * 15, Some(false))).chain([(605, Some(true))]).collect();
        let mut dues = pulses.body(&work(&rows), LATER, KEEP, |_, _| true);
        dues.extend(pulses.tick(3, Millis(1_200_000), KEEP));
        let last = dues.last().expect("a tick falls due");
        assert_eq!((last.at, last.back), (Millis(1_200_000), None));
        let ask = |minute: i64, heard: i64| {
            last.targets.presence(Some(9), Millis(minute * 60_000), Millis(heard * 1000), Span::minutes(5))
        };
        assert_eq!(ask(10, 100), Presence::There, "the stale marker comes later");
        assert_eq!(ask(10, 590), Presence::Gone, "it stopped with the series");
        assert_eq!(ask(11, 100), Presence::Gone, "stale");
        assert_eq!(last.targets.presence(Some(8), Millis(0), Millis(0), Span::HOUR), Presence::Unknown);
        assert_eq!(last.targets.presence(None, Millis(0), Millis(0), Span::HOUR), Presence::Unknown);
        let later = pulses.tick(3, Millis(5 * 3_600_000), KEEP);
        assert_eq!(later[0].targets.0.len(), 0, "what has long been gone is forgotten");
    }

    #[test]
    fn replicas_not_followed_say_nothing_of_targets() {
        let mut pulses = Pulses::default();
        pulses.body(&work(&[(0, Some(false))]), LATER, KEEP, |_, _| false);
        let dues = pulses.body(&work(&[(90, Some(false))]), LATER, KEEP, |_, _| false);
        assert_eq!(minutes(&dues), [(1, None)]);
        assert!(dues[0].targets.0.is_empty());
    }

    #[test]
    fn a_body_of_many_minutes_is_bounded() {
        let rows: Vec<_> = (0..1_000).map(|i| (i * 60, None)).collect();
        let dues = Pulses::default().body(&work(&rows), LATER, KEEP, |_, _| true);
        assert_eq!(dues.len(), MAX_DUES);
        assert_eq!(dues.last().map(|due| (due.at.0, due.back.is_some())), Some((999 * 60_000, true)));
    }
}
