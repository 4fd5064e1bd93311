//! Calibration, the last step: the tail probability of the fused evidence under the series' own
//! recent peaks, read out against the promised number of alarms.

pub mod ledger;
pub mod readout;

pub use ledger::{Ledger, PEAKS, Prior};
