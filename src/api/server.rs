//! The listener's loop: bounded connections, time limits, and a graceful end.

use super::{Api, router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open connections; more are closed at once. Default 1024.
    pub connections: usize,
    /// How long a client may take for the head of a request, and stay idle between two. Default 60 s.
    pub header_timeout: Duration,
    /// Bytes of a request's head. Default 64 KiB.
    pub head_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits { connections: 1024, header_timeout: Duration::from_secs(60), head_bytes: 64 << 10 }
    }
}

/// Serves until `stop` becomes true, then accepts no more, finishes the requests in flight and
/// returns.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let each = stop.clone();
    let mut stopped = pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => {
                        let connection = connection(stream, slot, Arc::clone(&api), limits, each.clone());
                        connections.spawn(connection);
                    }
                    Err(_) => tracing::warn!(%peer, limit = limits.connections, "too many connections"),
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

async fn connection(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    api: Arc<Api>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    // Only latency is lost where the platform refuses.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<Response<_>, Infallible>(router::route(&api, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.head_bytes)
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
    }
}
