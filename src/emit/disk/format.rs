//! Bytes of the output queue on disk, drawn in `docs/formats.md`. No file is touched here.

use crate::time::Millis;
use crate::wire::frame::{Encoding, decompress};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const SEGMENT_MAGIC: &[u8; 8] = b"oddity-q";
const BLOCK_MAGIC: &[u8; 4] = b"qblk";
const ACKS_MAGIC: &[u8; 8] = b"oddity-a";
/// The version written, and the only one read.
pub const VERSION: u32 = 1;
/// Bytes before a block's index.
const BLOCK_HEADER: usize = 32;
/// Where in a block the mark stands that it is settled; no checksum covers it.
pub const MARK_AT: u64 = 8;
const ENTRY: usize = 24;
const MAX_NAME: usize = 64 << 10;
/// The largest block read: far more than any batch makes.
const MAX_BLOCK: usize = 1 << 30;
/// Partitions there are.
pub const PARTITIONS: usize = 256;
/// Bytes of one slot of acknowledgements; a file has two.
pub const ACK_SLOT: usize = 4096;
const ACK_HEAD: usize = 48;
const ACK_END: usize = ACK_HEAD + 8 * PARTITIONS;

/// Why bytes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They end too early, as after a crash in the middle of a write.
    Short,
    /// They are not what was written.
    Corrupt(&'static str),
    /// Another version of oddity wrote them.
    Version(u32),
}

/// A batch in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Partition, 0 to 255.
    pub partition: u16,
    /// The record's sequence.
    pub sequence: u64,
    /// When it was queued, by the wall clock.
    pub queued: Millis,
    /// Samples, one series of the message each.
    pub samples: u32,
}

/// What batches make together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Samples.
    pub samples: usize,
    /// When the oldest and the newest of them were queued.
    pub queued: (Millis, Millis),
    /// Their partitions, and the last sequence of each; sorted.
    pub partitions: Box<[(u16, u64)]>,
}

impl Extent {
    /// Of these batches.
    pub fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Extent {
        let (mut samples, mut queued) = (0, None);
        let mut partitions: BTreeMap<u16, u64> = BTreeMap::new();
        for entry in entries {
            samples += entry.samples as usize;
            let (oldest, newest) = queued.unwrap_or((entry.queued, entry.queued));
            queued = Some((entry.queued.min(oldest), entry.queued.max(newest)));
            let last = partitions.entry(entry.partition).or_default();
            *last = (*last).max(entry.sequence);
        }
        Extent { samples, queued: queued.unwrap_or_default(), partitions: partitions.into_iter().collect() }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    let bytes = bytes.get(at..at.checked_add(16)?)?;
    bytes.try_into().ok().map(u128::from_le_bytes)
}

/// The header of a segment.
pub fn segment_header(incarnation: u128, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + name.len());
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
    out
}

/// A segment's incarnation, its target's name, and the length of its header.
///
/// # Errors
/// What is wrong with it.
pub fn read_segment_header(bytes: &[u8]) -> Result<(u128, &str, usize), Broken> {
    if bytes.get(..8).ok_or(Broken::Short)? != SEGMENT_MAGIC {
        return Err(Broken::Corrupt("it does not begin like a segment"));
    }
    let version = u32_at(bytes, 8).ok_or(Broken::Short)?;
    if version != VERSION {
        return Err(Broken::Version(version));
    }
    let incarnation = u128_at(bytes, 12).ok_or(Broken::Short)?;
    let len = u32_at(bytes, 28).ok_or(Broken::Short)? as usize;
    if len > MAX_NAME {
        return Err(Broken::Corrupt("the header's name is too long"));
    }
    let name = bytes.get(32..32 + len).ok_or(Broken::Short)?;
    let sum = u64_at(bytes, 32 + len).ok_or(Broken::Short)?;
    if bytes.get(..32 + len).map(xxh3_64) != Some(sum) {
        return Err(Broken::Corrupt("the header's checksum"));
    }
    let name = std::str::from_utf8(name).map_err(|_| Broken::Corrupt("the header's name"))?;
    Ok((incarnation, name, 40 + len))
}

/// A block of these batches, whose samples are `message`, a remote write 2.0 request.
///
/// # Errors
/// zstd cannot compress it.
pub fn block(entries: &[Entry], message: &[u8]) -> std::io::Result<Vec<u8>> {
    // Level 1: as quick as snappy on these bytes, and a third smaller.
    let payload = zstd::bulk::compress(message, 1)?;
    let mut out = Vec::with_capacity(BLOCK_HEADER + entries.len() * ENTRY + payload.len());
    out.extend_from_slice(BLOCK_MAGIC);
    out.extend_from_slice(&((entries.len() * ENTRY + payload.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    for entry in entries {
        out.extend_from_slice(&u32::from(entry.partition).to_le_bytes());
        out.extend_from_slice(&entry.samples.to_le_bytes());
        out.extend_from_slice(&entry.sequence.to_le_bytes());
        out.extend_from_slice(&entry.queued.0.to_le_bytes());
    }
    out.extend_from_slice(&payload);
    let sum = block_sum(&out).to_le_bytes();
    out[24..BLOCK_HEADER].copy_from_slice(&sum);
    Ok(out)
}

/// Covers all but the mark and itself.
fn block_sum(block: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in [0..8, 12..24, BLOCK_HEADER..block.len()] {
        hash.update(block.get(part).unwrap_or(&[]));
    }
    hash.digest()
}

/// A block as it was read.
#[derive(Debug)]
pub struct Block<'a> {
    /// Its batches in order.
    pub entries: Vec<Entry>,
    /// Whether its mark says that nothing of it needs sending.
    pub settled: bool,
    /// Its length in bytes.
    pub len: usize,
    message_len: usize,
    payload: &'a [u8],
}

impl Block<'_> {
    /// The message.
    ///
    /// # Errors
    /// It does not decompress to the length it should have.
    pub fn message(&self) -> Result<Vec<u8>, Broken> {
        let mut message = Vec::new();
        let read = decompress(Encoding::Zstd, self.payload, self.message_len, &mut message);
        if read.is_err() || message.len() != self.message_len {
            return Err(Broken::Corrupt("a block does not decompress"));
        }
        Ok(message)
    }
}

/// The block that `bytes` begin with.
///
/// # Errors
/// What is wrong with it.
pub fn read_block(bytes: &[u8]) -> Result<Block<'_>, Broken> {
    let head = bytes.get(..BLOCK_HEADER).ok_or(Broken::Short)?;
    if !head.starts_with(BLOCK_MAGIC) {
        return Err(Broken::Corrupt("no block begins where one should"));
    }
    let field = |at| u32_at(head, at).ok_or(Broken::Short).map(|value| value as usize);
    let (rest, message_len, count) = (field(4)?, field(12)?, field(16)?);
    if rest > MAX_BLOCK || message_len > MAX_BLOCK || count.saturating_mul(ENTRY) > rest {
        return Err(Broken::Corrupt("a block's header"));
    }
    let len = BLOCK_HEADER + rest;
    let whole = bytes.get(..len).ok_or(Broken::Short)?;
    if u64_at(head, 24) != Some(block_sum(whole)) {
        return Err(Broken::Corrupt("a block's checksum"));
    }
    let index = whole.get(BLOCK_HEADER..BLOCK_HEADER + count * ENTRY).ok_or(Broken::Short)?;
    let entry = |entry: &[u8]| {
        let partition = u32_at(entry, 0).filter(|p| (*p as usize) < PARTITIONS)?;
        Some(Entry {
            partition: partition as u16,
            samples: u32_at(entry, 4)?,
            sequence: u64_at(entry, 8)?,
            queued: Millis(u64_at(entry, 16)? as i64),
        })
    };
    let entries: Option<Vec<Entry>> = index.chunks_exact(ENTRY).map(entry).collect();
    Ok(Block {
        entries: entries.ok_or(Broken::Corrupt("a block's index"))?,
        settled: head.get(MARK_AT as usize) != Some(&0),
        len,
        message_len,
        payload: whole.get(BLOCK_HEADER + count * ENTRY..).unwrap_or(&[]),
    })
}

/// Acknowledgements as a slot holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckSlot {
    /// The incarnation they belong to.
    pub incarnation: u128,
    /// Grows with each write: of two good slots the greater counts.
    pub turn: u64,
    /// By partition, one more than the sequence up to which all is settled; 0 where nothing is.
    pub next: [u64; PARTITIONS],
}

impl AckSlot {
    /// Its bytes.
    pub fn to_bytes(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(ACK_SLOT);
        out.extend_from_slice(ACKS_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.turn.to_le_bytes());
        out.extend_from_slice(&xxh3_64(name.as_bytes()).to_le_bytes());
        self.next.iter().for_each(|next| out.extend_from_slice(&next.to_le_bytes()));
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out.resize(ACK_SLOT, 0);
        out
    }

    /// Reads a slot of this target.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8], name: &str) -> Result<AckSlot, Broken> {
        let sum = u64_at(bytes, ACK_END).ok_or(Broken::Short)?;
        if !bytes.starts_with(ACKS_MAGIC) {
            return Err(Broken::Corrupt("it does not begin like acknowledgements"));
        }
        let version = u32_at(bytes, 8).ok_or(Broken::Short)?;
        if version != VERSION {
            return Err(Broken::Version(version));
        }
        if bytes.get(..ACK_END).map(xxh3_64) != Some(sum) {
            return Err(Broken::Corrupt("its checksum"));
        }
        if u64_at(bytes, 40) != Some(xxh3_64(name.as_bytes())) {
            return Err(Broken::Corrupt("it belongs to another target"));
        }
        let mut next = [0; PARTITIONS];
        for (partition, next) in next.iter_mut().enumerate() {
            *next = u64_at(bytes, ACK_HEAD + 8 * partition).ok_or(Broken::Short)?;
        }
        let incarnation = u128_at(bytes, 16).ok_or(Broken::Short)?;
        Ok(AckSlot { incarnation, turn: u64_at(bytes, 32).ok_or(Broken::Short)?, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (0u16..256, any::<u64>(), any::<i64>(), any::<u32>());
        let entry = entry.prop_map(|(partition, sequence, queued, samples)| Entry {
            partition,
            sequence,
            queued: Millis(queued),
            samples,
        });
        prop::collection::vec(entry, 0..20)
    }

    proptest! {
        #[test]
        fn a_block_is_read_as_it_was_written(entries in entries(), message in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut bytes = block(&entries, &message).expect("compresses");
            let len = bytes.len();
            bytes.extend_from_slice(b"what comes next");
            let read = read_block(&bytes).expect("good");
            prop_assert_eq!(&read.entries, &entries);
            prop_assert_eq!((read.len, read.settled), (len, false));
            prop_assert_eq!(read.message().expect("decompresses"), message);
            bytes[MARK_AT as usize] = 1;
            prop_assert!(read_block(&bytes).expect("the mark is not summed").settled);
        }

        #[test]
        fn no_change_of_a_block_goes_unseen(entries in entries(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let good = block(&entries, b"a message").expect("compresses");
            let at = at.index(good.len());
            if !(8..12).contains(&at) {
                let mut bad = good.clone();
                bad[at] ^= flip;
                prop_assert!(read_block(&bad).is_err());
            }
            prop_assert_eq!(read_block(&good[..at]).expect_err("cut"), Broken::Short);
        }

        #[test]
        fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let block = [&b"qblk"[..], &bytes].concat();
            let _ = (read_block(&block), read_segment_header(&bytes), AckSlot::read(&bytes, "x"));
        }
    }

    #[test]
    fn headers_and_acknowledgements() {
        let header = segment_header(7, "prometheus");
        assert_eq!(read_segment_header(&header), Ok((7, "prometheus", header.len())));
        for cut in 0..header.len() {
            assert_eq!(read_segment_header(&header[..cut]), Err(Broken::Short), "{cut}");
        }
        let mut later = header.clone();
        later[8] = 2;
        assert_eq!(read_segment_header(&later), Err(Broken::Version(2)));

        let mut slot = AckSlot { incarnation: 7, turn: 3, next: [0; PARTITIONS] };
        slot.next[255] = u64::MAX;
        let bytes = slot.to_bytes("a");
        assert_eq!(bytes.len(), ACK_SLOT);
        assert_eq!(AckSlot::read(&bytes, "a"), Ok(slot));
        assert_eq!(AckSlot::read(&bytes, "b"), Err(Broken::Corrupt("it belongs to another target")));
        for at in [0, 16, 33, 2000, ACK_END] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(AckSlot::read(&bad, "a").is_err(), "{at}");
        }
    }
}
