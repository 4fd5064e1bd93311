//! `oddity plan`: what a number of series takes, by the formula of `docs/performance.md`.

use super::args;
use super::check::Format;
use crate::time::Span;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::process::ExitCode;

/// CPU time of a sample, µs: received, decoded, logged and scored. Of a million series or less.
const SAMPLE: f64 = 1.7;
/// The same with its score and flag written back by remote write 2.0.
const SAMPLE_EMITTED: f64 = 4.0;
/// Resident bytes of a process without series.
const BASE: f64 = 20e6;
/// More of them where outputs are written back: requests being made, and what waits for an answer.
const BASE_EMITTED: f64 = 18e6;
/// Resident bytes a series.
const SERIES: f64 = 1_150.0;
/// More where outputs are written back: their names and queues.
const EMITTED: f64 = 30.0;
/// More of them while a daily profile is on trial, in the first days, and for good where it is kept.
const SEASON: f64 = 1_100.0;
/// Bytes of the log a sample, as Prometheus compresses.
const LOG: f64 = 130.0;
/// Bytes of a checkpoint a series; two are kept, and a third is written.
const CHECKPOINT: f64 = 950.0;
/// A core is not planned to be busier than this.
const BUSY: f64 = 0.5;
/// Work that a restart may have to do again, seconds.
const REPLAY: f64 = 2.0;

/// Options of `oddity plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Series that rules will match
    #[arg(long, value_name = "N", value_parser = args::whole::<1, 1_000_000_000, u64>)]
    series: u64,
    /// How often each is scraped
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = interval)]
    interval: Span,
    /// What is written back of each sample
    #[arg(long, value_enum, default_value = "always")]
    emit: Emit,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// Score and flag of every sample
    Always,
    /// Nothing: scores are read by the API, or only what changes is written
    None,
}

fn interval(text: &str) -> Result<Span, String> {
    match Span::parse(text) {
        Ok(span) if (Span::SECOND..=Span::HOUR).contains(&span) => Ok(span),
        _ => Err("expected a duration from 1s to 1h, such as 15s".into()),
    }
}

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    samples: f64,
    busy: f64,
    cores: f64,
    memory: f64,
    memory_at_first: f64,
    log: f64,
    disk: f64,
}

impl Plan {
    fn of(series: u64, interval: Span, emit: Emit) -> Plan {
        let series = series as f64;
        let samples = series / interval.as_secs_f64();
        let (cost, base, more) = match emit {
            Emit::Always => (SAMPLE_EMITTED, BASE + BASE_EMITTED, EMITTED),
            Emit::None => (SAMPLE, BASE, 0.0),
        };
        let busy = samples * cost / 1e6;
        let log = samples * LOG;
        let memory = base + series * (SERIES + more);
        // The log reaches back to the older of two checkpoints, each as old as a replay may take.
        let logged = log * (2.0 * REPLAY / busy.max(1e-3)).min(2.0 * 900.0);
        let disk = 3.0 * series * CHECKPOINT + logged;
        let cores = (busy / BUSY).ceil().max(1.0);
        Plan { samples, busy, cores, memory, memory_at_first: memory + series * SEASON, log, disk }
    }
}

fn bytes(number: f64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let power = (number.max(1.0).log10() / 3.0).floor().min(4.0);
    format!("{:.1} {}", number / 1000f64.powf(power), units[power as usize])
}

/// Runs the command.
///
/// # Errors
/// None; it has the form of the others.
pub fn run(options: PlanArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::of(options.series, options.interval, options.emit);
    match options.format {
        Format::Json => println!(
            "{:#}",
            json!({
                "series": options.series,
                "samples_per_second": plan.samples,
                "busy_cores": plan.busy,
                "cores": plan.cores,
                "memory_bytes": plan.memory,
                "memory_bytes_first_days": plan.memory_at_first,
                "log_bytes_per_second": plan.log,
                "disk_bytes": plan.disk,
            })
        ),
        Format::Text => {
            println!("{} series every {}", options.series, options.interval);
            println!("  samples a second    {:.0}", plan.samples);
            println!("  cores kept busy     {:.2}: plan for {:.0}", plan.busy, plan.cores);
            println!("  memory              {}", bytes(plan.memory));
            println!("    in the first days {}: daily seasons are on trial", bytes(plan.memory_at_first));
            println!("  written to the log  {} a second", bytes(plan.log));
            println!("  disk                {}", bytes(plan.disk));
            println!("Measured as docs/performance.md tells, on cores of about 3 GHz.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_grows_with_series_and_shrinks_with_the_interval() {
        let small = Plan::of(10_000, Span::MINUTE, Emit::None);
        let large = Plan::of(1_000_000, Span::SECOND, Emit::Always);
        assert_eq!((small.cores, small.samples.round()), (1.0, 167.0));
        assert!(large.cores >= 2.0 && large.memory > 50.0 * small.memory / 2.0);
        assert!(small.memory_at_first > small.memory && small.disk > 0.0);
    }

    #[test]
    fn bytes_are_told_in_units() {
        let told = [0.0, 999.0, 1_500.0, 2e9, 3e15].map(bytes);
        assert_eq!(told, ["0.0 B", "999.0 B", "1.5 KB", "2.0 GB", "3000.0 TB"]);
    }
}
