//! The decoder of remote write 1.0: one pass, nothing copied.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::batch::{Batch, FamilyMetadata, MetricKind, Piece};
use super::cursor::{BYTES, Cursor, VARINT, tag};
use super::decode::{self, DecodeLimits};
use super::histogram::Room;
use super::{Version, WireError};

/// Decodes a decompressed `prometheus.WriteRequest`; see [`super::decode`].
///
/// # Errors
/// As [`super::decode`].
pub fn decode(body: &[u8], limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    decode::decode(Version::V1, body, limits, batch)
}

pub(super) fn walk(body: &[u8], limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    const SERIES: u32 = tag(1, BYTES);
    const METADATA: u32 = tag(3, BYTES);
    let mut room = decode::bucket_room(limits);
    let mut m = Cursor::new(body);
    while m.more() {
        match m.tag()? {
            SERIES => series(m.nested()?, body, limits, &mut room, batch)?,
            METADATA => metadata(m.nested()?, limits, batch)?,
            other => m.skip(other, 0b1010)?,
        }
    }
    Ok(())
}

const LABEL: u32 = tag(1, BYTES);
const SAMPLE: u32 = tag(2, BYTES);
const EXEMPLAR: u32 = tag(3, BYTES);
const HISTOGRAM: u32 = tag(4, BYTES);

fn series(
    mut m: Cursor<'_>,
    body: &[u8],
    limits: &DecodeLimits,
    room: &mut Room,
    batch: &mut Batch,
) -> Result<(), WireError> {
    let mut series = decode::open_series(batch, limits)?;
    let (mut labels, mut gap) = (0, false);
    while m.more() {
        let start = m.at;
        match m.tag()? {
            LABEL => {
                decode::room_for_one(labels, limits.labels_per_series, "labels in one series")?;
                labels += 1;
                check_label(m.nested()?)?;
                gap |= decode::extend(&mut series.labels, start, m.at);
            }
            SAMPLE => decode::sample(m.nested()?, false, limits.samples, batch)?,
            EXEMPLAR => decode::exemplar(m.nested()?, false, &mut series, batch)?,
            HISTOGRAM => decode::native_histogram(m.nested()?, false, limits, room, &mut series, batch)?,
            other => m.skip(other, 0b1_1110)?,
        }
    }
    series.alias = if gap {
        gather(Cursor::over(body, series.labels), body, &mut batch.scratch)?;
        xxh3_128_with_seed(&batch.scratch, batch.seed)
    } else {
        xxh3_128_with_seed(series.labels.of(body), batch.seed)
    };
    decode::close_series(batch, &mut series);
    batch.series.push(series);
    Ok(())
}

/// The label fields' bytes in order, without what lies between them.
#[cold]
fn gather(mut m: Cursor<'_>, body: &[u8], into: &mut Vec<u8>) -> Result<(), WireError> {
    into.clear();
    while m.more() {
        let start = m.at;
        match m.tag()? {
            LABEL => {
                m.nested()?;
                into.extend_from_slice(body.get(start..m.at).unwrap_or(&[]));
            }
            other => m.skip(other, 0)?,
        }
    }
    Ok(())
}

/// Walks a label message, so that reading it later cannot fail.
#[inline]
pub(super) fn check_label(m: Cursor<'_>) -> Result<(), WireError> {
    // As every encoder writes it: name, then value, both under 128 bytes.
    let bytes = m.rest();
    if let [0x0a, name, rest @ ..] = bytes
        && *name < 0x80
        && let Some([0x12, value, rest @ ..]) = rest.get(usize::from(*name)..)
        && usize::from(*value) == rest.len()
        && *value < 0x80
    {
        return Ok(());
    }
    check_any_label(m)
}

fn check_any_label(mut m: Cursor<'_>) -> Result<(), WireError> {
    const NAME: u32 = tag(1, BYTES);
    const VALUE: u32 = tag(2, BYTES);
    while m.more() {
        match m.tag()? {
            NAME | VALUE => drop(m.nested()?),
            other => m.skip(other, 0b110)?,
        }
    }
    Ok(())
}

fn metadata(mut m: Cursor<'_>, limits: &DecodeLimits, batch: &mut Batch) -> Result<(), WireError> {
    const TYPE: u32 = tag(1, VARINT);
    const FAMILY: u32 = tag(2, BYTES);
    const HELP: u32 = tag(4, BYTES);
    const UNIT: u32 = tag(5, BYTES);
    decode::room_for_one(batch.metadata.len(), limits.metadata, "metadata entries")?;
    let (mut family, mut kind) = (Piece::default(), MetricKind::Unknown);
    while m.more() {
        match m.tag()? {
            TYPE => kind = MetricKind::from_number(m.varint()?),
            FAMILY => family = m.piece()?,
            HELP | UNIT => drop(m.nested()?),
            other => m.skip(other, 0b11_0110)?,
        }
    }
    batch.metadata.push(FamilyMetadata { family, kind });
    Ok(())
}
