//! The command line.
//!
//! Exit codes: 0 done, 1 the work failed or the file checked is not valid, 2 wrong usage,
//! 3 anomalies found with `--fail-on-anomaly`.

mod args;
pub mod backtest;
pub mod check;
pub mod demo;
pub mod plan;
pub mod serve;
pub mod simulate;
pub mod state;

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
    /// Tell what a number of series takes: cores, memory, disk
    Plan(plan::PlanArgs),
    /// Look into saved state, check it, and move models
    State(state::StateArgs),
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
        Command::Plan(args) => plan::run(args),
        Command::State(args) => state::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oddity: {}", told(&error));
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// Options that parse and yet cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

fn is_usage(error: &anyhow::Error) -> bool {
    use crate::simulate::SimulateError::{Fault, Options, Url};
    let simulate = error.downcast_ref();
    error.is::<Usage>() || matches!(simulate, Some(Options(_) | Fault { .. } | Url { .. }))
}

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
    }
    #[test]
    fn wrong_usage_is_told_by_name_and_ends_with_2() {
        for (line, words) in [
            ("serve --nonsense", "--nonsense"),
            ("serve --web.listen-address nonsense", "expected host:port"),
            ("serve --web.listen-address :99999", "65535"),
            ("serve --workers 0", "at least 1"),
            ("serve --workers 1025", "at most 1024"),
            ("demo --series 10", "at least 40"),
            ("demo --speed 1", "at least 2"),
            ("demo --speed NaN", "at least 2"),
            ("demo --history 1m", "at least 20m"),
            ("demo --duration 0s", "above 0"),
            ("demo --listen x", "expected host:port"),
            ("demo --remote-write x", "http://"),
            ("simulate --interval 0s", "above 0"),
            ("simulate --series 0", "at least 1"),
            ("simulate --series many", "whole number"),
            ("simulate --faults bogus", "unknown kind"),
            ("simulate --faults spike,shift:x", "size"),
            ("simulate --remote-write nonsense", "http://"),
            ("simulate --speed=-1", "at least 0"),
            ("simulate --rate=-1", "at least 0"),
            ("simulate --churn 10001", "at most 10000"),
            ("simulate --senders 0", "at least 1"),
            ("simulate --batch 0", "at least 1"),
            ("simulate --bench --rounds 0", "at least 1"),
        ] {
            let args = std::iter::once("oddity").chain(line.split(' '));
            let error = Cli::try_parse_from(args).map(|_| ()).expect_err(line);
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2, "{line}");
            let flag = line.split([' ', '=']).find(|word| word.starts_with("--") && *word != "--bench");
            assert!(text.contains(words) && text.contains(flag.unwrap_or("?")), "{line}: {text}");
        }
    }

    #[test]
    fn good_values_are_taken() {
        for line in [
            "serve --web.listen-address localhost:9898 --web.listen-address [::1]:0 --workers 1",
            "demo --series 40 --speed 2 --history 20m --remote-write https://x/api/v1/write",
            "simulate --series 1 --interval 1ms --faults= --speed 0 --churn 0.5",
            "simulate --faults spike,shift:12@10m+5m=3 --remote-write http://[::1]:9/w",
        ] {
            let args = std::iter::once("oddity").chain(line.split(' '));
            Cli::try_parse_from(args).map(|_| ()).expect(line);
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_wrong_usage_too() {
        let args = ["oddity", "simulate", "--speed", "0"];
        let Ok(Cli { command: Command::Simulate(args) }) = Cli::try_parse_from(args) else {
            panic!("each is right by itself");
        };
        let error = simulate::run(args).map(|_| ()).expect_err("--duration is missing");
        assert!(is_usage(&error) && error.to_string().contains("--duration"), "{error}");
        let args = ["oddity", "simulate", "--faults", "stall=999999"];
        let Ok(Cli { command: Command::Simulate(args) }) = Cli::try_parse_from(args) else {
            panic!("it is known with the fleet only");
        };
        assert!(is_usage(&simulate::run(args).map(|_| ()).expect_err("no such series")));
    }
}
