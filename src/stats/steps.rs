//! The size of the steps from sample to sample: of all of them, and of those that moved at all.

use super::math::{Bounds, bounded};
use crate::codec::stored;

/// Step sizes of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Steps {
    /// The last value.
    pub last: f64,
    /// Weighted mean of |step|, far steps pulled in.
    pub mean: f64,
    /// The same over steps other than 0: the grain of a signal that rests most of the time.
    pub moved: f64,
    /// Steps other than 0, saturating.
    pub moves: u16,
    /// Steps in all, saturating.
    pub count: u16,
}

/// Least gain of the mean over all steps.
const GAIN: f64 = 0.005;
/// Least gain of the mean over moving steps.
const MOVED_GAIN: f64 = 0.01;
/// A step counts at most this many means.
const CLIP: f64 = 8.0;

stored!(packed struct Steps { last, mean, moved, moves, count });

impl Steps {
    /// Takes the next value; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, x: f64, share: f64) {
        let step = (x - self.last).abs();
        self.last = x;
        self.count = self.count.saturating_add(1);
        let gain = (1.0 / f64::from(self.count)).at_least(GAIN) * share;
        let clipped =
            if self.count > 50 { step.at_most(CLIP * self.mean.at_least(0.5 * self.moved)) } else { step };
        if step > 0.0 {
            self.moves = self.moves.saturating_add(1);
            if self.moves == 1 {
                self.moved = step;
            } else {
                let gain = (1.0 / f64::from(self.moves)).at_least(MOVED_GAIN) * share;
                self.moved = bounded(self.moved + gain * (step.at_most(CLIP * self.moved) - self.moved));
            }
        }
        let clipped = if self.count > 50 && self.mean == 0.0 { step.at_most(self.moved) } else { clipped };
        self.mean = bounded(self.mean + gain * (clipped - self.mean));
    }

    /// The smallest noise this signal can be credited with: half its usual move, and never below
    /// what `f64` resolves at this height.
    pub fn floor(&self) -> f64 {
        (0.5 * self.moved).at_least(1e-9 * self.last.abs()).at_least(1e-300)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resting_signal_keeps_its_grain() {
        let mut s = Steps { last: 5.0, ..Steps::default() };
        for _ in 0..10 {
            s.learn(5.0, 1.0);
        }
        assert_eq!((s.mean, s.moved, s.moves), (0.0, 0.0, 0));
        s.learn(7.0, 1.0);
        assert_eq!((s.moved, s.moves), (2.0, 1));
        assert!((s.mean - 2.0 / 11.0).abs() < 1e-15);
        assert_eq!(s.floor(), 1.0);
    }
}
