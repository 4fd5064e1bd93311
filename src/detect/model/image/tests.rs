use crate::codec::{Reader, Stored, image, restored};
use crate::detect::cohort::{Cohorts, Donors, Priors};
use crate::detect::isolation::{Features, Forests, Points};
use crate::detect::{Detector, Model, ModelParams, Periods, ReadOut, Season, Verdict};
use crate::time::{Millis, Span};
use proptest::prelude::*;

/// Uniform in [0, 1), by number.
fn uniform(seed: u64, k: i64) -> f64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..].copy_from_slice(&k.to_le_bytes());
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// A signal every five minutes: noise, a daily season, one of 90 minutes, one that rests, one that
/// jumps far; now and then a gap.
fn sample(signal: u8, seed: u64, k: i64) -> (Millis, f64) {
    let at = Millis((k + 40 * (k / 700)) * 300_000 + 1);
    let noise = uniform(seed, k) - 0.5;
    let turn = |period: i64| at.0.rem_euclid(period) as f64 / period as f64 * std::f64::consts::TAU;
    let x = match signal % 5 {
        0 => 100.0 + noise,
        1 => 20.0 * turn(86_400_000).sin() + noise,
        2 => 5.0 * turn(5_400_000).sin() + 0.1 * noise,
        3 => (uniform(seed, k / 50) * 4.0).floor(),
        _ => (if uniform(seed, -k) < 0.05 { 1e9 } else { 1.0 }) * noise,
    };
    (at, x)
}

fn params(choice: u8) -> ModelParams {
    let base = ModelParams::default();
    match choice % 4 {
        0 => base,
        1 => ModelParams { detectors: base.detectors.with(Detector::Slope), zscore_window: 16, ..base },
        2 => {
            let periods = Periods::new(&[Span::DAY, Span::days(7)]).expect("sound");
            ModelParams { season: Season::Fixed(periods), ..base }
        }
        _ => ModelParams { detectors: crate::detect::DetectorSet(0).with(Detector::Rarity), ..base },
    }
}

fn observe(model: &mut Model, params: &ModelParams, (at, x): (Millis, f64)) -> Option<Verdict> {
    model.observe(params, &ReadOut::default(), at, x)
}

fn taught(signal: u8, seed: u64, params: &ModelParams, samples: i64) -> Model {
    let mut model = Model::new(params);
    for k in 0..samples {
        observe(&mut model, params, sample(signal, seed, k));
    }
    model
}

/// The bits of a verdict.
fn bits(verdict: Option<Verdict>) -> Option<(u64, u64, u32, Vec<u32>)> {
    let evidence = |v: &Verdict| v.evidence.iter().map(|e| e.to_bits()).collect();
    verdict.map(|v| (v.score.to_bits(), v.expected.to_bits(), v.interval.to_bits(), evidence(&v)))
}

#[test]
fn sizes_are_those_of_the_documentation() {
    let size = |signal, params: &ModelParams, days: i64| {
        let model = taught(signal, 1, params, days * 288);
        (size_of::<Model>() + model.heap_bytes(), image(&model).len())
    };
    for (name, signal, choice, days, most) in [
        ("new", 0u8, 0u8, 0, 720),
        ("a day old, a season on trial", 0, 0, 1, 1900),
        ("gauge of noise", 0, 0, 12, 1300),
        ("gauge that rests", 3, 0, 12, 1300),
        ("daily season", 1, 0, 12, 2900),
        ("period of 90 minutes", 2, 0, 12, 2900),
        ("fixed day and week", 1, 2, 12, 2900),
    ] {
        let (memory, stored) = size(signal, &params(choice), days);
        println!("{name}: {memory} bytes in memory, {stored} stored");
        assert!(stored <= most && stored < memory, "{name}: {stored} bytes of {memory}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restored_model_goes_on_as_if_nothing_had_been(
        signal in 0u8..5, choice in 0u8..4, seed in any::<u64>(), before in 0i64..2500, after in 1i64..400,
    ) {
        let params = params(choice);
        let mut model = taught(signal, seed, &params, before);
        let bytes = image(&model);
        let mut again: Model = restored(&bytes).expect("what was stored");
        prop_assert_eq!(image(&again), bytes);
        for k in before..before + after {
            let next = sample(signal, seed, k);
            if k % 97 == 0 {
                let band = |model: &Model| model.band(&params, &ReadOut::default(), next.0);
                let bits = |model| band(model).map(|b| (b.lower.to_bits(), b.upper.to_bits()));
                prop_assert_eq!(bits(&model), bits(&again));
            }
            let (one, other) = (observe(&mut model, &params, next), observe(&mut again, &params, next));
            prop_assert_eq!(bits(one), bits(other));
        }
        prop_assert_eq!(image(&again), image(&model));
    }

    #[test]
    fn a_damaged_model_is_refused_or_can_be_used(
        signal in 0u8..5, choice in 0u8..4, seed in any::<u64>(), before in 0i64..1500,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let params = params(choice);
        let whole = image(&taught(signal, seed, &params, before));
        for (at, with) in flips {
            let mut bytes = whole.clone();
            bytes[at.index(whole.len())] ^= with.max(1);
            if let Some(cut) = cut {
                bytes.truncate(cut.index(whole.len()));
                prop_assert!(restored::<Model>(&bytes).is_err());
                continue;
            }
            let Ok(mut model) = restored::<Model>(&bytes) else { continue };
            let heap = model.heap_bytes();
            prop_assert!(heap <= 4 * bytes.len(), "{} bytes of {}", heap, bytes.len());
            for k in before..before + 40 {
                let next = sample(signal, seed, k);
                model.band(&params, &ReadOut::default(), next.0);
                observe(&mut model, &params, next);
            }
        }
    }
}

/// What three members of two cohorts tell, the first of them as donor of both.
fn told() -> Cohorts {
    let params = ModelParams::default();
    let mut cohorts = Cohorts::default();
    for member in 0..3 {
        let model = taught(0, member, &params, 400);
        cohorts.add([7, 9].into_iter(), member + 1, &params, &model);
    }
    cohorts
}

/// The image of cohorts with their models before it.
fn cohorts_image(cohorts: &Cohorts) -> Vec<u8> {
    let (mut table, mut body, mut bytes) = (Donors::default(), Vec::new(), Vec::new());
    cohorts.store(&mut body, |model, to| table.store_place(model, to));
    table.store(&mut bytes);
    bytes.append(&mut body);
    bytes
}

#[test]
fn cohorts_share_their_donors_in_the_image_and_after_it() {
    let cohorts = told();
    let bytes = cohorts_image(&cohorts);
    let one = image(&taught(0, 0, &ModelParams::default(), 400)).len();
    assert!(bytes.len() < one + 300, "a model is stored once: {} bytes", bytes.len());
    let mut from = Reader::new(&bytes);
    let table = Donors::load(&mut from).expect("a table");
    let again = Cohorts::load(&mut from, &table).expect("cohorts");
    from.finish().expect("all of it");
    assert_eq!(cohorts_image(&again), bytes);

    let priors = Priors::of(10, again, None);
    let mut table = Donors::default();
    let mut body = Vec::new();
    priors.store(&mut body, &mut table);
    let again = Priors::load(&mut Reader::new(&body), &table).expect("priors");
    let params = ModelParams::default();
    let own = taught(0, 5, &params, 4);
    let at = sample(0, 5, 4).0;
    let adopted = |priors: &Priors| {
        priors.get(9).and_then(|prior| prior.adopt(&params, &own, at, 12)).map(|model| image(&model))
    };
    assert!(adopted(&priors).is_some());
    assert_eq!(adopted(&again), adopted(&priors));
    assert!(Priors::load(&mut Reader::new(&body), &Donors::default()).is_err(), "its models are missing");
}

fn points(rules: u64, each: u64) -> Points {
    let mut points = Points::default();
    for k in 0..rules * each {
        let at: Features = std::array::from_fn(|f| uniform(f as u64, k as i64) as f32 - 0.5);
        points.add(k % rules, k.wrapping_mul(0x9E37_79B9_7F4A_7C15), at);
    }
    points
}

#[test]
fn points_and_forests_come_back_whole() {
    let bytes = image(&points(3, 300));
    let again: Points = restored(&bytes).expect("points");
    assert_eq!(image(&again), bytes);
    let forests = Forests::of(5, points(3, 300), None);
    assert_eq!(Forests::of(5, again, None), forests, "the same forests grow from them");
    let bytes = image(&forests);
    let again: Forests = restored(&bytes).expect("forests");
    assert_eq!(again, forests);
    println!("a forest: {} bytes stored", bytes.len() / 3);
    assert!(bytes.len() / 3 < 30_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_forests_are_refused_or_can_be_asked(at in any::<prop::sample::Index>(), with in 1u8..) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| image(&Forests::of(5, points(1, 300), None)));
        let mut bytes = WHOLE.clone();
        bytes[at.index(WHOLE.len())] ^= with;
        if let Ok(forests) = restored::<Forests>(&bytes) {
            for rule in 0..2 {
                forests.get(rule).map(|forest| forest.nats(&[0.1; 6]));
            }
            Forests::of(6, Points::default(), Some(&forests));
        }
    }

    #[test]
    fn damaged_cohorts_do_not_panic(at in any::<prop::sample::Index>(), with in 1u8..) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| cohorts_image(&told()));
        let mut bytes = WHOLE.clone();
        bytes[at.index(WHOLE.len())] ^= with;
        let mut from = Reader::new(&bytes);
        let Ok(table) = Donors::load(&mut from) else { return Ok(()) };
        if let Ok(cohorts) = Cohorts::load(&mut from, &table) {
            Priors::of(3, cohorts, None);
        }
    }
}

#[test]
fn trees_deeper_than_any_are_refused() {
    // One rule, epoch, limit, then cuts without end.
    let mut bytes = vec![1];
    [5u64, 5, 0].iter().for_each(|number| number.store(&mut bytes));
    bytes.extend([1, 0, 0, 0, 0].repeat(100_000));
    assert_eq!(restored::<Forests>(&bytes).expect_err("refused").what, "no node of a tree");
}
