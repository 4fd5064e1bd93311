//! oddity's own metrics. The rooms own plain numbers; here they are only registered, read when
//! somebody scrapes, and written as OpenMetrics text.

mod doors;
mod emitter;
mod keeper;
mod process;
mod receiver;
mod write;

use crate::emit::Emitter;
use crate::engine::{Engine, OutputBatch, OutputSink};
use crate::ingest::Receiver;
use crate::keeper::Keeper;
use crate::secure::Doors;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use write::Writer;

/// What is known of the configuration.
#[derive(Debug, Default)]
pub struct ConfigState {
    /// Whether the last load succeeded.
    pub ok: AtomicBool,
    /// When a configuration last came in force, in Unix milliseconds.
    pub loaded: AtomicI64,
    /// Reloads tried.
    pub reloads: AtomicU64,
}

/// A sink that counts flags by rule.
#[derive(Debug, Default)]
pub struct FlagCounter {
    by_rule: Mutex<BTreeMap<String, u64>>,
}

impl FlagCounter {
    /// Flags by rule since the start.
    pub fn by_rule(&self) -> BTreeMap<String, u64> {
        self.by_rule.lock().clone()
    }
}

impl OutputSink for FlagCounter {
    fn take(&self, batch: &Arc<OutputBatch>) {
        for (_, rule) in batch.ruled().filter(|(output, _)| output.flagged()) {
            let mut by_rule = self.by_rule.lock();
            match by_rule.get_mut(&rule.name) {
                Some(count) => *count += 1,
                None => drop(by_rule.insert(rule.name.clone(), 1)),
            }
        }
    }
}

/// Where the numbers are read from.
#[derive(Clone)]
pub struct Sources {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The receiver.
    pub receiver: Arc<Receiver>,
    /// The way out.
    pub emitter: Arc<Emitter>,
    /// Flags by rule.
    pub flags: Arc<FlagCounter>,
    /// The configuration.
    pub config: Arc<ConfigState>,
    /// State on disk; `None` where none is kept.
    pub keeper: Option<Arc<Keeper>>,
    /// The doors.
    pub doors: Arc<Doors>,
    /// The version shown.
    pub version: &'static str,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer::new(&mut encoder);
        receiver::write(self, &mut writer)?;
        doors::write(&self.doors, &mut writer)?;
        self.engine_metrics(&mut writer)?;
        emitter::write(&self.emitter, &mut writer)?;
        if let Some(keeper) = &self.keeper {
            keeper::write(&keeper.report(), &mut writer)?;
        }
        process::write(&mut writer)
    }
}

impl Sources {
    fn engine_metrics(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let stats = self.engine.stats();
        let mut flags = self.flags.by_rule();
        for rule in &self.engine.rules().rules {
            flags.entry(rule.name.clone()).or_insert(0);
        }
        out.counters("oddity_flags", "Scores of at least 1, by rule", "rule", flags)?;
        let rules = self.engine.rules();
        let counts = self.engine.cardinality().rules();
        out.gauges(
            "oddity_rule_series",
            "Series kept, by rule",
            "rule",
            counts.iter().map(|count| (count.rule.as_str(), count.kept as f64)),
        )?;
        let limits =
            rules.rules.iter().filter_map(|rule| Some((rule.name.as_str(), rule.max_series? as f64)));
        out.gauges("oddity_rule_series_limit", "Series that a rule may have", "rule", limits)?;
        let refused = counts.iter().flat_map(|count| {
            [("rule", count.refused_by_rule), ("all", count.refused_by_all)].map(|(limit, times)| {
                (vec![("rule", count.rule.clone()), ("limit", limit.to_string())], times)
            })
        });
        out.labelled_counters(
            "oddity_series_refused",
            "Times that a series was not taken in, by its rule and by whose limit",
            refused,
        )?;
        let states = [
            ("kept", stats.series),
            ("warming", stats.warming),
            ("scored", stats.scored),
            ("stale", stats.stale),
        ];
        out.gauges(
            "oddity_series",
            "Series kept, and signals of them by state (a series may have several)",
            "state",
            states.map(|(state, n)| (state, n as f64)),
        )?;
        out.gauges(
            "oddity_memory_bytes",
            "Bytes that series hold, by what they are for",
            "part",
            stats.memory.parts().map(|(part, bytes)| (part, bytes as f64)),
        )?;
        out.gauge("oddity_alias_cache_entries", "Entries of the alias cache", stats.aliases as f64)?;
        out.gauge(
            "oddity_label_pairs",
            "Pairs of a label's name and value, shared by the series that have them; without metric names",
            stats.labels as f64,
        )?;
        out.counter("oddity_records", "Records applied", stats.sequence as f64)?;
        out.counter(
            "oddity_epochs_closed",
            "Hours of event time that left shared models",
            stats.epochs as f64,
        )?;
        out.gauge("oddity_cohorts", "Cohorts that lend to new series", stats.cohorts as f64)?;
        out.gauge("oddity_isolation_forests", "Rules that have an isolation forest", stats.forests as f64)?;
        out.counter(
            "oddity_cohort_series_refused",
            "Series that told their hour in vain: their cohort is beyond the bound",
            stats.refused as f64,
        )?;
        out.counter(
            "oddity_contributions_late",
            "What series told of an hour after it was closed",
            stats.late as f64,
        )?;
        let rules = self.engine.rules().rules.len();
        out.gauge("oddity_rules", "Rules in force", rules as f64)?;
        out.gauge("oddity_rules_generation", "Generation of the rules in force", stats.generation as f64)?;
        let ok = f64::from(u8::from(self.config.ok.load(Relaxed)));
        out.gauge(
            "oddity_config_last_reload_successful",
            "Whether the last load of the configuration succeeded",
            ok,
        )?;
        out.gauge(
            "oddity_config_last_reload_success_timestamp_seconds",
            "When a configuration last came in force",
            self.config.loaded.load(Relaxed) as f64 / 1e3,
        )?;
        out.counter("oddity_config_reloads", "Reloads tried", self.config.reloads.load(Relaxed) as f64)?;
        out.gauges(
            "oddity_build_info",
            "Always 1; the labels describe the build",
            "version",
            [(self.version, 1.0)],
        )
    }
}

/// The registry of everything.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
}

impl Telemetry {
    /// Registers these sources.
    pub fn new(sources: Sources) -> Telemetry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Telemetry { registry }
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
