//! Which replica of an HA pair is followed, by time of receipt.
//!
//! Two Prometheus servers that scrape the same targets send the same series at interleaved times.
//! Following both would double the sample rate and mix two scrapers' jitter, so one is elected per
//! cluster and the engine drops the other's samples. As in Mimir only the first series of a request
//! is looked at: a sender's requests all carry its own replica label.

use crate::time::{Millis, Span};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Silence of the elected replica after which another takes over.
pub const FAIL_OVER: Span = Span::seconds(30);

#[derive(Debug)]
struct Elected {
    replica: String,
    heard: Millis,
}

/// The elected replica of each cluster.
#[derive(Debug)]
pub struct HaTracker {
    clusters: Mutex<HashMap<String, Elected>>,
    max_clusters: usize,
}

impl Default for HaTracker {
    fn default() -> Self {
        HaTracker { clusters: Mutex::default(), max_clusters: 10_000 }
    }
}

impl HaTracker {
    /// Notes a request of `replica` received at `received`. When that elects it, `elect` is called
    /// before any other request of any cluster is looked at: what is told there is in the log
    /// before the body of whoever comes next. Beyond 10,000 clusters nobody is elected anew.
    /// Returns whether it was elected.
    pub fn observe(
        &self,
        cluster: &str,
        replica: &str,
        received: Millis,
        elect: impl FnOnce(&str, &str),
    ) -> bool {
        let mut clusters = self.clusters.lock();
        let full = clusters.len() >= self.max_clusters;
        match clusters.get_mut(cluster) {
            Some(elected) if elected.replica == replica => {
                elected.heard = elected.heard.max(received);
                return false;
            }
            Some(elected) if received.since(elected.heard) <= FAIL_OVER.0 => return false,
            Some(elected) => *elected = Elected { replica: replica.to_string(), heard: received },
            None if full => return false,
            None => {
                let elected = Elected { replica: replica.to_string(), heard: received };
                clusters.insert(cluster.to_string(), elected);
            }
        }
        elect(cluster, replica);
        true
    }

    /// Whether a cluster's replica is the one that is followed.
    pub fn follows(&self, cluster: &str, replica: &str) -> bool {
        self.clusters.lock().get(cluster).is_none_or(|elected| elected.replica == replica)
    }

    /// The elected replicas as (cluster, replica, last heard), by cluster.
    pub fn elected(&self) -> Vec<(String, String, Millis)> {
        let clusters = self.clusters.lock();
        let mut all: Vec<_> =
            clusters.iter().map(|(cluster, e)| (cluster.clone(), e.replica.clone(), e.heard)).collect();
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_replica_takes_over_after_silence_only() {
        let tracker = HaTracker::default();
        let mut log = Vec::new();
        for (cluster, replica, seconds) in [
            ("c", "a", 0),
            ("c", "b", 1),
            ("c", "a", 15),
            ("c", "b", 45),  // 30 s after a: not yet
            ("d", "b", 45),  // another cluster
            ("c", "b", 46),  // 31 s after a
            ("c", "a", 47),  // back, but b is followed now
            ("c", "a", 100), // b silent for 54 s
        ] {
            tracker.observe(cluster, replica, Millis(seconds * 1000), |c, r| {
                log.push(format!("{c}={r}@{seconds}"));
            });
        }
        assert_eq!(log, ["c=a@0", "d=b@45", "c=b@46", "c=a@100"]);
        assert_eq!(tracker.elected()[0], ("c".into(), "a".into(), Millis(100_000)));
        let follows = [("c", "a"), ("c", "b"), ("d", "b"), ("e", "z")].map(|(c, r)| tracker.follows(c, r));
        assert_eq!(follows, [true, false, true, true]);
    }

    #[test]
    fn a_clock_that_steps_back_elects_nobody() {
        let tracker = HaTracker::default();
        assert!(tracker.observe("c", "a", Millis(100_000), |_, _| {}));
        assert!(!tracker.observe("c", "b", Millis(0), |_, _| {}));
        assert!(!tracker.observe("c", "a", Millis(0), |_, _| {}));
        assert_eq!(tracker.elected()[0].2, Millis(100_000));
    }

    #[test]
    fn the_number_of_clusters_is_bounded() {
        let tracker = HaTracker { max_clusters: 1, ..HaTracker::default() };
        assert!(tracker.observe("c", "a", Millis(0), |_, _| {}));
        assert!(!tracker.observe("d", "a", Millis(0), |_, _| {}));
    }
}
