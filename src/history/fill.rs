//! Filling a gap: what a source group's senders skipped is read by remote read and given to the engine
//! as the bodies it would have been, in order of time.
//!
//! Only series that are kept already are filled: what senders drop or rename on their way must not
//! come in by another. The replica label of HA pairs is dropped, so that it does not matter which
//! replica was read. Sources are asked in their order; of each series the first that has it counts.

use super::remote_read::{Found, ReadFailure, Source};
use super::{MAX_BODY, WINDOW};
use crate::engine::{ApplyError, Engine};
use crate::labels::{MatchOp, Matcher, NAME, Selector, SeriesId, canonicalise, series_id, value_of};
use crate::record::{Body, Record};
use crate::rules::RuleSet;
use crate::time::{Millis, Span};
use crate::wire::encode::Encoder;
use crate::wire::{Histogram, MetricKind, Sample, Version};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Samples held at a time (16 bytes each; histograms count as many as they have buckets).
const MAX_HELD: usize = 4_000_000;
/// Series remembered as not kept here.
const MAX_STRANGERS: usize = 1 << 20;
/// A page grows while it holds fewer.
const SMALL_PAGE: usize = 250_000;
/// First page.
const PAGE: Span = Span::minutes(5);
const LARGEST_PAGE: Span = Span::hours(2);
/// No more than this is read; what is older matters little to a model.
pub const LONGEST: Span = Span::DAY;
/// Reading begins this much before the gap: shards of a sender are not all equally far. What was seen
/// already is dropped by its time.
const MARGIN: Span = Span::minutes(2);

/// What is missing: samples of a source group after `from` and before `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Value of the cluster label; empty where there is none.
    pub group: String,
    /// Newest sample seen before.
    pub from: Millis,
    /// First sample after.
    pub to: Millis,
}

/// What was filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Samples and histograms read of series that are kept.
    pub read: u64,
    /// Of those, the ones that had not been seen.
    pub new: u64,
    /// Series that had any, in the page that had most.
    pub series: u64,
    /// Series read that are not kept here, in the page that had most.
    pub strangers: u64,
    /// Everything before this time was asked for and answered.
    pub through: Millis,
}

/// Fills a gap. `go_on` is asked before each body; when it says no, or at `until`, filling ends early.
/// Blocks while the engine works. Gives what was done and, where not all was, the first reason.
pub async fn fill(
    sources: &[Source],
    engine: &Engine,
    gap: &Gap,
    until: Instant,
    received: Millis,
    go_on: &(dyn Fn() -> bool + Sync),
) -> (Filled, Option<FillError>) {
    let rules = engine.rules();
    let mut work = Work { engine, rules: &rules, gap, received, go_on, done: Filled::default() };
    let selectors = selectors(&rules, &gap.group);
    let mut from = gap.from.plus(-MARGIN.0).max(gap.to.plus(-LONGEST.0));
    work.done.through = from;
    let end = gap.to.plus(-1);
    let mut page = PAGE.0;
    let mut failed: Vec<Option<ReadFailure>> = sources.iter().map(|_| None).collect();
    while from <= end && failed.iter().any(Option::is_none) {
        let to = from.plus(page - 1).min(end);
        let mut rows = Page::default();
        let mut smaller = false;
        for (at, source) in sources.iter().enumerate() {
            if !go_on() || Instant::now() >= until {
                return (work.done, Some(FillError::Late));
            }
            if failed[at].is_some() {
                continue;
            }
            rows.source = at;
            let mut take = |found: Found<'_>| rows.take(&work, found);
            match source.read(&selectors, (from.0, to.0), until, &mut take).await {
                Ok(()) => {}
                Err(error) if error.too_much() && page > WINDOW => smaller = true,
                Err(error) => {
                    tracing::warn!(source = source.name(), %error, "remote read failed");
                    failed[at] = Some(error);
                }
            }
            if smaller {
                break;
            }
        }
        if smaller {
            page = (page / 2).max(WINDOW);
            continue;
        }
        let held = rows.held;
        if let Err(error) = work.give(rows, (from, to)) {
            return (work.done, Some(error));
        }
        from = to.plus(1);
        if failed.iter().all(Option::is_none) {
            work.done.through = from;
        }
        if held < SMALL_PAGE {
            page = (page * 2).min(LARGEST_PAGE.0);
        }
    }
    let first = failed.into_iter().zip(sources).find_map(|(error, source)| Some((error?, source)));
    (work.done, first.map(|(error, source)| FillError::Source(source.name().to_string(), error)))
}

/// Why not all was filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A source failed.
    #[error("{0}: {1}")]
    Source(String, ReadFailure),
    /// The time for it was over.
    #[error("the time for it was over")]
    Late,
    /// The engine did not take it, as when the disk is full.
    #[error("the engine refuses it: {0}")]
    Refused(ApplyError),
}

/// The selectors of the rules, of one group's series only; and `up` where a rule asks for silence.
fn selectors(rules: &RuleSet, group: &str) -> Vec<Selector> {
    let mut all: Vec<Selector> = rules.rules.iter().flat_map(|rule| rule.selectors.clone()).collect();
    let equal = |name: &str, value: &str| Matcher::new(name, MatchOp::Equal, value).ok();
    if rules.silence_keep().is_some() {
        all.extend(equal(NAME, "up").map(|up| Selector { matchers: vec![up] }));
    }
    // A server whose own external label this is takes the matcher as fulfilled.
    if let Some(matcher) = equal(&rules.identity.cluster_label, group).filter(|_| !group.is_empty()) {
        all.iter_mut().for_each(|selector| selector.matchers.push(matcher.clone()));
    }
    all
}

struct Work<'w> {
    engine: &'w Engine,
    rules: &'w Arc<RuleSet>,
    gap: &'w Gap,
    received: Millis,
    go_on: &'w (dyn Fn() -> bool + Sync),
    done: Filled,
}

impl Work<'_> {
    /// Whether a series is to be filled.
    fn wants(&self, labels: &[(&str, &str)]) -> bool {
        let watched = value_of(labels, NAME) == Some("up") && self.rules.silence_keep().is_some();
        self.engine.knows(labels, &self.rules.identity)
            || watched && self.rules.select(|name| value_of(labels, name)).is_none()
    }

    /// Gives a page to the engine, minute by minute.
    fn give(&mut self, mut page: Page, (from, to): (Millis, Millis)) -> Result<(), FillError> {
        page.finish();
        self.done.series = self.done.series.max(page.rows.len() as u64);
        self.done.strangers = self.done.strangers.max(page.strangers.len() as u64);
        let mut encoder = Encoder::new(Version::V1);
        let mut start = from;
        while start <= to && !page.rows.is_empty() {
            let end = start.plus(WINDOW);
            for row in &mut page.rows {
                let labels = || row.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let floats = row.samples.get(row.next.0..).unwrap_or(&[]);
                let floats = &floats[..floats.partition_point(|sample| sample.timestamp < end.0)];
                let native = row.histograms.get(row.next.1..).unwrap_or(&[]);
                let native = &native[..native.partition_point(|(at, _)| *at < end.0)];
                if !floats.is_empty() {
                    encoder.series(labels(), MetricKind::Unknown, floats);
                }
                if !native.is_empty() {
                    encoder.histogram_series(labels(), MetricKind::Unknown, native);
                }
                row.next = (row.next.0 + floats.len(), row.next.1 + native.len());
                if encoder.len_estimate() > MAX_BODY {
                    self.apply(&mut encoder)?;
                }
            }
            self.apply(&mut encoder)?;
            start = end;
        }
        Ok(())
    }

    fn apply(&mut self, encoder: &mut Encoder) -> Result<(), FillError> {
        if encoder.samples() == 0 {
            return Ok(());
        }
        if !(self.go_on)() {
            return Err(FillError::Late);
        }
        let bytes = Bytes::from(encoder.finish());
        let body = Body::new(Version::V1, self.received, bytes);
        let applied = self.engine.apply(Record::Body(body)).map_err(FillError::Refused)?;
        let samples = applied.samples + applied.histograms;
        let known: u64 = ["duplicate", "out_of_order", "unmatched"]
            .iter()
            .filter_map(|why| applied.handled.get(why))
            .sum();
        self.done.read += samples;
        self.done.new += samples.saturating_sub(known);
        Ok(())
    }
}

#[derive(Debug)]
struct Row {
    labels: Vec<(String, String)>,
    source: usize,
    samples: Vec<Sample>,
    histograms: Vec<(i64, Histogram)>,
    /// How many of each were given on.
    next: (usize, usize),
}

/// What was read of one stretch of time.
#[derive(Debug, Default)]
struct Page {
    rows: Vec<Row>,
    index: HashMap<SeriesId, usize>,
    strangers: HashSet<SeriesId>,
    source: usize,
    held: usize,
}

impl Page {
    fn take(&mut self, work: &Work<'_>, found: Found<'_>) -> Result<(), ReadFailure> {
        let identity = &work.rules.identity;
        if found.samples.is_empty() && found.histograms.is_empty() {
            return Ok(());
        }
        let group = value_of(found.labels, &identity.cluster_label).unwrap_or_default();
        let mut labels: Vec<(&str, &str)> =
            found.labels.iter().filter(|(name, _)| *name != identity.replica_label).copied().collect();
        if group != work.gap.group || canonicalise(&mut labels, work.rules.limits.labels).is_err() {
            return Ok(());
        }
        let id = series_id(&labels);
        let at = match self.index.get(&id) {
            Some(at) => *at,
            None if self.strangers.contains(&id) => return Ok(()),
            None if !work.wants(&labels) => {
                if self.strangers.len() < MAX_STRANGERS {
                    self.strangers.insert(id);
                }
                return Ok(());
            }
            None => {
                let labels =
                    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
                let (samples, histograms) = (Vec::new(), Vec::new());
                self.rows.push(Row { labels, source: self.source, samples, histograms, next: (0, 0) });
                self.index.insert(id, self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        let Some(row) = self.rows.get_mut(at).filter(|row| row.source == self.source) else { return Ok(()) };
        row.samples.extend_from_slice(found.samples);
        row.histograms.extend_from_slice(found.histograms);
        let buckets =
            |(_, histogram): &(i64, Histogram)| 8 + histogram.positive.len() + histogram.negative.len();
        self.held += found.samples.len() + found.histograms.iter().map(buckets).sum::<usize>();
        if self.held > MAX_HELD { Err(ReadFailure::TooMany(MAX_HELD)) } else { Ok(()) }
    }

    /// Brings samples in order of time, each once: chunks overlap, and selectors too.
    fn finish(&mut self) {
        for row in &mut self.rows {
            if !row.samples.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
                row.samples.sort_by_key(|sample| sample.timestamp);
                row.samples.dedup_by_key(|sample| sample.timestamp);
            }
            if !row.histograms.is_sorted_by(|a, b| a.0 < b.0) {
                row.histograms.sort_by_key(|(at, _)| *at);
                row.histograms.dedup_by_key(|(at, _)| *at);
            }
        }
    }
}

/// How long a gap is.
pub fn length(gap: &Gap) -> Duration {
    Span(gap.to.since(gap.from)).as_std()
}

#[cfg(test)]
mod tests;
