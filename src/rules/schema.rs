//! From `rules.yaml` to a [`RuleSet`]: `rules`, `defaults`, `ha`, `limits`, `partition_by`, `ignore`,
//! `output_names` and `state.forget_after`. The other sections belong to the application.

mod ignore;
mod settings;

use super::model::{Identity, Limits, OutputNames, Rule, RuleSet};
use super::selector;
use super::window::{Window, Windows};
use super::yaml::{self, MAX_BYTES, Map, Node, Note, Problems};
use crate::time::Span;
use settings::Settings;
use std::collections::HashSet;
use std::sync::Arc;

/// Names kept for later versions.
const RESERVED: [&str; 5] = ["forecast", "narrate", "notify", "responses", "ingest"];
const LATER: &str = "reserved for a later version; remove it";
/// Bytes of a rule's name.
const NAME_BYTES: usize = 128;

impl RuleSet {
    /// Reads only what shapes scores; the sections of the application (`server`, `remote_write`, …) may
    /// be there and are not looked at. `file` names the text in messages.
    ///
    /// # Errors
    /// Everything wrong with the text.
    pub fn parse(file: &str, text: &str) -> Result<(RuleSet, Vec<Note>), Problems> {
        yaml::read(file, text, |root| {
            for section in ["server", "remote_write", "remote_read"] {
                root.take(section);
            }
            read(root)
        })
    }

    /// The rule set that has this [`RuleSet::source`].
    ///
    /// # Errors
    /// Everything wrong with it: it is none, or one of a version that knew other fields.
    pub fn restore(source: &str) -> Result<RuleSet, Problems> {
        yaml::read_within(MAX_SOURCE, "saved rules", source, read).map(|(rules, _)| rules)
    }
}

/// What is read here of the top level: a section whole, or the fields named of it.
const READ: [(&str, &[&str]); 8] = [
    ("output_names", &[]),
    ("ha", &[]),
    ("partition_by", &[]),
    ("limits", &["max_series", "max_aliases", "max_labels", "max_label_bytes", "max_ahead"]),
    ("state", &["forget_after"]),
    ("defaults", &[]),
    ("ignore", &[]),
    ("rules", &[]),
];
/// Bytes of [`RuleSet::source`], which has aliases written out.
const MAX_SOURCE: usize = 8 * MAX_BYTES;

/// Reads the sections that shape scores from the top level of a file. `None` where something is wrong,
/// which is reported.
pub fn read(root: &mut Map<'_>) -> Option<RuleSet> {
    for name in RESERVED {
        root.refuse(name, LATER);
    }
    root.refuse("rule_files", "not supported yet; write the rules into this file");
    let output_names = root.take("output_names").and_then(|node| {
        node.choice(&[("oddity", OutputNames::Oddity), ("vmanomaly", OutputNames::VmAnomaly)])
    });
    let output_names = output_names.unwrap_or_default();
    let identity = identity(root);
    let limits = root.take("limits").map_or_else(Limits::default, limits);
    let forget_after = root
        .take("state")
        .and_then(|node| node.map())
        .and_then(|mut state| state.take("forget_after"))
        .and_then(|node| node.duration(Span::MINUTE..=Span::days(365)))
        .unwrap_or(Span::hours(24));
    let mut base = Settings::remembered_for(forget_after);
    if let Some(mut map) = root.take("defaults").and_then(|node| node.map()) {
        map.refuse("ignore", "write it at the top level, where it holds for every rule");
        base.read(&mut map, output_names);
        map.finish();
    }
    let everywhere = ignore::windows(root);
    let rules = rules(root, &base, output_names, &everywhere)?;
    let source = root.json(&READ);
    if source.len() > MAX_SOURCE {
        root.node.error(format!("with aliases written out the rules take more than {MAX_SOURCE} bytes"));
    }
    Some(RuleSet { rules, identity, limits, forget_after, output_names, source: source.into() })
}

fn identity(root: &mut Map<'_>) -> Identity {
    let mut identity = Identity::default();
    if let Some(mut ha) = root.take("ha").and_then(|node| node.map()) {
        for (name, to) in
            [("cluster_label", &mut identity.cluster_label), ("replica_label", &mut identity.replica_label)]
        {
            if let Some(label) = ha.take(name).and_then(|node| label_name(&node)) {
                *to = label;
            }
        }
        if identity.cluster_label == identity.replica_label {
            ha.node.error("cluster_label and replica_label must be different labels");
        }
        ha.finish();
    }
    if let Some(node) = root.take("partition_by") {
        identity.partition_by = label_names(&node);
        if identity.partition_by.as_ref().is_some_and(Vec::is_empty) {
            node.error("expected at least one label; to spread by all labels remove the field");
        }
    }
    identity
}

fn limits(node: Node<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut map) = node.map() else { return limits };
    for (name, to, range) in [
        ("max_series", &mut limits.max_series, 1..=1_000_000_000),
        ("max_aliases", &mut limits.max_aliases, 1..=2_000_000_000),
        ("max_labels", &mut limits.labels.labels, 1..=1024),
        ("max_label_bytes", &mut limits.labels.bytes, 16..=65_536),
    ] {
        if let Some(size) = map.take(name).and_then(|node| node.size(range)) {
            *to = size;
        }
    }
    if let Some(span) = map.take("max_ahead").and_then(|node| node.duration(Span::SECOND..=Span::days(365))) {
        limits.max_ahead = span;
    }
    // The receiver's bounds: checked by the application.
    for name in ["max_body_bytes", "max_in_flight_bytes", "max_connections", "max_queue_age"] {
        map.take(name);
    }
    map.finish();
    limits
}

fn rules(
    root: &mut Map<'_>,
    base: &Settings,
    names: OutputNames,
    everywhere: &[Arc<Window>],
) -> Option<Vec<Arc<Rule>>> {
    const WHAT: &str = "say which series are scored, as in `rules: [{name: node, match: node_load1}]`";
    let node = root.require("rules", WHAT)?;
    let items = node.list()?;
    if items.is_empty() {
        node.error(format!("there is no rule: {WHAT}"));
    }
    let mut taken = HashSet::new();
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        if let Some(rule) = rule(item, base, names, everywhere, &mut taken) {
            rules.push(Arc::new(rule));
        }
    }
    Some(rules)
}

fn rule(
    item: Node<'_>,
    base: &Settings,
    names: OutputNames,
    everywhere: &[Arc<Window>],
    taken: &mut HashSet<String>,
) -> Option<Rule> {
    let mut map = item.map()?;
    let name = map.require("name", "give the rule a name, the value of the `rule` label").and_then(|node| {
        let name = node.string()?;
        if name.len() > NAME_BYTES {
            node.error(format!("a name is at most {NAME_BYTES} bytes long"));
        } else if !taken.insert(name.clone()) {
            node.error(format!("there is already a rule named {name:?}; names are unique"));
        }
        Some(name)
    });
    let selectors = map.require("match", "one selector or a list of them, such as 'node_load1'");
    let selectors = selectors.and_then(|node| {
        let items = node.one_or_many()?;
        if items.is_empty() {
            node.error("expected at least one selector, such as 'node_load1'");
        }
        // All are parsed, so that all are reported.
        let each: Vec<_> = items.iter().map(|item| item.parse(selector::parse)).collect();
        Some(each.into_iter().flatten().flatten().collect())
    });
    let mut windows = everywhere.to_vec();
    windows.extend(ignore::windows(&mut map));
    let mut settings = base.clone();
    settings.read(&mut map, names);
    map.finish();
    Some(settings.into_rule(name?, selectors?, Windows::new(windows)))
}

/// A label's name as the classic exposition format allows it.
pub(super) fn is_label_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn label_name(node: &Node<'_>) -> Option<String> {
    node.parse(|text| match is_label_name(text) {
        true => Ok(text.to_string()),
        false => Err(format!("expected a label name (letters, digits and _), found {text:?}")),
    })
}

/// A list of label names, each once.
fn label_names(node: &Node<'_>) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for item in node.list()? {
        let Some(name) = label_name(&item) else { continue };
        if names.contains(&name) {
            item.error(format!("{name} is named twice"));
        } else {
            names.push(name);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
