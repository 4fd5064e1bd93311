//! One model: the chosen detectors, their fusion and the calibration, over one scalar signal.
//!
//! A sample is first judged, a pure function of the state, then learnt. How the detectors' evidence becomes
//! one number is told in [`super::fuse`].
//!
//! A sample of which the default budget would be spent is odd; while oddness lasts, levels and
//! scales learn less (and a little less of what is nearly odd), for
//! [`ModelParams::accept_shift_after`] at most: then the level is taken
//! as the new normal.

mod image;

use super::band::Search;
use super::ewma::Ewma;
use super::flat::Flat;
use super::fuse::{Distances, Frame, Fused, Lead};
use super::holt_winters::{Gains, HoltWinters};
use super::isolation::Forest;
use super::rarity::{Rare, Rarity};
use super::seasonal::Keeper;
use super::shift::Shift;
use super::slope::Slope;
use super::zscore::ZScore;
use super::{Detector, Kind, ModelParams, ReadOut};
use crate::calibrate::{Exposure, Ledger, PEAKS, readout};
use crate::stats::interval::Interval;
use crate::stats::math::{Bounds, bounded, young};
use crate::stats::moments::Moments;
use crate::stats::steps::Steps;
use crate::stats::tail::Tail;
use crate::time::{Millis, Span};

/// What a model says of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// 0 = as expected, 1 = the alarm threshold; finite, at least 0. Below 1 when suppressed.
    pub score: f64,
    /// What the model expected, in the signal's unit.
    pub expected: f64,
    /// The usual interval that the budget was spread over, ms: what tells the score of another budget.
    /// 0 where direction or least change cap the score below 1 under every budget.
    pub interval: f32,
    /// What kind of anomaly it would be.
    pub kind: Kind,
    /// Each detector's own evidence in nats (-ln of how likely so odd a sample is), 0 where it is
    /// silent or not chosen; by [`Detector`] number.
    pub evidence: [f32; Detector::ALL.len()],
}

/// The widest interval around `expected` in which this sample's value would score below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Lower edge; `-inf` when there is none.
    pub lower: f64,
    /// Upper edge; `+inf` when there is none.
    pub upper: f64,
}

/// Gain of the slow base level.
const BASE_GAIN: f64 = 2.0 / 1001.0;
/// A base step counts at most this many scales.
const BASE_CLIP: f64 = 8.0;
/// A full share of learning, in sixteenths, and the share of an odd sample.
const FULL: u16 = 16;
const ODD: u16 = 2;
/// The share while the ledger is young: a heavy tail must be learnt soon.
const ODD_YOUNG: u16 = 10;
/// Shares of the nats of an odd sample from which on less is learnt, and as little as of an odd one.
const WARY: (f64, f64) = (0.75, 1.0);
/// Base scales from the base level beyond which a shift is still on.
const DISPLACED: f64 = 4.0;
/// Slow widths from which on the sliding window's width is a change of variance.
const WIDER: f64 = 2.0;
/// No odd time.
const EVEN: Millis = Millis(i64::MAX);
/// Samples back at the old level that end an odd time.
const BACK: u8 = 5;

/// The state of one signal, 832 bytes with a window of 64 samples. Its parts are packed to multiples of 4
/// bytes rather than 8, which saves their gaps; processors read an eight-byte number from there as fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub(super) samples: u32,
    pub(super) last_at: Millis,
    pub(super) interval: Interval,
    pub(super) steps: Steps,
    pub(super) base: Moments,
    pub(super) base_tail: Tail,
    pub(super) ewma: Ewma,
    pub(super) zscore: ZScore,
    pub(super) holt: HoltWinters,
    pub(super) rarity: Rarity,
    pub(super) season: Keeper,
    /// What the ledgers stand for.
    pub(super) exposure: Exposure,
    pub(super) ledger: Ledger,
    /// Of the plain distance, in logarithms of nats.
    pub(super) plain: Ledger,
    pub(super) shift: Shift,
    /// Only where it is chosen.
    pub(super) slope: Option<Box<Slope>>,
    pub(super) flat: Flat,
    /// When the odd time now going on began; [`EVEN`] where none does.
    odd_since: Millis,
    back: u8,
    /// Series of whose kind the state was taken over, 1 for its own: their tails are known together.
    pub(super) kin: u16,
}

/// A sample judged, before anything is learnt of it.
#[derive(Clone, Copy, Debug)]
struct Judged {
    /// −ln of how often this series is so odd, per sample.
    nats: f64,
    fused: f64,
    plain: f64,
    lead: Lead,
    /// Of the signal from its slow level, with this sample.
    offset: f64,
    evidence: [f32; Detector::ALL.len()],
    rare: Rare,
    frame: Frame,
    z: Distances,
}

impl Model {
    /// An empty model.
    pub fn new(params: &ModelParams) -> Model {
        Model {
            samples: 0,
            last_at: Millis::MIN,
            interval: Interval::default(),
            steps: Steps::default(),
            base: Moments::default(),
            base_tail: Tail::default(),
            ewma: Ewma::default(),
            zscore: if params.detectors.has(Detector::ZScore) {
                ZScore::new(params.zscore_window)
            } else {
                ZScore::default()
            },
            holt: HoltWinters::default(),
            rarity: Rarity::default(),
            season: Keeper::default(),
            exposure: Exposure::default(),
            ledger: Ledger::default(),
            plain: Ledger::default(),
            shift: Shift::default(),
            slope: params.detectors.has(Detector::Slope).then(Box::default),
            flat: Flat::default(),
            odd_since: EVEN,
            back: 0,
            kin: 1,
        }
    }

    /// Takes one sample; times must increase (one at or before the last is ignored). `None` while
    /// warming up or where the value is not finite.
    pub fn observe(&mut self, params: &ModelParams, read: &ReadOut, at: Millis, x: f64) -> Option<Verdict> {
        self.observe_beside(params, read, at, x, 0.0)
    }

    /// [`Model::observe`] with what a shared forest says of the sample, in nats.
    pub fn observe_beside(
        &mut self,
        params: &ModelParams,
        read: &ReadOut,
        at: Millis,
        x: f64,
        isolated: f32,
    ) -> Option<Verdict> {
        if !x.is_finite() || (self.samples > 0 && at <= self.last_at) {
            return None;
        }
        let y = bounded(x);
        let judged = self.judge(params, at, y, isolated);
        let verdict = (self.samples.saturating_add(1) >= params.min_samples).then(|| Verdict {
            score: self.score(read, &judged, y),
            expected: judged.frame.expected,
            interval: if readout::counts(read, y, judged.frame.expected) {
                self.interval.ms() as f32
            } else {
                0.0
            },
            kind: self.kind(&judged, y),
            evidence: judged.evidence,
        });
        self.learn(params, at, y, &judged);
        verdict
    }

    /// Judges a sample without learning it, its score capped below 1: in a maintenance window.
    /// `None` where [`Model::observe`] would say nothing. The model is left as it was, so the next
    /// sample learnt comes after a gap.
    pub fn glance(&self, params: &ModelParams, read: &ReadOut, at: Millis, x: f64) -> Option<Verdict> {
        let early = self.samples.saturating_add(1) < params.min_samples;
        if !x.is_finite() || early || (self.samples > 0 && at <= self.last_at) {
            return None;
        }
        let y = bounded(x);
        let judged = self.judge(params, at, y, 0.0);
        Some(Verdict {
            score: readout::suppressed(self.score(read, &judged, y)),
            expected: judged.frame.expected,
            interval: 0.0,
            kind: self.kind(&judged, y),
            evidence: judged.evidence,
        })
    }

    fn kind(&self, judged: &Judged, x: f64) -> Kind {
        let (slow, window) = (judged.frame.base.scale, judged.frame.zscore.scale);
        match judged.lead {
            Lead::Flat => Kind::FlatLine,
            Lead::Slope => Kind::Ramp,
            Lead::Shift if judged.frame.season.is_some() && (x - self.base.mean).abs() < 3.0 * slow => {
                Kind::OutOfSeason
            }
            Lead::Shift => Kind::LevelShift,
            Lead::Sharp if window > WIDER * slow && judged.offset.abs() < window => Kind::Variance,
            Lead::Sharp if x < judged.frame.expected => Kind::Dip,
            Lead::Sharp => Kind::Spike,
        }
    }

    fn score(&self, read: &ReadOut, judged: &Judged, x: f64) -> f64 {
        let score = judged.nats.at_least(0.0) / readout::allowed(read.budget.0, self.interval.ms());
        if readout::counts(read, x, judged.frame.expected) { score } else { readout::suppressed(score) }
    }

    pub(super) fn gains(params: &ModelParams) -> Gains {
        Gains { alpha: params.alpha, beta: params.beta, phi: params.phi }
    }

    fn judge(&self, params: &ModelParams, at: Millis, x: f64, isolated: f32) -> Judged {
        let n = self.samples;
        if n == 0 {
            return Judged {
                nats: 0.0,
                fused: 0.0,
                plain: 0.0,
                lead: Lead::Sharp,
                offset: 0.0,
                evidence: [0.0; Detector::ALL.len()],
                rare: Rarity::first(x),
                frame: Frame::first(x, Steps { last: x, ..self.steps }.floor()),
                z: Distances::default(),
            };
        }
        let frame = self.frame(params, at);
        let z = frame.distances(self, params, x, x);
        let (mut rare, mut seasonal) = (Rare::default(), None);
        if params.detectors.has(Detector::Rarity) {
            seasonal = frame.season.and_then(|s| self.season.rarity(s.residual(x), frame.floor));
            rare = self.rarity.judge(x, n, &self.steps, frame.floor, seasonal);
        }
        let Fused { nats, lead, fused, plain, evidence } = self.fuse(params, &z, &rare, seasonal, isolated);
        let offset = self.shift.judge(frame.long_run(x), n);
        Judged { nats, fused, plain, lead, offset, evidence, rare, frame, z }
    }

    fn learn(&mut self, params: &ModelParams, at: Millis, x: f64, judged: &Judged) {
        let n = self.samples;
        if n == 0 {
            self.steps.last = x;
            self.base.mean = x;
        }
        let dt = if n == 0 { 0 } else { at.since(self.last_at) };
        if n > 0 {
            self.interval.learn(dt);
        }
        let interval = self.interval.ms();
        let Frame { floor, season, intervals, base, .. } = judged.frame;
        let last = self.steps.last;
        // Nats of an odd sample, by the default budget.
        let bar = readout::allowed(Span::days(30).0, interval);
        let sixteenths = self.share(params, at, x, judged, bar);
        let share = f64::from(sixteenths) / f64::from(FULL);
        if n > 10 {
            self.base_tail.learn(judged.z.base, share);
        }
        let has = |d| params.detectors.has(d);
        if has(Detector::Rarity) {
            self.rarity.learn(x, floor, &judged.rare, sixteenths);
        }
        if has(Detector::ZScore) {
            self.zscore.learn(x, judged.frame.zscore, share);
        }
        if has(Detector::Ewma) {
            self.ewma.learn(x, dt, params.ewma_half_life.0, n, judged.frame.ewma.scale, share);
        }
        if has(Detector::HoltWinters) {
            let rest = x - season.map_or(0.0, |s| s.value);
            match n {
                0 => self.holt.begin(rest),
                _ => self.holt.learn(
                    rest,
                    intervals,
                    Self::gains(params),
                    n,
                    judged.frame.told(&judged.z),
                    share,
                ),
            }
        }
        let (slow, gamma) = (self.base, params.gamma);
        self.season.learn(params.season, at, &params.zone, interval, x, slow, gamma, floor, sixteenths);
        let clip = if n > 20 { BASE_CLIP * base.scale } else { f64::MAX };
        self.base.learn(x, BASE_GAIN.at_least(young(n)) * share.at_least(0.125), clip);
        self.steps.learn(x, share);
        if n >= params.min_samples {
            let moment = self.exposure.take(at);
            self.ledger.learn(&moment, judged.fused, bar, PEAKS / 2);
            self.plain.learn(&moment, judged.plain, bar, PEAKS / 2);
            if has(Detector::Shift) {
                self.shift.enter(&moment, judged.z.shift, bar);
            }
            if let Some(slope) = &mut self.slope {
                slope.enter(&moment, judged.z.slope, bar);
            }
        }
        if has(Detector::Shift) {
            self.shift.learn(n, judged.offset, share);
        }
        if let Some(slope) = &mut self.slope {
            let means = slope.judge(x, base.scale, n);
            slope.learn(n, means, share);
        }
        if has(Detector::Flat) {
            self.flat.learn(interval, n == 0 || x != last);
        }
        self.last_at = at;
        self.samples = n.saturating_add(1);
    }

    /// When the odd time now going on began.
    pub(super) fn odd(&self) -> Option<Millis> {
        (self.odd_since != EVEN).then_some(self.odd_since)
    }

    /// How much this sample may teach, in sixteenths; keeps the book of odd times.
    fn share(&mut self, params: &ModelParams, at: Millis, x: f64, judged: &Judged, bar: f64) -> u16 {
        let odd = self.samples >= params.min_samples && judged.nats >= bar;
        let away = judged.z.base > DISPLACED;
        match self.odd() {
            None if odd => {
                self.odd_since = at;
                self.back = 0;
                self.odd_share()
            }
            None => self.wary(judged.nats / bar),
            Some(_) if !odd && !away => {
                self.back += 1;
                if self.back >= BACK {
                    self.odd_since = EVEN;
                }
                FULL
            }
            Some(since) if at.since(since) >= params.accept_shift_after.0 => {
                self.accept(x, judged.frame.season.map_or(0.0, |s| s.value));
                FULL
            }
            Some(_) => {
                self.back = 0;
                self.odd_share()
            }
        }
    }

    /// The share of a sample that is not odd, less where it nearly is, `near` 1: a climb must not be
    /// followed so quickly that it never is.
    fn wary(&self, near: f64) -> u16 {
        if self.ledger.weight() <= 0.0 {
            return FULL;
        }
        let wary = ((near - WARY.0) / (WARY.1 - WARY.0)).within(0.0, 1.0);
        FULL - (f64::from(FULL - self.odd_share()) * wary) as u16
    }

    /// The share of an odd sample, less as the ledger fills.
    fn odd_share(&self) -> u16 {
        let young = 1.0 - self.ledger.weight();
        ODD + (f64::from(ODD_YOUNG - ODD) * young) as u16
    }

    fn accept(&mut self, x: f64, season: f64) {
        self.odd_since = EVEN;
        self.base.mean = x;
        self.ewma.accept(x);
        self.holt.accept(x - season);
        self.shift.accept();
        if let Some(slope) = &mut self.slope {
            slope.accept(x);
        }
        self.flat.accept();
    }

    /// The band that the next sample at `at` would be judged by; call before [`Model::observe`].
    /// `None` while warming up, or where `at` is not after the last sample.
    pub fn band(&self, params: &ModelParams, read: &ReadOut, at: Millis) -> Option<Band> {
        self.band_beside(params, read, at, None)
    }

    /// [`Model::band`] with the forest that [`Model::observe_beside`] will be told of.
    pub fn band_beside(
        &self,
        params: &ModelParams,
        read: &ReadOut,
        at: Millis,
        forest: Option<&Forest>,
    ) -> Option<Band> {
        if self.samples.saturating_add(1) < params.min_samples.max(2) || at <= self.last_at {
            return None;
        }
        Some(Search::new(self, params, read, at, forest).band())
    }

    /// Samples taken so far (finite ones), saturating.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// The time of the last sample; [`Millis::MIN`] before the first.
    pub fn last_at(&self) -> Millis {
        self.last_at
    }

    /// Reads a little of every part, so that a use soon after finds all of it near: memory comes in lines of 64
    /// bytes, and the processor waits for several of them at once only where nothing hangs on one.
    pub fn near(&self) -> u64 {
        let ledgers = self.ledger.greatest() + self.plain.greatest() + self.shift.ledger().greatest();
        let numbers = [
            self.rarity.near(),
            self.zscore.near(),
            self.holt.near(),
            ledgers,
            self.base.mean,
            self.steps.moved,
            self.ewma.expected(),
            self.interval.ms(),
            self.exposure.age(self.last_at) as f64,
        ];
        numbers.into_iter().fold(self.last_at.0 as u64, |near, number| near ^ number.to_bits())
    }

    /// Bytes of its ledgers (of the fused evidence, of the plain distance and of shifts) and of what they stand
    /// for.
    pub const CALIBRATION: usize = 3 * size_of::<Ledger>() + size_of::<Exposure>();

    /// Bytes of the sliding window: those within the model's own size, and those on the heap.
    pub fn window_bytes(&self) -> (usize, usize) {
        let apart = self.zscore.heap_bytes();
        (self.zscore.window_bytes() - apart, apart)
    }

    /// Bytes this model holds on the heap, beside its own size.
    pub fn heap_bytes(&self) -> usize {
        self.zscore.heap_bytes()
            + self.season.heap_bytes()
            + self.slope.as_ref().map_or(0, |_| size_of::<Slope>())
    }
}

#[cfg(test)]
mod tests;
