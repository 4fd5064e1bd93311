//! Where a detector expects a value.

use crate::stats::math::{Bounds, ratio};

/// Where a detector expects the value, and how far it may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Centre {
    /// The value expected, in the signal's unit.
    pub at: f64,
    /// The usual distance from it, above 0.
    pub scale: f64,
}

impl Centre {
    /// The greater of the distances of `a` and `b`, in scales: the greatest of all between them.
    pub(super) fn z(self, a: f64, b: f64) -> f64 {
        ratio((a - self.at).abs().at_least((b - self.at).abs()), self.scale)
    }
}
