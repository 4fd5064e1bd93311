//! Sends a fleet step by step: at the pace of its interval, faster, or as fast as it is accepted.

use super::SimulateError;
use super::fleet::Fleet;
use super::random::Stream;
use super::sender::Sender;
use super::trouble::{Trouble, describe};
use crate::wire::{Version, frame};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a run is sent.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The receiver.
    pub url: String,
    /// The protocol.
    pub version: Version,
    /// First step.
    pub start: i64,
    /// Number of steps; `None` runs until it is stopped.
    pub steps: Option<i64>,
    /// Simulated seconds in a real one; 0 sends as fast as it is accepted.
    pub speed: f64,
    /// Most samples a second; 0 for no limit.
    pub rate: f64,
    /// Connections; each has its own series.
    pub senders: usize,
    /// Series in a request.
    pub batch: usize,
    /// Whether the series of a request are in random order.
    pub shuffle: bool,
    /// How long a request is tried.
    pub patience: Duration,
}

impl RunOptions {
    /// A run as fast as it is accepted, over one connection.
    pub fn fast(url: &str, version: Version, start: i64, steps: i64) -> RunOptions {
        RunOptions {
            url: url.to_string(),
            version,
            start,
            steps: Some(steps),
            speed: 0.0,
            rate: 0.0,
            senders: 1,
            batch: 2000,
            shuffle: false,
            patience: Duration::from_secs(300),
        }
    }
}

/// Counts of a run, readable while it runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Samples accepted.
    pub samples: AtomicU64,
    /// Requests accepted.
    pub requests: AtomicU64,
    /// Tries that failed and were repeated.
    pub retries: AtomicU64,
    /// Requests given up or refused.
    pub failures: AtomicU64,
    /// Steps every sender has sent.
    pub steps: AtomicU64,
    /// Tries that failed, those of requests still being tried among them.
    pub trouble: Trouble,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct RunReport {
    /// Samples accepted.
    pub samples: u64,
    /// Requests accepted.
    pub requests: u64,
    /// Tries that failed and were repeated.
    pub retries: u64,
    /// Requests given up or refused.
    pub failures: u64,
    /// What the receiver said to the first of them.
    pub first_failure: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
    /// Samples accepted a second.
    pub samples_per_second: f64,
}

/// Splits a fleet's series over senders and requests: every series has one sender.
pub(super) fn shards(fleet: &Fleet, senders: usize, shuffle: bool) -> Vec<Vec<u32>> {
    let senders = senders.clamp(1, fleet.series());
    let mut shards = vec![Vec::with_capacity(fleet.series() / senders + 1); senders];
    let mut order: Vec<u32> = (0..fleet.series() as u32).collect();
    if shuffle {
        Stream(fleet.options().seed).shuffle(&mut order);
    }
    for (at, series) in order.into_iter().enumerate() {
        shards[at % senders].push(series);
    }
    shards
}

/// A compressed request.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Its body.
    pub bytes: Bytes,
    /// Samples in it.
    pub samples: u64,
    /// The step they are of.
    pub step: i64,
    /// Its number among the sender's requests of that step.
    pub chunk: usize,
}

/// Encodes and compresses the requests of one sender for one step.
pub(super) fn frames(
    fleet: &Fleet,
    version: Version,
    series: &[u32],
    batch: usize,
    step: i64,
) -> impl Iterator<Item = Result<Frame, SimulateError>> {
    series.chunks(batch.max(1)).enumerate().filter_map(move |(chunk, series)| {
        let body = fleet.body(version, series, step);
        let pack = || {
            let bytes = Bytes::from(frame::compress_snappy(&body.bytes)?);
            Ok(Frame { bytes, samples: body.samples, step, chunk })
        };
        (body.samples > 0).then(pack)
    })
}

/// Sends the fleet until its steps are done or `stop` is set; also ends when a request is given up and
/// none was ever accepted. `counts` can be read meanwhile.
///
/// # Errors
/// The receiver's address is not usable, or a body cannot be encoded. Refused requests are counted.
pub async fn run(
    fleet: Arc<Fleet>,
    options: RunOptions,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
) -> Result<RunReport, SimulateError> {
    let started = Instant::now();
    let shards = shards(&fleet, options.senders, options.shuffle);
    let total = shards.len();
    let mut tasks = tokio::task::JoinSet::<Result<(), SimulateError>>::new();
    let first_failure = Arc::new(parking_lot::Mutex::new(None));
    for (number, series) in shards.into_iter().enumerate() {
        let sender = Sender::new(&options.url, options.version, options.patience)?;
        let (fleet, options, counts) = (fleet.clone(), options.clone(), counts.clone());
        let (stop, first_failure) = (stop.clone(), first_failure.clone());
        tasks.spawn(async move {
            let share = series.len() as f64 / fleet.series() as f64;
            let mut sent = 0.0;
            for offset in 0..options.steps.unwrap_or(i64::MAX) {
                if options.speed > 0.0 {
                    let due = offset as f64 * fleet.options().interval.as_secs_f64() / options.speed;
                    wait_until(started, due, &stop).await;
                }
                for item in frames(&fleet, options.version, &series, options.batch, options.start + offset) {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let Frame { bytes, samples, .. } = item?;
                    if options.rate > 0.0 {
                        wait_until(started, sent / (options.rate * share), &stop).await;
                    }
                    let answer = sender.send_until(bytes, &stop, &counts.trouble).await;
                    sent += samples as f64;
                    counts.retries.fetch_add(answer.retries, Ordering::Relaxed);
                    if answer.accepted() {
                        counts.samples.fetch_add(samples, Ordering::Relaxed);
                        counts.requests.fetch_add(1, Ordering::Relaxed);
                    } else {
                        counts.failures.fetch_add(1, Ordering::Relaxed);
                        first_failure.lock().get_or_insert(describe(answer.status, &answer.message));
                        if answer.given_up() && counts.requests.load(Ordering::Relaxed) == 0 {
                            // Nothing has ever got through: the next request would wait as long.
                            return Ok(());
                        }
                    }
                }
                if number + 1 == total {
                    counts.steps.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| SimulateError::Send(format!("a sender ended early: {error}")))??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let samples = counts.samples.load(Ordering::Relaxed);
    let first_failure = first_failure.lock().take();
    Ok(RunReport {
        samples,
        requests: counts.requests.load(Ordering::Relaxed),
        retries: counts.retries.load(Ordering::Relaxed),
        failures: counts.failures.load(Ordering::Relaxed),
        first_failure,
        seconds,
        samples_per_second: samples as f64 / seconds.max(1e-9),
    })
}

/// Sleeps until `seconds` after `started`, or until `stop`.
async fn wait_until(started: Instant, seconds: f64, stop: &AtomicBool) {
    const LOOK: Duration = Duration::from_millis(200);
    let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    while let Some(left) = due.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::FleetOptions;
    use super::*;

    #[tokio::test]
    async fn a_run_to_nowhere_ends_and_says_so() {
        let fleet = Fleet::new(FleetOptions { series: 10, ..Default::default() }).expect("valid");
        let fast = RunOptions::fast("http://127.0.0.1:1/api/v1/write", Version::V2, 0, 1_000);
        let options = RunOptions { patience: Duration::from_millis(100), batch: 2, ..fast };
        let counts = Arc::new(Counts::default());
        let report = run(Arc::new(fleet), options, counts.clone(), Arc::default()).await.expect("ends");
        assert_eq!((report.samples, report.requests, report.failures), (0, 0, 1));
        assert!(report.first_failure.is_some_and(|what| what.starts_with("no answer: ")));
        assert_eq!(counts.trouble.tries(), report.retries + 1);
    }

    #[test]
    fn every_series_has_exactly_one_sender() {
        let fleet = Fleet::new(FleetOptions { series: 1003, ..Default::default() }).expect("valid");
        for (senders, shuffle) in [(1, false), (4, false), (4, true), (2000, true)] {
            let shards = shards(&fleet, senders, shuffle);
            let mut all = shards.concat();
            assert_eq!(all.windows(2).all(|pair| pair[0] < pair[1]), !shuffle && senders == 1);
            all.sort_unstable();
            assert_eq!(all, (0..1003).collect::<Vec<u32>>(), "{senders} senders");
        }
    }
}
