//! What the engine says: one [`Output`] for each scored sample and signal, in batches that carry
//! the sequence of the record they come from.

use crate::detect::{Band, Detector, Kind, Verdict};
use crate::labels::Labels;
use crate::registry::Signal;
use crate::rules::{As, OutputNames, Rule, RuleSet};
use crate::time::Millis;
use std::sync::Arc;

/// Why a score is what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detail {
    /// What was expected.
    pub expected: f64,
    /// The usual interval that the budget was spread over, ms: what tells the score of another budget.
    /// 0 where direction or least change cap the score below 1 under every budget.
    pub interval: f32,
    /// What kind of anomaly it would be.
    pub kind: Kind,
    /// The band; `None` where the rule does not emit bands.
    pub band: Option<Band>,
    /// Evidence of each detector, by number.
    pub evidence: [f32; Detector::ALL.len()],
}

/// A scored sample, or the end of a scored series.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputValue {
    /// A score.
    Scored {
        /// The signal's value (after `as`).
        value: f64,
        /// 0 = as expected, 1 = the alarm threshold.
        score: f64,
        /// Why. Only where somebody asks: with a flag, where the rule emits bands or detectors, and
        /// where a sink wants everything. Outputs are many, and most are two numbers.
        detail: Option<Box<Detail>>,
    },
    /// The series has been silent for longer than its rule allows.
    Silent {
        /// At least 1.
        score: f64,
        /// Its last sample's time.
        since: Millis,
        /// The signal's value then.
        value: f64,
    },
    /// The source went stale: every output series of this signal ends with a stale marker.
    Stale,
}

impl OutputValue {
    /// What a verdict says of a signal's value. The rate of a counter and its kin are never negative,
    /// so nothing below 0 is shown as expected or as an edge of the band: no value lies there, and where
    /// the whole band does, none would score below 1 and the band is empty, at what is expected. A side
    /// without a bound stays one. `in_detail`: with the [`Detail`].
    pub fn scored(
        transform: As,
        value: f64,
        verdict: Verdict,
        band: Option<Band>,
        in_detail: bool,
    ) -> OutputValue {
        let Verdict { score, expected, interval, kind, evidence } = verdict;
        if !in_detail {
            return OutputValue::Scored { value, score, detail: None };
        }
        let counts = matches!(transform, As::Rate | As::Delta | As::CountRate);
        let shown = |x: f64| if counts && x.is_finite() && x < 0.0 { 0.0 } else { x };
        let band = band.map(|band| Band { lower: shown(band.lower), upper: shown(band.upper) });
        let detail = Detail { expected: shown(expected), interval, kind, band, evidence };
        OutputValue::Scored { value, score, detail: Some(Box::new(detail)) }
    }
}

/// One output: which signal, when, what.
#[derive(Clone, Debug)]
pub struct Output {
    /// The source series' canonical labels, the metric's name among them.
    pub labels: Labels,
    /// The rule that took it, by its number among those of the batch: see [`OutputBatch::rule`].
    pub rule: u16,
    /// The signal.
    pub transform: As,
    /// The source sample's time.
    pub at: Millis,
    /// What is said.
    pub value: OutputValue,
    /// Whether `emit_when` lets it out by remote write (other sinks see every output).
    pub emit: bool,
}

impl Output {
    /// Ends what was said of a signal, where anything was: its outputs go stale at `at`. `want_all`:
    /// also where nothing of it was let out.
    pub(super) fn end(
        signal: &mut Signal,
        labels: &Labels,
        rule: u16,
        at: Millis,
        want_all: bool,
    ) -> Option<Output> {
        let emit = std::mem::take(&mut signal.emitted).get().is_some();
        let scored = std::mem::take(&mut signal.scored);
        (scored && (emit || want_all)).then(|| Output {
            labels: labels.clone(),
            rule,
            transform: signal.transform,
            at,
            value: OutputValue::Stale,
            emit,
        })
    }

    /// Whether the flag is 1: exactly where the score is at least 1.
    pub fn flagged(&self) -> bool {
        use OutputValue::{Scored, Silent};
        matches!(self.value, Scored { score, .. } | Silent { score, .. } if score >= 1.0)
    }
}

/// The outputs of one partition from one record, in the order of its samples.
#[derive(Clone, Debug)]
pub struct OutputBatch {
    /// The record's position in the log.
    pub sequence: u64,
    /// The partition, 0 to 255.
    pub partition: u16,
    /// The rules as of that record.
    pub rules: Arc<RuleSet>,
    /// The outputs.
    pub outputs: Vec<Output>,
}

impl OutputBatch {
    /// The rule of one of its outputs. `None` only for an output of another batch.
    pub fn rule(&self, output: &Output) -> Option<&Arc<Rule>> {
        self.rules.rules.get(usize::from(output.rule))
    }

    /// Names to write under.
    pub fn names(&self) -> OutputNames {
        self.rules.output_names
    }

    /// The outputs, each with its rule.
    pub fn ruled(&self) -> impl Iterator<Item = (&Output, &Arc<Rule>)> {
        self.outputs.iter().filter_map(|output| Some((output, self.rule(output)?)))
    }
}

/// Takes what the engine says. Must never block.
pub trait OutputSink: Send + Sync {
    /// Takes a batch. Batches of one partition come in the order of their sequence.
    fn take(&self, batch: &Arc<OutputBatch>);
    /// Whether it wants every output, also those that are neither written out nor flagged.
    fn wants_all(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Share;

    fn shown(transform: As, expected: f64, lower: f64, upper: f64) -> (f64, f64, f64) {
        let verdict = Verdict {
            score: 0.5,
            expected,
            interval: 15_000.0,
            kind: Default::default(),
            evidence: Default::default(),
        };
        match OutputValue::scored(transform, 1.0, verdict, Some(Band { lower, upper }), true) {
            OutputValue::Scored { score: 0.5, value: 1.0, detail: Some(detail) } => {
                let band = detail.band.expect("as given");
                (detail.expected, band.lower, band.upper)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_rate_is_expected_below_zero() {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        for transform in [As::Rate, As::Delta, As::CountRate] {
            assert_eq!(shown(transform, 1.0, -2.0, 3.0), (1.0, 0.0, 3.0));
            assert_eq!(shown(transform, -0.25, -2.0, 3.0), (0.0, 0.0, 3.0));
            assert_eq!(shown(transform, -2.0, -3.0, -1.0), (0.0, 0.0, 0.0));
            assert_eq!(shown(transform, 1.0, low, high), (1.0, low, high), "no bound stays none");
        }
        for transform in [As::Value, As::Mean, As::Quantile(Share::new(0.5).expect("a share"))] {
            assert_eq!(shown(transform, -2.0, -3.0, -1.0), (-2.0, -3.0, -1.0));
        }
    }

    #[test]
    fn an_output_is_small() {
        assert!(size_of::<Output>() <= 72, "{} bytes are moved for each score", size_of::<Output>());
    }
}
