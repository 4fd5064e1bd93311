//! History: samples of the past, out of a file or from a Prometheus over HTTP.

pub mod client;
pub mod fill;
#[cfg(test)]
pub(crate) mod mock;
pub mod openmetrics;
pub mod prometheus;
pub mod remote_read;

pub use client::{Client, ClientError};
pub use prometheus::{Fetched, Query};
pub use remote_read::{ReadFailure, RemoteReadConfig, Source};

use crate::labels::{LabelError, LabelLimits, SeriesId, canonicalise, series_id};
use crate::wire::{MetricKind, Sample};
use std::collections::HashMap;
use std::path::PathBuf;

/// Time that a body of replayed samples covers at most, in milliseconds: observed time advances by no
/// more for one body.
pub const WINDOW: i64 = 60_000;
/// Bytes after which a body of replayed samples is sent and the next one begun.
pub const MAX_BODY: usize = 4 << 20;

/// Why a history cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line of a file cannot be used.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A Prometheus did not give it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A result that cannot be a series.
    #[error("the query gives a series that cannot be one: {0}")]
    Series(LabelError),
    /// A time range that holds nothing.
    #[error("{0}")]
    Range(String),
}

/// A series and its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Canonical labels: sorted, no empty values.
    pub labels: Vec<(String, String)>,
    /// Of these labels.
    pub id: SeriesId,
    /// In increasing order of time, once [`History::finish`] was called.
    pub samples: Vec<Sample>,
}

impl Series {
    /// Names and values in canonical order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Many series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The series in the order in which they were first seen.
    pub series: Vec<Series>,
    /// Types of metric families, where they were said.
    pub kinds: Vec<(String, MetricKind)>,
    /// Native histograms that were left out: only floats are read.
    pub histograms: u64,
    index: HashMap<SeriesId, usize>,
}

impl History {
    /// The place of the series with these labels, which are brought to canonical order.
    ///
    /// # Errors
    /// Labels that name no series.
    pub fn place<'a>(&mut self, labels: &mut Vec<(&'a str, &'a str)>) -> Result<usize, LabelError> {
        canonicalise(labels, LabelLimits::default())?;
        let id = series_id(labels);
        let next = self.series.len();
        let place = *self.index.entry(id).or_insert(next);
        if place == next {
            let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            self.series.push(Series { labels, id, samples: Vec::new() });
        }
        Ok(place)
    }

    /// Adds a sample to the series at a place.
    pub fn push(&mut self, place: usize, sample: Sample) {
        if let Some(series) = self.series.get_mut(place) {
            series.samples.push(sample);
        }
    }

    /// Brings each series' samples in order; of two at one time the first one stays. Series without
    /// a sample are left out.
    pub fn finish(&mut self) {
        for series in &mut self.series {
            if !series.samples.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
                series.samples.sort_by_key(|sample| sample.timestamp);
                series.samples.dedup_by_key(|sample| sample.timestamp);
            }
            series.samples.shrink_to_fit();
        }
        self.series.retain(|series| !series.samples.is_empty());
        self.index = self.series.iter().enumerate().map(|(place, series)| (series.id, place)).collect();
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    /// The place of a series by its id.
    pub fn find(&self, id: SeriesId) -> Option<usize> {
        self.index.get(&id).copied()
    }
}

/// A metric's type by its name in OpenMetrics and in Prometheus's API.
fn kind(name: &str) -> MetricKind {
    match name {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_order_and_once_however_they_were_added() {
        let mut history = History::default();
        let place = history.place(&mut vec![("job", "a"), ("__name__", "up"), ("gone", "")]).expect("valid");
        assert_eq!(history.place(&mut vec![("__name__", "up"), ("job", "a")]), Ok(place));
        let empty = history.place(&mut vec![("__name__", "down")]).expect("valid");
        assert_ne!(empty, place);
        for (timestamp, value) in [(20, 2.0), (10, 1.0), (20, 3.0), (30, 4.0)] {
            history.push(place, Sample { timestamp, value });
        }
        history.finish();
        assert_eq!((history.series.len(), history.samples()), (1, 3));
        let got: Vec<_> = history.series[0].samples.iter().map(|s| (s.timestamp, s.value)).collect();
        assert_eq!(got, [(10, 1.0), (20, 2.0), (30, 4.0)]);
        assert_eq!(history.find(history.series[0].id), Some(0));
        assert!(history.place(&mut vec![("job", "a")]).is_err());
    }
}
