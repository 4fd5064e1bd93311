//! History out of a real Prometheus, by its dump and by its API, scores as a live sidecar did.

use crate::harness::fleet::Fleet;
use crate::harness::http::{Reply, Server};
use crate::harness::peers::{Prometheus, Suite, command};
use crate::harness::results;
use crate::harness::sidecar::Sidecar;
use crate::harness::sink::{Kept, Sink, count, differences};
use crate::harness::wire::{Series, V2, encode_v2, send};
use crate::harness::{now_ms, temp_dir, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SERIES: usize = 24;
/// Two samples a second, so that the last of them is not too far ahead of the first one's receipt.
const STEPS: usize = 500;
const INTERVAL: i64 = 500;
const WARM: usize = 60;

fn rules(target: &str) -> String {
    format!(
        r#"
remote_write: [{{url: "{target}"}}]
defaults: {{false_alarms: 1 per 1h}}
rules:
- {{name: level, match: [fleet_level]}}
- {{name: work, match: [fleet_work_total]}}
"#
    )
}

fn backtest(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddity"));
    command.arg("backtest").args(arguments).stdin(Stdio::null());
    command.env_remove("PROMETHEUS_URL").output().expect("oddity runs")
}

fn stdout(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the result files say, under the labels that a sidecar writes.
fn scores(out: &Path) -> Kept {
    results::read(out, false, |metric| match metric {
        "fleet_work_total" => ("work", Some("rate")),
        _ => ("level", None),
    })
}

#[test]
fn a_dump_and_the_api_give_the_scores_of_a_live_sidecar_to_the_bit() {
    let home = temp_dir();
    let dir = home.path();
    let sink = Sink::start();
    let sidecar = Sidecar::start(&dir.join("sidecar"), &rules(&sink.url()), 2);
    let config = format!(
        "global: {{scrape_interval: 1m}}\nremote_write:\n- {{url: \"{}\", protobuf_message: io.prometheus.write.v2.Request, queue_config: {{batch_send_deadline: 200ms}}}}\n",
        sidecar.write_url()
    );
    let mut prometheus = Prometheus::start(Suite::Sid, &dir.join("prometheus"), &config);
    // Only samples after its start are forwarded; up to ten minutes ahead are taken.
    let fleet = Fleet { seed: 71, start: now_ms() + 2_000, interval: INTERVAL };
    for step in (0..STEPS).step_by(50) {
        let body: Vec<Series> = (0..SERIES).map(|series| fleet.slice(series, step..step + 50)).collect();
        let answer = send(&prometheus.store.write_url(), V2, &encode_v2(&body)).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    // Gauges from their 60th sample on, counters one later; a score and a flag each.
    let wanted = SERIES / 2 * (2 * STEPS + 1 - 2 * WARM) * 2;
    wait_until("all scores at the sink", Duration::from_secs(60), || match sink.count() {
        have if have >= wanted => Ok(()),
        have => Err(format!("{have} of {wanted}")),
    });
    let live = sink.into_kept();
    assert!(live.values().flat_map(|s| s.values()).any(|bits| f64::from_bits(*bits) >= 1.0), "no flag");

    let config = dir.join("sidecar/rules.yaml");
    let config = config.to_str().expect("UTF-8");
    let url = prometheus.store.base.clone();
    let end = ((fleet.at(STEPS) + 1) as f64 / 1e3).to_string();
    let raw = dir.join("raw");
    let query = "{__name__=~\"fleet_.*\"} # all of it";
    let arguments =
        ["--rules", config, "--prometheus", &url, "--query", query, "--start", "2h", "--end", &end];
    let output =
        backtest(&[&arguments[..], &["--out", raw.to_str().expect("UTF-8"), "--format", "json"]].concat());
    let report: Value = serde_json::from_str(&stdout(&output, 0)).expect("JSON");
    assert_eq!(report["totals"]["samples"], SERIES * STEPS);
    assert!(report["recommended"]["false_alarms"].is_string(), "{report}");
    let got = scores(&raw);
    assert!(count(&got) == count(&live) && got == live, "by the API:\n{}", differences(&got, &live));

    // On a grid other samples come, as many as it has points in the span of the data.
    let output =
        backtest(&[&arguments[..], &["--step", "1s", "--format", "json", "--fail-on-anomaly"]].concat());
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let samples = report["totals"]["samples"].as_u64().expect("a number") as usize;
    assert!((SERIES * (STEPS / 2 - 2)..=SERIES * (STEPS / 2 + 2)).contains(&samples), "{samples}");

    // What the API refuses is shown in its own words; the environment can name it.
    let mut refused = Command::new(env!("CARGO_BIN_EXE_oddity"));
    let output = refused.args(["backtest", "--query", "sum("]).env("PROMETHEUS_URL", &url).output();
    let output = output.expect("oddity runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("400") && error.contains("parse error"), "{error}");

    prometheus.stop();
    let tsdb = dir.join("prometheus/tsdb");
    let dumped = command(Suite::Sid, "promtool").args(["tsdb", "dump-openmetrics"]).arg(&tsdb).output();
    let dumped = dumped.expect("promtool runs");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let dump = dir.join("dump.txt");
    std::fs::write(&dump, &dumped.stdout).expect("written");
    let from_dump = dir.join("dump");
    let output = backtest(&[
        "--rules",
        config,
        "--openmetrics",
        dump.to_str().expect("UTF-8"),
        "--out",
        from_dump.to_str().expect("UTF-8"),
        "--fail-on-anomaly",
    ]);
    let table = stdout(&output, 3);
    assert!(table.contains("recommended: false_alarms: 1 per "), "{table}");
    let got = scores(&from_dump);
    assert!(got == live, "by the dump:\n{}", differences(&got, &live));
}

/// A server that has a minute's samples for a month and refuses what is too much, as Prometheus does.
#[test]
fn pages_are_small_enough_and_are_halved_when_they_are_too_much() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let server = Server::start(move |request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let field = |name: &str| {
            let start = format!("{name}=");
            form.split('&').find_map(|part| part.strip_prefix(&start)).and_then(|v| v.parse::<f64>().ok())
        };
        let reply = |status, body: String| Reply { status, headers: Vec::new(), body: body.into_bytes() };
        if !request.target.contains("query_range") {
            return reply(404, "no such page".into());
        }
        let (Some(start), Some(end), Some(step)) = (field("start"), field("end"), field("step")) else {
            return reply(400, "{\"status\":\"error\",\"error\":\"no range\"}".into());
        };
        let points = ((end - start) / step) as i64 + 1;
        log.lock().expect("not poisoned").push(points);
        if points > 3_000 {
            let error = "query processing would load too many samples into memory in query execution";
            return reply(422, format!("{{\"status\":\"error\",\"error\":{error:?}}}"));
        }
        let values: Vec<String> =
            (0..points).map(|k| format!("[{},\"{}\"]", start + k as f64 * step, (k * 7919) % 13)).collect();
        let series = format!("{{\"metric\":{{\"job\":\"x\"}},\"values\":[{}]}}", values.join(","));
        reply(
            200,
            format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{series}]}}}}"
            ),
        )
    });
    let url = server.url("/prom");
    let arguments = ["--query", "sum(rate(x[5m]))", "--start", "30d", "--end", "1700000000"];
    let arguments =
        [&arguments[..], &["--prometheus", &url, "--metric", "load", "--format", "json"]].concat();
    let report: Value = serde_json::from_str(&stdout(&backtest(&arguments), 0)).expect("JSON");
    assert_eq!(report["series"][0]["series"], "load{job=\"x\"}");
    assert_eq!(report["totals"]["samples"], 30 * 24 * 60 + 1);
    let asked = asked.lock().expect("not poisoned");
    assert_eq!(asked[0], 11_000, "as many as Prometheus allows");
    let held: i64 = asked.iter().filter(|points| **points <= 3_000).sum();
    assert_eq!(held, 30 * 24 * 60 + 1, "no point twice: {asked:?}");
}
