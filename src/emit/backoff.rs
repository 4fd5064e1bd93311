//! How long to wait before a retry.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

/// A server that asks for more is asked again after this long all the same.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Exponential backoff with jitter, from `min` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    max: Duration,
    next: Duration,
    random: RandomState,
    /// Waits so far.
    pub attempts: u32,
}

impl Backoff {
    /// The first wait is at most `min`, later ones at most `max`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        let min = min.max(Duration::from_millis(1));
        Backoff { max: max.max(min), next: min, random: RandomState::new(), attempts: 0 }
    }

    /// The next wait: between half of the current step and all of it, so that clients that failed
    /// together do not come back together; never less than the server asked for (within 10 min).
    pub fn wait(&mut self, retry_after: Option<Duration>) -> Duration {
        let step = self.next;
        self.attempts = self.attempts.saturating_add(1);
        self.next = step.saturating_mul(2).min(self.max);
        let random = self.random.hash_one(self.attempts) as f64 / u64::MAX as f64;
        let jittered = step.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        jittered.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
    }
}

/// `Retry-After`: seconds, or an HTTP date seen from `now`. `None` where it is neither; a date in
/// the past is no wait.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let at = SystemTime::from(at);
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let (min, max) = (Duration::from_millis(30), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        for step in [30, 60, 120, 240, 480, 960, 1920, 3840, 5000, 5000] {
            let wait = backoff.wait(None);
            let step = Duration::from_millis(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        assert_eq!(backoff.attempts, 10);
    }

    #[test]
    fn the_server_can_only_ask_for_more_and_not_for_ever() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!(backoff.wait(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.wait(Some(Duration::from_secs(1 << 40))), MAX_RETRY_AFTER);
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:20:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}
