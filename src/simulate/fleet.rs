//! The fleet: its series, and their values at any time.

#[cfg(test)]
mod tests;

use super::SimulateError;
use super::fault::{Fault, FaultKind, FaultSpec};
use super::pod::{METRICS, Metric, PodText, Shape, service_of};
use super::random::{hash, normal, unit};
use crate::labels::{SeriesId, series_id};
use crate::time::{Millis, Span};
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, STALE_BITS, Sample, Version};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::f64::consts::TAU;

/// What a fleet is like.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetOptions {
    /// Number of series, at least 1.
    pub series: usize,
    /// Scrape interval, above 0.
    pub interval: Span,
    /// Seed of everything random.
    pub seed: u64,
    /// Pods replaced an hour, in percent of all; 0 for none.
    pub churn: f64,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions { series: 1000, interval: Span::seconds(15), seed: 1, churn: 0.0 }
    }
}

/// What a series has at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    /// A value.
    Value(f64),
    /// The stale marker: the series ends here.
    Stale,
    /// Nothing.
    Absent,
}

/// A request body, not yet compressed.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The message.
    pub bytes: Vec<u8>,
    /// Samples in it, stale markers among them.
    pub samples: u64,
}

/// Salts that keep the random numbers of different purposes apart.
const NOISE: u64 = 0x6e6f_6973;
const SCALE: u64 = 0x7363_616c;
const LIFE: u64 = 0x6c69_6665;
const RESTART: u64 = 0x7265_7374;

/// Standard deviation of a counter's jitter, in intervals: a scrape sees a bit more or less, as many
/// as Poisson arrivals at 45 a second would give.
const JITTER: f64 = 0.04;
/// Terms of the truncated moving average that stands for autoregressive noise.
const TERMS: i64 = 8;
const DAY_S: f64 = 86_400.0;

/// A simulated fleet.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    /// Each pod's labels, with the life they are of: the one asked for last.
    pods: Vec<Mutex<(u64, PodText)>>,
    faults: HashMap<usize, Vec<Fault>>,
    gone: HashMap<usize, Vec<Fault>>,
    all_faults: Vec<Fault>,
}

impl Fleet {
    /// Builds the fleet.
    ///
    /// # Errors
    /// An option out of range.
    pub fn new(options: FleetOptions) -> Result<Fleet, SimulateError> {
        let wrong = |what: &str| Err(SimulateError::Options(what.to_string()));
        if options.series == 0 || options.series > u32::MAX as usize {
            return wrong("the fleet needs between 1 and 4294967295 series");
        }
        if options.interval.0 <= 0 {
            return wrong("the interval must be above 0");
        }
        if !(0.0..=10_000.0).contains(&options.churn) {
            return wrong("churn is a percentage of pods an hour, 0 to 10000");
        }
        let pods = options.series.div_ceil(METRICS.len());
        let pods = (0..pods).map(|pod| Mutex::new((0, PodText::new(options.seed, pod, 0)))).collect();
        Ok(Fleet { options, pods, faults: HashMap::new(), gone: HashMap::new(), all_faults: Vec::new() })
    }

    /// Its options.
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }

    /// Adds a fault.
    pub fn inject(&mut self, fault: Fault) {
        if fault.kind == FaultKind::Gone {
            self.gone.entry(fault.series / METRICS.len()).or_default().push(fault);
        } else {
            self.faults.entry(fault.series).or_default().push(fault);
        }
        self.all_faults.push(fault);
    }

    /// Every fault injected, in the order of injection.
    pub fn faults(&self) -> &[Fault] {
        &self.all_faults
    }

    /// Chooses what a fault's short form leaves open. `n` is its number, `start` the run's first
    /// step; faults without a time come 20 min after it and then every 10 min.
    ///
    /// # Errors
    /// The series does not exist or cannot show such a fault.
    pub fn plan(&self, spec: &FaultSpec, n: usize, start: i64) -> Result<Fault, SimulateError> {
        let steps = |span: Span| (span.0 / self.options.interval.0).max(1);
        let series = match spec.series {
            Some(series) if series >= self.options.series || !spec.kind.suits(series) => {
                let text = format!("{}={series}", spec.kind);
                return Err(SimulateError::Fault {
                    text,
                    what: "no such series, or not of that kind".into(),
                });
            }
            Some(series) => series,
            None => self.suited(spec.kind, n)?,
        };
        let after = spec.after.unwrap_or(Span::minutes(20 + 10 * n as i64));
        Ok(Fault {
            kind: spec.kind,
            series,
            start: start.saturating_add(after.0 / self.options.interval.0),
            steps: spec.length.map_or(spec.kind.default_steps(), steps),
            size: spec.size.unwrap_or(spec.kind.default_size()),
        })
    }

    /// A series that can show a fault of this kind, another one for each `n`.
    ///
    /// # Errors
    /// The fleet is too small to have one.
    pub fn suited(&self, kind: FaultKind, n: usize) -> Result<usize, SimulateError> {
        let from = (hash(self.options.seed, kind as u64, n as u64) % self.options.series as u64) as usize;
        (0..self.options.series)
            .map(|i| (from + i) % self.options.series)
            .find(|&series| kind.suits(series) && !self.faults.contains_key(&series))
            .ok_or_else(|| {
                SimulateError::Options(format!("the fleet has no series for a fault of kind {kind}"))
            })
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        self.options.series
    }

    /// The step a time lies in: time / interval, rounded down.
    pub fn step_at(&self, at: Millis) -> i64 {
        at.0.div_euclid(self.options.interval.0)
    }

    /// The time of a step.
    pub fn time(&self, step: i64) -> Millis {
        Millis(step.saturating_mul(self.options.interval.0))
    }

    /// A series' metric type.
    pub fn kind(&self, series: usize) -> MetricKind {
        METRICS[series % METRICS.len()].kind()
    }

    /// A series' canonical labels at a step.
    pub fn labels(&self, series: usize, step: i64) -> Vec<(String, String)> {
        let (pod, metric) = self.place(series);
        let kept = self.text(pod, self.generation(pod, step));
        kept.1.labels(metric).map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// The identities a series has from the step before `first` to `last`: one, and one more for each
    /// time that its pod is replaced.
    pub(super) fn ids(&self, series: usize, first: i64, last: i64) -> Vec<SeriesId> {
        let (pod, metric) = self.place(series);
        let mut lives: Vec<u64> = (first - 1..=last).map(|step| self.generation(pod, step)).collect();
        lives.dedup();
        let id = |life: u64| {
            let kept = self.text(pod, life);
            series_id(&kept.1.labels(metric).collect::<Vec<_>>())
        };
        lives.into_iter().map(id).collect()
    }

    /// What a series has at a step.
    pub fn point(&self, series: usize, step: i64) -> Point {
        let (pod, metric) = self.place(series);
        if let Some(fault) = self.gone.get(&pod).and_then(|faults| faults.iter().find(|f| f.active(step))) {
            return if fault.start == step { Point::Stale } else { Point::Absent };
        }
        let faults = self.faults.get(&series).map_or(&[][..], Vec::as_slice);
        Point::Value(self.value(series, pod, metric, step, faults))
    }

    /// The body of one request: one sample for each of the series at a step, one `TimeSeries` each
    /// as Prometheus sends them. A replaced pod's old series end with a stale marker.
    pub fn body(&self, version: Version, series: &[u32], step: i64) -> Encoded {
        let mut encoder = Encoder::new(version);
        let timestamp = self.time(step).0;
        let mut samples = 0;
        for &series in series {
            let series = series as usize;
            let (pod, metric) = self.place(series);
            let value = match self.point(series, step) {
                Point::Value(value) => value,
                Point::Stale => f64::from_bits(STALE_BITS),
                Point::Absent => continue,
            };
            let generation = self.generation(pod, step);
            let sample = [Sample { timestamp, value }];
            encoder.series(self.text(pod, generation).1.labels(metric), metric.kind(), &sample);
            samples += 1;
            let before = self.generation(pod, step - 1);
            if before != generation {
                let old = PodText::new(self.options.seed, pod, before);
                let stale = [Sample { timestamp, value: f64::from_bits(STALE_BITS) }];
                encoder.series(old.labels(metric), metric.kind(), &stale);
                samples += 1;
            }
        }
        Encoded { bytes: encoder.finish(), samples }
    }

    fn place(&self, series: usize) -> (usize, &'static Metric) {
        (series / METRICS.len(), &METRICS[series % METRICS.len()])
    }

    /// A pod's labels in a life of it, made where those kept are of another.
    fn text(&self, pod: usize, generation: u64) -> MutexGuard<'_, (u64, PodText)> {
        let mut kept = self.pods[pod].lock();
        if kept.0 != generation {
            *kept = (generation, PodText::new(self.options.seed, pod, generation));
        }
        kept
    }

    /// Which life of its pod a step lies in. 0 always without churn.
    fn generation(&self, pod: usize, step: i64) -> u64 {
        self.life(pod, step).0
    }

    /// The number of a pod's life and its first step.
    fn life(&self, pod: usize, step: i64) -> (u64, i64) {
        if self.options.churn <= 0.0 {
            return (0, i64::MIN);
        }
        let hours = 100.0 / self.options.churn;
        let steps = ((hours * 3.6e6 / self.options.interval.0 as f64) as i64).max(2);
        let phase = (hash(self.options.seed ^ LIFE, pod as u64, 0) % steps as u64) as i64;
        let life = (step + phase).div_euclid(steps);
        (life.max(0) as u64 + 1, life * steps - phase)
    }

    /// The first step since a pod's counters last began at 0: a restart every two to six days.
    fn restarted(&self, pod: usize, step: i64) -> i64 {
        let random = hash(self.options.seed ^ RESTART, pod as u64, 0);
        let steps = ((2.0 + 4.0 * unit(random)) * 8.64e7 / self.options.interval.0 as f64) as i64;
        let phase = (random % steps.max(1) as u64) as i64;
        let restart = (step + phase).div_euclid(steps.max(1)) * steps.max(1) - phase;
        restart.max(self.life(pod, step).1)
    }

    fn value(&self, series: usize, pod: usize, metric: &Metric, step: i64, faults: &[Fault]) -> f64 {
        let scale =
            || metric.base * libm::exp(0.4 * normal(hash(self.options.seed ^ SCALE, series as u64, 0)));
        match metric.shape {
            Shape::Constant => metric.base,
            Shape::Gauge { season, noise, phi } => {
                let base = scale();
                let lift: f64 = faults.iter().map(|fault| fault.lift(step)).sum();
                let wider = faults
                    .iter()
                    .filter(|fault| fault.kind == FaultKind::Variance && fault.active(step))
                    .map(|fault| fault.size)
                    .fold(1.0, f64::max);
                let level = 1.0 + season * libm::sin(self.angle(pod, step));
                let widths = wider * self.noise(series, phi, step) + lift;
                (base * (level + noise * widths)).max(0.0)
            }
            Shape::Counter { season, whole } => {
                let rate = scale();
                let start = self.restarted(pod, step);
                let mut value = self.count(series, pod, rate, season, start, step);
                let clean = |at: i64| self.count(series, pod, rate, season, start, at.max(start));
                for fault in faults.iter().filter(|f| f.start > start && step >= f.start) {
                    let last = step.min(fault.start + fault.steps - 1);
                    let grown = clean(last) - clean(fault.start - 1);
                    value += match fault.kind {
                        FaultKind::Stall => -grown,
                        FaultKind::Errors => grown * fault.size,
                        // A rate's noise is the difference of two jitters.
                        _ => fault.gained(step) * std::f64::consts::SQRT_2 * JITTER * rate * self.seconds(1),
                    };
                }
                if whole { value.max(0.0).floor() } else { value.max(0.0) }
            }
        }
    }

    /// What a counter has counted from `start` to `step`, without faults: the integral of its rate,
    /// read a little early or late.
    fn count(&self, series: usize, pod: usize, rate: f64, season: f64, start: i64, step: i64) -> f64 {
        let late =
            JITTER * normal(hash(self.options.seed ^ NOISE, series as u64, step as u64)).clamp(-4.0, 4.0);
        let seconds = (self.seconds(step - start) + late * self.seconds(1)).max(0.0);
        let from = self.angle(pod, start);
        let to = from + TAU * seconds / DAY_S;
        rate * (seconds + season * DAY_S / TAU * (libm::cos(from) - libm::cos(to)))
    }

    /// Autoregressive noise with unit variance, as a truncated moving average.
    fn noise(&self, series: usize, phi: f64, step: i64) -> f64 {
        let (mut weight, mut sum, mut power) = (1.0, 0.0, 0.0);
        for back in 0..TERMS {
            sum += weight * normal(hash(self.options.seed ^ NOISE, series as u64, (step - back) as u64));
            power += weight * weight;
            weight *= phi;
        }
        sum / libm::sqrt(power)
    }

    /// The angle of the daily season; services have their busy hours at different times.
    fn angle(&self, pod: usize, step: i64) -> f64 {
        let phase = unit(hash(self.options.seed, 0xda7, service_of(pod) as u64));
        let day = 86_400_000;
        let in_day = self.time(step).0.rem_euclid(day) as f64 / day as f64;
        TAU * (in_day + 0.2 * phase)
    }

    fn seconds(&self, steps: i64) -> f64 {
        steps as f64 * self.options.interval.as_secs_f64()
    }
}
