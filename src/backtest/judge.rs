//! How many labelled events were found, and how many alarms were false.
//!
//! An *event* is a run of labelled rows; it is found when a flagged row lies in it. Precision, recall
//! and F1 are strict and count in rows: flagged rows outside of events, nearer than [`GAP_ROWS`] to
//! each other, are one false event, and again one for every [`AGAIN_ROWS`] rows that they last, so that
//! who always flags does not win; the [`GAP_ROWS`] rows after an event are its tail and free.
//!
//! An *alarm* is what a person is told of: a run of flagged rows closed by a quiet time. It is true
//! when one of its rows lies in an event or within the quiet time after it, else false. Both rules
//! are told apart because a budget promises alarms, while F1 is to be compared with the literature's.

use serde::Serialize;

/// Shortest quiet time that closes an alarm, ms; the longer of it and [`QUIET_ROWS`] counts.
pub const QUIET_MS: i64 = 300_000;
/// Usual intervals without a flag that close an alarm.
pub const QUIET_ROWS: i64 = 5;
/// Rows apart up to which false flags are one false event, and rows after an event that are free.
pub const GAP_ROWS: usize = 10;
/// A false event that stays on counts again after so many rows.
pub const AGAIN_ROWS: usize = 60;

/// One row, as the judge sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its time, ms. Flagged rows come in increasing order of time.
    pub at: i64,
    /// Whether it is labelled.
    pub label: bool,
    /// Whether the score reached 1.
    pub flagged: bool,
}

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first flag, ms.
    pub start: i64,
    /// Its last flag, ms.
    pub end: i64,
    /// Whether it touches an event.
    pub hit: bool,
}

/// The verdict on one series, or the sum over series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Alarms that touch no event.
    pub false_alarms: usize,
    /// Labelled events.
    pub events: usize,
    /// Events found.
    pub found: usize,
    /// False events; see the module page.
    pub false_events: usize,
    /// Of each found event the time from its start to its first flag, ms.
    #[serde(skip)]
    pub delays: Vec<i64>,
}

impl Judgement {
    /// Found events over found and false ones; `None` where there is neither.
    pub fn precision(&self) -> Option<f64> {
        let told = self.found + self.false_events;
        (told > 0).then(|| self.found as f64 / told as f64)
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
    /// The delay that this share (0 to 1) of the found events does not exceed, ms: the nearest rank.
    pub fn delay(&self, share: f64) -> Option<i64> {
        let mut delays = self.delays.clone();
        let rank = (share * delays.len() as f64).ceil().max(1.0) as usize - 1;
        if rank >= delays.len() {
            return None;
        }
        Some(*delays.select_nth_unstable(rank).1)
    }
    /// Adds another series'.
    pub fn add(&mut self, other: &Judgement) {
        self.false_alarms += other.false_alarms;
        self.events += other.events;
        self.found += other.found;
        self.false_events += other.false_events;
        self.delays.extend_from_slice(&other.delays);
    }
}

/// Judges the rows of a series; also gives its alarms.
pub fn judge(rows: impl Iterator<Item = Judged>, interval: i64) -> (Judgement, Vec<Run>) {
    let quiet = QUIET_MS.max(QUIET_ROWS.saturating_mul(interval));
    let mut verdict = Judgement::default();
    let mut alarms: Vec<Run> = Vec::new();
    // The event that is open: its start, and whether it has been found.
    let mut event: Option<(i64, bool)> = None;
    // The last labelled row: its number and time.
    let mut labelled: Option<(usize, i64)> = None;
    // The false event that is open: its first and its last row.
    let mut wrong: Option<(usize, usize)> = None;
    let count = |(first, last): (usize, usize)| 1 + (last - first) / AGAIN_ROWS;
    for (number, row) in rows.enumerate() {
        if row.label {
            if event.is_none() {
                verdict.events += 1;
                event = Some((row.at, false));
            }
            labelled = Some((number, row.at));
        } else {
            event = None;
        }
        if !row.flagged {
            continue;
        }
        if let Some((start, found @ false)) = &mut event {
            *found = true;
            verdict.found += 1;
            verdict.delays.push(row.at - *start);
        }
        if labelled.is_none_or(|(last, _)| number - last > GAP_ROWS) {
            wrong = match wrong {
                Some((first, last)) if number - last <= GAP_ROWS => Some((first, number)),
                other => {
                    verdict.false_events += other.map_or(0, count);
                    Some((number, number))
                }
            };
        }
        let hit = labelled.is_some_and(|(_, last)| row.at.saturating_sub(last) <= quiet);
        match alarms.last_mut() {
            Some(alarm) if row.at.saturating_sub(alarm.end) <= quiet => {
                alarm.end = row.at;
                alarm.hit |= hit;
            }
            _ => alarms.push(Run { start: row.at, end: row.at, hit }),
        }
    }
    verdict.false_events += wrong.map_or(0, count);
    verdict.false_alarms = alarms.iter().filter(|alarm| !alarm.hit).count();
    (verdict, alarms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;

    fn rows(flags: &[i64], events: &[(i64, i64)], n: i64) -> Vec<Judged> {
        let label = |i| events.iter().any(|(from, to)| (*from..*to).contains(&i));
        (0..n).map(|i| Judged { at: i * MINUTE, label: label(i), flagged: flags.contains(&i) }).collect()
    }

    #[test]
    fn alarms_and_events_are_counted_once() {
        // One alarm that starts before the event and runs into it, one false, one in an event's tail.
        let rows = rows(&[8, 12, 13, 14, 30, 31, 57], &[(10, 21), (50, 56), (90, 93)], 100);
        let (verdict, alarms) = judge(rows.into_iter(), MINUTE);
        assert_eq!(alarms.iter().map(|alarm| alarm.hit).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!((alarms[0].start, alarms[0].end), (8 * MINUTE, 14 * MINUTE));
        assert_eq!((verdict.events, verdict.found, verdict.false_alarms), (3, 1, 1));
        // In rows, the flag before the event is a false event of its own; row 30 is in no tail.
        assert_eq!(verdict.false_events, 2);
        assert_eq!(verdict.delay(0.5), Some(2 * MINUTE));
        assert_eq!(verdict.precision(), Some(1.0 / 3.0));
        assert_eq!(verdict.recall(), Some(1.0 / 3.0));
        assert!((verdict.f1().expect("events") - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn tails_are_free_and_a_false_event_that_stays_on_counts_again() {
        let verdict = |flags: &[i64]| judge(rows(flags, &[(10, 12)], 400).into_iter(), MINUTE).0;
        assert_eq!(verdict(&[21]).false_events, 0, "ten rows after the event");
        assert_eq!(verdict(&[22]).false_events, 1);
        assert_eq!(verdict(&[22, 32]).false_events, 1, "ten rows apart");
        assert_eq!(verdict(&[22, 33]).false_events, 2);
        let on: Vec<i64> = (100..160).collect();
        assert_eq!(verdict(&on).false_events, 1);
        let on: Vec<i64> = (100..161).collect();
        assert_eq!(verdict(&on).false_events, 2);
    }

    #[test]
    fn nothing_has_no_ratio_and_delays_have_ranks() {
        let (verdict, alarms) = judge(std::iter::empty(), MINUTE);
        assert_eq!((verdict.precision(), verdict.recall(), verdict.f1()), (None, None, None));
        assert_eq!((verdict.delay(0.5), alarms.len()), (None, 0));
        let verdict = Judgement { delays: vec![5, 1, 2, 3, 4], ..Judgement::default() };
        let ranks = [0.0, 0.5, 0.9, 1.0].map(|share| verdict.delay(share));
        assert_eq!(ranks, [Some(1), Some(3), Some(5), Some(5)]);
    }

    /// The definition, written down another way: by segments and by lists of indices.
    fn plainly(label: &[bool], flagged: &[bool]) -> (usize, usize, usize) {
        let mut segments = Vec::new();
        for i in 0..label.len() {
            if label[i] && (i == 0 || !label[i - 1]) {
                let end = (i..label.len()).find(|k| !label[*k]).unwrap_or(label.len());
                segments.push((i, end));
            }
        }
        let mut free: Vec<bool> = label.iter().map(|l| !l).collect();
        for (_, end) in &segments {
            free.iter_mut().skip(*end).take(GAP_ROWS).for_each(|f| *f = false);
        }
        let out: Vec<usize> = (0..label.len()).filter(|i| flagged[*i] && free[*i]).collect();
        let groups = out.chunk_by(|a, b| b - a <= GAP_ROWS);
        let wrong = groups.map(|g| 1 + (g[g.len() - 1] - g[0]) / AGAIN_ROWS).sum();
        let found = segments.iter().filter(|(s, e)| flagged[*s..*e].contains(&true)).count();
        (segments.len(), found, wrong)
    }

    proptest! {
        #[test]
        fn it_is_the_definition(
            runs in prop::collection::vec((any::<bool>(), 0usize..30, 0u8..4), 0..30),
        ) {
            let mut rows = Vec::new();
            for (label, length, density) in runs {
                for k in 0..length {
                    let flagged = k as u8 % 4 < density;
                    rows.push(Judged { at: rows.len() as i64 * MINUTE, label, flagged });
                }
            }
            let (verdict, _) = judge(rows.iter().copied(), MINUTE);
            let label: Vec<bool> = rows.iter().map(|row| row.label).collect();
            let flagged: Vec<bool> = rows.iter().map(|row| row.flagged).collect();
            let plain = plainly(&label, &flagged);
            prop_assert_eq!((verdict.events, verdict.found, verdict.false_events), plain);
        }
    }
}
