//! Remote write out: ordered queues per target, retries, acknowledgement. See `ARCHITECTURE.md`.
//!
//! Each target has shards, each shard a bounded queue and one sender with one request in flight; a
//! partition always goes to the same shard, so each series keeps its order. A slow or dead target
//! fills and then drops from its own queue, and touches nothing else.

pub mod config;

mod backoff;
mod client;
mod md5;
mod metrics;
pub mod names;
mod queue;
mod relabel;
mod request;
mod sender;
mod target;
mod verdict;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;

pub use metrics::{LAG_BOUNDS, Lag, TargetSnapshot};

use crate::engine::{OutputBatch, OutputSink};
use crate::outbound::OutboundError;
use config::RemoteWriteConfig;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
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

/// What a target still held when the time to drain was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The target's name.
    pub target: String,
    /// Samples lost.
    pub samples: u64,
}

/// For each partition, the sequence up to which all is accepted or given up.
pub type Acknowledged = BTreeMap<u16, u64>;

/// Writes outputs to every target.
pub struct Emitter {
    targets: RwLock<Vec<Arc<Target>>>,
    runtime: Mutex<Option<Handle>>,
}

impl Emitter {
    /// Sets the targets up; nothing is sent before [`Emitter::start`], but outputs are queued.
    ///
    /// # Errors
    /// A target that cannot work.
    pub fn new(configs: Vec<RemoteWriteConfig>) -> Result<Emitter, EmitError> {
        check_names(&configs)?;
        let targets = configs.into_iter().map(|config| Target::new(config).map(Arc::new));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        Ok(Emitter { targets: RwLock::new(targets), runtime: Mutex::new(None) })
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
        // Certificates are read before the lock is taken: the engine must not wait for them.
        let old = self.targets.read().clone();
        let mut next = Vec::with_capacity(configs.len());
        for config in configs {
            let before = old.iter().find(|target| target.config.name == config.name);
            match before {
                Some(same) if same.same(&config) => next.push((same.clone(), None)),
                Some(before) => {
                    let mut target = Target::new(config)?;
                    target.metrics = before.metrics.clone();
                    next.push((Arc::new(target), Some(before.clone())));
                }
                None => next.push((Arc::new(Target::new(config)?), None)),
            }
        }
        let now = Instant::now();
        let mut targets = self.targets.write();
        for gone in old.iter().filter(|old| !next.iter().any(|(new, _)| new.config.name == old.config.name)) {
            let pending = gone.metrics.pending.load(Relaxed);
            if pending > 0 {
                tracing::warn!(
                    target_name = gone.config.name,
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
        Ok(())
    }

    /// Sends what is queued, for at most `grace`, and ends. Returns what was left, by target;
    /// nothing where all was delivered.
    pub async fn shutdown(&self, grace: Duration) -> Vec<Undelivered> {
        let targets = self.targets.read().clone();
        let until = tokio::time::Instant::now() + grace;
        let senders: Vec<_> = targets.iter().flat_map(|target| target.drain()).collect();
        for mut sender in senders {
            if tokio::time::timeout_at(until, &mut sender).await.is_err() {
                sender.abort();
            }
        }
        let left = targets.iter().map(|target| Undelivered {
            target: target.config.name.clone(),
            samples: target.metrics.pending.load(Relaxed) as u64,
        });
        left.filter(|left| left.samples > 0).collect()
    }

    /// Each target's figures.
    pub fn snapshot(&self) -> Vec<TargetSnapshot> {
        let now = Instant::now();
        self.targets.read().iter().map(|target| target.snapshot(now)).collect()
    }

    /// For each target and partition, the sequence up to which everything was accepted or given up.
    pub fn acknowledged(&self) -> Vec<(String, Acknowledged)> {
        let targets = self.targets.read().clone();
        targets.iter().map(|target| (target.config.name.clone(), target.acked())).collect()
    }
}

impl Drop for Emitter {
    /// Ends the senders: without an emitter nobody can.
    fn drop(&mut self) {
        let now = Instant::now();
        self.targets.get_mut().iter().for_each(|target| target.replace(None, now));
    }
}

fn check_names(configs: &[RemoteWriteConfig]) -> Result<(), EmitError> {
    for (at, config) in configs.iter().enumerate() {
        if configs.iter().take(at).any(|other| other.name == config.name) {
            return Err(EmitError::SameName(config.name.clone()));
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
        let samples = batch.outputs.iter().map(|output| names::count(output, batch.names)).sum();
        let now = Instant::now();
        targets.iter().for_each(|target| target.push(batch, samples, now));
    }
}
