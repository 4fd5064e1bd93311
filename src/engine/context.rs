//! What shapes scores beside the samples: one immutable value per sequence.
//!
//! Records other than samples are folded into a new context by the sequencer, in log order; every
//! body carries the context as of its own position. So a partition's answer is a function of its
//! state, the context and the samples, whichever thread asks.

use crate::codec::{Damaged, Reader, Stored, store_count};
use crate::detect::cohort::Donors;
use crate::registry::Frozen;
use crate::registry::partition::{load_format, store_format};
use crate::registry::summary::epoch;
use crate::rules::RuleSet;
use crate::time::Millis;
use crate::wire::MetricKind;
use std::collections::HashMap;
use std::sync::Arc;

/// Metric families of which a type is remembered.
const MAX_FAMILIES: usize = 200_000;

/// Observed time advances by at most this much for one body, so that the first samples after an
/// outage do not make everything else look silent for as long as the outage lasted.
pub const MAX_STEP_MS: i64 = 60_000;

/// See the module page.
#[derive(Clone, Debug)]
pub struct Context {
    /// Counts the rule sets, from 1.
    pub generation: u32,
    /// The rules in force.
    pub rules: Arc<RuleSet>,
    /// Types of metric families from 1.0 metadata.
    pub families: Arc<HashMap<String, MetricKind>>,
    /// By source group: the HA pair member that is followed (0: none elected).
    pub elected: Arc<Vec<u16>>,
    /// By source group: observed time.
    pub observed: Vec<Millis>,
    /// The last epoch that is closed: the event clock is two further, or has not started.
    pub closed: i64,
    /// The models of closed epochs, the newest first.
    pub frozen: Arc<[Arc<Frozen>]>,
}

impl Context {
    /// The first context.
    pub fn new(rules: Arc<RuleSet>) -> Context {
        Context {
            generation: 1,
            rules,
            families: Arc::default(),
            elected: Arc::default(),
            observed: Vec::new(),
            closed: i64::MIN,
            frozen: Arc::default(),
        }
    }

    /// Appends the context but for its rules.
    pub fn store(&self, to: &mut Vec<u8>) {
        let Context { generation, rules: _, families, elected, observed, closed, frozen } = self;
        store_format(to);
        generation.store(to);
        families.store(to);
        elected.store(to);
        observed.store(to);
        closed.store(to);
        store_models(frozen, to);
    }

    /// Reads a context that had these rules.
    ///
    /// # Errors
    /// It is damaged, or of another format.
    pub fn load(from: &mut Reader<'_>, rules: Arc<RuleSet>) -> Result<Context, Damaged> {
        load_format(from)?;
        let context = Context {
            generation: Stored::load(from)?,
            rules,
            families: Arc::new(Stored::load(from)?),
            elected: Arc::new(Stored::load(from)?),
            observed: Stored::load(from)?,
            closed: Stored::load(from)?,
            frozen: Arc::default(),
        };
        let frozen = load_models(from)?;
        Ok(Context { frozen: frozen.into(), ..context })
    }

    /// Whether samples of an HA pair member count.
    pub fn follows(&self, group: u16, replica: u16) -> bool {
        let elected = self.elected.get(usize::from(group)).copied().unwrap_or(0);
        replica == 0 || elected == 0 || elected == replica
    }

    /// Follows a member from here on.
    pub fn elect(&mut self, group: u16, replica: u16) {
        let mut elected = self.elected.to_vec();
        if elected.len() <= usize::from(group) {
            elected.resize(usize::from(group) + 1, 0);
        }
        elected[usize::from(group)] = replica;
        self.elected = Arc::new(elected);
    }

    /// The shared models for a sample at a time: the newest of an epoch that ended a whole epoch
    /// before the sample's own began.
    pub fn frozen(&self, at: Millis) -> Option<&Frozen> {
        let newest = epoch(at).saturating_sub(2);
        self.frozen.iter().find(|frozen| frozen.epoch <= newest).map(Arc::as_ref)
    }

    /// Observed time of a group; [`Millis::MIN`] before its first sample.
    pub fn observed(&self, group: u16) -> Millis {
        self.observed.get(usize::from(group)).copied().unwrap_or(Millis::MIN)
    }

    /// Samples of a group have come as far as `newest`.
    pub fn advance(&mut self, group: u16, newest: Millis) {
        let now = self.observed(group);
        let to = if now == Millis::MIN { newest } else { newest.min(now.plus(MAX_STEP_MS)) };
        self.tick(group, to);
    }

    /// Observed time of a group has come as far as `to`.
    pub fn tick(&mut self, group: u16, to: Millis) {
        let at = usize::from(group);
        if self.observed.len() <= at {
            self.observed.resize(at + 1, Millis::MIN);
        }
        self.observed[at] = self.observed[at].max(to);
    }

    /// Learns types of metric families; the table is copied only when something is new.
    pub fn learn(&mut self, families: &[(String, MetricKind)]) {
        let new = |(family, kind): &&(String, MetricKind)| self.families.get(family) != Some(kind);
        if !families.iter().any(|entry| new(&entry)) {
            return;
        }
        let mut table = HashMap::clone(&self.families);
        for (family, kind) in families {
            if table.len() < MAX_FAMILIES || table.contains_key(family) {
                table.insert(family.clone(), *kind);
            }
        }
        self.families = Arc::new(table);
    }

    /// The type of a metric: as its sample said (2.0), else from its family's metadata.
    pub fn kind(&self, name: &str, said: MetricKind) -> MetricKind {
        if said != MetricKind::Unknown || self.families.is_empty() {
            return said;
        }
        const SUFFIXES: [&str; 5] = ["_total", "_sum", "_count", "_bucket", "_info"];
        let stems = SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix));
        std::iter::once(name)
            .chain(stems)
            .find_map(|family| self.families.get(family))
            .copied()
            .unwrap_or_default()
    }
}

/// Appends shared models, and the donors that they have in common once.
pub(super) fn store_models(all: &[Arc<Frozen>], to: &mut Vec<u8>) {
    let (mut donors, mut models) = (Donors::default(), Vec::new());
    all.iter().for_each(|frozen| frozen.store(&mut models, &mut donors));
    donors.store(to);
    store_count(all.len(), to);
    to.append(&mut models);
}

/// Reads shared models.
///
/// # Errors
/// They are damaged.
pub(super) fn load_models(from: &mut Reader<'_>) -> Result<Vec<Arc<Frozen>>, Damaged> {
    let donors = Donors::load(from)?;
    (0..from.count()?).map(|_| Frozen::load(from, &donors).map(Arc::new)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new(Arc::new(crate::engine::testing::rules(Vec::new())))
    }

    #[test]
    fn observed_time_moves_in_bounded_steps_and_never_back() {
        let mut context = context();
        context.advance(0, Millis(1_000));
        context.advance(0, Millis(10_000_000));
        assert_eq!(context.observed(0), Millis(61_000), "an outage is not passed at once");
        context.advance(0, Millis(5));
        assert_eq!(context.observed(0), Millis(61_000));
        context.tick(1, Millis(7));
        assert_eq!((context.observed(1), context.observed(2)), (Millis(7), Millis::MIN));
    }

    #[test]
    fn types_come_from_the_sample_then_from_the_family() {
        let mut context = context();
        context.learn(&[("http_requests".into(), MetricKind::Counter), ("rpc".into(), MetricKind::Summary)]);
        assert_eq!(context.kind("http_requests_total", MetricKind::Unknown), MetricKind::Counter);
        assert_eq!(context.kind("rpc_count", MetricKind::Unknown), MetricKind::Summary);
        assert_eq!(context.kind("rpc_count", MetricKind::Gauge), MetricKind::Gauge);
        assert_eq!(context.kind("other", MetricKind::Unknown), MetricKind::Unknown);
    }

    #[test]
    fn one_replica_is_followed() {
        let mut context = context();
        assert!(context.follows(3, 7), "nobody is elected yet");
        context.elect(3, 7);
        assert!(context.follows(3, 7) && !context.follows(3, 8) && context.follows(3, 0));
    }
}
