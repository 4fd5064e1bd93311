//! `oddity backtest`: labelled data or history through the live engine.

mod fetch;
mod show;

use super::Usage;
use super::simulate::progress;
use crate::backtest::{
    self, Layout, Options, Report, SeriesReport, default_rules, inputs_of_nab, inputs_of_paths,
};
use crate::history::{History, openmetrics};
use crate::rules::{As, RuleSet};
use anyhow::Context;
use clap::ValueEnum;
use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Output for people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// One JSON object.
    Json,
}

/// Replays labelled data or history through the live engine.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("input").args(["nab", "csv", "openmetrics", "query"])))]
pub struct Args {
    /// A checkout of the Numenta Anomaly Benchmark (data/, labels/). Results then hold the alarm
    /// score in the column anomaly_score.
    #[arg(long, value_name = "DIR")]
    pub nab: Option<PathBuf>,
    /// CSV files, or folders of .csv files: timestamp,value[,label][,split].
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub csv: Vec<PathBuf>,
    /// OpenMetrics text with timestamps, as `promtool tsdb dump-openmetrics` writes it.
    #[arg(long, value_name = "FILE")]
    pub openmetrics: Option<PathBuf>,
    /// A Prometheus whose history is replayed; needs --query.
    #[arg(long, value_name = "URL", env = "PROMETHEUS_URL")]
    pub prometheus: Option<String>,
    /// PromQL. A plain selector gives the raw samples, anything else a query on a grid.
    #[arg(long, value_name = "PROMQL")]
    pub query: Option<String>,
    /// Where the history starts: a timestamp, or a duration before the end.
    #[arg(long, value_name = "TIME", default_value = "7d", requires = "query")]
    pub start: String,
    /// Where it ends: a timestamp, or a duration before now.
    #[arg(long, value_name = "TIME", default_value = "0", requires = "query")]
    pub end: String,
    /// Grid of the query, 1m by default; given with a plain selector, it is queried on the grid too.
    #[arg(long, value_name = "DURATION", requires = "query", value_parser = crate::time::Span::parse)]
    pub step: Option<crate::time::Span>,
    /// Rules instead of the built-in ones, which take every series: CSV values as they are, other
    /// series by their type.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Folder for the results: DIR/oddity/oddity_<stem>.csv, one row for each sample; with
    /// --openmetrics and --prometheus index.json tells which series is where.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Metric name of the series made of a CSV file (its name becomes the label `file`), and of a
    /// query's results that have none.
    #[arg(long, default_value = "csv")]
    pub metric: String,
    /// No bands in the results: faster.
    #[arg(long)]
    pub no_bands: bool,
    /// Threads; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Exit with 3 when anything was flagged.
    #[arg(long)]
    pub fail_on_anomaly: bool,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command.
///
/// # Errors
/// Input or rules that cannot be used, a Prometheus that does not answer, results that cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let files = args.nab.is_some() || !args.csv.is_empty();
    if !files && args.openmetrics.is_none() && args.query.is_none() {
        let what = match args.prometheus {
            Some(_) => "--prometheus needs --query, such as --query 'node_load1'",
            None => "nothing to replay: give --nab, --csv, --openmetrics, or --prometheus with --query",
        };
        return Err(Usage(what.into()).into());
    }
    let options = options(&args, files)?;
    let reports = match (&args.nab, &args.openmetrics, &args.query) {
        (Some(folder), ..) => of_files(&inputs_of_nab(folder)?, &options)?,
        (_, Some(path), _) => of_history(dump(path)?, &options)?,
        (_, _, Some(query)) => of_history(fetch::fetch(&args, query)?, &options)?,
        _ => of_files(&inputs_of_paths(&args.csv)?, &options)?,
    };
    let report = Report::of(reports);
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&report)?),
        Format::Table => print!("{}", show::text(&report, std::io::stdout().is_terminal())),
    }
    if report.totals.scored == 0 && report.totals.samples > 0 {
        eprintln!("nothing was scored: every series is shorter than min_samples, or no rule takes it");
    }
    let failed = args.fail_on_anomaly && report.totals.flagged > 0;
    Ok(if failed { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn options(args: &Args, files: bool) -> anyhow::Result<Options> {
    let rules = match &args.rules {
        Some(path) => load_rules(path)?,
        None if files => Arc::new(default_rules(Some(&args.metric), Some(As::Value), true)?),
        None => Arc::new(default_rules(None, None, true)?),
    };
    // Only result files hold bands, which take most of the time.
    let bands = args.out.is_some() && !args.no_bands;
    let rules = if bands { rules } else { Arc::new(backtest::without_bands(&rules)) };
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = if args.threads == 0 { cores() } else { args.threads };
    let layout = if args.nab.is_some() { Layout::Nab } else { Layout::Plain };
    Ok(Options { rules, metric: args.metric.clone(), out: args.out.clone(), layout, threads })
}

fn load_rules(path: &Path) -> anyhow::Result<Arc<RuleSet>> {
    match crate::config::Config::load(path) {
        Ok(config) => Ok(config.rules),
        Err(problems) => anyhow::bail!("{problems}"),
    }
}

fn of_files(inputs: &[backtest::Input], options: &Options) -> anyhow::Result<Vec<SeriesReport>> {
    let bar = progress(Some(inputs.len() as u64), "replay {elapsed_precise} {wide_bar} {pos}/{len} files");
    let reports = backtest::run_files(inputs, options, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(reports?)
}

fn of_history(history: History, options: &Options) -> anyhow::Result<Vec<SeriesReport>> {
    if history.histograms > 0 {
        eprintln!("{} native histograms were left out: only floats are replayed", history.histograms);
    }
    anyhow::ensure!(!history.series.is_empty(), "there is no sample in it");
    let all = history.series.len();
    let template = "replay {elapsed_precise} {wide_bar} {human_pos}/{human_len} samples";
    let bar = progress(Some(history.samples() as u64), template);
    let reports = backtest::run_history(history, options, &|samples| bar.inc(samples));
    bar.finish_and_clear();
    let reports = reports?;
    if reports.len() < all {
        eprintln!("{} of {all} series are left out: no rule takes them", all - reports.len());
    }
    Ok(reports)
}

fn dump(path: &Path) -> anyhow::Result<History> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let length = file.metadata().map(|meta| meta.len()).ok().filter(|length| *length > 0);
    let bar = progress(length, "read {elapsed_precise} {wide_bar} {bytes}/{total_bytes}");
    let mut unseen = 0;
    let history = openmetrics::read(BufReader::with_capacity(1 << 20, file), path, &mut |bytes| {
        unseen += bytes;
        if unseen >= 1 << 20 {
            bar.inc(std::mem::take(&mut unseen));
        }
    });
    bar.finish_and_clear();
    Ok(history?)
}
