//! How a group usually advances: the long steps of the last hours.

use crate::time::{Millis, Span};

/// Steps up to this need not be remembered: five of them are less than any gap.
const LONG: i64 = 20_000;
/// How long one is remembered.
const MEMORY: Span = Span::hours(6);
/// How many are.
const KEPT: usize = 8;
/// So many steps make a habit.
const HABIT: usize = 3;

/// The last long steps, each with its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    last: [Option<(Millis, i64)>; KEPT],
    next: usize,
}

impl Steps {
    /// A step of `length` milliseconds ended at `at`.
    pub fn saw(&mut self, at: Millis, length: i64) {
        if length > LONG
            && let Some(slot) = self.last.get_mut(self.next % KEPT)
        {
            *slot = Some((at, length));
            self.next = (self.next + 1) % KEPT;
        }
    }

    /// The usual interval as of `now`, in milliseconds: the third longest of the last steps. Two odd
    /// ones do not make it longer. 0 where it is short.
    pub fn usual(&self, now: Millis) -> i64 {
        let recent = |step: &&(Millis, i64)| now.since(step.0) < MEMORY.0;
        let mut lengths = [0; KEPT];
        for (slot, (_, length)) in lengths.iter_mut().zip(self.last.iter().flatten().filter(recent)) {
            *slot = *length;
        }
        lengths.sort_unstable();
        lengths.get(KEPT - HABIT).copied().unwrap_or(0)
    }
}
