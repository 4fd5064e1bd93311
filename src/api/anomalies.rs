//! The newest anomalies, kept for people.

use crate::detect::{self, Detector};
use crate::engine::{Detail, Output, OutputBatch, OutputSink, OutputValue};
use crate::labels::Labels;
use crate::rules::Rule;
use crate::time::{Millis, Span};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// What an anomaly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sample's value.
    Value(detect::Kind),
    /// No sample since this time.
    Silence(Millis),
}

impl Kind {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Value(kind) => kind.name(),
            Kind::Silence(_) => "silence",
        }
    }
}

/// A flagged sample, or a silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// The series.
    pub labels: Labels,
    /// The rule that takes it.
    pub rule: String,
    /// The signal, as the `as` label has it.
    pub transform: String,
    /// What it is.
    pub kind: Kind,
    /// The sample's time, or when the silence was due.
    pub at: Millis,
    /// The signal's value; the last one before a silence.
    pub value: f64,
    /// At least 1.
    pub score: f64,
    /// What was expected; NaN for a silence.
    pub expected: f64,
    /// Lower and upper edge of the band, where the rule has it computed; may be infinite.
    pub band: Option<(f64, f64)>,
    /// Evidence of each detector by number, in nats.
    pub evidence: [f32; Detector::ALL.len()],
}

impl Anomaly {
    /// The anomaly in an output of this rule; `None` where it is not flagged.
    pub fn of(output: &Output, rule: &Rule) -> Option<Anomaly> {
        let (kind, value, score, expected, band, evidence) = match output.value {
            OutputValue::Scored { value, score, ref detail } => {
                let Detail { expected, kind, band, evidence, .. } = **detail.as_ref()?;
                (Kind::Value(kind), value, score, expected, band, evidence)
            }
            OutputValue::Silent { score, since, value } => {
                (Kind::Silence(since), value, score, f64::NAN, None, Default::default())
            }
            OutputValue::Stale => return None,
        };
        (score >= 1.0).then(|| Anomaly {
            labels: output.labels.clone(),
            rule: rule.name.clone(),
            transform: output.transform.to_string(),
            kind,
            at: output.at,
            value,
            score,
            expected,
            band: band.map(|band| (band.lower, band.upper)),
            evidence,
        })
    }

    /// Why it is one, in a sentence.
    pub fn why(&self) -> String {
        let side = if self.value > self.expected { "above" } else { "below" };
        let of = if self.transform == "value" { String::new() } else { format!(" ({})", self.transform) };
        if let Kind::Silence(since) = self.kind {
            let seconds = Span::seconds(self.at.since(since) / 1_000);
            return format!(
                "{}{of} has been silent for {seconds}; its last value was {}; score {}.",
                self.labels.name(),
                short(self.value),
                short(self.score)
            );
        }
        let mut why = format!(
            "{}{of} is {}, {side} the {} expected",
            self.labels.name(),
            short(self.value),
            short(self.expected)
        );
        why += match self.kind {
            Kind::Value(detect::Kind::Variance) => "; it swings more widely than usual",
            Kind::Value(detect::Kind::LevelShift) => "; its level has moved",
            Kind::Value(detect::Kind::OutOfSeason) => "; that is unusual for this time",
            Kind::Value(detect::Kind::Ramp) => "; it has been moving one way for long",
            Kind::Value(detect::Kind::FlatLine) => "; it has not changed for longer than ever",
            _ => "",
        };
        if let Some((lower, upper)) = self.band {
            why += &match (lower.is_finite(), upper.is_finite()) {
                (true, true) => format!(" (normal: {} to {})", short(lower), short(upper)),
                (true, false) => format!(" (normal: at least {})", short(lower)),
                (false, true) => format!(" (normal: at most {})", short(upper)),
                (false, false) => String::new(),
            };
        }
        why += &format!("; score {}", short(self.score));
        let strongest = Detector::ALL
            .into_iter()
            .zip(self.evidence)
            .filter(|(_, evidence)| *evidence > 0.0)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((detector, evidence)) = strongest {
            let odds = f64::from(evidence).exp();
            why += &format!(", most of it from {} (odds of 1 in {})", detector.name(), short(odds));
        }
        why + "."
    }

    /// As `/api/v1/anomalies` shows it.
    pub fn to_json(&self) -> Value {
        let evidence: Map<String, Value> = Detector::ALL
            .into_iter()
            .zip(self.evidence)
            .filter(|(_, evidence)| *evidence > 0.0)
            .map(|(detector, evidence)| (detector.name().to_string(), json!(evidence)))
            .collect();
        json!({
            "labels": labels_json(&self.labels),
            "rule": self.rule,
            "as": self.transform,
            "kind": self.kind.name(),
            "timestamp": self.at.0 as f64 / 1e3,
            "value": self.value,
            "score": self.score,
            "expected": self.expected,
            "lower": self.band.map(|(lower, _)| lower).filter(|edge| edge.is_finite()),
            "upper": self.band.map(|(_, upper)| upper).filter(|edge| edge.is_finite()),
            "evidence": evidence,
            "why": self.why(),
        })
    }
}

/// A label set as a JSON object.
pub(super) fn labels_json(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_string(), json!(value))).collect())
}

/// A number with four significant digits.
pub(super) fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    let magnitude = x.abs().log10().floor() as i32;
    if !(-4..=9).contains(&magnitude) {
        return format!("{x:.3e}");
    }
    let text = format!("{x:.*}", (3 - magnitude).max(0) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A sink that keeps the newest anomalies.
#[derive(Debug)]
pub struct Recent {
    ring: Mutex<VecDeque<Anomaly>>,
    capacity: usize,
}

impl Recent {
    /// Keeps at most `capacity` anomalies; the oldest go first.
    pub fn new(capacity: usize) -> Recent {
        Recent { ring: Mutex::default(), capacity }
    }

    /// The newest anomalies, newest first.
    pub fn newest(&self, limit: usize) -> Vec<Anomaly> {
        self.ring.lock().iter().rev().take(limit).cloned().collect()
    }
}

impl OutputSink for Recent {
    fn take(&self, batch: &Arc<OutputBatch>) {
        for (output, rule) in batch.ruled().filter(|(output, _)| output.flagged()) {
            let Some(anomaly) = Anomaly::of(output, rule) else { continue };
            let mut ring = self.ring.lock();
            if ring.len() >= self.capacity {
                ring.pop_front();
            }
            ring.push_back(anomaly);
        }
    }
}
