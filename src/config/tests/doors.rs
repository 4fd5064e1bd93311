//! `server.tls`, `server.auth` and `--web.config.file`.

use super::*;
use crate::secure::{ClientAuth, Door, TlsVersion};

const HASH: &str = "$2y$04$zoPC9y63Jl0WGGCmW1Q4..VAUoA6gBGsCoqEzvxoW1/7cjB6QUpb.";

#[test]
fn doors_are_read() {
    let config = parse(&format!(
        "server:\n  tls: {{cert_file: c.pem, key_file: /k.pem, client_auth_type: RequireAndVerifyClientCert,\n    \
         client_ca_file: ca.pem, client_allowed_sans: [prom.example, 10.0.0.1], min_version: TLS13}}\n  auth:\n    \
         basic_auth_users: {{root: '{HASH}'}}\n    ingest: {{basic_auth_users: {{prom: '{HASH}'}}, bearer_token_files: [t]}}\n    \
         read: {{anonymous: true}}"
    ));
    let doors = config.server.doors;
    let tls = doors.tls.expect("TLS");
    assert_eq!((tls.cert_file, tls.key_file), ("etc/c.pem".into(), "/k.pem".into()));
    assert_eq!((tls.client_auth, tls.client_ca_file), (ClientAuth::Require, Some("etc/ca.pem".into())));
    assert_eq!(tls.client_allowed_sans, ["prom.example", "10.0.0.1"]);
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
    let auth = doors.auth.expect("auth");
    assert!(auth.all.basic_auth_users.contains_key("root"));
    let ingest = &auth.doors[Door::Ingest as usize];
    assert!(ingest.basic_auth_users.contains_key("prom") && !ingest.anonymous);
    assert_eq!(ingest.bearer_token_files, [PathBuf::from("etc/t")]);
    assert!(auth.doors[Door::Read as usize].anonymous);
    assert!(config.notes.iter().all(|note| !note.message.contains("nobody may pass")), "{:?}", config.notes);
}

#[test]
fn a_closed_door_is_remarked_on() {
    let config = parse(&format!("server: {{auth: {{ingest: {{basic_auth_users: {{p: '{HASH}'}}}}}}}}"));
    let notes: Vec<_> = config.notes.iter().filter(|note| note.message.contains("nobody may pass")).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn mistakes_are_told_and_secrets_are_not() {
    for (text, says) in [
        ("server: {tls: {cert_file: c}}", "cert_file and key_file are needed"),
        ("server: {tls: {cert_file: c, key_file: k, client_ca_file: x}}", "has no effect without"),
        (
            "server: {tls: {cert_file: c, key_file: k, client_auth_type: VerifyClientCertIfGiven}}",
            "needs client_ca_file",
        ),
        ("server: {tls: {cert_file: c, key_file: k, client_auth_type: RequestClientCert}}", "proves nothing"),
        ("server: {tls: {cert_file: c, key_file: k, client_auth_type: Any}}", "expected NoClientCert"),
        ("server: {tls: {cert_file: c, key_file: k, min_version: TLS10}}", "TLS before 1.2"),
        ("server: {tls: {cert_file: c, key_file: k, min_version: TLS13, max_version: TLS12}}", "higher than"),
        ("server: {tls: {cert_file: c, key_file: k, client_allowed_sans: [x]}}", "has no effect without"),
        ("server: {tls: {cert_file: c, key_file: k, cipher_suites: [x]}}", "not supported"),
        ("server: {tls: {cert_file: c, key: canary}}", "write key_file"),
        ("server: {auth: {basic_auth_users: {me: canary}}}", "expected a bcrypt hash"),
        ("server: {auth: {basic_auth_users: {me: [canary]}}}", "found a list"),
        ("server: {auth: {basic_auth_users: {'a:b': x}}}", "no colon"),
        ("server: {auth: {bearer_token: canary}}", "write bearer_token_files"),
        ("server: {auth: {read: {bearer_tokens: [canary]}}}", "write bearer_token_files"),
        ("server: {auth: {read: {anonymous: true, bearer_token_files: [t]}}}", "whoever comes"),
        ("server: {auth: {anonymous: true}}", "unknown field"),
        ("limits: {max_connections: 1}", "from 8"),
        ("limits: {max_queue_age: 1h}", "expected a duration"),
    ] {
        let found = problems(text).join("\n");
        assert!(found.contains(says) && !found.contains("canary"), "{text}: {found}");
    }
}

#[test]
fn prometheus_own_file_is_read() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("web.yml");
    let load = |text: String| {
        std::fs::write(&path, text).expect("write");
        load_web_config(&path)
    };
    let doors = load(format!(
        "tls_server_config: {{cert_file: c.pem, key_file: k.pem, min_version: TLS12, prefer_server_cipher_suites: true}}\n\
         basic_auth_users: {{prom: {HASH}}}\nhttp_server_config: {{http2: true, headers: {{X-Frame-Options: deny}}}}\n"
    ))
    .expect("valid");
    assert_eq!(doors.tls.expect("TLS").cert_file, dir.path().join("c.pem"));
    assert_eq!(doors.own_file.as_deref(), Some(path.as_path()));
    assert!(doors.auth.expect("users").all.basic_auth_users.contains_key("prom"));
    assert_eq!(doors.headers.len(), 1);
    let doors = load(String::new()).expect("an empty file asks nothing");
    assert!(doors.tls.is_none() && doors.auth.is_none());
    for (text, says) in [
        ("basic_auth_users: {prom: canary}", "bcrypt"),
        ("http_server_config: {headers: {Set-Cookie: canary}}", "expected one of"),
        ("tls_config: {}", "unknown field"),
        ("rate_limit: {interval: 1s}", "not supported"),
    ] {
        let found = load(text.into()).expect_err(text).to_string();
        assert!(found.contains(says) && found.contains("web.yml") && !found.contains("canary"), "{found}");
    }
    std::fs::remove_file(&path).expect("remove");
    assert!(load_web_config(&path).expect_err("gone").to_string().contains("cannot be read"));
}

#[test]
fn what_is_printed_of_a_configuration_holds_no_secret() {
    let config = parse(&format!(
        "server: {{auth: {{basic_auth_users: {{me: '{HASH}'}}}}}}
remote_write:
- {{url: 'http://p/w?key=canary', headers: {{X-Key: canary}}, basic_auth: {{username: me, password: canary}}}}
- {{url: 'http://p/x', authorization: {{credentials: canary}}}}
- {{url: 'http://p/y', oauth2: {{client_id: i, client_secret: canary, token_url: 'http://p/t?key=canary', endpoint_params: {{key: canary}}}}}}
remote_read: [{{url: 'http://p/r?key=canary', headers: {{X-Key: canary}}, basic_auth: {{username: me, password: canary}}}}]"
    ));
    let shown = format!("{config:?}");
    assert!(shown.contains("X-Key") && shown.contains("client_id: \"i\""), "{shown}");
    assert!(!shown.contains("canary") && !shown.contains(HASH), "{shown}");
}
