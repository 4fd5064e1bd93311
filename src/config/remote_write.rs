//! `remote_write`, with Prometheus's names.

use super::http::http;
use super::relabel::relabel;
use crate::emit::config::{Protocol, QueueConfig, RemoteWriteConfig};
use crate::rules::yaml::{Map, Node};
use crate::time::Span;
use std::path::Path;

pub(super) fn targets(root: &mut Map<'_>, base: &Path) -> Vec<RemoteWriteConfig> {
    let node = root.take("remote_write");
    let items = node.as_ref().and_then(|node| node.list()).unwrap_or_default();
    if items.is_empty() {
        let place = node.as_ref().unwrap_or(&root.node);
        place.note("no `remote_write` target: scores are shown by the API and written nowhere");
    }
    let mut targets: Vec<RemoteWriteConfig> = Vec::new();
    for item in items {
        let Some(target) = item.map().and_then(|map| target(map, base)) else { continue };
        if targets.iter().any(|other| other.http.name == target.http.name) {
            item.error(format!(
                "there is already a target named {:?}; give each its own `name`",
                target.http.name
            ));
        }
        targets.push(target);
    }
    targets
}

fn target(mut map: Map<'_>, base: &Path) -> Option<RemoteWriteConfig> {
    let http = http(&mut map, base, Span::seconds(30));
    let steps = map.take("write_relabel_configs").map(|node| relabel(&node)).unwrap_or_default();
    let queue = map.take("queue_config").map_or_else(QueueConfig::default, queue);
    let protocol = map.take("protobuf_message").and_then(|node| {
        node.choice(&[
            ("auto", Protocol::Auto),
            ("prometheus.WriteRequest", Protocol::V1),
            ("io.prometheus.write.v2.Request", Protocol::V2),
        ])
    });
    for (name, why) in [
        ("send_exemplars", "scores have no exemplars"),
        ("send_native_histograms", "scores are no histograms"),
    ] {
        if let Some(node) = map.take(name)
            && node.bool() == Some(true)
        {
            node.note(format!("accepted, and has no effect: {why}"));
        }
    }
    if let Some(node) = map.take("metadata_config") {
        metadata(&node);
    }
    map.refuse("round_robin_dns", "not supported yet; remove it");
    map.finish();
    Some(RemoteWriteConfig {
        http: http?,
        write_relabel_configs: steps,
        queue,
        protocol: protocol.unwrap_or_default(),
    })
}

fn metadata(node: &Node<'_>) {
    let Some(mut map) = node.map() else { return };
    map.take("send").map(|node| node.bool());
    map.take("send_interval").map(|node| node.duration(Span::SECOND..=Span::days(1)));
    map.take("max_samples_per_send").map(|node| node.whole(1..=1_000_000));
    map.finish();
    node.note(
        "accepted, and has no effect: metadata goes with the scores where the protocol has room for it",
    );
}

fn queue(node: Node<'_>) -> QueueConfig {
    let mut queue = QueueConfig::default();
    let Some(mut map) = node.map() else { return queue };
    for (name, to, range) in [
        ("capacity", &mut queue.capacity, 1..=1_000_000_000),
        ("max_memory_bytes", &mut queue.max_memory_bytes, 1 << 20..=1 << 40),
        ("max_disk_bytes", &mut queue.max_disk_bytes, 1 << 20..=1 << 44),
        ("max_shards", &mut queue.max_shards, 1..=256),
        ("max_samples_per_send", &mut queue.max_samples_per_send, 1..=1_000_000),
    ] {
        if let Some(size) = map.take(name).and_then(|node| node.size(range)) {
            *to = size;
        }
    }
    for (name, to, range) in [
        ("batch_send_deadline", &mut queue.batch_send_deadline, Span(1)..=Span::HOUR),
        ("min_backoff", &mut queue.min_backoff, Span(1)..=Span::HOUR),
        ("max_backoff", &mut queue.max_backoff, Span(1)..=Span::days(1)),
    ] {
        if let Some(span) = map.take(name).and_then(|node| node.duration(range)) {
            *to = span;
        }
    }
    if let Some(node) = map.take("sample_age_limit")
        && let Some(span) = node.duration(Span(0)..=Span::days(365))
    {
        // Prometheus: 0 keeps samples for ever.
        queue.sample_age_limit = if span == Span(0) { Span::days(36_500) } else { span };
    }
    if let Some(node) = map.take("min_shards") {
        node.whole(1..=1_000_000);
        node.note("accepted, and has no effect: the number of senders is always max_shards");
    }
    if let Some(node) = map.take("retry_on_http_429")
        && node.bool() == Some(false)
    {
        node.note("accepted, and has no effect: requests answered with 429 are always sent again");
    }
    if queue.capacity < queue.max_samples_per_send {
        map.node.error(format!(
            "capacity ({}) is less than max_samples_per_send ({}); it counts all samples of the queue",
            queue.capacity, queue.max_samples_per_send
        ));
    }
    if queue.min_backoff > queue.max_backoff {
        map.node.error(format!(
            "min_backoff ({}) is longer than max_backoff ({})",
            queue.min_backoff, queue.max_backoff
        ));
    }
    map.finish();
    queue
}
