//! Our own output series, recognised at the door: Prometheus forwards what its receiver took in,
//! so without this the scores would be scored.

use crate::labels::{NAME, value_of};

/// `anomaly_score`, under both naming schemes.
pub const SCORE: &str = "anomaly_score";
/// The flag.
pub const FLAG: &str = "anomaly_flag";
/// What was expected.
pub const EXPECTED: &str = "anomaly_expected";
/// The band's lower edge.
pub const LOWER: &str = "anomaly_lower";
/// The band's upper edge.
pub const UPPER: &str = "anomaly_upper";
/// A detector's own evidence.
pub const DETECTOR_SCORE: &str = "anomaly_detector_score";
/// vmanomaly's name of the value.
pub const VM_VALUE: &str = "y";
/// vmanomaly's name of what was expected.
pub const VM_EXPECTED: &str = "yhat";
/// vmanomaly's name of the band's lower edge.
pub const VM_LOWER: &str = "yhat_lower";
/// vmanomaly's name of the band's upper edge.
pub const VM_UPPER: &str = "yhat_upper";

/// Every name an output is written under.
pub const NAMES: [&str; 10] =
    [SCORE, FLAG, EXPECTED, LOWER, UPPER, DETECTOR_SCORE, VM_VALUE, VM_EXPECTED, VM_LOWER, VM_UPPER];

/// Whether a series is one of our outputs: by its name *and* by the labels that mark an output
/// (`rule`, and `metric` or `for`), so that somebody else's `anomaly_score` is still scored.
pub fn is_own(labels: &[(&str, &str)]) -> bool {
    value_of(labels, NAME).is_some_and(|name| NAMES.contains(&name))
        && value_of(labels, "rule").is_some()
        && (value_of(labels, "metric").is_some() || value_of(labels, "for").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_does_not_make_a_series_ours() {
        assert!(is_own(&[(NAME, SCORE), ("metric", "up"), ("rule", "node")]));
        assert!(is_own(&[(NAME, VM_EXPECTED), ("for", "up"), ("rule", "node")]));
        assert!(!is_own(&[(NAME, SCORE), ("job", "other")]));
        assert!(!is_own(&[(NAME, SCORE), ("metric", "up")]));
        assert!(!is_own(&[(NAME, "up"), ("metric", "up"), ("rule", "node")]));
    }
}
