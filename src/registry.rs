//! Where series live: 256 partitions, each with its own slab of states and a small index, and in
//! front of them a bounded cache that turns raw label bytes into a series without parsing a label.
//!
//! The number of partitions is fixed for ever: state is stored and moved by partition. Nothing here
//! knows how a score is made.

pub mod alias;
pub mod partition;
pub mod slab;
pub mod summary;

pub use alias::{Alias, AliasCache, Known, Mark};
pub use partition::{Alone, Emitted, FORMAT, Partition, Previous, Series, Signal};
pub use slab::Slab;
pub use summary::{Frozen, Open, Summary};

use crate::labels::SeriesId;
use dashmap::DashMap;
use std::hash::{BuildHasher, Hasher};

/// The number of partitions.
pub const PARTITIONS: usize = 256;

/// A partition's number, 0 to 255.
pub type PartitionId = u8;

/// The partition of an identity: its top byte, apart from the bits that the index uses.
pub fn partition_of(id: SeriesId) -> PartitionId {
    (id.0 >> 120) as u8
}

/// All partitions. One shard of the map each, so that a partition's lock is its shard's.
pub type Partitions = DashMap<PartitionId, Partition, OneShardEach>;

/// All 256 partitions, empty.
pub fn partitions() -> Partitions {
    let map = DashMap::with_capacity_and_hasher_and_shard_amount(PARTITIONS, OneShardEach, PARTITIONS);
    for id in 0..=PartitionId::MAX {
        map.insert(id, Partition::default());
    }
    map
}

/// Sends partition `i` to shard `i` of a [`DashMap`] with 256 shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneShardEach;

impl BuildHasher for OneShardEach {
    type Hasher = PartitionHasher;
    fn build_hasher(&self) -> PartitionHasher {
        PartitionHasher(0)
    }
}

/// See [`OneShardEach`].
#[derive(Debug)]
pub struct PartitionHasher(u64);

impl Hasher for PartitionHasher {
    fn finish(&self) -> u64 {
        // The map leaves the top 7 bits to the table's tags and takes the next 8 as the shard.
        self.0 << (64 - 7 - 8)
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first().copied().unwrap_or(0).into();
    }
    fn write_u8(&mut self, id: u8) {
        self.0 = id.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_shard_of_its_own() {
        let map = partitions();
        // Were two partitions in one shard, the second lock would wait for the first for ever.
        let held: Vec<_> = (0..=PartitionId::MAX).map(|id| map.try_get_mut(&id)).collect();
        assert!(held.iter().all(|lock| !lock.is_locked() && !lock.is_absent()));
    }
}
