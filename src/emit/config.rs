//! What `remote_write:` configures, with Prometheus's names and defaults.

pub use crate::outbound::{Auth, HttpConfig, Secret, TlsConfig};

use crate::time::Span;
use regex::Regex;

/// Relabelling action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named as in Prometheus's documentation
pub enum RelabelAction {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

/// One step of `write_relabel_configs`; defaults as Prometheus documents them.
#[derive(Clone, Debug)]
pub struct RelabelConfig {
    /// Labels joined to the source value.
    pub source_labels: Vec<String>,
    /// What joins them. Default `;`.
    pub separator: String,
    /// Anchored expression. Default `(.*)`.
    pub regex: Regex,
    /// Modulus of `hashmod`.
    pub modulus: u64,
    /// Label written.
    pub target_label: String,
    /// Replacement. Default `$1`.
    pub replacement: String,
    /// What is done. Default `replace`.
    pub action: RelabelAction,
}

/// `queue_config`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Samples a queue holds in memory while the target is away; the oldest are dropped beyond it.
    /// Default 10,000,000.
    pub capacity: usize,
    /// Bytes a queue holds in memory before it is written to the disk, where there is one; twice as many
    /// at most, then the oldest are dropped. Default 64 MiB.
    pub max_memory_bytes: usize,
    /// Bytes a queue holds on disk; the oldest are dropped beyond it. Default 1 GiB.
    pub max_disk_bytes: usize,
    /// Parallel senders, each with its own partitions. Default 4.
    pub max_shards: usize,
    /// Samples in a request. Default 2000.
    pub max_samples_per_send: usize,
    /// How long a sample may wait for its request to fill. Default 200 ms.
    pub batch_send_deadline: Span,
    /// First wait before a retry. Default 30 ms.
    pub min_backoff: Span,
    /// Longest wait before a retry. Default 5 s.
    pub max_backoff: Span,
    /// Outputs that have waited longer are dropped (from when they were queued, also where that was
    /// before a restart). Default 2 h.
    pub sample_age_limit: Span,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            capacity: 10_000_000,
            max_memory_bytes: 64 << 20,
            max_disk_bytes: 1 << 30,
            max_shards: 4,
            max_samples_per_send: 2000,
            batch_send_deadline: Span(200),
            min_backoff: Span(30),
            max_backoff: Span::seconds(5),
            sample_age_limit: Span::hours(2),
        }
    }
}

/// `protobuf_message`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// 2.0 first; 1.0 where the target does not take it (the default).
    #[default]
    Auto,
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// One target.
#[derive(Clone, Debug)]
pub struct RemoteWriteConfig {
    /// Where to, and who we are. The name is the `target` label of its metrics.
    pub http: HttpConfig,
    /// Relabelling of outputs on their way out.
    pub write_relabel_configs: Vec<RelabelConfig>,
    /// The queue.
    pub queue: QueueConfig,
    /// The protocol.
    pub protocol: Protocol,
}

impl RemoteWriteConfig {
    /// A target with everything else by default.
    pub fn new(http: HttpConfig) -> RemoteWriteConfig {
        RemoteWriteConfig {
            http,
            write_relabel_configs: Vec::new(),
            queue: QueueConfig::default(),
            protocol: Protocol::default(),
        }
    }
}
