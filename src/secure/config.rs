//! What the doors are configured with: `server.tls` and `server.auth` of rules.yaml, or a
//! `--web.config.file` as Prometheus has it.

use super::Door;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A bcrypt hash; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub(super) String);

/// The greatest cost taken: one attempt takes seconds already.
const MAX_COST: u32 = 16;

impl PasswordHash {
    /// A hash as `htpasswd -B` writes it.
    ///
    /// # Errors
    /// A text that is none, or a cost that is out of range; the text is not repeated.
    pub fn parse(text: &str) -> Result<PasswordHash, String> {
        let parts: bcrypt::HashParts = text
            .parse()
            .map_err(|_| "expected a bcrypt hash, such as `htpasswd -nBC 10 \"\"` prints".to_string())?;
        match parts.get_cost() {
            4..=MAX_COST => Ok(PasswordHash(text.to_string())),
            cost => Err(format!("a bcrypt cost of {cost} is not taken; expected 4 to {MAX_COST}")),
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.0.parse::<bcrypt::HashParts>().map_or(bcrypt::DEFAULT_COST, |parts| parts.get_cost())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// What is asked of clients: `client_auth_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// `NoClientCert`
    #[default]
    None,
    /// `VerifyClientCertIfGiven`
    IfGiven,
    /// `RequireAndVerifyClientCert`
    Require,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS12`
    Tls12,
    /// `TLS13`
    Tls13,
}

/// `tls_server_config`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its CA (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Who signs certificates of clients (PEM).
    pub client_ca_file: Option<PathBuf>,
    /// Host names and addresses, one of which a client's certificate must bear; empty: any.
    pub client_allowed_sans: Vec<String>,
    /// Default TLS 1.2.
    pub min_version: TlsVersion,
    /// Default TLS 1.3.
    pub max_version: TlsVersion,
}

/// Who may pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// Names and bcrypt hashes.
    pub basic_auth_users: BTreeMap<String, PasswordHash>,
    /// Files of bearer tokens, one a line.
    pub bearer_token_files: Vec<PathBuf>,
    /// Whoever comes.
    pub anonymous: bool,
}

/// Who may pass which door. Where this is given, a door that names nobody is closed to all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Who may pass every door.
    pub all: AccessConfig,
    /// Who may pass one of [`Door::ALL`], in their order.
    pub doors: [AccessConfig; Door::ALL.len()],
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoorsConfig {
    /// `None`: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// `None`: nobody is asked.
    pub auth: Option<AuthConfig>,
    /// Headers of every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The `--web.config.file` this was read from.
    pub own_file: Option<PathBuf>,
}
