//! A receiver that answers as a test tells it to, and remembers what it got.

use super::config::*;
use crate::wire::proto;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// A sample as received: its labels as text, its time, its value.
pub type Got = (String, i64, f64);

#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub path: String,
    pub bytes: Bytes,
    pub v2: bool,
    pub samples: Vec<Got>,
}

pub const TYPE_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn decode(headers: &HeaderMap, bytes: &Bytes) -> (bool, Vec<Got>) {
    let v2 = headers.get("content-type").is_some_and(|kind| kind == TYPE_2);
    let Ok(raw) = snap::raw::Decoder::new().decompress_vec(bytes) else { return (v2, Vec::new()) };
    let mut got = Vec::new();
    if v2 {
        let request = proto::v2::Request::decode(raw.as_slice()).expect("2.0");
        assert_eq!(request.symbols.first().map(String::as_str), Some(""));
        for series in request.timeseries {
            let text = series.labels_refs.chunks(2).map(|pair| {
                format!("{}={}", request.symbols[pair[0] as usize], request.symbols[pair[1] as usize])
            });
            let text = text.collect::<Vec<_>>().join(",");
            got.extend(series.samples.iter().map(|point| (text.clone(), point.timestamp, point.value)));
        }
    } else {
        for series in proto::v1::WriteRequest::decode(raw.as_slice()).expect("1.0").timeseries {
            let text = series.labels.iter().map(|label| format!("{}={}", label.name, label.value));
            let text = text.collect::<Vec<_>>().join(",");
            got.extend(series.samples.iter().map(|point| (text.clone(), point.timestamp, point.value)));
        }
    }
    (v2, got)
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub delay: Duration,
    /// Close the connection instead.
    pub reset: bool,
}

pub fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO, reset: false }
}

impl Reply {
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What a receiver of both protocols answers when all is well.
pub fn accept(received: &Received) -> Reply {
    let reply = reply(204);
    if received.v2 {
        return reply.with("X-Prometheus-Remote-Write-Samples-Written", received.samples.len());
    }
    reply
}

type Script = dyn Fn(usize, &Received) -> Reply + Send + Sync;

#[derive(Clone)]
pub struct Mock {
    pub received: Arc<Mutex<Vec<Received>>>,
    /// Connections: when there is none, nothing that was sent will be taken later.
    pub open: Arc<AtomicUsize>,
    pub address: std::net::SocketAddr,
}

impl Mock {
    /// Answers request `n` (from 0) by `script(n, request)`.
    pub async fn new(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let mock = Mock { received: Arc::default(), open: Arc::default(), address };
        let (received, script): (_, Arc<Script>) = (mock.received.clone(), Arc::new(script));
        let open = mock.open.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (received, script, open) = (received.clone(), script.clone(), open.clone());
                open.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    serve(stream, received, script).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        mock
    }

    /// The same over TLS.
    pub async fn tls(
        config: rustls::ServerConfig,
        script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let mock = Mock { received: Arc::default(), open: Arc::default(), address };
        let (received, script): (_, Arc<Script>) = (mock.received.clone(), Arc::new(script));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, received, script) = (acceptor.clone(), received.clone(), script.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, received, script).await;
                    }
                });
            }
        });
        mock
    }

    /// A configuration that writes here, with short waits.
    pub fn config(&self) -> RemoteWriteConfig {
        let url = format!("http://{}/api/v1/write", self.address);
        let http = HttpConfig {
            name: self.address.to_string(),
            ..HttpConfig::plain(url, crate::time::Span::seconds(20))
        };
        RemoteWriteConfig {
            queue: QueueConfig {
                batch_send_deadline: crate::time::Span(5),
                min_backoff: crate::time::Span(1),
                max_backoff: crate::time::Span(5),
                ..QueueConfig::default()
            },
            ..RemoteWriteConfig::new(http)
        }
    }

    /// The same, with another name, credentials and so on.
    pub fn config_with(&self, change: impl FnOnce(&mut HttpConfig)) -> RemoteWriteConfig {
        let mut config = self.config();
        change(&mut config.http);
        config
    }

    pub fn requests(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Script>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (received, script) = (received.clone(), script.clone());
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let (v2, samples) = decode(&head.headers, &bytes);
            let path = head.uri.path().to_string();
            let got = Received { headers: head.headers, path, bytes, v2, samples };
            let reply = {
                let mut all = received.lock();
                let reply = script(all.len(), &got);
                all.push(got);
                reply
            };
            tokio::time::sleep(reply.delay).await;
            if reply.reset {
                return Err(std::io::Error::other("reset"));
            }
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            response.body(Full::new(Bytes::from(reply.body))).map_err(std::io::Error::other)
        }
    });
    // A connection that ends badly is the test's own doing.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
