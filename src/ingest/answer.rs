//! What is answered: status codes, texts and headers, apart from how a request comes to them.

use super::admission::Overload;
use super::metrics::OverloadBy;
use super::receiver::{ReceiverLimits, Unread};
use crate::engine::{Applied, ApplyError};
use crate::record::NotKept;
use crate::wire::{Version, WireError};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// Everything that may fail between negotiation and the engine.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
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

/// Samples, histograms and exemplars that were taken in.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
}

/// What a refusal is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A limit on requests, as `oddity_limit_exceeded_total` names it.
    Limit(&'static str),
    /// Too much at a time.
    Overload(OverloadBy),
}

/// What was found out about a request, from which the answer is made.
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) cause: Option<Cause>,
    written: Written,
    message: String,
}

impl Outcome {
    fn refused(status: u16, cause: Option<Cause>, message: impl Into<String>) -> Outcome {
        Outcome { status, cause, written: Written::default(), message: message.into() }
    }

    /// A type or encoding that is not taken.
    pub(super) fn unsupported(message: String) -> Outcome {
        Outcome::refused(415, None, message)
    }

    /// A body of which more bytes come than may.
    pub(super) fn too_large(got: u64, limit: usize) -> Outcome {
        let message = format!("the body is {got} bytes, over the limit of {limit} (compressed)");
        Outcome::refused(400, Some(Cause::Limit("body_bytes")), message)
    }

    /// A body that was not read to its end.
    pub(super) fn unread(why: Unread, limits: &ReceiverLimits) -> Outcome {
        match why {
            Unread::TooLong => Outcome::refused(
                400,
                Some(Cause::Limit("body_bytes")),
                format!("the body is over the limit of {} bytes", limits.compressed),
            ),
            Unread::TooSlow => Outcome::refused(
                408,
                Some(Cause::Limit("body_time")),
                format!(
                    "the body came too slowly: nothing for {} s, or not whole within {} s",
                    limits.body_pause.as_secs_f64(),
                    limits.body_time.as_secs_f64()
                ),
            ),
            Unread::BrokenOff => Outcome::refused(400, None, "the body broke off"),
        }
    }

    /// Too much at a time.
    pub(super) fn overloaded(by: OverloadBy) -> Outcome {
        let message = match by {
            OverloadBy::Disk => format!("{}; try again", by.why()),
            _ => format!("{Overload}: {}; try again", by.why()),
        };
        Outcome::refused(503, Some(Cause::Overload(by)), message)
    }

    /// A defect of ours.
    pub(super) fn panicked() -> Outcome {
        Outcome::refused(500, None, "internal error; see the log")
    }

    /// A body that was applied. Samples that were dropped for good reason (duplicates, unmatched, over
    /// a limit) count as written: they were handled, and nothing is gained when the sender reports them
    /// as failed.
    pub(super) fn applied(applied: &Applied) -> Outcome {
        let written = Written {
            samples: applied.samples.saturating_sub(applied.malformed_samples),
            histograms: applied.histograms.saturating_sub(applied.malformed_histograms),
            exemplars: applied.exemplars.saturating_sub(applied.malformed_exemplars),
        };
        if applied.defects.is_empty() {
            return Outcome { status: 204, cause: None, written, message: String::new() };
        }
        let series: u64 = applied.defects.values().sum();
        let reasons: Vec<String> =
            applied.defects.iter().map(|(what, n)| format!("{n} with {what}")).collect();
        let message = format!(
            "{series} malformed series refused ({} samples, {} histograms): {}; {} samples and {} histograms were kept",
            applied.malformed_samples,
            applied.malformed_histograms,
            reasons.join(", "),
            written.samples,
            written.histograms,
        );
        Outcome { status: 400, cause: None, written, message }
    }

    /// The answer. `jitter` counts those that ask the sender to come again.
    pub(super) fn reply(self, version: Option<Version>, jitter: &AtomicU64) -> Reply {
        let mut headers = Vec::new();
        if version == Some(Version::V2) {
            // On errors too: a sender takes a missing count for 0, and a 2xx with none for a
            // receiver that does not know 2.0. Never on 1.0, whose senders would misread them.
            headers.extend([
                ("x-prometheus-remote-write-samples-written", self.written.samples.to_string()),
                ("x-prometheus-remote-write-histograms-written", self.written.histograms.to_string()),
                ("x-prometheus-remote-write-exemplars-written", self.written.exemplars.to_string()),
            ]);
        }
        if self.status == 503 {
            // Spread over 1 to 4 s, so that the shards of a sender do not come back together.
            let turn = jitter.fetch_add(1, Relaxed);
            headers.push(("retry-after", (1 + turn.wrapping_mul(7) % 4).to_string()));
        }
        if !self.message.is_empty() {
            headers.push(("content-type", "text/plain; charset=utf-8".to_string()));
        }
        Reply { status: self.status, headers, message: self.message }
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Outcome {
        match &refused {
            Refused::NotKept(why) => {
                tracing::debug!(%why, "a body must be sent again");
                Outcome::overloaded(OverloadBy::Disk)
            }
            Refused::Held(_) => Outcome::refused(503, None, refused.to_string()),
            Refused::Wire(error) => {
                Outcome::refused(400, limit_of(error).map(Cause::Limit), refused.to_string())
            }
            Refused::OtherProtocol(_) => Outcome::refused(400, None, refused.to_string()),
        }
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
