//! Replays labelled CSV data through the live engine and judges what it says.

pub mod alarm;
pub mod csv;
pub mod judge;
pub mod replay;
pub mod run;

pub use alarm::alarm_scores;
pub use csv::{Row, Table};
pub use judge::{Judgement, judge};
pub use replay::{Answer, Replay, default_rules, replay};
pub use run::{FileReport, Input, Layout, Options, Totals, inputs_of_nab, inputs_of_paths, run};

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
    #[error("{}: the engine refused a body: {source}", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// The engine's error.
        source: crate::wire::WireError,
    },
    /// The metric's name is not one.
    #[error("{0:?} is not a metric name")]
    Metric(String),
}
