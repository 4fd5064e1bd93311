//! Interned label pairs: a pair that thousands of series share is stored once, and so is a list of pairs.
//!
//! A [`Pair`] is reference-counted, so reading it takes no lock and forgetting a series frees what
//! nobody else uses (at the next [`Interner::sweep`]). Not so the names of metrics: see [`lasting`].

use super::{NAME, Pair};
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::cell::OnceCell;
use std::hint::black_box;
use std::sync::Arc;

/// Pairs in canonical order, without the metric's name where it lasts.
type Rest = Arc<[Arc<Pair>]>;

/// A canonical label set of interned pairs, cheap to clone: one count goes up. The metric's name is apart from
/// the rest, which many metrics of one target share. (Names of labels that begin with a capital sort before
/// `__name__`: series that have some have lists of their own.)
#[derive(Clone, Debug)]
pub struct Labels {
    /// The metric's name, where it is the first pair and [`lasting`].
    first: Option<&'static Pair>,
    rest: Rest,
}

impl Labels {
    /// Builds a set without an interner. The pairs must be canonical.
    pub fn from_pairs(canonical: &[(&str, &str)]) -> Labels {
        let pairs = canonical.iter().map(|(name, value)| Arc::new(Pair::new(name, value)));
        Labels { first: None, rest: pairs.collect() }
    }
    /// Reads a little of the rest, so that a clone soon after finds it near.
    pub fn near(&self) -> u64 {
        Arc::strong_count(&self.rest) as u64
    }
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
    /// Whether there are none: no series has such a set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The pairs in canonical order.
    pub fn pairs(&self) -> impl DoubleEndedIterator<Item = &Pair> {
        self.first.into_iter().chain(self.rest.iter().map(|pair| &**pair))
    }
    /// Names and values in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        self.pairs().map(|pair| (pair.name(), pair.value()))
    }
    /// The value of a label, `None` if absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|pair| pair.name() == name).map(|pair| pair.value())
    }
    /// The metric's name; empty only for a set that was never valid.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or("")
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        self.pairs().eq(other.pairs())
    }
}

impl Eq for Labels {}

impl std::fmt::Display for Labels {
    /// As PromQL writes a series: `up{job="node"}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        let mut open = false;
        for (name, value) in self.iter().filter(|(name, _)| *name != NAME) {
            write!(f, "{}{name}={value:?}", if open { ", " } else { "{" })?;
            open = true;
        }
        if open { f.write_str("}") } else { Ok(()) }
    }
}

/// An interned pair of a table of pairs that sets are made of.
#[derive(Debug)]
pub struct Known {
    pair: Arc<Pair>,
    /// What it is where it comes first.
    lasting: OnceCell<Option<&'static Pair>>,
}

const SHARDS: usize = 64;
/// Pairs asked for together.
const TOGETHER: usize = 16;
/// Names of metrics that last, and bytes of one at most: 22 MB, should there ever be so many.
const LASTING: (usize, usize) = (1 << 16, 256);

/// What one shard holds.
#[derive(Debug, Default)]
struct Shard {
    pairs: HashTable<Arc<Pair>>,
    rests: HashTable<Rest>,
}

impl Shard {
    fn find(&self, hash: u64, name: &str, value: &str) -> Option<&Arc<Pair>> {
        self.pairs.find(hash, |have| have.name() == name && have.value() == value)
    }

    fn pair(&mut self, hash: u64, name: &str, value: &str) -> Arc<Pair> {
        if let Some(have) = self.find(hash, name, value) {
            return have.clone();
        }
        let fresh = Arc::new(Pair::new(name, value));
        self.pairs.insert_unique(hash, fresh.clone(), hash_pair);
        fresh
    }
}

/// The table of shared pairs and of what sets have in common, sharded so that threads rarely meet.
#[derive(Debug)]
pub struct Interner {
    shards: Vec<Mutex<Shard>>,
}

impl Default for Interner {
    fn default() -> Self {
        Interner { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

fn hash(name: &str, value: &str) -> u64 {
    use xxhash_rust::xxh3::xxh3_64_with_seed;
    xxh3_64_with_seed(value.as_bytes(), xxh3_64_with_seed(name.as_bytes(), 0))
}

fn hash_pair(pair: &Arc<Pair>) -> u64 {
    hash(pair.name(), pair.value())
}

/// The name of a metric, kept for as long as the process lives: thousands of series and all of their outputs
/// would count up and down how many use it, from all cores. `None` for those beyond [`LASTING`], which no fleet
/// has and a broken sender may.
fn lasting(name: &str, value: &str) -> Option<&'static Pair> {
    static NAMES: Mutex<HashTable<&'static Pair>> = Mutex::new(HashTable::new());
    if name != NAME || value.len() > LASTING.1 {
        return None;
    }
    let h = hash(name, value);
    let mut names = NAMES.lock();
    if let Some(have) = names.find(h, |have| have.value() == value) {
        return Some(have);
    }
    if names.len() >= LASTING.0 {
        return None;
    }
    let fresh: &'static Pair = Box::leak(Box::new(Pair::new(name, value)));
    names.insert_unique(h, fresh, |pair| hash(pair.name(), pair.value()));
    Some(fresh)
}

/// By where the pairs are: interned ones are there once.
fn hash_rest<'a>(pairs: impl ExactSizeIterator<Item = &'a Arc<Pair>>) -> u64 {
    let mut hash = pairs.len() as u64;
    for pair in pairs {
        hash = (hash ^ Arc::as_ptr(pair).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 32;
    }
    hash
}

/// Of all bits but those that a table uses: the top seven as tags, the low ones as position.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// Lets go of what only the table holds.
fn sweep<T: ?Sized>(table: &mut HashTable<Arc<T>>, hash: impl Fn(&Arc<T>) -> u64) {
    table.retain(|held| Arc::strong_count(held) > 1);
    if table.capacity() > 4 * table.len().max(64) {
        table.shrink_to_fit(hash);
    }
}

impl Interner {
    /// Pairs held, those that no series uses any more among them until the next sweep.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().pairs.len()).sum()
    }

    /// Whether no pair is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of what is held and of the tables that find it.
    pub fn bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        const PAIR: usize = size_of::<Pair>() + COUNTS;
        let place = |capacity: usize, of: usize| capacity * 8 / 7 * (of + 1);
        let shard = |shard: &Shard| {
            let tables = place(shard.pairs.capacity(), size_of::<Arc<Pair>>())
                + place(shard.rests.capacity(), size_of::<Rest>());
            let pairs = shard.pairs.iter().map(|pair| PAIR + pair.heap_bytes());
            let rests = shard.rests.iter().map(|rest| COUNTS + size_of_val(&**rest));
            tables + pairs.sum::<usize>() + rests.sum::<usize>()
        };
        self.shards.iter().map(|held| shard(&held.lock())).sum()
    }

    /// The shared form of a canonical set.
    pub fn intern(&self, canonical: &[(&str, &str)]) -> Labels {
        let first = canonical.first().and_then(|(name, value)| lasting(name, value));
        let rest = canonical.iter().skip(usize::from(first.is_some()));
        let rest: Vec<_> = rest.map(|(name, value)| self.pair(name, value)).collect();
        Labels { first, rest: self.rest(rest.iter()) }
    }

    /// The shared form of one label.
    fn pair(&self, name: &str, value: &str) -> Arc<Pair> {
        let h = hash(name, value);
        self.shards[shard_of(h)].lock().pair(h, name, value)
    }

    /// The shared forms of many labels, in their order: a shard is locked once for all that it has of them, and
    /// what is read of some at a time does not wait for each other.
    pub fn pairs(&self, labels: &[(&str, &str)]) -> Vec<Known> {
        let hashed =
            labels.iter().enumerate().map(|(at, (name, value))| (hash(name, value), at, *name, *value));
        let mut sorted: Vec<_> = hashed.collect();
        sorted.sort_unstable_by_key(|(h, ..)| shard_of(*h));
        let mut found: Vec<Option<Known>> = Vec::new();
        found.resize_with(labels.len(), || None);
        for of_one in sorted.chunk_by(|a, b| shard_of(a.0) == shard_of(b.0)) {
            let Some((h, ..)) = of_one.first() else { continue };
            let mut shard = self.shards[shard_of(*h)].lock();
            for some in of_one.chunks(TOGETHER) {
                // What counts is that it is read: counting who uses a pair waits for all reads before it.
                let near = some.iter().filter_map(|(h, _, name, value)| shard.find(*h, name, value));
                black_box(near.count());
                for (h, at, name, value) in some {
                    let pair = shard.pair(*h, name, value);
                    if let Some(place) = found.get_mut(*at) {
                        *place = Some(Known { pair, lasting: OnceCell::new() });
                    }
                }
            }
        }
        // Each has been found or made.
        found.into_iter().flatten().collect()
    }

    /// A set of pairs of this interner, in canonical order.
    pub fn share(&self, canonical: &[&Known]) -> Labels {
        let lasts =
            |known: &&Known| *known.lasting.get_or_init(|| lasting(known.pair.name(), known.pair.value()));
        let first = canonical.first().and_then(lasts);
        let rest = canonical.iter().skip(usize::from(first.is_some()));
        Labels { first, rest: self.rest(rest.map(|known| &known.pair)) }
    }

    fn rest<'a>(&self, rest: impl ExactSizeIterator<Item = &'a Arc<Pair>> + Clone) -> Rest {
        let h = hash_rest(rest.clone());
        let table = &mut self.shards[shard_of(h)].lock().rests;
        let same = |have: &Rest| {
            have.len() == rest.len() && have.iter().zip(rest.clone()).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some(have) = table.find(h, same) {
            return have.clone();
        }
        let fresh: Rest = rest.cloned().collect();
        table.insert_unique(h, fresh.clone(), |rest| hash_rest(rest.iter()));
        fresh
    }

    /// Frees what no series uses any more; returns how many pairs are left.
    pub fn sweep(&self) -> usize {
        for shard in &self.shards {
            sweep(&mut shard.lock().rests, |rest| hash_rest(rest.iter()));
        }
        let left = |shard: &Mutex<Shard>| {
            let pairs = &mut shard.lock().pairs;
            sweep(pairs, hash_pair);
            pairs.len()
        };
        self.shards.iter().map(left).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_shared_and_freed() {
        let interner = Interner::default();
        let a = interner.intern(&[(NAME, "up"), ("job", "node")]);
        let b = interner.intern(&[(NAME, "down"), ("job", "node")]);
        assert!(Arc::ptr_eq(&a.rest, &b.rest), "the rest is one");
        let c = Interner::default().intern(&[(NAME, "up"), ("job", "node")]);
        assert_eq!(a, c);
        assert!(std::ptr::eq(a.first.expect("a name"), c.first.expect("a name")), "names are one");
        assert_eq!(a, Labels::from_pairs(&[(NAME, "up"), ("job", "node")]));
        let d = interner.intern(&[("Job", "node"), (NAME, "up")]);
        assert_eq!((d.first, d.name(), d.len()), (None, "up", 2));
        let long = "n".repeat(257);
        let f = interner.intern(&[(NAME, &long)]);
        assert_eq!((f.first, f.name()), (None, long.as_str()), "it does not last");
        drop(f);
        drop((c, d));
        assert_eq!((interner.sweep(), interner.len()), (1, 1));
        let e = interner.intern(&[(NAME, "down"), ("job", "other")]);
        assert_eq!(interner.sweep(), 2);
        drop((b, e));
        assert_eq!(interner.sweep(), 1);
        assert_eq!(a.to_string(), "up{job=\"node\"}");
    }

    #[test]
    fn many_pairs_are_found_as_one_is() {
        let interner = Interner::default();
        let held = interner.pair("pod", "7");
        let values: Vec<String> = (0..500).map(|n| (n % 300).to_string()).collect();
        let mut labels: Vec<(&str, &str)> = values.iter().map(|value| ("pod", value.as_str())).collect();
        labels.push((NAME, "up"));
        let known = interner.pairs(&labels);
        let texts: Vec<_> = known.iter().map(|known| (known.pair.name(), known.pair.value())).collect();
        assert_eq!((texts, interner.len()), (labels, 301));
        assert!(Arc::ptr_eq(&known[7].pair, &held) && Arc::ptr_eq(&known[307].pair, &held));
        let set = interner.share(&[&known[500], &known[307]]);
        let same = interner.intern(&[(NAME, "up"), ("pod", "7")]);
        assert!(set == same && Arc::ptr_eq(&set.rest, &same.rest));
        assert!(std::ptr::eq(set.first.expect("a name"), same.first.expect("a name")));
    }

    #[test]
    fn every_byte_is_told() {
        let interner = Interner::default();
        let bytes = |name, job| {
            let before = interner.bytes();
            let kept = interner.intern(&[(NAME, name), ("job", job), ("pod", "a")]);
            (interner.bytes() - before, kept)
        };
        let first = bytes("up", "node");
        let two = bytes("up", "node");
        assert_eq!((two.0, &two.1), (0, &first.1));
        // A pair and a list of two; each in a table that may be the first of its shard.
        let other = bytes("up", "other");
        let held = 88 + 16 + 2 * 8;
        assert!((held..held + 2 * 4 * 17 + 1).contains(&other.0), "{}", other.0);
        drop((first, two, other));
        interner.sweep();
        assert!(interner.is_empty() && interner.shards.iter().all(|shard| shard.lock().rests.is_empty()));
    }
}
