//! Shift: a level that has moved, suddenly or little by little.
//!
//! Sharp detectors follow a slow change and find nothing odd in any one sample. The *offset* sees it: a
//! short exponentially weighted mean of the signal's distance from its slow level, or from its season
//! where that is known. It is told in units of its own usual size, in logarithms, and calibrated by a
//! [`Ledger`] of its own peaks: a signal that wanders by nature has wide ones. A single far sample hardly
//! moves it; others tell that one.

use super::channel::Channel;
use crate::calibrate::{Ledger, Moment};
use crate::codec::stored;
use crate::stats::math::{Bounds, bounded, young};

/// Gain of the offset.
const GAIN: f64 = 2.0 / 21.0;
/// Scales beyond which a sample counts no more for a slow change.
const FAR: f64 = 4.0;

/// State of the detector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shift {
    offset: f64,
    channel: Channel,
}

stored!(struct Shift { offset, channel });

/// A sample against what is expected in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRun {
    /// Its distance, signed.
    pub off: f64,
    /// The usual width of that distance.
    pub scale: f64,
}

impl Shift {
    /// The offset with one more sample, the `n`-th; it rises with the sample's distance.
    pub fn judge(&self, run: LongRun, n: u32) -> f64 {
        let clip = if n > 20 { FAR * run.scale } else { f64::MAX };
        let off = run.off.within(-clip, clip);
        bounded(self.offset + GAIN.at_least(young(n)) * (off - self.offset))
    }

    /// The evidence of an offset, and the ledger that calibrates it.
    pub fn evidence(&self, offset: f64, floor: f64) -> f64 {
        self.channel.evidence(offset, floor)
    }

    /// The ledger of its peaks.
    pub fn ledger(&self) -> &Ledger {
        self.channel.ledger()
    }

    /// Takes the sample that [`Shift::judge`] judged; `share` in [0, 1] is how much it may teach.
    pub fn learn(&mut self, n: u32, offset: f64, share: f64) {
        self.offset = offset;
        self.channel.learn(offset, n, share);
    }

    /// Enters the evidence of a judged sample into the ledger.
    pub fn enter(&mut self, moment: &Moment, evidence: f64, bar: f64) {
        self.channel.enter(moment, evidence, bar);
    }

    /// Takes the level that the signal has come to as the new normal.
    pub fn accept(&mut self) {
        self.offset = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_offset_counts_and_a_single_far_sample_hardly() {
        let mut shift = Shift::default();
        let run = |off: f64| LongRun { off, scale: 1.0 };
        for n in 0..500u32 {
            let offset = shift.judge(run(f64::from(n % 3) - 1.0), n);
            shift.learn(n, offset, 1.0);
        }
        let far = shift.judge(run(1e9), 500);
        assert!(far < 0.5, "{far}");
        let mut lasting = shift.clone();
        for n in 500..520 {
            let offset = lasting.judge(run(3.0), n);
            lasting.learn(n, offset, 1.0);
        }
        assert!(lasting.offset > 2.0);
        assert!(lasting.evidence(lasting.offset, 0.01) > shift.evidence(far, 0.01) + 10.0);
        lasting.accept();
        assert_eq!(lasting.offset, 0.0);
    }
}
