//! A block as the sender uses it: its samples with their labels, straight from the message.

use super::format::{Broken, Entry, read_block};
use crate::time::Millis;
use crate::wire::{Batch, DecodeLimits, Sample, Version, decode};

/// The samples of a block that are to be sent.
#[derive(Debug)]
pub struct Stored {
    message: Vec<u8>,
    batch: Batch,
    /// Positions in the batch's series.
    rows: Vec<u32>,
    /// When the newest of them was queued.
    pub queued: Millis,
}

impl Stored {
    /// Reads those batches of a block that are `wanted`.
    ///
    /// # Errors
    /// The block is broken.
    pub fn read(bytes: &[u8], mut wanted: impl FnMut(&Entry) -> bool) -> Result<Stored, Broken> {
        // Far beyond what a block can hold: the message is our own.
        const LIMITS: DecodeLimits = DecodeLimits {
            series: 1 << 30,
            samples: 1 << 30,
            histograms: 0,
            labels_per_series: 1 << 16,
            symbols: 1 << 30,
            metadata: 0,
            buckets: 0,
        };
        let block = read_block(bytes)?;
        let message = block.message()?;
        let mut batch = Batch::new(0);
        decode(Version::V2, &message, &LIMITS, &mut batch)
            .map_err(|_| Broken::Corrupt("a block's message"))?;
        let (mut rows, mut next, mut queued) = (Vec::new(), 0u32, Millis::MIN);
        for entry in &block.entries {
            let end = next.saturating_add(entry.samples);
            if wanted(entry) {
                rows.extend(next..end);
                queued = queued.max(entry.queued);
            }
            next = end;
        }
        if next as usize != batch.series.len() {
            return Err(Broken::Corrupt("a block's samples are not as many as its index says"));
        }
        Ok(Stored { message, batch, rows, queued })
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Calls `f` with each sample's labels and the sample, in order.
    pub fn each(&self, mut f: impl FnMut(&[(&str, &str)], Sample)) {
        let mut labels = Vec::new();
        for row in &self.rows {
            let Some(series) = self.batch.series.get(*row as usize) else { continue };
            // Labels are always UTF-8: the checksum holds, and strings were written.
            if self.batch.read_labels(series, &self.message, &mut labels).is_ok() {
                self.batch.floats(series).iter().for_each(|sample| f(&labels, *sample));
            }
        }
    }
}
