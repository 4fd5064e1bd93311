//! bfloat16: the upper half of a single-precision number, for what is kept by the dozen a series.

use super::math::Bounds;
use crate::codec::{Damaged, Reader, Stored, store_bytes};

/// A finite number of the range of `f32` with eight significant bits: within 1/512 of what it was made
/// of (Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training", section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bf16(u16);

impl Bf16 {
    /// The nearest one, a tie to the even; what is beyond the range becomes the farthest.
    #[inline]
    pub fn nearest(value: f32) -> Bf16 {
        let bits = value.within(-Self::FARTHEST, Self::FARTHEST).to_bits();
        Bf16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    /// Its value.
    #[inline]
    pub fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// The greatest finite one.
    const FARTHEST: f32 = f32::from_bits(0x7f7f_0000);

    fn checked(bits: u16, from: &Reader<'_>) -> Result<Bf16, Damaged> {
        let number = Bf16(bits);
        if number.get().is_finite() { Ok(number) } else { Err(from.damaged("not a finite bfloat16")) }
    }
}

impl Stored for Bf16 {
    fn store(&self, to: &mut Vec<u8>) {
        self.0.store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Self::checked(u16::load(from)?, from)
    }

    fn store_all(items: &[Self], to: &mut Vec<u8>) {
        store_bytes(items.iter().map(|item| item.0.to_le_bytes()), to);
    }

    fn load_all(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, Damaged> {
        u16::load_all(count, from)?.into_iter().map(|bits| Self::checked(bits, from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        for exact in [0.0f32, -0.0, 1.0, -1.5, 127.0, 0.984_375] {
            assert_eq!(Bf16::nearest(exact).get().to_bits(), exact.to_bits());
        }
        assert_eq!(Bf16::nearest(1.0 + 1.0 / 256.0).get(), 1.0, "a tie to the even");
        assert_eq!(Bf16::nearest(1.0 + 3.0 / 256.0).get(), 1.0 + 4.0 / 256.0);
        assert_eq!(Bf16::nearest(f32::INFINITY).get(), Bf16::FARTHEST);
        assert_eq!(Bf16::nearest(f32::MIN).get(), -Bf16::FARTHEST);
    }

    proptest! {
        #[test]
        fn near_and_finite(value in proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL) {
            let near = Bf16::nearest(value).get();
            prop_assert!(near.is_finite());
            if value.is_normal() && value.abs() < 3e38 {
                prop_assert!((near - value).abs() <= value.abs() / 256.0);
            }
            prop_assert_eq!(Bf16::nearest(near).get().to_bits(), near.to_bits());
        }
    }
}
