//! An alias as it stands in the tables: 32 bytes, two to a line of the processor's cache.

use super::{Alias, Known, Mark};
use crate::labels::LabelError;

/// A key in two parts, so that the entry needs no wider alignment than its size asks for.
pub type Key = [u64; 2];

/// The two parts of a key.
#[inline]
pub fn parts(key: u128) -> Key {
    [key as u64, (key >> 64) as u64]
}

/// The hash that tables find a key by.
#[inline]
pub fn hash(key: Key) -> u64 {
    key[0]
}

/// What an entry stands for, by number.
const SERIES: u8 = 0;
const SERIES_UP: u8 = 1;
const UP: u8 = 2;
const UNMATCHED: u8 = 3;
const OWN: u8 = 4;
/// The first of [`LabelError`]'s.
const MALFORMED: u8 = 5;
/// No alias.
const NOTHING: u8 = u8::MAX;

/// See [`Alias`].
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: Key,
    /// A series' slot, a generation, or the limit of an error.
    word: u32,
    group: u16,
    replica: u16,
    mark: Mark,
    partition: u8,
    what: u8,
}

impl Entry {
    /// A place that is not taken.
    pub const EMPTY: Entry =
        Entry { key: [0; 2], word: 0, group: 0, replica: 0, mark: Mark([0; 3]), partition: 0, what: NOTHING };

    /// Whether it is [`Entry::EMPTY`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.what == NOTHING
    }

    /// Its key.
    pub fn key(&self) -> u128 {
        u128::from(self.key[1]) << 64 | u128::from(self.key[0])
    }

    /// Of an alias.
    pub fn of(alias: &Alias) -> Entry {
        let key = parts(alias.key);
        let plain =
            |what, word| Entry { key, word, group: 0, replica: 0, mark: Mark([0; 3]), partition: 0, what };
        match alias.known {
            Known::Series { mark, partition, slot, group, replica, up } => {
                let what = if up { SERIES_UP } else { SERIES };
                Entry { key, word: slot, group, replica, mark, partition, what }
            }
            Known::Up { generation, group, replica } => Entry { group, replica, ..plain(UP, generation) },
            Known::Unmatched(generation) => plain(UNMATCHED, generation),
            Known::Own => plain(OWN, 0),
            Known::Malformed(error) => {
                let (number, limit) = match error {
                    LabelError::NoName => (0, 0),
                    LabelError::Duplicate => (1, 0),
                    LabelError::EmptyName => (2, 0),
                    LabelError::NotUtf8 => (3, 0),
                    LabelError::TooMany(limit) => (4, limit),
                    LabelError::TooLong(limit) => (5, limit),
                };
                plain(MALFORMED + number, u32::try_from(limit).unwrap_or(u32::MAX))
            }
        }
    }

    /// What it says.
    #[inline]
    pub fn known(&self) -> Known {
        let Entry { word, group, replica, mark, partition, what, .. } = *self;
        match what {
            SERIES | SERIES_UP => {
                Known::Series { mark, partition, slot: word, group, replica, up: what == SERIES_UP }
            }
            UP => Known::Up { generation: word, group, replica },
            UNMATCHED => Known::Unmatched(word),
            OWN => Known::Own,
            error => Known::Malformed(match error - MALFORMED {
                0 => LabelError::NoName,
                1 => LabelError::Duplicate,
                2 => LabelError::EmptyName,
                3 => LabelError::NotUtf8,
                4 => LabelError::TooMany(word as usize),
                _ => LabelError::TooLong(word as usize),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SeriesId;

    #[test]
    fn an_entry_says_what_was_put_in() {
        assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (32, 8));
        let mark = Mark::of(SeriesId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        let series =
            |up| Known::Series { mark, partition: 200, slot: 70_000, group: 65_535, replica: 300, up };
        let errors = [
            LabelError::NoName,
            LabelError::Duplicate,
            LabelError::EmptyName,
            LabelError::NotUtf8,
            LabelError::TooMany(128),
            LabelError::TooLong(4096),
        ];
        let others = [
            series(true),
            series(false),
            Known::Up { generation: 9, group: 7, replica: 8 },
            Known::Unmatched(u32::MAX),
            Known::Own,
        ];
        for known in errors.map(Known::Malformed).into_iter().chain(others) {
            let entry = Entry::of(&Alias { key: 5 << 90 | 3, known });
            assert_eq!((entry.known(), entry.key(), hash(entry.key)), (known, 5 << 90 | 3, 3));
            assert!(!entry.is_empty() && Entry::EMPTY.is_empty());
        }
    }
}
