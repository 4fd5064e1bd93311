//! Finding a season's period: a ring of means that is there only while the search lasts, and its
//! autocorrelation once it is full.
//!
//! A search looks at one scale after the other, from single samples to means of ten minutes, so that
//! one kilobyte finds periods from eight sampling intervals to 21 hours. What it finds is a guess: who
//! asks has to try it.

use super::math::{bounded, sqrt};
use crate::codec::{Damaged, Reader, Stored};

/// Means in the ring.
const RING: usize = 256;
/// The longest lag that is looked at: two periods fit the ring.
const MOST: usize = RING / 2;
/// The shortest one: a peak of fewer means is not told from its neighbours.
const LEAST: usize = 6;
/// A period of so many coarser means is left to these.
const ENOUGH: i64 = 10;
/// The coarsest means, ms; a longer sampling interval is its own scale.
const COARSEST: i64 = 600_000;
/// The longest sampling interval, ms.
const LONGEST: i64 = 1_000_000_000_000;
/// A finer scale than the last is followed by one this much coarser.
const COARSER: i64 = 4;
/// The coarsest scale follows one that is at most this much finer.
const LAST_STEP: i64 = 5;
/// Least correlation at the period, its rise over the dip before, and what must be left of it at twice
/// the period.
const ALIKE: f64 = 0.5;
const RISE: f64 = 0.2;
const AGAIN: f64 = 0.7;
/// Beyond a third of the ring there are too few pairs to ask for so little.
const FEW: usize = RING / 3;
const ALIKE_OF_FEW: f64 = 0.6;
/// The first of nearly equal peaks is the period, the others are its multiples.
const NEARLY: f64 = 0.8;
/// Means farther from the line through all than this many standard deviations are drawn in.
const CLIP: f64 = 6.0;
/// How exactly a peak is told, in means.
const EXACT: f64 = 0.3;
/// Missing means that are bridged by the last one; after a longer gap the ring begins anew, at most so
/// many times.
const BRIDGED: i64 = 16;
const ANEW: u8 = 4;

/// What a search has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More samples are needed.
    Going,
    /// A period in ms that is worth a try, and the scale at which it showed: see [`Search::beyond`].
    Found(i64, i64),
    /// Nothing at any scale.
    Nothing,
}

/// A search in progress: 1 KiB and its own size.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// What one mean spans, ms.
    scale: i64,
    /// Periods below this are too few samples, ms.
    shortest: i64,
    /// The mean being made: its number since the epoch, sum and count.
    index: i64,
    sum: f64,
    count: u32,
    filled: u16,
    anew: u8,
    ring: Box<[f32]>,
}

/// Of the ring, what is filled.
impl Stored for Search {
    fn store(&self, to: &mut Vec<u8>) {
        let Search { scale, shortest, index, sum, count, filled, anew, ring } = self;
        scale.store(to);
        shortest.store(to);
        index.store(to);
        sum.store(to);
        count.store(to);
        anew.store(to);
        filled.store(to);
        f32::store_all(ring.get(..usize::from(*filled)).unwrap_or_default(), to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut search = Search::at(Stored::load(from)?, Stored::load(from)?);
        from.check(valid_scale(search.scale), "no scale of a search")?;
        search.index = Stored::load(from)?;
        search.sum = Stored::load(from)?;
        search.count = Stored::load(from)?;
        search.anew = Stored::load(from)?;
        search.filled = Stored::load(from)?;
        let Some(filled) = search.ring.get_mut(..usize::from(search.filled)) else {
            return Err(from.damaged("a ring beyond its size"));
        };
        filled.copy_from_slice(&f32::load_all(filled.len(), from)?);
        Ok(search)
    }
}

/// Whether a search can have such a scale, ms.
pub fn valid_scale(scale: i64) -> bool {
    (1..=LONGEST).contains(&scale)
}

impl Search {
    /// A search by single samples first, at the usual interval in ms.
    pub fn new(interval_ms: f64) -> Search {
        let scale = (interval_ms.clamp(1_000.0, LONGEST as f64) + 0.5) as i64;
        Search::at(scale, 8 * scale)
    }

    /// A search by scales coarser than this one only; `None` where there are none.
    pub fn beyond(scale: i64, interval_ms: f64) -> Option<Search> {
        let shortest = (8.0 * interval_ms.clamp(1_000.0, LONGEST as f64)) as i64;
        coarser(scale).map(|scale| Search::at(scale, shortest))
    }

    fn at(scale: i64, shortest: i64) -> Search {
        let ring = vec![0.0; RING].into();
        Search { scale, shortest, index: 0, sum: 0.0, count: 0, filled: 0, anew: 0, ring }
    }

    /// Takes a sample; times increase.
    pub fn take(&mut self, at_ms: i64, x: f64) -> Progress {
        let index = at_ms.div_euclid(self.scale);
        if self.count > 0 && index != self.index {
            let mean = bounded(self.sum / f64::from(self.count)) as f32;
            let gone = index.saturating_sub(self.index);
            if gone > BRIDGED {
                (self.filled, self.anew) = (0, self.anew.saturating_add(1));
            }
            for _ in 0..gone.clamp(0, BRIDGED) {
                if let Some(next) = self.ring.get_mut(usize::from(self.filled)) {
                    *next = mean;
                    self.filled += 1;
                }
            }
            (self.sum, self.count) = (0.0, 0);
        }
        self.index = index;
        self.sum = bounded(self.sum + x);
        self.count = self.count.saturating_add(1);
        if usize::from(self.filled) < RING && self.anew <= ANEW {
            return Progress::Going;
        }
        if self.anew <= ANEW
            && let Some((lag, span)) = lag(&self.ring)
        {
            let period = round(lag * self.scale as f64, EXACT / span);
            // Coarser means show more periods, and so tell the period more exactly.
            let later = coarser(self.scale).is_some_and(|scale| period >= ENOUGH * scale);
            if period >= self.shortest && !later {
                return Progress::Found(period, self.scale);
            }
        }
        match coarser(self.scale) {
            Some(scale) => {
                *self = Search::at(scale, self.shortest);
                Progress::Going
            }
            None => Progress::Nothing,
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.ring.len() * size_of::<f32>()
    }
}

fn coarser(scale: i64) -> Option<i64> {
    match scale {
        COARSEST.. => None,
        _ if scale * LAST_STEP >= COARSEST => Some(COARSEST),
        _ => Some(scale * COARSER),
    }
}

/// The roundest time within a share of a period: what repeats does so by somebody's timetable.
fn round(period_ms: f64, share: f64) -> i64 {
    const UNITS: [i64; 9] = [3_600_000, 1_800_000, 900_000, 600_000, 300_000, 60_000, 30_000, 10_000, 1_000];
    let near = |unit: i64| (period_ms / unit as f64 + 0.5).floor() * unit as f64;
    let fits = |unit: &i64| (near(*unit) - period_ms).abs() <= share * period_ms;
    UNITS.into_iter().find(fits).map_or(period_ms, near).clamp(1.0, 1e15) as i64
}

/// The lag after which values repeat, in means, and the lag of the peak by which it was told (a multiple).
fn lag(ring: &[f32]) -> Option<(f64, f64)> {
    let values = levelled(ring)?;
    let r = correlations(&values);
    let at = |lag: usize| r.get(lag).copied().unwrap_or(-1.0);
    let mut peaks = Vec::new();
    let mut dip = f64::INFINITY;
    for lag in 1..MOST {
        dip = dip.min(at(lag));
        let alike = if lag > FEW { ALIKE_OF_FEW } else { ALIKE };
        let top = at(lag) >= at(lag - 1) && at(lag) > at(lag + 1);
        if top && lag >= LEAST && at(lag) > alike && at(lag) - dip >= RISE {
            peaks.push(lag);
        }
    }
    let best = peaks.iter().map(|lag| at(*lag)).fold(0.0, f64::max);
    let first = peaks.into_iter().find(|lag| at(*lag) >= NEARLY * best)?;
    // Later peaks tell the period the more exactly.
    let mut told = summit(&r, first, first as f64);
    let mut period = told;
    for k in 2..=MOST / LEAST {
        let (middle, reach) = (period * k as f64, (period / 8.0).max(1.0));
        if middle + reach + 1.0 > MOST as f64 {
            break;
        }
        let near = (middle - reach + 0.5) as usize..=(middle + reach + 0.5) as usize;
        let Some(top) = near.max_by(|a, b| at(*a).total_cmp(&at(*b))) else { break };
        if at(top) < AGAIN * at(first) {
            // What does not come a third time was chance.
            return (k > 2).then_some((period, told));
        }
        told = summit(&r, top, period);
        period = told / k as f64;
    }
    Some((period, told))
}

/// The means less the line through them, far ones drawn in; `None` where they rest.
fn levelled(ring: &[f32]) -> Option<Vec<f64>> {
    let most = ring.iter().fold(0f32, |most, x| most.max(x.abs()));
    if most == 0.0 {
        return None;
    }
    let mut values: Vec<f64> = ring.iter().map(|x| f64::from(*x) / f64::from(most)).collect();
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    for _ in 0..4 {
        let mean = values.iter().sum::<f64>() / n;
        let (mut slope, mut spread) = (0.0, 0.0);
        for (k, v) in values.iter().enumerate() {
            slope += (k as f64 - middle) * (v - mean);
            spread += (k as f64 - middle) * (k as f64 - middle);
        }
        slope /= spread;
        for (k, v) in values.iter_mut().enumerate() {
            *v -= mean + slope * (k as f64 - middle);
        }
        let clip = CLIP * sqrt(values.iter().map(|v| v * v).sum::<f64>() / n);
        values.iter_mut().for_each(|v| *v = v.clamp(-clip, clip));
    }
    // Less than what single precision leaves of rounding is none.
    (values.iter().map(|v| v * v).sum::<f64>() / n > 1e-13).then_some(values)
}

/// Correlations of the values with themselves, by lag up to [`MOST`].
fn correlations(values: &[f64]) -> Vec<f64> {
    (0..=MOST)
        .map(|lag| {
            let (mut both, mut early, mut late) = (0.0, 0.0, 0.0);
            for (a, b) in values.iter().zip(values.get(lag..).unwrap_or_default()) {
                both += a * b;
                early += a * a;
                late += b * b;
            }
            let size = sqrt(early) * sqrt(late);
            if size > 0.0 { both / size } else { 0.0 }
        })
        .collect()
}

/// The summit of the parabola fitted to a peak at a lag, as wide as peaks of such a period are.
fn summit(r: &[f64], lag: usize, period: f64) -> f64 {
    let reach = ((period / 10.0) as usize).min(MOST.saturating_sub(lag)).max(1);
    let (mut n, mut squares, mut fourths) = (0.0, 0.0, 0.0);
    let (mut level, mut tilt, mut bow) = (0.0, 0.0, 0.0);
    for k in 0..=2 * reach {
        let Some(value) = (lag + k).checked_sub(reach).and_then(|at| r.get(at)) else { continue };
        let x = k as f64 - reach as f64;
        n += 1.0;
        squares += x * x;
        fourths += x * x * x * x;
        level += value;
        tilt += x * value;
        bow += x * x * value;
    }
    // Least squares of c + b x + a x² over symmetric x.
    let bend = (n * bow - squares * level) / (n * fourths - squares * squares).max(f64::MIN_POSITIVE);
    let slope = tilt / squares.max(f64::MIN_POSITIVE);
    let most = reach as f64;
    lag as f64 + if bend < 0.0 { (-0.5 * slope / bend).clamp(-most, most) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Close to normal, by number.
    fn noise(k: i64, seed: u64) -> f64 {
        let mut sum = -6.0;
        for j in 0..12u64 {
            let mut z = (k as u64 * 12 + j).wrapping_add(seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            sum += ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }

    fn search(interval: i64, mut value: impl FnMut(i64) -> f64) -> Progress {
        let mut search = Search::new(interval as f64);
        for k in 0..60 * 86_400_000 / interval {
            match search.take(1_700_000_000_000 + k * interval, value(k)) {
                Progress::Going => {}
                done => return done,
            }
        }
        Progress::Going
    }

    #[test]
    fn periods_are_found_to_a_hundredth() {
        const MINUTE: i64 = 60_000;
        for interval in [15_000, 60_000, 300_000] {
            for period in
                [20 * MINUTE, 90 * MINUTE, 5_238_000, 5 * 60 * MINUTE, 10 * 60 * MINUTE, 19 * 60 * MINUTE]
            {
                if period < 8 * interval {
                    continue;
                }
                for shape in 0..2 {
                    let found = search(interval, |k| {
                        let at = (k * interval).rem_euclid(period) as f64 / period as f64;
                        let season = match shape {
                            0 => 3.0 * libm::sin(std::f64::consts::TAU * at),
                            _ if at < 0.12 => 12.0,
                            _ => 0.0,
                        };
                        1_000.0 + season + noise(k, period as u64)
                    });
                    let Progress::Found(told, _) = found else {
                        panic!("{interval} {period} {shape}: {found:?}");
                    };
                    let off = (told - period).abs() as f64 / period as f64;
                    assert!(off < 0.01, "{interval} {period} {shape}: {told}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_repeat_is_not_found() {
        for seed in 0..20 {
            for interval in [60_000, 300_000] {
                assert_eq!(search(interval, |k| noise(k, seed)), Progress::Nothing);
                let trend = search(interval, |k| 1e6 + 10.0 * k as f64 + noise(k, seed));
                assert_eq!(trend, Progress::Nothing);
                assert_eq!(search(interval, |_| 7.0), Progress::Nothing);
                let spike = search(interval, |k| noise(k, seed) + if noise(k, 99) > 3.5 { 1e6 } else { 0.0 });
                assert_eq!(spike, Progress::Nothing);
            }
        }
    }

    #[test]
    fn a_walk_is_hardly_ever_taken_for_a_season() {
        let mut taken = 0;
        for seed in 0..40 {
            let mut level = 0.0;
            let found = search(60_000, |k| {
                level += noise(k, seed);
                level
            });
            taken += u32::from(matches!(found, Progress::Found(..)));
        }
        assert!(taken <= 4, "{taken} of 40");
    }

    #[test]
    fn the_search_ends_whatever_comes() {
        let mut search = Search::new(15_000.0);
        let ended = (0..3_000i64).any(|k| search.take(k * 86_400_000, k as f64) == Progress::Nothing);
        assert!(ended && search.heap_bytes() == 1_024);
        let mut huge = Search::new(60_000.0);
        for k in 0..2_000i64 {
            let x = if k % 20 < 10 { 1e37 } else { -1e37 };
            assert!(huge.take(k * 60_000, x) != Progress::Nothing);
        }
        assert_eq!(Search::beyond(COARSEST, 15_000.0), None);
        assert_eq!(round(5_394_000.0, 0.002), 5_400_000);
        assert_eq!(round(5_238_400.0, 0.0001), 5_238_000);
    }
}
