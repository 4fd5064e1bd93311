//! Reload: a new configuration comes in force whole, or not at all.

use crate::api::Control;
use crate::config::{Config, Note};
use crate::emit::Emitter;
use crate::engine::Engine;
use crate::record::Record;
use crate::telemetry::{ConfigState, Telemetry};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads and checks the configuration; gives every problem when there is one.
pub type Loader = Box<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

struct InForce {
    notes: Vec<String>,
    listen: String,
}

/// Puts configurations in force, one at a time.
pub struct Reloader {
    loader: Option<Loader>,
    in_force: Mutex<InForce>,
    one_at_a_time: Mutex<()>,
    engine: Arc<Engine>,
    emitter: Arc<Emitter>,
    state: Arc<ConfigState>,
    telemetry: Telemetry,
}

impl Reloader {
    pub(super) fn new(
        loader: Option<Loader>,
        config: Config,
        engine: Arc<Engine>,
        emitter: Arc<Emitter>,
        state: Arc<ConfigState>,
        telemetry: Telemetry,
    ) -> Reloader {
        let in_force = InForce { listen: format!("{:?}", config.server.listen), notes: texts(&config.notes) };
        Reloader {
            loader,
            in_force: Mutex::new(in_force),
            one_at_a_time: Mutex::default(),
            engine,
            emitter,
            state,
            telemetry,
        }
    }

    fn load(&self) -> Result<(), Vec<String>> {
        let Some(loader) = &self.loader else {
            return Err(vec!["there is no configuration file to read again".to_string()]);
        };
        let Config { server, rules, remote_write, notes, .. } = loader()?;
        // The targets first: they can still refuse, and then nothing has changed.
        self.emitter.reload(remote_write).map_err(|error| vec![error.to_string()])?;
        self.engine.apply(Record::Rules(rules)).map_err(|error| vec![error.to_string()])?;
        let mut in_force = self.in_force.lock();
        let mut notes = texts(&notes);
        if format!("{:?}", server.listen) != in_force.listen {
            notes.push("server.listen has changed; it needs a restart".to_string());
        }
        in_force.notes = notes;
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
                tracing::info!(rules = self.engine.rules().rules.len(), "configuration reloaded");
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(problem, "reload refused; the old configuration stays in force");
                }
            }
        }
        result
    }

    fn notes(&self) -> Vec<String> {
        self.in_force.lock().notes.clone()
    }

    fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.telemetry.text()
    }
}
