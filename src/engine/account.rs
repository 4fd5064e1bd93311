//! Where the memory goes: every byte that the engine knows of, by what it is for.
//!
//! What the allocator adds (8 to 16 bytes an allocation), requests in flight and queues of outputs are not in
//! it: the resident memory of the process has them.

use super::Shared;
use crate::detect::Model;
use crate::registry::{Partition, Signal};

/// Bytes by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Records of series and watches of silence, free slots included.
    pub series: u64,
    /// Lists of labels (one for all series that differ in their names only), the labels themselves, and the
    /// tables that find them; without the names of metrics, some 100 bytes each.
    pub labels: u64,
    /// Tables that find a series by its identity.
    pub index: u64,
    /// Records of signals apart from their models, free slots included.
    pub signals: u64,
    /// Models: moments, tails, histograms.
    pub detectors: u64,
    /// Models: ledgers of peaks, which scores are calibrated by.
    pub calibration: u64,
    /// Models: sliding windows.
    pub windows: u64,
    /// Models: seasons that are kept, tried or sought; slopes, where they are chosen.
    pub seasons: u64,
    /// What series lend each other: cohorts and forests.
    pub shared: u64,
    /// The cache that knows series by the bytes they come in.
    pub aliases: u64,
}

impl Account {
    /// Parts by name.
    pub fn parts(&self) -> [(&'static str, u64); 10] {
        [
            ("series", self.series),
            ("labels", self.labels),
            ("index", self.index),
            ("signals", self.signals),
            ("detectors", self.detectors),
            ("calibration", self.calibration),
            ("windows", self.windows),
            ("seasons", self.seasons),
            ("shared", self.shared),
            ("aliases", self.aliases),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Adds what a partition has beside its series.
    pub(super) fn partition(&mut self, partition: &Partition) {
        self.index += partition.index_bytes() as u64;
        self.series += (partition.series.bytes() + partition.watches.bytes()) as u64;
        // Of the records of signals, the models in them are told below.
        self.signals += partition.signals.bytes() as u64;
        self.shared += partition.open.values().map(|summary| summary.bytes() as u64).sum::<u64>();
    }

    /// Adds a signal; its record is in the partition's.
    pub(super) fn signal(&mut self, signal: &Signal) {
        let (model, calibration) = (size_of::<Model>() as u64, Model::CALIBRATION as u64);
        let (within, apart) = signal.model.window_bytes();
        let (within, apart) = (within as u64, apart as u64);
        self.signals = self.signals.saturating_sub(model);
        self.detectors += model - calibration - within;
        self.calibration += calibration;
        self.windows += within + apart;
        self.seasons += signal.model.heap_bytes() as u64 - apart;
    }

    /// Adds what all partitions have in common.
    pub(super) fn common(&mut self, shared: &Shared) {
        self.labels += shared.identifier.interner.bytes() as u64;
        self.aliases += shared.identifier.aliases.bytes() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::rule;
    use super::super::tests::{body, start};
    use super::*;
    use crate::detect::ModelParams;
    use crate::registry::Series;
    use crate::rules::As;

    #[test]
    fn every_byte_of_a_model_is_told_once() {
        let (engine, _) = start(vec![rule("all", "m.*", vec![As::Value])], 1);
        let empty = engine.stats().memory;
        let rows: Vec<(String, String)> =
            (0..40).map(|k| (format!("m{}", k % 4), format!("pod-{}", k / 4))).collect();
        for round in 0..3 {
            let rows: Vec<_> =
                rows.iter().map(|(name, pod)| (name.as_str(), pod.as_str(), round * 15, 1.0)).collect();
            engine.apply(body(crate::wire::Version::V2, &rows)).expect("taken");
        }
        let stats = engine.stats();
        assert_eq!(stats.series, 40);
        let model = Model::new(&ModelParams::default());
        let memory = stats.memory;
        let held = memory.detectors + memory.calibration + memory.windows + memory.seasons;
        assert_eq!(held, 40 * (size_of::<Model>() + model.heap_bytes()) as u64);
        assert_eq!(memory.windows, 40 * 128);
        assert!(memory.signals >= 40 * (size_of::<Signal>() - size_of::<Model>()) as u64);
        // A list a pod of two pairs, and 1 + 10 pairs of them all.
        assert!(
            memory.labels >= empty.labels + 10 * 32 + 11 * 88
                && memory.series >= 40 * size_of::<Series>() as u64
        );
        assert!(memory.index > 0 && memory.aliases > empty.aliases);
        assert_eq!(memory.total(), memory.parts().iter().map(|(_, bytes)| bytes).sum::<u64>());
        let names = memory.parts().map(|(name, _)| name);
        assert_eq!(names[..5], ["series", "labels", "index", "signals", "detectors"]);
        assert_eq!(names[5..], ["calibration", "windows", "seasons", "shared", "aliases"]);
    }
}
