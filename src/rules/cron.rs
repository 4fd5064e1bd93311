//! Five-field cron expressions: which minutes of civil time begin an occurrence.
//!
//! Minute, hour, day of month, month, day of week; lists, ranges and steps, names of months and
//! days. Where both day fields are restricted either is enough, as in Vixie's cron. Nothing here
//! reads a clock.

use crate::time::{Millis, Span};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// A field: its name, its range, and names for its values from `from` on.
struct Field {
    name: &'static str,
    from: u8,
    to: u8,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", from: 0, to: 59, names: &[] };
const HOUR: Field = Field { name: "hour", from: 0, to: 23, names: &[] };
const DAY: Field = Field { name: "day of month", from: 1, to: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    from: 1,
    to: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is Sunday too.
const WEEKDAY: Field =
    Field { name: "day of week", from: 0, to: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Days of the months, from January, in a leap year.
const MOST_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Days looked over in one search: more than any month, so that no search is long.
const MOST_LOOKED_OVER: u32 = 40;

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day field begins with `*`: then both must fit.
    both_days: bool,
    /// Whether the minute or the hour begins with `*`: such an expression counts elapsed time, and
    /// so begins anew in an hour that comes twice.
    elapsed: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong, in which field.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "expected five fields (minute, hour, day of month, month, day of week) such as \"0 2 * * 0\", found {text:?}"
            ));
        };
        let mut weekdays = bits(&WEEKDAY, weekday)?;
        weekdays |= weekdays >> 7 & 1;
        let cron = Cron {
            text: fields.join(" "),
            minutes: bits(&MINUTE, minute)?,
            hours: bits(&HOUR, hour)?,
            days: bits(&DAY, day)?,
            months: bits(&MONTH, month)?,
            weekdays: weekdays & 0x7f,
            both_days: day.starts_with('*') || weekday.starts_with('*'),
            elapsed: minute.starts_with('*') || hour.starts_with('*'),
        };
        let first = cron.days.trailing_zeros();
        let comes = MOST_DAYS
            .iter()
            .zip(1u8..)
            .any(|(days, month)| cron.in_month(month) && first <= u32::from(*days));
        // With a day of the week that is enough by itself some day always fits.
        if cron.both_days && !comes {
            return Err(format!("never comes: no such month has a day {first}"));
        }
        Ok(cron)
    }

    fn in_month(&self, month: u8) -> bool {
        self.months >> month & 1 == 1
    }

    fn on(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        self.in_month(date.month() as u8) && if self.both_days { day && weekday } else { day || weekday }
    }

    /// Calls `f` with each occurrence of a civil day, in the order of the civil time.
    ///
    /// An occurrence at a time that the clock skips comes as much later as the clock skips; of a
    /// time that comes twice it is the first. With `*` in the minute or the hour it does not come
    /// in what is skipped, and comes twice in what is repeated.
    fn day(&self, date: Date, zone: &TimeZone, mut f: impl FnMut(Millis)) {
        if !self.on(date) {
            return;
        }
        let each = |of: u64, to: i8| (0..to).filter(move |n| of >> n & 1 == 1);
        for hour in each(self.hours, 24) {
            for minute in each(self.minutes, 60) {
                let civil: DateTime = date.at(hour, minute, 0, 0);
                let ambiguous = zone.to_ambiguous_timestamp(civil);
                let offsets = match ambiguous.offset() {
                    AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
                    AmbiguousOffset::Gap { .. } if self.elapsed => [None, None],
                    // Read by the offset before the change, the time lies after it.
                    AmbiguousOffset::Gap { before, .. } => [Some(before), None],
                    AmbiguousOffset::Fold { before, after } => [Some(before), self.elapsed.then_some(after)],
                };
                for instant in offsets.into_iter().flatten().flat_map(|offset| offset.to_timestamp(civil)) {
                    f(Millis(instant.as_millisecond()));
                }
            }
        }
    }

    /// The last occurrence in `(after, at]`, both at most 40 days apart.
    pub fn last(&self, after: Millis, at: Millis, zone: &TimeZone) -> Option<Millis> {
        let mut date = civil(at, zone)?.tomorrow().ok()?;
        let first = civil(after, zone)?.yesterday().ok()?;
        for _ in 0..=MOST_LOOKED_OVER + 2 {
            let mut found = None;
            self.day(date, zone, |start| {
                if start > after && start <= at {
                    found = found.max(Some(start));
                }
            });
            if found.is_some() || date <= first {
                return found;
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// The first occurrence in `(after, until]`, both at most 40 days apart.
    pub fn next(&self, after: Millis, until: Millis, zone: &TimeZone) -> Option<Millis> {
        let mut date = civil(after, zone)?.yesterday().ok()?;
        let last = civil(until, zone)?.tomorrow().ok()?;
        for _ in 0..=MOST_LOOKED_OVER + 2 {
            let mut found: Option<Millis> = None;
            self.day(date, zone, |start| {
                if start > after && start <= until {
                    found = Some(found.map_or(start, |found| found.min(start)));
                }
            });
            if found.is_some() || date >= last {
                return found;
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The longest span that [`Cron::last`] and [`Cron::next`] look over.
    pub const REACH: Span = Span::days(MOST_LOOKED_OVER as i64);
}

impl std::fmt::Display for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The civil date at an instant; `None` beyond the years that have one.
fn civil(at: Millis, zone: &TimeZone) -> Option<Date> {
    Timestamp::from_millisecond(at.0).ok().map(|instant| zone.to_datetime(instant).date())
}

/// A field's values as bits.
fn bits(field: &Field, text: &str) -> Result<u64, String> {
    let mut all = 0;
    for item in text.split(',') {
        all |= item_bits(field, item).map_err(|error| format!("{}: {error}", field.name))?;
    }
    Ok(all)
}

fn item_bits(field: &Field, item: &str) -> Result<u64, String> {
    let (range, step) = match item.split_once('/') {
        None => (item, None),
        Some((range, step)) => {
            let step = step.parse::<u8>().ok().filter(|step| *step > 0);
            (range, Some(step.ok_or_else(|| format!("expected a step of at least 1 in {item:?}"))?))
        }
    };
    let (from, to) = if range == "*" {
        (field.from, field.to.min(if field.names.len() == 7 { 6 } else { field.to }))
    } else if let Some((from, to)) = range.split_once('-') {
        let (from, to) = (field.value(from)?, field.value(to)?);
        // `fri-sun`: Sunday ends a week as well as it begins one.
        let to = if to == 0 && from > 0 && field.names.len() == 7 { 7 } else { to };
        if from > to {
            return Err(format!("{range:?} runs backwards; write two ranges, as in 22-23,0-4"));
        }
        (from, to)
    } else if step.is_some() {
        return Err(format!(
            "a step needs * or a range, as in {}-{}/2, found {item:?}",
            field.from, field.to
        ));
    } else {
        let value = field.value(range)?;
        (value, value)
    };
    Ok((from..=to).step_by(usize::from(step.unwrap_or(1))).fold(0, |all, value| all | 1 << value))
}

impl Field {
    fn value(&self, text: &str) -> Result<u8, String> {
        let named = self.names.iter().zip(self.from..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = || text.parse::<u8>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        named
            .map(|(_, value)| value)
            .or_else(number)
            .filter(|value| (self.from..=self.to).contains(value))
            .ok_or_else(|| format!("expected {}, found {text:?}", self.expected()))
    }

    fn expected(&self) -> String {
        match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!("{} to {} or {first} to {last}", self.from, self.to),
            _ => format!("{} to {}", self.from, self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        crate::time::calendar(name).expect(name)
    }

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().expect(text).as_millisecond())
    }

    /// Occurrences in a span, by repeated search forwards, checked against the search backwards.
    fn all(cron: &str, zone_name: &str, from: &str, to: &str) -> Vec<String> {
        let (cron, zone) = (Cron::parse(cron).expect(cron), zone(zone_name));
        let (mut after, until) = (at(from), at(to));
        let mut found = Vec::new();
        while let Some(next) = cron.next(after, until, &zone) {
            assert_eq!(cron.last(after, until.min(next.plus(59_999)), &zone), Some(next));
            assert_eq!(cron.last(after, next.plus(-1), &zone), None);
            found.push(Timestamp::from_millisecond(next.0).expect("a time").to_string());
            after = next;
        }
        found
    }

    #[test]
    fn lists_ranges_steps_and_names() {
        let cron = |text| Cron::parse(text).expect(text);
        assert_eq!(cron("0,30 8-10/2 * jan,Mar-apr MON-fri").minutes, 1 | 1 << 30);
        assert_eq!(cron("0 8-10/2 * * *").hours, 1 << 8 | 1 << 10);
        assert_eq!(cron("0 0 * jan,Mar-apr *").months, 0b11010);
        assert_eq!(cron("0 0 * * MON-fri").weekdays, 0b111110);
        assert_eq!(cron("0 0 * * 7").weekdays, 1);
        assert_eq!(cron("0 0 * * fri-sun").weekdays, 0b1100001);
        assert_eq!(cron("*/20 * * * */2").minutes, 1 | 1 << 20 | 1 << 40);
        assert_eq!(cron("*/20 * * * */2").weekdays, 0b1010101);
        assert_eq!(cron("  0  2 *\t* 0 ").to_string(), "0 2 * * 0");
    }

    #[test]
    fn mistakes_name_their_field() {
        for (text, part) in [
            ("0 2 * *", "expected five fields"),
            ("@daily", "expected five fields"),
            ("60 2 * * 0", "minute: expected 0 to 59, found \"60\""),
            ("0 24 * * 0", "hour: expected 0 to 23"),
            ("0 2 0 * *", "day of month: expected 1 to 31"),
            ("0 2 * foo *", "month: expected 1 to 12 or jan to dec"),
            ("0 2 * * 8", "day of week: expected 0 to 7 or sun to sat"),
            ("0 22-4 * * *", "hour: \"22-4\" runs backwards"),
            ("0/5 2 * * *", "minute: a step needs * or a range"),
            ("*/0 2 * * *", "minute: expected a step of at least 1"),
            ("0 2 , * *", "day of month: expected 1 to 31, found \"\""),
            ("0 +2 * * *", "hour: expected 0 to 23"),
            ("0 2 30 feb *", "never comes"),
            ("0 2 31 2,4 *", "never comes"),
        ] {
            let error = Cron::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(Cron::parse("0 2 29 2 *").is_ok() && Cron::parse("0 2 30 2 mon").is_ok());
    }

    #[test]
    fn either_day_is_enough_where_both_are_restricted() {
        let week = ("2026-06-01T00:00:00Z", "2026-06-15T00:00:00Z");
        let both = all("0 0 10 * mon", "UTC", week.0, week.1);
        assert_eq!(both, ["2026-06-08T00:00:00Z", "2026-06-10T00:00:00Z", "2026-06-15T00:00:00Z"]);
        let star = all("0 0 */2 * mon", "UTC", week.0, week.1);
        assert_eq!(star, ["2026-06-15T00:00:00Z"], "*/2 begins with *: both must fit");
    }

    #[test]
    fn a_skipped_hour_moves_and_a_repeated_one_counts_once() {
        let spring = ("2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z");
        let daily = all("30 2 * * *", "Europe/Berlin", spring.0, spring.1);
        // On the 29th 02:30 does not exist: 03:30 summer time, 24 h after the day before.
        assert_eq!(daily, ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = ("2026-10-24T22:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(all("30 2 * * *", "Europe/Berlin", autumn.0, autumn.1), ["2026-10-25T00:30:00Z"]);
        let hourly = all("30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", "2026-10-25T02:45:00Z");
        assert_eq!(hourly, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
        let hourly = all("30 * * * *", "Europe/Berlin", "2026-03-28T23:45:00Z", "2026-03-29T02:45:00Z");
        assert_eq!(hourly, ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in r"[0-9*/,a-z -]{0,24}") {
            if let Ok(cron) = Cron::parse(&text) {
                for at in [i64::MIN, -1, 1_790_000_000_000, i64::MAX] {
                    let at = Millis(at);
                    cron.last(at.plus(-86_400_000), at, &TimeZone::UTC);
                    cron.next(at, at.plus(86_400_000), &TimeZone::UTC);
                }
            }
        }
    }
}
