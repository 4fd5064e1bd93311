//! From samples to signals: values as they are, counters as rates or increases, native histograms
//! as count rate, mean or quantile.

use crate::registry::Previous;
use crate::rules::As;
use crate::time::Millis;
use crate::wire::Histogram;

/// What a sample means for one signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// A value to model.
    Value(f64),
    /// No value: the first sample of a counter, or the one after a reset. Nobody knows when within
    /// the interval a reset happened, so a rate over it would be a guess.
    None,
}

/// Reads a float sample.
pub fn read_float(transform: As, previous: &mut Previous, at: Millis, value: f64) -> Reading {
    let per_second = match transform {
        As::Rate => true,
        As::Delta => false,
        _ => return Reading::Value(value),
    };
    let before = std::mem::replace(previous, Previous::Value(at, value));
    let Previous::Value(then, before) = before else { return Reading::None };
    // Not a number, or a fall: a reset.
    if value.is_nan() || before.is_nan() || value < before {
        return Reading::None;
    }
    let increase = value - before;
    let seconds = at.since(then) as f64 / 1e3;
    Reading::Value(if per_second { increase / seconds } else { increase })
}

/// Reads a native histogram. Gauge histograms are not told apart: their decreases read as resets.
pub fn read_histogram(transform: As, previous: &mut Previous, at: Millis, now: &Histogram) -> Reading {
    let before = std::mem::replace(previous, Previous::Histogram(at, Box::new(now.clone())));
    let Previous::Histogram(then, before) = before else { return Reading::None };
    let Some(since) = now.delta_since(&before) else { return Reading::None };
    let seconds = at.since(then) as f64 / 1e3;
    let value = match transform {
        As::CountRate => Some(since.count() / seconds),
        As::Mean if since.count() > 0.0 => Some(since.sum() / since.count()),
        As::Quantile(q) if since.count() > 0.0 => since.quantile(q.get()),
        _ => None,
    };
    value.map_or(Reading::None, Reading::Value)
}

/// Whether a transform reads native histograms rather than floats.
pub fn reads_histograms(transform: As) -> bool {
    matches!(transform, As::CountRate | As::Mean | As::Quantile(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates_and_resets_are_passed_over() {
        let mut previous = Previous::Nothing;
        let mut read = |at, value| read_float(As::Rate, &mut previous, Millis(at), value);
        assert_eq!(read(0, 100.0), Reading::None);
        assert_eq!(read(15_000, 130.0), Reading::Value(2.0));
        assert_eq!(read(45_000, 130.0), Reading::Value(0.0));
        assert_eq!(read(60_000, 5.0), Reading::None, "a reset");
        assert_eq!(read(75_000, 35.0), Reading::Value(2.0));
    }

    #[test]
    fn increases_and_plain_values() {
        let mut previous = Previous::Nothing;
        assert_eq!(read_float(As::Delta, &mut previous, Millis(0), 1.0), Reading::None);
        assert_eq!(read_float(As::Delta, &mut previous, Millis(5_000), 4.0), Reading::Value(3.0));
        assert_eq!(read_float(As::Value, &mut previous, Millis(9_000), -4.0), Reading::Value(-4.0));
    }
}
