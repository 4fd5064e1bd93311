//! The write side of the log: one file at a time, written in groups.
//!
//! `append` only queues. Whoever commits first writes all that is queued, for all who wait meanwhile;
//! so the disk sees few large writes, and nobody writes under the lock of the order.

use super::direct::uncache;
use super::head::{HEAD, Head};
use super::segment::{Frame, SEGMENT};
use super::{Fsync, OnDiskFull, StateError, numbered, sync_folder};
use crate::fail::{self, Point};
use crate::record::{Entry, Journal, NotKept};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// The file that shows whether the log can be written again.
pub(super) const PROBE: &str = "probe.tmp";

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// When it is synced.
    pub fsync: Fsync,
    /// What is done when it cannot be written.
    pub on_disk_full: OnDiskFull,
    /// Bytes after which a segment is closed. Default 64 MiB.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            fsync: Fsync::Every(crate::time::Span::SECOND),
            on_disk_full: OnDiskFull::Degrade,
            segment_bytes: 64 << 20,
        }
    }
}

/// What a log has to tell of itself.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Records written.
    pub records: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Records that were applied and not kept, for want of a disk.
    pub lost: AtomicU64,
    /// Times it was synced.
    pub syncs: AtomicU64,
    /// Times that writing or syncing failed.
    pub failures: AtomicU64,
    /// Bytes in its segments.
    pub held: AtomicU64,
}

/// The log's end.
pub struct Log {
    folder: PathBuf,
    incarnation: u128,
    options: LogOptions,
    queue: Mutex<Queue>,
    end: Mutex<Segment>,
    /// All records up to here are written or lost.
    done: AtomicU64,
    /// It cannot be written at present.
    failing: AtomicBool,
    /// Writing works again after records were lost: only a checkpoint closes the hole.
    hole: AtomicBool,
    stats: LogStats,
    /// While it is on, writes fail as on a full disk.
    #[cfg(test)]
    full: Arc<AtomicBool>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<(u64, Entry)>,
    /// Records of this range were lost, or none where it is empty.
    lost: Option<(u64, u64)>,
}

#[derive(Default)]
struct Segment {
    file: Option<Arc<File>>,
    path: PathBuf,
    length: u64,
    dirty: bool,
}

impl Log {
    /// A log that goes on in a new segment after all records up to `after`.
    pub fn new(folder: &Path, incarnation: u128, after: u64, options: LogOptions) -> Log {
        Log {
            folder: folder.to_path_buf(),
            incarnation,
            options,
            queue: Mutex::default(),
            end: Mutex::default(),
            done: AtomicU64::new(after),
            failing: AtomicBool::new(false),
            hole: AtomicBool::new(false),
            stats: LogStats::default(),
            #[cfg(test)]
            full: Arc::default(),
        }
    }

    /// Its figures.
    pub fn stats(&self) -> &LogStats {
        &self.stats
    }

    /// Whether it cannot be written at present.
    pub fn failing(&self) -> bool {
        self.failing.load(SeqCst)
    }

    /// Whether records were lost since the last checkpoint.
    pub fn has_hole(&self) -> bool {
        self.hole.load(SeqCst)
    }

    /// A checkpoint begins, or has failed: whether it is to close a hole.
    pub fn set_hole(&self, hole: bool) -> bool {
        self.hole.swap(hole, SeqCst)
    }

    /// Syncs what is written, where the policy is to do so from time to time.
    pub fn sync(&self) {
        if self.options.fsync == Fsync::Never {
            return;
        }
        let (file, length) = {
            let mut end = self.end.lock();
            if !std::mem::take(&mut end.dirty) {
                return;
            }
            (end.file.clone(), end.length)
        };
        // Outside the lock: a slow disk must not hold up those who only write.
        if let Some(file) = file {
            match self.synced(&file) {
                Ok(()) => uncache(&file, length),
                Err(error) => self.failed(&error, None),
            }
        }
    }

    fn synced(&self, file: &File) -> io::Result<()> {
        self.check()?;
        file.sync_data()?;
        self.stats.syncs.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Tries whether it can be written again. Cheap while it can.
    pub fn probe(&self) {
        if !self.failing() {
            return;
        }
        let path = self.folder.join(PROBE);
        let try_it = || -> io::Result<()> {
            self.check()?;
            let mut file = File::create(&path)?;
            file.write_all(&vec![0; 1 << 20])?;
            file.sync_data()
        };
        let tried = try_it();
        // It may not even have been made.
        let _ = std::fs::remove_file(&path);
        if tried.is_ok() {
            let mut end = self.end.lock();
            *end = Segment::default();
            self.failing.store(false, SeqCst);
            drop(end);
            tracing::info!("the log can be written again; a checkpoint follows, for it lacks records");
        }
    }

    /// Removes the segments of which no record after `keep` is part.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn cut(&self, keep: u64) -> Result<(), StateError> {
        let current = self.end.lock().path.clone();
        let segments = numbered(&self.folder, "log")?;
        let mut held = 0;
        for (at, (_, path)) in segments.iter().enumerate() {
            let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
            let over = segments.get(at + 1).is_some_and(|(next, _)| *next <= keep.saturating_add(1));
            if over && *path != current {
                std::fs::remove_file(path).map_err(StateError::io(path))?;
            } else {
                held += length;
            }
        }
        self.stats.held.store(held, Relaxed);
        Ok(())
    }

    /// Where tests fill the disk.
    fn check(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.full.load(Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Writing failed, and with it these records.
    fn failed(&self, error: &io::Error, lost: Option<(u64, u64)>) {
        self.stats.failures.fetch_add(1, Relaxed);
        if let Some((from, to)) = lost {
            let mut queue = self.queue.lock();
            self.hole.store(true, SeqCst);
            self.stats.lost.fetch_add(to - from + 1, Relaxed);
            queue.lost = Some((queue.lost.map_or(from, |(first, _)| first), to));
        }
        if !self.failing.swap(true, SeqCst) {
            let what = match self.options.on_disk_full {
                OnDiskFull::Degrade => {
                    "scoring goes on without the log: a crash now would lose what is learnt"
                }
                OnDiskFull::Refuse => "requests are answered 503 until there is room",
            };
            tracing::error!(%error, folder = %self.folder.display(), "the log cannot be written; {what}");
        }
    }

    fn write(&self, end: &mut Segment, entries: &[(u64, Entry)]) -> io::Result<()> {
        self.check()?;
        if end.length >= self.options.segment_bytes {
            if let Some(file) = end.file.take().filter(|_| self.options.fsync != Fsync::Never) {
                self.synced(&file)?;
                uncache(&file, end.length);
            }
            *end = Segment::default();
        }
        let file = match &end.file {
            Some(file) => file.clone(),
            None => {
                let Some((first, _)) = entries.first() else { return Ok(()) };
                let path = self.folder.join(format!("{first:020}.log"));
                let mut file = File::create(&path)?;
                let head = Head { content: 0, incarnation: self.incarnation, sequence: *first };
                file.write_all(&head.bytes(SEGMENT))?;
                if self.options.fsync != Fsync::Never {
                    sync_folder(&self.folder)?;
                }
                let file = Arc::new(file);
                *end = Segment { file: Some(file.clone()), path, length: HEAD as u64, dirty: true };
                self.stats.held.fetch_add(HEAD as u64, Relaxed);
                file
            }
        };
        let frames: Vec<_> =
            entries.iter().map(|(sequence, entry)| Frame::of(*sequence, entry).bytes()).collect();
        let mut parts = Vec::with_capacity(entries.len() * 3);
        for (frame, (_, entry)) in frames.iter().zip(entries) {
            parts.extend([frame.as_slice(), &entry.head, &entry.body]);
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let result = write_parts(&file, &parts);
        match result {
            Ok(()) => {
                end.length += length as u64;
                end.dirty = true;
                self.stats.records.fetch_add(entries.len() as u64, Relaxed);
                self.stats.bytes.fetch_add(length as u64, Relaxed);
                self.stats.held.fetch_add(length as u64, Relaxed);
                if self.options.fsync == Fsync::Always {
                    end.dirty = false;
                    self.synced(&file)?;
                }
                Ok(())
            }
            Err(error) => {
                // Half a record would hide those that may follow. Where even this fails, the next
                // segment is another file, and the reader cuts this one.
                if let Err(error) = file.set_len(end.length) {
                    tracing::debug!(%error, "the broken end of a segment stays");
                }
                Err(error)
            }
        }
    }
}

fn write_parts(mut file: &File, parts: &[&[u8]]) -> io::Result<()> {
    if cfg!(debug_assertions)
        && let Some((first, rest)) = parts.split_first()
    {
        // A crash may leave half of anything.
        file.write_all(&first[..first.len() / 2])?;
        fail::point(Point::Append);
        file.write_all(&first[first.len() / 2..])?;
        return rest.iter().try_for_each(|part| file.write_all(part));
    }
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    // Empty parts at the front would look like an end of file.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Journal for Log {
    fn refuses(&self) -> bool {
        self.failing() && self.options.on_disk_full == OnDiskFull::Refuse
    }

    fn append(&self, sequence: u64, entry: Entry) {
        self.queue.lock().entries.push((sequence, entry));
    }

    fn commit(&self, sequence: u64) -> Result<(), NotKept> {
        if self.done.load(SeqCst) < sequence {
            let mut end = self.end.lock();
            // Whoever had the lock before may have written this one too.
            if self.done.load(SeqCst) < sequence {
                let entries = std::mem::take(&mut self.queue.lock().entries);
                if let (Some((from, _)), Some((to, _))) = (entries.first(), entries.last()) {
                    let written = match self.failing() {
                        true => Err(io::Error::other("it still cannot be written")),
                        false => self.write(&mut end, &entries),
                    };
                    if let Err(error) = written {
                        self.failed(&error, Some((*from, *to)));
                    }
                    self.done.fetch_max(*to, SeqCst);
                }
            }
        }
        if self.options.on_disk_full == OnDiskFull::Degrade {
            return Ok(());
        }
        match self.queue.lock().lost {
            Some((from, to)) if (from..=to).contains(&sequence) => {
                Err(NotKept("the disk of state.dir is full or cannot be written".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
