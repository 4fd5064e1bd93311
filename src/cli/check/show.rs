//! Rules as a table.

use super::live::Matched;
use crate::detect::{Detector, Direction, Season};
use crate::rules::budget::Budget;
use crate::rules::{EmitWhen, Rule, RuleSet};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::collections::BTreeMap;

fn joined<T: ToString>(items: impl IntoIterator<Item = T>, by: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(by)
}

/// A rule's resolved settings by their names in `rules.yaml`.
pub(super) fn settings(rule: &Rule) -> BTreeMap<&'static str, String> {
    let params = &rule.params;
    let emit = rule.emit;
    let emit =
        [("score", emit.score), ("flag", emit.flag), ("bands", emit.bands), ("detectors", emit.detectors)];
    let detectors = Detector::ALL.into_iter().filter(|detector| params.detectors.has(*detector));
    BTreeMap::from([
        ("name", rule.name.clone()),
        ("match", joined(&rule.selectors, "\n")),
        ("as", if rule.transforms.is_empty() { "auto".into() } else { joined(&rule.transforms, ", ") }),
        (
            "direction",
            match rule.read.direction {
                Direction::Both => "both",
                Direction::Up => "up",
                Direction::Down => "down",
            }
            .into(),
        ),
        ("false_alarms", Budget { span: rule.read.budget }.to_string()),
        (
            "min_change",
            match rule.read.min_change {
                change if change.absolute == 0.0 && change.relative == 0.0 => "none".into(),
                change => format!(
                    "absolute {}, relative {}%",
                    change.absolute,
                    (change.relative * 1e8).round() / 1e6
                ),
            },
        ),
        ("ignore", joined(rule.ignore.iter().map(|window| window.when.to_string()), "\n")),
        ("silence", rule.silence.map_or_else(String::new, |silence| format!("after {}", silence.after))),
        ("quiet", rule.read.quiet.map_or_else(|| "5m or 5 samples".into(), |quiet| quiet.to_string())),
        ("min_samples", params.min_samples.to_string()),
        ("accept_shift_after", params.accept_shift_after.to_string()),
        (
            "season",
            match params.season {
                Season::None => "none".into(),
                Season::Auto => "auto".into(),
                Season::Fixed(periods) => periods.to_string(),
            },
        ),
        ("timezone", params.zone.to_string()),
        ("detectors", joined(detectors.map(Detector::name), ", ")),
        (
            "models",
            format!(
                "half_life {}, window {}, alpha {}, beta {}, gamma {}, phi {}",
                params.ewma_half_life,
                params.zscore_window,
                params.alpha,
                params.beta,
                params.gamma,
                params.phi
            ),
        ),
        ("emit", joined(emit.into_iter().filter(|(_, yes)| *yes).map(|(name, _)| name), ", ")),
        (
            "emit_when",
            match rule.emit_when {
                EmitWhen::Always => "always",
                EmitWhen::Changed => "changed",
                EmitWhen::Anomalous => "anomalous",
            }
            .into(),
        ),
        ("labels", joined(rule.labels.iter().map(|(name, value)| format!("{name}={value:?}")), ", ")),
        ("identity_without", joined(&rule.identity_without, ", ")),
        ("cohort", joined(&rule.cohort, ", ")),
        ("buckets", rule.buckets.to_string()),
        ("max_series", rule.max_series.map(|most| most.to_string()).unwrap_or_default()),
    ])
}

/// One column a setting, one row a rule; a setting that all rules leave empty is left out.
pub(super) fn rules(rules: &RuleSet) -> String {
    const ORDER: [&str; 22] = [
        "name",
        "match",
        "as",
        "direction",
        "false_alarms",
        "min_change",
        "ignore",
        "silence",
        "quiet",
        "min_samples",
        "accept_shift_after",
        "season",
        "timezone",
        "detectors",
        "models",
        "emit",
        "emit_when",
        "labels",
        "identity_without",
        "cohort",
        "buckets",
        "max_series",
    ];
    let mut text = String::new();
    for rule in &rules.rules {
        let settings = settings(rule);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // A rule is a block of lines: twenty-two columns fit no terminal.
        table.set_content_arrangement(ContentArrangement::Disabled);
        for name in ORDER {
            match settings.get(name) {
                Some(value) if !value.is_empty() => table.add_row([name, value]),
                _ => continue,
            };
        }
        text += &table.trim_fmt();
        text += "\n\n";
    }
    text.truncate(text.trim_end().len());
    text
}

/// Longest text of a series shown.
const LONGEST: usize = 110;

/// A few series of each rule.
pub(super) fn examples(rules: &RuleSet, matched: &Matched) -> String {
    let mut lines = Vec::new();
    for (rule, count) in rules.rules.iter().zip(&matched.rules) {
        if count.examples.is_empty() {
            lines.push(format!("{}: no series", rule.name));
            continue;
        }
        lines.push(format!("{}, for example", rule.name));
        for example in &count.examples {
            let short: String = example.chars().take(LONGEST).collect();
            let rest = if short.len() < example.len() { "…" } else { "" };
            lines.push(format!("  {short}{rest}"));
        }
    }
    lines.join("\n")
}

/// What each rule matched: remarks, and the table last.
pub(super) fn matched(rules: &RuleSet, matched: &Matched) -> String {
    let mut text = "Series of the last 10 minutes; each is counted for the first rule that takes it, HA replicas \
                    once.\nOutput series are an upper bound: native histograms and plain samples take different \
                    `as`.\n"
        .to_string();
    if matched.own > 0 {
        text += &format!("{} series are oddity's own outputs and were left out.\n", matched.own);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["rule", "series", "output series", "taken by earlier rules"]);
    let (mut series, mut outputs) = (0, 0);
    for (rule, count) in rules.rules.iter().zip(&matched.rules) {
        table.add_row([
            rule.name.clone(),
            count.series.to_string(),
            count.outputs.to_string(),
            count.earlier.to_string(),
        ]);
        series += count.series;
        outputs += count.outputs;
    }
    table.add_row(["in all".to_string(), series.to_string(), outputs.to_string(), String::new()]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text += "\n";
    text + &table.trim_fmt()
}
