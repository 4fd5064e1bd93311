//! Rarity: how rare is this value of this statistic, asked of several small decayed histograms.
//!
//! The statistics: the value itself, its slow mean (a level never seen before), the difference of a
//! quick and a slow mean (a drift), and the size of the step in units of the usual step (signed,
//! logarithmic: a spike). Where a season is known its residual joins in. The two rarest speak: one
//! alone is often chance, and most oddities show in two. Smoothed, this is the slow evidence; the
//! unsmoothed rarities of value and step are the quick evidence.

use crate::codec::stored;
use crate::stats::histogram::{Histogram, Place, Sketch};
use crate::stats::math::{Bounds, bounded, ln, normal_ln32, ratio, young};
use crate::stats::steps::Steps;

/// Weight of a new sample in the slow evidence.
const SMOOTH: f32 = 0.5;
/// Gains of the quick and the slow mean.
const QUICK: f64 = 2.0 / 21.0;
const SLOW: f64 = 2.0 / 101.0;
/// Least range of the logarithmic step, nats.
const STEP_FLOOR: f64 = 0.2;

/// Nats by which a rarity may exceed that of the season's residual.
const UNEXPLAINED: f32 = 1.0;

/// State of the detector.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Rarity {
    quick: f64,
    slow: f64,
    smoothed: f32,
    value: Histogram,
    level: Histogram,
    drift: Histogram,
    step: Histogram,
}

stored!(packed struct Rarity { quick, slow, smoothed, value, level, drift, step });

/// What the histograms say of a sample, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rare {
    /// Of the value.
    pub value: f32,
    /// Of the step.
    pub step: f32,
    /// Smoothed mean of the two rarest.
    pub slow: f32,
    /// What was asked of the histograms, and where in them it lies.
    asked: Asked,
    places: [Place; 4],
}

/// The statistics of one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Asked {
    quick: f64,
    slow: f64,
    /// The step, signed and logarithmic.
    step: f64,
}

impl Rarity {
    /// A number from all over it.
    pub fn near(&self) -> f64 {
        let histograms = [&self.value, &self.level, &self.drift, &self.step];
        histograms.into_iter().fold(self.quick, |near, histogram| near + histogram.near())
    }

    fn means(&self, x: f64, n: u32) -> (f64, f64) {
        let young = young(n);
        let step = |mean: f64, gain: f64| bounded(mean + gain.at_least(young) * (x - mean));
        (step(self.quick, QUICK), step(self.slow, SLOW))
    }

    fn signed_step(x: f64, steps: &Steps, floor: f64) -> f64 {
        let d = x - steps.last;
        let size = ln(1.0 + ratio(d, steps.mean + floor));
        if d < 0.0 { -size } else { size }
    }

    /// Judges the `n`-th sample; `season` is the rarity of the seasonal residual, if it is known.
    pub fn judge(&self, x: f64, n: u32, steps: &Steps, floor: f64, season: Option<f32>) -> Rare {
        let (quick, slow) = self.means(x, n);
        let step = Self::signed_step(x, steps, floor);
        let places = [
            self.value.place(x, floor),
            self.level.place(slow, floor),
            self.drift.place(quick - slow, floor),
            self.step.place(step, STEP_FLOOR),
        ];
        let rarities = places.map(|place| normal_ln32(place.rarer).at_least(0.0));
        self.sum_up(rarities, season, Asked { quick, slow, step }, places)
    }

    /// What the first sample is: as usual.
    pub fn first(x: f64) -> Rare {
        Rare { asked: Asked { quick: x, slow: x, step: 0.0 }, ..Rare::default() }
    }

    /// From the rarities of value, level, drift and step, and of the season's residual: what the season
    /// explains is not rare, though no memory but the season's reaches back so far.
    fn sum_up(&self, rarities: [f32; 4], season: Option<f32>, asked: Asked, places: [Place; 4]) -> Rare {
        let most = season.map_or(f32::MAX, |season| season + UNEXPLAINED);
        let rarities = rarities.map(|rarity| rarity.at_most(most));
        let [value, .., step] = rarities;
        let mut top = [0f32; 2];
        for r in rarities.into_iter().chain(season) {
            if r > top[0] {
                top = [r, top[0]];
            } else if r > top[1] {
                top[1] = r;
            }
        }
        let rarest = 0.5 * (top[0] + top[1]);
        Rare { value, step, slow: self.smoothed + SMOOTH * (rarest - self.smoothed), asked, places }
    }

    /// The histograms' answers, made ready for many values of one sample.
    pub fn sketches(&self, n: u32, steps: Steps, floor: f64) -> Sketches<'_> {
        Sketches {
            of: self,
            n,
            steps,
            floor,
            value: self.value.sketch(floor),
            level: self.level.sketch(floor),
            drift: self.drift.sketch(floor),
            step: self.step.sketch(STEP_FLOOR),
        }
    }

    /// Takes the sample `x` that [`Rarity::judge`] judged by this `floor`; `share` is its weight in sixteenths.
    pub fn learn(&mut self, x: f64, floor: f64, rare: &Rare, share: u16) {
        let Asked { quick, slow, step } = rare.asked;
        let [value, level, drift, stepped] = rare.places;
        self.value.learn_at(value, x, floor, share);
        self.level.learn_at(level, slow, floor, share);
        self.drift.learn_at(drift, quick - slow, floor, share);
        self.step.learn_at(stepped, step, STEP_FLOOR, share);
        (self.quick, self.slow, self.smoothed) = (quick, slow, rare.slow);
    }

    /// Brings the slow evidence to where `times` samples of `x` in a row would have brought it; nothing
    /// is learnt of them.
    pub fn dwell(&mut self, x: f64, n: u32, steps: &Steps, floor: f64, season: Option<f32>, times: u32) {
        for _ in 0..times {
            self.smoothed = self.judge(x, n, steps, floor, season).slow;
        }
    }

    /// Moves to another series: the values seen by `slow`, the running means to `level`.
    pub fn rebase(&mut self, slow: f64, level: f64) {
        self.value.shift(slow);
        self.level.shift(slow);
        (self.quick, self.slow, self.smoothed) = (level, level, 0.0);
    }

    /// The slow mean: what rarity would expect.
    pub fn expected(&self) -> f64 {
        self.slow
    }
}

/// See [`Rarity::sketches`].
pub struct Sketches<'a> {
    of: &'a Rarity,
    n: u32,
    steps: Steps,
    floor: f64,
    value: Sketch<'a>,
    level: Sketch<'a>,
    drift: Sketch<'a>,
    step: Sketch<'a>,
}

impl Sketches<'_> {
    /// The greatest that [`Rarity::judge`] can say of any value from `a` to `b`: all that it asks of
    /// moves one way with the value.
    pub fn greatest(&self, a: f64, b: f64, season: Option<f32>) -> Rare {
        let ((quick_a, slow_a), (quick_b, slow_b)) = (self.of.means(a, self.n), self.of.means(b, self.n));
        let step = |x| Rarity::signed_step(x, &self.steps, self.floor);
        let step_b = step(b);
        let step_a = if a == b { step_b } else { step(a) };
        let rarities = [
            self.value.greatest(a, b),
            self.level.greatest(slow_a, slow_b),
            self.drift.greatest(quick_a - slow_a, quick_b - slow_b),
            self.step.greatest(step_a, step_b),
        ];
        self.of.sum_up(rarities, season, Asked::default(), [Place::default(); 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_never_seen_is_rarer_than_a_usual_one() {
        let (mut r, mut s) = (Rarity::default(), Steps::default());
        for n in 0..400u32 {
            let x = f64::from(n * 7 % 13);
            let rare = r.judge(x, n, &s, 0.1, None);
            r.learn(x, 0.1, &rare, 16);
            s.learn(x, 1.0);
        }
        let usual = r.judge(5.0, 400, &s, 0.1, None);
        let odd = r.judge(60.0, 400, &s, 0.1, None);
        assert!(odd.value > usual.value + 4.0 && odd.slow > usual.slow + 1.0);
        assert!(r.judge(120.0, 400, &s, 0.1, None).value > odd.value);
    }
}
