//! Exponentially weighted mean and variance, aware of time: a sample's weight halves every
//! `half_life`, whatever the interval. α = 1 − 2^(−Δt / half_life).

use super::Centre;
use crate::codec::stored;
use crate::stats::math::{Bounds, bounded, exp2, ratio};
use crate::stats::moments::Moments;
use crate::stats::tail::Tail;

/// Steps beyond this many scales are pulled in before they teach.
const CLIP: f64 = 4.0;

/// State of the detector.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Ewma {
    moments: Moments,
    tail: Tail,
    /// The last Δt in ms and its α: intervals repeat, `exp2` is dear.
    cached: (u32, f32),
}

stored!(packed struct Ewma { moments, tail } fresh { cached });

impl Ewma {
    /// The mean: what is expected next.
    pub fn expected(&self) -> f64 {
        self.moments.mean
    }
    /// The mean, and the standard deviation, at least `floor`.
    pub fn centre(&self, floor: f64) -> Centre {
        Centre { at: self.moments.mean, scale: self.moments.sd().at_least(floor) }
    }
    /// Nats of a distance.
    pub fn nats(&self, z: f64) -> f64 {
        self.tail.nats(z)
    }
    /// Takes a sample `dt` ms after the one before, the `n`-th (from 0); an older or equal time
    /// (`dt` ≤ 0) is ignored. `scale` is that of its centre; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, x: f64, dt: i64, half_life: i64, n: u32, scale: f64, share: f64) {
        if n == 0 {
            self.moments.mean = bounded(x);
            return;
        }
        if dt <= 0 {
            return;
        }
        let known = u32::try_from(dt).unwrap_or(u32::MAX);
        if self.cached.0 != known {
            self.cached = (known, (1.0 - exp2(-f64::from(known) / half_life.max(1) as f64)) as f32);
        }
        let z = ratio(x - self.moments.mean, scale);
        // A long gap fades the mean, not the knowledge of how wide the signal swings.
        let gain = f64::from(self.cached.1).at_most(0.5).at_least(1.0 / (f64::from(n) + 1.0)) * share;
        let clip = if n > 20 { CLIP * scale } else { f64::MAX };
        self.moments.learn(x, gain, clip);
        if n > 10 {
            self.tail.learn(z, share);
        }
    }
    /// Takes `level` as the new normal.
    pub fn accept(&mut self, level: f64) {
        self.moments.mean = bounded(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_halves_every_half_life() {
        let mut e = Ewma::default();
        e.learn(10.0, 0, 1000, 0, 1e-9, 1.0);
        // The second sample: max(1 - 2^-1, 1/2) = 1/2; the third after two half lives: 3/4, held at 1/2.
        e.learn(20.0, 1000, 1000, 1, 1e-9, 1.0);
        assert_eq!((e.expected(), e.moments.var), (15.0, 25.0));
        e.learn(99.0, 0, 1000, 2, 1e-9, 1.0);
        e.learn(99.0, -5, 1000, 2, 1e-9, 1.0);
        assert_eq!(e.expected(), 15.0);
        assert_eq!(e.centre(1e-9), Centre { at: 15.0, scale: 5.0 });
    }
}
