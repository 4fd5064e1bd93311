//! What series tell each other: summaries by epoch of event time, and the models frozen from them.
//!
//! A summary does not depend on the order in which it was told: it is made of counts, sets cut at
//! their lowest hashes, and the one of the lowest hash. So it does not matter which series spoke
//! first, nor how its parts are merged.

use crate::codec::{Damaged, Reader, Stored};
use crate::detect::cohort::{Cohorts, Donors, EPOCHS, Priors};
use crate::detect::isolation::{Forests, Points};
use crate::time::{Millis, Span};
use std::collections::BTreeMap;

/// Length of an epoch of event time.
pub const EPOCH: Span = Span::HOUR;

/// The epoch of a time; they are counted from 1970.
pub fn epoch(at: Millis) -> i64 {
    at.0.div_euclid(EPOCH.0)
}

/// What was told in one epoch.
#[derive(Debug, Default)]
pub struct Summary {
    /// Of the series of a kind.
    pub cohorts: Cohorts,
    /// Samples of all series of a rule.
    pub points: Points,
}

impl Summary {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.cohorts.bytes() + self.points.bytes()
    }

    /// Joins another's part.
    pub fn merge(&mut self, other: Summary) {
        self.cohorts.merge(other.cohorts);
        self.points.merge(other.points);
    }
}

/// Summaries of the epochs not yet closed.
pub type Open = BTreeMap<i64, Summary>;

/// The shared models of a closed epoch: immutable.
#[derive(Debug)]
pub struct Frozen {
    /// The epoch.
    pub epoch: i64,
    /// Where new series borrow from.
    pub priors: Priors,
    /// What isolation asks.
    pub forests: Forests,
}

impl Frozen {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.priors.bytes() + self.forests.bytes()
    }

    /// Of an epoch's summary; what this epoch is silent about is taken over from the one before.
    pub fn of(epoch: i64, summary: Summary, before: Option<&Frozen>) -> Frozen {
        let priors = Priors::of(epoch, summary.cohorts, before.map(|frozen| &frozen.priors));
        let forests = Forests::of(epoch, summary.points, before.map(|frozen| &frozen.forests));
        Frozen { epoch, priors, forests }
    }

    /// Appends the models; those that cohorts lend go to the table.
    pub fn store(&self, to: &mut Vec<u8>, donors: &mut Donors) {
        let Frozen { epoch, priors, forests } = self;
        epoch.store(to);
        priors.store(to, donors);
        forests.store(to);
    }

    /// Reads the models of an epoch, with those of a table.
    ///
    /// # Errors
    /// They are damaged.
    pub fn load(from: &mut Reader<'_>, donors: &Donors) -> Result<Frozen, Damaged> {
        let epoch = i64::load(from)?;
        from.check(EPOCHS.contains(&epoch), "no such epoch")?;
        Ok(Frozen { epoch, priors: Priors::load(from, donors)?, forests: Stored::load(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_hours_of_event_time() {
        assert_eq!([-1, 0, 3_599_999, 3_600_000].map(|ms| epoch(Millis(ms))), [-1, 0, 0, 1]);
        assert!(epoch(Millis::MIN) < epoch(Millis(i64::MAX)));
    }
}
