//! One partition: its series, their signals and the index from identity to series.

mod digest;
mod image;

pub use image::{FORMAT, load_format, store_format};

use super::{Mark, Open, Slab};
use crate::detect::Model;
use crate::labels::{Labels, SeriesId};
use crate::rules::As;
use crate::time::{Millis, Span};
use crate::wire::{Histogram, MetricKind};
use hashbrown::HashTable;

/// No signal: the end of a series' list.
pub const NONE: u32 = u32::MAX;

/// A series that is counted under no rule.
pub const UNCOUNTED: u16 = u16::MAX;

/// A series that a rule took.
#[derive(Debug)]
pub struct Series {
    /// Its identity.
    pub id: SeriesId,
    /// Its canonical labels.
    pub labels: Labels,
    /// The newest sample's time; samples at or before it are dropped.
    pub newest: Millis,
    /// The rule-set generation that `rule` and the signals are of.
    pub generation: u32,
    /// The rule's place in that generation; `None` where none takes it any more.
    pub rule: Option<u16>,
    /// Its source group.
    pub group: u16,
    /// Its type as known when its signals were made.
    pub kind: MetricKind,
    /// Whether the newest sample was a stale marker.
    pub stale: bool,
    /// Whether float samples have been seen.
    pub floats: bool,
    /// Whether native histograms have been seen.
    pub histograms: bool,
    /// The first of its signals, [`NONE`] if it has none.
    pub first: u32,
    /// Its watch, [`NONE`] where its silence means nothing.
    pub watch: u32,
    /// The number under which it is counted among its rule's series, or [`UNCOUNTED`]. Not part of what
    /// is saved: it is made again.
    pub counted: u16,
}

/// Never due again, until the series is heard.
pub const NEVER: Millis = Millis(i64::MAX);

/// How long a silence is told.
pub const TOLD_FOR: Span = Span::HOUR;

/// When a series was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its last sample.
    pub at: Millis,
    /// Its stale marker after that; [`Millis::MIN`] for none.
    pub ended: Millis,
}

/// A series whose silence is told.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Its slot.
    pub slot: u32,
    /// Its target; `None` where its labels name none.
    pub target: Option<u64>,
    /// When it was last heard, as far as is decided.
    pub now: Heard,
    /// When it was heard after what is due and not yet decided.
    pub then: Option<Heard>,
    /// When it is due next, or [`NEVER`].
    pub next: Millis,
    /// When this silence was due first.
    pub first: Millis,
    /// Outputs before this time are withheld.
    pub held: Millis,
    /// Whether its silence is being told.
    pub told: bool,
}

/// The last sample of a counter or histogram, from which the next one's increase is taken.
#[derive(Debug, Default)]
pub enum Previous {
    /// Nothing yet, or nothing that may be continued.
    #[default]
    Nothing,
    /// A counter's value.
    Value(Millis, f64),
    /// A histogram.
    Histogram(Millis, Box<Histogram>),
}

/// The last output of a signal that was let out, for `emit_when`. In 12 bytes, for every signal has it.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub struct Emitted {
    /// Not a number where none was.
    score: f32,
    at: Millis,
}

/// None was.
impl Default for Emitted {
    fn default() -> Self {
        Emitted { score: f32::NAN, at: Millis::MIN }
    }
}

impl Emitted {
    /// One was, with this score and time.
    pub fn new(score: f32, at: Millis) -> Emitted {
        Emitted { score, at }
    }

    /// Its score and time.
    pub fn get(self) -> Option<(f32, Millis)> {
        (!self.score.is_nan()).then_some((self.score, self.at))
    }
}

/// One scalar signal of a series (`as`) and its model.
#[derive(Debug)]
pub struct Signal {
    /// What the samples are turned into.
    pub transform: As,
    /// Key of the model's parameters: a signal lives on through a reload that keeps it.
    pub params: u64,
    /// The next signal of the series, or [`NONE`].
    pub next: u32,
    /// Whether it has been scored since the series last (re)started.
    pub scored: bool,
    /// What increases are taken from.
    pub previous: Previous,
    /// The last score and the last value.
    pub last: (f64, f64),
    /// The last output that was let out.
    pub emitted: Emitted,
    /// The model.
    pub model: Model,
}

impl Signal {
    /// Reads a little of every part: see [`Model::near`].
    fn near(&self) -> u64 {
        self.params ^ self.last.1.to_bits() ^ self.model.near()
    }
}

/// A series apart from any partition.
#[derive(Debug)]
pub struct Alone {
    /// The series, without a watch.
    pub series: Series,
    /// Its signals, in their order.
    pub signals: Vec<Signal>,
}

/// A partition. Everything in it is a function of the records applied to it, in their order.
#[derive(Debug, Default)]
pub struct Partition {
    /// The last record applied.
    pub sequence: u64,
    /// Series by slot.
    pub series: Slab<Series>,
    /// Signals by slot; each is in one series' list.
    pub signals: Slab<Signal>,
    /// Watches by slot; each is of one series.
    pub watches: Slab<Watch>,
    /// Where the sweep for forgotten series goes on.
    pub sweep_from: u32,
    /// What its series have told in the epochs not yet closed.
    pub open: Open,
    index: HashTable<u32>,
}

impl Partition {
    /// Whether a slot is that of the series whose identity has this mark.
    #[inline]
    pub fn holds(&self, slot: u32, mark: Mark) -> bool {
        self.series.get(slot).is_some_and(|series| Mark::of(series.id) == mark)
    }

    /// The slot of a series.
    pub fn find(&self, id: SeriesId) -> Option<u32> {
        let same = |at: &u32| self.series.get(*at).is_some_and(|series| series.id == id);
        self.index.find(id.0 as u64, same).copied()
    }

    /// Reads a little of a series and of its first signal, so that a use soon after finds them near; of its
    /// labels too where they will be `told`. Nothing is waited for: the signal is looked for in the slot of the
    /// same number, where it is while every series has one; see [`Partition::nearer`].
    pub fn near(&self, slot: u32, told: bool) -> u64 {
        let series = self.series.get(slot).map_or(0, |series| match told {
            true => series.labels.near(),
            false => u64::from(series.first),
        });
        self.signals.get(slot).map_or(series, |signal| series ^ signal.near())
    }

    /// After [`Partition::near`] of all that are asked for: the same of the first signals that lie elsewhere.
    pub fn nearer(&self, slot: u32) -> u64 {
        let first = self.series.get(slot).map_or(slot, |series| series.first);
        if first == slot {
            return 0;
        }
        self.signals.get(first).map_or(0, Signal::near)
    }

    /// Adds a series that is not there yet; returns its slot.
    pub fn insert(&mut self, series: Series) -> u32 {
        let id = series.id;
        let at = self.series.insert(series);
        let all = &self.series;
        self.index.insert_unique(id.0 as u64, at, |at| all.get(*at).map_or(0, |s| s.id.0 as u64));
        at
    }

    /// Removes a series and its signals.
    pub fn remove(&mut self, at: u32) {
        drop(self.take(at));
    }

    /// Takes a series out, with its signals; its watch ends.
    pub fn take(&mut self, at: u32) -> Option<Alone> {
        let mut next = std::mem::replace(&mut self.series.get_mut(at)?.first, NONE);
        let mut signals = Vec::new();
        while let Some(signal) = self.signals.remove(next) {
            next = signal.next;
            signals.push(signal);
        }
        let mut series = self.series.remove(at)?;
        self.watches.remove(std::mem::replace(&mut series.watch, NONE));
        if let Ok(entry) = self.index.find_entry(series.id.0 as u64, |have| *have == at) {
            entry.remove();
        }
        Some(Alone { series, signals })
    }

    /// Adds a series that is not there yet, with its signals in their order; returns its slot.
    pub fn add(&mut self, alone: Alone) -> u32 {
        let Alone { mut series, signals } = alone;
        series.first = NONE;
        for mut signal in signals.into_iter().rev() {
            signal.next = series.first;
            series.first = self.signals.insert(signal);
        }
        self.insert(series)
    }

    /// Removes all signals of a series.
    pub fn drop_signals(&mut self, at: u32) {
        let Some(series) = self.series.get_mut(at) else { return };
        let mut next = std::mem::replace(&mut series.first, NONE);
        while let Some(signal) = self.signals.remove(next) {
            next = signal.next;
        }
    }

    /// The signals of a series, in their order.
    pub fn signals_of(&self, series: &Series) -> impl Iterator<Item = &Signal> {
        let mut at = series.first;
        std::iter::from_fn(move || {
            let signal = self.signals.get(at)?;
            at = signal.next;
            Some(signal)
        })
    }

    /// Bytes of the index.
    pub fn index_bytes(&self) -> usize {
        self.index.capacity() * 8 / 7 * (size_of::<u32>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> SeriesId {
        SeriesId(number << 64 | number)
    }

    fn series(number: u128) -> Series {
        Series {
            id: id(number),
            labels: Labels::from_pairs(&[("__name__", "m")]),
            newest: Millis::MIN,
            generation: 0,
            rule: Some(0),
            group: 0,
            kind: MetricKind::Gauge,
            stale: false,
            floats: true,
            histograms: false,
            first: NONE,
            watch: NONE,
            counted: UNCOUNTED,
        }
    }

    #[test]
    fn records_have_these_sizes() {
        let sizes = (size_of::<Option<Series>>(), size_of::<Option<Signal>>(), size_of::<Emitted>());
        assert_eq!(sizes, (72, 904, 12));
    }

    #[test]
    fn series_are_found_by_mark_and_by_index_and_leave_nothing_behind() {
        let mut partition = Partition::default();
        let slots: Vec<u32> = (0..100).map(|i| partition.insert(series(i))).collect();
        for (i, at) in slots.iter().enumerate() {
            assert_eq!(partition.find(id(i as u128)), Some(*at));
            assert!(partition.holds(*at, Mark::of(id(i as u128))));
            assert!(!partition.holds(*at, Mark::of(id(i as u128 + 1))));
        }
        partition.remove(slots[3]);
        assert_eq!(partition.find(id(3)), None);
        assert_eq!(partition.insert(series(1000)), slots[3], "the slot is used again");
        assert!(!partition.holds(slots[3], Mark::of(id(3))), "and a stale hint is seen through");
        assert_eq!(partition.find(id(1000)), Some(slots[3]));
    }
}
