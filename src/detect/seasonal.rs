//! The season of one signal: kept where it is fixed, or where it has proved to be worth its memory.
//!
//! `Auto` starts a daily profile when the signal is some hours old and compares, sample by sample
//! and before learning, the distance from the profile with the distance from a slow mean. After
//! two days of comparison the profile stays or is given back, and is tried again a week later.
//! A weekly profile over what the daily one leaves is tried after the daily one stayed.

use crate::detect::Season;
use crate::stats::histogram::{Histogram, Sketch};
use crate::stats::math::{bounded, sqrt};
use crate::stats::moments::Moments;
use crate::stats::season::{Now, Profile};
use crate::time::{Millis, Span, Zone};

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

/// A profile kept or on trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Seasonal {
    anchor: f64,
    started: Millis,
    first: Profile,
    /// On what the first leaves.
    second: Option<Profile>,
    plain: f64,
    with: f64,
    kept: bool,
    residuals: Histogram,
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

impl Keeper {
    /// The season's value at a time, where it is known and (for `Auto`) not worse than none.
    pub fn at(&self, at: Millis, zone: &Zone, interval: f64) -> Option<Expected> {
        let s = self.held.as_deref()?;
        if !s.kept && (s.plain == 0.0 || s.with > WORTH * s.plain) {
            return None;
        }
        s.expected(Now::of(at, zone), interval)
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
                first: Profile::of(first.0),
                second: second.map(|second| Profile::of(second.0)),
                plain: 0.0,
                with: 0.0,
                kept: fixed,
                residuals: Histogram::default(),
            }));
        }
        let Some(s) = self.held.as_deref_mut() else { return };
        let now = Now::of(at, zone);
        if let Some(expected) = s.expected(now, interval) {
            let value = expected.value;
            let clip = 8.0 * slow.sd().max(floor);
            let gain = (interval / (24 * HOUR) as f64).min(0.1);
            let square = |distance: f64| bounded(distance.abs().min(clip) * distance.abs().min(clip));
            s.plain += gain * (square(x - slow.mean) - s.plain);
            s.with += gain * (square(x - value) - s.with);
            s.residuals.learn(expected.residual(x), floor, share);
        }
        s.teach(now, interval, x, gamma * f64::from(share) / 16.0);
        let age = at.since(s.started);
        let clear = age > 36 * HOUR && s.with < CLEAR * s.plain;
        if !s.kept && (clear || age > 24 * HOUR + COMPARE) {
            if s.with < WORTH * s.plain {
                s.kept = true;
                s.second = Some(Profile::of(Span::days(7).0));
            } else {
                self.held = None;
                self.retry = at.0.saturating_add(RETRY);
            }
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
        self.held.as_deref().map_or(0, |s| {
            size_of::<Seasonal>() + s.first.heap_bytes() + s.second.as_ref().map_or(0, Profile::heap_bytes)
        })
    }
}

impl Seasonal {
    fn expected(&self, now: Now, interval: f64) -> Option<Expected> {
        let told = |p: &Profile| Some((p.at(now, interval)?, p.around(now, interval)?));
        let first = told(&self.first)?;
        let second = self.second.as_ref().and_then(told).unwrap_or((0.0, (0.0, 0.0)));
        let value = self.anchor + first.0 + second.0;
        let (low, high) = (self.anchor + first.1.0 + second.1.0, self.anchor + first.1.1 + second.1.1);
        Some(Expected { value, low: low.min(value), high: high.max(value), usual: sqrt(self.with) })
    }

    fn teach(&mut self, now: Now, interval: f64, x: f64, gamma: f64) {
        let rest = x - self.anchor;
        let before = self.first.at(now, interval);
        self.first.learn(now, interval, rest, gamma);
        if let (Some(value), Some(second)) = (before, &mut self.second) {
            second.learn(now, interval, rest - value, gamma);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Periods;

    fn fixed(periods: &[Span]) -> Season {
        Season::Fixed(Periods::new(periods).expect("sound"))
    }

    fn run(season: Season, swing: f64) -> Keeper {
        let mut keeper = Keeper::default();
        let slow = Moments { mean: 0.0, var: swing * swing + 1.0 };
        for k in 0..(5 * 288i64) {
            let t = k * 300_000;
            let square = if t.rem_euclid(24 * HOUR) < 12 * HOUR { swing } else { -swing };
            let noise = (k * 7 % 11 - 5) as f64 / 5.0;
            keeper.learn(season, Millis(t + 1), &Zone::utc(), 300_000.0, square + noise, slow, 0.1, 0.01, 16);
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
}
