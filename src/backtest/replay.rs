//! A history through the live engine.

use super::BacktestError;
use super::answers::{Answers, Collector};
use crate::engine::Engine;
use crate::history::{History, MAX_BODY, WINDOW};
use crate::labels::{MatchOp, Matcher, NAME, Selector};
use crate::record::{Body, Record};
use crate::registry::summary::epoch;
use crate::rules::{As, EmitSet, Rule, RuleSet};
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, Sample, Version};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Samples in a body where there is one series.
const CHUNK: usize = 500;

/// The built-in rules: every series of this name (`None`: of any), taken `as` (`None`: by its type).
///
/// # Errors
/// Not a metric name.
pub fn default_rules(
    metric: Option<&str>,
    transform: Option<As>,
    bands: bool,
) -> Result<RuleSet, BacktestError> {
    let wrong = || BacktestError::Metric(metric.unwrap_or("").to_string());
    if metric == Some("") {
        return Err(wrong());
    }
    let name = match metric {
        Some(metric) => Matcher::new(NAME, MatchOp::Equal, metric),
        None => Matcher::new(NAME, MatchOp::NotEqual, ""),
    };
    let rule = Rule {
        transforms: transform.into_iter().collect(),
        emit: EmitSet { bands, ..EmitSet::default() },
        ..Rule::new("backtest", vec![Selector { matchers: vec![name.map_err(|_| wrong())?] }])
    };
    Ok(RuleSet { rules: vec![Arc::new(rule)], ..RuleSet::default() })
}

/// Rules without bands, which cost most of the time and which only result files hold.
pub fn without_bands(rules: &RuleSet) -> RuleSet {
    let mut rules = RuleSet { source: Arc::default(), ..rules.clone() };
    for rule in &mut rules.rules {
        Arc::make_mut(rule).emit.bands = false;
    }
    rules
}

/// Replays a history as a sidecar would have received it: bodies in order of time over all series.
/// With `lanes` worker threads; with 0 on the caller's. `expected`: keep expected values and bands.
/// `progress` is told of the samples of each body. Gives each series' answers.
///
/// # Errors
/// The engine refuses a body.
pub fn replay(
    history: &Arc<History>,
    rules: Arc<RuleSet>,
    lanes: usize,
    expected: bool,
    progress: &dyn Fn(u64),
) -> Result<Vec<Answers>, BacktestError> {
    let replica = &rules.identity.replica_label;
    let collector = Arc::new(Collector::new(history.clone(), replica, expected));
    // Shared models are made by the hour: a longer body would come late for its own. And silence is told
    // minute by minute only where a body spans few of them.
    let by_hour = rules.shares() || rules.silence_keep().is_some();
    let engine = Engine::new(rules, lanes, vec![collector.clone()]);
    // When each series goes on.
    let mut next: BinaryHeap<Reverse<(i64, usize, usize)>> = history
        .series
        .iter()
        .enumerate()
        .filter_map(|(place, series)| Some(Reverse((series.samples.first()?.timestamp, place, 0))))
        .collect();
    let mut encoder = Encoder::new(Version::V1);
    for (family, kind) in history.kinds.iter().filter(|(_, kind)| *kind != MetricKind::Unknown) {
        encoder.metadata(family, *kind, "", "");
    }
    let alone = history.series.len() == 1;
    while let Some(Reverse((from, ..))) = next.peek().copied() {
        // Received at its last sample's time, so that nothing is ahead of its receipt.
        let mut received = from;
        let mut samples = 0;
        while let Some(Reverse((at, place, first))) = next.peek().copied() {
            if at.saturating_sub(from) >= WINDOW || encoder.len_estimate() > MAX_BODY {
                break;
            }
            next.pop();
            let Some(series) = history.series.get(place) else { continue };
            let rest = series.samples.get(first..).unwrap_or(&[]);
            let count = if alone {
                let hour = epoch(Millis(at));
                let own = |sample: &&Sample| !by_hour || epoch(Millis(sample.timestamp)) == hour;
                rest.iter().take(CHUNK).take_while(own).count()
            } else {
                rest.iter().take_while(|sample| sample.timestamp.saturating_sub(from) < WINDOW).count()
            };
            let (now, later) = rest.split_at(count);
            encoder.series(series.pairs(), MetricKind::Unknown, now);
            received = received.max(now.last().map_or(from, |sample| sample.timestamp));
            samples += count;
            if let Some(sample) = later.first() {
                next.push(Reverse((sample.timestamp, place, first + count)));
            }
            if alone {
                break;
            }
        }
        let bytes = Bytes::from(encoder.finish());
        let body = Body::new(Version::V1, Millis(received), bytes);
        engine.apply(Record::Body(body)).map_err(BacktestError::Engine)?;
        progress(samples as u64);
    }
    Ok(collector.take_answers())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series of unlike intervals, a counter among them, with gaps and values that are no numbers.
    fn history() -> History {
        let mut history = History::default();
        for k in 0..12i64 {
            let name = if k % 3 == 0 { "work_total" } else { "level" };
            let labels = [("__name__", name), ("n", &k.to_string())];
            let place = history.place(&mut labels.to_vec()).expect("valid");
            for i in 0..400i64 {
                let at = 1_700_000_000_000
                    + k * 777
                    + i * (5_000 + 4_000 * k)
                    + if i > 300 { 90_000_000 } else { 0 };
                let odd = if i % 97 == 96 { 60.0 } else { 0.0 };
                let wave = ((i * 7919 + k * 31) % 11) as f64 + odd;
                let value = match (k % 3, i) {
                    (_, 200) => f64::NAN,
                    (0, i) => 20.0 * i as f64 + wave,
                    _ => wave,
                };
                history.push(place, Sample { timestamp: at, value });
            }
        }
        history.kinds = vec![("level".into(), MetricKind::Gauge)];
        history.finish();
        history
    }

    fn bits(answers: &[Answers]) -> Vec<(Vec<u64>, Vec<u16>)> {
        let bits = |scores: &[f64]| scores.iter().map(|score| score.to_bits()).collect();
        answers.iter().map(|one| (bits(&one.scores), one.marks.clone())).collect()
    }

    #[test]
    fn scores_are_those_of_each_series_alone_whatever_the_threads() {
        let history = Arc::new(history());
        let rules = Arc::new(default_rules(None, None, false).expect("valid"));
        let told = std::cell::Cell::new(0);
        let count = |samples| told.set(told.get() + samples);
        let together = bits(&replay(&history, rules.clone(), 0, false, &count).expect("replays"));
        assert_eq!(told.get(), history.samples() as u64);
        let lanes = replay(&history, rules.clone(), 3, true, &|_| ()).expect("replays");
        assert!(bits(&lanes) == together);
        for (place, series) in history.series.iter().enumerate() {
            let mut one = History::default();
            one.kinds = history.kinds.clone();
            let at = one.place(&mut series.pairs().collect()).expect("valid");
            series.samples.iter().for_each(|sample| one.push(at, *sample));
            one.finish();
            let alone = replay(&Arc::new(one), rules.clone(), 0, false, &|_| ()).expect("replays");
            assert!(bits(&alone)[0] == together[place], "{place}");
        }
        // Warm-up, NaN and the samples after a gap of more than a day are not scored.
        let marks = &together[1].1;
        assert!(marks[58] == 0 && marks[59] != 0 && marks[200] == 0 && marks[301] == 0 && marks[399] != 0);
        assert!(lanes.iter().any(|one| !one.flagged.is_empty()));
    }

    /// Alone, a series comes in long bodies, beside others in those of a minute.
    #[test]
    fn silence_is_the_same_in_long_bodies() {
        let mut rules = default_rules(Some("level"), None, false).expect("valid");
        for rule in &mut rules.rules {
            Arc::make_mut(rule).silence = Some(crate::rules::Silence { after: crate::time::Span::MINUTE });
        }
        let rules = Arc::new(rules);
        let answers = |series: &[&[(&str, &str)]]| {
            let mut history = History::default();
            for labels in series {
                let place = history.place(&mut labels.to_vec()).expect("valid");
                let mut at = 1_700_000_000_000;
                for i in 0..1_000i64 {
                    // Now and then it is due and back before that is decided.
                    at += if i % 70 == 69 { 95_000 } else { 30_000 };
                    history.push(place, Sample { timestamp: at, value: (i * 7919 % 11) as f64 });
                }
            }
            history.finish();
            bits(&replay(&Arc::new(history), rules.clone(), 0, false, &|_| ()).expect("replays"))
        };
        let level = [("__name__", "level")];
        let alone = answers(&[&level]);
        let beside = answers(&[&level, &[("__name__", "other"), ("cluster", "x")]]);
        assert!(alone[0] == beside[0]);
        let withheld = alone[0].1.iter().skip(60).filter(|marks| **marks == 0).count();
        assert!((1..100).contains(&withheld), "{withheld} samples withheld");
    }

    #[test]
    fn emitting_less_hides_nothing() {
        let history = Arc::new(history());
        let rules = default_rules(None, None, true).expect("valid");
        let all = replay(&history, Arc::new(rules.clone()), 0, false, &|_| ()).expect("replays");
        let mut quiet = without_bands(&rules);
        for rule in &mut quiet.rules {
            Arc::make_mut(rule).emit_when = crate::rules::EmitWhen::Anomalous;
        }
        let quiet = replay(&history, Arc::new(quiet), 0, false, &|_| ()).expect("replays");
        assert!(bits(&quiet) == bits(&all));
    }
}
