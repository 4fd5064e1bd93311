//! Images of the engine, for checkpoints, and its way back from them.
//!
//! An image is not of one moment: its head stands for one sequence, and each partition for one of its
//! own, that is none of its business to be the same. A replay begins after the head's; a partition
//! passes over what it has applied already.

use super::cardinality::Cardinality;
use super::context::{Context, load_models, store_models};
use super::epochs::{self, Closing};
use super::identify::{Identifier, Sources};
use super::lanes::Lanes;
use super::pulse::Pulses;
use super::{Engine, Order, OutputSink, Shared};
use crate::codec::{Damaged, Reader, Stored, image, restored, store_text};
use crate::labels::Interner;
use crate::registry::{AliasCache, Frozen, PARTITIONS, Partition, partitions};
use crate::rules::RuleSet;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

/// An engine, being put together again.
pub struct Image {
    head: Head,
    interner: Interner,
    sources: Sources,
    partitions: Vec<Partition>,
}

/// What is known beside the partitions.
struct Head {
    sequence: u64,
    sharing: bool,
    context: Context,
    pulses: Pulses,
}

impl Image {
    /// Begins with a head.
    ///
    /// # Errors
    /// The bytes are no head.
    pub fn new(head: &[u8]) -> Result<Image, Damaged> {
        let mut from = Reader::new(head);
        let (sequence, sharing) = (u64::load(&mut from)?, bool::load(&mut from)?);
        let source = String::load(&mut from)?;
        let rules = RuleSet::restore(&source)
            .map_err(|problems| from.damaged(format!("its rules cannot be read: {problems}")))?;
        let context = Context::load(&mut from, Arc::new(rules))?;
        let pulses = Pulses::load(&mut from)?;
        from.finish()?;
        let head = Head { sequence, sharing, context, pulses };
        let partitions = (0..PARTITIONS).map(|_| Partition::default()).collect();
        Ok(Image { head, interner: Interner::default(), sources: Sources::default(), partitions })
    }

    /// Reads the image of a partition; many threads may at a time.
    ///
    /// # Errors
    /// The bytes are no partition's.
    pub fn read(&self, bytes: &[u8]) -> Result<Partition, Damaged> {
        let mut from = Reader::new(bytes);
        let partition = Partition::load(&mut from, &self.interner)?;
        from.finish()?;
        Ok(partition)
    }

    /// Puts a partition in its place.
    pub fn put(&mut self, number: u16, partition: Partition) {
        if let Some(place) = self.partitions.get_mut(usize::from(number)) {
            *place = partition;
        }
    }

    /// Takes a partition out; an empty one stays.
    pub fn take(&mut self, number: u16) -> Partition {
        self.partitions.get_mut(usize::from(number)).map(std::mem::take).unwrap_or_default()
    }

    /// Takes the names of sources.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn names(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.sources = restored(bytes)?;
        Ok(())
    }

    /// The sequence that its head stands for.
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// The rules that were in force.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.head.context.rules
    }

    /// Its partitions, by number.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
}

/// Whether the frozen models of a record can be read.
///
/// # Errors
/// The bytes are none.
pub fn check_models(bytes: &[u8]) -> Result<(), Damaged> {
    let mut from = Reader::new(bytes);
    load_models(&mut from)?;
    from.finish()
}

/// Frozen models, the oldest first, as a record has them.
pub(super) fn models(frozen: &[Arc<Frozen>]) -> Bytes {
    let mut bytes = Vec::new();
    store_models(frozen, &mut bytes);
    bytes.into()
}

impl Engine {
    /// An engine from an image; as [`Engine::new`].
    pub fn restored(image: Image, lanes: usize, sinks: Vec<Arc<dyn OutputSink>>) -> Engine {
        let Image { head: Head { sequence, sharing, context, pulses }, interner, sources, partitions: all } =
            image;
        let partitions = partitions();
        let mut kept = 0;
        let cardinality = Cardinality::default();
        for (number, mut partition) in all.into_iter().enumerate() {
            cardinality.take_in(&mut partition, context.generation, &context.rules);
            kept += partition.series.len();
            partitions.insert(number as u8, partition);
        }
        let shared = Arc::new(Shared {
            partitions,
            identifier: Identifier {
                aliases: AliasCache::new(context.rules.limits.max_aliases),
                interner,
                sources: Mutex::new(sources),
                unmatched: Mutex::default(),
            },
            want_all: sinks.iter().any(|sink| sink.wants_all()),
            sinks,
            kept: AtomicUsize::new(kept),
            cardinality,
            epochs: epochs::Counters::default(),
        });
        let order = Order { sequence, context: Arc::new(context), pulses, sharing };
        Engine::assemble(shared, order, lanes)
    }

    /// The head of an image, and the sequence it stands for.
    pub fn head(&self) -> (u64, Vec<u8>) {
        let order = self.order.lock();
        let (sequence, context, pulses) = (order.sequence, order.context.clone(), image(&order.pulses));
        let sharing = order.sharing;
        drop(order);
        let mut bytes = Vec::new();
        sequence.store(&mut bytes);
        sharing.store(&mut bytes);
        store_text(&context.rules.source, &mut bytes);
        context.store(&mut bytes);
        bytes.extend(pulses);
        (sequence, bytes)
    }

    /// The last sequence that touched a partition, and its image, in the memory of `room`. Its lane is held up
    /// for as long as it takes to copy it. `None` where the lanes have ended.
    pub fn partition(&self, number: usize, room: Vec<u8>) -> Option<(u64, Vec<u8>)> {
        let taken = {
            // Without lanes, records are applied under this lock.
            let _order = self.order.lock();
            self.lanes.image(number, room, &self.shared)
        };
        taken?.recv().ok()
    }

    /// The names that partitions refer to by number. To be taken after them: a later list has all that
    /// an earlier one has.
    pub fn names(&self) -> Vec<u8> {
        image(&*self.shared.identifier.sources.lock())
    }

    /// A number that is the same for engines that have learnt the same of the same series, however they came by
    /// it, where source groups were first met in the same order.
    pub fn digest(&self) -> u64 {
        let digests = (0..PARTITIONS).map(|number| {
            self.shared.partitions.get(&(number as u8)).map_or(0, |partition| partition.digest())
        });
        let bytes: Vec<u8> = digests.flat_map(u64::to_le_bytes).collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// From here on sequences are greater than this one.
    pub fn skip_to(&self, sequence: u64) {
        let mut order = self.order.lock();
        order.sequence = order.sequence.max(sequence);
    }

    /// Series kept.
    pub fn kept(&self) -> usize {
        self.shared.kept.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The sequence of the last record.
    pub fn sequence(&self) -> u64 {
        self.order.lock().sequence
    }
}

impl Engine {
    /// Epochs were closed here, and these models made of them: partitions that have not gone beyond it
    /// forget what they were told, since it is in the models.
    pub(super) fn published(&self, sequence: u64, through: i64, models: &[u8]) -> Result<(), Damaged> {
        let mut from = Reader::new(models);
        let frozen = load_models(&mut from)?;
        from.finish()?;
        let mut order = self.order.lock();
        order.sequence = sequence;
        let context = Arc::make_mut(&mut order.context);
        context.closed = through;
        for frozen in frozen {
            epochs::publish(context, frozen);
        }
        let (closing, taken) = Closing::new(sequence, through);
        self.lanes.close(closing, &self.shared);
        // What was told is in the models already; the lanes end with the engine, which is borrowed here.
        let _ = taken.recv();
        Ok(())
    }

    /// Puts the parts of an engine together.
    pub(super) fn assemble(shared: Arc<Shared>, order: Order, lanes: usize) -> Engine {
        Engine {
            lanes: Lanes::start(lanes, &shared),
            shared,
            order: Mutex::new(order),
            spare: Mutex::default(),
            seed: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8),
            journal: OnceLock::new(),
            preparing: AtomicU64::new(0),
        }
    }
}
