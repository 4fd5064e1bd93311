//! Streaming detectors over one scalar signal, and the model that fuses them.
//!
//! A [`Model`] is the fixed-size state of one (series, `as`, parameters) key. It knows no clock:
//! time is the samples' own timestamps. Every function is total over all `f64`.

mod band;
mod centre;
mod channel;
pub mod cohort;
pub mod ewma;
pub mod flat;
mod fuse;
pub mod holt_winters;
pub mod isolation;
pub mod kind;
pub mod model;
pub mod params;
pub mod rarity;
pub mod seasonal;
pub mod shift;
pub mod slope;
pub mod zscore;

pub use centre::Centre;
pub use kind::Kind;
pub use model::{Band, Model, Verdict};
pub use params::{Detector, DetectorSet, Direction, MinChange, ModelParams, Periods, ReadOut, Season};
