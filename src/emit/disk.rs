//! The queue of a target on disk: segments of blocks, and the file of acknowledgements.
//!
//! A block holds whole batches, encoded as a remote write 2.0 request; segments are only written at
//! their end. What a block is still needed for is counted, and a segment that nobody needs is
//! removed. The formats are drawn in `docs/formats.md`.

mod acks;
pub mod format;
mod look;
mod open;
mod stored;

pub use acks::Acks;
pub use look::{QueueFile, queues};
pub use open::remove_foreign;
pub use stored::Stored;

use crate::state::{Fsync, sync_folder};
use crate::time::Millis;
use format::Broken;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Where queues are kept.
#[derive(Clone, Debug)]
pub struct QueueDir {
    /// The folder of all queues; made where it is missing. Nobody else may use it.
    pub path: PathBuf,
    /// Which life of the state the sequences belong to: what another one acknowledged says nothing
    /// about this one's batches.
    pub incarnation: u128,
    /// When writes are brought to the disk; [`super::Emitter::persist`] always does.
    pub fsync: Fsync,
}

/// A file of blocks.
#[derive(Debug)]
pub struct Segment {
    /// Its place in the order.
    pub number: u64,
    path: PathBuf,
    file: Mutex<File>,
    len: AtomicU64,
    /// References to its blocks that are not settled.
    live: AtomicUsize,
    /// Nothing is written to it any more.
    sealed: AtomicBool,
    gone: AtomicBool,
    /// Its sequences are another incarnation's.
    foreign: bool,
}

/// A block, or the part of it that one shard sends.
#[derive(Debug)]
pub struct BlockRef {
    /// Its segment.
    pub segment: Arc<Segment>,
    offset: u64,
    len: u32,
    /// How many references there are to this block: the last one that is settled marks it.
    owners: Arc<AtomicUsize>,
    /// Samples, before relabelling.
    pub samples: usize,
    /// When its oldest and its newest batch were queued.
    pub queued: (Millis, Millis),
    /// The partitions in it that are meant, and the last sequence of each; sorted.
    pub partitions: Box<[(u16, u64)]>,
}

impl BlockRef {
    /// The last sequence of a partition in it, if that is one of ours.
    pub fn reached(&self, sequence: u64) -> Option<u64> {
        (!self.segment.foreign).then_some(sequence)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut file = self.segment.file.lock();
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![0; self.len as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// One reference for each of the parts into which `part` sorts the partitions.
    pub fn split(self: &Arc<Self>, part: impl Fn(u16) -> usize) -> BTreeMap<usize, Arc<BlockRef>> {
        let mut parts: BTreeMap<usize, Vec<(u16, u64)>> = BTreeMap::new();
        for (partition, sequence) in &self.partitions {
            parts.entry(part(*partition)).or_default().push((*partition, *sequence));
        }
        if parts.len() <= 1 {
            return parts.into_keys().map(|part| (part, self.clone())).collect();
        }
        let more = parts.len() - 1;
        self.owners.fetch_add(more, Ordering::Relaxed);
        self.segment.live.fetch_add(more, Ordering::Relaxed);
        // How many samples each part has is in the block; for the accounts a share will do.
        let (mut left, all) = (self.samples, self.partitions.len());
        let last = parts.keys().next_back().copied();
        let one = |(part, partitions): (usize, Vec<(u16, u64)>)| {
            let share = if Some(part) == last { left } else { self.samples * partitions.len() / all };
            left -= share.min(left);
            let block = BlockRef {
                segment: self.segment.clone(),
                offset: self.offset,
                len: self.len,
                owners: self.owners.clone(),
                samples: share,
                queued: self.queued,
                partitions: partitions.into(),
            };
            (part, Arc::new(block))
        };
        parts.into_iter().map(one).collect()
    }
}

/// A block to be written.
#[derive(Debug)]
pub struct NewBlock {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// As [`BlockRef::samples`].
    pub samples: usize,
    /// As [`BlockRef::queued`].
    pub queued: (Millis, Millis),
    /// As [`BlockRef::partitions`].
    pub partitions: Box<[(u16, u64)]>,
}

/// The segments, for the one who writes.
#[derive(Debug, Default)]
pub struct Segments {
    all: BTreeMap<u64, Arc<Segment>>,
    current: Option<(Arc<Segment>, File)>,
    next: u64,
    dirty: bool,
}

/// A target's queue on disk.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    name: String,
    incarnation: u128,
    /// When writes are brought to the disk.
    pub fsync: Fsync,
    segments: Mutex<Segments>,
    acks: Mutex<Acks>,
    bytes: AtomicU64,
    /// Since the last failure nothing could be written.
    pub failing: AtomicBool,
}

impl Disk {
    /// The one who holds this may write; nobody else changes the queue meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes blocks one behind the other, all or none.
    ///
    /// # Errors
    /// The disk's; nothing is queued then.
    pub fn append(
        &self,
        segments: &mut Segments,
        segment_bytes: u64,
        blocks: Vec<NewBlock>,
    ) -> io::Result<Vec<Arc<BlockRef>>> {
        let full = |(segment, _): &(Arc<Segment>, File)| {
            segment.live.load(Ordering::Relaxed) == 0 || segment.len.load(Ordering::Relaxed) >= segment_bytes
        };
        if segments.current.as_ref().is_some_and(full) {
            self.seal(segments);
        }
        let (segment, file) = match &mut segments.current {
            Some(current) => current,
            none => none.insert(self.create(&mut segments.all, &mut segments.next)?),
        };
        let start = segment.len.load(Ordering::Relaxed);
        let written = blocks.iter().try_for_each(|block| file.write_all(&block.bytes));
        if let Err(error) = written {
            // What was written in part is cut; where even that fails, the next start does it.
            if file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start))).is_err() {
                self.seal(segments);
            }
            return Err(error);
        }
        segments.dirty = true;
        let mut offset = start;
        let refs = blocks.into_iter().map(|block| {
            let len = block.bytes.len() as u32;
            let block = BlockRef {
                segment: segment.clone(),
                offset,
                len,
                owners: Arc::new(AtomicUsize::new(1)),
                samples: block.samples,
                queued: block.queued,
                partitions: block.partitions,
            };
            offset += u64::from(len);
            Arc::new(block)
        });
        let refs: Vec<Arc<BlockRef>> = refs.collect();
        segment.live.fetch_add(refs.len(), Ordering::Relaxed);
        segment.len.store(offset, Ordering::Relaxed);
        self.bytes.fetch_add(offset - start, Ordering::Relaxed);
        Ok(refs)
    }

    fn create(
        &self,
        all: &mut BTreeMap<u64, Arc<Segment>>,
        next: &mut u64,
    ) -> io::Result<(Arc<Segment>, File)> {
        let path = self.folder.join(format!("{next:012}.seg"));
        let mut file = File::options().write(true).create(true).truncate(true).open(&path)?;
        let header = format::segment_header(self.incarnation, &self.name);
        let made = file.write_all(&header).and_then(|()| File::options().read(true).write(true).open(&path));
        let reader = match made {
            Ok(reader) => reader,
            Err(error) => {
                // An empty file or half a header; the next start says nothing about it either.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        };
        let segment = Arc::new(Segment {
            number: *next,
            path,
            file: Mutex::new(reader),
            len: AtomicU64::new(header.len() as u64),
            live: AtomicUsize::new(0),
            sealed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            foreign: false,
        });
        self.bytes.fetch_add(header.len() as u64, Ordering::Relaxed);
        all.insert(*next, segment.clone());
        *next += 1;
        if self.fsync != Fsync::Never {
            sync_folder(&self.folder)?;
        }
        Ok((segment, file))
    }

    fn seal(&self, segments: &mut Segments) {
        let Some((segment, file)) = segments.current.take() else { return };
        if segments.dirty && self.fsync != Fsync::Never {
            self.told(file.sync_data());
        }
        segments.dirty = false;
        segment.sealed.store(true, Ordering::SeqCst);
        self.remove_if_unused(&segment);
        segments.all.retain(|_, segment| !segment.gone.load(Ordering::SeqCst));
    }

    /// Brings what was written to the disk, and lets go of a segment that nobody needs.
    ///
    /// # Errors
    /// The disk's.
    pub fn flush(&self, segments: &mut Segments) -> io::Result<()> {
        if let Some((segment, file)) = &segments.current {
            if segment.live.load(Ordering::SeqCst) == 0 {
                segments.dirty = false;
                self.seal(segments);
                return Ok(());
            }
            if segments.dirty {
                file.sync_data()?;
                segments.dirty = false;
            }
        }
        Ok(())
    }

    /// Whether something was written since the last flush.
    pub fn dirty(&self, segments: &Segments) -> bool {
        segments.dirty
    }

    /// References to blocks whose batches are accepted or given up.
    pub fn settle(&self, blocks: &[Arc<BlockRef>]) {
        for block in blocks {
            let last = block.owners.fetch_sub(1, Ordering::SeqCst) == 1;
            if last && block.segment.foreign && block.segment.live.load(Ordering::SeqCst) > 1 {
                // Acknowledgements say nothing of these; the others need no mark.
                let mut file = block.segment.file.lock();
                let at = SeekFrom::Start(block.offset + format::MARK_AT);
                self.told(file.seek(at).and_then(|_| file.write_all(&[1])));
            }
            block.segment.live.fetch_sub(1, Ordering::SeqCst);
            self.remove_if_unused(&block.segment);
        }
    }

    fn remove_if_unused(&self, segment: &Segment) {
        if segment.sealed.load(Ordering::SeqCst) && segment.live.load(Ordering::SeqCst) == 0 {
            if self.fsync != Fsync::Never {
                // Else a loss of power could forget both what was sent and that it was.
                self.told(self.acks.lock().sync());
            }
            self.remove(segment);
        }
    }

    fn remove(&self, segment: &Segment) {
        if !segment.gone.swap(true, Ordering::SeqCst) {
            self.bytes.fetch_sub(segment.len.load(Ordering::Relaxed), Ordering::Relaxed);
            if let Err(error) = std::fs::remove_file(&segment.path) {
                tracing::warn!(file = %segment.path.display(), %error, "cannot remove a segment that is not needed");
            }
        }
    }

    /// The oldest segment, where all of them take more than `max` bytes; it is removed, and whoever
    /// still has references to it is to give them up. The newest one always stays.
    pub fn over(&self, segments: &mut Segments, max: u64) -> Option<u64> {
        segments.all.retain(|_, segment| !segment.gone.load(Ordering::SeqCst));
        if self.bytes() <= max || segments.all.len() <= 1 {
            return None;
        }
        let (number, segment) = segments.all.pop_first()?;
        self.remove(&segment);
        Some(number)
    }

    /// Writes how far partitions have come.
    pub fn acknowledge(&self, acked: impl IntoIterator<Item = (u16, u64)>) {
        let written = self.acks.lock().write(acked);
        self.told(written);
    }

    /// As [`Disk::fails`], of what failed.
    pub fn told<T>(&self, result: io::Result<T>) {
        if let Err(error) = result {
            self.fails(&error);
        }
    }

    /// Says once that the disk fails.
    pub fn fails(&self, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                target_name = self.name,
                folder = %self.folder.display(),
                %error,
                "the output queue cannot use its disk: outputs wait in memory, within bounds, and are \
                 lost at a restart; free some space, or see who may write there"
            );
        }
    }

    /// All that waited could be written.
    pub fn works(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(target_name = self.name, "the output queue uses its disk again");
        }
    }

    /// Removes all of it; what is still open is gone with the last who holds it.
    pub fn remove_all(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove the queue of a removed target");
        }
    }

    /// The bytes of a block, read and checked; a broken one is told.
    pub fn load(&self, block: &BlockRef, wanted: impl FnMut(&format::Entry) -> bool) -> Option<Stored> {
        let broken = match block.bytes().map(|bytes| Stored::read(&bytes, wanted)) {
            Ok(Ok(stored)) => return Some(stored),
            Ok(Err(Broken::Corrupt(what))) => what.to_string(),
            Ok(Err(broken)) => format!("{broken:?}"),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            target_name = self.name,
            file = %block.segment.path.display(),
            offset = block.offset,
            samples = block.samples,
            "a block of the output queue cannot be read and is lost: {broken}"
        );
        None
    }
}
