//! The listener's loop: bounded connections, TLS, time limits, and a graceful end.

use super::steady::Steady;
use super::{Api, router};
use crate::secure::connections::{Connection, Ending};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open connections of all listeners; beyond it the one idle for longest goes. Default 1024.
    pub connections: usize,
    /// How long a client may take for the head of a request, and stay idle between two. Default 60 s.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a client may read nothing of what it is sent. Default 30 s.
    pub write_timeout: Duration,
    /// Bytes of a request's head. Default 64 KiB. It has at most 100 headers.
    pub head_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections: 1024,
            header_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            head_bytes: 64 << 10,
        }
    }
}

/// Whoever asks.
pub(super) struct Visitor {
    pub connection: Connection,
    pub peer: SocketAddr,
}

/// Serves until `stop` becomes true, then accepts no more, finishes the requests in flight and
/// returns.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let places = api.doors.connections();
    places.set_max(limits.connections);
    let mut connections = JoinSet::new();
    let each = stop.clone();
    let mut stopped = pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => if let Some(connection) = places.enter(peer) {
                    let visitor = Arc::new(Visitor { connection, peer });
                    connections.spawn(connected(stream, visitor, Arc::clone(&api), limits, each.clone()));
                },
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connected(
    stream: TcpStream,
    visitor: Arc<Visitor>,
    api: Arc<Api>,
    limits: ServerLimits,
    stop: watch::Receiver<bool>,
) {
    // Only latency is lost where the platform refuses.
    let _ = stream.set_nodelay(true);
    let stream = Steady::new(stream, limits.write_timeout);
    let place = Arc::clone(&visitor);
    let serving = async {
        api.look_at_files().await;
        let Some(tls) = api.doors.tls() else {
            return http(stream, visitor, Arc::clone(&api), limits, stop).await;
        };
        let handshake = tokio::time::timeout(limits.handshake_timeout, TlsAcceptor::from(tls).accept(stream));
        match handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) if api.doors.welcomes(stream.get_ref().1.peer_certificates()) => {
                http(stream, visitor, Arc::clone(&api), limits, stop).await;
            }
            Ok(_) => {
                api.doors.handshake_failed(visitor.peer, "a certificate that is not in client_allowed_sans")
            }
            Err(error) => api.doors.handshake_failed(visitor.peer, &error.to_string()),
        }
    };
    tokio::select! {
        () = serving => {}
        () = place.connection.told_to_leave() => tracing::debug!(peer = %place.peer, "connection closed for another"),
    }
}

async fn http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    visitor: Arc<Visitor>,
    api: Arc<Api>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let all = Arc::clone(api.doors.connections());
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, visitor) = (Arc::clone(&api), Arc::clone(&visitor));
        async move {
            let answer = router::answer(&api, &visitor, request).await;
            visitor.connection.touch();
            Ok::<Response<_>, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.head_bytes)
        .max_buf_size(2 * limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients that hang up or send what is not HTTP are their own affair.
        tracing::debug!(%error, "connection ended");
        if let Some(ending) = ending(&error) {
            all.ended(ending);
        }
    }
}

/// Which bound ended a connection, if it was one.
fn ending(error: &hyper::Error) -> Option<Ending> {
    let stalled = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    if stalled.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
        Some(Ending::WriteTimeout)
    } else if error.is_timeout() {
        Some(Ending::HeadTimeout)
    } else if error.is_parse_too_large() {
        Some(Ending::HeadTooLarge)
    } else if error.is_parse() {
        Some(Ending::NotHttp)
    } else {
        None
    }
}

impl Api {
    /// Looks whether certificates or tokens have changed, where that is due.
    pub(super) async fn look_at_files(&self) {
        if self.doors.due() {
            let doors = Arc::clone(&self.doors);
            if let Err(error) = tokio::task::spawn_blocking(move || doors.look()).await {
                tracing::error!(%error, "looking at files failed; this is a bug");
                self.doors.metrics().files_ok.store(false, Relaxed);
            }
        }
    }
}
