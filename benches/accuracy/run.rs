//! A series and the model that watches it.

use crate::Options;
use crate::families::{Family, Series};
use oddity::calibrate::readout;
use oddity::detect::{Model, ModelParams, ReadOut, Verdict};
use oddity::time::{Millis, Span};

/// The budgets that are measured: 1 per 1, 7 and 30 days.
pub const BUDGETS: [i64; 3] = [1, 7, 30];

/// A series, its model and the time.
#[derive(Clone)]
pub struct Run {
    /// The series.
    pub series: Series,
    /// Its model.
    pub model: Model,
    params: ModelParams,
    interval: i64,
    at: i64,
}

impl Run {
    /// A fresh one.
    pub fn new(family: Family, options: &Options, index: usize) -> Run {
        let params = ModelParams::default();
        Run {
            series: Series::new(family, options.seed, index),
            model: Model::new(&params),
            params,
            interval: options.interval,
            // Some Monday in 2024, so that weeks mean something.
            at: 1_704_067_200,
        }
    }

    /// Seconds since the start.
    pub fn age(&self) -> f64 {
        (self.at - 1_704_067_200) as f64
    }

    /// The next sample, changed by `change`; the verdict at the default budget, if there is one.
    pub fn step(&mut self, change: impl FnOnce(f64) -> f64) -> Option<Verdict> {
        let value = self.series.next(self.at as f64, self.interval as f64);
        let at = Millis(self.at * 1000);
        self.at += self.interval;
        self.model.observe(&self.params, &ReadOut::default(), at, change(value?))
    }

    /// What turns a score at the default budget into one at `days`.
    pub fn at_budget(&self, days: i64) -> f64 {
        let interval = self.interval as f64 * 1000.0;
        readout::allowed(ReadOut::default().budget.0, interval)
            / readout::allowed(Span::days(days).0, interval)
    }

    /// The quiet time that closes an alarm, seconds.
    pub fn quiet(&self) -> f64 {
        300f64.max(5.0 * self.interval as f64)
    }
}

/// Counts alarms: runs of scores of at least 1, closed by a quiet time.
#[derive(Clone, Copy, Debug)]
pub struct Alarms {
    last: f64,
}

impl Alarms {
    /// None yet.
    pub fn new() -> Alarms {
        Alarms { last: f64::NEG_INFINITY }
    }
    /// Takes a score at a time in seconds; whether it opens an alarm.
    pub fn take(&mut self, at: f64, score: f64, quiet: f64) -> bool {
        if score < 1.0 {
            return false;
        }
        let opens = at - self.last > quiet;
        self.last = at;
        opens
    }
}

/// Runs `work` for every index on all cores; results in the order of the indices.
pub fn parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if index >= count {
                            return mine;
                        }
                        mine.push((index, work(index)));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The families whose name has what `--only` says.
pub fn families(options: &Options) -> Vec<Family> {
    let named =
        |family: &Family| options.only.as_ref().is_none_or(|part| family.name().contains(part.as_str()));
    Family::ALL.into_iter().filter(named).collect()
}
