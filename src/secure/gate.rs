//! Verifying passwords: slow on purpose, so it is done apart from the tasks that serve, by few at a
//! time, and once for the same credentials.

use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Attempts that may wait for their turn, and how long.
const MAX_WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);
/// Credentials remembered as right, and as wrong.
const MAX_REMEMBERED: usize = 256;

/// A keyed hash of something secret. Only those of one process can be compared.
pub(super) type Tag = [u8; 32];

/// Too many attempts wait already, or the turn did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// A key that lives as long as the process.
#[derive(Clone)]
pub(super) struct Key(Option<hmac::Key>);

impl Key {
    fn new() -> Key {
        // Without randomness nothing is remembered and no token fits: closed, not open.
        Key(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// The tag of some parts; their lengths are part of it.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> Option<Tag> {
        let mut context = hmac::Context::with_key(self.0.as_ref()?);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().ok()
    }
}

#[derive(Default)]
struct Remembered {
    right: HashSet<Tag>,
    wrong: HashSet<Tag>,
}

impl Remembered {
    fn get(&self, tag: &Tag) -> Option<bool> {
        if self.right.contains(tag) {
            return Some(true);
        }
        self.wrong.contains(tag).then_some(false)
    }

    fn put(&mut self, tag: Tag, right: bool) {
        // Apart, so that guesses do not drive out who is known.
        let set = if right { &mut self.right } else { &mut self.wrong };
        if set.len() >= MAX_REMEMBERED {
            set.clear();
        }
        set.insert(tag);
    }
}

/// Verifies passwords.
pub(super) struct Gate {
    pub(super) key: Key,
    remembered: Arc<Mutex<Remembered>>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Gate {
    fn default() -> Self {
        // Half of the cores at most: guessing must not starve scoring.
        let turns = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        Gate {
            key: Key::new(),
            remembered: Arc::default(),
            turns: Arc::new(Semaphore::new(turns)),
            waiting: AtomicUsize::new(0),
        }
    }
}

struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// Whether a password fits a bcrypt hash.
    ///
    /// # Errors
    /// [`Busy`]
    pub(super) async fn verify(&self, user: &str, password: &str, hash: &str) -> Result<bool, Busy> {
        let Some(tag) = self.key.tag(&[user.as_bytes(), password.as_bytes(), hash.as_bytes()]) else {
            return Ok(false);
        };
        if let Some(known) = self.remembered.lock().get(&tag) {
            return Ok(known);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiting);
        if before >= MAX_WAITING {
            return Err(Busy);
        }
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Busy) };
        // The same credentials on many connections: the first has found out.
        if let Some(known) = self.remembered.lock().get(&tag) {
            return Ok(known);
        }
        let (password, hash) = (password.to_string(), hash.to_string());
        let remembered = Arc::clone(&self.remembered);
        let work = tokio::task::spawn_blocking(move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false);
            remembered.lock().put(tag, right);
            // The turn ends with the work, also where the client has gone.
            drop(turn);
            right
        });
        Ok(work.await.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: u32 = 4;

    #[tokio::test]
    async fn what_was_verified_is_remembered_for_that_hash_alone() {
        let gate = Gate::default();
        let hash = bcrypt::hash("right", COST).expect("hashes");
        assert_eq!(gate.verify("u", "right", &hash).await, Ok(true));
        assert_eq!(gate.verify("u", "wrong", &hash).await, Ok(false));
        let sizes = || {
            let known = gate.remembered.lock();
            (known.right.len(), known.wrong.len())
        };
        assert_eq!(sizes(), (1, 1));
        // No turn is needed any more: it would be waited for in vain.
        gate.turns.close();
        assert_eq!(gate.verify("u", "right", &hash).await, Ok(true));
        assert_eq!(gate.verify("u", "wrong", &hash).await, Ok(false));
        let other = bcrypt::hash("other", COST).expect("hashes");
        assert_eq!(gate.verify("u", "right", &other).await, Err(Busy), "a new password is asked anew");
    }

    #[tokio::test]
    async fn guesses_are_bounded_and_drive_nobody_out() {
        let gate = Gate::default();
        let tag = |n: usize| gate.key.tag(&[&n.to_le_bytes()]).expect("a key");
        gate.remembered.lock().put(tag(0), true);
        for n in 1..=10 * MAX_REMEMBERED {
            gate.remembered.lock().put(tag(n), false);
        }
        assert!(gate.remembered.lock().wrong.len() <= MAX_REMEMBERED);
        assert_eq!(gate.remembered.lock().get(&tag(0)), Some(true));
        gate.waiting.store(MAX_WAITING, Ordering::Relaxed);
        let hash = bcrypt::hash("x", COST).expect("hashes");
        assert_eq!(gate.verify("u", "x", &hash).await, Err(Busy));
        assert_eq!(gate.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }

    #[test]
    fn parts_do_not_run_together() {
        let key = Key::new();
        assert_ne!(key.tag(&[b"ab", b"c"]), key.tag(&[b"a", b"bc"]));
        assert_eq!(key.tag(&[b"a"]), key.tag(&[b"a"]));
        assert_ne!(key.tag(&[b"a"]), Key::new().tag(&[b"a"]));
    }
}
