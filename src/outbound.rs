//! Requests to other servers: TLS, credentials, headers. What the way out and remote read share.
//!
//! Secrets in files are read at each use; nothing here logs one, and redirects are never followed, for
//! credentials would go to another host.

mod auth;
mod config;
mod peer;
mod tls;

pub use config::{Auth, HttpConfig, Secret, TlsConfig};
pub(crate) use config::{shown, without_query};
pub use peer::{Peer, SendError, causes, excerpt};

/// Why a server cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL (not shown: it may hold a password).
    #[error("the url {0}")]
    Url(String),
    /// A header that is not one, or that must not be set.
    #[error("the header {0:?} cannot be set")]
    Header(String),
    /// Certificates and keys.
    #[error("tls: {0}")]
    Tls(String),
}
