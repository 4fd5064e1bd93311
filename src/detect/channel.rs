//! A slow statistic in units of its own usual size, with the ledger of its peaks.

use crate::calibrate::{Ledger, Moment, PEAKS};
use crate::codec::stored;
use crate::stats::math::{Bounds, LIMIT, ln, ratio, young};

/// Gain of the usual size.
const USUAL: f64 = 2.0 / 1001.0;
/// A size counts at most this many usual ones.
const CLIP: f64 = 6.0;
/// What a logarithm is counted in, so that a ledger's steps suit it.
const UNIT: f64 = 16.0;

/// See the module page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    usual: f32,
    ledger: Ledger,
}

stored!(struct Channel { usual, ledger });

impl Channel {
    /// The evidence of a value: 0 at 0, rising with its size.
    pub fn evidence(&self, value: f64, floor: f64) -> f64 {
        UNIT * ln(1.0 + ratio(value, f64::from(self.usual).at_least(floor)))
    }

    /// The ledger of its peaks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a value, of the `n`-th sample; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, value: f64, n: u32, share: f64) {
        let size = value.abs();
        let usual = f64::from(self.usual);
        let size = if n > 50 { size.at_most(CLIP * usual.at_least(f64::MIN_POSITIVE)) } else { size };
        let gain = USUAL.at_least(young(n)) * share;
        self.usual = (usual + gain * (size - usual)).at_most(LIMIT) as f32;
    }

    /// Enters the evidence of a judged sample into the ledger.
    pub fn enter(&mut self, moment: &Moment, evidence: f64, bar: f64) {
        self.ledger.learn(moment, evidence, bar, PEAKS);
    }
}
