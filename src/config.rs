//! The configuration file: the rules and the sections around them. `docs/configuration.md` describes
//! every field.

mod doors;
mod http;
mod read;
mod relabel;
mod remote_write;

pub use crate::history::RemoteReadConfig;
pub use crate::rules::yaml::{Note, Problem, Problems};
pub use crate::state::{Fsync, OnDiskFull};
pub use doors::load_web_config;
pub use http::HttpConfig;

use crate::emit::config::RemoteWriteConfig;
use crate::rules::RuleSet;
use crate::rules::yaml::MAX_BYTES;
use crate::secure::DoorsConfig;
use crate::time::Span;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `server:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen. Default 127.0.0.1:9898.
    pub listen: SocketAddr,
    /// Whether `/metrics/anomalies` is served. Default no.
    pub anomalies_endpoint: bool,
    /// `tls` and `auth`.
    pub doors: DoorsConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9898)),
            anomalies_endpoint: false,
            doors: DoorsConfig::default(),
        }
    }
}

/// The receiver's part of `limits:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveLimits {
    /// Bytes of a request's body, compressed and decompressed. Default 32 MiB.
    pub max_body_bytes: usize,
    /// Decompressed bytes worked on at a time. Default 256 MiB.
    pub max_in_flight_bytes: usize,
    /// Open connections. Default 1024.
    pub max_connections: usize,
    /// How long the oldest request in the queue may have waited before more are refused. Default 5 s.
    pub max_queue_age: Span,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        ReceiveLimits {
            max_body_bytes: 32 << 20,
            max_in_flight_bytes: 256 << 20,
            max_connections: 1024,
            max_queue_age: Span::seconds(5),
        }
    }
}

/// `state:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The folder; `None`: memory only.
    pub dir: Option<PathBuf>,
    /// Default 1 s.
    pub fsync: Fsync,
    /// Default `degrade`.
    pub on_disk_full: OnDiskFull,
    /// The longest time between checkpoints while samples come. Default 15 min.
    pub checkpoint_every: Span,
}

impl Default for StateConfig {
    fn default() -> Self {
        StateConfig {
            dir: None,
            fsync: Fsync::Every(Span::SECOND),
            on_disk_full: OnDiskFull::default(),
            checkpoint_every: Span::minutes(15),
        }
    }
}

/// A configuration, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `server:`
    pub server: ServerConfig,
    /// `rules:` and all else that shapes scores.
    pub rules: Arc<RuleSet>,
    /// `remote_write:`
    pub remote_write: Vec<RemoteWriteConfig>,
    /// `remote_read:`
    pub remote_read: Vec<RemoteReadConfig>,
    /// `state:`
    pub state: StateConfig,
    /// The receiver's bounds.
    pub receive: ReceiveLimits,
    /// What is valid and has no effect, or another than it seems.
    pub notes: Vec<Note>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything wrong with it, in its order.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        let name = path.display().to_string();
        let cannot = |error: std::io::Error| Problems::unreadable(&name, format!("cannot be read: {error}"));
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(cannot)?;
        // One byte more than is allowed, so that a larger file is known as such.
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Problems::unreadable(&name, format!("is not UTF-8: {}", error.utf8_error())))?;
        Config::parse(&name, &text)
    }

    /// Checks a text. `file` names it in messages, and names of files in it are relative to its folder.
    ///
    /// # Errors
    /// Everything wrong with it, in its order.
    pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
        read::config(file, text)
    }
}

#[cfg(test)]
mod tests;
