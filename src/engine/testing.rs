//! What the engine's own tests share.

use crate::labels::{MatchOp, Matcher, Selector};
use crate::rules::*;
use std::sync::Arc;

/// A rule that takes the series of one name, by regular expression.
pub fn rule(name: &str, regex: &str, transforms: Vec<As>) -> Rule {
    let matcher = Matcher::new("__name__", MatchOp::Regex, regex).expect("a valid expression");
    Rule { transforms, ..Rule::new(name, vec![Selector { matchers: vec![matcher] }]) }
}

/// A rule set with everything else at its default.
pub fn rules(rules: Vec<Rule>) -> RuleSet {
    RuleSet { rules: rules.into_iter().map(Arc::new).collect(), ..RuleSet::default() }
}
