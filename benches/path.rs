//! The way in, step by step, as one series' sample costs it, beside two baselines in the same run: prost's
//! decoder, and a hash map from label strings to a number. Bodies of 2,000 series of 12 labels and 390
//! bytes, one sample each, out of 100,000 series in a shuffled order.
//!
//! `whole path` is the engine on ready bodies, without sockets, with one worker and with two: what they
//! come to side by side is how far two cores scale.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use oddity::engine::Engine;
use oddity::labels::{LabelLimits, canonicalise, series_id};
use oddity::record::{Body, Record};
use oddity::registry::{Alias, AliasCache, Known};
use oddity::rules::RuleSet;
use oddity::time::Millis;
use oddity::wire::encode::Encoder;
use oddity::wire::frame::{Encoding, compress_snappy, decompress};
use oddity::wire::proto::{v1, v2};
use oddity::wire::{Batch, DecodeLimits, MetricKind, Sample, Version, decode};
use prost::Message;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SERIES: usize = 100_000;
/// Of the whole path: far more than caches hold.
const MANY: usize = 1_000_000;
const BODY: usize = 2_000;
const INTERVAL: i64 = 15_000;
/// Scrapes before anything is measured: every series is scored by then.
const WARM: i64 = 70;

fn labels(i: usize) -> Vec<(&'static str, String)> {
    let (pod, metric) = (i / 40, i % 40);
    vec![
        ("__name__", format!("container_resource_usage_{metric:02}_bytes")),
        ("cluster", "production-eu-1".into()),
        ("container", "checkout".into()),
        ("endpoint", "https-metrics".into()),
        ("image", format!("registry.example.com/shop/checkout@sha256:{:016x}", pod / 30 * 0x9e37_79b9)),
        ("instance", format!("10.{}.{}.{}:10250", pod % 7, pod % 11, pod % 97)),
        ("job", "kubelet".into()),
        ("metrics_path", "/metrics/cadvisor".into()),
        ("namespace", format!("team-{}", pod % 20)),
        ("node", format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", pod % 7, pod % 11, pod % 97)),
        ("pod", format!("checkout-service-{:08x}-{pod:05x}", pod / 3 * 2_654_435_761 % (1 << 32))),
        ("service", "prometheus-operator-kubelet".into()),
    ]
}

/// A number that looks random, from 0 to 1.
fn noise(series: usize, round: i64) -> f64 {
    let mut x = (series as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (round as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, (noise(at, -1) * (at + 1) as f64) as usize);
    }
    order
}

/// The bodies of one scrape.
fn scrape(version: Version, order: &[usize], round: i64) -> Vec<Vec<u8>> {
    let one = |chunk: &[usize]| {
        let mut encoder = Encoder::new(version);
        for series in chunk {
            let labels = labels(*series);
            let value = 50.0 + (0..4).map(|k| noise(*series, round * 4 + k)).sum::<f64>();
            let sample = Sample { timestamp: 1_700_000_000_000 + round * INTERVAL, value };
            let pairs = labels.iter().map(|(name, value)| (*name, value.as_str()));
            encoder.series(pairs, MetricKind::Gauge, &[sample]);
        }
        encoder.finish()
    };
    order.chunks(BODY).map(one).collect()
}

fn steps(c: &mut Criterion) {
    let order = shuffled(SERIES);
    for version in [Version::V1, Version::V2] {
        let bodies = scrape(version, &order, 0);
        let mut group = c.benchmark_group(format!("{version:?}, a body of {BODY} series"));
        group.throughput(Throughput::Elements(BODY as u64));
        let packed: Vec<Vec<u8>> = bodies.iter().map(|body| compress_snappy(body).expect("packs")).collect();
        let (mut out, mut next) = (Vec::new(), 0);
        group.bench_function("frame: snappy", |b| {
            b.iter(|| {
                next = (next + 1) % packed.len();
                decompress(Encoding::Snappy, &packed[next], 32 << 20, &mut out).expect("unpacks");
                out.len()
            });
        });
        let (mut batch, limits) = (Batch::default(), DecodeLimits::default());
        group.bench_function("decode and hash", |b| {
            b.iter(|| {
                next = (next + 1) % bodies.len();
                decode(version, &bodies[next], &limits, &mut batch).expect("decodes");
                batch.series.len()
            });
        });
        group.bench_function("baseline: decode by prost", |b| {
            b.iter(|| {
                next = (next + 1) % bodies.len();
                match version {
                    Version::V1 => {
                        v1::WriteRequest::decode(bodies[next].as_slice()).expect("decodes").timeseries.len()
                    }
                    Version::V2 => {
                        v2::Request::decode(bodies[next].as_slice()).expect("decodes").timeseries.len()
                    }
                }
            });
        });
        let batches: Vec<Batch> = bodies
            .iter()
            .map(|body| {
                let mut batch = Batch::default();
                decode(version, body, &limits, &mut batch).expect("decodes");
                batch
            })
            .collect();
        let mut read = Vec::new();
        group.bench_function("first sight: labels in order and id", |b| {
            b.iter(|| {
                next = (next + 1) % bodies.len();
                let (batch, body) = (&batches[next], &bodies[next]);
                let mut all = 0;
                for series in &batch.series {
                    batch.read_labels(series, body, &mut read).expect("UTF-8");
                    canonicalise(&mut read, LabelLimits::default()).expect("valid");
                    all ^= series_id(&read).0;
                }
                all
            });
        });
        let cache = AliasCache::new(4_000_000);
        let keys: Vec<Vec<u128>> =
            batches.iter().map(|batch| batch.series.iter().map(|series| series.alias).collect()).collect();
        cache.learn(1, keys.iter().flatten().map(|key| Alias { key: *key, known: Known::Unmatched(1) }));
        let mut known = Vec::new();
        group.bench_function("look up", |b| {
            b.iter(|| {
                next = (next + 1) % keys.len();
                known.clear();
                cache.look_up(keys[next].iter().copied(), &mut known);
                known.len()
            });
        });
        group.finish();
    }
    let names: Vec<String> = order
        .iter()
        .map(|series| labels(*series).iter().map(|(name, value)| format!("{name}={value},")).collect())
        .collect();
    let map: HashMap<String, u32> = names.iter().zip(0..).map(|(name, at)| (name.clone(), at)).collect();
    let mut next = 0;
    c.bench_function("baseline: hash map of label strings, one series", |b| {
        b.iter(|| {
            next = (next + 1) % names.len();
            black_box(map.get(&names[next]))
        });
    });
}

fn engine(lanes: usize) -> Engine {
    let (rules, _) =
        RuleSet::parse("bench", "rules: [{name: all, match: '{__name__!=\"\"}', emit: []}]").expect("valid");
    Engine::new(Arc::new(rules), lanes, Vec::new())
}

fn feed(engine: &Engine, bodies: &[bytes::Bytes], version: Version, round: i64, senders: usize) {
    let (next, received) = (AtomicUsize::new(0), Millis(1_700_000_000_000 + round * INTERVAL));
    std::thread::scope(|scope| {
        for _ in 0..senders {
            scope.spawn(|| {
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    engine.apply(Record::Body(Body::new(version, received, body.clone()))).expect("taken");
                }
            });
        }
    });
}

fn whole(c: &mut Criterion) {
    let order = shuffled(MANY);
    let mut group = c.benchmark_group("whole path without sockets, 2.0");
    group.throughput(Throughput::Elements(MANY as u64)).sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    // They take longer to make than to apply: on two threads.
    let bodies = |round: i64| -> Vec<bytes::Bytes> {
        let (first, second) = order.split_at(MANY / 2);
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| scrape(Version::V2, second, round));
            (scrape(Version::V2, first, round), second.join().expect("it does not panic"))
        });
        first.into_iter().chain(second).map(Into::into).collect()
    };
    for (lanes, senders) in [(1, 1), (2, 2)] {
        let engine = engine(lanes);
        let mut round = 0;
        while round < WARM {
            feed(&engine, &bodies(round), Version::V2, round, senders);
            round += 1;
        }
        group.bench_function(format!("{lanes} workers, {senders} senders"), |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    let bodies = bodies(round);
                    let started = Instant::now();
                    feed(&engine, &bodies, Version::V2, round, senders);
                    took += started.elapsed();
                    round += 1;
                }
                took
            });
        });
        if lanes == 1 {
            // 256 partitions of some 3,900 series each.
            group.throughput(Throughput::Elements(MANY as u64 / 256));
            let mut number = 0;
            group.bench_function("image of a partition (its series)", |b| {
                let mut room = Vec::new();
                b.iter(|| {
                    number = (number + 1) % 256;
                    room = engine
                        .partition(number, std::mem::take(&mut room))
                        .map(|(_, bytes)| bytes)
                        .unwrap_or_default();
                    room.len()
                });
            });
            group.throughput(Throughput::Elements(MANY as u64));
        }
    }
    group.finish();
}

criterion_group!(benches, steps, whole);
criterion_main!(benches);
