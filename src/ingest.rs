//! The way in: remote write, apart from any transport.
//!
//! A [`Receiver`] takes a request's head and body and says what to answer. Bodies are admitted
//! against a budget of bytes, decompressed and applied on a pool of threads of their own, so that
//! whoever serves the admin routes never waits for the data path. What comes out of it are
//! [`Record`](crate::record::Record)s; the engine does not know where they come from.

pub mod admission;
mod answer;
pub mod gap;
pub mod ha;
pub mod metrics;
pub mod negotiate;
mod peek;
mod pool;
pub mod receiver;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Overload};
pub use answer::Reply;
pub use gap::{FillResult, Gate, Hole};
pub use ha::HaTracker;
pub use metrics::Metrics;
pub use receiver::{Receiver, ReceiverLimits, RequestHead, Unread};

/// Where records come from: requests today, a Kafka partition or a file of history the same way.
///
/// A source hands its records to the engine in its own order and can say how far it is, so that
/// after a restart it continues where the engine's log ends.
pub trait Source: Send + Sync {
    /// Which part of the source this is, such as a Kafka partition; 0 where there is only one.
    fn partition(&self) -> u32;
    /// The sequence of the newest record of this source that the engine has applied; `None` before
    /// the first.
    fn position(&self) -> Option<u64>;
}

/// What can go wrong in this room beside malformed requests.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A worker thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] std::io::Error),
}
