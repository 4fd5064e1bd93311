//! Time as the wire has it: Unix milliseconds, and Prometheus's durations.
//!
//! No clock is read here. Rooms that need the time of day take it as an argument.

mod zone;

pub use zone::{Zone, calendar};

use crate::codec::stored;
use std::fmt;

/// A point in time: milliseconds since the Unix epoch, may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The earliest representable time: "never seen".
    pub const MIN: Millis = Millis(i64::MIN);
    /// Milliseconds from `earlier` to `self`, saturating.
    pub fn since(self, earlier: Millis) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
    /// This time moved by `ms` milliseconds, saturating.
    pub fn plus(self, ms: i64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

stored!(struct Millis(_));

/// A span of time in milliseconds, written as Prometheus writes it (`1h30m`, `500ms`, `7d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

impl Span {
    /// One second.
    pub const SECOND: Span = Span(1_000);
    /// One minute.
    pub const MINUTE: Span = Span(60_000);
    /// One hour.
    pub const HOUR: Span = Span(3_600_000);
    /// One day.
    pub const DAY: Span = Span(86_400_000);
    /// `n` seconds.
    pub const fn seconds(n: i64) -> Span {
        Span(n * 1_000)
    }
    /// `n` minutes.
    pub const fn minutes(n: i64) -> Span {
        Span(n * 60_000)
    }
    /// `n` hours.
    pub const fn hours(n: i64) -> Span {
        Span(n * 3_600_000)
    }
    /// `n` days.
    pub const fn days(n: i64) -> Span {
        Span(n * 86_400_000)
    }
    /// The span in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }
    /// The span as the standard library has it; a negative span is zero.
    pub fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.max(0) as u64)
    }

    /// Parses a Prometheus duration: `0`, or units `y w d h m s ms`, each at most once and in
    /// that order (Prometheus `model.ParseDuration`).
    ///
    /// # Errors
    /// Says what is wrong with the text, without the text itself.
    pub fn parse(text: &str) -> Result<Span, String> {
        const UNITS: [(&str, i64); 7] = [
            ("y", 365 * 86_400_000),
            ("w", 7 * 86_400_000),
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ];
        let wrong = || "expected a duration such as 30s, 5m, 1h30m or 7d".to_string();
        if text == "0" {
            return Ok(Span(0));
        }
        let (mut rest, mut next, mut total) = (text, 0, 0i64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let number: i64 = number.parse().map_err(|_| wrong())?;
            let at = UNITS[next..].iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let ms = number.checked_mul(UNITS[next + at].1);
            total = ms
                .and_then(|ms| total.checked_add(ms))
                .ok_or_else(|| "the duration is out of range".to_string())?;
            next += at + 1;
            rest = tail;
        }
        Ok(Span(total))
    }
}

stored!(struct Span(_));

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut ms = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_prometheus_has_them() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("15s", 15_000, "15s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1w", 604_800_000, "7d"),
            ("500ms", 500, "500ms"),
        ] {
            let span = Span::parse(text).expect(text);
            assert_eq!((span.0, span.to_string().as_str()), (ms, shown), "{text}");
        }
        for text in ["", "5", "m", "5x", "1m1h", "1s1s", "-5m", "99999999999y", "5 m"] {
            assert!(Span::parse(text).is_err(), "{text:?} should be refused");
        }
    }
}
