//! Faults: what goes wrong with a series, when, and how much.

use super::SimulateError;
use super::pod::{METRICS, Shape};
use crate::time::Span;
use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A few samples above.
    Spike,
    /// A few samples below.
    Dip,
    /// The level (or a counter's rate) is higher.
    Shift,
    /// The level rises steadily to the fault's size.
    Ramp,
    /// The noise is this many times as wide.
    Variance,
    /// A counter stands still.
    Stall,
    /// A counter of errors runs this many times as fast.
    Errors,
    /// The pod's target is removed: stale markers, then nothing. No anomaly.
    Gone,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 8] = [
        FaultKind::Spike,
        FaultKind::Dip,
        FaultKind::Shift,
        FaultKind::Ramp,
        FaultKind::Variance,
        FaultKind::Stall,
        FaultKind::Errors,
        FaultKind::Gone,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Spike => "spike",
            FaultKind::Dip => "dip",
            FaultKind::Shift => "shift",
            FaultKind::Ramp => "ramp",
            FaultKind::Variance => "variance",
            FaultKind::Stall => "stall",
            FaultKind::Errors => "errors",
            FaultKind::Gone => "gone",
        }
    }

    /// Whether it should be found: all but a target that was removed.
    pub fn is_anomaly(self) -> bool {
        self != FaultKind::Gone
    }

    /// Size when none is given: noise widths, or a factor for `variance` and `errors`.
    pub fn default_size(self) -> f64 {
        match self {
            FaultKind::Variance => 15.0,
            FaultKind::Ramp => 30.0,
            FaultKind::Errors => 10.0,
            FaultKind::Dip => 10.0,
            FaultKind::Stall | FaultKind::Gone => 0.0,
            _ => 12.0,
        }
    }

    /// Length in samples when none is given.
    pub fn default_steps(self) -> i64 {
        match self {
            FaultKind::Spike | FaultKind::Dip => 1,
            FaultKind::Ramp => 40,
            _ => 20,
        }
    }

    /// Whether the series at this index can show it.
    pub fn suits(self, series: usize) -> bool {
        let metric = &METRICS[series % METRICS.len()];
        match self {
            FaultKind::Gone => true,
            FaultKind::Errors => metric.code == "500",
            FaultKind::Stall => matches!(metric.shape, Shape::Counter { .. }) && metric.code != "500",
            // A dip on a small noise would go below zero; a slow random walk hides short faults.
            _ => matches!(metric.shape, Shape::Gauge { noise, phi, .. } if noise < 0.1 && phi < 0.7),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault of one series (of its whole pod for [`FaultKind::Gone`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The series' index in the fleet.
    pub series: usize,
    /// First step (time / interval) it shows at.
    pub start: i64,
    /// Steps it lasts.
    pub steps: i64,
    /// How much: noise widths, or a factor for `variance` and `errors`.
    pub size: f64,
}

impl Fault {
    /// Whether it acts at this step.
    pub fn active(&self, step: i64) -> bool {
        (self.start..self.start.saturating_add(self.steps)).contains(&step)
    }

    /// What it adds to a level or a rate at a step, in noise widths.
    pub(super) fn lift(&self, step: i64) -> f64 {
        if !self.active(step) {
            return 0.0;
        }
        match self.kind {
            FaultKind::Spike | FaultKind::Shift => self.size,
            FaultKind::Dip => -self.size,
            FaultKind::Ramp => self.size * (step - self.start + 1) as f64 / self.steps as f64,
            _ => 0.0,
        }
    }

    /// The sum of [`Fault::lift`] up to and with a step: what a counter has gained.
    pub(super) fn gained(&self, step: i64) -> f64 {
        let n = (step - self.start + 1).clamp(0, self.steps) as f64;
        match self.kind {
            FaultKind::Spike | FaultKind::Shift => self.size * n,
            FaultKind::Ramp => self.size * n * (n + 1.0) / 2.0 / self.steps.max(1) as f64,
            _ => 0.0,
        }
    }
}

/// A fault as written on the command line: `kind[:size][@start][+length][=series]`, for example
/// `shift:12@10m+5m=3`; what is left out is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// How much.
    pub size: Option<f64>,
    /// Time from the start of the run.
    pub after: Option<Span>,
    /// How long.
    pub length: Option<Span>,
    /// Index of the series.
    pub series: Option<usize>,
}

impl FaultSpec {
    /// Reads one fault.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<FaultSpec, SimulateError> {
        let wrong = |what: String| SimulateError::Fault { text: text.to_string(), what };
        let end = text.find([':', '@', '+', '=']).unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
            wrong(format!("unknown kind; one of {}", names.join(", ")))
        })?;
        let mut spec = FaultSpec { kind, size: None, after: None, length: None, series: None };
        while let Some(mark) = rest.chars().next() {
            let body = &rest[1..];
            let end = body.find([':', '@', '+', '=']).unwrap_or(body.len());
            let (part, tail) = body.split_at(end);
            match mark {
                ':' => {
                    let size = part.parse::<f64>().ok().filter(|size| size.is_finite() && *size > 0.0);
                    spec.size = Some(size.ok_or_else(|| wrong("the size is a number above 0".into()))?);
                }
                '@' => spec.after = Some(Span::parse(part).map_err(wrong)?),
                '+' => spec.length = Some(Span::parse(part).map_err(wrong)?),
                _ => {
                    let index = part.parse().map_err(|_| wrong("the series is an index from 0".into()))?;
                    spec.series = Some(index);
                }
            }
            rest = tail;
        }
        Ok(spec)
    }

    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse_list(text: &str) -> Result<Vec<FaultSpec>, SimulateError> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(FaultSpec::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_reads_every_part_and_refuses_the_rest() {
        let full = FaultSpec::parse("shift:12.5@10m+5m=3").expect("valid");
        let expected = FaultSpec {
            kind: FaultKind::Shift,
            size: Some(12.5),
            after: Some(Span::minutes(10)),
            length: Some(Span::minutes(5)),
            series: Some(3),
        };
        assert_eq!(full, expected);
        let list = FaultSpec::parse_list("spike, stall@1h,gone").expect("valid");
        assert_eq!(list.iter().map(|f| f.kind.name()).collect::<Vec<_>>(), ["spike", "stall", "gone"]);
        for text in ["", "quake", "shift:-1", "shift:inf", "shift@x", "stall=a", "stall+"] {
            assert!(FaultSpec::parse(text).is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn what_a_counter_gains_is_the_sum_of_the_lifts() {
        for kind in [FaultKind::Spike, FaultKind::Shift, FaultKind::Ramp] {
            let fault = Fault { kind, series: 0, start: 10, steps: 7, size: 3.0 };
            let mut sum = 0.0;
            for step in 5..30 {
                sum += fault.lift(step);
                assert!((fault.gained(step) - sum).abs() < 1e-9, "{kind} at {step}");
            }
        }
    }
}
