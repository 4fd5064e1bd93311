//! `write_relabel_configs`, with Prometheus's defaults and its checks.

use crate::emit::config::{RelabelAction, RelabelConfig};
use crate::rules::yaml::{Map, Node};
use RelabelAction::*;
use regex::Regex;
use std::sync::LazyLock;

const ACTIONS: [(&str, RelabelAction); 11] = [
    ("replace", Replace),
    ("keep", Keep),
    ("drop", Drop),
    ("keepequal", KeepEqual),
    ("dropequal", DropEqual),
    ("hashmod", HashMod),
    ("labelmap", LabelMap),
    ("labeldrop", LabelDrop),
    ("labelkeep", LabelKeep),
    ("lowercase", Lowercase),
    ("uppercase", Uppercase),
];

/// A label's name, and one that groups of the expression are put into.
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[a-zA-Z_][a-zA-Z0-9_]*$").ok());
static TEMPLATE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+$").ok());

fn fits(pattern: &Option<Regex>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// The steps, those that are wrong left out and reported.
pub(super) fn relabel(node: &Node<'_>) -> Vec<RelabelConfig> {
    let items = node.list().unwrap_or_default();
    items.iter().filter_map(|item| step(item.map()?)).collect()
}

fn step(mut map: Map<'_>) -> Option<RelabelConfig> {
    let action = map.take("action").map(|node| {
        // Prometheus takes any case.
        let text = node.text()?.to_lowercase();
        let known = ACTIONS.iter().find(|(name, _)| *name == text).map(|(_, action)| *action);
        known.or_else(|| node.choice(&ACTIONS))
    });
    let source_labels = map.take("source_labels");
    let separator = map.take("separator");
    let regex = map.take("regex");
    let modulus = map.take("modulus");
    let target_label = map.take("target_label");
    let replacement = map.take("replacement");

    let action = action.unwrap_or(Some(Replace));
    let only = |allowed: &str, given: &[&Option<Node<'_>>]| {
        for node in given.iter().filter_map(|node| node.as_ref()) {
            node.error(format!("has no meaning for this action, which takes only {allowed}; remove it"));
        }
    };
    match action {
        Some(LabelDrop | LabelKeep) => {
            only("regex", &[&source_labels, &separator, &modulus, &target_label, &replacement]);
        }
        Some(KeepEqual | DropEqual) => {
            only("source_labels and target_label", &[&separator, &modulus, &regex, &replacement]);
        }
        Some(Lowercase | Uppercase) => {
            only("source_labels, separator, regex and target_label", &[&replacement]);
        }
        _ => {}
    }
    let target = target_label.as_ref().map(|node| node.text().unwrap_or_default().to_string());
    let target = target.unwrap_or_default();
    check_target(&map, action, target_label.as_ref(), &target);

    let text_of = |node: Option<Node<'_>>, default: &str| match node {
        Some(node) => node.text().map(str::to_string),
        None => Some(default.to_string()),
    };
    let template = replacement.clone();
    let replacement = text_of(replacement, "$1");
    if action == Some(LabelMap)
        && let (Some(node), Some(text)) = (template, &replacement)
        && !fits(&TEMPLATE, text)
    {
        node.error("labelmap makes label names of it; expected a name such as ${1}_suffix");
    }
    let pattern = match regex {
        Some(node) => node.parse(|text| Regex::new(&format!("^(?s:{text})$"))),
        None => Regex::new("^(?s:(.*))$").ok(),
    };
    let modulus = modulus.map(|node| node.whole(1..=u64::MAX));
    if action == Some(HashMod) && modulus.is_none() {
        map.node.error("`modulus` is missing: hashmod needs one of at least 1");
    }
    let source_labels = source_labels.map_or(Some(Vec::new()), |node| node.strings());
    let separator = text_of(separator, ";");
    map.finish();
    Some(RelabelConfig {
        source_labels: source_labels?,
        separator: separator?,
        regex: pattern?,
        modulus: modulus.flatten().unwrap_or_default(),
        target_label: target,
        replacement: replacement?,
        action: action?,
    })
}

fn check_target(map: &Map<'_>, action: Option<RelabelAction>, node: Option<&Node<'_>>, target: &str) {
    let needed = matches!(action, Some(Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual));
    if !needed {
        return;
    }
    let Some(node) = node.filter(|_| !target.is_empty()) else {
        map.node.error("`target_label` is missing: this action needs it");
        return;
    };
    let template = action == Some(Replace) && target.contains('$');
    if !fits(if template { &TEMPLATE } else { &NAME }, target) {
        node.error(format!("expected a label name, found {target:?}"));
    }
}
