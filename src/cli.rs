//! The command line.
//!
//! Exit codes: 0 done, 1 the work failed or the file checked is not valid, 2 wrong usage,
//! 3 anomalies found with `--fail-on-anomaly`.

pub mod backtest;
pub mod check;
pub mod demo;
pub mod serve;
pub mod simulate;

use clap::{Parser, Subcommand};
use std::io;
use std::process::ExitCode;

/// Anomaly detection for Prometheus: scores every sample as it arrives by remote write, and writes
/// the scores back.
#[derive(Debug, Parser)]
#[command(name = "oddity", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Serve(serve::ServeArgs),
    /// Show the whole product with nothing else installed
    Demo(demo::Args),
    /// Validate a configuration file; every error at once
    Check(check::CheckArgs),
    /// Replay labelled data through the engine
    Backtest(backtest::Args),
    /// Send a simulated fleet by remote write
    Simulate(simulate::Args),
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    end_quietly_when_nobody_reads();
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Backtest(args) => backtest::run(args),
        Command::Simulate(args) => simulate::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oddity: {}", told(&error));
            let usage = error.downcast_ref::<Usage>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Options that parse and yet cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error and its causes in one line. Many errors of libraries tell their cause already: it is not
/// told again.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// `println!` panics when the reader of a pipe has gone (`oddity … | head`); that is the end of the
/// work, not a failure.
fn end_quietly_when_nobody_reads() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("");
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(0);
        }
        before(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_told_once() {
        let backtest =
            crate::backtest::csv::read(std::path::Path::new("nope.csv")).expect_err("no such file");
        let text = told(&anyhow::Error::from(backtest).context("cannot replay"));
        assert!(text.starts_with("cannot replay: nope.csv: "), "{text}");
        assert_eq!(text.matches("os error 2").count(), 1, "{text}");
        let io = io::Error::other("no room");
        assert_eq!(
            told(&anyhow::Error::from(io).context("cannot listen on :1")),
            "cannot listen on :1: no room"
        );
    }

    #[test]
    fn prometheus_names_of_flags_are_taken() {
        let args = ["oddity", "serve", "--config.file=x.yml", "--web.listen-address=:0", "--log.level=debug"];
        let Ok(Cli { command: Command::Serve(serve) }) = Cli::try_parse_from(args) else {
            panic!("the flags should parse");
        };
        assert_eq!(serve.config, std::path::Path::new("x.yml"));
        assert_eq!(serve.listen, [":0"]);
        assert_eq!(
            Cli::try_parse_from(["oddity", "serve", "--nonsense"]).map_err(|e| e.exit_code()).err(),
            Some(2)
        );
    }
}
