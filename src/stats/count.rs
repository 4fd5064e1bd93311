//! Counts in one byte: exact while small, to a sixteenth when large.
//!
//! Up to 31 a count is itself; beyond, four bits follow the leading one. What does not fit a step is added by
//! chance, in proportion (Morris 1978), so a count is right in the mean; the chance is a hash of what is counted,
//! so the same samples give the same counts everywhere.

use crate::codec::{Damaged, Reader, Stored, store_bytes};

/// Bits kept after the leading one.
const BITS: u32 = 4;
/// The code of the greatest count, the last below 2¹⁶.
const LAST: u8 = ((16 - BITS) << BITS) as u8 - 1 + (1 << BITS);

/// What each code stands for.
const COUNTS: [u16; 256] = {
    let mut counts = [0; 256];
    let mut code = 0;
    while code < 256 {
        let held = if code > LAST as u32 { LAST as u32 } else { code };
        let (exponent, low) = (held >> BITS, held & ((1 << BITS) - 1));
        let count = if exponent == 0 { low } else { (low | 1 << BITS) << (exponent - 1) };
        counts[code as usize] = count as u16;
        code += 1;
    }
    counts
};

/// A count from 0 to 63,488.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(u8);

impl Count {
    /// The count.
    #[inline]
    pub fn get(self) -> u32 {
        u32::from(COUNTS[usize::from(self.0)])
    }

    /// The count that is nearest to `count`, or the greatest.
    #[inline]
    pub fn nearest(count: u32) -> Count {
        let half = (1 << Self::shift(count)) >> 1;
        Count::down(count.saturating_add(half))
    }

    /// The count with `more` added; by `dice`, bits of chance, where it falls between two.
    #[inline]
    #[must_use]
    pub fn plus(self, more: u32, dice: u32) -> Count {
        let sum = self.get().saturating_add(more);
        let mask = (1u32 << Self::shift(sum)) - 1;
        let up = (sum & mask) > (dice & mask);
        let Count(code) = Count::down(sum);
        Count((code + u8::from(up)).min(LAST))
    }

    /// Bits that a count of this size lacks.
    #[inline]
    fn shift(count: u32) -> u32 {
        (31 - (count | 1 << BITS).leading_zeros()) - BITS
    }

    /// The greatest count up to `count`.
    #[inline]
    fn down(count: u32) -> Count {
        let shift = Self::shift(count);
        // Codes go on in one: the leading bit of a count beyond 31 carries into the exponent.
        let code = (shift << BITS) + (count >> shift);
        Count(code.min(u32::from(LAST)) as u8)
    }
}

impl Stored for Count {
    fn store(&self, to: &mut Vec<u8>) {
        to.push(self.0);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let code = u8::load(from)?;
        from.check(code <= LAST, "a count that is none")?;
        Ok(Count(code))
    }

    fn store_all(items: &[Self], to: &mut Vec<u8>) {
        store_bytes(items.iter().map(|item| [item.0]), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_are_their_own_nearest() {
        let all: Vec<u32> = (0..=LAST).map(|code| Count(code).get()).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
        assert_eq!((all[15], all[16], all[31], all[32], all[207]), (15, 16, 31, 32, 63_488));
        assert_eq!(all.len(), 208);
        for (code, count) in all.iter().enumerate() {
            assert_eq!(Count::nearest(*count), Count(code as u8), "{count}");
        }
        for count in 0..=63_488 {
            let got = f64::from(Count::nearest(count).get());
            assert!((got - f64::from(count)).abs() <= f64::from(count) / 32.0, "{count}: {got}");
        }
    }

    #[test]
    fn what_is_added_is_there_in_the_mean() {
        let (mut sum, rounds) = (0.0, 400u32);
        for round in 0..rounds {
            let mut count = Count::default();
            for k in 0..2_000u32 {
                let dice = (u64::from(round * 2_000 + k) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                count = count.plus(if k % 10 == 0 { 2 } else { 16 }, dice as u32);
            }
            sum += f64::from(count.get());
        }
        let mean = sum / f64::from(rounds);
        assert!((mean / 29_200.0 - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(Count(LAST).plus(1_000_000, 0), Count(LAST));
    }
}
