//! Elementary functions in pure Rust, so that no platform's own library shows: logarithms by a short
//! series in a fixed order, the rest from `libm`.

/// Values are held within ±this before they enter any state: a difference of two fits an `f32`, and a long sum
/// of squares an `f64`.
pub const LIMIT: f64 = 1e37;

/// Bounds as one instruction: `f64::max` and its like take several to pass a number on where the other is none.
/// Here what is not a number becomes the bound.
pub trait Bounds: Copy + PartialOrd {
    /// The greater of the two.
    #[inline(always)]
    #[must_use]
    fn at_least(self, least: Self) -> Self {
        if self > least { self } else { least }
    }

    /// The lesser of the two.
    #[inline(always)]
    #[must_use]
    fn at_most(self, most: Self) -> Self {
        if self < most { self } else { most }
    }

    /// The nearest from `least` to `most`.
    #[inline(always)]
    #[must_use]
    fn within(self, least: Self, most: Self) -> Self {
        self.at_least(least).at_most(most)
    }
}

impl Bounds for f64 {}
impl Bounds for f32 {}

/// Natural logarithm, to 1e-12 of its value; about twice as fast as `libm`'s, and inlined.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    if !(f64::MIN_POSITIVE..=f64::MAX).contains(&x) {
        return unusual(x);
    }
    normal_ln(x)
}

/// [`ln`] of a normal positive number.
#[inline(always)]
pub const fn normal_ln(x: f64) -> f64 {
    // x = 2^e m with m in [√½, √2), then ln m = 2 artanh s with s = (m − 1) / (m + 1), |s| < 0.172.
    const ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
    let offset = x.to_bits().wrapping_sub(ROOT);
    let e = (offset as i64) >> 52;
    let m = f64::from_bits(x.to_bits().wrapping_sub((e as u64) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let q2 = q * q;
    let low = (1.0 + q * (1.0 / 3.0)) + q2 * (0.2 + q * (1.0 / 7.0));
    let high = (1.0 / 9.0 + q * (1.0 / 11.0)) + q2 * (1.0 / 13.0 + q * (1.0 / 15.0));
    e as f64 * std::f64::consts::LN_2 + 2.0 * s * (low + q2 * q2 * high)
}

/// Logarithms of what is not a normal positive number: kept out of the way of the others.
#[cold]
fn unusual(x: f64) -> f64 {
    libm::log(x)
}

/// Natural logarithm in single precision (to 1e-7), for evidence that is itself rough.
#[inline(always)]
pub fn ln32(x: f32) -> f32 {
    if !(f32::MIN_POSITIVE..=f32::MAX).contains(&x) {
        return unusual(f64::from(x)) as f32;
    }
    normal_ln32(x)
}

/// [`ln32`] of a normal positive number: without a branch, so that several are taken at one go.
#[inline(always)]
pub fn normal_ln32(x: f32) -> f32 {
    const ROOT: u32 = 0x3f35_04f3;
    let offset = x.to_bits().wrapping_sub(ROOT);
    let e = (offset as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((e as u32) << 23));
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let q2 = q * q;
    let series = (1.0 + q * (1.0 / 3.0)) + q2 * (0.2 + q * (1.0 / 7.0) + q2 * (1.0 / 9.0));
    e as f32 * std::f32::consts::LN_2 + 2.0 * s * series
}

/// `e^x`.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `2^x`.
pub fn exp2(x: f64) -> f64 {
    libm::exp2(x)
}

/// `x^y`.
pub fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// The gain 1 / (n + 1) of a plain mean after `n` values; 0 once far below any fixed gain beside it.
#[inline]
pub fn young(n: u32) -> f64 {
    if n < 4096 { 1.0 / (f64::from(n) + 1.0) } else { 0.0 }
}

/// Square root (exact by IEEE 754, hence portable); 0 for negative arguments.
pub fn sqrt(x: f64) -> f64 {
    x.at_least(0.0).sqrt()
}

/// The least `f32` that is not below `x`, which is one within its range.
pub fn wide32(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}

/// Holds a finite value within ±[`LIMIT`].
pub fn bounded(x: f64) -> f64 {
    x.within(-LIMIT, LIMIT)
}

/// A ratio of magnitudes: finite and at least 0 for any finite arguments, large where `scale` is 0.
pub fn ratio(distance: f64, scale: f64) -> f64 {
    (distance.abs() / scale.at_least(f64::MIN_POSITIVE)).at_most(1e30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_libm() {
        for k in -3000..3000i32 {
            let x = libm::exp(f64::from(k) * 0.2317) * (1.0 + f64::from(k) * 1e-5);
            let (fast, slow) = (ln(x), libm::log(x));
            assert!(
                fast == slow || (fast - slow).abs() <= 2e-12 * slow.abs().max(1e-3),
                "{x}: {fast} {slow}"
            );
            let x = x as f32;
            let (fast, slow) = (ln32(x), libm::logf(x));
            assert!(fast == slow || (fast - slow).abs() <= 3e-7 * slow.abs().max(1.0), "{x}: {fast} {slow}");
        }
        assert_eq!((ln(1.0), ln32(1.0), ln(0.0)), (0.0, 0.0, f64::NEG_INFINITY));
        assert!(ln(-1.0).is_nan() && ln(f64::INFINITY) == f64::INFINITY);
        assert!((ln(5e-324) - libm::log(5e-324)).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_finite() {
        assert_eq!(ratio(0.0, 0.0), 0.0);
        assert_eq!(ratio(-3.0, 1.5), 2.0);
        assert_eq!(ratio(1e37, 0.0), 1e30);
        assert_eq!(bounded(1e308), LIMIT);
        assert_eq!((wide32(0.5), wide32(0.1)), (0.5, 0.1f32), "which is above a tenth");
        assert!(wide32(0.7) > 0.7f32 && f64::from(wide32(0.7)) >= 0.7 && wide32(2.0 * LIMIT).is_finite());
        assert_eq!(exp2(-1.0), 0.5);
        assert_eq!(pow(2.0, 3.0), 8.0);
        assert_eq!(sqrt(-1.0), 0.0);
    }
}
