//! Slope: a signal that climbs or falls more steadily than it uses to.
//!
//! The slope over a moving window, as the difference of a quick and a slow exponentially weighted mean
//! (which is the slope times the difference of their ages), in units of its own usual size and
//! calibrated by a ledger of its own. Kept only where it is chosen: for most signals [`super::shift`]
//! tells the same, and signals with a season climb every morning.

use super::channel::Channel;
use crate::calibrate::{Ledger, Moment};
use crate::codec::stored;
use crate::stats::math::{Bounds, bounded, young};

/// Gains of the quick and the slow mean.
const QUICK: f64 = 2.0 / 21.0;
const SLOW: f64 = 2.0 / 101.0;
/// Scales by which a sample moves the means at most.
const FAR: f64 = 4.0;

/// State of the detector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slope {
    quick: f64,
    slow: f64,
    channel: Channel,
}

stored!(struct Slope { quick, slow, channel });

/// The two means with one more sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    quick: f64,
    slow: f64,
}

impl Means {
    fn slope(self) -> f64 {
        self.quick - self.slow
    }
}

impl Slope {
    /// The means with `x`, the `n`-th sample of a signal `scale` wide.
    pub fn judge(&self, x: f64, scale: f64, n: u32) -> Means {
        let clip = if n > 20 { FAR * scale } else { f64::MAX };
        let near = self.quick + (x - self.quick).within(-clip, clip);
        let step = |mean: f64, gain: f64| bounded(mean + gain.at_least(young(n)) * (near - mean));
        Means { quick: step(self.quick, QUICK), slow: step(self.slow, SLOW) }
    }

    /// The evidence of the slope.
    pub fn evidence(&self, means: Means, floor: f64) -> f64 {
        self.channel.evidence(means.slope(), floor)
    }

    /// The ledger of its peaks.
    pub fn ledger(&self) -> &Ledger {
        self.channel.ledger()
    }

    /// Takes the sample that [`Slope::judge`] judged; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, n: u32, means: Means, share: f64) {
        (self.quick, self.slow) = (means.quick, means.slow);
        self.channel.learn(means.slope(), n, share);
    }

    /// Enters the evidence of a judged sample into the ledger.
    pub fn enter(&mut self, moment: &Moment, evidence: f64, bar: f64) {
        self.channel.enter(moment, evidence, bar);
    }

    /// Takes `level` as the new normal.
    pub fn accept(&mut self, level: f64) {
        (self.quick, self.slow) = (level, level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_climb_is_told_and_a_level_is_not() {
        let mut slope = Slope::default();
        for n in 0..500u32 {
            let means = slope.judge(5.0 + f64::from(n % 3), 1.0, n);
            slope.learn(n, means, 1.0);
        }
        let level = slope.evidence(slope.judge(6.0, 1.0, 500), 0.01);
        for n in 500..560u32 {
            let means = slope.judge(6.0 + 0.1 * f64::from(n - 500), 1.0, n);
            slope.learn(n, means, 1.0);
        }
        assert!(slope.evidence(slope.judge(12.0, 1.0, 560), 0.01) > level + 20.0);
    }
}
