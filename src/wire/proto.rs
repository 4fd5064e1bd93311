//! The prost-generated types of `proto/`, for cold paths and tests: complete and convenient, but
//! they copy every string, so the ingest path uses the borrowed decoders instead.

/// Remote write 1.0 and remote read (`package prometheus`).
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));
}

/// Remote write 2.0 (`package io.prometheus.write.v2`).
#[allow(missing_docs, clippy::all)]
pub mod v2 {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
}
