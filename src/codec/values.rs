//! The binary form of numbers, texts, lists and tables.

use super::{Damaged, FARTHEST, Reader, Stored, store_count};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// Appends the bytes of many numbers at one go.
#[inline]
pub fn store_bytes<const N: usize>(items: impl ExactSizeIterator<Item = [u8; N]>, to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + items.len() * N, 0);
    let room = to.get_mut(start..).unwrap_or_default();
    for (place, item) in room.as_chunks_mut().0.iter_mut().zip(items) {
        *place = item;
    }
}

/// Numbers: their bytes, the lowest first; many at one go.
macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Stored for $number {
            #[inline]
            fn store(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
                sound(<$number>::from_le_bytes(from.array()?), from)
            }
            fn store_all(items: &[Self], to: &mut Vec<u8>) {
                store_bytes(items.iter().map(|item| item.to_le_bytes()), to);
            }
            fn load_all(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, Damaged> {
                let bytes = from.bytes(count.saturating_mul(size_of::<$number>()))?;
                let items = bytes.as_chunks().0.iter().map(|bytes| <$number>::from_le_bytes(*bytes));
                let items: Vec<$number> = items.collect();
                items.iter().try_for_each(|item| sound(*item, from).map(|_| ()))?;
                Ok(items)
            }
        }
    )+};
}
numbers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, f32, f64);

/// What [`Reader::plain`] asks of a number.
#[inline]
fn sound<T: Plain>(value: T, from: &Reader<'_>) -> Result<T, Damaged> {
    if from.plain && !value.is_plain() {
        return Err(from.damaged("not a number that a sample can have led to"));
    }
    Ok(value)
}

trait Plain: Copy {
    #[inline]
    fn is_plain(self) -> bool {
        true
    }
}
macro_rules! whole {
    ($($number:ty),+) => { $(impl Plain for $number {})+ };
}
whole!(u8, u16, u32, u64, u128, i8, i16, i32, i64);
impl Plain for f32 {
    #[inline]
    fn is_plain(self) -> bool {
        self.is_finite()
    }
}
impl Plain for f64 {
    #[inline]
    fn is_plain(self) -> bool {
        self.abs() <= FARTHEST
    }
}

impl Stored for bool {
    fn store(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match from.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(from.damaged("neither no nor yes")),
        }
    }
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, to: &mut Vec<u8>) {
        match self {
            None => to.push(0),
            Some(value) => {
                to.push(1);
                value.store(to);
            }
        }
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(if bool::load(from)? { Some(T::load(from)?) } else { None })
    }
}

impl<T: Stored> Stored for Box<T> {
    fn store(&self, to: &mut Vec<u8>) {
        T::store(self, to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        T::load(from).map(Box::new)
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn store(&self, to: &mut Vec<u8>) {
        store_count(self.len(), to);
        T::store_all(self, to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        T::load_all(count, from)
    }
}

impl<T: Stored> Stored for Box<[T]> {
    fn store(&self, to: &mut Vec<u8>) {
        store_count(self.len(), to);
        T::store_all(self, to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Vec::load(from).map(Vec::into_boxed_slice)
    }
}

impl<T: Stored, const N: usize> Stored for [T; N] {
    fn store(&self, to: &mut Vec<u8>) {
        T::store_all(self, to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let items = T::load_all(N, from)?;
        items.try_into().map_err(|_| from.damaged("a list of another length"))
    }
}

impl Stored for String {
    fn store(&self, to: &mut Vec<u8>) {
        store_text(self, to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        load_text(from).map(str::to_string)
    }
}

/// Appends a text: its length in bytes, then these.
pub fn store_text(text: &str, to: &mut Vec<u8>) {
    store_count(text.len(), to);
    to.extend_from_slice(text.as_bytes());
}

/// A text as [`store_text`] writes it, borrowed from the image.
///
/// # Errors
/// The bytes end too soon, or are no UTF-8.
pub fn load_text<'a>(from: &mut Reader<'a>) -> Result<&'a str, Damaged> {
    let count = from.count()?;
    let bytes = from.bytes(count)?;
    std::str::from_utf8(bytes).map_err(|_| from.damaged("a text that is not UTF-8"))
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn store(&self, to: &mut Vec<u8>) {
        self.0.store(to);
        self.1.store(to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok((A::load(from)?, B::load(from)?))
    }
}

impl<A: Stored, B: Stored, C: Stored> Stored for (A, B, C) {
    fn store(&self, to: &mut Vec<u8>) {
        self.0.store(to);
        self.1.store(to);
        self.2.store(to);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok((A::load(from)?, B::load(from)?, C::load(from)?))
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn store(&self, to: &mut Vec<u8>) {
        store_count(self.len(), to);
        for (key, value) in self {
            key.store(to);
            value.store(to);
        }
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut map = BTreeMap::new();
        for _ in 0..from.count()? {
            let key = K::load(from)?;
            from.check(map.last_key_value().is_none_or(|(last, _)| *last < key), "keys out of order")?;
            map.insert(key, V::load(from)?);
        }
        Ok(map)
    }
}

/// Stored in the order of the keys.
impl<K: Stored + Ord + Hash, V: Stored, S: BuildHasher + Default> Stored for HashMap<K, V, S> {
    fn store(&self, to: &mut Vec<u8>) {
        let mut entries: Vec<(&K, &V)> = self.iter().collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
        store_count(entries.len(), to);
        for (key, value) in entries {
            key.store(to);
            value.store(to);
        }
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut map = HashMap::default();
        for _ in 0..from.count()? {
            let key = K::load(from)?;
            let first = map.insert(key, V::load(from)?).is_none();
            from.check(first, "a key twice")?;
        }
        Ok(map)
    }
}
