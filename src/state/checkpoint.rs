//! Checkpoint files: written aside, then renamed; sections of bytes, each with its checksum.

use super::direct::{DirectReader, DirectWriter};
use super::head::{HEAD, Head, Kind, part};
use super::{StateError, sync_folder};
use crate::fail::{self, Point};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Checkpoints. Their heads name the sequence that they stand for.
const CHECKPOINT: Kind = Kind { magic: *b"oddity-C", name: "a checkpoint" };
/// Bytes of a section's head.
const SECTION: usize = 40;
/// The name of a file to write over.
pub(super) const SPARE: &str = "spare";
/// The section that ends a file.
const END: u8 = 0xff;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The order: rules, clocks, shared models, as of the checkpoint's sequence.
    Head,
    /// A partition, as of its own sequence.
    Partition,
    /// Names that partitions refer to by number, as of the end.
    Names,
}

impl SectionKind {
    fn number(self) -> u8 {
        match self {
            SectionKind::Head => 1,
            SectionKind::Partition => 2,
            SectionKind::Names => 3,
        }
    }
    fn of(number: u8) -> Option<SectionKind> {
        [SectionKind::Head, SectionKind::Partition, SectionKind::Names]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// The partition's number.
    pub number: u16,
    /// The sequence it stands for.
    pub sequence: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A checkpoint being written.
pub struct CheckpointWriter {
    file: DirectWriter,
    aside: PathBuf,
    path: PathBuf,
    sections: u64,
    finished: bool,
}

/// Has a checkpoint that is not needed any more written over: its blocks are allocated already. Not where a
/// backup has a link to it.
fn reuse(folder: &Path, aside: &Path) {
    let spare = folder.join(SPARE);
    // Where any of this fails, a new file is made; or one that is in the way of the next rename tells.
    let _ = match std::fs::metadata(&spare).map(|spare| spare.nlink()) {
        Ok(1) => std::fs::rename(&spare, aside),
        Ok(_) => std::fs::remove_file(&spare),
        Err(error) => Err(error),
    };
}

impl CheckpointWriter {
    /// Begins the checkpoint of a sequence. `content` is the version of what the sections hold.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(
        folder: &Path,
        incarnation: u128,
        sequence: u64,
        content: u32,
    ) -> Result<CheckpointWriter, StateError> {
        let path = folder.join(format!("{sequence:020}.checkpoint"));
        let aside = path.with_extension("tmp");
        let head = Head { content, incarnation, sequence }.bytes(CHECKPOINT);
        reuse(folder, &aside);
        let mut file = DirectWriter::create(&aside).map_err(StateError::io(&aside))?;
        file.write_all(&head).map_err(StateError::io(&aside))?;
        Ok(CheckpointWriter { file, aside, path, sections: 0, finished: false })
    }

    /// Writes a section.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn section(
        &mut self,
        kind: SectionKind,
        number: u16,
        sequence: u64,
        bytes: &[u8],
    ) -> Result<(), StateError> {
        self.put(kind.number(), number, sequence, bytes)?;
        if self.sections == 128 {
            fail::point(Point::Checkpoint);
        }
        Ok(())
    }

    fn put(&mut self, kind: u8, number: u16, sequence: u64, bytes: &[u8]) -> Result<(), StateError> {
        let mut head = Vec::with_capacity(SECTION);
        head.push(kind);
        head.push(0);
        head.extend(number.to_le_bytes());
        head.extend([0; 4]);
        head.extend(sequence.to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
        head.extend(xxh3_64(bytes).to_le_bytes());
        let sum = xxh3_64(&head);
        head.extend(sum.to_le_bytes());
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(bytes));
        written.map_err(StateError::io(&self.aside))?;
        self.sections += 1;
        Ok(())
    }

    /// Ends it, makes it durable and puts it in its place. Returns its path and its bytes.
    ///
    /// # Errors
    /// The file cannot be written; what was there before is still there.
    pub fn finish(mut self) -> Result<(PathBuf, u64), StateError> {
        self.put(END, 0, self.sections, &[])?;
        let io = StateError::io(&self.aside);
        let bytes = self.file.finish().map_err(&io)?;
        fail::point(Point::Rename);
        std::fs::rename(&self.aside, &self.path).map_err(&io)?;
        self.finished = true;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder).map_err(StateError::io(folder))?;
        }
        Ok((self.path.clone(), bytes))
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever is left of it is removed at the next start as well.
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

/// A checkpoint being read.
pub struct CheckpointReader {
    file: DirectReader,
    path: PathBuf,
    left: u64,
    sections: u64,
    /// The state that it belongs to.
    pub incarnation: u128,
    /// The sequence that its head stands for.
    pub sequence: u64,
    /// The version of what its sections hold.
    pub content: u32,
    /// Bytes of the file.
    pub bytes: u64,
}

impl CheckpointReader {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of another version.
    pub fn open(path: &Path) -> Result<CheckpointReader, StateError> {
        let io = StateError::io(path);
        let mut file = DirectReader::open(path).map_err(&io)?;
        let bytes = file.length().map_err(&io)?;
        let mut head = [0; HEAD];
        fill(&mut file, &mut head, path)?;
        let Head { content, incarnation, sequence } = Head::read(&head, CHECKPOINT, path)?;
        Ok(CheckpointReader {
            content,
            incarnation,
            sequence,
            file,
            path: path.to_path_buf(),
            left: bytes.saturating_sub(HEAD as u64),
            sections: 0,
            bytes,
        })
    }

    /// The next section; `None` at the end.
    ///
    /// # Errors
    /// The file is damaged, or ends too early.
    pub fn next_section(&mut self) -> Result<Option<Section>, StateError> {
        let damaged = |what: String| StateError::damaged(&self.path, what);
        let mut head = [0; SECTION];
        fill(&mut self.file, &mut head, &self.path)?;
        if xxh3_64(&head[..SECTION - 8]) != u64::from_le_bytes(part(&head, SECTION - 8)) {
            return Err(damaged(format!("the head of section {} has a wrong checksum", self.sections)));
        }
        let sequence = u64::from_le_bytes(part(&head, 8));
        let length = u64::from_le_bytes(part(&head, 16));
        if head[0] == END {
            return match sequence == self.sections {
                true => Ok(None),
                false => Err(damaged(format!("it has {} sections of {sequence}", self.sections))),
            };
        }
        let Some(kind) = SectionKind::of(head[0]) else {
            return Err(damaged(format!("section {} is of the unknown kind {}", self.sections, head[0])));
        };
        self.left = self.left.saturating_sub(SECTION as u64);
        if length > self.left {
            return Err(damaged(format!("section {} ends beyond the file", self.sections)));
        }
        self.left -= length;
        // Bounded by the file.
        let mut bytes = vec![0; length as usize];
        fill(&mut self.file, &mut bytes, &self.path)?;
        if xxh3_64(&bytes) != u64::from_le_bytes(part(&head, 24)) {
            return Err(damaged(format!("section {} has a wrong checksum", self.sections)));
        }
        self.sections += 1;
        Ok(Some(Section { kind, number: u16::from_le_bytes(part(&head, 2)), sequence, bytes }))
    }
}

fn fill(file: &mut impl Read, to: &mut [u8], path: &Path) -> Result<(), StateError> {
    file.read_exact(to).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => StateError::damaged(path, "it ends too early"),
        _ => StateError::io(path)(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path) -> PathBuf {
        let mut writer = CheckpointWriter::begin(folder, 7, 42, 3).expect("begins");
        writer.section(SectionKind::Head, 0, 42, b"head").expect("writes");
        writer.section(SectionKind::Partition, 255, 43, &[9; 1000]).expect("writes");
        writer.section(SectionKind::Names, 0, 44, b"").expect("writes");
        assert!(!folder.join("00000000000000000042.checkpoint").exists(), "not before it is whole");
        writer.finish().expect("finishes").0
    }

    fn all(path: &Path) -> Result<Vec<Section>, StateError> {
        let mut reader = CheckpointReader::open(path)?;
        let mut sections = Vec::new();
        while let Some(section) = reader.next_section()? {
            sections.push(section);
        }
        Ok(sections)
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = written(folder.path());
        let reader = CheckpointReader::open(&path).expect("opens");
        assert_eq!((reader.incarnation, reader.sequence, reader.content), (7, 42, 3));
        let sections = all(&path).expect("reads");
        assert_eq!(sections.len(), 3);
        assert_eq!((sections[1].number, sections[1].sequence, sections[1].bytes.len()), (255, 43, 1000));
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "nothing is left aside");
    }

    #[test]
    fn an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = CheckpointWriter::begin(folder.path(), 7, 42, 3).expect("begins");
        writer.section(SectionKind::Head, 0, 42, b"head").expect("writes");
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
    }

    #[test]
    fn a_spare_is_written_over_unless_a_backup_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = written(folder.path());
        let fresh = std::fs::read(&path).expect("reads");
        let (spare, backup) = (folder.path().join(SPARE), folder.path().join("backup"));
        for linked in [false, true] {
            std::fs::write(&spare, [7; 10_000]).expect("writes");
            if linked {
                std::fs::hard_link(&spare, &backup).expect("links");
            }
            let node = std::fs::metadata(&spare).expect("is there").ino();
            std::fs::remove_file(&path).expect("removes");
            written(folder.path());
            assert_eq!(std::fs::metadata(&path).expect("is there").ino() == node, !linked);
            assert!(std::fs::read(&path).expect("reads") == fresh && !spare.exists());
        }
        assert_eq!(std::fs::read(&backup).expect("reads"), [7; 10_000]);
    }

    #[test]
    fn any_damage_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = written(folder.path());
        let whole = std::fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).expect("writes");
            assert!(all(&path).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).expect("writes");
            assert!(all(&path).is_err(), "cut at {at}");
        }
    }
}
