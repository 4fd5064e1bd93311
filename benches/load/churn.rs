//! A simulated day in which 1 % of the series is replaced each minute: is memory flat, and what does a
//! series hold that has stopped and is not yet forgotten?

use crate::server::{Server, Setup};
use crate::table::now;
use crate::{ChurnArgs, Format, machine};
use anyhow::{Context, bail};
use oddity::simulate::run::Counts;
use oddity::simulate::{Fault, FaultKind, Fleet, FleetOptions, RunOptions, Sink, run};
use oddity::time::Span;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Pods replaced an hour, percent: 1 % a minute.
const CHURN: f64 = 60.0;
/// Minutes after which a silent series is forgotten; the sweep gives a quarter more.
const FORGET: i64 = 30;
/// Series of a pod.
const POD: usize = 20;
/// Connections.
const SENDERS: usize = 2;
/// The hour from which on memory is compared: series of the first are still warming up.
const FROM: i64 = 2;
/// How long it is waited for the sweep, and for the target to have everything.
const PATIENCE: Duration = Duration::from_secs(150);

/// The server's sizes at a time.
struct Look {
    kept: f64,
    resident: f64,
    accounted: f64,
    aliases: f64,
    labels: f64,
    parts: Value,
}

impl Look {
    fn at(server: &mut Server) -> anyhow::Result<Look> {
        let resident = server.usage()?.resident_bytes;
        let status = server.status()?;
        let parts = status["memory_bytes"].clone();
        Ok(Look {
            kept: status["series"]["kept"].as_f64().context("no series")?,
            resident,
            accounted: parts["total"].as_f64().context("no total of memory_bytes")?,
            aliases: server.metric("oddity_alias_cache_entries")?,
            labels: server.metric("oddity_label_pairs")?,
            parts,
        })
    }

    fn json(&self, hour: i64, seconds: f64) -> Value {
        json!({
            "hour": hour,
            "seconds": seconds,
            "kept": self.kept,
            "resident_bytes": self.resident,
            "accounted_bytes": self.accounted,
            "aliases": self.aliases,
            "labels": self.labels,
            "parts": self.parts,
        })
    }
}

const MIB: f64 = 1_048_576.0;

/// Runs the day and prints it.
pub async fn print(args: &ChurnArgs) -> anyhow::Result<()> {
    let text = args.format == Format::Text;
    for line in machine::lines() {
        if text { println!("{line}") } else { eprintln!("{line}") }
    }
    let interval = Span::MINUTE;
    // The day, and two hours for what falls silent.
    let start = now().0.div_euclid(interval.0) - 60 * (args.hours + 3);
    let options = FleetOptions { series: args.series, interval, seed: 1, churn: CHURN };
    let mut fleet = Fleet::new(options)?;
    let stop = start + 60 * args.hours;
    for pod in (0..args.series / POD).step_by(2) {
        // Every second pod is gone after the day.
        let kind = FaultKind::Gone;
        fleet.inject(Fault { kind, series: pod * POD, start: stop, steps: 600, size: 0.0 });
    }
    let fleet = Arc::new(fleet);
    let sink = Sink::new(TcpListener::bind("127.0.0.1:0").await?)?;
    let mut server = Server::start(&Setup {
        downstream: sink.address(),
        emit: args.emit,
        forget_after: "30m",
        max_series: 10 * args.series,
    })?;
    if text {
        println!(
            "{} series at a time, 1 % replaced each minute, interval {interval}, forget_after {FORGET}m, emit \
             {}; {:.0} MiB resident before the first\n",
            args.series,
            args.emit.name(),
            server.empty.resident_bytes / MIB
        );
        println!("hour  series kept  resident MiB  accounted MiB   aliases  label pairs  samples/s");
    }
    let mut looks = Vec::new();
    for hour in 1..=args.hours {
        let rate = send(&mut server, args, &fleet, start + 60 * (hour - 1), 60).await?;
        let look = Look::at(&mut server)?;
        if text {
            println!(
                "{hour:>4} {:>12.0} {:>13.1} {:>14.1} {:>9.0} {:>12.0} {rate:>10.0}",
                look.kept,
                look.resident / MIB,
                look.accounted / MIB,
                look.aliases,
                look.labels,
            );
        } else {
            println!("{}", look.json(hour, rate));
        }
        looks.push(look);
    }
    flat(args, &looks);
    silent(&mut server, args, &fleet, stop).await
}

/// Sends some steps, as fast as they are accepted; samples a second.
async fn send(
    server: &mut Server,
    args: &ChurnArgs,
    fleet: &Arc<Fleet>,
    start: i64,
    steps: i64,
) -> anyhow::Result<f64> {
    let fast = RunOptions::fast(&server.url(), args.protocol.version(), start, steps);
    let options = RunOptions { senders: SENDERS, shuffle: true, ..fast };
    let report = run(fleet.clone(), options, Arc::<Counts>::default(), Arc::default()).await;
    server.alive()?;
    let report = report.with_context(|| server.said())?;
    if let Some(failure) = report.first_failure {
        bail!("{failure}\n{}", server.said());
    }
    Ok(report.samples_per_second)
}

/// Whether memory stays, from the second hour on.
fn flat(args: &ChurnArgs, looks: &[Look]) {
    let from = &looks[(FROM as usize).min(looks.len() - 1)..];
    let spread = |of: fn(&Look) -> f64| {
        let all = from.iter().map(of);
        (all.clone().fold(f64::INFINITY, f64::min), all.fold(0.0, f64::max))
    };
    let third = (from.len() / 3).max(1);
    let mean = |part: &[Look]| part.iter().map(|look| look.resident).sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&from[..third]), mean(&from[from.len() - third..]));
    let (resident, accounted) = (spread(|look| look.resident), spread(|look| look.accounted));
    let (kept, aliases) = (spread(|look| look.kept), spread(|look| look.aliases));
    if args.format == Format::Json {
        println!(
            "{}",
            json!({
                "after_hour": FROM,
                "resident_bytes": {"least": resident.0, "greatest": resident.1},
                "accounted_bytes": {"least": accounted.0, "greatest": accounted.1},
                "kept": {"least": kept.0, "greatest": kept.1},
                "aliases": {"least": aliases.0, "greatest": aliases.1},
                "last_third_over_first": late / early,
            })
        );
        return;
    }
    println!("\nafter hour {FROM}, least to greatest:");
    let row = |what: &str, (least, most): (f64, f64), unit: f64| {
        println!("  {what:<13} {:>12.1} to {:>12.1}  ({:.2} times)", least / unit, most / unit, most / least);
    };
    row("resident MiB", resident, MIB);
    row("accounted MiB", accounted, MIB);
    row("series kept", kept, 1.0);
    row("aliases", aliases, 1.0);
    println!("  resident, mean of the last third over the first: {:.3}", late / early);
}

/// Half of the pods stop. What do their series hold until they are forgotten, and after?
async fn silent(server: &mut Server, args: &ChurnArgs, fleet: &Arc<Fleet>, stop: i64) -> anyhow::Result<()> {
    let before_stop = Look::at(server)?;
    // Nothing that stopped with them is due before 30 minutes.
    send(server, args, fleet, stop, FORGET - 5).await?;
    let silent = Look::at(server)?;
    send(server, args, fleet, stop + FORGET - 5, 65 - FORGET).await?;
    let began = Instant::now();
    let gone = loop {
        let look = Look::at(server)?;
        // Half of the pods go on, with what churn leaves behind.
        if look.kept < 0.6 * silent.kept {
            break look;
        }
        if began.elapsed() > PATIENCE {
            bail!("{} of {} series are still kept: were they not forgotten?", look.kept, silent.kept);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let series = silent.kept - gone.kept;
    let each = |of: fn(&Look) -> f64| (of(&silent) - of(&gone)) / series;
    let (accounted, resident) = (each(|look| look.accounted), each(|look| look.resident));
    let held = silent.accounted / silent.kept;
    if args.format == Format::Json {
        println!(
            "{}",
            json!({
                "silent_series": series,
                "bytes_per_kept_series": held,
                "accounted_bytes_freed_each": accounted,
                "resident_bytes_freed_each": resident,
                "before_stop": before_stop.json(args.hours, 0.0),
                "silent": silent.json(args.hours, 0.0),
                "forgotten": gone.json(args.hours + 1, 0.0),
            })
        );
        return Ok(());
    }
    println!("\nhalf of the pods stop:");
    for (what, look) in [("before", &before_stop), ("silent for 25 m", &silent), ("forgotten", &gone)] {
        println!(
            "  {what:<16} {:>9.0} series kept, accounted {:>7.1} MiB, resident {:>7.1} MiB",
            look.kept,
            look.accounted / MIB,
            look.resident / MIB
        );
    }
    println!("  a silent series holds {held:.0} B (accounted, of all kept) until it is forgotten;");
    println!(
        "  forgetting {series:.0} of them gave back {accounted:.0} B each (resident {resident:.0} B); the rest \
         is room for new ones"
    );
    Ok(())
}
