//! Overload over a real socket.

use super::*;
use crate::engine::OutputBatch;

/// A sink that holds up whoever brings it something.
struct Stuck(AtomicBool);

impl OutputSink for Stuck {
    fn take(&self, _: &Arc<OutputBatch>) {
        while self.0.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn wants_all(&self) -> bool {
        true
    }
}

/// `up` at this time.
fn up(at: i64) -> Vec<u8> {
    let mut encoder = Encoder::new(Version::V2);
    let labels = [(NAME, "up"), ("job", "x")];
    encoder.series(labels.into_iter(), MetricKind::Gauge, &[Sample { timestamp: at, value: 1.0 }]);
    compress_snappy(&encoder.finish()).expect("compresses")
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn a_stuck_data_path_refuses_early_answers_admins_and_recovers() {
    let stuck = Arc::new(Stuck(AtomicBool::new(true)));
    let mut rule = rule("r", "up", vec![As::Value]);
    rule.params.min_samples = 2;
    let engine = Arc::new(Engine::new(Arc::new(rules(vec![rule])), 1, vec![stuck.clone()]));
    let limits = ReceiverLimits {
        threads: 1,
        queue: 3,
        queue_age: Duration::from_millis(50),
        ..ReceiverLimits::default()
    };
    let server = Arc::new(serving(engine, None, Doors::default(), ServerLimits::default(), limits).await);
    let start = now().0 - 60_000;
    let mut sent = Vec::new();
    for n in 0..6i64 {
        let asking = server.clone();
        // Three are scored at most before the queue is full; one waits in the sink.
        sent.push(tokio::spawn(async move { asking.ask(WRITE, &up(start + n)).await.0 }));
    }
    let receiver = &server.api.receiver;
    until("a full queue that grows old", || receiver.queue_age() > limits.queue_age).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    // Answered though the body never comes.
    let head = format!("{WRITE}\r\nhost: x\r\ncontent-length: 5000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 2048];
    let n = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..n]).to_lowercase();
    assert!(
        answer.contains(" 503 ") && answer.contains("retry-after: ") && answer.contains("too old"),
        "{answer}"
    );
    for path in
        ["/-/healthy", "/-/ready", "/metrics", "/api/v1/status", "/api/v1/series", "/api/v1/rules", "/"]
    {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    assert_eq!(server.ask("POST /-/reload HTTP/1.1", b"").await.0, 500, "the fake always refuses");
    let by_age = receiver.metrics().overloads().iter().find(|(why, _)| *why == "queue_age").map(|(_, n)| *n);
    assert!(by_age.is_some_and(|n| n >= 1), "{by_age:?}");

    stuck.0.store(false, Ordering::Release);
    let mut statuses = Vec::new();
    for answer in sent {
        statuses.push(answer.await.expect("an answer"));
    }
    assert!(statuses.iter().all(|status| [204, 503].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 204).count() >= 2, "{statuses:?}");
    until("an empty queue", || receiver.queued() == 0).await;
    assert_eq!(server.ask(WRITE, &up(now().0)).await.0, 204);
    assert_eq!((receiver.admission().reading.in_use(), receiver.admission().working.in_use()), (0, 0));
}

#[tokio::test]
async fn who_meets_a_limit_is_told_and_counted() {
    let receiver = ReceiverLimits { decompressed: 5000, ..ReceiverLimits::default() };
    let server = server(ServerLimits::default(), receiver).await;
    let long = vec![b'x'; 6000];
    let bomb = compress_snappy(&long).expect("compresses");
    let (status, _, body) = server.ask(WRITE, &bomb).await;
    assert!(status == 400 && body.contains("6000") && body.contains("5000"), "{body}");
    let name = "x".repeat(4097);
    let (status, _, body) = server.ask(WRITE, &request(&[(NAME, "up"), ("job", name.as_str())])).await;
    assert!(status == 400 && body.contains("4096"), "{body}");
    let metrics = server.api.receiver.metrics();
    assert_eq!(metrics.limits()["decompressed_bytes"], 1);
    assert_eq!(metrics.defects().values().sum::<u64>(), 1, "{:?}", metrics.defects());

    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    stream.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n").await.expect("writes");
    let _ = stream.read_to_string(&mut answer).await;
    let endings = || server.api.doors.connections().endings();
    let count = |name| endings().into_iter().find(|(have, _)| *have == name).map(|(_, n)| n);
    until("both are counted", || count("head_too_large") == Some(1) && count("not_http") == Some(1)).await;
}
