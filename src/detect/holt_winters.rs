//! Holt-Winters: level and damped trend over the signal less its season (additive).
//!
//! The gains are per usual interval. Over a gap the forecast runs on along the damped trend and the
//! level's gain grows as that many samples would make it. (Gardner & McKenzie 1985.)

use super::Centre;
use crate::codec::stored;
use crate::stats::math::{Bounds, bounded, ln, pow, young};
use crate::stats::moments::Moments;
use crate::stats::tail::Tail;

/// Residuals beyond this many scales are pulled in before they teach.
const CLIP: f64 = 5.0;
/// Memory of the residual's own mean and variance, in samples.
const RESIDUAL_GAIN: f64 = 2.0 / 251.0;
/// Intervals that a gap counts at most.
const GAP: f64 = 50.0;

/// State of the detector.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct HoltWinters {
    level: f64,
    trend: f64,
    residual: Moments,
    tail: Tail,
}

stored!(packed struct HoltWinters { level, trend, residual, tail });

/// Gains of the level and trend and the trend's damping, as [`super::ModelParams`] has them.
#[derive(Clone, Copy, Debug)]
pub struct Gains {
    /// Level gain.
    pub alpha: f64,
    /// Trend gain.
    pub beta: f64,
    /// Damping.
    pub phi: f64,
}

/// What was said of a sample before it was learnt.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// [`HoltWinters::expected`].
    pub forecast: f64,
    /// The scale of [`HoltWinters::centre`].
    pub scale: f64,
    /// The least that it can be.
    pub floor: f64,
    /// [`HoltWinters::far`] of its distance from both.
    pub far: f64,
}

impl HoltWinters {
    /// A number that lies in it.
    pub fn near(&self) -> f64 {
        self.trend
    }

    /// The expected value `k` usual intervals on, without season.
    pub fn expected(&self, k: f64, gains: Gains) -> f64 {
        bounded(self.level + self.trend * damped(k, gains.phi))
    }
    /// The residual usual of late, and its standard deviation, at least `floor`.
    pub fn centre(&self, floor: f64) -> Centre {
        Centre { at: self.residual.mean, scale: self.residual.sd().at_least(floor) }
    }
    /// A distance in scales as the tail is kept of it: rising, 0 at 0.
    pub fn far(z: f64) -> f64 {
        ln(1.0 + z) * LOG_SCALE
    }
    /// Nats of what [`HoltWinters::far`] made of a distance.
    pub fn nats(&self, far: f64) -> f64 {
        self.tail.nats(far)
    }
    /// Takes the first sample, less its season.
    pub fn begin(&mut self, x: f64) {
        self.level = bounded(x);
    }
    /// Takes the `n`-th sample (from 1), less its season, `k` usual intervals after the one before, as it was
    /// told of.
    pub fn learn(&mut self, x: f64, k: f64, gains: Gains, n: u32, told: Told, share: f64) {
        let Told { forecast, scale, floor, far } = told;
        let e = x - forecast;
        let clip = if n > 20 { 4.0 * scale } else { f64::MAX };
        self.residual.learn(e, RESIDUAL_GAIN.at_least(young(n)) * share, clip);
        let clip = if n > 30 { CLIP * self.residual.sd().at_least(floor) } else { f64::MAX };
        let taught = e.within(-clip, clip) * share;
        let k = k.within(1.0, GAP);
        let gain = if k > 1.0 { 1.0 - pow(1.0 - gains.alpha, k) } else { gains.alpha };
        self.level = bounded(forecast + gain * taught);
        let phi = if k > 1.0 { pow(gains.phi, k) } else { gains.phi };
        self.trend = bounded(phi * self.trend + gains.beta * gains.alpha * taught / k);
        if n > 10 {
            self.tail.learn(far, share);
        }
    }
    /// Takes `level` as the new normal.
    pub fn accept(&mut self, level: f64) {
        self.level = bounded(level);
        self.trend = 0.0;
    }
}

/// The tail is kept of the logarithm of the distance: a power law, fit for residuals that spike.
/// The factor brings a normal signal's ln(1 + |z|) near |z|'s own upper range.
const LOG_SCALE: f64 = 1.55;

/// φ + φ² + … over `k` steps.
fn damped(k: f64, phi: f64) -> f64 {
    let k = k.within(1.0, GAP);
    if k == 1.0 {
        phi
    } else if phi >= 1.0 {
        k
    } else {
        phi * (1.0 - pow(phi, k)) / (1.0 - phi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAINS: Gains = Gains { alpha: 0.5, beta: 0.5, phi: 1.0 };

    #[test]
    fn by_hand() {
        let mut h = HoltWinters::default();
        h.begin(10.0);
        // Forecast 10, residual 2: level 11, trend 0.5.
        let told = Told { forecast: h.expected(1.0, GAINS), scale: 1.0, floor: 1e-9, far: 0.0 };
        h.learn(12.0, 1.0, GAINS, 1, told, 1.0);
        assert_eq!((h.level, h.trend), (11.0, 0.5));
        assert_eq!(h.expected(1.0, GAINS), 11.5);
        // Over a gap of four intervals the forecast runs on.
        assert_eq!(h.expected(4.0, GAINS), 13.0);
    }

    #[test]
    fn damping_sums() {
        assert!((damped(2.0, 0.5) - 0.75).abs() < 1e-12);
        assert_eq!(damped(1.0, 0.98), 0.98);
    }
}
