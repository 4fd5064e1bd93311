//! The integration tests: one binary, real processes, results read back from real stores.
//!
//! `tests/run` fetches the peers (Prometheus, Alertmanager, node_exporter, VictoriaMetrics) first;
//! a case whose peer is missing fails, it is never skipped.
#![forbid(unsafe_code)]

mod exposer;
mod harness;

mod answers;
mod bits;
mod crash;
mod crash_prometheus;
mod doors;
mod examples;
mod floors;
mod gaps;
mod history;
mod hostile;
mod legacy;
mod loop_free;
mod outage;
mod peers_alone;
mod prometheus3;
mod shared;
mod silence;
