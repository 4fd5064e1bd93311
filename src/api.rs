//! HTTP: the receiver's route, the admin routes, the JSON API and a plain status page.
//!
//! The admin routes touch nothing that the data path holds for long, so they answer while it is
//! saturated.

pub mod anomalies;
mod body;
pub mod current;
pub mod exposition;
mod page;
mod reply;
mod router;
mod series;
pub mod server;
mod status;
mod steady;
#[cfg(test)]
mod tests;

pub use anomalies::{Anomaly, Recent};
pub use current::Current;
pub use server::{ServerLimits, serve};

use crate::emit::Emitter;
use crate::engine::Engine;
use crate::ingest::Receiver;
use crate::keeper::Keeper;
use crate::secure::Doors;
use crate::time::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the API asks of the application around it.
pub trait Control: Send + Sync {
    /// Reads the configuration again and puts it in force, all of it or nothing. Blocking. What
    /// [`Control::restart_needed`] names stays as it was.
    ///
    /// # Errors
    /// Every problem found; the old configuration stays in force.
    fn reload(&self) -> Result<(), Vec<String>>;
    /// Settings that were changed in the file by a reload and come in force with a restart only.
    fn restart_needed(&self) -> Vec<&'static str>;
    /// Remarks on the configuration in force, for the operator.
    fn notes(&self) -> Vec<String>;
    /// The application's own metrics in OpenMetrics text.
    ///
    /// # Errors
    /// When they cannot be written as text.
    fn metrics(&self) -> Result<String, std::fmt::Error>;
}

/// What the routes serve.
pub struct Api {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The receiver.
    pub receiver: Arc<Receiver>,
    /// The way out.
    pub emitter: Arc<Emitter>,
    /// The newest anomalies.
    pub recent: Arc<Recent>,
    /// Current scores for `/metrics/anomalies`, where that is enabled.
    pub current: Option<Arc<Current>>,
    /// The application.
    pub control: Arc<dyn Control>,
    /// State on disk; `None` where none is kept.
    pub keeper: Option<Arc<Keeper>>,
    /// TLS, and who may do what.
    pub doors: Arc<Doors>,
    /// Whether requests should come here: false until everything runs, and while draining.
    pub ready: Arc<AtomicBool>,
    /// When the process started.
    pub started: Millis,
    /// The version shown.
    pub version: &'static str,
}

impl Api {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// The time of day.
pub(crate) fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
