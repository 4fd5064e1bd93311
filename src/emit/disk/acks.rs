//! The file of acknowledgements: two slots, written in turn, so that a good one is always there.

use super::format::{ACK_SLOT, AckSlot, Broken, PARTITIONS};
use crate::fail::{self, Point};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How far a target has come, as its file knows it.
#[derive(Debug)]
pub struct Acks {
    file: File,
    name: String,
    slot: AckSlot,
}

impl Acks {
    /// Opens or makes the file. Returns it with the greatest sequence in it, of whatever incarnation;
    /// what another incarnation acknowledged counts for nothing else.
    ///
    /// # Errors
    /// The file cannot be read or made; the inner error is the version of a later oddity.
    pub fn open(path: &Path, name: &str, incarnation: u128) -> io::Result<Result<(Acks, u64), u32>> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(2 * ACK_SLOT as u64).read_to_end(&mut bytes)?;
        let mut best: Option<AckSlot> = None;
        for bytes in bytes.chunks(ACK_SLOT) {
            match AckSlot::read(bytes, name) {
                Ok(slot) if best.as_ref().is_none_or(|best| best.turn < slot.turn) => best = Some(slot),
                Ok(_) => {}
                Err(Broken::Version(version)) => return Ok(Err(version)),
                // The slot that a crash cut; the other one is whole. Both are never written at once.
                Err(broken) => {
                    tracing::debug!(?broken, path = %path.display(), "a slot of acknowledgements is not whole");
                }
            }
        }
        if best.is_none() && !bytes.is_empty() {
            tracing::warn!(
                path = %path.display(),
                "no acknowledgement in this file can be read: what was sent last may be sent again"
            );
        }
        let newest = best.iter().flat_map(|slot| slot.next).max().unwrap_or(0).saturating_sub(1);
        let turn = best.as_ref().map_or(0, |slot| slot.turn);
        let slot = best.filter(|slot| slot.incarnation == incarnation).unwrap_or(AckSlot {
            incarnation,
            turn,
            next: [0; PARTITIONS],
        });
        Ok(Ok((Acks { file, name: name.to_string(), slot }, newest)))
    }

    /// The sequence up to which all of a partition is settled.
    pub fn of(&self, partition: usize) -> Option<u64> {
        self.slot.next.get(partition).and_then(|next| next.checked_sub(1))
    }

    /// Notes how far partitions have come, and writes it. In the operating system's memory it survives
    /// the end of the process; [`Acks::sync`] is for the machine's.
    ///
    /// # Errors
    /// It cannot be written; the next call tries again with all there is by then.
    pub fn write(&mut self, acked: impl IntoIterator<Item = (u16, u64)>) -> io::Result<()> {
        for (partition, sequence) in acked {
            if let Some(next) = self.slot.next.get_mut(usize::from(partition)) {
                *next = (*next).max(sequence.saturating_add(1));
            }
        }
        self.slot.turn += 1;
        let at = (self.slot.turn % 2) * ACK_SLOT as u64;
        self.file.seek(SeekFrom::Start(at))?;
        let bytes = self.slot.to_bytes(&self.name);
        if cfg!(debug_assertions) {
            // A crash may leave half of it: the other slot is whole then.
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            self.file.write_all(first)?;
            fail::point(Point::QueueCut);
            return self.file.write_all(rest);
        }
        self.file.write_all(&bytes)
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, incarnation: u128) -> (Acks, u64) {
        Acks::open(path, "t", incarnation).expect("opens").expect("this version")
    }

    #[test]
    fn they_survive_and_a_torn_slot_costs_one_step() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("acks");
        let (mut acks, newest) = open(&path, 1);
        assert_eq!((acks.of(3), newest), (None, 0));
        acks.write([(3, 10), (4, 0)]).expect("written");
        acks.write([(3, 9), (5, 12)]).expect("written");
        let (acks, newest) = open(&path, 1);
        assert_eq!([3, 4, 5, 6].map(|p| acks.of(p)), [Some(10), Some(0), Some(12), None]);
        assert_eq!(newest, 12);
        // The second write went to the first slot.
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[100] ^= 1;
        std::fs::write(&path, &bytes).expect("write");
        let (acks, newest) = open(&path, 1);
        assert_eq!([3, 5].map(|p| acks.of(p)), [Some(10), None]);
        assert_eq!(newest, 10);
        // Another incarnation starts anew, and knows the numbers that were used.
        let (mut acks, newest) = open(&path, 2);
        assert_eq!((acks.of(3), newest), (None, 10));
        acks.write([(0, 1)]).expect("written");
        assert_eq!(open(&path, 2).0.of(0), Some(1));
        bytes[8] = 9;
        std::fs::write(&path, &bytes).expect("write");
        assert_eq!(Acks::open(&path, "t", 1).expect("opens").err(), Some(9));
    }
}
