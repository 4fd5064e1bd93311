//! Reading results back by the Prometheus API (Prometheus, VictoriaMetrics).
//!
//! Values come as decimal strings that are the shortest ones for their bits, so parsing them gives
//! the stored bits. VictoriaMetrics itself keeps decimals: its values are close, not bit-equal.

use super::http;
use serde_json::Value;
use std::collections::BTreeMap;

/// A series' labels by name.
pub type Labels = BTreeMap<String, String>;

/// All samples of a series: time in milliseconds and value.
pub type Samples = Vec<(i64, f64)>;

/// A store's query API.
#[derive(Clone, Debug)]
pub struct Store {
    /// `http://host:port`
    pub base: String,
}

/// A JSON object of strings as labels.
pub fn labels(json: &Value) -> Labels {
    let pairs = json.as_object().expect("an object of labels");
    pairs.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect()
}

/// Labels as text: the same text for the same set.
pub fn text(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    pairs.join(",")
}

fn sample(json: &Value) -> (i64, f64) {
    let at = json[0].as_f64().expect("a time");
    let value = json[1].as_str().expect("a value").parse().expect("a number");
    ((at * 1e3).round() as i64, value)
}

impl Store {
    /// The store on a loopback port.
    pub fn new(port: u16) -> Store {
        Store { base: format!("http://127.0.0.1:{port}") }
    }

    /// Where it takes remote write.
    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.base)
    }

    fn query(&self, query: &str) -> Result<Value, String> {
        let url = format!("{}/api/v1/query?query={}", self.base, http::encode(query));
        let answer = http::get(&url).map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("{query}: {} {}", answer.status, answer.text()));
        }
        let mut json: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        Ok(json["data"]["result"].take())
    }

    /// An instant query's vector.
    pub fn try_instant(&self, query: &str) -> Result<Vec<(Labels, f64)>, String> {
        let result = self.query(query)?;
        let list = result.as_array().ok_or("not a vector")?;
        Ok(list.iter().map(|one| (labels(&one["metric"]), sample(&one["value"]).1)).collect())
    }

    /// As [`Store::try_instant`], panics when the store refuses.
    #[track_caller]
    pub fn instant(&self, query: &str) -> Vec<(Labels, f64)> {
        self.try_instant(query).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A one-element vector's value; `None` when it is empty.
    #[track_caller]
    pub fn scalar(&self, query: &str) -> Option<f64> {
        let vector = self.instant(query);
        assert!(vector.len() < 2, "{query} gives {} series", vector.len());
        vector.first().map(|(_, value)| *value)
    }

    /// Every stored sample of a range selector such as `up[5m]`.
    #[track_caller]
    pub fn samples(&self, range: &str) -> Vec<(Labels, Samples)> {
        let result = self.query(range).unwrap_or_else(|why| panic!("{why}"));
        let list = result.as_array().expect("a matrix");
        let all = |one: &Value| one["values"].as_array().expect("values").iter().map(sample).collect();
        list.iter().map(|one| (labels(&one["metric"]), all(one))).collect()
    }
}
