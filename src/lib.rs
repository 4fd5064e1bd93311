//! oddity scores every Prometheus series as it arrives by remote write, and writes the scores back.
//!
//! The rooms are layered in floors; a module uses only modules on lower floors (a test holds that).
//! `ARCHITECTURE.md` walks through them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// F0: the binary form of values; facts about time, labels and numbers; fail points.
pub mod codec;
pub mod fail;
pub mod labels;
pub mod stats;
pub mod time;
// F1: the wire.
pub mod wire;
// F2: detection.
pub mod calibrate;
pub mod detect;
// F3: what a user configures, and the record.
pub mod record;
pub mod rules;
// F4: partitions of series.
pub mod registry;
// F5: the engine, and state on disk.
pub mod engine;
pub mod state;
// F6: the edges.
pub mod emit;
pub mod history;
pub mod ingest;
pub mod outbound;
// F7: what keeps state, and tools over the engine.
pub mod backtest;
pub mod keeper;
pub mod simulate;
// F8: what is shown, and to whom.
pub mod api;
pub mod secure;
pub mod telemetry;
// F9: the application.
pub mod app;
pub mod cli;
pub mod config;
