//! From an output to the series it is written as.

use crate::detect::Detector;
use crate::engine::own;
use crate::engine::{Output, OutputValue};
use crate::labels::NAME;
use crate::rules::{As, OutputNames, Rule};
use crate::wire::STALE_BITS;

/// The labels outputs add, each with the names a source label of that name gets, in order of
/// preference. A source that holds all three already loses the label.
const RESERVED: [(&str, [&str; 3]); 5] = [
    ("metric", ["exported_metric", "exported_exported_metric", "exported_exported_exported_metric"]),
    ("rule", ["exported_rule", "exported_exported_rule", "exported_exported_exported_rule"]),
    ("as", ["exported_as", "exported_exported_as", "exported_exported_exported_as"]),
    ("detector", ["exported_detector", "exported_exported_detector", "exported_exported_exported_detector"]),
    ("for", ["exported_for", "exported_exported_for", "exported_exported_exported_for"]),
];

/// The reserved labels of a naming scheme, and what a source label of that name becomes.
pub(super) fn reserved(
    names: OutputNames,
) -> impl Iterator<Item = &'static (&'static str, [&'static str; 3])> {
    RESERVED.iter().filter(move |(name, _)| match names {
        OutputNames::Oddity => *name != "for",
        OutputNames::VmAnomaly => *name != "metric" && *name != "detector",
    })
}

/// A series that an output makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Score,
    Flag,
    /// The value scored; vmanomaly's names only.
    Value,
    Expected,
    Lower,
    Upper,
    Detector(Detector),
}

impl What {
    /// How many names there are.
    pub(super) const NAMES: usize = 7;

    /// Its number among them.
    pub(super) fn number(self) -> usize {
        match self {
            What::Score => 0,
            What::Flag => 1,
            What::Value => 2,
            What::Expected => 3,
            What::Lower => 4,
            What::Upper => 5,
            What::Detector(_) => 6,
        }
    }

    /// The name it is written under.
    pub(super) fn name(self, names: OutputNames) -> &'static str {
        match (self, names) {
            (What::Score, _) => own::SCORE,
            (What::Flag, _) => own::FLAG,
            (What::Value, _) => own::VM_VALUE,
            (What::Expected, OutputNames::Oddity) => own::EXPECTED,
            (What::Expected, OutputNames::VmAnomaly) => own::VM_EXPECTED,
            (What::Lower, OutputNames::Oddity) => own::LOWER,
            (What::Lower, OutputNames::VmAnomaly) => own::VM_LOWER,
            (What::Upper, OutputNames::Oddity) => own::UPPER,
            (What::Upper, OutputNames::VmAnomaly) => own::VM_UPPER,
            (What::Detector(_), _) => own::DETECTOR_SCORE,
        }
    }
}

/// How many samples [`Writer::each`] makes of an output; 0 where `emit_when` keeps it in.
pub fn count(output: &Output, rule: &Rule, names: OutputNames) -> usize {
    let mut n = 0;
    values(output, rule, names, |_, _| n += 1);
    n
}

/// Calls `f` for each sample of an output.
#[inline]
pub(super) fn values(output: &Output, rule: &Rule, names: OutputNames, mut f: impl FnMut(What, f64)) {
    if !output.emit {
        return;
    }
    let emit = rule.emit;
    let vm = names == OutputNames::VmAnomaly;
    let mut finite = |what, value: f64| {
        if value.is_finite() {
            f(what, value);
        }
    };
    match &output.value {
        OutputValue::Scored { value, score, detail } => {
            if emit.score {
                finite(What::Score, *score);
            }
            if emit.flag && !vm {
                finite(What::Flag, f64::from(u8::from(*score >= 1.0)));
            }
            let Some(detail) = detail else { return };
            if emit.bands {
                if vm {
                    finite(What::Value, *value);
                }
                finite(What::Expected, detail.expected);
                if let Some(band) = detail.band {
                    finite(What::Lower, band.lower);
                    finite(What::Upper, band.upper);
                }
            }
            if emit.detectors && !vm {
                for (detector, evidence) in Detector::ALL.into_iter().zip(detail.evidence) {
                    if rule.params.detectors.has(detector) {
                        finite(What::Detector(detector), f64::from(evidence));
                    }
                }
            }
        }
        // There is no value, so nothing was expected of it and no detector spoke.
        OutputValue::Silent { score, .. } => {
            if emit.score {
                finite(What::Score, *score);
            }
            if emit.flag && !vm {
                finite(What::Flag, f64::from(u8::from(*score >= 1.0)));
            }
        }
        // Whether a side of the band was ever written is not known here: a marker on a series that
        // never was does no harm, a series left without one stays alive for five minutes.
        OutputValue::Stale => {
            let stale = f64::from_bits(STALE_BITS);
            if emit.score {
                f(What::Score, stale);
            }
            if emit.flag && !vm {
                f(What::Flag, stale);
            }
            if emit.bands {
                if vm {
                    f(What::Value, stale);
                }
                [What::Expected, What::Lower, What::Upper].into_iter().for_each(|what| f(what, stale));
            }
            if emit.detectors && !vm {
                for detector in Detector::ALL {
                    if rule.params.detectors.has(detector) {
                        f(What::Detector(detector), stale);
                    }
                }
            }
        }
    }
}

/// Writes outputs as series; holds the label buffer between outputs.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<(&'static str, &'static str)>,
}

impl Writer {
    /// Calls `f` with the labels, sorted by name, and the value of each sample of an output.
    pub fn each(
        &mut self,
        output: &Output,
        rule: &Rule,
        names: OutputNames,
        mut f: impl FnMut(&[(&str, &str)], f64),
    ) {
        let quantile;
        let transform = match output.transform {
            As::Value => None,
            As::Rate => Some("rate"),
            As::Delta => Some("delta"),
            As::CountRate => Some("count_rate"),
            As::Mean => Some("mean"),
            As::Quantile(_) => {
                quantile = output.transform.to_string();
                Some(quantile.as_str())
            }
        };
        let mut labels = recycle(std::mem::take(&mut self.buffer));
        build(&mut labels, output, rule, names, transform);
        let detector_at = labels.partition_point(|(name, _)| *name < "detector");
        values(output, rule, names, |what, value| {
            if let What::Detector(detector) = what {
                labels.insert(detector_at, ("detector", detector.name()));
            }
            if let Some(slot) = labels.iter_mut().find(|(label, _)| *label == NAME) {
                slot.1 = what.name(names);
            }
            f(&labels, value);
            if matches!(what, What::Detector(_)) {
                labels.remove(detector_at);
            }
        });
        self.buffer = recycle(labels);
    }
}

/// The labels all samples of an output share, sorted, with a placeholder for the name.
fn build<'a>(
    labels: &mut Vec<(&'a str, &'a str)>,
    output: &'a Output,
    rule: &'a Rule,
    names: OutputNames,
    transform: Option<&'a str>,
) {
    let source = &output.labels;
    let is_reserved = |name: &str| reserved(names).any(|(have, _)| *have == name);
    let mut sorted = true;
    for (name, value) in source.iter() {
        let name = if name == NAME {
            continue;
        } else if let Some((_, instead)) = reserved(names).find(|(have, _)| *have == name) {
            sorted = false;
            match instead.iter().find(|instead| source.get(instead).is_none()) {
                Some(free) => *free,
                None => continue,
            }
        } else {
            name
        };
        labels.push((name, value));
    }
    let from_source = labels.len();
    for (name, value) in &rule.labels {
        let taken = labels.iter().take(from_source).any(|(have, _)| have == name);
        if !taken && name != NAME && !value.is_empty() && !is_reserved(name) {
            labels.push((name, value));
        }
    }
    labels.push((NAME, ""));
    labels.push((if names == OutputNames::VmAnomaly { "for" } else { "metric" }, source.name()));
    labels.push(("rule", &rule.name));
    if let Some(transform) = transform {
        labels.push(("as", transform));
    }
    // Few additions to a sorted run: the stable sort merges, the source's own labels come sorted.
    debug_assert!(!sorted || labels[..from_source].is_sorted_by(|a, b| a.0 < b.0));
    labels.sort_by(|a, b| a.0.cmp(b.0));
}

/// An empty vector with the memory of another (the compiler reuses it in place).
fn recycle<'b>(mut used: Vec<(&str, &str)>) -> Vec<(&'b str, &'b str)> {
    used.clear();
    used.into_iter().map(|_| ("", "")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::detect::{Band, DetectorSet, ModelParams};
    use crate::engine::Detail;
    use crate::labels::Labels;
    use crate::rules::{EmitSet, RuleSet, Share};
    use crate::time::Millis;
    use std::sync::Arc;

    pub(in crate::emit) fn rule(emit: EmitSet, labels: &[(&str, &str)]) -> Rule {
        Rule {
            params: ModelParams { detectors: DetectorSet(0b0011), ..ModelParams::default() },
            emit,
            labels: labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            ..Rule::new("node", Vec::new())
        }
    }

    pub(in crate::emit) const ALL: EmitSet =
        EmitSet { score: true, flag: true, bands: true, detectors: true };
    pub(in crate::emit) const SCORE_ONLY: EmitSet =
        EmitSet { score: true, flag: false, bands: false, detectors: false };

    /// A rule set of this rule alone.
    pub(in crate::emit) fn alone(rule: Rule) -> Arc<RuleSet> {
        Arc::new(RuleSet { rules: vec![Arc::new(rule)], ..RuleSet::default() })
    }

    /// A score that needs no reasons.
    pub(in crate::emit) fn plain(score: f64) -> OutputValue {
        OutputValue::Scored { value: 0.0, score, detail: None }
    }

    fn output(rule: Rule, labels: &[(&str, &str)], transform: As, value: OutputValue) -> (Output, Rule) {
        let labels = Labels::from_pairs(labels);
        (Output { labels, rule: 0, transform, at: Millis(1000), value, emit: true }, rule)
    }

    fn scored(band: Option<Band>) -> OutputValue {
        let evidence = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        let detail = Detail { expected: 3.0, interval: 15e3, kind: Default::default(), band, evidence };
        OutputValue::Scored { value: 7.0, score: 1.5, detail: Some(Box::new(detail)) }
    }

    fn written((output, rule): &(Output, Rule), names: OutputNames) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        Writer::default().each(output, rule, names, |labels, value| {
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "sorted, no name twice: {labels:?}");
            let text = labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",");
            all.push((text, value));
        });
        assert_eq!(all.len(), count(output, rule, names));
        all
    }

    #[test]
    fn every_series_of_an_output_has_its_name_labels_and_value() {
        let band = Some(Band { lower: f64::NEG_INFINITY, upper: 9.0 });
        let output = output(
            rule(ALL, &[("job", "lost"), ("team", "edge")]),
            &[("Zone", "a"), (NAME, "up"), ("job", "x")],
            As::Value,
            scored(band),
        );
        let rest = "job=x,metric=up,rule=node,team=edge";
        let expect = |name: &str| format!("Zone=a,__name__={name},{rest}");
        let detector = |d| format!("Zone=a,__name__=anomaly_detector_score,detector={d},{rest}");
        assert_eq!(
            written(&output, OutputNames::Oddity),
            [
                (expect("anomaly_score"), 1.5),
                (expect("anomaly_flag"), 1.0),
                (expect("anomaly_expected"), 3.0),
                (expect("anomaly_upper"), 9.0), // the infinite side is not written
                (detector("ewma"), 1.0),
                (detector("zscore"), 2.0),
            ]
        );
    }

    #[test]
    fn source_labels_that_collide_are_exported() {
        let source = [
            (NAME, "up"),
            ("as", "1"),
            ("detector", "2"),
            ("exported_metric", "3"),
            ("metric", "4"),
            ("rule", "5"),
        ];
        let output = output(
            rule(SCORE_ONLY, &[("rule", "no")]),
            &source,
            As::Quantile(Share::new(0.99).expect("a share")),
            scored(None),
        );
        assert_eq!(
            written(&output, OutputNames::Oddity)[0].0,
            "__name__=anomaly_score,as=quantile(0.99),exported_as=1,exported_detector=2,\
             exported_exported_metric=4,exported_metric=3,exported_rule=5,metric=up,rule=node"
        );
    }

    #[test]
    fn vmanomaly_names() {
        let band = Some(Band { lower: 1.0, upper: f64::INFINITY });
        let source = [(NAME, "up"), ("for", "x"), ("metric", "kept")];
        let output = output(rule(ALL, &[]), &source, As::Rate, scored(band));
        let expect =
            |name: &str| format!("__name__={name},as=rate,exported_for=x,for=up,metric=kept,rule=node");
        assert_eq!(
            written(&output, OutputNames::VmAnomaly),
            [
                (expect("anomaly_score"), 1.5),
                (expect("y"), 7.0),
                (expect("yhat"), 3.0),
                (expect("yhat_lower"), 1.0)
            ]
        );
    }

    #[test]
    fn a_stale_source_ends_every_series_and_the_written_are_recognised_as_ours() {
        for (names, series) in [(OutputNames::Oddity, 7), (OutputNames::VmAnomaly, 5)] {
            let (output, rule) = output(rule(ALL, &[]), &[(NAME, "up")], As::Value, OutputValue::Stale);
            let mut n = 0;
            Writer::default().each(&output, &rule, names, |labels, value| {
                assert!(own::is_own(labels), "{labels:?}");
                assert_eq!(value.to_bits(), STALE_BITS);
                n += 1;
            });
            assert_eq!((n, count(&output, &rule, names)), (series, series));
        }
    }

    #[test]
    fn an_output_that_is_not_let_out_makes_nothing() {
        let (mut kept, rule) = output(rule(ALL, &[]), &[(NAME, "up")], As::Value, scored(None));
        kept.emit = false;
        assert_eq!(count(&kept, &rule, OutputNames::Oddity), 0);
    }
}
