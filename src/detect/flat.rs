//! Flat line: a signal that rests on one value far longer than it ever did.
//!
//! A stuck sensor reports an ordinary value, again and again. Counted are the samples since the last
//! change, against the longest rest so far, which is forgotten slowly. Nothing is told before the signal has
//! been seen for some days: what idles at night or over the weekend is not stuck.

use crate::codec::stored;
use crate::stats::math::{Bounds, ln};

/// Time before a flat line is told, ms: a weekend is within it.
const SEEN: i64 = 8 * 86_400_000;
/// A rest counts from this many times the longest before it,
const LONGER: f32 = 3.0;
/// which is taken for at least so many samples.
const SHORTEST: f32 = 4.0;
/// Time in which the longest rest is forgotten by half, ms.
const FORGET: f32 = 30.0 * 86_400_000.0;
/// Gain of the share of samples at rest.
const STILL: f32 = 2.0 / 1001.0;
/// Nats that one more sample at rest is worth at most.
const EACH: f64 = 3.0;
/// and all of them.
const MOST: f64 = 16.0;

/// State of the detector; 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flat {
    /// Samples since the value last changed.
    run: f32,
    longest: f32,
    /// Share of samples that did not change the value.
    still: f32,
}

stored!(struct Flat { run, longest, still });

impl Flat {
    /// Nats of one more sample with the same value, of a signal known for `age` ms.
    pub fn nats(&self, age: i64) -> f64 {
        let beyond = self.run + 1.0 - LONGER * self.longest.at_least(SHORTEST);
        if beyond <= 0.0 || age < SEEN {
            return 0.0;
        }
        (f64::from(beyond) * (-ln(f64::from(self.still).within(1e-9, 1.0))).at_most(EACH)).at_most(MOST)
    }

    /// Takes a sample; `changed` where its value is another than the one before.
    pub fn learn(&mut self, interval: f64, changed: bool) {
        self.longest -= self.longest * (0.7 * interval as f32 / FORGET).at_most(0.1);
        if changed {
            // Told at a rest's end, so that a rest does not excuse itself.
            self.still += (self.run * STILL).at_most(0.5) * (1.0 - self.still);
            self.still -= STILL * self.still;
            self.longest = self.longest.at_least(self.run);
            self.run = 0.0;
        } else {
            self.run += 1.0;
        }
    }

    /// Takes the rest that goes on as normal.
    pub fn accept(&mut self) {
        self.longest = self.longest.at_least(self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rest_longer_than_any_before_is_told_and_only_after_days() {
        let minute = |k: i64| k * 60_000;
        let mut flat = Flat::default();
        let mut k = 0;
        while k < 9 * 1_440 {
            // Two nights of rest, ten hours each, among values that change.
            let night = (600..1_200).contains(&k) || (2_040..2_640).contains(&k);
            flat.learn(60_000.0, !night);
            assert_eq!(flat.nats(minute(k)), 0.0, "{k}");
            k += 1;
        }
        let mut told = None;
        for more in 0..2_400 {
            if told.is_none() && flat.nats(minute(k)) > 12.0 {
                told = Some(more);
            }
            flat.learn(60_000.0, false);
            k += 1;
        }
        assert!(told.is_some_and(|samples| (1_400..1_900).contains(&samples)), "{told:?}");
        flat.accept();
        assert_eq!(flat.nats(minute(k)), 0.0);
    }
}
