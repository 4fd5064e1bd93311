//! One target's HTTP client. Redirects are never followed.

use super::EmitError;
use super::auth::Authenticator;
use super::backoff;
use super::config::{Auth, RemoteWriteConfig, Secret};
use super::request::Body;
use super::tls;
use crate::wire::Version;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::{Duration, SystemTime};

pub(super) type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

const V1: &str = "application/x-protobuf";
/// Without a space: Prometheus takes `; proto=` for 1.0 and loses the data.
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const AGENT: &str = concat!("oddity/", env!("CARGO_PKG_VERSION"));
const MAX_ANSWER: usize = 64 << 10;
const MAX_MESSAGE: usize = 300;
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];
/// Headers that `headers` must not set, as in Prometheus.
const RESERVED: [&str; 16] = [
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
    "x-prometheus-remote-write-version",
];

/// No answer came. The text holds neither secrets nor URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError(pub String);

/// What the receiver said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Samples written, where any of the `Written` headers is there (a missing one means 0).
    pub written: Option<u64>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The start of the body of an error, on one line.
    pub message: String,
}

/// A client.
pub struct Client {
    http: Http,
    uri: Uri,
    headers: HeaderMap,
    auth: Authenticator,
    timeout: Duration,
}

impl Client {
    /// The client of a target.
    ///
    /// # Errors
    /// A URL, a header or TLS files that cannot be used.
    pub fn new(config: &RemoteWriteConfig) -> Result<Client, EmitError> {
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
            let wrong = || EmitError::Header(name.clone());
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            if RESERVED.contains(&header.as_str()) {
                return Err(wrong());
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.append(header, value);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        let timeout = config.remote_timeout.as_std();
        let connector = tls::connector(&config.tls, https, timeout)?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        Ok(Client { http, uri, headers, auth: Authenticator::new(auth), timeout })
    }

    /// Sends a body; `attempt` is 0 for the first time. A refused OAuth 2.0 token is renewed once.
    ///
    /// # Errors
    /// No answer within the timeout.
    pub async fn send(&self, body: &Body, attempt: u32) -> Result<Answer, SendError> {
        match tokio::time::timeout(self.timeout, self.exchange(body, attempt)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn exchange(&self, body: &Body, attempt: u32) -> Result<Answer, SendError> {
        let answer = self.once(body, attempt).await?;
        if answer.status != 401 || !self.auth.renewable() {
            return Ok(answer);
        }
        self.auth.forget().await;
        self.once(body, attempt).await
    }

    async fn once(&self, body: &Body, attempt: u32) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::new(body.bytes.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        let (kind, version) = match body.version {
            Version::V1 => (V1, "0.1.0"),
            Version::V2 => (V2, "2.0.0"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static(version));
        if attempt > 0 {
            headers.insert("retry-attempt", HeaderValue::from(attempt));
        }
        if let Some(value) = self.auth.header(&self.http).await? {
            headers.insert(AUTHORIZATION, value);
        }
        let response = self.http.request(request).await.map_err(|error| SendError(chain(&error)))?;
        Ok(read(response).await)
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let written = WRITTEN
        .iter()
        .any(|name| head.headers.contains_key(*name))
        .then(|| header(WRITTEN[0]).and_then(|value| value.trim().parse().ok()).unwrap_or(0));
    let retry_after =
        header(RETRY_AFTER.as_str()).and_then(|value| backoff::retry_after(value, SystemTime::now()));
    // The status stands even if the body breaks off; reading it keeps the connection usable.
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let mut message = String::new();
    if !head.status.is_success()
        && let Ok(body) = body
    {
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        message = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_MESSAGE).collect();
    }
    Answer { status: head.status.as_u16(), written, retry_after, message }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
fn split_user(url: &str) -> Result<(Uri, User), EmitError> {
    let wrong = |what: &str| EmitError::Url(what.to_string());
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
    fn a_user_in_the_url_is_taken_out_of_it() {
        let (uri, user) = split_user("http://me:p%40ss:w@host:9090/api/v1/write?x=1").expect("valid");
        assert_eq!(uri.to_string(), "http://host:9090/api/v1/write?x=1");
        assert_eq!(user, Some(("me".into(), Some("p@ss:w".into()))));
        assert_eq!(split_user("https://host").expect("valid").0.path(), "/");
        for wrong in ["ftp://host/", "/path", "http://", "http://user@/x"] {
            assert!(split_user(wrong).is_err(), "{wrong}");
        }
    }
}
