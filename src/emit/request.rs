//! From queued outputs to the body of a request.

use super::disk::Stored;
use super::names::{self, Writer};
use super::plan::Plans;
use super::queue::Item;
use super::relabel::Relabel;
use crate::engine::OutputBatch;
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::frame::Compressor;
use crate::wire::{Sample, Version, WireError};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Outputs to be sent.
#[derive(Debug)]
pub(super) enum Outputs {
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
    compressor: Compressor,
}

impl Default for Encoding {
    fn default() -> Self {
        Encoding {
            encoders: [Encoder::new(Version::V1), Encoder::new(Version::V2)],
            writer: Writer::default(),
            relabelled: Vec::new(),
            message: Vec::new(),
            compressor: Compressor::default(),
        }
    }
}

/// Counts samples, and adds those in the range to a request.
struct Adding<'e, 'l, 'w> {
    plans: Plans<'e, 'l, 'w>,
    relabel: &'w Relabel,
    relabelled: &'w mut Vec<(String, String)>,
    range: Range<usize>,
    total: usize,
    dropped: usize,
    times: Vec<(Millis, u32)>,
}

impl<'e, 'l, 'w> Adding<'e, 'l, 'w> {
    fn new(
        encoder: &'e mut Encoder,
        writer: &'w mut Writer,
        relabelled: &'w mut Vec<(String, String)>,
        relabel: &'w Relabel,
        range: Range<usize>,
    ) -> Self {
        let plans = Plans::new(encoder.request(), writer);
        Adding { plans, relabel, relabelled, range, total: 0, dropped: 0, times: Vec::new() }
    }

    fn add(&mut self, labels: &[(&str, &str)], sample: Sample) {
        if self.relabel.is_empty() {
            if self.range.contains(&self.total) {
                self.plans.series(labels.iter().copied(), sample);
                self.times(Millis(sample.timestamp), 1);
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
            self.plans.series(labels, sample);
            self.times(Millis(sample.timestamp), 1);
        }
        self.total += 1;
    }

    fn times(&mut self, at: Millis, samples: u32) {
        match self.times.last_mut() {
            Some((last, count)) if *last == at => *count += samples,
            _ => self.times.push((at, samples)),
        }
    }

    fn live(&mut self, items: &'l [Item]) {
        let mut writer = Writer::default();
        for Item { batch, .. } in items {
            let names = batch.names();
            if self.relabel.is_empty() {
                self.plans.touch(&batch.outputs);
            }
            for (output, rule) in batch.ruled() {
                if self.relabel.is_empty() {
                    let samples = names::count(output, rule, names);
                    let (start, end) = (self.total, self.total + samples);
                    if end <= self.range.start || start >= self.range.end {
                        self.total = end;
                        continue;
                    }
                    if self.range.start <= start && end <= self.range.end {
                        self.plans.add(output, rule, names);
                        self.times(output.at, samples as u32);
                        self.total = end;
                        continue;
                    }
                }
                let timestamp = output.at.0;
                writer.each(output, rule, names, |labels, value| {
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
    pub(super) fn encode(
        &mut self,
        outputs: &Outputs,
        relabel: &Relabel,
        version: Version,
        range: Range<usize>,
    ) -> Result<Body, WireError> {
        let Encoding { encoders: [v1, v2], writer, relabelled, message, compressor } = self;
        let encoder = if version == Version::V1 { v1 } else { v2 };
        let mut adding = Adding::new(encoder, writer, relabelled, relabel, range);
        match outputs {
            Outputs::Live(items) => adding.live(items),
            Outputs::Stored(stored) => stored.each(|labels, sample| adding.add(labels, sample)),
        }
        let Adding { total, dropped, times, .. } = adding;
        let samples = encoder.samples();
        encoder.finish_into(message);
        // No more than it needs: it may be kept for long.
        let bytes = Bytes::copy_from_slice(compressor.snappy(message)?);
        Ok(Body { bytes, samples, total, dropped, version, times })
    }

    /// The body of a request of all samples of these batches, as it would be sent to a target without
    /// relabelling.
    ///
    /// # Errors
    /// The body is too large to compress.
    pub fn body(&mut self, batches: &[Arc<OutputBatch>], version: Version) -> Result<Body, WireError> {
        let item = |batch: &Arc<OutputBatch>| Item { batch: batch.clone(), samples: 0, queued: Millis::MIN };
        let outputs = Outputs::Live(batches.iter().map(item).collect());
        self.encode(&outputs, &Relabel::default(), version, 0..usize::MAX)
    }

    /// The samples of these batches as a 2.0 message, not relabelled and not compressed.
    pub(super) fn message(&mut self, items: &[Item]) -> &[u8] {
        let Encoding { encoders: [_, encoder], writer, relabelled, message, .. } = self;
        let relabel = &Relabel::default();
        Adding::new(encoder, writer, relabelled, relabel, 0..usize::MAX).live(items);
        encoder.finish_into(message);
        message
    }
}
