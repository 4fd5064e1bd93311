//! One model: the chosen detectors, their fusion and the calibration, over one scalar signal.
//!
//! A sample is first judged, a pure function of the state, then learnt. How the detectors' evidence becomes
//! one number is told in [`super::fuse`].
//!
//! A sample of which the default budget would be spent is odd; while oddness lasts, levels and
//! scales learn less, for [`ModelParams::accept_shift_after`] at most: then the level is taken
//! as the new normal.

use super::band::Search;
use super::ewma::Ewma;
use super::flat::Flat;
use super::fuse::{Frame, Fused, Lead};
use super::holt_winters::{Gains, HoltWinters};
use super::isolation::Forest;
use super::rarity::{Rare, Rarity};
use super::seasonal::{Expected, Keeper};
use super::shift::Shift;
use super::slope::Slope;
use super::zscore::ZScore;
use super::{Detector, Kind, ModelParams, ReadOut};
use crate::calibrate::{Ledger, readout};
use crate::stats::interval::Interval;
use crate::stats::math::{bounded, young};
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
/// Base scales from the base level beyond which a shift is still on.
const DISPLACED: f64 = 4.0;
/// Slow widths from which on the sliding window's width is a change of variance.
const WIDER: f64 = 2.0;
/// Samples back at the old level that end an odd time.
const BACK: u8 = 5;

/// The state of one signal. See the module page for its shape and size.
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
    pub(super) ledger: Ledger,
    /// Of the plain distance, in logarithms of nats.
    pub(super) plain: Ledger,
    pub(super) shift: Shift,
    /// Only where it is chosen.
    pub(super) slope: Option<Box<Slope>>,
    pub(super) flat: Flat,
    /// When the odd time now going on began.
    pub(super) odd_since: Option<Millis>,
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
    /// The offset, and its and the slope's evidence for their ledgers.
    offset: f64,
    shift: f64,
    slope: f64,
    expected: f64,
    evidence: [f32; Detector::ALL.len()],
    rare: Rare,
    /// Distance from the base level, in its scales.
    base_z: f64,
    season: Option<Expected>,
    intervals: f64,
    floor: f64,
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
            ledger: Ledger::default(),
            plain: Ledger::default(),
            shift: Shift::default(),
            slope: params.detectors.has(Detector::Slope).then(Box::default),
            flat: Flat::default(),
            odd_since: None,
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
            expected: judged.expected,
            interval: if readout::counts(read, y, judged.expected) { self.interval.ms() as f32 } else { 0.0 },
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
            expected: judged.expected,
            interval: 0.0,
            kind: self.kind(&judged, y),
            evidence: judged.evidence,
        })
    }

    fn kind(&self, judged: &Judged, x: f64) -> Kind {
        let (slow, window) = (self.base.sd(), self.zscore.sd());
        match judged.lead {
            Lead::Flat => Kind::FlatLine,
            Lead::Slope => Kind::Ramp,
            Lead::Shift if judged.season.is_some() && (x - self.base.mean).abs() < 3.0 * slow => {
                Kind::OutOfSeason
            }
            Lead::Shift => Kind::LevelShift,
            Lead::Sharp if window > WIDER * slow && judged.offset.abs() < window => Kind::Variance,
            Lead::Sharp if x < judged.expected => Kind::Dip,
            Lead::Sharp => Kind::Spike,
        }
    }

    fn score(&self, read: &ReadOut, judged: &Judged, x: f64) -> f64 {
        let score = judged.nats.max(0.0) / readout::allowed(read.budget.0, self.interval.ms());
        if readout::counts(read, x, judged.expected) { score } else { readout::suppressed(score) }
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
                shift: 0.0,
                slope: 0.0,
                expected: x,
                evidence: [0.0; Detector::ALL.len()],
                rare: Rare::default(),
                base_z: 0.0,
                season: None,
                intervals: 1.0,
                floor: 1e-300,
            };
        }
        let frame = self.frame(params, at);
        let z = frame.distances(self, params, x, x);
        let (mut rare, mut seasonal) = (Rare::default(), None);
        if params.detectors.has(Detector::Rarity) {
            seasonal = frame.season.and_then(|s| self.season.rarity(s.residual(x), frame.floor));
            rare = self.rarity.judge(x, n, &self.steps, frame.floor, seasonal);
        }
        let Fused { nats, lead, fused, plain, evidence } = self.fuse(params, &z, rare, seasonal, isolated);
        let Frame { expected, season, intervals, floor, .. } = frame;
        Judged {
            nats,
            fused,
            plain,
            lead,
            offset: self.shift.judge(frame.long_run(x), n),
            shift: z.shift,
            slope: z.slope,
            expected,
            evidence,
            rare,
            base_z: z.base,
            season,
            intervals,
            floor,
        }
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
        let grain = self.steps.floor();
        let (scale, last) = (self.base.sd().max(grain), self.steps.last);
        let sixteenths = self.share(params, at, x, judged);
        let share = f64::from(sixteenths) / f64::from(FULL);
        if n > 10 {
            self.base_tail.learn(judged.base_z, share);
        }
        let has = |d| params.detectors.has(d);
        if has(Detector::Rarity) {
            self.rarity.learn(x, n, judged.floor, judged.rare, sixteenths);
        }
        if has(Detector::ZScore) {
            self.zscore.learn(x, grain, share);
        }
        if has(Detector::Ewma) {
            self.ewma.learn(x, dt, params.ewma_half_life.0, n, grain, share);
        }
        if has(Detector::HoltWinters) {
            let rest = x - judged.season.map_or(0.0, |s| s.value);
            self.holt.learn(rest, judged.intervals, Self::gains(params), n, grain, share);
        }
        self.season.learn(
            params.season,
            at,
            &params.zone,
            interval,
            x,
            self.base,
            params.gamma,
            judged.floor,
            sixteenths,
        );
        let clip = if n > 20 { BASE_CLIP * self.base.sd().max(grain) } else { f64::MAX };
        self.base.learn(x, BASE_GAIN.max(young(n)) * share.max(0.125), clip);
        self.steps.learn(x, share);
        if n >= params.min_samples {
            let bar = readout::allowed(Span::days(30).0, self.interval.ms());
            self.ledger.learn(at, judged.fused, bar);
            self.plain.learn(at, judged.plain, bar);
            if has(Detector::Shift) {
                self.shift.enter(at, judged.shift, bar);
            }
            if let Some(slope) = &mut self.slope {
                slope.enter(at, judged.slope, bar);
            }
        }
        if has(Detector::Shift) {
            self.shift.learn(n, judged.offset, share);
        }
        if let Some(slope) = &mut self.slope {
            let means = slope.judge(x, scale, n);
            slope.learn(n, means, share);
        }
        if has(Detector::Flat) {
            self.flat.learn(interval, n == 0 || x != last);
        }
        self.last_at = at;
        self.samples = n.saturating_add(1);
    }

    /// How much this sample may teach, in sixteenths; keeps the book of odd times.
    fn share(&mut self, params: &ModelParams, at: Millis, x: f64, judged: &Judged) -> u16 {
        let odd = self.samples >= params.min_samples
            && judged.nats >= readout::LEAST
            && judged.nats >= readout::allowed(Span::days(30).0, self.interval.ms());
        let away = judged.base_z > DISPLACED;
        match self.odd_since {
            None if odd => {
                self.odd_since = Some(at);
                self.back = 0;
                self.odd_share()
            }
            None => FULL,
            Some(_) if !odd && !away => {
                self.back += 1;
                if self.back >= BACK {
                    self.odd_since = None;
                }
                FULL
            }
            Some(since) if at.since(since) >= params.accept_shift_after.0 => {
                self.accept(x, judged.season.map_or(0.0, |s| s.value));
                FULL
            }
            Some(_) => {
                self.back = 0;
                self.odd_share()
            }
        }
    }

    /// The share of an odd sample, less as the ledger fills.
    fn odd_share(&self) -> u16 {
        let young = 1.0 - self.ledger.weight();
        ODD + (f64::from(ODD_YOUNG - ODD) * young) as u16
    }

    fn accept(&mut self, x: f64, season: f64) {
        self.odd_since = None;
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

    /// Bytes this model holds on the heap, beside its own size.
    pub fn heap_bytes(&self) -> usize {
        self.zscore.heap_bytes()
            + self.season.heap_bytes()
            + self.slope.as_ref().map_or(0, |_| size_of::<Slope>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{DetectorSet, Direction, MinChange};
    use proptest::prelude::*;

    /// A cheap, fixed sequence close to normal: the sum of twelve uniforms.
    fn noise(k: u64) -> f64 {
        let mut state = k.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut sum = -6.0;
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    fn warmed(params: &ModelParams, n: u64, interval: i64) -> Model {
        let mut model = Model::new(params);
        for k in 0..n {
            model.observe(params, &ReadOut::default(), Millis(k as i64 * interval), 50.0 + noise(k));
        }
        model
    }

    #[test]
    fn a_large_shift_and_a_stall_are_flagged_within_two_samples_of_warm_up() {
        let (params, read) = (ModelParams::default(), ReadOut::default());
        for interval in [1_000, 5_000, 15_000] {
            for n in [60, 61, 100, 150] {
                for value in [62.0, 38.0, 0.0] {
                    let mut model = warmed(&params, n, interval);
                    let flagged = (0..2).any(|j| {
                        let at = Millis((n as i64 + j) * interval);
                        model
                            .observe(&params, &read, at, value + if value == 0.0 { 0.0 } else { noise(n) })
                            .is_some_and(|v| v.score >= 1.0)
                    });
                    assert!(flagged, "interval {interval}, n {n}, value {value}");
                }
            }
        }
    }

    #[test]
    fn warm_up_says_nothing_and_healthy_noise_does_not_flag() {
        let (params, read) = (ModelParams::default(), ReadOut::default());
        let mut model = Model::new(&params);
        let mut told = 0;
        for k in 0..5_000u64 {
            let verdict = model.observe(&params, &read, Millis(k as i64 * 15_000), 50.0 + noise(k));
            assert_eq!(verdict.is_some(), k >= 59);
            if let Some(v) = verdict {
                told += 1;
                assert!(v.score < 1.0, "{k}: {v:?}");
                assert!((v.expected - 50.0).abs() < 3.0);
            }
        }
        assert_eq!((told, model.samples()), (4_941, 5_000));
    }

    #[test]
    fn a_constant_series_scores_nothing_and_its_first_jump_is_odd_but_not_the_next_ones() {
        let (params, read) = (ModelParams::default(), ReadOut::default());
        let mut model = Model::new(&params);
        let mut observe = |k: i64, x: f64| model.observe(&params, &read, Millis(k * 15_000), x);
        for k in 0..3_000 {
            assert!(observe(k, 7.0).is_none_or(|v| v.score < 0.5));
        }
        let first = observe(3_000, 8.0).map_or(0.0, |v| v.score);
        assert!(first >= 1.0, "{first}");
        let mut later = 0;
        for k in 3_001..6_000 {
            let value = if k % 500 < 250 { 7.0 } else { 8.0 };
            let score = observe(k, value).map_or(0.0, |v| v.score);
            later += u32::from(k > 3_500 && score >= 1.0);
        }
        assert_eq!(later, 0);
    }

    #[test]
    fn a_lasting_shift_becomes_normal() {
        let (params, read) = (ModelParams::default(), ReadOut::default());
        let mut model = warmed(&params, 500, 60_000);
        let mut last = None;
        for k in 500..(500 + 8 * 60u64) {
            last = model.observe(&params, &read, Millis(k as i64 * 60_000), 90.0 + noise(k));
        }
        let last = last.expect("scored");
        assert!(last.score < 1.0 && (last.expected - 90.0).abs() < 4.0, "{last:?}");
    }

    #[test]
    fn a_glance_caps_the_score_and_teaches_nothing() {
        let (params, read) = (ModelParams::default(), ReadOut::default());
        let mut model = warmed(&params, 500, 15_000);
        let before = model.clone();
        let at = Millis(500 * 15_000);
        let glance = model.glance(&params, &read, at, 90.0).expect("a score");
        assert!(model == before && glance.score < 1.0, "{glance:?}");
        let verdict = model.observe(&params, &read, at, 90.0).expect("a score");
        assert_eq!(glance.score, readout::suppressed(verdict.score));
        assert!(verdict.score >= 1.0 && verdict.expected == glance.expected);
        assert_eq!(model.glance(&params, &read, at, 50.0), None, "not after the last sample");
        assert_eq!(warmed(&params, 58, 15_000).glance(&params, &read, at, 50.0), None, "warming up");
        assert_eq!(before.glance(&params, &read, at, f64::NAN), None);
    }

    #[test]
    fn sensitivity_is_only_read() {
        let params = ModelParams::default();
        let loud = ReadOut {
            budget: Span::days(1),
            direction: Direction::Up,
            min_change: MinChange { absolute: 1.0, relative: 0.1 },
            ..ReadOut::default()
        };
        let (mut a, mut b) = (Model::new(&params), Model::new(&params));
        for k in 0..2_000u64 {
            let x = 50.0 + noise(k) + if k % 400 == 399 { 30.0 } else { 0.0 };
            a.observe(&params, &ReadOut::default(), Millis(k as i64 * 60_000), x);
            b.observe(&params, &loud, Millis(k as i64 * 60_000), x);
        }
        assert_eq!(a, b);
    }

    #[test]
    fn a_clone_goes_on_alike_and_direction_caps_below_one() {
        let params = ModelParams::default();
        let up = ReadOut { direction: Direction::Up, ..ReadOut::default() };
        let model = warmed(&params, 400, 15_000);
        let (mut a, mut b) = (model.clone(), model);
        let at = Millis(400 * 15_000);
        let both = a.observe(&params, &ReadOut::default(), at, 30.0).expect("scored");
        let only_up = b.observe(&params, &up, at, 30.0).expect("scored");
        assert!(both.score >= 1.0 && only_up.score < 1.0);
        assert_eq!(a, b);
    }

    #[test]
    fn the_band_is_where_the_score_is_below_one() {
        let params = ModelParams::default();
        let reads = [
            ReadOut::default(),
            ReadOut { budget: Span::days(1), ..ReadOut::default() },
            ReadOut { direction: Direction::Up, ..ReadOut::default() },
        ];
        for read in reads {
            for n in [80, 700, 4_000] {
                let model = warmed(&params, n, 60_000);
                let at = Millis(n as i64 * 60_000);
                let band = model.band(&params, &read, at).expect("warm");
                let score = |x: f64| model.clone().observe(&params, &read, at, x).expect("scored").score;
                let lower = if band.lower.is_finite() { band.lower } else { -1e6 };
                assert_eq!(band.lower.is_finite(), read.direction != Direction::Up);
                for k in 0..=200 {
                    let x = (lower + (band.upper - lower) * f64::from(k) / 200.0).min(band.upper);
                    assert!(score(x) < 1.0, "{x} in {band:?}");
                }
                let out = 1e-9 * (band.upper - 50.0);
                assert!(score(band.upper + out) >= 1.0);
                if band.lower.is_finite() {
                    assert!(score(band.lower - out) >= 1.0);
                }
            }
        }
    }

    #[test]
    fn every_detector_works_alone() {
        let level = |k: u64| 80.0 + noise(k);
        let climb = |k: u64| 50.0 + noise(k) + 0.1 * (k % 13_000) as f64;
        for detector in Detector::ALL {
            // What it is for: a far value, a moved level, a climb, a flat line.
            let (samples, fault): (u64, &dyn Fn(u64) -> f64) = match detector {
                Detector::Isolation => continue, // it speaks through a shared forest
                Detector::Shift => (1_000, &level),
                Detector::Slope => (13_000, &climb),
                Detector::Flat => (13_000, &|_| 50.0),
                _ => (300, &|_| 80.0),
            };
            let params = ModelParams { detectors: DetectorSet(0).with(detector), ..ModelParams::default() };
            let mut model = warmed(&params, samples, 60_000);
            let mut most = 0f64;
            for k in samples..samples + 60 {
                let verdict =
                    model.observe(&params, &ReadOut::default(), Millis(k as i64 * 60_000), fault(k));
                let verdict = verdict.expect("scored");
                most = most.max(verdict.score.min(f64::from(verdict.evidence[detector as usize])));
            }
            assert!(most > 0.3, "{detector:?} {most}");
        }
    }

    #[test]
    fn size_holds() {
        let params = ModelParams::default();
        let held = size_of::<Model>() + Model::new(&params).heap_bytes();
        assert!(held <= 1_216, "{held}");
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            -100.0..100.0f64,
            Just(0.0),
            Just(1e308),
            Just(-1e308),
            Just(5e-324),
            Just(f64::NAN),
            Just(f64::INFINITY)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn total_over_all_values_and_times(
            values in proptest::collection::vec((any_value(), prop_oneof![any::<i64>(), 0..100_000i64]), 1..300),
            sorted in any::<bool>(),
            fixed in any::<bool>(),
        ) {
            let season = if fixed {
                crate::detect::Season::Fixed(
                    crate::detect::Periods::new(&[Span::hours(8), Span::days(7)]).expect("sound"),
                )
            } else {
                crate::detect::Season::Auto
            };
            let params = ModelParams { min_samples: 5, season, ..ModelParams::default() };
            let read = ReadOut::default();
            let (mut a, mut b) = (Model::new(&params), Model::new(&params));
            let mut now = 0i64;
            for (x, t) in values {
                now = if sorted { now.saturating_add(t.rem_euclid(100_000) + 1) } else { t };
                let before = a.clone();
                let band = a.band(&params, &read, Millis(now));
                prop_assert!(band.is_none_or(|b| !b.lower.is_nan() && !b.upper.is_nan() && b.lower <= b.upper));
                let verdict = a.observe(&params, &read, Millis(now), x);
                let again = b.observe(&params, &read, Millis(now), x);
                prop_assert_eq!(verdict.map(|v| v.score.to_bits()), again.map(|v| v.score.to_bits()));
                if !x.is_finite() {
                    prop_assert!(verdict.is_none());
                    prop_assert!(a == before);
                }
                if let Some(v) = verdict {
                    prop_assert!(v.score.is_finite() && v.score >= 0.0, "{:?}", v);
                    prop_assert!(v.expected.is_finite());
                    prop_assert!(v.evidence.iter().all(|e| e.is_finite() && *e >= 0.0), "{:?}", v);
                }
            }
            // Not poisoned: equal to itself means that no NaN is in the state.
            prop_assert!(a == a.clone());
        }
    }
}
