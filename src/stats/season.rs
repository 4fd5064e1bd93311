//! Additive profile of a day (96 buckets) and, where asked, of a week (84 buckets), by event time.

use super::math::bounded;

const DAY: i64 = 86_400_000;
const WEEK: i64 = 7 * DAY;
/// Monday 5 January 1970, from which weeks are counted.
const MONDAY: i64 = 4 * DAY;

/// A profile over one period, in equal buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    period: i64,
    mean: Box<[f32]>,
    /// Samples seen by bucket, saturating.
    seen: Box<[u8]>,
}

impl Profile {
    /// A day in quarters of an hour.
    pub fn daily() -> Profile {
        Profile { period: DAY, mean: vec![0.0; 96].into(), seen: vec![0; 96].into() }
    }

    /// A week in steps of two hours.
    pub fn weekly() -> Profile {
        Profile { period: WEEK, mean: vec![0.0; 84].into(), seen: vec![0; 84].into() }
    }

    fn bucket(&self, local_ms: i64) -> usize {
        let at = local_ms.saturating_sub(MONDAY).rem_euclid(self.period);
        ((at * self.mean.len() as i64 / self.period) as usize).min(self.mean.len() - 1)
    }

    /// The profile's value at a local time; `None` until that bucket was seen through one period
    /// at this interval (or often enough).
    pub fn at(&self, local_ms: i64, interval_ms: f64) -> Option<f64> {
        let bucket = self.bucket(local_ms);
        let per_bucket = (self.period as f64 / self.mean.len() as f64 / interval_ms).clamp(1.0, 250.0);
        let seen = self.seen.get(bucket).copied()?;
        if f64::from(seen) < per_bucket.min(250.0) {
            return None;
        }
        self.mean.get(bucket).map(|m| f64::from(*m))
    }

    /// The least and greatest of the profile's values in the buckets next to that of a local time and in
    /// its own: what the season may be at, a little sooner or later than usual. `None` as in [`Profile::at`].
    pub fn around(&self, local_ms: i64, interval_ms: f64) -> Option<(f64, f64)> {
        let own = self.at(local_ms, interval_ms)?;
        let step = self.period / self.mean.len() as i64;
        let (mut low, mut high) = (own, own);
        for beside in [local_ms.saturating_sub(step), local_ms.saturating_add(step)] {
            let value = self.at(beside, interval_ms).unwrap_or(own);
            (low, high) = (low.min(value), high.max(value));
        }
        Some((low, high))
    }

    /// Takes a value; `gain` is the weight of one whole period's visit to a bucket.
    pub fn learn(&mut self, local_ms: i64, interval_ms: f64, value: f64, gain: f64) {
        let bucket = self.bucket(local_ms);
        let per_bucket = (self.period as f64 / self.mean.len() as f64 / interval_ms).clamp(1.0, 2000.0);
        if let (Some(mean), Some(seen)) = (self.mean.get_mut(bucket), self.seen.get_mut(bucket)) {
            let gain = (gain / per_bucket).max(1.0 / (f64::from(*seen) + 1.0)).min(1.0);
            let old = f64::from(*mean);
            *mean = bounded(old + gain * (value - old)).clamp(-1e37, 1e37) as f32;
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

    #[test]
    fn a_day_is_told_back_at_any_interval() {
        for interval in [15_000i64, 300_000, 3_600_000] {
            let mut p = Profile::daily();
            for k in 0..(2 * DAY / interval) {
                let t = k * interval;
                p.learn(t, interval as f64, (t.rem_euclid(DAY) / 3_600_000) as f64, 0.1);
            }
            let told = p.at(7 * 3_600_000 + 3 * DAY, interval as f64);
            assert!(told.is_some_and(|v| (v - 7.0).abs() < 1e-3), "{interval}: {told:?}");
        }
        assert_eq!(Profile::weekly().at(0, 60_000.0), None);
    }
}
