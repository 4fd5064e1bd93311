//! Maintenance windows (`ignore`): when, and for which series, scores stay below 1 and nothing is
//! learnt.
//!
//! Whether a sample lies in a window hangs on its own time alone, so every replay agrees. What is
//! kept between questions only saves asking the calendar again.

use super::cron::Cron;
use crate::labels::Selector;
use crate::time::{Millis, Span};
use arc_swap::ArcSwap;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// When a window is open.
#[derive(Clone, Debug)]
pub enum When {
    /// Once, from the first to before the second.
    Once(Millis, Millis),
    /// For a while from each time that fits, in elapsed time.
    Cron {
        /// When it opens.
        cron: Cron,
        /// How long it is open.
        duration: Span,
        /// Whose civil time counts.
        zone: TimeZone,
    },
}

/// One window.
#[derive(Clone, Debug)]
pub struct Window {
    /// When it is open.
    pub when: When,
    /// Series that it concerns: those that fit any; all where there is none.
    pub selectors: Vec<Selector>,
    /// What it is for.
    pub comment: Option<String>,
}

/// A span of time in which windows neither open nor close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first instant.
    pub from: Millis,
    /// The first instant after it.
    pub until: Millis,
    /// The windows open in it, by number.
    pub open: Vec<usize>,
}

/// How far around an instant one question looks.
const LOOK: Span = Span::days(1);

impl Window {
    /// The longest a cron window may be open: what one search looks over.
    pub const LONGEST: Span = Span::days(31);

    /// Whether it is open at an instant, and a span around it for which that holds.
    fn at(&self, at: Millis) -> (bool, Millis, Millis) {
        match &self.when {
            When::Once(from, _) if at < *from => (false, Millis::MIN, *from),
            When::Once(from, to) if at < *to => (true, *from, *to),
            When::Once(_, to) => (false, *to, Millis(i64::MAX)),
            When::Cron { cron, duration, zone } => {
                let back = at.plus(-duration.0).plus(-LOOK.0);
                let closed_from = match cron.last(back, at, zone) {
                    Some(start) if at < start.plus(duration.0) => {
                        return (true, start, start.plus(duration.0));
                    }
                    Some(start) => start.plus(duration.0),
                    None => at.plus(-LOOK.0),
                };
                let ahead = at.plus(LOOK.0);
                (false, closed_from, cron.next(at, ahead, zone).unwrap_or(ahead))
            }
        }
    }

    /// Whether it concerns a series.
    pub fn concerns<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.selectors.is_empty() || self.selectors.iter().any(|selector| selector.matches(&get))
    }
}

/// The windows of a rule: the file's and its own.
#[derive(Clone, Debug, Default)]
pub struct Windows(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    windows: Vec<Arc<Window>>,
    /// The last answer. It is right for every instant within it, whoever asked.
    last: ArcSwap<Segment>,
}

impl Windows {
    /// These windows.
    pub fn new(windows: Vec<Arc<Window>>) -> Windows {
        if windows.is_empty() {
            return Windows(None);
        }
        let nothing = Segment { from: Millis(0), until: Millis(0), open: Vec::new() };
        Windows(Some(Arc::new(Inner { windows, last: ArcSwap::from_pointee(nothing) })))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.0.iter().flat_map(|inner| inner.windows.iter())
    }

    /// Until when the windows that a series is in stay open; `None` where it is in none.
    #[inline]
    pub fn open_until<'a>(&self, at: Millis, get: impl Fn(&str) -> Option<&'a str>) -> Option<Millis> {
        // Most rules have none, and most instants lie in none.
        let inner = self.0.as_ref()?;
        inner.with(at, |segment| {
            let open = segment.open.iter().filter_map(|n| inner.windows.get(*n));
            open.into_iter().any(|window| window.concerns(&get)).then_some(segment.until)
        })
    }

    /// The windows open at an instant, whatever series they concern, each with when it closes or
    /// another one opens or closes.
    pub fn open(&self, at: Millis) -> Vec<(Arc<Window>, Millis)> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let open = |window: &&Arc<Window>| window.at(at).0;
        inner.windows.iter().filter(open).map(|window| (window.clone(), window.at(at).2)).collect()
    }
}

impl Inner {
    fn with<T>(&self, at: Millis, f: impl FnOnce(&Segment) -> T) -> T {
        let last = self.last.load();
        if last.from <= at && at < last.until {
            return f(&last);
        }
        let segment = self.segment(at);
        let answer = f(&segment);
        self.last.store(Arc::new(segment));
        answer
    }

    fn segment(&self, at: Millis) -> Segment {
        let mut segment = Segment { from: Millis::MIN, until: Millis(i64::MAX), open: Vec::new() };
        for (number, window) in self.windows.iter().enumerate() {
            let (open, from, until) = window.at(at);
            segment.from = segment.from.max(from);
            segment.until = segment.until.min(until);
            if open {
                segment.open.push(number);
            }
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::selector;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<jiff::Timestamp>().expect(text).as_millisecond())
    }

    fn cron(text: &str, duration: Span, zone_name: &str) -> Window {
        let when = When::Cron {
            cron: Cron::parse(text).expect(text),
            duration,
            zone: crate::time::calendar(zone_name).expect(zone_name),
        };
        Window { when, selectors: Vec::new(), comment: None }
    }

    fn windows(list: Vec<Window>) -> Windows {
        Windows::new(list.into_iter().map(Arc::new).collect())
    }

    #[test]
    fn a_window_holds_its_first_instant_and_not_its_end() {
        let once = Window {
            when: When::Once(at("2026-01-01T00:00:00Z"), at("2026-01-01T02:00:00+01:00")),
            selectors: selector::parse("up{job=\"a\"}").expect("valid"),
            comment: None,
        };
        let all = windows(vec![once]);
        let get = |job: &'static str| {
            move |name: &str| match name {
                "__name__" => Some("up"),
                "job" => Some(job),
                _ => None,
            }
        };
        let end = at("2026-01-01T01:00:00Z");
        for (time, open) in [
            ("2025-12-31T23:59:59.999Z", None),
            ("2026-01-01T00:00:00Z", Some(end)),
            ("2026-01-01T00:59:59.999Z", Some(end)),
            ("2026-01-01T01:00:00Z", None),
        ] {
            assert_eq!(all.open_until(at(time), get("a")), open, "{time}");
            assert_eq!(all.open_until(at(time), get("b")), None, "{time}: of another job");
        }
        assert_eq!(Windows::default().open_until(end, get("a")), None);
    }

    #[test]
    fn two_hours_are_two_hours_when_the_clock_is_changed() {
        for (start, zone) in
            [("2026-03-29T00:30:00Z", "Europe/Berlin"), ("2026-10-24T23:30:00Z", "Europe/Berlin")]
        {
            let window = cron("30 1 * * sun", Span::hours(2), zone);
            let start = at(start);
            let (open, from, until) = window.at(start.plus(1));
            assert_eq!((open, from, until), (true, start, start.plus(7_200_000)));
        }
    }

    #[test]
    fn overlapping_occurrences_are_one_opening() {
        let window = cron("0 * * * *", Span::minutes(90), "UTC");
        let all = windows(vec![window]);
        let start = at("2026-05-05T05:00:00Z");
        for minute in 0..600 {
            assert!(all.open_until(start.plus(minute * 60_000), |_| None).is_some());
        }
    }

    #[test]
    fn a_window_may_be_open_for_weeks_and_open_once_in_years() {
        let month = cron("0 0 1 * *", Span::days(20), "UTC");
        assert!(month.at(at("2026-05-20T23:59:59Z")).0 && !month.at(at("2026-05-21T00:00:00Z")).0);
        let leap = cron("0 0 29 feb *", Span::days(2), "UTC");
        assert!(leap.at(at("2028-03-01T12:00:00Z")).0 && !leap.at(at("2027-03-01T12:00:00Z")).0);
    }

    proptest::proptest! {
        /// What is remembered changes no answer, in whatever order the questions come.
        #[test]
        fn the_memory_changes_no_answer(times in proptest::collection::vec(0i64..40 * 86_400_000, 1..60)) {
            let list = || vec![
                cron("0 2 * * *", Span::hours(3), "Europe/Berlin"),
                cron("*/30 9-17 * * mon-fri", Span::minutes(10), "America/New_York"),
                Window { when: When::Once(Millis(1_772_000_000_000), Millis(1_772_900_000_000)), selectors: Vec::new(), comment: None },
            ];
            let remembering = windows(list());
            // From 2026-02-20 on, over the changes of clocks in both zones.
            for time in times.into_iter().map(|time| Millis(1_771_545_600_000 + time)) {
                let fresh = windows(list()).open_until(time, |_| None);
                let told = remembering.open_until(time, |_| None);
                proptest::prop_assert_eq!(told.is_some(), fresh.is_some());
                // The end told may be nearer than it is, never farther.
                for until in told.into_iter().chain(fresh) {
                    proptest::prop_assert!(until > time);
                    proptest::prop_assert!(windows(list()).open_until(until.plus(-1), |_| None).is_some());
                }
            }
        }
    }
}
