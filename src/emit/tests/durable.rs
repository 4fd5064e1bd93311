//! The queue on disk: whatever happens, each sample arrives once and in order, or is counted.

use super::super::mock::Reply;
use super::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU16;

fn dir(path: &Path) -> Option<QueueDir> {
    Some(QueueDir { path: path.join("queue"), incarnation: 1, fsync: crate::state::Fsync::Never })
}

/// A receiver that answers with a status that can be changed: 204 takes what comes.
async fn switched(first: u16) -> (Mock, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(first));
    let answer = status.clone();
    let mock = Mock::new(move |_, got| match answer.load(Relaxed) {
        204 => accept(got),
        0 => mock_reset(),
        status => reply(status),
    });
    (mock.await, status)
}

fn named(mock: &Mock) -> RemoteWriteConfig {
    let mut config = mock.config_with(|http| http.name = "prometheus".into());
    config.queue.max_samples_per_send = 20;
    config
}

/// Three samples of each of the partitions' own series, at times that grow with the sequence.
fn take(emitter: &Emitter, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        for partition in 0..5u16 {
            let (series, at) = (format!("s{partition}"), sequence as i64 * 3);
            emitter.take(&batch(partition, sequence, &[(&series, at), (&series, at + 1), (&series, at + 2)]));
        }
    }
}

/// Each sample of these sequences arrived once and in order, in the requests that were accepted.
fn all_once(got: &[Got], sequences: std::ops::Range<u64>) {
    let wanted: Vec<i64> = (sequences.start as i64 * 3..sequences.end as i64 * 3).collect();
    for partition in 0..5 {
        assert_eq!(times(got, &format!("s{partition}")), wanted, "partition {partition}");
    }
}

fn accepted(mock: &Mock) -> Vec<Got> {
    mock.requests().into_iter().flat_map(|request| request.samples).collect()
}

fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(path.join("queue")).expect("queues").map(|entry| entry.expect("entry")) {
        let inside =
            std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry").path());
        found.extend(inside.filter(|path| path.to_string_lossy().ends_with(suffix)));
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_was_pending_is_sent_after_a_restart_once_and_in_order() {
    for (crash, protocol) in [(false, Protocol::Auto), (true, Protocol::Auto), (true, Protocol::V1)] {
        let home = tempfile::tempdir().expect("dir");
        let (mock, status) = switched(503).await;
        let config = RemoteWriteConfig { protocol, ..named(&mock) };
        let emitter = Emitter::new(vec![config.clone()], dir(home.path())).expect("valid");
        assert_eq!(emitter.newest_sequence(), 0);
        emitter.start();
        take(&emitter, 0..20);
        until(|| one(&emitter).retries > 0).await;
        if crash {
            emitter.persist().expect("persisted");
            assert_eq!((one(&emitter).spilled, one(&emitter).pending_bytes), (300, 0), "all on disk");
            // What comes after the checkpoint is lost with the process, and made again.
            take(&emitter, 20..30);
        } else {
            take(&emitter, 20..30);
            let left = emitter.shutdown(Duration::ZERO).await;
            assert_eq!(left, [Undelivered { target: "prometheus".into(), samples: 450, kept: true }]);
        }
        drop(emitter);
        // One that is still on its way would be taken after all, and nobody told of it.
        until(|| mock.open.load(Relaxed) == 0).await;
        mock.received.lock().clear();
        status.store(204, Relaxed);

        let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
        assert_eq!(emitter.newest_sequence(), if crash { 19 } else { 29 });
        assert_eq!(one(&emitter).pending_samples, if crash { 300 } else { 450 });
        // The replay makes again what the log has, and the queue knows what it has already.
        take(&emitter, 10..40);
        emitter.start();
        drained(&emitter).await;
        all_once(&accepted(&mock), 0..40);
        assert_eq!(acked(&emitter), (0..5).map(|partition| (partition, 39)).collect());
    }
}

#[tokio::test]
async fn an_acknowledgement_is_known_after_a_kill() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, status) = switched(204).await;
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    emitter.start();
    take(&emitter, 0..10);
    drained(&emitter).await;
    // No persist, no shutdown: as after kill -9.
    drop(emitter);
    status.store(503, Relaxed);
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    assert_eq!(emitter.newest_sequence(), 9);
    take(&emitter, 0..10);
    assert_eq!(one(&emitter).pending_samples, 0);
    all_once(&accepted(&mock), 0..10);
}

#[tokio::test]
async fn a_request_in_flight_is_persisted_and_not_sent_twice() {
    let home = tempfile::tempdir().expect("dir");
    let mock = Mock::new(|_, got| Reply { delay: Duration::from_millis(300), ..accept(got) }).await;
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    emitter.start();
    take(&emitter, 0..4);
    until(|| !mock.requests().is_empty()).await;
    emitter.persist().expect("persisted");
    take(&emitter, 4..8);
    emitter.persist().expect("persisted");
    assert!(one(&emitter).disk_bytes > 0);
    drained(&emitter).await;
    all_once(&accepted(&mock), 0..8);
    assert_eq!(acked(&emitter), (0..5).map(|partition| (partition, 7)).collect());
    emitter.persist().expect("persisted");
    assert_eq!((one(&emitter).disk_bytes, files(home.path(), ".seg").len()), (0, 0), "nothing is kept");
}

#[tokio::test]
async fn too_much_for_memory_goes_to_the_disk_and_keeps_its_order() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, status) = switched(0).await;
    let mut config = named(&mock);
    // A round is some 33 kB, and the hard bound is twice this.
    (config.queue.max_memory_bytes, config.queue.max_shards) = (40_000, 1);
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    emitter.start();
    for round in 0..20 {
        take(&emitter, round * 10..round * 10 + 10);
        until(|| one(&emitter).pending_bytes < 45_000).await;
    }
    let figures = one(&emitter);
    assert!(figures.spilled > 2_000, "{figures:?}");
    assert_eq!((figures.pending_samples, figures.dropped.iter().map(|(_, n)| n).sum()), (3_000, 0u64));
    assert!(figures.pending_bytes < 45_000 && figures.disk_bytes > 0, "{figures:?}");
    mock.received.lock().clear();
    status.store(204, Relaxed);
    take(&emitter, 200..210);
    drained(&emitter).await;
    let got: BTreeMap<(String, i64), f64> =
        accepted(&mock).into_iter().map(|(labels, at, value)| ((labels, at), value)).collect();
    assert_eq!(got.len(), 3_150);
    // A request that was under way when the receiver changed its mind may be there twice.
    let mut seen = accepted(&mock);
    let mut met = std::collections::HashSet::new();
    seen.retain(|(labels, at, _)| met.insert((labels.clone(), *at)));
    all_once(&seen, 0..210);
    until(|| one(&emitter).disk_bytes == 0 || emitter.persist().is_err()).await;
}

#[tokio::test]
async fn the_queue_on_disk_is_bounded_and_what_it_drops_is_counted() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, status) = switched(503).await;
    let mut config = named(&mock);
    // Segments of 64 KiB at least, so a few of them.
    config.queue.max_disk_bytes = 200_000;
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    emitter.start();
    let mut sequence = 0;
    while count(&one(&emitter).dropped, "disk_capacity") == 0 {
        take(&emitter, sequence..sequence + 20);
        sequence += 20;
        emitter.persist().expect("persisted");
        assert!(one(&emitter).disk_bytes < 300_000);
    }
    status.store(204, Relaxed);
    mock.received.lock().clear();
    drained(&emitter).await;
    let (figures, got) = (one(&emitter), accepted(&mock));
    let dropped = count(&figures.dropped, "disk_capacity");
    assert_eq!(figures.accepted + dropped, sequence * 15);
    for partition in 0..5 {
        let times = times(&got, &format!("s{partition}"));
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(times.last(), Some(&(sequence as i64 * 3 - 1)), "the newest stay");
    }
    assert_eq!(acked(&emitter), (0..5).map(|partition| (partition, sequence - 1)).collect());
}

#[tokio::test]
async fn age_counts_from_the_time_of_queueing_across_a_restart() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(503).await;
    let mut config = named(&mock);
    let emitter = Emitter::new(vec![config.clone()], dir(home.path())).expect("valid");
    take(&emitter, 0..4);
    emitter.persist().expect("persisted");
    drop(emitter);
    tokio::time::sleep(Duration::from_millis(60)).await;
    config.queue.sample_age_limit = Span(50);
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    assert_eq!(one(&emitter).pending_samples, 60);
    assert!(one(&emitter).oldest_pending >= Span(50));
    emitter.start();
    drained(&emitter).await;
    assert_eq!((count(&one(&emitter).dropped, "age"), mock.requests().len()), (60, 0));
    assert_eq!(acked(&emitter), (0..5).map(|partition| (partition, 3)).collect());
}

/// Persists two blocks of different partitions and gives the segment.
fn two_blocks(home: &Path, config: &RemoteWriteConfig) -> PathBuf {
    let emitter = Emitter::new(vec![config.clone()], dir(home)).expect("valid");
    take(&emitter, 0..2);
    emitter.persist().expect("persisted");
    take(&emitter, 2..4);
    emitter.persist().expect("persisted");
    files(home, ".seg").remove(0)
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_made_again() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(204).await;
    let mut config = named(&mock);
    config.queue.max_shards = 1;
    let segment = two_blocks(home.path(), &config);
    let len = std::fs::metadata(&segment).expect("there").len();
    std::fs::File::options().write(true).open(&segment).and_then(|f| f.set_len(len - 3)).expect("cut");
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    assert!(files(home.path(), ".corrupt").is_empty());
    // Which of the last batches were in the block that is gone, the queue knows.
    take(&emitter, 0..5);
    emitter.start();
    drained(&emitter).await;
    all_once(&accepted(&mock), 0..5);
}

#[tokio::test]
async fn a_broken_segment_is_set_aside_and_its_good_blocks_are_sent() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(204).await;
    let mut config = named(&mock);
    config.queue.max_shards = 1;
    let segment = two_blocks(home.path(), &config);
    let mut bytes = std::fs::read(&segment).expect("read");
    // In the first block's payload, behind the segment's header.
    let at = bytes.windows(4).position(|four| four == b"qblk").expect("a block") + 300;
    bytes[at] ^= 0x10;
    std::fs::write(&segment, &bytes).expect("write");
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    assert_eq!(files(home.path(), ".seg.corrupt").len(), 1);
    let pending = one(&emitter).pending_samples;
    assert!((1..60).contains(&pending), "{pending}");
    take(&emitter, 4..6);
    emitter.start();
    drained(&emitter).await;
    let got = accepted(&mock);
    assert_eq!(got.len() as u64, pending + 30);
    for partition in 0..5 {
        let times = times(&got, &format!("s{partition}"));
        assert!(times.is_sorted_by(|a, b| a < b) && times.ends_with(&[12, 13, 14, 15, 16, 17]), "{times:?}");
    }
}

#[tokio::test]
async fn a_block_that_breaks_while_it_waits_is_counted() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(204).await;
    let mut config = named(&mock);
    config.queue.max_shards = 1;
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    take(&emitter, 0..4);
    emitter.persist().expect("persisted");
    let segment = files(home.path(), ".seg").remove(0);
    let mut bytes = std::fs::read(&segment).expect("read");
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("write");
    emitter.start();
    drained(&emitter).await;
    let figures = one(&emitter);
    assert!(count(&figures.dropped, "corrupt") > 0);
    assert_eq!(figures.accepted + count(&figures.dropped, "corrupt"), 60);
}

#[tokio::test]
async fn another_incarnation_starts_anew_and_sends_what_was_queued() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(204).await;
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    take(&emitter, 90..100);
    emitter.persist().expect("persisted");
    drop(emitter);
    let next = || Some(QueueDir { incarnation: 2, ..dir(home.path()).expect("some") });
    let emitter = Emitter::new(vec![named(&mock)], next()).expect("valid");
    assert_eq!(emitter.newest_sequence(), 99);
    // Its own numbers mean nothing here, even where the engine used them again.
    take(&emitter, 100..103);
    emitter.start();
    drained(&emitter).await;
    all_once(&accepted(&mock), 90..103);
    assert_eq!(acked(&emitter), (0..5).map(|partition| (partition, 102)).collect());
    drop(emitter);
    let emitter = Emitter::new(vec![named(&mock)], next()).expect("valid");
    assert_eq!((one(&emitter).pending_samples, emitter.newest_sequence()), (0, 102));
}

#[tokio::test]
async fn a_queue_whose_target_is_gone_is_removed() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(503).await;
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    take(&emitter, 0..4);
    emitter.persist().expect("persisted");
    assert_eq!(files(home.path(), ".seg").len(), 1);
    let other = mock.config_with(|http| http.name = "a/b: c".into());
    emitter.reload(vec![other.clone()]).expect("valid");
    assert_eq!(files(home.path(), ".seg").len(), 0, "by a reload");
    take(&emitter, 4..6);
    emitter.persist().expect("persisted");
    drop(emitter);
    let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
    assert_eq!(files(home.path(), ".seg").len(), 0, "by a start");
    assert_eq!(one(&emitter).pending_samples, 0);
}

#[tokio::test]
async fn a_reload_takes_the_queue_along_whatever_the_number_of_shards() {
    let home = tempfile::tempdir().expect("dir");
    let (down, _) = switched(503).await;
    let (up, _) = switched(204).await;
    let mut config = named(&down);
    config.queue.max_shards = 2;
    let emitter = Emitter::new(vec![config.clone()], dir(home.path())).expect("valid");
    emitter.start();
    take(&emitter, 0..10);
    emitter.persist().expect("persisted");
    take(&emitter, 10..15);
    until(|| one(&emitter).retries > 0).await;
    (config.http.url, config.queue.max_shards) = (up.config().http.url, 3);
    emitter.reload(vec![config.clone()]).expect("valid");
    drained(&emitter).await;
    all_once(&accepted(&up), 0..15);
    assert_eq!(one(&emitter).accepted, 225);
    // And across a restart.
    config.http.url = down.config().http.url;
    emitter.reload(vec![config.clone()]).expect("valid");
    take(&emitter, 15..20);
    emitter.persist().expect("persisted");
    drop(emitter);
    (config.http.url, config.queue.max_shards) = (up.config().http.url, 1);
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    emitter.start();
    drained(&emitter).await;
    all_once(&accepted(&up), 0..20);
}

#[tokio::test]
async fn a_disk_that_fails_costs_nothing_while_memory_lasts() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, status) = switched(503).await;
    let mut config = named(&mock);
    config.queue.max_memory_bytes = 20_000;
    let emitter = Emitter::new(vec![config], dir(home.path())).expect("valid");
    emitter.start();
    // No segment can be made where its folder is none.
    let folder = files(home.path(), "acks").remove(0).parent().expect("folder").to_path_buf();
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away).expect("moved");
    take(&emitter, 0..4);
    assert!(emitter.persist().is_err());
    assert!(one(&emitter).disk_failing);
    let mut sequence = 4;
    while count(&one(&emitter).dropped, "capacity") == 0 {
        take(&emitter, sequence..sequence + 1);
        sequence += 1;
        assert!(one(&emitter).pending_bytes <= 50_000, "bounded");
    }
    std::fs::rename(&away, &folder).expect("moved back");
    until(|| !one(&emitter).disk_failing).await;
    emitter.persist().expect("works again");
    status.store(204, Relaxed);
    mock.received.lock().clear();
    drained(&emitter).await;
    let figures = one(&emitter);
    assert_eq!(figures.accepted + count(&figures.dropped, "capacity"), sequence * 15);
}

#[tokio::test]
async fn files_of_another_version_are_refused_with_what_to_do() {
    let home = tempfile::tempdir().expect("dir");
    let (mock, _) = switched(204).await;
    let segment = two_blocks(home.path(), &named(&mock));
    let mut bytes = std::fs::read(&segment).expect("read");
    bytes[8] = 2;
    std::fs::write(&segment, &bytes).expect("write");
    let error = Emitter::new(vec![named(&mock)], dir(home.path())).err().expect("refused").to_string();
    assert!(error.contains("another version of oddity (format 2; this one reads 1)"), "{error}");
    assert_eq!(std::fs::read(&segment).expect("still there"), bytes);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_retried_until_it_does() {
    let (up, _) = switched(204).await;
    let mut config = named(&up);
    config.http.url = "http://no-such-host.invalid/api/v1/write".into();
    let emitter = started(vec![config.clone(), up.config_with(|http| http.name = "other".into())]);
    take(&emitter, 0..3);
    until(|| one(&emitter).retries > 1).await;
    until(|| emitter.snapshot()[1].accepted == 45).await;
    assert_eq!((one(&emitter).accepted, one(&emitter).down), (0, true));
    up.received.lock().clear();
    config.http.url = up.config().http.url;
    emitter.reload(vec![config]).expect("valid");
    drained(&emitter).await;
    all_once(&accepted(&up), 0..3);
}

#[tokio::test]
async fn a_timeout_is_retried() {
    let slow = |n: usize| Duration::from_secs(if n == 0 { 3600 } else { 0 });
    let mock = Mock::new(move |n, got| Reply { delay: slow(n), ..accept(got) }).await;
    let mut config = named(&mock);
    (config.http.timeout, config.queue.max_shards) = (Span(50), 1);
    let emitter = started(vec![config]);
    emitter.take(&batch(0, 1, &[("a", 1)]));
    drained(&emitter).await;
    let figures = one(&emitter);
    assert_eq!(
        (figures.accepted, mock.requests().len() > 1, count(&figures.requests, "error") > 0),
        (1, true, true)
    );
}

/// Whatever a receiver does, and however often the process dies and the record is replayed: it holds
/// every sample, no time of a series comes before an earlier one, and nothing has two values.
#[tokio::test]
async fn nothing_is_missing_after_crashes_at_any_time() {
    let home = tempfile::tempdir().expect("dir");
    let mock = Mock::new(|n, got| match n % 7 {
        1 => reply(503),
        3 => mock_reset(),
        4 => reply(429).with("Retry-After", 0),
        _ => accept(got),
    })
    .await;
    let (mut from, to) = (0, 120);
    for round in 0..6u64 {
        let emitter = Emitter::new(vec![named(&mock)], dir(home.path())).expect("valid");
        emitter.start();
        // The checkpoint before this one; the log is replayed from there.
        let reached = (round + 1) * to / 6;
        take(&emitter, from..reached - 7);
        emitter.persist().expect("persisted");
        take(&emitter, reached - 7..reached);
        from = reached - 7;
        if round % 2 == 0 {
            until(|| one(&emitter).accepted > 0).await;
        }
        if round == 5 {
            drained(&emitter).await;
        }
        drop(emitter);
    }
    let held = accepted(&mock);
    for partition in 0..5 {
        let mut first: Vec<i64> = Vec::new();
        for at in times(&held, &format!("s{partition}")) {
            if !first.contains(&at) {
                first.push(at);
            }
        }
        assert_eq!(first, (0..to as i64 * 3).collect::<Vec<_>>());
    }
}
