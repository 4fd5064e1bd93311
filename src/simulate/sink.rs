//! A downstream that only answers, and remembers when scores came: how long it takes from a sample to its
//! score.

use super::SimulateError;
use super::load::Due;
use crate::labels::{NAME, SeriesId, series_id};
use crate::wire::{Batch, DecodeLimits, Encoding, Version, decode, decompress};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Bytes of bodies that are kept to be read later; beyond it every second one is let go.
const KEPT_BYTES: usize = 256 << 20;
/// Longest body.
const BODY_LIMIT: usize = 64 << 20;
/// Longest body, decompressed.
const DECOMPRESSED_LIMIT: usize = 256 << 20;
/// This long without a request and all that was queued has come.
const QUIET: Duration = Duration::from_secs(1);
/// How long it is waited for that.
const PATIENCE: Duration = Duration::from_secs(300);

/// A body as it came.
struct Kept {
    at: Instant,
    version: Version,
    bytes: Bytes,
}

/// What came.
#[derive(Default)]
struct Got {
    requests: u64,
    last: Option<Instant>,
    /// Whether bodies are kept.
    keeping: bool,
    /// Every how manieth is.
    every: u64,
    /// Those that might have been.
    offered: u64,
    bytes: usize,
    kept: Vec<Kept>,
}

impl Got {
    fn take(&mut self, body: Kept) {
        self.requests += 1;
        self.last = Some(body.at);
        if !self.keeping {
            return;
        }
        self.offered += 1;
        if !self.offered.is_multiple_of(self.every.max(1)) {
            return;
        }
        self.bytes += body.bytes.len();
        self.kept.push(body);
        if self.bytes > KEPT_BYTES {
            self.every = self.every.max(1) * 2;
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.bytes = self.kept.iter().map(|body| body.bytes.len()).sum();
        }
    }
}

/// A downstream. It reads bodies and answers 204, and looks into them only when asked, afterwards.
pub struct Sink {
    address: SocketAddr,
    got: Arc<Mutex<Got>>,
    accepting: JoinHandle<()>,
}

impl Sink {
    /// Answers on a listener. Called within a tokio runtime.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn new(listener: TcpListener) -> std::io::Result<Sink> {
        let address = listener.local_addr()?;
        let got = Arc::new(Mutex::new(Got::default()));
        let accepting = tokio::spawn(accept(listener, got.clone()));
        Ok(Sink { address, got, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.got.lock().requests
    }

    /// Waits until nothing comes any more; how long after `since` the last request came.
    ///
    /// # Errors
    /// Requests still come after five minutes.
    pub(super) async fn quiet(&self, since: Instant) -> Result<Duration, SimulateError> {
        let began = Instant::now();
        loop {
            let last = self.got.lock().last.map_or(since, |last| last.max(since));
            let Some(left) = QUIET.checked_sub(last.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(last.saturating_duration_since(since));
            };
            if began.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(SimulateError::Send(format!(
                    "the downstream still gets requests {seconds} s after the last sample"
                )));
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Keeps bodies from here on.
    pub(super) fn keep(&self) {
        let mut got = self.got.lock();
        let requests = got.requests;
        *got = Got { requests, last: got.last, keeping: true, every: 1, ..Got::default() };
    }

    /// Ends keeping; how long it took each score from when its sample was due to be sent. `place` says in
    /// which request of its step a series was sent: (sender, chunk); `time` turns a step into the
    /// timestamp of its samples.
    ///
    /// # Errors
    /// A body that is no remote write request.
    pub(super) fn delays(
        &self,
        due: &[Due],
        place: &HashMap<SeriesId, (u32, u32)>,
        time: impl Fn(i64) -> i64,
    ) -> Result<Vec<Duration>, SimulateError> {
        let kept = {
            let mut got = self.got.lock();
            got.keeping = false;
            got.bytes = 0;
            std::mem::take(&mut got.kept)
        };
        let due: HashMap<(i64, u32, u32), Instant> =
            due.iter().map(|due| ((time(due.step), due.sender as u32, due.chunk as u32), due.at)).collect();
        let mut delays = Vec::new();
        let (mut body, mut batch) = (Vec::new(), Batch::new(0));
        for kept in kept {
            let wrong = |error| SimulateError::Send(format!("the downstream got a broken request: {error}"));
            decompress(Encoding::Snappy, &kept.bytes, DECOMPRESSED_LIMIT, &mut body).map_err(wrong)?;
            decode(kept.version, &body, &DecodeLimits::default(), &mut batch).map_err(wrong)?;
            let mut labels = Vec::new();
            for series in &batch.series {
                let readable = batch.read_labels(series, &body, &mut labels).is_ok();
                let Some(id) = readable.then(|| source(&labels)).flatten() else { continue };
                let Some((sender, chunk)) = place.get(&id) else { continue };
                let samples = batch.samples.get(series.samples.0 as usize..series.samples.1 as usize);
                for sample in samples.unwrap_or_default() {
                    if let Some(at) = due.get(&(sample.timestamp, *sender, *chunk)) {
                        delays.push(kept.at.saturating_duration_since(*at));
                    }
                }
            }
        }
        Ok(delays)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The series of the fleet that a score is of; `None` for what is no score.
fn source(labels: &[(&str, &str)]) -> Option<SeriesId> {
    let get = |name: &str| labels.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
    if get(NAME) != Some("anomaly_score") {
        return None;
    }
    let metric = get("metric")?;
    let mut own: Vec<(&str, &str)> =
        labels.iter().copied().filter(|(name, _)| super::pod::is_label(name)).collect();
    own.push((NAME, metric));
    own.sort_unstable();
    Some(series_id(&own))
}

async fn accept(listener: TcpListener, got: Arc<Mutex<Got>>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, or a peer that has gone: the next may do.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let got = got.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, got.clone()));
            // A connection that breaks is the server's to make anew.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    got: Arc<Mutex<Got>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    if head.method != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return Ok(response);
    }
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let version = if kind.contains("io.prometheus.write.v2.Request") { Version::V2 } else { Version::V1 };
    got.lock().take(Kept { at: Instant::now(), version, bytes: body.to_bytes() });
    *response.status_mut() = StatusCode::NO_CONTENT;
    // How many there are is not looked at: more than were sent means all of them.
    let all = hyper::header::HeaderValue::from(i32::MAX);
    response.headers_mut().insert("x-prometheus-remote-write-samples-written", all);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::{Fleet, FleetOptions, Sender};
    use super::*;
    use crate::wire::{Encoder, MetricKind, Sample, compress_snappy};

    /// A request with a score and a flag for each series of the fleet at a step.
    fn outputs(fleet: &Fleet, version: Version, step: i64) -> Bytes {
        let mut encoder = Encoder::new(version);
        for series in 0..fleet.series() {
            let source = fleet.labels(series, step);
            for name in ["anomaly_score", "anomaly_flag"] {
                let mut labels: Vec<(&str, &str)> =
                    source.iter().skip(1).map(|(name, value)| (name.as_str(), value.as_str())).collect();
                labels.extend([(NAME, name), ("metric", source[0].1.as_str()), ("rule", "x")]);
                labels.sort_unstable();
                let sample = Sample { timestamp: fleet.time(step).0, value: 0.5 };
                encoder.series(labels.into_iter(), MetricKind::Gauge, &[sample]);
            }
        }
        compress_snappy(&encoder.finish()).expect("small").into()
    }

    #[tokio::test]
    async fn scores_are_matched_with_the_requests_their_samples_were_in() {
        let options = FleetOptions { series: 40, churn: 10_000.0, ..FleetOptions::default() };
        let fleet = Fleet::new(options).expect("valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let sink = Sink::new(listener).expect("has an address");
        let url = format!("http://{}/", sink.address());
        let (first, last) = (1_000, 1_002);
        let mut place = HashMap::new();
        for series in 0..40 {
            for id in fleet.ids(series, first, last) {
                place.insert(id, (0, (series / 10) as u32));
            }
        }
        let before = Instant::now();
        let due: Vec<Due> = (first..=last)
            .flat_map(|step| (0..3).map(move |chunk| Due { step, sender: 0, chunk, at: before }))
            .collect();
        for version in [Version::V1, Version::V2] {
            let sender = Sender::new(&url, version, Duration::from_secs(20)).expect("valid");
            sink.keep();
            for step in first - 1..=last {
                assert!(sender.send(outputs(&fleet, version, step)).await.accepted());
            }
            let after = sink.quiet(before).await.expect("quiet");
            let delays = sink.delays(&due, &place, |step| fleet.time(step).0).expect("sound");
            // The step before was not asked for, and the last ten series have no due request.
            assert_eq!(delays.len(), 3 * 30, "{version:?}");
            assert!(delays.iter().all(|delay| *delay <= after));
        }
        assert_eq!(sink.requests(), 8);
    }

    #[test]
    fn what_is_kept_is_bounded_and_even() {
        let mut got = Got { keeping: true, every: 1, ..Got::default() };
        let bytes = Bytes::from(vec![0; KEPT_BYTES / 64]);
        for _ in 0..1_000 {
            got.take(Kept { at: Instant::now(), version: Version::V2, bytes: bytes.clone() });
            assert!(got.bytes <= KEPT_BYTES + bytes.len());
        }
        assert_eq!((got.requests, got.every), (1_000, 16));
        assert!((1_000 / 16 - 1..=64).contains(&got.kept.len()), "{}", got.kept.len());
    }
}
