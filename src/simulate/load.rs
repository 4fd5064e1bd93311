//! Rounds of frames, encoded beforehand and then sent: as fast as they are accepted, or at a rate.

use super::SimulateError;
use super::bench::BenchOptions;
use super::fleet::Fleet;
use super::run::{Frame, frames};
use super::sender::Sender;
use super::trouble::{Trouble, describe};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What became of requests.
#[derive(Default)]
pub(super) struct Tally {
    /// Samples accepted.
    pub samples: u64,
    /// Requests accepted.
    pub requests: u64,
    /// Requests that were not.
    pub failures: u64,
    /// Tries that failed and were repeated.
    pub retries: u64,
    /// How long each request took.
    pub took: Vec<Duration>,
    /// When each was due.
    pub due: Vec<Due>,
    /// What the receiver said to the first that it refused.
    pub refusal: Option<String>,
}

/// When a request was due: at a rate by that rate, else when it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The step of its samples.
    pub step: i64,
    /// The sender's number.
    pub sender: usize,
    /// Its number among the sender's requests of that step.
    pub chunk: usize,
    /// The time.
    pub at: Instant,
}

/// One sender's frames of some rounds.
pub(super) type Load = Vec<Frame>;

/// Encodes some rounds for every sender, each on a thread of its own.
pub(super) async fn encode(
    fleet: &Arc<Fleet>,
    options: &BenchOptions,
    shards: &Arc<Vec<Vec<u32>>>,
    first: i64,
    rounds: i64,
) -> Result<Vec<Load>, SimulateError> {
    let (version, batch) = (options.version, options.batch);
    let jobs: Vec<_> = (0..shards.len())
        .map(|shard| {
            let (fleet, shards) = (fleet.clone(), shards.clone());
            tokio::task::spawn_blocking(move || {
                (first..first + rounds)
                    .flat_map(|step| frames(&fleet, version, &shards[shard], batch, step))
                    .collect::<Result<Load, _>>()
            })
        })
        .collect();
    let mut loads = Vec::with_capacity(jobs.len());
    for job in jobs {
        loads.push(
            job.await.map_err(|error| SimulateError::Send(format!("an encoder ended early: {error}")))??,
        );
    }
    Ok(loads)
}

/// Sends every sender's load at once, all of them together at most `rate` samples a second (0: no limit),
/// and adds up what became of it.
pub(super) async fn send(
    senders: &[Sender],
    loads: Vec<Load>,
    rate: f64,
    trouble: &Arc<Trouble>,
    tally: &mut Tally,
) -> Result<(), SimulateError> {
    let mut tasks = tokio::task::JoinSet::new();
    let samples = |load: &Load| load.iter().map(|frame| frame.samples).sum::<u64>();
    let all: u64 = loads.iter().map(samples).sum();
    let started = Instant::now();
    for (number, (sender, load)) in senders.iter().cloned().zip(loads).enumerate() {
        let trouble = trouble.clone();
        let own = rate * samples(&load) as f64 / all.max(1) as f64;
        tasks.spawn(one(sender, number, load, own, started, trouble));
    }
    while let Some(done) = tasks.join_next().await {
        let part = done.map_err(|error| SimulateError::Send(format!("a sender ended early: {error}")))?;
        tally.samples += part.samples;
        tally.requests += part.requests;
        tally.failures += part.failures;
        tally.retries += part.retries;
        tally.took.extend(part.took);
        tally.due.extend(part.due);
        tally.refusal = tally.refusal.take().or(part.refusal);
    }
    Ok(())
}

/// Sends one sender's load.
async fn one(
    sender: Sender,
    number: usize,
    load: Load,
    rate: f64,
    started: Instant,
    trouble: Arc<Trouble>,
) -> Tally {
    let (mut tally, mut sent) = (Tally::default(), 0.0);
    for Frame { bytes, samples, step, chunk } in load {
        let mut at = Instant::now();
        if rate > 0.0 {
            // What is late stays due when it was, so that a wait in the receiver is seen whole.
            let wait = Duration::try_from_secs_f64(sent / rate).unwrap_or_default();
            at = started.checked_add(wait).unwrap_or(started);
            tokio::time::sleep_until(at.into()).await;
        }
        sent += samples as f64;
        tally.due.push(Due { step, sender: number, chunk, at });
        let answer = sender.send_until(bytes, &AtomicBool::new(false), &trouble).await;
        tally.retries += answer.retries;
        if answer.accepted() {
            tally.requests += 1;
            tally.samples += samples;
            tally.took.push(answer.took);
        } else {
            tally.failures += 1;
            tally.refusal.get_or_insert(describe(answer.status, &answer.message));
            if answer.given_up() {
                break;
            }
        }
    }
    tally
}
