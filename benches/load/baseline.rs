//! What a plain receiver would do with the same bodies, in one thread: prost's decoder, and a hash map from
//! the text of a label set to a number.

use anyhow::{Context, bail};
use oddity::simulate::Fleet;
use oddity::wire::Version;
use oddity::wire::proto::{v1, v2};
use prost::Message;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Series in a body.
pub const BODY: usize = 2_000;
/// Bodies that are gone through, again and again.
const BODIES: usize = 100;
/// How long each is measured at least.
const LEAST: Duration = Duration::from_millis(700);

/// Nanoseconds a sample.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Decoding by prost.
    pub prost: f64,
    /// Writing a series' labels into a string, and looking that up.
    pub map: f64,
}

impl Baseline {
    /// Both, microseconds.
    pub fn micros(self) -> f64 {
        (self.prost + self.map) / 1e3
    }
}

/// A hash map that knows all series of a fleet at a step, and those that end there.
pub fn map(fleet: &Fleet, step: i64) -> HashMap<String, u32> {
    let mut map = HashMap::with_capacity(fleet.series());
    for series in 0..fleet.series() {
        for step in [step, step - 1] {
            let mut text = String::new();
            for (name, value) in fleet.labels(series, step) {
                push(&mut text, &name, &value);
            }
            map.insert(text, series as u32);
        }
    }
    map
}

/// Measures one protocol.
pub fn measure(
    fleet: &Fleet,
    version: Version,
    step: i64,
    map: &HashMap<String, u32>,
) -> anyhow::Result<Baseline> {
    let order = shuffled(fleet.series());
    let bodies: Vec<Vec<u8>> =
        order.chunks(BODY).take(BODIES).map(|series| fleet.body(version, series, step).bytes).collect();
    match version {
        Version::V1 => {
            let decode = |body: &Vec<u8>| v1::WriteRequest::decode(body.as_slice());
            let requests = bodies.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            let prost = repeated(&bodies, |body| Ok(decode(body)?.timeseries.len()))?;
            let map = repeated(&requests, |request: &v1::WriteRequest| {
                let mut key = String::new();
                for series in &request.timeseries {
                    key.clear();
                    series.labels.iter().for_each(|label| push(&mut key, &label.name, &label.value));
                    find(map, &key)?;
                }
                Ok(request.timeseries.len())
            })?;
            Ok(Baseline { prost, map })
        }
        Version::V2 => {
            let decode = |body: &Vec<u8>| v2::Request::decode(body.as_slice());
            let requests = bodies.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            let prost = repeated(&bodies, |body| Ok(decode(body)?.timeseries.len()))?;
            let map = repeated(&requests, |request: &v2::Request| {
                let symbol = |at: u32| request.symbols.get(at as usize).context("a symbol that is not there");
                let mut key = String::new();
                for series in &request.timeseries {
                    key.clear();
                    for pair in series.labels_refs.chunks_exact(2) {
                        push(&mut key, symbol(pair[0])?, symbol(pair[1])?);
                    }
                    find(map, &key)?;
                }
                Ok(request.timeseries.len())
            })?;
            Ok(Baseline { prost, map })
        }
    }
}

fn push(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push('=');
    text.push_str(value);
    text.push(',');
}

fn find(map: &HashMap<String, u32>, key: &String) -> anyhow::Result<()> {
    match map.get(key) {
        Some(number) => {
            black_box(number);
            Ok(())
        }
        None => bail!("the baseline does not know {key}"),
    }
}

/// Nanoseconds for each of what `work` says it did, over all items, for long enough.
fn repeated<T>(items: &[T], mut work: impl FnMut(&T) -> anyhow::Result<usize>) -> anyhow::Result<f64> {
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < LEAST {
        for item in items {
            done += black_box(work(item)?);
        }
    }
    Ok(started.elapsed().as_nanos() as f64 / done.max(1) as f64)
}

/// All series in a random order, the same each time.
fn shuffled(count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for at in (1..count).rev() {
        // Knuth's constants; the high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
    order
}
