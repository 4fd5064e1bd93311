//! Interned label pairs: a pair that thousands of series share is stored once.
//!
//! A [`Pair`] is reference-counted, so reading it takes no lock and forgetting a series frees what
//! nobody else uses (at the next [`Interner::sweep`]).

use super::NAME;
use arrayvec::ArrayString;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::sync::Arc;

/// Bytes of a name and its value that are kept where their lengths are: a pair is then 88 bytes with its counts,
/// which an allocator makes 96.
const SHORT: usize = 52;

/// Most labels are short. Those that are not wait for memory twice when they are read.
#[derive(Debug, PartialEq, Eq)]
enum Text {
    Short(ArrayString<SHORT>),
    Long(Box<str>),
}

/// One label: a name and its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    split: u32,
    text: Text,
}

impl Pair {
    /// A pair outside any interner (tests, fixed labels).
    pub fn new(name: &str, value: &str) -> Pair {
        let mut short = ArrayString::new();
        let text = match short.try_push_str(name).and_then(|()| short.try_push_str(value)) {
            Ok(()) => Text::Short(short),
            Err(_) => Text::Long([name, value].concat().into()),
        };
        Pair { split: name.len() as u32, text }
    }
    #[inline]
    fn text(&self) -> &str {
        match &self.text {
            Text::Short(text) => text,
            Text::Long(text) => text,
        }
    }
    /// The label's name.
    #[inline]
    pub fn name(&self) -> &str {
        &self.text()[..self.split as usize]
    }
    /// The label's value.
    #[inline]
    pub fn value(&self) -> &str {
        &self.text()[self.split as usize..]
    }
    /// Bytes on the heap beside the pair's own.
    fn heap_bytes(&self) -> usize {
        match &self.text {
            Text::Short(_) => 0,
            Text::Long(text) => text.len(),
        }
    }
}

/// A canonical label set of interned pairs, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Arc<[Arc<Pair>]>);

impl Labels {
    /// Builds a set without an interner. The pairs must be canonical.
    pub fn from_pairs(canonical: &[(&str, &str)]) -> Labels {
        Labels(canonical.iter().map(|(n, v)| Arc::new(Pair::new(n, v))).collect())
    }
    /// Bytes of the list, which no two series share; the pairs are the interner's.
    pub fn heap_bytes(&self) -> usize {
        2 * size_of::<usize>() + size_of_val(&*self.0)
    }
    /// Reads a little of the list, so that a clone soon after finds it near.
    pub fn near(&self) -> u64 {
        Arc::strong_count(&self.0) as u64
    }
    /// The pairs in canonical order.
    pub fn pairs(&self) -> &[Arc<Pair>] {
        &self.0
    }
    /// Names and values in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        self.0.iter().map(|pair| (pair.name(), pair.value()))
    }
    /// The value of a label, `None` if absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.name() == name).map(|pair| pair.value())
    }
    /// The metric's name; empty only for a set that was never valid.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or("")
    }
}

/// Of pairs in canonical order.
impl From<Vec<Arc<Pair>>> for Labels {
    fn from(canonical: Vec<Arc<Pair>>) -> Labels {
        Labels(canonical.into())
    }
}

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

const SHARDS: usize = 64;

/// The table of shared pairs, sharded so that threads rarely meet.
#[derive(Debug)]
pub struct Interner {
    shards: Vec<Mutex<HashTable<Arc<Pair>>>>,
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

impl Interner {
    /// Pairs held, those that no series uses any more among them until the next sweep.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no pair is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the pairs and of the tables that find them.
    pub fn bytes(&self) -> usize {
        const PAIR: usize = size_of::<Pair>() + 2 * size_of::<usize>();
        let table = |t: &HashTable<Arc<Pair>>| t.capacity() * 8 / 7 * (size_of::<usize>() + 1);
        let text = |t: &HashTable<Arc<Pair>>| t.iter().map(|pair| PAIR + pair.heap_bytes()).sum::<usize>();
        self.shards.iter().map(|shard| shard.lock()).map(|shard| table(&shard) + text(&shard)).sum()
    }

    /// The shared form of a canonical set.
    pub fn intern(&self, canonical: &[(&str, &str)]) -> Labels {
        Labels(canonical.iter().map(|(name, value)| self.pair(name, value)).collect())
    }

    /// The shared form of one label.
    pub fn pair(&self, name: &str, value: &str) -> Arc<Pair> {
        let h = hash(name, value);
        // The table uses the top seven bits as tags and the low bits as position: take the middle.
        let mut shard = self.shards[(h >> 32) as usize % SHARDS].lock();
        let same = |have: &Arc<Pair>| have.name() == name && have.value() == value;
        if let Some(have) = shard.find(h, same) {
            return have.clone();
        }
        let fresh = Arc::new(Pair::new(name, value));
        shard.insert_unique(h, fresh.clone(), |p| hash(p.name(), p.value()));
        fresh
    }

    /// Frees pairs that no series uses any more; returns how many are left.
    pub fn sweep(&self) -> usize {
        let mut left = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|pair| Arc::strong_count(pair) > 1);
            if shard.capacity() > 4 * shard.len().max(64) {
                shard.shrink_to_fit(|p| hash(p.name(), p.value()));
            }
            left += shard.len();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_any_length_are_what_was_put_in() {
        assert_eq!(size_of::<Pair>(), 72);
        for length in [0, 1, 48, 49, 50, 51, 4096] {
            let value = "ä".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
            let pair = Pair::new("pod", &value);
            assert_eq!((pair.name(), pair.value()), ("pod", value.as_str()));
            assert_eq!(pair.heap_bytes(), if length > 49 { length + 3 } else { 0 });
            assert!(pair == Pair::new("pod", &value) && pair != Pair::new("po", &format!("d{value}")));
        }
    }

    #[test]
    fn pairs_are_shared_and_freed() {
        let interner = Interner::default();
        let a = interner.intern(&[(NAME, "up"), ("job", "node")]);
        let b = interner.intern(&[(NAME, "down"), ("job", "node")]);
        assert!(Arc::ptr_eq(&a.pairs()[1], &b.pairs()[1]));
        assert_eq!((interner.sweep(), interner.len()), (3, 3));
        drop(b);
        assert_eq!(interner.sweep(), 2);
        assert_eq!(a.to_string(), "up{job=\"node\"}");
    }
}
