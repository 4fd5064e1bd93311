//! The alias cache: from a hash of the raw label bytes to the series they name.
//!
//! It is only a cache: an entry may be dropped at any time and is made again from the labels. It is
//! bounded by two generations a shard: when the young one is full it becomes the old one, and what
//! is still used moves back. The same is done after some time, so that names which come no more go
//! also where there is room for them.

mod entry;
mod table;

use self::entry::Entry;
use self::table::Table;
use super::PartitionId;
use crate::labels::{LabelError, SeriesId};
use crate::time::{Millis, Span};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// 48 bits of an identity: whether a slot still is that series'. Only a slot that another series has taken
/// over is asked in vain, so two that share these bits (one in 2⁴⁸) must also have shared a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u16; 3]);

impl Mark {
    /// Of an identity: bits that neither the partition nor its index takes.
    #[inline]
    pub fn of(SeriesId(id): SeriesId) -> Mark {
        Mark([(id >> 64) as u16, (id >> 80) as u16, (id >> 96) as u16])
    }
}

/// What a label set, as it came on the wire, is known to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// A series that a rule took.
    Series {
        /// Of its identity.
        mark: Mark,
        /// Its partition.
        partition: PartitionId,
        /// Where it was in the partition's slab: a hint, checked by the mark.
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

/// A table in two generations.
#[derive(Debug, Default)]
struct Shard {
    young: Table,
    old: Table,
    /// Of each generation.
    capacity: usize,
}

impl Shard {
    fn put(&mut self, entry: Entry) {
        if self.young.len() >= self.capacity && self.young.find(entry.key).is_none() {
            self.turn();
        }
        self.young.put(entry);
        // What has moved back is not held twice, and neither is its room.
        self.old.remove(entry.key);
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

/// What the lock guards.
#[derive(Debug)]
struct Held {
    shards: Vec<Shard>,
    /// The first generation of rules whose identities are those in force: what was found under an older one
    /// may name another series.
    since: u32,
}

/// The cache. Safe to use from many threads. It is asked about a whole body at a time: one lock for all,
/// so that the processor can wait for many places in memory at once.
#[derive(Debug)]
pub struct AliasCache {
    held: RwLock<Held>,
    /// Observed time when the generations last turned because of it, ms.
    turned: AtomicI64,
}

/// The shard of a key; its table takes the place from the low half. The first shards get twice what the last
/// ones do: tables grow when they are full, and so they do not all do it at once.
#[inline]
fn shard(key: u128) -> usize {
    let at = u64::from((key >> 64) as u16);
    // SHARDS · u (2 + u) / 3 of a number u from 0 to 1.
    (at * ((2 << 16) + at) / (3 << 24)) as usize
}

/// The share of all keys that a shard gets.
fn share(shard: usize) -> f64 {
    let below = |shard: usize| (1.0 + 3.0 * shard as f64 / SHARDS as f64).sqrt() - 1.0;
    below(shard + 1) - below(shard)
}

impl AliasCache {
    /// A cache of at most about `capacity` entries.
    pub fn new(capacity: usize) -> AliasCache {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let held = RwLock::new(Held { shards, since: 0 });
        let cache = AliasCache { held, turned: AtomicI64::new(Millis::MIN.0) };
        cache.set_capacity(capacity);
        cache
    }

    /// Changes the bound; takes effect as entries come.
    pub fn set_capacity(&self, capacity: usize) {
        for (at, shard) in self.held.write().shards.iter_mut().enumerate() {
            shard.capacity = (capacity as f64 / 2.0 * share(at)).max(4.0) as usize;
        }
    }

    /// What label sets are known to be, in their order.
    pub fn look_up(&self, keys: impl Iterator<Item = u128> + Clone, to: &mut Vec<Option<Known>>) {
        let mut kept = Vec::new();
        let held = self.held.read();
        let Held { shards, since } = &*held;
        let since = *since;
        // Entries lie anywhere: asked for together, their memory comes at once.
        let near = keys.clone().fold(0, |near, key| near ^ shards[shard(key)].young.near(entry::parts(key)));
        std::hint::black_box(near);
        to.extend(keys.map(|key| {
            let (shard, key) = (&shards[shard(key)], entry::parts(key));
            let found = shard.young.find(key).or_else(|| {
                let old = shard.old.find(key);
                kept.extend(old.copied());
                old
            });
            found.map(Entry::known)
        }));
        drop(held);
        self.put(kept, |now| now == since);
    }

    /// Remembers what label sets are, by the rules of a generation; nothing where what makes an identity has
    /// changed since.
    pub fn learn(&self, generation: u32, aliases: impl IntoIterator<Item = Alias>) {
        self.put(aliases.into_iter().map(|alias| Entry::of(&alias)), |since| generation >= since);
    }

    fn put(&self, entries: impl IntoIterator<Item = Entry>, holds: impl FnOnce(u32) -> bool) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_none() {
            return;
        }
        let mut held = self.held.write();
        if holds(held.since) {
            entries.for_each(|entry| held.shards[shard(entry.key())].put(entry));
        }
    }

    /// By `now`, observed time, what was not used for `span` is on its way out: it goes when it was not
    /// used for twice that. Called now and then.
    pub fn age(&self, now: Millis, span: Span) {
        let turned = Millis(self.turned.load(Ordering::Relaxed));
        let first = turned == Millis::MIN;
        if !first && now.since(turned) < span.0 {
            return;
        }
        self.turned.store(now.0, Ordering::Relaxed);
        if !first {
            self.held.write().shards.iter_mut().for_each(Shard::turn);
        }
    }

    /// Forgets everything: what makes an identity has changed with this generation of rules.
    pub fn clear(&self, generation: u32) {
        let mut held = self.held.write();
        held.since = generation;
        for shard in &mut held.shards {
            (shard.young, shard.old) = Default::default();
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.held.read().shards.iter().map(|shard| shard.young.len() + shard.old.len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        self.held.read().shards.iter().map(|s| s.young.bytes() + s.old.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_get_their_shares_and_do_not_double_at_once() {
        let mut got = [0u32; SHARDS];
        (0..1u128 << 16).for_each(|key| got[shard(key << 64)] += 1);
        for (at, got) in got.iter().enumerate() {
            assert!((f64::from(*got) - share(at) * 65_536.0).abs() < 2.0, "{at}: {got}");
        }
        assert!(got[0] > 19 * got[SHARDS - 1] / 10);
        let key = |i: u64| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes());
        let mut at = 0;
        let cache = AliasCache::new(1 << 20);
        for series in [70_000u64, 90_000, 110_000, 130_000, 150_000] {
            cache.learn(0, (at..series).map(|i| Alias { key: key(i), known: Known::Own }));
            at = series;
            let each = cache.bytes() as f64 / series as f64;
            assert!((42.0..48.0).contains(&each), "{each} bytes an alias of {series}");
        }
    }

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
            cache.learn(0, [Alias { key: key(i), known: Known::Unmatched(i as u32) }]);
            assert_eq!(get(key(0)), Some(Known::Unmatched(0)), "the one in use stays (at {i})");
        }
        assert!(cache.len() <= SHARDS * 2 * 8, "{}", cache.len());
        assert_eq!(get(key(1)), None);
        cache.clear(1);
        cache.learn(0, [Alias { key: key(1), known: Known::Own }]);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_is_not_used_for_long_goes_and_what_is_used_is_held_once() {
        let cache = AliasCache::new(1 << 20);
        let key = |i: u64| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes());
        let span = Span::minutes(30);
        let used = 20_000;
        let mut known = Vec::new();
        let mut bytes = Vec::new();
        for minute in 0..600u64 {
            // Of 20,000 names a hundred are replaced each minute; all that are left are asked for.
            let names = minute * 100..minute * 100 + used;
            known.clear();
            cache.look_up(names.clone().map(key), &mut known);
            let new: Vec<Alias> = names
                .zip(&known)
                .filter(|(_, known)| known.is_none())
                .map(|(i, _)| Alias { key: key(i), known: Known::Unmatched(i as u32) })
                .collect();
            assert_eq!(new.len() as u64, if minute == 0 { used } else { 100 }, "those in use stay");
            cache.learn(0, new);
            cache.age(Millis(minute as i64 * 60_000), span);
            if minute >= 60 {
                bytes.push(cache.bytes());
                assert!(cache.len() as u64 <= used + 2 * 30 * 100, "{} at {minute}", cache.len());
            }
        }
        let (least, most) = (bytes.iter().min(), bytes.iter().max());
        let first = AliasCache::new(1 << 20);
        first.learn(0, (0..used + 6_000).map(|i| Alias { key: key(i), known: Known::Own }));
        assert!(most.is_some_and(|most| *most <= 2 * first.bytes()), "{least:?} to {most:?}");
    }
}
