//! Series whose labels are shared pairs: each pair is looked at once a request, and the labels that
//! several series have in common are written once and copied.

use super::super::Version;
use super::super::batch::{MetricKind, Sample};
use super::super::cursor::{BYTES, FIXED64, VARINT, tag};
use super::Encoder;
use super::write::{bytes_field, varint};
use crate::labels::Pair;
use std::marker::PhantomData;

/// Slots of the table of pairs, a power of two: some times the pairs of a usual request.
const SLOTS: usize = 8192;
/// Slots of the table of names.
const NAMES: usize = 512;

/// A label of the request being built. Two words, which functions return in registers: three parts would go
/// through memory, and be read there before they are all written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Term {
    /// What [`Term::name`] tells, and below it 32 bits of [`Term::len`].
    head: u64,
    /// 2.0: the bytes themselves, two references of at most four each. 1.0: where they are in the store.
    code: u64,
}

impl Term {
    fn new(name: u32, len: u32, code: u64) -> Term {
        Term { head: u64::from(name) << 32 | u64::from(len), code }
    }

    /// A small number that stands for the label's name as long as the request is built.
    #[inline]
    pub fn name(self) -> usize {
        (self.head >> 32) as usize
    }

    /// Bytes of the label.
    #[inline]
    fn len(self) -> usize {
        self.head as u32 as usize
    }
}

/// What is known of a pair.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The pair's address, and which label it stands for.
    key: usize,
    turn: u32,
    term: Term,
}

/// Memory of [`Request`], kept from one to the next.
#[derive(Debug)]
pub(super) struct Shared {
    known: Vec<Known>,
    /// Entries of other turns count for nothing.
    turn: u32,
    /// References of labels' names, by what is quick to see of them; only guesses.
    names: Vec<u32>,
    /// Encoded labels of 1.0.
    store: Vec<u8>,
    /// Labels of the open block, and where in it the name and the extra label stand.
    block: Vec<u8>,
    places: [usize; 2],
}

impl Default for Shared {
    fn default() -> Self {
        let known = vec![Known::default(); SLOTS];
        Shared { known, turn: 1, names: vec![0; NAMES], store: Vec::new(), block: Vec::new(), places: [0; 2] }
    }
}

impl Shared {
    pub(super) fn reset(&mut self) {
        self.store.clear();
        self.turn = self.turn.wrapping_add(1);
        if self.turn == 0 {
            self.known.fill(Known::default());
            self.turn = 1;
        }
    }
}

/// A request being built of pairs that stay where they are as long as it is.
#[derive(Debug)]
pub struct Request<'e, 'l> {
    encoder: &'e mut Encoder,
    pairs: PhantomData<&'l Pair>,
}

impl Encoder {
    /// Adds series of shared pairs. What was added before is lost: a request is built in one go.
    pub fn request<'l>(&mut self) -> Request<'_, 'l> {
        self.reset();
        Request { encoder: self, pairs: PhantomData }
    }

    fn term_of(&mut self, name: &str, value: &str) -> Term {
        let reference = self.name_symbol(name);
        if self.version == Version::V1 {
            self.inner.clear();
            bytes_field(&mut self.inner, 1, name.as_bytes());
            bytes_field(&mut self.inner, 2, value.as_bytes());
            let store = &mut self.shared.store;
            let start = store.len();
            bytes_field(store, 1, &self.inner);
            return Term::new(reference, (store.len() - start) as u32, start as u64);
        }
        // A request has far less than 2^28 symbols: with their texts they would be beyond any limit.
        let (mut code, mut bits) = (0u64, 0);
        for mut reference in [reference, self.find_or_add(value)] {
            while reference >= 0x80 {
                code |= u64::from(reference as u8 | 0x80) << bits;
                bits += 8;
                reference >>= 7;
            }
            code |= u64::from(reference) << bits;
            bits += 8;
        }
        Term::new(reference, bits / 8, code)
    }

    /// The reference of a label's name: names are few, and come again from ever other places.
    fn name_symbol(&mut self, name: &str) -> u32 {
        let bytes = name.as_bytes();
        let end = |byte: Option<&u8>| byte.copied().map_or(0, usize::from);
        let place = (end(bytes.first()) * 31 + end(bytes.last()) * 7 + bytes.len()) % NAMES;
        let guess = self.shared.names.get(place).copied().unwrap_or(0);
        if self.texts.get(guess as usize).is_some_and(|piece| piece.of(&self.symbols) == bytes) {
            return guess;
        }
        let reference = self.find_or_add(name);
        if let Some(known) = self.shared.names.get_mut(place) {
            *known = reference;
        }
        reference
    }
}

/// Adds the bytes of a term.
#[inline]
fn append(version: Version, store: &[u8], out: &mut Vec<u8>, term: Term) {
    let len = term.len();
    match version {
        Version::V1 => {
            let start = term.code as usize;
            out.extend_from_slice(store.get(start..start + len).unwrap_or(&[]));
        }
        Version::V2 => {
            // Eight bytes at once, of which some are taken back: quicker than to count them.
            let end = out.len() + len;
            out.extend_from_slice(&term.code.to_le_bytes());
            out.truncate(end);
        }
    }
}

impl<'l> Request<'_, 'l> {
    /// A pair as a label of the request.
    #[inline]
    pub fn term(&mut self, pair: &'l Pair) -> Term {
        self.known(pair, 0, None)
    }

    /// A pair's value as a label of another name. `number`, 1 to 7, stands for the name: the same
    /// number, the same name.
    pub fn renamed(&mut self, pair: &'l Pair, number: usize, name: &'static str) -> Term {
        self.known(pair, number & 7, Some(name))
    }

    /// Reads a pair that is not known yet, for nothing but to have it in the caches: texts lie all over
    /// the memory, and reads that do not depend on each other overlap. What it returns has no meaning,
    /// but must be used, or the compiler reads nothing.
    #[inline]
    pub fn touch(&self, pair: &'l Pair) -> usize {
        let key = std::ptr::from_ref(pair) as usize;
        let Shared { known, turn, .. } = &self.encoder.shared;
        match known.get(slot(key)) {
            Some(known) if known.key == key && known.turn == *turn => 0,
            _ => usize::from(pair.value().as_bytes().last().copied().unwrap_or(0)),
        }
    }

    #[inline]
    fn known(&mut self, pair: &'l Pair, number: usize, name: Option<&'static str>) -> Term {
        // A pair is aligned to eight bytes, so the last bits of its address are free.
        let address = std::ptr::from_ref(pair) as usize;
        let key = address | number;
        let slot = slot(key);
        let Shared { known, turn, .. } = &self.encoder.shared;
        if let Some(known) = known.get(slot)
            && known.key == key
            && known.turn == *turn
        {
            return known.term;
        }
        let term = self.encoder.term_of(name.unwrap_or(pair.name()), pair.value());
        let Shared { known, turn, .. } = &mut self.encoder.shared;
        if let Some(known) = known.get_mut(slot) {
            *known = Known { key, turn: *turn, term };
        }
        term
    }

    /// A label that is no pair.
    pub fn text(&mut self, name: &str, value: &str) -> Term {
        self.encoder.term_of(name, value)
    }

    /// Begins the labels that the next series share.
    pub fn open(&mut self) {
        self.encoder.shared.block.clear();
        self.encoder.shared.places = [usize::MAX; 2];
    }

    /// Adds a label to them. They are to come sorted.
    #[inline]
    pub fn push(&mut self, term: Term) {
        let Shared { block, store, .. } = &mut self.encoder.shared;
        append(self.encoder.version, store, block, term);
    }

    /// Here the name stands, which each series has of its own.
    pub fn place_name(&mut self) {
        self.encoder.shared.places[0] = self.encoder.shared.block.len();
    }

    /// Here the extra label stands, which some series have. Behind the name.
    pub fn place_extra(&mut self) {
        self.encoder.shared.places[1] = self.encoder.shared.block.len();
    }

    /// Adds a series of the shared labels, its name and, where it has one, its extra label.
    pub fn add(&mut self, name: Term, extra: Option<Term>, sample: Sample) {
        let Encoder { version, body, shared, .. } = &mut *self.encoder;
        let Shared { block, store, places: [name_at, extra_at], .. } = &*shared;
        let len = block.len();
        let name_at = (*name_at).min(len);
        let extra_at = (*extra_at).clamp(name_at, len);
        let labels_len = len + name.len() + extra.map_or(0, Term::len);
        let mut point = [0u8; 20];
        let point_len = point_message(&mut point, sample);
        let (field, head, tail): (u32, usize, &[u8]) = match version {
            Version::V1 => (1, 0, &[]),
            Version::V2 => (5, 1 + varint_len(labels_len as u64), &GAUGE),
        };
        body.push(tag(field, BYTES) as u8);
        varint(body, (head + labels_len + 2 + point_len + tail.len()) as u64);
        if head > 0 {
            body.push(tag(1, BYTES) as u8);
            varint(body, labels_len as u64);
        }
        body.extend_from_slice(block.get(..name_at).unwrap_or(&[]));
        append(*version, store, body, name);
        body.extend_from_slice(block.get(name_at..extra_at).unwrap_or(&[]));
        if let Some(extra) = extra {
            append(*version, store, body, extra);
        }
        body.extend_from_slice(block.get(extra_at..).unwrap_or(&[]));
        body.push(tag(2, BYTES) as u8);
        body.push(point_len as u8);
        body.extend_from_slice(point.get(..point_len).unwrap_or(&[]));
        body.extend_from_slice(tail);
        self.encoder.samples += 1;
        self.encoder.entries += 1;
    }

    /// Adds a series as [`Encoder::series`] does.
    pub fn series<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        kind: MetricKind,
        samples: &[Sample],
    ) {
        self.encoder.series(labels, kind, samples);
    }
}

/// Where a key is in the table.
#[inline]
fn slot(key: usize) -> usize {
    // Allocations of one size stand in rows; the multiplication spreads them.
    (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20) as usize % SLOTS
}

/// 2.0 metadata of a gauge: field 5, a message whose field 1 is 2.
const GAUGE: [u8; 4] = [0x2a, 2, 0x08, 2];

/// A sample's message; what is zero is left out, as proto3 has it. At most 20 bytes.
fn point_message(out: &mut [u8; 20], sample: Sample) -> usize {
    let mut at = 0;
    let mut put = |byte: u8| {
        if let Some(slot) = out.get_mut(at) {
            *slot = byte;
        }
        at += 1;
    };
    if sample.value.to_bits() != 0 {
        put(tag(1, FIXED64) as u8);
        sample.value.to_le_bytes().into_iter().for_each(&mut put);
    }
    let mut timestamp = sample.timestamp as u64;
    if timestamp != 0 {
        put(tag(2, VARINT) as u8);
        while timestamp >= 0x80 {
            put(timestamp as u8 | 0x80);
            timestamp >>= 7;
        }
        put(timestamp as u8);
    }
    at
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
