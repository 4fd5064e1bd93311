//! What the engine says: one [`Output`] for each scored sample and signal, in batches that carry
//! the sequence of the record they come from.

use crate::detect::{Band, Detector};
use crate::labels::Labels;
use crate::rules::{As, OutputNames, Rule};
use crate::time::Millis;
use std::sync::Arc;

/// A scored sample, or the end of a scored series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OutputValue {
    /// A score.
    Scored {
        /// The signal's value (after `as`).
        value: f64,
        /// 0 = as expected, 1 = the alarm threshold.
        score: f64,
        /// What was expected.
        expected: f64,
        /// The usual interval that the budget was spread over, ms: what tells the score of another budget.
        /// 0 where direction or least change cap the score below 1 under every budget.
        interval: f32,
        /// The band; `None` where the rule does not emit bands.
        band: Option<Band>,
        /// Evidence of each detector, by number.
        evidence: [f32; Detector::ALL.len()],
    },
    /// The source went stale: every output series of this signal ends with a stale marker.
    Stale,
}

/// One output: which signal, when, what.
#[derive(Clone, Debug)]
pub struct Output {
    /// The source series' canonical labels, the metric's name among them.
    pub labels: Labels,
    /// The rule that took it.
    pub rule: Arc<Rule>,
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
    /// Whether the flag is 1: exactly where the score is at least 1.
    pub fn flagged(&self) -> bool {
        matches!(self.value, OutputValue::Scored { score, .. } if score >= 1.0)
    }
}

/// The outputs of one partition from one record, in the order of its samples.
#[derive(Clone, Debug)]
pub struct OutputBatch {
    /// The record's position in the log.
    pub sequence: u64,
    /// The partition, 0 to 255.
    pub partition: u16,
    /// Names to write under.
    pub names: OutputNames,
    /// The outputs.
    pub outputs: Vec<Output>,
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
