//! What tells two partitions apart, whatever their slots.

use super::{Partition, image};
use crate::codec::{Stored, store_text};
use crate::labels::SeriesId;
use xxhash_rust::xxh3::Xxh3;

impl Partition {
    /// xxh3-64 over all that scores can come of: the series by identity, each with its labels, its state,
    /// its signals in their order and its watch, and what was told in the open epochs. It does not hang
    /// on slots, nor on how label pairs and models are shared in memory. The last record and the place
    /// of the sweep are left out; a series that is silent for longer than `forget_after` is in until it
    /// is swept.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        let mut series: Vec<_> = self.series.iter().map(|(_, series)| series).collect();
        series.sort_unstable_by_key(|series| series.id);
        let mut bytes = Vec::new();
        for series in series {
            bytes.clear();
            let SeriesId(id) = series.id;
            id.store(&mut bytes);
            for (name, value) in series.labels.iter() {
                store_text(name, &mut bytes);
                store_text(value, &mut bytes);
            }
            series.store(&mut bytes);
            self.watches.get(series.watch).copied().store(&mut bytes);
            for signal in self.signals_of(series) {
                signal.store(&mut bytes);
            }
            // Lengths keep neighbours apart.
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        bytes.clear();
        image::store_open(&self.open, &mut bytes, |model, bytes| model.store(bytes));
        hash.update(&bytes);
        hash.digest()
    }
}
