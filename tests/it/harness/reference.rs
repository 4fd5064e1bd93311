//! What the engine, run in this process on the same records, gives.

use super::now_ms;
use super::sink::{Kept, keep};
use super::store::{Labels, text};
use bytes::Bytes;
use oddity::detect::Detector;
use oddity::engine::{Engine, Output, OutputBatch, OutputSink, OutputValue};
use oddity::record::{Body, Record};
use oddity::rules::{As, Rule, RuleSet};
use oddity::time::Millis;
use oddity::wire::Version;
use std::sync::{Arc, Mutex, PoisonError};

/// Prometheus's stale marker.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The rules of a `rules.yaml`.
pub fn rules(text: &str) -> Arc<RuleSet> {
    let config = oddity::config::Config::parse("rules.yaml", text);
    let config = config.unwrap_or_else(|errors| panic!("the test's own rules are wrong: {errors:?}"));
    config.rules.clone()
}

/// Collects what is written out, under the labels that the sidecar writes: the words of the README
/// again, so that the product's own writer is not its own judge.
#[derive(Default)]
struct Collector(Mutex<Kept>);

impl Collector {
    fn output(kept: &mut Kept, output: &Output, rule: &Rule) {
        let mut labels: Labels =
            output.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let metric = labels.insert("__name__".into(), String::new()).unwrap_or_default();
        labels.insert("metric".into(), metric);
        labels.insert("rule".into(), rule.name.to_string());
        if output.transform != As::Value {
            labels.insert("as".into(), output.transform.to_string());
        }
        let mut put = |name: &str, detector: Option<Detector>, value: f64| {
            labels.insert("__name__".into(), name.into());
            if let Some(detector) = detector {
                labels.insert("detector".into(), detector.name().into());
            }
            // A side without a bound is not written.
            if value.is_finite() || value.to_bits() == STALE {
                keep(kept, &text(&labels), output.at.0, value.to_bits()).expect("one value a sample");
            }
        };
        let emit = rule.emit;
        let stale = f64::from_bits(STALE);
        let (score, flag) = match output.value {
            OutputValue::Scored { score, .. } | OutputValue::Silent { score, .. } => {
                (score, if score >= 1.0 { 1.0 } else { 0.0 })
            }
            OutputValue::Stale => (stale, stale),
        };
        if emit.score {
            put("anomaly_score", None, score);
        }
        if emit.flag {
            put("anomaly_flag", None, flag);
        }
        let (expected, lower, upper) = match output.value {
            OutputValue::Scored { ref detail, .. } => {
                let detail = detail.as_ref().map(|detail| (detail.expected, detail.band));
                let (expected, band) = detail.unwrap_or((f64::NAN, None));
                let side = |side: Option<f64>| side.unwrap_or(f64::NAN);
                (expected, side(band.map(|band| band.lower)), side(band.map(|band| band.upper)))
            }
            OutputValue::Silent { .. } => (f64::NAN, f64::NAN, f64::NAN),
            OutputValue::Stale => (stale, stale, stale),
        };
        if emit.bands {
            put("anomaly_expected", None, expected);
            put("anomaly_lower", None, lower);
            put("anomaly_upper", None, upper);
        }
        if emit.detectors {
            for (number, detector) in Detector::ALL.into_iter().enumerate() {
                let evidence = match output.value {
                    OutputValue::Scored { ref detail, .. } => {
                        detail.as_ref().map_or(f64::NAN, |detail| f64::from(detail.evidence[number]))
                    }
                    OutputValue::Silent { .. } => f64::NAN,
                    OutputValue::Stale => stale,
                };
                if rule.params.detectors.has(detector) {
                    put("anomaly_detector_score", Some(detector), evidence);
                }
            }
        }
    }
}

impl OutputSink for Collector {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let emitted = batch.ruled().filter(|(output, _)| output.emit);
        emitted.for_each(|(output, rule)| Self::output(&mut kept, output, rule));
    }
}

/// The engine on the caller's thread.
pub struct Reference {
    engine: Engine,
    collector: Arc<Collector>,
}

impl Reference {
    /// An engine with these rules.
    pub fn new(rules_yaml: &str) -> Reference {
        let collector = Arc::new(Collector::default());
        let engine = Engine::new(rules(rules_yaml), 0, vec![collector.clone()]);
        Reference { engine, collector }
    }

    /// Applies a 1.0 body.
    pub fn apply(&self, body: Vec<u8>) {
        let body = Body::new(Version::V1, Millis(now_ms()), Bytes::from(body));
        let applied = self.engine.apply(Record::Body(body)).expect("a sound body");
        assert_eq!(applied.malformed_samples, 0, "{:?}", applied.defects);
    }

    /// Changes the rules, as a reload does.
    pub fn reload(&self, rules_yaml: &str) {
        self.engine.apply(Record::Rules(rules(rules_yaml))).expect("rules need no decoding");
    }

    /// A number that stands for all that it has learnt.
    pub fn digest(&self) -> u64 {
        self.engine.digest()
    }

    /// Everything it said.
    pub fn into_kept(self) -> Kept {
        std::mem::take(&mut self.collector.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
