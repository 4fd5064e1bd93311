//! Keeps the engine's state on disk: brings it back at the start, logs every record, takes checkpoints
//! while records come.
//!
//! A checkpoint is taken when a restart would have to work for longer than [`Settings::replay`] to catch
//! up, not by a timer: where little comes, little is written.

pub mod models;
mod restore;
pub mod survey;

pub use restore::{Found, load, restore};

use crate::emit::Emitter;
use crate::engine::{Engine, FORMAT};
use crate::record::Journal;
use crate::registry::PARTITIONS;
use crate::state::{CheckpointWriter, Folder, Fsync, Log, LogOptions, OnDiskFull, SectionKind, StateError};
use crate::time::Span;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the keeper looks up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Times what the images of a checkpoint cost a lane that it works on records before the next one.
const WORTH: u32 = 3;
/// How often it tries again what failed.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// The same where only a checkpoint makes what was learnt safe again.
const CLOSE_EVERY: Duration = Duration::from_secs(1);
/// How often it looks whether a log that failed can be written again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How state is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When the log is synced.
    pub fsync: Fsync,
    /// What is done when the disk is full.
    pub on_disk_full: OnDiskFull,
    /// A checkpoint is due in time that never more work than this would have to be done again, as far as
    /// the last one can tell. But lanes work three times as long as its images took them first: with millions
    /// of series checkpoints would come one after the other. Default 2 s.
    pub replay: Duration,
    /// It is due anyway when the last one is this old and anything came since. Default 15 min.
    pub checkpoint_every: Duration,
    /// It is due as well when the log has grown by this many bytes since. Default 1 GiB.
    pub log_bytes: u64,
    /// Bytes that one body of the log may decompress to.
    pub body_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            fsync: Fsync::Every(Span::SECOND),
            on_disk_full: OnDiskFull::Degrade,
            replay: Duration::from_secs(2),
            checkpoint_every: Duration::from_secs(15 * 60),
            log_bytes: 1 << 30,
            body_bytes: 32 << 20,
        }
    }
}

/// What the keeper has to tell.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was found at the start.
    pub found: Found,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Checkpoints that could not be taken.
    pub failures: u64,
    /// The last one.
    pub last: Option<Taken>,
    /// Work that a restart would have to do again.
    pub debt: Duration,
    /// Whether the log cannot be written at present, or lacks records that no checkpoint has yet.
    pub failing: bool,
    /// Figures of the log.
    pub log: LogReport,
    /// What was wrong last, for people; empty when all is well.
    pub trouble: String,
}

/// [`LogStats`](crate::state::LogStats) at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records that were applied and not kept.
    pub lost: u64,
    /// Times it was synced.
    pub syncs: u64,
    /// Times that writing or syncing failed.
    pub failures: u64,
    /// Bytes in its segments.
    pub held: u64,
}

/// A checkpoint that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Taken {
    /// The sequence that its head stands for.
    pub sequence: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Keeps an engine's state in a folder.
pub struct Keeper {
    inner: Arc<Inner>,
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    folder: Folder,
    incarnation: u128,
    log: Arc<Log>,
    engine: Arc<Engine>,
    emitter: Arc<Emitter>,
    settings: Settings,
    report: Mutex<Report>,
    /// Whoever takes a checkpoint holds it.
    since: Mutex<Since>,
    /// As `since.worked`, in nanoseconds, for those who do not wait.
    taken: AtomicU64,
}

/// What the last checkpoint left behind.
#[derive(Clone, Copy, Debug)]
struct Since {
    worked: Duration,
    /// Work that came while it was taken.
    during: Duration,
    /// CPU time that its images took a lane.
    cost: Duration,
    sequence: u64,
    log_bytes: u64,
    at: Instant,
}

impl Keeper {
    /// Keeps an engine that was [restored](restore) from the folder; takes the first checkpoint where
    /// there is none. From here on the engine's records are logged.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn start(
        folder: Folder,
        incarnation: u128,
        found: Found,
        engine: Arc<Engine>,
        emitter: Arc<Emitter>,
        settings: Settings,
    ) -> Result<Keeper, StateError> {
        let options = LogOptions {
            fsync: settings.fsync,
            on_disk_full: settings.on_disk_full,
            ..LogOptions::default()
        };
        let log = Arc::new(Log::new(&folder.log_folder(), incarnation, engine.sequence(), options));
        engine.keep_in(log.clone());
        let first = found.checkpoint.is_none();
        // What was replayed would have to be replayed again.
        let since = Since {
            worked: Duration::ZERO,
            during: Duration::ZERO,
            cost: Duration::ZERO,
            sequence: found.checkpoint.unwrap_or(0),
            log_bytes: 0,
            at: Instant::now(),
        };
        let inner = Arc::new(Inner {
            folder,
            incarnation,
            log,
            engine,
            emitter,
            settings,
            report: Mutex::new(Report { found, ..Report::default() }),
            since: Mutex::new(since),
            taken: AtomicU64::new(0),
        });
        if first {
            inner.checkpoint()?;
        }
        let (stop, stopped) = bounded(1);
        let keeping = inner.clone();
        let work = move || {
            let (mut synced, mut probed, mut failed) = (Instant::now(), Instant::now(), None::<Instant>);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                if let Fsync::Every(span) = keeping.settings.fsync
                    && synced.elapsed() >= span.as_std()
                {
                    synced = Instant::now();
                    keeping.log.sync();
                }
                if probed.elapsed() >= PROBE_EVERY {
                    probed = Instant::now();
                    keeping.log.probe();
                }
                let pause = if keeping.log.has_hole() { CLOSE_EVERY } else { RETRY_EVERY };
                if failed.is_none_or(|at| at.elapsed() >= pause) && keeping.due() {
                    failed = keeping.checkpoint().is_err().then(Instant::now);
                }
            }
        };
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(work);
        let thread = thread.map_err(StateError::io(inner.folder.path()))?;
        Ok(Keeper { inner, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a checkpoint now.
    ///
    /// # Errors
    /// It cannot be written; the last one is still there.
    pub fn checkpoint(&self) -> Result<Taken, StateError> {
        self.inner.checkpoint()
    }

    /// What there is to tell.
    pub fn report(&self) -> Report {
        let inner = &self.inner;
        let stats = inner.log.stats();
        let log = LogReport {
            records: stats.records.load(Relaxed),
            bytes: stats.bytes.load(Relaxed),
            lost: stats.lost.load(Relaxed),
            syncs: stats.syncs.load(Relaxed),
            failures: stats.failures.load(Relaxed),
            held: stats.held.load(Relaxed),
        };
        let debt = inner.engine.worked().saturating_sub(Duration::from_nanos(inner.taken.load(Relaxed)));
        Report {
            debt,
            failing: inner.log.failing() || inner.log.has_hole(),
            log,
            ..inner.report.lock().clone()
        }
    }

    /// Ends with a checkpoint: a restart has nothing to replay.
    pub fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        // It may have ended already.
        let _ = self.stop.send(());
        if thread.join().is_err() {
            tracing::error!("the keeper of state has failed: a bug");
        }
        self.inner.log.sync();
        // Told where it is found out; the log has what is missing.
        let _ = self.inner.checkpoint();
    }
}

impl Drop for Keeper {
    /// As a crash would leave it.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.lock().take() {
            let _ = self.stop.send(());
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn due(&self) -> bool {
        if self.log.has_hole() {
            return !self.log.failing();
        }
        let since = *self.since.lock();
        if self.engine.sequence() == since.sequence {
            return false;
        }
        let grown = self.log.stats().bytes.load(Relaxed).saturating_sub(since.log_bytes);
        // As much will come again while the next one is taken; but neither a slow disk nor many series must
        // make it the only thing that is done.
        let soon = self.settings.replay.saturating_sub(since.during).max(self.settings.replay / 3);
        let limit = soon.max(since.cost * WORTH);
        self.engine.worked().saturating_sub(since.worked) >= limit
            || grown >= self.settings.log_bytes
            || since.at.elapsed() >= self.settings.checkpoint_every
    }

    fn checkpoint(&self) -> Result<Taken, StateError> {
        let mut since = self.since.lock();
        let (started, worked) = (Instant::now(), self.engine.worked());
        let imaged = self.engine.imaged();
        let log_bytes = self.log.stats().bytes.load(Relaxed);
        let hole = self.log.set_hole(false);
        match self.write(started) {
            Ok(taken) => {
                let during = self.engine.worked().saturating_sub(worked);
                let cost = self.engine.imaged().saturating_sub(imaged);
                *since =
                    Since { worked, during, cost, sequence: taken.sequence, log_bytes, at: Instant::now() };
                self.taken.store(worked.as_nanos() as u64, Relaxed);
                let mut report = self.report.lock();
                report.checkpoints += 1;
                report.last = Some(taken);
                report.trouble.clear();
                tracing::debug!(
                    taken.sequence,
                    taken.bytes,
                    seconds = taken.took.as_secs_f64(),
                    "checkpoint"
                );
                Ok(taken)
            }
            Err(error) => {
                self.log.set_hole(hole || self.log.has_hole());
                let mut report = self.report.lock();
                report.failures += 1;
                let trouble = error.to_string();
                if report.trouble != trouble {
                    tracing::error!("no checkpoint could be taken, the log is kept: {error}");
                }
                report.trouble = trouble;
                Err(error)
            }
        }
    }

    fn write(&self, started: Instant) -> Result<Taken, StateError> {
        let (sequence, head) = self.engine.head();
        let folder = self.folder.checkpoint_folder();
        let mut writer = CheckpointWriter::begin(&folder, self.incarnation, sequence, FORMAT)?;
        writer.section(SectionKind::Head, 0, sequence, &head)?;
        let mut newest = sequence;
        // One piece of memory for all images: fresh pages for each would cost as much as what is put on them.
        let mut room = Vec::new();
        for number in 0..PARTITIONS {
            let Some((at, image)) = self.engine.partition(number, room) else {
                return Err(StateError::failed(&folder, "the engine has ended"));
            };
            newest = newest.max(at);
            writer.section(SectionKind::Partition, number as u16, at, &image)?;
            room = image;
        }
        writer.section(SectionKind::Names, 0, newest, &self.engine.names())?;
        // What the images have seen must be in the log, and what it made of it in the queues.
        if self.log.commit(newest).is_err() {
            return Err(StateError::failed(&self.folder.log_folder(), "the log cannot be written"));
        }
        self.log.sync();
        self.emitter
            .persist()
            .map_err(|error| StateError::failed(&self.folder.queue_folder(), error.to_string()))?;
        let (_, bytes) = writer.finish()?;
        self.log.cut(self.folder.prune()?)?;
        Ok(Taken { sequence, bytes, took: started.elapsed() })
    }
}

#[cfg(test)]
mod tests;
