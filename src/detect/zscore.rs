//! Rolling z-score over a true sliding window of the last `window` samples.
//!
//! The ring holds offsets from an anchor as bfloat16: within 1/512 of what they are, which moves mean and
//! scale by far less than the window's own chance does, in two bytes a sample. Each time it wraps the
//! anchor moves to the window's mean and the sums are taken anew, so neither rounding nor drift builds up.

use super::Centre;
use crate::codec::{Damaged, Reader, Stored, store_count, stored};
use crate::stats::bf16::Bf16;
use crate::stats::math::{Bounds, bounded, ratio, sqrt};
use crate::stats::tail::Tail;

/// Entries that are kept within the model; a longer window is apart from it.
const WITHIN: usize = 64;

/// The entries of a window.
#[derive(Clone, Debug, PartialEq)]
enum Ring {
    /// The first so many.
    Within(u8, [Bf16; WITHIN]),
    Apart(Box<[Bf16]>),
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::Apart(Box::default())
    }
}

impl Ring {
    fn new(size: usize) -> Ring {
        match u8::try_from(size) {
            Ok(few) if size <= WITHIN => Ring::Within(few, [Bf16::default(); WITHIN]),
            _ => Ring::Apart(vec![Bf16::default(); size].into()),
        }
    }

    #[inline]
    fn all(&self) -> &[Bf16] {
        match self {
            Ring::Within(size, ring) => ring.get(..usize::from(*size)).unwrap_or(ring),
            Ring::Apart(ring) => ring,
        }
    }

    #[inline]
    fn all_mut(&mut self) -> &mut [Bf16] {
        match self {
            Ring::Within(size, ring) => {
                let size = usize::from(*size).min(WITHIN);
                &mut ring[..size]
            }
            Ring::Apart(ring) => ring,
        }
    }

    fn len(&self) -> usize {
        self.all().len()
    }
}

/// As a list.
impl Stored for Ring {
    fn store(&self, to: &mut Vec<u8>) {
        store_count(self.len(), to);
        Bf16::store_all(self.all(), to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        let entries = Bf16::load_all(count, from)?;
        let mut ring = Ring::new(entries.len());
        ring.all_mut().copy_from_slice(&entries);
        Ok(ring)
    }
}

/// State of the detector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZScore {
    ring: Ring,
    tail: Tail,
    next: u16,
    len: u16,
    anchor: f64,
    sum: f64,
    squares: f64,
}

stored!(struct ZScore { ring, tail, next, len, anchor, sum, squares } valid |z| {
    z.ring.len() <= 4096 && usize::from(z.len) <= z.ring.len() && z.next <= z.len
});

impl ZScore {
    /// A number that lies where the next one will.
    pub fn near(&self) -> f64 {
        self.ring.all().get(usize::from(self.next)).map_or(0.0, |slot| f64::from(slot.get()))
    }

    /// A window of `size` samples (at least 4).
    pub fn new(size: u16) -> ZScore {
        ZScore { ring: Ring::new(usize::from(size.clamp(4, 4096))), ..ZScore::default() }
    }
    /// Moves the window to another mean.
    pub fn rebase(&mut self, mean: f64) {
        self.anchor = bounded(mean - self.offset());
    }
    /// The window's mean, and its standard deviation, at least `floor`.
    pub fn centre(&self, floor: f64) -> Centre {
        let mean = self.offset();
        let variance = self.squares / f64::from(self.len.max(1)) - mean * mean;
        Centre { at: self.anchor + mean, scale: sqrt(variance).at_least(floor) }
    }
    fn offset(&self) -> f64 {
        self.sum / f64::from(self.len.max(1))
    }
    /// Nats of a distance.
    pub fn nats(&self, z: f64) -> f64 {
        self.tail.nats(z)
    }
    /// Takes a sample that was expected at a centre; one beyond five scales enters at five, so that it does not
    /// hide the next, and nearer by `share` while the signal is odd.
    pub fn learn(&mut self, x: f64, Centre { at, scale }: Centre, share: f64) {
        if self.len == 0 {
            self.anchor = x;
        }
        let mut value = x;
        if self.len > 20 || self.len as usize == self.ring.len() {
            let clip = 5.0 * share.at_most(1.0) * scale;
            value = x.within(at - clip, at + clip);
            self.tail.learn(ratio(x - at, scale), share);
        }
        let entry = Bf16::nearest(bounded(value - self.anchor) as f32);
        let full = usize::from(self.len) == self.ring.len();
        if let Some(slot) = self.ring.all_mut().get_mut(usize::from(self.next)) {
            if full {
                let old = f64::from(slot.get());
                self.sum -= old;
                self.squares -= old * old;
            } else {
                self.len += 1;
            }
            *slot = entry;
            let entry = f64::from(entry.get());
            self.sum += entry;
            self.squares += entry * entry;
            self.next += 1;
        }
        if usize::from(self.next) >= self.ring.len() {
            self.next = 0;
            self.refresh();
        }
    }
    fn refresh(&mut self) {
        let shift = self.offset();
        let anchor = self.anchor + shift;
        // What the anchor really moved by, after rounding.
        let moved = anchor - self.anchor;
        self.anchor = anchor;
        (self.sum, self.squares) = (0.0, 0.0);
        for slot in self.ring.all_mut() {
            *slot = Bf16::nearest(bounded(f64::from(slot.get()) - moved) as f32);
            let entry = f64::from(slot.get());
            self.sum += entry;
            self.squares += entry * entry;
        }
    }
    /// Bytes of the window.
    pub fn window_bytes(&self) -> usize {
        self.ring.len() * size_of::<Bf16>()
    }
    /// Bytes on the heap: of a window that is apart.
    pub fn heap_bytes(&self) -> usize {
        match &self.ring {
            Ring::Within(..) => 0,
            Ring::Apart(_) => self.window_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(w: &mut ZScore, x: f64, floor: f64) {
        w.learn(x, w.centre(floor), 1.0);
    }

    #[test]
    fn slides_truly() {
        let mut w = ZScore::new(4);
        for x in [1.0, 2.0, 3.0, 4.0] {
            learn(&mut w, x, 1.0);
        }
        let centre = w.centre(1e-9);
        assert_eq!(centre.at, 2.5);
        assert!((centre.scale - 1.25f64.sqrt()).abs() < 1e-12);
        learn(&mut w, 5.0, 1.0); // 2 3 4 5
        assert_eq!(w.centre(9.0), Centre { at: 3.5, scale: 9.0 });
        assert!((w.centre(1.0).scale - 1.25f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn windows_of_any_size_come_back_as_they_were() {
        for size in [4, 63, 64, 65, 4096] {
            let mut w = ZScore::new(size);
            for k in 0..5_000u32 {
                learn(&mut w, f64::from(k * 7 % 11), 0.1);
            }
            let bytes = crate::codec::image(&w);
            assert_eq!(crate::codec::restored::<ZScore>(&bytes).as_ref(), Ok(&w));
            assert_eq!((w.window_bytes(), w.heap_bytes() > 0), (2 * usize::from(size), size > 64));
        }
        assert_eq!(ZScore::default().window_bytes(), 0);
    }

    #[test]
    fn does_not_drift_at_height() {
        let mut w = ZScore::new(64);
        for k in 0..100_000u32 {
            learn(&mut w, 1e12 + f64::from(k % 2), 0.1);
        }
        let Centre { at, scale } = w.centre(0.1);
        assert!((at - 1e12 - 0.5).abs() < 1e-3);
        assert!((scale - 0.5).abs() < 1e-3);
    }
}
