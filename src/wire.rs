//! Remote write and remote read on the wire: frames, decoders, encoders.
//!
//! The hot path walks the decompressed body once and fills a flat, reusable [`Batch`] of offsets
//! into it: no string is copied, no label parsed. `proto` holds the prost-generated types of the
//! same messages, for cold paths and tests.

pub mod batch;
mod cursor;
mod decode;
pub mod encode;
pub mod frame;
pub mod histogram;
pub mod proto;
pub mod read;
#[cfg(test)]
mod tests;
pub mod v1;
pub mod v2;
pub mod xor;

pub use batch::{Batch, MetricKind, Piece, Sample, SeriesDefect, SeriesRef};
pub use decode::{DecodeLimits, decode};
pub use encode::Encoder;
pub use frame::{Encoding, compress_snappy, decompress};
pub use histogram::Histogram;

/// Prometheus's stale marker: the series has ended, or its target is gone.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the stale marker (one NaN among many).
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}

/// A remote-write protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// Why a body could not be decoded at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The compressed frame is broken.
    #[error("{0}: cannot decompress the body: {1}")]
    Frame(&'static str, String),
    /// The decompressed size is over the limit; known before anything is allocated.
    #[error("the decompressed body is {got} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes declared or met.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The protobuf message is broken at this byte.
    #[error("broken protobuf at byte {at}: {what}")]
    Protobuf {
        /// Offset into the decompressed body.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// More of something than the limits allow.
    #[error("more than {limit} {what} in one request")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}
