//! What the engine's own tests share.

use crate::detect::{ModelParams, ReadOut};
use crate::labels::{MatchOp, Matcher, Selector};
use crate::rules::*;
use crate::time::Span;
use std::sync::Arc;

/// A rule that takes the series of one name, by regular expression.
pub fn rule(name: &str, regex: &str, transforms: Vec<As>) -> Rule {
    let matcher = Matcher::new("__name__", MatchOp::Regex, regex).expect("a valid expression");
    Rule {
        name: name.into(),
        selectors: vec![Selector { matchers: vec![matcher] }],
        transforms,
        params: ModelParams::default(),
        read: ReadOut::default(),
        silence: None,
        ignore: Default::default(),
        identity_without: Vec::new(),
        cohort: Vec::new(),
        emit: EmitSet { score: true, flag: true, bands: false, detectors: false },
        emit_when: EmitWhen::Always,
        labels: Vec::new(),
        buckets: false,
        max_series: None,
    }
}

/// A rule set with everything else at its default.
pub fn rules(rules: Vec<Rule>) -> RuleSet {
    RuleSet {
        rules: rules.into_iter().map(Arc::new).collect(),
        identity: Identity::default(),
        limits: Limits::default(),
        forget_after: Span::hours(24),
        output_names: OutputNames::Oddity,
        source: Arc::default(),
    }
}
