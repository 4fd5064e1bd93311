//! Remote write as the specifications have it, written here again so that the product's own
//! encoder and decoder are not their own judges.

/// Time stamp, value, and in 2.0 the start time stamp.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `BucketSpan`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// `Histogram` of both versions. Both counts are optional, so that either arm of the `oneof` can be sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
}

/// 1.0 messages.
pub mod v1 {
    use super::{Histogram, Sample};

    /// Bytes, not strings: broken UTF-8 must be sendable. The wire form is the same.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(string, tag = "2")]
        pub family: String,
        #[prost(string, tag = "4")]
        pub help: String,
        #[prost(string, tag = "5")]
        pub unit: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Metadata>,
    }
}

/// 2.0 messages.
pub mod v2 {
    use super::{Histogram, Sample};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<Histogram>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub symbols: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }
}

/// Content type of 1.0.
pub const V1: &str = "application/x-protobuf";
/// Content type of 2.0.
pub const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A series to send, in either protocol.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Label pairs in the order they are sent.
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    /// (milliseconds, value)
    pub samples: Vec<(i64, f64)>,
    /// Native histograms.
    pub histograms: Vec<Histogram>,
    /// Exemplars: (milliseconds, value).
    pub exemplars: Vec<(i64, f64)>,
}

impl Series {
    /// A series of floats.
    pub fn new(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let labels = labels.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        Series { labels, samples: samples.to_vec(), ..Series::default() }
    }
}

fn samples(series: &Series) -> Vec<Sample> {
    let one = |&(timestamp, value): &(i64, f64)| Sample { value, timestamp, start_timestamp: 0 };
    series.samples.iter().map(one).collect()
}

/// A 1.0 body, not yet compressed.
pub fn encode_v1(all: &[Series]) -> Vec<u8> {
    let label = |(name, value): &(Vec<u8>, Vec<u8>)| v1::Label { name: name.clone(), value: value.clone() };
    let exemplar = |&(timestamp, value): &(i64, f64)| v1::Exemplar { labels: Vec::new(), value, timestamp };
    let timeseries = all.iter().map(|series| v1::TimeSeries {
        labels: series.labels.iter().map(label).collect(),
        samples: samples(series),
        exemplars: series.exemplars.iter().map(exemplar).collect(),
        histograms: series.histograms.clone(),
    });
    prost::Message::encode_to_vec(&v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: Vec::new(),
    })
}

/// A 2.0 message; its symbols are deduplicated, the first one is empty.
pub fn message_v2(all: &[Series]) -> v2::Request {
    let mut symbols: Vec<Vec<u8>> = vec![Vec::new()];
    let mut known = std::collections::HashMap::from([(Vec::new(), 0u32)]);
    let mut timeseries = Vec::new();
    for series in all {
        let mut labels_refs = Vec::new();
        for text in series.labels.iter().flat_map(|(name, value)| [name, value]) {
            labels_refs.push(*known.entry(text.clone()).or_insert_with(|| {
                symbols.push(text.clone());
                (symbols.len() - 1) as u32
            }));
        }
        let exemplar =
            |&(timestamp, value): &(i64, f64)| v2::Exemplar { labels_refs: Vec::new(), value, timestamp };
        timeseries.push(v2::TimeSeries {
            labels_refs,
            samples: samples(series),
            histograms: series.histograms.clone(),
            exemplars: series.exemplars.iter().map(exemplar).collect(),
            metadata: None,
        });
    }
    v2::Request { symbols, timeseries }
}

/// A 2.0 body, not yet compressed.
pub fn encode_v2(all: &[Series]) -> Vec<u8> {
    prost::Message::encode_to_vec(&message_v2(all))
}

/// The snappy block format.
pub fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("under 4 GiB")
}

/// Sends a body in one of the protocols and gives the answer.
pub fn send(url: &str, content_type: &str, body: &[u8]) -> std::io::Result<super::http::Message> {
    let version = if content_type == V2 { "2.0.0" } else { "0.1.0" };
    let headers = [
        ("Content-Type", content_type),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", version),
        ("User-Agent", "oddity-tests"),
    ];
    super::http::request("POST", url, &headers, &snappy(body))
}
