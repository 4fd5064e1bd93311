//! Calibration, the last step: the tail probability of the fused evidence under the series' own
//! recent peaks, read out against the promised number of alarms.

pub mod exposure;
pub mod ledger;
pub mod readout;

pub use exposure::{Exposure, Moment};
pub use ledger::{Ledger, PEAKS, Prior};
