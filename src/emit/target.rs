//! One target: its queue, its client, and what is known of the receiver.

use super::EmitError;
use super::advice::{self, Failure};
use super::client::Client;
use super::clock;
use super::config::{Protocol, RemoteWriteConfig};
use super::disk::{BlockRef, Disk};
use super::metrics::{Metrics, Rejected, TargetSnapshot};
use super::progress::Progress;
use super::queue::{Bounds, Shard};
use super::relabel::Relabel;
use super::sender;
use crate::engine::OutputBatch;
use crate::outbound::shown;
use crate::time::{Millis, Span};
use crate::wire::Version;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long 1.0 is spoken before 2.0 is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(3600);
/// Refused samples are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What is known of the receiver.
#[derive(Debug, Default)]
struct Receiver {
    /// It has confirmed 2.0.
    confirmed: bool,
    /// It did not take 2.0: 1.0 until then.
    v1_until: Option<Instant>,
    /// The fall-back has been logged.
    fell_back: bool,
    /// Requests fail.
    down: Option<Down>,
    /// Last log line about refused samples, and how many came since.
    refused: (Option<Instant>, usize),
}

/// What is known of a receiver that is away.
#[derive(Clone, Copy, Debug)]
struct Down {
    since: Instant,
    /// When it was logged last, and the status (`None`: no answer) then.
    logged: (Instant, Option<u16>),
}

impl Receiver {
    /// Notes a failure. Says whether to log it: the first one, and others where another answer comes,
    /// as when a target runs again that does not take remote write.
    fn fails(&mut self, status: Option<u16>, now: Instant) -> bool {
        let logged = (now, status);
        let Some(down) = &mut self.down else {
            self.down = Some(Down { since: now, logged });
            return true;
        };
        let new = down.logged.1 != status && now.duration_since(down.logged.0) >= LOG_EVERY;
        if new {
            down.logged = logged;
        }
        new
    }
}

/// A target.
pub struct Target {
    /// What it was made of.
    pub config: RemoteWriteConfig,
    /// Its client.
    pub client: Client,
    /// Its relabelling.
    pub relabel: Relabel,
    /// Partition `p` is in shard `p % shards.len()`.
    pub shards: Vec<Shard>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Its queue on disk; `None`: memory is all there is.
    pub disk: Option<Arc<Disk>>,
    /// Set at shutdown: send what there is without waiting, then end.
    pub draining: AtomicBool,
    receiver: Mutex<Receiver>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Wakes the one who writes to the disk.
    pub(super) spill: OnceLock<Sender<()>>,
}

impl Target {
    /// A target that does not send yet and has nothing queued.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(config: RemoteWriteConfig, disk: Option<Arc<Disk>>) -> Result<Target, EmitError> {
        let named = |error| EmitError::Target { target: config.http.name.clone(), error: Box::new(error) };
        let client = Client::new(&config.http).map_err(|error| named(error.into()))?;
        let relabel = Relabel::new(&config.write_relabel_configs).map_err(named)?;
        // More shards than partitions would idle.
        let shards = config.queue.max_shards.clamp(1, 256);
        let queue = &config.queue;
        let spill_bytes = queue.max_memory_bytes.div_ceil(shards);
        let bounds = Bounds {
            capacity: queue.capacity.div_ceil(shards).max(1),
            spill_bytes: if disk.is_some() { spill_bytes } else { usize::MAX },
            memory_bytes: if disk.is_some() { spill_bytes.saturating_mul(2) } else { usize::MAX },
            max_samples: queue.max_samples_per_send.max(1),
            age_limit: queue.sample_age_limit,
        };
        Ok(Target {
            client,
            relabel,
            shards: (0..shards).map(|_| Shard::new(bounds)).collect(),
            metrics: Arc::default(),
            disk,
            draining: AtomicBool::new(false),
            receiver: Mutex::default(),
            tasks: Mutex::default(),
            spill: OnceLock::new(),
            config,
        })
    }

    /// Takes over what its folder held.
    pub fn resume(&self, found: Vec<Arc<BlockRef>>, acked: &BTreeMap<u16, u64>, floors: &BTreeMap<u16, u64>) {
        for (partition, floor) in floors {
            let progress = Progress::resumed(acked.get(partition).copied());
            if let Some(shard) = self.shard(*partition) {
                shard.adopt_progress(*partition, progress, Some(*floor));
            }
        }
        self.take_blocks(found.into_iter(), false);
    }

    fn take_blocks(&self, blocks: impl Iterator<Item = Arc<BlockRef>>, counted: bool) {
        for block in blocks {
            for (shard, part) in block.split(|partition| usize::from(partition) % self.shards.len()) {
                if let Some(shard) = self.shards.get(shard) {
                    shard.adopt_block(part, counted, &self.metrics);
                }
            }
        }
    }

    /// Queues a batch that makes `samples` samples.
    pub fn push(&self, batch: &Arc<OutputBatch>, samples: usize, now: Millis) {
        let Some(shard) = self.shard(batch.partition) else { return };
        if shard.push(batch, samples, now, &self.metrics)
            && let Some(spill) = self.spill.get()
        {
            // Full: it has been woken already.
            let _ = spill.try_send(());
        }
    }

    fn shard(&self, partition: u16) -> Option<&Shard> {
        self.shards.get(usize::from(partition) % self.shards.len())
    }

    /// Starts one sender for each shard.
    pub fn start(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        let mut tasks = self.tasks.lock();
        for index in 0..self.shards.len() {
            tasks.push(runtime.spawn(sender::run(self.clone(), index)));
        }
    }

    /// Lets the senders finish.
    pub fn drain(&self) -> Vec<JoinHandle<()>> {
        self.draining.store(true, Relaxed);
        self.shards.iter().for_each(|shard| shard.wake.notify_one());
        std::mem::take(&mut self.tasks.lock())
    }

    /// Whether it is away, and what waits for it is kept on disk.
    pub fn waits_safely(&self) -> bool {
        self.disk.is_some() && self.receiver.lock().down.is_some()
    }

    /// Ends the senders and hands everything pending to a successor, if there is one. Nobody may be
    /// writing to the disk.
    pub fn replace(&self, successor: Option<&Target>, now: Millis) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for shard in &self.shards {
            let estate = shard.dismantle(&self.metrics);
            let Some(successor) = successor else { continue };
            for (partition, progress) in estate.progress {
                if let Some(shard) = successor.shard(partition) {
                    let floor = estate.floors.get(&partition).copied();
                    shard.adopt_progress(partition, progress, floor);
                }
            }
            // Of one partition all is in one shard, here and there: its order holds. The age
            // order across partitions need not, which only delays a drop.
            successor.take_blocks(estate.backlog.into_iter(), true);
            for item in estate.items {
                if let Some(shard) = successor.shard(item.batch.partition) {
                    shard.adopt(item, now, &successor.metrics);
                }
            }
            if let (Some(disk), false) = (&self.disk, estate.released.is_empty()) {
                disk.settle(&estate.released);
            }
        }
        // Only now: what a sender still reports is no longer counted.
        tasks.iter().for_each(JoinHandle::abort);
    }

    /// Whether the configuration says 2.0 may give way to 1.0.
    pub fn auto(&self) -> bool {
        self.config.protocol == Protocol::Auto
    }

    /// Whether the receiver has confirmed 2.0.
    pub fn confirmed(&self) -> bool {
        self.receiver.lock().confirmed
    }

    /// The protocol of the next request.
    pub fn protocol(&self, now: Instant) -> Version {
        match self.config.protocol {
            Protocol::V1 => Version::V1,
            Protocol::V2 => Version::V2,
            Protocol::Auto => match self.receiver.lock().v1_until {
                Some(until) if now < until => Version::V1,
                _ => Version::V2,
            },
        }
    }

    /// The receiver does not take 2.0.
    pub fn fall_back(&self, status: u16, now: Instant) {
        let mut receiver = self.receiver.lock();
        receiver.confirmed = false;
        receiver.v1_until = Some(now + PROBE_EVERY);
        if !std::mem::replace(&mut receiver.fell_back, true) {
            tracing::info!(
                target_name = self.config.http.name,
                status,
                "the target does not take remote write 2.0; sending 1.0, and trying 2.0 again every hour"
            );
        }
    }

    /// 1.0 is refused as an unknown type: the next attempt is in 2.0 again.
    pub fn distrust_v1(&self) {
        self.receiver.lock().v1_until = None;
    }

    /// The receiver took a request in this protocol.
    pub fn confirm(&self, version: Version) {
        if version == Version::V1 {
            return;
        }
        let mut receiver = self.receiver.lock();
        receiver.confirmed = true;
        receiver.v1_until = None;
        if std::mem::take(&mut receiver.fell_back) {
            tracing::info!(target_name = self.config.http.name, "the target now takes remote write 2.0");
        }
    }

    /// A request was answered for good, one way or the other.
    pub fn answered(&self, now: Instant) {
        if let Some(down) = self.receiver.lock().down.take() {
            let seconds = now.duration_since(down.since).as_secs();
            tracing::info!(target_name = self.config.http.name, seconds, "the target takes samples again");
        }
    }

    /// A request failed and will be tried again.
    pub fn failed(&self, failure: &Failure, now: Instant) {
        if !self.receiver.lock().fails(failure.status, now) {
            return;
        }
        let pending = self.metrics.pending.load(Relaxed);
        tracing::warn!(
            target_name = self.config.http.name,
            url = shown(&self.config.http.url),
            pending,
            "the target does not take samples, retrying: {failure}"
        );
    }

    /// Samples were refused for good.
    pub fn refused(&self, why: Rejected, samples: usize, status: u16, message: &str, now: Instant) {
        self.metrics.reject(why, samples);
        let mut receiver = self.receiver.lock();
        receiver.refused.1 += samples;
        if receiver.refused.0.is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            return;
        }
        let samples = std::mem::take(&mut receiver.refused.1);
        receiver.refused.0 = Some(now);
        let advice = advice::refusal(why, status, message);
        let hint = advice.map_or(String::new(), |advice| format!(" ({advice})"));
        tracing::warn!(
            target_name = self.config.http.name,
            url = shown(&self.config.http.url),
            samples,
            status,
            message,
            "the target refused samples for good{hint}"
        );
    }

    /// For each partition, the sequence up to which everything was accepted or given up.
    pub fn acked(&self) -> BTreeMap<u16, u64> {
        self.shards.iter().flat_map(Shard::acked).collect()
    }

    /// Its figures.
    pub fn snapshot(&self, now: Instant) -> TargetSnapshot {
        let oldest = self.shards.iter().filter_map(Shard::oldest).min();
        TargetSnapshot {
            target: self.config.http.name.clone(),
            oldest_pending: Span(oldest.map_or(0, |at| clock::now().since(at).max(0))),
            disk_bytes: self.disk.as_ref().map_or(0, |disk| disk.bytes()),
            disk_failing: self.disk.as_ref().is_some_and(|disk| disk.failing.load(Relaxed)),
            protocol: self.protocol(now),
            down: self.receiver.lock().down.is_some(),
            ..self.metrics.snapshot()
        }
    }

    /// Whether a new configuration changes anything.
    pub fn same(&self, other: &RemoteWriteConfig) -> bool {
        let have = &self.config;
        let relabel = |config: &RemoteWriteConfig| -> Vec<String> {
            // Regex has no equality; its text has, and Debug shows all of it.
            config.write_relabel_configs.iter().map(|step| format!("{step:?}")).collect()
        };
        have.http == other.http
            && have.queue == other.queue
            && have.protocol == other.protocol
            && relabel(have) == relabel(other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Auth, HttpConfig, Secret};
    use super::*;

    fn config(protocol: Protocol) -> RemoteWriteConfig {
        let http = HttpConfig::plain("http://localhost/", Span::SECOND);
        RemoteWriteConfig { protocol, ..RemoteWriteConfig::new(http) }
    }

    fn to(http: HttpConfig) -> RemoteWriteConfig {
        RemoteWriteConfig { http, ..config(Protocol::Auto) }
    }

    #[test]
    fn a_receiver_of_1_0_is_asked_again_after_an_hour() {
        let target = Target::new(config(Protocol::Auto), None).expect("valid");
        let now = Instant::now();
        assert_eq!(target.protocol(now), Version::V2);
        target.fall_back(204, now);
        assert_eq!(target.protocol(now + PROBE_EVERY / 2), Version::V1);
        assert_eq!(target.protocol(now + PROBE_EVERY), Version::V2);
        target.confirm(Version::V1);
        assert!(!target.confirmed());
        target.confirm(Version::V2);
        assert_eq!((target.protocol(now), target.confirmed()), (Version::V2, true));
        target.fall_back(415, now);
        target.distrust_v1();
        assert_eq!(target.protocol(now), Version::V2);
    }

    #[test]
    fn a_demanded_protocol_is_never_left() {
        for (protocol, version) in [(Protocol::V1, Version::V1), (Protocol::V2, Version::V2)] {
            let target = Target::new(config(protocol), None).expect("valid");
            target.fall_back(415, Instant::now());
            assert_eq!(target.protocol(Instant::now()), version);
        }
    }

    #[test]
    fn down_is_from_the_first_failure_to_the_next_answer() {
        let target = Target::new(config(Protocol::Auto), None).expect("valid");
        let now = Instant::now();
        let failure = Failure::answered(503, "");
        target.failed(&failure, now);
        target.failed(&failure, now + PROBE_EVERY);
        assert_eq!(target.receiver.lock().down.map(|down| down.since), Some(now));
        assert!(target.snapshot(now).down);
        target.answered(now);
        assert!(!target.snapshot(now).down);
    }

    #[test]
    fn a_failure_is_logged_once_and_another_one_after_a_while() {
        let mut receiver = Receiver::default();
        let now = Instant::now();
        let logged: Vec<bool> =
            [(0, None), (1, None), (2, Some(404)), (60, None), (61, Some(404)), (62, None)]
                .into_iter()
                .map(|(seconds, status)| receiver.fails(status, now + Duration::from_secs(seconds)))
                .collect();
        assert_eq!(logged, [true, false, false, false, true, false]);
    }

    #[test]
    fn any_change_is_seen() {
        let have = config(Protocol::Auto);
        let target = Target::new(have.clone(), None).expect("valid");
        assert!(target.same(&have));
        let auth = Auth::Header { scheme: "Bearer".into(), credentials: Secret::Inline("a".into()) };
        for other in [
            config(Protocol::V1),
            to(HttpConfig { url: "http://localhost/x".into(), ..have.http.clone() }),
            to(HttpConfig { headers: vec![("a".into(), "b".into())], ..have.http.clone() }),
            to(HttpConfig { auth, ..have.http.clone() }),
        ] {
            assert!(!target.same(&other), "{other:?}");
        }
    }

    #[test]
    fn errors_do_not_show_the_password() {
        let http = HttpConfig::plain("gopher://me:hunter2@host/", Span::SECOND);
        let error = Target::new(to(http), None).err().expect("refused");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
