//! The load generator: sends rounds of frames that were encoded beforehand, and reads what the
//! server used meanwhile.

use super::SimulateError;
use super::fleet::Fleet;
use super::load::{Tally, encode, send};
use super::run::shards;
use super::sender::Sender;
use super::sink::Sink;
use super::trouble::Trouble;
use super::usage::{Usage, usage};
use crate::labels::SeriesId;
use crate::wire::Version;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds of sending from which samples a second are a figure and not noise.
const LEAST_SECONDS: f64 = 1.0;
/// CPU seconds from which they are: 20 ticks, told to a twentieth.
const LEAST_CPU: f64 = 0.2;
/// Requests from which one in a hundred is one.
const LEAST_REQUESTS: usize = 100;
/// Frames kept encoded at a time, in bytes; a round that is larger is still sent whole.
const FRAME_MEMORY: usize = 1 << 30;

/// What is measured.
#[derive(Clone)]
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
    /// Most samples a second in the measured rounds; 0 for no limit.
    pub rate: f64,
    /// The downstream that the server writes scores to.
    pub sink: Option<Arc<Sink>>,
    /// The server's process; `None` asks its `/metrics`.
    pub server_pid: Option<u32>,
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
    /// Seconds from then until the last score was accepted downstream; `None` without a downstream.
    pub drain_seconds: Option<f64>,
    /// Samples accepted a second while sending, and until their scores were downstream where there is one;
    /// `None` under a second of it.
    pub samples_per_second: Option<f64>,
    /// Half of the requests took at most this long, milliseconds.
    pub request_p50_ms: f64,
    /// 99 of 100 requests took at most this long, milliseconds; `None` with fewer requests than that.
    pub request_p99_ms: Option<f64>,
    /// Scores seen downstream whose samples were sent in the measured rounds; `None` without a downstream.
    /// Where there are very many, a share of all requests is looked at.
    pub scores: Option<u64>,
    /// From a sample, when it was due to be sent, to its score accepted downstream, milliseconds: half of
    /// them took at most this long.
    pub score_p50_ms: Option<f64>,
    /// 99 of 100 took at most this long; `None` with fewer scores than that.
    pub score_p99_ms: Option<f64>,
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

/// Runs the benchmark; `trouble` counts failed tries, `progress` is told the rounds done and in all.
///
/// # Errors
/// The address is not usable, a body cannot be encoded, the receiver refuses requests, or the downstream
/// gets what is no remote write.
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
    let (mut tally, mut seconds, mut drain, mut before) = (Tally::default(), 0.0, 0.0, None);
    let (mut round, mut per_load) = (0, 1);
    while round < all {
        let measured = round >= options.warmup;
        let end = if measured { all } else { options.warmup };
        let count = per_load.min(end - round);
        let loads = encode(&fleet, &options, &shards, first + round, count).await?;
        let size: usize = loads.iter().flatten().map(|frame| frame.bytes.len()).sum();
        per_load = (FRAME_MEMORY as i64 * count / size.max(1) as i64).clamp(1, 500);
        if round == options.warmup {
            if let Some(sink) = &options.sink {
                sink.quiet(Instant::now()).await?;
                sink.keep();
            }
            before = note(usage(&control, options.server_pid).await);
            tally = Tally { failures: tally.failures, refusal: tally.refusal, ..Default::default() };
        }
        let started = Instant::now();
        send(&senders, loads, if measured { options.rate } else { 0.0 }, trouble, &mut tally).await?;
        if measured {
            seconds += started.elapsed().as_secs_f64();
            if let Some(sink) = &options.sink {
                drain += sink.quiet(Instant::now()).await?.as_secs_f64();
            }
        }
        if let Some(refusal) = &tally.refusal {
            return Err(SimulateError::Send(format!("the receiver refuses requests: {refusal}")));
        }
        round += count;
        progress(round, all);
    }
    let after = note(usage(&control, options.server_pid).await);
    let delays = match &options.sink {
        Some(sink) => Some(delays(sink, &fleet, &options, &shards, &tally)?),
        None => None,
    };
    tally.took.sort_unstable();
    let cpu = before.zip(after).map(|(b, a)| a.cpu_seconds - b.cpu_seconds);
    let series = fleet.series() as f64;
    let (measured, mut too_short) = judge(tally.samples, tally.took.len(), seconds + drain, cpu);
    let scores = delays.as_ref().map(Vec::len);
    if let Some(scores) = scores.filter(|scores| *scores < LEAST_REQUESTS) {
        too_short.push(format!(
            "too few scores came downstream to time them ({scores}; at least {LEAST_REQUESTS})"
        ));
    }
    let delays = delays.filter(|delays| delays.len() >= LEAST_REQUESTS);
    Ok(BenchReport {
        protocol: if options.version == Version::V1 { "1.0" } else { "2.0" },
        series: fleet.series(),
        samples: tally.samples,
        requests: tally.requests,
        failures: tally.failures,
        retries: tally.retries,
        seconds,
        drain_seconds: options.sink.as_ref().map(|_| drain),
        samples_per_second: measured.samples_per_second,
        request_p50_ms: quantile(&tally.took, 0.5),
        request_p99_ms: measured.tail.then(|| quantile(&tally.took, 0.99)),
        scores: scores.map(|scores| scores as u64),
        score_p50_ms: delays.as_ref().map(|delays| quantile(delays, 0.5)),
        score_p99_ms: delays.as_ref().map(|delays| quantile(delays, 0.99)),
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

/// The quantile of sorted times, milliseconds; 0 where there are none.
fn quantile(sorted: &[Duration], q: f64) -> f64 {
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

/// How long scores took, sorted.
fn delays(
    sink: &Sink,
    fleet: &Fleet,
    options: &BenchOptions,
    shards: &[Vec<u32>],
    tally: &Tally,
) -> Result<Vec<Duration>, SimulateError> {
    let first = options.last - options.rounds + 1;
    let mut place: HashMap<SeriesId, (u32, u32)> = HashMap::new();
    for (sender, series) in shards.iter().enumerate() {
        for (chunk, series) in series.chunks(options.batch.max(1)).enumerate() {
            for series in series {
                for id in fleet.ids(*series as usize, first, options.last) {
                    place.insert(id, (sender as u32, chunk as u32));
                }
            }
        }
    }
    let mut delays = sink.delays(&tally.due, &place, |step| fleet.time(step).0)?;
    delays.sort_unstable();
    Ok(delays)
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
}
