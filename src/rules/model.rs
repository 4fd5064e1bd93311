//! The compiled rules: what the engine reads.

use super::window::Windows;
use crate::codec::{Damaged, Reader, Stored};
use crate::detect::{Detector, ModelParams, ReadOut};
use crate::labels::Selector;
use crate::time::Span;
use crate::wire::MetricKind;
use std::fmt;
use std::sync::Arc;

/// A share from 0 to 1 in millionths, in three bytes: every signal has room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share([u8; 3]);

impl Share {
    const WHOLE: f64 = 1e6;

    /// `None` where it is no share, or has more than six decimals.
    pub fn new(share: f64) -> Option<Share> {
        // Adding zero makes -0 the 0 it equals.
        let share = share + 0.0;
        let [a, b, c, _] = ((share * Self::WHOLE).round() as u32).to_le_bytes();
        Some(Share([a, b, c])).filter(|made| (0.0..=1.0).contains(&share) && made.get() == share)
    }

    /// The nearest to a number; `None` where it is not from 0 to 1.
    fn near(share: f64) -> Option<Share> {
        Share::new((share * Self::WHOLE).round() / Self::WHOLE)
    }

    /// 0 to 1.
    pub fn get(self) -> f64 {
        let [a, b, c] = self.0;
        f64::from(u32::from_le_bytes([a, b, c, 0])) / Self::WHOLE
    }
}

/// What a series' samples are turned into before they are modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// The value itself.
    Value,
    /// Increase per second, counter resets handled.
    Rate,
    /// Increase since the last sample, counter resets handled.
    Delta,
    /// Native histogram: observations per second.
    CountRate,
    /// Native histogram: mean of the observations since the last sample.
    Mean,
    /// Native histogram: this quantile of the observations since the last sample.
    Quantile(Share),
}

impl fmt::Display for As {
    /// As written in `rules.yaml` and in the `as` label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            As::Value => f.write_str("value"),
            As::Rate => f.write_str("rate"),
            As::Delta => f.write_str("delta"),
            As::CountRate => f.write_str("count_rate"),
            As::Mean => f.write_str("mean"),
            As::Quantile(q) => write!(f, "quantile({})", q.get()),
        }
    }
}

impl Stored for As {
    fn store(&self, to: &mut Vec<u8>) {
        to.push(match self {
            As::Value => 0,
            As::Rate => 1,
            As::Delta => 2,
            As::CountRate => 3,
            As::Mean => 4,
            As::Quantile(_) => 5,
        });
        if let As::Quantile(q) = self {
            q.get().store(to);
        }
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match from.array()? {
            [0] => Ok(As::Value),
            [1] => Ok(As::Rate),
            [2] => Ok(As::Delta),
            [3] => Ok(As::CountRate),
            [4] => Ok(As::Mean),
            // Versions that kept all decimals wrote the same images.
            [5] => match Share::near(f64::load(from)?) {
                Some(q) => Ok(As::Quantile(q)),
                None => Err(from.damaged("no such quantile")),
            },
            _ => Err(from.damaged("no transform has this number")),
        }
    }
}

/// Which outputs a rule writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmitSet {
    /// `anomaly_score`
    pub score: bool,
    /// `anomaly_flag`
    pub flag: bool,
    /// `anomaly_expected`, `anomaly_lower`, `anomaly_upper`
    pub bands: bool,
    /// `anomaly_detector_score`
    pub detectors: bool,
}

impl EmitSet {
    /// Whether anything is written.
    pub fn any(&self) -> bool {
        self.score || self.flag || self.bands || self.detectors
    }
}

impl Default for EmitSet {
    /// Score and flag.
    fn default() -> Self {
        EmitSet { score: true, flag: true, bands: false, detectors: false }
    }
}

/// When outputs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmitWhen {
    /// For every sample.
    #[default]
    Always,
    /// When the score moved by more than 0.05 or the flag changed, and at least every 4 min.
    Changed,
    /// While the score is at least 1, and once when it falls below.
    Anomalous,
}

/// The names outputs are written under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputNames {
    /// `anomaly_score`, `anomaly_flag`, …
    #[default]
    Oddity,
    /// `anomaly_score`, `y`, `yhat`, `yhat_lower`, `yhat_upper` with the label `for`.
    VmAnomaly,
}

/// When a series that stops is an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Observed time without a sample.
    pub after: Span,
}

/// One rule, checked and compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name: unique, the value of the `rule` label.
    pub name: String,
    /// A series is taken when any of these fits.
    pub selectors: Vec<Selector>,
    /// What is modelled; empty means `auto`.
    pub transforms: Vec<As>,
    /// What shapes the models: part of the state's key.
    pub params: ModelParams,
    /// How scores are read out.
    pub read: ReadOut,
    /// Silence of a series.
    pub silence: Option<Silence>,
    /// Maintenance windows: the file's and its own.
    pub ignore: Windows,
    /// Labels that learning outlives: the finest cohort is all labels but these.
    pub identity_without: Vec<String>,
    /// Labels that name the cohort; `metric` is the metric's name.
    pub cohort: Vec<String>,
    /// Outputs.
    pub emit: EmitSet,
    /// When outputs are written.
    pub emit_when: EmitWhen,
    /// Labels added to the outputs; a source label of that name wins. Sorted by name.
    pub labels: Vec<(String, String)>,
    /// Classic `_bucket` series are skipped unless a rule asks for them.
    pub buckets: bool,
    /// Series it takes at most; `None`: as many as there are.
    pub max_series: Option<usize>,
}

impl Rule {
    /// A rule for what fits any of these selectors, with everything else at its default.
    pub fn new(name: impl Into<String>, selectors: Vec<Selector>) -> Rule {
        Rule {
            name: name.into(),
            selectors,
            transforms: Vec::new(),
            params: ModelParams::default(),
            read: ReadOut::default(),
            silence: None,
            ignore: Windows::default(),
            identity_without: Vec::new(),
            cohort: Vec::new(),
            emit: EmitSet::default(),
            emit_when: EmitWhen::default(),
            labels: Vec::new(),
            buckets: false,
            max_series: None,
        }
    }

    /// Whether its series borrow from each other.
    pub fn lends(&self) -> bool {
        !(self.identity_without.is_empty() && self.cohort.is_empty())
    }

    /// Whether its series make a model together.
    pub fn shares(&self) -> bool {
        self.lends() || self.params.detectors.has(Detector::Isolation)
    }
}

/// How label sets become identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The label that names an HA pair. Default `cluster`.
    pub cluster_label: String,
    /// The label that tells replicas apart, dropped from the identity. Default `__replica__`.
    pub replica_label: String,
    /// Labels that choose the partition; `None`: the whole identity.
    pub partition_by: Option<Vec<String>>,
}

impl Default for Identity {
    fn default() -> Self {
        Identity { cluster_label: "cluster".into(), replica_label: "__replica__".into(), partition_by: None }
    }
}

/// Bounds on what the engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series in all. Default 2,000,000.
    pub max_series: usize,
    /// Entries of the alias cache. Default 4,000,000.
    pub max_aliases: usize,
    /// Bounds on a label set.
    pub labels: crate::labels::LabelLimits,
    /// Samples further ahead of receipt than this are dropped. Default 10 m.
    pub max_ahead: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_series: 2_000_000,
            max_aliases: 4_000_000,
            labels: Default::default(),
            max_ahead: Span::minutes(10),
        }
    }
}

/// All rules and what else shapes scores: one generation.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// The rules in order; the first that fits takes a series.
    pub rules: Vec<Arc<Rule>>,
    /// Identities.
    pub identity: Identity,
    /// Bounds.
    pub limits: Limits,
    /// Series silent for this long, by observed time, are forgotten. Default 24 h.
    pub forget_after: Span,
    /// Names of outputs.
    pub output_names: OutputNames,
    /// The text it was parsed from, as JSON and of nothing but what shapes scores: neither comments nor
    /// secrets. [`RuleSet::restore`] reads it back. Empty for a set that was made without a text, which
    /// cannot be restored.
    pub source: Arc<str>,
}

impl Default for RuleSet {
    /// No rule: nothing is scored.
    fn default() -> Self {
        RuleSet {
            rules: Vec::new(),
            identity: Identity::default(),
            limits: Limits::default(),
            forget_after: Span::hours(24),
            output_names: OutputNames::default(),
            source: Arc::default(),
        }
    }
}

impl RuleSet {
    /// Whether series of some rule make a model together.
    pub fn shares(&self) -> bool {
        self.rules.iter().any(|rule| rule.shares())
    }

    /// How long a scrape target that is gone must be remembered for the rules with `silence`, where
    /// there is any: the longest `after`, and the time for which a silence is told.
    pub fn silence_keep(&self) -> Option<Span> {
        let longest = self.rules.iter().filter_map(|rule| rule.silence).map(|silence| silence.after).max();
        longest.map(|after| Span(after.0.saturating_add(2 * Span::HOUR.0)))
    }

    /// The first rule that takes a series, by index. Classic `_bucket` series (name suffix
    /// `_bucket` and an `le` label) are taken only by rules with `buckets`.
    pub fn select<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> Option<usize> {
        let bucket =
            get("le").is_some() && get(crate::labels::NAME).is_some_and(|name| name.ends_with("_bucket"));
        self.rules.iter().position(|rule| {
            (!bucket || rule.buckets) && rule.selectors.iter().any(|selector| selector.matches(&get))
        })
    }
}

/// What `as: auto` means for a series: from its type when known, else from the name's suffix.
pub fn auto_transform(kind: MetricKind, name: &str, native_histogram: bool) -> As {
    if native_histogram {
        return As::CountRate;
    }
    let counter_name = ["_total", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix));
    match kind {
        MetricKind::Counter => As::Rate,
        MetricKind::Gauge | MetricKind::Info | MetricKind::StateSet => As::Value,
        MetricKind::Histogram | MetricKind::Summary | MetricKind::GaugeHistogram => {
            if counter_name && kind != MetricKind::GaugeHistogram { As::Rate } else { As::Value }
        }
        MetricKind::Unknown => {
            if counter_name {
                As::Rate
            } else {
                As::Value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_up_to_six_decimals_are_what_they_were() {
        assert_eq!((size_of::<Share>(), size_of::<As>()), (3, 4));
        for millionth in (0..=1_000_000).step_by(7).chain([1, 500_000, 999_999, 1_000_000]) {
            let share: f64 = format!("{}e-6", millionth).parse().expect("a number");
            assert_eq!(Share::new(share).map(|made| made.get().to_bits()), Some(share.to_bits()));
        }
        for wrong in [-1e-6, 1.000_001, 0.123_456_7, 1e-7, 20.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(wrong), None, "{wrong}");
        }
        assert_eq!(Share::near(1.0 / 3.0).map(Share::get), Some(0.333_333));
        assert_eq!(Share::near(1.1), None);
        assert_eq!(Share::new(-0.0).map(|made| made.get().to_bits()), Some(0));
    }
}
