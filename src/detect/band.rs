//! The search for a model's band.
//!
//! Over any interval of values each distance and each rarity has a greatest that is cheap to tell, and
//! the score never falls where one of them rises: so the score of those greatest bounds every score
//! in the interval. Intervals bounded below 1 are passed over whole; others are halved until the first
//! crossing is left. No value is passed over that would score 1.

use super::fuse::Frame;
use super::isolation::Forest;
use super::model::{Band, Model};
use super::rarity::{Rare, Sketches};
use super::{Detector, ModelParams, ReadOut};
use crate::calibrate::readout;
use crate::stats::histogram::Sketch;
use crate::stats::math::LIMIT;

/// A crossing is told to this share of its distance from the expected value.
const EXACT: f64 = 4e-10;
/// Bounds asked on either side at most; what is still open then counts as outside.
const MOST: u32 = 4_000;

/// Share of an interval either side of a chord's crossing.
const MARGIN: f64 = 0.01;
/// Halvings after a chord misled.
const HALVINGS: u32 = 8;

/// One sample's search.
pub(super) struct Search<'a> {
    model: &'a Model,
    params: &'a ModelParams,
    read: &'a ReadOut,
    frame: Frame,
    allowed: f64,
    rarity: Option<Sketches<'a>>,
    season: Option<Sketch<'a>>,
    forest: Option<&'a Forest>,
}

impl<'a> Search<'a> {
    /// Of the sample at `at`; some sample was taken before.
    pub(super) fn new(
        model: &'a Model,
        params: &'a ModelParams,
        read: &'a ReadOut,
        at: crate::time::Millis,
        forest: Option<&'a Forest>,
    ) -> Self {
        let frame = model.frame(params, at);
        let rarity = params
            .detectors
            .has(Detector::Rarity)
            .then(|| model.rarity.sketches(model.samples, model.steps, frame.floor));
        let season = rarity.as_ref().and(frame.season).and_then(|_| model.season.sketch(frame.floor));
        let allowed = readout::allowed(read.budget.0, model.interval.ms());
        let forest = forest.filter(|_| params.detectors.has(Detector::Isolation));
        Search { model, params, read, frame, allowed, rarity, season, forest }
    }

    /// A bound of the scores of all values from `a` to `b`, the farther from the expected one; the score
    /// itself where both are one, but 0 where it is capped below 1.
    fn most(&self, a: f64, b: f64) -> f64 {
        if !readout::counts(self.read, b, self.frame.expected) {
            return 0.0;
        }
        let residual = |x| self.frame.season.map_or(x, |season| season.residual(x));
        let seasonal = self.season.as_ref().map(|s| s.greatest(residual(a), residual(b)));
        let rare = self.rarity.as_ref().map_or(Rare::default(), |r| r.greatest(a, b, seasonal));
        let isolated = self.forest.map_or(0.0, |forest| {
            let features = |x| self.frame.features(x, &self.model.steps);
            forest.most(&features(a.min(b)), &features(a.max(b)))
        });
        let told = self.model.fuse(
            self.params,
            &self.frame.distances(self.model, self.params, a, b),
            &rare,
            seasonal,
            isolated,
        );
        told.nats.max(0.0) / self.allowed
    }

    fn below(&self, a: f64, b: f64) -> bool {
        self.most(a, b) < 1.0
    }

    pub(super) fn band(&self) -> Band {
        let expected = self.frame.expected;
        if !self.below(expected, expected) {
            return Band { lower: expected, upper: expected };
        }
        Band { lower: self.edge(-LIMIT), upper: self.edge(LIMIT) }
    }

    /// The last value from the expected one towards `limit` up to which all score below 1.
    fn edge(&self, limit: f64) -> f64 {
        let (expected, sign) = (self.frame.expected, limit.signum());
        if self.below(expected, limit) {
            return sign * f64::INFINITY;
        }
        let mut asked = 0;
        let (mut inside, mut reach) = (expected, self.frame.scale());
        loop {
            let outside = expected + sign * reach;
            if outside.is_nan() || outside.abs() >= LIMIT {
                return sign * f64::INFINITY;
            }
            if let Some(edge) = self.first(inside, outside, &mut asked) {
                return edge;
            }
            inside = outside;
            reach *= if asked < 16 { 2.0 } else { 64.0 };
        }
    }

    /// The last value from `a` to `b` before one that scores 1; `None` where none does. `a` does not.
    fn first(&self, a: f64, b: f64, asked: &mut u32) -> Option<f64> {
        *asked += 1;
        if self.below(a, b) { None } else { self.narrow(a, b, !self.below(b, b), asked) }
    }

    /// [`Search::first`] where the bound of `a` to `b` reaches 1; `crossed` where `b` itself does.
    fn narrow(&self, mut a: f64, mut b: f64, mut crossed: bool, asked: &mut u32) -> Option<f64> {
        let (mut at_a, mut at_b) = (self.most(a, a), self.most(b, b));
        let mut halvings = 0u32;
        loop {
            let middle = 0.5 * (a + b);
            if (b - a).abs() <= EXACT * (b - self.frame.expected).abs() || middle == a || middle == b {
                // Bounds of unlike values may exceed all of them at a bin's edge.
                return crossed.then_some(a);
            }
            *asked += 1;
            if *asked > MOST {
                return Some(a);
            }
            if crossed && halvings == 0 {
                // Where the score rises evenly a chord tells the crossing; where not, halve for a while.
                let chord = ((1.0 - at_a) / (at_b - at_a)).clamp(0.0, 1.0);
                let (near, far) = (a + (chord - MARGIN) * (b - a), a + (chord + MARGIN) * (b - a));
                let (most, score) = (self.most(a, near), self.most(far, far));
                let (rises, falls) = (chord > MARGIN && most < 1.0, chord + MARGIN < 1.0 && score >= 1.0);
                if rises {
                    (a, at_a) = (near, most);
                }
                if falls {
                    (b, at_b) = (far, score);
                }
                halvings = if rises && falls { 0 } else { HALVINGS };
                continue;
            }
            halvings = halvings.saturating_sub(1);
            let most = self.most(a, middle);
            if most < 1.0 {
                (a, at_a) = (middle, most);
                if !crossed && self.below(a, b) {
                    return None;
                }
                continue;
            }
            let score = self.most(middle, middle);
            if score >= 1.0 {
                (b, at_b, crossed) = (middle, score, true);
                continue;
            }
            if let Some(edge) = self.narrow(a, middle, false, asked) {
                return Some(edge);
            }
            (a, at_a) = (middle, score);
            if !crossed && self.below(a, b) {
                return None;
            }
        }
    }
}
