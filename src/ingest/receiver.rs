//! The remote-write receiver: request in, answer out.

use super::admission::{Admission, Budget, Overload, Reservation, STEP};
use super::gap::Gate;
use super::ha::HaTracker;
use super::metrics::{Metrics, OverloadBy};
use super::pool::{JobError, Pool};
use super::{IngestError, Source, negotiate, peek};
use crate::engine::{Applied, ApplyError, Engine};
use crate::record::{Body, NotKept, Record};
use crate::time::Millis;
use crate::wire::frame::{self, Encoding};
use crate::wire::{Version, WireError};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bounds on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverLimits {
    /// Bytes of a body as it comes. Default 32 MiB.
    pub compressed: usize,
    /// Bytes of a body decompressed. Default 32 MiB.
    pub decompressed: usize,
    /// Decompressed bytes in flight, and compressed bytes being read. Default 256 MiB each.
    pub in_flight: usize,
    /// Requests that may wait for one of those budgets. Default 256.
    pub waiting: usize,
    /// How long they wait. Default 2 s.
    pub patience: Duration,
    /// How long a body may bring nothing. Default 10 s.
    pub body_pause: Duration,
    /// How long a body may take in all. Default 30 s.
    pub body_time: Duration,
    /// Threads that decompress and apply. Default: one a core, at least 2.
    pub threads: usize,
    /// Requests that may wait for a thread. Default 256.
    pub queue: usize,
    /// While the oldest of those has waited longer, no more are read. Default 5 s.
    pub queue_age: Duration,
}

impl Default for ReceiverLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        ReceiverLimits {
            compressed: 32 << 20,
            decompressed: 32 << 20,
            in_flight: 256 << 20,
            waiting: 256,
            patience: Duration::from_secs(2),
            body_pause: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            threads: cores.max(2),
            queue: 256,
            queue_age: Duration::from_secs(5),
        }
    }
}

/// What the receiver wants to know of a request's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Content-Encoding`
    pub content_encoding: Option<String>,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is over the limit.
    TooLong,
    /// It took longer than it may.
    TooSlow,
    /// The connection ended, or the body's framing is broken.
    BrokenOff,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body: empty on success, else what is wrong.
    pub message: String,
}

/// Samples, histograms and exemplars that were taken in.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

/// What was found out about a request, from which the answer is made.
struct Outcome {
    status: u16,
    written: Written,
    message: String,
}

impl Outcome {
    fn refused(status: u16, message: impl Into<String>) -> Outcome {
        Outcome { status, written: Written::default(), message: message.into() }
    }
}

/// Everything that may fail between negotiation and the engine.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the body is not what the content type says: it begins like remote write {0}")]
    OtherProtocol(&'static str),
    #[error("{0}")]
    NotKept(#[from] NotKept),
    #[error("{0}; try again")]
    Held(String),
}

impl From<ApplyError> for Refused {
    fn from(error: ApplyError) -> Refused {
        match error {
            ApplyError::Wire(error) => Refused::Wire(error),
            ApplyError::NotKept(error) => Refused::NotKept(error),
        }
    }
}

struct Inner {
    engine: Arc<Engine>,
    limits: ReceiverLimits,
    metrics: Metrics,
    ha: HaTracker,
    gate: Option<Arc<Gate>>,
    /// Newest sequence applied plus 1; 0 before the first.
    position: AtomicU64,
}

/// The receiver. Cheap to share; every method may be called by many tasks.
pub struct Receiver {
    inner: Arc<Inner>,
    admission: Admission,
    pool: Pool,
    retry_jitter: AtomicU64,
}

impl Receiver {
    /// A receiver with threads of its own.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(engine: Arc<Engine>, limits: ReceiverLimits) -> Result<Receiver, IngestError> {
        Receiver::gated(engine, limits, None)
    }

    /// As [`Receiver::new`], with a gate that holds bodies back while gaps are filled.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn gated(
        engine: Arc<Engine>,
        limits: ReceiverLimits,
        gate: Option<Arc<Gate>>,
    ) -> Result<Receiver, IngestError> {
        let budget = || Budget::new(limits.in_flight, limits.waiting, limits.patience);
        Ok(Receiver {
            pool: Pool::new(limits.threads, limits.queue)?,
            admission: Admission { reading: budget(), working: budget() },
            retry_jitter: AtomicU64::new(0),
            inner: Arc::new(Inner {
                engine,
                limits,
                metrics: Metrics::default(),
                ha: HaTracker::default(),
                gate,
                position: AtomicU64::new(0),
            }),
        })
    }

    /// The bounds it was made with.
    pub fn limits(&self) -> &ReceiverLimits {
        &self.inner.limits
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Its budgets.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Requests that wait for a thread.
    pub fn queued(&self) -> usize {
        self.pool.queued()
    }

    /// How long the oldest of them has been waiting; zero where none waits.
    pub fn queue_age(&self) -> Duration {
        self.pool.age()
    }

    /// Its gate, where it has one.
    pub fn gate(&self) -> Option<&Gate> {
        self.inner.gate.as_deref()
    }

    /// The elected HA replicas.
    pub fn ha(&self) -> &HaTracker {
        &self.inner.ha
    }

    /// Says whether a body of `length` bytes (`None`: not announced) may be read now. Whoever reads
    /// it lets the reservation [grow](Self::grow) with it and keeps it until the answer.
    ///
    /// # Errors
    /// The answer to give instead.
    pub async fn admit(&self, head: &RequestHead, length: Option<u64>) -> Result<Reservation, Reply> {
        let started = Instant::now();
        let limit = self.inner.limits.compressed;
        let version = negotiate::version(head.content_type.as_deref());
        let outcome = match length {
            _ if !self.inner.engine.can_keep() => self.overloaded(OverloadBy::Disk),
            Some(length) if length > limit as u64 => {
                self.inner.metrics.limit("body_bytes");
                Outcome::refused(400, too_large(length, limit))
            }
            // Cheaper than reading what could not be worked on in time.
            _ if self.pool.age() > self.inner.limits.queue_age => self.overloaded(OverloadBy::QueueAge),
            _ => {
                match self.admission.reading.reserve(length.map_or(STEP, |l| (l as usize).min(STEP))).await {
                    Ok(reservation) => return Ok(reservation),
                    Err(Overload) => self.overloaded(OverloadBy::Reading),
                }
            }
        };
        Err(self.reply(version.ok(), outcome, started))
    }

    /// Makes room for a body of which `bytes` have come.
    ///
    /// # Errors
    /// The answer to give instead of reading on.
    pub async fn grow(
        &self,
        head: &RequestHead,
        reservation: &mut Reservation,
        bytes: usize,
    ) -> Result<(), Reply> {
        let started = Instant::now();
        self.admission.reading.grow(reservation, bytes).await.map_err(|Overload| {
            let version = negotiate::version(head.content_type.as_deref()).ok();
            self.reply(version, self.overloaded(OverloadBy::Reading), started)
        })
    }

    /// The answer to a body that was not read to its end.
    pub fn unread(&self, head: &RequestHead, why: Unread) -> Reply {
        let version = negotiate::version(head.content_type.as_deref()).ok();
        let limits = &self.inner.limits;
        let outcome = match why {
            Unread::TooLong => {
                self.inner.metrics.limit("body_bytes");
                Outcome::refused(400, format!("the body is over the limit of {} bytes", limits.compressed))
            }
            Unread::TooSlow => {
                self.inner.metrics.limit("body_time");
                Outcome::refused(
                    408,
                    format!(
                        "the body came too slowly: nothing for {} s, or not whole within {} s",
                        limits.body_pause.as_secs_f64(),
                        limits.body_time.as_secs_f64()
                    ),
                )
            }
            Unread::BrokenOff => Outcome::refused(400, "the body broke off"),
        };
        self.reply(version, outcome, Instant::now())
    }

    /// Takes a request received at `received` and says what to answer. What was begun is finished
    /// even when the caller stops waiting.
    pub async fn receive(&self, head: &RequestHead, body: Bytes, received: Millis) -> Reply {
        let started = Instant::now();
        let version = match negotiate::version(head.content_type.as_deref()) {
            Ok(version) => version,
            Err(message) => return self.reply(None, Outcome::refused(415, message), started),
        };
        let outcome = match negotiate::encoding(head.content_encoding.as_deref()) {
            Err(message) => Outcome::refused(415, message),
            Ok(encoding) => self.work(version, encoding, body, received).await,
        };
        self.reply(Some(version), outcome, started)
    }

    async fn work(&self, version: Version, encoding: Encoding, body: Bytes, received: Millis) -> Outcome {
        let limits = &self.inner.limits;
        if body.len() > limits.compressed {
            self.inner.metrics.limit("body_bytes");
            return Outcome::refused(400, too_large(body.len() as u64, limits.compressed));
        }
        let size = declared_size(&body).unwrap_or(limits.decompressed as u64);
        if size > limits.decompressed as u64 {
            let limit = limits.decompressed as u64;
            self.inner.metrics.limit("decompressed_bytes");
            return Outcome::refused(400, WireError::TooLarge { got: size, limit }.to_string());
        }
        let reservation = match self.admission.working.reserve(size as usize).await {
            Ok(reservation) => reservation,
            Err(Overload) => return self.overloaded(OverloadBy::Working),
        };
        let inner = Arc::clone(&self.inner);
        let result = self.pool.run(move || {
            let result = inner.apply(version, encoding, &body, received);
            drop(reservation);
            result
        });
        match result.await {
            Ok(Ok(applied)) => outcome_of(&applied),
            Ok(Err(held @ Refused::Held(_))) => Outcome::refused(503, held.to_string()),
            Ok(Err(Refused::NotKept(why))) => {
                tracing::debug!(%why, "a body must be sent again");
                self.overloaded(OverloadBy::Disk)
            }
            Ok(Err(refused)) => {
                if let Refused::Wire(error) = &refused
                    && let Some(limit) = limit_of(error)
                {
                    self.inner.metrics.limit(limit);
                }
                Outcome::refused(400, refused.to_string())
            }
            Err(JobError::Full) => self.overloaded(OverloadBy::Queue),
            Err(JobError::Panicked) => Outcome::refused(500, "internal error; see the log"),
        }
    }

    fn overloaded(&self, by: OverloadBy) -> Outcome {
        self.inner.metrics.overloaded(by);
        Outcome::refused(
            503,
            match by {
                OverloadBy::Disk => format!("{}; try again", by.why()),
                _ => format!("{Overload}: {}; try again", by.why()),
            },
        )
    }

    fn reply(&self, version: Option<Version>, outcome: Outcome, started: Instant) -> Reply {
        let mut headers = Vec::new();
        if version == Some(Version::V2) {
            // On errors too: a sender takes a missing count for 0, and a 2xx with none for a
            // receiver that does not know 2.0. Never on 1.0, whose senders would misread them.
            headers.extend([
                ("x-prometheus-remote-write-samples-written", outcome.written.samples.to_string()),
                ("x-prometheus-remote-write-histograms-written", outcome.written.histograms.to_string()),
                ("x-prometheus-remote-write-exemplars-written", outcome.written.exemplars.to_string()),
            ]);
        }
        if outcome.status == 503 {
            // Spread over 1 to 4 s, so that the shards of a sender do not come back together.
            let turn = self.retry_jitter.fetch_add(1, Ordering::Relaxed);
            headers.push(("retry-after", (1 + turn.wrapping_mul(7) % 4).to_string()));
        }
        if !outcome.message.is_empty() {
            headers.push(("content-type", "text/plain; charset=utf-8".to_string()));
        }
        self.inner.metrics.answered(version, outcome.status, started.elapsed());
        Reply { status: outcome.status, headers, message: outcome.message }
    }
}

impl Source for Receiver {
    fn partition(&self) -> u32 {
        0
    }
    fn position(&self) -> Option<u64> {
        self.inner.position.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Inner {
    fn apply(
        &self,
        version: Version,
        encoding: Encoding,
        compressed: &Bytes,
        received: Millis,
    ) -> Result<Applied, Refused> {
        let mut bytes = Vec::new();
        frame::decompress(encoding, compressed, self.limits.decompressed, &mut bytes)?;
        self.metrics.compressed_bytes.fetch_add(compressed.len() as u64, Ordering::Relaxed);
        self.metrics.decompressed_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if peek::is_other_protocol(version, &bytes) {
            return Err(Refused::OtherProtocol(match version {
                Version::V1 => "2.0",
                Version::V2 => "1.0",
            }));
        }
        let cluster = self.follow(version, &bytes, received)?;
        let gate = self.gate.as_deref().zip(cluster);
        let passing = match &gate {
            Some((gate, cluster)) => {
                Some(gate.judge(cluster, version, &bytes, received).map_err(Refused::Held)?)
            }
            None => None,
        };
        let raw = Some((encoding, compressed.clone()));
        let body = Body { version, received, bytes: Bytes::from(bytes), raw };
        let applied = self.engine.apply(Record::Body(body))?;
        if let (Some((gate, cluster)), Some(passing)) = (&gate, passing) {
            gate.passed(cluster, passing);
        }
        self.position.fetch_max(applied.sequence.saturating_add(1), Ordering::Relaxed);
        self.metrics.applied(&applied);
        Ok(applied)
    }

    /// Elects the request's replica where that is due, before its body is applied. Gives the cluster,
    /// unless another replica of it is followed.
    fn follow(&self, version: Version, body: &[u8], received: Millis) -> Result<Option<String>, ApplyError> {
        let rules = self.engine.rules();
        let names = [rules.identity.cluster_label.as_str(), rules.identity.replica_label.as_str()];
        let [cluster, replica] = peek::first_series(version, body, names);
        let cluster = cluster.unwrap_or("");
        let Some(replica) = replica else { return Ok(Some(cluster.to_string())) };
        let mut result = Ok(());
        let elected = self.ha.observe(cluster, replica, received, |cluster, replica| {
            tracing::info!(cluster, replica, "HA replica elected");
            let record = Record::Elect { cluster: cluster.to_string(), replica: replica.to_string() };
            result = self.engine.apply(record).map(drop);
        });
        if elected {
            self.metrics.elections.fetch_add(1, Ordering::Relaxed);
        }
        result.map(|()| self.ha.follows(cluster, replica).then(|| cluster.to_string()))
    }
}

/// The limit that an undecodable body has met, as `oddity_limit_exceeded_total` names it.
fn limit_of(error: &WireError) -> Option<&'static str> {
    match error {
        WireError::TooLarge { .. } => Some("decompressed_bytes"),
        WireError::TooMany { what, .. } => Some(match *what {
            "labels in one series" => "labels",
            "metadata entries" => "metadata",
            "histogram buckets, spans and bounds" => "buckets",
            other => other,
        }),
        WireError::Frame(..) | WireError::Protobuf { .. } => None,
    }
}

fn too_large(got: u64, limit: usize) -> String {
    format!("the body is {got} bytes, over the limit of {limit} (compressed)")
}

/// The decompressed size a body declares; `None` where it declares none or is broken. Like
/// [`frame::decompress`] it believes the first bytes more than the header.
fn declared_size(body: &[u8]) -> Option<u64> {
    match body {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::zstd_safe::get_frame_content_size(body).ok().flatten(),
        _ => snap::raw::decompress_len(body).ok().map(|len| len as u64),
    }
}

/// What to say of a body that was applied. Samples that were dropped for good reason (duplicates,
/// unmatched, over a limit) count as written: they were handled, and nothing is gained when the
/// sender reports them as failed.
fn outcome_of(applied: &Applied) -> Outcome {
    let written = Written {
        samples: applied.samples.saturating_sub(applied.malformed_samples),
        histograms: applied.histograms.saturating_sub(applied.malformed_histograms),
        exemplars: applied.exemplars.saturating_sub(applied.malformed_exemplars),
    };
    if applied.defects.is_empty() {
        return Outcome { status: 204, written, message: String::new() };
    }
    let series: u64 = applied.defects.values().sum();
    let reasons: Vec<String> = applied.defects.iter().map(|(what, n)| format!("{n} with {what}")).collect();
    let message = format!(
        "{series} malformed series refused ({}): {}; {} samples and {} histograms were kept",
        count(applied.malformed_samples, applied.malformed_histograms),
        reasons.join(", "),
        written.samples,
        written.histograms,
    );
    Outcome { status: 400, written, message }
}

fn count(samples: u64, histograms: u64) -> String {
    format!("{samples} samples, {histograms} histograms")
}
