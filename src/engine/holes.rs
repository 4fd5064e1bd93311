//! Healthy series whose samples are missing for a while: no alarm when they come back.

use super::testing::{rule, rules};
use super::{Engine, OutputBatch, OutputSink, OutputValue};
use crate::record::{Body, Record};
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, Sample, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

const STEP: i64 = 60_000;
const DAY: i64 = 1_440;
const EACH: u64 = 16;

/// Scores as (step, score) of each series.
#[derive(Default)]
struct Scores(Mutex<BTreeMap<String, Vec<(i64, f64)>>>);

impl OutputSink for Scores {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let mut all = self.0.lock();
        for output in &batch.outputs {
            let name = output.labels.pairs().map(|pair| pair.value()).collect::<Vec<_>>().join("/");
            if let OutputValue::Scored { score, .. } = output.value {
                all.entry(name).or_default().push((output.at.0 / STEP, score));
            }
        }
    }
}

/// Standard normal noise of one series at one step.
fn gauss(series: u64, step: i64) -> f64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let key = mix(mix(series.wrapping_add(77)).wrapping_add(step as u64));
    let unit = |x: u64| ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    (-2.0 * unit(mix(key ^ 1)).ln()).sqrt() * (std::f64::consts::TAU * unit(mix(key ^ 2))).cos()
}

#[test]
fn a_hole_in_healthy_series_raises_no_alarm() {
    let scores = Arc::new(Scores::default());
    let rule = rule("r", "level|work_total|day", Vec::new());
    let engine = Engine::new(Arc::new(rules(vec![rule])), 0, vec![scores.clone()]);
    // Ten minutes and two hours, at several times of the day, and enough time between them.
    let holes: [(i64, i64); 4] =
        [(4 * DAY + 300, 10), (5 * DAY + 700, 120), (6 * DAY + 1_000, 10), (7 * DAY + 100, 120)];
    let mut work = vec![0.0; EACH as usize];
    for step in 0..8 * DAY {
        let sun = (std::f64::consts::TAU * (step % DAY) as f64 / DAY as f64).sin();
        let mut encoder = Encoder::new(Version::V1);
        let missing = holes.iter().any(|(from, length)| (*from..from + length).contains(&step));
        for n in 0..EACH {
            work[n as usize] += 60.0 * (100.0 + 20.0 * sun + 5.0 * gauss(1_000 + n, step)).max(0.0);
            let values = [
                ("level", 50.0 + (n % 7) as f64 + (1 + n % 5) as f64 * gauss(n, step)),
                ("work_total", work[n as usize]),
                ("day", 500.0 + 100.0 * sun + 8.0 * gauss(2_000 + n, step)),
            ];
            for (name, value) in values {
                let n = n.to_string();
                let labels = [("__name__", name), ("n", n.as_str())];
                let sample = Sample { timestamp: step * STEP, value };
                encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
            }
        }
        if !missing {
            let received = Millis(step * STEP);
            let body = Body::new(Version::V1, received, Bytes::from(encoder.finish()));
            engine.apply(Record::Body(body)).expect("sound");
        }
    }
    let scores = scores.0.lock().clone();
    assert_eq!(scores.len(), 3 * EACH as usize);
    let mut after: Vec<(&str, i64, f64)> = Vec::new();
    for (from, length) in holes {
        let back = from + length..from + length + 60;
        for (name, all) in scores.iter() {
            let near: Vec<_> = all.iter().filter(|(step, _)| back.contains(step)).collect();
            assert!(near.len() >= 59, "{name} is scored from its first or second sample on: {}", near.len());
            after.extend(
                near.iter()
                    .filter(|(_, score)| *score >= 1.0)
                    .map(|(step, score)| (name.as_str(), *step, *score)),
            );
        }
    }
    assert_eq!(after, [], "alarms within an hour of a hole");
    // What is really odd after a hole is still seen.
    let mut encoder = Encoder::new(Version::V1);
    let at = 8 * DAY * STEP + 10 * STEP;
    let labels = [("__name__", "level"), ("n", "0")];
    encoder.series(labels.into_iter(), MetricKind::Unknown, &[Sample { timestamp: at, value: 90.0 }]);
    let body = Body::new(Version::V1, Millis(at), Bytes::from(encoder.finish()));
    assert_eq!(engine.apply(Record::Body(body)).expect("sound").flagged, 1);
}
