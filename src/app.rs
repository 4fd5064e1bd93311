//! The application: build → run → drain.
//!
//! Draining goes against the stream: not ready, accept no more, finish what is in flight, then give
//! the way out the rest of the grace to deliver what is queued.

mod gaps;
mod reload;
#[cfg(test)]
mod tests;

use gaps::Filler;
pub use gaps::SourceError;
use reload::{Fixed, Rooms};
pub use reload::{Loader, Reloader};

use crate::api::{self, Api, Current, Recent, ServerLimits};
use crate::config::Config;
use crate::emit::{EmitError, Emitter, QueueDir, Undelivered};
use crate::engine::{Engine, OutputSink};
use crate::ingest::{Gate, Hole, IngestError, Receiver, ReceiverLimits};
use crate::keeper::{self, Found, Keeper};
use crate::record::Record;
use crate::secure::{self, Doors};
use crate::state::{Folder, StateError};
use crate::telemetry::{ConfigState, FlagCounter, Sources, Telemetry};
use crate::time::{Millis, Span};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Anomalies that `/api/v1/anomalies` remembers.
const RECENT: usize = 1_000;
/// Signals that `/metrics/anomalies` shows at most.
const CURRENT: usize = 100_000;
/// How often what fell silent is looked for in all partitions; sooner where samples of the past come in
/// faster than time goes.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether they do.
const SWEEP_LOOK: Duration = Duration::from_secs(1);

/// Why the application cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The way in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The way out.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// State on disk.
    #[error("state: {0}")]
    State(#[from] StateError),
    /// Certificates or tokens.
    #[error("{}", .0.join("\n"))]
    Doors(Vec<String>),
    /// A source to fill gaps from.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What is not in the configuration file.
pub struct Options {
    /// Worker threads of the engine; 0: records are applied by the receiver's threads.
    pub lanes: usize,
    /// Serve `/metrics/anomalies` whatever the file says.
    pub anomalies_endpoint: bool,
    /// Whether the listeners are not those of the file: then a change of `server.listen` is none.
    pub listens_elsewhere: bool,
    /// Time to drain. Default 15 s.
    pub grace: Duration,
    /// Bounds on requests; `None`: as the file says.
    pub receiver: Option<ReceiverLimits>,
    /// Bounds on connections.
    pub server: ServerLimits,
    /// Who else wants to see outputs.
    pub sinks: Vec<Arc<dyn OutputSink>>,
    /// Where a reload gets its configuration from; `None`: it is refused.
    pub loader: Option<Loader>,
    /// Reads the `--web.config.file`, which then counts instead of `server.tls` and `server.auth`.
    pub web_config: Option<secure::Loader>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lanes: std::thread::available_parallelism().map_or(1, usize::from),
            anomalies_endpoint: false,
            listens_elsewhere: false,
            grace: Duration::from_secs(15),
            receiver: None,
            server: ServerLimits::default(),
            sinks: Vec::new(),
            loader: None,
            web_config: None,
        }
    }
}

/// The application, built and not yet running.
pub struct App {
    api: Arc<Api>,
    reloader: Arc<Reloader>,
    keeper: Option<Arc<Keeper>>,
    filler: Arc<Filler>,
    /// Gaps that the receiver finds.
    holes: mpsc::Receiver<Hole>,
    grace: Duration,
    server: ServerLimits,
}

impl App {
    /// Builds everything; nothing listens and nothing is sent yet.
    ///
    /// # Errors
    /// A target or a thread that cannot be set up.
    pub fn build(config: Config, options: Options) -> Result<App, AppError> {
        let started = now();
        let limits = options.receiver.unwrap_or(ReceiverLimits {
            compressed: config.receive.max_body_bytes,
            decompressed: config.receive.max_body_bytes,
            in_flight: config.receive.max_in_flight_bytes,
            queue_age: config.receive.max_queue_age.as_std(),
            ..ReceiverLimits::default()
        });
        let doors = Doors::new(config.server.doors.clone(), options.web_config).map_err(AppError::Doors)?;
        let doors = Arc::new(doors);
        let folder = config.state.dir.as_deref().map(open).transpose()?;
        let queue = folder.as_ref().map(|(folder, incarnation)| QueueDir {
            path: folder.queue_folder(),
            incarnation: *incarnation,
            fsync: config.state.fsync,
        });
        let emitter = Arc::new(Emitter::new(config.remote_write.clone(), queue)?);
        let recent = Arc::new(Recent::new(RECENT));
        let flags = Arc::new(FlagCounter::default());
        let current = (options.anomalies_endpoint || config.server.anomalies_endpoint)
            .then(|| Arc::new(Current::new(CURRENT)));
        let mut sinks: Vec<Arc<dyn OutputSink>> = vec![emitter.clone(), recent.clone(), flags.clone()];
        if let Some(current) = &current {
            sinks.push(current.clone());
        }
        sinks.extend(options.sinks);
        let (engine, keeper) = match folder {
            Some(folder) => kept(folder, &config, options.lanes, limits.decompressed, sinks, &emitter)?,
            None => (Arc::new(Engine::new(config.rules.clone(), options.lanes, sinks)), None),
        };
        let (gate, holes) = Gate::new();
        let gate = Arc::new(gate);
        let receiver = Arc::new(Receiver::gated(engine.clone(), limits, Some(gate.clone()))?);
        let filler = Arc::new(Filler::new(gate, engine.clone()));
        filler.read_from(Filler::sources(&config.remote_read)?);
        let state = Arc::new(ConfigState::default());
        state.ok.store(true, Ordering::Relaxed);
        state.loaded.store(started.0, Ordering::Relaxed);
        let telemetry = Telemetry::new(Sources {
            engine: engine.clone(),
            receiver: receiver.clone(),
            emitter: emitter.clone(),
            flags,
            config: state.clone(),
            keeper: keeper.clone(),
            doors: doors.clone(),
            version: VERSION,
        });
        let fixed = Fixed {
            server: config.server.clone(),
            receive: config.receive,
            state: config.state.clone(),
            listens_elsewhere: options.listens_elsewhere,
            anomalies_anyway: options.anomalies_endpoint,
            own_limits: options.receiver.is_some(),
        };
        let reloader = Arc::new(Reloader::new(
            options.loader,
            fixed,
            &config.notes,
            Rooms { engine: engine.clone(), emitter: emitter.clone(), filler: filler.clone() },
            state,
            telemetry,
            doors.clone(),
        ));
        let api = Arc::new(Api {
            engine,
            receiver,
            emitter,
            recent,
            current,
            control: reloader.clone(),
            keeper: keeper.clone(),
            doors,
            ready: Arc::new(AtomicBool::new(false)),
            started,
            version: VERSION,
        });
        Ok(App { api, reloader, keeper, filler, holes, grace: options.grace, server: options.server })
    }

    /// Puts a new configuration in force on demand.
    pub fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        self.api.engine.clone()
    }

    /// TLS, and who may do what.
    pub fn doors(&self) -> Arc<Doors> {
        self.api.doors.clone()
    }

    /// The newest anomalies.
    pub fn recent(&self) -> Arc<Recent> {
        self.api.recent.clone()
    }

    /// Serves on these listeners until `shutdown` resolves, then drains within the grace. Returns
    /// what targets were not sent in that time.
    pub async fn run(
        self,
        listeners: Vec<TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> Vec<Undelivered> {
        let (stop, stopped) = watch::channel(false);
        self.api.emitter.start();
        let sweeper = tokio::spawn(sweep(self.api.engine.clone()));
        let grace = self.grace;
        let filling = tokio::spawn(self.filler.clone().run(self.holes));
        let mut servers = JoinSet::new();
        for listener in listeners {
            servers.spawn(api::serve(listener, self.api.clone(), self.server, stopped.clone()));
        }
        self.api.ready.store(true, Ordering::Release);
        tracing::info!(version = VERSION, "ready");
        shutdown.await;

        let started = Instant::now();
        let left = || grace.saturating_sub(started.elapsed());
        tracing::info!(grace_seconds = self.grace.as_secs_f64(), "draining");
        self.api.ready.store(false, Ordering::Release);
        stop.send_replace(true);
        self.filler.stop();
        let finish = async { while servers.join_next().await.is_some() {} };
        // Half of the time at most: the way out needs the rest.
        if tokio::time::timeout(left() / 2, finish).await.is_err() {
            tracing::warn!("requests were still in flight and are cut off");
            servers.shutdown().await;
        }
        sweeper.abort();
        filling.abort();
        if let Some(keeper) = &self.keeper {
            let keeper = keeper.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || keeper.stop()).await {
                tracing::error!(%error, "no checkpoint was taken at the end; this is a bug");
            }
        }
        let undelivered = self.api.emitter.shutdown(left()).await;
        for left in &undelivered {
            let what = if left.kept { "kept for the next start" } else { "lost" };
            tracing::warn!(
                target_name = left.target,
                samples = left.samples,
                "not delivered in time, {what}"
            );
        }
        tracing::info!("stopped");
        undelivered
    }
}

/// Opens the state folder: its incarnation, a new one where it has none.
fn open(path: &Path) -> Result<(Folder, u128), StateError> {
    let folder = Folder::open(path)?;
    let incarnation = folder.incarnation_or_new()?;
    Ok((folder, incarnation))
}

/// An engine as it was when the folder was last written to, and who keeps it from here on.
fn kept(
    (folder, incarnation): (Folder, u128),
    config: &Config,
    lanes: usize,
    body_bytes: usize,
    sinks: Vec<Arc<dyn OutputSink>>,
    emitter: &Arc<Emitter>,
) -> Result<(Arc<Engine>, Option<Arc<Keeper>>), AppError> {
    let (engine, found) = keeper::restore(&folder, incarnation, &config.rules, lanes, sinks, body_bytes)?;
    told(folder.path(), &found);
    // A log may have lost its end to a power cut, after outputs of it were sent.
    engine.skip_to(emitter.newest_sequence());
    let engine = Arc::new(engine);
    let settings = keeper::Settings {
        fsync: config.state.fsync,
        on_disk_full: config.state.on_disk_full,
        checkpoint_every: config.state.checkpoint_every.as_std(),
        body_bytes,
        ..keeper::Settings::default()
    };
    let keeper = Keeper::start(folder, incarnation, found, engine.clone(), emitter.clone(), settings)?;
    if engine.rules().source != config.rules.source {
        // A record as any other: a restart with new rules is a reload.
        engine
            .apply(Record::Rules(config.rules.clone()))
            .map_err(|error| IngestError::Thread(std::io::Error::other(error)))?;
    }
    Ok((engine, Some(Arc::new(keeper))))
}

fn told(path: &Path, found: &Found) {
    let folder = path.display();
    match found.checkpoint {
        Some(_) => tracing::info!(
            %folder,
            series = found.series,
            records = found.replayed,
            seconds = found.took.as_secs_f64(),
            "state restored"
        ),
        None => tracing::info!(%folder, records = found.replayed, "a new state begins"),
    }
}

/// Forgets silent series also where no sample comes any more.
async fn sweep(engine: Arc<Engine>) {
    let mut look = tokio::time::interval(SWEEP_LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut at, mut observed) = (Instant::now(), engine.newest_observed());
    loop {
        look.tick().await;
        let now = engine.newest_observed();
        if at.elapsed() < SWEEP_EVERY && !is_far(observed, now, engine.rules().forget_after) {
            continue;
        }
        (at, observed) = (Instant::now(), now);
        let engine = engine.clone();
        match tokio::task::spawn_blocking(move || engine.sweep()).await {
            Ok(0) => {}
            Ok(series) => tracing::debug!(series, "forgot silent series"),
            Err(error) => tracing::error!(%error, "the sweep failed; this is a bug"),
        }
    }
}

/// Whether observed time has gone so far since the last sweep that it is time for another.
fn is_far(before: Option<Millis>, now: Option<Millis>, forget_after: Span) -> bool {
    let step = (forget_after.0 / 16).max(Span::MINUTE.0);
    match (before, now) {
        (Some(before), Some(now)) => now.since(before) >= step,
        (None, now) => now.is_some(),
        (Some(_), None) => false,
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
