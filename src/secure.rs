//! The doors: TLS on the listener, and who may do what.
//!
//! There are three doors: *ingest* (`/api/v1/write`), *read* (the API, metrics and the page) and
//! *admin* (what changes something). `/-/healthy` and `/-/ready` are open to all. Certificates and
//! tokens are files that are read again when they change; what cannot be used then leaves the old
//! ones in force. Passwords and tokens are never shown, logged or kept in clear.

mod access;
pub mod config;
pub mod connections;
pub mod descriptors;
mod files;
mod gate;
pub mod metrics;
mod quiet;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

pub use access::Refusal;
pub use config::{AccessConfig, AuthConfig, ClientAuth, DoorsConfig, PasswordHash, TlsConfig, TlsVersion};
pub use metrics::Metrics;

use access::Access;
use arc_swap::ArcSwap;
use connections::Connections;
use files::Stamps;
use gate::Gate;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use quiet::Quiet;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/api/v1/write`
    Ingest,
    /// The API, metrics and the page.
    Read,
    /// What changes something, such as `/-/reload`.
    Admin,
}

impl Door {
    /// All of them, in the order of their numbers.
    pub const ALL: [Door; 3] = [Door::Ingest, Door::Read, Door::Admin];

    /// As written in `server.auth` and in the `door` label.
    pub fn name(self) -> &'static str {
        match self {
            Door::Ingest => "ingest",
            Door::Read => "read",
            Door::Admin => "admin",
        }
    }
}

/// Reads the configuration of the doors from a file of its own; gives every problem when there is one.
pub type Loader = Box<dyn Fn() -> Result<DoorsConfig, Vec<String>> + Send + Sync>;

/// What is in force.
struct State {
    config: DoorsConfig,
    tls: Option<Arc<ServerConfig>>,
    access: Access,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Doors read and checked, not yet in force.
pub struct Prepared {
    state: State,
    stamps: Stamps,
}

/// The doors. Cheap to share.
pub struct Doors {
    state: ArcSwap<State>,
    /// `--web.config.file`: then no other configuration counts.
    own_file: Option<Loader>,
    stamps: Mutex<Stamps>,
    started: Instant,
    /// When files are looked at next, in milliseconds since `started`.
    next_look: AtomicU64,
    gate: Gate,
    metrics: Metrics,
    connections: Arc<Connections>,
    logged: [Quiet; Door::ALL.len()],
    logged_handshakes: Quiet,
}

impl Default for Doors {
    /// No TLS, and open to all.
    fn default() -> Self {
        let state = State {
            config: DoorsConfig::default(),
            tls: None,
            access: Access::default(),
            headers: Vec::new(),
        };
        Doors {
            state: ArcSwap::from_pointee(state),
            own_file: None,
            stamps: Mutex::default(),
            started: Instant::now(),
            next_look: AtomicU64::new(LOOK_EVERY.as_millis() as u64),
            gate: Gate::default(),
            metrics: Metrics::default(),
            connections: Arc::default(),
            logged: Default::default(),
            logged_handshakes: Quiet::default(),
        }
    }
}

impl Doors {
    /// The doors of a configuration, or of `own_file` where that is given.
    ///
    /// # Errors
    /// Files that cannot be read or used, all of them.
    pub fn new(config: DoorsConfig, own_file: Option<Loader>) -> Result<Doors, Vec<String>> {
        let doors = Doors { own_file, ..Doors::default() };
        let prepared = doors.prepare(config)?;
        doors.put(prepared);
        Ok(doors)
    }

    /// Reads and checks everything; nothing changes yet. With `--web.config.file` that file is read
    /// and `config` does not count.
    ///
    /// # Errors
    /// Files that cannot be read or used, all of them.
    pub fn prepare(&self, config: DoorsConfig) -> Result<Prepared, Vec<String>> {
        let config = match &self.own_file {
            Some(load) => load()?,
            None => config,
        };
        // Before they are read: what changes meanwhile is seen at the next look.
        let stamps = Stamps::of(files_of(&config));
        let mut problems = Vec::new();
        let tls = config.tls.as_ref().map(tls::server).transpose();
        let tls = tls.map_err(|error| problems.push(error)).ok().flatten();
        let access = config.auth.as_ref().map(|auth| Access::new(auth, &mut problems)).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        let headers = config.headers.clone();
        Ok(Prepared { state: State { config, tls, access, headers }, stamps })
    }

    /// Puts what was prepared in force, for the requests and connections from now on.
    pub fn put(&self, prepared: Prepared) {
        *self.stamps.lock() = prepared.stamps;
        self.state.store(Arc::new(prepared.state));
        self.metrics.files_ok.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to [look](Doors::look) at the files again; true for one caller a second.
    pub fn due(&self) -> bool {
        let now = self.started.elapsed().as_millis() as u64;
        let next = self.next_look.load(Ordering::Relaxed);
        let then = now.saturating_add(LOOK_EVERY.as_millis() as u64);
        now >= next
            && self.next_look.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Reads the files again if one has changed. Blocking. What cannot be used is logged, and the old
    /// ones stay in force until there is another change.
    pub fn look(&self) {
        let (now, changed) = {
            let before = self.stamps.lock();
            let now = before.again();
            let changed = now != *before;
            (now, changed)
        };
        if !changed {
            return;
        }
        let before = self.state.load_full();
        match self.prepare(before.config.clone()) {
            Ok(Prepared { state, stamps }) => {
                let replaced = self.state.compare_and_swap(&before, Arc::new(state));
                if !Arc::ptr_eq(&replaced, &before) {
                    // A reload came in between, and has read the files as well.
                    return;
                }
                *self.stamps.lock() = stamps;
                self.metrics.files_ok.store(true, Ordering::Relaxed);
                self.metrics.files_read.fetch_add(1, Ordering::Relaxed);
                tracing::info!("certificates, passwords and tokens read again");
            }
            Err(problems) => {
                *self.stamps.lock() = now;
                self.metrics.files_ok.store(false, Ordering::Relaxed);
                self.metrics.files_refused.fetch_add(1, Ordering::Relaxed);
                for problem in problems {
                    tracing::error!(problem, "a changed file cannot be used; the old one stays in force");
                }
            }
        }
    }

    /// TLS for a new connection; `None`: it is plain.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.state.load().tls.clone()
    }

    /// Whether a client that shows this verified certificate may connect: `client_allowed_sans`.
    pub fn welcomes(&self, certificates: Option<&[CertificateDer<'_>]>) -> bool {
        match &self.state.load().config.tls {
            Some(tls) => tls::is_allowed(tls, certificates),
            None => true,
        }
    }

    /// Whether only clients with a verified certificate may connect.
    pub fn asks_for_certificates(&self) -> bool {
        self.state.load().config.tls.as_ref().is_some_and(|tls| tls.client_auth == ClientAuth::Require)
    }

    /// Whether a door asks who is there.
    pub fn is_guarded(&self, door: Door) -> bool {
        self.state.load().access.is_guarded(door)
    }

    /// Headers of every answer.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.state.load().headers.clone()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Says whether a request with these headers may pass a door. Refusals are counted and, at a
    /// bounded rate, logged.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn check(
        &self,
        door: Door,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let state = self.state.load_full();
        let result = state.access.check(door, headers, &self.gate).await;
        if let Err(refusal) = &result {
            self.metrics.refused(door, refusal);
            self.log(door, refusal, peer);
        }
        result
    }

    /// What to ask for at a door: the values of `WWW-Authenticate`.
    pub fn challenges(&self, door: Door) -> Vec<HeaderValue> {
        self.state.load().access.challenges(door)
    }

    /// The open connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Counts a TLS handshake that failed, and logs it at a bounded rate.
    pub fn handshake_failed(&self, peer: SocketAddr, why: &str) {
        self.metrics.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        if let Some(others) = self.logged_handshakes.say() {
            tracing::warn!(peer = %peer.ip(), others_since = others, "TLS handshake failed: {why}");
        }
    }

    fn log(&self, door: Door, refusal: &Refusal, peer: Option<SocketAddr>) {
        let Some(others) = self.logged.get(door as usize).and_then(Quiet::say) else { return };
        // The address alone: a name that was typed may be a password in the wrong field.
        let peer = peer.map_or_else(|| "unknown".to_string(), |peer| peer.ip().to_string());
        tracing::warn!(door = door.name(), peer, others_since = others, "refused: {refusal}");
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("config", &self.state.load().config).finish_non_exhaustive()
    }
}

/// All files that a configuration hangs on.
fn files_of(config: &DoorsConfig) -> Vec<PathBuf> {
    let mut files = config.own_file.iter().cloned().collect::<Vec<_>>();
    if let Some(tls) = &config.tls {
        files.extend([&tls.cert_file, &tls.key_file].into_iter().chain(&tls.client_ca_file).cloned());
    }
    if let Some(auth) = &config.auth {
        let all = std::iter::once(&auth.all).chain(&auth.doors);
        files.extend(all.flat_map(|access| access.bearer_token_files.iter().cloned()));
    }
    files
}
