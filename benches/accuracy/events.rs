//! Strict event F1 on labelled rows.
//!
//! A labelled segment that an alarm touches is found. Alarms on normal rows less than ten rows apart
//! are one false event, again every sixty rows while they last, so that "always on" cannot win;
//! alarms within ten rows after a segment are its tail and free.

const GAP: usize = 10;
const REPAGE: usize = 60;

/// A labelled series with its scores.
pub struct Scored {
    /// Whether a row is labelled an anomaly.
    pub labels: Vec<bool>,
    /// The score of each row.
    pub scores: Vec<f64>,
    /// Its length in days.
    pub days: f64,
}

/// What was found at a threshold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// Labelled segments.
    pub labelled: u32,
    /// Of them, found.
    pub found: u32,
    /// False events.
    pub false_events: u32,
}

impl Events {
    /// Counts one series' events; with `delay`, a segment is found only within so many rows.
    pub fn count(&mut self, series: &Scored, threshold: f64, delay: Option<usize>) {
        let (mut at, rows) = (0, series.labels.len());
        let mut free_until = 0;
        let (mut last, mut since) = (None::<usize>, 0);
        while at < rows {
            if series.labels[at] {
                let end = (at..rows).find(|row| !series.labels[*row]).unwrap_or(rows);
                let within = delay.map_or(end, |delay| end.min(at + delay + 1));
                self.labelled += 1;
                self.found += u32::from(series.scores[at..within].iter().any(|s| *s >= threshold));
                at = end;
                free_until = end + GAP;
                continue;
            }
            if at >= free_until && series.scores[at] >= threshold {
                let same = last.is_some_and(|before| at - before <= GAP && at - since < REPAGE);
                if !same {
                    self.false_events += 1;
                    since = at;
                }
                last = Some(at);
            }
            at += 1;
        }
    }
    /// Over many series.
    pub fn of(series: &[Scored], threshold: f64, delay: Option<usize>) -> Events {
        let mut events = Events::default();
        series.iter().for_each(|one| events.count(one, threshold, delay));
        events
    }
    /// F1: the harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let found = f64::from(self.found);
        2.0 * found / (found + f64::from(self.labelled) + f64::from(self.false_events)).max(1e-9)
    }
    /// Precision and recall.
    pub fn rates(&self) -> (f64, f64) {
        let found = f64::from(self.found);
        (found / (found + f64::from(self.false_events)).max(1.0), found / f64::from(self.labelled.max(1)))
    }
}

/// The threshold of best F1 and what it gives.
pub fn best(series: &[Scored], delay: Option<usize>) -> (f64, Events) {
    let mut best = (0.0, Events::default());
    for k in 0..160 {
        let threshold = 4.0 * 1.015f64.powi(k);
        let events = Events::of(series, threshold, delay);
        if events.f1() > best.1.f1() {
            best = (threshold, events);
        }
    }
    best
}
