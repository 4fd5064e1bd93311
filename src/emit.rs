//! Remote write out: ordered queues per target, retries, acknowledgement. See `ARCHITECTURE.md`.
//!
//! Each target has shards, each shard a bounded queue and one sender with one request in flight; a
//! partition always goes to the same shard, so each series keeps its order. A slow or dead target
//! fills and then drops from its own queue, and touches nothing else. With a [`QueueDir`] a queue goes
//! on on disk, and what is acknowledged is known there.

pub mod config;

mod advice;
mod backoff;
mod client;
mod clock;
mod disk;
mod md5;
mod metrics;
pub mod names;
mod plan;
mod progress;
mod queue;
mod relabel;
mod request;
mod sender;
mod spill;
mod target;
mod verdict;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use disk::{QueueDir, QueueFile, queues};
pub use metrics::{LAG_BOUNDS, Lag, TargetSnapshot};
pub use request::{Body, Encoding};

use crate::engine::{OutputBatch, OutputSink};
use crate::outbound::OutboundError;
use config::RemoteWriteConfig;
use disk::Disk;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use target::Target;
use tokio::runtime::Handle;

/// Why targets cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// A URL, a header, certificates or keys.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// `write_relabel_configs`
    #[error("write_relabel_configs: {0}")]
    Relabel(String),
    /// The queue on disk.
    #[error("the output queue: {0}")]
    Queue(String),
    /// Two targets of one name.
    #[error("two remote_write targets are named {0:?}")]
    SameName(String),
    /// One of the above, in a target.
    #[error("remote_write target {target:?}: {error}")]
    Target {
        /// The target's name.
        target: String,
        /// What is wrong with it.
        error: Box<EmitError>,
    },
}

impl EmitError {
    fn queue(error: impl std::fmt::Display) -> EmitError {
        EmitError::Queue(error.to_string())
    }
}

/// What a target still held when the time to drain was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The target's name.
    pub target: String,
    /// Samples not delivered.
    pub samples: u64,
    /// They are on disk, and sent after the next start; else they are lost.
    pub kept: bool,
}

/// For each partition, the sequence up to which all is accepted or given up.
pub type Acknowledged = BTreeMap<u16, u64>;

/// Writes outputs to every target.
pub struct Emitter {
    targets: RwLock<Vec<Arc<Target>>>,
    runtime: Mutex<Option<Handle>>,
    dir: Option<QueueDir>,
    newest: AtomicU64,
}

impl Emitter {
    /// Sets the targets up; nothing is sent before [`Emitter::start`], but outputs are queued. With
    /// `dir` queues are resumed from there and outlive the process; without, they are in memory only.
    /// Folders of targets that are not configured any more are removed.
    ///
    /// # Errors
    /// A target that cannot work, or a folder that cannot be used.
    pub fn new(configs: Vec<RemoteWriteConfig>, dir: Option<QueueDir>) -> Result<Emitter, EmitError> {
        check_names(&configs)?;
        if let Some(dir) = &dir {
            let names: Vec<&str> = configs.iter().map(|config| config.http.name.as_str()).collect();
            disk::remove_foreign(dir, &names).map_err(EmitError::queue)?;
        }
        let emitter =
            Emitter { targets: RwLock::default(), runtime: Mutex::new(None), dir, newest: AtomicU64::new(0) };
        let targets = configs.into_iter().map(|config| emitter.open(config));
        *emitter.targets.write() = targets.collect::<Result<_, _>>()?;
        Ok(emitter)
    }

    /// A new target, with what its folder holds.
    fn open(&self, config: RemoteWriteConfig) -> Result<Arc<Target>, EmitError> {
        let Some(dir) = &self.dir else { return Ok(Arc::new(Target::new(config, None)?)) };
        let found = Disk::open(dir, &config.http.name).map_err(EmitError::queue)?;
        self.newest.fetch_max(found.newest, Relaxed);
        let target = Arc::new(Target::new(config, Some(Arc::new(found.disk)))?);
        target.resume(found.blocks, &found.acked, &found.floors);
        let samples = target.metrics.pending.load(Relaxed);
        if samples > 0 {
            tracing::info!(target_name = target.config.http.name, samples, "resuming the output queue");
        }
        target.look_after().map_err(EmitError::queue)?;
        Ok(target)
    }

    /// The greatest sequence that its files knew at the start, of whatever incarnation: the engine must
    /// use none up to it again. 0 where there was none.
    pub fn newest_sequence(&self) -> u64 {
        self.newest.load(Relaxed)
    }

    /// Writes everything that is pending for any target (queued or in flight) to its queue on disk, and
    /// that to the disk itself. When it returns, what was taken before is acknowledged, given up or in
    /// files. Blocks on files, not on targets. Without a [`QueueDir`] there is nothing to do.
    ///
    /// # Errors
    /// The first target's whose queue cannot be written; the others' are. What could not be written
    /// stays in memory.
    pub fn persist(&self) -> Result<(), EmitError> {
        // No reload meanwhile: what it hands over from one target to another would be missed.
        let _one_at_a_time = self.runtime.lock();
        let targets = self.targets.read().clone();
        let mut result = Ok(());
        for target in targets {
            if let Err(error) = target.persist(true) {
                let error = Box::new(EmitError::queue(error));
                let failed = EmitError::Target { target: target.config.http.name.clone(), error };
                result = result.and(Err(failed));
            }
        }
        result
    }

    /// Starts the senders on the current runtime. Once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) {
        let handle = Handle::current();
        let mut runtime = self.runtime.lock();
        if runtime.replace(handle.clone()).is_none() {
            self.targets.read().iter().for_each(|target| target.start(&handle));
        }
    }

    /// Replaces the targets. One that is unchanged keeps running; one of the same name keeps its
    /// queue, its acknowledgements and its counters; one that is gone loses what it had pending.
    ///
    /// # Errors
    /// A target that cannot work; then nothing has changed.
    pub fn reload(&self, configs: Vec<RemoteWriteConfig>) -> Result<(), EmitError> {
        check_names(&configs)?;
        // One reload at a time. `take` does not need this lock.
        let runtime = self.runtime.lock();
        // Certificates and files are read before the lock is taken: the engine must not wait for them.
        let old = self.targets.read().clone();
        let mut next = Vec::with_capacity(configs.len());
        for config in configs {
            let before = old.iter().find(|target| target.config.http.name == config.http.name);
            match before {
                Some(same) if same.same(&config) => next.push((same.clone(), None)),
                Some(before) => {
                    let mut target = Target::new(config, before.disk.clone())?;
                    target.metrics = before.metrics.clone();
                    let target = Arc::new(target);
                    target.look_after().map_err(EmitError::queue)?;
                    next.push((target, Some(before.clone())));
                }
                None => next.push((self.open(config)?, None)),
            }
        }
        let gone =
            |old: &&Arc<Target>| !next.iter().any(|(new, _)| new.config.http.name == old.config.http.name);
        let gone: Vec<Arc<Target>> = old.iter().filter(gone).cloned().collect();
        let now = clock::now();
        // Who writes to a disk now ends before; nobody begins until all is handed over.
        let disks: Vec<Arc<Disk>> = old.iter().filter_map(|target| target.disk.clone()).collect();
        let writers: Vec<_> = disks.iter().map(|disk| disk.lock()).collect();
        let mut targets = self.targets.write();
        for gone in &gone {
            let pending = gone.metrics.pending.load(Relaxed);
            if pending > 0 {
                tracing::warn!(
                    target_name = gone.config.http.name,
                    pending,
                    "a removed target had samples pending"
                );
            }
            gone.replace(None, now);
        }
        for (target, before) in &next {
            if let Some(before) = before {
                before.replace(Some(target), now);
            }
            let running = old.iter().any(|old| Arc::ptr_eq(old, target));
            if let (false, Some(runtime)) = (running, &*runtime) {
                target.start(runtime);
            }
        }
        *targets = next.into_iter().map(|(target, _)| target).collect();
        drop((targets, writers));
        for disk in gone.iter().filter_map(|gone| gone.disk.as_ref()) {
            disk.remove_all();
        }
        Ok(())
    }

    /// Sends what is queued, for at most `grace`, and ends; what is left goes to the disk, where there
    /// is one. Returns what was left, by target; nothing where all was delivered.
    pub async fn shutdown(&self, grace: Duration) -> Vec<Undelivered> {
        let targets = self.targets.read().clone();
        let until = tokio::time::Instant::now() + grace;
        let senders: Vec<_> = targets.iter().map(|target| (target.drain(), target.waits_safely())).collect();
        let senders = senders.into_iter().flat_map(|(all, safe)| all.into_iter().map(move |one| (one, safe)));
        for (mut sender, safe) in senders {
            // What a target that is away does not take is kept on disk: nothing is won by waiting.
            if safe || tokio::time::timeout_at(until, &mut sender).await.is_err() {
                sender.abort();
            }
        }
        let keep = |target: Arc<Target>| {
            // The reason is told there.
            let kept = target.disk.is_some() && target.persist(true).is_ok();
            let samples = target.metrics.pending.load(Relaxed) as u64;
            Undelivered { target: target.config.http.name.clone(), samples, kept }
        };
        let keep = move || targets.into_iter().map(keep).filter(|left| left.samples > 0).collect();
        match tokio::task::spawn_blocking(keep).await {
            Ok(left) => left,
            Err(error) => {
                tracing::error!(%error, "keeping what was not delivered failed; this is a bug");
                Vec::new()
            }
        }
    }

    /// Each target's figures.
    pub fn snapshot(&self) -> Vec<TargetSnapshot> {
        let now = Instant::now();
        self.targets.read().iter().map(|target| target.snapshot(now)).collect()
    }

    /// For each target and partition, the sequence up to which everything was accepted or given up.
    pub fn acknowledged(&self) -> Vec<(String, Acknowledged)> {
        let targets = self.targets.read().clone();
        targets.iter().map(|target| (target.config.http.name.clone(), target.acked())).collect()
    }
}

impl Drop for Emitter {
    /// Ends the senders: without an emitter nobody can.
    fn drop(&mut self) {
        let now = clock::now();
        self.targets.get_mut().iter().for_each(|target| target.replace(None, now));
    }
}

fn check_names(configs: &[RemoteWriteConfig]) -> Result<(), EmitError> {
    for (at, config) in configs.iter().enumerate() {
        if configs.iter().take(at).any(|other| other.http.name == config.http.name) {
            return Err(EmitError::SameName(config.http.name.clone()));
        }
    }
    Ok(())
}

impl OutputSink for Emitter {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let targets = self.targets.read();
        if targets.is_empty() {
            return;
        }
        let names = batch.names();
        let samples = batch.ruled().map(|(output, rule)| names::count(output, rule, names)).sum();
        let now = clock::now();
        targets.iter().for_each(|target| target.push(batch, samples, now));
    }
}
