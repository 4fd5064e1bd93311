//! What shapes a model: part of the state's key. What only reads it out is [`ReadOut`].

use crate::time::{Span, Zone};

pub use crate::calibrate::readout::{Direction, MinChange, ReadOut};

/// A detector by its name in `rules.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Detector {
    /// Exponentially weighted mean and variance.
    Ewma = 0,
    /// Rolling z-score over a true sliding window.
    ZScore = 1,
    /// Holt-Winters: level, damped trend, additive season.
    HoltWinters = 2,
    /// Rarity in decayed histograms.
    Rarity = 3,
    /// Isolation forest over all series of the rule.
    Isolation = 4,
}

impl Detector {
    /// All, in the order of their numbers.
    pub const ALL: [Detector; 5] =
        [Detector::Ewma, Detector::ZScore, Detector::HoltWinters, Detector::Rarity, Detector::Isolation];
    /// The name in `rules.yaml` and in the `detector` label.
    pub fn name(self) -> &'static str {
        ["ewma", "zscore", "holt_winters", "rarity", "isolation"][self as usize]
    }
}

/// A set of detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DetectorSet(pub u8);

impl DetectorSet {
    /// Every detector that a series runs by itself.
    pub const DEFAULT: DetectorSet = DetectorSet(0b1111);
    /// Whether a detector is in the set.
    pub fn has(self, detector: Detector) -> bool {
        self.0 >> detector as u8 & 1 == 1
    }
    /// The set with one more detector.
    pub fn with(self, detector: Detector) -> DetectorSet {
        DetectorSet(self.0 | 1 << detector as u8)
    }
}

/// Which seasons a model keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Season {
    /// No season.
    None,
    /// Daily and weekly, joined in when they have been seen and have earned their place.
    Auto,
    /// These periods, always kept: (daily, weekly).
    Fixed {
        /// A season of 24 h.
        daily: bool,
        /// A season of 7 d.
        weekly: bool,
    },
}

/// Everything that shapes a model's state. Two equal values share state across rule changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelParams {
    /// The detectors that run.
    pub detectors: DetectorSet,
    /// EWMA: time in which a sample's weight halves. Default 10 m.
    pub ewma_half_life: Span,
    /// Rolling z-score: samples in the window, 4 to 4096. Default 64.
    pub zscore_window: u16,
    /// Holt-Winters level gain a sample at the usual interval, in (0, 1]. Default 0.2.
    pub alpha: f64,
    /// Holt-Winters trend gain, in [0, 1]. Default 0.02.
    pub beta: f64,
    /// Holt-Winters season gain, in [0, 1]. Default 0.1.
    pub gamma: f64,
    /// Trend damping a sample, in (0, 1]. Default 0.98.
    pub phi: f64,
    /// Seasons.
    pub season: Season,
    /// Whose local time calendar seasons follow. Default UTC.
    pub zone: Zone,
    /// Samples before the first score. Default 60.
    pub min_samples: u32,
    /// A shift that lasts this long is the new normal. Default 6 h.
    pub accept_shift_after: Span,
}

impl Default for ModelParams {
    fn default() -> Self {
        ModelParams {
            detectors: DetectorSet::DEFAULT,
            ewma_half_life: Span::minutes(10),
            zscore_window: 64,
            alpha: 0.2,
            beta: 0.02,
            gamma: 0.1,
            phi: 0.98,
            season: Season::Auto,
            zone: Zone::utc(),
            min_samples: 60,
            accept_shift_after: Span::hours(6),
        }
    }
}

impl ModelParams {
    /// A key of the parameters: equal parameters give equal keys, on every machine.
    pub fn key(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let season = match self.season {
            Season::None => 0,
            Season::Auto => 1,
            Season::Fixed { daily, weekly } => 2 + u64::from(daily) + 2 * u64::from(weekly),
        };
        for word in [
            u64::from(self.detectors.0),
            self.ewma_half_life.0 as u64,
            u64::from(self.zscore_window),
            self.alpha.to_bits(),
            self.beta.to_bits(),
            self.gamma.to_bits(),
            self.phi.to_bits(),
            season,
            u64::from(self.min_samples),
            self.accept_shift_after.0 as u64,
        ] {
            hash.update(&word.to_le_bytes());
        }
        hash.update(self.zone.name().as_bytes());
        hash.digest()
    }
}
