//! What a pod is called and what it exposes.

use super::random::{hash, mix};
use crate::wire::MetricKind;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// Never changes.
    Constant,
    /// A level with a daily season and autocorrelated normal noise.
    Gauge {
        /// Amplitude of the daily season, as a fraction of the level.
        season: f64,
        /// Standard deviation of the noise, as a fraction of the level.
        noise: f64,
        /// Autocorrelation of the noise from step to step.
        phi: f64,
    },
    /// A counter whose rate has a daily season and noise; restarts at 0 with its pod.
    Counter {
        /// Amplitude of the daily season, as a fraction of the rate.
        season: f64,
        /// Whether it counts whole things.
        whole: bool,
    },
}

/// A metric that every pod exposes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    /// Value of the label `code`; empty for none.
    pub(super) code: &'static str,
    /// Level, rate a second, or the constant.
    pub(super) base: f64,
    pub(super) shape: Shape,
}

impl Metric {
    pub(super) fn kind(&self) -> MetricKind {
        match self.shape {
            Shape::Counter { .. } => MetricKind::Counter,
            _ => MetricKind::Gauge,
        }
    }
}

const fn gauge(name: &'static str, base: f64, season: f64, noise: f64, phi: f64) -> Metric {
    Metric { name, code: "", base, shape: Shape::Gauge { season, noise, phi } }
}

const fn counter(name: &'static str, code: &'static str, base: f64, season: f64, whole: bool) -> Metric {
    Metric { name, code, base, shape: Shape::Counter { season, whole } }
}

const fn constant(name: &'static str, base: f64) -> Metric {
    Metric { name, code: "", base, shape: Shape::Constant }
}

/// The metrics of a pod. Almost half of them hardly ever change, as in a real cluster.
pub(super) const METRICS: [Metric; 20] = [
    constant("up", 1.0),
    gauge("http_request_latency_p99_seconds", 0.12, 0.2, 0.06, 0.3),
    gauge("worker_queue_depth", 40.0, 0.4, 0.08, 0.5),
    counter("http_requests_total", "200", 45.0, 0.5, true),
    counter("http_requests_total", "500", 0.8, 0.3, true),
    gauge("container_cpu_usage_cores", 0.4, 0.4, 0.05, 0.6),
    gauge("container_memory_working_set_bytes", 3.2e8, 0.05, 0.02, 0.8),
    gauge("go_goroutines", 180.0, 0.1, 0.03, 0.4),
    counter("container_network_receive_bytes_total", "", 2.4e5, 0.5, true),
    counter("container_network_transmit_bytes_total", "", 3.1e5, 0.5, true),
    counter("container_cpu_usage_seconds_total", "", 0.4, 0.4, false),
    constant("kube_pod_status_ready", 1.0),
    constant("kube_pod_container_resource_limits_memory_bytes", 1_073_741_824.0),
    constant("kube_pod_container_resource_limits_cpu_cores", 2.0),
    constant("kube_pod_container_resource_requests_cpu_cores", 0.5),
    constant("container_spec_memory_limit_bytes", 1_073_741_824.0),
    constant("kube_deployment_spec_replicas", 25.0),
    constant("process_max_fds", 1_048_576.0),
    constant("kube_pod_container_status_running", 1.0),
    gauge("container_fs_usage_bytes", 6.0e7, 0.0, 0.01, 0.9),
];

const SERVICES: [&str; 16] = [
    "checkout",
    "cart",
    "payments",
    "catalogue",
    "search",
    "recommendations",
    "identity",
    "sessions",
    "inventory",
    "shipping",
    "notifications",
    "billing",
    "reviews",
    "pricing",
    "gateway",
    "media",
];
const NAMESPACES: [&str; 4] =
    ["storefront-production", "platform-production", "fulfilment-production", "customer-production"];

/// The labels every series of a pod shares, names in canonical order; `code` sorts after
/// `cluster`, and the metric's name before all.
pub(super) const POD_LABELS: [&str; 11] = [
    "app_kubernetes_io_version",
    "cluster",
    "container",
    "image",
    "instance",
    "job",
    "namespace",
    "node",
    "pod",
    "region",
    "service",
];

/// How many of [`POD_LABELS`] sort before `code`.
pub(super) const BEFORE_CODE: usize = 2;

/// Whether a label other than the metric's name is one of a series of the fleet.
pub(super) fn is_label(name: &str) -> bool {
    name == "code" || POD_LABELS.contains(&name)
}

/// The values of [`POD_LABELS`], in one allocation.
#[derive(Clone, Debug)]
pub(super) struct PodText {
    text: Box<str>,
    ends: [u16; POD_LABELS.len()],
}

/// The number of a pod's service.
pub(super) fn service_of(pod: usize) -> usize {
    pod / 25
}

impl PodText {
    /// The labels of a pod in its `generation`-th life.
    pub(super) fn new(seed: u64, pod: usize, generation: u64) -> PodText {
        let service = service_of(pod);
        let name = SERVICES[service % SERVICES.len()];
        let namespace = NAMESPACES[service % SERVICES.len() % NAMESPACES.len()];
        let name = match service / SERVICES.len() {
            0 => name.to_string(),
            n => format!("{name}-{n}"),
        };
        let id = hash(seed, 0x90d, mix(pod as u64) ^ generation);
        let digest = hash(seed, 0x1ca6e, service as u64 ^ generation << 32);
        let version = format!("v{}.{}.{}", 1 + service % 4, service % 37, generation % 100);
        let address = format!("10.{}.{}.{}:9102", id >> 8 & 63, id >> 16 & 255, id >> 24 & 255);
        let node = hash(seed, 0x40de, (pod / 12) as u64);
        let values: [String; POD_LABELS.len()] = [
            version.clone(),
            "prod-eu-central-1".into(),
            format!("{name}-server"),
            format!("registry.example.com/{namespace}/{name}:{version}@sha256:{digest:016x}"),
            address,
            format!("{namespace}/{name}"),
            namespace.into(),
            format!("ip-10-0-{}-{}.eu-central-1.compute.internal", node & 255, node >> 8 & 255),
            format!("{name}-{:08x}-{:05x}", hash(seed, 0x7e5, service as u64) as u32, id >> 32 & 0xf_ffff),
            "eu-central-1".into(),
            name,
        ];
        let mut text = String::with_capacity(values.iter().map(String::len).sum());
        let ends = std::array::from_fn(|i| {
            text.push_str(&values[i]);
            text.len() as u16
        });
        PodText { text: text.into_boxed_str(), ends }
    }

    fn value(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { usize::from(self.ends[i - 1]) };
        &self.text[start..usize::from(self.ends[i])]
    }

    /// The canonical labels of one of the pod's series.
    pub(super) fn labels<'a>(&'a self, metric: &Metric) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let name = (crate::labels::NAME, metric.name);
        let code = (!metric.code.is_empty()).then_some(("code", metric.code));
        let pair = |i: usize| (POD_LABELS[i], self.value(i));
        std::iter::once(name)
            .chain((0..BEFORE_CODE).map(pair))
            .chain(code)
            .chain((BEFORE_CODE..POD_LABELS.len()).map(pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_canonical_and_of_a_realistic_size() {
        let mut bytes = 0;
        for pod in 0..100 {
            let text = PodText::new(1, pod, 0);
            for metric in &METRICS {
                let labels: Vec<_> = text.labels(metric).collect();
                assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{labels:?}");
                assert!(labels.iter().all(|(_, value)| !value.is_empty()));
                assert!((12..=13).contains(&labels.len()));
                bytes += labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            }
        }
        let mean = bytes / (100 * METRICS.len());
        assert!((350..=430).contains(&mean), "{mean} bytes a series");
    }
}
