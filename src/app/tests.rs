//! The whole application in one process.

use super::*;
use crate::api::Control;
use crate::api::exposition::lint::complaints;
use crate::config::Config;
use crate::wire::encode::Encoder;
use crate::wire::frame::compress_snappy;
use crate::wire::{MetricKind, Sample, Version};
use parking_lot::Mutex;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

fn config(rule_names: &[&str]) -> Config {
    let rules: Vec<String> =
        rule_names.iter().map(|name| format!("{{name: {name}, match: [up], as: value}}")).collect();
    Config::parse("rules.yaml", &format!("rules: [{}]\n", rules.join(", "))).expect("valid")
}

/// A loader that gives each of these once.
fn loader(results: Vec<Result<Config, Vec<String>>>) -> Option<Loader> {
    let results = Mutex::new(results.into_iter());
    Some(Box::new(move || results.lock().next().unwrap_or_else(|| Err(vec!["no more".into()]))))
}

async fn ask(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let version = if head.contains("HTTP/1.1") { "" } else { " HTTP/1.1" };
    let head =
        format!("{head}{version}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    (answer.get(9..12).and_then(|s| s.parse().ok()).expect("a status"), answer)
}

const UP: [(&str, &str); 2] = [("__name__", "up"), ("job", "x")];

fn body() -> Vec<u8> {
    body_at(now().0)
}

fn body_at(timestamp: i64) -> Vec<u8> {
    let mut encoder = Encoder::new(Version::V1);
    encoder.series(UP.into_iter(), MetricKind::Gauge, &[Sample { timestamp, value: 1.0 }]);
    compress_snappy(&encoder.finish()).expect("compresses")
}

#[test]
fn a_bad_reload_changes_nothing_and_a_good_one_everything() {
    let options = Options {
        lanes: 0,
        loader: loader(vec![Err(vec!["first".into(), "second".into()]), Ok(config(&["b", "c"]))]),
        ..Options::default()
    };
    let app = App::build(config(&["a"]), options).expect("builds");
    let names = || app.engine().rules().rules.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    assert_eq!(app.reloader().reload(), Err(vec!["first".into(), "second".into()]));
    assert_eq!(names(), ["a"]);
    assert!(app.reloader().metrics().expect("text").contains("oddity_config_last_reload_successful 0"));
    assert_eq!(app.reloader().reload(), Ok(()));
    assert_eq!(names(), ["b", "c"]);
    let text = app.reloader().metrics().expect("text");
    assert!(
        text.contains("oddity_config_last_reload_successful 1")
            && text.contains("oddity_config_reloads_total 2")
    );
    assert_eq!(app.engine().stats().generation, 2);
}

#[test]
fn what_needs_a_restart_is_told_until_it_is_undone() {
    let parse = |text: &str| {
        Config::parse("rules.yaml", &format!("rules: [{{name: a, match: up}}]\n{text}")).expect("valid")
    };
    let changed = "server: {listen: ':1', anomalies_endpoint: true}\n\
                   limits: {max_body_bytes: 1048576, max_in_flight_bytes: 67108864}\n";
    for (listens_elsewhere, anomalies_endpoint) in [(false, false), (true, true)] {
        let options = Options {
            lanes: 0,
            listens_elsewhere,
            anomalies_endpoint,
            loader: loader(vec![Ok(parse(changed)), Err(vec!["bad".into()]), Ok(parse(""))]),
            ..Options::default()
        };
        let reloader = App::build(parse(""), options).expect("builds").reloader();
        assert!(reloader.restart_needed().is_empty());
        let limits = ["limits.max_body_bytes", "limits.max_in_flight_bytes"];
        let expected = match listens_elsewhere {
            true => limits.to_vec(),
            false => [&["server.listen", "server.anomalies_endpoint"], limits.as_slice()].concat(),
        };
        assert_eq!(reloader.reload(), Ok(()));
        assert_eq!(reloader.restart_needed(), expected);
        assert!(reloader.notes().iter().any(|note| note.starts_with("limits.max_body_bytes has changed")));
        // A file that is refused changes nothing, this list neither.
        assert!(reloader.reload().is_err());
        assert_eq!(reloader.restart_needed(), expected);
        assert_eq!(reloader.reload(), Ok(()));
        assert!(reloader.restart_needed().is_empty());
    }
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let app = App::build(config(&["a"]), Options { lanes: 0, ..Options::default() }).expect("builds");
    assert!(app.reloader().reload().expect_err("refused")[0].contains("no configuration file"));
}

#[tokio::test]
async fn it_serves_until_told_to_stop() {
    let app = App::build(config(&["a"]), Options { lanes: 2, ..Options::default() }).expect("builds");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(vec![listener], async move { drop(stopped.await) }));

    let write = "POST /api/v1/write";
    assert_eq!(ask(address, write, &body()).await.0, 204);
    assert_eq!(ask(address, write, b"\xff").await.0, 400);
    let (status, openmetrics) =
        ask(address, "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text", b"").await;
    assert!(status == 200 && openmetrics.contains("application/openmetrics-text; version=1.0.0"));
    assert!(openmetrics.ends_with("# EOF\n") && openmetrics.contains("# TYPE oddity_flags counter\n"));
    let (status, metrics) = ask(address, "GET /metrics", b"").await;
    assert!(status == 200 && metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    let (_, page) = metrics.split_once("\r\n\r\n").expect("a body");
    assert_eq!(complaints(page), [""; 0]);
    for line in [
        "oddity_samples_received_total 1",
        "oddity_samples_handled_total{reason=\"warming\"} 1",
        "oddity_samples_handled_total{reason=\"duplicate\"} 0",
        "oddity_samples_scored_total 0",
        "oddity_flags_total{rule=\"a\"} 0",
        "oddity_series{state=\"kept\"} 1",
        "oddity_requests_total{protocol=\"1.0\",code=\"204\"} 1",
        "oddity_requests_total{protocol=\"1.0\",code=\"400\"} 1",
        "oddity_request_duration_seconds_bucket{le=\"+Inf\"} 2",
        "oddity_request_duration_seconds_count 2",
        "# TYPE oddity_remote_write_samples_total counter",
        "# TYPE oddity_remote_write_pending_samples gauge",
    ] {
        assert!(
            metrics.lines().any(|have| have.strip_suffix(".0").unwrap_or(have) == line),
            "{line}: {metrics}"
        );
    }
    for name in
        ["oddity_memory_bytes{part=\"detectors\"}", "oddity_build_info{version=", "oddity_in_flight_bytes{"]
    {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }

    assert_eq!(ask(address, "GET /-/ready", b"").await.0, 200);
    drop(stop);
    assert_eq!(running.await.expect("ends"), []);
    assert!(TcpStream::connect(address).await.is_err());
}

/// Serves with this configuration while `work` asks, then stops.
async fn serving(config: Config, work: impl AsyncFn(SocketAddr, Arc<Engine>)) {
    let app = App::build(config, Options { lanes: 0, ..Options::default() }).expect("builds");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, engine) = (listener.local_addr().expect("bound"), app.engine());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(vec![listener], async move { drop(stopped.await) }));
    work(address, engine).await;
    drop(stop);
    running.await.expect("ends");
}

#[tokio::test]
async fn what_was_missed_while_it_was_down_is_read_at_its_next_start() {
    use crate::history::mock::{CHUNKS, Mock};
    use crate::wire::{read, xor};
    let start = now().0 - 1_200_000;
    let all: Vec<Sample> =
        (0..80).map(|n| Sample { timestamp: start + n * 15_000, value: (n % 7) as f64 }).collect();
    let (first, last) = (all[0].timestamp, all[79].timestamp);
    let stream = read::testing::series(&UP, 1, &[(first, last, xor::testing::chunk(&all))]);
    let mock = Mock::start(move |_| (200, CHUNKS, stream.clone())).await;
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("rules.yaml").display().to_string();
    let config = || {
        let text = format!(
            "rules: [{{name: a, match: up, as: value}}]\nstate: {{dir: state}}\nremote_read: [{{url: \"{}\"}}]\n",
            mock.config.http.url
        );
        Config::parse(&file, &text).expect("valid")
    };
    let write = "POST /api/v1/write";
    serving(config(), async |address, _| {
        for sample in &all[..10] {
            assert_eq!(ask(address, write, &body_at(sample.timestamp)).await.0, 204);
        }
    })
    .await;
    assert!(mock.asked.lock().is_empty(), "nothing was missed yet");
    serving(config(), async |address, engine| {
        let late = body_at(last + 5_000);
        let (status, answer) = ask(address, write, &late).await;
        assert!(status == 503 && answer.contains("retry-after: "), "{answer}");
        while ask(address, write, &late).await.0 == 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let metrics = ask(address, "GET /metrics", b"").await.1;
        assert!(metrics.contains("oddity_gap_fills_total{result=\"filled\"} 1"), "{metrics}");
        assert!(metrics.contains("oddity_gap_fill_samples_total 70"), "{metrics}");
        // Seventy and ten, and the one that was held.
        let signals = engine.signals(&[], 10);
        assert_eq!((signals.len(), signals[0].newest), (1, Millis(last + 5_000)));
    })
    .await;
}

#[test]
fn a_sweep_comes_sooner_where_the_past_comes_in_fast() {
    let (none, at) = (None, |minutes: i64| Some(Millis(minutes * 60_000)));
    assert!(!is_far(none, none, Span::HOUR) && is_far(none, at(1), Span::HOUR));
    assert!(!is_far(at(0), at(3), Span::HOUR) && is_far(at(0), at(4), Span::HOUR));
    assert!(!is_far(at(0), at(89), Span::DAY) && is_far(at(0), at(90), Span::DAY));
    assert!(!is_far(at(0), none, Span::MINUTE) && is_far(at(0), at(1), Span::MINUTE));
}
