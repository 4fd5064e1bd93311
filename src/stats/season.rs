//! Additive profiles over a period in equal buckets, by event time: a day and a week as clocks show
//! them, other periods as time passes.

use super::math::{Bounds, bounded, sqrt};
use crate::codec::stored;

const DAY: i64 = 86_400_000;
const WEEK: i64 = 7 * DAY;
/// Monday 5 January 1970, from which weeks are counted.
const MONDAY: i64 = 4 * DAY;

/// An instant, as time passes and as clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the epoch.
    pub utc: i64,
    /// The same in local time.
    pub local: i64,
}

impl Now {
    fn moved(self, by: i64) -> Now {
        Now { utc: self.utc.saturating_add(by), local: self.local.saturating_add(by) }
    }
}

/// A profile over one period, in equal buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    period: i64,
    mean: Box<[f32]>,
    /// Samples seen by bucket, saturating.
    seen: Box<[u8]>,
}

/// The longest period that is ever looked for, ms, and the most buckets.
const LONGEST: i64 = 1_000_000_000_000_000;
const BUCKETS: usize = 96;

stored!(struct Profile { period, mean, seen } valid |p| {
    (1..=LONGEST).contains(&p.period)
        && (1..=BUCKETS).contains(&p.mean.len())
        && p.seen.len() == p.mean.len()
});

impl Profile {
    /// Of a period in ms: a day in quarters of an hour, a week in steps of two hours, others in steps of
    /// half a minute, or longer ones where that makes more than 96.
    pub fn of(period: i64) -> Profile {
        match period {
            WEEK => Profile::steps(WEEK, 84),
            _ => Profile::steps(period, (period / 30_000).clamp(16, BUCKETS as i64)),
        }
    }

    /// Of a period in ms where samples come at an interval: a bucket each, and at most 96.
    pub fn fitted(period: i64, interval_ms: f64) -> Profile {
        Profile::steps(period, ((period as f64 / interval_ms.at_least(1.0)) as i64).clamp(8, BUCKETS as i64))
    }

    fn steps(period: i64, buckets: i64) -> Profile {
        let buckets = buckets.max(1) as usize;
        Profile { period: period.max(1), mean: vec![0.0; buckets].into(), seen: vec![0; buckets].into() }
    }

    /// Its period, ms.
    pub fn period(&self) -> i64 {
        self.period
    }

    /// What share of the usual gain a period's visit has: a season of less than a day remembers more
    /// periods, for one odd period is sooner there, but less time.
    pub fn pace(&self) -> f64 {
        if self.period >= DAY { 1.0 } else { sqrt(self.period as f64 / DAY as f64) }
    }

    fn bucket(&self, now: Now) -> usize {
        let at = if self.period == DAY || self.period == WEEK { now.local } else { now.utc };
        let at = at.saturating_sub(MONDAY).rem_euclid(self.period);
        ((at * self.mean.len() as i64 / self.period) as usize).min(self.mean.len() - 1)
    }

    /// The profile's value at an instant; `None` until that bucket was seen through one period
    /// at this interval (or often enough).
    pub fn at(&self, now: Now, interval_ms: f64) -> Option<f64> {
        let bucket = self.bucket(now);
        let per_bucket = (self.period as f64 / self.mean.len() as f64 / interval_ms).within(1.0, 250.0);
        let seen = self.seen.get(bucket).copied()?;
        if f64::from(seen) < per_bucket.at_most(250.0) {
            return None;
        }
        self.mean.get(bucket).map(|m| f64::from(*m))
    }

    /// The least and greatest of the profile's values in the buckets next to that of an instant and in
    /// its own: what the season may be at, a little sooner or later than usual. `None` as in [`Profile::at`].
    pub fn around(&self, now: Now, interval_ms: f64) -> Option<(f64, f64)> {
        let own = self.at(now, interval_ms)?;
        let step = self.period / self.mean.len() as i64;
        let (mut low, mut high) = (own, own);
        for beside in [now.moved(-step), now.moved(step)] {
            let value = self.at(beside, interval_ms).unwrap_or(own);
            (low, high) = (low.at_most(value), high.at_least(value));
        }
        Some((low, high))
    }

    /// Takes a value; `gain` is the weight of one whole period's visit to a bucket.
    pub fn learn(&mut self, now: Now, interval_ms: f64, value: f64, gain: f64) {
        let (bucket, pace) = (self.bucket(now), self.pace());
        let per_bucket = (self.period as f64 / self.mean.len() as f64 / interval_ms).within(1.0, 2000.0);
        if let (Some(mean), Some(seen)) = (self.mean.get_mut(bucket), self.seen.get_mut(bucket)) {
            // A full count says no more than that.
            let first = if *seen < u8::MAX { 1.0 / (f64::from(*seen) + 1.0) } else { 0.0 };
            let gain = (gain * pace / per_bucket).at_least(first).at_most(1.0);
            let old = f64::from(*mean);
            *mean = bounded(old + gain * (value - old)) as f32;
            *seen = seen.saturating_add(1);
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.mean.len() * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(utc: i64) -> Now {
        Now { utc, local: utc }
    }

    #[test]
    fn a_day_is_told_back_at_any_interval() {
        for interval in [15_000i64, 300_000, 3_600_000] {
            let mut p = Profile::of(DAY);
            for k in 0..(2 * DAY / interval) {
                let t = k * interval;
                p.learn(at(t), interval as f64, (t.rem_euclid(DAY) / 3_600_000) as f64, 0.1);
            }
            let told = p.at(at(7 * 3_600_000 + 3 * DAY), interval as f64);
            assert!(told.is_some_and(|v| (v - 7.0).abs() < 1e-3), "{interval}: {told:?}");
        }
        assert_eq!(Profile::of(WEEK).at(at(0), 60_000.0), None);
    }

    #[test]
    fn only_days_and_weeks_follow_the_clocks() {
        for (period, local) in [(DAY, true), (WEEK, true), (DAY / 3, false), (3 * DAY, false)] {
            let mut p = Profile::of(period);
            let now = Now { utc: 0, local: DAY / 6 };
            p.learn(now, 1e12, 5.0, 0.1);
            assert_eq!(p.at(Now { utc: DAY / 6, ..now }, 1e12).is_some(), local, "{period}");
            assert_eq!(p.at(Now { local: 0, ..now }, 1e12).is_some(), !local, "{period}");
        }
    }

    #[test]
    fn any_period_is_told_back() {
        for period in [600_000i64, 5_400_000, 31 * DAY] {
            for mut p in [Profile::of(period), Profile::fitted(period, 60_000.0)] {
                let high = |t: i64| t.rem_euclid(period) < period / 2;
                for k in 0..(3 * period / 60_000) {
                    p.learn(at(k * 60_000), 60_000.0, if high(k * 60_000) { 1.0 } else { 0.0 }, 0.1);
                }
                let told = [period / 4, 3 * period / 4].map(|t| {
                    // The sample's own time: a bucket between two samples was never seen.
                    p.at(at(10 * period + t / 60_000 * 60_000), 60_000.0)
                });
                assert_eq!(told, [Some(1.0), Some(0.0)], "{period}");
            }
        }
    }
}
