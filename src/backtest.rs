//! Replays labelled data or history through the live engine, and judges what it says.

pub mod alarm;
pub mod answers;
pub mod csv;
pub mod inputs;
pub mod judge;
pub mod replay;
pub mod report;
pub mod results;
pub mod run;
pub mod sweep;

pub use alarm::alarm_scores;
pub use answers::Answers;
pub use inputs::{Input, inputs_of_nab, inputs_of_paths};
pub use judge::{Judgement, judge};
pub use replay::{default_rules, replay, without_bands};
pub use report::{Alarm, Report, SeriesReport, Summary, Totals};
pub use run::{Layout, Options, run_files, run_history};
pub use sweep::{Recommended, Step};

use std::path::PathBuf;

/// Why a back-test cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// A row of a file cannot be used.
    #[error("{}:{line}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The input is not laid out as it should be.
    #[error("{0}")]
    Input(String),
    /// The engine refused a body.
    #[error("the engine refused a body: {0}")]
    Engine(crate::engine::ApplyError),
    /// The metric's name is not one.
    #[error("{0:?} is not a metric name")]
    Metric(String),
}
