//! The sensitivity sweep: what each of several budgets would have flagged, out of one replay.
//!
//! No state depends on the budget; it only reads the nats out. A score and the interval that its budget
//! was spread over tell the nats, and those the flag under every other budget.

use super::report::{Summary, Tally};
use crate::calibrate::readout::{LEAST, ReadOut, allowed};
use crate::rules::budget::Budget;
use crate::time::Span;
use serde::Serialize;

/// The budgets, the most sensitive first.
pub const BUDGETS: [Span; 8] = [
    Span::hours(6),
    Span::hours(12),
    Span::DAY,
    Span::days(3),
    Span::days(7),
    Span::days(14),
    Span::days(30),
    Span::days(90),
];

/// One bit for each budget under which a sample would have been flagged, from its score under `read`
/// and the interval told with it.
pub fn marks(read: &ReadOut, score: f64, interval: f32) -> u16 {
    if interval <= 0.0 {
        return 0;
    }
    let interval = f64::from(interval);
    let own = allowed(read.budget.0, interval);
    let nats = score * own;
    // No budget allows less.
    if nats < 0.99 * LEAST {
        return 0;
    }
    let mut marks = 0;
    for (bit, budget) in BUDGETS.iter().enumerate() {
        // A budget of the rule's own must flag to the bit what the rule did.
        let flagged = if *budget == read.budget { score >= 1.0 } else { nats >= allowed(budget.0, interval) };
        marks |= u16::from(flagged) << bit;
    }
    marks
}

/// One budget of the sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// As `false_alarms` has it.
    pub false_alarms: String,
    /// Alarms promised at most, a series and day.
    pub promised_per_series_day: f64,
    /// What it would have done.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Step {
    /// The step of a budget, from the sum over all series.
    pub fn new(budget: Span, tally: &Tally) -> Step {
        Step {
            false_alarms: Budget { span: budget }.to_string(),
            promised_per_series_day: Span::DAY.0 as f64 / budget.0 as f64,
            summary: Summary::of(tally),
        }
    }
}

/// A recommended setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommended {
    /// As `false_alarms` has it.
    pub false_alarms: String,
    /// Why, in a sentence.
    pub why: String,
}

/// The setting to recommend: with labelled events the one of the best F1 (of equals the one with
/// fewest alarms), without them the most sensitive one whose measured alarms stay within its promise.
/// `None` where nothing was scored.
pub fn recommend(steps: &[Step]) -> Option<Recommended> {
    let told = |step: &Step, why: String| Some(Recommended { false_alarms: step.false_alarms.clone(), why });
    if steps.iter().all(|step| step.summary.days <= 0.0) {
        return None;
    }
    let mut best: Option<(&Step, f64)> = None;
    for step in steps {
        let Some(f1) = step.summary.f1 else { continue };
        let better = best.is_none_or(|(other, most)| {
            f1 > most || f1 == most && step.summary.alarms < other.summary.alarms
        });
        if better {
            best = Some((step, f1));
        }
    }
    if let Some((step, f1)) = best.filter(|(_, f1)| *f1 > 0.0) {
        let why = format!(
            "of all settings tried it has the best F1 on the labelled events ({f1:.3}; precision {:.3}, recall {:.3})",
            step.summary.precision.unwrap_or(0.0),
            step.summary.recall.unwrap_or(0.0),
        );
        return told(step, why);
    }
    let rate =
        |step: &Step| step.summary.false_alarms_per_series_day.unwrap_or(step.summary.alarms_per_series_day);
    let kept = steps.iter().find(|step| rate(step) <= step.promised_per_series_day);
    match kept {
        Some(step) => told(
            step,
            format!(
                "it is the most sensitive setting whose measured alarms ({:.4} a series and day) stay within what it promises ({:.4})",
                rate(step),
                step.promised_per_series_day
            ),
        ),
        None => told(
            steps.last()?,
            "no setting kept its promise on this history; this is the least sensitive one tried".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Direction, Model, ModelParams};
    use crate::time::Millis;

    fn noise(k: i64) -> f64 {
        let mut state = (k as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut sum = -6.0;
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    #[test]
    fn one_replay_tells_what_each_budget_would_have_flagged() {
        let params = ModelParams::default();
        let up = |budget| ReadOut { budget, direction: Direction::Up, ..ReadOut::default() };
        for own in [Span::days(30), Span::hours(6), Span::days(2)] {
            let mut one = Model::new(&params);
            let mut each = BUDGETS.map(|budget| (Model::new(&params), up(budget)));
            let mut flags = [0usize; 8];
            for k in 0..6_000i64 {
                let size =
                    if k % 90 == 89 { (k % 7) as f64 * if k % 4 == 1 { 4.0 } else { -4.0 } } else { 0.0 };
                let (at, value) = (Millis(k * 60_000), 50.0 + noise(k) + size);
                let told = one.observe(&params, &up(own), at, value);
                let marks = told.map_or(0, |v| marks(&up(own), v.score, v.interval));
                for (bit, (model, read)) in each.iter_mut().enumerate() {
                    let flagged = model.observe(&params, read, at, value).is_some_and(|v| v.score >= 1.0);
                    assert_eq!(marks >> bit & 1 == 1, flagged, "{own} read at {}, sample {k}", read.budget);
                    flags[bit] += usize::from(flagged);
                }
            }
            assert!(flags[0] > flags[7] && flags[7] > 0, "{flags:?}");
        }
    }

    fn step(budget: Span, alarms: usize, judged: Option<(usize, usize, usize)>) -> Step {
        let mut tally = Tally { series: 1, alarms, days: 10.0, ..Tally::default() };
        if let Some((events, found, false_events)) = judged {
            (tally.labelled, tally.labelled_days) = (1, 10.0);
            tally.judgement.events = events;
            tally.judgement.found = found;
            tally.judgement.false_events = false_events;
            tally.judgement.false_alarms = false_events;
        }
        Step::new(budget, &tally)
    }

    #[test]
    fn labels_recommend_the_best_f1_and_of_equals_the_fewest_alarms() {
        let steps = [
            step(Span::DAY, 20, Some((10, 9, 11))),
            step(Span::days(7), 12, Some((10, 8, 3))),
            step(Span::days(14), 11, Some((10, 8, 3))),
            step(Span::days(30), 3, Some((10, 3, 0))),
        ];
        let told = recommend(&steps).expect("one");
        assert_eq!(told.false_alarms, "1 per 14d");
        assert!(told.why.contains("best F1"), "{}", told.why);
    }

    #[test]
    fn without_labels_the_promise_decides() {
        let steps = [step(Span::DAY, 11, None), step(Span::days(5), 2, None), step(Span::days(90), 0, None)];
        assert_eq!(recommend(&steps).map(|told| told.false_alarms), Some("1 per 5d".into()));
        let told = recommend(&[step(Span::DAY, 11, None), step(Span::days(5), 3, None)]).expect("one");
        assert!(told.why.starts_with("no setting kept its promise") && told.false_alarms == "1 per 5d");
        let nothing = Step::new(Span::DAY, &Tally::default());
        assert_eq!(recommend(&[nothing]), None);
    }
}
