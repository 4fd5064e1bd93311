//! The engine as its callers see it: bodies in, outputs out.

use super::testing::{rule, rules};
use super::*;
use crate::rules::{As, EmitWhen, Rule};
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, Sample, Version};
use std::sync::Arc;

/// Keeps all that it is told.
#[derive(Default)]
pub(super) struct Kept(pub(super) Mutex<Vec<Arc<OutputBatch>>>);

impl OutputSink for Kept {
    fn take(&self, batch: &Arc<OutputBatch>) {
        self.0.lock().push(batch.clone());
    }
    fn wants_all(&self) -> bool {
        true
    }
}

/// A series name, a pod, a time in seconds and a value.
pub(super) type Row<'a> = (&'a str, &'a str, i64, f64);

pub(super) fn body(version: Version, rows: &[Row<'_>]) -> Record {
    let mut encoder = Encoder::new(version);
    for (name, pod, seconds, value) in rows {
        let labels = [("__name__", *name), ("job", "test"), ("pod", *pod)];
        let sample = Sample { timestamp: seconds * 1000, value: *value };
        encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
    }
    let newest = rows.iter().map(|row| row.2).max().unwrap_or(0);
    Record::Body(Body::new(version, Millis(newest * 1000), encoder.finish().into()))
}

pub(super) fn start(rules_: Vec<Rule>, lanes: usize) -> (Engine, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let rules = Arc::new(rules(rules_));
    (Engine::new(rules, lanes, vec![kept.clone() as Arc<dyn OutputSink>]), kept)
}

/// A steady signal with some noise, the same for everyone.
fn noise(pod: usize, t: i64) -> f64 {
    let h = xxhash_rust::xxh3::xxh3_64(&(pod as i64 * 1_000_003 + t).to_le_bytes());
    100.0 + (h >> 40) as f64 / (1u64 << 24) as f64
}

/// All scores and stale markers as (series, time, bits), in an order of their own.
pub(super) fn digest(kept: &Kept) -> Vec<(String, i64, u64)> {
    let mut all = Vec::new();
    for batch in kept.0.lock().iter() {
        for output in &batch.outputs {
            let bits = match output.value {
                OutputValue::Scored { score, .. } | OutputValue::Silent { score, .. } => score.to_bits(),
                OutputValue::Stale => 0,
            };
            all.push((format!("{} {}", output.labels, output.transform), output.at.0, bits));
        }
    }
    all.sort();
    all
}

#[test]
fn every_sample_is_accounted_for() {
    let (engine, _) = start(vec![rule("r", "m", vec![As::Value])], 1);
    let rows = [
        ("m", "a", 10, 1.0),
        ("m", "a", 10, 1.0),
        ("m", "a", 5, 1.0),
        ("m", "a", 11, f64::NAN),
        ("m", "a", 12, f64::from_bits(crate::wire::STALE_BITS)),
        ("other", "a", 10, 1.0),
    ];
    let applied = engine.apply(body(Version::V1, &rows)).expect("a good body");
    let expected = [
        ("warming", 1),
        ("duplicate", 1),
        ("out_of_order", 1),
        ("not_finite", 1),
        ("stale_marker", 1),
        ("unmatched", 1),
    ];
    assert_eq!(applied.handled, BTreeMap::from(expected));
    assert_eq!((applied.samples, applied.sequence), (6, 1));
    assert_eq!(engine.unmatched(), [("other".to_string(), 1)]);

    let Record::Body(mut late) = body(Version::V2, &[("m", "a", 4_000, 1.0)]) else { unreachable!() };
    late.received = Millis(13_000);
    let applied = engine.apply(Record::Body(late)).expect("a good body");
    assert_eq!(applied.handled, BTreeMap::from([("too_far_ahead", 1)]));
}

#[test]
fn own_outputs_are_dropped_at_the_door_by_name_and_marks() {
    let (engine, _) = start(vec![rule("r", ".*", vec![As::Value])], 0);
    let mut encoder = Encoder::new(Version::V1);
    let sample = [Sample { timestamp: 1, value: 1.0 }];
    for labels in [
        vec![("__name__", "anomaly_score"), ("metric", "up"), ("rule", "r")],
        vec![("__name__", "yhat"), ("for", "up"), ("rule", "r")],
        vec![("__name__", "anomaly_score"), ("model", "theirs")],
        vec![("__name__", "y")],
    ] {
        encoder.series(labels.into_iter(), MetricKind::Unknown, &sample);
    }
    let bytes = encoder.finish().into();
    let record = Record::Body(Body::new(Version::V1, Millis(1), bytes));
    let applied = engine.apply(record).expect("a good body");
    assert_eq!(applied.handled, BTreeMap::from([("own_output", 2), ("warming", 2)]));
}

#[test]
fn lanes_protocols_and_batch_cuts_do_not_change_a_bit() {
    let mut digests = Vec::new();
    for (lanes, version, cut) in
        [(0, Version::V1, 1), (1, Version::V2, 7), (2, Version::V1, 300), (3, Version::V2, 50)]
    {
        let (engine, kept) = start(vec![rule("r", "m", vec![As::Value, As::Rate])], lanes);
        let pods: Vec<String> = (0..30).map(|pod| format!("pod-{pod}")).collect();
        let rows: Vec<Row<'_>> = (0..120)
            .flat_map(|t| pods.iter().enumerate().map(move |(i, pod)| (t, i, pod)))
            .map(|(t, i, pod)| ("m", pod.as_str(), t * 15, noise(i, t) + if t == 100 { 50.0 } else { 0.0 }))
            .collect();
        for chunk in rows.chunks(cut) {
            engine.apply(body(version, chunk)).expect("a good body");
        }
        digests.push(digest(&kept));
    }
    assert!(digests[0].len() > 30 * 50, "{} outputs", digests[0].len());
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_shift_is_flagged_and_a_reload_keeps_what_was_learnt() {
    let (engine, kept) = start(vec![rule("old", "m", vec![As::Value])], 1);
    let feed = |from: i64, to: i64, add: f64| {
        for t in from..to {
            engine.apply(body(Version::V1, &[("m", "a", t * 15, noise(0, t) + add)])).expect("a good body");
        }
    };
    feed(0, 100, 0.0);
    let mut changed = rule("new", "m", vec![As::Value]);
    changed.read.budget = crate::time::Span::days(7);
    engine.apply(Record::Rules(Arc::new(rules(vec![changed])))).expect("rules");
    feed(100, 101, 0.0);
    let last = kept.0.lock().last().cloned().expect("an output straight after the reload");
    assert_eq!(last.rule(&last.outputs[0]).map(|rule| rule.name.as_str()), Some("new"));
    feed(101, 103, 12.0);
    let flagged: Vec<i64> = kept
        .0
        .lock()
        .iter()
        .flat_map(|b| b.outputs.clone())
        .filter(Output::flagged)
        .map(|o| o.at.0)
        .collect();
    assert!(flagged.contains(&(101 * 15_000)) || flagged.contains(&(102 * 15_000)), "{flagged:?}");
    assert!(flagged.iter().all(|at| *at >= 101 * 15_000), "{flagged:?}");
}

#[test]
fn a_stale_series_ends_its_outputs_once() {
    let (engine, kept) = start(vec![rule("r", "m", vec![As::Value])], 1);
    for t in 0..70 {
        engine.apply(body(Version::V1, &[("m", "a", t, noise(0, t))])).expect("a good body");
    }
    let stale = f64::from_bits(crate::wire::STALE_BITS);
    engine.apply(body(Version::V1, &[("m", "a", 70, stale), ("m", "a", 71, stale)])).expect("a good body");
    let ends = kept
        .0
        .lock()
        .iter()
        .flat_map(|b| b.outputs.clone())
        .filter(|o| o.value == OutputValue::Stale)
        .count();
    assert_eq!(ends, 1);
    let status = engine.signals(&[], 10);
    assert_eq!((status.len(), &status[0].standing), (1, &Standing::Stale));
}

#[test]
fn what_fell_silent_is_forgotten_by_observed_time_and_comes_back_as_new() {
    let mut set = rules(vec![rule("r", "m", vec![As::Value])]);
    set.forget_after = crate::time::Span::minutes(10);
    let engine = Engine::new(Arc::new(set), 1, Vec::new());
    engine.apply(body(Version::V1, &[("m", "gone", 0, 1.0), ("m", "here", 0, 1.0)])).expect("a good body");
    for t in 1..60 {
        engine.apply(body(Version::V1, &[("m", "here", t * 15, 1.0)])).expect("a good body");
    }
    engine.sweep();
    let stats = engine.stats();
    assert_eq!((stats.series, stats.aliases), (1, 2), "a quarter beyond ten minutes have passed");
    let again = engine.apply(body(Version::V1, &[("m", "gone", 60 * 15, 1.0)])).expect("a good body");
    assert_eq!(again.handled, BTreeMap::from([("warming", 1)]), "its alias outlived it, its sample is kept");
    assert_eq!(engine.stats().series, 2);
    for t in 60..180 {
        engine.apply(body(Version::V1, &[("m", "here", t * 15, 1.0)])).expect("a good body");
        engine.sweep();
    }
    let stats = engine.stats();
    assert_eq!((stats.series, stats.aliases, stats.labels), (1, 1, 2), "its alias and label go after it");
}

#[test]
fn the_series_limit_is_counted_not_an_error() {
    let mut set = rules(vec![rule("r", "m", vec![As::Value])]);
    set.limits.max_series = 2;
    let engine = Engine::new(Arc::new(set), 2, Vec::new());
    let rows = [("m", "a", 1, 1.0), ("m", "b", 1, 1.0), ("m", "c", 1, 1.0)];
    let applied = engine.apply(body(Version::V2, &rows)).expect("a good body");
    assert_eq!(applied.handled, BTreeMap::from([("over_limit", 1), ("warming", 2)]));
}

#[test]
fn only_the_elected_replica_is_followed_and_they_share_one_series() {
    let (engine, _) = start(vec![rule("r", "m", vec![As::Value])], 1);
    let sample = |replica: &str, seconds: i64| {
        let mut encoder = Encoder::new(Version::V1);
        let labels = [("__name__", "m"), ("__replica__", replica), ("cluster", "eu")];
        encoder.series(
            labels.into_iter(),
            MetricKind::Unknown,
            &[Sample { timestamp: seconds * 1000, value: 1.0 }],
        );
        let bytes = encoder.finish().into();
        let record = Record::Body(Body::new(Version::V1, Millis(seconds * 1000), bytes));
        engine.apply(record).expect("a good body").handled
    };
    let elect = |replica: &str| {
        let record = Record::Elect { cluster: "eu".into(), replica: replica.into() };
        engine.apply(record).expect("an election");
    };
    elect("a");
    assert_eq!(sample("a", 1), BTreeMap::from([("warming", 1)]));
    assert_eq!(sample("b", 2), BTreeMap::from([("replica", 1)]));
    elect("b");
    assert_eq!(sample("b", 3), BTreeMap::from([("warming", 1)]));
    assert_eq!(engine.stats().series, 1);
}

#[test]
fn outputs_are_let_out_as_asked() {
    let mut quiet = rule("r", "m", vec![As::Value]);
    quiet.emit_when = EmitWhen::Changed;
    let (engine, kept) = start(vec![quiet], 0);
    for t in 0..200 {
        engine.apply(body(Version::V1, &[("m", "a", t * 15, 1.0)])).expect("a good body");
    }
    let all: Vec<Output> = kept.0.lock().iter().flat_map(|b| b.outputs.clone()).collect();
    let out: Vec<i64> = all.iter().filter(|o| o.emit).map(|o| o.at.0).collect();
    assert!(all.len() > 100);
    assert!(out.windows(2).all(|pair| pair[1] - pair[0] == 240_000), "a constant is kept alive: {out:?}");
}

fn window(from: i64, to: i64) -> crate::rules::Windows {
    let when = crate::rules::window::When::Once(Millis(from * 1000), Millis(to * 1000));
    crate::rules::Windows::new(vec![Arc::new(crate::rules::Window {
        when,
        selectors: crate::rules::selector::parse("{pod=\"a\"}").expect("valid"),
        comment: None,
    })])
}

#[test]
fn in_a_window_nothing_flags_and_nothing_is_learnt() {
    let run = |windows: bool| {
        let mut ignoring = rule("r", "m|c_total", vec![]);
        ignoring.emit.bands = true;
        if windows {
            ignoring.ignore = window(1_500, 2_250);
        }
        let (engine, kept) = start(vec![ignoring], 1);
        let mut handled = BTreeMap::new();
        for t in 0..200 {
            let at = t * 15;
            // From 100 to 149 all goes wrong.
            let add = if (100..150).contains(&t) { 40.0 } else { 0.0 };
            let rows = [
                ("m", "a", at, noise(0, t) + add),
                ("m", "b", at, noise(1, t) + add),
                ("c_total", "a", at, 1_500.0 * t as f64 + noise(2, t)),
            ];
            for (reason, count) in engine.apply(body(Version::V2, &rows)).expect("a good body").handled {
                *handled.entry(reason).or_insert(0u64) += count;
            }
        }
        let outputs: Vec<Output> = kept.0.lock().iter().flat_map(|b| b.outputs.clone()).collect();
        (outputs, handled)
    };
    let (with, handled) = run(true);
    let (without, _) = run(false);
    assert_eq!(handled.get("ignored"), Some(&100), "fifty samples of two series: {handled:?}");
    let of = |all: &[Output], pod: &str| -> Vec<(i64, bool, f64)> {
        let ours = all.iter().filter(|o| o.labels.get("pod") == Some(pod) && o.labels.name() == "m");
        ours.map(|o| match o.value {
            OutputValue::Scored { score, .. } => (o.at.0 / 15_000, o.flagged(), score),
            _ => (o.at.0 / 15_000, false, f64::NAN),
        })
        .collect()
    };
    assert_eq!(of(&with, "b"), of(&without, "b"), "the window does not concern b");
    assert!(of(&without, "a").iter().any(|(t, flagged, _)| *flagged && (100..103).contains(t)));
    let a = of(&with, "a");
    assert_eq!(a.iter().filter(|(t, ..)| (100..150).contains(t)).count(), 50, "scored all the same");
    assert!(a.iter().all(|(t, flagged, _)| !flagged || !(100..150).contains(t)), "{a:?}");
    assert!(a.iter().any(|(t, _, score)| (100..150).contains(t) && *score > 0.9), "and the score is told");
    // After it the old level is the normal one, as if the time between had been a gap.
    assert!(a.iter().filter(|(t, ..)| *t >= 150).all(|(.., score)| *score < 1.0), "{a:?}");
    let rate: Vec<f64> = with
        .iter()
        .filter(|o| o.labels.name() == "c_total" && o.at.0 == 150 * 15_000)
        .map(|o| match o.value {
            OutputValue::Scored { value, .. } => value,
            _ => f64::NAN,
        })
        .collect();
    assert!(rate.len() == 1 && (rate[0] - 100.0).abs() < 1.0, "the counter was read all along: {rate:?}");
    let open = |o: &&Output| matches!(&o.value, OutputValue::Scored { detail: Some(detail), .. } if detail.band.is_some_and(|band| band.lower.is_infinite() && band.upper.is_infinite()));
    let inside =
        with.iter().filter(|o| o.labels.get("pod") == Some("a") && (100..150).contains(&(o.at.0 / 15_000)));
    assert_eq!(inside.clone().filter(open).count(), inside.count(), "no value would flag");
}
