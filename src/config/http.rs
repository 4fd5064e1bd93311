//! What `remote_write` and `remote_read` have in common: where, and who we are.

pub use crate::outbound::HttpConfig;

use crate::outbound::{Auth, Secret, TlsConfig, without_query};
use crate::rules::yaml::{Map, Node};
use crate::time::Span;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::Uri;
use std::path::Path;

const NOT_YET: &str = "not supported yet; remove it";

/// Reads the common fields. `None` where there is no usable URL, which is reported.
pub(super) fn http(map: &mut Map<'_>, base: &Path, timeout: Span) -> Option<HttpConfig> {
    let url = map.require("url", "such as \"http://localhost:9090/api/v1/write\"");
    let url = url.and_then(|node| node.parse(check_url).map(|name| (node, name)));
    let name = map.take("name").and_then(|node| node.string());
    let span = map.take("remote_timeout").and_then(|node| node.duration(Span(1)..=Span::HOUR));
    let headers = map.take("headers").map(|node| headers(&node)).unwrap_or_default();
    let auth = auth(map, base);
    let tls = map.take("tls_config").map(|node| tls(&node, base)).unwrap_or_default();
    if let Some(node) = map.take("follow_redirects")
        && node.bool() == Some(true)
    {
        node.error("redirects are never followed: credentials would go to another host; remove it");
    }
    if let Some(node) = map.take("enable_http2") {
        node.bool();
        node.note("accepted, and has no effect: requests are sent by HTTP/1.1");
    }
    for name in ["proxy_url", "proxy_from_environment", "proxy_connect_header", "no_proxy", "http_headers"] {
        map.refuse(name, NOT_YET);
    }
    let (node, default_name) = url?;
    Some(HttpConfig {
        url: node.text()?.to_string(),
        name: name.unwrap_or(default_name),
        timeout: span.unwrap_or(timeout),
        headers,
        auth,
        tls,
    })
}

/// Gives the URL without its query: what may be shown.
fn check_url(text: &str) -> Result<String, String> {
    // The text itself is not repeated: it may hold a password.
    let wrong = |why: &str| format!("expected a URL such as \"http://localhost:9090/api/v1/write\": {why}");
    let uri: Uri = text.parse().map_err(|error| wrong(&format!("{error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it must start with http:// or https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("there is no host"))?;
    if authority.as_str().contains('@') {
        return Err("user and password have no place in a URL; write them under basic_auth".into());
    }
    if authority.host().is_empty() {
        return Err(wrong("there is no host"));
    }
    Ok(without_query(text).to_string())
}

/// Headers that requests set themselves (as in Prometheus).
const RESERVED_HEADERS: [&str; 14] = [
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "transfer-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
];

fn headers(node: &Node<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, name, value) in node.pairs().unwrap_or_default() {
        let lower = name.to_lowercase();
        if lower == "authorization" {
            key.error("write it as basic_auth, authorization or oauth2");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            key.error("this header is set by oddity itself; remove it");
        } else if HeaderName::from_bytes(name.as_bytes()).is_err() {
            key.error("expected a header name, such as X-Scope-OrgID");
        } else if let Some(value) = value.parse(|text| match HeaderValue::from_str(text) {
            Ok(_) => Ok(text.to_string()),
            Err(_) => Err("a header's value holds only visible characters and spaces"),
        }) {
            all.push((name, value));
        }
    }
    all
}

fn auth(map: &mut Map<'_>, base: &Path) -> Auth {
    let nodes = ["basic_auth", "authorization", "oauth2"].map(|name| map.take(name));
    for (name, why) in [
        ("sigv4", "not supported yet; remove it"),
        ("azuread", "not supported yet; use oauth2 with client_id and client_secret, or remove it"),
        ("google_iam", "not supported yet; remove it"),
        ("bearer_token", "not supported; write authorization: {credentials: …} instead"),
        ("bearer_token_file", "not supported; write authorization: {credentials_file: …} instead"),
    ] {
        map.refuse(name, why);
    }
    let [basic, header, oauth2] = &nodes;
    if let Some(second) = nodes.iter().flatten().nth(1) {
        second.error("at most one of basic_auth, authorization and oauth2 may be given");
    }
    let auth = basic
        .as_ref()
        .map(|node| basic_auth(node, base))
        .or_else(|| header.as_ref().map(|node| authorization(node, base)))
        .or_else(|| oauth2.as_ref().map(|node| client_credentials(node, base)));
    // `Some(None)`: given and wrong, which is reported.
    auth.flatten().unwrap_or_default()
}

fn basic_auth(node: &Node<'_>, base: &Path) -> Option<Auth> {
    let mut map = node.map()?;
    let username = map.require("username", "the name to log in with").and_then(|node| node.string());
    map.refuse("username_file", "not supported yet; write username");
    map.refuse("username_ref", "not supported; write username");
    map.refuse("password_ref", "not supported; write password or password_file");
    let password = secret(&mut map, "password", "password_file", base);
    map.finish();
    Some(Auth::Basic { username: username?, password })
}

fn authorization(node: &Node<'_>, base: &Path) -> Option<Auth> {
    let mut map = node.map()?;
    let scheme = map.take("type").and_then(|node| {
        node.parse(|text| {
            let token = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            match text.trim() {
                scheme if scheme.eq_ignore_ascii_case("basic") => {
                    Err("write basic_auth instead of type Basic")
                }
                scheme if token => Ok(scheme.to_string()),
                _ => Err("expected one word, such as Bearer"),
            }
        })
    });
    map.refuse("credentials_ref", "not supported; write credentials or credentials_file");
    let credentials = secret(&mut map, "credentials", "credentials_file", base);
    if credentials.is_none() {
        map.node.error("`credentials` or `credentials_file` is missing");
    }
    map.finish();
    Some(Auth::Header { scheme: scheme.unwrap_or_else(|| "Bearer".into()), credentials: credentials? })
}

fn client_credentials(node: &Node<'_>, base: &Path) -> Option<Auth> {
    let mut map = node.map()?;
    let client_id = map.require("client_id", "the client's name").and_then(|node| node.string());
    let client_secret = secret(&mut map, "client_secret", "client_secret_file", base);
    if client_secret.is_none() {
        map.node.error("`client_secret` or `client_secret_file` is missing");
    }
    let token_url = map.require("token_url", "where tokens come from").and_then(|node| {
        node.parse(check_url)?;
        node.string()
    });
    let scopes = map.take("scopes").and_then(|node| node.strings()).unwrap_or_default();
    let mut endpoint_params = Vec::new();
    for (_, name, value) in map.take("endpoint_params").and_then(|node| node.pairs()).unwrap_or_default() {
        endpoint_params.extend(value.text().map(|value| (name, value.to_string())));
    }
    for name in ["tls_config", "proxy_url", "proxy_from_environment", "proxy_connect_header", "no_proxy"] {
        map.refuse(name, NOT_YET);
    }
    map.refuse("client_secret_ref", "not supported; write client_secret or client_secret_file");
    map.finish();
    let (client_id, client_secret, token_url) = (client_id?, client_secret?, token_url?);
    Some(Auth::OAuth2 { client_id, client_secret, token_url, scopes, endpoint_params })
}

/// A secret in the file or in a file of its own, not both.
fn secret(map: &mut Map<'_>, inline: &'static str, file: &'static str, base: &Path) -> Option<Secret> {
    let (given, named) = (map.take(inline), map.take(file));
    if let (Some(_), Some(node)) = (&given, &named) {
        node.error(format!("at most one of {inline} and {file} may be given"));
    }
    match (given, named) {
        (Some(node), _) => node.text().map(|text| Secret::Inline(text.to_string())),
        (None, Some(node)) => node.string().map(|path| Secret::File(base.join(path))),
        (None, None) => None,
    }
}

fn tls(node: &Node<'_>, base: &Path) -> TlsConfig {
    let mut tls = TlsConfig::default();
    let Some(mut map) = node.map() else { return tls };
    for (name, to) in
        [("ca_file", &mut tls.ca_file), ("cert_file", &mut tls.cert_file), ("key_file", &mut tls.key_file)]
    {
        *to = map.take(name).and_then(|node| node.string()).map(|path| base.join(path));
    }
    tls.server_name = map.take("server_name").and_then(|node| node.string());
    tls.insecure_skip_verify =
        map.take("insecure_skip_verify").and_then(|node| node.bool()).unwrap_or_default();
    for (name, why) in [
        ("ca", "not supported yet; write ca_file"),
        ("cert", "not supported yet; write cert_file"),
        ("key", "not supported yet; write key_file"),
        ("min_version", "not supported yet: TLS 1.2 and 1.3 are used; remove it"),
        ("max_version", "not supported yet: TLS 1.2 and 1.3 are used; remove it"),
    ] {
        map.refuse(name, why);
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        map.node.error("cert_file and key_file belong together; give both or neither");
    }
    map.finish();
    tls
}
