//! What a decoder makes of a body: flat vectors of offsets, reused from request to request.

use super::cursor::{BYTES, Cursor, VARINT, tag};
use super::histogram::Histogram;
use super::{Version, WireError};
use crate::codec::stored;
use crate::labels::LabelError;

/// Most bytes that the labels of one series may add up to: 2.0 can name one huge symbol many times,
/// and each would be looked through for valid UTF-8.
const LABEL_BYTES: usize = 1 << 20;

/// A piece of the decompressed body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Piece {
    /// The bytes in the body it was decoded from; empty where it does not fit.
    pub fn of(self, body: &[u8]) -> &[u8] {
        let start = self.start as usize;
        body.get(start..start.saturating_add(self.len as usize)).unwrap_or(&[])
    }
}

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Unix milliseconds.
    pub timestamp: i64,
    /// The value; may be NaN, infinite or the stale marker.
    pub value: f64,
}

/// A metric's type, as both protocols number it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Not known.
    #[default]
    Unknown = 0,
    /// A counter.
    Counter = 1,
    /// A gauge.
    Gauge = 2,
    /// A classic or native histogram.
    Histogram = 3,
    /// A gauge histogram.
    GaugeHistogram = 4,
    /// A summary.
    Summary = 5,
    /// An info metric.
    Info = 6,
    /// A state set.
    StateSet = 7,
}

stored!(
    enum MetricKind {
        Unknown = 0,
        Counter = 1,
        Gauge = 2,
        Histogram = 3,
        GaugeHistogram = 4,
        Summary = 5,
        Info = 6,
        StateSet = 7,
    }
);

impl MetricKind {
    /// The kind of a protobuf enum number; unknown numbers are `Unknown`.
    pub fn from_number(number: u64) -> MetricKind {
        use MetricKind::*;
        [Unknown, Counter, Gauge, Histogram, GaugeHistogram, Summary, Info, StateSet]
            .get(number as usize)
            .copied()
            .unwrap_or(Unknown)
    }
}

/// What is wrong with one series of a 2.0 request or with one histogram; the rest is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SeriesDefect {
    /// A label reference points outside the symbol table.
    #[error("a symbol reference is out of range")]
    RefOutOfRange,
    /// An odd number of label references.
    #[error("an odd number of label references")]
    OddRefs,
    /// Samples and histograms in one 2.0 series.
    #[error("both samples and histograms in one series")]
    Mixed,
    /// A 2.0 series with neither samples nor histograms.
    #[error("a series without samples or histograms")]
    Empty,
    /// A histogram's counts contradict its buckets, or its spans its counts.
    #[error("a histogram whose count contradicts its buckets")]
    BadHistogram,
}

/// One `TimeSeries` of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SeriesRef {
    /// Hash of the labels as they came, with the batch's seed: of 1.0 xxh3-128 of their bytes, of 2.0 one of the
    /// pairs of symbols, whatever the symbol table and the order of the pairs.
    pub alias: u128,
    /// Where its labels are in the body: from the tag of the first field of labels (1.0) or label
    /// references (2.0) to the end of the last; other fields may lie between. See
    /// [`Batch::read_labels`].
    pub labels: Piece,
    /// First and one-past-last of its samples in [`Batch::samples`].
    pub samples: (u32, u32),
    /// The same for [`Batch::histograms`].
    pub histograms: (u32, u32),
    /// Number of exemplars, which are counted and not used.
    pub exemplars: u32,
    /// Type from 2.0 metadata.
    pub kind: MetricKind,
    /// Set when this series is malformed and must not be used. A malformed histogram stands in
    /// [`Batch::histograms`] as an empty one, so that the counts are those of the request.
    pub defect: Option<SeriesDefect>,
}

/// Metadata of a metric family from a 1.0 request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// The family's name.
    pub family: Piece,
    /// Its type.
    pub kind: MetricKind,
}

/// A decoded request. Reuse one for many requests; `clear` keeps the memory.
#[derive(Debug, Default)]
pub struct Batch {
    /// Seed of the alias hashes; drawn once a process so that nobody can aim at a collision.
    pub seed: u64,
    /// The series in the order of the request; may repeat.
    pub series: Vec<SeriesRef>,
    /// All float samples.
    pub samples: Vec<Sample>,
    /// All native histograms with their timestamps.
    pub histograms: Vec<(i64, Histogram)>,
    /// 1.0 metadata.
    pub metadata: Vec<FamilyMetadata>,
    /// 2.0 symbols.
    pub symbols: Vec<Piece>,
    /// Exemplars in all.
    pub exemplars: u64,
    pub(super) symbol_hashes: Vec<u64>,
    pub(super) scratch: Vec<u8>,
    pub(super) version: Option<Version>,
}

impl Batch {
    /// An empty batch whose alias hashes use this seed.
    pub fn new(seed: u64) -> Batch {
        Batch { seed, ..Batch::default() }
    }

    /// Empties it and keeps its memory and seed.
    pub fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.histograms.clear();
        self.metadata.clear();
        self.symbols.clear();
        self.symbol_hashes.clear();
        self.exemplars = 0;
        self.version = None;
    }

    /// The labels of a series in the order they came, from the body it was decoded from. Replaces
    /// the content of `out`; sorting and judging them is [`crate::labels::canonicalise`]'s work.
    ///
    /// # Errors
    /// [`LabelError::NotUtf8`], or [`LabelError::TooLong`] if they add up to more than 1 MiB; `out`
    /// is then incomplete.
    pub fn read_labels<'b>(
        &self,
        series: &SeriesRef,
        body: &'b [u8],
        out: &mut Vec<(&'b str, &'b str)>,
    ) -> Result<(), LabelError> {
        out.clear();
        let cursor = Cursor::over(body, series.labels);
        let mut total = 0;
        let mut push = |name: &'b [u8], value: &'b [u8]| {
            total += name.len() + value.len();
            if total > LABEL_BYTES {
                return Err(LabelError::TooLong(LABEL_BYTES));
            }
            let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| LabelError::NotUtf8);
            out.push((utf8(name)?, utf8(value)?));
            Ok(())
        };
        let walked = match self.version {
            Some(Version::V2) => self.walk_refs(cursor, body, &mut push),
            Some(Version::V1) | None => walk_labels(cursor, body, &mut push),
        };
        // The decoder has walked these bytes before, so only a foreign body can be broken here.
        walked.unwrap_or(Err(LabelError::NotUtf8))
    }

    fn walk_refs<'b>(&self, mut cursor: Cursor<'b>, body: &'b [u8], push: Push<'_, 'b>) -> Walked {
        let mut name: Option<&'b [u8]> = None;
        let mut next = |index: u64| {
            let piece = usize::try_from(index).ok().and_then(|index| self.symbols.get(index));
            let symbol = piece.map_or(&[][..], |piece| piece.of(body));
            match name.take() {
                Some(name) => push(name, symbol),
                None => {
                    name = Some(symbol);
                    Ok(())
                }
            }
        };
        while cursor.more() {
            let walked = match cursor.tag()? {
                LABELS => {
                    let mut refs = cursor.nested()?;
                    let mut walked = Ok(());
                    while refs.more() && walked.is_ok() {
                        walked = next(refs.varint()?);
                    }
                    walked
                }
                REF_ALONE => next(cursor.varint()?),
                other => cursor.skip(other, 0).map(Ok)?,
            };
            if walked.is_err() {
                return Ok(walked);
            }
        }
        Ok(Ok(()))
    }
}

/// 1.0: a label message; 2.0: packed references.
const LABELS: u32 = tag(1, BYTES);
/// 2.0: one reference, not packed.
const REF_ALONE: u32 = tag(1, VARINT);

type Push<'p, 'b> = &'p mut dyn FnMut(&'b [u8], &'b [u8]) -> Result<(), LabelError>;
type Walked = Result<Result<(), LabelError>, WireError>;

fn walk_labels<'b>(mut cursor: Cursor<'b>, body: &'b [u8], push: Push<'_, 'b>) -> Walked {
    const NAME: u32 = tag(1, BYTES);
    const VALUE: u32 = tag(2, BYTES);
    while cursor.more() {
        match cursor.tag()? {
            LABELS => {
                let mut label = cursor.nested()?;
                let (mut name, mut value) = (Piece::default(), Piece::default());
                while label.more() {
                    match label.tag()? {
                        NAME => name = label.piece()?,
                        VALUE => value = label.piece()?,
                        other => label.skip(other, 0)?,
                    }
                }
                let walked = push(name.of(body), value.of(body));
                if walked.is_err() {
                    return Ok(walked);
                }
            }
            other => cursor.skip(other, 0)?,
        }
    }
    Ok(Ok(()))
}

impl Batch {
    /// The float samples of a series.
    pub fn floats(&self, series: &SeriesRef) -> &[Sample] {
        self.samples.get(series.samples.0 as usize..series.samples.1 as usize).unwrap_or(&[])
    }
    /// The native histograms of a series.
    pub fn native(&self, series: &SeriesRef) -> &[(i64, Histogram)] {
        self.histograms.get(series.histograms.0 as usize..series.histograms.1 as usize).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DecodeLimits, Encoder, decode};
    use super::*;

    const SAMPLE: Sample = Sample { timestamp: 1_700_000_000_000, value: 1.5 };

    fn encode(version: Version, all: &[&[(&str, &str)]]) -> Vec<u8> {
        let mut encoder = Encoder::new(version);
        for labels in all {
            encoder.series(labels.iter().copied(), MetricKind::Gauge, &[SAMPLE]);
        }
        encoder.finish()
    }

    fn aliases(version: Version, seed: u64, body: &[u8]) -> Vec<u128> {
        let mut batch = Batch::new(seed);
        decode(version, body, &DecodeLimits::default(), &mut batch).expect("decodes");
        batch.series.iter().map(|series| series.alias).collect()
    }

    #[test]
    fn an_alias_depends_on_the_labels_alone() {
        let (up, down) = ([("__name__", "up"), ("job", "x")], [("__name__", "down"), ("job", "x")]);
        for version in [Version::V1, Version::V2] {
            let one = aliases(version, 3, &encode(version, &[&up, &down, &up]));
            let other = aliases(version, 3, &encode(version, &[&down, &[("x", "job")], &up]));
            assert_eq!(one[0], one[2]);
            assert_ne!(one[0], one[1]);
            assert_eq!((one[0], one[1]), (other[2], other[0]), "{version:?}");
            // The order of labels is read from the bytes of 1.0 only; names are not values in either.
            let swapped = aliases(version, 3, &encode(version, &[&[up[1], up[0]]]))[0];
            assert_eq!(swapped == one[0], version == Version::V2);
            let crossed = aliases(version, 3, &encode(version, &[&[("__name__", "x"), ("job", "up")]]))[0];
            assert_ne!(crossed, one[0]);
            assert_ne!(aliases(version, 4, &encode(version, &[&up]))[0], one[0]);
        }
        let by_version = [Version::V1, Version::V2].map(|v| aliases(v, 3, &encode(v, &[&up, &[]])));
        assert!(by_version[0].iter().all(|alias| !by_version[1].contains(alias)));
    }

    #[test]
    fn fields_between_labels_do_not_change_the_alias() {
        let plain = encode(Version::V1, &[&[("a", "1"), ("b", "2")]]);
        let label = |name, value| [0x0a, 6, 0x0a, 1, name, 0x12, 1, value];
        let mixed = [&[0x0a, 18][..], &label(b'a', b'1'), &[0x12, 0], &label(b'b', b'2')].concat();
        assert_eq!(aliases(Version::V1, 0, &plain), aliases(Version::V1, 0, &mixed));
    }

    #[test]
    fn bad_utf8_and_giant_labels_are_the_series_fault() {
        let mut batch = Batch::new(0);
        let body = [0x0a, 7, 0x0a, 5, 0x0a, 1, b'a', 0x12, 1, 0xff];
        // The label says five bytes and has six: broken. Then as it should be.
        assert!(decode(Version::V1, &body, &DecodeLimits::default(), &mut batch).is_err());
        let body = [0x0a, 8, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, 0xff];
        decode(Version::V1, &body, &DecodeLimits::default(), &mut batch).expect("protobuf");
        let read = batch.read_labels(&batch.series[0], &body, &mut Vec::new());
        assert_eq!(read, Err(LabelError::NotUtf8));

        let long = "x".repeat(LABEL_BYTES / 4);
        let body = encode(Version::V2, &[&[("a", &long), ("b", &long), ("c", &long), ("d", &long)]]);
        decode(Version::V2, &body, &DecodeLimits::default(), &mut batch).expect("protobuf");
        let read = batch.read_labels(&batch.series[0], &body, &mut Vec::new());
        assert_eq!(read, Err(LabelError::TooLong(LABEL_BYTES)));
    }

    #[test]
    fn a_foreign_body_is_no_panic() {
        let body = encode(Version::V2, &[&[("job", "x")]]);
        let mut batch = Batch::new(0);
        decode(Version::V2, &body, &DecodeLimits::default(), &mut batch).expect("decodes");
        for cut in 0..body.len() {
            let _ = batch.read_labels(&batch.series[0], &body[..cut], &mut Vec::new());
        }
    }
}
