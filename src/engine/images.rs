//! An engine put together again from the images of its parts goes on as if nothing had been.

use super::context::Context;
use super::identify::Sources;
use super::pulse::Pulses;
use super::testing::{rule, rules};
use super::tests::{Kept, digest};
use super::*;
use crate::codec::{Damaged, Reader, Stored, image, restored};
use crate::detect::Detector;
use crate::labels::Interner;
use crate::registry::{FORMAT, PARTITIONS, Partition};
use crate::rules::{As, Share, Silence};
use crate::time::Span;
use crate::wire::encode::Encoder;
use crate::wire::{Histogram, MetricKind, Sample, Version, histogram};
use proptest::prelude::*;

/// Rules that ask for all that is ever kept, their series in one partition.
fn everything() -> RuleSet {
    let mut gauges = rule("gauges", "g", vec![As::Value]);
    gauges.params.detectors = gauges.params.detectors.with(Detector::Slope).with(Detector::Isolation);
    gauges.params.min_samples = 10;
    gauges.identity_without = vec!["pod".into(), "instance".into()];
    gauges.silence = Some(Silence { after: Span::minutes(5) });
    let counters = rule("counters", "c_total", vec![As::Rate, As::Delta]);
    let histograms = rule(
        "histograms",
        "h",
        vec![As::CountRate, As::Mean, As::Quantile(Share::new(0.9).expect("a share"))],
    );
    let mut all = rules(vec![gauges, counters, histograms]);
    all.identity.partition_by = Some(vec!["job".into()]);
    all
}

fn uniform(pod: u64, t: i64) -> f64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&pod.to_le_bytes());
    bytes[8..].copy_from_slice(&t.to_le_bytes());
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

const PODS: [&str; 5] = ["pod-0", "pod-1", "pod-2", "pod-3", "pod-4"];

/// One scrape, of minute `t`: gauges with a season of 90 minutes, a counter that is reset at times, a
/// histogram, `up`; the last pod is away every other hour.
fn scrape(seed: u64, t: i64) -> Record {
    let mut encoder = Encoder::new(Version::V1);
    let ms = t * 60_000 + 17;
    for (n, pod) in PODS.iter().enumerate() {
        let labels =
            |name| [("__name__", name), ("cluster", "blue"), ("instance", *pod), ("job", "j"), ("pod", *pod)];
        let one = |value| [Sample { timestamp: ms, value }];
        let up = one(1.0);
        encoder.series(labels("up").into_iter(), MetricKind::Gauge, &up);
        if n + 1 == PODS.len() && t / 60 % 2 == 1 {
            continue;
        }
        let noise = uniform(seed ^ n as u64, t);
        let season = if t % 90 < 30 { 8.0 } else { 0.0 };
        encoder.series(labels("g").into_iter(), MetricKind::Gauge, &one(season + n as f64 + noise));
        if n == 0 {
            let count = (t % 500) as f64;
            encoder.series(labels("c_total").into_iter(), MetricKind::Counter, &one(count + noise));
            let histogram = Histogram {
                count: count + 3.0,
                sum: 7.0 * count,
                positive_spans: vec![histogram::Span { offset: 2, length: 2 }],
                positive: vec![count, 3.0],
                ..Histogram::default()
            };
            encoder.histogram_series(labels("h").into_iter(), MetricKind::Histogram, &[(ms, histogram)]);
        }
    }
    encoder.metadata("c_total", MetricKind::Counter, "", "");
    Record::Body(Body::new(Version::V1, Millis(ms), encoder.finish().into()))
}

fn started() -> (Engine, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    (Engine::new(Arc::new(everything()), 0, vec![kept.clone() as Arc<dyn OutputSink>]), kept)
}

fn feed(engine: &Engine, seed: u64, minutes: std::ops::Range<i64>) {
    for t in minutes {
        engine.apply(scrape(seed, t)).expect("a good body");
    }
}

fn partition_image(engine: &Engine, number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine.shared.partitions.get(&number).expect("there are all").store(&mut bytes);
    bytes
}

/// The context, the clocks and the names of sources.
fn head_image(engine: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    let order = engine.order.lock();
    order.context.store(&mut bytes);
    order.pulses.store(&mut bytes);
    engine.shared.identifier.sources.lock().store(&mut bytes);
    bytes
}

fn load_head(bytes: &[u8], rules: Arc<RuleSet>) -> Result<(Context, Pulses, Sources), Damaged> {
    let mut from = Reader::new(bytes);
    let context = Context::load(&mut from, rules)?;
    let head = (context, Stored::load(&mut from)?, Stored::load(&mut from)?);
    from.finish()?;
    Ok(head)
}

fn load_partition(bytes: &[u8], interner: &Interner) -> Result<Partition, Damaged> {
    let mut from = Reader::new(bytes);
    let partition = Partition::load(&mut from, interner)?;
    from.finish()?;
    Ok(partition)
}

/// Another engine, of the images of this one.
fn again(engine: &Engine) -> (Engine, Arc<Kept>) {
    let (again, kept) = started();
    for number in 0..PARTITIONS {
        let bytes = partition_image(engine, number as u8);
        let partition = load_partition(&bytes, &again.shared.identifier.interner).expect("an image");
        again.shared.kept.fetch_add(partition.series.len(), std::sync::atomic::Ordering::Relaxed);
        again.shared.partitions.insert(number as u8, partition);
        assert_eq!(partition_image(&again, number as u8), bytes);
    }
    let bytes = head_image(engine);
    let (context, pulses, sources) = load_head(&bytes, again.rules()).expect("an image");
    *again.shared.identifier.sources.lock() = sources;
    let mut order = again.order.lock();
    order.sequence = engine.order.lock().sequence;
    (order.context, order.pulses) = (Arc::new(context), pulses);
    drop(order);
    assert_eq!(head_image(&again), bytes);
    (again, kept)
}

fn digests(engine: &Engine) -> Vec<u64> {
    let partition = |number| engine.shared.partitions.get(&number).expect("there are all").digest();
    (0..=u8::MAX).map(partition).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_restarted_engine_says_what_it_would_have_said(
        seed in any::<u64>(), before in 1i64..900, after in 1i64..200, twice in any::<bool>(),
    ) {
        let (one, kept) = started();
        feed(&one, seed, 0..before);
        kept.0.lock().clear();
        let (mut other, mut other_kept) = again(&one);
        prop_assert_eq!(digests(&one), digests(&other));
        feed(&one, seed, before..before + after);
        let mut said = Vec::new();
        if twice {
            feed(&other, seed, before..before + after / 2);
            said = digest(&other_kept);
            (other, other_kept) = again(&other);
            feed(&other, seed, before + after / 2..before + after);
        } else {
            feed(&other, seed, before..before + after);
        }
        said.extend(digest(&other_kept));
        said.sort();
        prop_assert_eq!(said, digest(&kept));
        prop_assert_eq!(digests(&one), digests(&other));
        prop_assert_eq!(head_image(&one), head_image(&other));
    }
}

/// A little of everything: four days of five pods, in one partition.
fn fixtures() -> (Vec<u8>, Vec<u8>) {
    let (engine, _) = started();
    feed(&engine, 1, 0..4 * 1440 + 320);
    // The newest forest will do.
    let mut order = engine.order.lock();
    let context = Arc::make_mut(&mut order.context);
    context.frozen = context.frozen.iter().take(1).cloned().collect();
    context.elect(1, 1);
    drop(order);
    engine.shared.identifier.sources.lock().replica(1, "a");
    let full = |number: &u8| !engine.shared.partitions.get(number).expect("there are all").series.is_empty();
    let number = (0..=u8::MAX).find(full).expect("a partition with series");
    (partition_image(&engine, number), head_image(&engine))
}

/// Where images of this format and of those before it are kept.
fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn unpacked(path: &std::path::Path) -> Vec<u8> {
    let packed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    zstd::bulk::decompress(&packed, 1 << 20).expect("unpacked")
}

/// Parts of what was kept must not get lost, so any change of it is to be seen here.
#[test]
fn files_of_this_format_are_read_and_written_alike() {
    const WHAT_TO_DO: &str = "the format of state has changed: bump FORMAT, rewrite the fixtures \
        (ODDITY_WRITE_FIXTURES=1) and leave the old ones among the refused ones";
    let files = ["partition", "head"].map(|name| folder().join(format!("{name}-{FORMAT}.zst")));
    if std::env::var_os("ODDITY_WRITE_FIXTURES").is_some() {
        let (partition, head) = fixtures();
        for (path, bytes) in files.iter().zip([partition, head]) {
            let packed = zstd::bulk::compress(&bytes, 19).expect("packed");
            std::fs::write(path, packed).expect("written");
        }
    }
    let [partition, head] = files.map(|path| unpacked(&path));
    let interner = Interner::default();
    let loaded = load_partition(&partition, &interner).unwrap_or_else(|e| panic!("{e}: {WHAT_TO_DO}"));
    let mut bytes = Vec::new();
    loaded.store(&mut bytes);
    assert!(bytes == partition, "{WHAT_TO_DO}");
    let (context, pulses, sources) =
        load_head(&head, Arc::new(everything())).unwrap_or_else(|e| panic!("{e}: {WHAT_TO_DO}"));
    bytes.clear();
    context.store(&mut bytes);
    bytes.extend([image(&pulses), image(&sources)].concat());
    assert!(bytes == head, "{WHAT_TO_DO}");

    // They hold some of everything.
    let signals: Vec<_> = loaded.series.iter().flat_map(|(_, series)| loaded.signals_of(series)).collect();
    assert_eq!((loaded.series.len(), signals.len()), (7, 10));
    assert!(loaded.watches.len() == 5 && loaded.open.len() == 2, "{} open", loaded.open.len());
    assert!(signals.iter().any(|signal| signal.model.heap_bytes() > 1500), "a season that was found");
    let frozen = context.frozen.first().expect("frozen models");
    assert!(frozen.priors.len() == 1 && frozen.forests.len() == 1 && !context.families.is_empty());
}

/// Whole images of an hour, for tests that damage them.
fn small() -> &'static (Vec<u8>, Vec<u8>) {
    static SMALL: std::sync::OnceLock<(Vec<u8>, Vec<u8>)> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let (engine, _) = started();
        feed(&engine, 2, 0..260);
        let full =
            |number: &u8| !engine.shared.partitions.get(number).expect("there are all").series.is_empty();
        let number = (0..=u8::MAX).find(full).expect("a partition with series");
        (partition_image(&engine, number), head_image(&engine))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_images_are_refused_or_read(
        at in any::<prop::sample::Index>(), with in 1u8.., cut in any::<bool>(), head in any::<bool>(),
    ) {
        let whole = if head { &small().1 } else { &small().0 };
        let mut bytes = whole.clone();
        let at = at.index(whole.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= with;
        }
        if head {
            let loaded = load_head(&bytes, Arc::new(everything()));
            prop_assert!(!cut || loaded.is_err());
            return Ok(());
        }
        let interner = Interner::default();
        let loaded = load_partition(&bytes, &interner);
        prop_assert!(!cut || loaded.is_err());
        let Ok(partition) = loaded else { return Ok(()) };
        let heap: usize = partition.signals.iter().map(|(_, signal)| signal.model.heap_bytes()).sum();
        let held = partition.series.bytes() + partition.signals.bytes() + partition.watches.bytes() + heap;
        // Slabs grow by sixteen.
        prop_assert!(held < 8 * bytes.len() + 40_000, "{} bytes of {}", held, bytes.len());
        partition.digest();
    }

    #[test]
    fn no_bytes_are_an_image_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = image(&FORMAT);
        whole.extend(&bytes);
        for bytes in [&bytes, &whole] {
            let _ = load_partition(bytes, &Interner::default());
            let _ = load_head(bytes, Arc::new(everything()));
            let _ = restored::<Pulses>(bytes);
            let _ = restored::<Sources>(bytes);
        }
    }
}

#[test]
fn another_format_is_refused_with_its_number() {
    for entry in std::fs::read_dir(folder()).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((kind, format)) = name.split_once('-') else { continue };
        if format == FORMAT.to_string() {
            continue;
        }
        let refused = match kind {
            "partition" => load_partition(&unpacked(&path), &Interner::default()).map(|_| ()),
            "head" => load_head(&unpacked(&path), Arc::new(everything())).map(|_| ()),
            _ => continue,
        };
        let refused = refused.expect_err("refused");
        assert!(refused.what.starts_with(&format!("format {format},")), "{name}: {refused}");
    }
    let (mut partition, mut head) = small().clone();
    for bytes in [&mut partition, &mut head] {
        bytes[..4].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    }
    let expected = format!("at byte 4: format {}, and this version of oddity reads {FORMAT}", FORMAT + 1);
    let refused = load_partition(&partition, &Interner::default()).expect_err("refused");
    assert_eq!(refused.to_string(), expected);
    assert_eq!(
        load_head(&head, Arc::new(everything())).map(|_| ()).expect_err("refused").to_string(),
        expected
    );
}

#[test]
fn a_digest_sees_a_bit_and_no_slots() {
    let interner = Interner::default();
    let mut partition = load_partition(&small().0, &interner).expect("an image");
    let before = partition.digest();
    // Two series change their slots.
    let slots: Vec<u32> = partition.series.iter().map(|(slot, _)| slot).take(2).collect();
    let moved: Vec<_> = slots.iter().filter_map(|slot| partition.series.remove(*slot)).collect();
    let last = moved.last().map(|series| series.id);
    for series in moved {
        partition.insert(series);
    }
    let slot = slots[0];
    assert_eq!(partition.series.get(slot).map(|series| series.id), last);
    assert_eq!(partition.digest(), before);
    let at = partition.series.get(slot).map_or(0, |series| series.first);
    let signal = partition.signals.get_mut(at).expect("a signal");
    signal.last.1 = f64::from_bits(signal.last.1.to_bits() ^ 1);
    assert_ne!(partition.digest(), before);
    let signal = partition.signals.get_mut(at).expect("a signal");
    signal.last.1 = f64::from_bits(signal.last.1.to_bits() ^ 1);
    assert_eq!(partition.digest(), before);
    partition.remove(slot);
    assert_ne!(partition.digest(), before);
}

#[test]
fn bytes_a_series() {
    let mut bytes = Vec::new();
    let interner = Interner::default();
    let partition = load_partition(&small().0, &interner).expect("an image");
    for (_, series) in partition.series.iter() {
        bytes.clear();
        for signal in partition.signals_of(series) {
            signal.store(&mut bytes);
        }
        println!("{}: {} bytes of signals", series.labels, bytes.len());
        assert!((600..7000).contains(&bytes.len()));
    }
    println!(
        "{} series in {} bytes; head {} bytes",
        partition.series.len(),
        small().0.len(),
        small().1.len()
    );
}
