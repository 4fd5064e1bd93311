//! The head that segments and checkpoints begin with: `docs/formats.md`.

use super::{StateError, VERSION};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a head.
pub const HEAD: usize = 48;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How its files begin.
    pub magic: [u8; 8],
    /// What one of them is, for people.
    pub name: &'static str,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The version of what follows; 0 where that has none of its own.
    pub content: u32,
    /// The state that the file belongs to.
    pub incarnation: u128,
    /// The sequence that the file begins with, or stands for.
    pub sequence: u64,
}

impl Head {
    /// As it is written: magic, version, version of the content, incarnation, sequence, checksum of all
    /// that.
    pub fn bytes(&self, kind: Kind) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&kind.magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.content.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        let sum = xxh3_64(&bytes[..HEAD - 8]);
        bytes[HEAD - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// Another version, or no head of this kind.
    pub fn read(bytes: &[u8; HEAD], kind: Kind, path: &Path) -> Result<Head, StateError> {
        if bytes.first_chunk() != Some(&kind.magic) {
            return Err(StateError::damaged(path, format!("it does not begin as {} does", kind.name)));
        }
        let version = u32::from_le_bytes(part(bytes, 8));
        if version != VERSION {
            return Err(StateError::Version { path: path.to_path_buf(), found: version, wanted: VERSION });
        }
        if xxh3_64(&bytes[..HEAD - 8]) != u64::from_le_bytes(part(bytes, HEAD - 8)) {
            return Err(StateError::damaged(path, "the checksum of its head is wrong"));
        }
        Ok(Head {
            content: u32::from_le_bytes(part(bytes, 12)),
            incarnation: u128::from_le_bytes(part(bytes, 16)),
            sequence: u64::from_le_bytes(part(bytes, 32)),
        })
    }
}

/// `N` bytes at a place that is within.
pub fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}
