//! `oddity simulate`: a simulated fleet, or the load generator.

use super::{Usage, args};
use crate::simulate::run::Counts;
use crate::simulate::{
    self, BenchOptions, BenchReport, Fleet, FleetOptions, RunOptions, SimulateError, Sink, Teller, Trouble,
};
use crate::time::{Millis, Span};
use crate::wire::Version;
use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long a request is tried: at least, at most, and as long as the run is to last in between.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How often the bar and what failed are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Output for people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A protocol by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// Remote write 1.0.
    #[value(name = "1.0")]
    V1,
    /// Remote write 2.0.
    #[value(name = "2.0")]
    V2,
}

impl From<ProtocolArg> for Version {
    fn from(arg: ProtocolArg) -> Version {
        match arg {
            ProtocolArg::V1 => Version::V1,
            ProtocolArg::V2 => Version::V2,
        }
    }
}

/// Sends a simulated fleet by remote write.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The receiver.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9898/api/v1/write",
        value_parser = args::receiver)]
    pub remote_write: String,
    /// Number of series.
    #[arg(long, default_value_t = 1000, value_parser = args::whole::<1, { u32::MAX as u64 }, usize>)]
    pub series: usize,
    /// Scrape interval: timestamps step by it.
    #[arg(long, default_value = "15s", value_parser = args::span)]
    pub interval: Span,
    /// Remote-write protocol.
    #[arg(long, value_enum, default_value = "2.0")]
    pub protocol: ProtocolArg,
    /// Faults, comma-separated: kind[:size][@start][+length][=series]; kinds are spike, dip,
    /// shift, ramp, variance, stall, errors, gone; size in noise widths or a factor.
    #[arg(long, default_value = "", value_name = "LIST", hide_default_value = true)]
    pub faults: args::Faults,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Simulated time to send; without it, until it is interrupted.
    #[arg(long, value_parser = args::span)]
    pub duration: Option<Span>,
    /// Simulated seconds in a real one; 0: as fast as it is accepted. Above 1, the run starts in
    /// the past so that it ends now (which needs --duration).
    #[arg(long, default_value_t = 1.0, value_parser = args::at_least::<0>)]
    pub speed: f64,
    /// Most samples a second (with --bench: in the rounds measured); 0: no limit.
    #[arg(long, default_value_t = 0.0, value_parser = args::at_least::<0>)]
    pub rate: f64,
    /// Connections; each has its own series, so the order of each series holds.
    #[arg(long, default_value_t = 2, value_parser = args::whole::<1, 1024, usize>)]
    pub senders: usize,
    /// Series in a request.
    #[arg(long, default_value_t = 2000, value_parser = args::whole::<1, 1_000_000, usize>)]
    pub batch: usize,
    /// Pods replaced an hour, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = args::churn)]
    pub churn: f64,
    /// Series of a request in random order.
    #[arg(long)]
    pub shuffle: bool,
    /// Measure the receiver: rounds as fast as they are accepted, the server's CPU and memory.
    #[arg(long)]
    pub bench: bool,
    /// With --bench: rounds before the measurement (beyond the default min_samples of 60).
    #[arg(long, default_value_t = 70, value_parser = args::whole::<0, 1_000_000, i64>)]
    pub warmup: i64,
    /// With --bench: rounds measured.
    #[arg(long, default_value_t = 20, value_parser = args::whole::<1, 1_000_000, i64>)]
    pub rounds: i64,
    /// With --bench: the server's process; without it its /metrics is asked.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// With --bench: listens there as the server's downstream, and tells how long it takes from a
    /// sample to its score; for the server's remote_write, such as http://ADDRESS/api/v1/write.
    #[arg(long, value_name = "ADDRESS", requires = "bench", value_parser = args::listen)]
    pub sink: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Milliseconds since the epoch.
pub(super) fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as i64)
}

/// A bar on stderr, hidden when that is no terminal.
pub(super) fn progress(length: Option<u64>, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Runs the command.
///
/// # Errors
/// Options that cannot be used, a receiver that cannot be reached.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options =
        FleetOptions { series: args.series, interval: args.interval, seed: args.seed, churn: args.churn };
    let fleet = Fleet::new(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    if args.bench { runtime.block_on(load(args, fleet)) } else { runtime.block_on(send(args, fleet)) }
}

async fn send(args: Args, mut fleet: Fleet) -> anyhow::Result<ExitCode> {
    let steps = args.duration.map(|duration| (duration.0 / args.interval.0).max(1));
    let now = fleet.step_at(now());
    // Time compression must end at the present: a receiver drops what is too far ahead of it.
    let start = match (args.speed == 1.0, steps) {
        (true, _) => now,
        (false, Some(steps)) => now - steps + 1,
        (false, None) => return Err(Usage("--speed other than 1 needs --duration".into()).into()),
    };
    for (n, spec) in args.faults.0.iter().enumerate() {
        let fault = fleet.plan(spec, n, start)?;
        if args.format == Format::Text {
            let labels = fleet.labels(fault.series, fault.start);
            eprintln!(
                "{} from {} for {}: {}",
                fault.kind,
                clock(fleet.time(fault.start)),
                Span(fault.steps * args.interval.0),
                short(&labels)
            );
        }
        fleet.inject(fault);
    }
    let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let run_options = RunOptions {
        url: args.remote_write,
        version: args.protocol.into(),
        start,
        steps,
        speed: args.speed,
        rate: args.rate,
        senders: args.senders,
        batch: args.batch,
        shuffle: args.shuffle,
        patience: args.duration.map_or(PATIENCE.1, Span::as_std).clamp(PATIENCE.0, PATIENCE.1),
    };
    let bar =
        progress(steps.map(|steps| steps as u64), "{elapsed_precise} {wide_bar} {pos}/{len} steps {msg}");
    let task = tokio::spawn(simulate::run(Arc::new(fleet), run_options, counts.clone(), stop.clone()));
    let mut tick = tokio::time::interval(TICK);
    let (began, mut teller) = (Instant::now(), Teller::default());
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    while !task.is_finished() {
        tokio::select! {
            _ = tick.tick() => {
                bar.set_position(counts.steps.load(Ordering::Relaxed));
                bar.set_message(format!("{} samples, {} failures",
                    counts.samples.load(Ordering::Relaxed), counts.failures.load(Ordering::Relaxed)));
                tell(&mut teller, began, &counts.trouble, &bar);
            }
            _ = &mut interrupt, if !stop.load(Ordering::Relaxed) => stop.store(true, Ordering::Relaxed),
        }
    }
    bar.finish_and_clear();
    let report = task.await.context("the run ended early")??;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&report)?),
        Format::Text => println!(
            "{} samples in {} requests, {} retries, {} failures, {:.1} s, {:.0} samples/s",
            report.samples,
            report.requests,
            report.retries,
            report.failures,
            report.seconds,
            report.samples_per_second
        ),
    }
    tell_all(&counts.trouble);
    if let Some(failure) = &report.first_failure {
        eprintln!("first failure: {failure}");
    }
    let sent = report.samples > 0 && report.first_failure.is_none();
    Ok(if sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells of failed tries on stderr when a line is due, past the bar.
fn tell(teller: &mut Teller, began: Instant, trouble: &Trouble, bar: &ProgressBar) {
    if let Some(line) = teller.line(began.elapsed(), trouble) {
        bar.suspend(|| eprintln!("{line}"));
    }
}

/// How many tries failed in the end, where any did.
fn tell_all(trouble: &Trouble) {
    if trouble.tries() > 0 {
        eprintln!("failed tries in all: {}; the last: {}", trouble.tries(), trouble.last());
    }
}

async fn load(args: Args, fleet: Fleet) -> anyhow::Result<ExitCode> {
    let sink = match &args.sink {
        Some(address) => {
            let sink = args::bind(address).await.and_then(Sink::new);
            Some(sink.map_err(|error| {
                SimulateError::Options(format!("cannot listen on {address} as a downstream: {error}"))
            })?)
        }
        None => None,
    };
    let options = BenchOptions {
        url: args.remote_write,
        version: args.protocol.into(),
        last: fleet.step_at(now()),
        warmup: args.warmup,
        rounds: args.rounds,
        senders: args.senders,
        batch: args.batch,
        shuffle: args.shuffle,
        rate: args.rate,
        sink: sink.map(Arc::new),
        server_pid: args.server_pid,
    };
    let bar = progress(Some(0), "{elapsed_precise} {wide_bar} {pos}/{len} rounds");
    let trouble = Arc::new(Trouble::default());
    let work = simulate::bench(Arc::new(fleet), options, &trouble, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    tokio::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    let (began, mut teller) = (Instant::now(), Teller::default());
    let report = loop {
        tokio::select! {
            report = &mut work => break report,
            _ = tick.tick() => tell(&mut teller, began, &trouble, &bar),
        }
    };
    bar.finish_and_clear();
    tell_all(&trouble);
    let report = report?;
    if args.format == Format::Json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    show(&report);
    Ok(ExitCode::SUCCESS)
}

fn show(report: &BenchReport) {
    println!(
        "remote write {}: {} series, {} samples in {} requests, {} retries",
        report.protocol, report.series, report.samples, report.requests, report.retries
    );
    if let Some(rate) = report.samples_per_second {
        let until =
            if report.drain_seconds.is_some() { "until scores were downstream" } else { "while sending" };
        println!("  {rate:.0} samples/s {until}");
    }
    let tail = |p99: Option<f64>| p99.map(|ms| format!(", p99 {ms:.2} ms")).unwrap_or_default();
    println!("  request p50 {:.2} ms{}", report.request_p50_ms, tail(report.request_p99_ms));
    if let Some(p50) = report.score_p50_ms {
        println!("  sample to score downstream p50 {p50:.2} ms{}", tail(report.score_p99_ms));
    }
    if let Some(cpu) = report.server_cpu_us_per_sample {
        println!("  server: {cpu:.3} µs of CPU a sample");
    }
    if let (Some(all), Some(each)) = (report.server_resident_bytes, report.server_bytes_per_series) {
        let grown = report.server_growth_bytes_per_series;
        let grown = grown.map(|each| format!("; grown by {each:.0} B a series")).unwrap_or_default();
        println!("  server: {:.1} MiB resident, {each:.0} B a series{grown}", all / 1_048_576.0);
    }
    for what in &report.too_short {
        println!("  {what}");
    }
    if let Some(error) = &report.usage_error {
        eprintln!("{error}");
    }
}

/// A time of day in UTC.
pub(super) fn clock(at: Millis) -> String {
    let seconds = at.0.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A series as people name it: its metric and the labels that tell it apart.
pub(super) fn short<N: AsRef<str>, V: AsRef<str>>(labels: &[(N, V)]) -> String {
    let get = |name: &str| labels.iter().find(|(n, _)| n.as_ref() == name).map(|(_, v)| v.as_ref());
    let told: Vec<String> =
        ["code", "pod"].into_iter().filter_map(|n| Some(format!("{n}={:?}", get(n)?))).collect();
    format!("{}{{{}}}", get(crate::labels::NAME).unwrap_or(""), told.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_and_times_are_shown_short() {
        let labels = [("__name__", "up"), ("job", "x"), ("pod", "a-1")];
        assert_eq!(short(&labels), "up{pod=\"a-1\"}");
        assert_eq!(clock(Millis(3_723_000)), "01:02:03");
    }
}
