//! The frames of the log's segments: `docs/formats.md`, "Log".

use super::head::{Kind, part};
use crate::record::Entry;
use xxhash_rust::xxh3::xxh3_64;

/// The log's segments. Their heads name the first record that may be in them.
pub const SEGMENT: Kind = Kind { magic: *b"oddity-L", name: "a segment of the log" };
/// Bytes of a record's head.
pub const FRAME: usize = 32;

/// The head of a record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the payload that follows.
    pub length: u32,
    /// The kind of record.
    pub kind: u8,
    /// The record's place in the order.
    pub sequence: u64,
    /// xxh3-64 of the payload.
    pub sum: u64,
}

impl Frame {
    /// Of an entry.
    pub fn of(sequence: u64, entry: &Entry) -> Frame {
        // A body is bounded far below 4 GiB.
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        Frame { length, kind: entry.kind, sequence, sum: entry.sum }
    }

    /// As it is written: length, kind, 3 zeros, sequence, checksum of the payload, checksum of all that.
    pub fn bytes(&self) -> [u8; FRAME] {
        let mut bytes = [0; FRAME];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind;
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sum.to_le_bytes());
        let sum = xxh3_64(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads it; `None` where there is no frame.
    pub fn read(bytes: &[u8; FRAME]) -> Option<Frame> {
        (xxh3_64(&bytes[..24]) == u64::from_le_bytes(part(bytes, 24))).then(|| Frame {
            length: u32::from_le_bytes(part(bytes, 0)),
            kind: bytes[4],
            sequence: u64::from_le_bytes(part(bytes, 8)),
            sum: u64::from_le_bytes(part(bytes, 16)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::{HEAD, Head};
    use super::*;
    use std::path::Path;

    #[test]
    fn heads_and_frames_come_back_and_any_flipped_bit_is_seen() {
        let head = Head { content: 0, incarnation: 0x1234 << 77, sequence: 99 };
        let path = Path::new("x.log");
        let bytes = head.bytes(SEGMENT);
        assert_eq!(Head::read(&bytes, SEGMENT, path).expect("a head"), head);
        for bit in 0..HEAD * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::read(&bytes, SEGMENT, path).is_err(), "bit {bit}");
        }
        let frame = Frame { length: 7, kind: 2, sequence: u64::MAX, sum: 3 };
        let bytes = frame.bytes();
        assert_eq!(Frame::read(&bytes), Some(frame));
        for bit in 0..FRAME * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = Head { content: 0, incarnation: 1, sequence: 1 }.bytes(SEGMENT);
        bytes[8] = 9;
        let error = Head::read(&bytes, SEGMENT, Path::new("x.log")).expect_err("refused");
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}
