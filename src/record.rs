//! Records: whatever can change a score, in one order.
//!
//! Live requests, replays and back-tests are sources of the same records, so the scores that come
//! of them are equal to the bit. A record's position in the log is its sequence number.

use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::Version;
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
}
