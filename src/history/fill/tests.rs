//! Gaps filled from a mock of remote read.

use super::*;
use crate::engine::testing::{rule, rules};
use crate::engine::{Engine, OutputBatch, OutputSink, OutputValue, Standing};
use crate::history::mock::{CHUNKS, Mock, Reply, SAMPLES};
use crate::rules::As;
use crate::wire::proto::v1;
use crate::wire::read::testing;
use crate::wire::xor::testing::chunk;
use parking_lot::Mutex;
use prost::Message;

const START: i64 = 1_700_000_000_000;
const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "x")];
const LOAD: &[(&str, &str)] = &[("__name__", "load"), ("job", "x")];

fn value(at: i64) -> f64 {
    ((at / 15_000) * 7_919 % 11) as f64
}

/// One sample each 15 s in [from, to) seconds after the start.
fn samples(from: i64, to: i64) -> Vec<Sample> {
    let times = (from..to).step_by(15).map(|second| START + second * 1000);
    times.map(|timestamp| Sample { timestamp, value: value(timestamp) }).collect()
}

/// Outputs as (series, time, bits of the score), in the order they came.
#[derive(Default)]
struct Log(Mutex<Vec<(String, i64, u64)>>);

impl OutputSink for Log {
    fn take(&self, batch: &Arc<OutputBatch>) {
        let one = |output: &crate::engine::Output| {
            let name = output.labels.get(NAME).unwrap_or_default().to_string();
            let score = match output.value {
                OutputValue::Scored { score, .. } => score.to_bits(),
                _ => 0,
            };
            (name, output.at.0, score)
        };
        self.0.lock().extend(batch.outputs.iter().map(one));
    }
}

fn engine() -> (Engine, Arc<Log>) {
    let log = Arc::new(Log::default());
    let sinks: Vec<Arc<dyn OutputSink>> = vec![log.clone()];
    (Engine::new(Arc::new(rules(vec![rule("r", "up|load|native", vec![As::Value])])), 0, sinks), log)
}

fn live(engine: &Engine, labels: &[(&str, &str)], samples: &[Sample]) {
    for sample in samples {
        let mut encoder = Encoder::new(Version::V1);
        encoder.series(labels.iter().copied(), MetricKind::Gauge, &[*sample]);
        let body = Body::new(Version::V1, Millis(sample.timestamp), Bytes::from(encoder.finish()));
        engine.apply(Record::Body(body)).expect("sound");
    }
}

fn gap(group: &str, from: i64, to: i64) -> Gap {
    Gap { group: group.into(), from: Millis(START + from * 1000), to: Millis(START + to * 1000) }
}

async fn run(sources: &[Source], engine: &Engine, gap: &Gap) -> (Filled, Option<FillError>) {
    let until = Instant::now() + Duration::from_secs(60);
    fill(sources, engine, gap, until, gap.to, &|| true).await
}

/// A series and all it has.
type Served<'s> = (&'s [(&'s str, &'s str)], Vec<Sample>);

/// What is asked of a query: its samples in range, as one frame a series, two chunks each.
fn frames(request: &v1::ReadRequest, series: &[Served<'_>]) -> Vec<u8> {
    let query = &request.queries[0];
    let within = |s: &&Sample| (query.start_timestamp_ms..=query.end_timestamp_ms).contains(&s.timestamp);
    let mut out = Vec::new();
    for (labels, samples) in series {
        // Chunks are whole, so they have more than was asked for.
        let some = samples.iter().any(|s| within(&s));
        let chunks: Vec<_> = samples
            .chunks(90)
            .filter(|chunk| some && chunk.iter().any(|s| within(&s)))
            .map(|samples| (samples[0].timestamp, samples[samples.len() - 1].timestamp, chunk(samples)))
            .collect();
        out.extend(testing::series(labels, 1, &chunks));
    }
    out
}

fn newest(engine: &Engine) -> Vec<(String, i64)> {
    let mut all: Vec<_> = engine
        .signals(&[], 100)
        .iter()
        .map(|s| (s.labels.get(NAME).unwrap_or_default().to_string(), (s.newest.0 - START) / 1000))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_filled_gap_scores_as_if_there_had_been_none() {
    let (engine, log) = engine();
    let (other, expected) = self::engine();
    for labels in [UP, LOAD] {
        live(&engine, labels, &samples(0, 1_800));
        live(&other, labels, &samples(0, 6_000));
    }
    let mock = Mock::start(|request| {
        let replica: Vec<_> = UP.iter().chain(&[("__replica__", "b")]).copied().collect();
        let elsewhere: Vec<_> = UP.iter().chain(&[("cluster", "other")]).copied().collect();
        let stranger = [("__name__", "load"), ("job", "unheard")];
        let all = samples(0, 6_000);
        let series = [
            (&replica[..], all.clone()),
            (LOAD, all.clone()),
            (&elsewhere[..], all.clone()),
            (&stranger[..], all),
        ];
        (200, CHUNKS, frames(request, &series))
    })
    .await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("", 1_785, 4_200)).await;
    assert!(error.is_none(), "{error:?}");
    let expected_new = 2 * samples(1_800, 4_200).len() as u64;
    assert_eq!((filled.new, filled.series, filled.strangers), (expected_new, 2, 1));
    assert_eq!(filled.through, Millis(START + 4_200_000));
    assert!(filled.read > filled.new, "the margin was seen before");
    for labels in [UP, LOAD] {
        live(&engine, labels, &samples(4_200, 6_000));
    }
    let sorted = |log: &Log| {
        let mut all = log.0.lock().clone();
        all.sort();
        all
    };
    assert!(sorted(&log) == sorted(&expected), "scores as without a gap");
    // The pages grow, one reads on where the other ended, and the request says who asks.
    let asked = mock.asked.lock();
    let spans: Vec<_> =
        asked.iter().map(|(_, r)| (r.queries[0].start_timestamp_ms, r.queries[0].end_timestamp_ms)).collect();
    assert_eq!(spans[0], (START + 1_665_000, START + 1_964_999));
    assert!(spans.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{spans:?}");
    assert_eq!(spans.last().map(|span| span.1), Some(START + 4_199_999));
    assert!(asked.iter().all(|(headers, r)| {
        headers["x-prometheus-remote-read-version"] == "0.1.0"
            && headers["x-scope-orgid"] == "team"
            && headers["content-encoding"] == "snappy"
            && r.accepted_response_types == [1, 0]
    }));
}

#[tokio::test]
async fn a_group_is_asked_for_by_its_label() {
    let (engine, _) = engine();
    let eu: Vec<_> = UP.iter().chain(&[("cluster", "eu")]).copied().collect();
    live(&engine, &eu, &samples(0, 300));
    live(&engine, UP, &samples(0, 300));
    let mock = Mock::start(|request| {
        let eu: Vec<_> = UP.iter().chain(&[("cluster", "eu")]).copied().collect();
        (200, CHUNKS, frames(request, &[(&eu, samples(0, 900)), (UP, samples(0, 900))]))
    })
    .await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("eu", 285, 900)).await;
    assert!(error.is_none() && filled.new == 40, "{filled:?} {error:?}");
    assert_eq!(newest(&engine), [("up".to_string(), 285), ("up".to_string(), 885)]);
    let asked = mock.asked.lock();
    let last = asked[0].1.queries[0].matchers.last().expect("a matcher").clone();
    assert_eq!((last.name.as_str(), last.value.as_str()), ("cluster", "eu"));
}

#[tokio::test]
async fn other_chunks_are_asked_for_again_as_samples() {
    let (engine, _) = engine();
    live(&engine, UP, &samples(0, 300));
    let mock = Mock::start(|request| {
        if request.accepted_response_types == [1, 0] {
            return (200, CHUNKS, testing::series(UP, 4, &[(0, 0, vec![1, 2, 3])]));
        }
        let query = &request.queries[0];
        let label =
            |(name, value): &(&str, &str)| v1::Label { name: name.to_string(), value: value.to_string() };
        let one = v1::TimeSeries {
            labels: UP.iter().map(label).collect(),
            samples: samples(0, 900)
                .iter()
                .filter(|s| (query.start_timestamp_ms..=query.end_timestamp_ms).contains(&s.timestamp))
                .map(|s| v1::Sample { value: s.value, timestamp: s.timestamp })
                .collect(),
            ..Default::default()
        };
        let answer = v1::ReadResponse { results: vec![v1::QueryResult { timeseries: vec![one] }] };
        let packed = crate::wire::compress_snappy(&answer.encode_to_vec()).expect("small");
        (200, SAMPLES, packed)
    })
    .await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("", 285, 900)).await;
    assert!(error.is_none() && filled.new == 40, "{filled:?} {error:?}");
    let chunks = mock.asked.lock().iter().filter(|(_, r)| r.accepted_response_types == [1, 0]).count();
    assert_eq!(chunks, 1, "it is remembered");
}

#[tokio::test]
async fn native_histograms_are_filled_too() {
    let log = Arc::new(Log::default());
    let engine = Engine::new(Arc::new(rules(vec![rule("r", "native", vec![As::CountRate])])), 0, vec![log]);
    let body = |from: i64, to: i64| {
        let empty = || Histogram { integer: true, ..Histogram::default() };
        let all: Vec<_> = (from..to).step_by(15).map(|s| (START + s * 1000, empty())).collect();
        let mut encoder = Encoder::new(Version::V1);
        encoder.histogram_series([("__name__", "native")].into_iter(), MetricKind::Histogram, &all);
        encoder.finish()
    };
    let first = Body::new(Version::V1, Millis(START + 300_000), body(0, 300).into());
    engine.apply(Record::Body(first)).expect("sound");
    let mock = Mock::start(move |_| {
        // Field 1 of both messages: a result is a body, and an answer a list of results.
        let result = body(0, 900);
        let mut answer = vec![0x0a];
        prost::encoding::encode_varint(result.len() as u64, &mut answer);
        answer.extend(result);
        (200, SAMPLES, crate::wire::compress_snappy(&answer).expect("small"))
    })
    .await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("", 285, 900)).await;
    assert!(error.is_none() && filled.new == 40, "{filled:?} {error:?}");
    assert_eq!(newest(&engine), [("native".to_string(), 885)]);
}

async fn fails(answer: impl Fn(&v1::ReadRequest) -> Reply + Send + Sync + 'static) -> String {
    let (engine, _) = engine();
    live(&engine, UP, &samples(0, 300));
    let mock = Mock::start(answer).await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("", 285, 900)).await;
    assert_eq!(filled.new, 0);
    error.expect("fails").to_string()
}

#[tokio::test]
async fn every_failure_is_told() {
    let up = |_: &v1::ReadRequest| testing::series(UP, 1, &[(0, 1, chunk(&samples(600, 900)))]);
    for (reply, words) in [
        ((500, "text/plain", b"out of\nmemory".to_vec()), "answered 500: out of memory"),
        ((404, "text/html", b"<html>".to_vec()), "answered 404"),
        ((302, "text/html", Vec::new()), "answered 302"),
        ((200, "text/html", b"<html>".to_vec()), "is the URL right?"),
        ((200, SAMPLES, b"\xff\xff\xff\xff\xff".to_vec()), "cannot be read"),
        ((200, CHUNKS, b"\x05\0\0\0\0hello".to_vec()), "checksum"),
        ((200, CHUNKS, testing::series(UP, 1, &[(0, 1, vec![0, 9])])), "the chunk is cut at sample 0"),
    ] {
        let error = fails(move |_| reply.clone()).await;
        assert!(error.contains(words), "{words}: {error}");
    }
    let error = fails(move |request| {
        let mut body = up(request);
        body.truncate(body.len() - 1);
        (200, CHUNKS, body)
    })
    .await;
    assert!(error.contains("breaks off"), "{error}");
}

#[tokio::test]
async fn too_much_is_asked_for_in_smaller_pages() {
    let (engine, _) = engine();
    live(&engine, UP, &samples(0, 300));
    let mock = Mock::start(|request| {
        let query = &request.queries[0];
        if query.end_timestamp_ms - query.start_timestamp_ms >= 100_000 {
            return (400, "text/plain", b"exceeded sample limit (50000000)".to_vec());
        }
        (200, CHUNKS, frames(request, &[(UP, samples(0, 900))]))
    })
    .await;
    let (filled, error) = run(&[mock.source()], &engine, &gap("", 285, 900)).await;
    assert!(error.is_none() && filled.new == 40, "{filled:?} {error:?}");
    let error = fails(|_| (400, "text/plain", b"exceeded sample limit (1)".to_vec())).await;
    assert!(error.contains("sample limit"), "{error}");
}

#[tokio::test]
async fn the_first_source_that_has_a_series_counts() {
    let (engine, log) = engine();
    live(&engine, UP, &samples(0, 900));
    live(&engine, LOAD, &samples(0, 900));
    let first = Mock::start(|request| (200, CHUNKS, frames(request, &[(UP, samples(0, 1_500))]))).await;
    let second = Mock::start(|request| {
        let shifted =
            |all: Vec<Sample>| all.into_iter().map(|s| Sample { timestamp: s.timestamp + 7, ..s }).collect();
        (200, CHUNKS, frames(request, &[(UP, shifted(samples(900, 1_500))), (LOAD, samples(900, 1_500))]))
    })
    .await;
    let away = Mock::start(|_| (503, "text/plain", b"busy".to_vec())).await;
    let sources = [away.source(), first.source(), second.source()];
    let (filled, error) = run(&sources, &engine, &gap("", 885, 1_500)).await;
    assert_eq!(filled.new, 80);
    assert!(error.expect("one is away").to_string().contains("answered 503: busy"));
    assert_eq!(away.asked.lock().len(), 1, "it is not asked again");
    assert_eq!(newest(&engine), [("load".to_string(), 1_485), ("up".to_string(), 1_485)]);
    assert!(log.0.lock().iter().all(|(_, at, _)| at % 1000 == 0), "nothing of the second's copy");
    let scored = engine.signals(&[], 10).iter().all(|s| matches!(s.standing, Standing::Scored { .. }));
    assert!(scored);
}

#[tokio::test]
async fn required_matchers_choose_the_selectors() {
    let mock = Mock::start(|request| (200, CHUNKS, frames(request, &[]))).await;
    let mut config = mock.config.clone();
    config.required_matchers = vec![("job".into(), "x".into())];
    let source = Source::new(&config).expect("valid");
    let selectors: Vec<Selector> = [r#"up{job="x"}"#, r#"up{job=~"x"}"#, "up"]
        .iter()
        .flat_map(|text| crate::rules::selector::parse(text).expect("valid"))
        .collect();
    let until = Instant::now() + Duration::from_secs(60);
    source.read(&selectors, (0, 1), until, &mut |_| Ok(())).await.expect("answers");
    source.read(&selectors[2..], (0, 1), until, &mut |_| Ok(())).await.expect("asks nothing");
    let asked = mock.asked.lock();
    assert_eq!((asked.len(), asked[0].1.queries.len()), (1, 1));
}

#[tokio::test]
async fn it_ends_when_nobody_waits() {
    let (engine, _) = engine();
    live(&engine, UP, &samples(0, 300));
    let mock = Mock::start(|request| (200, CHUNKS, frames(request, &[(UP, samples(0, 900))]))).await;
    let gap = gap("", 285, 900);
    let later = Instant::now() + Duration::from_secs(60);
    for (until, go_on) in [(Instant::now(), true), (later, false)] {
        let (filled, error) = fill(&[mock.source()], &engine, &gap, until, gap.to, &move || go_on).await;
        assert!(matches!(error, Some(FillError::Late)) && filled.new == 0);
    }
}
