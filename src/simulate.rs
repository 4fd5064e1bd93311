//! A simulated fleet of Kubernetes-like series with faults, and the senders that push it to a
//! remote-write receiver: `oddity simulate`, the demo and the load generator.
//!
//! Every value is a function of (seed, series, time): two fleets with the same options agree to the
//! bit, and a fleet of two million series needs no state beside its pods' labels.

pub mod bench;
pub mod fault;
pub mod fleet;
mod load;
mod pod;
mod random;
pub mod run;
pub mod sender;
pub mod sink;
pub mod trouble;
pub mod usage;

pub use bench::{BenchOptions, BenchReport, bench};
pub use fault::{Fault, FaultKind};
pub use fleet::{Encoded, Fleet, FleetOptions, Point};
pub use run::{RunOptions, RunReport, run};
pub use sender::{Sender, Sent};
pub use sink::Sink;
pub use trouble::{Teller, Trouble};
pub use usage::{Usage, usage_of};

/// Why a simulation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An option has a value that cannot be used.
    #[error("{0}")]
    Options(String),
    /// A fault could not be read.
    #[error("fault {text:?}: {what}")]
    Fault {
        /// The text given.
        text: String,
        /// What is wrong with it.
        what: String,
    },
    /// The receiver's address cannot be used.
    #[error("{url}: {what}")]
    Url {
        /// The address given.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// A body could not be compressed.
    #[error("cannot encode a request: {0}")]
    Encode(#[from] crate::wire::WireError),
    /// The receiver does not take what is sent, or does not answer.
    #[error("{0}")]
    Send(String),
    /// The server's CPU time or memory could not be read.
    #[error("cannot read the server's usage: {0}")]
    Usage(String),
    /// The operating system refused a thread or the runtime.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}
