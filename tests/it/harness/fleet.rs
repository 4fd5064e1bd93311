//! A fleet of series with explicit time stamps: the log that senders send and the engine replays.

use super::gauss;
use super::wire::Series;

/// Deterministic series: gauges (even numbers) and counters (odd numbers), one in a hundred with
/// an excursion, so that flags occur too.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Seed of all noise.
    pub seed: u64,
    /// Time stamp of step 0, milliseconds.
    pub start: i64,
    /// Milliseconds between steps.
    pub interval: i64,
}

impl Fleet {
    /// Time stamp of a step.
    pub fn at(&self, step: usize) -> i64 {
        self.start + self.interval * step as i64
    }

    /// Whether a series is a counter.
    pub fn is_counter(series: usize) -> bool {
        series % 2 == 1
    }

    /// Labels in canonical order.
    pub fn labels(series: usize) -> Vec<(String, String)> {
        let name = if Self::is_counter(series) { "fleet_work_total" } else { "fleet_level" };
        vec![
            ("__name__".into(), name.into()),
            ("instance".into(), format!("host-{}", series % 97)),
            ("job".into(), "fleet".into()),
            ("n".into(), series.to_string()),
        ]
    }

    /// The value of a series at a step.
    pub fn value(&self, series: usize, step: usize) -> f64 {
        let noise = |step: usize| gauss(self.seed, series as u64, step as u64);
        let odd = series % 100 < 2 && step > 30 && step.is_multiple_of(37);
        if Self::is_counter(series) {
            // The increments' noise is drawn at both ends of each, so that no sum over steps is needed.
            1e4 + 100.0 * step as f64 + 3.0 * noise(step) + if odd { 60.0 } else { 0.0 }
        } else {
            50.0 + noise(step) + if odd { 40.0 } else { 0.0 }
        }
    }

    /// Samples of one series over steps, ready to send.
    pub fn slice(&self, series: usize, steps: std::ops::Range<usize>) -> Series {
        let labels = Self::labels(series);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let samples: Vec<(i64, f64)> = steps.map(|step| (self.at(step), self.value(series, step))).collect();
        Series::new(&labels, &samples)
    }
}
