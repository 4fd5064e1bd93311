//! `oddity demo`: the whole product with nothing else installed.
//!
//! A simulated fleet is sent by remote write 2.0 to a sidecar in this process: first some hours of
//! history as fast as it is accepted, then time-compressed with faults until the simulated time has
//! caught up with the clock, then at its real pace.

mod show;
mod sidecar;
mod watch;

use super::args;
use super::simulate::{Format, now, progress};
use crate::simulate::{Fault, FaultKind, Fleet, FleetOptions, Sender};
use crate::time::Span;
use crate::wire::{Version, frame};
use anyhow::{Context, bail};
use bytes::Bytes;
use show::Show;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use watch::{Flag, Watch};

/// The faults, in their order.
const FAULTS: [FaultKind; 8] = [
    FaultKind::Shift,
    FaultKind::Stall,
    FaultKind::Spike,
    FaultKind::Errors,
    FaultKind::Gone,
    FaultKind::Dip,
    FaultKind::Variance,
    FaultKind::Ramp,
];
/// Faults are so many times larger than usual: a sidecar that knows a series for a few hours is cautious.
const LARGER: f64 = 2.0;
/// A ramp, which the quick detectors follow, so many times.
const STEEPER: f64 = 6.0;
/// Steps from the end of the history to the first fault, and from a fault to the next.
const PAUSE: (i64, i64) = (8, 24);
/// Steps without a flag that close an alarm: 5 min at 15 s.
const QUIET: i64 = 20;
/// The scrape interval.
const INTERVAL: Span = Span::seconds(15);
/// Anomalies asked for at a time, and the longest answer read.
const NEWEST: (usize, usize) = (500, 8 << 20);

/// Runs a simulated fleet with faults through an in-process sidecar.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; a free port is taken when it is in use.
    #[arg(long, default_value = "127.0.0.1:9898", value_name = "ADDRESS", value_parser = args::listen)]
    pub listen: String,
    /// Also write the scores to this remote-write target.
    #[arg(long, value_name = "URL", value_parser = args::receiver)]
    pub remote_write: Option<String>,
    /// Number of series, at least 40.
    #[arg(long, default_value_t = 500, value_parser = args::whole::<40, 1_000_000, usize>)]
    pub series: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// History sent before the first fault.
    #[arg(long, default_value = "4h", value_parser = args::history)]
    pub history: Span,
    /// Simulated seconds in a real one, until the simulated time has caught up; at least 2.
    #[arg(long, default_value_t = 60.0, value_parser = args::at_least::<2>)]
    pub speed: f64,
    /// Ends after this (real) time.
    #[arg(long, value_parser = args::span)]
    pub duration: Option<Span>,
    /// Ends when every fault has been shown once.
    #[arg(long)]
    pub once: bool,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Runs the command.
///
/// # Errors
/// The sidecar cannot start, or refuses what it is sent.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let show = Show::new(args.format, INTERVAL.0);
        let sidecar = sidecar::start(&args, &show).await?;
        show.started(&sidecar.url);
        let mut demo = Demo::new(&args, &sidecar.url, show)?;
        let limit = args.duration.map_or(Duration::MAX, Span::as_std);
        let result = tokio::select! {
            result = demo.play(&args) => result,
            _ = tokio::time::sleep(limit) => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if result.is_ok() {
            demo.show.summary(&demo.watch, args.series, demo.samples, demo.started.elapsed().as_secs_f64());
        }
        sidecar.stop().await?;
        result.map(|()| ExitCode::SUCCESS)
    })
}

struct Demo {
    fleet: Fleet,
    series: Vec<u32>,
    sender: Sender,
    watch: Watch,
    show: Show,
    samples: u64,
    started: Instant,
}

impl Demo {
    fn new(args: &Args, url: &str, show: Show) -> anyhow::Result<Demo> {
        let options = FleetOptions { series: args.series, interval: INTERVAL, seed: args.seed, churn: 0.0 };
        Ok(Demo {
            fleet: Fleet::new(options)?,
            series: (0..args.series as u32).collect(),
            sender: Sender::new(&format!("{url}/api/v1/write"), Version::V2, Duration::from_secs(20))?,
            watch: Watch::new(INTERVAL.0, QUIET),
            show,
            samples: 0,
            started: Instant::now(),
        })
    }

    async fn play(&mut self, args: &Args) -> anyhow::Result<()> {
        let plan: i64 = FAULTS.iter().map(|kind| kind.default_steps() + PAUSE.1).sum::<i64>() + PAUSE.0;
        // The clock goes on while the faults are shown: the compressed stretch ends at the present.
        let lead = (plan as f64 / (1.0 - 1.0 / args.speed)).ceil() as i64;
        let live = self.fleet.step_at(now()) - lead;
        let history = args.history.0 / INTERVAL.0;
        self.show.say(&format!(
            "sending {} of history of {} series by remote write 2.0 ({} samples)",
            args.history,
            args.series,
            history * args.series as i64
        ));
        let bar = progress(Some(history as u64), "{elapsed_precise} {wide_bar} {pos}/{len} scrapes");
        for step in live - history..live {
            self.send(step).await?;
            if step % 100 == 0 {
                self.look().await?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.look().await?;
        self.show.say(&format!(
            "learnt in {:.1} s; now {}x as fast as real, with faults",
            self.started.elapsed().as_secs_f64(),
            args.speed
        ));
        let tick = Duration::from_secs_f64(INTERVAL.as_secs_f64() / args.speed);
        let (mut next_fault, mut round) = (live + PAUSE.0, 0);
        let mut real_time = false;
        for step in live.. {
            if step == next_fault && !(args.once && round == FAULTS.len()) {
                next_fault += self.inject(step, round)? + PAUSE.1;
                round += 1;
            }
            let began = Instant::now();
            self.send(step).await?;
            self.look().await?;
            for number in self.watch.over(step + 1) {
                if let Some(tracked) = self.watch.faults.get(number) {
                    self.show.over(tracked);
                }
            }
            if args.once && round == FAULTS.len() && step >= next_fault {
                return Ok(());
            }
            let ahead = self.fleet.time(step + 1).since(now());
            if ahead > 0 && !real_time {
                real_time = true;
                self.show.say("caught up with the clock: now at real pace, one scrape each 15 s");
            }
            let pause = if ahead > 0 { Duration::from_millis(ahead as u64) } else { Duration::ZERO };
            tokio::time::sleep(pause.max(tick.saturating_sub(began.elapsed()))).await;
        }
        Ok(())
    }

    /// Injects the next fault; gives the steps it lasts.
    fn inject(&mut self, step: i64, round: usize) -> anyhow::Result<i64> {
        let kind = FAULTS[round % FAULTS.len()];
        let series = self.fleet.suited(kind, round)?;
        let larger = if kind == FaultKind::Ramp { STEEPER } else { LARGER };
        let (steps, size) = (kind.default_steps(), larger * kind.default_size());
        let fault = Fault { kind, series, start: step, steps, size };
        self.fleet.inject(fault);
        let labels: BTreeMap<String, String> = self.fleet.labels(series, step).into_iter().collect();
        self.watch.inject(fault, labels);
        if let Some(tracked) = self.watch.faults.last() {
            self.show.fault(tracked);
        }
        Ok(steps)
    }

    async fn send(&mut self, step: i64) -> anyhow::Result<()> {
        let body = self.fleet.body(Version::V2, &self.series, step);
        let sent = self.sender.send(Bytes::from(frame::compress_snappy(&body.bytes)?)).await;
        if !sent.accepted() {
            bail!("the sidecar refuses samples: {} {}", sent.status, sent.message);
        }
        self.samples += body.samples;
        Ok(())
    }

    /// Asks the sidecar for its newest anomalies and tells the new ones.
    async fn look(&mut self) -> anyhow::Result<()> {
        let page = self.sender.get(&format!("/api/v1/anomalies?limit={}", NEWEST.0), NEWEST.1).await?;
        let answer: serde_json::Value = serde_json::from_str(&page).context("/api/v1/anomalies")?;
        let list =
            answer.get("data").and_then(|data| data.as_array()).context("/api/v1/anomalies: no data")?;
        let flags = list.iter().map(Flag::read).collect::<Option<Vec<_>>>();
        for alarm in self.watch.take(flags.context("/api/v1/anomalies: an anomaly is not as expected")?) {
            self.show.alarm(&alarm, &self.watch);
        }
        Ok(())
    }
}
