//! A hash table of entries alone: one array, looked through from where the key's hash points (linear probing,
//! Knuth, vol. 3, section 6.4). A table with tags beside its places waits for memory twice a question, once for
//! the tags and once for the place; this one waits once, and grows by less than double.

use super::entry::{Entry, Key, hash};

/// Of so many places at most so many are taken.
const FULL: (usize, usize) = (4, 5);
/// What a table grows to, of what it was.
const GROWTH: (usize, usize) = (5, 4);
/// The least places of a table that has any.
const LEAST: usize = 8;

/// Entries by key, each key once.
#[derive(Debug, Default)]
pub struct Table {
    places: Box<[Entry]>,
    len: usize,
}

/// Where a hash points in so many places: hashes in order of size point to places in order.
#[inline]
fn home(hash: u64, places: usize) -> usize {
    (((hash >> 32) * places as u64) >> 32) as usize
}

impl Table {
    /// Entries held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the places.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Reads the place where a key is most likely, so that [`Table::find`] soon after finds it near.
    #[inline]
    pub fn near(&self, key: Key) -> u64 {
        self.places.get(home(hash(key), self.places.len())).map_or(0, |entry| entry.key[0])
    }

    /// The place of a key, or the empty one where it would be; `None` of a table without places.
    #[inline]
    fn place(&self, key: Key) -> Option<usize> {
        let mut at = home(hash(key), self.places.len());
        // Some place is always empty.
        loop {
            let entry = self.places.get(at)?;
            if entry.key == key || entry.is_empty() {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.places.len() { 0 } else { at + 1 }
    }

    /// The entry of a key.
    #[inline]
    pub fn find(&self, key: Key) -> Option<&Entry> {
        let at = self.place(key)?;
        self.places.get(at).filter(|entry| !entry.is_empty())
    }

    /// Puts an entry in, in place of the one of its key where there is one.
    pub fn put(&mut self, entry: Entry) {
        let mut found = self.place(entry.key);
        let new = found.is_none_or(|at| self.places[at].is_empty());
        if new && (self.len + 1) * FULL.1 > self.places.len() * FULL.0 {
            self.resize((self.places.len() * GROWTH.0 / GROWTH.1 + 1).max(LEAST));
            found = self.place(entry.key);
        }
        if let Some(at) = found {
            self.places[at] = entry;
            self.len += usize::from(new);
        }
    }

    /// Takes the entry of a key out; the room of many goes with them.
    pub fn remove(&mut self, key: Key) {
        let Some(mut hole) = self.place(key).filter(|at| !self.places[*at].is_empty()) else { return };
        self.len -= 1;
        // What could not stand here while it was taken moves up, so that nothing is cut off from its home.
        let mut at = hole;
        loop {
            at = self.after(at);
            let entry = self.places[at];
            if entry.is_empty() {
                break;
            }
            let home = home(hash(entry.key), self.places.len());
            let stays = if hole <= at { hole < home && home <= at } else { hole < home || home <= at };
            if !stays {
                self.places[hole] = entry;
                hole = at;
            }
        }
        self.places[hole] = Entry::EMPTY;
        if self.places.len() > LEAST.max(4 * self.len) {
            self.resize((self.len * 3 / 2).max(LEAST));
        }
    }

    fn resize(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.places, vec![Entry::EMPTY; places].into());
        for entry in old.into_iter().filter(|entry| !entry.is_empty()) {
            if let Some(at) = self.place(entry.key) {
                self.places[at] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Alias, Known};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn entry(key: u128, generation: u32) -> Entry {
        Entry::of(&Alias { key, known: Known::Unmatched(generation) })
    }

    /// Keys of few homes, so that they stand in each other's way, the last and the first place among them.
    fn key(number: u8) -> u128 {
        let home = [0, 1, 1 << 30, u32::MAX - 1, u32::MAX][usize::from(number) % 5];
        u128::from(number) << 64 | u128::from(home) << 32
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<u8>(), any::<u32>(), 0..3u8), 0..400)) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (number, generation, step) in steps {
                let key = key(number);
                let entry = entry(key, generation);
                if step == 0 {
                    table.remove(entry.key);
                    map.remove(&key);
                } else {
                    table.put(entry);
                    map.insert(key, generation);
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for number in 0..=255 {
                let found = table.find(entry(key(number), 0).key).map(Entry::known);
                prop_assert_eq!(found, map.get(&key(number)).map(|generation| Known::Unmatched(*generation)));
            }
            prop_assert!(table.places.len() <= LEAST.max(4 * table.len()));
        }
    }

    #[test]
    fn it_is_two_thirds_full_or_more() {
        let mut table = Table::default();
        for i in 0..100_000u64 {
            table.put(entry(xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()), 0));
            if table.len() > 100 {
                let share = table.len() as f64 / table.places.len() as f64;
                assert!((0.63..=0.8).contains(&share), "{share} of {}", table.places.len());
            }
        }
    }
}
