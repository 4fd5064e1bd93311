use super::live::{Count, count, counted, form, rules_of};
use super::*;
use crate::rules::selector;
use std::io::Read;
use std::net::TcpListener;

#[test]
fn the_first_rule_takes_a_series_and_outputs_are_counted() {
    let rules = rules_of(
        "rules:
- {name: a, match: 'up{job=\"x\"}', emit: [score, flag, bands, detectors], as: [value, delta]}
- {name: b, match: ['{__name__=~\".+\"}']}",
    )
    .expect("valid");
    let matched = counted(
        &rules,
        &[
            &[("__name__", "up"), ("job", "x")],
            &[("__name__", "up"), ("job", "y"), ("cluster", "c"), ("__replica__", "r1")],
            &[("__name__", "up"), ("job", "y"), ("cluster", "c"), ("__replica__", "r2")],
            &[("__name__", "http_bucket"), ("le", "1")],
            &[("__name__", "anomaly_score"), ("metric", "up"), ("rule", "a")],
            &[("__name__", "anomaly_score")],
        ],
    );
    assert_eq!(matched.own, 1);
    let x = r#"up{job="x"}"#.to_string();
    assert_eq!(matched.rules[0], Count { series: 1, earlier: 0, outputs: 22, examples: vec![x] });
    // A replica of a pair is no other series, and the HA label no part of it.
    let y = r#"up{cluster="c", job="y"}"#.to_string();
    let Count { series, earlier, outputs, examples } = &matched.rules[1];
    assert_eq!((*series, *earlier, *outputs), (2, 1, 4));
    assert!(examples.len() == 2 && examples.contains(&y), "{examples:?}");
}

#[test]
fn a_few_examples_come_first_and_the_table_last() {
    let text = r#"rules: [{name: a, match: '{__name__=~"x_.*"}'}, {name: none, match: gone}]"#;
    let rules = rules_of(text).expect("valid");
    let long = "v".repeat(500);
    let names: Vec<String> = (0..40).map(|i| format!("x_{}", i % 2)).collect();
    let sets: Vec<[(&str, &str); 3]> = names
        .iter()
        .enumerate()
        .map(|(i, name)| [("__name__", name.as_str()), ("i", names[i].as_str()), ("long", long.as_str())])
        .collect();
    let slices: Vec<&[(&str, &str)]> = sets.iter().map(|set| set.as_slice()).collect();
    let matched = counted(&rules, &slices);
    let text = show::examples(&rules, &matched);
    assert!(text.starts_with("a, for example\n  x_0{") && text.ends_with("\nnone: no series"), "{text}");
    assert!(text.contains("\n  x_1{") && text.lines().all(|line| line.chars().count() <= 113), "{text}");
    let table = show::matched(&rules, &matched);
    let last: Vec<&str> = table.lines().rev().take(4).map(str::trim).collect();
    assert!(last[0].starts_with("in all") && last[3].starts_with("rule "), "{table}");
}

#[test]
fn selectors_are_written_back_as_promql() {
    let text = r#"up{a="x\"y\\z", b=~"1|2", "c.d"!="é"}"#;
    let selector = selector::parse(text).expect("valid").remove(0);
    let (promql, escaped) = form(&selector);
    assert_eq!(promql, r#"{__name__="up",a="x\"y\\z",b=~"1|2","c.d"!="é"}"#);
    let again = selector::parse(&promql).expect("valid").remove(0);
    assert_eq!(again.to_string(), selector.to_string());
    assert!(escaped.starts_with("%7B__name__%3D%22up%22%2C") && escaped.is_ascii());
}

/// Answers one request with a status line and body; gives the request.
fn serve(answer: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut request = String::new();
        let mut buffer = [0; 4096];
        while !request.contains("match%5B%5D=") {
            let n = stream.read(&mut buffer).expect("readable");
            if n == 0 {
                break;
            }
            request += &String::from_utf8_lossy(&buffer[..n]);
        }
        stream.write_all(answer.as_bytes()).expect("written");
        request
    });
    (url, thread)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_live_server_is_asked_by_selector() {
    let rules = rules_of("rules: [{name: a, match: up}]").expect("valid");
    let body = r#"{"status":"success","data":[{"__name__":"up","job":"x"}]}"#;
    let (url, thread) = serve(http("200 OK", body));
    let matched = count(&format!("{url}/"), &rules).await.expect("an answer");
    let examples = vec![r#"up{job="x"}"#.to_string()];
    assert_eq!(matched.rules, [Count { series: 1, earlier: 0, outputs: 2, examples }]);
    let request = thread.join().expect("served");
    assert!(request.starts_with("POST /api/v1/series HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("&match%5B%5D=%7B__name__%3D%22up%22%7D"), "{request}");

    let (url, _) = serve(http("422 Unprocessable Entity", r#"{"status":"error","error":"too many"}"#));
    let error = count(&url, &rules).await.expect_err("refused").to_string();
    assert!(error.contains("422") && error.contains("too many"), "{error}");
    let (url, _) = serve(http("200 OK", "<html>"));
    assert!(count(&url, &rules).await.expect_err("no JSON").to_string().contains("is it a Prometheus?"));
    for url in ["localhost:9090", "ftp://x", "http://u:p@x", "x y"] {
        let error = count(url, &rules).await.expect_err(url).to_string();
        assert!(error.contains("expected a URL") && !error.contains("u:p"), "{url}: {error}");
    }
}

#[test]
fn exit_codes_tell_valid_files_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    let args = |format| CheckArgs { file: file.clone(), prometheus: None, format };
    for (text, code) in
        [("rules: [{name: a, match: up}]", ExitCode::SUCCESS), ("rules: []", ExitCode::FAILURE)]
    {
        std::fs::write(&file, text).expect("written");
        for format in [Format::Text, Format::Json] {
            assert_eq!(run(args(format)).expect("ran"), code, "{text}");
        }
    }
    std::fs::write(&file, "rules: [{name: a, match: up}]").expect("written");
    let mut gone = args(Format::Text);
    gone.prometheus = Some("http://127.0.0.1:1".into());
    assert_eq!(run(gone).expect("ran"), ExitCode::FAILURE);
}

#[test]
fn programs_get_problems_and_settings() {
    let config = Config::parse("f", "rules: [{name: a, match: up, cohort: [job]}]").expect("valid");
    let value = describe("f", &config, None);
    assert_eq!(
        (value["valid"].as_bool(), value["rules"][0]["false_alarms"].as_str()),
        (Some(true), Some("1 per 30d"))
    );
    assert_eq!(value["notes"].as_array().map(Vec::len), Some(1));
    let problems = Config::parse("f", "rules: 1").map(|_| ()).expect_err("wrong");
    assert_eq!(list(&problems.0)[0]["path"], "rules");
}
