//! The season of one signal: kept where it is fixed, or where it has proved to be worth its memory.
//!
//! `Auto` starts a daily profile when the signal is some hours old and compares, sample by sample
//! and before learning, the distance from the profile with the distance from a slow mean. After
//! two days of comparison the profile stays or is given back, and is tried again a week later.
//! A weekly profile over what the daily one leaves is tried after the daily one stayed.
//!
//! In what the daily profile leaves, or in the signal where it did not stay, a [`Search`] looks for
//! another period (1 KiB while it lasts, up to three days). What it finds is tried in the same way,
//! against a level that follows as fast as the found profile does.

mod found;
mod image;

use crate::detect::Season;
use crate::stats::histogram::{Histogram, Sketch};
use crate::stats::math::{bounded, sqrt};
use crate::stats::moments::Moments;
use crate::stats::period::{Progress, Search};
use crate::stats::season::{Now, Profile};
use crate::time::{Millis, Span, Zone};
use found::Found;

const HOUR: i64 = 3_600_000;
/// Age of the signal before a season is tried.
const TRY_AFTER: i64 = 3 * HOUR;
/// Time of comparison before a profile is kept or dropped.
const COMPARE: i64 = 48 * HOUR;
/// Time before a dropped profile is tried again.
const RETRY: i64 = 7 * 24 * HOUR;
/// A profile stays if its squared residuals are this share of the plain ones or less.
const WORTH: f64 = 0.8;

/// It stays after half a day of comparison if they are this share or less.
const CLEAR: f64 = 0.4;

/// Profiles kept or on trial, and the search for another.
#[derive(Clone, Debug, PartialEq)]
pub struct Seasonal {
    anchor: f64,
    started: Millis,
    /// `None` where the daily profile did not stay.
    first: Option<Profile>,
    /// On what the first leaves.
    second: Option<Profile>,
    plain: f64,
    with: f64,
    kept: bool,
    residuals: Histogram,
    other: Other,
}

/// The season of another period, on what the first two leave.
#[derive(Clone, Debug, PartialEq)]
enum Other {
    /// Not looked for before this time.
    Later(i64),
    Sought(Box<Search>),
    Found(Box<Found>),
}

/// What the season says of a time, in the signal's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The season's value.
    pub value: f64,
    /// The least and greatest it takes a little sooner or later.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The usual distance of the signal from the value.
    pub usual: f64,
}

impl Expected {
    /// What of `x` the season does not explain: 0 from `low` to `high`, rising.
    pub fn residual(&self, x: f64) -> f64 {
        x - x.clamp(self.low, self.high)
    }
}

/// Where a signal stands with its season.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeper {
    held: Option<Box<Seasonal>>,
    /// When to try (again); 0 before the first sample.
    retry: i64,
}

fn instant(at: Millis, zone: &Zone) -> Now {
    Now { utc: at.0, local: zone.local(at) }
}

impl Keeper {
    /// The season's value at a time, where it is known and (for `Auto`) not worse than none.
    pub fn at(&self, at: Millis, zone: &Zone, interval: f64) -> Option<Expected> {
        let s = self.held.as_deref()?;
        if s.first.is_some() && !s.kept && (s.plain == 0.0 || s.with > WORTH * s.plain) {
            return None;
        }
        s.expected(instant(at, zone), interval)
    }

    /// Rarity of a residual, nats.
    pub fn rarity(&self, residual: f64, floor: f64) -> Option<f32> {
        self.held.as_deref().map(|s| s.residuals.rarity(residual, floor))
    }

    /// The residuals' answers, made ready for many questions of one state.
    pub fn sketch(&self, floor: f64) -> Option<Sketch<'_>> {
        self.held.as_deref().map(|s| s.residuals.sketch(floor))
    }

    /// Takes a sample; `slow` is the signal's slow mean, `share` in sixteenths its weight.
    #[allow(clippy::too_many_arguments)]
    pub fn learn(
        &mut self,
        season: Season,
        at: Millis,
        zone: &Zone,
        interval: f64,
        x: f64,
        slow: Moments,
        gamma: f64,
        floor: f64,
        share: u16,
    ) {
        let (first, second, fixed) = match season {
            Season::None => return,
            Season::Auto => (Span::DAY, None, false),
            Season::Fixed(periods) => (periods.first(), periods.second(), true),
        };
        if self.retry == 0 {
            self.retry = if fixed { at.0 } else { at.0.saturating_add(TRY_AFTER) };
        }
        if self.held.is_none() {
            if at.0 < self.retry {
                return;
            }
            self.held = Some(Box::new(Seasonal {
                anchor: x,
                started: at,
                first: Some(Profile::of(first.0)),
                second: second.map(|second| Profile::of(second.0)),
                plain: 0.0,
                with: 0.0,
                kept: fixed,
                residuals: Histogram::default(),
                other: Other::Later(i64::MAX),
            }));
        }
        let Some(s) = self.held.as_deref_mut() else { return };
        let now = instant(at, zone);
        let clip = 8.0 * slow.sd().max(floor);
        let square = |distance: f64| bounded(distance.abs().min(clip) * distance.abs().min(clip));
        if let Some(expected) = s.expected(now, interval) {
            let gain = (interval / (24 * HOUR) as f64).min(0.1);
            s.plain += gain * (square(x - slow.mean) - s.plain);
            s.with += gain * (square(x - expected.value) - s.with);
            s.residuals.learn(expected.residual(x), floor, share);
        }
        let gamma = gamma * f64::from(share) / 16.0;
        if let Some(rest) = s.teach(now, interval, x, gamma)
            && s.seek(now, interval, rest, gamma, square) == Progress::Nothing
        {
            if s.first.is_none() {
                self.held = None;
                self.retry = at.0.saturating_add(RETRY);
                return;
            }
            s.other = Other::Later(at.0.saturating_add(RETRY));
        }
        let age = at.since(s.started);
        let clear = age > 36 * HOUR && s.with < CLEAR * s.plain;
        if s.first.is_some() && !s.kept && (clear || age > 24 * HOUR + COMPARE) {
            if s.with < WORTH * s.plain {
                s.kept = true;
                s.second = Some(Profile::of(Span::days(7).0));
            } else {
                s.first = None;
                s.residuals = Histogram::default();
            }
            s.other = Other::Later(at.0);
        }
    }

    /// Moves the season's level by `by`.
    pub fn shift(&mut self, by: f64) {
        if let Some(s) = self.held.as_deref_mut() {
            s.anchor = bounded(s.anchor + by);
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let profiles = |s: &Seasonal| s.first.iter().chain(&s.second).map(Profile::heap_bytes).sum::<usize>();
        let other = |s: &Seasonal| match &s.other {
            Other::Later(_) => 0,
            Other::Sought(search) => size_of::<Search>() + search.heap_bytes(),
            Other::Found(found) => size_of::<Found>() + found.profile().heap_bytes(),
        };
        self.held.as_deref().map_or(0, |s| size_of::<Seasonal>() + profiles(s) + other(s))
    }
}

/// A profile's value, and the least and greatest a little sooner or later.
fn told(profile: &Profile, now: Now, interval: f64) -> Option<(f64, (f64, f64))> {
    Some((profile.at(now, interval)?, profile.around(now, interval)?))
}

impl Seasonal {
    fn expected(&self, now: Now, interval: f64) -> Option<Expected> {
        const NONE: (f64, (f64, f64)) = (0.0, (0.0, 0.0));
        let told = |profile: &Profile| told(profile, now, interval);
        let found = match &self.other {
            Other::Found(found) if found.useful() => Some(&**found),
            _ => None,
        };
        let other = found.and_then(|found| told(found.profile()));
        // Of the first and the found one, one has to be known.
        let first = match &self.first {
            Some(first) => told(first)?,
            None => other.map(|_| NONE)?,
        };
        let parts = [first, self.second.as_ref().and_then(told).unwrap_or(NONE), other.unwrap_or(NONE)];
        let sum = |of: fn(&(f64, (f64, f64))) -> f64| parts.iter().map(of).sum::<f64>();
        let value = self.anchor + sum(|part| part.0);
        let (low, high) = (self.anchor + sum(|part| part.1.0), self.anchor + sum(|part| part.1.1));
        let usual = sqrt(found.map_or(self.with, Found::with));
        Some(Expected { value, low: low.min(value), high: high.max(value), usual })
    }

    /// Teaches the first two profiles; what they leave, where it is known.
    fn teach(&mut self, now: Now, interval: f64, x: f64, gamma: f64) -> Option<f64> {
        let mut rest = x - self.anchor;
        if let Some(first) = &mut self.first {
            let before = first.at(now, interval);
            first.learn(now, interval, rest, gamma);
            rest -= before?;
        }
        if let Some(second) = &mut self.second {
            let before = second.at(now, interval);
            second.learn(now, interval, rest, gamma);
            rest -= before.unwrap_or(0.0);
        }
        Some(rest)
    }

    /// Looks for another period in what the first two leave, tries what it finds, and teaches what is
    /// kept. `Nothing` where all has been looked at in vain.
    fn seek(
        &mut self,
        now: Now,
        interval: f64,
        rest: f64,
        gamma: f64,
        square: impl Fn(f64) -> f64,
    ) -> Progress {
        match &mut self.other {
            Other::Later(when) => {
                if now.utc >= *when {
                    self.other = Other::Sought(Box::new(Search::new(interval)));
                }
                Progress::Going
            }
            Other::Sought(search) => {
                let progress = search.take(now.utc, rest);
                if let Progress::Found(period, scale) = progress {
                    self.other = Other::Found(Box::new(Found::new(period, scale, now, interval)));
                }
                progress
            }
            Other::Found(found) => {
                if found.take(now, interval, rest, gamma, square) {
                    return Progress::Going;
                }
                // One that no longer helps is looked for anew, later.
                let coarser = if found.kept() { None } else { Search::beyond(found.scale(), interval) };
                let Some(search) = coarser else { return Progress::Nothing };
                self.other = Other::Sought(Box::new(search));
                Progress::Going
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Periods;
    use crate::stats::math::young;

    fn fixed(periods: &[Span]) -> Season {
        Season::Fixed(Periods::new(periods).expect("sound"))
    }

    fn run(season: Season, swing: f64) -> Keeper {
        let mut keeper = Keeper::default();
        let slow = Moments { mean: 0.0, var: swing * swing + 1.0 };
        for k in 0..(8 * 288i64) {
            let t = k * 300_000;
            let square = if t.rem_euclid(24 * HOUR) < 12 * HOUR { swing } else { -swing };
            keeper.learn(
                season,
                Millis(t + 1),
                &Zone::utc(),
                300_000.0,
                square + noise(k),
                slow,
                0.1,
                0.01,
                16,
            );
        }
        keeper
    }

    #[test]
    fn a_season_earns_its_memory_or_gives_it_back() {
        let kept = run(Season::Auto, 10.0);
        let value = kept.at(Millis(6 * 24 * HOUR + 3 * HOUR), &Zone::utc(), 300_000.0);
        assert!(value.is_some_and(|v| (v.value - 10.0).abs() < 1.0), "{value:?}");
        assert!(kept.heap_bytes() > 0);
        assert_eq!(run(Season::Auto, 0.0).heap_bytes(), 0);
        assert!(run(fixed(&[Span::DAY]), 0.0).heap_bytes() > 0);
        assert_eq!(run(Season::None, 10.0).heap_bytes(), 0);
    }

    #[test]
    fn nine_in_the_morning_stays_there_when_the_clocks_change() {
        let zone = Zone::named("Europe/Berlin").expect("known");
        let mut keeper = Keeper::default();
        // 2026-03-19 to 2026-04-02, over the change on 2026-03-29: an hour of work from 9 local time.
        let (from, interval) = (1_773_878_400_000i64, 300_000.0);
        let busy = |at: i64| zone.local(Millis(at)).rem_euclid(24 * HOUR) / HOUR == 9;
        let mut expected = Vec::new();
        for k in 0..(14 * 288i64) {
            let at = from + k * 300_000;
            let x = if busy(at) { 50.0 } else { 10.0 };
            if k > 3 * 288 {
                let told = keeper.at(Millis(at), &zone, interval).expect("known by then");
                assert!((told.value - x).abs() < 1e-3, "{at}: {told:?}, not {x}");
                expected.push((at, told.value));
            }
            let slow = Moments { mean: 12.0, var: 60.0 };
            let season = fixed(&[Span::DAY]);
            keeper.learn(season, Millis(at), &zone, interval, x, slow, 0.1, 0.01, 16);
        }
        // It is 8:00 UTC in winter and 7:00 UTC in summer.
        let hours = |from: i64, to: i64| {
            let on = expected.iter().filter(|(at, v)| (from..to).contains(at) && *v > 40.0);
            on.map(|(at, _)| at.rem_euclid(24 * HOUR) / HOUR).collect::<std::collections::BTreeSet<_>>()
        };
        let change = 1_774_746_000_000;
        assert!(hours(0, change).into_iter().eq([8]));
        assert!(hours(change, i64::MAX).into_iter().eq([7]));
    }

    fn noise(k: i64) -> f64 {
        let mut sum = -6.0;
        for j in 0..12u64 {
            let mut z = (k as u64 * 12 + j).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            sum += ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    const FROM: i64 = 1_700_000_000_000;

    fn tried(days: i64, interval: i64, mut value: impl FnMut(i64) -> f64) -> Keeper {
        let mut keeper = Keeper::default();
        let mut slow = Moments::default();
        for k in 0..days * 24 * HOUR / interval {
            let (at, x) = (Millis(FROM + k * interval), value(k));
            slow.learn(x, young(k.min(1_000) as u32), f64::MAX);
            keeper.learn(Season::Auto, at, &Zone::utc(), interval as f64, x, slow, 0.1, 0.01, 16);
        }
        keeper
    }

    #[test]
    fn a_season_that_is_not_a_day_is_found_and_kept() {
        let minute = HOUR / 60;
        for (interval, period) in [(60_000, 87 * minute), (60_000, 5 * HOUR), (300_000, 10 * HOUR)] {
            let on = |k: i64| (k * interval).rem_euclid(period) < period / 9;
            let keeper = tried(11, interval, |k| if on(k) { 12.0 } else { 0.0 } + noise(k));
            let from = 11 * 24 * HOUR / interval;
            let right = (from..from + period / interval).filter(|k| {
                let told = keeper.at(Millis(FROM + k * interval), &Zone::utc(), interval as f64);
                told.is_some_and(|told| (told.value > 6.0) == on(*k))
            });
            let share = right.count() as f64 * interval as f64 / period as f64;
            assert!(share > 0.95, "{interval} {period}: {share}");
        }
    }

    #[test]
    fn what_has_no_season_keeps_none() {
        assert_eq!(tried(7, 60_000, noise).heap_bytes(), 0);
        let mut level = 0.0;
        let walk = tried(8, 60_000, |k| {
            level += noise(k);
            level
        });
        let at = Millis(FROM + 8 * 24 * HOUR);
        assert_eq!(walk.at(at, &Zone::utc(), 60_000.0), None);
        let trend = tried(8, 60_000, |k| k as f64 + noise(k));
        assert_eq!(trend.at(at, &Zone::utc(), 60_000.0), None);
    }
}
