//! History of a query: raw samples of a plain selector, else a query evaluated on a grid.
//!
//! Raw samples come by instant queries of `selector[page]`, page by page: they have the timestamps and
//! values that were stored, so replaying them scores what a sidecar scored. A grid (`query_range`) is
//! cut into requests of at most [`MAX_POINTS`] points a series. Pages that are too much for the server
//! are halved.

use super::{Client, ClientError, History, HistoryError, kind};
use crate::labels::NAME;
use crate::rules::selector;
use crate::time::{Millis, Span};
use crate::wire::Sample;
use serde::Deserialize;
use serde::de::{IgnoredAny, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Points of a series in one answer that Prometheus allows.
pub const MAX_POINTS: i64 = 11_000;
/// First page of raw samples; it grows while answers are small.
const PAGE: Span = Span::HOUR;
const LARGEST_PAGE: Span = Span::DAY;
const SMALL_ANSWER: usize = 200_000;
/// Pages are not halved below this.
const SMALLEST_PAGE: Span = Span::MINUTE;
/// A page is asked for so many times when the connection breaks.
const ATTEMPTS: u32 = 4;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// PromQL.
    pub promql: String,
    /// First time.
    pub start: Millis,
    /// Last time.
    pub end: Millis,
    /// Grid; `None`: raw samples of a plain selector, a minute for other queries.
    pub step: Option<Span>,
    /// Name of results that have none.
    pub name: String,
}

impl Query {
    /// Whether raw samples are fetched.
    pub fn is_raw(&self) -> bool {
        self.step.is_none() && selector::parse(&self.promql).is_ok()
    }
}

/// How far a fetch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Milliseconds of the time asked for.
    pub done: i64,
    /// The same in all.
    pub of: i64,
    /// Samples so far.
    pub samples: usize,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, Number)>,
    #[serde(default)]
    histograms: Vec<IgnoredAny>,
}

/// A number in a string, as the API writes values.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number in a string")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::custom(format!("{text:?} is not a number")))
            }
        }
        from.deserialize_str(Text)
    }
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "type")]
    kind: String,
}

/// Fetches the history of a query; `progress` is told after each page.
///
/// # Errors
/// The server's, with its words; results that cannot be series; an empty time range.
pub async fn fetch(
    client: &Client,
    query: &Query,
    progress: &mut dyn FnMut(Fetched),
) -> Result<History, HistoryError> {
    if query.end < query.start {
        return Err(HistoryError::Range("the end lies before the start".into()));
    }
    let step = query.step.unwrap_or(Span::MINUTE).0;
    if step <= 0 {
        return Err(HistoryError::Range("the step must be longer than nothing".into()));
    }
    let raw = query.is_raw();
    let mut history = History::default();
    let of = query.end.since(query.start).saturating_add(1);
    // Everything before `from` is there.
    let mut from = query.start;
    let mut page = if raw { PAGE.0 } else { step.saturating_mul(MAX_POINTS) };
    let mut grows = raw;
    let smallest = if raw { SMALLEST_PAGE.0 } else { step };
    while from <= query.end {
        // The page is [from, to], both ends included.
        let to = Millis(from.plus(page - 1).0.min(query.end.0));
        let answer = match asked(client, query, raw, step, (from, to), from > query.start).await {
            Err(error) if error.too_much() && page / 2 >= smallest => {
                page = page / 2 / smallest * smallest;
                grows = false;
                continue;
            }
            answer => answer?,
        };
        let before = history.samples();
        take(&mut history, answer, query, (from, to))?;
        let samples = history.samples();
        if grows && samples - before < SMALL_ANSWER {
            page = (page * 2).min(LARGEST_PAGE.0);
        }
        from = to.plus(1);
        if !raw {
            // The next point of the grid.
            let points = (from.since(query.start) + step - 1) / step;
            from = query.start.plus(points.saturating_mul(step));
        }
        progress(Fetched { done: from.since(query.start).min(of), of, samples });
    }
    history.finish();
    types(client, &mut history).await?;
    Ok(history)
}

/// Asks for one page; a broken connection is tried again once something has come.
async fn asked(
    client: &Client,
    query: &Query,
    raw: bool,
    step: i64,
    (from, to): (Millis, Millis),
    begun: bool,
) -> Result<Data, ClientError> {
    let (start, end) = (seconds(from), seconds(to));
    let text = if raw {
        // A line break ends a comment. One more millisecond, for newer servers leave the first one out.
        format!("{}\n[{}ms]", query.promql, to.since(from) + 1)
    } else {
        query.promql.clone()
    };
    let mut attempt = 1;
    loop {
        let answer = if raw {
            client.ask("/api/v1/query", &[("query", text.as_str()), ("time", end.as_str())]).await
        } else {
            let step = format!("{}.{:03}", step / 1000, step % 1000);
            let form = [("query", text.as_str()), ("start", &start), ("end", &end), ("step", step.as_str())];
            client.ask("/api/v1/query_range", &form).await
        };
        match answer {
            Err(ClientError::Send(_)) if begun && attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

fn seconds(at: Millis) -> String {
    let sign = if at.0 < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", at.0.unsigned_abs() / 1000, at.0.unsigned_abs() % 1000)
}

fn take(
    history: &mut History,
    data: Data,
    query: &Query,
    (from, to): (Millis, Millis),
) -> Result<(), HistoryError> {
    if data.kind != "matrix" {
        let what = format!("a {} where a matrix was asked for", data.kind);
        return Err(ClientError::Answer(what).into());
    }
    for row in data.result {
        history.histograms += row.histograms.len() as u64;
        if row.values.is_empty() {
            continue;
        }
        let mut labels: Vec<(&str, &str)> =
            row.metric.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !row.metric.contains_key(NAME) {
            labels.push((NAME, &query.name));
        }
        let place = history.place(&mut labels).map_err(HistoryError::Series)?;
        for (at, Number(value)) in row.values {
            let timestamp = (at * 1e3).round() as i64;
            if (from.0..=to.0).contains(&timestamp) {
                history.push(place, Sample { timestamp, value });
            }
        }
    }
    Ok(())
}

/// Types of the metrics found, where the server knows them: what `as: auto` starts from.
async fn types(client: &Client, history: &mut History) -> Result<(), HistoryError> {
    let known = client.ask::<BTreeMap<String, Vec<Metadata>>>("/api/v1/metadata", &[]).await;
    let known = match known {
        Ok(known) => known,
        // Servers that only store need not know types; names tell, as they do for the sidecar.
        Err(ClientError::Status { .. } | ClientError::Answer(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let names: BTreeSet<&str> = history
        .series
        .iter()
        .filter_map(|series| series.pairs().find(|(name, _)| *name == NAME).map(|(_, value)| value))
        .collect();
    const SUFFIXES: [&str; 5] = ["_total", "_sum", "_count", "_bucket", "_info"];
    let mut families: BTreeSet<&str> = names.clone();
    families.extend(names.iter().flat_map(|name| SUFFIXES.iter().filter_map(|s| name.strip_suffix(s))));
    for (family, said) in &known {
        // Where targets contradict each other nothing is known.
        let one = said.first().filter(|first| said.iter().all(|other| other.kind == first.kind));
        if let Some(one) = one.filter(|_| families.contains(family.as_str())) {
            history.kinds.push((family.clone(), kind(&one.kind)));
        }
    }
    Ok(())
}
