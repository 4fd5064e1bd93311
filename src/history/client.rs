//! A small client of Prometheus's HTTP API. Redirects are not followed.

use crate::outbound::{causes, excerpt};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::http::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Bytes of one answer.
const MAX_ANSWER: usize = 512 << 20;
const TIMEOUT: Duration = Duration::from_secs(120);

/// What went wrong with Prometheus.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A URL that cannot be used.
    #[error("expected a URL such as http://localhost:9090, without user and password")]
    Url,
    /// The system has no certificates.
    #[error("no certificates to verify it with: {0}")]
    Roots(String),
    /// It cannot be reached.
    #[error("cannot be reached: {0}")]
    Send(String),
    /// It took too long.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    /// Its answer is larger than can be held.
    #[error("the answer is larger than {} MiB", MAX_ANSWER >> 20)]
    Large,
    /// Its answer is no answer.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    /// It refused.
    #[error("answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

impl ClientError {
    /// Whether a smaller question may be answered.
    pub fn too_much(&self) -> bool {
        match self {
            ClientError::Late | ClientError::Large => true,
            // Prometheus: 422 for too many samples, 503 for a query's own timeout.
            ClientError::Status { status, message } => {
                *status == 503 || *status == 504 || (*status == 422 && message.contains("too many samples"))
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Answer<T> {
    status: String,
    #[serde(default = "Option::default")]
    data: Option<T>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The client of one server.
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

impl Client {
    /// The client of the server at this URL, `http` or `https`.
    ///
    /// # Errors
    /// A URL that cannot be used; no certificates for `https`.
    pub fn new(url: &str) -> Result<Client, ClientError> {
        let base = url.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| ClientError::Url)?;
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !plain || uri.query().is_some() {
            return Err(ClientError::Url);
        }
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = match uri.scheme_str() {
            Some("https") => builder
                .with_provider_and_native_roots(provider)
                .map_err(|error| ClientError::Roots(error.to_string()))?,
            // Reading the system's store takes its time: not for plain http.
            Some("http") => builder.with_tls_config(
                rustls::ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(|error| ClientError::Roots(error.to_string()))?
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            ),
            _ => return Err(ClientError::Url),
        };
        let connector = builder.https_or_http().enable_http1().build();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Client { http, base: base.to_string() })
    }

    /// Asks `path` (below the URL) with a form and gives `data` of the answer.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let form: Vec<String> =
            form.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
        let form = form.join("&");
        // POST: a long query fits no URL. Who takes no POST is asked again by GET, as Grafana does.
        let (mut status, mut body) = self.once(Method::POST, path, &form).await?;
        if matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            (status, body) = self.once(Method::GET, path, &form).await?;
        }
        if !status.is_success() {
            let message = match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) => refusal.error,
                Err(_) => excerpt(&body),
            };
            return Err(ClientError::Status { status: status.as_u16(), message });
        }
        let answer = serde_json::from_slice::<Answer<T>>(&body)
            .map_err(|error| ClientError::Answer(format!("is it a Prometheus? {error}")))?;
        match answer.data {
            Some(data) if answer.status == "success" => Ok(data),
            _ => Err(ClientError::Status { status: status.as_u16(), message: answer.error }),
        }
    }

    async fn once(&self, method: Method, path: &str, form: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let get = method == Method::GET;
        let url = format!("{}{path}{}{}", self.base, if get { "?" } else { "" }, if get { form } else { "" });
        let body = if get { Bytes::new() } else { Bytes::from(form.to_string()) };
        let mut request =
            Request::builder().method(method).uri(url).header(header::ACCEPT, "application/json");
        if !get {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(body)).map_err(|_| ClientError::Url)?;
        let exchange = async {
            let answer =
                self.http.request(request).await.map_err(|error| ClientError::Send(causes(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
                Ok(_) => ClientError::Large,
                Err(error) => ClientError::Answer(error.to_string()),
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| ClientError::Late)?
    }
}

/// Percent-encodes a form's name or value.
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_taken() {
        for url in ["http://localhost:9090", "http://localhost:9090/prom/"] {
            assert!(Client::new(url).is_ok(), "{url}");
        }
        for url in ["", "localhost:9090", "ftp://x", "http://me:pw@x", "http://x/?a=1", "/path"] {
            assert!(matches!(Client::new(url), Err(ClientError::Url)), "{url}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(percent("up{a=\"é\"}[1h] + 1"), "up%7Ba%3D%22%C3%A9%22%7D%5B1h%5D%20%2B%201");
    }

    #[test]
    fn what_may_be_asked_in_smaller_parts() {
        let status = |status, message: &str| ClientError::Status { status, message: message.into() };
        assert!(status(422, "query processing would load too many samples into memory").too_much());
        assert!(status(503, "query timed out").too_much() && ClientError::Large.too_much());
        assert!(!status(400, "parse error").too_much() && !status(422, "parse error").too_much());
    }
}
