//! The read-out: nats against the budget. Nothing here is state.

use crate::stats::math::{Bounds, ln};
use crate::time::Span;

/// Which deviations count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// Only above expected.
    Up,
    /// Only below expected.
    Down,
}

/// A deviation from expected smaller than this never flags; both bounds must be exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MinChange {
    /// In the unit of the signal.
    pub absolute: f64,
    /// As a fraction of |expected|.
    pub relative: f64,
}

/// How a model's evidence is read out as a score. None of it touches state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadOut {
    /// Promised alarms: at most one event in this span, for a healthy series.
    pub budget: Span,
    /// Closes an alarm; `None`: the longer of 5 min and 5 samples.
    pub quiet: Option<Span>,
    /// Which deviations count.
    pub direction: Direction,
    /// The smallest deviation that counts.
    pub min_change: MinChange,
}

impl Default for ReadOut {
    fn default() -> Self {
        ReadOut {
            budget: Span::days(30),
            quiet: None,
            direction: Direction::Both,
            min_change: MinChange::default(),
        }
    }
}

/// The least that is ever allowed: −ln 0.01, rounded down.
pub const LEAST: f64 = 4.6;

/// Nats of the rarest event the budget allows by chance, per sample: −ln q, at least −ln 0.01.
pub fn allowed(budget_ms: i64, interval_ms: f64) -> f64 {
    ln((budget_ms.max(1) as f64 / interval_ms).at_least(100.0))
}

/// Whether a deviation from expected is one that counts.
pub fn counts(read: &ReadOut, x: f64, expected: f64) -> bool {
    let d = x - expected;
    let direction = match read.direction {
        Direction::Both => true,
        Direction::Up => d > 0.0,
        Direction::Down => d < 0.0,
    };
    direction && d.abs() >= read.min_change.absolute && d.abs() >= read.min_change.relative * expected.abs()
}

/// Caps a score below 1, keeping the order.
pub fn suppressed(score: f64) -> f64 {
    const FROM: f64 = 0.9;
    if score <= FROM { score } else { FROM + 0.09 * ((score - FROM) / (1.0 + score - FROM)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_in_nats() {
        // 30 d of 15 s: 172,800 samples.
        assert!((allowed(30 * 86_400_000, 15_000.0) - 12.0599).abs() < 1e-3);
        assert!((allowed(1, 60_000.0) - 4.60517).abs() < 1e-4);
    }

    #[test]
    fn suppression_keeps_order_below_one() {
        let mut last = -1.0;
        for s in [0.0, 0.5, 0.9, 0.95, 1.0, 2.0, 50.0, 1e6] {
            assert!(suppressed(s) > last && suppressed(s) < 1.0);
            last = suppressed(s);
        }
    }

    #[test]
    fn both_bounds_of_min_change_must_be_exceeded() {
        let read = ReadOut {
            direction: Direction::Up,
            min_change: MinChange { absolute: 1.0, relative: 0.1 },
            ..ReadOut::default()
        };
        assert!(counts(&read, 112.0, 100.0));
        assert!(!counts(&read, 105.0, 100.0));
        assert!(!counts(&read, 5.5, 5.0));
        assert!(!counts(&read, 80.0, 100.0));
    }
}
