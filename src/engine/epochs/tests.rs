//! Shared models as the engine's callers see them.

use crate::detect::Detector;
use crate::engine::testing::{rule, rules};
use crate::engine::tests::{Kept, Row, body, digest, start};
use crate::engine::{Engine, OutputValue};
use crate::record::Record;
use crate::rules::{As, Rule};
use crate::time::Span;
use crate::wire::Version;
use std::sync::Arc;

const STEP: i64 = 15;
const HOUR: i64 = 3600;

fn lending() -> Rule {
    let mut lending = rule("r", "m", vec![As::Value]);
    lending.identity_without = vec!["pod".into()];
    lending
}

/// Uniform in [0, 1), the same for everyone.
fn uniform(pod: u64, t: i64, salt: u64) -> f64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&pod.to_le_bytes());
    bytes[8..16].copy_from_slice(&t.to_le_bytes());
    bytes[16..].copy_from_slice(&salt.to_le_bytes());
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// Close to normal, mean 0, deviation 1.
fn normal(pod: u64, t: i64) -> f64 {
    (0..12).map(|salt| uniform(pod, t, salt)).sum::<f64>() - 6.0
}

/// Feeds pods `from..to` through a time, one body a scrape.
fn feed(engine: &Engine, pods: std::ops::Range<u64>, from: i64, to: i64, value: &dyn Fn(u64, i64) -> f64) {
    let names: Vec<(u64, String)> = pods.map(|pod| (pod, format!("pod-{pod}"))).collect();
    for t in (from..to).step_by(STEP as usize) {
        let rows: Vec<Row<'_>> =
            names.iter().map(|(pod, name)| ("m", name.as_str(), t, value(*pod, t))).collect();
        engine.apply(body(Version::V1, &rows)).expect("a good body");
    }
}

/// Scores of a pod: (seconds, score).
fn scores(kept: &Kept, pod: u64) -> Vec<(i64, f64)> {
    let name = format!("pod-{pod}");
    let batches = kept.0.lock();
    let outputs = batches.iter().flat_map(|batch| &batch.outputs);
    outputs
        .filter(|output| output.labels.get("pod") == Some(&name))
        .filter_map(|output| match output.value {
            OutputValue::Scored { score, .. } => Some((output.at.0 / 1000, score)),
            _ => None,
        })
        .collect()
}

/// A signal of pods, healthy and broken.
struct Kind {
    name: &'static str,
    healthy: fn(u64, i64) -> f64,
    broken: fn(u64, i64) -> f64,
}

/// Errors in a scrape's time, a second: few of 15 requests fail.
fn errors(pod: u64, t: i64, share: f64) -> f64 {
    (0..15).filter(|k| uniform(pod, t, 100 + *k) < share).count() as f64 / 15.0
}

/// Autoregressive, deviation near 1.
fn wandering(pod: u64, t: i64) -> f64 {
    let past = |k: i32| 0.97f64.powi(k) * normal(pod, t - i64::from(k) * STEP);
    0.243 * (0..150).map(past).sum::<f64>()
}

const KINDS: [Kind; 6] = [
    Kind { name: "normal", healthy: |p, t| 100.0 + normal(p, t), broken: |p, t| 112.0 + normal(p, t) },
    Kind {
        name: "wandering",
        healthy: |p, t| 100.0 + wandering(p, t),
        broken: |p, t| 112.0 + wandering(p, t),
    },
    Kind {
        name: "levels of their own",
        healthy: |p, t| 100.0 + 3.0 * normal(p, 0) + normal(p, t),
        broken: |p, t| 145.0 + normal(p, t),
    },
    Kind {
        name: "skewed",
        healthy: |p, t| (0.5 * normal(p, t)).exp(),
        broken: |p, t| 10.0 * (0.5 * normal(p, t)).exp(),
    },
    Kind { name: "errors", healthy: |p, t| errors(p, t, 0.1), broken: |p, t| 0.3 + errors(p, t, 0.7) },
    Kind { name: "up", healthy: |_, _| 1.0, broken: |_, _| 0.0 },
];

#[test]
fn a_rollout_is_scored_at_once_and_not_flagged_and_broken_pods_are() {
    for Kind { name, healthy, broken } in KINDS {
        let (engine, kept) = start(vec![lending()], 0);
        let at = 5 * HOUR + 600;
        feed(&engine, 0..20, 0, at, &healthy);
        let value = |pod, t| if pod >= 50 { broken(pod, t) } else { healthy(pod, t) };
        feed(&engine, 20..60, at, at + HOUR, &value);
        for pod in 20..60 {
            let scores = scores(&kept, pod);
            assert_eq!(scores.first().map(|(t, _)| *t), Some(at + 4 * STEP), "{name}: scored from the fifth");
            let flagged = scores.iter().find(|(_, score)| *score >= 1.0).map(|(t, _)| t - at);
            if pod < 50 {
                assert_eq!(flagged, None, "{name}: pod {pod} is like those before it");
            } else {
                assert!(flagged.is_some_and(|after| after <= 3 * 60), "{name}: pod {pod} {flagged:?}");
            }
        }
    }
}

#[test]
fn a_start_time_is_no_oddity_and_unlike_members_lend_nothing() {
    let started: fn(u64, i64) -> f64 = |pod, _| 1e9 + 1e4 * pod as f64;
    let unlike: fn(u64, i64) -> f64 = |pod, t| (1.0 + (pod % 7) as f64) * (10.0 + normal(pod, t));
    for (value, first) in [(started, 5), (unlike, 60)] {
        let (engine, kept) = start(vec![lending()], 0);
        let at = 3 * HOUR + 600;
        feed(&engine, 0..20, 0, at, &value);
        feed(&engine, 20..40, at, at + HOUR / 2, &value);
        for pod in 20..40 {
            let scores = scores(&kept, pod);
            assert_eq!(scores.first().map(|(t, _)| (t - at) / STEP + 1), Some(first));
            assert!(scores.iter().all(|(_, score)| *score < 1.0), "pod {pod}");
        }
    }
}

#[test]
fn without_cohorts_nothing_is_told_and_with_them_the_old_are_scored_as_before() {
    let run = |rule: Rule| {
        let (engine, kept) = start(vec![rule], 0);
        feed(&engine, 0..5, 0, 4 * HOUR, &|pod, t| 100.0 + normal(pod, t));
        (digest(&kept), engine.stats())
    };
    let (plain, stats) = run(rule("r", "m", vec![As::Value]));
    assert_eq!((stats.epochs, stats.cohorts, stats.sequence), (0, 0, 960), "a place for each body");
    let (lent, stats) = run(lending());
    // Hours 0 and 1 are closed when hours 2 and 3 begin; both closings, and that of nothing, have a place.
    assert_eq!((stats.epochs, stats.cohorts, stats.sequence), (2, 1, 963));
    assert_eq!(plain, lent);
}

/// Rows of pods that begin at different times, in an order in which pods are up to 20 minutes apart.
fn rows(apart: i64) -> Vec<(i64, u64)> {
    let begins = |pod: u64| if pod < 12 { 0 } else { 3 * HOUR + 300 * (pod as i64 % 12) };
    let late = |pod: u64| (pod * 7 % 5) as i64 * apart / 5;
    let mut all: Vec<(i64, i64, u64)> = (0..24u64)
        .flat_map(|pod| {
            let times = (begins(pod)..5 * HOUR).step_by(STEP as usize);
            times.map(move |t| (t + late(pod), t, pod))
        })
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, t, pod)| (t, pod)).collect()
}

fn value(pod: u64, t: i64) -> f64 {
    100.0 + normal(pod, t) + if pod == 15 { 12.0 } else { 0.0 }
}

#[test]
fn lanes_cuts_and_interleavings_do_not_change_a_bit_and_a_reload_keeps_what_was_told() {
    let mut digests = Vec::new();
    for (lanes, version, cut, apart, renew) in [
        (0, Version::V1, 24, 0, false),
        (1, Version::V2, 7, 0, false),
        (2, Version::V1, 100, 1_200, false),
        (0, Version::V1, 50, 1_500, false),
        (2, Version::V1, 33, 600, true),
        (0, Version::V2, 1, 0, true),
    ] {
        let mut named = lending();
        named.cohort = vec!["metric".into(), "job".into()];
        named.params.detectors = named.params.detectors.with(Detector::Isolation);
        let (engine, kept) = start(vec![named.clone()], lanes);
        let all = rows(apart);
        let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|(t, _)| *t < 2 * HOUR + 1_800);
        for part in [before, after] {
            for chunk in part.chunks(cut) {
                let pods: Vec<String> = chunk.iter().map(|(_, pod)| format!("pod-{pod}")).collect();
                let rows: Vec<Row<'_>> = chunk
                    .iter()
                    .zip(&pods)
                    .map(|((t, pod), name)| ("m", name.as_str(), *t, value(*pod, *t)))
                    .collect();
                engine.apply(body(version, &rows)).expect("a good body");
            }
            if renew {
                // Another budget, which scores show but learning does not, and back.
                let mut other = named.clone();
                other.read.budget = Span::days(7);
                for rule in [other, named.clone()] {
                    engine.apply(Record::Rules(Arc::new(rules(vec![rule])))).expect("rules");
                }
            }
        }
        assert!(engine.stats().cohorts > 0 && engine.stats().forests == 1);
        assert_eq!(scores(&kept, 13).first().map(|(t, _)| *t), Some(3 * HOUR + 300 + 4 * STEP));
        digests.push(digest(&kept));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_comes_after_its_epoch_is_counted_and_changes_no_model() {
    let run = |late: bool| {
        let (engine, kept) = start(vec![lending()], 1);
        let value = |pod, t| 100.0 + normal(pod, t) + if pod == 99 { 50.0 } else { 0.0 };
        feed(&engine, 0..4, 0, 4 * HOUR, &value);
        if late {
            feed(&engine, 99..100, 0, HOUR + 600, &value);
        }
        feed(&engine, 4..6, 4 * HOUR, 5 * HOUR, &value);
        (scores(&kept, 4), engine.stats().late)
    };
    let ((with, counted), (without, none)) = (run(true), run(false));
    assert_eq!((counted, none), (1, 0));
    assert!(with.len() > 200 && with == without);
}

#[test]
fn isolation_speaks_once_it_has_a_forest_and_its_band_holds_its_word() {
    let mut isolating = rule("r", "m", vec![As::Value, As::Delta]);
    isolating.params.detectors = isolating.params.detectors.with(Detector::Isolation);
    isolating.emit.bands = true;
    let (engine, kept) = start(vec![isolating], 1);
    let value = |pod: u64, t| 100.0 + normal(pod, t) + if pod == 3 && t == 4 * HOUR { 9.0 } else { 0.0 };
    feed(&engine, 0..6, 0, 4 * HOUR + 60, &value);
    assert_eq!((engine.stats().forests, engine.stats().cohorts, engine.stats().epochs), (1, 0, 3));
    let mut odd = 0.0f32;
    for output in kept.0.lock().iter().flat_map(|batch| &batch.outputs) {
        let OutputValue::Scored { value, score, detail: Some(detail) } = &output.value else { continue };
        let (value, score, band) = (*value, *score, detail.band);
        let isolated = detail.evidence[Detector::Isolation as usize];
        let at = output.at.0 / 1000;
        assert!(at >= 2 * HOUR || isolated == 0.0, "the forest of the first hour is for the third");
        assert!((0.0..5.6).contains(&isolated));
        let band = band.expect("asked for");
        assert_eq!(score < 1.0, (band.lower..=band.upper).contains(&value), "{value} {score} {band:?}");
        if at == 4 * HOUR && output.labels.get("pod") == Some("pod-3") && output.transform == As::Value {
            odd = isolated;
        }
    }
    assert!(odd > 4.0, "{odd}");
}

#[test]
fn many_senders_and_closings_go_through_lanes_together() {
    const SENDERS: u64 = 4;
    const TURN: i64 = HOUR / 3;
    let run = |lanes: usize, senders: u64| {
        let (engine, kept) = start(vec![lending()], lanes);
        let together = std::sync::Barrier::new(senders as usize);
        let pods = 12 / senders;
        let send = |sender: u64| {
            for turn in 0..12 {
                let fresh = if turn < 8 { 0 } else { 100 };
                let mine = sender * pods + fresh..(sender + 1) * pods + fresh;
                feed(&engine, mine, turn * TURN, (turn + 1) * TURN, &value);
                // No sender is further ahead than samples may be late.
                together.wait();
            }
        };
        std::thread::scope(|scope| {
            for sender in 0..senders {
                let send = &send;
                scope.spawn(move || send(sender));
            }
        });
        assert_eq!((engine.stats().epochs, engine.stats().late), (2, 0));
        digest(&kept)
    };
    let alone = run(0, 1);
    assert!(alone.iter().any(|(labels, ..)| labels.contains("pod-105")));
    assert!(run(2, SENDERS) == alone && run(0, SENDERS) == alone);
}
