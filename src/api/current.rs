//! Current scores and flags in the exposition format, for sites that scrape.

use crate::emit::names::Writer;
use crate::engine::{Output, OutputBatch, OutputSink, OutputValue, own};
use crate::labels::{NAME, value_of};
use crate::rules::{OutputNames, Rule};
use crate::time::{Millis, Span};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Scores older than this are shown no more: Prometheus's look-back.
const LOOK_BACK: Span = Span::minutes(5);
const PARTITIONS: usize = 256;

struct Entry {
    output: Output,
    rule: Arc<Rule>,
    names: OutputNames,
}

/// A sink that keeps the last score of each signal, up to a limit.
pub struct Current {
    // A map for each partition: batches of different partitions never meet.
    partitions: Vec<Mutex<HashMap<u128, Entry>>>,
    entries: AtomicUsize,
    capacity: usize,
    refused: AtomicU64,
}

impl Current {
    /// Keeps at most `capacity` signals; those beyond are not shown and counted.
    pub fn new(capacity: usize) -> Current {
        Current {
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            entries: AtomicUsize::new(0),
            capacity,
            refused: AtomicU64::new(0),
        }
    }

    /// Signals kept.
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outputs that were not kept because the limit was reached.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// The text format, version 0.0.4, with each sample's own time. A rule's `emit` says which series
    /// there are, as for remote write. What is older than 5 min is forgotten.
    pub fn text(&self, now: Millis) -> String {
        let mut families: BTreeMap<String, String> = BTreeMap::new();
        let mut writer = Writer::default();
        for partition in &self.partitions {
            let mut partition = partition.lock();
            let before = partition.len();
            partition.retain(|_, entry| now.since(entry.output.at) <= LOOK_BACK.0);
            self.entries.fetch_sub(before - partition.len(), Relaxed);
            for Entry { output, rule, names } in partition.values() {
                writer.each(output, rule, *names, |labels, value| {
                    let name = value_of(labels, NAME).unwrap_or("");
                    let lines = match families.get_mut(name) {
                        Some(lines) => lines,
                        None => families.entry(name.to_string()).or_default(),
                    };
                    // Writing to a String cannot fail.
                    let _ = writeln!(lines, "{name}{{{}}} {value} {}", labels_text(labels), output.at.0);
                });
            }
        }
        let mut text = String::new();
        for (name, lines) in families {
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} gauge\n{lines}", help(&name));
        }
        text
    }

    fn keep(
        &self,
        partition: &mut HashMap<u128, Entry>,
        output: &Output,
        rule: &Arc<Rule>,
        names: OutputNames,
    ) {
        let key = key(output, rule);
        if output.value == OutputValue::Stale {
            if partition.remove(&key).is_some() {
                self.entries.fetch_sub(1, Relaxed);
            }
            return;
        }
        let known = partition.contains_key(&key);
        if !known && self.entries.fetch_add(1, Relaxed) >= self.capacity {
            self.entries.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        // `emit_when` thins out what is sent; what is asked for is always the current state.
        let output = Output { emit: true, ..output.clone() };
        partition.insert(key, Entry { output, rule: rule.clone(), names });
    }
}

impl OutputSink for Current {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let Some(partition) = self.partitions.get(usize::from(batch.partition)) else { return };
        let mut partition = partition.lock();
        for (output, rule) in batch.ruled() {
            self.keep(&mut partition, output, rule, batch.names());
        }
    }

    fn wants_all(&self) -> bool {
        true
    }
}

/// What a series says, by its name.
fn help(name: &str) -> &'static str {
    match name {
        own::SCORE => "How unexpected the sample is: 0 as expected, 1 the alarm threshold.",
        own::FLAG => "1 exactly where the score is at least 1, else 0.",
        own::EXPECTED | own::VM_EXPECTED => "The value expected, in the unit of the source.",
        own::LOWER | own::VM_LOWER => "Values below would score 1 or more.",
        own::UPPER | own::VM_UPPER => "Values above would score 1 or more.",
        own::VM_VALUE => "The value scored.",
        _ => "The evidence of one detector.",
    }
}

fn key(output: &Output, rule: &Rule) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut part = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part(&rule.name);
    part(&output.transform.to_string());
    for (name, value) in output.labels.iter() {
        part(name);
        part(value);
    }
    hash.digest128()
}

/// Labels but the name, as text. Two names that become the same one are written once.
fn labels_text(labels: &[(&str, &str)]) -> String {
    let mut all: Vec<(String, &str)> = Vec::with_capacity(labels.len());
    for (name, value) in labels.iter().filter(|(name, _)| *name != NAME) {
        let name = legal(name);
        if !all.iter().any(|(have, _)| *have == name) {
            all.push((name, value));
        }
    }
    let pairs: Vec<String> =
        all.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    pairs.join(",")
}

/// The text format knows no label names beyond `[a-zA-Z_][a-zA-Z0-9_]*`; others get underscores.
fn legal(name: &str) -> String {
    name.char_indices()
        .map(
            |(i, c)| if c == '_' || c.is_ascii_alphabetic() || i > 0 && c.is_ascii_digit() { c } else { '_' },
        )
        .collect()
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::Recent;
    use crate::api::exposition::lint::complaints;
    use crate::detect::Band;
    use crate::engine::Detail;
    use crate::labels::Labels;
    use crate::rules::{As, RuleSet};

    pub(in crate::api) fn rule() -> Rule {
        Rule {
            labels: vec![("job".into(), "lost".into()), ("team".into(), "edge".into())],
            ..Rule::new("node", Vec::new())
        }
    }

    pub(in crate::api) fn output(labels: &[(&str, &str)], at: i64, score: f64) -> Output {
        let band = Some(Band { lower: 1.0, upper: f64::INFINITY });
        let detail = Detail {
            expected: 3.0,
            interval: 15e3,
            band,
            kind: Default::default(),
            evidence: [0.0, 9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        };
        Output {
            labels: Labels::from_pairs(labels),
            rule: 0,
            transform: As::Rate,
            at: Millis(at),
            value: OutputValue::Scored { value: 0.5, score, detail: Some(Box::new(detail)) },
            emit: true,
        }
    }

    pub(in crate::api) fn batch(outputs: Vec<Output>) -> Arc<OutputBatch> {
        let rules = RuleSet { rules: vec![Arc::new(rule())], ..RuleSet::default() };
        Arc::new(OutputBatch { sequence: 0, partition: 3, rules: Arc::new(rules), outputs })
    }

    #[test]
    fn scores_are_written_with_escaped_labels_until_they_are_old() {
        let current = Current::new(10);
        let hostile = [(NAME, "up"), ("job", "x"), ("metric", "a\"b\\c\nd"), ("weird.name", "1")];
        current.take(&batch(vec![output(&hostile, 1_000, 0.25), output(&hostile, 2_000, 1.5)]));
        let text = current.text(Millis(2_000));
        let labels = r#"as="rate",exported_metric="a\"b\\c\nd",job="x",metric="up",rule="node",team="edge",weird_name="1""#;
        assert!(text.contains(&format!("anomaly_score{{{labels}}} 1.5 2000\n")), "{text}");
        assert!(text.contains(&format!("anomaly_flag{{{labels}}} 1 2000\n")), "{text}");
        assert_eq!(complaints(&text), [""; 0]);
        assert!(!current.text(Millis(302_001)).contains("rule="));
        assert!(current.is_empty());
    }

    #[test]
    fn a_stale_signal_goes_and_the_number_is_bounded() {
        let current = Current::new(1);
        let first = output(&[(NAME, "a")], 1_000, 0.5);
        current.take(&batch(vec![first.clone(), output(&[(NAME, "b")], 1_000, 0.5)]));
        assert_eq!((current.len(), current.refused()), (1, 1));
        current.take(&batch(vec![Output { value: OutputValue::Stale, ..first }]));
        assert!(current.is_empty());
    }

    #[test]
    fn recent_keeps_the_newest_flagged_ones_and_says_why() {
        let recent = Recent::new(2);
        for at in 1..=3 {
            recent.take(&batch(vec![output(&[(NAME, "up")], at, 2.0), output(&[(NAME, "up")], at, 0.9)]));
        }
        let newest = recent.newest(10);
        assert_eq!(newest.iter().map(|a| a.at.0).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(
            newest[0].why(),
            "up (rate) is 0.5, below the 3 expected (normal: at least 1); score 2, \
             most of it from zscore (odds of 1 in 8103)."
        );
        assert!(newest[0].to_json()["upper"].is_null());
    }
}
