//! What is told of a back-test: each series, and all of them.

use super::answers::{Answers, FLAGGED, SCORED};
use super::judge::{Judged, Judgement, judge};
use super::sweep::{BUDGETS, Recommended, Step, recommend};
use serde::Serialize;

const DAY: f64 = 8.64e7;

/// Sums over one or many series, from which ratios are made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Series.
    pub series: usize,
    /// Alarms.
    pub alarms: usize,
    /// Days scored.
    pub days: f64,
    /// Series with labels.
    pub labelled: usize,
    /// Their days scored.
    pub labelled_days: f64,
    /// The verdict over series with labels.
    pub judgement: Judgement,
}

impl Tally {
    fn of(alarms: usize, days: f64, labelled: bool, judgement: Judgement) -> Tally {
        let mut tally = Tally { series: 1, alarms, days, ..Tally::default() };
        if labelled {
            (tally.labelled, tally.labelled_days, tally.judgement) = (1, days, judgement);
        }
        tally
    }

    fn add(&mut self, other: &Tally) {
        self.series += other.series;
        self.alarms += other.alarms;
        self.days += other.days;
        self.labelled += other.labelled;
        self.labelled_days += other.labelled_days;
        self.judgement.add(&other.judgement);
    }
}

/// The numbers of a row of the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Days scored.
    pub days: f64,
    /// Alarms.
    pub alarms: usize,
    /// Alarms a series and day; 0 where no time was scored.
    pub alarms_per_series_day: f64,
    /// Alarms of labelled series that touch no event; `None` without labels.
    pub false_alarms: Option<usize>,
    /// The same a series and day.
    pub false_alarms_per_series_day: Option<f64>,
    /// Labelled events.
    pub events: Option<usize>,
    /// Events found.
    pub found: Option<usize>,
    /// False events, by the strict rule.
    pub false_events: Option<usize>,
    /// Found events over found and false ones.
    pub precision: Option<f64>,
    /// Found events over events.
    pub recall: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
    /// Median time from an event's start to its first flag, of the events found, seconds.
    pub delay_median_seconds: Option<f64>,
    /// Its 90th percentile, seconds.
    pub delay_p90_seconds: Option<f64>,
}

impl Summary {
    /// The ratios of sums.
    pub fn of(tally: &Tally) -> Summary {
        let judgement = &tally.judgement;
        let rate = |count: usize, days: f64| if days > 0.0 { count as f64 / days } else { 0.0 };
        let told = |count: usize| (tally.labelled > 0).then_some(count);
        let seconds = |share| judgement.delay(share).map(|ms| ms as f64 / 1e3);
        Summary {
            days: tally.days,
            alarms: tally.alarms,
            alarms_per_series_day: rate(tally.alarms, tally.days),
            false_alarms: told(judgement.false_alarms),
            false_alarms_per_series_day: told(judgement.false_alarms)
                .map(|count| rate(count, tally.labelled_days)),
            events: told(judgement.events),
            found: told(judgement.found),
            false_events: told(judgement.false_events),
            precision: judgement.precision().filter(|_| tally.labelled > 0),
            recall: judgement.recall(),
            f1: judgement.f1(),
            delay_median_seconds: seconds(0.5),
            delay_p90_seconds: seconds(0.9),
        }
    }
}

/// One alarm: a run of flags closed by a quiet time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Its first flag, Unix ms.
    pub start: i64,
    /// Its last flag, Unix ms.
    pub end: i64,
    /// Its highest score.
    pub score: f64,
    /// When that was, Unix ms.
    pub at: i64,
    /// The signal's value then.
    pub value: f64,
    /// What was expected then.
    pub expected: f64,
    /// The signal, as in rules.
    #[serde(rename = "as")]
    pub transform: String,
    /// Whether it touches a labelled event; `None` without labels.
    pub labelled: Option<bool>,
}

/// What became of one series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeriesReport {
    /// `<category>/<stem>` or the stem of a file, or the series as PromQL writes it.
    pub series: String,
    /// Samples, rows without a value among them.
    pub samples: usize,
    /// Samples scored.
    pub scored: usize,
    /// Samples flagged.
    pub flagged: usize,
    /// Rows without a value.
    pub missing: usize,
    /// Rows at or before the newest time before them.
    pub out_of_order: usize,
    /// The numbers.
    #[serde(flatten)]
    pub summary: Summary,
    /// The alarms in order of time.
    pub alarm_list: Vec<Alarm>,
    /// Sums, under the rules' own budgets.
    #[serde(skip)]
    pub tally: Tally,
    /// Sums under each budget of the sweep.
    #[serde(skip)]
    pub sweep: Vec<Tally>,
}

/// One row of a series for judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its time, ms.
    pub at: i64,
    /// Whether it is labelled.
    pub label: bool,
    /// Its marks; 0 where it was not sent.
    pub marks: u16,
}

impl SeriesReport {
    /// Judges a series. `rows` gives its rows anew each time; `interval` is the usual one, ms.
    pub fn new<I: Iterator<Item = Row>>(
        series: String,
        rows: impl Fn() -> I,
        answers: &Answers,
        labelled: bool,
        interval: i64,
    ) -> SeriesReport {
        let scored_from = rows().find(|row| row.marks & SCORED != 0).map(|row| row.at);
        let newest = rows().filter(|row| row.marks & SCORED != 0).last().map_or(0, |row| row.at);
        let days = scored_from.map_or(0.0, |from| (newest - from) as f64 / DAY);
        let under = |mark: u16| {
            let judged =
                rows().map(|row| Judged { at: row.at, label: row.label, flagged: row.marks & mark != 0 });
            judge(judged, interval)
        };
        let (judgement, runs) = under(FLAGGED);
        let mut flagged = answers.flagged.iter().peekable();
        let mut alarm_list = Vec::with_capacity(runs.len());
        for run in &runs {
            let mut peak: Option<&super::answers::Flagged> = None;
            while let Some(next) = flagged.next_if(|flag| flag.at <= run.end) {
                peak = Some(peak.filter(|peak| peak.score >= next.score).unwrap_or(next));
            }
            if let Some(peak) = peak {
                alarm_list.push(Alarm {
                    start: run.start,
                    end: run.end,
                    score: peak.score,
                    at: peak.at,
                    value: peak.value,
                    expected: peak.expected,
                    transform: peak.transform.to_string(),
                    labelled: labelled.then_some(run.hit),
                });
            }
        }
        let tally = Tally::of(runs.len(), days, labelled, judgement);
        let sweep = (0..BUDGETS.len())
            .map(|bit| {
                let (judgement, runs) = under(1 << bit);
                Tally::of(runs.len(), days, labelled, judgement)
            })
            .collect();
        let marked = |mark: u16| answers.marks.iter().filter(|marks| **marks & mark != 0).count();
        SeriesReport {
            series,
            samples: rows().count(),
            scored: marked(SCORED),
            flagged: marked(FLAGGED),
            missing: 0,
            out_of_order: 0,
            summary: Summary::of(&tally),
            alarm_list,
            tally,
            sweep,
        }
    }
}

/// The sum over series.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Series.
    pub series: usize,
    /// Series with labels.
    pub labelled_series: usize,
    /// Samples.
    pub samples: usize,
    /// Samples scored.
    pub scored: usize,
    /// Samples flagged.
    pub flagged: usize,
    /// The numbers.
    #[serde(flatten)]
    pub summary: Summary,
}

/// A whole back-test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Each series, in the input's order.
    pub series: Vec<SeriesReport>,
    /// All of them.
    pub totals: Totals,
    /// What other budgets would have done.
    pub sweep: Vec<Step>,
    /// The setting to take; `None` where nothing was scored.
    pub recommended: Option<Recommended>,
}

impl Report {
    /// Adds series up.
    pub fn of(series: Vec<SeriesReport>) -> Report {
        let mut totals = Totals { series: series.len(), ..Totals::default() };
        let mut all = Tally::default();
        let mut sweep = vec![Tally::default(); BUDGETS.len()];
        for one in &series {
            totals.samples += one.samples;
            totals.scored += one.scored;
            totals.flagged += one.flagged;
            all.add(&one.tally);
            sweep.iter_mut().zip(&one.sweep).for_each(|(sum, one)| sum.add(one));
        }
        totals.labelled_series = all.labelled;
        totals.summary = Summary::of(&all);
        let sweep: Vec<Step> =
            BUDGETS.iter().zip(&sweep).map(|(budget, tally)| Step::new(*budget, tally)).collect();
        Report { recommended: recommend(&sweep), series, totals, sweep }
    }
}
