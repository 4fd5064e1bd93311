//! The client of remote read. Redirects are not followed.
//!
//! Chunks are asked for where the server has them, and read as they come. Where a chunk is none that
//! this program knows (histograms, XOR2), samples are asked for instead, from then on.

use crate::labels::{MatchOp, Selector};
use crate::outbound::{self, HttpConfig, OutboundError, Peer, SendError};
use crate::wire::read::{self, AnswerKind, Frames, MAX_QUERIES, Query, ReadError, XOR};
use crate::wire::xor::{ChunkError, XorChunk};
use crate::wire::{self, Batch, DecodeLimits, Encoding, Histogram, Sample, Version, WireError};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of an answer of samples, compressed and not.
const MAX_SAMPLES_BODY: usize = 128 << 20;
/// Where a server takes remote read if the URL names no path.
const PATH: &str = "/api/v1/read";

/// One source of `remote_read:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReadConfig {
    /// Where from, who we are. A URL without a path means `/api/v1/read`.
    pub http: HttpConfig,
    /// Matchers that a selector must have, as equalities, for this source to be asked.
    pub required_matchers: Vec<(String, String)>,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    /// It cannot be reached.
    #[error("cannot be reached: {0}")]
    Send(#[from] SendError),
    /// Its answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no whole answer within {:.0} s", .0.as_secs_f64())]
    Late(Duration),
    /// It refused.
    #[error("answered {status}: {message}")]
    Status {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Not an answer of remote read.
    #[error("answered {0:?} where remote read was asked for; is the URL right?")]
    Kind(String),
    /// An answer that is broken.
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] ReadError),
    /// A chunk that is broken.
    #[error("the answer cannot be read: {0}")]
    Chunk(#[from] ChunkError),
    /// More than may be held at a time.
    #[error("more than {0} samples in one answer")]
    TooMany(usize),
}

impl From<WireError> for ReadFailure {
    fn from(error: WireError) -> Self {
        ReadFailure::Answer(error.into())
    }
}

impl ReadFailure {
    /// Whether less may be had.
    pub fn too_much(&self) -> bool {
        match self {
            ReadFailure::TooMany(_) => true,
            ReadFailure::Answer(ReadError::Wire(error)) => {
                matches!(error, WireError::TooLarge { .. } | WireError::TooMany { .. })
            }
            // Prometheus's words where its own limit is passed.
            ReadFailure::Status { status: 400, message } => message.contains("sample limit"),
            _ => false,
        }
    }
}

/// What was read of a series: part of it, in any order and perhaps not for the first time.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its labels as they came.
    pub labels: &'a [(&'a str, &'a str)],
    /// Float samples.
    pub samples: &'a [Sample],
    /// Native histograms with their times.
    pub histograms: &'a [(i64, Histogram)],
}

/// Takes what is found.
pub type Take<'t> = dyn FnMut(Found<'_>) -> Result<(), ReadFailure> + 't;

/// A server to read from.
pub struct Source {
    name: String,
    peer: Peer,
    required: Vec<(String, String)>,
    /// It has chunks that are not known here.
    samples_only: AtomicBool,
}

/// What became of asking for chunks.
enum Asked {
    Done,
    /// There are chunks of other kinds.
    Strange,
}

impl Source {
    /// The source that is configured.
    ///
    /// # Errors
    /// A URL, a header or TLS files that cannot be used.
    pub fn new(config: &RemoteReadConfig) -> Result<Source, OutboundError> {
        let mut http = config.http.clone();
        let after = http.url.split_once("://").map_or("", |(_, rest)| rest);
        if !after.trim_end_matches('/').contains(['/', '?']) {
            http.url = format!("{}{PATH}", http.url.trim_end_matches('/'));
        }
        Ok(Source {
            name: http.name.clone(),
            peer: Peer::new(&http)?,
            required: config.required_matchers.clone(),
            samples_only: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may be asked with this selector.
    fn takes(&self, selector: &Selector) -> bool {
        self.required.iter().all(|(name, value)| {
            let same =
                |m: &crate::labels::Matcher| m.op == MatchOp::Equal && m.name == *name && m.value == *value;
            selector.matchers.iter().any(same)
        })
    }

    /// Reads everything of the series that fit any of the selectors, from `from` to `to`, both
    /// included. A series that fits several comes several times.
    ///
    /// # Errors
    /// What the server or the connection says, and what `take` gives; some of it may have been taken.
    pub async fn read(
        &self,
        selectors: &[Selector],
        (from, to): (i64, i64),
        until: Instant,
        take: &mut Take<'_>,
    ) -> Result<(), ReadFailure> {
        let queries: Vec<Query<'_>> = selectors
            .iter()
            .filter(|selector| self.takes(selector))
            .map(|selector| Query { from, to, matchers: selector.matchers.iter().collect() })
            .collect();
        for queries in queries.chunks(MAX_QUERIES) {
            let mut inside = |found: Found<'_>| {
                let within = |at: i64| (from..=to).contains(&at);
                if found.samples.iter().all(|sample| within(sample.timestamp))
                    && found.histograms.iter().all(|(at, _)| within(*at))
                {
                    return take(found);
                }
                let samples: Vec<_> =
                    found.samples.iter().filter(|sample| within(sample.timestamp)).copied().collect();
                let histograms: Vec<_> =
                    found.histograms.iter().filter(|(at, _)| within(*at)).cloned().collect();
                take(Found { labels: found.labels, samples: &samples, histograms: &histograms })
            };
            let left = until.saturating_duration_since(Instant::now()).min(self.peer.timeout());
            let late = |_| ReadFailure::Late(left);
            let chunks = !self.samples_only.load(Ordering::Relaxed);
            let asked = tokio::time::timeout(left, self.ask(queries, chunks, &mut inside));
            if let Asked::Strange = asked.await.map_err(late)?? {
                self.samples_only.store(true, Ordering::Relaxed);
                let left = until.saturating_duration_since(Instant::now()).min(self.peer.timeout());
                let again = tokio::time::timeout(left, self.ask(queries, false, &mut inside));
                again.await.map_err(|_| ReadFailure::Late(left))??;
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        queries: &[Query<'_>],
        chunks: bool,
        take: &mut Take<'_>,
    ) -> Result<Asked, ReadFailure> {
        let body = Bytes::from(read::request(queries, chunks)?);
        let headers = [
            ("content-encoding", HeaderValue::from_static("snappy")),
            ("content-type", HeaderValue::from_static("application/x-protobuf")),
            ("x-prometheus-remote-read-version", HeaderValue::from_static("0.1.0")),
        ];
        let answer = self.peer.post(&body, &headers).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(ReadFailure::Status { status: status.as_u16(), message: message(answer).await });
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().to_string();
        match AnswerKind::of(&kind) {
            Some(AnswerKind::Chunks) => stream(answer, take).await,
            Some(AnswerKind::Samples) => samples(answer, take).await.map(|()| Asked::Done),
            None => Err(ReadFailure::Kind(kind.chars().take(100).collect())),
        }
    }
}

/// The start of an error's body, on one line.
async fn message(answer: Response<Incoming>) -> String {
    // Most of it is enough; what is longer is not shown.
    let body = Limited::new(answer.into_body(), 64 << 10).collect().await.map(|body| body.to_bytes());
    outbound::excerpt(&body.unwrap_or_default())
}

/// Reads frames of chunks as they come.
async fn stream(answer: Response<Incoming>, take: &mut Take<'_>) -> Result<Asked, ReadFailure> {
    let mut body = answer.into_body();
    let mut frames = Frames::default();
    let mut samples = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadFailure::Broken(error.to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        frames.feed(&bytes);
        while let Some(message) = frames.frame()? {
            let mut strange = false;
            read::chunked(message, |labels, chunk| {
                if chunk.encoding != XOR {
                    strange = true;
                    return Ok(());
                }
                samples.clear();
                for sample in XorChunk::new(chunk.data)? {
                    samples.push(sample?);
                }
                take(Found { labels, samples: &samples, histograms: &[] })
            })?;
            if strange {
                return Ok(Asked::Strange);
            }
        }
    }
    frames.end()?;
    Ok(Asked::Done)
}

/// Reads an answer of samples.
async fn samples(answer: Response<Incoming>, take: &mut Take<'_>) -> Result<(), ReadFailure> {
    let limit = MAX_SAMPLES_BODY as u64;
    let packed = Limited::new(answer.into_body(), MAX_SAMPLES_BODY).collect().await;
    let packed = packed.map_err(|error| match error.downcast::<http_body_util::LengthLimitError>() {
        Ok(_) => WireError::TooLarge { got: limit + 1, limit }.into(),
        Err(error) => ReadFailure::Broken(error.to_string()),
    })?;
    let mut body = Vec::new();
    wire::decompress(Encoding::Snappy, &packed.to_bytes(), MAX_SAMPLES_BODY, &mut body)?;
    let limits = DecodeLimits { samples: 1 << 23, ..DecodeLimits::default() };
    let mut batch = Batch::new(0);
    for result in read::results(&body)? {
        wire::decode(Version::V1, result, &limits, &mut batch)?;
        let mut labels = Vec::new();
        for series in &batch.series {
            // One bad series, or one with a bad histogram, is no reason to lose the others.
            if series.defect.is_some() || batch.read_labels(series, result, &mut labels).is_err() {
                continue;
            }
            take(Found { labels: &labels, samples: batch.floats(series), histograms: batch.native(series) })?;
        }
    }
    Ok(())
}
