//! From queued outputs to the body of a request.

use super::disk::Stored;
use super::names::{self, Writer};
use super::queue::Item;
use super::relabel::Relabel;
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::frame::compress_snappy;
use crate::wire::{MetricKind, Sample, Version, WireError};
use bytes::Bytes;
use std::ops::Range;

/// Outputs to be sent.
#[derive(Debug)]
pub enum Outputs {
    /// As the engine made them.
    Live(Vec<Item>),
    /// From a block on disk.
    Stored(Box<Stored>),
}

impl Outputs {
    /// Samples they make, before relabelling.
    pub fn samples(&self) -> usize {
        match self {
            Outputs::Live(items) => items.iter().map(|item| item.samples).sum(),
            Outputs::Stored(stored) => stored.len(),
        }
    }

    /// When the newest of them was queued.
    pub fn queued(&self) -> Millis {
        match self {
            Outputs::Live(items) => items.last().map_or(Millis::MIN, |item| item.queued),
            Outputs::Stored(stored) => stored.queued,
        }
    }
}

/// A request's body, kept as it is through all its retries.
#[derive(Clone, Debug)]
pub struct Body {
    /// Compressed bytes.
    pub bytes: Bytes,
    /// Samples in it.
    pub samples: usize,
    /// Samples the outputs make in all, after relabelling: what `range` counts in.
    pub total: usize,
    /// Samples that relabelling dropped.
    pub dropped: usize,
    /// The protocol it is written in.
    pub version: Version,
    /// Times of its samples in their order, each with how many have it one after the other.
    pub times: Vec<(Millis, u32)>,
}

/// Encodes requests, and keeps its memory from one to the next.
#[derive(Debug)]
pub struct Encoding {
    encoders: [Encoder; 2],
    writer: Writer,
    relabelled: Vec<(String, String)>,
    message: Vec<u8>,
}

impl Default for Encoding {
    fn default() -> Self {
        Encoding {
            encoders: [Encoder::new(Version::V1), Encoder::new(Version::V2)],
            writer: Writer::default(),
            relabelled: Vec::new(),
            message: Vec::new(),
        }
    }
}

/// Counts samples, and adds those in the range to a request.
struct Adding<'a> {
    encoder: &'a mut Encoder,
    relabel: &'a Relabel,
    relabelled: &'a mut Vec<(String, String)>,
    range: Range<usize>,
    total: usize,
    dropped: usize,
    times: Vec<(Millis, u32)>,
}

impl Adding<'_> {
    fn add(&mut self, labels: &[(&str, &str)], sample: Sample) {
        if self.relabel.is_empty() {
            if self.range.contains(&self.total) {
                self.encoder.series(labels.iter().copied(), MetricKind::Gauge, &[sample]);
                self.time(sample);
            }
            self.total += 1;
            return;
        }
        self.relabelled.clear();
        self.relabelled.extend(labels.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        if !self.relabel.apply(self.relabelled) {
            self.dropped += 1;
            return;
        }
        if self.range.contains(&self.total) {
            let labels = self.relabelled.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            self.encoder.series(labels, MetricKind::Gauge, &[sample]);
            self.time(sample);
        }
        self.total += 1;
    }

    fn time(&mut self, sample: Sample) {
        match self.times.last_mut() {
            Some((at, samples)) if at.0 == sample.timestamp => *samples += 1,
            _ => self.times.push((Millis(sample.timestamp), 1)),
        }
    }

    fn live(&mut self, items: &[Item], writer: &mut Writer) {
        for item in items {
            for output in &item.batch.outputs {
                if self.relabel.is_empty() {
                    let samples = names::count(output, item.batch.names);
                    if self.total + samples <= self.range.start || self.total >= self.range.end {
                        self.total += samples;
                        continue;
                    }
                }
                let timestamp = output.at.0;
                writer.each(output, item.batch.names, |labels, value| {
                    self.add(labels, Sample { timestamp, value });
                });
            }
        }
    }
}

impl Encoding {
    /// Encodes those samples of the outputs that lie in `range`, in the order of the outputs. The
    /// same arguments give the same bytes.
    ///
    /// # Errors
    /// The body is too large to compress.
    pub fn encode(
        &mut self,
        outputs: &Outputs,
        relabel: &Relabel,
        version: Version,
        range: Range<usize>,
    ) -> Result<Body, WireError> {
        let Encoding { encoders: [v1, v2], writer, relabelled, message } = self;
        let encoder = if version == Version::V1 { v1 } else { v2 };
        let mut adding =
            Adding { encoder, relabel, relabelled, range, total: 0, dropped: 0, times: Vec::new() };
        match outputs {
            Outputs::Live(items) => adding.live(items, writer),
            Outputs::Stored(stored) => stored.each(|labels, sample| adding.add(labels, sample)),
        }
        let Adding { encoder, total, dropped, times, .. } = adding;
        let samples = encoder.samples();
        encoder.finish_into(message);
        let bytes = Bytes::from(compress_snappy(message)?);
        Ok(Body { bytes, samples, total, dropped, version, times })
    }

    /// The samples of these batches as a 2.0 message, not relabelled and not compressed.
    pub fn message(&mut self, items: &[Item]) -> &[u8] {
        let Encoding { encoders: [_, encoder], writer, relabelled, message } = self;
        let relabel = &Relabel::default();
        let range = 0..usize::MAX;
        let mut adding =
            Adding { encoder, relabel, relabelled, range, total: 0, dropped: 0, times: Vec::new() };
        adding.live(items, writer);
        adding.encoder.finish_into(message);
        message
    }
}
