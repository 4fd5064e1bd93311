//! The decoders against prost, the judge of what a body says.

use proptest::prelude::*;
use prost::Message;

use super::histogram::{CUSTOM_SCHEMA, ResetHint, Span};
use super::proto::{v1 as p1, v2 as p2};
use super::*;

/// A request as either decoder sees it; floats by their bits.
#[derive(Debug, Default, PartialEq)]
struct View {
    series: Vec<SeriesView>,
    metadata: Vec<(String, MetricKind)>,
    exemplars: u64,
}

#[derive(Debug, Default, PartialEq)]
struct SeriesView {
    /// Not compared for a 2.0 series with bad references.
    labels: Vec<(String, String)>,
    samples: Vec<(i64, u64)>,
    histograms: Vec<(i64, String)>,
    exemplars: u32,
    kind: MetricKind,
    defect: Option<SeriesDefect>,
}

fn ours(version: Version, body: &[u8]) -> Result<View, WireError> {
    let mut batch = Batch::new(7);
    decode(version, body, &DecodeLimits::default(), &mut batch)?;
    let mut view = View { exemplars: batch.exemplars, ..View::default() };
    for series in &batch.series {
        let mut raw = Vec::new();
        let read = batch.read_labels(series, body, &mut raw);
        let bad_refs = matches!(series.defect, Some(SeriesDefect::OddRefs | SeriesDefect::RefOutOfRange));
        if bad_refs || read.is_err() {
            raw.clear();
        }
        let samples = &batch.samples[series.samples.0 as usize..series.samples.1 as usize];
        let histograms = &batch.histograms[series.histograms.0 as usize..series.histograms.1 as usize];
        for pair in histograms.windows(2) {
            // Must not panic whatever was decoded.
            let _ = (pair[1].1.delta_since(&pair[0].1), pair[0].1.quantile(0.3), pair[0].1.quantile(0.9));
        }
        view.series.push(SeriesView {
            labels: raw.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            samples: samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect(),
            histograms: histograms.iter().map(|(at, histogram)| (*at, format!("{histogram:?}"))).collect(),
            exemplars: series.exemplars,
            kind: series.kind,
            defect: series.defect,
        });
    }
    for entry in &batch.metadata {
        view.metadata.push((String::from_utf8_lossy(entry.family.of(body)).into(), entry.kind));
    }
    Ok(view)
}

/// The histogram of a valid message, by the plainest reading of the schema.
fn plain(message: &p1::Histogram) -> Histogram {
    use p1::histogram::{Count, ZeroCount};
    let integer = matches!(message.count, Some(Count::CountInt(_)));
    let absolute = |deltas: &[i64], counts: &[f64]| {
        if !integer {
            return counts.to_vec();
        }
        (1..=deltas.len()).map(|to| deltas[..to].iter().sum::<i64>() as f64).collect()
    };
    let spans = |spans: &[p1::BucketSpan]| {
        spans.iter().map(|span| Span { offset: span.offset, length: span.length }).collect()
    };
    Histogram {
        integer,
        count: match message.count {
            Some(Count::CountInt(count)) => count as f64,
            Some(Count::CountFloat(count)) => count,
            None => 0.0,
        },
        sum: message.sum,
        schema: message.schema,
        zero_threshold: message.zero_threshold,
        zero_count: match message.zero_count {
            Some(ZeroCount::ZeroCountInt(count)) => count as f64,
            Some(ZeroCount::ZeroCountFloat(count)) => count,
            None => 0.0,
        },
        positive_spans: spans(&message.positive_spans),
        positive: absolute(&message.positive_deltas, &message.positive_counts),
        negative_spans: spans(&message.negative_spans),
        negative: absolute(&message.negative_deltas, &message.negative_counts),
        custom_values: message.custom_values.clone(),
        reset_hint: ResetHint::from_number(message.reset_hint as u64),
    }
}

fn prosts_v1(request: &p1::WriteRequest) -> View {
    let mut view = View::default();
    for series in &request.timeseries {
        view.exemplars += series.exemplars.len() as u64;
        view.series.push(SeriesView {
            labels: series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect(),
            samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect(),
            histograms: series.histograms.iter().map(|h| (h.timestamp, format!("{:?}", plain(h)))).collect(),
            exemplars: series.exemplars.len() as u32,
            ..SeriesView::default()
        });
    }
    for entry in &request.metadata {
        view.metadata.push((entry.metric_family_name.clone(), MetricKind::from_number(entry.r#type as u64)));
    }
    view
}

fn prosts_v2(request: &p2::Request) -> View {
    let mut view = View::default();
    for series in &request.timeseries {
        view.exemplars += series.exemplars.len() as u64;
        let symbol = |index: &u32| request.symbols.get(*index as usize).cloned();
        let symbols: Option<Vec<String>> = series.labels_refs.iter().map(symbol).collect();
        let defect = match &symbols {
            None => Some(SeriesDefect::RefOutOfRange),
            Some(symbols) if symbols.len() % 2 == 1 => Some(SeriesDefect::OddRefs),
            _ if series.samples.is_empty() && series.histograms.is_empty() => Some(SeriesDefect::Empty),
            _ if !series.samples.is_empty() && !series.histograms.is_empty() => Some(SeriesDefect::Mixed),
            _ => None,
        };
        let bad_refs = matches!(defect, Some(SeriesDefect::OddRefs | SeriesDefect::RefOutOfRange));
        let symbols = symbols.filter(|_| !bad_refs).unwrap_or_default();
        let as_v1 = |h: &p2::Histogram| p1::Histogram::decode(&h.encode_to_vec()[..]).expect("same fields");
        view.series.push(SeriesView {
            labels: symbols.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect(),
            histograms: (series.histograms.iter())
                .map(|h| (h.timestamp, format!("{:?}", plain(&as_v1(h)))))
                .collect(),
            exemplars: series.exemplars.len() as u32,
            kind: MetricKind::from_number(series.metadata.map_or(0, |m| m.r#type as u64)),
            defect,
        });
    }
    view
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "\\PC{0,12}", 1 => "[a-z]{120,140}"]
}

fn bits() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(f64::from_bits(STALE_BITS)), Just(0.0)]
}

fn side(custom: bool) -> impl Strategy<Value = (Vec<p1::BucketSpan>, Vec<i64>)> {
    let first = if custom { 0..3 } else { -300..300 };
    (first, proptest::collection::vec((0..4i32, 0..4u32), 0..4)).prop_flat_map(|(first, spans)| {
        let buckets: u32 = spans.iter().map(|(_, length)| length).sum();
        let spans: Vec<_> = (spans.into_iter().enumerate())
            .map(|(n, (offset, length))| p1::BucketSpan {
                offset: if n == 0 { first } else { offset },
                length,
            })
            .collect();
        (Just(spans), proptest::collection::vec(0..1000i64, buckets as usize))
    })
}

/// A valid histogram.
pub(super) fn histogram() -> impl Strategy<Value = p1::Histogram> {
    use p1::histogram::{Count, ZeroCount};
    let shape = (any::<bool>(), -4..=8i32).prop_flat_map(|(custom, schema)| {
        (Just((custom, schema)), side(custom), side(custom), 0..1000u64, -1e9..1e9f64)
    });
    (shape, any::<bool>(), 0..4i32, any::<i64>()).prop_map(
        |(((custom, schema), positive, negative, zero, sum), integer, reset_hint, timestamp)| {
            let (negative, zero) = if custom { Default::default() } else { (negative, zero) };
            let covered: i64 = positive.0.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
            let deltas = |counts: &[i64]| {
                (0..counts.len()).map(|n| counts[n] - if n == 0 { 0 } else { counts[n - 1] }).collect()
            };
            let total = (positive.1.iter().sum::<i64>() + negative.1.iter().sum::<i64>()) as u64 + zero;
            let mut message = p1::Histogram {
                sum,
                schema: if custom { CUSTOM_SCHEMA } else { schema },
                zero_threshold: if custom { 0.0 } else { 1e-3 },
                positive_spans: positive.0,
                negative_spans: negative.0,
                reset_hint,
                timestamp,
                custom_values: (0..if custom { covered } else { 0 }).map(|n| n as f64).collect(),
                ..Default::default()
            };
            if integer {
                message.count = Some(Count::CountInt(total));
                message.zero_count = Some(ZeroCount::ZeroCountInt(zero));
                message.positive_deltas = deltas(&positive.1);
                message.negative_deltas = deltas(&negative.1);
            } else {
                message.count = Some(Count::CountFloat(total as f64 * 0.5));
                message.zero_count = Some(ZeroCount::ZeroCountFloat(zero as f64 * 0.5));
                message.positive_counts = positive.1.iter().map(|n| *n as f64 * 0.5).collect();
                message.negative_counts = negative.1.iter().map(|n| *n as f64 * 0.5).collect();
            }
            message
        },
    )
}

/// An unknown field of any wire type but groups.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    (100u64..5000, 0..4usize, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..9)).prop_map(
        |(field, kind, number, bytes)| {
            let mut out = Vec::new();
            prost::encoding::encode_varint(field << 3 | [0, 1, 2, 5][kind], &mut out);
            match kind {
                0 => prost::encoding::encode_varint(number, &mut out),
                1 => out.extend(number.to_le_bytes()),
                2 => delimited(&bytes, &mut out),
                _ => out.extend((number as u32).to_le_bytes()),
            }
            out
        },
    )
}

fn delimited(bytes: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

/// A message of parts (protobuf merges them) in any order, with unknown fields between.
fn shuffled(parts: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (Just(parts), proptest::collection::vec(unknown(), 0..2))
        .prop_map(|(mut parts, unknown)| {
            parts.extend(unknown);
            parts
        })
        .prop_shuffle()
        .prop_map(|parts| parts.concat())
}

fn field(number: u64, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    delimited(message, &mut out);
    out
}

fn vec_of<T: std::fmt::Debug>(of: impl Strategy<Value = T>, most: usize) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(of, 0..most)
}

fn body_v1() -> impl Strategy<Value = Vec<u8>> {
    let label = || (text(), text()).prop_map(|(name, value)| p1::Label { name, value });
    let sample = (bits(), any::<i64>()).prop_map(|(value, timestamp)| p1::Sample { value, timestamp });
    let exemplar = (vec_of(label(), 3), bits(), any::<i64>())
        .prop_map(|(labels, value, timestamp)| p1::Exemplar { labels, value, timestamp });
    let series = (
        vec_of(label(), 5),
        vec_of(label(), 3),
        vec_of(sample, 4),
        vec_of(exemplar, 2),
        vec_of(histogram(), 3),
    )
        .prop_flat_map(|(labels, more, samples, exemplars, histograms)| {
            let of = |labels| p1::TimeSeries { labels, ..Default::default() }.encode_to_vec();
            let rest = p1::TimeSeries { samples, exemplars, histograms, ..Default::default() };
            shuffled(vec![of(labels), of(more), rest.encode_to_vec()])
        });
    let metadata = (0..9i32, text(), text(), text()).prop_map(|(kind, metric_family_name, help, unit)| {
        p1::MetricMetadata { r#type: kind, metric_family_name, help, unit }.encode_to_vec()
    });
    (vec_of(series, 5), vec_of(metadata, 3)).prop_flat_map(|(series, metadata)| {
        let series = series.iter().map(|message| field(1, message));
        shuffled(series.chain(metadata.iter().map(|message| field(3, message))).collect())
    })
}

fn body_v2() -> impl Strategy<Value = Vec<u8>> {
    let sample = (bits(), any::<i64>(), any::<i64>())
        .prop_map(|(value, timestamp, start_timestamp)| p2::Sample { value, timestamp, start_timestamp })
        .boxed();
    let exemplar = (vec_of(0..300u32, 3), bits(), any::<i64>())
        .prop_map(|(labels_refs, value, timestamp)| p2::Exemplar { labels_refs, value, timestamp });
    let histogram = (histogram(), any::<i64>())
        .prop_map(|(message, start_timestamp)| {
            let message = p2::Histogram::decode(&message.encode_to_vec()[..]).expect("same fields");
            p2::Histogram { start_timestamp, ..message }
        })
        .boxed();
    let content = prop_oneof![
        4 => (vec_of(sample.clone(), 4), Just(Vec::new())),
        2 => (Just(Vec::new()), vec_of(histogram.clone(), 3)),
        1 => (vec_of(sample, 2), vec_of(histogram, 2)),
    ];
    let refs = prop_oneof![
        8 => vec_of((0..6u32, 0..6u32), 5).prop_map(|pairs| pairs.into_iter().flat_map(|p| [p.0, p.1]).collect()),
        1 => vec_of(0..12u32, 5),
    ];
    let metadata = proptest::option::of((0..9i32, 0..300u32).prop_map(|(kind, at)| p2::Metadata {
        r#type: kind,
        help_ref: at,
        unit_ref: at,
    }));
    let series = (refs, content, vec_of(exemplar, 2), metadata, proptest::option::of(0..6u8)).prop_flat_map(
        |(labels_refs, (samples, histograms), exemplars, metadata, alone)| {
            let rest = p2::TimeSeries { samples, histograms, exemplars, metadata, ..Default::default() };
            let refs = p2::TimeSeries { labels_refs, ..Default::default() };
            // One more reference that is not packed.
            let alone = alone.map_or(Vec::new(), |index| vec![0x08, index]);
            shuffled(vec![refs.encode_to_vec(), rest.encode_to_vec(), alone])
        },
    );
    (vec_of(text(), 8), vec_of(series, 5), any::<bool>()).prop_flat_map(|(symbols, series, late)| {
        let first = p2::Request { symbols: vec![String::new()], ..Default::default() }.encode_to_vec();
        let more = p2::Request { symbols, ..Default::default() }.encode_to_vec();
        let series: Vec<_> = series.iter().map(|message| field(5, message)).collect();
        shuffled(series).prop_map(move |series| {
            [first.clone(), if late { [series, more.clone()] } else { [more.clone(), series] }.concat()]
                .concat()
        })
    })
}

/// Both decoders must agree on whether this is protobuf, but for the exceptions `decode` names.
fn agree<T>(version: Version, body: &[u8], theirs: Result<T, prost::DecodeError>) {
    match (ours(version, body), theirs) {
        (Ok(_), Err(error)) => assert!(error.to_string().contains("UTF-8"), "{error}"),
        (Err(WireError::Protobuf { what, .. }), Ok(_)) => {
            let own =
                ["a group", "the first symbol is not the empty string", "series without a symbol table"];
            assert!(own.contains(&what), "{what}");
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn v1_is_what_prost_reads(body in body_v1()) {
        let request = p1::WriteRequest::decode(&body[..]).expect("prost reads it");
        prop_assert_eq!(ours(Version::V1, &body), Ok(prosts_v1(&request)));
    }

    #[test]
    fn v2_is_what_prost_reads(body in body_v2()) {
        let request = p2::Request::decode(&body[..]).expect("prost reads it");
        prop_assert_eq!(ours(Version::V2, &body), Ok(prosts_v2(&request)));
    }

    #[test]
    fn broken_bodies_are_refused_as_prost_refuses_them(
        body in prop_oneof![body_v1(), body_v2(), vec_of(any::<u8>(), 60)],
        flips in vec_of((any::<prop::sample::Index>(), any::<u8>()), 4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = body;
        for (at, byte) in flips.iter().filter(|_| !body.is_empty()).collect::<Vec<_>>() {
            let at = at.index(body.len());
            body[at] ^= byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len() + 1));
        }
        agree(Version::V1, &body, p1::WriteRequest::decode(&body[..]));
        agree(Version::V2, &body, p2::Request::decode(&body[..]));
    }
}
