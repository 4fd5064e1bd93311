//! Reload: a new configuration comes in force whole, or not at all.

use super::gaps::Filler;
use crate::api::Control;
use crate::config::{Config, Note, ReceiveLimits, ServerConfig, StateConfig};
use crate::emit::Emitter;
use crate::engine::Engine;
use crate::record::Record;
use crate::secure::Doors;
use crate::telemetry::{ConfigState, Telemetry};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads and checks the configuration; gives every problem when there is one.
pub type Loader = Box<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// What was built with the process and no reload changes.
pub(super) struct Fixed {
    /// `server:` at the start.
    pub server: ServerConfig,
    /// The receiver's limits at the start.
    pub receive: ReceiveLimits,
    /// `state:` at the start.
    pub state: StateConfig,
    /// The listeners are not those of the file.
    pub listens_elsewhere: bool,
    /// `/metrics/anomalies` is served whatever the file says.
    pub anomalies_anyway: bool,
    /// The receiver's limits are not those of the file.
    pub own_limits: bool,
}

impl Fixed {
    /// The settings in which a file differs.
    fn differs(
        &self,
        server: &ServerConfig,
        receive: &ReceiveLimits,
        state: &StateConfig,
    ) -> Vec<&'static str> {
        let ServerConfig { listen, anomalies_endpoint, doors: _ } = &self.server;
        let ReceiveLimits { max_body_bytes, max_in_flight_bytes, max_connections, max_queue_age } =
            &self.receive;
        let StateConfig { dir, fsync, on_disk_full, checkpoint_every } = &self.state;
        let settings = [
            ("state.dir", *dir != state.dir),
            ("state.fsync", *fsync != state.fsync),
            ("state.on_disk_full", *on_disk_full != state.on_disk_full),
            ("state.checkpoint_every", *checkpoint_every != state.checkpoint_every),
            ("server.listen", !self.listens_elsewhere && *listen != server.listen),
            (
                "server.anomalies_endpoint",
                !self.anomalies_anyway && *anomalies_endpoint != server.anomalies_endpoint,
            ),
            ("limits.max_body_bytes", !self.own_limits && *max_body_bytes != receive.max_body_bytes),
            (
                "limits.max_in_flight_bytes",
                !self.own_limits && *max_in_flight_bytes != receive.max_in_flight_bytes,
            ),
            ("limits.max_connections", *max_connections != receive.max_connections),
            ("limits.max_queue_age", !self.own_limits && *max_queue_age != receive.max_queue_age),
        ];
        settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

#[derive(Default)]
struct InForce {
    notes: Vec<String>,
    restart_needed: Vec<&'static str>,
}

/// What configurations are put in force in.
pub(super) struct Rooms {
    pub engine: Arc<Engine>,
    pub emitter: Arc<Emitter>,
    pub filler: Arc<Filler>,
}

/// Puts configurations in force, one at a time.
pub struct Reloader {
    loader: Option<Loader>,
    fixed: Fixed,
    in_force: Mutex<InForce>,
    one_at_a_time: Mutex<()>,
    rooms: Rooms,
    state: Arc<ConfigState>,
    telemetry: Telemetry,
    doors: Arc<Doors>,
}

impl Reloader {
    #[allow(clippy::too_many_arguments)] // the parts of the application that a reload reaches
    pub(super) fn new(
        loader: Option<Loader>,
        fixed: Fixed,
        notes: &[Note],
        rooms: Rooms,
        state: Arc<ConfigState>,
        telemetry: Telemetry,
        doors: Arc<Doors>,
    ) -> Reloader {
        let in_force = InForce { notes: texts(notes), ..InForce::default() };
        Reloader {
            loader,
            fixed,
            in_force: Mutex::new(in_force),
            one_at_a_time: Mutex::default(),
            rooms,
            state,
            telemetry,
            doors,
        }
    }

    fn load(&self) -> Result<(), Vec<String>> {
        let Some(loader) = &self.loader else {
            return Err(vec!["there is no configuration file to read again".to_string()]);
        };
        let Config { server, receive, state, rules, remote_write, remote_read, notes, .. } = loader()?;
        // What can still refuse comes first: then nothing has changed.
        let doors = self.doors.prepare(server.doors.clone())?;
        let sources = Filler::sources(&remote_read).map_err(|error| vec![error.to_string()])?;
        self.rooms.emitter.reload(remote_write).map_err(|error| vec![error.to_string()])?;
        self.rooms.engine.apply(Record::Rules(rules)).map_err(|error| vec![error.to_string()])?;
        self.doors.put(doors);
        self.rooms.filler.read_from(sources);
        let restart_needed = self.fixed.differs(&server, &receive, &state);
        let mut notes = texts(&notes);
        notes.extend(
            restart_needed.iter().map(|setting| format!("{setting} has changed; it needs a restart")),
        );
        *self.in_force.lock() = InForce { notes, restart_needed };
        Ok(())
    }
}

fn texts(notes: &[Note]) -> Vec<String> {
    notes.iter().map(ToString::to_string).collect()
}

impl Control for Reloader {
    fn reload(&self) -> Result<(), Vec<String>> {
        let _guard = self.one_at_a_time.lock();
        let result = self.load();
        self.state.reloads.fetch_add(1, Ordering::Relaxed);
        self.state.ok.store(result.is_ok(), Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.state.loaded.store(super::now().0, Ordering::Relaxed);
                tracing::info!(rules = self.rooms.engine.rules().rules.len(), "configuration reloaded");
                for setting in self.restart_needed() {
                    tracing::warn!(setting, "changed in the file; it stays as it was until a restart");
                }
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(problem, "reload refused; the old configuration stays in force");
                }
            }
        }
        result
    }

    fn restart_needed(&self) -> Vec<&'static str> {
        self.in_force.lock().restart_needed.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.in_force.lock().notes.clone()
    }

    fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.telemetry.text()
    }
}
