//! One table through the live engine.

use super::BacktestError;
use super::csv::Table;
use crate::engine::{Engine, OutputBatch, OutputSink, OutputValue};
use crate::labels::{MatchOp, Matcher, NAME, Selector};
use crate::record::{Body, Record};
use crate::registry::summary::epoch;
use crate::rules::{As, EmitSet, EmitWhen, Identity, Limits, OutputNames, Rule, RuleSet};
use crate::time::{Millis, Span};
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, Sample, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Samples in a body.
const CHUNK: usize = 500;

/// What the engine said of one row; all 0 where it said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the row was scored.
    pub scored: bool,
    /// The score.
    pub score: f64,
    /// What was expected.
    pub expected: f64,
    /// Lower edge of the band; `-inf` without bound, NaN where no band was asked for.
    pub lower: f64,
    /// Upper edge of the band; `inf` without bound, NaN where no band was asked for.
    pub upper: f64,
}

/// A table replayed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// One answer for each row.
    pub answers: Vec<Answer>,
    /// Rows at or before the newest time before them: not sent.
    pub out_of_order: usize,
    /// Rows without a value: not sent.
    pub missing: usize,
    /// Middle interval of the rows sent, ms.
    pub interval: i64,
}

/// The built-in rules: every series of this name, taken as it is.
///
/// # Errors
/// Not a metric name.
pub fn default_rules(metric: &str, bands: bool) -> Result<RuleSet, BacktestError> {
    if metric.is_empty() {
        return Err(BacktestError::Metric(metric.to_string()));
    }
    let name =
        Matcher::new(NAME, MatchOp::Equal, metric).map_err(|_| BacktestError::Metric(metric.to_string()))?;
    let rule = Rule {
        name: "backtest".into(),
        selectors: vec![Selector { matchers: vec![name] }],
        transforms: vec![As::Value],
        params: Default::default(),
        read: Default::default(),
        silence: None,
        identity_without: Vec::new(),
        cohort: Vec::new(),
        emit: EmitSet { score: true, flag: true, bands, detectors: false },
        emit_when: EmitWhen::Always,
        labels: Vec::new(),
        buckets: false,
    };
    Ok(RuleSet {
        rules: vec![Arc::new(rule)],
        identity: Identity::default(),
        limits: Limits::default(),
        forget_after: Span::DAY,
        output_names: OutputNames::Oddity,
    })
}

/// Keeps what the engine says of the one series.
#[derive(Default)]
struct Collector(Mutex<Vec<(Millis, Answer)>>);

impl OutputSink for Collector {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let mut said = self.0.lock();
        for output in &batch.outputs {
            if let OutputValue::Scored { score, expected, band, .. } = output.value {
                let (lower, upper) = band.map_or((f64::NAN, f64::NAN), |band| (band.lower, band.upper));
                said.push((output.at, Answer { scored: true, score, expected, lower, upper }));
            }
        }
    }
}

fn hour(sample: &Sample) -> i64 {
    epoch(Millis(sample.timestamp))
}

/// Replays a table as the series `metric{file="<stem>"}`. With several signals in the rules, a row
/// has the answer of the highest score.
///
/// # Errors
/// The engine refuses a body.
pub fn replay(
    table: &Table,
    metric: &str,
    stem: &str,
    rules: Arc<RuleSet>,
    path: &Path,
) -> Result<Replay, BacktestError> {
    let collector = Arc::new(Collector::default());
    let shares = rules.shares();
    let engine = Engine::new(rules, 0, vec![collector.clone()]);
    let mut result = Replay { answers: vec![Answer::default(); table.rows.len()], ..Default::default() };
    // Rows that are sent: (time, row), times increasing.
    let mut sent: Vec<(i64, usize)> = Vec::with_capacity(table.rows.len());
    let mut samples: Vec<Sample> = Vec::with_capacity(table.rows.len());
    for (row, read) in table.rows.iter().enumerate() {
        match read.value {
            _ if sent.last().is_some_and(|(newest, _)| read.at.0 <= *newest) => result.out_of_order += 1,
            None => result.missing += 1,
            Some(value) => {
                sent.push((read.at.0, row));
                samples.push(Sample { timestamp: read.at.0, value });
            }
        }
    }
    // Models that series share are made by the hour: a body of many hours would come late for its own.
    let hours = samples.chunk_by(|a, b| !shares || hour(a) == hour(b));
    for chunk in hours.flat_map(|hour| hour.chunks(CHUNK)) {
        let mut encoder = Encoder::new(Version::V1);
        encoder.series([(NAME, metric), ("file", stem)].into_iter(), MetricKind::Unknown, chunk);
        // Received at its last sample's time, so that nothing is ahead of its receipt.
        let received = Millis(chunk.last().map_or(0, |sample| sample.timestamp));
        let body = Body { version: Version::V1, received, bytes: Bytes::from(encoder.finish()) };
        engine
            .apply(Record::Body(body))
            .map_err(|source| BacktestError::Engine { path: path.to_path_buf(), source })?;
    }
    let times: Vec<i64> = sent.iter().map(|(at, _)| *at).collect();
    result.interval = super::alarm::usual_interval(&times);
    for (at, answer) in collector.0.lock().drain(..) {
        let place = times.binary_search(&at.0).ok().and_then(|found| sent.get(found));
        if let Some(have) = place.and_then(|(_, row)| result.answers.get_mut(*row))
            && (!have.scored || answer.score > have.score)
        {
            *have = answer;
        }
    }
    Ok(result)
}
