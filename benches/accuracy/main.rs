//! Accuracy, measured: the promise of `false_alarms`, recall, and labelled data.
//!
//!     cargo bench --bench accuracy -- promise  [--days 35] [--series 24] [--interval 60] [--seed N]
//!     cargo bench --bench accuracy -- recall   [--days 10] [--series 24] [--interval 60] [--seed N]
//!     cargo bench --bench accuracy -- kinds    [--days 10] [--series 24] [--interval 60] [--seed N]
//!     cargo bench --bench accuracy -- cold     [--series 24] [--interval 15] [--seed N]
//!     cargo bench --bench accuracy -- labelled DIR [--without detector]
//!
//! Synthetic series come from a fresh seed each run, which is printed. Labelled data are folders of
//! `timestamp,value,label[,split]` files. Everything runs the default model, as the sidecar does.

mod cold;
mod events;
mod families;
mod kinds;
mod labelled;
mod promise;
mod random;
mod recall;
mod run;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was asked for.
pub struct Options {
    /// Days of a series.
    pub days: f64,
    /// Series of a family.
    pub series: usize,
    /// Sampling interval, seconds.
    pub interval: i64,
    /// Where random numbers start.
    pub seed: u64,
    /// Only families or files whose name has this in it.
    pub only: Option<String>,
    /// A detector left out.
    pub without: Option<String>,
    /// Folders.
    pub paths: Vec<String>,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let Some(what) = args.next() else {
        // `cargo test --benches` and a bare `cargo bench` come here.
        eprintln!("say what to measure: promise, recall, kinds, cold or labelled DIR");
        return ExitCode::SUCCESS;
    };
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let days = if what == "promise" { 35.0 } else { 10.0 };
    let mut options = Options {
        days,
        series: 24,
        interval: 60,
        seed: fresh % 1_000_000,
        only: None,
        without: None,
        paths: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        let sound = match arg.as_str() {
            "--days" => value().parse().map(|d| options.days = d).is_ok(),
            "--series" => value().parse().map(|n| options.series = n).is_ok(),
            "--interval" => value().parse().map(|s| options.interval = s).is_ok(),
            "--seed" => value().parse().map(|s| options.seed = s).is_ok(),
            "--only" => {
                options.only = Some(value());
                true
            }
            "--without" => {
                options.without = Some(value());
                true
            }
            _ => {
                options.paths.push(arg.clone());
                !arg.starts_with("--")
            }
        };
        if !sound {
            eprintln!("cannot read {arg}");
            return ExitCode::from(2);
        }
    }
    match what.as_str() {
        "promise" => promise::print(&options),
        "recall" => recall::print(&options),
        "kinds" => kinds::print(&options),
        "cold" => cold::print(&options),
        "labelled" => return labelled::print(&options),
        _ => {
            eprintln!("unknown measurement {what}: promise, recall, kinds, cold or labelled DIR");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
