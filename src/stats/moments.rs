//! Winsorised, exponentially weighted mean and variance.

use super::math::{Bounds, bounded, sqrt};
use crate::codec::stored;

/// Mean and variance with a gain given at each update; far values are pulled in before they teach.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Moments {
    /// The weighted mean.
    pub mean: f64,
    /// The weighted variance.
    pub var: f64,
}

stored!(packed struct Moments { mean, var });

impl Moments {
    /// The standard deviation.
    pub fn sd(&self) -> f64 {
        sqrt(self.var)
    }

    /// Moves towards `x` by `gain` in [0, 1]; the step counts at most `clip` (≥ 0) either way.
    /// (West 1979, the incremental form of the weighted variance.)
    pub fn learn(&mut self, x: f64, gain: f64, clip: f64) {
        let d = (x - self.mean).within(-clip, clip);
        self.mean = bounded(self.mean + gain * d);
        self.var = (1.0 - gain) * (self.var + gain * d * d);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_by_hand() {
        let mut m = Moments { mean: 10.0, var: 0.0 };
        m.learn(12.0, 0.5, 100.0);
        assert_eq!(m, Moments { mean: 11.0, var: 1.0 });
        // A far value counts as one at the clip.
        m.learn(1e9, 0.5, 2.0);
        assert_eq!(m, Moments { mean: 12.0, var: 1.5 });
    }
}
