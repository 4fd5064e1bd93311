//! Gaps: a source group whose newest sample jumps has skipped something, as a Prometheus does that
//! restarts before it has sent everything.
//!
//! [`Gaps`] is the rule, apart from clocks and threads. While a gap is being filled the group's later
//! bodies are held back, for a bounded time: their senders come again. [`Gate`] is the rule at work.

mod gate;
mod steps;

pub use gate::{FillResult, Gate, GateMetrics};

use crate::time::{Millis, Span};
use std::collections::HashMap;
use std::time::Duration;
use steps::Steps;

/// A jump of at most this is none.
pub const LEAST: Span = Span::minutes(2);
/// A jump is a gap from this many usual intervals on.
const INTERVALS: i64 = 5;
/// Groups watched; bodies of others are never held.
const MAX_GROUPS: usize = 10_000;

/// Something was skipped: after `from` and before `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Names it.
    pub number: u64,
    /// Value of the cluster label; empty where there is none.
    pub group: String,
    /// Newest sample seen before.
    pub from: Millis,
    /// First sample after.
    pub to: Millis,
}

/// What to do with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Pass,
    /// Let its sender come again.
    Hold,
    /// The same, and begin to fill this.
    Begin(Hole),
}

#[derive(Debug)]
struct Filling {
    number: u64,
    from: Millis,
    to: Millis,
    until: Duration,
}

#[derive(Debug)]
struct Group {
    seen: Millis,
    steps: Steps,
    filling: Option<Filling>,
}

impl Group {
    fn new(seen: Millis) -> Group {
        Group { seen, steps: Steps::default(), filling: None }
    }

    /// The longest jump from `seen` that is none.
    fn bound(&self) -> i64 {
        self.steps.usual(self.seen).saturating_mul(INTERVALS).max(LEAST.0)
    }

    fn end(&mut self, found: bool) {
        let Some(filling) = self.filling.take() else { return };
        if !found {
            // Nothing was skipped: so this is how the group sends.
            self.steps.saw(filling.to, filling.to.since(filling.from));
        }
        self.seen = self.seen.max(filling.to);
    }
}

/// The newest sample of each source group, and the gaps being filled. Times of the clock (`now`) are
/// since any fixed moment.
#[derive(Debug)]
pub struct Gaps {
    groups: HashMap<String, Group>,
    numbers: u64,
    hold: Duration,
}

impl Gaps {
    /// Holds bodies for at most `hold` for one gap.
    pub fn new(hold: Duration) -> Gaps {
        Gaps { groups: HashMap::new(), numbers: 0, hold }
    }

    /// A group's samples had come as far as `seen` before this process.
    pub fn start(&mut self, group: &str, seen: Millis) {
        self.passed(group, seen);
    }

    /// Whether a body from `first` to `last` needs a closer look: its very first sample may be another.
    pub fn suspect(&self, group: &str, first: Millis) -> Option<Millis> {
        let group = self.groups.get(group)?;
        (first.since(group.seen) > group.bound()).then_some(group.seen)
    }

    /// Judges a body. `first` is its first sample newer than what was seen (or any older one), `last`
    /// its last.
    pub fn judge(&mut self, name: &str, first: Millis, last: Millis, now: Duration) -> Verdict {
        let Some(group) = self.groups.get_mut(name) else { return Verdict::Pass };
        if let Some(filling) = &group.filling {
            if now < filling.until {
                // What is older than the gap is no part of it.
                return if last <= filling.from { Verdict::Pass } else { Verdict::Hold };
            }
            // It took too long; senders do not wait for ever.
            group.end(true);
        }
        if first.since(group.seen) <= group.bound() {
            return Verdict::Pass;
        }
        self.numbers += 1;
        let (number, from) = (self.numbers, group.seen);
        group.filling = Some(Filling { number, from, to: first, until: now.saturating_add(self.hold) });
        Verdict::Begin(Hole { number, group: name.to_string(), from, to: first })
    }

    /// A body that came as far as `last` was taken.
    pub fn passed(&mut self, name: &str, last: Millis) {
        let room = self.groups.len() < MAX_GROUPS;
        match self.groups.get_mut(name) {
            Some(group) if last > group.seen => {
                group.steps.saw(last, last.since(group.seen));
                group.seen = last;
            }
            Some(_) => {}
            None if room => drop(self.groups.insert(name.to_string(), Group::new(last))),
            None => {}
        }
    }

    /// Filling is over, with or without success. `found`: there was something to fill, or nobody knows.
    pub fn done(&mut self, hole: &Hole, found: bool) {
        let group = self.groups.get_mut(&hole.group);
        if let Some(group) =
            group.filter(|group| group.filling.as_ref().is_some_and(|f| f.number == hole.number))
        {
            group.end(found);
        }
    }

    /// Whether bodies still wait for this gap to be filled.
    pub fn open(&self, hole: &Hole, now: Duration) -> bool {
        let filling = self.groups.get(&hole.group).and_then(|group| group.filling.as_ref());
        filling.is_some_and(|filling| filling.number == hole.number && now < filling.until)
    }

    /// Groups whose bodies are held.
    pub fn filling(&self) -> usize {
        self.groups.values().filter(|group| group.filling.is_some()).count()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.groups.clear();
    }
}

#[cfg(test)]
mod tests;
