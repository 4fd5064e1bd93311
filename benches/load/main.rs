//! What oddity costs, end to end: the release binary as a process of its own, fed over HTTP.
//!
//!     cargo bench --bench load -- [table] [--series 10000,100000,1000000,2000000] [--protocols 1.0,2.0]
//!                                 [--emit none,changed,always] [--format text|json]
//!     cargo bench --bench load -- churn [--series 100000] [--hours 24] [--emit always]
//!
//! `table` prints a row for each number of series, protocol and way to emit, with the log and checkpoints
//! on and the default detectors. `churn` is a simulated day in which 1 % of the series is replaced each
//! minute, and shows whether memory is flat. The load generator and the downstream are in this process,
//! so they share the cores with the server; the server's CPU time is the kernel's account of its process.

mod baseline;
mod churn;
mod machine;
mod server;
mod table;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "What oddity costs, end to end", bin_name = "cargo bench --bench load --")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    table: TableArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The table of costs (the default)
    Table(TableArgs),
    /// A simulated day in which 1 % of the series is replaced each minute
    Churn(ChurnArgs),
}

/// Output for people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What is written downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// Nothing: `emit: []`
    None,
    /// Score and flag where the score moved: `emit_when: changed`
    Changed,
    /// Score and flag of each sample, the default
    Always,
}

impl Emit {
    fn name(self) -> &'static str {
        match self {
            Emit::None => "none",
            Emit::Changed => "changed",
            Emit::Always => "always",
        }
    }
}

/// A protocol by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    #[value(name = "1.0")]
    V1,
    #[value(name = "2.0")]
    V2,
}

impl Protocol {
    fn version(self) -> oddity::wire::Version {
        match self {
            Protocol::V1 => oddity::wire::Version::V1,
            Protocol::V2 => oddity::wire::Version::V2,
        }
    }
}

fn series(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (1_000..=10_000_000).contains(&number) => Ok(number),
        _ => Err("expected a number of series from 1000 to 10000000".into()),
    }
}

#[derive(Clone, Debug, Args)]
struct TableArgs {
    /// Numbers of series
    #[arg(long, value_delimiter = ',', value_parser = series, default_values_t = [10_000, 100_000, 1_000_000, 2_000_000])]
    series: Vec<usize>,
    /// Remote write protocols
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["1.0", "2.0"])]
    protocols: Vec<Protocol>,
    /// What is written downstream
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["none", "changed", "always"])]
    emit: Vec<Emit>,
    /// Samples measured in a row, about
    #[arg(long, default_value_t = 6_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    samples: u64,
    /// Seconds of sending at half of the rate, for the time from a sample to its score
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Pods replaced an hour, percent
    #[arg(long, default_value_t = 10.0)]
    churn: f64,
    /// One JSON object a row, or text
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Debug, Args)]
struct ChurnArgs {
    /// Series at a time
    #[arg(long, value_parser = series, default_value_t = 100_000)]
    series: usize,
    /// Simulated hours
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(3..=720))]
    hours: i64,
    /// Remote write protocol
    #[arg(long, value_enum, default_value = "2.0")]
    protocol: Protocol,
    /// What is written downstream
    #[arg(long, value_enum, default_value = "always")]
    emit: Emit,
    /// One JSON object a line, or text
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn main() -> ExitCode {
    // cargo says `--bench` when it is asked to measure, and nothing when it runs benches as tests.
    if !std::env::args().any(|arg| arg == "--bench") {
        eprintln!("measures only under `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse_from(std::env::args().filter(|arg| arg != "--bench"));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.what {
            None => table::print(&cli.table).await,
            Some(What::Table(args)) => table::print(&args).await,
            Some(What::Churn(args)) => churn::print(&args).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
