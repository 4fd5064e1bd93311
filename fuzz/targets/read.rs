//! Answers of remote read: frames and messages against prost, chunks against a second decoder.

use oddity::wire::proto::v1;
use oddity::wire::read::{Chunk, Frames, ReadError, XOR, chunked, crc32c, results};
use oddity::wire::xor::XorChunk;
use oddity::wire::{Batch, DecodeLimits, Version, WireError, decode};
use prost::Message;

type Found = Vec<(Vec<(String, String)>, (i64, i64), u64, Vec<u8>)>;

fn message(bytes: &[u8]) -> Result<Found, ReadError> {
    let mut found = Vec::new();
    chunked(bytes, |labels, chunk: Chunk<'_>| {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        found.push((labels, chunk.span, chunk.encoding, chunk.data.to_vec()));
        if chunk.encoding == XOR {
            xor(chunk.data);
        }
        Ok::<(), ReadError>(())
    })?;
    Ok(found)
}

fn agree(bytes: &[u8]) {
    let theirs = v1::ChunkedReadResponse::decode(bytes);
    match (message(bytes), theirs) {
        (Ok(mine), Ok(theirs)) => {
            let flat: Found = (theirs.chunked_series.iter())
                .flat_map(|series| {
                    let labels: Vec<_> =
                        series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
                    series.chunks.iter().map(move |chunk| {
                        let span = (chunk.min_time_ms, chunk.max_time_ms);
                        // prost keeps 32 bits of an enumeration.
                        (labels.clone(), span, chunk.r#type as u32 as u64, chunk.data.clone())
                    })
                })
                .collect();
            let mine: Found =
                mine.into_iter().map(|(l, s, kind, d)| (l, s, u64::from(kind as u32), d)).collect();
            assert_eq!(mine, flat);
        }
        (Ok(_), Err(error)) => panic!("prost refuses it: {error}"),
        (Err(ReadError::Wire(WireError::Protobuf { what, .. })), Ok(_)) => {
            assert_eq!(what, "a group", "prost takes it");
        }
        (Err(ReadError::Wire(WireError::TooMany { .. })), Ok(_)) => {}
        (Err(error), Ok(_)) => panic!("prost takes it: {error}"),
        (Err(_), Err(_)) => {}
    }
}

/// All messages of a stream cut into pieces, and how it ends.
fn stream(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), ReadError>) {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for bytes in bytes.chunks(piece) {
        frames.feed(bytes);
        loop {
            match frames.frame() {
                Ok(Some(message)) => found.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    (found, frames.end())
}

/// A stream of frames; the first byte says how it is cut.
pub fn frames(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let whole = stream(bytes, bytes.len().max(1));
    assert_eq!(stream(bytes, usize::from(*piece) + 1), whole, "cuts do not matter");
    assert!(whole.0.iter().map(Vec::len).sum::<usize>() <= bytes.len());
    whole.0.iter().for_each(|message| agree(message));
    // A checksum is seldom right by chance, so the bytes are a message too.
    agree(bytes);
    let (found, end) = stream(&frame(bytes), 7);
    assert_eq!((found, end), (vec![bytes.to_vec()], Ok(())));
}

/// A frame around a message.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(message.len() as u64, &mut out);
    out.extend(crc32c(message).to_be_bytes());
    out.extend(message);
    out
}

/// An answer of samples, decompressed.
pub fn samples(data: &[u8]) {
    let theirs = v1::ReadResponse::decode(data);
    let Ok(found) = results(data) else { return };
    let mut batches = Vec::new();
    for result in found {
        let mut batch = Batch::new(0);
        match decode(Version::V1, result, &DecodeLimits::default(), &mut batch) {
            Ok(()) => batches.push(batch),
            Err(_) => return,
        }
    }
    let Ok(theirs) = theirs else { return };
    assert_eq!(batches.len(), theirs.results.len());
    for (mine, theirs) in batches.iter().zip(&theirs.results) {
        let theirs = theirs.timeseries.iter().flat_map(|series| &series.samples);
        let theirs: Vec<_> = theirs.map(|sample| (sample.timestamp, sample.value.to_bits())).collect();
        let mine: Vec<_> =
            mine.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect();
        assert_eq!(mine, theirs);
    }
}

/// An XOR chunk: two decoders read the same samples and stop at the same one.
pub fn xor(data: &[u8]) {
    let mut mine = Vec::new();
    let mut whole = false;
    if let Ok(chunk) = XorChunk::new(data) {
        let declared = usize::from(chunk.declared());
        mine.extend(chunk.map_while(Result::ok).map(|sample| (sample.timestamp, sample.value.to_bits())));
        whole = mine.len() == declared;
        assert!(mine.len() <= declared);
    }
    let mut theirs = Vec::new();
    let done = plain(data, &mut theirs).is_some();
    assert_eq!((mine, whole), (theirs, done));
}

/// The plainest reading of the format: a list of bits. `None` where it ends too early or makes no sense.
fn plain(data: &[u8], found: &mut Vec<(i64, u64)>) -> Option<()> {
    let count = usize::from(u16::from_be_bytes(*data.first_chunk()?));
    let mut bits = data.get(2..)?.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    let mut take = |n: u32| (0..n).try_fold(0u64, |value, _| Some(value << 1 | u64::from(bits.next()?)));
    let (mut at, mut delta, mut value) = (0i64, 0i64, 0u64);
    let (mut leading, mut trailing) = (0, 0);
    for n in 0..count {
        if n < 2 {
            let (mut number, mut byte, mut read) = (0u128, 0x80, 0);
            while byte & 0x80 != 0 {
                byte = take(8)?;
                number |= u128::from(byte & 0x7f) << (7 * read);
                read += 1;
                if read == 10 && byte > 1 {
                    return None;
                }
            }
            let number = u64::try_from(number).ok()?;
            match n {
                0 => at = (number >> 1) as i64 ^ -((number & 1) as i64),
                _ => delta = number as i64,
            }
        } else {
            let width = [0, 14, 17, 20, 64][(0..4).take_while(|_| take(1) == Some(1)).count()];
            // A prefix that ends with the data is no prefix: what follows has at least a bit.
            let bits = take(width)?;
            let negative = width > 0 && width < 64 && bits > 1 << (width - 1);
            let more = if negative { bits as i64 - (1 << width) } else { bits as i64 };
            delta = delta.wrapping_add(more);
        }
        if n == 0 {
            value = take(64)?;
        } else {
            at = at.wrapping_add(delta);
            if take(1)? == 1 {
                if take(1)? == 1 {
                    let zeros = take(5)?;
                    let width = take(6)?;
                    let width = if width == 0 { 64 } else { width };
                    trailing = 64u64.checked_sub(zeros + width)?;
                    leading = zeros;
                }
                value ^= take((64 - leading - trailing) as u32)? << trailing;
            }
        }
        found.push((at, value));
    }
    Some(())
}
