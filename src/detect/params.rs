//! What shapes a model: part of the state's key. What only reads it out is [`ReadOut`].

use crate::time::{Span, Zone};
use std::fmt;

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
    /// A level that has moved.
    Shift = 5,
    /// A climb or fall that goes on.
    Slope = 6,
    /// A value that rests far longer than it ever did.
    Flat = 7,
}

impl Detector {
    /// All, in the order of their numbers.
    pub const ALL: [Detector; 8] = [
        Detector::Ewma,
        Detector::ZScore,
        Detector::HoltWinters,
        Detector::Rarity,
        Detector::Isolation,
        Detector::Shift,
        Detector::Slope,
        Detector::Flat,
    ];
    /// The name in `rules.yaml` and in the `detector` label.
    pub fn name(self) -> &'static str {
        ["ewma", "zscore", "holt_winters", "rarity", "isolation", "shift", "slope", "flat"][self as usize]
    }
}

/// A set of detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DetectorSet(pub u8);

impl DetectorSet {
    /// The default: all but isolation, which is shared, and slope, which mostly tells what shift does.
    pub const DEFAULT: DetectorSet = DetectorSet(0b1010_1111);
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
    /// A daily and a weekly one, or one of another period, found, each where it has earned its place.
    Auto,
    /// These periods, always kept.
    Fixed(Periods),
}

/// One or two periods of seasons, the shorter first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Periods {
    first: Span,
    second: Option<Span>,
}

impl Periods {
    /// The shortest period.
    pub const LEAST: Span = Span::minutes(10);
    /// The longest period.
    pub const MOST: Span = Span::days(31);

    /// Periods in any order.
    ///
    /// # Errors
    /// None or more than two, one named twice, or one outside [`Periods::LEAST`] to [`Periods::MOST`].
    pub fn new(periods: &[Span]) -> Result<Periods, String> {
        if let Some(wrong) = periods.iter().find(|p| !(Self::LEAST..=Self::MOST).contains(*p)) {
            let (least, most) = (Self::LEAST, Self::MOST);
            return Err(format!("a season lasts from {least} to {most}, not {wrong}"));
        }
        match *periods {
            [first] => Ok(Periods { first, second: None }),
            [a, b] if a == b => Err(format!("the season {a} is named twice")),
            [a, b] => Ok(Periods { first: a.min(b), second: Some(a.max(b)) }),
            [] => Err("expected none, auto or a list such as [24h, 7d]".into()),
            _ => Err("at most two seasons can be kept; leave the others out".into()),
        }
    }

    /// The shorter one, or the only one.
    pub fn first(self) -> Span {
        self.first
    }

    /// The longer one of two.
    pub fn second(self) -> Option<Span> {
        self.second
    }
}

impl fmt::Display for Periods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |span: Span| if span == Span::DAY { "24h".into() } else { span.to_string() };
        f.write_str(&name(self.first))?;
        self.second.map_or(Ok(()), |second| write!(f, ", {}", name(second)))
    }
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
        let seasons = match self.season {
            Season::None => [0, 0],
            Season::Auto => [1, 0],
            // At least ten minutes, so neither of the above.
            Season::Fixed(p) => [p.first.0 as u64, p.second.map_or(0, |second| second.0 as u64)],
        };
        for word in [
            u64::from(self.detectors.0),
            self.ewma_half_life.0 as u64,
            u64::from(self.zscore_window),
            self.alpha.to_bits(),
            self.beta.to_bits(),
            self.gamma.to_bits(),
            self.phi.to_bits(),
            seasons[0],
            seasons[1],
            u64::from(self.min_samples),
            self.accept_shift_after.0 as u64,
        ] {
            hash.update(&word.to_le_bytes());
        }
        hash.update(self.zone.name().as_bytes());
        hash.digest()
    }
}
