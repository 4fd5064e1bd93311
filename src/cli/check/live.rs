//! What rules would match on a live Prometheus.
//!
//! Series are listed (`/api/v1/series`), not counted by a query: only with their labels is it known
//! which rule takes a series first.

use crate::detect::Detector;
use crate::history::{Client, ClientError};
use crate::labels::{Labels, MatchOp, Matcher, Selector, canonicalise, series_id};
use crate::rules::{OutputNames, Rule, RuleSet};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

const LOOK_BACK: Duration = Duration::from_secs(600);

/// Series of a rule that are shown.
const EXAMPLES: usize = 3;

/// What one rule matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Series it takes.
    pub series: u64,
    /// Series its selectors fit that an earlier rule takes.
    pub earlier: u64,
    /// Output series it would write, at most.
    pub outputs: u64,
    /// A few of the series it takes, by their text: of different metrics where there are such.
    pub examples: Vec<String>,
}

/// What all rules matched, in their order.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub rules: Vec<Count>,
    /// Outputs of oddity itself.
    pub own: u64,
}

type Series = HashMap<String, String>;

/// Lists the series of each rule and counts them.
pub(super) async fn count(url: &str, rules: &RuleSet) -> Result<Matched, ClientError> {
    let client = Client::new(url)?;
    let mut matched = Matched::default();
    for (at, rule) in rules.rules.iter().enumerate() {
        let series = series(&client, &rule.selectors).await?;
        tally(rules, at, &series, &mut matched);
    }
    Ok(matched)
}

async fn series(client: &Client, selectors: &[Selector]) -> Result<Vec<Series>, ClientError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (start, end) = (now.saturating_sub(LOOK_BACK).as_secs().to_string(), now.as_secs().to_string());
    let selectors: Vec<String> = selectors.iter().map(promql).collect();
    let mut form = vec![("start", start.as_str()), ("end", end.as_str())];
    form.extend(selectors.iter().map(|selector| ("match[]", selector.as_str())));
    client.ask("/api/v1/series", &form).await
}

/// Counts the series that the rule at `at` was asked for.
fn tally(rules: &RuleSet, at: usize, series: &[Series], matched: &mut Matched) {
    let Some(rule) = rules.rules.get(at) else { return };
    let mut count = Count::default();
    let mut seen = HashSet::new();
    let mut examples = Examples::default();
    for labels in series {
        if is_own(labels) {
            matched.own += u64::from(rules.rules.iter().take(at).all(|earlier| !fits(earlier, labels)));
            continue;
        }
        let replica = rules.identity.replica_label.as_str();
        let pairs = labels.iter().filter(|(name, _)| name.as_str() != replica);
        let mut pairs: Vec<(&str, &str)> =
            pairs.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // A set the engine would refuse is scored by no rule.
        if canonicalise(&mut pairs, rules.limits.labels).is_err() || !seen.insert(series_id(&pairs)) {
            continue;
        }
        match rules.select(|name| crate::labels::value_of(&pairs, name)) {
            Some(first) if first == at => {
                count.series += 1;
                examples.offer(&pairs);
            }
            Some(_) => count.earlier += 1,
            // A classic bucket, skipped.
            None => {}
        }
    }
    count.examples = examples.texts();
    count.outputs = count.series * outputs(rule, rules.output_names);
    matched.rules.push(count);
}

/// The first series of each metric, up to [`EXAMPLES`] of them; then more of the same.
#[derive(Default)]
struct Examples {
    metrics: BTreeSet<String>,
    first: Vec<String>,
    more: Vec<String>,
}

impl Examples {
    fn offer(&mut self, labels: &[(&str, &str)]) {
        if self.first.len() >= EXAMPLES {
            return;
        }
        let name = crate::labels::value_of(labels, crate::labels::NAME).unwrap_or("");
        if self.metrics.insert(name.to_string()) {
            self.first.push(Labels::from_pairs(labels).to_string());
        } else if self.more.len() < EXAMPLES {
            self.more.push(Labels::from_pairs(labels).to_string());
        }
    }

    fn texts(self) -> Vec<String> {
        self.first.into_iter().chain(self.more).take(EXAMPLES).collect()
    }
}

fn fits(rule: &Rule, labels: &Series) -> bool {
    rule.selectors.iter().any(|selector| selector.matches(|name| labels.get(name).map(String::as_str)))
}

/// Output series of one series.
fn outputs(rule: &Rule, names: OutputNames) -> u64 {
    let detectors = Detector::ALL.into_iter().filter(|detector| rule.params.detectors.has(*detector)).count();
    let (emit, oddity) = (rule.emit, names == OutputNames::Oddity);
    let one = u64::from(emit.score)
        + u64::from(emit.flag && oddity)
        + u64::from(emit.bands) * if oddity { 3 } else { 4 }
        + if emit.detectors && oddity { detectors as u64 } else { 0 };
    one * rule.transforms.len().max(1) as u64
}

/// As at the receiver's door.
fn is_own(labels: &Series) -> bool {
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    crate::engine::own::is_own(&labels)
}

/// The selector as PromQL. A name that only newer servers take is quoted; others are not.
fn promql(selector: &Selector) -> String {
    let one = |matcher: &Matcher| {
        let op = match matcher.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        let classic = matcher.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if classic { matcher.name.clone() } else { quoted(&matcher.name) };
        format!("{name}{op}{}", quoted(&matcher.value))
    };
    format!("{{{}}}", selector.matchers.iter().map(one).collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Rules of a text, for tests.
#[cfg(test)]
pub(super) fn rules_of(text: &str) -> Result<RuleSet, crate::config::Problems> {
    RuleSet::parse("r", text).map(|(rules, _)| rules)
}

#[cfg(test)]
pub(super) fn counted(rules: &RuleSet, series: &[&[(&str, &str)]]) -> Matched {
    let series: Vec<Series> = series
        .iter()
        .map(|labels| labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
        .collect();
    let mut matched = Matched::default();
    for (at, rule) in rules.rules.iter().enumerate() {
        let fitting: Vec<Series> = series.iter().filter(|labels| fits(rule, labels)).cloned().collect();
        tally(rules, at, &fitting, &mut matched);
    }
    matched
}

#[cfg(test)]
pub(super) fn form(selector: &Selector) -> (String, String) {
    let text = promql(selector);
    let escaped = crate::history::client::percent(&text);
    (text, escaped)
}
