//! Slow changes: a level that has shifted, a slope that lasts.
//!
//! Sharp detectors follow a slow change and find nothing odd in any one sample. Two linear statistics
//! see it: the *offset*, a short exponentially weighted mean of the signal's distance from its slow level (or
//! from its season, where that is known), and the *slope*, the difference of a quick and a slow
//! exponentially weighted mean. Each is told in units of its own usual size, in logarithms, and calibrated by
//! a [`Ledger`] of its own: a signal that wanders by nature has wide peaks there.

use crate::calibrate::Ledger;
use crate::stats::math::{bounded, ln, ratio, young};

/// Gains of the quick and the slow mean.
const QUICK: f64 = 2.0 / 21.0;
const SLOW: f64 = 2.0 / 101.0;
/// Gain of the usual sizes.
const USUAL: f64 = 2.0 / 1001.0;
/// A size counts at most this many usual ones.
const CLIP: f64 = 6.0;
/// Scales beyond which a sample counts no more for a slow change.
const FAR: f64 = 4.0;
/// What a logarithm is counted in, so that a ledger's steps suit it.
const UNIT: f64 = 16.0;

/// A linear statistic with its usual size and its peaks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    usual: f32,
    ledger: Ledger,
}

/// State of both statistics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shift {
    /// Mean distance from the slow level or the season.
    distance: f64,
    quick: f64,
    slow: f64,
    pub(super) offset: Channel,
    pub(super) slope: Channel,
}

/// A sample against what is expected in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRun {
    /// Its distance, signed.
    pub off: f64,
    /// The usual width of that distance.
    pub scale: f64,
}

/// Both statistics of a sample not yet learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slow {
    /// In the signal's unit.
    pub offset: f64,
    quick: f64,
    /// In the signal's unit.
    pub slope: f64,
}

impl Channel {
    /// The evidence of a value: 0 at 0, rising.
    pub fn evidence(&self, value: f64, floor: f64) -> f64 {
        UNIT * ln(1.0 + ratio(value, f64::from(self.usual).max(floor)))
    }

    /// The ledger of its peaks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn learn(&mut self, value: f64, n: u32, share: f64) {
        let size = value.abs();
        let usual = f64::from(self.usual);
        let size = if n > 50 { size.min(CLIP * usual.max(f64::MIN_POSITIVE)) } else { size };
        let gain = USUAL.max(young(n)) * share;
        self.usual = (usual + gain * (size - usual)).min(1e37) as f32;
    }
}

impl Shift {
    /// The statistics of `x`, the `n`-th sample.
    pub fn judge(&self, x: f64, run: LongRun, n: u32) -> Slow {
        let young = young(n);
        let clip = if n > 20 { FAR * run.scale } else { f64::MAX };
        let step = |mean: f64, gain: f64, to: f64| bounded(mean + gain.max(young) * (to - mean));
        // What is far at once is not slow: others tell it.
        let off = run.off.clamp(-clip, clip);
        let near = self.quick + (x - self.quick).clamp(-clip, clip);
        let quick = step(self.quick, QUICK, near);
        Slow { offset: step(self.distance, QUICK, off), quick, slope: quick - step(self.slow, SLOW, near) }
    }

    /// Takes the sample that [`Shift::judge`] judged; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, n: u32, told: Slow, share: f64) {
        self.distance = told.offset;
        self.quick = told.quick;
        self.slow = told.quick - told.slope;
        self.offset.learn(told.offset, n, share);
        self.slope.learn(told.slope, n, share);
    }

    /// Enters the evidence of a judged sample into the ledgers.
    pub fn enter(&mut self, at: crate::time::Millis, evidence: [f64; 2], bar: f64) {
        self.offset.ledger.learn(at, evidence[0], bar);
        self.slope.ledger.learn(at, evidence[1], bar);
    }

    /// Moves to another series, whose level is `level`.
    pub fn rebase(&mut self, level: f64) {
        (self.distance, self.quick, self.slow) = (0.0, level, level);
    }

    /// Takes the level that the signal has come to as the new normal.
    pub fn accept(&mut self) {
        self.distance = 0.0;
        self.slow = self.quick;
    }
}
