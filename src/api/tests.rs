//! The routes over a real socket.

mod doors;
mod load;

use super::current::tests::{batch, output};
use super::*;
use crate::engine::OutputSink;
use crate::engine::testing::{rule, rules};
use crate::ingest::{Receiver, ReceiverLimits};
use crate::labels::NAME;
use crate::rules::As;
use crate::wire::encode::Encoder;
use crate::wire::frame::compress_snappy;
use crate::wire::{MetricKind, Sample, Version};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

struct Fake;

impl Control for Fake {
    fn reload(&self) -> Result<(), Vec<String>> {
        Err(vec!["line 3: first".into(), "line 7: second".into()])
    }
    fn restart_needed(&self) -> Vec<&'static str> {
        vec!["server.listen"]
    }
    fn notes(&self) -> Vec<String> {
        vec!["<b>a note</b>".into()]
    }
    fn metrics(&self) -> Result<String, std::fmt::Error> {
        Ok("# HELP up Up.\n# TYPE up counter\nup_total 1\n# EOF\n".into())
    }
}

struct Server {
    address: SocketAddr,
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn server(limits: ServerLimits, receiver: ReceiverLimits) -> Server {
    server_behind(Doors::default(), limits, receiver).await
}

async fn server_behind(doors: Doors, limits: ServerLimits, receiver: ReceiverLimits) -> Server {
    let current = Arc::new(Current::new(10));
    let rules = Arc::new(rules(vec![rule("r", "up|load", vec![As::Value])]));
    let engine = Arc::new(Engine::new(rules, 0, vec![current.clone()]));
    serving(engine, Some(current), doors, limits, receiver).await
}

async fn serving(
    engine: Arc<Engine>,
    current: Option<Arc<Current>>,
    doors: Doors,
    limits: ServerLimits,
    receiver: ReceiverLimits,
) -> Server {
    let api = Arc::new(Api {
        receiver: Arc::new(Receiver::new(engine.clone(), receiver).expect("threads start")),
        engine,
        emitter: Arc::new(Emitter::new(Vec::new(), None).expect("no targets")),
        recent: Arc::new(Recent::new(10)),
        current,
        control: Arc::new(Fake),
        keeper: None,
        doors: Arc::new(doors),
        ready: Arc::new(AtomicBool::new(true)),
        started: now(),
        version: "0.0.0",
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listener, api.clone(), limits, stopped));
    Server { address, api, stop, task }
}

impl Server {
    /// Status, head and body of the answer.
    async fn ask(&self, head: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let head =
            format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("writes");
        stream.write_all(body).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, head.to_lowercase(), body.to_string())
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1"), b"").await
    }

    async fn data(&self, path: &str) -> Value {
        let (status, head, body) = self.get(path).await;
        assert!(status == 200 && head.contains("content-type: application/json"), "{path}: {head}\n{body}");
        let mut value: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(value["status"], "success");
        value["data"].take()
    }
}

async fn default_server() -> Server {
    server(ServerLimits::default(), ReceiverLimits::default()).await
}

fn request(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::new(Version::V2);
    let samples = [Sample { timestamp: now().0, value: 1.0 }];
    encoder.series(labels.iter().copied(), MetricKind::Gauge, &samples);
    compress_snappy(&encoder.finish()).expect("compresses")
}

const WRITE: &str = "POST /api/v1/write HTTP/1.1\r\ncontent-encoding: snappy\r\n\
                     content-type: application/x-protobuf; proto=io.prometheus.write.v2.Request";

#[tokio::test]
async fn paths_and_methods() {
    let server = default_server().await;
    for (request, status, words) in [
        ("GET /-/healthy", 200, "healthy"),
        ("GET /health", 200, "healthy"),
        ("GET /-/ready", 200, "ready"),
        ("HEAD /-/ready", 200, ""),
        ("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0", 200, "# EOF"),
        ("GET /metrics", 200, "# TYPE up_total counter\nup_total 1\n"),
        ("GET /metrics/anomalies", 200, ""),
        ("GET /api/v1/status", 200, r#""version":"0.0.0""#),
        ("GET /api/v1/status", 200, r#""restart_needed":["server.listen"]"#),
        ("GET /api/v1/rules", 200, r#""name":"r""#),
        ("GET /api/v1/alerts", 404, r#""status":"error""#),
        ("GET /nowhere", 404, r#""errorType":"not_found""#),
        ("GET /api/v1/write", 405, "not allowed"),
        ("GET /api/v1/write?get_vm_proto_version=1", 200, "1"),
        ("GET /-/reload", 405, "not allowed"),
        ("POST /metrics", 405, "not allowed"),
        ("POST /-/reload", 500, r#""problems":["line 3: first","line 7: second"]"#),
        ("GET /api/v1/anomalies?limit=x", 400, "limit"),
        ("GET /api/v1/series?match[]=%7B", 400, "match[]"),
        (&*format!("GET /api/v1/series?match[]=%7Ba=~%22{}%22%7D", "x".repeat(8200)), 400, "8192 bytes"),
        (&*format!("GET /api/v1/series?{}", "match[]=%7Ba=~%22x%22%7D&".repeat(17)), 400, "found 136 and 17"),
    ] {
        let version = if request.contains("HTTP/1.1") { "" } else { " HTTP/1.1" };
        let (got, head, body) = server.ask(&format!("{request}{version}"), b"").await;
        assert!(got == status && body.contains(words), "{request}: {head}\n{body}");
        assert_eq!(head.contains("\r\nallow: "), status == 405, "{request}");
    }
    server.api.ready.store(false, Ordering::Release);
    assert_eq!(server.get("/-/ready").await.0, 503);
    assert_eq!(server.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn what_is_written_is_explained_by_series() {
    let server = default_server().await;
    let (status, head, body) = server.ask(WRITE, &request(&[(NAME, "up"), ("job", "x")])).await;
    assert!(
        status == 204 && head.contains("x-prometheus-remote-write-samples-written: 1") && body.is_empty()
    );
    assert_eq!(server.ask(WRITE, &request(&[(NAME, "dull")])).await.0, 204);
    let (status, _, body) = server.ask(WRITE, b"\xff").await;
    assert!(status == 400 && body.contains("snappy"), "{body}");

    let all = server.data("/api/v1/series").await;
    let reason = all["series"][0]["reason"].as_str().expect("text");
    assert!(reason.starts_with("warming ") && reason.ends_with("/60"), "{all}");
    assert_eq!(all["series"][0]["labels"]["job"], "x");
    assert_eq!(all["unmatched_metrics"][0]["metric"], "dull");
    for (query, state) in [
        ("up{job=\"x\"}", "warming"),
        ("up{job=\"y\"}", "no_sample"),
        ("dull", "unmatched"),
        ("load_bucket{le=\"1\"}", "unmatched"),
    ] {
        let query: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let found = server.data(&format!("/api/v1/series?match[]={query}")).await;
        assert_eq!(found["series"][0]["state"], state, "{found}");
    }
}

#[tokio::test]
async fn anomalies_are_shown_without_markup() {
    let server = default_server().await;
    let hostile = output(&[(NAME, "up"), ("job", "<script>")], now().0, 3.0);
    server.api.recent.take(&batch(vec![hostile]));
    let data = server.data("/api/v1/anomalies?limit=5").await;
    assert!(data[0]["score"] == 3.0 && data[0]["labels"]["job"] == "<script>", "{data}");
    let (status, head, page) = server.get("/").await;
    assert!(status == 200 && head.contains("text/html") && head.contains("nosniff"));
    assert!(page.contains("&lt;script&gt;") && page.contains("&lt;b&gt;a note") && !page.contains("<script"));
}

#[tokio::test]
async fn admin_routes_answer_while_the_receiver_is_full() {
    let receiver = ReceiverLimits {
        in_flight: 100,
        waiting: 0,
        patience: Duration::from_millis(1),
        ..ReceiverLimits::default()
    };
    let server = server(ServerLimits::default(), receiver).await;
    let _held = server.api.receiver.admission().working.reserve(100).await.expect("free");
    let (status, head, _) = server.ask(WRITE, &request(&[(NAME, "up")])).await;
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    assert_eq!(server.get("/-/healthy").await.0, 200);
    assert_eq!(server.get("/metrics").await.0, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_read_and_answered_with_400() {
    let receiver = ReceiverLimits { compressed: 1000, ..ReceiverLimits::default() };
    let server = server(ServerLimits::default(), receiver).await;
    let (status, _, body) = server.ask(WRITE, &vec![0; 3_000_000]).await;
    assert!(status == 400 && body.contains("1000"), "{body}");
}

#[tokio::test]
async fn open_windows_are_named_by_observed_time() {
    let server = default_server().await;
    let status = server.data("/api/v1/status").await;
    assert_eq!((&status["observed"], &status["open_windows"]), (&Value::Null, &serde_json::json!([])));
    let when = crate::rules::window::When::Once(Millis(0), Millis(now().0 + 3_600_000));
    let window = crate::rules::Window { when, selectors: Vec::new(), comment: Some("moving house".into()) };
    let all = vec![Arc::new(window)];
    let [mut one, mut two] = ["one", "two"].map(|name| rule(name, "up", vec![As::Value]));
    one.ignore = crate::rules::Windows::new(all.clone());
    two.ignore = crate::rules::Windows::new(all);
    server.api.engine.apply(crate::record::Record::Rules(Arc::new(rules(vec![one, two])))).expect("rules");
    assert_eq!(server.ask(WRITE, &request(&[(NAME, "up")])).await.0, 204);
    let status = server.data("/api/v1/status").await;
    assert_eq!(status["open_windows"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(status["open_windows"][0]["comment"], "moving house");
    assert_eq!(status["open_windows"][0]["rules"], serde_json::json!(["one", "two"]));
    let listed = server.data("/api/v1/rules").await;
    assert_eq!(listed["rules"][0]["ignore"][0]["comment"], "moving house");
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_answered_before_the_body() {
    let receiver = ReceiverLimits { compressed: 1000, ..ReceiverLimits::default() };
    let server = server(ServerLimits::default(), receiver).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head = format!("{WRITE}\r\nhost: x\r\ncontent-length: 5000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 1024];
    let n = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..n]).to_lowercase();
    assert!(answer.contains(" 400 ") && answer.contains("connection: close"), "{answer}");
    // Who sends the body all the same is listened to, and then the connection ends.
    stream.write_all(&[0; 5000]).await.expect("writes");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an orderly end");
}

#[tokio::test]
async fn announced_bodies_that_do_not_come_take_no_budget_and_are_ended() {
    let receiver = ReceiverLimits {
        in_flight: 64 << 20,
        waiting: 0,
        body_pause: Duration::from_millis(300),
        ..ReceiverLimits::default()
    };
    let server = server(ServerLimits::default(), receiver).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        let head = format!("{WRITE}\r\nhost: x\r\ncontent-length: 33554432\r\n\r\nxx");
        stream.write_all(head.as_bytes()).await.expect("writes");
        idle.push(stream);
    }
    assert_eq!(server.ask(WRITE, &request(&[(NAME, "up")])).await.0, 204);
    for mut stream in idle {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer and the end");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(server.api.receiver.admission().reading.in_use(), 0);
}

#[tokio::test]
async fn slow_clients_and_too_many_connections_are_cut_off() {
    let limits =
        ServerLimits { connections: 1, header_timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let server = server(limits, ReceiverLimits::default()).await;
    let mut slow = TcpStream::connect(server.address).await.expect("connects");
    slow.write_all(b"GET /-/healthy HT").await.expect("writes");
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    // One that brings nothing goes for another one.
    let mut idle = TcpStream::connect(server.address).await.expect("connects");
    let mut second = TcpStream::connect(server.address).await.expect("connects");
    second.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let mut start = [0; 12];
    second.read_exact(&mut start).await.expect("an answer");
    let _ = idle.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_listener() {
    let server = default_server().await;
    let mut idle = TcpStream::connect(server.address).await.expect("connects");
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    server.stop.send_replace(true);
    server.task.await.expect("ends");
    assert!(TcpStream::connect(server.address).await.is_err());
}
