//! What the engine says of each sample of a history.

use super::sweep;
use crate::engine::{Detail, Output, OutputBatch, OutputSink, OutputValue};
use crate::history::History;
use crate::labels::{SeriesId, series_id};
use crate::rules::{As, Rule};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A flagged sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flagged {
    /// Its time, ms.
    pub at: i64,
    /// The score.
    pub score: f64,
    /// The signal's value.
    pub value: f64,
    /// What was expected.
    pub expected: f64,
    /// The signal.
    pub transform: As,
}

/// What was said of a sample, beside its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// What was expected.
    pub expected: f64,
    /// Lower edge of the band; `-inf` without bound, NaN where no band was asked for.
    pub lower: f64,
    /// Upper edge of the band; `inf` without bound, NaN where no band was asked for.
    pub upper: f64,
}

const NOTHING: Expected = Expected { expected: f64::NAN, lower: f64::NAN, upper: f64::NAN };

/// One series' answers, by its samples. Where the rules ask for several signals of a series, a sample
/// has the answer of the highest score.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Scores; 0 where nothing was said.
    pub scores: Vec<f64>,
    /// [`SCORED`], [`FLAGGED`] and the flags of the sweep's budgets.
    pub marks: Vec<u16>,
    /// Expected values and bands, NaN where nothing was said; empty where nobody asked for them.
    pub expected: Vec<Expected>,
    /// The flagged ones, in order of time.
    pub flagged: Vec<Flagged>,
    next: usize,
}

/// The mark of a sample that was scored.
pub const SCORED: u16 = 1 << 15;
/// The mark of a score of at least 1.
pub const FLAGGED: u16 = 1 << 14;

impl Answers {
    fn new(samples: usize, expected: bool) -> Answers {
        Answers {
            scores: vec![0.0; samples],
            marks: vec![0; samples],
            expected: if expected { vec![NOTHING; samples] } else { Vec::new() },
            ..Answers::default()
        }
    }

    fn take(&mut self, at: usize, output: &Output, rule: &Rule) {
        let OutputValue::Scored { value, score, detail: Some(detail) } = &output.value else { return };
        let (value, score, Detail { expected, interval, band, .. }) = (*value, *score, **detail);
        let (Some(kept), Some(marks)) = (self.scores.get_mut(at), self.marks.get_mut(at)) else { return };
        let first = *marks & SCORED == 0;
        *marks |= SCORED | sweep::marks(&rule.read, score, interval);
        if !first && score <= *kept {
            return;
        }
        *kept = score;
        if let Some(place) = self.expected.get_mut(at) {
            let (lower, upper) = band.map_or((f64::NAN, f64::NAN), |band| (band.lower, band.upper));
            *place = Expected { expected, lower, upper };
        }
        if score >= 1.0 {
            *marks |= FLAGGED;
            let flagged = Flagged { at: output.at.0, score, value, expected, transform: output.transform };
            match self.flagged.last_mut() {
                Some(last) if last.at == flagged.at => *last = flagged,
                _ => self.flagged.push(flagged),
            }
        }
    }
}

/// Keeps what the engine says of a history's samples.
pub struct Collector {
    history: Arc<History>,
    places: HashMap<SeriesId, usize>,
    answers: Vec<Mutex<Answers>>,
}

impl Collector {
    /// For the samples of this history; `replica` is the label that identities do without, `expected`
    /// whether expected values and bands are kept.
    pub fn new(history: Arc<History>, replica: &str, expected: bool) -> Collector {
        let mut places = HashMap::with_capacity(history.series.len());
        for (place, series) in history.series.iter().enumerate() {
            let labels: Vec<(&str, &str)> = series.pairs().filter(|(name, _)| *name != replica).collect();
            places.entry(series_id(&labels)).or_insert(place);
        }
        let answers =
            history.series.iter().map(|s| Mutex::new(Answers::new(s.samples.len(), expected))).collect();
        Collector { history, places, answers }
    }

    /// Takes the answers out, by series.
    pub fn take_answers(&self) -> Vec<Answers> {
        self.answers.iter().map(|answers| std::mem::take(&mut *answers.lock())).collect()
    }
}

impl OutputSink for Collector {
    fn take(&self, batch: &Arc<OutputBatch>) {
        for (output, rule) in batch.ruled() {
            let labels: Vec<(&str, &str)> = output.labels.iter().collect();
            let Some(place) = self.places.get(&series_id(&labels)) else { continue };
            let (Some(series), Some(answers)) = (self.history.series.get(*place), self.answers.get(*place))
            else {
                continue;
            };
            let mut answers = answers.lock();
            // Outputs of a series come in order of time.
            let rest = series.samples.get(answers.next..).unwrap_or(&[]);
            answers.next += rest.iter().take_while(|sample| sample.timestamp < output.at.0).count();
            let at = answers.next;
            if series.samples.get(at).is_some_and(|sample| sample.timestamp == output.at.0) {
                answers.take(at, output, rule);
            }
        }
    }
    fn wants_all(&self) -> bool {
        true
    }
}
