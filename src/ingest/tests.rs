//! Every answer of the receiver, and what was kept.

use super::*;
use crate::engine::Engine;
use crate::engine::testing::{rule, rules};
use crate::rules::As;
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::frame::compress_snappy;
use crate::wire::{MetricKind, Sample, Version};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const NOW: Millis = Millis(1_700_000_000_000);
const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn engine() -> Arc<Engine> {
    Arc::new(Engine::new(Arc::new(rules(vec![rule("r", "up|load", vec![As::Value])])), 0, Vec::new()))
}

fn receiver(engine: Arc<Engine>) -> Receiver {
    let limits = ReceiverLimits {
        threads: 2,
        decompressed: 1 << 20,
        compressed: 1 << 20,
        ..ReceiverLimits::default()
    };
    Receiver::new(engine, limits).expect("threads start")
}

fn head(content_type: &str, encoding: &str) -> RequestHead {
    RequestHead { content_type: Some(content_type.into()), content_encoding: Some(encoding.into()) }
}

fn message(version: Version, series: &[&[(&str, &str)]], at: Millis) -> Vec<u8> {
    let mut encoder = Encoder::new(version);
    for labels in series {
        let samples = [Sample { timestamp: at.0, value: 1.0 }];
        encoder.series(labels.iter().copied(), MetricKind::Gauge, &samples);
    }
    encoder.finish()
}

fn snappy(message: &[u8]) -> Bytes {
    compress_snappy(message).expect("compresses").into()
}

const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "x")];
const OTHER: &[(&str, &str)] = &[("__name__", "nobody_asked"), ("job", "x")];
const NAMELESS: &[(&str, &str)] = &[("job", "x")];
const TWICE: &[(&str, &str)] = &[("__name__", "up"), ("job", "x"), ("job", "y")];

fn written(reply: &Reply) -> Option<[&str; 3]> {
    let get = |name: &str| {
        let name = format!("x-prometheus-remote-write-{name}-written");
        reply.headers.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_str())
    };
    Some([get("samples")?, get("histograms")?, get("exemplars")?])
}

/// Type, encoding, body; status, what 2.0 says was written, words of the message, samples counted.
type Row<'a> = (&'a str, &'a str, Bytes, u16, Option<&'a str>, &'a [&'a str], u64);

#[tokio::test]
async fn every_documented_answer() {
    let v1 = |series: &[&[(&str, &str)]]| snappy(&message(Version::V1, series, NOW));
    let v2 = |series: &[&[(&str, &str)]]| snappy(&message(Version::V2, series, NOW));
    let zstd = zstd::encode_all(&message(Version::V1, &[UP], NOW)[..], 3).expect("compresses");
    let bomb = snappy(&vec![0; (1 << 20) + 1]);
    let framed = Bytes::from_static(b"\xff\x06\x00\x00sNaPpY");
    let table: Vec<Row> = vec![
        (V1, "snappy", v1(&[UP, OTHER]), 204, None, &[], 2),
        (V2, "snappy", v2(&[UP, OTHER]), 204, Some("2"), &[], 2),
        (V1, "zstd", zstd.clone().into(), 204, None, &[], 1),
        ("", "", v1(&[UP]), 204, None, &[], 1),
        (V1, "snappy", snappy(b""), 204, None, &[], 0),
        (V2, "snappy", snappy(b""), 204, Some("0"), &[], 0),
        // The valid rest is kept.
        (
            V1,
            "snappy",
            v1(&[UP, NAMELESS, TWICE]),
            400,
            None,
            &["2 malformed", "__name__", "twice", "1 samples"],
            3,
        ),
        (V2, "snappy", v2(&[UP, NAMELESS]), 400, Some("1"), &["1 malformed", "__name__"], 2),
        // Nothing is kept.
        (V1, "snappy", snappy(b"\x0a\xff"), 400, None, &["protobuf"], 0),
        (V2, "snappy", snappy(b"\x2a\xff"), 400, Some("0"), &["protobuf"], 0),
        (V1, "snappy", framed, 400, None, &["snappy"], 0),
        (V1, "zstd", Bytes::from_static(b"\x28\xb5\x2f\xfd\xff"), 400, None, &["zstd"], 0),
        // A vmagent that falls back from zstd may label a body wrongly.
        (V1, "zstd", v1(&[UP]), 204, None, &[], 1),
        (V1, "snappy", zstd.clone().into(), 204, None, &[], 1),
        (V1, "snappy", v2(&[UP]), 400, None, &["2.0"], 0),
        (V2, "snappy", v1(&[UP]), 400, Some("0"), &["1.0"], 0),
        (V1, "snappy", bomb, 400, None, &["1048577", "1048576"], 0),
        (V2, "snappy", Bytes::from(vec![0; (1 << 20) + 1]), 400, Some("0"), &["1048577", "1048576"], 0),
        ("text/plain", "snappy", v1(&[UP]), 415, None, &["text/plain", "application/x-protobuf"], 0),
        (
            "application/x-protobuf;proto=x",
            "snappy",
            v1(&[UP]),
            415,
            None,
            &["io.prometheus.write.v2.Request"],
            0,
        ),
        (V1, "gzip", v1(&[UP]), 415, None, &["gzip", "snappy", "zstd"], 0),
        (V2, "gzip", v2(&[UP]), 415, Some("0"), &["gzip"], 0),
    ];
    for (i, (content_type, encoding, body, status, samples, words, received)) in table.into_iter().enumerate()
    {
        let receiver = receiver(engine());
        let reply = receiver.receive(&head(content_type, encoding), body, NOW).await;
        let shown = format!("row {i}: {content_type} {encoding}: {reply:?}");
        assert_eq!(reply.status, status, "{shown}");
        assert_eq!(written(&reply), samples.map(|samples| [samples, "0", "0"]), "{shown}");
        assert!(words.iter().all(|word| reply.message.contains(word)), "{shown}");
        assert_eq!(reply.message.is_empty(), status == 204, "{shown}");
        assert_eq!(receiver.metrics().received.load(Relaxed), received, "{shown}");
        let handled: u64 = receiver.metrics().handled().values().sum();
        assert_eq!(handled, received, "every sample has a reason; {shown}");
        assert_eq!(receiver.metrics().requests().values().sum::<u64>(), 1, "{shown}");
        assert_eq!(receiver.admission().working.in_use(), 0, "{shown}");
    }
}

#[tokio::test]
async fn dropped_samples_count_as_written() {
    let receiver = receiver(engine());
    for _ in 0..2 {
        let body = snappy(&message(Version::V2, &[UP], NOW));
        let reply = receiver.receive(&head(V2, "snappy"), body, NOW).await;
        assert_eq!((reply.status, written(&reply)), (204, Some(["1", "0", "0"])), "also the duplicate");
    }
    let ahead = snappy(&message(Version::V2, &[UP], NOW.plus(3_600_000)));
    let reply = receiver.receive(&head(V2, "snappy"), ahead, NOW).await;
    assert_eq!((reply.status, written(&reply)), (204, Some(["1", "0", "0"])));
    let handled = receiver.metrics().handled();
    assert_eq!((handled["duplicate"], handled["too_far_ahead"]), (1, 1), "{handled:?}");
}

#[tokio::test]
async fn overload_is_503_with_a_time_to_come_back() {
    let limits = ReceiverLimits {
        in_flight: 1000,
        waiting: 0,
        patience: Duration::from_millis(1),
        threads: 1,
        ..ReceiverLimits::default()
    };
    let receiver = Receiver::new(engine(), limits).expect("threads start");
    let held = receiver.admission().working.reserve(1000).await.expect("free");
    for (content_type, version) in [(V1, Version::V1), (V2, Version::V2)] {
        let body = snappy(&message(version, &[UP], NOW));
        let reply = receiver.receive(&head(content_type, "snappy"), body, NOW).await;
        let after =
            reply.headers.iter().find(|(name, _)| *name == "retry-after").map(|(_, v)| v.parse::<u64>());
        assert!(reply.status == 503 && matches!(after, Some(Ok(1..=4))), "{reply:?}");
        assert_eq!(written(&reply).is_some(), version == Version::V2);
    }
    assert_eq!(receiver.metrics().overloads().iter().map(|(_, n)| n).sum::<u64>(), 2);
    drop(held);

    let reading = receiver.admit(&head(V1, "snappy"), None).await.expect("a step, which is all there is");
    assert_eq!(receiver.admit(&head(V1, "snappy"), Some(10)).await.expect_err("none free").status, 503);
    drop(reading);
    let too_long = receiver.admit(&head(V1, "snappy"), Some(1 << 40)).await.expect_err("too long");
    assert_eq!(too_long.status, 400);
    assert!(receiver.admit(&head(V1, "snappy"), Some(10)).await.is_ok());
}

#[tokio::test]
async fn one_replica_is_followed_and_the_other_takes_over() {
    let receiver = receiver(engine());
    assert_eq!(receiver.position(), None);
    for (replica, seconds, reason) in [
        ("a", 0, "warming"),
        ("b", 7, "replica"),
        ("a", 15, "warming"),
        ("b", 22, "replica"),
        ("b", 46, "warming"), // a has been silent for 31 s
        ("a", 50, "replica"),
    ] {
        let at = NOW.plus(seconds * 1000);
        let labels: &[(&str, &str)] =
            &[("__name__", "up"), ("__replica__", replica), ("cluster", "c"), ("job", "x")];
        for (content_type, version) in [(V1, Version::V1), (V2, Version::V2)] {
            let before = receiver.metrics().handled()[reason];
            let at = at.plus(i64::from(version == Version::V2));
            let body = snappy(&message(version, &[labels], at));
            assert_eq!(receiver.receive(&head(content_type, "snappy"), body, at).await.status, 204);
            let handled = receiver.metrics().handled();
            assert_eq!(handled[reason], before + 1, "{replica} at {seconds}: {handled:?}");
        }
    }
    assert_eq!(receiver.metrics().elections.load(Relaxed), 2);
    assert_eq!(receiver.ha().elected()[0].1, "b");
    assert!(receiver.position().is_some());
}

#[tokio::test]
async fn bodies_after_a_gap_wait_until_it_is_filled() {
    let engine = engine();
    let (gate, mut holes) = Gate::new();
    let gate = Arc::new(gate);
    let receiver = Receiver::gated(
        engine.clone(),
        ReceiverLimits { threads: 2, ..ReceiverLimits::default() },
        Some(gate.clone()),
    )
    .expect("threads start");
    let later = |minutes: i64| NOW.plus(minutes * 60_000);
    let send = async |cluster: &str, replica: &str, minutes: i64| {
        let labels = [("__name__", "up"), ("cluster", cluster), ("__replica__", replica)];
        let body = snappy(&message(Version::V2, &[&labels], later(minutes)));
        receiver.receive(&head(V2, "snappy"), body, later(minutes)).await
    };
    assert_eq!(send("c", "a", 0).await.status, 204);
    assert_eq!(send("c", "a", 9).await.status, 204, "nobody watches yet");
    gate.watch(true, &engine.sources());
    let reply = send("c", "a", 20).await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.message.contains("try again") && reply.headers.iter().any(|(name, _)| *name == "retry-after")
    );
    let hole = holes.recv().await.expect("a gap");
    // Observed time came a minute further with the second body, as it does after an outage.
    assert_eq!((hole.group.as_str(), hole.from, hole.to), ("c", later(1), later(20)));
    assert_eq!(send("c", "a", 21).await.status, 503);
    assert_eq!(send("c", "b", 20).await.status, 204, "a replica that is not followed");
    assert_eq!(send("d", "a", 21).await.status, 204, "another cluster");
    assert_eq!(gate.metrics().held.load(Relaxed), 2);
    assert!(gate.open(&hole));
    gate.done(&hole, FillResult::Filled, 5, Duration::from_millis(3));
    assert_eq!((send("c", "a", 20).await.status, send("c", "a", 21).await.status), (204, 204));
    assert_eq!(gate.metrics().results().find(|(_, n)| *n > 0), Some(("filled", 1)));
    // A time stamp ahead of its receipt is no gap.
    let labels = [("__name__", "up"), ("cluster", "c"), ("__replica__", "a")];
    let body = snappy(&message(Version::V1, &[&labels], later(30)));
    assert_eq!(receiver.receive(&head(V1, "snappy"), body, later(22)).await.status, 204);
    gate.watch(false, &[]);
    assert_eq!(send("c", "a", 90).await.status, 204);
}
