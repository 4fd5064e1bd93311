//! `oddity backtest`: labelled data through the live engine.

use super::simulate::{Format, progress};
use crate::backtest::{
    self, FileReport, Layout, Options, Totals, default_rules, inputs_of_nab, inputs_of_paths,
};
use comfy_table::{CellAlignment, Table, presets};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Replays labelled CSV data through the live engine.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["nab", "csv"])))]
pub struct Args {
    /// A checkout of the Numenta Anomaly Benchmark (data/, labels/). Results then hold the alarm
    /// score in the column anomaly_score.
    #[arg(long, value_name = "DIR")]
    pub nab: Option<PathBuf>,
    /// CSV files, or folders of .csv files: timestamp,value[,label][,split].
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub csv: Vec<PathBuf>,
    /// Rules instead of the built-in ones, which take every series as it is.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Folder for the results: DIR/oddity/oddity_<stem>.csv, one row for each input row.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Metric name of the series made of a file; the file's name becomes the label `file`.
    #[arg(long, default_value = "csv")]
    pub metric: String,
    /// No bands: faster.
    #[arg(long)]
    pub no_bands: bool,
    /// Files at a time.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Runs the command.
///
/// # Errors
/// Input or rules that cannot be used, results that cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (inputs, layout) = match &args.nab {
        Some(folder) => (inputs_of_nab(folder)?, Layout::Nab),
        None => (inputs_of_paths(&args.csv)?, Layout::Plain),
    };
    let rules = match &args.rules {
        Some(path) => load_rules(path)?,
        None => Arc::new(default_rules(&args.metric, !args.no_bands)?),
    };
    let options =
        Options { rules, metric: args.metric.clone(), out: args.out.clone(), layout, threads: args.threads };
    let bar = progress(Some(inputs.len() as u64), "{elapsed_precise} {wide_bar} {pos}/{len} files");
    let reports = backtest::run(&inputs, &options, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let totals = Totals::of(&reports);
    match args.format {
        Format::Json => {
            println!("{}", serde_json::json!({"files": reports, "totals": totals}));
        }
        Format::Text => println!("{}", table(&reports, &totals)),
    }
    if totals.scored == 0 && totals.rows > 0 {
        eprintln!(
            "no row was scored: the files are shorter than min_samples, or no rule takes {}",
            args.metric
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

fn table(reports: &[FileReport], totals: &Totals) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "file",
        "rows",
        "scored",
        "flagged",
        "alarms",
        "false",
        "events",
        "found",
        "precision",
        "recall",
        "F1",
    ]);
    let mut row = |name: &str, sizes: [usize; 3], labelled: bool, judgement: &backtest::Judgement| {
        let told = |value: usize| if labelled { value.to_string() } else { "-".into() };
        let [rows, scored, flagged] = sizes.map(|size| size.to_string());
        table.add_row([
            name.to_string(),
            rows,
            scored,
            flagged,
            judgement.alarms.to_string(),
            told(judgement.false_alarms),
            told(judgement.events),
            told(judgement.found),
            ratio(judgement.precision().filter(|_| labelled)),
            ratio(judgement.recall()),
            ratio(judgement.f1()),
        ]);
    };
    for report in reports {
        let sizes = [report.rows, report.scored, report.flagged];
        row(&report.file, sizes, report.labelled, &report.judgement);
    }
    let labelled = reports.iter().any(|report| report.labelled);
    let sizes = [totals.rows, totals.scored, totals.flagged];
    row(&format!("all {} files", totals.files), sizes, labelled, &totals.judgement);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.trim_fmt();
    if let Some(rate) = totals.false_alarms_per_series_day {
        text += &format!("\nfalse alarms per series and day: {rate:.4}");
    }
    let (found, delay) = (totals.judgement.found, totals.judgement.delay_ms);
    if found > 0 {
        text += &format!("\nmean delay of the events found: {:.0} s", delay as f64 / 1e3 / found as f64);
    }
    text
}

fn load_rules(path: &std::path::Path) -> anyhow::Result<Arc<crate::rules::RuleSet>> {
    match crate::config::Config::load(path) {
        Ok(config) => Ok(config.rules),
        Err(problems) => anyhow::bail!("{problems}"),
    }
}
