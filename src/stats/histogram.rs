//! A small decayed histogram that asks how rare a value is.
//!
//! Non-parametric: no distribution is assumed. The range follows the values and grows at most
//! threefold at a time. Counts are in sixteenths of a sample, so that an odd sample can
//! teach a part; when the memory is full, a quarter of every bin is forgotten.

use super::math::{bounded, ln32};
use crate::codec::{Damaged, Reader, Stored};

/// Bins.
pub const BINS: usize = 32;
/// One sample's count.
const ONE: u16 = 16;
/// Samples that only set the range.
const RANGING: u8 = 30;
/// Samples (after ranging) before rarity is told.
const QUIET: f32 = 20.0;
/// Samples kept at most.
const MEMORY: f32 = 3333.0;

/// How often values were seen, by bin.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    low: f64,
    width: f64,
    total: f32,
    ranging: u8,
    bins: [u16; BINS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { low: 0.0, width: 0.0, total: 0.0, ranging: 0, bins: [0; BINS] }
    }
}

/// Of the bins, which are not empty (a bit each, the first the lowest), and the counts of these.
impl Stored for Histogram {
    fn store(&self, to: &mut Vec<u8>) {
        let Histogram { low, width, total, ranging, bins } = self;
        low.store(to);
        width.store(to);
        total.store(to);
        ranging.store(to);
        let (mut mask, mut counts, mut count) = (0u32, [0u16; BINS], 0);
        for (at, bin) in bins.iter().enumerate() {
            if let Some(place) = counts.get_mut(count) {
                *place = *bin;
            }
            let seen = *bin != 0;
            count += usize::from(seen);
            mask |= u32::from(seen) << at;
        }
        mask.store(to);
        u16::store_all(counts.get(..count).unwrap_or_default(), to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut histogram = Histogram {
            low: Stored::load(from)?,
            width: Stored::load(from)?,
            total: Stored::load(from)?,
            ranging: Stored::load(from)?,
            bins: [0; BINS],
        };
        let mut mask = u32::load(from)?;
        for count in from.bytes(2 * mask.count_ones() as usize)?.as_chunks().0 {
            if let Some(bin) = histogram.bins.get_mut(mask.trailing_zeros() as usize) {
                *bin = u16::from_le_bytes(*count);
            }
            mask &= mask.wrapping_sub(1);
        }
        Ok(histogram)
    }
}

impl Histogram {
    fn bin(&self, y: f64, width: f64) -> usize {
        // A float-to-integer cast saturates: below the range it is 0.
        (((y - self.low) / width * BINS as f64) as usize).min(BINS - 1)
    }

    /// Rarity in nats: −ln of the density at `y` relative to a flat one over a bin of the memory, with
    /// a bonus for distance beyond the range. 0 while too little was seen. `floor` > 0 is the least
    /// width the range is credited with.
    pub fn rarity(&self, y: f64, floor: f64) -> f32 {
        if self.ranging < RANGING || self.total <= QUIET {
            return 0.0;
        }
        let width = self.width.max(floor);
        let (flat, seen) = self.around(self.bin(y, width));
        ln32(flat * (1.0 + self.far(y, width)) / seen).max(0.0)
    }

    /// Bins between `y` and the range; 0 within it.
    fn far(&self, y: f64, width: f64) -> f32 {
        let beyond = (self.low - y).max(y - self.low - self.width);
        if beyond > 0.0 { (beyond / width * BINS as f64).min(1e30) as f32 } else { 0.0 }
    }

    /// At a bin: the count of a flat density and the count seen, whose quotient is the rarity.
    fn around(&self, at: usize) -> (f32, f32) {
        // The window widens until it holds one whole sample: an empty bin amid full ones is not rare.
        let (mut count, mut wide) = (u32::from(self.bins[at]), 1.0f32);
        let (mut left, mut right) = (at, at);
        while count < u32::from(ONE) && (left > 0 || right + 1 < BINS) {
            if left > 0 {
                left -= 1;
                count += u32::from(self.bins[left]);
            }
            if right + 1 < BINS {
                right += 1;
                count += u32::from(self.bins[right]);
            }
            wide += 2.0;
        }
        ((self.total + BINS as f32) * wide, count as f32 / f32::from(ONE) + 1.0)
    }

    /// What rarity asks of every bin, for many questions of one state.
    pub fn sketch(&self, floor: f64) -> Sketch<'_> {
        let quiet = self.ranging < RANGING || self.total <= QUIET;
        let bins: [(f32, f32); BINS] =
            std::array::from_fn(|at| if quiet { (0.0, 1.0) } else { self.around(at) });
        Sketch {
            of: self,
            width: self.width.max(floor),
            quiet,
            bins,
            quotients: bins.map(|(flat, seen)| flat / seen),
        }
    }

    /// A number that lies in it.
    pub fn near(&self) -> f64 {
        f64::from(self.total)
    }

    /// Moves all values seen by `by`.
    pub fn shift(&mut self, by: f64) {
        self.low = bounded(self.low + by);
    }

    /// Takes a value; `share` is its weight in sixteenths, at most 16.
    pub fn learn(&mut self, y: f64, floor: f64, share: u16) {
        if self.ranging < RANGING {
            if self.ranging == 0 {
                (self.low, self.width) = (y, 0.0);
            }
            self.ranging += 1;
            let high = (self.low + self.width).max(y);
            self.low = self.low.min(y);
            self.width = high - self.low;
            return;
        }
        if y < self.low || y > self.low + self.width {
            self.stretch(y, floor);
        }
        let at = self.bin(y, self.width.max(floor));
        self.bins[at] = self.bins[at].saturating_add(share.min(ONE));
        self.total += f32::from(share.min(ONE)) / f32::from(ONE);
        if self.total >= MEMORY {
            let mut left = 0u32;
            for bin in &mut self.bins {
                *bin -= *bin / 4;
                left += u32::from(*bin);
            }
            self.total = left as f32 / f32::from(ONE);
        }
    }

    fn stretch(&mut self, y: f64, floor: f64) {
        let width = self.width.max(floor);
        let high = self.low + width;
        let low_to = if y < self.low { (y - 0.25 * width).max(self.low - width) } else { self.low };
        let high_to = if y > high { (y + 0.25 * width).min(high + width) } else { high };
        let wide = high_to - low_to;
        let mut bins = [0u16; BINS];
        for (i, count) in self.bins.iter().enumerate() {
            let centre = self.low + (i as f64 + 0.5) / BINS as f64 * width;
            let to = (((centre - low_to) / wide * BINS as f64) as usize).min(BINS - 1);
            bins[to] = bins[to].saturating_add(*count);
        }
        (self.bins, self.low, self.width) = (bins, low_to, wide);
    }
}

/// A histogram's answers, made ready for many questions.
pub struct Sketch<'a> {
    of: &'a Histogram,
    width: f64,
    quiet: bool,
    bins: [(f32, f32); BINS],
    /// Of `bins`.
    quotients: [f32; BINS],
}

impl Sketch<'_> {
    /// The greatest rarity of any value from `a` to `b` (in any order); [`Histogram::rarity`] itself
    /// where both are one value.
    pub fn greatest(&self, a: f64, b: f64) -> f32 {
        if self.quiet {
            return 0.0;
        }
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let (first, last) = (self.of.bin(low, self.width), self.of.bin(high, self.width));
        let (far_low, far_high) = (self.of.far(low, self.width), self.of.far(high, self.width));
        let told = |at: usize, far: f32| {
            let (flat, seen) = self.bins.get(at).copied().unwrap_or((0.0, 1.0));
            flat * (1.0 + far) / seen
        };
        // Beyond the range there are only the outermost bins.
        let mut most = told(last, far_high);
        if first != last || far_low > far_high {
            most = most.max(told(first, far_low));
        }
        for within in self.quotients.get(first + 1..last).unwrap_or_default() {
            most = if *within > most { *within } else { most };
        }
        ln32(most).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Histogram {
        let mut h = Histogram::default();
        for k in 0..(30 + 320) {
            h.learn(f64::from(k % 32), 1e-9, 16);
        }
        h
    }

    #[test]
    fn a_common_value_is_not_rare() {
        let h = ramp();
        // 320 samples, flat over 32 bins: ln((320 + 32) · 1 / (10 + 1)) = ln 32.
        assert!((h.rarity(8.2, 1e-9) - 32f32.ln()).abs() < 0.1, "{}", h.rarity(8.2, 1e-9));
    }

    #[test]
    fn distance_beyond_the_range_is_rarer_and_ordered() {
        let h = ramp();
        let far = h.rarity(100.0, 1e-9);
        assert!(far > h.rarity(50.0, 1e-9) && h.rarity(50.0, 1e-9) > h.rarity(31.0, 1e-9));
        assert!(h.rarity(1e150, 1e-9).is_finite());
    }

    #[test]
    fn what_is_seen_again_becomes_normal() {
        let mut h = ramp();
        let before = h.rarity(60.0, 1e-9);
        for _ in 0..50 {
            h.learn(60.0, 1e-9, 16);
        }
        assert!(h.rarity(60.0, 1e-9) < before - 3.0);
    }
}
