//! The encoder of remote write 1.0 and 2.0, reusable from request to request.

mod request;
mod write;

pub use request::{Request, Term};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::Version;
use super::batch::{MetricKind, Piece, Sample};
use super::histogram::Histogram;
use write::{bytes_field, double, histogram_message, varint, varint_field};

/// Slots of [`Encoder::places`], a power of two: some times the labels of a usual request.
const PLACES: usize = 4096;

/// Builds one uncompressed message from series added one by one.
///
/// Labels are written in the order given; sorting them is the caller's part.
#[derive(Debug)]
pub struct Encoder {
    version: Version,
    /// Encoded series (and 1.0 metadata).
    body: Vec<u8>,
    /// Encoded symbols of 2.0.
    symbols: Vec<u8>,
    /// Where each symbol's text is in `symbols`, by reference.
    texts: Vec<Piece>,
    /// References by text.
    table: HashTable<u32>,
    /// References by where a text stood when it was last met: interned labels come again and again
    /// from the same place. Only a guess, the text itself is compared.
    places: Vec<u32>,
    /// The series being encoded.
    series: Vec<u8>,
    /// A message inside it.
    inner: Vec<u8>,
    /// What is known of shared pairs.
    shared: request::Shared,
    samples: usize,
    entries: usize,
}

impl Encoder {
    /// An encoder of empty requests.
    pub fn new(version: Version) -> Encoder {
        let mut encoder = Encoder {
            version,
            body: Vec::new(),
            symbols: Vec::new(),
            texts: Vec::new(),
            table: HashTable::new(),
            places: vec![0; PLACES],
            series: Vec::new(),
            inner: Vec::new(),
            shared: Default::default(),
            samples: 0,
            entries: 0,
        };
        encoder.reset();
        encoder
    }

    /// The protocol encoded.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Adds a series with float samples in the order given. `kind` is written in 2.0 only.
    pub fn series<'l>(
        &mut self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        kind: MetricKind,
        samples: &[Sample],
    ) {
        self.open(labels);
        for sample in samples {
            self.inner.clear();
            double(&mut self.inner, 1, sample.value);
            varint_field(&mut self.inner, 2, sample.timestamp as u64);
            bytes_field(&mut self.series, 2, &self.inner);
        }
        self.samples += samples.len();
        self.close(kind);
    }

    /// Adds a series with native histograms at their timestamps (Unix milliseconds).
    pub fn histogram_series<'l>(
        &mut self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        kind: MetricKind,
        histograms: &[(i64, Histogram)],
    ) {
        self.open(labels);
        let field = match self.version {
            Version::V1 => 4,
            Version::V2 => 3,
        };
        for (timestamp, histogram) in histograms {
            self.inner.clear();
            histogram_message(&mut self.inner, *timestamp, histogram);
            bytes_field(&mut self.series, field, &self.inner);
        }
        self.samples += histograms.len();
        self.close(kind);
    }

    /// Adds the metadata of a metric family. 2.0 has metadata in each series instead, so there it
    /// does nothing.
    pub fn metadata(&mut self, family: &str, kind: MetricKind, help: &str, unit: &str) {
        if self.version == Version::V2 {
            return;
        }
        self.inner.clear();
        varint_field(&mut self.inner, 1, kind as u64);
        for (field, text) in [(2, family), (4, help), (5, unit)] {
            if !text.is_empty() {
                bytes_field(&mut self.inner, field, text.as_bytes());
            }
        }
        bytes_field(&mut self.body, 3, &self.inner);
        self.entries += 1;
    }

    /// Bytes the message has so far.
    pub fn len_estimate(&self) -> usize {
        self.table_bytes().len() + self.body.len()
    }

    /// The symbol table; 1.0 has none, there symbols only number the names of labels.
    fn table_bytes(&self) -> &[u8] {
        if self.version == Version::V2 { &self.symbols } else { &[] }
    }

    /// Samples and histograms added.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The message, not compressed. The encoder is then empty and keeps its memory.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        self.finish_into(&mut message);
        message
    }

    /// As [`Encoder::finish`], into memory that is reused.
    pub fn finish_into(&mut self, message: &mut Vec<u8>) {
        message.clear();
        if !self.is_empty() {
            message.reserve(self.len_estimate());
            message.extend_from_slice(self.table_bytes());
            message.extend_from_slice(&self.body);
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.body.clear();
        self.symbols.clear();
        self.texts.clear();
        self.table.clear();
        self.shared.reset();
        self.samples = 0;
        self.entries = 0;
        if self.version == Version::V2 {
            self.symbol("");
        }
    }

    fn open<'l>(&mut self, labels: impl Iterator<Item = (&'l str, &'l str)>) {
        self.series.clear();
        self.inner.clear();
        match self.version {
            Version::V1 => {
                for (name, value) in labels {
                    self.inner.clear();
                    bytes_field(&mut self.inner, 1, name.as_bytes());
                    bytes_field(&mut self.inner, 2, value.as_bytes());
                    bytes_field(&mut self.series, 1, &self.inner);
                }
            }
            Version::V2 => {
                for (name, value) in labels {
                    for text in [name, value] {
                        let reference = self.symbol(text);
                        varint(&mut self.inner, u64::from(reference));
                    }
                }
                bytes_field(&mut self.series, 1, &self.inner);
            }
        }
    }

    fn close(&mut self, kind: MetricKind) {
        let field = match self.version {
            Version::V1 => 1,
            Version::V2 => {
                if kind != MetricKind::Unknown {
                    self.inner.clear();
                    varint_field(&mut self.inner, 1, kind as u64);
                    bytes_field(&mut self.series, 5, &self.inner);
                }
                5
            }
        };
        bytes_field(&mut self.body, field, &self.series);
        self.entries += 1;
    }

    /// The reference of a symbol, added to the table if it is new.
    fn symbol(&mut self, text: &str) -> u32 {
        let address = text.as_ptr() as usize;
        let place = (address ^ (address >> 12)).wrapping_add(text.len()) % PLACES;
        let guess = self.places[place];
        let there = self.texts.get(guess as usize).map(|piece| piece.of(&self.symbols));
        if there == Some(text.as_bytes()) {
            return guess;
        }
        let reference = self.find_or_add(text);
        self.places[place] = reference;
        reference
    }

    fn find_or_add(&mut self, text: &str) -> u32 {
        let Encoder { symbols, texts, table, .. } = self;
        let text_of = |reference: u32, symbols: &[u8]| -> u64 {
            xxh3_64(texts.get(reference as usize).map_or(&[][..], |piece| piece.of(symbols)))
        };
        let hash = xxh3_64(text.as_bytes());
        let same = |reference: &u32| {
            texts.get(*reference as usize).is_some_and(|piece| piece.of(symbols) == text.as_bytes())
        };
        if let Some(reference) = table.find(hash, same) {
            return *reference;
        }
        let reference = texts.len() as u32;
        table.insert_unique(hash, reference, |other| text_of(*other, symbols));
        bytes_field(symbols, 4, text.as_bytes());
        let len = text.len() as u32;
        texts.push(Piece { start: symbols.len() as u32 - len, len });
        reference
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Batch, DecodeLimits, decode};
    use super::*;

    type Labels = Vec<(String, String)>;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::vec(("[a-c]{1,3}", prop_oneof!["\\PC{0,4}", "x{127,130}"]), 0..5)
    }

    fn pairs(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            series in proptest::collection::vec(
                (labels(), proptest::collection::vec((any::<i64>(), any::<u64>()), 1..4), 0..8u64),
                0..6,
            ),
            histogram in super::super::tests::histogram(),
        ) {
            for version in [Version::V1, Version::V2] {
                let mut encoder = Encoder::new(version);
                let mut batch = Batch::new(1);
                // The second time with used memory.
                for _ in 0..2 {
                    for (labels, samples, kind) in &series {
                        let samples: Vec<_> = samples.iter()
                            .map(|(timestamp, bits)| Sample { timestamp: *timestamp, value: f64::from_bits(*bits) })
                            .collect();
                        encoder.series(pairs(labels), MetricKind::from_number(*kind), &samples);
                    }
                    encoder.metadata("family", MetricKind::Gauge, "help", "unit");
                    let len = encoder.len_estimate();
                    let body = encoder.finish();
                    prop_assert!(encoder.is_empty() && encoder.samples() == 0);
                    prop_assert!(body.len() == len || body.is_empty());
                    decode(version, &body, &DecodeLimits::default(), &mut batch).expect("decodes");
                    prop_assert_eq!(batch.series.len(), series.len());
                    for (found, (labels, samples, kind)) in batch.series.iter().zip(&series) {
                        let mut read = Vec::new();
                        batch.read_labels(found, &body, &mut read).expect("UTF-8");
                        prop_assert_eq!(read, pairs(labels).collect::<Vec<_>>());
                        let kind = if version == Version::V2 { *kind } else { 0 };
                        prop_assert_eq!(found.kind, MetricKind::from_number(kind));
                        prop_assert_eq!(found.defect, None);
                        let range = found.samples.0 as usize..found.samples.1 as usize;
                        let bits: Vec<_> =
                            batch.samples[range].iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
                        prop_assert_eq!(&bits, samples);
                    }
                    let metadata: Vec<_> =
                        batch.metadata.iter().map(|entry| (entry.family.of(&body), entry.kind)).collect();
                    let expected = [(&b"family"[..], MetricKind::Gauge)];
                    prop_assert_eq!(&metadata[..], if version == Version::V1 { &expected[..] } else { &[] });
                }
                // A valid histogram comes back as it was.
                let foreign = super::super::proto::v1::TimeSeries { histograms: vec![histogram.clone()], ..Default::default() };
                let request = super::super::proto::v1::WriteRequest { timeseries: vec![foreign], metadata: vec![] };
                let body = prost::Message::encode_to_vec(&request);
                decode(Version::V1, &body, &DecodeLimits::default(), &mut batch).expect("decodes");
                let wanted = std::mem::take(&mut batch.histograms);
                encoder.histogram_series([("__name__", "h")].into_iter(), MetricKind::Histogram, &wanted);
                prop_assert_eq!(encoder.samples(), 1);
                decode(version, &encoder.finish(), &DecodeLimits::default(), &mut batch).expect("decodes");
                prop_assert_eq!(batch.series[0].defect, None);
                prop_assert_eq!(&batch.histograms, &wanted);
            }
        }
    }

    #[test]
    fn symbols_are_written_once() {
        let mut encoder = Encoder::new(Version::V2);
        for value in ["x", "y", "x"] {
            encoder.series([("job", value), ("empty", "")].into_iter(), MetricKind::Unknown, &[]);
        }
        let body = encoder.finish();
        let request = <super::super::proto::v2::Request as prost::Message>::decode(&body[..]).expect("prost");
        assert_eq!(request.symbols, ["", "job", "x", "empty", "y"]);
        assert_eq!(request.timeseries[2].labels_refs, [1, 2, 3, 0]);
    }

    #[test]
    fn nothing_added_is_an_empty_message() {
        for version in [Version::V1, Version::V2] {
            assert!(Encoder::new(version).finish().is_empty());
        }
    }
}
