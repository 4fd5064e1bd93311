//! How many labelled events were found, and how many alarms were false.
//!
//! An *event* is a run of labelled rows (or a labelled window of time), an *alarm* a run of flagged
//! rows, closed by a quiet time. An event is found when a flagged row lies in it. An alarm is true
//! when one of its flagged rows lies in an event or within the quiet time after it, else false.

use serde::Serialize;

/// Shortest quiet time that closes an alarm, ms; the longer of it and [`QUIET_ROWS`] counts.
pub const QUIET_MS: i64 = 300_000;
/// Usual intervals without a flag that close an alarm.
pub const QUIET_ROWS: i64 = 5;

/// One row, as the judge sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its time, ms. Rows out of order are not judged.
    pub at: i64,
    /// Whether the score reached 1.
    pub flagged: bool,
}

/// The verdict on one file, or the sum over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Judgement {
    /// Alarms.
    pub alarms: usize,
    /// Alarms that touch no event.
    pub false_alarms: usize,
    /// Labelled events that lie at least partly after the warm-up.
    pub events: usize,
    /// Events found.
    pub found: usize,
    /// Sum over found events of the time from the event's start to the first flag, ms.
    pub delay_ms: i64,
}

impl Judgement {
    /// True alarms over alarms; `None` without alarms.
    pub fn precision(&self) -> Option<f64> {
        (self.alarms > 0).then(|| (self.alarms - self.false_alarms) as f64 / self.alarms as f64)
    }
    /// Found events over events; `None` without events.
    pub fn recall(&self) -> Option<f64> {
        (self.events > 0).then(|| self.found as f64 / self.events as f64)
    }
    /// Harmonic mean of precision and recall; `None` without events.
    pub fn f1(&self) -> Option<f64> {
        let recall = self.recall()?;
        let precision = self.precision().unwrap_or(0.0);
        Some(if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 })
    }
    /// Adds another file's.
    pub fn add(&mut self, other: &Judgement) {
        self.alarms += other.alarms;
        self.false_alarms += other.false_alarms;
        self.events += other.events;
        self.found += other.found;
        self.delay_ms += other.delay_ms;
    }
}

/// The runs of labelled rows as windows of time, both ends included.
pub fn events_of_labels(rows: impl Iterator<Item = (i64, bool)>) -> Vec<(i64, i64)> {
    let mut events: Vec<(i64, i64)> = Vec::new();
    let mut open = false;
    for (at, label) in rows {
        match (label, open, events.last_mut()) {
            (true, true, Some(event)) => event.1 = at,
            (true, _, _) => events.push((at, at)),
            _ => {}
        }
        open = label;
    }
    events
}

/// Judges rows in increasing order of time against events (windows of time, both ends included).
/// Events that end before `scored_from` could not be found and do not count.
pub fn judge(rows: &[Judged], events: &[(i64, i64)], interval: i64, scored_from: i64) -> Judgement {
    let quiet = QUIET_MS.max(QUIET_ROWS.saturating_mul(interval));
    let mut verdict = Judgement::default();
    // Of each alarm: its last flag, and whether it is true.
    let mut alarm: Option<(i64, bool)> = None;
    for row in rows.iter().filter(|row| row.flagged) {
        let hit = events.iter().any(|(start, end)| (*start..=end.saturating_add(quiet)).contains(&row.at));
        match &mut alarm {
            Some((last, truth)) if row.at - *last <= quiet => {
                *last = row.at;
                if hit && !*truth {
                    *truth = true;
                    verdict.false_alarms -= 1;
                }
            }
            _ => {
                verdict.alarms += 1;
                verdict.false_alarms += usize::from(!hit);
                alarm = Some((row.at, hit));
            }
        }
    }
    for (start, end) in events.iter().filter(|(_, end)| *end >= scored_from) {
        verdict.events += 1;
        let first = rows.iter().find(|row| row.flagged && (*start..=*end).contains(&row.at));
        if let Some(first) = first {
            verdict.found += 1;
            verdict.delay_ms += first.at - start;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(flags: &[i64], n: i64) -> Vec<Judged> {
        (0..n).map(|i| Judged { at: i * 60_000, flagged: flags.contains(&i) }).collect()
    }

    #[test]
    fn events_are_runs_of_labels() {
        let labels = [0, 1, 1, 0, 1, 0, 0, 1];
        let got = events_of_labels(labels.iter().enumerate().map(|(i, l)| (i as i64, *l == 1)));
        assert_eq!(got, [(1, 2), (4, 4), (7, 7)]);
    }

    #[test]
    fn alarms_and_events_are_counted_once() {
        let minute = 60_000;
        let events = [(10 * minute, 20 * minute), (50 * minute, 55 * minute), (90 * minute, 92 * minute)];
        // One alarm that starts before the event and runs into it, one false, one in an event's tail.
        let verdict = judge(&rows(&[8, 12, 13, 14, 30, 31, 57], 100), &events, minute, 0);
        let expected = Judgement { alarms: 3, false_alarms: 1, events: 3, found: 1, delay_ms: 2 * minute };
        assert_eq!(verdict, expected);
        assert_eq!(verdict.precision(), Some(2.0 / 3.0));
        assert_eq!(verdict.recall(), Some(1.0 / 3.0));
        assert!((verdict.f1().expect("events") - 4.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_found_does_not_count_and_nothing_has_no_ratio() {
        let verdict = judge(&rows(&[], 10), &[(0, 60_000)], 60_000, 120_000);
        assert_eq!(verdict, Judgement::default());
        assert_eq!((verdict.precision(), verdict.recall(), verdict.f1()), (None, None, None));
    }
}
