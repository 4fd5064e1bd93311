//! Case 6: every documented answer of the receiver: status, headers, message, and what was kept.

use crate::harness::http::{self, Message};
use crate::harness::sidecar::Sidecar;
use crate::harness::wire::{Histogram, Series, Span, V1, V2, encode_v1, encode_v2, message_v2, snappy, v1};
use crate::harness::{now_ms, temp_dir};
use prost::Message as _;

const WRITTEN: [&str; 3] = [
    "X-Prometheus-Remote-Write-Samples-Written",
    "X-Prometheus-Remote-Write-Histograms-Written",
    "X-Prometheus-Remote-Write-Exemplars-Written",
];

/// One request and what must come of it.
struct Case {
    name: &'static str,
    kind: &'static str,
    encoding: &'static str,
    body: Vec<u8>,
    status: u16,
    /// The `-Written` headers; `None`: there must be none.
    written: Option<[u64; 3]>,
    /// Each must be in the body, in any case of letters.
    says: &'static [&'static str],
    /// Metrics that must be known afterwards.
    kept: &'static [&'static str],
    /// Metrics that must not.
    lost: &'static [&'static str],
}

fn series(name: &str, at: i64) -> Series {
    Series::new(&[("__name__", name), ("job", "answers")], &[(at, 1.5)])
}

fn histogram(at: i64) -> Histogram {
    Histogram {
        count_int: Some(6),
        sum: 12.5,
        zero_threshold: 1e-9,
        zero_count_int: Some(1),
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp: at,
        ..Histogram::default()
    }
}

fn of_histogram(name: &str, histogram: Histogram) -> Series {
    Series { histograms: vec![histogram], ..Series::new(&[("__name__", name), ("job", "answers")], &[]) }
}

/// A 1.0 case over snappy that is taken whole.
fn one(name: &'static str, body: &[Series], kept: &'static [&'static str]) -> Case {
    let body = snappy(&encode_v1(body));
    Case { name, kind: V1, encoding: "snappy", body, status: 204, written: None, says: &[], kept, lost: &[] }
}

/// A 2.0 case over snappy that is taken whole.
fn two(name: &'static str, body: &[Series], written: [u64; 3], kept: &'static [&'static str]) -> Case {
    let body = snappy(&encode_v2(body));
    let written = Some(written);
    Case { name, kind: V2, encoding: "snappy", body, status: 204, written, says: &[], kept, lost: &[] }
}

impl Case {
    fn kind(self, kind: &'static str) -> Case {
        Case { kind, ..self }
    }
    fn encoding(self, encoding: &'static str) -> Case {
        Case { encoding, ..self }
    }
    fn body(self, body: Vec<u8>) -> Case {
        Case { body, ..self }
    }
    fn refused(self, status: u16, says: &'static [&'static str], lost: &'static [&'static str]) -> Case {
        Case { status, says, lost, ..self }
    }
}

/// A snappy block that claims to be this long and holds nothing of the kind.
fn claims(mut length: u32) -> Vec<u8> {
    let mut block = Vec::new();
    while length >= 0x80 {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.extend([length as u8, 0]);
    block
}

fn sound(now: i64) -> Vec<Case> {
    let zstd = zstd::encode_all(encode_v1(&[series("zstd_plain", now)]).as_slice(), 1).expect("compresses");
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let unsorted =
        Series::new(&[("job", "a"), ("__name__", "unsorted"), ("b", "c"), ("a", "z")], &[(now, 1.0)]);
    let empty_value = Series::new(&[("__name__", "empty_value"), ("zone", "")], &[(now, 1.0)]);
    let many = |name: &str| Series::new(&[("__name__", name)], &[(now - 2000, 1.0), (now - 1000, 2.0)]);
    let metadata = v1::WriteRequest {
        timeseries: Vec::new(),
        metadata: vec![v1::Metadata { kind: 1, family: "m".into(), help: "h".into(), unit: "s".into() }],
    };
    let exemplified = |name: &str| Series { exemplars: vec![(now, 0.5)], ..series(name, now) };
    let float = Histogram {
        count_int: None,
        zero_count_int: None,
        count_float: Some(6.0),
        zero_count_float: Some(1.0),
        positive_deltas: Vec::new(),
        positive_counts: vec![2.0, 3.0],
        ..histogram(now)
    };
    let custom = Histogram {
        schema: -53,
        count_int: Some(5),
        zero_threshold: 0.0,
        zero_count_int: None,
        custom_values: vec![0.1, 1.0, 10.0],
        ..histogram(now)
    };
    let shapes = [
        of_histogram("hist_two_int", histogram(now)),
        of_histogram("hist_two_float", float.clone()),
        of_histogram("hist_two_custom", custom),
    ];
    vec![
        one("1.0, bare content type", &[series("v1_bare", now)], &["v1_bare"]),
        one("1.0, named", &[series("v1_named", now)], &["v1_named"])
            .kind("application/x-protobuf;proto=prometheus.WriteRequest"),
        two("2.0", &[series("v2_plain", now)], [1, 0, 0], &["v2_plain"]),
        two("2.0, content type with a space", &[series("v2_space", now)], [1, 0, 0], &["v2_space"])
            .kind("application/x-protobuf; proto=io.prometheus.write.v2.Request"),
        two(
            "2.0, content type in capitals and quotes",
            &[series("v2_quoted", now)],
            [1, 0, 0],
            &["v2_quoted"],
        )
        .kind("Application/X-Protobuf ; PROTO = \"io.prometheus.write.v2.Request\""),
        one("1.0, zstd as vmagent sends it", &[], &["zstd_plain"]).encoding("zstd").body(zstd),
        one("1.0, unsorted labels", &[unsorted], &["unsorted"]),
        one("1.0, an empty value is no label", &[empty_value], &["empty_value"]),
        one(
            "1.0, the same series twice, two samples each",
            &[many("twice_1"), many("twice_1")],
            &["twice_1"],
        ),
        two(
            "2.0, the same series twice, two samples each",
            &[many("twice_2"), many("twice_2")],
            [4, 0, 0],
            &["twice_2"],
        ),
        one("1.0, nothing at all", &[], &[]),
        two("2.0, nothing at all", &[], [0, 0, 0], &[]),
        one("1.0, metadata only", &[], &[]).body(snappy(&metadata.encode_to_vec())),
        one("1.0, exemplars", &[exemplified("exemplar_1")], &["exemplar_1"]),
        two("2.0, exemplars", &[exemplified("exemplar_2")], [1, 0, 1], &["exemplar_2"]),
        one(
            "1.0, histograms",
            &[of_histogram("hist_one", histogram(now)), of_histogram("hist_one_float", float)],
            &["hist_one", "hist_one_float"],
        ),
        two(
            "2.0, histograms of every shape",
            &shapes,
            [0, 3, 0],
            &["hist_two_int", "hist_two_float", "hist_two_custom"],
        ),
        two(
            "2.0, stale marker",
            &[Series::new(&[("__name__", "v2_plain"), ("job", "answers")], &[(now + 1, stale)])],
            [1, 0, 0],
            &[],
        ),
        // Handled, and so counted as written, though nothing comes of them.
        two("2.0, unmatched", &[series("other_unmatched", now)], [1, 0, 0], &[]),
        two("2.0, duplicate", &[series("v2_space", now)], [1, 0, 0], &[]),
        two("2.0, out of order", &[series("v2_space", now - 60_000)], [1, 0, 0], &[]),
        two("2.0, too far ahead", &[series("ahead", now + 3_600_000)], [1, 0, 0], &[]),
        two("2.0, not a number", &[Series::new(&[("__name__", "nan")], &[(now, f64::NAN)])], [1, 0, 0], &[]),
        two(
            "2.0, own output",
            &[Series::new(&[("__name__", "anomaly_score"), ("metric", "m"), ("rule", "all")], &[(now, 0.1)])],
            [1, 0, 0],
            &[],
        ),
    ]
}

fn malformed(now: i64) -> Vec<Case> {
    let with = |labels: &[(&str, &str)]| Series::new(labels, &[(now, 1.0)]);
    let good = |name: &str| series(name, now);
    let bad_text = |name: &str| {
        let mut bad = series(name, now);
        bad.labels.push((b"z".to_vec(), vec![0xff, 0xfe]));
        bad
    };
    let wrong_count = |name: &str| of_histogram(name, Histogram { count_int: Some(2), ..histogram(now) });
    let none: &[Series] = &[];
    let mut odd = message_v2(&[good("odd_refs"), good("odd_refs_good")]);
    odd.timeseries[0].labels_refs.pop();
    let mut beyond = message_v2(&[good("far_ref"), good("far_ref_good")]);
    beyond.timeseries[0].labels_refs[1] = 9_999;
    let bomb = claims(33 << 20);
    // Fields of the right message, cut short.
    let broken = snappy(&[0x0a, 0x7f, 0x01]);
    let broken_two = snappy(&[0x2a, 0x7f, 0x01]);
    vec![
        one("unknown content type", none, &[]).kind("text/plain").refused(415, &["content"], &[]),
        one("unknown message", none, &[]).kind("application/x-protobuf;proto=some.Other").refused(
            415,
            &["some.Other"],
            &[],
        ),
        one("unknown encoding, 1.0", none, &[]).encoding("gzip").refused(415, &["gzip"], &[]),
        two("unknown encoding, 2.0", none, [0, 0, 0], &[]).encoding("gzip").refused(415, &["gzip"], &[]),
        one("not snappy, 1.0", none, &[]).body(b"not snappy at all".to_vec()).refused(400, &["snappy"], &[]),
        two("not snappy, 2.0", none, [0, 0, 0], &[]).body(b"not snappy at all".to_vec()).refused(
            400,
            &["snappy"],
            &[],
        ),
        one("not zstd", none, &[]).encoding("zstd").body(b"not zstd at all".to_vec()).refused(
            400,
            &["decompress"],
            &[],
        ),
        one("a bomb is 400, never 413", none, &[]).body(bomb.clone()).refused(400, &["limit"], &[]),
        two("a bomb is 400, never 413, in 2.0", none, [0, 0, 0], &[]).body(bomb).refused(
            400,
            &["limit"],
            &[],
        ),
        one("broken protobuf, 1.0", none, &[]).body(broken).refused(400, &["protobuf"], &[]),
        two("broken protobuf, 2.0", none, [0, 0, 0], &[]).body(broken_two).refused(400, &["protobuf"], &[]),
        one("2.0 in the name of 1.0", none, &[]).body(snappy(&encode_v2(&[good("as_one")]))).refused(
            400,
            &["2.0"],
            &["as_one"],
        ),
        two("1.0 in the name of 2.0", none, [0, 0, 0], &[])
            .body(snappy(&encode_v1(&[good("as_two")])))
            .refused(400, &["1.0"], &["as_two"]),
        one("no name, 1.0", &[with(&[("job", "a")]), good("noname_1_good")], &["noname_1_good"]).refused(
            400,
            &["1", "__name__"],
            &[],
        ),
        two("no name, 2.0", &[with(&[("job", "a")]), good("noname_2_good")], [1, 0, 0], &["noname_2_good"])
            .refused(400, &["1", "__name__"], &[]),
        one(
            "a label twice, 1.0",
            &[with(&[("__name__", "dup_1"), ("a", "1"), ("a", "2")]), good("dup_1_good")],
            &["dup_1_good"],
        )
        .refused(400, &["1", "twice"], &["dup_1"]),
        two(
            "a label twice, 2.0",
            &[with(&[("__name__", "dup_2"), ("a", "1"), ("a", "2")]), good("dup_2_good")],
            [1, 0, 0],
            &["dup_2_good"],
        )
        .refused(400, &["1", "twice"], &["dup_2"]),
        one(
            "an empty label name, 1.0",
            &[with(&[("__name__", "noln_1"), ("", "1")]), good("noln_1_good")],
            &["noln_1_good"],
        )
        .refused(400, &["1", "empty"], &["noln_1"]),
        two(
            "an empty label name, 2.0",
            &[with(&[("__name__", "noln_2"), ("", "1")]), good("noln_2_good")],
            [1, 0, 0],
            &["noln_2_good"],
        )
        .refused(400, &["1", "empty"], &["noln_2"]),
        one("broken UTF-8, 1.0", &[bad_text("utf_1"), good("utf_1_good")], &["utf_1_good"]).refused(
            400,
            &["1", "UTF-8"],
            &["utf_1"],
        ),
        two("broken UTF-8, 2.0", &[bad_text("utf_2"), good("utf_2_good")], [1, 0, 0], &["utf_2_good"])
            .refused(400, &["1", "UTF-8"], &["utf_2"]),
        one(
            "a count against its buckets, 1.0",
            &[wrong_count("hcount_1"), good("hcount_1_good")],
            &["hcount_1_good"],
        )
        .refused(400, &["1", "histogram"], &["hcount_1"]),
        two(
            "a count against its buckets, 2.0",
            &[wrong_count("hcount_2"), good("hcount_2_good")],
            [1, 0, 0],
            &["hcount_2_good"],
        )
        .refused(400, &["1", "histogram"], &["hcount_2"]),
        two("odd references", none, [1, 0, 0], &["odd_refs_good"])
            .body(snappy(&odd.encode_to_vec()))
            .refused(400, &["1", "odd"], &["odd_refs"]),
        two("a reference out of range", none, [1, 0, 0], &["far_ref_good"])
            .body(snappy(&beyond.encode_to_vec()))
            .refused(400, &["1", "range"], &["far_ref"]),
    ]
}

fn knows(sidecar: &Sidecar, metric: &str) -> bool {
    let selector = http::encode(&format!("{{__name__=\"{metric}\"}}"));
    let url = format!("{}/api/v1/series?match[]={selector}", sidecar.base);
    let answer = http::get(&url).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["status"], "success", "{json}");
    let series = json["data"]["series"].as_array().expect("a list of series");
    // A series that a rule would take but that never came is listed too, as `no_sample`.
    let known = |one: &serde_json::Value| {
        one["labels"]["__name__"] == metric
            && ["warming", "scored", "stale"].iter().any(|state| one["state"] == *state)
    };
    series.iter().any(known)
}

fn judge(case: &Case, answer: &Message, sidecar: &Sidecar) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = answer.text();
    if answer.status != case.status {
        wrong.push(format!("status {}, not {}: {text}", answer.status, case.status));
    }
    for (at, name) in WRITTEN.iter().enumerate() {
        let have = answer.header(name);
        let want = case.written.map(|counts| counts[at].to_string());
        if have != want.as_deref() {
            wrong.push(format!("{name}: {have:?}, not {want:?}"));
        }
    }
    if case.status == 204 && !answer.body.is_empty() {
        wrong.push(format!("a body with 204: {text}"));
    }
    for part in case.says {
        if !text.to_lowercase().contains(&part.to_lowercase()) {
            wrong.push(format!("the message does not say {part:?}: {text:?}"));
        }
    }
    let unknown = case.kept.iter().filter(|metric| !knows(sidecar, metric));
    wrong.extend(unknown.map(|metric| format!("{metric} was not kept")));
    let known = case.lost.iter().filter(|metric| knows(sidecar, metric));
    wrong.extend(known.map(|metric| format!("{metric} was kept")));
    wrong
}

#[test]
fn every_documented_answer() {
    let home = temp_dir();
    let rules = "rules:\n- {name: all, match: ['{__name__=~\".+\",__name__!~\"other_.*\"}']}\n";
    let sidecar = Sidecar::start(home.path(), rules, 1);
    let now = now_ms();
    let mut wrong = Vec::new();
    let cases: Vec<Case> = sound(now).into_iter().chain(malformed(now)).collect();
    for case in &cases {
        let headers = [("Content-Type", case.kind), ("Content-Encoding", case.encoding)];
        match http::request("POST", &sidecar.write_url(), &headers, &case.body) {
            Ok(answer) => {
                let found = judge(case, &answer, &sidecar);
                wrong.extend(found.into_iter().map(|why| format!("{}: {why}", case.name)));
            }
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    let get = http::get(&sidecar.write_url()).expect("an answer");
    if get.status != 405 {
        wrong.push(format!("GET on the receiver: {}, not 405", get.status));
    }
    for reason in ["unmatched", "duplicate", "out_of_order", "too_far_ahead", "own_output", "stale_marker"] {
        let counted = sidecar.metric("oddity_samples_handled_total", &format!("reason=\"{reason}\""));
        if counted < 1.0 {
            wrong.push(format!("oddity_samples_handled_total{{reason={reason:?}}} is {counted}"));
        }
    }
    println!("{} requests, {} complaints", cases.len() + 1, wrong.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The compressed size that one body may have, and what all bodies being read may in sum.
const BODY_LIMIT: usize = 32 << 20;
const READING_LIMIT: usize = 256 << 20;

#[test]
fn too_much_is_refused_as_senders_understand_it() {
    let home = temp_dir();
    let sidecar = Sidecar::start(home.path(), "rules:\n- {name: all, match: ['{__name__=~\".+\"}']}\n", 1);
    let url = sidecar.write_url();
    for (kind, written) in [(V1, None), (V2, Some("0"))] {
        let headers = [("Content-Type", kind), ("Content-Encoding", "snappy")];
        let send = |body: &[u8]| http::request("POST", &url, &headers, body).expect("an answer");
        let sound = snappy(&if kind == V1 {
            encode_v1(&[series("room", now_ms())])
        } else {
            encode_v2(&[series("room", now_ms())])
        });

        // Oversize is 400: vmagent would send a 413 for ever.
        let answer = send(&vec![0; BODY_LIMIT + 1]);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("limit"), "{}", answer.text());
        assert_eq!(answer.header(WRITTEN[0]), written);

        // Bodies of which all but a byte has come take all the room there is, until they are given up.
        let hogs: Vec<_> = (0..READING_LIMIT / BODY_LIMIT)
            .map(|_| http::stall(&url, &headers, BODY_LIMIT, BODY_LIMIT - 1).expect("a connection"))
            .collect();
        let mut answer = send(&sound);
        crate::harness::wait_until("all room to be taken", std::time::Duration::from_secs(30), || {
            if answer.status == 503 {
                return Ok(());
            }
            answer = send(&sound);
            Err(format!("status {}", answer.status))
        });
        assert_eq!(answer.status, 503, "never 429: Prometheus drops on it. {}", answer.text());
        let wait: Option<u64> = answer.header("retry-after").and_then(|text| text.parse().ok());
        assert!(wait.is_some_and(|seconds| (1..=60).contains(&seconds)), "{:?}", answer.headers);
        assert_eq!(answer.header(WRITTEN[0]), written);
        for path in ["/-/healthy", "/-/ready", "/metrics", "/api/v1/status"] {
            let answer = http::get(&format!("{}{path}", sidecar.base)).expect("an answer");
            assert_eq!(answer.status, 200, "{path} while the data path is saturated");
        }
        drop(hogs);
        crate::harness::wait_until("room again", std::time::Duration::from_secs(30), || {
            let answer = send(&sound);
            if answer.status == 204 { Ok(()) } else { Err(format!("status {}", answer.status)) }
        });
    }
}
