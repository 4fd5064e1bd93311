mod durable;

use super::config::*;
use super::mock::{Got, Mock, Received, TYPE_2, accept, reply};
use super::names::tests::{SCORE_ONLY, alone, plain, rule};
use super::*;
use crate::engine::Output;
use crate::labels::{Labels, NAME};
use crate::rules::As;
use crate::time::{Millis, Span};
use crate::wire::Version;

/// A batch of one partition: a sample of `series` at each time, its score being its time.
fn batch(partition: u16, sequence: u64, samples: &[(&str, i64)]) -> Arc<OutputBatch> {
    let rules = alone(rule(SCORE_ONLY, &[]));
    let output = |(series, at): &(&str, i64)| Output {
        labels: Labels::from_pairs(&[(NAME, "up"), ("series", series)]),
        rule: 0,
        transform: As::Value,
        at: Millis(*at),
        value: plain(*at as f64),
        emit: true,
    };
    let outputs = samples.iter().map(output).collect();
    Arc::new(OutputBatch { sequence, partition, rules, outputs })
}

fn started(configs: Vec<RemoteWriteConfig>) -> Emitter {
    let emitter = Emitter::new(configs, None).expect("valid");
    emitter.start();
    emitter
}

/// Waits until something holds; the test's own time limit is the only clock.
async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came to pass");
}

async fn drained(emitter: &Emitter) {
    until(|| emitter.snapshot().iter().all(|target| target.pending_samples == 0)).await;
}

fn one(emitter: &Emitter) -> TargetSnapshot {
    emitter.snapshot().remove(0)
}

fn count(of: &[(&'static str, u64)], name: &str) -> u64 {
    of.iter().find(|(have, _)| *have == name).expect("known").1
}

/// Times received of a series, in order.
fn times<'a>(samples: impl IntoIterator<Item = &'a Got>, series: &str) -> Vec<i64> {
    let label = format!("series={series}");
    samples.into_iter().filter(|(labels, ..)| labels.ends_with(&label)).map(|(_, at, _)| *at).collect()
}

fn acked(emitter: &Emitter) -> Acknowledged {
    emitter.acknowledged().remove(0).1
}

#[tokio::test]
async fn a_batch_arrives_in_2_0_with_the_headers_of_the_specification() {
    let mock = Mock::new(|_, received| accept(received)).await;
    let emitter = started(vec![mock.config()]);
    emitter.take(&batch(3, 7, &[("a", 1000)]));
    drained(&emitter).await;
    let requests = mock.requests();
    let Received { headers, path, samples, .. } = &requests[0];
    assert_eq!(path, "/api/v1/write");
    for (name, value) in [
        ("content-type", TYPE_2),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "2.0.0"),
        ("user-agent", concat!("oddity/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(*samples, [("__name__=anomaly_score,metric=up,rule=node,series=a".to_string(), 1000, 1000.0)]);
    let figures = one(&emitter);
    assert_eq!((figures.sent, figures.accepted, figures.protocol), (1, 1, Version::V2));
    assert_eq!(figures.highest_acknowledged, Some(Millis(1000)));
    assert_eq!(figures.lag.counts.iter().sum::<u64>(), 1);
    assert_eq!(acked(&emitter), Acknowledged::from([(3, 7)]));
}

#[tokio::test]
async fn a_receiver_of_1_0_gets_the_same_samples_in_1_0() {
    // VictoriaMetrics says 204 and stores nothing; others say 415 or 400.
    for refusal in [204, 415, 400] {
        let mock = Mock::new(move |_, got| if got.v2 { reply(refusal) } else { reply(204) }).await;
        let emitter = started(vec![mock.config()]);
        emitter.take(&batch(0, 1, &[("a", 1), ("b", 2)]));
        drained(&emitter).await;
        emitter.take(&batch(0, 2, &[("a", 3)]));
        drained(&emitter).await;
        let requests = mock.requests();
        let versions: Vec<bool> = requests.iter().map(|request| request.v2).collect();
        assert_eq!(versions, [true, false, false], "{refusal}");
        assert_eq!(requests[0].samples, requests[1].samples);
        assert_eq!(requests[1].headers["content-type"], "application/x-protobuf");
        assert_eq!(requests[1].headers["x-prometheus-remote-write-version"], "0.1.0");
        let figures = one(&emitter);
        assert_eq!((figures.accepted, figures.retries, figures.protocol), (3, 0, Version::V1));
        assert_eq!(acked(&emitter), Acknowledged::from([(0, 2)]));
    }
}

#[tokio::test]
async fn what_may_pass_is_retried_with_the_same_bytes() {
    let mock = Mock::new(|n, received| match n {
        0 => reply(503).with("Retry-After", 0),
        1 => reply(429),
        2 => mock_reset(),
        3 => reply(401),
        4 => reply(408),
        _ => accept(received),
    })
    .await;
    let emitter = started(vec![mock.config()]);
    emitter.take(&batch(0, 1, &[("a", 1)]));
    drained(&emitter).await;
    let requests = mock.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests.iter().all(|request| request.bytes == requests[0].bytes));
    assert!(!requests[0].headers.contains_key("retry-attempt"));
    assert_eq!(requests[5].headers["retry-attempt"], "5");
    let figures = one(&emitter);
    assert_eq!((figures.sent, figures.accepted, figures.retries, figures.down), (1, 1, 5, false));
    assert_eq!(figures.requests, [("2xx", 1), ("3xx", 0), ("4xx", 3), ("5xx", 1), ("error", 1)]);
}

fn mock_reset() -> super::mock::Reply {
    super::mock::Reply { reset: true, ..reply(200) }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let mock = Mock::new(|n, got| if n == 0 { reply(503).with("Retry-After", 1) } else { accept(got) }).await;
    let emitter = started(vec![mock.config()]);
    let before = Instant::now();
    emitter.take(&batch(0, 1, &[("a", 1)]));
    drained(&emitter).await;
    assert!(before.elapsed() >= Duration::from_secs(1), "the backoff alone is 1 ms");
}

#[tokio::test]
async fn only_the_bad_sample_is_lost_and_the_order_kept() {
    for protocol in [Protocol::V1, Protocol::Auto] {
        // All or nothing, as Prometheus treats 1.0; series `bad` is refused.
        let mock = Mock::new(|n, got| {
            let bad = got.samples.iter().any(|(labels, ..)| labels.ends_with("series=bad"));
            // A 2.0 receiver that has shown what it is, and then refuses without counts.
            if bad && n > 0 { reply(400).with("x", "y") } else { accept(got) }
        })
        .await;
        let emitter = started(vec![RemoteWriteConfig { protocol, ..mock.config() }]);
        emitter.take(&batch(0, 1, &[("a", 0)]));
        drained(&emitter).await;
        let mut samples: Vec<(&str, i64)> =
            (1..100).map(|at| (if at % 2 == 0 { "a" } else { "b" }, at)).collect();
        samples[31] = ("bad", 32);
        samples[77] = ("bad", 78);
        emitter.take(&batch(0, 2, &samples));
        drained(&emitter).await;
        let figures = one(&emitter);
        assert_eq!((figures.accepted, count(&figures.rejected, "bad_request")), (98, 2));
        let ok: Vec<Received> = mock.requests();
        let ok: Vec<&Got> = ok
            .iter()
            .filter(|r| !r.samples.iter().any(|(labels, ..)| labels.ends_with("series=bad")))
            .flat_map(|r| &r.samples)
            .collect();
        for series in ["a", "b"] {
            let times = times(ok.iter().copied(), series);
            assert!(times.is_sorted_by(|x, y| x < y), "{times:?}");
        }
        assert_eq!(ok.len(), 98);
        assert_eq!(acked(&emitter), Acknowledged::from([(0, 2)]));
    }
}

#[tokio::test]
async fn written_counts_say_what_was_refused() {
    let mock = Mock::new(|n, got| {
        let written = got.samples.len() - 1;
        reply(if n == 0 { 400 } else { 204 }).with("X-Prometheus-Remote-Write-Samples-Written", written)
    })
    .await;
    let emitter = started(vec![mock.config()]);
    emitter.take(&batch(0, 1, &[("a", 1), ("b", 1), ("c", 1)]));
    drained(&emitter).await;
    emitter.take(&batch(0, 2, &[("a", 2), ("b", 2)]));
    drained(&emitter).await;
    let figures = one(&emitter);
    assert_eq!((figures.accepted, count(&figures.rejected, "not_written")), (3, 2));
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mock = Mock::new(|_, _| reply(307).with("Location", "/elsewhere")).await;
    let emitter = started(vec![mock.config()]);
    emitter.take(&batch(0, 1, &[("a", 1)]));
    drained(&emitter).await;
    assert_eq!(mock.requests().len(), 1);
    assert_eq!(count(&one(&emitter).rejected, "redirect"), 1);
}

#[tokio::test]
async fn each_series_keeps_its_order_through_failures() {
    let mock = Mock::new(|n, got| if n % 3 == 1 { reply(503) } else { accept(got) }).await;
    let mut config = mock.config();
    config.queue.max_samples_per_send = 7;
    let emitter = started(vec![config]);
    for sequence in 0..60u64 {
        for partition in 0..5u16 {
            let series = format!("s{partition}");
            let at = sequence as i64 * 3;
            emitter.take(&batch(partition, sequence, &[(&series, at), (&series, at + 1), (&series, at + 2)]));
        }
    }
    drained(&emitter).await;
    let requests = mock.requests();
    assert!(requests.iter().all(|request| request.samples.len() <= 7));
    for partition in 0..5 {
        let mut seen = times(requests.iter().flat_map(|r| &r.samples), &format!("s{partition}"));
        seen.dedup();
        // A retried request repeats a run of at most seven; a sample never comes before an older one's first time.
        let mut first = Vec::new();
        seen.iter().for_each(|at| {
            if !first.contains(at) {
                first.push(*at);
            }
        });
        assert_eq!(first, (0..180).collect::<Vec<_>>());
        assert_eq!(acked(&emitter)[&partition], 59);
    }
}

#[tokio::test]
async fn a_slow_target_does_not_hold_up_the_other() {
    let slow =
        Mock::new(|_, got| super::mock::Reply { delay: Duration::from_secs(3600), ..accept(got) }).await;
    let quick = Mock::new(|_, got| accept(got)).await;
    let emitter = started(vec![slow.config(), quick.config()]);
    for sequence in 0..50 {
        emitter.take(&batch(0, sequence, &[("a", sequence as i64)]));
    }
    until(|| emitter.snapshot()[1].accepted == 50).await;
    let figures = emitter.snapshot().remove(0);
    assert_eq!((figures.accepted, figures.pending_samples), (0, 50));
    assert!(figures.pending_bytes > 0);
    let left = emitter.shutdown(Duration::from_millis(20)).await;
    assert_eq!(left, [Undelivered { target: slow.config().http.name, samples: 50, kept: false }]);
}

#[tokio::test]
async fn the_oldest_go_when_the_queue_is_full() {
    let mock = Mock::new(|_, got| accept(got)).await;
    let mut config = mock.config();
    (config.queue.capacity, config.queue.max_shards) = (10, 1);
    let emitter = Emitter::new(vec![config], None).expect("valid");
    for sequence in 0..8 {
        let at = sequence as i64 * 3;
        emitter.take(&batch(0, sequence, &[("a", at), ("a", at + 1), ("a", at + 2)]));
    }
    let figures = one(&emitter);
    assert_eq!((figures.pending_samples, count(&figures.dropped, "capacity")), (9, 15));
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 4)]));
    emitter.start();
    drained(&emitter).await;
    assert_eq!(times(&mock.requests()[0].samples, "a"), (15..24).collect::<Vec<_>>());
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 7)]));
}

#[tokio::test]
async fn what_waited_too_long_is_given_up() {
    let mock = Mock::new(|_, _| reply(503)).await;
    let mut config = mock.config();
    config.queue.sample_age_limit = Span(50);
    let emitter = started(vec![config]);
    emitter.take(&batch(0, 1, &[("a", 1), ("b", 1)]));
    drained(&emitter).await;
    let figures = one(&emitter);
    assert_eq!((count(&figures.dropped, "age"), figures.accepted, figures.down), (2, 0, true));
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 1)]));
}

#[tokio::test]
async fn a_batch_that_writes_nothing_is_acknowledged_in_its_turn() {
    let mock = Mock::new(|_, got| accept(got)).await;
    let emitter = Emitter::new(vec![mock.config()], None).expect("valid");
    emitter.take(&batch(0, 1, &[]));
    emitter.take(&batch(1, 2, &[("a", 1)]));
    emitter.take(&batch(1, 3, &[]));
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 1)]), "3 waits for 2");
    emitter.start();
    drained(&emitter).await;
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 1), (1, 3)]));
}

#[tokio::test]
async fn shutdown_sends_what_is_queued() {
    let mock = Mock::new(|_, got| accept(got)).await;
    let mut config = mock.config();
    config.queue.batch_send_deadline = Span::HOUR;
    let emitter = started(vec![config]);
    for sequence in 0..500 {
        emitter.take(&batch((sequence % 9) as u16, sequence, &[("a", sequence as i64), ("b", 1)]));
    }
    assert_eq!(emitter.shutdown(Duration::from_secs(60)).await, []);
    assert_eq!(one(&emitter).accepted, 1000);
}

#[tokio::test]
async fn a_reload_keeps_what_is_pending_and_refuses_what_cannot_work() {
    let down = Mock::new(|_, _| reply(503)).await;
    let up = Mock::new(|_, got| accept(got)).await;
    let mut config = down.config_with(|http| http.name = "prometheus".into());
    let emitter = started(vec![config.clone()]);
    for sequence in 0..20 {
        emitter.take(&batch((sequence % 3) as u16, sequence, &[("a", sequence as i64)]));
    }
    until(|| one(&emitter).retries > 0).await;

    let broken = down.config_with(|http| (http.name, http.url) = ("prometheus".into(), "nowhere".into()));
    assert!(emitter.reload(vec![broken]).is_err());
    assert!(emitter.reload(vec![config.clone(), config.clone()]).is_err());
    emitter.reload(vec![config.clone()]).expect("unchanged");
    assert_eq!(one(&emitter).pending_samples, 20);

    // Somebody mends the URL, and has fewer shards.
    (config.http.url, config.queue.max_shards) = (up.config().http.url, 1);
    emitter.reload(vec![config]).expect("valid");
    drained(&emitter).await;
    assert_eq!(one(&emitter).accepted, 20);
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 18), (1, 19), (2, 17)]));
    emitter.reload(Vec::new()).expect("valid");
    assert_eq!(emitter.snapshot(), []);
}

#[tokio::test]
async fn relabelling_can_drop_and_change() {
    let mock = Mock::new(|_, got| accept(got)).await;
    let step = |action, regex: &str, source: &str| RelabelConfig {
        source_labels: vec![source.into()],
        separator: ";".into(),
        regex: regex::Regex::new(regex).expect("valid"),
        modulus: 0,
        target_label: "where".into(),
        replacement: "in-$1".into(),
        action,
    };
    let mut config = mock.config();
    config.write_relabel_configs =
        vec![step(RelabelAction::Drop, "b", "series"), step(RelabelAction::Replace, "(.*)", "series")];
    let emitter = started(vec![config]);
    emitter.take(&batch(0, 1, &[("a", 1), ("b", 1)]));
    emitter.take(&batch(0, 2, &[("b", 2)]));
    drained(&emitter).await;
    let samples: Vec<Got> = mock.requests().into_iter().flat_map(|r| r.samples).collect();
    let labels = "__name__=anomaly_score,metric=up,rule=node,series=a,where=in-a";
    assert_eq!(samples, [(labels.to_string(), 1, 1.0)]);
    let figures = one(&emitter);
    assert_eq!((figures.sent, count(&figures.dropped, "relabel")), (1, 2));
    assert_eq!(acked(&emitter), Acknowledged::from([(0, 2)]));
}

#[tokio::test]
async fn who_we_are() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("secret");
    std::fs::write(&file, "from-file\n").expect("write");
    let basic = Auth::Basic { username: "me".into(), password: Some(Secret::Inline("pass".into())) };
    let header = Auth::Header { scheme: "Bearer".into(), credentials: Secret::File(file.clone()) };
    for (auth, expected) in [(basic, "Basic bWU6cGFzcw=="), (header, "Bearer from-file")] {
        let mock = Mock::new(|_, got| accept(got)).await;
        let headers = vec![("X-Scope-OrgID".to_string(), "tenant".to_string())];
        let emitter = started(vec![mock.config_with(|http| (http.auth, http.headers) = (auth, headers))]);
        emitter.take(&batch(0, 1, &[("a", 1)]));
        drained(&emitter).await;
        let request = mock.requests().remove(0);
        assert_eq!(request.headers["authorization"], expected);
        assert_eq!(request.headers["x-scope-orgid"], "tenant");
    }
    // In the URL, as Prometheus takes it; and a secret changes without a restart.
    let mock = Mock::new(|_, got| accept(got)).await;
    let url = mock.config().http.url.replace("http://", "http://me:pass@");
    let emitter = started(vec![mock.config_with(|http| http.url = url)]);
    emitter.take(&batch(0, 1, &[("a", 1)]));
    drained(&emitter).await;
    assert_eq!(mock.requests().remove(0).headers["authorization"], "Basic bWU6cGFzcw==");

    let headers = vec![("Content-Type".to_string(), "text/plain".to_string())];
    assert!(Emitter::new(vec![mock.config_with(|http| http.headers = headers)], None).is_err());
}

#[tokio::test]
async fn an_oauth2_token_is_kept_and_renewed_when_refused() {
    let issuer = Mock::new(|n, _| {
        let mut reply = reply(200);
        reply.body = format!(r#"{{"access_token": "t{n}", "token_type": "bearer", "expires_in": 3600}}"#);
        reply
    })
    .await;
    let mock = Mock::new(|n, got| if n == 2 { reply(401) } else { accept(got) }).await;
    let auth = Auth::OAuth2 {
        client_id: "id".into(),
        client_secret: Secret::Inline("s".into()),
        token_url: format!("http://{}/token", issuer.address),
        scopes: vec!["write".into(), "read".into()],
        endpoint_params: vec![("audience".into(), "a&b".into())],
    };
    let emitter = started(vec![mock.config_with(|http| http.auth = auth)]);
    for sequence in 0..3 {
        emitter.take(&batch(0, sequence, &[("a", sequence as i64)]));
        drained(&emitter).await;
    }
    let tokens: Vec<_> = mock.requests().iter().map(|r| r.headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer t0", "Bearer t0", "Bearer t0", "Bearer t1"]);
    assert_eq!(one(&emitter).retries, 0, "renewed at once");
    let asked = issuer.requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].headers["authorization"], "Basic aWQ6cw==");
    assert_eq!(
        String::from_utf8_lossy(&asked[0].bytes),
        "grant_type=client_credentials&scope=write+read&audience=a%26b"
    );
}

#[tokio::test]
async fn tls_trusts_the_ca_file_and_nothing_else() {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("ca");
    let issuer = rcgen::Issuer::from_params(&params, &ca_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let names = vec!["receiver.test".to_string()];
    let certificate =
        rcgen::CertificateParams::new(names).expect("params").signed_by(&key, &issuer).expect("signed");
    let dir = tempfile::tempdir().expect("dir");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("ca.pem"), ca.pem()).expect("write");
    std::fs::write(path("client.pem"), certificate.pem()).expect("write");
    std::fs::write(path("client.key"), key.serialize_pem()).expect("write");

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).expect("ca");
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("verifier");
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("key"),
        )
        .expect("server");
    let mock = Mock::tls(server, |_, got| accept(got)).await;

    let good = TlsConfig {
        ca_file: Some(path("ca.pem")),
        cert_file: Some(path("client.pem")),
        key_file: Some(path("client.key")),
        server_name: Some("receiver.test".into()),
        insecure_skip_verify: false,
    };
    let wrong_name = TlsConfig { server_name: None, ..good.clone() };
    let unverified = TlsConfig { ca_file: None, insecure_skip_verify: true, ..wrong_name.clone() };
    let no_client = TlsConfig { cert_file: None, key_file: None, ..good.clone() };
    for (tls, works) in [(good.clone(), true), (wrong_name, false), (unverified, true), (no_client, false)] {
        let url = mock.config().http.url.replace("http://", "https://");
        let emitter = started(vec![mock.config_with(|http| (http.url, http.tls) = (url, tls.clone()))]);
        emitter.take(&batch(0, 1, &[("a", 1)]));
        if works {
            drained(&emitter).await;
            assert_eq!(one(&emitter).accepted, 1);
        } else {
            until(|| one(&emitter).retries > 1).await;
            assert_eq!(one(&emitter).accepted, 0, "{tls:?}");
        }
        emitter.shutdown(Duration::ZERO).await;
    }
    let half = TlsConfig { key_file: None, ..good };
    assert!(Emitter::new(vec![mock.config_with(|http| http.tls = half)], None).is_err());
}
