//! The decoder of remote write 2.0: one pass where the symbols come first, as every sender has it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::batch::{Batch, MetricKind};
use super::cursor::{BYTES, Cursor, VARINT, tag};
use super::decode::{self, DecodeLimits};
use super::histogram::Room;
use super::{SeriesDefect, SeriesRef, Version, WireError};

/// Mixed into the seed, so that an alias of 2.0 is never one of 1.0 by being the hash of equal bytes.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Decodes a decompressed `io.prometheus.write.v2.Request`; see [`super::decode`].
///
/// # Errors
/// As [`super::decode`].
pub fn decode(body: &[u8], limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    decode::decode(Version::V2, body, limits, batch)
}

const SYMBOL: u32 = tag(4, BYTES);
const SERIES: u32 = tag(5, BYTES);
const KNOWN: u32 = 0b11_0000;

pub(super) fn walk(body: &[u8], limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    let mut m = Cursor::new(body);
    let mut room = decode::bucket_room(limits);
    while m.more() {
        match m.tag()? {
            SYMBOL if batch.series.is_empty() => symbol(&mut m, body, limits, batch)?,
            SYMBOL => return walk_late_symbols(body, limits, batch),
            SERIES => {
                let message = m.nested()?;
                if batch.symbols.is_empty() {
                    // Without symbols so far there is nothing to resolve; look for them behind.
                    return walk_late_symbols(body, limits, batch);
                }
                series(message, limits, &mut room, batch)?;
            }
            other => m.skip(other, KNOWN)?,
        }
    }
    Ok(())
}

/// protobuf lets fields come in any order: all symbols first, then all series.
#[cold]
fn walk_late_symbols(body: &[u8], limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    batch.clear();
    batch.version = Some(Version::V2);
    let mut first_series = None;
    let mut m = Cursor::new(body);
    while m.more() {
        match m.tag()? {
            SYMBOL => symbol(&mut m, body, limits, batch)?,
            SERIES => {
                first_series.get_or_insert(m.at);
                m.nested()?;
            }
            other => m.skip(other, KNOWN)?,
        }
    }
    if let Some(at) = first_series.filter(|_| batch.symbols.is_empty()) {
        return Err(WireError::Protobuf { at, what: "series without a symbol table" });
    }
    let mut room = decode::bucket_room(limits);
    let mut m = Cursor::new(body);
    while m.more() {
        match m.tag()? {
            SERIES => series(m.nested()?, limits, &mut room, batch)?,
            other => m.skip(other, 0)?,
        }
    }
    Ok(())
}

fn symbol(
    m: &mut Cursor<'_>,
    body: &[u8],
    limits: &DecodeLimits,
    batch: &mut Batch,
) -> Result<(), WireError> {
    decode::room_for_one(batch.symbols.len(), limits.symbols, "symbols")?;
    let at = m.at;
    let piece = m.piece()?;
    if batch.symbols.is_empty() && piece.len != 0 {
        return Err(WireError::Protobuf { at, what: "the first symbol is not the empty string" });
    }
    batch.symbols.push(piece);
    batch.symbol_hashes.push(xxh3_64_with_seed(piece.of(body), batch.seed ^ SEED));
    Ok(())
}

const REFS: u32 = tag(1, BYTES);
const REF: u32 = tag(1, VARINT);
const SAMPLE: u32 = tag(2, BYTES);
const HISTOGRAM: u32 = tag(3, BYTES);
const EXEMPLAR: u32 = tag(4, BYTES);
const METADATA: u32 = tag(5, BYTES);

/// The alias of a series of 2.0, made of its symbols' hashes as they are read: the sum of a product for each pair of
/// name and value, so whichever order its labels come in (NH of Black et al. 1999, "UMAC", section 4.2, without
/// keys by place).
struct Mix {
    seed: u64,
    sum: u128,
    name: u64,
    taken: usize,
}

impl Mix {
    fn new(seed: u64) -> Mix {
        Mix { seed: seed ^ SEED, sum: 0, name: 0, taken: 0 }
    }

    #[inline]
    fn take(&mut self, hash: u64) {
        if self.taken.is_multiple_of(2) {
            self.name = hash;
        } else {
            let value = hash.wrapping_add(self.seed).rotate_left(32);
            self.sum = self.sum.wrapping_add(u128::from(self.name) * u128::from(value));
        }
        self.taken += 1;
    }

    /// Whether a name has no value.
    fn is_odd(&self) -> bool {
        !self.taken.is_multiple_of(2)
    }

    /// Every bit of the sum reaches most of the alias (the finaliser of MurmurHash3, Appleby 2011, on each half
    /// after the other was mixed in).
    fn alias(&self) -> u128 {
        let mixed = |mut x: u64| {
            x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            x ^ (x >> 33)
        };
        let low = mixed(self.sum as u64 ^ self.seed);
        let high = mixed((self.sum >> 64) as u64 ^ low);
        u128::from(high) << 64 | u128::from(low ^ high.rotate_left(32))
    }
}

fn series(
    mut m: Cursor<'_>,
    limits: &DecodeLimits,
    room: &mut Room,
    batch: &mut Batch,
) -> Result<(), WireError> {
    let mut series = decode::open_series(batch, limits)?;
    let mut mix = Mix::new(batch.seed);
    while m.more() {
        let start = m.at;
        match m.tag()? {
            REFS => {
                let mut refs = m.nested()?;
                while refs.more() {
                    let index = refs.varint()?;
                    reference(index, limits, &mut series, &batch.symbol_hashes, &mut mix)?;
                }
                decode::extend(&mut series.labels, start, m.at);
            }
            REF => {
                let index = m.varint()?;
                reference(index, limits, &mut series, &batch.symbol_hashes, &mut mix)?;
                decode::extend(&mut series.labels, start, m.at);
            }
            SAMPLE => decode::sample(m.nested()?, true, limits.samples, batch)?,
            HISTOGRAM => decode::native_histogram(m.nested()?, true, limits, room, &mut series, batch)?,
            EXEMPLAR => decode::exemplar(m.nested()?, true, &mut series, batch)?,
            METADATA => metadata(m.nested()?, &mut series)?,
            // Field 6 once was a creation timestamp; it is reserved, so of any type.
            other => m.skip(other, 0b11_1110)?,
        }
    }
    decode::close_series(batch, &mut series);
    if mix.is_odd() {
        series.defect.get_or_insert(SeriesDefect::OddRefs);
    }
    match (series.samples.0 < series.samples.1, series.histograms.0 < series.histograms.1) {
        (true, true) => drop(series.defect.get_or_insert(SeriesDefect::Mixed)),
        (false, false) => drop(series.defect.get_or_insert(SeriesDefect::Empty)),
        _ => {}
    }
    series.alias = mix.alias();
    batch.series.push(series);
    Ok(())
}

#[inline]
fn reference(
    index: u64,
    limits: &DecodeLimits,
    series: &mut SeriesRef,
    hashes: &[u64],
    mix: &mut Mix,
) -> Result<(), WireError> {
    decode::room_for_one(mix.taken / 2, limits.labels_per_series, "labels in one series")?;
    let hash = match hashes.get(index as usize) {
        Some(hash) => *hash,
        None => {
            series.defect.get_or_insert(SeriesDefect::RefOutOfRange);
            0
        }
    };
    mix.take(hash);
    Ok(())
}

fn metadata(mut m: Cursor<'_>, series: &mut SeriesRef) -> Result<(), WireError> {
    const TYPE: u32 = tag(1, VARINT);
    const HELP: u32 = tag(3, VARINT);
    const UNIT: u32 = tag(4, VARINT);
    while m.more() {
        match m.tag()? {
            TYPE => series.kind = MetricKind::from_number(m.varint()?),
            HELP | UNIT => drop(m.varint()?),
            other => m.skip(other, 0b1_1010)?,
        }
    }
    Ok(())
}
