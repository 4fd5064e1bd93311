//! The table of costs.

use crate::baseline::{self, BODY, Baseline};
use crate::server::{Server, Setup};
use crate::{Emit, Format, Protocol, TableArgs, machine};
use anyhow::Context;
use oddity::simulate::{BenchOptions, BenchReport, Fleet, FleetOptions, Sink, Trouble, bench};
use oddity::time::{Millis, Span};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// Rounds before anything is measured: beyond `min_samples` (60) and the window of `zscore` (64).
const WARMUP: i64 = 66;
/// Most rounds in a row, whatever they come to.
const MOST_ROUNDS: i64 = 300;
/// Connections.
const SENDERS: usize = 2;

/// Unix milliseconds.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Prints it.
pub async fn print(args: &TableArgs) -> anyhow::Result<()> {
    let text = args.format == Format::Text;
    for line in machine::lines() {
        if text { println!("{line}") } else { eprintln!("{line}") }
    }
    if text {
        println!(
            "bodies of {BODY} series in random order, {} % of pods replaced an hour, 15 s interval, log and \
             checkpoints on, default detectors\n",
            args.churn
        );
    }
    for series in &args.series {
        Rows::new(args, *series)?.print().await.with_context(|| format!("{series} series"))?;
    }
    if text {
        println!("{}", NOTES.join("\n"));
    }
    Ok(())
}

const NOTES: [&str; 7] = [
    "CPU: user and system time of the server's process over samples, checkpoints and sending included.",
    "x base: CPU over both baselines together (prost's decoder, hash map of label strings).",
    "samples/s: as fast as accepted; where scores are written, until all of them are downstream.",
    "B/series: resident memory over series kept: grown since before the first request, and in all.",
    "  Rows of a number of series are of one process, which grows: later rows know aliases of both protocols.",
    "score: from when a sample was due to be sent at half of that rate to its score accepted downstream.",
    "ckpt: checkpoints that ended within the row.",
];

/// The rows of one number of series.
struct Rows<'a> {
    args: &'a TableArgs,
    fleet: Arc<Fleet>,
    /// The next step to be sent.
    step: i64,
}

impl<'a> Rows<'a> {
    fn new(args: &'a TableArgs, series: usize) -> anyhow::Result<Rows<'a>> {
        let options = FleetOptions { series, churn: args.churn, seed: 1, ..FleetOptions::default() };
        let interval: Span = options.interval;
        let fleet = Arc::new(Fleet::new(options)?);
        let cells = (args.protocols.len() * args.emit.len()) as i64;
        let rounds = WARMUP + args.protocols.len() as i64 + cells * (1 + 2 * MOST_ROUNDS);
        // All of it lies in the past, so that nothing is too far ahead.
        let step = now().0.div_euclid(interval.0) - rounds - 1;
        Ok(Rows { args, fleet, step })
    }

    async fn print(mut self) -> anyhow::Result<()> {
        let text = self.args.format == Format::Text;
        let baselines = self.baselines()?;
        let sink = Arc::new(Sink::new(TcpListener::bind("127.0.0.1:0").await?)?);
        let mut setup = Setup {
            downstream: sink.address(),
            emit: self.args.emit.first().copied().unwrap_or(Emit::None),
            forget_after: "1h",
            max_series: 2 * self.fleet.series(),
        };
        let mut server = Server::start(&Setup { emit: Emit::None, ..setup.clone() })?;
        let first = self.args.protocols.first().copied().unwrap_or(Protocol::V2);
        eprintln!("{} series: {WARMUP} rounds to warm up", self.fleet.series());
        self.send(&mut server, first, WARMUP, 0.0, None).await?;
        for protocol in self.args.protocols.iter().filter(|protocol| **protocol != first) {
            // Each protocol has its own aliases.
            self.send(&mut server, *protocol, 1, 0.0, None).await?;
        }
        if text {
            println!("{}", heading());
        }
        for emit in &self.args.emit {
            setup.emit = *emit;
            server.reload(&setup)?;
            for (protocol, baseline) in self.args.protocols.iter().zip(&baselines) {
                let row = self.row(&mut server, *protocol, *emit, *baseline, &sink).await?;
                if text { println!("{}", shown(&row)) } else { println!("{row}") }
            }
        }
        let said = server.said();
        if said.lines().count() > 1 {
            eprintln!("{said}");
        }
        if text {
            println!();
        }
        Ok(())
    }

    /// The baselines of each protocol, printed.
    fn baselines(&self) -> anyhow::Result<Vec<Baseline>> {
        let map = baseline::map(&self.fleet, self.step);
        let mut all = Vec::new();
        for protocol in &self.args.protocols {
            let one = baseline::measure(&self.fleet, protocol.version(), self.step, &map)?;
            let name = number(*protocol);
            match self.args.format {
                Format::Text => println!(
                    "{} series, {name}, baselines in one thread, ns a sample: prost's decoder {:.0}, hash map \
                     of label strings {:.0}",
                    self.fleet.series(),
                    one.prost,
                    one.map
                ),
                Format::Json => println!(
                    "{}",
                    json!({"baseline": true, "series": self.fleet.series(), "protocol": name,
                        "prost_ns": one.prost, "hash_map_ns": one.map})
                ),
            }
            all.push(one);
        }
        Ok(all)
    }

    /// Rounds of about so many samples.
    fn rounds(&self, samples: f64) -> i64 {
        ((samples / self.fleet.series() as f64).ceil() as i64).clamp(1, MOST_ROUNDS)
    }

    /// Sends the next rounds.
    async fn send(
        &mut self,
        server: &mut Server,
        protocol: Protocol,
        rounds: i64,
        rate: f64,
        sink: Option<&Arc<Sink>>,
    ) -> anyhow::Result<BenchReport> {
        let options = BenchOptions {
            url: server.url(),
            version: protocol.version(),
            last: self.step + rounds - 1,
            warmup: 0,
            rounds,
            senders: SENDERS,
            batch: BODY,
            shuffle: true,
            rate,
            sink: sink.cloned(),
            server_pid: Some(server.pid()),
        };
        self.step += rounds;
        let trouble = Arc::new(Trouble::default());
        let report = bench(self.fleet.clone(), options, &trouble, |_, _| {}).await;
        server.alive()?;
        report.with_context(|| server.said())
    }

    async fn row(
        &mut self,
        server: &mut Server,
        protocol: Protocol,
        emit: Emit,
        baseline: Baseline,
        sink: &Arc<Sink>,
    ) -> anyhow::Result<Value> {
        let writes = emit != Emit::None;
        // New rules are looked up anew at each series' next sample, and so are names of outputs.
        self.send(server, protocol, 1, 0.0, Some(sink)).await?;
        let before = server.status()?;
        let rounds = self.rounds(self.args.samples as f64);
        let full = self.send(server, protocol, rounds, 0.0, writes.then_some(sink)).await?;
        let usage = server.usage()?;
        let after = server.status()?;
        let mut half = None;
        if let Some(rate) = full.samples_per_second.filter(|_| writes) {
            let rate = rate / 2.0;
            let rounds = self.rounds(rate * self.args.seconds as f64);
            half = Some((rate, self.send(server, protocol, rounds, rate, Some(sink)).await?));
        }
        let at = |status: &Value, path: &str| status.pointer(path).and_then(Value::as_f64);
        let grown = |path: &str| Some(at(&after, path)? - at(&before, path).unwrap_or(0.0));
        let kept = at(&after, "/series/kept").filter(|kept| *kept > 0.0);
        let dropped: f64 = after
            .pointer("/targets/0/dropped")
            .and_then(Value::as_object)
            .map_or(0.0, |all| all.values().filter_map(Value::as_f64).sum());
        let cpu = full.server_cpu_us_per_sample;
        let (rate, half) = half.unzip();
        Ok(json!({
            "series": self.fleet.series(),
            "kept": kept,
            "protocol": number(protocol),
            "emit": emit.name(),
            "samples": full.samples,
            "seconds": full.seconds,
            "drain_seconds": full.drain_seconds,
            "retries": full.retries,
            "samples_per_second": full.samples_per_second,
            "cpu_us_per_sample": cpu,
            "baseline_us_per_sample": baseline.micros(),
            "cpu_over_baseline": cpu.map(|cpu| cpu / baseline.micros()),
            "resident_bytes": usage.resident_bytes,
            "empty_bytes": server.empty.resident_bytes,
            "grown_bytes_per_series": kept.map(|kept| (usage.resident_bytes - server.empty.resident_bytes) / kept),
            "bytes_per_series": kept.map(|kept| usage.resident_bytes / kept),
            "request_p50_ms": full.request_p50_ms,
            "request_p99_ms": full.request_p99_ms,
            "half_rate": rate,
            "half_request_p99_ms": half.as_ref().and_then(|half| half.request_p99_ms),
            "scores_timed": half.as_ref().and_then(|half| half.scores),
            "score_p50_ms": half.as_ref().and_then(|half| half.score_p50_ms),
            "score_p99_ms": half.as_ref().and_then(|half| half.score_p99_ms),
            "outputs_accepted": grown("/targets/0/accepted"),
            "outputs_pending": at(&after, "/targets/0/pending"),
            "outputs_dropped": dropped,
            "checkpoints": grown("/state/checkpoints"),
            "too_short": full.too_short,
        }))
    }
}

fn number(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V1 => "1.0",
        Protocol::V2 => "2.0",
    }
}

fn heading() -> String {
    let line = |a: [&str; 12]| {
        format!(
            "{:>9} {:>4} {:>8} {:>10} {:>7} {:>7} {:>8} {:>8} {:>15} {:>15} {:>5} {}",
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]
        )
    };
    let top = ["", "", "", "", "CPU µs", "", "grown", "all in", "request ms", "score ms", "", ""];
    let bottom = [
        "series",
        "RW",
        "emit",
        "samples/s",
        "/sample",
        "x base",
        "B/serie",
        "B/serie",
        "p50 / p99",
        "p50 / p99",
        "ckpt",
        "",
    ];
    format!("{}\n{}", line(top).trim_end(), line(bottom).trim_end())
}

fn shown(row: &Value) -> String {
    let some = |name: &str, digits: usize| match row[name].as_f64() {
        Some(value) => format!("{value:.digits$}"),
        None => "-".to_string(),
    };
    let word = |name: &str| row[name].as_str().unwrap_or_default().to_string();
    let pair = |a: &str, b: &str, digits: usize| format!("{} / {}", some(a, digits), some(b, digits));
    let lost =
        row["outputs_dropped"].as_f64().unwrap_or(0.0) + row["outputs_pending"].as_f64().unwrap_or(0.0);
    let retried = row["retries"].as_u64().unwrap_or(0);
    let mut remarks = Vec::new();
    if lost > 0.0 {
        remarks.push(format!("{lost:.0} outputs not delivered"));
    }
    if retried > 0 {
        remarks.push(format!("{retried} requests refused for a while"));
    }
    format!(
        "{:>9} {:>4} {:>8} {:>10} {:>7} {:>7} {:>8} {:>8} {:>15} {:>15} {:>5} {}",
        some("series", 0),
        word("protocol"),
        word("emit"),
        some("samples_per_second", 0),
        some("cpu_us_per_sample", 2),
        some("cpu_over_baseline", 2),
        some("grown_bytes_per_series", 0),
        some("bytes_per_series", 0),
        pair("request_p50_ms", "request_p99_ms", 1),
        pair("score_p50_ms", "score_p99_ms", 0),
        some("checkpoints", 0),
        remarks.join(", ")
    )
    .trim_end()
    .to_string()
}
