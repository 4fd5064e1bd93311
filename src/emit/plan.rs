//! How a rule's outputs become series without looking at a label's text more than once a request:
//! the labels that outputs add are known in advance, and where each stands among a source's labels is
//! remembered by the number of the source label's name.

use super::names::{What, Writer, reserved, values};
use crate::detect::Detector;
use crate::engine::Output;
use crate::labels::{NAME, Pair};
use crate::rules::{As, OutputNames, Rule};
use crate::wire::encode::{Request, Term};
use crate::wire::{MetricKind, Sample};
use std::hint::black_box;

/// A label that outputs add.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// The name of the series itself.
    Name,
    As,
    Detector,
    /// The source's name, under `metric` or `for`.
    Source,
    /// The rule, or a label of the rule's: the same for all. A source's own label of that name wins
    /// over the latter.
    Fixed(Term),
}

/// More keys than this are left to [`Writer`].
const MOST_KEYS: usize = 60;
const UNKNOWN: u8 = u8::MAX;

/// What is known of a rule as long as a request is built.
#[derive(Debug)]
struct Plan {
    rule: *const Rule,
    names: OutputNames,
    /// By name.
    keys: Vec<(String, Key)>,
    /// By the number of a source label's name: twice the keys before it, and one more where it is
    /// itself a key's.
    ranks: Vec<u8>,
    /// Names of the series, by [`What::number`].
    series: [Option<Term>; What::NAMES],
    detectors: [Option<Term>; Detector::ALL.len()],
    transforms: Vec<(As, Term)>,
}

impl Plan {
    fn new(rule: &Rule, names: OutputNames, request: &mut Request<'_, '_>) -> Plan {
        let is_reserved = |name: &str| reserved(names).any(|(have, _)| *have == name);
        let mut keys: Vec<(String, Key)> = vec![(NAME.to_string(), Key::Name)];
        for (name, _) in reserved(names) {
            let key = match *name {
                "as" => Key::As,
                "detector" => Key::Detector,
                "rule" => Key::Fixed(request.text("rule", &rule.name)),
                _ => Key::Source,
            };
            keys.push((name.to_string(), key));
        }
        for (name, value) in &rule.labels {
            if name != NAME && !value.is_empty() && !is_reserved(name) {
                keys.push((name.clone(), Key::Fixed(request.text(name, value))));
            }
        }
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Plan {
            rule,
            names,
            keys,
            ranks: Vec::new(),
            series: [None; What::NAMES],
            detectors: [None; Detector::ALL.len()],
            transforms: Vec::new(),
        }
    }

    #[inline]
    fn rank(&mut self, term: Term, pair: &Pair) -> u8 {
        match self.ranks.get(term.name()) {
            Some(rank) if *rank != UNKNOWN => *rank,
            _ => self.find_rank(term, pair),
        }
    }

    fn find_rank(&mut self, term: Term, pair: &Pair) -> u8 {
        let before = self.keys.partition_point(|(name, _)| name.as_str() < pair.name());
        let same = self.keys.get(before).is_some_and(|(name, _)| name == pair.name());
        let rank = (2 * before + usize::from(same)) as u8;
        if self.ranks.len() <= term.name() {
            self.ranks.resize(term.name() + 1, UNKNOWN);
        }
        if let Some(known) = self.ranks.get_mut(term.name()) {
            *known = rank;
        }
        rank
    }

    fn transform(&mut self, transform: As, request: &mut Request<'_, '_>) -> Term {
        if let Some((_, term)) = self.transforms.iter().find(|(have, _)| *have == transform) {
            return *term;
        }
        let term = request.text("as", &transform.to_string());
        self.transforms.push((transform, term));
        term
    }

    /// Writes the labels that all series of an output share; `false` where that needs more thought.
    fn labels<'l>(&mut self, output: &'l Output, request: &mut Request<'_, 'l>) -> bool {
        request.open();
        let (mut next, mut source) = (0, None);
        for pair in output.labels.pairs() {
            let term = request.term(pair);
            let rank = self.rank(term, pair);
            let at = usize::from(rank / 2);
            while next < at {
                if !self.key(next, output, source, request) {
                    return false;
                }
                next += 1;
            }
            if rank % 2 == 1 {
                match self.keys.get(at) {
                    Some((_, Key::Name)) => {
                        source = Some(pair);
                        continue;
                    }
                    Some((name, Key::Fixed(_))) if name != "rule" => next = at + 1,
                    // A source label of a reserved name is renamed, which changes the order.
                    _ => return false,
                }
            }
            request.push(term);
        }
        while next < self.keys.len() {
            if !self.key(next, output, source, request) {
                return false;
            }
            next += 1;
        }
        true
    }

    fn key<'l>(
        &mut self,
        at: usize,
        output: &Output,
        source: Option<&'l Pair>,
        request: &mut Request<'_, 'l>,
    ) -> bool {
        match self.keys.get(at) {
            None => {}
            Some((_, Key::Name)) => request.place_name(),
            Some((_, Key::Detector)) => request.place_extra(),
            Some((_, Key::Fixed(term))) => request.push(*term),
            Some((_, Key::As)) if output.transform == As::Value => {}
            Some((_, Key::As)) => {
                let term = self.transform(output.transform, request);
                request.push(term);
            }
            Some((_, Key::Source)) => {
                let Some(source) = source else { return false };
                let (number, name) = match self.names {
                    OutputNames::Oddity => (1, "metric"),
                    OutputNames::VmAnomaly => (2, "for"),
                };
                let term = request.renamed(source, number, name);
                request.push(term);
            }
        }
        true
    }

    fn samples(&mut self, output: &Output, rule: &Rule, request: &mut Request<'_, '_>) {
        let (names, timestamp) = (self.names, output.at.0);
        values(output, rule, names, |what, value| {
            let name = |request: &mut Request<'_, '_>| request.text(NAME, what.name(names));
            let name = match self.series.get_mut(what.number()) {
                Some(known) => *known.get_or_insert_with(|| name(request)),
                None => name(request),
            };
            let extra = match what {
                What::Detector(detector) => self
                    .detectors
                    .get_mut(detector as usize)
                    .map(|known| *known.get_or_insert_with(|| request.text("detector", detector.name()))),
                _ => None,
            };
            request.add(name, extra, Sample { timestamp, value });
        });
    }
}

/// Adds outputs to one request.
#[derive(Debug)]
pub struct Plans<'e, 'l, 'w> {
    request: Request<'e, 'l>,
    writer: &'w mut Writer,
    plans: Vec<Plan>,
}

impl<'e, 'l, 'w> Plans<'e, 'l, 'w> {
    /// For this request; `writer` is for outputs that no plan fits.
    pub fn new(request: Request<'e, 'l>, writer: &'w mut Writer) -> Self {
        Plans { request, writer, plans: Vec::new() }
    }

    /// Reads what the next outputs need into the caches, the label sets first and then what is new in
    /// them: one after the other each of these reads would be waited for.
    pub fn touch(&self, outputs: &'l [Output]) {
        for outputs in outputs.chunks(16) {
            let ends = |output: &Output| {
                let address = |pair: &Pair| std::ptr::from_ref(pair).addr();
                output.labels.near() as usize ^ output.labels.pairs().next_back().map_or(0, address)
            };
            black_box(outputs.iter().map(ends).fold(0, |all, one| all ^ one));
            let pairs = outputs.iter().flat_map(|output| output.labels.pairs());
            black_box(pairs.map(|pair| self.request.touch(pair)).fold(0, |all, one| all ^ one));
        }
    }

    /// Adds the samples of an output.
    pub fn add(&mut self, output: &'l Output, rule: &'l Rule, names: OutputNames) {
        let same = |plan: &Plan| std::ptr::eq(plan.rule, rule) && plan.names == names;
        let at = self.plans.iter().position(same).unwrap_or_else(|| {
            self.plans.push(Plan::new(rule, names, &mut self.request));
            self.plans.len() - 1
        });
        let Some(plan) = self.plans.get_mut(at) else { return };
        if plan.keys.len() <= MOST_KEYS && plan.labels(output, &mut self.request) {
            return plan.samples(output, rule, &mut self.request);
        }
        let timestamp = output.at.0;
        self.writer.each(output, rule, names, |labels, value| {
            let sample = Sample { timestamp, value };
            self.request.series(labels.iter().copied(), MetricKind::Gauge, &[sample]);
        });
    }

    /// Adds a sample with these labels.
    pub fn series<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>, sample: Sample) {
        self.request.series(labels, MetricKind::Gauge, &[sample]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Band;
    use crate::emit::names::tests::{ALL, SCORE_ONLY, rule};
    use crate::engine::{Detail, OutputValue};
    use crate::labels::{LabelLimits, Labels, canonicalise};
    use crate::rules::Share;
    use crate::time::Millis;
    use crate::wire::encode::Encoder;
    use crate::wire::{Batch, DecodeLimits, Version, decode};
    use proptest::prelude::*;

    /// Labels, time and bits of the value.
    type Decoded = (Vec<(String, String)>, i64, u64);

    fn decoded(version: Version, message: &[u8]) -> Vec<Decoded> {
        let mut batch = Batch::new(0);
        decode(version, message, &DecodeLimits::default(), &mut batch).expect("decodes");
        let mut all = Vec::new();
        for series in &batch.series {
            let mut labels = Vec::new();
            batch.read_labels(series, message, &mut labels).expect("UTF-8");
            let labels: Vec<_> = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            for sample in batch.floats(series) {
                all.push((labels.clone(), sample.timestamp, sample.value.to_bits()));
            }
        }
        all
    }

    fn value() -> impl Strategy<Value = OutputValue> {
        let band = proptest::option::of(Just(Band { lower: -1.0, upper: f64::INFINITY }));
        prop_oneof![
            4 => (0.0..2.0f64, band).prop_map(|(score, band)| OutputValue::Scored {
                value: 7.0,
                score,
                detail: Some(Box::new(Detail {
                    expected: 3.0,
                    interval: 15e3,
                    kind: Default::default(),
                    band,
                    evidence: [0.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0],
                })),
            }),
            1 => Just(OutputValue::Stale),
        ]
    }

    proptest! {
        /// Plans say what the writer says, label by label, and in 1.0 byte by byte.
        #[test]
        fn plans_write_what_the_writer_writes(
            outputs in prop::collection::vec(
                (
                    prop::collection::btree_map("[A-Cb-d]|__name|as|rule|metric|for|detector|exported_rule|team|zone", "[xy]{0,2}", 0..6),
                    0usize..3,
                    prop::sample::select(vec![As::Value, As::Rate, As::Quantile(Share::new(0.5).expect("a share")), As::Quantile(Share::new(0.99).expect("a share"))]),
                    value(),
                    any::<bool>(),
                    -2i64..3,
                ),
                1..12,
            ),
        ) {
            let rules = [
                rule(ALL, &[]),
                rule(ALL, &[("B", "1"), ("metric", "no"), ("team", "edge"), ("zone", "")]),
                rule(SCORE_ONLY, &[("a", "1"), ("b", "2")]),
            ];
            let make = |(labels, which, transform, value, vm, at): &(std::collections::BTreeMap<String, String>, usize, As, OutputValue, bool, i64)| {
                let mut labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                labels.push((NAME, "up"));
                canonicalise(&mut labels, LabelLimits::default()).expect("valid");
                let names = if *vm { OutputNames::VmAnomaly } else { OutputNames::Oddity };
                let labels = Labels::from_pairs(&labels);
                let value = value.clone();
                let rule = *which as u16;
                (Output { labels, rule, transform: *transform, at: Millis(*at), value, emit: true }, names)
            };
            let outputs: Vec<_> = outputs.iter().map(make).collect();
            for version in [Version::V1, Version::V2] {
                let (mut planned, mut plain) = (Encoder::new(version), Encoder::new(version));
                let mut writer = Writer::default();
                // The second time with used memory.
                for _ in 0..2 {
                    let mut other = Writer::default();
                    let mut plans = Plans::new(planned.request(), &mut other);
                    for (output, names) in &outputs {
                        let rule = &rules[usize::from(output.rule)];
                        plans.add(output, rule, *names);
                        writer.each(output, rule, *names, |labels, value| {
                            let sample = [Sample { timestamp: output.at.0, value }];
                            plain.series(labels.iter().copied(), MetricKind::Gauge, &sample);
                        });
                    }
                    prop_assert_eq!(planned.samples(), plain.samples());
                    let (planned, plain) = (planned.finish(), plain.finish());
                    prop_assert_eq!(decoded(version, &planned), decoded(version, &plain));
                    if version == Version::V1 {
                        prop_assert_eq!(planned, plain);
                    }
                }
            }
        }
    }
}
