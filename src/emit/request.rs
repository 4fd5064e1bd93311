//! From queued outputs to the body of a request.

use super::names::Writer;
use super::queue::Item;
use super::relabel::Relabel;
use crate::wire::encode::Encoder;
use crate::wire::frame::compress_snappy;
use crate::wire::{MetricKind, Sample, Version, WireError};
use bytes::Bytes;
use std::ops::Range;

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

impl Encoding {
    /// Encodes those samples of the outputs that lie in `range`, in the order of the outputs. The
    /// same arguments give the same bytes.
    ///
    /// # Errors
    /// The body is too large to compress.
    pub fn encode(
        &mut self,
        items: &[Item],
        relabel: &Relabel,
        version: Version,
        range: Range<usize>,
    ) -> Result<Body, WireError> {
        let Encoding { encoders: [v1, v2], writer, relabelled, message } = self;
        let encoder = if version == Version::V1 { v1 } else { v2 };
        let (mut total, mut dropped) = (0, 0);
        for item in items {
            for output in item.batch.outputs.get(item.start..item.end).unwrap_or(&[]) {
                let timestamp = output.at.0;
                writer.each(output, item.batch.names, |labels, value| {
                    let sample = [Sample { timestamp, value }];
                    if relabel.is_empty() {
                        if range.contains(&total) {
                            encoder.series(labels.iter().copied(), MetricKind::Gauge, &sample);
                        }
                        total += 1;
                        return;
                    }
                    relabelled.clear();
                    relabelled
                        .extend(labels.iter().map(|(name, value)| (name.to_string(), value.to_string())));
                    if !relabel.apply(relabelled) {
                        dropped += 1;
                        return;
                    }
                    if range.contains(&total) {
                        let labels = relabelled.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                        encoder.series(labels, MetricKind::Gauge, &sample);
                    }
                    total += 1;
                });
            }
        }
        let samples = encoder.samples();
        encoder.finish_into(message);
        let bytes = Bytes::from(compress_snappy(message)?);
        Ok(Body { bytes, samples, total, dropped, version })
    }
}
