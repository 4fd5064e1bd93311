//! The load generator: sends rounds of frames that were encoded beforehand, and reads what the
//! server used meanwhile.

use super::SimulateError;
use super::fleet::Fleet;
use super::run::{frames, shards};
use super::sender::Sender;
use super::trouble::{Trouble, describe};
use crate::wire::Version;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Clock ticks a second in `/proc/<pid>/stat`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;
/// Seconds of sending from which samples a second are a figure and not noise.
const LEAST_SECONDS: f64 = 1.0;
/// CPU seconds from which they are: 20 ticks, told to a twentieth.
const LEAST_CPU: f64 = 0.2;
/// Requests from which one in a hundred is one.
const LEAST_REQUESTS: usize = 100;
/// Frames kept encoded at a time, in bytes; a round that is larger is still sent whole.
const FRAME_MEMORY: usize = 1 << 30;
/// Longest page read from the server's `/metrics`.
const METRICS_LIMIT: usize = 16 << 20;

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The receiver.
    pub url: String,
    /// The protocol.
    pub version: Version,
    /// The step of the last round.
    pub last: i64,
    /// Rounds before the measurement: one sample of every series each.
    pub warmup: i64,
    /// Rounds measured, at least 1.
    pub rounds: i64,
    /// Connections.
    pub senders: usize,
    /// Series in a request.
    pub batch: usize,
    /// Whether the series come in random order.
    pub shuffle: bool,
    /// The server's process; `None` asks its `/metrics`.
    pub server_pid: Option<u32>,
}

/// CPU and memory a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BenchReport {
    /// `1.0` or `2.0`.
    pub protocol: &'static str,
    /// Series sent.
    pub series: usize,
    /// Samples in the measured rounds.
    pub samples: u64,
    /// Requests in the measured rounds.
    pub requests: u64,
    /// Requests that were not accepted, in all rounds.
    pub failures: u64,
    /// Retried tries in the measured rounds.
    pub retries: u64,
    /// Seconds of sending in the measured rounds.
    pub seconds: f64,
    /// Samples accepted a second while sending; `None` under a second of sending.
    pub samples_per_second: Option<f64>,
    /// Half of the requests took at most this long, milliseconds.
    pub request_p50_ms: f64,
    /// 99 of 100 requests took at most this long, milliseconds; `None` with fewer requests than that.
    pub request_p99_ms: Option<f64>,
    /// The server's CPU time in the measured rounds, seconds.
    pub server_cpu_seconds: Option<f64>,
    /// The same a sample, microseconds; `None` where it was too little to be told exactly enough.
    pub server_cpu_us_per_sample: Option<f64>,
    /// The server's resident memory at the end, bytes.
    pub server_resident_bytes: Option<f64>,
    /// The same before the first request.
    pub server_resident_bytes_before: Option<f64>,
    /// Resident memory at the end over the number of series, all in.
    pub server_bytes_per_series: Option<f64>,
    /// What resident memory grew by from before the first request to the end, over the number of
    /// series; of use where the server knew none of them.
    pub server_growth_bytes_per_series: Option<f64>,
    /// What the run was too short to measure, and what to do; empty where it was long enough.
    pub too_short: Vec<String>,
    /// Why there are no figures of the server.
    pub usage_error: Option<String>,
}

/// Reads a process's usage from `/proc`.
///
/// # Errors
/// The process does not exist, or this is not Linux.
pub fn usage_of(pid: u32) -> Result<Usage, SimulateError> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).map_err(|error| SimulateError::Usage(format!("{path}: {error}")))
    };
    parse_proc(&read("stat")?, &read("status")?)
        .ok_or_else(|| SimulateError::Usage(format!("/proc/{pid} is not as expected")))
}

/// CPU from `stat`, memory from `status`.
fn parse_proc(stat: &str, status: &str) -> Option<Usage> {
    // The command's name may hold spaces and brackets: fields are counted after the last one.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Usage { cpu_seconds: ticks / TICKS, resident_bytes: kib * 1024.0 })
}

/// The same from a page of `/metrics`.
fn parse_metrics(page: &str) -> Option<Usage> {
    let value = |name: &str| {
        let line = page.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some(Usage {
        cpu_seconds: value("process_cpu_seconds_total")?,
        resident_bytes: value("process_resident_memory_bytes")?,
    })
}

async fn usage(sender: &Sender, pid: Option<u32>) -> Result<Usage, SimulateError> {
    match pid {
        Some(pid) => usage_of(pid),
        None => parse_metrics(&sender.get("/metrics", METRICS_LIMIT).await?).ok_or_else(|| {
            SimulateError::Usage("its /metrics has no process_* metrics; give --server-pid".into())
        }),
    }
}

#[derive(Default)]
struct Tally {
    samples: u64,
    requests: u64,
    failures: u64,
    retries: u64,
    took: Vec<Duration>,
    refusal: Option<String>,
}

/// One sender's frames of some rounds.
type Load = Vec<(Bytes, u64)>;

/// Runs the benchmark; `trouble` counts failed tries, `progress` is told the rounds done and in all.
///
/// # Errors
/// The address is not usable, a body cannot be encoded, or the receiver refuses requests.
pub async fn bench(
    fleet: Arc<Fleet>,
    options: BenchOptions,
    trouble: &Arc<Trouble>,
    progress: impl Fn(i64, i64),
) -> Result<BenchReport, SimulateError> {
    if options.rounds < 1 || options.warmup < 0 {
        return Err(SimulateError::Options("at least one round is measured".into()));
    }
    let shards = Arc::new(shards(&fleet, options.senders, options.shuffle));
    let patience = Duration::from_secs(120);
    let senders = (0..shards.len())
        .map(|_| Sender::new(&options.url, options.version, patience))
        .collect::<Result<Vec<_>, _>>()?;
    let control = Sender::new(&options.url, options.version, patience)?;
    let all = options.warmup + options.rounds;
    let first = options.last - all + 1;
    let mut usage_error = None;
    let mut note = |usage: Result<Usage, SimulateError>| {
        usage.map_err(|error| usage_error.get_or_insert(error.to_string()).clone()).ok()
    };
    let empty = note(usage(&control, options.server_pid).await);
    let (mut tally, mut seconds, mut before) = (Tally::default(), 0.0, None);
    let (mut round, mut per_load) = (0, 1);
    while round < all {
        let end = if round < options.warmup { options.warmup } else { all };
        let count = per_load.min(end - round);
        let loads = encode(&fleet, &options, &shards, first + round, count).await?;
        let size: usize = loads.iter().flatten().map(|(frame, _)| frame.len()).sum();
        per_load = (FRAME_MEMORY as i64 * count / size.max(1) as i64).clamp(1, 50);
        if round == options.warmup {
            before = note(usage(&control, options.server_pid).await);
            tally = Tally { failures: tally.failures, refusal: tally.refusal, ..Default::default() };
        }
        let started = Instant::now();
        send(&senders, loads, trouble, &mut tally).await?;
        if round >= options.warmup {
            seconds += started.elapsed().as_secs_f64();
        }
        if let Some(refusal) = &tally.refusal {
            return Err(SimulateError::Send(format!("the receiver refuses requests: {refusal}")));
        }
        round += count;
        progress(round, all);
    }
    let after = note(usage(&control, options.server_pid).await);
    tally.took.sort_unstable();
    let quantile = |q: f64| {
        let at = ((tally.took.len() as f64 * q).ceil() as usize).clamp(1, tally.took.len().max(1)) - 1;
        tally.took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    let cpu = before.zip(after).map(|(b, a)| a.cpu_seconds - b.cpu_seconds);
    let series = fleet.series() as f64;
    let (measured, too_short) = judge(tally.samples, tally.took.len(), seconds, cpu);
    Ok(BenchReport {
        protocol: if options.version == Version::V1 { "1.0" } else { "2.0" },
        series: fleet.series(),
        samples: tally.samples,
        requests: tally.requests,
        failures: tally.failures,
        retries: tally.retries,
        seconds,
        samples_per_second: measured.samples_per_second,
        request_p50_ms: quantile(0.5),
        request_p99_ms: measured.tail.then(|| quantile(0.99)),
        server_cpu_seconds: cpu,
        server_cpu_us_per_sample: measured.cpu_us_per_sample,
        server_resident_bytes: after.map(|usage| usage.resident_bytes),
        server_resident_bytes_before: empty.map(|usage| usage.resident_bytes),
        server_bytes_per_series: after.map(|usage| usage.resident_bytes / series),
        server_growth_bytes_per_series: empty
            .zip(after)
            .map(|(before, after)| (after.resident_bytes - before.resident_bytes) / series),
        too_short,
        usage_error,
    })
}

/// The figures that a run is long enough for.
#[derive(Debug, PartialEq)]
struct Measured {
    samples_per_second: Option<f64>,
    tail: bool,
    cpu_us_per_sample: Option<f64>,
}

/// Keeps the figures that mean something, and says why the others do not.
fn judge(samples: u64, requests: usize, seconds: f64, cpu: Option<f64>) -> (Measured, Vec<String>) {
    let mut short = Vec::new();
    let mut enough = |enough: bool, what: String| {
        if !enough {
            short.push(format!("too short to measure {what}: give more --rounds or --series"));
        }
        enough
    };
    let long = seconds >= LEAST_SECONDS && samples > 0;
    let long =
        enough(long, format!("samples a second ({seconds:.2} s of sending; at least {LEAST_SECONDS} s)"));
    let tail = requests >= LEAST_REQUESTS;
    let tail = enough(tail, format!("the 99th percentile ({requests} requests; at least {LEAST_REQUESTS})"));
    let cpu = cpu.filter(|cpu| {
        let exact = *cpu >= LEAST_CPU && samples > 0;
        enough(
            exact,
            format!("the server's CPU ({cpu:.2} s, counted in steps of 10 ms; at least {LEAST_CPU} s)"),
        )
    });
    let measured = Measured {
        samples_per_second: long.then(|| samples as f64 / seconds),
        tail,
        cpu_us_per_sample: cpu.map(|cpu| cpu * 1e6 / samples as f64),
    };
    (measured, short)
}

/// Encodes some rounds for every sender, each on a thread of its own.
async fn encode(
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

/// Sends every sender's load at once and adds up what became of it.
async fn send(
    senders: &[Sender],
    loads: Vec<Load>,
    trouble: &Arc<Trouble>,
    tally: &mut Tally,
) -> Result<(), SimulateError> {
    let mut tasks = tokio::task::JoinSet::new();
    for (sender, load) in senders.iter().cloned().zip(loads) {
        let trouble = trouble.clone();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for (frame, samples) in load {
                let sent = sender.send_until(frame, &AtomicBool::new(false), &trouble).await;
                tally.retries += sent.retries;
                if sent.accepted() {
                    tally.requests += 1;
                    tally.samples += samples;
                    tally.took.push(sent.took);
                } else {
                    tally.failures += 1;
                    tally.refusal.get_or_insert(describe(sent.status, &sent.message));
                    if sent.given_up() {
                        break;
                    }
                }
            }
            tally
        });
    }
    while let Some(done) = tasks.join_next().await {
        let part = done.map_err(|error| SimulateError::Send(format!("a sender ended early: {error}")))?;
        tally.samples += part.samples;
        tally.requests += part.requests;
        tally.failures += part.failures;
        tally.retries += part.retries;
        tally.took.extend(part.took);
        tally.refusal = tally.refusal.take().or(part.refusal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_too_short_has_no_figures_but_says_why() {
        let (measured, short) = judge(2_000_000, 1_000, 4.0, Some(2.0));
        assert!(measured.tail && short.is_empty(), "{short:?}");
        assert_eq!((measured.samples_per_second, measured.cpu_us_per_sample), (Some(500_000.0), Some(1.0)));
        let none = Measured { samples_per_second: None, tail: false, cpu_us_per_sample: None };
        for (samples, cpu) in [(2_000, Some(0.0)), (2_000, Some(0.19)), (0, Some(0.01))] {
            let (measured, short) = judge(samples, 1, 0.01, cpu);
            assert_eq!((&measured, short.len()), (&none, 3), "{short:?}");
        }
        // A server that cannot be asked is another matter.
        assert_eq!(judge(2_000, 1, 0.01, None).1.len(), 2);
        assert_eq!(judge(0, 0, 100.0, Some(5.0)).0, none);
    }

    #[test]
    fn usage_is_read_from_proc_and_from_metrics() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 100 1000000 500";
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        let expected = Usage { cpu_seconds: 4.0, resident_bytes: 2_097_152.0 };
        assert_eq!(parse_proc(stat, status), Some(expected));
        let page = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 4\n\
                    process_resident_memory_bytes 2.097152e+06\n";
        assert_eq!(parse_metrics(page), Some(expected));
        assert_eq!(parse_metrics("process_cpu_seconds_total 4\n"), None);
        assert_eq!(parse_proc("", ""), None);
    }
}
