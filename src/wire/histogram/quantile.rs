//! Quantiles of a native histogram as PromQL's `histogram_quantile` computes them
//! (promql/quantile.go): exponential interpolation in exponential buckets, linear elsewhere.

use super::Histogram;

#[derive(Clone, Copy)]
struct Bucket {
    lower: f64,
    upper: f64,
    count: f64,
}

impl Histogram {
    /// The `q`-quantile (0 ≤ q ≤ 1) of what was observed, in the unit observed. `None` where there
    /// is none: nothing observed, stale, q outside its range, or the rank falls among NaN
    /// observations.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&q) || self.is_stale() || !(self.count > 0.0 && self.count.is_finite()) {
            return None;
        }
        let mut buckets = self.all_buckets();
        buckets.retain(|bucket| bucket.count > 0.0);
        // From the nearer end, so that float counts' rounding matters least; NaN observations rank
        // above all others, so they are only counted rightly from below.
        let forward = self.sum.is_nan() || q < 0.5;
        let rank = if forward { q * self.count } else { (1.0 - q) * self.count };
        if !forward {
            buckets.reverse();
        }
        let mut seen = 0.0;
        let reached = buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen >= rank
        });
        let Bucket { mut lower, mut upper, count } = *reached.or(buckets.last())?;
        if self.is_custom() {
            if upper == f64::INFINITY {
                return lower.is_finite().then_some(lower);
            }
            if lower == f64::NEG_INFINITY {
                if upper <= 0.0 {
                    return Some(upper);
                }
                lower = 0.0;
            }
        } else if lower < 0.0 && upper > 0.0 {
            // With buckets on one side only, the zero bucket is taken to be on that side.
            match (self.negative.is_empty(), self.positive.is_empty()) {
                (true, false) => lower = 0.0,
                (false, true) => upper = 0.0,
                _ => {}
            }
        }
        if reached.is_none() {
            // The rest are NaN observations, or lost to float counts' rounding.
            return (!self.sum.is_nan()).then_some(if forward { upper } else { lower });
        }
        let within = if forward { rank - (seen - count) } else { seen - rank };
        let fraction = within / count;
        let value = if self.is_custom() || (lower <= 0.0 && upper >= 0.0) {
            lower + (upper - lower) * fraction
        } else {
            let (low, high) = (libm::log2(lower.abs()), libm::log2(upper.abs()));
            if lower > 0.0 {
                libm::exp2(low + (high - low) * fraction)
            } else {
                -libm::exp2(high + (low - high) * (1.0 - fraction))
            }
        };
        value.is_finite().then_some(value)
    }

    /// All buckets in ascending order, the zero bucket among them.
    fn all_buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.positive.len() + self.negative.len() + 1);
        if self.is_custom() {
            let bound = |index: i64| match usize::try_from(index) {
                Ok(index) => self.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
                Err(_) => f64::NEG_INFINITY,
            };
            let buckets = self.buckets(false);
            all.extend(buckets.map(|(i, count)| Bucket { lower: bound(i - 1), upper: bound(i), count }));
            return all;
        }
        // The zero bucket keeps what the others overlap.
        let zero = self.zero_threshold;
        all.extend(self.buckets(true).rev().map(|(i, count)| Bucket {
            lower: -exponential_bound(i, self.schema),
            upper: (-exponential_bound(i - 1, self.schema)).min(-zero),
            count,
        }));
        all.push(Bucket { lower: -zero, upper: zero, count: self.zero_count });
        all.extend(self.buckets(false).map(|(i, count)| Bucket {
            lower: exponential_bound(i - 1, self.schema).max(zero),
            upper: exponential_bound(i, self.schema),
            count,
        }));
        all
    }
}

/// Upper bound of exponential bucket `index`; at most the largest finite number.
fn exponential_bound(index: i64, schema: i32) -> f64 {
    let exponent = index as f64 * libm::exp2(f64::from(-schema));
    libm::exp2(exponent).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{CUSTOM_SCHEMA, Span};
    use super::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a quantile");
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    fn one_bucket(schema: i32, offset: i32, count: f64) -> Histogram {
        Histogram {
            count,
            schema,
            positive_spans: vec![Span { offset, length: 1 }],
            positive: vec![count],
            ..Histogram::default()
        }
    }

    #[test]
    fn exponential_buckets_interpolate_exponentially() {
        // (1, 2] at schema 0: PromQL's own test has 2^0.5 as its median.
        let positive = one_bucket(0, 1, 4.0);
        close(positive.quantile(0.5), 2f64.sqrt());
        close(positive.quantile(0.25), 2f64.powf(0.25));
        close(positive.quantile(1.0), 2.0);
        close(positive.quantile(0.0), 1.0);
        // (4, 16] at schema -1.
        close(one_bucket(-1, 2, 1.0).quantile(0.5), 8.0);
        let negative = Histogram {
            negative_spans: positive.positive_spans.clone(),
            negative: positive.positive.clone(),
            positive_spans: vec![],
            positive: vec![],
            ..positive
        };
        close(negative.quantile(0.75), -2f64.powf(0.25));
        close(negative.quantile(0.25), -2f64.powf(0.75));
    }

    #[test]
    fn the_zero_bucket_is_linear_and_on_the_side_of_the_others() {
        let both = Histogram { count: 2.0, zero_count: 2.0, zero_threshold: 0.5, ..Histogram::default() };
        close(both.quantile(0.25), -0.25);
        let positive =
            Histogram { zero_count: 4.0, count: 8.0, zero_threshold: 0.5, ..one_bucket(0, 1, 4.0) };
        close(positive.quantile(0.25), 0.25);
        close(positive.quantile(0.75), 2f64.sqrt());
    }

    #[test]
    fn custom_buckets_are_linear_and_open_at_the_end() {
        let custom = Histogram {
            count: 10.0,
            schema: CUSTOM_SCHEMA,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive: vec![2.0, 6.0, 2.0],
            custom_values: vec![1.0, 4.0],
            ..Histogram::default()
        };
        close(custom.quantile(0.1), 0.5);
        close(custom.quantile(0.5), 2.5);
        close(custom.quantile(0.95), 4.0);
    }

    #[test]
    fn there_may_be_none() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(one_bucket(0, 1, 4.0).quantile(1.5), None);
        assert_eq!(one_bucket(0, 1, 4.0).quantile(f64::NAN), None);
        // Half of the observations are NaN.
        let half = Histogram { count: 8.0, sum: f64::NAN, ..one_bucket(0, 1, 4.0) };
        close(half.quantile(0.25), 2f64.sqrt());
        assert_eq!(half.quantile(0.75), None);
    }
}
