//! Between the gate that finds gaps and the remote read that fills them.

use super::now;
use crate::engine::Engine;
use crate::history::fill::{self, Filled, Gap};
use crate::history::{RemoteReadConfig, Source};
use crate::ingest::{FillResult, Gate, Hole};
use crate::outbound::OutboundError;
use crate::time::Span;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// Gaps filled at a time.
const AT_ONCE: usize = 4;

/// Why a source of `remote_read` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("remote_read {name:?}: {error}")]
pub struct SourceError {
    name: String,
    error: OutboundError,
}

/// Fills gaps.
pub(super) struct Filler {
    sources: RwLock<Arc<Vec<Source>>>,
    gate: Arc<Gate>,
    engine: Arc<Engine>,
}

impl Filler {
    /// A filler that reads from nowhere yet.
    pub(super) fn new(gate: Arc<Gate>, engine: Arc<Engine>) -> Filler {
        Filler { sources: RwLock::default(), gate, engine }
    }

    /// Checks sources.
    ///
    /// # Errors
    /// The first that cannot work.
    pub(super) fn sources(configs: &[RemoteReadConfig]) -> Result<Vec<Source>, SourceError> {
        let source = |config: &RemoteReadConfig| {
            Source::new(config).map_err(|error| SourceError { name: config.http.name.clone(), error })
        };
        configs.iter().map(source).collect()
    }

    /// Reads from these sources from now on; the gate watches if there are any.
    pub(super) fn read_from(&self, sources: Vec<Source>) {
        let active = !sources.is_empty();
        *self.sources.write() = Arc::new(sources);
        self.gate.watch(active, &self.engine.sources());
    }

    /// Fills what the gate finds, until it is aborted.
    pub(super) async fn run(self: Arc<Self>, mut holes: mpsc::Receiver<Hole>) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(hole) = holes.recv().await {
            // The semaphore is never closed.
            let turn = turns.clone().acquire_owned().await;
            let (filler, handle) = (self.clone(), Handle::current());
            tokio::spawn(async move {
                let (started, until) = (Instant::now(), filler.gate.until());
                let (worker, work) = (filler.clone(), hole.clone());
                // The engine blocks, and decoding is work: not for the threads that serve.
                let done = tokio::task::spawn_blocking(move || handle.block_on(worker.fill(&work, until)));
                let (result, samples) = done.await.unwrap_or_else(|error| {
                    tracing::error!(%error, "filling a gap failed; this is a bug");
                    (FillResult::Failed, 0)
                });
                filler.gate.done(&hole, result, samples, started.elapsed());
                drop(turn);
            });
        }
    }

    async fn fill(&self, hole: &Hole, until: Instant) -> (FillResult, u64) {
        let sources = self.sources.read().clone();
        let started = Instant::now();
        let gap = Gap { group: hole.group.clone(), from: hole.from, to: hole.to };
        let go_on = || self.gate.open(hole);
        let (Filled { new, read, series, strangers, .. }, error) =
            fill::fill(&sources, &self.engine, &gap, until, now(), &go_on).await;
        let (group, length) = (&hole.group, Span(hole.to.since(hole.from)));
        let took = started.elapsed().as_secs_f64();
        let result = match &error {
            None if new > 0 => FillResult::Filled,
            None => FillResult::Nothing,
            Some(_) if new > 0 => FillResult::Partial,
            Some(_) => FillResult::Failed,
        };
        match &error {
            None if new > 0 => tracing::info!(
                group, gap = %length, samples = new, series, seconds = took,
                "what was skipped is filled in"
            ),
            None => tracing::info!(
                group, gap = %length, already_seen = read, not_kept = strangers,
                "nothing was skipped that remote read has: the series kept had no samples in the gap"
            ),
            Some(error) => tracing::warn!(
                group, gap = %length, samples = new, series, seconds = took, %error,
                "what was skipped is not filled in, or not all of it; scoring goes on with the gap"
            ),
        }
        (result, new)
    }

    /// Ends what is under way.
    pub(super) fn stop(&self) {
        self.gate.watch(false, &[]);
    }
}
