//! The binary form of a partition.
//!
//! A label pair stands once in an image, in a table after the series, which name their pairs by place. Slots are not
//! kept: series come back in their order without holes between them, signals in the order of their
//! series. The table of identities is made again, and so are the identities, from the labels.

use super::{
    Alone, Emitted, Heard, NEVER, NONE, Partition, Previous, Series, Signal, TOLD_FOR, UNCOUNTED, Watch,
};
use crate::codec::{Damaged, Reader, Stored, load_text, store_count, store_text, stored};
use crate::detect::cohort::{Cohorts, Donors, EPOCHS};
use crate::detect::isolation::Points;
use crate::labels::{Interner, Known, Labels, Pair, series_id};
use crate::registry::summary::{Open, Summary};
use crate::time::Millis;
use hashbrown::HashTable;
use std::sync::Arc;

/// The version of the images of partitions and of the head: any change of what is stored needs another.
/// See `docs/formats.md`.
pub const FORMAT: u32 = 3;

/// Appends [`FORMAT`].
pub fn store_format(to: &mut Vec<u8>) {
    FORMAT.store(to);
}

/// Reads the version of an image.
///
/// # Errors
/// It is another than [`FORMAT`].
pub fn load_format(from: &mut Reader<'_>) -> Result<(), Damaged> {
    let format = u32::load(from)?;
    match format {
        FORMAT => Ok(()),
        _ => Err(from.damaged(format!("format {format}, and this version of oddity reads {FORMAT}"))),
    }
}

stored!(struct Heard { at, ended });

impl Stored for Previous {
    fn store(&self, to: &mut Vec<u8>) {
        match self {
            Previous::Nothing => to.push(0),
            Previous::Value(at, value) => {
                to.push(1);
                at.store(to);
                value.store(to);
            }
            Previous::Histogram(at, histogram) => {
                to.push(2);
                at.store(to);
                histogram.store(to);
            }
        }
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match from.array()? {
            [0] => Ok(Previous::Nothing),
            [1] => Ok(Previous::Value(Stored::load(from)?, Stored::load(from)?)),
            [2] => Ok(Previous::Histogram(Stored::load(from)?, Stored::load(from)?)),
            _ => Err(from.damaged("no last sample")),
        }
    }
}

impl Watch {
    /// Whether its times follow each other as they must: a silence is told from `first` on, minute by
    /// minute, so one that began long before it is due would be told without end.
    fn sound(&self) -> bool {
        let told = self.next == NEVER || (0..=2 * TOLD_FOR.0).contains(&self.next.since(self.first));
        told && self.now.at <= self.first
    }
}

/// Without its slot, which the series gives it.
impl Stored for Watch {
    fn store(&self, to: &mut Vec<u8>) {
        let Watch { slot: _, target, now, then, next, first, held, told } = self;
        target.store(to);
        now.store(to);
        then.store(to);
        next.store(to);
        first.store(to);
        held.store(to);
        told.store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let watch = Watch {
            slot: NONE,
            target: Stored::load(from)?,
            now: Stored::load(from)?,
            then: Stored::load(from)?,
            next: Stored::load(from)?,
            first: Stored::load(from)?,
            held: Stored::load(from)?,
            told: Stored::load(from)?,
        };
        from.check(watch.sound(), "no watch can be so")?;
        Ok(watch)
    }
}

impl Stored for Emitted {
    fn store(&self, to: &mut Vec<u8>) {
        self.get().store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let Some((score, at)) = <Option<(f32, Millis)>>::load(from)? else { return Ok(Emitted::default()) };
        from.check(!score.is_nan(), "an output that was no number")?;
        Ok(Emitted::new(score, at))
    }
}

/// Without its place in the list, which the order of the signals gives it.
impl Stored for Signal {
    fn store(&self, to: &mut Vec<u8>) {
        let Signal { transform, params, next: _, scored, previous, last, emitted, model } = self;
        transform.store(to);
        params.store(to);
        scored.store(to);
        previous.store(to);
        last.store(to);
        emitted.store(to);
        model.store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Signal {
            transform: Stored::load(from)?,
            params: Stored::load(from)?,
            next: NONE,
            scored: Stored::load(from)?,
            previous: Stored::load(from)?,
            last: Stored::load(from)?,
            emitted: Stored::load(from)?,
            model: Stored::load(from)?,
        })
    }
}

impl Series {
    /// Appends all but labels and what is in other slabs.
    pub(super) fn store(&self, to: &mut Vec<u8>) {
        let Series {
            id: _,
            labels: _,
            newest,
            generation,
            rule,
            group,
            kind,
            stale,
            floats,
            histograms,
            first: _,
            watch: _,
            counted: _,
        } = self;
        newest.store(to);
        generation.store(to);
        rule.store(to);
        group.store(to);
        kind.store(to);
        stale.store(to);
        floats.store(to);
        histograms.store(to);
    }

    fn load(labels: Labels, from: &mut Reader<'_>) -> Result<Series, Damaged> {
        let canonical: Vec<(&str, &str)> = labels.iter().collect();
        let sorted = canonical.is_sorted_by(|a, b| a.0 < b.0);
        let full = canonical.iter().all(|(name, value)| !name.is_empty() && !value.is_empty());
        from.check(sorted && full, "labels that are not canonical")?;
        Ok(Series {
            id: series_id(&canonical),
            labels,
            newest: Stored::load(from)?,
            generation: Stored::load(from)?,
            rule: Stored::load(from)?,
            group: Stored::load(from)?,
            kind: Stored::load(from)?,
            stale: Stored::load(from)?,
            floats: Stored::load(from)?,
            histograms: Stored::load(from)?,
            first: NONE,
            watch: NONE,
            counted: UNCOUNTED,
        })
    }
}

/// The table of label pairs of an image being made. Pairs are told apart by where they are in memory:
/// interned ones are there once.
#[derive(Default)]
struct Pairs<'a> {
    all: Vec<&'a Pair>,
    places: HashTable<(usize, u32)>,
}

impl<'a> Pairs<'a> {
    /// With room for what so many series have, mostly.
    fn for_series(count: usize) -> Pairs<'a> {
        Pairs { all: Vec::with_capacity(count), places: HashTable::with_capacity(2 * count) }
    }

    fn place(&mut self, pair: &'a Pair) -> u32 {
        // The high half of a product has bits of all of the address (Knuth, multiplicative hashing).
        let hash = |at: usize| {
            let product = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            product ^ product >> 32
        };
        let (at, next) = (std::ptr::from_ref(pair).addr(), self.all.len() as u32);
        if let Some((_, place)) = self.places.find(hash(at), |have| have.0 == at) {
            return *place;
        }
        self.places.insert_unique(hash(at), (at, next), |have| hash(have.0));
        self.all.push(pair);
        next
    }
}

/// Appends what was told in each epoch; `donor` appends a model, or where it is.
pub(super) fn store_open(
    open: &Open,
    to: &mut Vec<u8>,
    mut donor: impl FnMut(&Arc<crate::detect::Model>, &mut Vec<u8>),
) {
    store_count(open.len(), to);
    for (epoch, Summary { cohorts, points }) in open {
        epoch.store(to);
        cohorts.store(to, &mut donor);
        points.store(to);
    }
}

fn load_open(from: &mut Reader<'_>, donors: &Donors) -> Result<Open, Damaged> {
    let mut open = Open::new();
    for _ in 0..from.count()? {
        let epoch = i64::load(from)?;
        from.check(EPOCHS.contains(&epoch), "no such epoch")?;
        open.insert(epoch, Summary { cohorts: Cohorts::load(from, donors)?, points: Points::load(from)? });
    }
    Ok(open)
}

impl Partition {
    /// Appends the partition's image.
    pub fn store(&self, to: &mut Vec<u8>) {
        let Partition { sequence, series, signals: _, watches, sweep_from: _, open, index: _ } = self;
        store_format(to);
        sequence.store(to);
        let length = to.len();
        0u64.store(to);
        store_count(series.len(), to);
        let mut pairs = Pairs::for_series(series.len());
        for (_, series) in series.iter() {
            store_count(series.labels.len(), to);
            for pair in series.labels.pairs() {
                store_count(pairs.place(pair) as usize, to);
            }
            series.store(to);
            watches.get(series.watch).copied().store(to);
            store_count(self.signals_of(series).count(), to);
            self.signals_of(series).for_each(|signal| signal.store(to));
        }
        let written = (to.len() - length - size_of::<u64>()) as u64;
        if let Some(place) = to.get_mut(length..).and_then(|rest| rest.first_chunk_mut()) {
            *place = written.to_le_bytes();
        }
        store_count(pairs.all.len(), to);
        for pair in &pairs.all {
            store_text(pair.name(), to);
            store_text(pair.value(), to);
        }
        let (mut donors, mut body) = (Donors::default(), Vec::new());
        store_open(open, &mut body, |model, body| donors.store_place(model, body));
        donors.store(to);
        to.append(&mut body);
    }

    /// Reads a partition's image; its labels are shared through `interner`.
    ///
    /// # Errors
    /// It is damaged, or of another format.
    pub fn load(from: &mut Reader<'_>, interner: &Interner) -> Result<Partition, Damaged> {
        load_format(from)?;
        let mut partition = Partition { sequence: Stored::load(from)?, ..Partition::default() };
        let length = u64::load(from)?;
        let mut series = from.later(usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut pairs = Vec::new();
        for _ in 0..from.count()? {
            pairs.push((load_text(from)?, load_text(from)?));
        }
        let pairs = interner.pairs(&pairs);
        for _ in 0..series.count()? {
            partition.load_series(&pairs, interner, &mut series)?;
        }
        series.finish()?;
        let donors = Donors::load(from)?;
        partition.open = load_open(from, &donors)?;
        Ok(partition)
    }

    fn load_series(
        &mut self,
        pairs: &[Known],
        interner: &Interner,
        from: &mut Reader<'_>,
    ) -> Result<(), Damaged> {
        let count = from.count()?;
        let mut labels = Vec::new();
        for _ in 0..count {
            let place = usize::try_from(from.number()?).ok().and_then(|place| pairs.get(place));
            labels.push(place.ok_or_else(|| from.damaged("a label that is not in the table"))?);
        }
        let series = Series::load(interner.share(&labels), from)?;
        from.check(self.find(series.id).is_none(), "a series twice")?;
        let watch: Option<Watch> = Stored::load(from)?;
        let signals = Stored::load(from)?;
        let slot = self.add(Alone { series, signals });
        if let Some(watch) = watch
            && let Some(series) = self.series.get_mut(slot)
        {
            series.watch = self.watches.insert(Watch { slot, ..watch });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{image, restored};
    use crate::time::Millis;

    #[test]
    fn a_watch_that_would_be_told_without_end_is_refused() {
        let at = |at| Heard { at: Millis(at), ended: Millis::MIN };
        let watch = |first, next| Watch {
            slot: NONE,
            target: None,
            now: at(1_000),
            then: None,
            next: Millis(next),
            first: Millis(first),
            held: Millis::MIN,
            told: true,
        };
        for sound in [watch(1_000, 1_000), watch(2_000, 3_600_000), watch(2_000, NEVER.0)] {
            assert!(restored::<Watch>(&image(&sound)).is_ok());
        }
        for wrong in [watch(i64::MAX, i64::MIN), watch(2_000, 1_999), watch(2_000, 9_000_000), watch(0, 5)] {
            assert!(restored::<Watch>(&image(&wrong)).is_err());
        }
    }
}
