//! The first hour of a pod that comes with a rollout, with and without a cohort to borrow from.

use crate::Options;
use crate::random::Random;
use bytes::Bytes;
use oddity::engine::{Engine, OutputBatch, OutputSink, OutputValue};
use oddity::record::{Body, Record};
use oddity::rules::RuleSet;
use oddity::time::Millis;
use oddity::wire::encode::Encoder;
use oddity::wire::{MetricKind, Sample, Version};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// When the first pods start, ms; a full hour.
const START: i64 = 1_704_067_200_000;
const HOUR: i64 = 3_600_000;
/// When the rollout is, ms after the start: what was learnt is lent two hours later.
const ROLLOUT: i64 = 6 * HOUR + 600_000;

/// A workload's signal: its value for (pod, its noise), healthy and broken.
struct Signal {
    name: &'static str,
    healthy: fn(f64, &mut Random) -> f64,
    broken: fn(f64, &mut Random) -> f64,
}

const SIGNALS: [Signal; 4] = [
    Signal {
        name: "gauss, 12 widths high",
        healthy: |_, r| 100.0 + r.normal(),
        broken: |_, r| 112.0 + r.normal(),
    },
    Signal {
        name: "own levels, 15 spreads high",
        healthy: |own, r| 100.0 + 3.0 * own + r.normal(),
        broken: |_, r| 145.0 + r.normal(),
    },
    Signal {
        name: "skewed, ten times",
        healthy: |_, r| (0.5 * r.normal()).exp(),
        broken: |_, r| 10.0 * (0.5 * r.normal()).exp(),
    },
    Signal {
        name: "few errors, then many",
        healthy: |_, r| r.poisson(1.5) / 15.0,
        broken: |_, r| r.poisson(12.0) / 15.0,
    },
];

/// Counts of the first scores and flags by pod.
#[derive(Default)]
struct First {
    scored: HashMap<String, i64>,
    flagged: HashMap<String, i64>,
    alarms: HashMap<String, (u32, i64)>,
}

#[derive(Default)]
struct Sink(Mutex<First>);

impl OutputSink for Sink {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let Ok(mut first) = self.0.lock() else { return };
        for output in &batch.outputs {
            let OutputValue::Scored { score, .. } = output.value else { continue };
            let pod = output.labels.get("pod").unwrap_or("").to_string();
            first.scored.entry(pod.clone()).or_insert(output.at.0);
            if score >= 1.0 {
                first.flagged.entry(pod.clone()).or_insert(output.at.0);
                let alarm = first.alarms.entry(pod).or_insert((0, i64::MIN));
                alarm.0 += u32::from(output.at.0.saturating_sub(alarm.1) > 300_000);
                alarm.1 = output.at.0;
            }
        }
    }
}

/// Prints the table.
pub fn print(options: &Options) {
    let Options { series, interval, seed, .. } = options;
    println!(
        "first hour after a rollout of {series} healthy and {series} broken pods; seed {seed}, {interval} s"
    );
    println!(
        "{:<30} {:<22} {:>12} {:>16} {:>8} {:>14}",
        "signal", "rule", "first score", "alarms a healthy", "recall", "median delay"
    );
    for signal in &SIGNALS {
        for (rule, lines) in [
            ("alone", ""),
            ("cohort: [metric]", ", cohort: [metric]"),
            ("identity_without: [pod]", ", identity_without: [pod]"),
        ] {
            match one(options, signal, lines) {
                Ok(line) => println!("{:<30} {rule:<22} {line}", signal.name),
                Err(error) => println!("{:<30} {rule:<22} {error}", signal.name),
            }
        }
    }
}

fn one(options: &Options, signal: &Signal, lines: &str) -> Result<String, String> {
    let text = format!("rules: [{{name: bench, match: m, as: value{lines}}}]");
    let (rules, _) = RuleSet::parse("bench", &text).map_err(|problems| problems.to_string())?;
    let sink = Arc::new(Sink::default());
    let engine = Engine::new(Arc::new(rules), 0, vec![sink.clone()]);
    let count = options.series as u64;
    // Old pods, then healthy and broken new ones.
    let mut pods: Vec<(String, Random, f64)> = (0..3 * count)
        .map(|pod| {
            let mut random = Random::new(options.seed, 1_000_000 + pod);
            let own = random.normal();
            (format!("pod-{pod}"), random, own)
        })
        .collect();
    let mut encoder = Encoder::new(Version::V1);
    let mut at = 0;
    while at < ROLLOUT + HOUR {
        let old = at < ROLLOUT;
        for (number, (pod, random, own)) in pods.iter_mut().enumerate() {
            let number = number as u64;
            if (number < count) != old {
                continue;
            }
            let value = if number < 2 * count {
                (signal.healthy)(*own, random)
            } else {
                (signal.broken)(*own, random)
            };
            let labels = [("__name__", "m"), ("job", "api"), ("pod", pod.as_str())];
            let sample = Sample { timestamp: START + at, value };
            encoder.series(labels.into_iter(), MetricKind::Gauge, &[sample]);
        }
        let body = Body::new(Version::V1, Millis(START + at), Bytes::from(encoder.finish()));
        engine.apply(Record::Body(body)).map_err(|error| error.to_string())?;
        at += options.interval * 1000;
    }
    let first = sink.0.lock().map_err(|_| "poisoned")?;
    let after = |times: &HashMap<String, i64>, range: std::ops::Range<u64>| -> Vec<i64> {
        let mut delays: Vec<i64> = range
            .filter_map(|pod| times.get(&format!("pod-{pod}")))
            .map(|t| (t - START - ROLLOUT) / 1000)
            .collect();
        delays.sort_unstable();
        delays
    };
    let median = |delays: &[i64]| delays.get(delays.len() / 2).map_or("-".to_string(), |s| format!("{s} s"));
    let healthy: u32 =
        (count..2 * count).filter_map(|pod| first.alarms.get(&format!("pod-{pod}"))).map(|a| a.0).sum();
    let found = after(&first.flagged, 2 * count..3 * count);
    Ok(format!(
        "{:>12} {:>16.2} {:>7.0}% {:>14}",
        median(&after(&first.scored, count..3 * count)),
        f64::from(healthy) / count as f64,
        100.0 * found.len() as f64 / count as f64,
        median(&found),
    ))
}
