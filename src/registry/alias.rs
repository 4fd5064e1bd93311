//! The alias cache: from a hash of the raw label bytes to the series they name.
//!
//! It is only a cache: an entry may be dropped at any time and is made again from the labels. It is
//! bounded by two generations a shard: when the young one is full it becomes the old one, and what
//! is still used moves back.

use super::PartitionId;
use crate::labels::{LabelError, SeriesId};
use hashbrown::HashTable;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a label set, as it came on the wire, is known to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// A series that a rule took.
    Series {
        /// Its identity.
        id: SeriesId,
        /// Its partition.
        partition: PartitionId,
        /// Where it was in the partition's slab: a hint, checked against the id.
        slot: u32,
        /// Its source group (0: none named).
        group: u16,
        /// Its HA pair (0: not one of a pair).
        replica: u16,
        /// Whether it is an `up`, which tells of its target.
        up: bool,
    },
    /// An `up` that no rule of a generation takes, where a rule of it asks for silence.
    Up {
        /// The generation.
        generation: u32,
        /// Its source group.
        group: u16,
        /// Its HA pair.
        replica: u16,
    },
    /// No rule of this generation takes it.
    Unmatched(u32),
    /// One of our own outputs, on its way round.
    Own,
    /// Malformed.
    Malformed(LabelError),
}

/// An entry: the hash of the raw labels, and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// xxh3-128 of the label bytes, seeded.
    pub key: u128,
    /// What they are.
    pub known: Known,
}

const SHARDS: usize = 256;

#[derive(Debug, Default)]
struct Shard {
    young: HashTable<Alias>,
    old: HashTable<Alias>,
}

impl Shard {
    fn put(&mut self, Alias { key, known }: Alias, capacity: u64) {
        if let Some(have) = self.young.find_mut(key as u64, |have| have.key == key) {
            have.known = known;
            return;
        }
        if self.young.len() as u64 >= capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert_unique(key as u64, Alias { key, known }, |alias| alias.key as u64);
    }
}

/// The cache. Safe to use from many threads. It is asked about a whole body at a time: one lock for all,
/// so that the processor can wait for many places in memory at once.
#[derive(Debug)]
pub struct AliasCache {
    shards: RwLock<Vec<Shard>>,
    capacity: AtomicU64,
}

/// The table takes its position and tags from the low half.
fn shard(key: u128) -> usize {
    (key >> 64) as usize % SHARDS
}

impl AliasCache {
    /// A cache of at most about `capacity` entries.
    pub fn new(capacity: usize) -> AliasCache {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let cache = AliasCache { shards: RwLock::new(shards), capacity: AtomicU64::new(0) };
        cache.set_capacity(capacity);
        cache
    }

    /// Changes the bound; takes effect as entries come.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store((capacity / SHARDS / 2).max(4) as u64, Ordering::Relaxed);
    }

    /// What label sets are known to be, in their order.
    pub fn look_up(&self, keys: impl Iterator<Item = u128>, to: &mut Vec<Option<Known>>) {
        let mut kept = Vec::new();
        let shards = self.shards.read();
        to.extend(keys.map(|key| {
            let shard = &shards[shard(key)];
            let find = |table: &HashTable<Alias>| {
                table.find(key as u64, |have| have.key == key).map(|alias| alias.known)
            };
            find(&shard.young).or_else(|| {
                let known = find(&shard.old)?;
                kept.push(Alias { key, known });
                Some(known)
            })
        }));
        drop(shards);
        self.learn(kept);
    }

    /// Remembers what label sets are.
    pub fn learn(&self, entries: impl IntoIterator<Item = Alias>) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_none() {
            return;
        }
        let capacity = self.capacity.load(Ordering::Relaxed);
        let mut shards = self.shards.write();
        for entry in entries {
            shards[shard(entry.key)].put(entry, capacity);
        }
    }

    /// Forgets everything: after a change of what makes an identity.
    pub fn clear(&self) {
        for shard in self.shards.write().iter_mut() {
            *shard = Shard::default();
        }
    }

    /// Entries, an entry in both generations counted twice.
    pub fn len(&self) -> usize {
        self.shards.read().iter().map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<Alias>() + 1;
        let slots = |table: &HashTable<Alias>| table.capacity() * 8 / 7 * entry;
        self.shards.read().iter().map(|s| slots(&s.young) + slots(&s.old)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_what_is_used_and_stays_bounded() {
        let cache = AliasCache::new(SHARDS * 2 * 8);
        let key = |i: u64| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes());
        let get = |key| {
            let mut known = Vec::new();
            cache.look_up(std::iter::once(key), &mut known);
            known[0]
        };
        for i in 0..100_000 {
            cache.learn([Alias { key: key(i), known: Known::Unmatched(i as u32) }]);
            assert_eq!(get(key(0)), Some(Known::Unmatched(0)), "the one in use stays (at {i})");
        }
        assert!(cache.len() <= SHARDS * 2 * 8, "{}", cache.len());
        assert_eq!(get(key(1)), None);
        cache.clear();
        assert!(cache.is_empty());
    }
}
