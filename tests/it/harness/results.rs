//! The result files of `oddity backtest`.

use super::sink::{Kept, keep};
use super::store::{Labels, labels, text};
use serde_json::Value;
use std::path::Path;

/// Reads the folder given as `--out`: scores and flags, with `bands` expected values and finite edges
/// too, under the labels that a sidecar writes. `rule` tells a metric's rule, and `as` where it is not
/// the value.
pub fn read(out: &Path, bands: bool, rule: impl Fn(&str) -> (&'static str, Option<&'static str>)) -> Kept {
    let folder = out.join("oddity");
    let index = std::fs::read(folder.join("index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let mut kept = Kept::new();
    for entry in index.as_array().expect("a list") {
        let mut labels: Labels = labels(&entry["labels"]);
        let metric = labels.remove("__name__").expect("a name");
        let (rule, transform) = rule(&metric);
        labels.insert("rule".into(), rule.into());
        if let Some(transform) = transform {
            labels.insert("as".into(), transform.into());
        }
        labels.insert("metric".into(), metric);
        let mut put = |name: &str, at: i64, value: f64| {
            labels.insert("__name__".into(), name.into());
            keep(&mut kept, &text(&labels), at, value.to_bits()).expect("one value a sample");
        };
        let file = std::fs::read_to_string(folder.join(entry["file"].as_str().expect("a name")));
        // A row without an expected value was not scored.
        for row in file.expect("a result file").lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            if cells[5].is_empty() {
                continue;
            }
            let number = |cell: usize| cells[cell].parse::<f64>().expect("a number");
            let at = (number(0) * 1e3).round() as i64;
            put("anomaly_score", at, number(2));
            put("anomaly_flag", at, number(3));
            for (cell, name) in [(5, "anomaly_expected"), (6, "anomaly_lower"), (7, "anomaly_upper")] {
                if bands && !cells[cell].is_empty() && number(cell).is_finite() {
                    put(name, at, number(cell));
                }
            }
        }
    }
    kept
}
