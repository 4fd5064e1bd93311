//! From a decoded body to series: the alias cache first, the labels only on first sight.

use super::Reason;
use super::own;
use super::pulse::{Beat, Heartbeat, target};
use crate::codec::stored;
use crate::labels::{Interner, LabelError, Labels, NAME, SeriesId, canonicalise, series_id, value_of};
use crate::registry::{Alias, AliasCache, Known, Mark, PARTITIONS, PartitionId, partition_of};
use crate::rules::{Identity, RuleSet};
use crate::time::Millis;
use crate::wire::{self, Batch, MetricKind, WireError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// No slot is known as yet.
pub const FRESH: u32 = u32::MAX;

/// A series of a body, identified, with all that most samples need: 32 bytes, for lanes read them on other cores
/// than those that write them.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its place in [`Batch::series`].
    pub at: u32,
    /// Slot hint; [`FRESH`] where its labels were read just now.
    pub slot: u32,
    /// First and one-past-last of its samples in [`Batch::samples`].
    pub samples: (u32, u32),
    /// Of its identity.
    pub mark: Mark,
    /// Its source group.
    pub group: u16,
    /// Its HA pair member.
    pub replica: u16,
    /// Its partition.
    pub partition: PartitionId,
    /// Its type, as the body says.
    pub kind: MetricKind,
    /// Whether it is an `up`.
    pub up: bool,
    /// Whether it has native histograms.
    pub native: bool,
}

/// A body, decoded and identified, ready to be given its place in the order.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The decoded body.
    pub batch: Batch,
    /// The generation of rules it was identified under.
    pub generation: u32,
    /// What the cache says of its series, while they are identified.
    known: Vec<Option<Known>>,
    /// What is to be told to it.
    learnt: Vec<Alias>,
    /// Its series that a rule took, as they are found.
    found: Vec<Head>,
    /// The same by partition, in the order of the request within each.
    pub heads: Vec<Head>,
    /// Identities of those whose slot is not known, by their place in the batch, which rises.
    fresh: Vec<(u32, SeriesId)>,
    /// Where each partition begins in `heads`; one more at the end.
    starts: Vec<u32>,
    /// Types of metric families.
    pub families: Vec<(String, MetricKind)>,
    /// Newest sample of each source group.
    pub newest: Vec<(u16, Millis)>,
    /// What it says of time, where a rule asks for silence.
    pub heartbeat: Heartbeat,
    /// Whether a rule does.
    pub hears: bool,
    /// Samples of series no rule took, and of our own outputs.
    pub dropped: [u64; Reason::COUNT],
    /// Malformed series: why and how many.
    pub defects: BTreeMap<String, u64>,
    /// Malformed samples, histograms and exemplars.
    pub malformed: [u64; 3],
}

/// Names of HA pairs and source groups, as small numbers in order of first sight.
#[derive(Debug, Default)]
pub struct Sources {
    groups: HashMap<String, u16>,
    replicas: HashMap<(u16, String), u16>,
}

stored!(struct Sources { groups, replicas } valid |sources| {
    sources.groups.values().all(|number| usize::from(*number) <= sources.groups.len() && *number > 0)
        && sources.replicas.values().all(|number| usize::from(*number) <= sources.replicas.len() && *number > 0)
});

impl Sources {
    /// A group's number; 0 for the unnamed one, and for those beyond the bound of 65,535.
    pub fn group(&mut self, cluster: &str) -> u16 {
        if cluster.is_empty() {
            return 0;
        }
        let next = self.groups.len() + 1;
        match (self.groups.get(cluster), u16::try_from(next)) {
            (Some(group), _) => *group,
            (None, Ok(group)) => {
                self.groups.insert(cluster.to_string(), group);
                group
            }
            (None, Err(_)) => 0,
        }
    }

    /// The groups' names and numbers, the unnamed one's not among them.
    pub fn groups(&self) -> impl Iterator<Item = (&str, u16)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), *group))
    }

    /// A pair member's number; 0 for none.
    pub fn replica(&mut self, group: u16, replica: &str) -> u16 {
        if replica.is_empty() {
            return 0;
        }
        let next = self.replicas.len() + 1;
        let key = (group, replica.to_string());
        match (self.replicas.get(&key), u16::try_from(next)) {
            (Some(replica), _) => *replica,
            (None, Ok(replica)) => {
                self.replicas.insert(key, replica);
                replica
            }
            (None, Err(_)) => 0,
        }
    }
}

/// What identification needs and shares between threads.
#[derive(Debug)]
pub struct Identifier {
    /// Known label sets.
    pub aliases: AliasCache,
    /// Shared label pairs.
    pub interner: Interner,
    /// Source groups and pair members.
    pub sources: Mutex<Sources>,
    /// Metric names no rule takes, with how many label sets were seen of each.
    pub unmatched: Mutex<BTreeMap<String, u64>>,
}

/// Unmatched metric names remembered, for people who ask why a series is not scored.
const MAX_UNMATCHED: usize = 2_000;

impl Identifier {
    /// Decodes and identifies a body.
    ///
    /// # Errors
    /// A body that is not the protobuf it claims to be, or is over a limit.
    pub fn prepare(
        &self,
        work: &mut Prepared,
        version: wire::Version,
        body: &[u8],
        generation: u32,
        rules: &RuleSet,
    ) -> Result<(), WireError> {
        work.clear();
        work.generation = generation;
        work.hears = rules.silence_keep().is_some();
        let mut batch = std::mem::take(&mut work.batch);
        let decoded = wire::decode(version, body, &wire::DecodeLimits::default(), &mut batch);
        if decoded.is_ok() {
            let mut known = std::mem::take(&mut work.known);
            self.aliases.look_up(batch.series.iter().map(|series| series.alias), &mut known);
            for (at, known) in known.drain(..).enumerate() {
                self.series(work, &batch, at, body, rules, known);
            }
            work.known = known;
            self.aliases.learn(generation, work.learnt.drain(..));
            for entry in &batch.metadata {
                if let Ok(family) = std::str::from_utf8(entry.family.of(body)) {
                    work.families.push((family.to_string(), entry.kind));
                }
            }
        }
        work.batch = batch;
        work.sort();
        decoded
    }

    fn series(
        &self,
        work: &mut Prepared,
        batch: &Batch,
        at: usize,
        body: &[u8],
        rules: &RuleSet,
        known: Option<Known>,
    ) {
        let series = &batch.series[at];
        let floats = u64::from(series.samples.1 - series.samples.0);
        let histograms = u64::from(series.histograms.1 - series.histograms.0);
        let malformed = |work: &mut Prepared, why: String| {
            *work.defects.entry(why).or_default() += 1;
            work.malformed[0] += floats;
            work.malformed[1] += histograms;
            work.malformed[2] += u64::from(series.exemplars);
        };
        if let Some(defect) = series.defect {
            return malformed(work, defect.to_string());
        }
        let known = match known {
            Some(Known::Unmatched(generation) | Known::Up { generation, .. })
                if generation != work.generation =>
            {
                None
            }
            known => known,
        };
        let known = known.unwrap_or_else(|| {
            let (known, id) = self.first_sight(batch, at, body, work.generation, rules);
            work.fresh.extend(id.map(|id| (at as u32, id)));
            // A series' alias is written once it has its slot; the rest is known now.
            if !matches!(known, Known::Series { .. }) {
                work.learnt.push(Alias { key: series.alias, known });
            }
            known
        });
        match known {
            Known::Malformed(error) => malformed(work, error.to_string()),
            Known::Own => work.dropped[Reason::OwnOutput as usize] += floats + histograms,
            Known::Unmatched(_) => work.dropped[Reason::Unmatched as usize] += floats + histograms,
            Known::Up { group, replica, .. } => {
                work.dropped[Reason::Unmatched as usize] += floats + histograms;
                beat(work, batch, at, body, rules, (group, replica), true);
            }
            Known::Series { mark, partition, slot, group, replica, up } => {
                if work.hears {
                    beat(work, batch, at, body, rules, (group, replica), up);
                }
                let floats = batch.floats(series).iter().map(|sample| sample.timestamp);
                let natives = batch.native(series).iter().map(|(at, _)| *at);
                if let Some(newest) = floats.chain(natives).max() {
                    work.saw(group, Millis(newest));
                }
                let at = at as u32;
                let (samples, kind, native) = (series.samples, series.kind, histograms > 0);
                work.found.push(Head {
                    at,
                    slot,
                    samples,
                    mark,
                    group,
                    replica,
                    partition,
                    kind,
                    up,
                    native,
                });
            }
        }
    }

    /// Parses a label set, selects its rule, and says what it is, with the identity of a series. Its labels are
    /// not shared as yet: after a restart most series are there already, and only their aliases are not.
    fn first_sight(
        &self,
        batch: &Batch,
        at: usize,
        body: &[u8],
        generation: u32,
        rules: &RuleSet,
    ) -> (Known, Option<SeriesId>) {
        let mut labels = Vec::with_capacity(32);
        if let Err(error) = read(batch, at, body, rules, &mut labels) {
            return (Known::Malformed(error), None);
        }
        if own::is_own(&labels) {
            return (Known::Own, None);
        }
        let up = value_of(&labels, NAME) == Some("up");
        if rules.select(|name| value_of(&labels, name)).is_none() {
            self.note_unmatched(value_of(&labels, NAME).unwrap_or_default());
            if up && rules.silence_keep().is_some() {
                let (group, replica) = self.source(&labels, &rules.identity);
                return (Known::Up { generation, group, replica }, None);
            }
            return (Known::Unmatched(generation), None);
        }
        let (group, replica) = self.source(&labels, &rules.identity);
        labels.retain(|(name, _)| *name != rules.identity.replica_label);
        let id = series_id(&labels);
        let partition = partition(id, &labels, &rules.identity);
        (Known::Series { mark: Mark::of(id), partition, slot: FRESH, group, replica, up }, Some(id))
    }

    /// The identity of a series whose slot is another's by now.
    #[cold]
    pub fn id(&self, batch: &Batch, at: usize, body: &[u8], rules: &RuleSet) -> Option<SeriesId> {
        Some(series_id(&identity(batch, at, body, rules)?))
    }

    /// The shared labels of a series that is not there yet, or whose alias outlived it.
    pub fn labels(&self, batch: &Batch, at: usize, body: &[u8], rules: &RuleSet) -> Option<Labels> {
        Some(self.interner.intern(&identity(batch, at, body, rules)?))
    }

    fn source(&self, labels: &[(&str, &str)], identity: &Identity) -> (u16, u16) {
        let cluster = value_of(labels, &identity.cluster_label).unwrap_or_default();
        let replica = value_of(labels, &identity.replica_label).unwrap_or_default();
        if cluster.is_empty() && replica.is_empty() {
            return (0, 0);
        }
        let mut sources = self.sources.lock();
        let group = sources.group(cluster);
        (group, sources.replica(group, replica))
    }

    fn note_unmatched(&self, name: &str) {
        let mut seen = self.unmatched.lock();
        if let Some(count) = seen.get_mut(name) {
            *count += 1;
        } else if seen.len() < MAX_UNMATCHED {
            seen.insert(name.to_string(), 1);
        }
    }
}

/// Notes the times of a series' samples, and of an `up` what they say of its target.
fn beat(
    work: &mut Prepared,
    batch: &Batch,
    at: usize,
    body: &[u8],
    rules: &RuleSet,
    (group, replica): (u16, u16),
    up: bool,
) {
    let series = &batch.series[at];
    let floats = batch.floats(series);
    for at in
        floats.iter().map(|sample| sample.timestamp).chain(batch.native(series).iter().map(|(at, _)| *at))
    {
        work.heartbeat.saw(group, Millis(at));
    }
    let mut labels = Vec::new();
    if !up || read(batch, at, body, rules, &mut labels).is_err() {
        return;
    }
    let Some(target) = target(&labels) else { return };
    work.heartbeat.beats.extend(floats.iter().map(|sample| {
        let (at, stale) = (Millis(sample.timestamp), wire::is_stale(sample.value));
        Beat { group, replica, target, at, stale }
    }));
}

fn read<'b>(
    batch: &Batch,
    at: usize,
    body: &'b [u8],
    rules: &RuleSet,
    labels: &mut Vec<(&'b str, &'b str)>,
) -> Result<(), LabelError> {
    batch.read_labels(&batch.series[at], body, labels)?;
    canonicalise(labels, rules.limits.labels)
}

/// The labels that make a series' identity.
fn identity<'b>(
    batch: &Batch,
    at: usize,
    body: &'b [u8],
    rules: &RuleSet,
) -> Option<Vec<(&'b str, &'b str)>> {
    let mut labels = Vec::with_capacity(32);
    read(batch, at, body, rules, &mut labels).ok()?;
    labels.retain(|(name, _)| *name != rules.identity.replica_label);
    Some(labels)
}

/// The partition of a series: by all of its labels, or by those the rules name.
pub fn partition(id: SeriesId, labels: &[(&str, &str)], identity: &Identity) -> PartitionId {
    let Some(names) = &identity.partition_by else { return partition_of(id) };
    let chosen: Vec<_> = labels.iter().filter(|(name, _)| names.iter().any(|n| n == name)).copied().collect();
    partition_of(series_id(&chosen))
}

/// Elements of a body whose memory is kept for the next.
const MAX_KEPT: usize = 1 << 18;

impl Prepared {
    /// Whether it holds much more memory than bodies usually need.
    pub fn is_giant(&self) -> bool {
        let batch = &self.batch;
        let all = [
            batch.series.capacity(),
            batch.samples.capacity(),
            batch.histograms.capacity(),
            batch.metadata.capacity(),
            batch.symbols.capacity(),
            self.heads.capacity().max(self.found.capacity()),
            self.families.capacity(),
        ];
        all.into_iter().any(|elements| elements > MAX_KEPT)
    }

    fn clear(&mut self) {
        self.known.clear();
        self.learnt.clear();
        self.found.clear();
        self.heads.clear();
        self.fresh.clear();
        self.starts.clear();
        self.families.clear();
        self.newest.clear();
        self.heartbeat.clear();
        self.dropped = [0; Reason::COUNT];
        self.defects.clear();
        self.malformed = [0; 3];
    }

    fn saw(&mut self, group: u16, newest: Millis) {
        match self.newest.iter_mut().find(|(have, _)| *have == group) {
            Some((_, have)) => *have = (*have).max(newest),
            None => self.newest.push((group, newest)),
        }
    }

    /// Counting sort by partition; stable, so the request's order holds within a series.
    fn sort(&mut self) {
        self.starts.resize(PARTITIONS + 1, 0);
        for head in &self.found {
            self.starts[usize::from(head.partition) + 1] += 1;
        }
        for p in 0..PARTITIONS {
            self.starts[p + 1] += self.starts[p];
        }
        let mut next: [u32; PARTITIONS] = std::array::from_fn(|p| self.starts[p]);
        // Any head will do: each place is written over.
        self.heads.extend_from_slice(&self.found);
        for head in &self.found {
            let place = &mut next[usize::from(head.partition)];
            self.heads[*place as usize] = *head;
            *place += 1;
        }
    }

    /// The identity of a head whose labels were read just now.
    pub fn id(&self, head: &Head) -> Option<SeriesId> {
        let found = self.fresh.binary_search_by_key(&head.at, |(at, _)| *at);
        found.ok().and_then(|found| self.fresh.get(found)).map(|(_, id)| *id)
    }

    /// The heads of a partition, in the order of the request.
    pub fn of(&self, partition: usize) -> &[Head] {
        let edges = self.starts.get(partition..partition + 2);
        let edges = edges.map_or(0..0, |edges| edges[0] as usize..edges[1] as usize);
        self.heads.get(edges).unwrap_or_default()
    }
}
