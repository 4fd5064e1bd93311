//! The sections but for those of the rules and targets.

use super::doors::doors;
use super::http::http;
use super::remote_write::targets;
use super::{Config, Fsync, OnDiskFull, ReceiveLimits, RemoteReadConfig, ServerConfig, StateConfig};
use crate::config::Problems;
use crate::rules::schema;
use crate::rules::yaml::{self, Map, Node};
use crate::time::Span;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

pub(super) fn config(file: &str, text: &str) -> Result<Config, Problems> {
    let base = Path::new(file).parent().unwrap_or(Path::new(""));
    let (config, notes) = yaml::read(file, text, |root| {
        let server = root.take("server").map_or_else(ServerConfig::default, |node| server(&node, base));
        let receive = root.take("limits").map_or_else(ReceiveLimits::default, receive);
        let state = root.take("state").map_or_else(StateConfig::default, |node| state(&node, base));
        let remote_write = targets(root, base);
        let remote_read = sources(root, base);
        let rules = Arc::new(schema::read(root)?);
        Some(Config { server, rules, remote_write, remote_read, state, receive, notes: Vec::new() })
    })?;
    Ok(Config { notes, ..config })
}

fn server(node: &Node<'_>, base: &Path) -> ServerConfig {
    let mut server = ServerConfig::default();
    let Some(mut map) = node.map() else { return server };
    if let Some(listen) = map.take("listen").and_then(|node| node.parse(address)) {
        server.listen = listen;
    }
    if let Some(yes) = map.take("anomalies_endpoint").and_then(|node| node.bool()) {
        server.anomalies_endpoint = yes;
    }
    server.doors = doors(&mut map, base);
    map.refuse("limits", "write it at the top level of the file, as `limits`");
    map.finish();
    server
}

/// `127.0.0.1:9898`, `[::1]:9898`, `localhost:9898`, or `:9898` for every interface.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("expected an address and port such as 127.0.0.1:9898 or :9898, found {text:?}");
    let port = |port: &str| port.parse::<u16>().map_err(|_| wrong());
    if let Some(rest) = text.strip_prefix("localhost:") {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(rest)?));
    }
    if let Some(rest) = text.strip_prefix(':') {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port(rest)?));
    }
    text.parse().map_err(|_| wrong())
}

fn receive(node: Node<'_>) -> ReceiveLimits {
    let mut limits = ReceiveLimits::default();
    // The rules read the other limits, and complain of unknown ones.
    let Some(mut map) = node.map() else { return limits };
    let range = 1 << 10..=1 << 40;
    if let Some(bytes) = map.take("max_body_bytes").and_then(|node| node.size(1 << 10..=1 << 30)) {
        limits.max_body_bytes = bytes;
    }
    if let Some(bytes) = map.take("max_in_flight_bytes").and_then(|node| node.size(range)) {
        limits.max_in_flight_bytes = bytes;
    }
    if let Some(most) = map.take("max_connections").and_then(|node| node.size(8..=1_000_000)) {
        limits.max_connections = most;
    }
    let age = map.take("max_queue_age").and_then(|node| node.duration(Span(100)..=Span::MINUTE));
    limits.max_queue_age = age.unwrap_or(limits.max_queue_age);
    if limits.max_in_flight_bytes < limits.max_body_bytes {
        map.node.error(format!(
            "max_in_flight_bytes ({}) is less than max_body_bytes ({}): the largest body would never fit",
            limits.max_in_flight_bytes, limits.max_body_bytes
        ));
    }
    limits
}

fn state(node: &Node<'_>, base: &Path) -> StateConfig {
    let mut state = StateConfig::default();
    let Some(mut map) = node.map() else { return state };
    // Read with the rules: it shapes scores.
    map.take("forget_after");
    if let Some(node) = map.take("dir") {
        state.dir = node.string().map(|dir| base.join(dir));
    }
    if let Some(node) = map.take("fsync") {
        let fsync = node.parse(|text| match text {
            "always" => Ok(Fsync::Always),
            "never" => Ok(Fsync::Never),
            _ => match Span::parse(text) {
                Ok(span) if (Span(1)..=Span::HOUR).contains(&span) => Ok(Fsync::Every(span)),
                _ => Err(format!(
                    "expected always, never or a duration of at most 1h such as 1s, found {text:?}"
                )),
            },
        });
        state.fsync = fsync.unwrap_or(state.fsync);
    }
    if let Some(node) = map.take("on_disk_full") {
        let choice = node.choice(&[("degrade", OnDiskFull::Degrade), ("refuse", OnDiskFull::Refuse)]);
        state.on_disk_full = choice.unwrap_or_default();
    }
    if let Some(span) =
        map.take("checkpoint_every").and_then(|node| node.duration(Span::SECOND..=Span::days(1)))
    {
        state.checkpoint_every = span;
    }
    if state.dir.is_none() {
        map.node.note("without `dir` state is kept in memory only: a restart forgets all that was learnt");
    }
    map.finish();
    state
}

fn sources(root: &mut Map<'_>, base: &Path) -> Vec<RemoteReadConfig> {
    let Some(node) = root.take("remote_read") else { return Vec::new() };
    let mut sources = Vec::new();
    for item in node.list().unwrap_or_default() {
        let Some(mut map) = item.map() else { continue };
        let http = http(&mut map, base, Span::MINUTE);
        let mut required_matchers = Vec::new();
        for (_, name, value) in
            map.take("required_matchers").and_then(|node| node.pairs()).unwrap_or_default()
        {
            required_matchers.extend(value.string().map(|value| (name, value)));
        }
        for name in ["read_recent", "filter_external_labels"] {
            if let Some(node) = map.take(name) {
                node.bool();
                node.note("accepted, and has no effect: gaps are recent, and series keep all labels");
            }
        }
        map.finish();
        sources.extend(http.map(|http| RemoteReadConfig { http, required_matchers }));
    }
    sources
}
