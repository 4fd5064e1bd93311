//! Remote read: the request, and both kinds of answer.
//!
//! *Samples* are one snappy block of a message whose results are encoded like remote write 1.0 bodies,
//! so its decoder reads them. *Chunks* come as a stream of frames, each a length, a CRC-32C and a
//! message, not compressed. A series may come in several frames. Answers come from another server:
//! everything of them is checked and bounded.

use super::cursor::{BYTES, Cursor, VARINT, tag};
use super::proto::v1;
use super::{WireError, compress_snappy};
use crate::labels::{MatchOp, Matcher};
use prost::Message;

/// Bytes of a frame. Prometheus sends about 1 MiB, and lets others send 50 MB.
pub const MAX_FRAME: usize = 50 << 20;
/// Labels of one series.
const MAX_LABELS: usize = 1 << 10;
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

/// A chunk as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'b> {
    /// First and last time it says it has, Unix milliseconds.
    pub span: (i64, i64),
    /// Its encoding: see [`XOR`].
    pub encoding: u64,
    /// Its bytes.
    pub data: &'b [u8],
}

/// The encoding of [XOR chunks](super::xor); others are histograms, or newer than this program.
pub const XOR: u64 = 1;

/// Labels of a series as they came.
pub type RawLabels<'b> = Vec<(&'b str, &'b str)>;

/// Walks a frame's message; `each` gets a series' labels and one of its chunks.
///
/// # Errors
/// A broken message, or what `each` gives.
pub fn chunked<'b, E: From<ReadError>>(
    message: &'b [u8],
    mut each: impl FnMut(&RawLabels<'b>, Chunk<'b>) -> Result<(), E>,
) -> Result<(), E> {
    const SERIES: u32 = tag(1, BYTES);
    const INDEX: u32 = tag(2, VARINT);
    let mut labels = Vec::new();
    let mut m = Cursor::new(message);
    while m.more() {
        match m.tag().map_err(ReadError::from)? {
            SERIES => chunked_series(m.nested().map_err(ReadError::from)?, &mut labels, &mut each)?,
            INDEX => drop(m.varint().map_err(ReadError::from)?),
            other => m.skip(other, 0b110).map_err(ReadError::from)?,
        }
    }
    Ok(())
}

fn chunked_series<'b, E: From<ReadError>>(
    m: Cursor<'b>,
    labels: &mut RawLabels<'b>,
    each: &mut impl FnMut(&RawLabels<'b>, Chunk<'b>) -> Result<(), E>,
) -> Result<(), E> {
    const LABEL: u32 = tag(1, BYTES);
    const CHUNK: u32 = tag(2, BYTES);
    labels.clear();
    // Protobuf lets labels come after chunks, so they are read first.
    for wanted in [LABEL, CHUNK] {
        let mut m = m;
        while m.more() {
            match m.tag().map_err(ReadError::from)? {
                found @ (LABEL | CHUNK) => {
                    let field = m.nested().map_err(ReadError::from)?;
                    match (found == wanted, found) {
                        (false, _) => {}
                        (true, LABEL) => labels.push(label(field, labels.len())?),
                        (true, _) => each(labels, chunk(field).map_err(ReadError::from)?)?,
                    }
                }
                other => m.skip(other, 0b110).map_err(ReadError::from)?,
            }
        }
    }
    Ok(())
}

fn label<'b>(mut m: Cursor<'b>, have: usize) -> Result<(&'b str, &'b str), ReadError> {
    const NAME: u32 = tag(1, BYTES);
    const VALUE: u32 = tag(2, BYTES);
    if have == MAX_LABELS {
        return Err(WireError::TooMany { what: "labels in one series", limit: MAX_LABELS }.into());
    }
    let (mut name, mut value) = (&b""[..], &b""[..]);
    while m.more() {
        match m.tag()? {
            NAME => name = m.nested()?.rest(),
            VALUE => value = m.nested()?.rest(),
            other => m.skip(other, 0b110)?,
        }
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8);
    Ok((text(name)?, text(value)?))
}

fn chunk(mut m: Cursor<'_>) -> Result<Chunk<'_>, WireError> {
    const MIN: u32 = tag(1, VARINT);
    const MAX: u32 = tag(2, VARINT);
    const ENCODING: u32 = tag(3, VARINT);
    const DATA: u32 = tag(4, BYTES);
    let mut chunk = Chunk { span: (0, 0), encoding: 0, data: &[] };
    while m.more() {
        match m.tag()? {
            MIN => chunk.span.0 = m.varint()? as i64,
            MAX => chunk.span.1 = m.varint()? as i64,
            ENCODING => chunk.encoding = m.varint()?,
            DATA => chunk.data = m.nested()?.rest(),
            other => m.skip(other, 0b1_1110)?,
        }
    }
    Ok(chunk)
}

/// Takes the bytes of a streamed answer as they come and gives whole frames' messages.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins in it.
    next: usize,
}

impl Frames {
    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.next);
        self.next = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame's message; `None` until all of it has come.
    ///
    /// # Errors
    /// A frame that is too large or not what was sent. The stream is of no use then.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let rest = self.buffer.get(self.next..).unwrap_or(&[]);
        let Some((length, head)) = length(rest)? else { return Ok(None) };
        let body = rest.get(head..).unwrap_or(&[]);
        let Some((checksum, body)) = body.split_first_chunk::<4>() else { return Ok(None) };
        let Some(message) = body.get(..length) else { return Ok(None) };
        let (said, found) = (u32::from_be_bytes(*checksum), crc32c(message));
        if said != found {
            return Err(ReadError::Checksum { said, found });
        }
        self.next += head + 4 + length;
        Ok(Some(message))
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.next
    }

    /// Says that no more will come.
    ///
    /// # Errors
    /// A frame has come in part.
    pub fn end(&self) -> Result<(), ReadError> {
        if self.held() == 0 { Ok(()) } else { Err(ReadError::Cut) }
    }
}

/// A frame's length and how many bytes say it; `None` until all of them have come.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ReadError> {
    let mut length = 0u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // What the tenth byte has beyond 64 bits makes it too large as well.
        length |= bits.checked_shl(7 * n as u32).filter(|_| n < 9).unwrap_or(u64::MAX);
        if *byte < 0x80 {
            return match usize::try_from(length) {
                Ok(small) if small <= MAX_FRAME => Ok(Some((small, n + 1))),
                _ => Err(ReadError::Frame(length)),
            };
        }
    }
    if bytes.len() < 10 { Ok(None) } else { Err(ReadError::Frame(length)) }
}

/// CRC-32C (Castagnoli), as in iSCSI.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
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
    use proptest::prelude::*;

    use super::testing::{frame, series};
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

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

    type Got = Vec<(Vec<(String, String)>, Vec<u8>)>;

    fn read(message: &[u8]) -> Result<Got, ReadError> {
        let mut got = Vec::new();
        chunked(message, |labels, chunk| {
            let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            got.push((labels, chunk.data.to_vec()));
            Ok::<(), ReadError>(())
        })?;
        Ok(got)
    }

    #[test]
    fn frames_come_whole_however_the_bytes_are_cut() {
        let stream =
            [series(&[("__name__", "up")], 1, &[(1, 2, vec![7; 300])]), frame(b""), series(&[], 1, &[])]
                .concat();
        for step in [1, 2, 3, 100, stream.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(step) {
                frames.feed(bytes);
                while let Some(message) = frames.frame().expect("sound") {
                    got.push(message.to_vec());
                }
            }
            assert_eq!((got.len(), frames.end()), (3, Ok(())));
            let up = vec![("__name__".to_string(), "up".to_string())];
            assert_eq!(read(&got[0]), Ok(vec![(up, vec![7; 300])]));
        }
        let mut frames = Frames::default();
        frames.feed(&stream[..stream.len() - 1]);
        while frames.frame().expect("sound").is_some() {}
        assert_eq!(frames.end(), Err(ReadError::Cut));
    }

    #[test]
    fn a_flipped_bit_and_a_huge_frame_are_refused() {
        let mut bad = series(&[("__name__", "up")], 1, &[(1, 2, vec![7; 30])]);
        *bad.last_mut().expect("bytes") ^= 1;
        let mut frames = Frames::default();
        frames.feed(&bad);
        assert!(matches!(frames.frame(), Err(ReadError::Checksum { .. })));
        for huge in [
            &[0x80, 0x80, 0x80, 0x20][..],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            let mut frames = Frames::default();
            frames.feed(huge);
            assert!(matches!(frames.frame(), Err(ReadError::Frame(_))), "{huge:x?}");
        }
    }

    #[test]
    fn labels_after_chunks_belong_to_them_too() {
        let label = v1::Label { name: "n".into(), value: "v".into() }.encode_to_vec();
        let chunk = v1::Chunk { data: vec![9], ..Default::default() }.encode_to_vec();
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
        let message = field(1, &[field(2, &chunk), field(1, &label)].concat());
        assert_eq!(read(&message), Ok(vec![(vec![("n".into(), "v".into())], vec![9])]));
        let message = field(1, &field(1, &field(1, &[0xff])));
        assert_eq!(read(&message), Err(ReadError::NotUtf8));
    }

    #[test]
    fn limits_hold() {
        let labels = vec![("a", "b"); MAX_LABELS + 1];
        let stream = series(&labels, 1, &[]);
        let mut frames = Frames::default();
        frames.feed(&stream);
        let message = frames.frame().expect("sound").expect("whole").to_vec();
        assert!(matches!(read(&message), Err(ReadError::Wire(WireError::TooMany { .. }))));
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
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let _ = (read(&bytes), results(&bytes));
            let mut frames = Frames::default();
            for piece in bytes.chunks(cut) {
                frames.feed(piece);
                while let Ok(Some(message)) = frames.frame() {
                    prop_assert!(message.len() <= bytes.len());
                }
            }
        }

        #[test]
        fn what_prost_reads_is_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..60), flip in any::<(u8, u8)>()) {
            let name = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = series(&[("__name__", &name), ("x", "y")], 1, &[(-1, 2, bytes.clone()), (3, 4, Vec::new())]);
            // Somewhere in the message.
            let at = 5 + usize::from(flip.0) % (stream.len() - 5);
            stream[at] ^= flip.1;
            let message = &stream[5..];
            if let (Ok(theirs), Ok(ours)) = (v1::ChunkedReadResponse::decode(message), read(message)) {
                let flat: Got = theirs.chunked_series.iter().flat_map(|s| {
                    let labels: Vec<_> = s.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
                    s.chunks.iter().map(move |c| (labels.clone(), c.data.clone()))
                }).collect();
                prop_assert_eq!(flat, ours);
            }
        }
    }
}
