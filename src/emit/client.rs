//! One target's HTTP client.

use super::backoff;
use super::request::Body;
use crate::outbound::{self, HttpConfig, OutboundError, Peer, SendError};
use crate::wire::Version;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use std::time::{Duration, SystemTime};

const V1: &str = "application/x-protobuf";
/// Without a space: Prometheus takes `; proto=` for 1.0 and loses the data.
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const MAX_ANSWER: usize = 64 << 10;
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

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
    peer: Peer,
}

impl Client {
    /// The client of a target.
    ///
    /// # Errors
    /// A URL, a header or TLS files that cannot be used.
    pub fn new(config: &HttpConfig) -> Result<Client, OutboundError> {
        Ok(Client { peer: Peer::new(config)? })
    }

    /// Sends a body; `attempt` is 0 for the first time.
    ///
    /// # Errors
    /// No answer within the timeout.
    pub async fn send(&self, body: &Body, attempt: u32) -> Result<Answer, SendError> {
        let timeout = self.peer.timeout();
        match tokio::time::timeout(timeout, self.exchange(body, attempt)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Failed(format!("no answer within {timeout:?}"))),
        }
    }

    async fn exchange(&self, body: &Body, attempt: u32) -> Result<Answer, SendError> {
        let (kind, version) = match body.version {
            Version::V1 => (V1, "0.1.0"),
            Version::V2 => (V2, "2.0.0"),
        };
        let mut headers = vec![
            ("content-encoding", HeaderValue::from_static("snappy")),
            ("content-type", HeaderValue::from_static(kind)),
            ("x-prometheus-remote-write-version", HeaderValue::from_static(version)),
        ];
        if attempt > 0 {
            headers.push(("retry-attempt", HeaderValue::from(attempt)));
        }
        Ok(read(self.peer.post(&body.bytes, &headers).await?).await)
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
        message = outbound::excerpt(&body.to_bytes());
    }
    Answer { status: head.status.as_u16(), written, retry_after, message }
}
