//! Remote read: the request, and both kinds of answer.
//!
//! *Samples* are one snappy block of a message whose results are encoded like remote write 1.0 bodies,
//! so its decoder reads them. *Chunks* come as a stream of frames, each a length, a CRC-32C and a
//! message, not compressed. A series may come in several frames. Answers come from another server:
//! everything of them is checked and bounded.

mod chunks;
mod frames;

pub use chunks::{Chunk, RawLabels, XOR, chunked};
pub use frames::{Frames, MAX_FRAME, crc32c};

use super::cursor::{BYTES, Cursor, tag};
use super::proto::v1;
use super::{WireError, compress_snappy};
use crate::labels::{MatchOp, Matcher};
use prost::Message;

/// Queries in one request.
pub const MAX_QUERIES: usize = 64;

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// One snappy block of samples.
    Samples,
    /// A stream of frames of chunks.
    Chunks,
}

impl AnswerKind {
    /// The kind that a `Content-Type` names; `None` for others. Samples are what a server sends that
    /// knows nothing else, whatever it calls them.
    pub fn of(content_type: &str) -> Option<AnswerKind> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/x-streamed-protobuf" => Some(AnswerKind::Chunks),
            "application/x-protobuf" | "application/octet-stream" | "" => Some(AnswerKind::Samples),
            _ => None,
        }
    }
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A frame or message is broken.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A frame is larger than any server sends.
    #[error("a frame of {0} bytes, over the limit of {MAX_FRAME}")]
    Frame(u64),
    /// Its bytes are not those that were sent.
    #[error("a frame's checksum is {found:#010x} and should be {said:#010x}")]
    Checksum {
        /// As it was sent.
        said: u32,
        /// Of what came.
        found: u32,
    },
    /// The stream ends within a frame.
    #[error("the answer breaks off within a frame")]
    Cut,
    /// A label that is not UTF-8.
    #[error("a label is not valid UTF-8")]
    NotUtf8,
}

/// One query: everything of the series that fit all matchers, both ends included.
#[derive(Clone, Debug)]
pub struct Query<'m> {
    /// First time, Unix milliseconds.
    pub from: i64,
    /// Last time.
    pub to: i64,
    /// The matchers.
    pub matchers: Vec<&'m Matcher>,
}

/// The compressed body of a request. `chunks`: chunks are welcome beside samples.
///
/// # Errors
/// A request that is too large to compress.
pub fn request(queries: &[Query<'_>], chunks: bool) -> Result<Vec<u8>, WireError> {
    use v1::label_matcher::Type;
    use v1::read_request::ResponseType;
    let matcher = |matcher: &&Matcher| v1::LabelMatcher {
        r#type: match matcher.op {
            MatchOp::Equal => Type::Eq,
            MatchOp::NotEqual => Type::Neq,
            MatchOp::Regex => Type::Re,
            MatchOp::NotRegex => Type::Nre,
        }
        .into(),
        name: matcher.name.clone(),
        value: matcher.value.clone(),
    };
    let query = |query: &Query<'_>| v1::Query {
        start_timestamp_ms: query.from,
        end_timestamp_ms: query.to,
        matchers: query.matchers.iter().map(matcher).collect(),
        hints: None,
    };
    let kinds: &[ResponseType] = match chunks {
        true => &[ResponseType::StreamedXorChunks, ResponseType::Samples],
        false => &[ResponseType::Samples],
    };
    let request = v1::ReadRequest {
        queries: queries.iter().map(query).collect(),
        accepted_response_types: kinds.iter().map(|kind| i32::from(*kind)).collect(),
    };
    compress_snappy(&request.encode_to_vec())
}

/// The results of a decompressed answer of samples, each encoded as a remote write 1.0 body is.
///
/// # Errors
/// A broken message, or more results than a request has queries.
pub fn results(body: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    const RESULT: u32 = tag(1, BYTES);
    let mut found = Vec::new();
    let mut m = Cursor::new(body);
    while m.more() {
        match m.tag()? {
            RESULT if found.len() == MAX_QUERIES => {
                return Err(WireError::TooMany { what: "results", limit: MAX_QUERIES });
            }
            RESULT => found.push(m.nested()?.rest()),
            other => m.skip(other, 0b10)?,
        }
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A frame around a message.
    pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(message.len() as u64, &mut out);
        out.extend(crc32c(message).to_be_bytes());
        out.extend(message);
        out
    }

    /// A frame of one series with these chunks of this encoding.
    pub(crate) fn series(labels: &[(&str, &str)], encoding: i32, chunks: &[(i64, i64, Vec<u8>)]) -> Vec<u8> {
        let labels =
            labels.iter().map(|(name, value)| v1::Label { name: name.to_string(), value: value.to_string() });
        let chunks = chunks.iter().map(|(min, max, data)| v1::Chunk {
            min_time_ms: *min,
            max_time_ms: *max,
            r#type: encoding,
            data: data.clone(),
        });
        let series = v1::ChunkedSeries { labels: labels.collect(), chunks: chunks.collect() };
        frame(&v1::ChunkedReadResponse { chunked_series: vec![series], query_index: 3 }.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_says_what_is_wanted() {
        let of = |name, op, value| Matcher::new(name, op, value).expect("compiles");
        let all = [
            of("__name__", MatchOp::Equal, "up"),
            of("a", MatchOp::NotEqual, "1"),
            of("b", MatchOp::Regex, "x|y"),
            of("c", MatchOp::NotRegex, "z.*"),
        ];
        let query = Query { from: 5, to: 9, matchers: all.iter().collect() };
        let mut body = Vec::new();
        let packed = request(&[query], true).expect("small");
        super::super::decompress(super::super::Encoding::Snappy, &packed, 1 << 20, &mut body)
            .expect("snappy");
        let got = v1::ReadRequest::decode(&body[..]).expect("a request");
        assert_eq!(got.accepted_response_types, [1, 0]);
        let [query] = &got.queries[..] else { panic!("one query") };
        assert_eq!((query.start_timestamp_ms, query.end_timestamp_ms), (5, 9));
        let got: Vec<_> =
            query.matchers.iter().map(|m| (m.r#type, m.name.as_str(), m.value.as_str())).collect();
        assert_eq!(got, [(0, "__name__", "up"), (1, "a", "1"), (2, "b", "x|y"), (3, "c", "z.*")]);
    }

    #[test]
    fn the_content_type_tells_the_answer() {
        for (text, kind) in [
            (
                "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse",
                Some(AnswerKind::Chunks),
            ),
            ("application/x-protobuf", Some(AnswerKind::Samples)),
            ("", Some(AnswerKind::Samples)),
            ("text/html; charset=utf-8", None),
        ] {
            assert_eq!(AnswerKind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn results_are_bounded() {
        let many = v1::ReadResponse { results: vec![Default::default(); MAX_QUERIES + 1] }.encode_to_vec();
        assert!(matches!(results(&many), Err(WireError::TooMany { .. })));
    }

    #[test]
    fn results_are_read_by_the_write_decoder() {
        let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
        let one = v1::TimeSeries {
            labels: vec![label("__name__", "up")],
            samples: vec![v1::Sample { value: 2.5, timestamp: 7 }],
            ..Default::default()
        };
        let answer =
            v1::ReadResponse { results: vec![Default::default(), v1::QueryResult { timeseries: vec![one] }] };
        let body = answer.encode_to_vec();
        let found = results(&body).expect("sound");
        assert_eq!((found.len(), found[0].len()), (2, 0));
        let mut batch = super::super::Batch::new(0);
        super::super::decode(super::super::Version::V1, found[1], &Default::default(), &mut batch)
            .expect("sound");
        assert_eq!(batch.samples, [super::super::Sample { timestamp: 7, value: 2.5 }]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = results(&bytes);
        }
    }
}
