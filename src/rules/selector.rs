//! `match`: Prometheus's vector selectors, inspected and never evaluated.

use crate::labels::{MatchOp, Matcher, NAME, Selector};
use promql_parser::label as promql;
use promql_parser::parser::{self, Expr};

/// Bytes of a selector; the parser recurses.
const MAX_BYTES: usize = 8192;

/// Reads a vector selector such as `http_requests_total{code=~"5.."}`. Alternatives inside the braces
/// (`{a="1" or b="2"}`, as VictoriaMetrics has them) give one selector each.
///
/// # Errors
/// What is wrong, and what a selector looks like.
pub fn parse(text: &str) -> Result<Vec<Selector>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("a selector is at most {MAX_BYTES} bytes long"));
    }
    let only = |what: &str| {
        Err(format!("{what} has no place in a selector; write only name{{label=\"value\"}}, without it"))
    };
    let selector = match parser::parse(text) {
        Ok(Expr::VectorSelector(selector)) => selector,
        Ok(Expr::MatrixSelector(_)) => return only("a range such as [5m]"),
        Ok(Expr::Subquery(_)) => return only("a subquery"),
        Ok(Expr::Call(call)) => return only(&format!("the function {}()", call.func.name)),
        Ok(Expr::Aggregate(_)) => return only("an aggregation"),
        Ok(Expr::Binary(_) | Expr::Unary(_)) => return only("an operator"),
        Ok(Expr::Paren(_)) => return only("a parenthesis"),
        Ok(Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_)) => {
            return Err(format!("expected a selector such as name{{label=\"value\"}}, found {text:?}"));
        }
        Err(error) => return Err(format!("not a valid selector: {error}")),
    };
    if selector.offset.is_some() {
        return only("`offset`");
    }
    if selector.at.is_some() {
        return only("`@`");
    }
    let mut groups = selector.matchers.or_matchers;
    if groups.is_empty() || !selector.matchers.matchers.is_empty() {
        groups.push(selector.matchers.matchers);
    }
    groups.iter().map(|group| compile(selector.name.as_deref(), group)).collect()
}

fn compile(name: Option<&str>, group: &[promql::Matcher]) -> Result<Selector, String> {
    let mut matchers = Vec::with_capacity(group.len() + 1);
    if let Some(name) = name {
        matchers.push(Matcher::new(NAME, MatchOp::Equal, name)?);
    }
    for matcher in group {
        let op = match matcher.op {
            promql::MatchOp::Equal => MatchOp::Equal,
            promql::MatchOp::NotEqual => MatchOp::NotEqual,
            promql::MatchOp::Re(_) => MatchOp::Regex,
            promql::MatchOp::NotRe(_) => MatchOp::NotRegex,
        };
        matchers.push(Matcher::new(&matcher.name, op, &matcher.value)?);
    }
    if matchers.iter().all(|matcher| matcher.matches("")) {
        return Err(
            "it would take every series; name a metric, or one label with a value that is not empty \
                    (to take all on purpose: {__name__=~\".+\"})"
                .into(),
        );
    }
    matchers.sort_by_key(|matcher| matcher.name != NAME);
    Ok(Selector { matchers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Selector {
        let mut all = parse(text).expect(text);
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    fn takes(selector: &Selector, labels: &[(&str, &'static str)]) -> bool {
        selector.matches(|name| labels.iter().find(|(have, _)| *have == name).map(|(_, value)| *value))
    }

    #[test]
    fn all_four_kinds_of_matcher() {
        let selector = one(r#"up{a="1", b!="2", c=~"x|y", d!~"z.*"}"#);
        assert_eq!(selector.matchers.len(), 5);
        assert!(takes(&selector, &[(NAME, "up"), ("a", "1"), ("c", "y")]));
        for bad in [("b", "2"), ("d", "zz"), ("c", "xy"), ("a", "2")] {
            let mut labels = vec![bad, (NAME, "up"), ("a", "1"), ("c", "y")];
            labels.sort_by_key(|label| *label != bad);
            assert!(!takes(&selector, &labels), "{bad:?}");
        }
        let named = one(r#"{job="node", __name__=~"node_memory_.*"}"#);
        assert_eq!(named.matchers.first().map(|m| m.name.as_str()), Some(NAME));
        assert!(takes(&one(r#"{"http.requests"}"#), &[(NAME, "http.requests")]));
    }

    #[test]
    fn alternatives_are_selectors_of_their_own() {
        let all = parse(r#"up{a="1" or b="2", c="3"}"#).expect("valid");
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|s| s.matchers.first().is_some_and(|m| m.value == "up")));
    }

    #[test]
    fn only_selectors_that_take_something_are_taken() {
        for (text, part) in [
            ("up[5m]", "range"),
            ("up offset 5m", "offset"),
            ("up @ 1", "`@`"),
            ("rate(up[5m])", "rate()"),
            ("sum(up)", "aggregation"),
            ("up > 1", "operator"),
            ("(up)", "parenthesis"),
            ("1", "expected a selector"),
            ("up[5m:1m]", "subquery"),
            ("{}", "not a valid selector"),
            (r#"{a=""}"#, "not a valid selector"),
            (r#"{a=~".*"}"#, "not a valid selector"),
            (r#"{a="1" or b=~".*"}"#, "every series"),
            (r#"up{a=~"("}"#, "not a valid selector"),
            ("", "not a valid selector"),
            ("up{", "not a valid selector"),
        ] {
            let error = parse(text).map(|_| ()).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&"(".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in r#"[a-z{}="~!\[\]()@,0-9 .*|\\]{0,60}"#) {
            let _ = parse(&text);
        }
    }
}
