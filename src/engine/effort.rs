//! How much a thread has worked.

use std::time::Duration;

/// CPU time of the calling thread so far. Unlike the time of day it does not count waits for a lock or for
/// a core that others use: what a replay would have to do again is the work alone.
pub(super) fn so_far() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let before = so_far();
        while so_far() == before {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
        let (worked, began) = (so_far(), Instant::now());
        std::thread::sleep(Duration::from_millis(30));
        assert!(so_far() - worked < began.elapsed());
    }
}
