//! `write_relabel_configs`, as Prometheus does it.

use super::EmitError;
use super::config::{RelabelAction, RelabelConfig};
use super::md5::md5;
use regex::Regex;

/// The steps of one target.
#[derive(Debug, Default)]
pub struct Relabel {
    steps: Vec<RelabelConfig>,
}

impl Relabel {
    /// Compiles the steps.
    ///
    /// # Errors
    /// An expression that cannot be anchored, or a `hashmod` without a modulus.
    pub fn new(configs: &[RelabelConfig]) -> Result<Relabel, EmitError> {
        let mut steps = configs.to_vec();
        for step in &mut steps {
            // Anchoring twice changes nothing; anchoring never would match in the middle.
            step.regex = Regex::new(&format!("^(?s:{})$", step.regex.as_str()))
                .map_err(|error| EmitError::Relabel(error.to_string()))?;
            if step.action == RelabelAction::HashMod && step.modulus == 0 {
                return Err(EmitError::Relabel("hashmod needs a modulus above 0".into()));
            }
        }
        Ok(Relabel { steps })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Relabels a set in place and sorts it; `false`: the series is not sent.
    pub fn apply(&self, labels: &mut Vec<(String, String)>) -> bool {
        for step in &self.steps {
            if !apply(step, labels) {
                return false;
            }
        }
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.iter().any(|(name, _)| name == crate::labels::NAME)
    }
}

fn get<'a>(labels: &'a [(String, String)], name: &str) -> &'a str {
    labels.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
}

fn set(labels: &mut Vec<(String, String)>, name: &str, value: String) {
    match labels.iter_mut().find(|(have, _)| have == name) {
        Some(slot) => slot.1 = value,
        None => labels.push((name.to_string(), value)),
    }
}

fn apply(step: &RelabelConfig, labels: &mut Vec<(String, String)>) -> bool {
    let source = || {
        let values: Vec<&str> = step.source_labels.iter().map(|name| get(labels, name)).collect();
        values.join(&step.separator)
    };
    match step.action {
        RelabelAction::Keep => return step.regex.is_match(&source()),
        RelabelAction::Drop => return !step.regex.is_match(&source()),
        RelabelAction::KeepEqual => return get(labels, &step.target_label) == source(),
        RelabelAction::DropEqual => return get(labels, &step.target_label) != source(),
        RelabelAction::Replace => {
            let source = source();
            let Some(found) = step.regex.captures(&source) else { return true };
            let (mut target, mut value) = (String::new(), String::new());
            found.expand(&step.target_label, &mut target);
            found.expand(&step.replacement, &mut value);
            if !target.is_empty() {
                // An empty value removes the label, in the end.
                set(labels, &target, value);
            }
        }
        RelabelAction::Lowercase => {
            let value = source().to_lowercase();
            set(labels, &step.target_label, value);
        }
        RelabelAction::Uppercase => {
            let value = source().to_uppercase();
            set(labels, &step.target_label, value);
        }
        RelabelAction::HashMod => {
            let [.., a, b, c, d, e, f, g, h] = md5(source().as_bytes());
            let hash = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let value = hash.checked_rem(step.modulus).unwrap_or(0).to_string();
            set(labels, &step.target_label, value);
        }
        RelabelAction::LabelMap => {
            for (name, value) in labels.clone() {
                if let Some(found) = step.regex.captures(&name) {
                    let mut target = String::new();
                    found.expand(&step.replacement, &mut target);
                    if !target.is_empty() {
                        set(labels, &target, value);
                    }
                }
            }
        }
        RelabelAction::LabelDrop => labels.retain(|(name, _)| !step.regex.is_match(name)),
        RelabelAction::LabelKeep => labels.retain(|(name, _)| step.regex.is_match(name)),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn step(action: RelabelAction) -> RelabelConfig {
        RelabelConfig {
            source_labels: Vec::new(),
            separator: ";".into(),
            regex: Regex::new("(.*)").expect("valid"),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".into(),
            action,
        }
    }

    fn run(step: RelabelConfig) -> Option<String> {
        let mut labels: Vec<(String, String)> = [("__name__", "m"), ("a", "foo"), ("b", "bar"), ("c", "FOO")]
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .into();
        let kept = Relabel::new(&[step]).expect("valid").apply(&mut labels);
        kept.then(|| labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(","))
    }

    fn with(
        action: RelabelAction,
        source: &[&str],
        regex: &str,
        target: &str,
        replacement: &str,
    ) -> RelabelConfig {
        RelabelConfig {
            source_labels: source.iter().map(|s| s.to_string()).collect(),
            regex: Regex::new(regex).expect("valid"),
            target_label: target.into(),
            replacement: replacement.into(),
            modulus: 1000,
            ..step(action)
        }
    }

    #[test]
    fn every_action() {
        use RelabelAction::*;
        let all = "__name__=m,a=foo,b=bar,c=FOO";
        for (step, expected) in [
            // From Prometheus's model/relabel/relabel_test.go, where the labels coincide.
            (
                with(Replace, &["a"], "f(.*)", "d", "ch${1}-ch${1}"),
                Some("__name__=m,a=foo,b=bar,c=FOO,d=choo-choo"),
            ),
            (
                with(Replace, &["a", "b"], "(f).*;(.*)r", "a", "b${1}${2}m"),
                Some("__name__=m,a=bfbam,b=bar,c=FOO"),
            ),
            (with(Replace, &["a"], "o", "d", "x"), Some(all)), // anchored
            (with(Replace, &["a"], "f|foo", "d", "x"), Some("__name__=m,a=foo,b=bar,c=FOO,d=x")),
            (with(Replace, &["a"], "(.*)", "b", ""), Some("__name__=m,a=foo,c=FOO")),
            (with(Replace, &["a"], "(f)oo", "${1}x", "y"), Some("__name__=m,a=foo,b=bar,c=FOO,fx=y")),
            (with(Keep, &["a"], "foo", "", ""), Some(all)),
            (with(Keep, &["a"], "fo", "", ""), None),
            (with(Drop, &["a"], ".*o.*", "", ""), None),
            (with(Drop, &["a"], "no", "", ""), Some(all)),
            (with(KeepEqual, &["a"], "", "b", ""), None),
            (with(DropEqual, &["a"], "", "a", ""), None),
            (with(DropEqual, &["a"], "", "b", ""), Some(all)),
            (with(Lowercase, &["c"], "", "c", ""), Some("__name__=m,a=foo,b=bar,c=foo")),
            (with(Uppercase, &["a"], "", "a", ""), Some("__name__=m,a=FOO,b=bar,c=FOO")),
            (with(LabelMap, &[], "(a|b)", "", "x_$1"), Some("__name__=m,a=foo,b=bar,c=FOO,x_a=foo,x_b=bar")),
            (with(LabelDrop, &[], "a|b", "", ""), Some("__name__=m,c=FOO")),
            (with(LabelKeep, &[], "__name__|a", "", ""), Some("__name__=m,a=foo")),
            (with(LabelKeep, &[], "a", "", ""), None), // nothing to send without a name
        ] {
            let shown = format!("{step:?}");
            assert_eq!(run(step).as_deref(), expected, "{shown}");
        }
        // md5("bar") = 37b51d194a7513e45b56f6524f2d51f2, of which Prometheus takes the last eight bytes.
        let expected = format!("{all},d={}", 0x5b56_f652_4f2d_51f2_u64 % 1000);
        assert_eq!(run(with(HashMod, &["b"], "", "d", "")), Some(expected));
    }

    #[test]
    fn a_modulus_of_zero_is_refused() {
        let step = step(RelabelAction::HashMod);
        assert!(Relabel::new(&[step]).is_err());
    }
}
