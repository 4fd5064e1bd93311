//! Failed tries: counted by the senders, told now and then by the command.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time from one line to the next.
const EVERY: Duration = Duration::from_secs(10);

/// Tries that failed, of all senders; readable while they send.
#[derive(Debug, Default)]
pub struct Trouble {
    tries: AtomicU64,
    last: Mutex<String>,
}

impl Trouble {
    /// A try failed: the answer's status, 0 for none, and what was said.
    pub fn failed(&self, status: u16, message: &str) {
        self.tries.fetch_add(1, Relaxed);
        *self.last.lock() = describe(status, message);
    }

    /// Tries that failed so far.
    pub fn tries(&self) -> u64 {
        self.tries.load(Relaxed)
    }

    /// What failed last; empty where nothing did.
    pub fn last(&self) -> String {
        self.last.lock().clone()
    }
}

/// A failure in words.
pub(super) fn describe(status: u16, message: &str) -> String {
    match status {
        0 => format!("no answer: {message}"),
        status => format!("{status} {message}"),
    }
}

/// Tells of trouble: at the first failed try, and then every 10 s while tries fail.
#[derive(Debug, Default)]
pub struct Teller {
    told: u64,
    at: Option<Duration>,
}

impl Teller {
    /// The line due at this time since the start, if one is.
    pub fn line(&mut self, now: Duration, trouble: &Trouble) -> Option<String> {
        let tries = trouble.tries();
        let early = self.at.is_some_and(|at| now.saturating_sub(at) < EVERY);
        if tries == self.told || early {
            return None;
        }
        self.at = Some(now);
        self.told = tries;
        let times = if tries == 1 { "1 try has".to_string() } else { format!("{tries} tries have") };
        Some(format!("{times} failed, and it is tried again; the last: {}", trouble.last()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_at_once_and_the_rest_every_ten_seconds() {
        let (trouble, mut teller) = (Trouble::default(), Teller::default());
        let at = Duration::from_millis;
        assert_eq!(teller.line(at(0), &trouble), None);
        trouble.failed(0, "connection refused");
        let line = teller.line(at(500), &trouble).expect("the first");
        assert!(line.starts_with("1 try has failed") && line.ends_with("no answer: connection refused"));
        trouble.failed(503, "busy");
        assert_eq!(teller.line(at(10_499), &trouble), None);
        let line = teller.line(at(10_500), &trouble).expect("due");
        assert!(line.starts_with("2 tries have failed") && line.ends_with("503 busy"), "{line}");
        assert_eq!(teller.line(at(60_000), &trouble), None, "nothing failed since");
    }
}
