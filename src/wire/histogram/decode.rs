//! From the wire to a validated [`Histogram`]. Both protocols share the message.

use super::super::WireError;
use super::super::batch::SeriesDefect;
use super::super::cursor::{BYTES, Cursor, FIXED64, VARINT, tag};
use super::{CUSTOM_SCHEMA, EXPONENTIAL_SCHEMAS, Histogram, ResetHint, Span};

/// Fields 1 to 16 are those of both protocols; 2.0 adds the start timestamp.
const KNOWN_V1: u32 = 0x1_fffe;
const KNOWN_V2: u32 = 0x3_fffe;

/// How many buckets, spans and bounds may still be decoded in this request.
pub(in super::super) struct Room {
    pub left: usize,
    pub limit: usize,
}

impl Room {
    fn take(&mut self) -> Result<(), WireError> {
        let what = "histogram buckets, spans and bounds";
        self.left = self.left.checked_sub(1).ok_or(WireError::TooMany { what, limit: self.limit })?;
        Ok(())
    }
}

/// A count as it stands in a `oneof`.
#[derive(Clone, Copy)]
enum Count {
    Integer(u64),
    Float(f64),
}

/// The message as it stands on the wire.
struct Raw {
    count: Count,
    zero_count: Count,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    negative: Side,
    positive: Side,
    custom_values: Vec<f64>,
    reset_hint: ResetHint,
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

const COUNT_INT: u32 = tag(1, VARINT);
const COUNT_FLOAT: u32 = tag(2, FIXED64);
const SUM: u32 = tag(3, FIXED64);
const SCHEMA: u32 = tag(4, VARINT);
const ZERO_THRESHOLD: u32 = tag(5, FIXED64);
const ZERO_INT: u32 = tag(6, VARINT);
const ZERO_FLOAT: u32 = tag(7, FIXED64);
const NEGATIVE_SPAN: u32 = tag(8, BYTES);
const NEGATIVE_DELTAS: u32 = tag(9, BYTES);
const NEGATIVE_DELTA: u32 = tag(9, VARINT);
const NEGATIVE_COUNTS: u32 = tag(10, BYTES);
const NEGATIVE_COUNT: u32 = tag(10, FIXED64);
const POSITIVE_SPAN: u32 = tag(11, BYTES);
const POSITIVE_DELTAS: u32 = tag(12, BYTES);
const POSITIVE_DELTA: u32 = tag(12, VARINT);
const POSITIVE_COUNTS: u32 = tag(13, BYTES);
const POSITIVE_COUNT: u32 = tag(13, FIXED64);
const RESET_HINT: u32 = tag(14, VARINT);
const TIMESTAMP: u32 = tag(15, VARINT);
const CUSTOM_VALUES: u32 = tag(16, BYTES);
const CUSTOM_VALUE: u32 = tag(16, FIXED64);
const START_TIMESTAMP: u32 = tag(17, VARINT);

/// Decodes a histogram message: its timestamp (Unix milliseconds), and the histogram or what is
/// wrong with it.
pub(in super::super) fn histogram(
    mut m: Cursor<'_>,
    v2: bool,
    room: &mut Room,
) -> Result<(i64, Result<Histogram, SeriesDefect>), WireError> {
    let known = if v2 { KNOWN_V2 } else { KNOWN_V1 };
    let mut timestamp = 0;
    let mut raw = Raw {
        count: Count::Integer(0),
        zero_count: Count::Integer(0),
        sum: 0.0,
        schema: 0,
        zero_threshold: 0.0,
        negative: Side::default(),
        positive: Side::default(),
        custom_values: Vec::new(),
        reset_hint: ResetHint::Unknown,
    };
    while m.more() {
        match m.tag()? {
            COUNT_INT => raw.count = Count::Integer(m.varint()?),
            COUNT_FLOAT => raw.count = Count::Float(m.double()?),
            SUM => raw.sum = m.double()?,
            SCHEMA => raw.schema = m.sint32()?,
            ZERO_THRESHOLD => raw.zero_threshold = m.double()?,
            ZERO_INT => raw.zero_count = Count::Integer(m.varint()?),
            ZERO_FLOAT => raw.zero_count = Count::Float(m.double()?),
            NEGATIVE_SPAN => raw.negative.spans.push(span(m.nested()?, room)?),
            NEGATIVE_DELTAS => all(m.nested()?, room, &mut raw.negative.deltas, Cursor::sint)?,
            NEGATIVE_DELTA => one(&mut m, room, &mut raw.negative.deltas, Cursor::sint)?,
            NEGATIVE_COUNTS => all(m.nested()?, room, &mut raw.negative.counts, Cursor::double)?,
            NEGATIVE_COUNT => one(&mut m, room, &mut raw.negative.counts, Cursor::double)?,
            POSITIVE_SPAN => raw.positive.spans.push(span(m.nested()?, room)?),
            POSITIVE_DELTAS => all(m.nested()?, room, &mut raw.positive.deltas, Cursor::sint)?,
            POSITIVE_DELTA => one(&mut m, room, &mut raw.positive.deltas, Cursor::sint)?,
            POSITIVE_COUNTS => all(m.nested()?, room, &mut raw.positive.counts, Cursor::double)?,
            POSITIVE_COUNT => one(&mut m, room, &mut raw.positive.counts, Cursor::double)?,
            RESET_HINT => raw.reset_hint = ResetHint::from_number(m.varint()?),
            TIMESTAMP => timestamp = m.varint()? as i64,
            CUSTOM_VALUES => all(m.nested()?, room, &mut raw.custom_values, Cursor::double)?,
            CUSTOM_VALUE => one(&mut m, room, &mut raw.custom_values, Cursor::double)?,
            START_TIMESTAMP if v2 => drop(m.varint()?),
            other => m.skip(other, known)?,
        }
    }
    Ok((timestamp, raw.validated().ok_or(SeriesDefect::BadHistogram)))
}

fn span(mut m: Cursor<'_>, room: &mut Room) -> Result<Span, WireError> {
    const OFFSET: u32 = tag(1, VARINT);
    const LENGTH: u32 = tag(2, VARINT);
    room.take()?;
    let mut span = Span::default();
    while m.more() {
        match m.tag()? {
            OFFSET => span.offset = m.sint32()?,
            LENGTH => span.length = m.varint()? as u32,
            other => m.skip(other, 0b110)?,
        }
    }
    Ok(span)
}

type Read<'b, T> = fn(&mut Cursor<'b>) -> Result<T, WireError>;

fn one<'b, T>(
    m: &mut Cursor<'b>,
    room: &mut Room,
    into: &mut Vec<T>,
    read: Read<'b, T>,
) -> Result<(), WireError> {
    room.take()?;
    into.push(read(m)?);
    Ok(())
}

/// A packed field.
fn all<'b, T>(
    mut m: Cursor<'b>,
    room: &mut Room,
    into: &mut Vec<T>,
    read: Read<'b, T>,
) -> Result<(), WireError> {
    while m.more() {
        one(&mut m, room, into, read)?;
    }
    Ok(())
}

impl Raw {
    /// The histogram, if it is what Prometheus's `Histogram.Validate` and `FloatHistogram.Validate`
    /// (model/histogram) accept.
    fn validated(self) -> Option<Histogram> {
        let custom = self.schema == CUSTOM_SCHEMA;
        let schema_fits = if custom {
            self.negative.is_empty()
                && self.zero_threshold == 0.0
                && bounds_fit(&self.custom_values, &self.positive.spans)
        } else {
            EXPONENTIAL_SCHEMAS.contains(&self.schema) && self.custom_values.is_empty()
        };
        if !schema_fits || self.zero_threshold < 0.0 {
            return None;
        }
        let integer = matches!(self.count, Count::Integer(_));
        let (count, zero_count) = if integer { self.integer_counts()? } else { self.float_counts()? };
        if custom && zero_count != 0.0 {
            return None;
        }
        let (positive_spans, positive) = self.positive.expanded(integer)?;
        let (negative_spans, negative) = self.negative.expanded(integer)?;
        Some(Histogram {
            integer,
            count,
            sum: self.sum,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: self.custom_values,
            reset_hint: self.reset_hint,
        })
    }

    /// Count and zero count, if the buckets add up to the count in integers.
    fn integer_counts(&self) -> Option<(f64, f64)> {
        let read = |count| match count {
            Count::Integer(count) => count,
            Count::Float(_) => 0,
        };
        let (total, zero) = (read(self.count), read(self.zero_count));
        let seen = self.positive.total()?.checked_add(self.negative.total()?)?.checked_add(zero)?;
        // NaN observations are counted, make the sum NaN, and are in no bucket.
        let fits = if self.sum.is_nan() { seen <= total } else { seen == total };
        fits.then_some((total as f64, zero as f64))
    }

    /// Count and zero count of a float histogram. They come out of arithmetic, so the total is not
    /// held against the buckets.
    fn float_counts(&self) -> Option<(f64, f64)> {
        let read = |count| match count {
            Count::Integer(_) => 0.0,
            Count::Float(count) => count,
        };
        let (total, zero) = (read(self.count), read(self.zero_count));
        let negative = total < 0.0 || zero < 0.0;
        (!negative).then_some((total, zero))
    }
}

/// Custom bounds ascend, are finite at the end, and cover the spans.
fn bounds_fit(bounds: &[f64], spans: &[Span]) -> bool {
    let covered: i64 = spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    bounds.windows(2).all(|pair| pair[0] < pair[1])
        && bounds.first().is_none_or(|first| *first > f64::NEG_INFINITY)
        && bounds.last().is_none_or(|last| *last < f64::INFINITY)
        && spans.first().is_none_or(|span| span.offset >= 0)
        && covered <= bounds.len() as i64 + 1
}

impl Side {
    fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.deltas.is_empty() && self.counts.is_empty()
    }

    /// Sum of the integer buckets; `None` if one is negative or the sum leaves 64 bits.
    fn total(&self) -> Option<u64> {
        let (mut sum, mut bucket) = (0u64, 0i64);
        for delta in &self.deltas {
            bucket = bucket.checked_add(*delta)?;
            sum = sum.checked_add(u64::try_from(bucket).ok()?)?;
        }
        Some(sum)
    }

    /// Absolute counts, if none is negative and the spans promise that many.
    fn expanded(self, integer: bool) -> Option<(Vec<Span>, Vec<f64>)> {
        let counts: Vec<f64> = if integer {
            let mut bucket = 0i64;
            let absolute = self.deltas.into_iter().map(|delta| {
                bucket = bucket.wrapping_add(delta);
                bucket as f64
            });
            absolute.collect()
        } else {
            self.counts
        };
        let promised: u64 = self.spans.iter().map(|span| u64::from(span.length)).sum();
        let fits = promised == counts.len() as u64
            && self.spans.iter().skip(1).all(|span| span.offset >= 0)
            && !counts.iter().any(|count| *count < 0.0);
        fits.then_some((self.spans, counts))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::super::proto::v1;
    use super::super::super::proto::v1::histogram::{Count, ZeroCount};
    use super::*;

    fn decoded(message: &v1::Histogram) -> Result<Histogram, SeriesDefect> {
        let body = message.encode_to_vec();
        histogram(Cursor::new(&body), false, &mut Room { left: 100, limit: 100 }).expect("protobuf").1
    }

    fn span(offset: i32, length: u32) -> v1::BucketSpan {
        v1::BucketSpan { offset, length }
    }

    /// 1, 3 and 2 observations in positive buckets, 1 in the zero bucket.
    fn good() -> v1::Histogram {
        v1::Histogram {
            count: Some(Count::CountInt(7)),
            sum: 10.0,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            positive_spans: vec![span(-2, 1), span(3, 2)],
            positive_deltas: vec![1, 2, -1],
            ..Default::default()
        }
    }

    fn custom() -> v1::Histogram {
        v1::Histogram {
            count: Some(Count::CountInt(3)),
            schema: CUSTOM_SCHEMA,
            positive_spans: vec![span(0, 2)],
            positive_deltas: vec![1, 1],
            custom_values: vec![0.5],
            ..Default::default()
        }
    }

    #[test]
    fn deltas_become_counts() {
        let histogram = decoded(&good()).expect("valid");
        assert_eq!(histogram.positive, [1.0, 3.0, 2.0]);
        assert_eq!(histogram.buckets(false).collect::<Vec<_>>(), [(-2, 1.0), (2, 3.0), (3, 2.0)]);
        assert!(decoded(&custom()).is_ok());
    }

    #[test]
    fn a_stale_marker_is_valid() {
        let sum = f64::from_bits(super::super::STALE_BITS);
        assert!(decoded(&v1::Histogram { sum, ..Default::default() }).expect("valid").is_stale());
    }

    #[test]
    fn nan_observations_are_in_no_bucket() {
        let with =
            |sum, count| decoded(&v1::Histogram { sum, count: Some(Count::CountInt(count)), ..good() });
        assert!(with(f64::NAN, 9).is_ok());
        assert!(with(f64::NAN, 6).is_err());
        assert!(with(1.0, 9).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let float = v1::Histogram {
            count: Some(Count::CountFloat(6.0)),
            positive_counts: vec![1.0, 3.0, 2.0],
            positive_deltas: vec![],
            ..good()
        };
        assert!(decoded(&float).is_ok());
        for (what, message) in [
            ("schema", v1::Histogram { schema: 9, ..good() }),
            ("schema", v1::Histogram { schema: -5, ..good() }),
            ("negative bucket", v1::Histogram { positive_deltas: vec![1, -2, 7], ..good() }),
            ("overflow", v1::Histogram { positive_deltas: vec![i64::MAX, 1, 0], ..good() }),
            ("too few buckets", v1::Histogram { positive_deltas: vec![1, 4], ..good() }),
            ("overlapping spans", v1::Histogram { positive_spans: vec![span(0, 1), span(-1, 2)], ..good() }),
            ("huge span", v1::Histogram { positive_spans: vec![span(0, u32::MAX), span(0, 4)], ..good() }),
            ("bounds", v1::Histogram { custom_values: vec![1.0], ..good() }),
            ("threshold", v1::Histogram { zero_threshold: -1.0, ..good() }),
            ("float bucket", v1::Histogram { positive_counts: vec![1.0, -3.0, 2.0], ..float.clone() }),
            ("float count", v1::Histogram { count: Some(Count::CountFloat(-1.0)), ..float.clone() }),
            ("custom: unsorted", v1::Histogram { custom_values: vec![0.5, 0.5], ..custom() }),
            ("custom: NaN", v1::Histogram { custom_values: vec![f64::NAN], ..custom() }),
            ("custom: +Inf", v1::Histogram { custom_values: vec![f64::INFINITY], ..custom() }),
            ("custom: too few bounds", v1::Histogram { custom_values: vec![], ..custom() }),
            ("custom: negative index", v1::Histogram { positive_spans: vec![span(-1, 2)], ..custom() }),
            ("custom: negative side", v1::Histogram { negative_spans: vec![span(0, 0)], ..custom() }),
            ("custom: zero bucket", v1::Histogram { zero_threshold: 1.0, ..custom() }),
        ] {
            assert_eq!(decoded(&message), Err(SeriesDefect::BadHistogram), "{what}");
        }
    }

    #[test]
    fn span_lengths_allocate_nothing() {
        let message = v1::Histogram { positive_spans: vec![span(0, u32::MAX)], ..Default::default() };
        assert!(decoded(&message).is_err());
    }
}
