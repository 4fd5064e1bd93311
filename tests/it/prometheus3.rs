//! Case 1: Prometheus 3 scrapes, sends by 1.0 and by 2.0, receives the scores and alerts on them.
//!
//! One Prometheus feeds two sidecars, one by each protocol; their rules have different names, so
//! their outputs stay apart in the one store.

use crate::exposer::Exposer;
use crate::harness::peers::{Alertmanager, Prometheus, Suite, node_exporter};
use crate::harness::sidecar::Sidecar;
use crate::harness::store::Store;
use crate::harness::{free_port, temp_dir, wait_until};
use std::time::Duration;

const HEALTHY: usize = 2_000;
const INTERVAL_MS: i64 = 1_000;
/// Scored samples before anything fails; the warm-up of 60 samples comes on top.
const SCORED_BEFORE_FAULT: usize = 60;
const ROUTES: [&str; 2] = ["one", "two"];

fn rules(name: &str, target: &str) -> String {
    format!(
        r#"
remote_write: [{{url: "{target}"}}]
rules:
  - name: {name}
    match: ['{{__name__=~"app_.*"}}', '{{__name__=~"node_load1|node_memory_.*|node_network_.*_total", job="node"}}']
"#
    )
}

/// The first flag of a metric at or after `fault`, and the scores from just before it, for people.
pub fn first_flag(store: &Store, metric: &str, rule: &str, fault: i64) -> Result<i64, String> {
    let of = |name: &str| {
        let found = store.samples(&format!("{name}{{metric={metric:?},rule={rule:?},job=\"app\"}}[15m]"));
        found.into_iter().flat_map(|(_, samples)| samples).collect::<Vec<_>>()
    };
    let (flags, scores) = (of("anomaly_flag"), of("anomaly_score"));
    // The two are read one after the other: only the newest may be in one of them alone.
    let by_time: std::collections::BTreeMap<i64, f64> = scores.iter().copied().collect();
    let alone = flags.iter().filter(|flag| !by_time.contains_key(&flag.0)).count();
    assert!(alone <= 1 && flags.len().abs_diff(scores.len()) <= 2, "a flag for each score of {metric}");
    for (at, flag) in &flags {
        if let Some(score) = by_time.get(at) {
            assert_eq!(*flag == 1.0, *score >= 1.0, "{metric} at {at}: flag {flag}, score {score}");
        }
    }
    let near: Vec<_> = scores.iter().filter(|s| (s.0 - fault).abs() < 10_000).collect();
    match flags.iter().find(|flag| flag.0 >= fault && flag.1 == 1.0) {
        Some(flag) => Ok(flag.0),
        None => Err(format!("no flag for {metric} of rule {rule} since {fault}; scores near it: {near:?}")),
    }
}

/// The stored time stamp of the first faulty `app_shift` or `app_stall_total`.
pub fn fault_time(store: &Store, exposer: &Exposer, metric: &str) -> i64 {
    wait_until(&format!("the first faulty sample of {metric}"), Duration::from_secs(30), || {
        let log = exposer.log();
        let stored = store.samples(&format!("{metric}{{job=\"app\"}}[15m]"));
        let samples = stored.into_iter().flat_map(|(_, samples)| samples).collect::<Vec<_>>();
        let at = if metric == "app_shift" {
            let first = log.iter().find(|served| served.shifted).ok_or("not scraped yet")?;
            samples.iter().find(|sample| sample.1 == first.shift)
        } else {
            let first = log.iter().find(|served| served.stalled).ok_or("not scraped yet")?;
            // The first occurrence of the value is the last good sample.
            samples.iter().filter(|sample| sample.1 == first.stall).nth(1)
        };
        at.map(|sample| sample.0).ok_or_else(|| "not stored yet".to_string())
    })
}

#[test]
fn faults_are_flagged_within_two_scrapes_and_alerts_arrive() {
    let home = temp_dir();
    let dir = home.path();
    let exposer = Exposer::start(11, HEALTHY, false);
    let doomed = Exposer::start(12, 20, false);
    let (_node, node) = node_exporter(dir);
    let alertmanager = Alertmanager::start(dir);
    let port = free_port();
    let target = Store::new(port).write_url();
    let [one, two] = ROUTES.map(|name| Sidecar::start(&dir.join(name), &rules(name, &target), 2));

    std::fs::write(
        dir.join("alerts.yml"),
        "groups:\n- name: anomalies\n  interval: 1s\n  rules:\n  - alert: Anomaly\n    expr: max_over_time(anomaly_flag[5m]) == 1\n",
    )
    .expect("alert rules");
    let config = format!(
        r#"
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
- {{job_name: app, static_configs: [{{targets: ["{app}"]}}]}}
- {{job_name: doomed, static_configs: [{{targets: ["{doomed}"]}}]}}
- {{job_name: node, static_configs: [{{targets: ["{node}"]}}]}}
remote_write:
- {{url: "{one}", name: one, protobuf_message: prometheus.WriteRequest, queue_config: {{batch_send_deadline: 500ms}}}}
- {{url: "{two}", name: two, protobuf_message: io.prometheus.write.v2.Request, queue_config: {{batch_send_deadline: 500ms}}}}
"#,
        rules = dir.join("alerts.yml").display(),
        alertmanager = alertmanager.address,
        app = exposer.address(),
        doomed = doomed.address(),
        one = one.write_url(),
        two = two.write_url(),
    );
    let prometheus = Prometheus::start_on(port, Suite::Sid, &dir.join("prometheus"), &config);
    let store = &prometheus.store;

    for route in ROUTES {
        for metric in ["app_shift", "app_stall_total"] {
            wait_until(&format!("scores of {metric} by {route}"), Duration::from_secs(240), || {
                let query = format!(
                    "count_over_time(anomaly_score{{metric={metric:?},rule={route:?},job=\"app\"}}[15m])"
                );
                let have = store.scalar(&query).unwrap_or(0.0);
                if have as usize >= SCORED_BEFORE_FAULT { Ok(()) } else { Err(format!("{have} scores")) }
            });
        }
        let node = store.scalar(&format!("count(anomaly_score{{job=\"node\",rule={route:?}}})"));
        assert!(node.is_some_and(|series| series > 10.0), "node_exporter is scored too: {node:?}");
        let gauges = store.scalar(&format!("count(anomaly_score{{metric=\"app_level\",rule={route:?}}})"));
        assert!(gauges.is_some_and(|series| series >= HEALTHY as f64 / 2.0), "{gauges:?}");
    }

    exposer.shift();
    exposer.stall();
    for metric in ["app_shift", "app_stall_total"] {
        let fault = fault_time(store, &exposer, metric);
        for route in ROUTES {
            let flag = wait_until(&format!("the flag of {metric}"), Duration::from_secs(20), || {
                first_flag(store, metric, route, fault)
            });
            let late = flag - fault;
            println!("{metric} by {route}: first flag {late} ms after the first faulty sample");
            assert!(late <= 2 * INTERVAL_MS + 50, "{metric} by {route}: flagged {late} ms after the fault");
        }
    }

    // The target that is gone: its scores end with it, and its end is no anomaly.
    let open = store.instant("anomaly_flag{job=\"doomed\"} == 1");
    let before: Vec<_> = store.instant("max_over_time(anomaly_flag{job=\"doomed\"}[15m]) == 1");
    println!("flags of the doomed target while it was healthy: {} series, {} open", before.len(), open.len());
    drop(doomed);
    wait_until("stale scores of the gone target", Duration::from_secs(30), || {
        let left = store.scalar("count(anomaly_score{job=\"doomed\"})").unwrap_or(0.0);
        let source = store.scalar("count(app_shift{job=\"doomed\"})").unwrap_or(0.0);
        if left + source == 0.0 { Ok(()) } else { Err(format!("{left} scores, {source} sources left")) }
    });
    std::thread::sleep(Duration::from_secs(5));
    let after = store.instant("max_over_time(anomaly_flag{job=\"doomed\"}[15m]) == 1");
    assert_eq!(after.len(), before.len(), "the gone target was flagged: {after:?}");

    for route in ROUTES {
        for metric in ["app_shift", "app_stall_total"] {
            wait_until(&format!("the alert on {metric} by {route}"), Duration::from_secs(60), || {
                let alerts = alertmanager.alerts();
                let ours = |alert: &&crate::harness::store::Labels| {
                    let is = |name: &str, value: &str| alert.get(name).is_some_and(|have| have == value);
                    is("alertname", "Anomaly") && is("metric", metric) && is("rule", route)
                };
                alerts.iter().find(ours).map(|_| ()).ok_or_else(|| format!("{} other alerts", alerts.len()))
            });
        }
        let healthy =
            format!("anomaly_flag{{metric=~\"app_level|app_work_total\",job=\"app\",rule={route:?}}}[15m]");
        let flags = store.scalar(&format!("sum(sum_over_time({healthy}))")).unwrap_or(0.0);
        let series = store.scalar(&format!("count(max_over_time({healthy}) == 1)")).unwrap_or(0.0);
        let scored = store.scalar(&format!("sum(count_over_time({healthy}))")).unwrap_or(0.0);
        println!(
            "healthy series by {route}: {flags} flags on {series} of {HEALTHY} series in {scored} samples"
        );
        assert!(
            series <= HEALTHY as f64 / 20.0,
            "more than 5 % of the healthy series were flagged while learning"
        );
    }
}
