//! Records: whatever can change a score, in one order.
//!
//! Live requests, replays and back-tests are sources of the same records, so the scores that come
//! of them are equal to the bit. A record's position in the log is its sequence number.

mod entry;

pub use entry::{Entry, Kept, Logged, Unreadable};

use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::Version;
use crate::wire::frame::Encoding;
use bytes::Bytes;
use std::sync::Arc;

/// One record.
#[derive(Clone, Debug)]
pub enum Record {
    /// A remote-write body: samples, stale markers, histograms, metadata.
    Body(Body),
    /// A new generation of rules, from here on.
    Rules(Arc<RuleSet>),
    /// From here on this replica of an HA pair is the one that is followed.
    Elect {
        /// Value of the cluster label; empty where there is none.
        cluster: String,
        /// Value of the replica label.
        replica: String,
    },
    /// Observed time of a source group has come this far without samples.
    Tick {
        /// The source group: a value of the cluster label, empty by default.
        group: String,
        /// Observed time.
        to: Millis,
    },
}

/// A decompressed remote-write body as it came.
#[derive(Clone, Debug)]
pub struct Body {
    /// The protocol it is in.
    pub version: Version,
    /// When it was received: limits that depend on the time of receipt use this, so that a replay
    /// applies them alike.
    pub received: Millis,
    /// The message.
    pub bytes: Bytes,
    /// The message as it came, compressed: smaller to keep. `None` where it never was.
    pub raw: Option<(Encoding, Bytes)>,
}

impl Body {
    /// A body that never was compressed.
    pub fn new(version: Version, received: Millis, bytes: Bytes) -> Body {
        Body { version, received, bytes, raw: None }
    }
}

/// A record could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record could not be kept: {0}")]
pub struct NotKept(pub String);

/// Where records are kept before their senders are told that they are.
pub trait Journal: Send + Sync {
    /// Takes the record of a sequence. Called under the lock of the order, in its order: must not wait
    /// for a disk.
    fn append(&self, sequence: u64, entry: Entry);
    /// Returns when everything up to `sequence` is kept, as durably as was asked for.
    ///
    /// # Errors
    /// It is not, and the sender must not be told that it is.
    fn commit(&self, sequence: u64) -> Result<(), NotKept>;
    /// Whether no record should be made at present, for it could not be kept.
    fn refuses(&self) -> bool;
}
