//! The joint word of the detectors.
//!
//! The evidence has several readings. The *young* one is the least of the detectors' distances in nats,
//! good from the first score on. The *fused* one (rarity, smoothed, plus the mean of the quick evidence)
//! is calibrated by the [`Ledger`] of the series' own peaks, whose word gains weight as it fills; a
//! second ledger calibrates the young reading itself, so that a plain far value counts however slowly
//! rarity takes it in. Slow readings (shift, slope) have ledgers of their own, a flat line its own
//! count. The greatest tells; looking more than once is paid for.

use super::holt_winters::{HoltWinters, Told};
use super::model::Model;
use super::rarity::Rare;
use super::seasonal::Expected;
use super::shift::LongRun;
use super::slope::Slope;
use super::{Centre, Detector, ModelParams};
use crate::calibrate::{Ledger, Prior};
use crate::stats::math::{Bounds, ln, ratio};
use crate::time::Millis;

/// What a nat of fused evidence is worth before the series' own peaks have been asked: rarities of
/// one sample overlap. Chosen on the development data.
const WORTH: f64 = 0.85;
/// Weight of the series' own calibration against the fused evidence at its worth. Wholly its own would
/// make scores of calm and stormy series incomparable after some incidents.
const OWN: f64 = 0.56;
/// The same of the young reading, before the peaks have a say.
const OWN_YOUNG: f64 = 0.65;
/// The series' own calibration tells at most this many times the worth of the evidence.
const OWN_MOST: f64 = 3.0;
/// In the fused channel the prior weighs many peaks: those of a few days cannot tell a tail, and a scale
/// taken from them alone misranks series.
const FUSED_PRIOR: Prior = Prior { peaks: 20.0, scale: 1.6 };
/// What a nat of isolation counts in the fused evidence, and from how many on: not much, for it looks
/// at the same distances as the others.
const ISOLATED: f64 = 0.25;
const ISOLATED_FROM: f64 = 3.0;
/// What the logarithm of the plain distance's nats is counted in, so that a ledger's steps suit it.
const PLAIN: f64 = 16.0;
/// In the plain channel it weighs fewer than in the fused one, for the logarithm tells a light tail from a
/// heavy one within days. A series that is heavy in its body is thought wider by the second number.
const PLAIN_PRIOR: Prior = Prior { peaks: 10.0, scale: 2.0 };
const PLAIN_HEAVY: f64 = 1.5;
/// In a slow reading.
const SLOW_PRIOR: Prior = Prior { peaks: 10.0, scale: 1.6 };
/// Mean excess of the plain distance, in thresholds, of a tail that is a little heavier than a normal one
/// (0.38), and of one as heavy as Student's t3 (0.73) or heavier.
const LIGHT_TAIL: f64 = 0.5;
const HEAVY_TAIL: f64 = 0.7;
/// The least kept peak of a signal that moves (three nats and a half).
const MOVING: f64 = 24.0;
/// Price of the second look, nats: below ln 2, for the two are far from independent. Chosen on the
/// development data.
const LOOKS: f64 = 0.35;
/// Share of the nats beyond those seen that a young tail is not believed, and how many at most; and what
/// is added to both where it is heavy.
const CAUTION: f64 = 0.4;
const CAUTION_HEAVY: f64 = 0.5;
const CAUTION_MOST: f64 = 3.0;
const CAUTION_MOST_HEAVY: f64 = 4.0;
/// Logarithms of nats, as [`PLAIN`] counts them, beyond the greatest peak: up to 1.1 times it there is all
/// the caution, from 1.6 times it on none; of a heavy tail records are far out, up to 7.6 times.
const NEAR: f64 = 1.5;
const RECORD: f64 = 7.5;
const RECORD_HEAVY: f64 = 25.0;
/// Nats taken off where alarms come about once a day.
const CROWDED: f64 = 0.5;
/// Price of a slow reading, nats.
const SLOW_PRICE: f64 = 1.0;

/// All about a sample that does not hang on its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) expected: f64,
    pub(super) season: Option<Expected>,
    pub(super) intervals: f64,
    pub(super) floor: f64,
    pub(super) base: Centre,
    pub(super) zscore: Centre,
    pub(super) ewma: Centre,
    pub(super) holt: Centre,
    pub(super) bias: f64,
    /// Of the signal less its season.
    forecast: f64,
    n: u32,
    /// The least scale.
    grain: f64,
    /// Nats of the flat line, should the value not change.
    flat: f64,
}

/// The greater of what is told of `a` and of `b`; most questions are of a single value.
fn at_ends(a: f64, b: f64, of: impl Fn(f64) -> f64) -> f64 {
    if a == b { of(a) } else { of(a).at_least(of(b)) }
}

impl Frame {
    /// What is expected of the first sample: what it is.
    pub(super) fn first(x: f64, grain: f64) -> Frame {
        let known = Centre { at: x, scale: grain };
        Frame {
            expected: x,
            season: None,
            intervals: 1.0,
            floor: 1e-300,
            base: known,
            zscore: known,
            ewma: known,
            holt: known,
            bias: 0.0,
            forecast: x,
            n: 0,
            grain,
            flat: 0.0,
        }
    }

    /// What was said to [`HoltWinters`] of a sample.
    pub(super) fn told(&self, z: &Distances) -> Told {
        Told { forecast: self.forecast, scale: self.holt.scale, floor: self.grain, far: z.holt }
    }

    /// How far `x` is from what is expected in the long run, and the usual width of that distance: from
    /// the season where it is known, else from the base level.
    pub(super) fn long_run(&self, x: f64) -> LongRun {
        match &self.season {
            Some(season) => LongRun { off: season.residual(x), scale: season.usual.at_least(self.grain) },
            None => LongRun { off: x - self.base.at, scale: self.base.scale },
        }
    }

    fn base_z(&self, a: f64, b: f64) -> f64 {
        at_ends(a, b, |x| {
            let run = self.long_run(x);
            ratio(run.off, run.scale)
        })
    }

    /// The greatest distances from the detectors' centres of any value from `a` to `b`.
    pub(super) fn distances(&self, model: &Model, params: &ModelParams, a: f64, b: f64) -> Distances {
        let shift = |x| model.shift.evidence(model.shift.judge(self.long_run(x), self.n), self.floor);
        let slope = |slope: &Slope, x| slope.evidence(slope.judge(x, self.base.scale, self.n), self.floor);
        let last = model.steps.last;
        let rests = (a.at_most(b)..=a.at_least(b)).contains(&last);
        let biased = Centre { at: self.bias, scale: self.holt.scale };
        Distances {
            base: self.base_z(a, b),
            zscore: self.zscore.z(a, b),
            ewma: self.ewma.z(a, b),
            holt: HoltWinters::far(biased.z(a - self.holt.at, b - self.holt.at)),
            shift: if params.detectors.has(Detector::Shift) { at_ends(a, b, shift) } else { 0.0 },
            slope: model.slope.as_deref().map_or(0.0, |s| at_ends(a, b, |x| slope(s, x))),
            flat: if rests { self.flat } else { 0.0 },
        }
    }

    /// The slow scale of the signal.
    pub(super) fn scale(&self) -> f64 {
        self.base.scale
    }
}

/// Distances from the detectors' centres, in scales.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distances {
    pub(super) base: f64,
    zscore: f64,
    ewma: f64,
    /// As [`HoltWinters::far`] tells it.
    holt: f64,
    /// Evidence of the offset and of the slope, for their ledgers.
    pub(super) shift: f64,
    pub(super) slope: f64,
    /// Nats of a flat line.
    flat: f64,
}

/// Which reading told most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// A far value.
    Sharp,
    /// A moved level.
    Shift,
    /// A climb or fall.
    Slope,
    /// A flat line.
    Flat,
}

/// The detectors' joint word.
pub(super) struct Fused {
    pub(super) nats: f64,
    pub(super) lead: Lead,
    pub(super) fused: f64,
    pub(super) plain: f64,
    pub(super) evidence: [f32; Detector::ALL.len()],
}

impl Model {
    /// What can be said of the sample at `at` before its value is known; some sample was taken.
    pub(super) fn frame(&self, params: &ModelParams, at: Millis) -> Frame {
        let has = |d| params.detectors.has(d);
        let interval = self.interval.ms();
        let intervals = (at.since(self.last_at) as f64 / interval).at_least(1.0);
        let intervals = if intervals < 1.5 { 1.0 } else { intervals };
        let grain = self.steps.floor();
        let sd = self.base.sd();
        // The grain keeps means that fade back from a single blip within one bin of a resting signal.
        let floor = (0.02 * sd).at_least(0.05 * grain) + 1e-9 * self.base.mean.abs() + 1e-300;
        let season = self.season.at(at, &params.zone, interval);
        let base = Centre { at: self.base.mean, scale: sd.at_least(grain) };
        let mut frame = Frame {
            expected: base.at,
            season,
            intervals,
            floor,
            base,
            zscore: Centre::default(),
            ewma: Centre::default(),
            holt: Centre::default(),
            bias: 0.0,
            forecast: base.at,
            n: self.samples,
            grain,
            flat: if has(Detector::Flat) { self.flat.nats(self.exposure.age(at)) } else { 0.0 },
        };
        if has(Detector::Rarity) {
            frame.expected = self.rarity.expected();
        }
        if has(Detector::ZScore) {
            frame.zscore = self.zscore.centre(grain);
            frame.expected = frame.zscore.at;
        }
        if has(Detector::Ewma) {
            frame.ewma = self.ewma.centre(grain);
            frame.expected = frame.ewma.at;
        }
        if has(Detector::HoltWinters) {
            frame.forecast = self.holt.expected(intervals, Self::gains(params));
            let at = frame.forecast + season.map_or(0.0, |s| s.value);
            let residual = self.holt.centre(grain);
            frame.holt = Centre { at, scale: residual.scale };
            frame.bias = residual.at;
            frame.expected = at;
        }
        frame
    }

    /// Joins what the detectors say. It never falls where a distance or a rarity rises: the search
    /// for the band rests on that.
    pub(super) fn fuse(
        &self,
        params: &ModelParams,
        z: &Distances,
        rare: &Rare,
        seasonal: Option<f32>,
        isolated: f32,
    ) -> Fused {
        let has = |d| params.detectors.has(d);
        let n = self.samples;
        let mut evidence = [0f32; Detector::ALL.len()];
        let mut quick = (0f64, 0f64);
        let mut add = |nats: f64| quick = (quick.0 + nats, quick.1 + 1.0);
        let mut young = self.base_tail.nats(z.base);
        if has(Detector::Rarity) {
            add(f64::from(rare.value));
            add(f64::from(rare.step));
            if let Some(r) = seasonal {
                add(f64::from(r));
            }
            evidence[Detector::Rarity as usize] = rare.slow;
        }
        let mut distance = |detector: Detector, nats: f64| {
            young = young.at_most(nats);
            if !has(Detector::Rarity) {
                add(nats);
            }
            evidence[detector as usize] = nats as f32;
        };
        if has(Detector::ZScore) {
            distance(Detector::ZScore, self.zscore.nats(z.zscore));
        }
        if has(Detector::Ewma) {
            distance(Detector::Ewma, self.ewma.nats(z.ewma));
        }
        if has(Detector::HoltWinters) {
            let nats = self.holt.nats(z.holt);
            add(nats);
            evidence[Detector::HoltWinters as usize] = nats as f32;
        }
        let fused = f64::from(rare.slow) + if quick.1 > 0.0 { quick.0 / quick.1 } else { 0.0 };
        let (w, depth) = (self.ledger.weight(), self.exposure.depth());
        let plain = PLAIN * ln(1.0 + young);
        let young = self.believed(young);
        let worth = WORTH * fused;
        // What the young reading may claim shrinks as the histograms gain range of their own.
        let young = young.at_most((1.0 + 120.0 / f64::from(n)) * worth);
        // Isolation counts only as far as the series' own peaks weigh it.
        let fused = fused + ISOLATED * (f64::from(isolated) - ISOLATED_FROM).at_least(0.0);
        evidence[Detector::Isolation as usize] = isolated;
        let own = (1.0 - w) * young
            + if w > 0.0 {
                w * self.ledger.nats(depth, fused, FUSED_PRIOR).at_most(OWN_MOST * worth)
            } else {
                0.0
            };
        let share = OWN_YOUNG + w * (OWN - OWN_YOUNG);
        let heavy = self.heavy();
        let prior = Prior { scale: PLAIN_PRIOR.scale + heavy * PLAIN_HEAVY, ..PLAIN_PRIOR };
        let sharp = self.beside(share * own + (1.0 - share) * worth, &self.plain, depth, plain, prior);
        let mut told = (sharp, Lead::Sharp);
        let mut slow = |detector: Detector, ledger: &Ledger, z: f64, lead: Lead| {
            let nats = self.beside(0.0, ledger, depth, z, SLOW_PRIOR);
            evidence[detector as usize] = nats.at_least(0.0) as f32;
            if nats - SLOW_PRICE > told.0 {
                told = (nats - SLOW_PRICE, lead);
            }
        };
        if has(Detector::Shift) {
            slow(Detector::Shift, self.shift.ledger(), z.shift, Lead::Shift);
        }
        if let Some(slope) = self.slope.as_deref() {
            slow(Detector::Slope, slope.ledger(), z.slope, Lead::Slope);
        }
        evidence[Detector::Flat as usize] = z.flat as f32;
        if z.flat > told.0 {
            told = (z.flat, Lead::Flat);
        }
        Fused { nats: self.cautious(told.0, plain, heavy), lead: told.1, fused, plain, evidence }
    }

    /// How much is still to be learnt of the tail, by this series or its kind: 1 at first, 0 in the end.
    fn youth(&self) -> f64 {
        (1.0 - f64::from(self.kin) * (1.0 - self.ledger.youth())).at_least(0.0)
    }

    /// How heavy the tail of the distance from the base level is by all samples, not only by peaks: known
    /// within the first hundred. 0 about normal, 1 as Student's t3 or heavier.
    fn heavy(&self) -> f64 {
        ((self.base_tail.heaviness() - LIGHT_TAIL) / (HEAVY_TAIL - LIGHT_TAIL)).within(0.0, 1.0)
    }

    /// What goes beyond the samples seen is told from a tail that few peaks have shown as yet: a sample
    /// that is but little farther out than any before may be one of a heavy tail, the more so where
    /// the body is heavy.
    fn cautious(&self, nats: f64, plain: f64, heavy: f64) -> f64 {
        // About once a day is where peaks crowd: there the tail is told too light.
        let nats = nats - CROWDED * (1.0 - (nats - 7.0) / 3.0).within(0.0, 1.0) * (nats / 7.0).at_most(1.0);
        let youth = self.youth();
        if youth <= 0.0 {
            return nats;
        }
        let seen = 0.6 * ln(f64::from(self.samples) + 1.0);
        let ramp = ((f64::from(self.samples) - 200.0) / 400.0).within(0.0, 1.0);
        // A little heavy may be chance in the first samples.
        let youth = youth * ramp.at_least(heavy * heavy);
        let beyond = plain - self.plain.greatest();
        let record = RECORD + heavy * RECORD_HEAVY;
        let known = ((record - beyond) / (record - NEAR)).within(0.0, 1.0);
        let caution = (CAUTION + heavy * CAUTION_HEAVY) * (nats - seen);
        nats - caution.within(0.0, CAUTION_MOST + heavy * CAUTION_MOST_HEAVY) * youth * known
    }

    /// The greater of some nats and those of a ledger's evidence, two looks at one sample paid for. The
    /// ledger joins as it fills; a signal that mostly rests has no tail to go by.
    fn beside(&self, nats: f64, ledger: &Ledger, depth: f64, evidence: f64, prior: Prior) -> f64 {
        let resting = (ledger.least() / MOVING).at_most(1.0);
        let w = ledger.weight() * resting * resting;
        if w <= 0.0 {
            return nats;
        }
        let own = self.believed(ledger.nats(depth, evidence, prior));
        let own = (1.0 - w) * nats + w * own;
        nats.at_least(own) - w * LOOKS
    }

    /// A few samples, or a signal that hardly ever moved, cannot tell how rare a far value is: what
    /// exceeds the nats they can vouch for counts by its logarithm.
    fn believed(&self, nats: f64) -> f64 {
        if nats <= 0.5 * f64::from(self.steps.moves) {
            return nats;
        }
        let cap = 2.0 * ln(f64::from(self.samples) + 1.0) + 0.5 * f64::from(self.steps.moves);
        if nats <= cap { nats } else { cap + 0.1 * ln(1.0 + nats - cap) }
    }
}
