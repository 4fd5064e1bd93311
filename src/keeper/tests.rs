//! From an engine to its folder and back, with everything that makes up state.

mod models;

use super::*;
use crate::engine::{OutputBatch, OutputSink, OutputValue};
use crate::record::{Body, Record};
use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::encode::Encoder;
use crate::wire::{MetricKind, Sample, Version};
use std::path::Path;
use tempfile::TempDir;

const STEP: i64 = 60;
const PODS: u64 = 12;
const RULES: &str = "
ha: {cluster_label: cluster, replica_label: __replica__}
rules:
- {name: gone, match: '{__name__=~\"up|.*_count\"}', silence: {after: 5m}, min_samples: 20}
- {name: work, match: '{__name__=~\".*_total\"}', as: [rate, delta], min_samples: 20}
- name: level
  match: level
  min_samples: 20
  identity_without: [pod]
  detectors: [ewma, zscore, holt_winters, rarity, shift, slope, flat, isolation]
";

fn rules(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::parse("rules.yaml", text).expect("valid").0)
}

/// Collects every output as text: what it is of, when and the bits of its score.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, i64, u64)>>);

impl OutputSink for Heard {
    fn take(&self, batch: &Arc<OutputBatch>) {
        for output in &batch.outputs {
            let bits = match output.value {
                OutputValue::Scored { score, .. } | OutputValue::Silent { score, .. } => score.to_bits(),
                OutputValue::Stale => 1,
            };
            let what = format!("{} {}", output.labels, output.transform);
            self.0.lock().push((what, output.at.0, bits));
        }
    }
}

impl Heard {
    fn sorted(&self) -> Vec<(String, i64, u64)> {
        let mut all = self.0.lock().clone();
        all.sort();
        all.dedup();
        all
    }
}

fn noise(pod: u64, t: i64, salt: u64) -> f64 {
    let bytes: Vec<u8> = [pod, t as u64, salt].into_iter().flat_map(u64::to_le_bytes).collect();
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// The records of a minute: four kinds of series, one pod that falls silent for a while, spikes.
fn minute(number: i64) -> Record {
    let t = number * STEP;
    let version = if number % 2 == 0 { Version::V1 } else { Version::V2 };
    let mut encoder = Encoder::new(version);
    for pod in 0..PODS {
        if pod == 3 && (300..330).contains(&number) {
            continue;
        }
        let name = format!("pod-{pod}");
        let cluster = if pod % 2 == 0 { "east" } else { "west" };
        let day = (t as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let spike = if number % 97 == 0 && pod == 1 { 30.0 } else { 0.0 };
        for (metric, value) in [
            ("up", 1.0),
            ("level", 50.0 + 10.0 * day + noise(pod, t, 1) + spike),
            ("work_total", (t as f64 * 3.0 + noise(pod, t, 2) * 20.0).floor()),
            ("queue_count", (noise(pod, t, 3) * 4.0).floor()),
        ] {
            let labels = [
                ("__name__", metric),
                ("cluster", cluster),
                ("instance", &name),
                ("job", "x"),
                ("pod", &name),
            ];
            let sample = Sample { timestamp: t * 1000, value };
            encoder.series(labels.into_iter(), MetricKind::Unknown, &[sample]);
        }
    }
    Record::Body(Body::new(version, Millis(t * 1000), encoder.finish().into()))
}

struct Kept {
    keeper: Keeper,
    engine: Arc<Engine>,
}

/// Opens the folder as a start does.
fn open(place: &Path, text: &str, heard: &Arc<Heard>, settings: Settings) -> Kept {
    let folder = Folder::open(place).expect("opens");
    let incarnation = folder.incarnation().expect("reads").unwrap_or(9);
    folder.begin(incarnation).expect("begins");
    let sinks: Vec<Arc<dyn OutputSink>> = vec![heard.clone()];
    let (engine, found) =
        restore(&folder, incarnation, &rules(text), 2, sinks, settings.body_bytes).expect("restores");
    let engine = Arc::new(engine);
    let emitter = Arc::new(Emitter::new(Vec::new(), None).expect("no targets"));
    let keeper =
        Keeper::start(folder, incarnation, found, engine.clone(), emitter, settings).expect("starts");
    Kept { keeper, engine }
}

fn plain() -> Settings {
    Settings { replay: Duration::from_secs(3600), ..Settings::default() }
}

fn feed(engine: &Engine, minutes: std::ops::Range<i64>) {
    for number in minutes {
        engine.apply(minute(number)).expect("kept");
    }
}

fn place() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What an engine says and learns that nothing happens to.
fn undisturbed(minutes: i64) -> (Vec<(String, i64, u64)>, u64) {
    let heard = Arc::new(Heard::default());
    let engine = Engine::new(rules(RULES), 0, vec![heard.clone() as Arc<dyn OutputSink>]);
    feed(&engine, 0..minutes);
    (heard.sorted(), engine.digest())
}

#[test]
fn a_crash_anywhere_changes_nothing() {
    let minutes = 420;
    let (said, learnt) = undisturbed(minutes);
    assert!(said.len() > 10_000);
    let place = place();
    let heard = Arc::new(Heard::default());
    let mut from = 0;
    // With and without checkpoints between, also while records come.
    for (to, checkpoints) in [(50, 0), (130, 1), (131, 2), (310, 1), (360, 0), (minutes, 1)] {
        let kept = open(place.path(), RULES, &heard, plain());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..checkpoints {
                    kept.keeper.checkpoint().expect("taken");
                }
            });
            feed(&kept.engine, from..to);
        });
        from = to;
        // Dropped without an end, as a crash is.
    }
    let kept = open(place.path(), RULES, &heard, plain());
    assert_eq!(kept.engine.digest(), learnt, "what was learnt");
    assert_eq!(heard.sorted(), said, "what was said");
    kept.keeper.stop();
    drop(kept);
    let kept = open(place.path(), RULES, &heard, plain());
    assert_eq!(kept.keeper.report().found.replayed, 0, "after a clean end there is nothing to replay");
    assert_eq!(kept.engine.digest(), learnt);
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let place = place();
    let heard = Arc::new(Heard::default());
    let kept = open(place.path(), RULES, &heard, plain());
    feed(&kept.engine, 0..40);
    kept.keeper.checkpoint().expect("taken");
    feed(&kept.engine, 40..80);
    let newest = kept.keeper.checkpoint().expect("taken");
    feed(&kept.engine, 80..90);
    drop(kept);
    let path = place.path().join("checkpoints").join(format!("{:020}.checkpoint", newest.sequence));
    let mut bytes = std::fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let kept = open(place.path(), RULES, &heard, plain());
    let found = kept.keeper.report().found;
    assert!(found.trouble[0].contains("checksum") && found.trouble[0].contains(".corrupt"), "{found:?}");
    assert_eq!(kept.engine.digest(), undisturbed(90).1, "the log still has what the older one lacks");
}

#[test]
fn rules_of_a_reload_are_in_force_after_a_crash() {
    let changed = RULES.replace("name: level", "name: renamed");
    let place = place();
    let heard = Arc::new(Heard::default());
    let kept = open(place.path(), RULES, &heard, plain());
    feed(&kept.engine, 0..30);
    kept.engine.apply(Record::Rules(rules(&changed))).expect("kept");
    feed(&kept.engine, 30..60);
    let learnt = kept.engine.digest();
    drop(kept);
    let kept = open(place.path(), RULES, &heard, plain());
    assert_eq!(kept.engine.rules().source, rules(&changed).source);
    assert_eq!(kept.engine.digest(), learnt);
}

#[test]
fn a_checkpoint_is_due_by_the_work_there_is_to_do_again() {
    let place = place();
    let heard = Arc::new(Heard::default());
    let kept = open(place.path(), RULES, &heard, plain());
    let due = |kept: &Kept| kept.keeper.inner.due();
    assert!(!due(&kept), "nothing came");
    feed(&kept.engine, 0..20);
    assert!(!due(&kept), "little came");
    assert!(kept.keeper.report().debt > Duration::ZERO);
    drop(kept);
    for settings in [
        Settings { replay: Duration::from_nanos(1), ..plain() },
        Settings { checkpoint_every: Duration::ZERO, ..plain() },
        Settings { log_bytes: 1, ..plain() },
    ] {
        let kept = open(place.path(), RULES, &heard, settings);
        feed(&kept.engine, 20..22);
        let start = Instant::now();
        while kept.keeper.report().checkpoints == 0 && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(kept.keeper.report().checkpoints > 0, "{settings:?}");
    }
    let settings = Settings { replay: Duration::from_nanos(1), checkpoint_every: Duration::MAX, ..plain() };
    let kept = open(place.path(), RULES, &heard, settings);
    kept.keeper.inner.since.lock().cost = Duration::from_secs(3600);
    feed(&kept.engine, 22..24);
    assert!(!due(&kept), "the last one was dear");
}
