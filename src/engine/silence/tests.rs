//! Silence as the engine's callers see it.

mod bits;
mod targets;
mod told;

use super::*;
use crate::engine::testing::{rule, rules};
use crate::engine::{Applied, Engine, OutputBatch, OutputSink};
use crate::record::{Body, Record};
use crate::rules::{As, EmitWhen, Windows, window};
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, STALE_BITS, Sample, Version};
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
struct Kept(Mutex<Vec<Output>>);

impl OutputSink for Kept {
    fn take(&self, batch: &Arc<OutputBatch>) {
        self.0.lock().extend(batch.outputs.iter().cloned());
    }
}

/// Name, instance, time in seconds, value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row(&'static str, &'static str, i64, f64);

const STALE: f64 = f64::from_bits(STALE_BITS);

fn body(rows: &[Row]) -> Record {
    let mut encoder = Encoder::new(Version::V2);
    for Row(name, instance, seconds, value) in rows {
        let labels = [("__name__", *name), ("instance", *instance), ("job", "j")];
        let sample = Sample { timestamp: seconds * 1000, value: *value };
        encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
    }
    let received = Millis(rows.iter().map(|row| row.2).max().unwrap_or(0) * 1000);
    Record::Body(Body::new(Version::V2, received, encoder.finish().into()))
}

fn silent() -> Rule {
    let mut rule = rule("r", "m.*", vec![As::Value]);
    rule.silence = Some(Silence { after: Span::minutes(5) });
    rule
}

struct Run {
    engine: Engine,
    kept: Arc<Kept>,
}

impl Run {
    fn new(rule: Rule, lanes: usize) -> Run {
        let kept = Arc::new(Kept::default());
        let sinks: Vec<Arc<dyn OutputSink>> = vec![kept.clone()];
        Run { engine: Engine::new(Arc::new(rules(vec![rule])), lanes, sinks), kept }
    }

    fn send(&self, rows: &[Row]) -> Applied {
        self.engine.apply(body(rows)).expect("a good body")
    }

    /// What was said of a series: time in seconds, and what; in the order in which it was said.
    fn said(&self, instance: &str) -> Vec<(i64, &'static str)> {
        let kept = self.kept.0.lock();
        let ours = kept.iter().filter(|output| output.labels.get("instance") == Some(instance));
        let said = |output: &Output| match output.value {
            OutputValue::Scored { .. } => "score",
            OutputValue::Silent { .. } => "silent",
            OutputValue::Stale => "stale",
        };
        ours.map(|output| (output.at.0 / 1000, said(output))).collect()
    }

    fn silences(&self, instance: &str) -> Vec<i64> {
        self.said(instance).into_iter().filter(|(_, what)| *what == "silent").map(|(at, _)| at).collect()
    }
}

/// Samples of `m` each 15 s, from step 0 on, and of `up` where asked.
fn scrapes(instance: &'static str, steps: std::ops::Range<i64>, up: bool) -> Vec<Row> {
    let one = |step: i64| {
        let value = 100.0 + f64::from((step * 7919 % 13) as i32);
        let m = Row("m", instance, step * 15, value);
        [Some(m), up.then_some(Row("up", instance, step * 15, 1.0))].into_iter().flatten()
    };
    steps.flat_map(one).collect()
}

fn ups(instance: &'static str, steps: std::ops::Range<i64>) -> Vec<Row> {
    steps.map(|step| Row("up", instance, step * 15, 1.0)).collect()
}

fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.2);
    rows
}

/// The last sample of a hundred is at 1,485 s; `b` goes on.
fn with_b(rest: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let mut rows = scrapes("b", 0..600, false);
    rows.extend(rest);
    in_order(rows)
}
