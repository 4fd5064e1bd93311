//! Native histograms: validated on decoding, compared and queried by the engine.

mod decode;
mod quantile;

pub(super) use decode::{Room, histogram as decode_message};

use super::STALE_BITS;
use crate::codec::stored;

/// The schema of a histogram whose bucket bounds are listed (NHCB).
pub const CUSTOM_SCHEMA: i32 = -53;

/// Exponential schemas: bucket i ends at 2^(i · 2^-schema).
pub const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Consecutive buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Buckets left out since the previous span's end; of the first span, the index it starts at.
    pub offset: i32,
    /// Buckets in the span.
    pub length: u32,
}

/// What the sender says of a counter reset before this histogram, as both protocols number it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetHint {
    /// Not known.
    #[default]
    Unknown = 0,
    /// There was a reset.
    Yes = 1,
    /// There was none.
    No = 2,
    /// It is a gauge histogram, to which resets do not apply.
    Gauge = 3,
}

impl ResetHint {
    /// The hint of a protobuf enum number; unknown numbers are `Unknown`.
    pub fn from_number(number: u64) -> ResetHint {
        match number {
            1 => ResetHint::Yes,
            2 => ResetHint::No,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        }
    }
}

/// A native histogram. One that was decoded is valid as Prometheus's `Histogram.Validate` has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Whether counts are integers on the wire.
    pub integer: bool,
    /// Observations, NaN ones included.
    pub count: f64,
    /// Sum of all observations; the stale marker ends the series.
    pub sum: f64,
    /// −4 to 8, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// Half-width of the zero bucket, in the unit observed.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Where the positive buckets are.
    pub positive_spans: Vec<Span>,
    /// Observations in each positive bucket.
    pub positive: Vec<f64>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<Span>,
    /// Observations in each negative bucket.
    pub negative: Vec<f64>,
    /// Inclusive upper bounds of custom buckets, ascending; the last bucket's, +Inf, is implied.
    pub custom_values: Vec<f64>,
    /// Whether the counter was reset.
    pub reset_hint: ResetHint,
}

stored!(struct Span { offset, length });
stored!(
    enum ResetHint {
        Unknown = 0,
        Yes = 1,
        No = 2,
        Gauge = 3,
    }
);
stored!(struct Histogram {
    integer,
    count,
    sum,
    schema,
    zero_threshold,
    zero_count,
    positive_spans,
    positive,
    negative_spans,
    negative,
    custom_values,
    reset_hint,
} valid |h| h.is_custom() || EXPONENTIAL_SCHEMAS.contains(&h.schema));

impl Histogram {
    /// Observations in all.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Sum of the observations, in the unit observed.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Whether this is the stale marker of a histogram series.
    pub fn is_stale(&self) -> bool {
        self.sum.to_bits() == STALE_BITS
    }

    /// Whether the bucket bounds are listed.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        let spans = self.positive_spans.capacity() + self.negative_spans.capacity();
        let floats = self.positive.capacity() + self.negative.capacity() + self.custom_values.capacity();
        spans * size_of::<Span>() + floats * size_of::<f64>()
    }

    /// What was observed since `prev`: count, sum and every bucket less their earlier value. Of two
    /// resolutions, the coarser is taken.
    ///
    /// `None` where there is no such difference: the counter was reset (by the hint, or because
    /// anything went down), one of them is a gauge histogram, stale or not finite in its counts, or
    /// the buckets cannot be compared (custom against exponential, other custom bounds, another
    /// zero bucket).
    pub fn delta_since(&self, prev: &Histogram) -> Option<Histogram> {
        let apart = self.is_stale()
            || prev.is_stale()
            || matches!(self.reset_hint, ResetHint::Yes | ResetHint::Gauge)
            || prev.reset_hint == ResetHint::Gauge
            || self.is_custom() != prev.is_custom()
            || self.custom_values != prev.custom_values
            || self.zero_threshold != prev.zero_threshold;
        if apart {
            return None;
        }
        let schema = self.schema.min(prev.schema);
        let side = |now: &Histogram, then: &Histogram, negative: bool| {
            difference(&now.reduced(negative, schema), &then.reduced(negative, schema))
        };
        let (positive_spans, positive) = side(self, prev, false)?;
        let (negative_spans, negative) = side(self, prev, true)?;
        Some(Histogram {
            integer: self.integer && prev.integer,
            count: grown(self.count, prev.count)?,
            sum: self.sum - prev.sum,
            schema,
            zero_threshold: self.zero_threshold,
            zero_count: grown(self.zero_count, prev.zero_count)?,
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: self.custom_values.clone(),
            reset_hint: ResetHint::Unknown,
        })
    }

    /// One side's buckets as (index, count), ascending, merged to a coarser schema.
    fn reduced(&self, negative: bool, schema: i32) -> Vec<(i64, f64)> {
        // 31 is the most an index can need; custom buckets are never merged.
        let shift = if self.is_custom() { 0 } else { self.schema.saturating_sub(schema).clamp(0, 31) };
        let mut buckets: Vec<(i64, f64)> = Vec::with_capacity(self.positive.len());
        for (index, count) in self.buckets(negative) {
            // Bucket i of the finer schema is (b^(i-1), b^i]; upper bounds merge, so round up.
            let index = if shift == 0 { index } else { ((index - 1) >> shift) + 1 };
            match buckets.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => buckets.push((index, count)),
            }
        }
        buckets
    }

    /// One side's buckets as (index, count), ascending by index.
    pub(super) fn buckets(&self, negative: bool) -> impl DoubleEndedIterator<Item = (i64, f64)> + use<> {
        let (spans, counts) = match negative {
            false => (&self.positive_spans, &self.positive),
            true => (&self.negative_spans, &self.negative),
        };
        let mut indices = Vec::with_capacity(counts.len());
        let mut index = 0i64;
        for span in spans {
            index += i64::from(span.offset);
            // Spans may promise more buckets than there are, in a histogram built by hand.
            let room = counts.len() - indices.len();
            indices.extend((index..).take(room.min(span.length as usize)));
            index += i64::from(span.length);
        }
        let counts: Vec<f64> = counts.iter().copied().take(indices.len()).collect();
        indices.into_iter().zip(counts)
    }
}

/// How much a count has grown; `None` if it fell or either is not finite.
fn grown(now: f64, then: f64) -> Option<f64> {
    let grown = now - then;
    (grown >= 0.0 && grown.is_finite()).then_some(grown)
}

/// Bucketwise `now − then` with empty buckets left out; `None` if any bucket fell or vanished.
fn difference(now: &[(i64, f64)], then: &[(i64, f64)]) -> Option<(Vec<Span>, Vec<f64>)> {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut end = 0;
    let mut then = then.iter().copied().peekable();
    for &(index, count) in now {
        let mut before = 0.0;
        while let Some((old_index, old)) = then.next_if(|(old_index, _)| *old_index <= index) {
            if old_index == index {
                before = old;
            } else if old != 0.0 {
                return None;
            }
        }
        let more = grown(count, before)?;
        if more > 0.0 {
            match spans.last_mut() {
                Some(span) if index == end => span.length += 1,
                _ => spans.push(Span { offset: i32::try_from(index - end).ok()?, length: 1 }),
            }
            counts.push(more);
            end = index + 1;
        }
    }
    then.all(|(_, old)| old == 0.0).then_some((spans, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(schema: i32, offset: i32, counts: &[f64]) -> Histogram {
        let count = counts.iter().sum();
        Histogram {
            count,
            sum: 2.0 * count,
            schema,
            positive_spans: vec![Span { offset, length: counts.len() as u32 }],
            positive: counts.to_vec(),
            ..Histogram::default()
        }
    }

    fn buckets(histogram: &Histogram) -> Vec<(i64, f64)> {
        histogram.buckets(false).collect()
    }

    #[test]
    fn a_delta_is_bucketwise() {
        let (before, after) =
            (histogram(0, 2, &[1.0, 2.0, 3.0]), histogram(0, 1, &[4.0, 1.0, 5.0, 3.0, 1.0]));
        let delta = after.delta_since(&before).expect("grown");
        assert_eq!(buckets(&delta), [(1, 4.0), (3, 3.0), (5, 1.0)]);
        assert_eq!((delta.count(), delta.sum()), (8.0, 16.0));
        assert!(after.delta_since(&after).expect("equal").positive.is_empty());
        assert!(delta.heap_bytes() >= 3 * 8 + 3 * 8);
    }

    #[test]
    fn the_coarser_schema_wins() {
        // Schema 1's buckets 1 and 2 are schema 0's 1; 3 and 4 its 2; -1 and 0 its 0.
        let fine = histogram(1, -1, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let coarse = histogram(0, 0, &[2.0, 3.0, 4.0]);
        let delta = coarse.delta_since(&fine).expect("grown");
        assert_eq!(delta.schema, 0);
        assert_eq!(buckets(&delta), [(1, 1.0), (2, 2.0)]);
    }

    #[test]
    fn resets_and_strangers_have_no_delta() {
        let before = histogram(0, 1, &[1.0, 2.0]);
        let after = histogram(0, 1, &[2.0, 3.0]);
        assert!(after.delta_since(&before).is_some());
        let stale = Histogram { sum: f64::from_bits(STALE_BITS), ..after.clone() };
        for (now, then) in [
            (&before, &after),
            (&histogram(0, 1, &[0.0, 9.0]), &before),
            (&histogram(0, 2, &[9.0, 9.0]), &before),
            (&histogram(0, 0, &[9.0, 9.0]), &before),
            (&Histogram { reset_hint: ResetHint::Yes, ..after.clone() }, &before),
            (&Histogram { reset_hint: ResetHint::Gauge, ..after.clone() }, &before),
            (&Histogram { zero_threshold: 1.0, ..after.clone() }, &before),
            (&Histogram { schema: CUSTOM_SCHEMA, ..after.clone() }, &before),
            (&Histogram { count: f64::NAN, ..after.clone() }, &before),
            (&stale, &before),
            (&after, &stale),
        ] {
            assert_eq!(now.delta_since(then), None, "{now:?} since {then:?}");
        }
    }
}
