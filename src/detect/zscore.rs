//! Rolling z-score over a true sliding window of the last `window` samples.
//!
//! The ring holds offsets from an anchor as bfloat16: within 1/512 of what they are, which moves mean and
//! scale by far less than the window's own chance does, in two bytes a sample. Each time it wraps the
//! anchor moves to the window's mean and the sums are taken anew, so neither rounding nor drift builds up.

use super::Centre;
use crate::codec::stored;
use crate::stats::bf16::Bf16;
use crate::stats::math::{Bounds, bounded, ratio, sqrt};
use crate::stats::tail::Tail;

/// State of the detector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZScore {
    ring: Box<[Bf16]>,
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
        self.ring.get(usize::from(self.next)).map_or(0.0, |slot| f64::from(slot.get()))
    }

    /// A window of `size` samples (at least 4).
    pub fn new(size: u16) -> ZScore {
        ZScore { ring: vec![Bf16::default(); usize::from(size.clamp(4, 4096))].into(), ..ZScore::default() }
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
        if let Some(slot) = self.ring.get_mut(usize::from(self.next)) {
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
        for slot in &mut self.ring {
            *slot = Bf16::nearest(bounded(f64::from(slot.get()) - moved) as f32);
            let entry = f64::from(slot.get());
            self.sum += entry;
            self.squares += entry * entry;
        }
    }
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.ring.len() * size_of::<Bf16>()
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
