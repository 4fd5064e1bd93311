//! The remote-write receiver: request in, answer out.

use super::admission::{Admission, Budget, Overload, Reservation, STEP};
use super::answer::{Cause, Outcome, Refused, Reply};
use super::gap::Gate;
use super::ha::HaTracker;
use super::metrics::{Metrics, OverloadBy};
use super::pool::{JobError, Pool};
use super::{IngestError, Source, negotiate, peek};
use crate::engine::{Applied, ApplyError, Engine};
use crate::record::{Body, Record};
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
            _ if !self.inner.engine.can_keep() => Outcome::overloaded(OverloadBy::Disk),
            Some(length) if length > limit as u64 => Outcome::too_large(length, limit),
            // Cheaper than reading what could not be worked on in time.
            _ if self.pool.age() > self.inner.limits.queue_age => Outcome::overloaded(OverloadBy::QueueAge),
            _ => {
                match self.admission.reading.reserve(length.map_or(STEP, |l| (l as usize).min(STEP))).await {
                    Ok(reservation) => return Ok(reservation),
                    Err(Overload) => Outcome::overloaded(OverloadBy::Reading),
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
            self.reply(version, Outcome::overloaded(OverloadBy::Reading), started)
        })
    }

    /// The answer to a body that was not read to its end.
    pub fn unread(&self, head: &RequestHead, why: Unread) -> Reply {
        let version = negotiate::version(head.content_type.as_deref()).ok();
        let outcome = Outcome::unread(why, &self.inner.limits);
        self.reply(version, outcome, Instant::now())
    }

    /// Takes a request received at `received` and says what to answer. What was begun is finished
    /// even when the caller stops waiting.
    pub async fn receive(&self, head: &RequestHead, body: Bytes, received: Millis) -> Reply {
        let started = Instant::now();
        let version = match negotiate::version(head.content_type.as_deref()) {
            Ok(version) => version,
            Err(message) => return self.reply(None, Outcome::unsupported(message), started),
        };
        let outcome = match negotiate::encoding(head.content_encoding.as_deref()) {
            Err(message) => Outcome::unsupported(message),
            Ok(encoding) => self.work(version, encoding, body, received).await,
        };
        self.reply(Some(version), outcome, started)
    }

    async fn work(&self, version: Version, encoding: Encoding, body: Bytes, received: Millis) -> Outcome {
        let limits = &self.inner.limits;
        if body.len() > limits.compressed {
            return Outcome::too_large(body.len() as u64, limits.compressed);
        }
        let size = frame::declared_size(&body).unwrap_or(limits.decompressed as u64);
        if size > limits.decompressed as u64 {
            let limit = limits.decompressed as u64;
            return Refused::Wire(WireError::TooLarge { got: size, limit }).into();
        }
        let reservation = match self.admission.working.reserve(size as usize).await {
            Ok(reservation) => reservation,
            Err(Overload) => return Outcome::overloaded(OverloadBy::Working),
        };
        let inner = Arc::clone(&self.inner);
        let result = self.pool.run(move || {
            let result = inner.apply(version, encoding, &body, received);
            drop(reservation);
            result
        });
        match result.await {
            Ok(Ok(applied)) => Outcome::applied(&applied),
            Ok(Err(refused)) => refused.into(),
            Err(JobError::Full) => Outcome::overloaded(OverloadBy::Queue),
            Err(JobError::Panicked) => Outcome::panicked(),
        }
    }

    /// Counts an outcome and makes the answer of it.
    fn reply(&self, version: Option<Version>, outcome: Outcome, started: Instant) -> Reply {
        let metrics = &self.inner.metrics;
        match outcome.cause {
            Some(Cause::Limit(limit)) => metrics.limit(limit),
            Some(Cause::Overload(by)) => metrics.overloaded(by),
            None => {}
        }
        metrics.answered(version, outcome.status, started.elapsed());
        outcome.reply(version, &self.retry_jitter)
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
        // The bytes move on into the body, and the name with them.
        let gate = self.gate.as_deref().zip(cluster).map(|(gate, cluster)| (gate, cluster.to_string()));
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
    fn follow<'b>(
        &self,
        version: Version,
        body: &'b [u8],
        received: Millis,
    ) -> Result<Option<&'b str>, ApplyError> {
        let rules = self.engine.rules();
        let names = [rules.identity.cluster_label.as_str(), rules.identity.replica_label.as_str()];
        let [cluster, replica] = peek::first_series(version, body, names);
        let cluster = cluster.unwrap_or("");
        let Some(replica) = replica else { return Ok(Some(cluster)) };
        let mut result = Ok(());
        let elected = self.ha.observe(cluster, replica, received, |cluster, replica| {
            tracing::info!(cluster, replica, "HA replica elected");
            let record = Record::Elect { cluster: cluster.to_string(), replica: replica.to_string() };
            result = self.engine.apply(record).map(drop);
        });
        if elected {
            self.metrics.elections.fetch_add(1, Ordering::Relaxed);
        }
        result.map(|()| self.ha.follows(cluster, replica).then_some(cluster))
    }
}
