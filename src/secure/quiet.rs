//! Saying something often seen now and then only.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A line about the same thing, at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// When something was last said, and how often it was not since.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<(Option<Instant>, u64)>);

impl Quiet {
    /// Whether to say it now, and how often it was left out since the last time.
    pub fn say(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let now = Instant::now();
        if state.0.is_some_and(|at| now.duration_since(at) < EVERY) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}
