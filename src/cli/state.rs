//! `oddity state`: what is in a state folder, whether it is whole, and models from one to another.

mod show;

use super::check::Format;
use crate::config::Config;
use crate::keeper::{models, survey};
use crate::labels::Selector;
use crate::rules::selector;
use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `oddity state`.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum StateCommand {
    /// Show what is in a state folder: checkpoints, log, queues, series by rule
    Inspect(LookArgs),
    /// Read every file of a state folder in full; exit code 1 where one is damaged
    Verify(LookArgs),
    /// Write what series have learnt to a file, as the newest checkpoint has it
    Export(ExportArgs),
    /// Put what was exported into the state folder of a sidecar that does not run
    Import(ImportArgs),
}

/// A folder to look at. It is not changed, and may be in use.
#[derive(Clone, Debug, Args)]
struct LookArgs {
    /// The folder, `state.dir` of the configuration
    #[arg(value_name = "DIR", default_value = "data")]
    dir: PathBuf,
    /// Bytes that one body of the log may decompress to: `limits.max_body_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, hide = true)]
    body_bytes: usize,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What to take out, and where to.
#[derive(Clone, Debug, Args)]
struct ExportArgs {
    /// The folder, `state.dir` of the configuration; it may be in use
    #[arg(value_name = "DIR", default_value = "data")]
    dir: PathBuf,
    /// Only series that fit this PromQL selector; may be given more than once
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selectors)]
    matches: Vec<Selectors>,
    /// The file to write; it must not be there yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What to put in, and where.
#[derive(Clone, Debug, Args)]
struct ImportArgs {
    /// The file that `oddity state export` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder, `state.dir` of a sidecar that does not run
    #[arg(value_name = "DIR", default_value = "data")]
    dir: PathBuf,
    /// The configuration of that sidecar: needed where it has never run
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Series that are there already give way
    #[arg(long)]
    replace: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What one `--match` says: a selector with `or` is several.
#[derive(Clone, Debug)]
struct Selectors(Vec<Selector>);

fn selectors(text: &str) -> Result<Selectors, String> {
    selector::parse(text).map(Selectors)
}

/// Runs the command: exit code 1 where `verify` finds damage.
///
/// # Errors
/// A folder or file cannot be read or written, or is damaged.
pub fn run(args: StateArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        StateCommand::Inspect(args) => {
            let found = survey::survey(&args.dir, false, args.body_bytes)?;
            print(args.format, &found, || show::survey(&found))?;
            Ok(ExitCode::SUCCESS)
        }
        StateCommand::Verify(args) => {
            let found = survey::survey(&args.dir, true, args.body_bytes)?;
            print(args.format, &found, || show::verdict(&found))?;
            Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        StateCommand::Export(args) => {
            let wanted: Vec<Selector> = args.matches.into_iter().flat_map(|all| all.0).collect();
            let exported = models::export(&args.dir, &wanted, &args.out)?;
            print(args.format, &exported, || show::exported(&exported))?;
            Ok(ExitCode::SUCCESS)
        }
        StateCommand::Import(args) => {
            let rules = match &args.config {
                None => None,
                Some(file) => Some(Config::load(file).context("the configuration is not valid")?.rules),
            };
            let imported = models::import(models::read(&args.file)?, &args.dir, rules, args.replace)?;
            print(args.format, &imported, || show::imported(&imported))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(format: Format, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{:#}", serde_json::to_value(value)?)?,
        Format::Text => writeln!(out, "{}", text().trim_end())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use clap::Parser;

    #[test]
    fn wrong_usage_is_told() {
        for (line, words) in [
            ("state export data", "--out"),
            ("state export --out f --match {", "not a valid selector"),
            ("state import", "FILE"),
            ("state inspect --format yaml", "possible values"),
            ("state", "inspect"),
        ] {
            let args = std::iter::once("oddity").chain(line.split(' '));
            let error = Cli::try_parse_from(args).map(|_| ()).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
        for line in ["state inspect", "state verify /x --format json", "state export --out f --match up"] {
            let args = std::iter::once("oddity").chain(line.split(' '));
            Cli::try_parse_from(args).map(|_| ()).expect(line);
        }
    }
}
