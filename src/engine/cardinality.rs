//! How many series each rule has, against its `max_series`, and who was refused.
//!
//! Rules are counted by name, so that the counts outlive a reload; a series remembers under which one
//! it is counted.

use crate::registry::Partition;
use crate::registry::partition::UNCOUNTED;
use crate::rules::{Rule, RuleSet};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Names of metrics of refused series that are told apart.
const MAX_REFUSED_NAMES: usize = 1_000;

/// The limit that a series met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `limits.max_series`
    All,
    /// Its rule's `max_series`.
    Rule,
}

#[derive(Debug)]
struct Count {
    name: String,
    kept: AtomicUsize,
    refused_by_rule: AtomicU64,
    refused_by_all: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    numbers: HashMap<String, u16>,
    all: Vec<Arc<Count>>,
}

/// Series of a rule, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSeries {
    /// The rule's name.
    pub rule: String,
    /// Series kept.
    pub kept: usize,
    /// Times that a series was refused because of the rule's limit.
    pub refused_by_rule: u64,
    /// The same because of the limit on all series.
    pub refused_by_all: u64,
}

/// The counts. Touched when a series comes, goes or changes its rule, and not for each sample.
#[derive(Debug, Default)]
pub struct Cardinality {
    counts: RwLock<Counts>,
    refused: Mutex<HashMap<String, u64>>,
}

impl Cardinality {
    /// A rule's count and its number, made on first sight; `None` beyond 65,535 names.
    fn of(&self, rule: &Rule) -> Option<(u16, Arc<Count>)> {
        let find = |counts: &Counts| {
            let number = *counts.numbers.get(&rule.name)?;
            Some((number, counts.all.get(usize::from(number))?.clone()))
        };
        if let Some(found) = find(&self.counts.read()) {
            return Some(found);
        }
        let mut counts = self.counts.write();
        if let Some(found) = find(&counts) {
            return Some(found);
        }
        let number = u16::try_from(counts.all.len()).ok().filter(|number| *number != UNCOUNTED)?;
        let count = Arc::new(Count {
            name: rule.name.clone(),
            kept: AtomicUsize::new(0),
            refused_by_rule: AtomicU64::new(0),
            refused_by_all: AtomicU64::new(0),
        });
        counts.numbers.insert(rule.name.clone(), number);
        counts.all.push(count.clone());
        Some((number, count))
    }

    /// Counts one more series of a rule; `None` where that is over its limit.
    pub(super) fn enter(&self, rule: &Rule) -> Option<u16> {
        let Some((number, count)) = self.of(rule) else { return Some(UNCOUNTED) };
        let before = count.kept.fetch_add(1, Relaxed);
        if rule.max_series.is_some_and(|most| before >= most) {
            count.kept.fetch_sub(1, Relaxed);
            return None;
        }
        Some(number)
    }

    /// A series that was counted under `number` is gone.
    pub(super) fn leave(&self, number: u16) {
        if let Some(count) = self.counts.read().all.get(usize::from(number)) {
            count.kept.fetch_sub(1, Relaxed);
        }
    }

    /// A kept series that was counted under `number` belongs to another rule now. It stays, whatever
    /// that rule's limit.
    pub(super) fn shift(&self, number: u16, rule: Option<&Rule>) -> u16 {
        self.leave(number);
        let Some((number, count)) = rule.and_then(|rule| self.of(rule)) else { return UNCOUNTED };
        count.kept.fetch_add(1, Relaxed);
        number
    }

    /// Counts the series of a partition that was restored. Those of an older generation of rules are
    /// counted when their rule is found anew, at their next sample.
    pub fn take_in(&self, partition: &mut Partition, generation: u32, rules: &RuleSet) {
        for slot in 0..partition.series.bound() {
            let Some(series) = partition.series.get_mut(slot) else { continue };
            if series.generation == generation {
                let rule = series.rule.and_then(|rule| rules.rules.get(usize::from(rule)));
                series.counted = self.shift(series.counted, rule.map(|rule| &**rule));
            }
        }
    }

    /// Counts a series that was not taken in.
    pub(super) fn refuse(&self, rule: Option<&Rule>, metric: &str, bound: Bound) {
        if let Some((_, count)) = rule.and_then(|rule| self.of(rule)) {
            let refused = match bound {
                Bound::Rule => &count.refused_by_rule,
                Bound::All => &count.refused_by_all,
            };
            refused.fetch_add(1, Relaxed);
        }
        let mut refused = self.refused.lock();
        let room = refused.len() < MAX_REFUSED_NAMES;
        match refused.get_mut(metric) {
            Some(times) => *times += 1,
            None if room => drop(refused.insert(metric.to_string(), 1)),
            None => {}
        }
    }

    /// All rules that have or had series, those with most series first.
    pub fn rules(&self) -> Vec<RuleSeries> {
        let of = |count: &Arc<Count>| RuleSeries {
            rule: count.name.clone(),
            kept: count.kept.load(Relaxed),
            refused_by_rule: count.refused_by_rule.load(Relaxed),
            refused_by_all: count.refused_by_all.load(Relaxed),
        };
        let mut all: Vec<RuleSeries> = self.counts.read().all.iter().map(of).collect();
        all.sort_by(|a, b| b.kept.cmp(&a.kept).then_with(|| a.rule.cmp(&b.rule)));
        all
    }

    /// The metrics whose series were refused most often, each with how often; of the first 1,000
    /// metrics that had any refused.
    pub fn refused(&self, most: usize) -> Vec<(String, u64)> {
        top(self.refused.lock().iter().map(|(name, times)| (name.clone(), *times)).collect(), most)
    }
}

/// The greatest, in their order.
pub(super) fn top(mut all: Vec<(String, u64)>, most: usize) -> Vec<(String, u64)> {
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{rule, rules};
    use crate::engine::tests::{Kept, Row, body, digest};
    use crate::engine::{Engine, OutputSink};
    use crate::record::Record;
    use crate::rules::As;
    use crate::time::Span;
    use crate::wire::Version;

    fn limited(name: &str, regex: &str, most: Option<usize>) -> Rule {
        let mut rule = rule(name, regex, vec![As::Value]);
        rule.max_series = most;
        rule.params.min_samples = 3;
        rule
    }

    fn set(all: Vec<Rule>) -> Arc<RuleSet> {
        Arc::new(RuleSet { forget_after: Span::HOUR, ..rules(all) })
    }

    fn engine(rules: Arc<RuleSet>, lanes: usize) -> (Engine, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        (Engine::new(rules, lanes, vec![kept.clone() as Arc<dyn OutputSink>]), kept)
    }

    /// A sample of each of these pods; how many were over a limit.
    fn send(engine: &Engine, name: &str, pods: std::ops::Range<usize>, seconds: i64) -> u64 {
        let pods: Vec<String> = pods.map(|pod| pod.to_string()).collect();
        let value = |pod: &str| pod.len() as f64 + (seconds % 7) as f64;
        let rows: Vec<Row<'_>> = pods.iter().map(|pod| (name, pod.as_str(), seconds, value(pod))).collect();
        let applied = engine.apply(body(Version::V2, &rows)).expect("a good body");
        applied.handled.get("over_limit").copied().unwrap_or(0)
    }

    /// Series kept and refused, by rule.
    fn counts(engine: &Engine) -> Vec<(String, usize, u64, u64)> {
        let of = |c: RuleSeries| (c.rule, c.kept, c.refused_by_rule, c.refused_by_all);
        engine.cardinality().rules().into_iter().map(of).collect()
    }

    #[test]
    fn a_rule_takes_no_more_than_its_limit_and_those_inside_score_as_ever() {
        for lanes in [0, 3] {
            let (with, inside) =
                engine(set(vec![limited("a", "m", Some(5)), limited("b", "n", None)]), lanes);
            let (without, all) = engine(set(vec![limited("a", "m", None), limited("b", "n", None)]), lanes);
            for step in 0..10 {
                for engine in [&with, &without] {
                    // Five are there before the others come.
                    send(engine, "m", 0..5, 100 + step);
                }
                assert_eq!(send(&with, "m", 5..12, 100 + step), 7, "refused each time");
                assert_eq!(send(&with, "n", 0..20, 100 + step), 0, "another rule's matter");
                send(&without, "n", 0..20, 100 + step);
            }
            assert_eq!(digest(&inside), digest(&all), "with {lanes} lanes");
            assert_eq!(counts(&with), [("b".into(), 20, 0, 0), ("a".into(), 5, 70, 0)]);
            assert_eq!(with.cardinality().refused(3), [("m".to_string(), 70)]);
            assert_eq!(with.largest_metrics(1), [("n".to_string(), 20)]);
            assert_eq!(with.stats().series, 25);
        }
    }

    #[test]
    fn the_limit_on_all_series_tells_whom_it_met() {
        let mut rules = (*set(vec![limited("a", "m", Some(100)), limited("b", "n", None)])).clone();
        rules.limits.max_series = 8;
        let (engine, _) = engine(Arc::new(rules), 2);
        assert_eq!((send(&engine, "m", 0..6, 100), send(&engine, "n", 0..6, 100)), (0, 4));
        assert_eq!(counts(&engine), [("a".into(), 6, 0, 0), ("b".into(), 2, 0, 4)]);
    }

    #[test]
    fn series_that_are_forgotten_make_room() {
        let (engine, _) = engine(set(vec![limited("a", "m", Some(3))]), 1);
        assert_eq!((send(&engine, "m", 0..3, 100), send(&engine, "m", 3..6, 100)), (0, 3));
        // The source goes on for longer than `forget_after` and its slack, without the three.
        for minutes in 1..=90 {
            let to = crate::time::Millis(100_000 + minutes * 60_000);
            engine.apply(Record::Tick { group: String::new(), to }).expect("a tick");
        }
        assert_eq!(engine.sweep(), 3);
        assert_eq!(counts(&engine)[0].1, 0);
        assert_eq!(send(&engine, "m", 3..6, 100 + 90 * 60), 0);
        assert_eq!(counts(&engine)[0].1, 3);
    }

    #[test]
    fn a_reload_moves_series_and_throws_none_out() {
        let (engine, _) = engine(set(vec![limited("a", "m", None)]), 2);
        send(&engine, "m", 0..6, 100);
        engine.apply(Record::Rules(set(vec![limited("b", "m", Some(2))]))).expect("rules");
        assert_eq!(send(&engine, "m", 0..6, 101), 0, "those that are there stay");
        assert_eq!(counts(&engine), [("b".into(), 6, 0, 0), ("a".into(), 0, 0, 0)]);
        assert_eq!(send(&engine, "m", 6..7, 101), 1);
        engine.apply(Record::Rules(set(vec![limited("c", "other", None)]))).expect("rules");
        send(&engine, "m", 0..6, 102);
        assert!(counts(&engine).iter().all(|count| count.1 == 0), "{:?}", counts(&engine));
    }

    #[test]
    fn restored_series_are_counted() {
        let rules = set(vec![limited("a", "m", Some(4))]);
        let (engine, _) = engine(rules.clone(), 0);
        send(&engine, "m", 0..4, 100);
        let fresh = Cardinality::default();
        let generation = engine.stats().generation as u32;
        for mut partition in engine.shared.partitions.iter_mut() {
            for slot in 0..partition.series.bound() {
                if let Some(series) = partition.series.get_mut(slot) {
                    series.counted = UNCOUNTED;
                }
            }
            fresh.take_in(&mut partition, generation, &rules);
        }
        assert_eq!(fresh.rules()[0].kept, 4);
        assert_eq!(fresh.enter(&rules.rules[0]), None, "it is full");
    }

    #[test]
    fn names_of_refused_metrics_are_bounded() {
        let counts = Cardinality::default();
        for n in 0..2 * MAX_REFUSED_NAMES {
            counts.refuse(None, &format!("m{n}"), Bound::All);
            counts.refuse(None, "m7", Bound::All);
        }
        assert_eq!(counts.refused.lock().len(), MAX_REFUSED_NAMES);
        assert_eq!(counts.refused(1)[0].0, "m7");
    }
}
