//! Written, torn, damaged, full.

use super::super::{End, Replayed, replay, segments};
use super::*;
use crate::record::{Kept, Logged, Record};
use crate::time::Millis;
use tempfile::TempDir;

const LIMIT: usize = 1 << 20;
const US: u128 = 77;

fn place() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn log(place: &TempDir, after: u64, options: LogOptions) -> Log {
    Log::new(place.path(), US, after, options)
}

fn tick(number: u64) -> Entry {
    Entry::tick("group", Millis(number as i64))
}

fn write(log: &Log, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        log.append(sequence, tick(sequence));
        log.commit(sequence).expect("kept");
    }
}

fn read(place: &TempDir, after: u64) -> (Vec<u64>, Replayed) {
    let mut found = Vec::new();
    let replayed = replay(place.path(), US, after, |Kept { sequence, kind, payload }| {
        let logged = Logged::read(kind, payload, LIMIT).expect("readable");
        let Logged::Record(Record::Tick { to, .. }) = logged else { panic!("no tick: {logged:?}") };
        assert_eq!(to, Millis(sequence as i64));
        found.push(sequence);
    });
    (found, replayed.expect("reads"))
}

fn files(place: &TempDir) -> Vec<PathBuf> {
    numbered(place.path(), "log").expect("lists").into_iter().map(|(_, path)| path).collect()
}

#[test]
fn what_is_committed_is_read_in_order_across_segments_and_policies() {
    for fsync in [Fsync::Always, Fsync::Never, Fsync::Every(crate::time::Span::SECOND)] {
        let place = place();
        let log = log(&place, 0, LogOptions { fsync, segment_bytes: 400, ..LogOptions::default() });
        write(&log, 1..=50);
        log.sync();
        assert!(files(&place).len() > 5);
        let (found, replayed) = read(&place, 0);
        assert_eq!(found, (1..=50).collect::<Vec<_>>());
        assert_eq!((replayed.records, replayed.last, replayed.trouble), (50, 50, Vec::<String>::new()));
        assert_eq!(read(&place, 33).0, (34..=50).collect::<Vec<_>>());
        log.cut(33).expect("cuts");
        assert_eq!(read(&place, 33).0, (34..=50).collect::<Vec<_>>(), "what is needed stays");
        assert!(read(&place, 0).1.trouble[0].contains("not in the log"), "and the rest is missed");
    }
}

#[test]
fn one_commits_for_all_who_wait() {
    let place = place();
    let log = log(&place, 0, LogOptions::default());
    (1..=10).for_each(|sequence| log.append(sequence, tick(sequence)));
    log.commit(3).expect("kept");
    assert_eq!(read(&place, 0).0.len(), 10);
    std::thread::scope(|scope| {
        let order = Arc::new(Mutex::new(10));
        for _ in 0..8 {
            let (order, log) = (order.clone(), &log);
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut next = order.lock();
                    *next += 1;
                    let mine = *next;
                    log.append(mine, tick(mine));
                    drop(next);
                    log.commit(mine).expect("kept");
                }
            });
        }
    });
    assert_eq!(read(&place, 0).0, (1..=1610).collect::<Vec<_>>());
}

#[test]
fn a_log_goes_on_after_a_restart_in_a_new_segment() {
    let place = place();
    write(&log(&place, 0, LogOptions::default()), 1..=5);
    write(&log(&place, 5, LogOptions::default()), 6..=9);
    assert_eq!(files(&place).len(), 2);
    assert_eq!(read(&place, 0).0, (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_torn_end_is_cut_wherever_it_is() {
    let place = place();
    write(&log(&place, 0, LogOptions::default()), 1..=3);
    let path = files(&place).remove(0);
    let whole = std::fs::read(&path).expect("reads");
    let third = HEAD + (whole.len() - HEAD) / 3 * 2;
    for at in third + 1..whole.len() {
        std::fs::write(&path, &whole[..at]).expect("writes");
        let (found, replayed) = read(&place, 0);
        assert_eq!(found, [1, 2], "cut at {at}");
        assert!(replayed.trouble[0].contains("cut off"), "{:?}", replayed.trouble);
        assert_eq!(read(&place, 0).1.trouble, Vec::<String>::new(), "and then it is well");
    }
    // Space that was allocated and never written.
    std::fs::write(&path, [&whole[..third], &[0; 500]].concat()).expect("writes");
    assert_eq!(read(&place, 0).0, [1, 2]);
    assert!(!path.with_extension("log.corrupt").exists());
    // Not even the head.
    std::fs::write(&path, &whole[..HEAD / 2]).expect("writes");
    assert_eq!(read(&place, 0).0, [0; 0]);
    assert!(!path.exists());
}

#[test]
fn damage_is_set_aside_and_what_follows_is_read() {
    let place = place();
    write(&log(&place, 0, LogOptions { segment_bytes: 200, ..LogOptions::default() }), 1..=9);
    let first = files(&place).remove(0);
    let mut bytes = std::fs::read(&first).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&first, &bytes).expect("writes");
    let inspected = segments(place.path()).expect("inspects");
    assert!(matches!(inspected[0].end, End::Damaged { .. }), "{:?}", inspected[0]);
    let (found, replayed) = read(&place, 0);
    let lost: Vec<u64> = (1..=9).filter(|sequence| !found.contains(sequence)).collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(replayed.trouble.len(), 3, "{:?}", replayed.trouble);
    assert!(first.with_extension("log.corrupt").exists());
}

#[test]
fn a_flipped_bit_costs_one_record_wherever_it_is() {
    let place = place();
    write(&log(&place, 0, LogOptions::default()), 1..=4);
    let path = files(&place).remove(0);
    let whole = std::fs::read(&path).expect("reads");
    let record = (whole.len() - HEAD) / 4;
    for at in HEAD..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 16;
        std::fs::write(&path, &bytes).expect("writes");
        let hit = ((at - HEAD) / record) as u64 + 1;
        let found = read(&place, 0);
        assert_eq!(found.0, (1..=4).filter(|sequence| *sequence != hit).collect::<Vec<_>>(), "byte {at}");
        assert!(found.1.trouble.iter().any(|said| said.contains("at byte")), "{:?}", found.1.trouble);
        let again = read(&place, 0);
        assert_eq!(again.0, found.0, "byte {at}: the same once more");
    }
}

#[test]
fn segments_of_another_state_are_not_read() {
    let place = place();
    write(&Log::new(place.path(), 5, 0, LogOptions::default()), 1..=3);
    let (found, replayed) = read(&place, 0);
    assert!(found.is_empty() && replayed.trouble[0].contains("another state"));
    assert!(files(&place).is_empty());
}

#[test]
fn a_full_disk_degrades_or_refuses_and_recovers() {
    for (on_disk_full, kept) in [(OnDiskFull::Degrade, true), (OnDiskFull::Refuse, false)] {
        let place = place();
        let log = log(&place, 0, LogOptions { on_disk_full, ..LogOptions::default() });
        write(&log, 1..=2);
        log.full.clone().store(true, SeqCst);
        for sequence in 3..=4 {
            log.append(sequence, tick(sequence));
            assert_eq!(log.commit(sequence).is_ok(), kept);
        }
        assert!(log.failing() && log.refuses() != kept && log.has_hole());
        log.probe();
        assert!(log.failing(), "the disk is still full");
        log.full.clone().store(false, SeqCst);
        log.probe();
        assert!(!log.failing() && log.set_hole(false) && !log.has_hole());
        write(&log, 5..=6);
        assert_eq!(log.stats().lost.load(Relaxed), 2);
        let (found, replayed) = read(&place, 0);
        assert_eq!(found, [1, 2, 5, 6]);
        assert!(replayed.trouble[0].contains("records 3 to 4"), "{:?}", replayed.trouble);
    }
}
