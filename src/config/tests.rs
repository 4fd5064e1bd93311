mod doors;

use super::*;
use crate::detect::{Detector, DetectorSet, ModelParams};
use crate::emit::config::{Auth, Protocol, RelabelAction, Secret};

const RULES: &str = "rules: [{name: a, match: up}]\n";

fn parse(text: &str) -> Config {
    match Config::parse("etc/rules.yaml", &format!("{text}\n{RULES}")) {
        Ok(config) => config,
        Err(problems) => panic!("{problems}"),
    }
}

/// The problems of a text, as lines without the file's name.
fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse("f", &format!("{text}\n{RULES}")).map(|_| ()).expect_err(text);
    problems.0.iter().map(|problem| problem.to_string().split_off(2)).collect()
}

fn target(fields: &str) -> RemoteWriteConfig {
    let mut config = parse(&format!("remote_write:\n- url: http://p:9090/api/v1/write\n  {fields}"));
    config.remote_write.remove(0)
}

fn target_problem(fields: &str) -> String {
    let mut all = problems(&format!("remote_write:\n- url: http://p:9090/api/v1/write\n  {fields}"));
    assert_eq!(all.len(), 1, "{fields}: {all:?}");
    all.remove(0)
}

#[test]
fn ten_mistakes_are_reported_at_once() {
    let text = "\
server: {listen: nowhere}
state: {forget_after: soon}
remote_write:
  - url: localhost:9090
    basic_auth: {user: me}
defaults:
  direction: sideways
rules:
  - name: a
    match: 'rate(up[5m])'
    false_alarms: sometimes
  - name: a
    match: up
    min_change: {relative: ten}
    labels: {metric: x}
  - match: up
    emitwhen: always
";
    let problems = Config::parse("rules.yaml", text).map(|_| ()).expect_err("mistakes").0;
    let found: Vec<_> = problems.iter().map(|p| (p.pos.line, p.pos.column, p.path.as_str())).collect();
    assert_eq!(
        found,
        [
            (1, 18, "server.listen"),
            (2, 23, "state.forget_after"),
            (4, 10, "remote_write[0].url"),
            (5, 17, "remote_write[0].basic_auth"),
            (5, 18, "remote_write[0].basic_auth.user"),
            (7, 14, "defaults.direction"),
            (10, 12, "rules[0].match"),
            (11, 19, "rules[0].false_alarms"),
            (12, 11, "rules[1].name"),
            (14, 28, "rules[1].min_change.relative"),
            (15, 14, "rules[1].labels.metric"),
            (16, 5, "rules[2]"),
            (17, 5, "rules[2].emitwhen"),
        ]
    );
    assert_eq!(
        problems[12].to_string(),
        "rules.yaml:17:5: rules[2].emitwhen: unknown field; did you mean `emit_when`?"
    );
}

#[test]
fn an_example_of_every_section() {
    let text = r#"
server:        {listen: "127.0.0.1:9899"}
ha:            {cluster_label: cluster, replica_label: __replica__}
state:         {dir: data, fsync: 1s, on_disk_full: degrade, forget_after: 24h}
remote_write:  [{url: "http://localhost:9090/api/v1/write"}]
remote_read:   [{url: "http://localhost:9090"}]
defaults:
  false_alarms: 1 per 30d
  detectors: [ewma, zscore, holt_winters, rarity]
  models: {ewma: {half_life: 10m}, zscore: {window: 64}, holt_winters: {alpha: 0.2, beta: 0.02, gamma: 0.1, phi: 0.98}}
  min_samples: 60
  quiet: 5m
  accept_shift_after: 6h
rules:
  - name: node
    match: ['node_load1', '{__name__=~"node_memory_.*", job="node"}']
  - name: http-errors
    match: ['http_requests_total{code=~"5.."}']
    as: rate
    direction: up
    season: [24h, 7d]
    timezone: Europe/Berlin
    false_alarms: 1 per 7d
    min_change: {absolute: 1, relative: 10%}
    silence: {after: 5m}
    identity_without: [pod]
    cohort: [job, metric]
    emit: [score, flag]
    emit_when: always
    labels: {team: edge}
"#;
    let config = Config::parse("rules.yaml", text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.rules.rules.len(), 2);
    let four = [Detector::Ewma, Detector::ZScore, Detector::HoltWinters, Detector::Rarity];
    let detectors = four.into_iter().fold(DetectorSet(0), DetectorSet::with);
    assert_eq!(config.rules.rules[0].params, ModelParams { detectors, ..ModelParams::default() });
    assert_eq!((config.server.listen.port(), config.state.fsync), (9899, Fsync::Every(Span::SECOND)));
    assert_eq!(config.notes, []);
}

#[test]
fn the_default_file_works_as_it_is() {
    let text = include_str!("../../rules.yaml");
    let config = Config::parse("rules.yaml", text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!config.rules.rules.is_empty() && config.notes.is_empty(), "{:?}", config.notes);
    assert_eq!(config.server, ServerConfig::default());
    assert_eq!((config.rules.limits, config.receive), (Default::default(), ReceiveLimits::default()));
    assert_eq!((&config.rules.identity, config.rules.forget_after), (&Default::default(), Span::hours(24)));
    let queue = &config.remote_write[0].queue;
    assert_eq!((config.remote_write.len(), queue), (1, &Default::default()));
}

#[test]
fn defaults_are_those_of_prometheus() {
    let target = target("");
    assert_eq!((target.http.name.as_str(), target.http.auth), ("http://p:9090/api/v1/write", Auth::None));
    assert_eq!((target.http.timeout, target.protocol), (Span::seconds(30), Protocol::Auto));
    assert_eq!((target.queue, target.http.tls), (Default::default(), Default::default()));
    assert_eq!(parse("").server.listen.to_string(), "127.0.0.1:9898");
    assert_eq!(parse("server: {listen: ':1'}").server.listen.to_string(), "0.0.0.0:1");
    assert_eq!(parse("server: {listen: 'localhost:1'}").server.listen.to_string(), "127.0.0.1:1");
    assert_eq!(parse("").notes.len(), 1, "no target is worth a remark");
}

#[test]
fn every_way_to_say_who_we_are() {
    let inline = |text: &str| Secret::Inline(text.into());
    let file = Secret::File("etc/secret".into());
    let (basic, bearer) = ("Basic", "Bearer");
    assert_eq!(
        target("basic_auth: {username: u, password: p}").http.auth,
        Auth::Basic { username: "u".into(), password: Some(inline("p")) }
    );
    assert_eq!(
        target("basic_auth: {username: u, password_file: secret}").http.auth,
        Auth::Basic { username: "u".into(), password: Some(file.clone()) }
    );
    assert_eq!(
        target("basic_auth: {username: u}").http.auth,
        Auth::Basic { username: "u".into(), password: None }
    );
    assert_eq!(
        target("authorization: {credentials: c}").http.auth,
        Auth::Header { scheme: bearer.into(), credentials: inline("c") }
    );
    assert_eq!(
        target("authorization: {type: Token, credentials_file: secret}").http.auth,
        Auth::Header { scheme: "Token".into(), credentials: file.clone() }
    );
    assert_eq!(
        target("oauth2: {client_id: i, client_secret_file: secret, token_url: 'https://t/x', scopes: [a, b], endpoint_params: {audience: z}}").http.auth,
        Auth::OAuth2 {
            client_id: "i".into(),
            client_secret: file,
            token_url: "https://t/x".into(),
            scopes: vec!["a".into(), "b".into()],
            endpoint_params: vec![("audience".into(), "z".into())],
        }
    );
    for (fields, part) in [
        ("basic_auth: {username: u, password: p, password_file: f}", "at most one of password and"),
        (&*format!("authorization: {{type: {basic}, credentials: c}}"), "write basic_auth"),
        ("authorization: {type: Bearer}", "is missing"),
        ("bearer_token: x", "write authorization"),
        ("sigv4: {region: x}", "not supported yet"),
        ("azuread: {}", "not supported yet"),
        ("basic_auth: {username: u}\n  authorization: {credentials: c}", "at most one of basic_auth"),
        ("oauth2: {client_id: i, client_secret: s, token_url: t}", "it must start with http"),
        ("follow_redirects: true", "never followed"),
        ("proxy_url: http://x", "not supported yet"),
        ("headers: {Authorization: x}", "write it as basic_auth"),
        ("headers: {Content-Type: x}", "set by oddity itself"),
        ("headers: {'a b': x}", "header name"),
        ("tls_config: {cert_file: x}", "belong together"),
        ("tls_config: {min_version: TLS13}", "not supported yet"),
        ("queue_config: {min_backoff: 10s, max_backoff: 1s}", "longer than"),
        ("queue_config: {capacity: 10}", "less than max_samples_per_send"),
        ("protobuf_message: v2", "expected auto, prometheus.WriteRequest or"),
    ] {
        let problem = target_problem(fields);
        assert!(problem.contains(part), "{fields}: {problem}");
    }
    for url in ["http://u:p@h/x", "ftp://h/x", "h:9090", "http://", "not a url"] {
        let all = problems(&format!("remote_write: [{{url: '{url}'}}]"));
        assert!(all.len() == 1 && !all[0].contains("u:p"), "{all:?}");
    }
    assert!(
        problems("remote_write: [{url: 'http://a/b?x=1'}, {url: 'http://a/b?x=2'}]")[0].contains("give each")
    );
}

#[test]
fn files_are_found_beside_the_configuration() {
    let tls =
        target("tls_config: {ca_file: ca.pem, cert_file: /c.pem, key_file: k.pem, server_name: s}").http.tls;
    assert_eq!(tls.ca_file, Some("etc/ca.pem".into()));
    assert_eq!((tls.cert_file, tls.key_file), (Some("/c.pem".into()), Some("etc/k.pem".into())));
}

#[test]
fn relabelling_is_checked_as_prometheus_does() {
    let steps = target(
        "write_relabel_configs:
    - {source_labels: [__name__], regex: 'anomaly_.*', action: Keep}
    - {source_labels: [a, b], separator: '-', target_label: c, replacement: x$1}
    - {source_labels: [a], target_label: shard, modulus: 8, action: hashmod}
    - {regex: 'tmp_(.*)', action: labelmap, replacement: 'x_$1'}
    - {regex: tmp_.*, action: labeldrop}
    - {source_labels: [a], target_label: a, action: uppercase}
    - {source_labels: [a], target_label: b, action: dropequal}",
    )
    .write_relabel_configs;
    let actions: Vec<RelabelAction> = steps.iter().map(|step| step.action).collect();
    use RelabelAction::*;
    assert_eq!(actions, [Keep, Replace, HashMod, LabelMap, LabelDrop, Uppercase, DropEqual]);
    assert!(steps[0].regex.is_match("anomaly_score") && !steps[0].regex.is_match("x_anomaly_score"));
    assert_eq!((steps[0].separator.as_str(), steps[0].replacement.as_str()), (";", "$1"));
    assert_eq!(steps[2].modulus, 8);
    for (step, part) in [
        ("{source_labels: [a]}", "`target_label` is missing"),
        ("{source_labels: [a], target_label: x, action: hashmod}", "`modulus` is missing"),
        ("{source_labels: [a], target_label: 'a-b'}", "expected a label name"),
        ("{regex: '(', action: labeldrop}", "unclosed group"),
        ("{regex: a, action: labeldrop, source_labels: [a]}", "takes only regex"),
        ("{target_label: a, source_labels: [a], regex: x, action: keepequal}", "takes only source_labels"),
        ("{regex: a, action: labelmap, replacement: '-'}", "makes label names"),
        ("{action: drops, regex: a}", "did you mean \"drop\"?"),
    ] {
        let problem = target_problem(&format!("write_relabel_configs: [{step}]"));
        assert!(problem.contains(part), "{step}: {problem}");
    }
}

#[test]
fn what_has_no_effect_is_remarked_on() {
    let text = "remote_write: [{url: 'http://a', send_exemplars: true, metadata_config: {send: true}, \
                queue_config: {min_shards: 2, retry_on_http_429: true}}]";
    assert_eq!(parse(text).notes.len(), 3);
}

#[test]
fn files_that_cannot_be_read_are_problems_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rules.yaml");
    assert!(Config::load(&path).map(|_| ()).expect_err("absent").to_string().contains("cannot be read"));
    std::fs::write(&path, [0xff, 0xfe]).expect("written");
    assert!(Config::load(&path).map(|_| ()).expect_err("binary").to_string().contains("not UTF-8"));
    std::fs::write(&path, vec![b'#'; MAX_BYTES + 1]).expect("written");
    assert!(Config::load(&path).map(|_| ()).expect_err("large").to_string().contains("larger than"));
    std::fs::write(&path, RULES).expect("written");
    assert!(Config::load(&path).is_ok());
}

proptest::proptest! {
    /// The default file with a piece cut out and another put in.
    #[test]
    fn no_mutation_panics(at in 0usize..8000, cut in 0usize..40, piece in r#"[-\[\]{}:,&*#?|>'"%@! \na1.]{0,6}"#) {
        let text: Vec<char> = include_str!("../../rules.yaml").chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        let mutated: String = text[..at].iter().copied().chain(piece.chars()).chain(text[end..].iter().copied()).collect();
        let _ = Config::parse("rules.yaml", &mutated);
    }
}

#[test]
fn sizes_take_units() {
    let text = "limits: {max_body_bytes: 16MiB, max_in_flight_bytes: 1 GiB}\nrules: [{name: a, match: up}]";
    let config = Config::parse("rules.yaml", text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.receive.max_body_bytes, config.receive.max_in_flight_bytes), (16 << 20, 1 << 30));
    for wrong in ["16 MB", "MiB", "-1KiB", "99999999999999GiB"] {
        let text = format!("limits: {{max_body_bytes: {wrong}}}\nrules: [{{name: a, match: up}}]");
        let problems = Config::parse("rules.yaml", &text).expect_err("refused");
        assert!(problems.to_string().contains("expected a whole number"), "{problems}");
    }
}
