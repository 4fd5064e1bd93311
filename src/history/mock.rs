//! A remote-read server that answers as a test tells it to, and remembers what it was asked.

use super::remote_read::{RemoteReadConfig, Source};
use crate::outbound::HttpConfig;
use crate::time::Span;
use crate::wire::proto::v1;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use std::sync::Arc;
use tokio::net::TcpListener;

pub const CHUNKS: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
pub const SAMPLES: &str = "application/x-protobuf";

/// Status, content type, body.
pub type Reply = (u16, &'static str, Vec<u8>);

pub struct Mock {
    pub config: RemoteReadConfig,
    pub asked: Arc<Mutex<Vec<(HeaderMap, v1::ReadRequest)>>>,
}

impl Mock {
    pub async fn start(answer: impl Fn(&v1::ReadRequest) -> Reply + Send + Sync + 'static) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), log.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, log) = (answer.clone(), log.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!(head.uri.path(), "/api/v1/read");
                        let body = body.collect().await.expect("whole").to_bytes();
                        let raw = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
                        let read = v1::ReadRequest::decode(&raw[..]).expect("a request");
                        let (status, kind, body) = answer(&read);
                        log.lock().push((head.headers, read));
                        let response = Response::builder().status(status).header("content-type", kind);
                        response.body(Full::new(Bytes::from(body)))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let http = HttpConfig {
            headers: vec![("X-Scope-OrgID".into(), "team".into())],
            ..HttpConfig::plain(url, Span::seconds(20))
        };
        Mock { config: RemoteReadConfig { http, required_matchers: Vec::new() }, asked }
    }

    pub fn source(&self) -> Source {
        Source::new(&self.config).expect("valid")
    }
}
