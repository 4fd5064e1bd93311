//! The other side of HTTP requests. Redirects are never followed.

use super::auth::Authenticator;
use super::{Auth, HttpConfig, OutboundError, Secret, tls};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::io::ErrorKind;
use std::time::Duration;

pub(super) type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

const AGENT: &str = concat!("oddity/", env!("CARGO_PKG_VERSION"));
/// Headers that `headers` must not set, as in Prometheus.
const RESERVED: [&str; 17] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "www-authenticate",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
];

/// No answer came. The text holds neither secrets nor URLs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody listens there.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A server to which bodies are posted.
pub struct Peer {
    http: Http,
    uri: Uri,
    headers: HeaderMap,
    auth: Authenticator,
    timeout: Duration,
}

impl Peer {
    /// The server that is configured.
    ///
    /// # Errors
    /// A URL, a header or TLS files that cannot be used.
    pub fn new(config: &HttpConfig) -> Result<Peer, OutboundError> {
        let (uri, user) = split_user(&config.url)?;
        let mut auth = config.auth.clone();
        if let (Auth::None, Some((username, password))) = (&auth, user) {
            auth = Auth::Basic { username, password: password.map(Secret::Inline) };
        }
        let mut https = uri.scheme_str() == Some("https");
        if let Auth::OAuth2 { token_url, .. } = &auth {
            let (token_uri, _) = split_user(token_url)?;
            https |= token_uri.scheme_str() == Some("https");
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let wrong = || OutboundError::Header(name.clone());
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            if RESERVED.contains(&header.as_str()) {
                return Err(wrong());
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.append(header, value);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let timeout = config.timeout.as_std();
        let connector = tls::connector(&config.tls, https, timeout)?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        Ok(Peer { http, uri, headers, auth: Authenticator::new(auth), timeout })
    }

    /// How long it may take to answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Posts a body with these headers beside the configured ones and gives the answer as it begins to
    /// come, whatever its status. A refused OAuth 2.0 token is renewed once. The timeout is the caller's.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(
        &self,
        body: &Bytes,
        headers: &[(&'static str, HeaderValue)],
    ) -> Result<Response<Incoming>, SendError> {
        let answer = self.once(body, headers).await?;
        if answer.status() != 401 || !self.auth.renewable() {
            return Ok(answer);
        }
        self.auth.forget().await;
        self.once(body, headers).await
    }

    async fn once(
        &self,
        body: &Bytes,
        more: &[(&'static str, HeaderValue)],
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        for (name, value) in more {
            headers.insert(*name, value.clone());
        }
        if let Some(value) = self.auth.header(&self.http).await? {
            headers.insert(AUTHORIZATION, value);
        }
        self.http.request(request).await.map_err(|error| match is_refused(&error) {
            true => SendError::Refused(causes(&error)),
            false => SendError::Failed(causes(&error)),
        })
    }
}

/// Whether a connection was refused.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The start of an error's body, on one line.
pub fn excerpt(body: &[u8]) -> String {
    const BYTES: usize = 2048;
    const CHARACTERS: usize = 300;
    let text = String::from_utf8_lossy(body.get(..BYTES).unwrap_or(body));
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARACTERS).collect()
}

/// An error and its causes, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

type User = Option<(String, Option<String>)>;

/// Takes user and password out of a URL: they go into a header, and never into a message.
fn split_user(url: &str) -> Result<(Uri, User), OutboundError> {
    let wrong = |what: &str| OutboundError::Url(what.to_string());
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("must begin with http:// or https://"));
    }
    let mut parts = uri.into_parts();
    let authority = parts.authority.take().ok_or_else(|| wrong("has no host"))?;
    let (user, host) = match authority.as_str().rsplit_once('@') {
        Some((user, host)) => (Some(user.to_string()), host),
        None => (None, authority.as_str()),
    };
    parts.authority = Some(host.parse().map_err(|_| wrong("has no host"))?);
    parts.path_and_query.get_or_insert(hyper::http::uri::PathAndQuery::from_static("/"));
    let user = user.map(|user| match user.split_once(':') {
        Some((name, password)) => (percent_decode(name), Some(percent_decode(password))),
        None => (percent_decode(&user), None),
    });
    Ok((Uri::from_parts(parts).map_err(|_| wrong("not a URL"))?, user))
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                out.push(code);
                rest = tail.get(2..).unwrap_or(&[]);
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b" <h1>Bad\n\tgateway</h1>\xff\n"), "<h1>Bad gateway</h1>\u{fffd}");
        assert_eq!(excerpt("ä".repeat(5000).as_bytes()), "ä".repeat(300));
    }

    #[test]
    fn a_user_in_the_url_is_taken_out_of_it() {
        let (uri, user) = split_user("http://me:p%40ss:w@host:9090/api/v1/write?x=1").expect("valid");
        assert_eq!(uri.to_string(), "http://host:9090/api/v1/write?x=1");
        assert_eq!(user, Some(("me".into(), Some("p@ss:w".into()))));
        assert_eq!(split_user("https://host").expect("valid").0.path(), "/");
        for wrong in ["ftp://host/", "/path", "http://", "http://user@/x"] {
            assert!(split_user(wrong).is_err(), "{wrong}");
        }
    }
    #[tokio::test]
    async fn a_refused_connection_is_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        drop(listener);
        let peer = Peer::new(&HttpConfig::plain(url, crate::time::Span::SECOND)).expect("valid");
        let error = peer.post(&Bytes::new(), &[]).await.expect_err("nobody listens");
        assert!(matches!(error, SendError::Refused(_)), "{error:?}");
    }
}
