//! Compares what the sidecar finds with what was injected.

use crate::simulate::Fault;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A flagged sample, as `/api/v1/anomalies` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// The series' labels.
    pub labels: BTreeMap<String, String>,
    /// The signal.
    pub transform: String,
    /// The sample's time, ms.
    pub at: i64,
    /// The signal's value.
    pub value: f64,
    /// What was expected.
    pub expected: f64,
    /// Edges of the band; `None` without bound.
    pub band: (Option<f64>, Option<f64>),
    /// At least 1.
    pub score: f64,
    /// Evidence of the detectors that spoke, the strongest first.
    pub evidence: Vec<(String, f64)>,
}

impl Flag {
    /// Reads one; `None` when the API's answer is not as expected.
    pub fn read(json: &Value) -> Option<Flag> {
        let number = |name: &str| json.get(name)?.as_f64();
        let labels = json.get("labels")?.as_object()?.iter();
        let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string())));
        let evidence = json.get("evidence")?.as_object()?.iter();
        let mut evidence: Vec<(String, f64)> =
            evidence.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        evidence.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(Flag {
            labels: labels.collect(),
            transform: json.get("as")?.as_str()?.to_string(),
            at: (number("timestamp")? * 1e3).round() as i64,
            value: number("value")?,
            expected: number("expected")?,
            band: (number("lower"), number("upper")),
            score: number("score")?,
            evidence,
        })
    }
}

/// A fault under way, or over.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The fault.
    pub fault: Fault,
    /// Its series.
    pub labels: BTreeMap<String, String>,
    /// Step and score of the first flag while it lasted.
    pub found: Option<(i64, f64)>,
    /// Flags on a target that was removed: there should be none.
    pub flagged: usize,
    closed: bool,
}

impl Tracked {
    /// Whether the sidecar did right: found it, or kept quiet about a removed target.
    pub fn passed(&self) -> bool {
        if self.fault.kind.is_anomaly() { self.found.is_some() } else { self.flagged == 0 }
    }
}

/// A new alarm.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Its first flag.
    pub flag: Flag,
    /// The fault it belongs to, by number; `None` for a false alarm.
    pub fault: Option<usize>,
}

/// The book of faults and alarms.
#[derive(Debug)]
pub struct Watch {
    interval: i64,
    /// Steps without a flag that close an alarm.
    quiet: i64,
    before: HashSet<(BTreeMap<String, String>, String, i64)>,
    last: HashMap<BTreeMap<String, String>, i64>,
    /// The faults, in the order of injection.
    pub faults: Vec<Tracked>,
    /// Alarms that belong to no fault.
    pub false_alarms: usize,
}

impl Watch {
    /// An empty book for samples `interval` ms apart.
    pub fn new(interval: i64, quiet: i64) -> Watch {
        let (before, last) = Default::default();
        Watch { interval, quiet, before, last, faults: Vec::new(), false_alarms: 0 }
    }

    /// Notes a fault on a series.
    pub fn inject(&mut self, fault: Fault, labels: BTreeMap<String, String>) {
        self.faults.push(Tracked { fault, labels, found: None, flagged: 0, closed: false });
    }

    /// Takes the newest flags in any order, those known before among them; gives the new alarms.
    pub fn take(&mut self, mut flags: Vec<Flag>) -> Vec<Alarm> {
        flags.sort_by_key(|flag| flag.at);
        let key = |flag: &Flag| (flag.labels.clone(), flag.transform.clone(), flag.at);
        let now: HashSet<_> = flags.iter().map(key).collect();
        let mut alarms = Vec::new();
        for flag in flags {
            if self.before.contains(&key(&flag)) {
                continue;
            }
            let step = flag.at.div_euclid(self.interval);
            let mut first_of_fault = false;
            let mut cause = None;
            for (number, tracked) in self.faults.iter_mut().enumerate() {
                let Fault { kind, start, steps, .. } = tracked.fault;
                let removed = !kind.is_anomaly();
                let same = if removed {
                    tracked.labels.get("pod") == flag.labels.get("pod")
                } else {
                    tracked.labels == flag.labels
                };
                // Going back to normal is part of the fault.
                if !same || step < start || step >= start + steps + self.quiet {
                    continue;
                }
                cause = Some(number);
                tracked.flagged += 1;
                if !removed && step < start + steps && tracked.found.is_none() {
                    tracked.found = Some((step, flag.score));
                    first_of_fault = true;
                }
            }
            let last = self.last.insert(flag.labels.clone(), step);
            let opens = last.is_none_or(|last| step - last > self.quiet);
            let blamed = cause.filter(|number| {
                self.faults.get(*number).is_some_and(|tracked| tracked.fault.kind.is_anomaly())
            });
            if opens && blamed.is_none() {
                self.false_alarms += 1;
            }
            if opens || first_of_fault {
                alarms.push(Alarm { flag, fault: cause });
            }
        }
        self.before = now;
        alarms
    }

    /// Faults that are over at a step and were not told before, by number.
    pub fn over(&mut self, step: i64) -> Vec<usize> {
        let mut over = Vec::new();
        for (number, tracked) in self.faults.iter_mut().enumerate() {
            if !tracked.closed && step >= tracked.fault.start + tracked.fault.steps {
                tracked.closed = true;
                over.push(number);
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::FaultKind;

    fn labels(pod: &str, name: &str) -> BTreeMap<String, String> {
        [("pod", pod), ("__name__", name)].map(|(n, v)| (n.to_string(), v.to_string())).into()
    }

    fn flag(pod: &str, name: &str, step: i64) -> Flag {
        let json = serde_json::json!({
            "labels": labels(pod, name), "as": "value", "timestamp": step as f64 * 15.0, "value": 2.0,
            "expected": 1.0, "lower": null, "upper": 1.5, "score": 1.7,
            "evidence": {"ewma": 3.0, "zscore": 9.0},
        });
        Flag::read(&json).expect("as the API has it")
    }

    #[test]
    fn alarms_are_told_once_and_blamed_on_the_right_fault() {
        let mut watch = Watch::new(15_000, 20);
        let fault = |kind, start, steps| Fault { kind, series: 0, start, steps, size: 12.0 };
        watch.inject(fault(FaultKind::Shift, 100, 10), labels("a", "x"));
        watch.inject(fault(FaultKind::Gone, 100, 10), labels("b", "x"));
        assert_eq!(flag("a", "x", 1).evidence[0].0, "zscore");
        let told = watch.take(vec![flag("a", "x", 102), flag("a", "x", 101), flag("a", "y", 101)]);
        let told: Vec<_> = told.iter().map(|alarm| (alarm.flag.at / 15_000, alarm.fault)).collect();
        assert_eq!(told, [(101, Some(0)), (101, None)]);
        assert_eq!(watch.false_alarms, 1);
        // Known flags come again, the alarm goes on, and the way back is part of the fault.
        assert!(watch.take(vec![flag("a", "x", 102), flag("a", "x", 110)]).is_empty());
        assert_eq!(watch.over(109), [] as [usize; 0]);
        assert_eq!(watch.over(110), [0, 1]);
        assert_eq!(watch.over(111), [] as [usize; 0]);
        assert_eq!(watch.faults[0].found, Some((101, 1.7)));
        assert!(watch.faults[0].passed() && watch.faults[1].passed());
        watch.take(vec![flag("b", "z", 112)]);
        assert!(!watch.faults[1].passed(), "a removed target must not be flagged");
        assert_eq!(watch.false_alarms, 2);
    }

    #[test]
    fn an_answer_of_another_shape_is_not_a_flag() {
        assert_eq!(Flag::read(&serde_json::json!({"labels": {}})), None);
    }
}
