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
            let verdict = model.observe(&params, &ReadOut::default(), Millis(k as i64 * 60_000), fault(k));
            let verdict = verdict.expect("scored");
            most = most.max(verdict.score.min(f64::from(verdict.evidence[detector as usize])));
        }
        assert!(most > 0.3, "{detector:?} {most}");
    }
}

#[test]
fn size_holds() {
    let model = Model::new(&ModelParams::default());
    assert_eq!((size_of::<Model>(), model.heap_bytes()), (832, 0));
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
