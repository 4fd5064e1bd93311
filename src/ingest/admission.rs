//! Admission: how many bytes may be in flight, and who waits.
//!
//! Two budgets, always taken in the same order, so that nobody who holds the second waits for the
//! first: compressed bytes while a body is read, decompressed bytes while it is worked on. Who
//! cannot be served within a short wait is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a reading reservation grows by, so that what is only announced takes nothing.
pub const STEP: usize = 64 << 10;

/// Nothing is free and the wait was too long, or too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is in flight")]
pub struct Overload;

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

/// A budget of bytes with a bounded number of waiters.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    capacity: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
}

impl Budget {
    /// A budget of `capacity` bytes; at most `max_waiting` wait, each for at most `patience`.
    pub fn new(capacity: usize, max_waiting: usize, patience: Duration) -> Budget {
        let capacity = capacity.min(u32::MAX as usize);
        Budget {
            free: Arc::new(Semaphore::new(capacity)),
            capacity,
            waiting: AtomicUsize::new(0),
            max_waiting,
            patience,
        }
    }

    /// Takes `bytes`, at most the whole budget.
    ///
    /// # Errors
    /// [`Overload`] when they do not come free in time.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, Overload> {
        let bytes = bytes.min(self.capacity) as u32;
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            return Ok(Reservation { permit });
        }
        // Counted by a guard, since a client that hangs up drops this future where it stands.
        let _waiter = Waiter::enter(&self.waiting, self.max_waiting).ok_or(Overload)?;
        let wait = Arc::clone(&self.free).acquire_many_owned(bytes);
        match tokio::time::timeout(self.patience, wait).await {
            Ok(Ok(permit)) => Ok(Reservation { permit }),
            _ => Err(Overload),
        }
    }

    /// Makes a reservation of this budget hold `bytes` at least, by whole [`STEP`]s.
    ///
    /// # Errors
    /// [`Overload`] when they do not come free in time; what was held before still is.
    pub async fn grow(&self, reservation: &mut Reservation, bytes: usize) -> Result<(), Overload> {
        let held = reservation.bytes();
        if bytes > held {
            let wanted = bytes.div_ceil(STEP).saturating_mul(STEP).min(self.capacity);
            let more = self.reserve(wanted.saturating_sub(held)).await?;
            reservation.permit.merge(more.permit);
        }
        Ok(())
    }

    /// Bytes taken now.
    pub fn in_use(&self) -> usize {
        self.capacity.saturating_sub(self.free.available_permits())
    }

    /// Requests waiting now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Waiter<'a>> {
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Waiter(count))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both budgets.
#[derive(Debug)]
pub struct Admission {
    /// Bodies being read, as they come.
    pub reading: Budget,
    /// Bodies being worked on, decompressed.
    pub working: Budget,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_nothing_free_in_time_is_refused() {
        let budget = Budget::new(100, 1, Duration::from_millis(1));
        let _held = budget.reserve(80).await.expect("free");
        assert_eq!(budget.in_use(), 80);
        assert!(budget.reserve(30).await.is_err(), "the wait is over");
        assert_eq!(budget.waiting(), 0);
    }

    #[tokio::test]
    async fn the_number_of_waiters_is_bounded_and_they_are_served() {
        let budget = Budget::new(100, 1, Duration::from_secs(600));
        let held = budget.reserve(80).await.expect("free");
        let mut waiter = Box::pin(budget.reserve(30));
        tokio::select! { biased; _ = &mut waiter => panic!("nothing is free"), () = std::future::ready(()) => {} }
        assert_eq!(budget.waiting(), 1);
        assert!(budget.reserve(30).await.is_err(), "one waits already");
        drop(held);
        assert!(waiter.await.is_ok());
        assert_eq!((budget.in_use(), budget.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_reservation_grows_by_steps_and_keeps_what_it_has() {
        let budget = Budget::new(3 * STEP, 1, Duration::from_millis(1));
        let mut held = budget.reserve(10).await.expect("free");
        assert_eq!((budget.grow(&mut held, 10).await, held.bytes()), (Ok(()), 10));
        assert_eq!((budget.grow(&mut held, STEP + 1).await, held.bytes()), (Ok(()), 2 * STEP));
        let other = budget.reserve(STEP).await.expect("free");
        assert_eq!((budget.grow(&mut held, 3 * STEP).await, held.bytes()), (Err(Overload), 2 * STEP));
        drop(other);
        assert_eq!((budget.grow(&mut held, 9 * STEP).await, held.bytes()), (Ok(()), 3 * STEP));
        drop(held);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn a_request_over_the_whole_budget_takes_all_of_it() {
        let budget = Budget::new(10, 1, Duration::from_millis(1));
        let all = budget.reserve(1_000).await.expect("free");
        assert_eq!(budget.in_use(), 10);
        drop(all);
        assert_eq!(budget.in_use(), 0);
    }
}
