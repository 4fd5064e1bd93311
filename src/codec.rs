//! The binary form of state: little-endian, explicit, without gaps, so that it is the same on every
//! machine. What is made of it is told in `docs/formats.md`.
//!
//! A type says how it is stored beside its definition, mostly by [`stored!`], which takes the struct
//! apart in full: a field that is forgotten does not compile. Reading trusts nothing: what cannot be is
//! [`Damaged`], and memory is taken only for what is there.

mod values;

pub use values::{load_text, store_bytes, store_text};

use std::borrow::Cow;

/// A value with a binary form. What [`Stored::store`] wrote, [`Stored::load`] reads back to the bit.
pub trait Stored: Sized {
    /// Appends the value. At least one byte, so that a list is never longer than its bytes.
    fn store(&self, to: &mut Vec<u8>);

    /// Reads a value.
    ///
    /// # Errors
    /// The bytes end too soon, or are none that [`Stored::store`] writes.
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged>;

    /// Appends values one after the other; numbers do so at one go.
    fn store_all(items: &[Self], to: &mut Vec<u8>) {
        for item in items {
            item.store(to);
        }
    }

    /// Reads `count` values.
    ///
    /// # Errors
    /// As [`Stored::load`].
    fn load_all(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, Damaged> {
        // A wrong count must not take memory that no bytes stand for.
        let mut items = Vec::with_capacity(count.min(from.left() / size_of::<Self>().max(1)));
        for _ in 0..count {
            items.push(Self::load(from)?);
        }
        items.shrink_to_fit();
        Ok(items)
    }
}

/// Bytes that are no image of anything: what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct Damaged {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// Bytes from the beginning of the image.
    pub at: usize,
}

/// Reads an image from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    all: &'a [u8],
    at: usize,
    /// Whether floats must be such that arithmetic can go on from them.
    plain: bool,
}

/// Floats beyond ± this do not come of any sample: state is held far within, squares included.
const FARTHEST: f64 = 1e305;

impl<'a> Reader<'a> {
    /// Of an image.
    pub fn new(all: &'a [u8]) -> Reader<'a> {
        Reader { all, at: 0, plain: false }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.all.len() - self.at
    }

    /// Bytes read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Something is wrong with what was just read.
    #[cold]
    pub fn damaged(&self, what: impl Into<Cow<'static, str>>) -> Damaged {
        Damaged { what: what.into(), at: self.at }
    }

    #[cold]
    fn missing(&self, count: usize) -> Damaged {
        self.damaged(format!("{count} bytes are missing, {} are left", self.left()))
    }

    /// Whether `sound` holds of what was just read.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, sound: bool, what: &'static str) -> Result<(), Damaged> {
        if sound { Ok(()) } else { Err(self.damaged(what)) }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let rest = self.all.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.get(..count) else {
            return Err(self.missing(count));
        };
        self.at += count;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// There are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        match self.all.get(self.at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.missing(N)),
        }
    }

    /// The next bytes, to be read later: a reader of its own for them.
    ///
    /// # Errors
    /// There are fewer.
    pub fn later(&mut self, count: usize) -> Result<Reader<'a>, Damaged> {
        let start = self.at;
        self.bytes(count)?;
        Ok(Reader { all: &self.all[..self.at], at: start, plain: self.plain })
    }

    /// A whole number written by [`store_number`].
    ///
    /// # Errors
    /// None is there.
    #[inline]
    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damaged("a number of more than 64 bits"))
    }

    /// How many values follow, of a byte each or more.
    ///
    /// # Errors
    /// More than there are bytes.
    pub fn count(&mut self) -> Result<usize, Damaged> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() => Ok(count),
            _ => Err(self.damaged(format!("{count} values in {} bytes", self.left()))),
        }
    }

    /// Reads as it is.
    #[inline]
    pub(crate) fn any<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Damaged>,
    ) -> Result<T, Damaged> {
        read(self)
    }

    /// Reads with every float finite and within what state may hold: arithmetic goes on from it.
    ///
    /// # Errors
    /// Those of `read`, and a float that is not.
    pub fn plain<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Damaged>,
    ) -> Result<T, Damaged> {
        let before = std::mem::replace(&mut self.plain, true);
        let value = read(self);
        self.plain = before;
        value
    }

    /// The image ends here.
    ///
    /// # Errors
    /// It goes on.
    pub fn finish(&self) -> Result<(), Damaged> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.damaged(format!("{left} bytes too many"))),
        }
    }
}

/// Appends a whole number in groups of seven bits, the lowest first: small ones take a byte.
pub fn store_number(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Appends how many values follow.
pub fn store_count(count: usize, to: &mut Vec<u8>) {
    store_number(count as u64, to);
}

/// How a type is stored: a struct field by field in this order, all of them; an enum without values by a
/// byte, each of its own. Fields under `fresh` are not stored, for they can be made again: read, they are
/// empty. `valid` says what must hold of a struct that was read.
macro_rules! stored {
    (struct $name:ident $($rest:tt)+) => {
        $crate::codec::stored!(@struct any, ref, $name $($rest)+);
    };
    // A struct whose floats are plain: see [`Reader::plain`].
    (plain struct $name:ident $($rest:tt)+) => {
        $crate::codec::stored!(@struct plain, ref, $name $($rest)+);
    };
    // A struct without gaps, to whose fields nothing may point.
    (packed struct $name:ident $($rest:tt)+) => {
        $crate::codec::stored!(@struct any, copy, $name $($rest)+);
    };
    (@fields ref $value:ident, $to:ident, $name:ident { $($field:ident),+ } { $($fresh:ident),* }) => {
        let $name { $($field,)+ $($fresh: _),* } = $value;
        $($crate::codec::Stored::store($field, $to);)+
    };
    (@fields copy $value:ident, $to:ident, $name:ident { $($field:ident),+ } { $($fresh:ident),* }) => {
        let $name { $($field,)+ $($fresh: _),* } = *$value;
        $($crate::codec::Stored::store(&$field, $to);)+
    };
    (@struct $load:ident, $how:ident, $name:ident { $($field:ident),+ $(,)? }
        $(fresh { $($fresh:ident),+ })? $(valid $valid:expr)?) => {
        impl $crate::codec::Stored for $name {
            #[inline]
            fn store(&self, to: &mut Vec<u8>) {
                $crate::codec::stored!(@fields $how self, to, $name { $($field),+ } { $($($fresh),+)? });
            }
            fn load(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::Damaged> {
                from.$load(|from| {
                    let value = $name {
                        $($field: $crate::codec::Stored::load(from)?,)+
                        $($($fresh: Default::default()),+)?
                    };
                    $(
                        let valid: fn(&$name) -> bool = $valid;
                        from.check(valid(&value), concat!("no ", stringify!($name), " can be so"))?;
                    )?
                    Ok(value)
                })
            }
        }
    };
    (@struct $load:ident, $how:ident, $name:ident(_)) => {
        impl $crate::codec::Stored for $name {
            #[inline]
            fn store(&self, to: &mut Vec<u8>) {
                let $name(value) = self;
                $crate::codec::Stored::store(value, to);
            }
            #[inline]
            fn load(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::Damaged> {
                $crate::codec::Stored::load(from).map($name)
            }
        }
    };
    (enum $name:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        impl $crate::codec::Stored for $name {
            fn store(&self, to: &mut Vec<u8>) {
                to.push(match self { $($name::$variant => $number),+ });
            }
            fn load(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::Damaged> {
                let [number] = from.array()?;
                match number {
                    $($number => Ok($name::$variant),)+
                    _ => Err(from.damaged(concat!("no ", stringify!($name), " has this number"))),
                }
            }
        }
    };
}
pub(crate) use stored;

/// The whole image of a value.
pub fn image<T: Stored>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.store(&mut bytes);
    bytes
}

/// The value of a whole image.
///
/// # Errors
/// It is not that of a value, or not that alone.
pub fn restored<T: Stored>(image: &[u8]) -> Result<T, Damaged> {
    let mut from = Reader::new(image);
    let value = T::load(&mut from)?;
    from.finish()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};

    #[derive(Clone, Debug, PartialEq)]
    struct Pair {
        left: u16,
        right: Option<f64>,
    }
    stored!(struct Pair { left, right } valid |pair| pair.left != 7);

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Side {
        Left,
        Right,
    }
    stored!(
        enum Side {
            Left = 1,
            Right = 4,
        }
    );

    #[test]
    fn structs_and_enums_say_what_cannot_be() {
        let pair = Pair { left: 3, right: Some(-0.0) };
        assert_eq!(image(&pair).len(), 2 + 1 + 8);
        assert_eq!(restored(&image(&pair)), Ok(pair));
        let wrong = restored::<Pair>(&[7, 0, 0]).expect_err("refused");
        assert_eq!(wrong.to_string(), "at byte 3: no Pair can be so");
        assert_eq!(restored::<Vec<Side>>(&[2, 4, 1]), Ok(vec![Side::Right, Side::Left]));
        assert_eq!(restored::<Side>(&[2]).expect_err("refused").what, "no Side has this number");
        assert_eq!(restored::<Side>(&[4, 0]).expect_err("refused").what, "1 bytes too many");
        assert_eq!(restored::<bool>(&[2]).expect_err("refused").at, 1);
        assert!(restored::<Option<u8>>(&[2, 2]).is_err() && restored::<String>(&[1, 0xff]).is_err());
    }

    #[test]
    fn a_wrong_length_takes_no_memory() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..], &[200, 1, 0], &[3, 1]] {
            assert!(restored::<Vec<u64>>(bytes).is_err() && restored::<Vec<Pair>>(bytes).is_err());
            assert!(restored::<String>(bytes).is_err());
            assert!(restored::<BTreeMap<u8, u8>>(bytes).is_err());
        }
        assert!(Reader::new(&[0xff; 10]).number().is_err());
        assert!(Reader::new(&[0x80]).number().is_err());
    }

    #[test]
    fn plain_floats_are_finite() {
        for x in [f64::NAN, f64::INFINITY, -1e306] {
            let bytes = image(&x);
            assert!(Reader::new(&bytes).plain(f64::load).is_err());
            assert_eq!(Reader::new(&bytes).plain(|_| Ok(())), Ok(()));
            assert_eq!(restored::<f64>(&bytes).map(f64::to_bits), Ok(x.to_bits()));
            let bytes = image(&vec![1.0, x]);
            assert!(Reader::new(&bytes).plain(Vec::<f64>::load).is_err());
        }
        assert!(Reader::new(&image(&f32::NAN)).plain(f32::load).is_err());
    }

    fn same<T: Stored + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = image(&value);
        let back = restored::<T>(&bytes).expect("what was stored");
        assert_eq!(image(&back), bytes);
        assert_eq!(back, value);
    }

    proptest! {
        #[test]
        fn what_was_stored_is_loaded(
            numbers in any::<(u8, i16, u32, i64, u128)>(),
            bits in any::<(u64, u32)>(),
            texts in prop::collection::vec(any::<String>(), 0..4),
            map in prop::collection::hash_map(any::<u16>(), any::<Option<i32>>(), 0..9),
            floats in prop::collection::vec(any::<f32>(), 0..40),
            array in any::<[u16; 5]>(),
        ) {
            same(numbers.0);
            same((numbers.1, numbers.2));
            same((numbers.3, numbers.4, array));
            same(texts.into_boxed_slice());
            same(floats);
            same(map.iter().map(|(k, v)| (*k, *v)).collect::<BTreeMap<_, _>>());
            let sorted = image(&map.iter().map(|(k, v)| (*k, *v)).collect::<BTreeMap<_, _>>());
            assert_eq!(image::<HashMap<_, _>>(&map), sorted);
            same::<HashMap<_, _>>(map);
            let (wide, narrow) = (f64::from_bits(bits.0), f32::from_bits(bits.1));
            assert_eq!(restored::<f64>(&image(&wide)).map(f64::to_bits), Ok(bits.0));
            assert_eq!(restored::<f32>(&image(&narrow)).map(f32::to_bits), Ok(bits.1));
            let mut number = Vec::new();
            store_number(bits.0, &mut number);
            assert_eq!(Reader::new(&number).number(), Ok(bits.0));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = restored::<Vec<(String, Option<Box<Pair>>)>>(&bytes);
            let _ = restored::<HashMap<u8, Vec<f32>>>(&bytes);
            let _ = restored::<([Side; 3], Vec<[f64; 2]>)>(&bytes);
        }
    }
}
