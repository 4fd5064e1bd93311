//! Writing numbers through prometheus-client without a metric object for each.

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// Writes metrics one after the other. Names of counters come without `_total`.
pub struct Writer<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl<'a, 'b> Writer<'a, 'b> {
    pub fn new(encoder: &'a mut DescriptorEncoder<'b>) -> Self {
        Writer { encoder }
    }

    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    pub fn counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(value, n)| (vec![(label, value.as_ref().to_string())], n));
        self.labelled_counters(name, help, values)
    }

    pub fn labelled_counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'l str, String)>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    pub fn gauges<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, number) in values {
            metric.encode_family(&[(label, value.as_ref())])?.encode_gauge(&number)?;
        }
        Ok(())
    }

    /// `buckets` are counts between the bounds, not cumulated; the last has no bound.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        sum: f64,
        bounds: &[f64],
        buckets: &[u64],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, buckets.iter().sum(), &pairs(bounds, buckets), None)
    }

    /// One histogram for each value of a label: value, sum and buckets as above.
    pub fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        bounds: &[f64],
        values: impl IntoIterator<Item = (&'l str, f64, &'l [u64])>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (value, sum, buckets) in values {
            metric.encode_family(&[(label, value)])?.encode_histogram::<NoLabelSet>(
                sum,
                buckets.iter().sum(),
                &pairs(bounds, buckets),
                None,
            )?;
        }
        Ok(())
    }
}

/// Bounds and counts with the last, endless bucket.
fn pairs(bounds: &[f64], buckets: &[u64]) -> Vec<(f64, u64)> {
    bounds.iter().copied().chain([f64::INFINITY]).zip(buckets.iter().copied()).collect()
}
