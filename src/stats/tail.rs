//! The upper tail of a non-negative statistic: a running quantile and the mean excess above it.
//!
//! Turns a normalised distance into nats (−ln of how often one so large is seen) from a few
//! samples on: a generalised Pareto tail (Pickands 1975) with a small fixed shape, its scale
//! shrunk towards that of a normal signal until excesses have been seen.

use super::math::{Bounds, ln};
use crate::codec::stored;

/// Share of samples above the threshold.
const UPPER: f64 = 0.2;
/// The threshold and mean excess of |z| of a normal signal at that share.
const NORMAL: (f32, f32) = (1.28, 0.48);
/// Excesses that the normal prior weighs.
const PRIOR: f64 = 8.0;
/// Memory in excesses.
const MEMORY: f64 = 400.0;
/// Shape: a tail slightly heavier than exponential.
const SHAPE: f64 = 0.02;
/// An excess counts at most this many means.
const CLIP: f64 = 10.0;

/// A tail estimate; 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    threshold: f32,
    excess: f32,
    seen: u16,
}

stored!(struct Tail { threshold, excess, seen } valid |t| t.threshold > 0.0 && t.excess > 0.0);

impl Default for Tail {
    fn default() -> Self {
        Tail { threshold: NORMAL.0, excess: NORMAL.1, seen: 0 }
    }
}

impl Tail {
    /// Nats of a value `z` ≥ 0: 0 at 0, strictly increasing, finite.
    pub fn nats(&self, z: f64) -> f64 {
        let u = f64::from(self.threshold);
        let at_threshold = -ln(UPPER);
        if z <= u {
            return at_threshold * z / u;
        }
        at_threshold + ln(1.0 + SHAPE * (z - u) / f64::from(self.excess)) * (1.0 + 1.0 / SHAPE)
    }

    /// The mean excess in thresholds, above 0: 0.38 of a normal signal, 0.73 of Student's t3.
    pub fn heaviness(&self) -> f64 {
        f64::from(self.excess) / f64::from(self.threshold)
    }

    /// Takes one value; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, z: f64, share: f64) {
        let (u, b) = (f64::from(self.threshold), f64::from(self.excess));
        let above = z > u;
        // Robbins-Monro on the quantile, in steps of the tail's own scale.
        let step = 0.05 * (u + b) * share * (if above { 1.0 - UPPER } else { -UPPER });
        self.threshold = (u + step).within(0.3, 1e6) as f32;
        if above {
            self.seen = self.seen.saturating_add(1);
            let gain = share / (f64::from(self.seen) + PRIOR).at_most(MEMORY);
            self.excess = (b + gain * ((z - u).at_most(CLIP * b) - b)).within(0.05, 1e6) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_by_hand() {
        let t = Tail::default();
        assert_eq!(t.nats(0.0), 0.0);
        assert!((t.nats(1.28f32.into()) - 1.6094379).abs() < 1e-6);
        // 1.6094 + 51 · ln(1 + 0.02 · 10 / 0.48) = 1.6094 + 51 · 0.348307
        assert!((t.nats(11.28) - 19.373).abs() < 1e-2, "{}", t.nats(11.28));
        assert!(t.nats(1e30).is_finite());
    }

    #[test]
    fn a_heavy_tail_is_learnt() {
        let mut t = Tail::default();
        for k in 0..2000u32 {
            t.learn(if k % 5 == 0 { 6.0 + f64::from(k % 25) } else { 0.5 }, 1.0);
        }
        assert!(t.nats(12.0) < 4.0, "{}", t.nats(12.0));
    }
}
