//! What the doors count; plain numbers that anybody may read.

use super::{Door, Refusal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    refusals: [[AtomicU64; Refusal::NAMES.len()]; Door::ALL.len()],
    /// TLS handshakes that failed, clients without an allowed certificate among them.
    pub handshakes_failed: AtomicU64,
    /// Times that changed files were read again.
    pub files_read: AtomicU64,
    /// Times that changed files could not be used.
    pub files_refused: AtomicU64,
    /// Whether the files as they are could be used when they were last read.
    pub files_ok: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            refusals: Default::default(),
            handshakes_failed: AtomicU64::new(0),
            files_read: AtomicU64::new(0),
            files_refused: AtomicU64::new(0),
            files_ok: AtomicBool::new(true),
        }
    }
}

impl Metrics {
    pub(super) fn refused(&self, door: Door, refusal: &Refusal) {
        if let Some(count) = self.refusals.get(door as usize).and_then(|all| all.get(*refusal as usize)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Requests refused, by door and reason.
    pub fn refusals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |door: Door| {
            let counts = self.refusals.get(door as usize).into_iter().flatten();
            Refusal::NAMES.into_iter().zip(counts).map(move |(why, n)| (door.name(), why, n.load(Relaxed)))
        };
        Door::ALL.into_iter().flat_map(of).collect()
    }
}
