//! `server.tls` and `server.auth`, and Prometheus's `--web.config.file`, which says the same.

use crate::config::Problems;
use crate::rules::yaml::{self, Map, Node};
use crate::secure::{
    AccessConfig, AuthConfig, ClientAuth, Door, DoorsConfig, PasswordHash, TlsConfig, TlsVersion,
};
use hyper::header::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a `--web.config.file` in the format of Prometheus's exporter-toolkit. Files named in it are
/// relative to its folder.
///
/// # Errors
/// Everything wrong with it, in its order.
pub fn load_web_config(path: &Path) -> Result<DoorsConfig, Problems> {
    let name = path.display().to_string();
    let cannot = |why: String| Problems::unreadable(&name, why);
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| cannot(format!("cannot be read: {error}")))?;
    let text =
        String::from_utf8(bytes).map_err(|error| cannot(format!("is not UTF-8: {}", error.utf8_error())))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let (doors, _) = yaml::read(&name, &text, |root| Some(web(root, base)))?;
    Ok(DoorsConfig { own_file: Some(path.to_path_buf()), ..doors })
}

fn web(root: &mut Map<'_>, base: &Path) -> DoorsConfig {
    let tls = root.take("tls_server_config").and_then(|node| tls(&node, base));
    let mut doors = DoorsConfig { tls, ..DoorsConfig::default() };
    if let Some(node) = root.take("basic_auth_users") {
        let all = AccessConfig { basic_auth_users: users(&node), ..AccessConfig::default() };
        if !all.basic_auth_users.is_empty() {
            doors.auth = Some(AuthConfig { all, ..AuthConfig::default() });
        }
    }
    if let Some(mut http) = root.take("http_server_config").and_then(|node| node.map()) {
        http.take("http2").map(|node| node.bool());
        doors.headers = http.take("headers").map(|node| headers(&node)).unwrap_or_default();
        http.finish();
    }
    root.refuse("rate_limit", "not supported; the `limits` of rules.yaml bound requests");
    doors
}

/// `server.tls` and `server.auth`.
pub(super) fn doors(server: &mut Map<'_>, base: &Path) -> DoorsConfig {
    let tls = server.take("tls").and_then(|node| tls(&node, base));
    let auth = server.take("auth").and_then(|node| auth(&node, base));
    DoorsConfig { tls, auth, ..DoorsConfig::default() }
}

fn tls(node: &Node<'_>, base: &Path) -> Option<TlsConfig> {
    let mut map = node.map()?;
    let mut file =
        |name: &'static str| map.take(name).and_then(|node| node.string()).map(|path| base.join(path));
    let (cert_file, key_file, client_ca_file) = (file("cert_file"), file("key_file"), file("client_ca_file"));
    if cert_file.is_none() || key_file.is_none() {
        map.node.error("cert_file and key_file are needed: the server's certificate and its key (PEM)");
    }
    let client_auth = map.take("client_auth_type").and_then(|node| match node.text()? {
        "RequestClientCert" | "RequireAnyClientCert" => {
            node.error(
                "a certificate that nobody verifies proves nothing; write VerifyClientCertIfGiven or \
                 RequireAndVerifyClientCert",
            );
            None
        }
        _ => node.choice(&[
            ("NoClientCert", ClientAuth::None),
            ("VerifyClientCertIfGiven", ClientAuth::IfGiven),
            ("RequireAndVerifyClientCert", ClientAuth::Require),
        ]),
    });
    let client_auth = client_auth.unwrap_or_default();
    match (client_auth, &client_ca_file) {
        (ClientAuth::None, Some(_)) => {
            map.node
                .error("client_ca_file has no effect without client_auth_type: RequireAndVerifyClientCert");
        }
        (ClientAuth::IfGiven | ClientAuth::Require, None) => {
            map.node.error("client_auth_type needs client_ca_file: who signs the certificates of clients");
        }
        _ => {}
    }
    let mut client_allowed_sans = Vec::new();
    for item in map.take("client_allowed_sans").and_then(|node| node.list()).unwrap_or_default() {
        let name = item.parse(|text| match ServerName::try_from(text) {
            Ok(_) => Ok(text.to_string()),
            Err(_) => Err(format!("expected a host name or an IP address, found {text:?}")),
        });
        client_allowed_sans.extend(name);
    }
    if client_auth == ClientAuth::None && !client_allowed_sans.is_empty() {
        map.node
            .error("client_allowed_sans has no effect without client_auth_type: RequireAndVerifyClientCert");
    }
    let min_version = version(&mut map, "min_version").unwrap_or(TlsVersion::Tls12);
    let max_version = version(&mut map, "max_version").unwrap_or(TlsVersion::Tls13);
    if min_version > max_version {
        map.node.error("min_version is higher than max_version");
    }
    if let Some(node) = map.take("prefer_server_cipher_suites") {
        node.bool();
    }
    for (name, why) in [
        ("cert", "not supported; write cert_file"),
        ("key", "not supported; write key_file"),
        ("client_ca", "not supported; write client_ca_file"),
        (
            "cipher_suites",
            "not supported: all suites of TLS 1.3 and the AEAD suites of 1.2 are taken; remove it",
        ),
        ("curve_preferences", "not supported: X25519, P-256 and P-384 are taken; remove it"),
    ] {
        map.refuse(name, why);
    }
    map.finish();
    let (cert_file, key_file) = (cert_file?, key_file?);
    Some(TlsConfig {
        cert_file,
        key_file,
        client_auth,
        client_ca_file,
        client_allowed_sans,
        min_version,
        max_version,
    })
}

fn version(map: &mut Map<'_>, name: &'static str) -> Option<TlsVersion> {
    let node = map.take(name)?;
    match node.text()? {
        "TLS10" | "TLS11" => {
            node.error("TLS before 1.2 is not supported; write TLS12 or TLS13");
            None
        }
        _ => node.choice(&[("TLS12", TlsVersion::Tls12), ("TLS13", TlsVersion::Tls13)]),
    }
}

fn auth(node: &Node<'_>, base: &Path) -> Option<AuthConfig> {
    let mut map = node.map()?;
    let mut auth = AuthConfig { all: access(&mut map, base), ..AuthConfig::default() };
    for (door, own) in Door::ALL.into_iter().zip(&mut auth.doors) {
        let Some(mut fields) = map.take(door.name()).and_then(|node| node.map()) else { continue };
        *own = access(&mut fields, base);
        own.anonymous = fields.take("anonymous").and_then(|node| node.bool()).unwrap_or_default();
        if own.anonymous && !names_nobody(own) {
            fields.node.error("anonymous lets in whoever comes; remove it, or those who are named beside it");
        }
        fields.finish();
    }
    map.finish();
    if names_nobody(&auth.all) {
        for (door, own) in Door::ALL.into_iter().zip(&auth.doors) {
            if names_nobody(own) && !own.anonymous {
                let name = door.name();
                node.note(format!(
                    "nobody may pass the door `{name}`: name somebody, or write `{name}: {{anonymous: true}}`"
                ));
            }
        }
    }
    Some(auth)
}

fn names_nobody(access: &AccessConfig) -> bool {
    access.basic_auth_users.is_empty() && access.bearer_token_files.is_empty()
}

fn access(map: &mut Map<'_>, base: &Path) -> AccessConfig {
    let users = map.take("basic_auth_users").map(|node| users(&node)).unwrap_or_default();
    let files = map.take("bearer_token_files").and_then(|node| node.strings()).unwrap_or_default();
    for (name, why) in [
        ("bearer_token", "secrets have no place in this file; write bearer_token_files"),
        ("bearer_tokens", "secrets have no place in this file; write bearer_token_files"),
        ("bearer_token_file", "write bearer_token_files, a list"),
        ("basic_auth", "write basic_auth_users, names with bcrypt hashes"),
    ] {
        map.refuse(name, why);
    }
    AccessConfig {
        basic_auth_users: users,
        bearer_token_files: files.into_iter().map(|file| base.join(file)).collect(),
        anonymous: false,
    }
}

fn users(node: &Node<'_>) -> std::collections::BTreeMap<String, PasswordHash> {
    let mut users = std::collections::BTreeMap::new();
    for (key, name, value) in node.pairs().unwrap_or_default() {
        if name.is_empty() || name.contains(':') {
            key.error("a user's name is not empty and has no colon");
        } else if let Some(hash) = value.parse(PasswordHash::parse) {
            users.insert(name, hash);
        }
    }
    users
}

/// The headers that Prometheus allows here.
const HEADERS: [&str; 5] = [
    "content-security-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-xss-protection",
];

fn headers(node: &Node<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut all = Vec::new();
    for (key, name, value) in node.pairs().unwrap_or_default() {
        let lower = name.to_lowercase();
        let header = HEADERS.contains(&lower.as_str()).then(|| HeaderName::from_bytes(lower.as_bytes()));
        let Some(Ok(header)) = header else {
            key.error(format!("expected one of {}", HEADERS.join(", ")));
            continue;
        };
        let value = value.parse(|text| match HeaderValue::from_str(text) {
            Ok(value) => Ok(value),
            Err(_) => Err("a header's value holds only visible characters and spaces"),
        });
        all.extend(value.map(|value| (header, value)));
    }
    all
}
