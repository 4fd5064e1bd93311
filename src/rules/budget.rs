//! `false_alarms`: how many alarms a healthy series may raise.

use crate::time::Span;
use std::fmt;

/// At most one alarm in `span`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Time for each promised alarm, 10 m to 10 y.
    pub span: Span,
}

impl Budget {
    /// The shortest and the longest time for one alarm: beyond them the promise means nothing.
    pub const RANGE: (Span, Span) = (Span::minutes(10), Span::days(3650));

    /// Reads `1 per 30d`, `2 per 7d`; also `once per week`, `1/30d`, `1 per day`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Budget, String> {
        let wrong = || format!("expected \"1 per 30d\" or \"2 per 7d\", found {text:?}");
        let spaced = text.replace('/', " per ").to_lowercase();
        let mut words = spaced.split_whitespace();
        let count = match words.next() {
            Some("once") => 1.0,
            Some("twice") => 2.0,
            Some(number) => number.parse::<f64>().map_err(|_| wrong())?,
            None => return Err(wrong()),
        };
        if !matches!(words.next(), Some("per" | "in" | "a" | "every")) {
            return Err(wrong());
        }
        let time = match words.next() {
            Some("hour") => Span::HOUR,
            Some("day") => Span::DAY,
            Some("week") => Span::days(7),
            Some("month") => Span::days(30),
            Some("year") => Span::days(365),
            Some(text) => Span::parse(text).map_err(|_| wrong())?,
            None => return Err(wrong()),
        };
        match (words.next(), words.next(), words.next()) {
            (None, ..) | (Some("per"), Some("series"), None) => {}
            (Some("per"), Some("rule"), None) => {
                return Err("`per rule` is reserved for a later version; give it per series".into());
            }
            _ => return Err(wrong()),
        }
        if count == 0.0 {
            return Err(
                "no alarm at all cannot be promised; give a longer time, such as \"1 per 365d\"".into()
            );
        }
        if !(count.is_finite() && count > 0.0) {
            return Err(wrong());
        }
        let span = Span((time.0 as f64 / count).round() as i64);
        let (least, most) = Self::RANGE;
        if span < least || span > most {
            return Err(format!("one alarm per {span} is out of range; from {least} to {most} is possible"));
        }
        Ok(Budget { span })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 per {}", self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_as_people_write_them() {
        for (text, span) in [
            ("1 per 30d", Span::days(30)),
            ("2 per 7d", Span::hours(84)),
            ("1 per 7d per series", Span::days(7)),
            ("1/30d", Span::days(30)),
            ("once per week", Span::days(7)),
            ("3 per day", Span::hours(8)),
            ("0.5 per 1w", Span::days(14)),
        ] {
            assert_eq!(Budget::parse(text), Ok(Budget { span }), "{text}");
        }
        assert_eq!(Budget::parse("2 per 14d").map(|b| b.to_string()), Ok("1 per 7d".into()));
        assert!(Budget::parse("1 per 7d per rule").is_err_and(|why| why.contains("later version")));
    }

    #[test]
    fn what_cannot_be_promised_is_refused() {
        for text in ["", "30d", "1", "1 per", "x per 7d", "1 per 7", "1 per 7d per", "1 per 7d per rule x"] {
            assert!(Budget::parse(text).is_err_and(|e| e.starts_with("expected")), "{text}");
        }
        for text in ["0 per 7d", "1 per 1m", "1 per 0", "1 per 100y", "-1 per 7d", "nan per 7d", "inf per 7d"]
        {
            assert!(Budget::parse(text).is_err(), "{text}");
        }
    }
}
