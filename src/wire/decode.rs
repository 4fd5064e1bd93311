//! What both decoders share: limits, and the messages that are alike in both protocols.

use super::batch::{Batch, Piece, Sample};
use super::cursor::{BYTES, Cursor, FIXED64, VARINT, tag};
use super::histogram::{self, Histogram, Room};
use super::{SeriesDefect, SeriesRef, Version, WireError, v1, v2};

/// Bounds on one request. Each field of a few bytes can become a struct of many, so the size of the
/// body alone does not bound memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Series. Default 1,048,576.
    pub series: usize,
    /// Float samples. Default 2,097,152.
    pub samples: usize,
    /// Native histograms. Default 131,072.
    pub histograms: usize,
    /// Labels in a series, before a tighter limit makes that series alone invalid. Default 1,024.
    pub labels_per_series: usize,
    /// Symbols of a 2.0 request. Default 1,048,576.
    pub symbols: usize,
    /// Metadata entries of a 1.0 request. Default 1,048,576.
    pub metadata: usize,
    /// Buckets, spans and custom bounds of all histograms together. Default 4,194,304.
    pub buckets: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        DecodeLimits {
            series: 1 << 20,
            samples: 1 << 21,
            histograms: 1 << 17,
            labels_per_series: 1 << 10,
            symbols: 1 << 20,
            metadata: 1 << 20,
            buckets: 1 << 22,
        }
    }
}

/// Decodes a decompressed body into `batch`, replacing its content.
///
/// Differences from a general protobuf decoder: strings are not checked for UTF-8 (see
/// [`Batch::read_labels`]), groups are refused, and so is a 2.0 request whose first symbol is not
/// the empty string.
///
/// # Errors
/// [`WireError::Protobuf`], [`WireError::TooMany`], or [`WireError::TooLarge`] for a body of 4 GiB;
/// the batch is then empty. What is wrong with one series is in its [`SeriesRef::defect`].
pub fn decode(
    version: Version,
    body: &[u8],
    limits: &DecodeLimits,
    batch: &mut Batch,
) -> Result<(), WireError> {
    batch.clear();
    let limit = u64::from(u32::MAX);
    if body.len() as u64 > limit {
        return Err(WireError::TooLarge { got: body.len() as u64, limit });
    }
    batch.version = Some(version);
    let decoded = match version {
        Version::V1 => v1::walk(body, limits, batch),
        Version::V2 => v2::walk(body, limits, batch),
    };
    if decoded.is_err() {
        batch.clear();
    }
    decoded
}

/// Fails where `have` has reached `limit`, so one more would be too many.
#[inline]
pub(super) fn room_for_one(have: usize, limit: usize, what: &'static str) -> Result<(), WireError> {
    if have < limit { Ok(()) } else { Err(WireError::TooMany { what, limit }) }
}

pub(super) fn bucket_room(limits: &DecodeLimits) -> Room {
    Room { left: limits.buckets, limit: limits.buckets }
}

/// The series to fill: its samples and histograms will be those added from now on.
#[inline]
pub(super) fn open_series(batch: &Batch, limits: &DecodeLimits) -> Result<SeriesRef, WireError> {
    room_for_one(batch.series.len(), limits.series, "series")?;
    let (samples, histograms) = (batch.samples.len() as u32, batch.histograms.len() as u32);
    Ok(SeriesRef {
        samples: (samples, samples),
        histograms: (histograms, histograms),
        ..SeriesRef::default()
    })
}

/// Ends the ranges opened by [`open_series`] here.
#[inline]
pub(super) fn close_series(batch: &Batch, series: &mut SeriesRef) {
    series.samples.1 = batch.samples.len() as u32;
    series.histograms.1 = batch.histograms.len() as u32;
}

/// Makes `piece` reach to the cursor; whether something else lay between is returned.
#[inline]
pub(super) fn extend(piece: &mut Piece, start: usize, end: usize) -> bool {
    let gap = piece.len != 0 && start != (piece.start + piece.len) as usize;
    if piece.len == 0 {
        piece.start = start as u32;
    }
    piece.len = end as u32 - piece.start;
    gap
}

const VALUE: u32 = tag(1, FIXED64);
const TIMESTAMP: u32 = tag(2, VARINT);
const START_TIMESTAMP: u32 = tag(3, VARINT);

/// A sample message. Its start timestamp (2.0) is read over.
#[inline]
pub(super) fn sample(mut m: Cursor<'_>, v2: bool, limit: usize, batch: &mut Batch) -> Result<(), WireError> {
    room_for_one(batch.samples.len(), limit, "samples")?;
    let mut sample = Sample { timestamp: 0, value: 0.0 };
    while m.more() {
        match m.tag()? {
            VALUE => sample.value = m.double()?,
            TIMESTAMP => sample.timestamp = m.varint()? as i64,
            START_TIMESTAMP if v2 => drop(m.varint()?),
            other => m.skip(other, if v2 { 0b1110 } else { 0b110 })?,
        }
    }
    batch.samples.push(sample);
    Ok(())
}

/// A histogram message, added to the batch; a bad one marks the series.
pub(super) fn native_histogram(
    m: Cursor<'_>,
    v2: bool,
    limits: &DecodeLimits,
    room: &mut Room,
    series: &mut SeriesRef,
    batch: &mut Batch,
) -> Result<(), WireError> {
    room_for_one(batch.histograms.len(), limits.histograms, "histograms")?;
    let (timestamp, histogram) = histogram::decode_message(m, v2, room)?;
    batch.histograms.push((
        timestamp,
        histogram.unwrap_or_else(|defect: SeriesDefect| {
            series.defect.get_or_insert(defect);
            Histogram::default()
        }),
    ));
    Ok(())
}

/// An exemplar message: walked, counted, not kept.
pub(super) fn exemplar(
    mut m: Cursor<'_>,
    v2: bool,
    series: &mut SeriesRef,
    batch: &mut Batch,
) -> Result<(), WireError> {
    const LABELS: u32 = tag(1, BYTES);
    const REF: u32 = tag(1, VARINT);
    const VALUE: u32 = tag(2, FIXED64);
    const TIMESTAMP: u32 = tag(3, VARINT);
    while m.more() {
        match m.tag()? {
            LABELS if v2 => {
                let mut refs = m.nested()?;
                while refs.more() {
                    refs.varint()?;
                }
            }
            LABELS => v1::check_label(m.nested()?)?,
            REF if v2 => drop(m.varint()?),
            VALUE => drop(m.double()?),
            TIMESTAMP => drop(m.varint()?),
            other => m.skip(other, 0b1110)?,
        }
    }
    series.exemplars += 1;
    batch.exemplars += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Encoder, MetricKind};
    use super::*;

    fn fails(version: Version, body: &[u8], limits: DecodeLimits) -> WireError {
        let mut batch = Batch::new(0);
        let error = decode(version, body, &limits, &mut batch).expect_err("over a limit");
        assert!(batch.series.is_empty() && batch.samples.is_empty());
        error
    }

    #[test]
    fn every_limit_holds() {
        let default = DecodeLimits::default();
        let sample = Sample { timestamp: 1, value: 1.0 };
        let labels = [("a", "1"), ("b", "2"), ("c", "3")];
        let histogram = Histogram {
            integer: true,
            count: 3.0,
            positive_spans: vec![Default::default(), histogram::Span { offset: 0, length: 2 }],
            positive: vec![1.0, 2.0],
            ..Histogram::default()
        };
        for version in [Version::V1, Version::V2] {
            let mut encoder = Encoder::new(version);
            for _ in 0..3 {
                encoder.series(labels.into_iter(), MetricKind::Gauge, &[sample; 2]);
                encoder.histogram_series(labels.into_iter(), MetricKind::Gauge, &[(1, histogram.clone())]);
            }
            for _ in 0..3 {
                encoder.metadata("a", MetricKind::Gauge, "", "");
            }
            let body = encoder.finish();
            let exact = DecodeLimits {
                series: 6,
                samples: 6,
                histograms: 3,
                labels_per_series: 3,
                symbols: 7,
                metadata: 3,
                buckets: 12,
            };
            decode(version, &body, &exact, &mut Batch::new(0)).expect("at the limits");
            let too_many = |what, limit| WireError::TooMany { what, limit };
            let buckets = "histogram buckets, spans and bounds";
            for (limits, error) in [
                (DecodeLimits { series: 5, ..default }, too_many("series", 5)),
                (DecodeLimits { samples: 5, ..default }, too_many("samples", 5)),
                (DecodeLimits { histograms: 2, ..default }, too_many("histograms", 2)),
                (DecodeLimits { labels_per_series: 2, ..default }, too_many("labels in one series", 2)),
                (DecodeLimits { buckets: 11, ..default }, too_many(buckets, 11)),
            ] {
                assert_eq!(fails(version, &body, limits), error);
            }
            let (limits, error) = match version {
                Version::V1 => (DecodeLimits { metadata: 2, ..default }, too_many("metadata entries", 2)),
                Version::V2 => (DecodeLimits { symbols: 6, ..default }, too_many("symbols", 6)),
            };
            assert_eq!(fails(version, &body, limits), error);
        }
    }

    #[test]
    fn the_symbol_table_begins_with_the_empty_string() {
        let first = "the first symbol is not the empty string";
        let body = [0x22, 1, b'a', 0x22, 0];
        let default = DecodeLimits::default();
        assert_eq!(fails(Version::V2, &body, default), WireError::Protobuf { at: 1, what: first });
        let body = [0x2a, 0];
        let missing = WireError::Protobuf { at: 1, what: "series without a symbol table" };
        assert_eq!(fails(Version::V2, &body, default), missing);
        decode(Version::V2, &[], &default, &mut Batch::new(0)).expect("an empty request");
    }

    #[test]
    fn a_break_is_named_by_its_byte() {
        // A series of two bytes in which a sample claims nine.
        let error = fails(Version::V1, &[0x0a, 2, 0x12, 9], DecodeLimits::default());
        assert_eq!(error, WireError::Protobuf { at: 4, what: "a length past the end" });
    }
}
