//! The configuration file: the rules and the sections around them. `docs/configuration.md` describes
//! every field.

mod http;
mod read;
mod relabel;
mod remote_write;

pub use crate::history::RemoteReadConfig;
pub use crate::rules::yaml::{Note, Problem, Problems};
pub use http::HttpConfig;

use crate::emit::config::RemoteWriteConfig;
use crate::rules::RuleSet;
use crate::rules::yaml::MAX_BYTES;
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
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9898)), anomalies_endpoint: false }
    }
}

/// The receiver's part of `limits:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveLimits {
    /// Bytes of a request's body, compressed and decompressed. Default 32 MiB.
    pub max_body_bytes: usize,
    /// Decompressed bytes worked on at a time. Default 256 MiB.
    pub max_in_flight_bytes: usize,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        ReceiveLimits { max_body_bytes: 32 << 20, max_in_flight_bytes: 256 << 20 }
    }
}

/// What happens when the disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDiskFull {
    /// Scoring goes on without the log.
    #[default]
    Degrade,
    /// Writes are refused until there is room.
    Refuse,
}

/// When the log is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer.
    Always,
    /// This often.
    Every(Span),
}

/// `state:`; no state is kept on disk by this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The folder; `None`: memory only.
    pub dir: Option<PathBuf>,
    /// Default 1 s.
    pub fsync: Fsync,
    /// Default `degrade`.
    pub on_disk_full: OnDiskFull,
}

impl Default for StateConfig {
    fn default() -> Self {
        StateConfig { dir: None, fsync: Fsync::Every(Span::SECOND), on_disk_full: OnDiskFull::default() }
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
