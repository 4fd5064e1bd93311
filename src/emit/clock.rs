//! The clock of ages: the wall clock as of the start of the process, carried on by the monotonic
//! clock. So an age is right across restarts, and no step of the wall clock changes one in between.

use crate::time::Millis;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now.
pub(super) fn now() -> Millis {
    static START: OnceLock<(Instant, Millis)> = OnceLock::new();
    let (start, wall) = START.get_or_init(|| (Instant::now(), wall()));
    wall.plus(i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX))
}

/// What the wall clock shows.
pub(super) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
