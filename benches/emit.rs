//! The way out: what one scored sample costs from the output to the bytes of a request, with
//! `emit: [score, flag]`, so two samples each. Series have 12 labels and 390 bytes and come in a
//! shuffled order, in requests of 1,000 outputs and batches of 8, as bodies of 2,000 series over 256
//! partitions make them.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oddity::emit::Encoding;
use oddity::emit::config::{HttpConfig, QueueConfig, RemoteWriteConfig};
use oddity::emit::names::Writer;
use oddity::engine::{Output, OutputBatch, OutputSink, OutputValue};
use oddity::labels::{Interner, Labels, NAME};
use oddity::rules::{As, OutputNames, RuleSet};
use oddity::time::{Millis, Span};
use oddity::wire::encode::Encoder;
use oddity::wire::frame::compress_snappy;
use oddity::wire::{MetricKind, Sample, Version};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const SERIES: usize = 100_000;
const REQUEST: usize = 1_000;
const BATCH: usize = 8;

fn series() -> Vec<Labels> {
    let interner = Interner::default();
    let mut all: Vec<Labels> = (0..SERIES)
        .map(|i| {
            let (pod, metric) = (i / 40, i % 40);
            let name = format!("container_resource_usage_{metric:02}_bytes");
            let node = format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", pod % 7, pod % 11, pod % 97);
            let pod_name =
                format!("checkout-service-{:08x}-{:05x}", pod / 3 * 2_654_435_761 % (1 << 32), pod);
            let image = format!("registry.example.com/shop/checkout@sha256:{:016x}", pod / 30 * 0x9e37_79b9);
            let namespace = format!("team-{}", pod % 20);
            let instance = format!("10.{}.{}.{}:10250", pod % 7, pod % 11, pod % 97);
            let mut labels = vec![
                (NAME, name.as_str()),
                ("cluster", "production-eu-1"),
                ("container", "checkout"),
                ("endpoint", "https-metrics"),
                ("image", &image),
                ("instance", &instance),
                ("job", "kubelet"),
                ("metrics_path", "/metrics/cadvisor"),
                ("namespace", &namespace),
                ("node", &node),
                ("pod", &pod_name),
                ("service", "prometheus-operator-kubelet"),
            ];
            labels.sort_unstable();
            interner.intern(&labels)
        })
        .collect();
    let mut state = 1u64;
    for at in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(at, (state >> 33) as usize % (at + 1));
    }
    all
}

fn rules() -> Arc<RuleSet> {
    let text = "rules:\n- name: node\n  match: ['{__name__!=\"\"}']\n  emit: [score, flag]\n";
    Arc::new(RuleSet::parse("bench", text).expect("valid").0)
}

/// What a lane makes of the series from `from` on.
fn batches(series: &[Labels], rules: &Arc<RuleSet>, from: usize) -> Vec<Arc<OutputBatch>> {
    let at = Millis(1_700_000_000_000 + from as i64);
    let score = 0.123_456_789 + from as f64 * 1e-9;
    let output = |labels: &Labels| Output {
        labels: labels.clone(),
        rule: 0,
        transform: As::Value,
        at,
        value: OutputValue::Scored { value: 17.0, score, detail: None },
        emit: true,
    };
    let batch = |(number, chunk): (usize, &[Labels])| {
        Arc::new(OutputBatch {
            sequence: from as u64,
            partition: (number % 256) as u16,
            rules: rules.clone(),
            outputs: chunk.iter().map(output).collect(),
        })
    };
    series[from..from + REQUEST].chunks(BATCH).enumerate().map(batch).collect()
}

fn emit(c: &mut Criterion<CpuTime>) {
    let (series, rules) = (series(), rules());
    let mut group = c.benchmark_group("emit, per output of two samples");
    group.throughput(Throughput::Elements(REQUEST as u64));
    let mut next = 0;
    let mut turn = || {
        next = (next + REQUEST) % SERIES;
        next
    };
    group.bench_function("outputs made and dropped", |b| {
        b.iter(|| black_box(batches(&series, &rules, turn())))
    });
    group.bench_function("queued", |b| {
        // Nobody sends, so each target keeps one request's worth and gives up the oldest.
        let config = RemoteWriteConfig {
            queue: QueueConfig { capacity: 2 * REQUEST, ..QueueConfig::default() },
            ..RemoteWriteConfig::new(HttpConfig::plain("http://localhost/", Span::SECOND))
        };
        let emitter = oddity::emit::Emitter::new(vec![config], None).expect("valid");
        b.iter_batched(
            || batches(&series, &rules, turn()),
            |made| {
                made.iter().for_each(|batch| emitter.take(batch));
                made
            },
            BatchSize::SmallInput,
        );
    });
    for version in [Version::V1, Version::V2] {
        let mut encoding = Encoding::default();
        group.bench_function(BenchmarkId::new("encoded and compressed", format!("{version:?}")), |b| {
            b.iter_batched(
                || batches(&series, &rules, turn()),
                |made| (encoding.body(&made, version).expect("fits"), made),
                BatchSize::SmallInput,
            );
        });
        let mut encoder = Encoder::new(version);
        let mut writer = Writer::default();
        group.bench_function(
            BenchmarkId::new("label by label, not compressed", format!("{version:?}")),
            |b| {
                b.iter_batched(
                    || batches(&series, &rules, turn()),
                    |made| {
                        for output in made.iter().flat_map(|batch| &batch.outputs) {
                            writer.each(output, &rules.rules[0], OutputNames::Oddity, |labels, value| {
                                let sample = [Sample { timestamp: output.at.0, value }];
                                encoder.series(labels.iter().copied(), MetricKind::Gauge, &sample);
                            });
                        }
                        (encoder.finish(), made)
                    },
                    BatchSize::SmallInput,
                );
            },
        );
        let made = batches(&series, &rules, 0);
        let body = encoding.body(&made, version).expect("fits");
        let message = snap::raw::Decoder::new().decompress_vec(&body.bytes).expect("snappy");
        println!(
            "{version:?}: {} bytes an output, {} compressed, {} by zstd 1",
            message.len() / REQUEST,
            body.bytes.len() / REQUEST,
            zstd::bulk::compress(&message, 1).expect("zstd").len() / REQUEST,
        );
        group.bench_function(BenchmarkId::new("of that, snappy", format!("{version:?}")), |b| {
            b.iter(|| black_box(compress_snappy(&message).expect("fits")));
        });
        group.bench_function(BenchmarkId::new("instead, zstd 1", format!("{version:?}")), |b| {
            b.iter(|| black_box(zstd::bulk::compress(&message, 1).expect("zstd")));
        });
    }
    group.finish();
}

/// CPU time of this thread: what counts, and what it is also where others use the machine.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;
    fn start(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(CpuTime); targets = emit);
criterion_main!(benches);
