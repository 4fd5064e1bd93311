//! What the engine, run in this process on the same records, gives.

use super::now_ms;
use super::sink::{Kept, keep};
use super::store::{Labels, text};
use bytes::Bytes;
use oddity::engine::{Engine, OutputBatch, OutputSink, OutputValue};
use oddity::record::{Body, Record};
use oddity::rules::{As, RuleSet};
use oddity::time::Millis;
use oddity::wire::Version;
use std::sync::{Arc, Mutex, PoisonError};

/// The rules of a `rules.yaml`.
pub fn rules(text: &str) -> Arc<RuleSet> {
    let config = oddity::config::Config::parse("rules.yaml", text);
    let config = config.unwrap_or_else(|errors| panic!("the test's own rules are wrong: {errors:?}"));
    config.rules.clone()
}

/// Collects scores and flags under the labels that the sidecar writes.
#[derive(Default)]
struct Collector(Mutex<Kept>);

impl OutputSink for Collector {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for output in batch.outputs.iter().filter(|output| output.emit) {
            let OutputValue::Scored { score, .. } = output.value else { continue };
            let mut labels: Labels =
                output.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let metric = labels.insert("__name__".into(), "anomaly_score".into()).unwrap_or_default();
            labels.insert("metric".into(), metric);
            labels.insert("rule".into(), output.rule.name.to_string());
            if output.transform != As::Value {
                labels.insert("as".into(), output.transform.to_string());
            }
            keep(&mut kept, &text(&labels), output.at.0, score.to_bits()).expect("one score a sample");
            labels.insert("__name__".into(), "anomaly_flag".into());
            let flag = if score >= 1.0 { 1.0f64 } else { 0.0 };
            keep(&mut kept, &text(&labels), output.at.0, flag.to_bits()).expect("one flag a sample");
        }
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
        let body = Body { version: Version::V1, received: Millis(now_ms()), bytes: Bytes::from(body) };
        let applied = self.engine.apply(Record::Body(body)).expect("a sound body");
        assert_eq!(applied.malformed_samples, 0, "{:?}", applied.defects);
    }

    /// Changes the rules, as a reload does.
    pub fn reload(&self, rules_yaml: &str) {
        self.engine.apply(Record::Rules(rules(rules_yaml))).expect("rules need no decoding");
    }

    /// Everything it said.
    pub fn into_kept(self) -> Kept {
        std::mem::take(&mut self.collector.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
