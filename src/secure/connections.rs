//! Open connections: how many there may be, and who has to go when one more comes.
//!
//! Whoever connects when all places are taken gets the place of the connection that has brought
//! nothing for longest, those that never had a request answered first. So connections that are only
//! held open shut nobody out. What is being worked on is never cut off for this.

use super::quiet::Quiet;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::Notify;

/// Connections told to go that may still be open, beyond the bound.
const MAX_LEAVING: usize = 64;
/// In `last`: a request is being worked on.
const BUSY: u64 = u64::MAX;

/// How a connection ended, where it was not the client who ended it in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Ending {
    /// Closed at once: all places were taken by requests being worked on.
    Refused,
    /// Had to go for another.
    Evicted,
    /// The head of a request, or the next request, did not come in time.
    HeadTimeout,
    /// The head of a request was over the limit of bytes or of headers.
    HeadTooLarge,
    /// What came was no HTTP.
    NotHttp,
    /// The client did not read what it was sent.
    WriteTimeout,
}

impl Ending {
    /// Their names in the `reason` label, in their order.
    pub const NAMES: [&'static str; 6] =
        ["refused", "evicted", "head_timeout", "head_too_large", "not_http", "write_timeout"];
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    max: AtomicUsize,
    open: Mutex<Open>,
    started: Instant,
    accepted: AtomicU64,
    endings: [AtomicU64; Ending::NAMES.len()],
    quiet: Quiet,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Arc<Place>>,
    leaving: usize,
}

#[derive(Debug)]
struct Place {
    /// When it last brought something, in milliseconds since the start; [`BUSY`].
    last: AtomicU64,
    /// Whether a request of it was answered well behind a door.
    proven: AtomicBool,
    leaving: AtomicBool,
    leave: Notify,
}

/// An open connection's place; free again when dropped.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    place: Arc<Place>,
    all: Arc<Connections>,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            max: AtomicUsize::new(1024),
            open: Mutex::default(),
            started: Instant::now(),
            accepted: AtomicU64::new(0),
            endings: Default::default(),
            quiet: Quiet::default(),
        }
    }
}

impl Connections {
    /// How many there may be.
    pub fn set_max(&self, max: usize) {
        self.max.store(max.max(1), Relaxed);
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.lock().all.len()
    }

    /// How many there have been.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// How they ended, by reason.
    pub fn endings(&self) -> [(&'static str, u64); Ending::NAMES.len()] {
        std::array::from_fn(|i| (Ending::NAMES[i], self.endings[i].load(Relaxed)))
    }

    /// Counts an end.
    pub fn ended(&self, ending: Ending) {
        if let Some(count) = self.endings.get(ending as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A place for a connection; `None`: it has to be closed.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Connection> {
        let mut open = self.open.lock();
        if open.all.len().saturating_sub(open.leaving) >= self.max() {
            let goes = match open.leaving < MAX_LEAVING {
                true => longest_idle(&open),
                false => None,
            };
            match goes {
                Some(place) => {
                    place.leaving.store(true, Relaxed);
                    place.leave.notify_one();
                    open.leaving += 1;
                    self.ended(Ending::Evicted);
                }
                None => {
                    drop(open);
                    self.ended(Ending::Refused);
                    self.say(peer, "all connections are busy: this one is closed");
                    return None;
                }
            }
        }
        let full = open.leaving > 0;
        let id = open.next;
        open.next += 1;
        let place = Arc::new(Place {
            last: AtomicU64::new(self.now()),
            proven: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
        });
        open.all.insert(id, place.clone());
        drop(open);
        self.accepted.fetch_add(1, Relaxed);
        if full {
            self.say(peer, "all connections are taken: the one idle for longest goes");
        }
        Some(Connection { id, place, all: Arc::clone(self) })
    }

    fn say(&self, peer: SocketAddr, what: &str) {
        if let Some(others) = self.quiet.say() {
            tracing::warn!(peer = %peer.ip(), limit = self.max(), others_since = others, "{what}");
        }
    }
}

fn longest_idle(open: &Open) -> Option<Arc<Place>> {
    let idle =
        open.all.values().filter(|place| !place.leaving.load(Relaxed) && place.last.load(Relaxed) != BUSY);
    idle.min_by_key(|place| (place.proven.load(Relaxed), place.last.load(Relaxed))).cloned()
}

impl Connection {
    /// It has brought something, or waits for its next request.
    pub fn touch(&self) {
        self.place.last.store(self.all.now(), Relaxed);
    }

    /// A request of it is whole and being worked on.
    pub fn busy(&self) {
        self.place.last.store(BUSY, Relaxed);
    }

    /// A request of it was answered well behind a door.
    pub fn prove(&self) {
        self.place.proven.store(true, Relaxed);
    }

    /// Resolves when it has to go for another.
    pub async fn told_to_leave(&self) {
        self.place.leave.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        if open.all.remove(&self.id).is_some() && self.place.leaving.load(Relaxed) {
            open.leaving -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    #[tokio::test]
    async fn the_longest_idle_goes_and_the_proven_stay() {
        let all = Arc::new(Connections::default());
        all.set_max(3);
        let [proven, old, young] = [0; 3].map(|_| all.enter(peer()).expect("free"));
        proven.prove();
        proven.place.last.store(1, Relaxed);
        old.place.last.store(2, Relaxed);
        young.place.last.store(3, Relaxed);
        let fourth = all.enter(peer()).expect("another goes");
        fourth.busy();
        old.told_to_leave().await;
        assert_eq!((all.open(), all.endings()[Ending::Evicted as usize].1), (4, 1));
        drop(old);
        young.busy();
        let fifth = all.enter(peer()).expect("the proven one goes where there is no other");
        proven.told_to_leave().await;
        fifth.busy();
        drop(proven);
        assert!(all.enter(peer()).is_none(), "all are busy");
        assert_eq!(all.endings()[Ending::Refused as usize].1, 1);
        drop(fifth);
        assert!(all.enter(peer()).is_some());
        assert_eq!(all.open(), 2);
    }

    #[tokio::test]
    async fn those_on_their_way_out_are_bounded() {
        let all = Arc::new(Connections::default());
        all.set_max(1);
        let mut held = Vec::new();
        while let Some(one) = all.enter(peer()) {
            held.push(one);
        }
        assert_eq!(held.len(), 1 + MAX_LEAVING);
        held.clear();
        assert_eq!((all.open(), all.open.lock().leaving), (0, 0));
    }
}
