//! Files of the state folder: records and segments of the log, parts of a checkpoint.

use oddity::engine::{Engine, Image};
use oddity::record::{Body, Kept, Logged, Record};
use oddity::rules::RuleSet;
use oddity::state::{CheckpointReader, replay};
use oddity::time::Millis;
use oddity::wire::{Encoder, MetricKind, Sample, Version};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Bytes that a body may decompress to.
const LIMIT: usize = 1 << 20;
/// The state that the files of the corpora belong to.
pub const INCARNATION: u128 = 77;

const RULES: &str = "
rules:
- name: r
  match: ['{__name__=~\"level|up\"}', work_total]
  detectors: [ewma, zscore, holt_winters, rarity, shift, flat, slope, isolation]
  min_samples: 10
  cohort: [job]
  silence: {after: 5m}
";

fn body(minute: i64) -> Body {
    let at = 1_700_000_000_000 + minute * 60_000;
    let mut encoder = Encoder::new(Version::V1);
    for (name, value) in [("up", 1.0), ("level", (minute % 7) as f64), ("work_total", minute as f64 * 3.0)] {
        let labels = [("__name__", name), ("cluster", "c"), ("instance", "i"), ("job", "j")];
        encoder.series(labels.into_iter(), MetricKind::Unknown, &[Sample { timestamp: at, value }]);
    }
    Body::new(Version::V1, Millis(at), encoder.finish().into())
}

/// An engine that has learnt something: its head, its partitions that hold series, its names.
#[derive(Debug)]
pub struct Parts {
    pub head: Vec<u8>,
    pub partitions: Vec<(u16, Vec<u8>)>,
    pub names: Vec<u8>,
}

/// The parts of the engine that damaged parts are put beside.
pub fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let (rules, _) = RuleSet::parse("fuzz.yaml", RULES).expect("valid");
        let engine = Engine::new(Arc::new(rules), 0, Vec::new());
        for minute in 0..200 {
            engine.apply(Record::Body(body(minute))).expect("sound");
        }
        taken(&engine)
    })
}

fn taken(engine: &Engine) -> Parts {
    let images = (0..256).filter_map(|number| Some((number as u16, engine.partition(number, Vec::new())?.1)));
    let smallest = images.clone().map(|(_, image)| image.len()).min().unwrap_or(0);
    let partitions = images.filter(|(_, image)| image.len() > smallest).collect();
    Parts { head: engine.head().1, partitions, names: engine.names() }
}

/// A part of a checkpoint, the first byte says which; or a whole file. What is damaged is refused; what
/// is not, works.
pub fn checkpoint(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let good = parts();
    let damaged = |want: u8| if which % 4 == want { bytes } else { &[] };
    let head = if which % 4 == 0 { damaged(0) } else { &good.head };
    if which % 4 == 3 {
        return file(bytes);
    }
    let Ok(mut image) = Image::new(head) else { return };
    let Some((number, partition)) = good.partitions.first() else { return };
    let partition = if which % 4 == 1 { damaged(1) } else { partition };
    let Ok(partition) = image.read(partition) else { return };
    image.put(*number, partition);
    let names = if which % 4 == 2 { damaged(2) } else { &good.names };
    if image.names(names).is_err() {
        return;
    }
    let engine = Engine::restored(image, 0, Vec::new());
    for minute in [200, 201, 300] {
        // A damaged clock may take this for the past or the future; it must take it.
        engine.apply(Record::Body(body(minute))).expect("a sound body");
    }
    // What it would keep can be read.
    let again = taken(&engine);
    let image = Image::new(&again.head).expect("its own head");
    for (_, partition) in &again.partitions {
        image.read(partition).expect("its own partition");
    }
}

/// In memory where there is such a place: files are synced before they are read.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}

fn file(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("1.checkpoint");
    std::fs::write(&path, bytes).expect("writes");
    let Ok(mut reader) = CheckpointReader::open(&path) else { return };
    let mut read = 0;
    while let Ok(Some(section)) = reader.next_section() {
        read += section.bytes.len();
    }
    assert!(read <= bytes.len());
}

/// A record's kind and payload where the first byte is even, else a whole segment of the log.
pub fn log(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    if which % 2 == 0 {
        if let Some((kind, payload)) = bytes.split_first()
            && let Ok(Logged::Record(Record::Body(body))) =
                Logged::read(*kind, payload.to_vec().into(), LIMIT)
        {
            assert!(body.bytes.len() <= LIMIT.max(payload.len()));
        }
        return;
    }
    let folder = folder();
    let path = folder.path().join(format!("{:020}.log", 1));
    std::fs::write(&path, bytes).expect("writes");
    let (first, last) = segment(folder.path());
    // What was cut or set aside stays so, and what was read is read again.
    assert_eq!(segment(folder.path()), (first, last));
}

/// Sequences of the records that are found, each with whether it can be read, and the last one.
fn segment(folder: &Path) -> (Vec<(u64, bool)>, u64) {
    let mut found: Vec<(u64, bool)> = Vec::new();
    let read = replay(folder, INCARNATION, 0, |Kept { sequence, kind, payload }| {
        assert!(found.last().is_none_or(|(last, _)| *last < sequence), "records in order");
        found.push((sequence, Logged::read(kind, payload, LIMIT).is_ok()));
    });
    (found, read.map_or(0, |replayed| replayed.last))
}
