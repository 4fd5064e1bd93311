//! One connection to a remote-write receiver, which retries as Prometheus does.

use super::{SimulateError, Trouble};
use crate::outbound::causes;
use crate::wire::Version;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// First and longest wait before a retry, as Prometheus has them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(5));
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `Retry-After` that is believed.
const LONGEST_RETRY_AFTER: u64 = 60;
/// How often it is looked whether a stop is asked for.
const LOOK: Duration = Duration::from_millis(100);
/// How much of an answer is read: its message.
const ANSWER_LIMIT: usize = 64 << 10;

/// A receiver's address.
///
/// # Errors
/// It is not an http or https URL.
pub fn address(url: &str) -> Result<Uri, String> {
    let uri = url.parse::<Uri>().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| "expected a URL such as http://host:port/path or https://host/path".to_string())
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The status of the last answer; 0 when there was none.
    pub status: u16,
    /// Tries before the last.
    pub retries: u64,
    /// Time from the first try to the last answer.
    pub took: Duration,
    /// What the receiver said when it refused.
    pub message: String,
}

impl Sent {
    /// Whether it was accepted.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether another try might have succeeded, but there was none any more.
    pub fn given_up(&self) -> bool {
        is_retried(self.status)
    }
}

/// Sends bodies to one receiver, one at a time, so that the order of each series holds.
#[derive(Clone)]
pub struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    version: Version,
    patience: Duration,
}

impl Sender {
    /// A sender. It gives a request up after `patience` of failed tries.
    ///
    /// # Errors
    /// The address is not an http or https URL, or the system's certificates cannot be read.
    pub fn new(url: &str, version: Version, patience: Duration) -> Result<Sender, SimulateError> {
        let uri = address(url).map_err(|what| SimulateError::Url { url: url.to_string(), what })?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Sender { client, uri, version, patience })
    }

    fn request(&self, frame: Bytes, attempt: u64) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let (kind, version) = match self.version {
            Version::V1 => ("application/x-protobuf", "0.1.0"),
            Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header("Content-Type", kind)
            .header("Content-Encoding", "snappy")
            .header("User-Agent", concat!("oddity-simulate/", env!("CARGO_PKG_VERSION")))
            .header("X-Prometheus-Remote-Write-Version", version);
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt.to_string());
        }
        request.body(Full::new(frame))
    }

    /// Sends one compressed body; 5xx, 429 and lost connections are retried.
    pub async fn send(&self, frame: Bytes) -> Sent {
        self.send_until(frame, &AtomicBool::new(false), &Trouble::default()).await
    }

    /// The same; tells of every failed try, and tries no more once `stop` is set.
    pub async fn send_until(&self, frame: Bytes, stop: &AtomicBool, trouble: &Trouble) -> Sent {
        let started = Instant::now();
        let mut wait = BACKOFF.0;
        let (mut retries, mut last) = (0, (0, String::new()));
        loop {
            let answer = tokio::select! {
                answer = self.attempt(frame.clone(), retries) => Some(answer),
                // A first try is let finish: it may well succeed.
                () = set(stop), if retries > 0 => None,
            };
            let after = answer.and_then(|(status, message, after)| {
                if !(200..300).contains(&status) {
                    trouble.failed(status, &message);
                }
                last = (status, message);
                after
            });
            let pause = after.unwrap_or(wait);
            let late = started.elapsed() + pause > self.patience;
            if !is_retried(last.0) || late || stop.load(Ordering::Relaxed) {
                let (status, message) = last;
                return Sent { status, retries, took: started.elapsed(), message };
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = set(stop) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
            retries += 1;
        }
    }

    async fn attempt(&self, frame: Bytes, attempt: u64) -> (u16, String, Option<Duration>) {
        let request = match self.request(frame, attempt) {
            Ok(request) => request,
            Err(error) => return (0, error.to_string(), None),
        };
        match tokio::time::timeout(TIMEOUT, self.exchange(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(message)) => (0, message, None),
            Err(_) => (0, "no answer in time".into(), None),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, String, Option<Duration>), String> {
        let answer = self.client.request(request).await.map_err(|error| causes(&error))?;
        let (head, body) = answer.into_parts();
        let after = retry_after(&head.headers);
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| error.to_string())?;
        let message = String::from_utf8_lossy(&body.to_bytes()).trim().to_string();
        Ok((head.status.as_u16(), message, after))
    }

    /// Reads a page of the same server.
    ///
    /// # Errors
    /// The request's error, or its status when it is not 200.
    pub async fn get(&self, path: &str, limit: usize) -> Result<String, SimulateError> {
        let failed = |what: String| SimulateError::Send(format!("GET {path}: {what}"));
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|error| failed(format!("{error}")))?);
        let uri = Uri::from_parts(parts).map_err(|error| failed(error.to_string()))?;
        let request = Request::get(uri).body(Full::default()).map_err(|error| failed(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| failed(causes(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if status != hyper::StatusCode::OK {
            return Err(failed(status.to_string()));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn is_retried(status: u16) -> bool {
    status == 0 || status == 429 || status >= 500
}

/// Waits until a stop is asked for.
async fn set(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}

fn retry_after(headers: &HeaderMap<HeaderValue>) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_RETRY_AFTER)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection's requests with the given statuses, in order.
    async fn receiver(answers: Vec<&'static str>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.expect("accepts");
                let mut got = Vec::new();
                while !got.ends_with(b"body") {
                    let mut part = [0; 4096];
                    let n = socket.read(&mut part).await.expect("reads");
                    got.extend_from_slice(&part[..n]);
                }
                let head = format!("HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nsaid");
                socket.write_all(head.as_bytes()).await.expect("writes");
            }
        });
        format!("http://{address}/api/v1/write")
    }

    #[tokio::test]
    async fn overload_is_retried_and_a_refusal_is_not() {
        let url = receiver(vec!["503 Busy", "500 Broken", "204 No", "400 Bad"]).await;
        let sender = Sender::new(&url, Version::V2, Duration::from_secs(20)).expect("valid");
        let sent = sender.send(Bytes::from_static(b"body")).await;
        assert_eq!((sent.status, sent.retries, sent.accepted()), (204, 2, true));
        let sent = sender.send(Bytes::from_static(b"body")).await;
        assert_eq!((sent.status, sent.retries, sent.message.as_str()), (400, 0, "said"));
    }

    #[tokio::test]
    async fn failed_tries_are_told_and_end_when_they_shall() {
        let url = receiver(vec!["503 Busy", "204 No"]).await;
        let sender = Sender::new(&url, Version::V2, Duration::from_secs(20)).expect("valid");
        let (go, trouble) = (AtomicBool::new(false), Trouble::default());
        assert!(sender.send_until(Bytes::from_static(b"body"), &go, &trouble).await.accepted());
        assert_eq!((trouble.tries(), trouble.last().as_str()), (1, "503 said"));

        // Nobody listens there: without the stop it would go on for an hour.
        let sender =
            Sender::new("http://127.0.0.1:1/", Version::V2, Duration::from_secs(3600)).expect("valid");
        let (stop, trouble) = (AtomicBool::new(false), Trouble::default());
        let (sent, ()) =
            tokio::join!(sender.send_until(Bytes::from_static(b"body"), &stop, &trouble), async {
                while trouble.tries() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stop.store(true, Ordering::Relaxed);
            });
        assert!(sent.given_up() && !sent.accepted() && sent.status == 0 && trouble.tries() >= 2);
        assert!(trouble.last().starts_with("no answer: "), "{}", trouble.last());
    }

    #[test]
    fn addresses_that_are_no_urls_are_refused() {
        for url in ["", "localhost:9090", "ftp://host/", "/api/v1/write"] {
            assert!(Sender::new(url, Version::V1, Duration::ZERO).is_err(), "{url:?}");
        }
    }
}
