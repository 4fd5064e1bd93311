//! Bodies of remote write: the hand-written decoders against prost, and against the encoder.

use oddity::wire::proto::{v1, v2};
use oddity::wire::{
    self, Batch, DecodeLimits, Encoder, Encoding, MetricKind, SeriesDefect, Version, WireError,
    compress_snappy, decompress,
};
use prost::Message;

/// A series as both decoders see it: labels where they can be read, samples by their bits, times of
/// histograms, exemplars.
#[derive(Debug, PartialEq)]
struct Series {
    labels: Option<Vec<(String, String)>>,
    samples: Vec<(i64, u64)>,
    histograms: Vec<i64>,
    exemplars: usize,
}

fn ours(batch: &Batch, body: &[u8]) -> Vec<Series> {
    let series = |series: &wire::SeriesRef| {
        let mut labels = Vec::new();
        let unknown = matches!(series.defect, Some(SeriesDefect::OddRefs | SeriesDefect::RefOutOfRange));
        let readable = !unknown && batch.read_labels(series, body, &mut labels).is_ok();
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Series {
            labels: readable.then_some(labels),
            samples: batch.floats(series).iter().map(|s| (s.timestamp, s.value.to_bits())).collect(),
            histograms: batch.native(series).iter().map(|(at, _)| *at).collect(),
            exemplars: series.exemplars as usize,
        }
    };
    batch.series.iter().map(series).collect()
}

/// What the hand-written decoder refuses although it is protobuf.
fn own_reason(error: &WireError) -> bool {
    const REASONS: [&str; 3] =
        ["a group", "the first symbol is not the empty string", "series without a symbol table"];
    match error {
        WireError::Protobuf { what, .. } => REASONS.contains(what),
        WireError::TooMany { .. } => true,
        _ => false,
    }
}

/// Both decoders agree: on what is protobuf, and on what it says.
fn agree(mine: Result<Vec<Series>, WireError>, theirs: Result<Vec<Series>, prost::DecodeError>) {
    match (mine, theirs) {
        (Ok(mine), Ok(theirs)) => {
            assert_eq!(mine.len(), theirs.len(), "series");
            for (mine, mut theirs) in mine.into_iter().zip(theirs) {
                // Labels that cannot be read are those of a defect, or too long.
                if mine.labels.is_none() {
                    theirs.labels = None;
                }
                assert_eq!(mine, theirs);
            }
        }
        (Ok(_), Err(error)) => assert!(error.to_string().contains("UTF-8"), "prost refuses it: {error}"),
        (Err(error), Ok(_)) => assert!(own_reason(&error), "prost takes it: {error}"),
        (Err(_), Err(_)) => {}
    }
}

/// What was decoded, encoded and decoded again is the same.
fn again(version: Version, batch: &Batch, body: &[u8]) {
    if batch.series.iter().any(|series| series.defect.is_some()) {
        return;
    }
    let mut encoder = Encoder::new(version);
    for series in &batch.series {
        let mut labels = Vec::new();
        if batch.read_labels(series, body, &mut labels).is_err() {
            return;
        }
        let (samples, histograms) = (batch.floats(series), batch.native(series));
        if !samples.is_empty() {
            encoder.series(labels.iter().copied(), series.kind, samples);
        }
        if !histograms.is_empty() {
            encoder.histogram_series(labels.iter().copied(), series.kind, histograms);
        }
    }
    let bytes = encoder.finish();
    let mut copy = Batch::new(0);
    wire::decode(version, &bytes, &DecodeLimits::default(), &mut copy).expect("own bytes");
    let samples =
        |batch: &Batch| batch.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect::<Vec<_>>();
    assert_eq!(samples(&copy), samples(batch));
    assert_eq!(format!("{:?}", copy.histograms), format!("{:?}", batch.histograms));
    assert!(copy.series.iter().all(|series| series.defect.is_none()));
}

fn decoded(version: Version, body: &[u8]) -> Result<Vec<Series>, WireError> {
    let mut batch = Batch::new(0);
    wire::decode(version, body, &DecodeLimits::default(), &mut batch)?;
    for pair in batch.histograms.windows(2) {
        // Whatever was decoded, these do not panic.
        let _ = (pair[1].1.delta_since(&pair[0].1), pair[0].1.quantile(0.3), pair[0].1.quantile(0.99));
    }
    again(version, &batch, body);
    Ok(ours(&batch, body))
}

/// A body of remote write 1.0.
pub fn decode_v1(body: &[u8]) {
    let theirs = v1::WriteRequest::decode(body).map(|request| v1_series(&request.timeseries));
    agree(decoded(Version::V1, body), theirs);
}

/// Series as prost reads them.
fn v1_series(series: &[v1::TimeSeries]) -> Vec<Series> {
    let series = series.iter().map(|series| Series {
        labels: Some(series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect()),
        samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect(),
        histograms: series.histograms.iter().map(|h| h.timestamp).collect(),
        exemplars: series.exemplars.len(),
    });
    series.collect()
}

/// A body of remote write 2.0.
pub fn decode_v2(body: &[u8]) {
    let theirs = v2::Request::decode(body).map(|request| {
        let symbol = |at: &u32| request.symbols.get(*at as usize).cloned().unwrap_or_default();
        let series = request.timeseries.iter().map(|series| Series {
            labels: Some(
                series.labels_refs.chunks_exact(2).map(|pair| (symbol(&pair[0]), symbol(&pair[1]))).collect(),
            ),
            samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect(),
            histograms: series.histograms.iter().map(|h| h.timestamp).collect(),
            exemplars: series.exemplars.len(),
        });
        series.collect()
    });
    agree(decoded(Version::V2, body), theirs);
}

/// Compressed bodies, and bodies compressed.
pub fn frames(data: &[u8]) {
    const LIMIT: usize = 1 << 20;
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut out = Vec::new();
    for encoding in [Encoding::Snappy, Encoding::Zstd] {
        let result = decompress(encoding, data, LIMIT, &mut out);
        assert!(out.len() <= LIMIT && (result.is_ok() || out.is_empty()));
        assert!(out.capacity() <= 4 * LIMIT, "{} bytes held", out.capacity());
        if data.starts_with(&ZSTD) || (encoding == Encoding::Zstd && data.is_empty()) {
            continue;
        }
        let declared = snap::raw::decompress_len(data).unwrap_or(usize::MAX);
        let theirs =
            (declared <= LIMIT).then(|| snap::raw::Decoder::new().decompress_vec(data).ok()).flatten();
        assert_eq!(result.is_ok().then_some(&out), theirs.as_ref(), "{result:?}");
    }
    if data.len() <= LIMIT {
        let packed = [
            (Encoding::Snappy, compress_snappy(data).expect("small")),
            (Encoding::Zstd, zstd::bulk::compress(data, 1).expect("small")),
        ];
        for (encoding, packed) in packed {
            decompress(encoding, &packed, LIMIT, &mut out).expect("own bytes");
            assert_eq!(out, data);
        }
    }
}

/// A body for the corpora.
#[allow(dead_code)] // only the driver makes them
pub fn sample_body(version: Version) -> Vec<u8> {
    use oddity::wire::histogram::Span;
    use oddity::wire::{Histogram, Sample};
    let mut encoder = Encoder::new(version);
    for n in 0..3i64 {
        let instance = format!("host-{n}");
        let labels = [("__name__", "up"), ("instance", instance.as_str()), ("job", "node")];
        let samples = [1.5, f64::NAN, -0.0].map(|value| Sample { timestamp: 1_700_000_000_000 + n, value });
        encoder.series(labels.into_iter(), MetricKind::Gauge, &samples[..n as usize + 1]);
    }
    for integer in [true, false] {
        let histogram = Histogram {
            integer,
            count: 7.0,
            sum: 12.5,
            zero_count: 1.0,
            zero_threshold: 1e-3,
            positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 3, length: 1 }],
            positive: vec![1.0, 3.0, 2.0],
            ..Histogram::default()
        };
        encoder.histogram_series([("__name__", "h")].into_iter(), MetricKind::Histogram, &[(5, histogram)]);
    }
    encoder.metadata("up", MetricKind::Gauge, "help", "unit");
    encoder.finish()
}
