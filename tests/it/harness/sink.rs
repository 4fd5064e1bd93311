//! A remote-write receiver in the test: keeps every sample's bits, and notices a change of mind.

use super::http::{Reply, Server};
use super::store::{Labels, text};
use super::wire::{v1, v2};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Samples by series (labels as text) and time: the value's bits.
pub type Kept = BTreeMap<String, BTreeMap<i64, u64>>;

/// Puts a sample in; `Err` when the same moment already has other bits.
pub fn keep(kept: &mut Kept, labels: &str, at: i64, bits: u64) -> Result<(), String> {
    if !kept.contains_key(labels) {
        kept.insert(labels.to_string(), BTreeMap::new());
    }
    let series = kept.get_mut(labels).expect("just put there");
    match series.insert(at, bits) {
        Some(before) if before != bits => Err(format!("{labels} at {at}: {before:x}, then {bits:x}")),
        _ => Ok(()),
    }
}

/// How many samples there are.
pub fn count(kept: &Kept) -> usize {
    kept.values().map(BTreeMap::len).sum()
}

/// The first differences between two sets, for people; empty when they are equal.
pub fn differences(left: &Kept, right: &Kept) -> String {
    let mut found = Vec::new();
    for labels in left.keys().chain(right.keys()).collect::<std::collections::BTreeSet<_>>() {
        let empty = BTreeMap::new();
        let (a, b) = (left.get(labels).unwrap_or(&empty), right.get(labels).unwrap_or(&empty));
        if a == b {
            continue;
        }
        let value = |of: &BTreeMap<i64, u64>, at: &i64| of.get(at).map(|bits| f64::from_bits(*bits));
        let at = a.keys().chain(b.keys()).find(|at| a.get(at) != b.get(at)).expect("they differ");
        found.push(format!(
            "{labels}: {} and {} samples, first at {at}: {:?} and {:?}",
            a.len(),
            b.len(),
            value(a, at),
            value(b, at)
        ));
    }
    let total = found.len();
    found.truncate(10);
    if total > 10 {
        found.push(format!("and {} series more", total - 10));
    }
    found.join("\n")
}

#[derive(Default)]
struct Inner {
    kept: Kept,
    complaints: Vec<String>,
    requests: u64,
}

/// The receiver.
pub struct Sink {
    server: Server,
    inner: Arc<Mutex<Inner>>,
}

fn take(inner: &mut Inner, two: bool, body: &[u8]) -> Result<[usize; 3], String> {
    let body = snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())?;
    let mut written = 0;
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
    let mut series: Vec<(Labels, Vec<super::wire::Sample>)> = Vec::new();
    if two {
        let request = v2::Request::decode(body.as_slice()).map_err(|error| error.to_string())?;
        for one in request.timeseries {
            let mut labels = Labels::new();
            for pair in one.labels_refs.chunks(2) {
                let symbol = |at: usize| {
                    let index = *pair.get(at).ok_or("odd references")? as usize;
                    string(request.symbols.get(index).ok_or("a reference out of range")?)
                };
                labels.insert(symbol(0)?, symbol(1)?);
            }
            series.push((labels, one.samples));
        }
    } else {
        let request = v1::WriteRequest::decode(body.as_slice()).map_err(|error| error.to_string())?;
        for one in request.timeseries {
            let mut labels = Labels::new();
            for label in one.labels {
                labels.insert(string(&label.name)?, string(&label.value)?);
            }
            series.push((labels, one.samples));
        }
    }
    for (labels, samples) in series {
        let labels = text(&labels);
        for sample in samples {
            written += 1;
            keep(&mut inner.kept, &labels, sample.timestamp, sample.value.to_bits())?;
        }
    }
    Ok([written, 0, 0])
}

impl Sink {
    /// Starts one that takes both protocols.
    pub fn start() -> Sink {
        Sink::moody(|_| None)
    }

    /// Starts one that answers request number n with the status that `mood` gives, and takes it where it
    /// gives none.
    pub fn moody(mood: impl Fn(u64) -> Option<u16> + Send + Sync + 'static) -> Sink {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shared = inner.clone();
        let server = Server::start(move |request| {
            let two = request.header("content-type").is_some_and(|v| v.contains("write.v2.Request"));
            let mut inner = shared.lock().unwrap_or_else(PoisonError::into_inner);
            inner.requests += 1;
            if let Some(status) = mood(inner.requests) {
                return Reply { status, headers: Vec::new(), body: b"not in the mood".to_vec() };
            }
            match take(&mut inner, two, &request.body) {
                Ok([samples, histograms, exemplars]) => {
                    let headers = vec![
                        ("X-Prometheus-Remote-Write-Samples-Written", samples.to_string()),
                        ("X-Prometheus-Remote-Write-Histograms-Written", histograms.to_string()),
                        ("X-Prometheus-Remote-Write-Exemplars-Written", exemplars.to_string()),
                    ];
                    Reply { status: 204, headers: if two { headers } else { Vec::new() }, body: Vec::new() }
                }
                Err(why) => {
                    inner.complaints.push(why.clone());
                    Reply { status: 400, headers: Vec::new(), body: why.into_bytes() }
                }
            }
        });
        Sink { server, inner }
    }

    /// Where it takes remote write.
    pub fn url(&self) -> String {
        self.server.url("/api/v1/write")
    }

    /// How many distinct samples it has; panics when any was malformed or changed its value.
    pub fn count(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(inner.complaints.is_empty(), "{:?}", &inner.complaints[..inner.complaints.len().min(5)]);
        count(&inner.kept)
    }

    /// Takes what it has.
    pub fn into_kept(self) -> Kept {
        std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).kept)
    }
}
