//! What of a target's queue goes to its disk, and comes back from it.

use super::clock;
use super::disk::format::{self, Entry, Extent};
use super::disk::{BlockRef, NewBlock, Stored};
use super::metrics::Dropped;
use super::queue::Item;
use super::request::Encoding;
use super::target::Target;
use crate::state::Fsync;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a queue is looked after where nothing asks for it: old outputs, failures, `fsync`.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// Segments hold at most this many bytes (and one write more), or a sixteenth of the queue.
const SEGMENT: u64 = 64 << 20;

impl Target {
    /// Starts the thread that writes to the disk, where there is one. It ends with the target.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn look_after(self: &Arc<Self>) -> io::Result<()> {
        if self.disk.is_none() {
            return Ok(());
        }
        let (wake, woken) = bounded(1);
        let target = Arc::downgrade(self);
        std::thread::Builder::new().name("output-queue".into()).spawn(move || work(&target, &woken))?;
        // Once: a target is looked after when it is made.
        let _ = self.spill.set(wake);
        Ok(())
    }

    /// Writes what shards have in memory to the disk: of all of them, or of those that have too much.
    /// Makes room, and brings it to the disk itself where the policy says so, or `all`.
    fn write(&self, all: bool) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let queue = &self.config.queue;
        let max = queue.max_disk_bytes as u64;
        let mut segments = disk.lock();
        let mut encoding = Encoding::default();
        let mut result = Ok(());
        for shard in self.shards.iter().filter(|shard| all || shard.over()) {
            let items = shard.write();
            if items.is_empty() {
                continue;
            }
            let blocks = blocks(&items, queue.max_samples_per_send.max(1), &mut encoding);
            let segment = SEGMENT.min(max / 16).max(1 << 16);
            match blocks.and_then(|blocks| disk.append(&mut segments, segment, blocks)) {
                Ok(blocks) => {
                    let samples: usize = blocks.iter().map(|block| block.samples).sum();
                    self.metrics.spilled.fetch_add(samples as u64, Relaxed);
                    shard.written(&items, Some(blocks), &self.metrics);
                }
                Err(error) => {
                    shard.written(&items, None, &self.metrics);
                    result = Err(error);
                }
            }
            while let Some(gone) = disk.over(&mut segments, max) {
                self.shards.iter().for_each(|shard| shard.give_up_segment(gone, &self.metrics));
            }
        }
        if all || disk.fsync == Fsync::Always {
            result = result.and(disk.flush(&mut segments));
        }
        result
    }

    /// Writes to the disk what shards have in memory: of all of them, and then brings it to the disk
    /// itself, or of those that have too much. Gives up what is too old. Tells of failures and their
    /// end.
    ///
    /// # Errors
    /// The disk's. What could not be written stays in memory.
    pub fn persist(&self, all: bool) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        self.release();
        let result = self.write(all);
        match &result {
            Ok(()) if all => disk.works(),
            Ok(()) => {}
            Err(error) => disk.fails(error),
        }
        result
    }

    /// Gives up what is too old, and tells the disk what is settled.
    fn release(&self) {
        let Some(disk) = &self.disk else { return };
        for shard in &self.shards {
            let blocks = shard.released(clock::now(), &self.metrics);
            if !blocks.is_empty() {
                disk.acknowledge(shard.acked());
                disk.settle(&blocks);
            }
        }
    }

    /// Settles a shard's request; where there is a disk it knows when this returns.
    pub fn complete(&self, index: usize) {
        let Some(shard) = self.shards.get(index) else { return };
        let acked = shard.complete(&self.metrics);
        let Some(disk) = &self.disk else { return };
        let blocks = shard.released(clock::now(), &self.metrics);
        if !blocks.is_empty() {
            // More partitions than those of the request may have come further.
            disk.acknowledge(shard.acked());
        } else if !acked.is_empty() {
            disk.acknowledge(acked);
        }
        disk.settle(&blocks);
    }

    /// What of the block in flight is to be sent; a block that cannot be read is lost, and counted.
    pub fn load(&self, index: usize, block: &BlockRef) -> Option<Stored> {
        let (disk, shard) = (self.disk.as_ref()?, self.shards.get(index)?);
        let partitions = shard.wants(block);
        let wanted = |entry: &Entry| match partitions.get(&entry.partition) {
            None => false,
            Some(acked) => acked.is_none_or(|acked| acked < entry.sequence),
        };
        let stored = disk.load(block, wanted);
        if stored.is_none() {
            self.metrics.give_up(Dropped::Corrupt, block.samples);
        }
        stored
    }
}

/// The thread of a target's queue.
fn work(target: &Weak<Target>, woken: &Receiver<()>) {
    let mut flushed = Instant::now();
    loop {
        match woken.recv_timeout(LOOK_AFTER) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let failed = {
            let Some(target) = target.upgrade() else { return };
            let Some(disk) = &target.disk else { return };
            if let Fsync::Every(every) = disk.fsync
                && flushed.elapsed() >= every.as_std()
            {
                flushed = Instant::now();
                let mut segments = disk.lock();
                if disk.dirty(&segments) {
                    let result = disk.flush(&mut segments);
                    disk.told(result);
                }
            }
            // After a failure all is tried: only that shows that the disk works. The failure is told,
            // and the outputs are kept: there is nothing else to do about it here.
            target.persist(disk.failing.load(Relaxed)).is_err()
        };
        if failed {
            std::thread::sleep(LOOK_AFTER);
        }
    }
}

/// Blocks of whole batches, each about as large as a request.
pub(super) fn blocks(
    items: &[Item],
    max_samples: usize,
    encoding: &mut Encoding,
) -> io::Result<Vec<NewBlock>> {
    let mut blocks = Vec::new();
    let mut rest = items;
    while let Some(first) = rest.first() {
        let mut samples = first.samples;
        let more = rest.iter().skip(1).take_while(|item| {
            samples += item.samples;
            samples <= max_samples
        });
        let (these, after) = rest.split_at(1 + more.count());
        rest = after;
        let entry = |item: &Item| Entry {
            partition: item.batch.partition,
            sequence: item.batch.sequence,
            queued: item.queued,
            samples: item.samples as u32,
        };
        let entries: Vec<Entry> = these.iter().map(entry).collect();
        let bytes = format::block(&entries, encoding.message(these))?;
        let Extent { samples, queued, partitions } = Extent::of(entries.iter());
        blocks.push(NewBlock { bytes, samples, queued, partitions });
    }
    Ok(blocks)
}
