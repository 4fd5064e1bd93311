//! `ignore`: maintenance windows.

use crate::labels::Selector;
use crate::rules::cron::Cron;
use crate::rules::selector;
use crate::rules::window::{When, Window};
use crate::rules::yaml::{Map, Node};
use crate::time::{Millis, Span, calendar};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// Windows in a list; each sample asks all of them when one opens or closes.
const MOST: usize = 1_000;
const COMMENT_BYTES: usize = 1024;

/// Reads a list of windows; those that are wrong are reported and left out.
pub(super) fn windows(map: &mut Map<'_>) -> Vec<Arc<Window>> {
    let Some(node) = map.take("ignore") else { return Vec::new() };
    let items = node.list().unwrap_or_default();
    if items.len() > MOST {
        node.error(format!("at most {MOST} windows, found {}", items.len()));
    }
    items.iter().filter_map(window).map(Arc::new).collect()
}

fn window(item: &Node<'_>) -> Option<Window> {
    let mut map = item.map()?;
    let when = when(&mut map);
    let selectors = map.take("match").map_or(Some(Vec::new()), |node| selectors(&node));
    let comment = map.take("comment").and_then(|node| {
        let text = node.string()?;
        if text.len() > COMMENT_BYTES {
            node.error(format!("a comment is at most {COMMENT_BYTES} bytes long"));
        }
        Some(text)
    });
    map.finish();
    Some(Window { when: when?, selectors: selectors?, comment })
}

fn when(map: &mut Map<'_>) -> Option<When> {
    let (cron, from, to) = (map.take("cron"), map.take("from"), map.take("to"));
    let (duration, timezone) = (map.take("duration"), map.take("timezone"));
    if let Some(node) = cron {
        for (node, name) in [(&from, "from"), (&to, "to")] {
            if let Some(node) = node {
                node.error(format!(
                    "a window has either `cron` or `from` and `to`; remove `{name}` or `cron`"
                ));
            }
        }
        let cron = node.parse(Cron::parse);
        if duration.is_none() {
            map.node.error("`duration` is missing: how long the window is open, such as 2h");
        }
        let duration = duration.and_then(|node| node.duration(Span::MINUTE..=Window::LONGEST));
        let zone = timezone.map_or(Some(TimeZone::UTC), |node| node.parse(calendar));
        return Some(When::Cron { cron: cron?, duration: duration?, zone: zone? });
    }
    for (node, what) in [
        (&duration, "`duration` goes with `cron`; write `to`"),
        (&timezone, "`timezone` goes with `cron`; `from` and `to` carry their own offset"),
    ] {
        if let Some(node) = node {
            node.error(what);
        }
    }
    let (Some(from), Some(to)) = (&from, &to) else {
        map.node.error(match (&from, &to) {
            (None, None) => "expected `from` and `to`, or `cron` and `duration`",
            (None, _) => "`from` is missing: when the window opens, such as 2026-01-01T00:00:00Z",
            _ => "`to` is missing: when the window closes, such as 2026-01-01T02:00:00Z",
        });
        for node in [from, to].into_iter().flatten() {
            instant(&node);
        }
        return None;
    };
    let (opens, closes) = (instant(from), instant(to));
    let (opens, closes) = (opens?, closes?);
    if closes <= opens {
        to.error("the window closes before it opens; `to` must lie after `from`");
    }
    Some(When::Once(opens, closes))
}

fn instant(node: &Node<'_>) -> Option<Millis> {
    node.parse(|text| {
        let instant = text.parse::<Timestamp>().map_err(|_| {
            format!(
                "expected a time with its offset (RFC 3339), such as 2026-01-01T00:00:00Z, found {text:?}"
            )
        })?;
        Ok::<_, String>(Millis(instant.as_millisecond()))
    })
}

/// One selector or a list of them.
fn selectors(node: &Node<'_>) -> Option<Vec<Selector>> {
    let items = node.one_or_many()?;
    if items.is_empty() {
        node.error("expected at least one selector; to concern every series remove the field");
    }
    // All are parsed, so that all are reported.
    let each: Vec<_> = items.iter().map(|item| item.parse(selector::parse)).collect();
    Some(each.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

impl std::fmt::Display for When {
    /// As people read it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::Once(from, to) => {
                let text = |at: &Millis| {
                    Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
                };
                write!(f, "{} to {}", text(from), text(to))
            }
            When::Cron { cron, duration, zone } => {
                write!(f, "{cron} for {duration} ({})", zone.iana_name().unwrap_or("UTC"))
            }
        }
    }
}
