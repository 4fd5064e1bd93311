//! The usual interval between samples: slow, and quantised so that what is read from it rests.

use crate::codec::stored;

/// An estimate of the sampling interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Running estimate, milliseconds; 0 before the first interval.
    estimate: f32,
    /// What is told, milliseconds.
    told: f32,
    /// Intervals in a row that contradict the estimate.
    strangers: u8,
}

/// Intervals in a row off by more than half before the estimate starts anew: a gap is no new interval.
const STRANGERS: u8 = 8;
/// Drift of the estimate before what is told follows.
const TOLERANCE: f32 = 0.15;

stored!(struct Interval { estimate, told, strangers } valid |i| i.strangers < STRANGERS);

impl Interval {
    /// Takes the interval before a sample, milliseconds, positive.
    pub fn learn(&mut self, ms: i64) {
        let dt = ms.clamp(1, 30 * 86_400_000) as f32;
        if self.estimate == 0.0 {
            self.estimate = dt;
        } else if dt < 0.6 * self.estimate || dt > 1.6 * self.estimate {
            self.strangers += 1;
            if self.strangers >= STRANGERS {
                self.estimate = dt;
                self.strangers = 0;
            }
        } else {
            self.strangers = 0;
            self.estimate += (dt - self.estimate) / 32.0;
        }
        if (self.estimate - self.told).abs() > TOLERANCE * self.told {
            self.told = self.estimate;
        }
    }

    /// The interval in milliseconds, at least 1; one minute before any was seen.
    pub fn ms(&self) -> f64 {
        if self.told == 0.0 { 60_000.0 } else { f64::from(self.told) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_through_jitter_and_gaps_and_follows_a_change() {
        let mut i = Interval::default();
        assert_eq!(i.ms(), 60_000.0);
        for dt in [15_000, 15_200, 14_800, 15_100, 3_600_000, 15_000] {
            i.learn(dt);
        }
        assert_eq!(i.ms(), 15_000.0);
        for _ in 0..8 {
            i.learn(60_000);
        }
        assert_eq!(i.ms(), 60_000.0);
    }
}
