//! The doors: Prometheus itself comes in by TLS with a password and by a certificate, files are
//! renewed under it, and nothing secret is shown anywhere.

use crate::exposer::Exposer;
use crate::harness::http;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::process::Process;
use crate::harness::sidecar::Sidecar;
use crate::harness::tls::Authority;
use crate::harness::{free_port, now_ms, temp_dir, wait_until};
use base64::Engine;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PASSWORD: &str = "canary-of-the-sender";
const RULES: &str = "rules: [{name: app, match: '{__name__=~\"app_.*\"}', min_samples: 5}]\n";

fn basic(user: &str, password: &str) -> String {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}

/// An `oddity serve` behind TLS, in a folder of its own.
fn serve(dir: &Path, name: &str, rules: &str, more: &[&str]) -> (Process, u16) {
    let port = free_port();
    std::fs::write(dir.join(format!("{name}.yaml")), rules).expect("its configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddity"));
    command
        .current_dir(dir)
        .args([
            "serve",
            "--config",
            &format!("{name}.yaml"),
            "--web.listen-address",
            &format!("127.0.0.1:{port}"),
        ])
        .args(more);
    (Process::start(name, dir, &mut command), port)
}

#[test]
fn prometheus_comes_in_by_tls_with_a_password_and_by_certificate() {
    let home = temp_dir();
    let dir = home.path();
    let authority = Authority::new(dir);
    authority.sign("server", "127.0.0.1");
    authority.sign("prometheus", "prometheus.test");
    authority.sign("guest", "guest.test");
    let hash = bcrypt::hash(PASSWORD, 10).expect("hashes");
    std::fs::write(
        dir.join("web.yml"),
        format!("tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{prom: {hash}}}\n"),
    )
    .expect("web.yml");
    std::fs::write(dir.join("password"), format!("{PASSWORD}\n")).expect("its password");
    std::fs::write(dir.join("wrong"), "another").expect("a wrong password");
    let mtls = format!(
        "server: {{tls: {{cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
         client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.test]}}}}\n{RULES}"
    );
    let (_one, one) = serve(dir, "password-oddity", RULES, &["--web.config.file", "web.yml"]);
    let (_two, two) = serve(dir, "certificate-oddity", &mtls, &[]);
    let authorization = basic("prom", PASSWORD);
    let known = [("Authorization", authorization.as_str())];
    for (port, client) in [(one, None), (two, Some("prometheus"))] {
        wait_until("oddity to be ready", Duration::from_secs(30), || {
            match authority.request("GET", port, "/-/ready", &[], client) {
                Ok((answer, _)) if answer.status == 200 => Ok(()),
                Ok((answer, _)) => Err(answer.status.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    let exposer = Exposer::start(63, 10, false);
    let config = format!(
        r#"
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: app, static_configs: [{{targets: ["{app}"]}}]}}]
remote_write:
- {{url: "https://127.0.0.1:{one}/api/v1/write", name: one, basic_auth: {{username: prom, password_file: password}}, tls_config: {{ca_file: ca.pem}}, queue_config: {{batch_send_deadline: 200ms}}}}
- {{url: "https://127.0.0.1:{one}/api/v1/write", name: wrong, basic_auth: {{username: prom, password_file: wrong}}, tls_config: {{ca_file: ca.pem}}, queue_config: {{batch_send_deadline: 200ms}}}}
- {{url: "https://127.0.0.1:{two}/api/v1/write", name: two, tls_config: {{ca_file: ca.pem, cert_file: prometheus.pem, key_file: prometheus.key}}, queue_config: {{batch_send_deadline: 200ms}}}}
"#,
        app = exposer.address(),
    );
    let prometheus = Prometheus::start(Suite::Sid, dir, &config);
    let metric = |port: u16, client: Option<&str>, headers: &[(&str, &str)], name: &str| -> f64 {
        let (answer, _) = authority.request("GET", port, "/metrics", headers, client).expect("metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let scored = |least: f64| {
        for (port, client, headers) in [(one, None, known.as_slice()), (two, Some("prometheus"), &[])] {
            wait_until("scored samples", Duration::from_secs(60), || {
                match metric(port, client, headers, "oddity_samples_scored_total ") {
                    scored if scored >= least => Ok(()),
                    scored => Err(format!("{scored} of {least}")),
                }
            });
        }
    };
    scored(20.0);
    wait_until("the wrong password to be refused", Duration::from_secs(30), || {
        match metric(one, None, &known, "oddity_auth_failures_total{door=\"ingest\",reason=\"wrong\"} ") {
            n if n >= 1.0 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    assert_eq!(authority.request("GET", one, "/api/v1/status", &[], None).expect("an answer").0.status, 401);
    for stranger in [None, Some("guest")] {
        assert!(authority.request("GET", two, "/-/healthy", &[], stranger).is_err(), "{stranger:?}");
    }

    // Renewed under it: the key first, which fits only with the certificate that follows.
    let shown =
        |port, client| authority.request("GET", port, "/-/healthy", &[], client).expect("an answer").1;
    let before = shown(one, None);
    authority.sign("server", "127.0.0.1");
    for (port, client) in [(one, None), (two, Some("prometheus"))] {
        wait_until("the new certificate", Duration::from_secs(30), || {
            if shown(port, client) != before { Ok(()) } else { Err("the old one".into()) }
        });
    }
    let have = metric(one, None, &known, "oddity_samples_scored_total ");
    scored(have + 20.0);

    // A password changed in web.yml counts from the next look on, also on open connections.
    let other = bcrypt::hash("another password", 4).expect("hashes");
    let text = std::fs::read_to_string(dir.join("web.yml")).expect("web.yml");
    std::fs::write(dir.join("web.yml"), text.replace(&hash, &other)).expect("web.yml");
    wait_until("the old password to be refused", Duration::from_secs(30), || {
        match authority.request("GET", one, "/api/v1/status", &known, None).expect("an answer").0.status {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    drop(prometheus);
}

#[test]
fn no_secret_in_any_answer_or_line() {
    let home = temp_dir();
    let dir = home.path();
    let hash = bcrypt::hash("canary-password", 4).expect("hashes");
    for (file, text) in [
        ("tokens", "canary-token-0123456789"),
        ("out-password", "canary-out-file"),
        ("out-secret", "canary-oauth-secret"),
    ] {
        std::fs::write(dir.join(file), text).expect("a secret");
    }
    let away = format!("http://127.0.0.1:{}", free_port());
    let rules = format!(
        r#"
server:
  auth:
    basic_auth_users: {{root: {hash}}}
    read: {{bearer_token_files: [tokens]}}
remote_write:
- {{url: "{away}/a?key=canary-query", basic_auth: {{username: me, password: canary-out-inline}}, headers: {{X-Key: canary-header}}}}
- {{url: "{away}/b", name: b, authorization: {{credentials_file: out-password}}}}
- {{url: "{away}/c", name: c, oauth2: {{client_id: me, client_secret_file: out-secret, token_url: "{away}/t?key=canary-token-query"}}}}
remote_read: [{{url: "{away}/r?key=canary-read-query", basic_auth: {{username: me, password: canary-read}}}}]
rules: [{{name: all, match: '{{__name__=~".+"}}', min_samples: 2}}]
"#
    );
    let sidecar = Sidecar::start_with(dir, &rules, 1, &["--web.enable-anomalies", "--log.level", "trace"]);
    let root = basic("root", "canary-password");
    for step in 0..5 {
        let series =
            crate::harness::wire::Series::new(&[("__name__", "m")], &[(now_ms() - 10_000 + step, 1.0)]);
        let body = crate::harness::wire::snappy(&crate::harness::wire::encode_v1(&[series]));
        let headers = [("Authorization", root.as_str()), ("Content-Encoding", "snappy")];
        let answer = http::request("POST", &sidecar.write_url(), &headers, &body).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let routes = [
        ("POST", "/api/v1/write"),
        ("GET", "/metrics"),
        ("GET", "/metrics/anomalies"),
        ("GET", "/-/healthy"),
        ("GET", "/-/ready"),
        ("POST", "/-/reload"),
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/series"),
        ("GET", "/api/v1/anomalies"),
        ("GET", "/api/v1/rules"),
        ("GET", "/api/v1/alerts"),
        ("GET", "/"),
        ("GET", "/nowhere"),
    ];
    let credentials = [
        root.clone(),
        basic("root", "canary-wrong"),
        basic("canary-user", "canary-wrong"),
        "Bearer canary-token-0123456789".to_string(),
        "Bearer canary-token-that-is-wrong".to_string(),
        "canary-nonsense".to_string(),
    ];
    let mut seen = String::new();
    let mut statuses = Vec::new();
    for (method, path) in routes {
        for value in &credentials {
            let url = format!("{}{path}", sidecar.base);
            let answer = http::request(method, &url, &[("Authorization", value)], b"").expect("an answer");
            statuses.push(answer.status);
            seen += &format!("{method} {path}: {:?}\n{}\n", answer.headers, answer.text());
        }
    }
    for status in [200, 401, 403, 404] {
        assert!(statuses.contains(&status), "{status} is among {statuses:?}");
    }
    // A bad file, whose mistakes are told without what is in it.
    let bad = rules.replace(&hash, "canary-plain").replace("read: {", "read: {bearer_token: canary-inline, ");
    std::fs::write(dir.join("rules.yaml"), bad).expect("its configuration");
    std::fs::write(dir.join("tokens"), "canary short").expect("tokens");
    let answer =
        http::request("POST", &format!("{}/-/reload", sidecar.base), &[("Authorization", &root)], b"");
    let answer = answer.expect("an answer");
    assert!(answer.status == 500 && answer.text().contains("bcrypt"), "{}", answer.text());
    seen += &answer.text();
    wait_until("attempts to send, in the log", Duration::from_secs(30), || {
        let log = sidecar.process.log();
        let told = |target: &&str| !log.lines().any(|line| line.contains(*target) && line.contains("WARN"));
        match ["/a", "target_name=\"b\"", "target_name=\"c\""].iter().find(|target| told(target)) {
            None => Ok(()),
            Some(target) => Err(format!("nothing of {target}: {}", sidecar.process.tail(9))),
        }
    });
    seen += &sidecar.process.log();
    let told: Vec<&str> =
        seen.lines().filter(|line| line.contains("canary") || line.contains(&hash)).collect();
    assert!(told.is_empty(), "{told:#?}");
    let encoded = root.strip_prefix("Basic ").expect("basic");
    assert!(!seen.contains(encoded), "not encoded either");
}
