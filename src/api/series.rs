//! `/api/v1/series`: which series are known, and why one is not scored.

use super::Api;
use super::anomalies::labels_json;
use super::reply::{self, Answer};
use crate::engine::{SignalStatus, Standing};
use crate::labels::{MatchOp, NAME, Selector};
use crate::rules::{RuleSet, selector};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of all selectors of a request, and regular expressions in them: one of a few bytes may take
/// 10 MB to compile.
const MAX_BYTES: usize = 8 << 10;
const MAX_EXPRESSIONS: usize = 16;
/// Requests that look for series at a time, for the same reason, and how long others wait.
static TURNS: Semaphore = Semaphore::const_new(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the turn to look for series; the answer to give where it does not come.
pub(super) async fn turn() -> Result<SemaphorePermit<'static>, Answer> {
    match tokio::time::timeout(PATIENCE, TURNS.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => {
            let message = "too many requests look for series; try again";
            Err(reply::error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message))
        }
    }
}

/// The answer for these selectors.
pub fn answer(api: &Api, matches: &[String], limit: usize) -> Answer {
    let bytes: usize = matches.iter().map(String::len).sum();
    let expressions: usize =
        matches.iter().map(|text| text.matches("=~").count() + text.matches("!~").count()).sum();
    if bytes > MAX_BYTES || expressions > MAX_EXPRESSIONS {
        let message = format!(
            "match[]: at most {MAX_BYTES} bytes and {MAX_EXPRESSIONS} regular expressions, found {bytes} and \
             {expressions}"
        );
        return reply::error(StatusCode::BAD_REQUEST, "bad_data", &message);
    }
    let mut selectors = Vec::new();
    for text in matches {
        match selector::parse(text) {
            Ok(alternatives) => selectors.extend(alternatives),
            Err(error) => {
                let message = format!("match[]: {text}: {error}");
                return reply::error(StatusCode::BAD_REQUEST, "bad_data", &message);
            }
        }
    }
    let signals = api.engine.signals(&selectors, limit);
    let rules = api.engine.rules();
    let mut shown: Vec<Value> = signals.iter().map(known).collect();
    for selector in &selectors {
        // When the limit cut the list short, what is missing from it may well be known.
        let found =
            signals.len() >= limit || signals.iter().any(|s| selector.matches(|name| s.labels.get(name)));
        if !found {
            shown.extend(unknown(&rules, selector));
        }
    }
    let unmatched: Vec<Value> = api
        .engine
        .unmatched()
        .into_iter()
        .filter(|(metric, _)| {
            selectors.is_empty() || selectors.iter().any(|selector| names(selector, metric))
        })
        .take(limit)
        .map(|(metric, series)| json!({"metric": metric, "series": series}))
        .collect();
    reply::success(json!({"series": shown, "unmatched_metrics": unmatched}))
}

/// Whether the matchers on the name, of which there is at least one, fit it.
fn names(selector: &Selector, metric: &str) -> bool {
    let mut on_name = selector.matchers.iter().filter(|m| m.name == NAME).peekable();
    on_name.peek().is_some() && on_name.all(|m| m.matches(metric))
}

fn known(signal: &SignalStatus) -> Value {
    let (state, reason) = match &signal.standing {
        Standing::Unmatched => ("unmatched", "no rule selects it any more".to_string()),
        Standing::Warming { have, need } => ("warming", format!("warming {have}/{need}")),
        Standing::Scored { .. } => ("scored", "scored".to_string()),
        Standing::Silent { since } => ("silent", format!("its last sample was at {}", since.0 as f64 / 1e3)),
        Standing::Stale => ("stale", "it ended with a stale marker".to_string()),
    };
    let mut shown = json!({
        "labels": labels_json(&signal.labels),
        "rule": signal.rule,
        "as": signal.transform.to_string(),
        "state": state,
        "reason": reason,
        "newest": signal.newest.0 as f64 / 1e3,
    });
    if let (Standing::Scored { score, value }, Some(object)) = (&signal.standing, shown.as_object_mut()) {
        object.insert("score".into(), json!(score));
        object.insert("value".into(), json!(value));
    }
    shown
}

/// What the rules say of a series that is not known. Only a selector that names every label it
/// knows by equality describes one series.
fn unknown(rules: &RuleSet, selector: &Selector) -> Option<Value> {
    if selector.matchers.is_empty() || selector.matchers.iter().any(|m| m.op != MatchOp::Equal) {
        return None;
    }
    let get = |name: &str| {
        selector.matchers.iter().find(|m| m.name == name).map(|m| m.value.as_str()).filter(|v| !v.is_empty())
    };
    let rule = rules.select(get).and_then(|i| rules.rules.get(i));
    let (state, reason) = match rule {
        Some(rule) => ("no_sample", format!("rule {:?} selects it, but no sample has come yet", rule.name)),
        None if get("le").is_some() && get(NAME).is_some_and(|name| name.ends_with("_bucket")) => {
            ("unmatched", "buckets of classic histograms are taken only by rules that name them".to_string())
        }
        None => ("unmatched", "no rule selects it".to_string()),
    };
    let labels: Map<String, Value> =
        selector.matchers.iter().map(|m| (m.name.clone(), json!(m.value))).collect();
    Some(json!({"labels": labels, "rule": rule.map(|r| &r.name), "state": state, "reason": reason}))
}
