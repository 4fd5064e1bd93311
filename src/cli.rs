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
            eprintln!("oddity: {error:#}");
            let usage = error.downcast_ref::<Usage>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Options that parse and yet cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

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
