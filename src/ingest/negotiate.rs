//! Content negotiation: which protocol and which compression a request is in.
//!
//! `Content-Type` alone decides the protocol. It is read leniently (white space, case, quotes),
//! because reading a 2.0 body as 1.0 gives an empty request instead of an error.

use crate::wire::Version;
use crate::wire::frame::Encoding;

const V1_MESSAGE: &str = "prometheus.WriteRequest";
const V2_MESSAGE: &str = "io.prometheus.write.v2.Request";

/// What is told to a client whose type is not taken.
pub const ACCEPTED_TYPES: &str = "application/x-protobuf, application/x-protobuf;proto=prometheus.WriteRequest \
     or application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// The protocol of a request. A missing or empty `Content-Type` is 1.0, as Prometheus takes it.
///
/// # Errors
/// The message of a 415.
pub fn version(content_type: Option<&str>) -> Result<Version, String> {
    let text = content_type.unwrap_or("").trim();
    if text.is_empty() {
        return Ok(Version::V1);
    }
    let refuse = || format!("content type {text:?} is not taken; send {ACCEPTED_TYPES}");
    let mut parts = text.split(';');
    let media = parts.next().unwrap_or("").trim();
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(refuse());
    }
    let mut version = Version::V1;
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        let value = value.trim().trim_matches('"').trim();
        version = if value.eq_ignore_ascii_case(V1_MESSAGE) {
            Version::V1
        } else if value.eq_ignore_ascii_case(V2_MESSAGE) {
            Version::V2
        } else {
            return Err(refuse());
        };
    }
    Ok(version)
}

/// The compression of a request. A missing or empty `Content-Encoding` is snappy, which both
/// versions of the protocol demand.
///
/// # Errors
/// The message of a 415.
pub fn encoding(content_encoding: Option<&str>) -> Result<Encoding, String> {
    let text = content_encoding.unwrap_or("").trim().trim_matches('"');
    match text.to_ascii_lowercase().as_str() {
        "" | "snappy" => Ok(Encoding::Snappy),
        "zstd" => Ok(Encoding::Zstd),
        _ => Err(format!("content encoding {text:?} is not taken; send snappy (block format) or zstd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_leniently() {
        for text in [
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "application/x-protobuf; proto=io.prometheus.write.v2.Request",
            "Application/X-Protobuf ; Proto = \"io.prometheus.write.v2.Request\"",
            "application/x-protobuf; charset=utf-8; proto=io.prometheus.write.v2.Request",
        ] {
            assert_eq!(version(Some(text)), Ok(Version::V2), "{text}");
        }
        for text in
            ["", " ", "application/x-protobuf", "application/x-protobuf;proto=prometheus.WriteRequest"]
        {
            assert_eq!(version(Some(text)), Ok(Version::V1), "{text}");
        }
        assert_eq!(version(None), Ok(Version::V1));
    }

    #[test]
    fn what_is_refused_names_what_is_taken() {
        for text in ["text/plain", "application/json", "application/x-protobuf;proto=other.Message"] {
            let message = version(Some(text)).expect_err(text);
            assert!(
                message.contains(text) && message.contains("io.prometheus.write.v2.Request"),
                "{message}"
            );
        }
        let message = encoding(Some("gzip")).expect_err("gzip");
        assert!(message.contains("gzip") && message.contains("snappy") && message.contains("zstd"));
    }

    #[test]
    fn encodings() {
        assert_eq!(encoding(None), Ok(Encoding::Snappy));
        assert_eq!(encoding(Some("Snappy")), Ok(Encoding::Snappy));
        assert_eq!(encoding(Some("zstd ")), Ok(Encoding::Zstd));
        assert!(encoding(Some("snappy, gzip")).is_err());
    }
}
