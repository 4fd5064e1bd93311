//! Where a request goes and who sends it, with Prometheus's names and defaults.

use crate::time::Span;
use hyper::Uri;
use std::fmt;
use std::path::PathBuf;

/// The other side of HTTP requests.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// `http` or `https`.
    pub url: String,
    /// `name`; default the URL without its query.
    pub name: String,
    /// `remote_timeout`
    pub timeout: Span,
    /// `headers`
    pub headers: Vec<(String, String)>,
    /// Who we are.
    pub auth: Auth,
    /// `tls_config`
    pub tls: TlsConfig,
}

impl HttpConfig {
    /// A server that is asked without credentials, by the system's certificates. Its name is the URL
    /// without user, password and query.
    pub fn plain(url: impl Into<String>, timeout: Span) -> HttpConfig {
        let url = url.into();
        HttpConfig {
            name: shown(&url),
            url,
            timeout,
            headers: Vec::new(),
            auth: Auth::None,
            tls: TlsConfig::default(),
        }
    }
}

/// A URL as it may be shown: without user, password and query.
pub(crate) fn shown(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "<not a URL>".into() };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

/// A URL without its query, which may hold a key.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// The names of pairs whose values may be secret.
pub(crate) fn names(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(name, _)| name.as_str()).collect()
}

impl fmt::Debug for HttpConfig {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpConfig { url, name, timeout, headers, auth, tls } = self;
        f.debug_struct("HttpConfig")
            .field("url", &shown(url))
            .field("name", name)
            .field("timeout", timeout)
            .field("headers", &names(headers))
            .field("auth", auth)
            .field("tls", tls)
            .finish()
    }
}

/// A secret: given in the file, or in a file of its own that is read at each use.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Inline(String),
    /// A file that holds it; surrounding white space is dropped.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("<secret>"),
            Secret::File(path) => write!(f, "<secret in {}>", path.display()),
        }
    }
}

/// How a client proves who it is. At most one may be set.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// `basic_auth`
    Basic {
        /// User name.
        username: String,
        /// Password; may be absent.
        password: Option<Secret>,
    },
    /// `authorization`
    Header {
        /// `type`, default `Bearer`.
        scheme: String,
        /// `credentials` or `credentials_file`.
        credentials: Secret,
    },
    /// `oauth2`, the client-credentials grant.
    OAuth2 {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: Secret,
        /// Token endpoint.
        token_url: String,
        /// Scopes.
        scopes: Vec<String>,
        /// More parameters of the token request.
        endpoint_params: Vec<(String, String)>,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::Basic { username, password } => {
                f.debug_struct("Basic").field("username", username).field("password", password).finish()
            }
            Auth::Header { scheme, credentials } => {
                f.debug_struct("Header").field("scheme", scheme).field("credentials", credentials).finish()
            }
            Auth::OAuth2 { client_id, client_secret, token_url, scopes, endpoint_params } => f
                .debug_struct("OAuth2")
                .field("client_id", client_id)
                .field("client_secret", client_secret)
                .field("token_url", &shown(token_url))
                .field("scopes", scopes)
                .field("endpoint_params", &names(endpoint_params))
                .finish(),
        }
    }
}

/// `tls_config`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// CA certificates (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// Client key (PEM).
    pub key_file: Option<PathBuf>,
    /// Name to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Do not verify the certificate.
    pub insecure_skip_verify: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_secret() {
        for (url, expected) in [
            ("http://me:pass@host:9090/api/v1/write?key=pass#pass", "http://host:9090/api/v1/write"),
            ("https://[::1]:9090", "https://[::1]:9090/"),
            ("http://me:pa ss@host/", "<not a URL>"),
        ] {
            assert_eq!(shown(url), expected);
        }
        let config = HttpConfig {
            headers: vec![("X-Key".into(), "pass".into())],
            auth: Auth::Basic { username: "me".into(), password: Some(Secret::Inline("pass".into())) },
            ..HttpConfig::plain("http://host/x?key=pass", Span::SECOND)
        };
        assert_eq!(config.name, "http://host/x");
        let text = format!("{config:?}");
        assert!(
            text.contains("http://host/x") && text.contains("X-Key") && !text.contains("pass\""),
            "{text}"
        );
    }
}
