//! A small decayed histogram that asks how rare a value is.
//!
//! Non-parametric: no distribution is assumed. The range follows the values and grows at most
//! threefold at a time. Counts are in sixteenths of a sample, so that an odd sample can
//! teach a part, in a byte each ([`Count`]); when the memory is full, a quarter of every bin is forgotten.

use super::count::Count;
use super::math::{Bounds, bounded, ln32, wide32};
use crate::codec::stored;

/// Bins.
pub const BINS: usize = 32;
/// One sample's count.
const ONE: u16 = 16;
/// Samples that only set the range.
const RANGING: u8 = 30;
/// Samples (after ranging) before rarity is told.
const QUIET: f32 = 20.0;
/// Samples kept at most.
const MEMORY: u16 = 3333;

/// Where a value lies among those seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Its bin.
    at: u8,
    /// By how much it is rarer than in a flat density, whose logarithm is its rarity: a normal number above 0.
    pub rarer: f32,
}

/// That of no value: as rare as in a flat density.
impl Default for Place {
    fn default() -> Self {
        Place { at: 0, rarer: 1.0 }
    }
}

/// How often values were seen, by bin; 48 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Histogram {
    low: f64,
    width: f32,
    /// Sixteenths of samples.
    total: u16,
    ranging: u8,
    bins: [Count; BINS],
}

stored!(packed struct Histogram { low, width, total, ranging, bins } valid |h| h.width >= 0.0);

impl Histogram {
    /// Samples counted.
    fn samples(&self) -> f32 {
        f32::from(self.total) / f32::from(ONE)
    }

    /// Whether too little was seen to tell.
    fn quiet(&self) -> bool {
        self.ranging < RANGING || self.samples() <= QUIET
    }

    fn width(&self, floor: f64) -> f64 {
        f64::from(self.width).at_least(floor)
    }

    fn high(&self) -> f64 {
        self.low + f64::from(self.width)
    }

    fn bin(&self, y: f64, width: f64) -> usize {
        // A float-to-integer cast saturates: below the range it is 0.
        (((y - self.low) / width * BINS as f64) as usize).min(BINS - 1)
    }

    /// Rarity in nats: −ln of the density at `y` relative to a flat one over a bin of the memory, with
    /// a bonus for distance beyond the range. 0 while too little was seen. `floor` > 0 is the least
    /// width the range is credited with.
    pub fn rarity(&self, y: f64, floor: f64) -> f32 {
        ln32(self.place(y, floor).rarer).at_least(0.0)
    }

    /// Where `y` lies. See [`Histogram::rarity`].
    #[inline]
    pub fn place(&self, y: f64, floor: f64) -> Place {
        let width = self.width(floor);
        let at = self.bin(y, width);
        if self.quiet() {
            return Place { at: at as u8, rarer: 1.0 };
        }
        let (flat, seen) = self.around(at);
        Place { at: at as u8, rarer: flat * (1.0 + self.far(y, width)) / seen }
    }

    /// Bins between `y` and the range; 0 within it.
    fn far(&self, y: f64, width: f64) -> f32 {
        let beyond = (self.low - y).at_least(y - self.high());
        if beyond > 0.0 { (beyond / width * BINS as f64).at_most(1e30) as f32 } else { 0.0 }
    }

    /// At a bin: the count of a flat density and the count seen, whose quotient is the rarity.
    fn around(&self, at: usize) -> (f32, f32) {
        // The window widens until it holds one whole sample: an empty bin amid full ones is not rare.
        let (mut count, mut wide) = (self.bins[at].get(), 1.0f32);
        let (mut left, mut right) = (at, at);
        while count < u32::from(ONE) && (left > 0 || right + 1 < BINS) {
            if left > 0 {
                left -= 1;
                count += self.bins[left].get();
            }
            if right + 1 < BINS {
                right += 1;
                count += self.bins[right].get();
            }
            wide += 2.0;
        }
        ((self.samples() + BINS as f32) * wide, count as f32 / f32::from(ONE) + 1.0)
    }

    /// What rarity asks of every bin, for many questions of one state.
    pub fn sketch(&self, floor: f64) -> Sketch<'_> {
        let quiet = self.quiet();
        let bins: [(f32, f32); BINS] =
            std::array::from_fn(|at| if quiet { (0.0, 1.0) } else { self.around(at) });
        Sketch {
            of: self,
            width: self.width(floor),
            quiet,
            bins,
            quotients: bins.map(|(flat, seen)| flat / seen),
        }
    }

    /// A number that lies in it.
    pub fn near(&self) -> f64 {
        f64::from(self.width)
    }

    /// Moves all values seen by `by`.
    pub fn shift(&mut self, by: f64) {
        self.low = bounded(self.low + by);
    }

    /// Takes a value; `share` is its weight in sixteenths, at most 16.
    pub fn learn(&mut self, y: f64, floor: f64, share: u16) {
        let at = self.bin(y, self.width(floor)) as u8;
        self.learn_at(Place { at, ..Place::default() }, y, floor, share);
    }

    /// The same of a value whose place was just told, with this `floor`.
    #[inline]
    pub fn learn_at(&mut self, place: Place, y: f64, floor: f64, share: u16) {
        if self.ranging < RANGING {
            if self.ranging == 0 {
                (self.low, self.width) = (y, 0.0);
            }
            self.ranging += 1;
            let high = self.high().at_least(y);
            self.low = self.low.at_most(y);
            self.width = wide32(high - self.low);
            return;
        }
        let mut at = usize::from(place.at);
        if y < self.low || y > self.high() {
            self.stretch(y, floor);
            at = self.bin(y, self.width(floor));
        }
        let share = share.min(ONE);
        self.bins[at] = self.bins[at].plus(u32::from(share), dice(y, self.total));
        self.total = self.total.saturating_add(share);
        if self.total >= MEMORY * ONE {
            self.forget();
        }
    }

    /// A quarter of every bin.
    #[cold]
    fn forget(&mut self) {
        let mut left = 0u32;
        for bin in &mut self.bins {
            *bin = Count::nearest(bin.get() - bin.get() / 4);
            left += bin.get();
        }
        self.total = left.min(u32::from(u16::MAX)) as u16;
    }

    #[cold]
    fn stretch(&mut self, y: f64, floor: f64) {
        let width = self.width(floor);
        let high = self.low + width;
        let low_to = if y < self.low { (y - 0.25 * width).at_least(self.low - width) } else { self.low };
        let high_to = if y > high { (y + 0.25 * width).at_most(high + width) } else { high };
        let wide = wide32(high_to - low_to);
        let mut bins = [0u32; BINS];
        for (i, count) in self.bins.iter().enumerate() {
            let centre = self.low + (i as f64 + 0.5) / BINS as f64 * width;
            let to = (((centre - low_to) / f64::from(wide) * BINS as f64) as usize).min(BINS - 1);
            bins[to] += count.get();
        }
        (self.bins, self.low, self.width) = (bins.map(Count::nearest), low_to, wide);
    }
}

/// Bits of chance from a value and what was seen before it (Fibonacci hashing).
#[inline]
fn dice(y: f64, total: u16) -> u32 {
    ((y.to_bits() ^ u64::from(total)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u32
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
            most = most.at_least(told(first, far_low));
        }
        for within in self.quotients.get(first + 1..last).unwrap_or_default() {
            most = if *within > most { *within } else { most };
        }
        ln32(most).at_least(0.0)
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
        assert!(h.rarity(1e37, 1e-9).is_finite());
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
