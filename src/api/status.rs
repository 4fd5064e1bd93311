//! `/api/v1/status` and `/api/v1/rules`.

use super::{Api, now};
use crate::detect::{Detector, Season};
use crate::engine::EngineStats;
use crate::rules::{Rule, RuleSet, Window};
use crate::time::Millis;
use crate::wire::Version;
use serde_json::{Value, json};
use std::sync::Arc;

/// The state of everything, without secrets.
pub fn status(api: &Api) -> Value {
    let stats = api.engine.stats();
    let (rules, observed) = (api.engine.rules(), api.engine.newest_observed());
    let metrics = api.receiver.metrics();
    let elected: Vec<Value> = api
        .receiver
        .ha()
        .elected()
        .into_iter()
        .map(|(cluster, replica, heard)| {
            json!({"cluster": cluster, "replica": replica, "last_heard": heard.0 as f64 / 1e3})
        })
        .collect();
    json!({
        "version": api.version,
        "ready": api.is_ready(),
        "started": api.started.0 as f64 / 1e3,
        "uptime_seconds": now().since(api.started) as f64 / 1e3,
        "rules": {"generation": stats.generation, "count": rules.rules.len()},
        "observed": observed.map(|at| at.0 as f64 / 1e3),
        "open_windows": observed.map(|at| open_windows(&rules, at)).unwrap_or_default(),
        "series": {
            "kept": stats.series,
            "warming_signals": stats.warming,
            "scored_signals": stats.scored,
            "stale_signals": stats.stale,
        },
        "cardinality": cardinality(api, &rules),
        "sequence": stats.sequence,
        "memory_bytes": memory(&stats, |bytes| json!(bytes)),
        "memory_bytes_per_series": memory(&stats, |bytes| {
            json!((bytes as f64 / stats.series.max(1) as f64 * 10.0).round() / 10.0)
        }),
        "receiver": {
            "samples_received": metrics.received.load(std::sync::atomic::Ordering::Relaxed),
            "handled": metrics.handled(),
            "in_flight_bytes": api.receiver.admission().working.in_use(),
            "ha": elected,
        },
        "targets": targets(api),
        "state": state(api),
        "restart_needed": api.control.restart_needed(),
        "notes": api.control.notes(),
    })
}

/// Bytes by part, and what they come to in all; `of` makes them what is shown.
fn memory(stats: &EngineStats, of: impl Fn(u64) -> Value) -> Value {
    let parts = stats.memory.parts().into_iter().chain([("total", stats.memory.total())]);
    parts.map(|(part, bytes)| (part.to_string(), of(bytes))).collect::<serde_json::Map<_, _>>().into()
}

fn state(api: &Api) -> Value {
    let Some(keeper) = &api.keeper else { return json!({"kept": false}) };
    let report = keeper.report();
    let mut state = json!({
        "kept": true,
        "restored": {
            "checkpoint": report.found.checkpoint,
            "series": report.found.series,
            "records": report.found.replayed,
            "seconds": report.found.took.as_secs_f64(),
            "trouble": report.found.trouble,
        },
        "log": {
            "failing": report.failing,
            "records": report.log.records,
            "bytes_written": report.log.bytes,
            "records_lost": report.log.lost,
            "bytes": report.log.held,
        },
        "checkpoints": report.checkpoints,
        "checkpoint_failures": report.failures,
        "replay_debt_seconds": report.debt.as_secs_f64(),
        "trouble": report.trouble,
    });
    if let Some(last) = report.last {
        state["checkpoint"] = json!({
            "sequence": last.sequence,
            "bytes": last.bytes,
            "seconds": last.took.as_secs_f64(),
        });
    }
    state
}

fn targets(api: &Api) -> Vec<Value> {
    let counts = |counts: &[(&'static str, u64)]| -> serde_json::Map<String, Value> {
        counts.iter().map(|(name, n)| (name.to_string(), json!(n))).collect()
    };
    api.emitter
        .snapshot()
        .into_iter()
        .map(|target| {
            json!({
                "target": target.target,
                "state": if target.down { "down" } else { "up" },
                "protocol": match target.protocol { Version::V1 => "1.0", Version::V2 => "2.0" },
                "accepted": target.accepted,
                "pending": target.pending_samples,
                "oldest_pending_seconds": target.oldest_pending.as_secs_f64(),
                "rejected": counts(&target.rejected),
                "dropped": counts(&target.dropped),
                "retries": target.retries,
            })
        })
        .collect()
}

/// Rules, metrics and refused metrics shown.
pub(super) const TOP: usize = 10;

/// Who has most series, and who was refused most.
fn cardinality(api: &Api, rules: &RuleSet) -> Value {
    let counts = api.engine.cardinality();
    let by_rule = counts.rules().into_iter().take(TOP).map(|count| {
        let limit = rules.rules.iter().find(|rule| rule.name == count.rule).and_then(|rule| rule.max_series);
        json!({
            "rule": count.rule,
            "series": count.kept,
            "max_series": limit,
            "refused_by_rule": count.refused_by_rule,
            "refused_by_all": count.refused_by_all,
        })
    });
    let named = |what: &'static str, all: Vec<(String, u64)>| -> Vec<Value> {
        all.into_iter().map(|(metric, n)| json!({"metric": metric, what: n})).collect()
    };
    json!({
        "rules": by_rule.collect::<Vec<_>>(),
        "metrics": named("series", api.engine.largest_metrics(TOP)),
        "refused_metrics": named("times", counts.refused(TOP)),
    })
}

/// The maintenance windows open at a time, each with the rules it holds for.
fn open_windows(rules: &RuleSet, at: Millis) -> Vec<Value> {
    let mut open: Vec<(Arc<Window>, Millis, Vec<&str>)> = Vec::new();
    for rule in &rules.rules {
        for (window, until) in rule.ignore.open(at) {
            match open.iter_mut().find(|(have, ..)| Arc::ptr_eq(have, &window)) {
                Some((.., names)) => names.push(&rule.name),
                None => open.push((window, until, vec![&rule.name])),
            }
        }
    }
    let shown = open.into_iter().map(|(open, until, names)| {
        let mut shown = window(&open);
        shown["until"] = json!(until.0 as f64 / 1e3);
        shown["rules"] = json!(names);
        shown
    });
    shown.collect()
}

fn window(window: &Window) -> Value {
    json!({
        "when": window.when.to_string(),
        "match": window.selectors.iter().map(|s| s.to_string()).collect::<Vec<_>>(),
        "comment": window.comment,
    })
}

/// The rules in force.
pub fn rules(rules: &RuleSet) -> Value {
    json!({
        "rules": rules.rules.iter().map(|r| rule(r)).collect::<Vec<_>>(),
        "ha": {
            "cluster_label": rules.identity.cluster_label,
            "replica_label": rules.identity.replica_label,
        },
        "partition_by": rules.identity.partition_by,
        "forget_after": rules.forget_after.to_string(),
        "max_series": rules.limits.max_series,
    })
}

fn rule(rule: &Rule) -> Value {
    let transforms: Vec<String> = match rule.transforms.is_empty() {
        true => vec!["auto".to_string()],
        false => rule.transforms.iter().map(|t| t.to_string()).collect(),
    };
    let emit: Vec<&str> = [
        ("score", rule.emit.score),
        ("flag", rule.emit.flag),
        ("bands", rule.emit.bands),
        ("detectors", rule.emit.detectors),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect();
    let detectors: Vec<&str> =
        Detector::ALL.into_iter().filter(|d| rule.params.detectors.has(*d)).map(Detector::name).collect();
    json!({
        "name": rule.name,
        "match": rule.selectors.iter().map(|s| s.to_string()).collect::<Vec<_>>(),
        "as": transforms,
        "detectors": detectors,
        "emit": emit,
        "emit_when": format!("{:?}", rule.emit_when).to_lowercase(),
        "labels": rule.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "false_alarms": format!("1 per {}", rule.read.budget),
        "direction": format!("{:?}", rule.read.direction).to_lowercase(),
        "min_change": {"absolute": rule.read.min_change.absolute, "relative": rule.read.min_change.relative},
        "quiet": rule.read.quiet.map(|quiet| quiet.to_string()),
        "min_samples": rule.params.min_samples,
        "season": match rule.params.season {
            Season::None => vec!["none".to_string()],
            Season::Auto => vec!["auto".to_string()],
            Season::Fixed(periods) => periods.to_string().split(", ").map(str::to_string).collect(),
        },
        "accept_shift_after": rule.params.accept_shift_after.to_string(),
        "ignore": rule.ignore.iter().map(|one| window(one)).collect::<Vec<_>>(),
        "max_series": rule.max_series,
        "silence_after": rule.silence.map(|silence| silence.after.to_string()),
    })
}
