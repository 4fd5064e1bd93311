//! The time and the samples that the ledgers of a model stand for. They take the same samples, so one
//! account does for all.

use crate::codec::stored;
use crate::stats::math::{Bounds, normal_ln};
use crate::time::Millis;

const HOUR: u32 = 3_600;
/// Ages at which half of the early peaks is forgotten: the detectors were still learning then.
const EARLY: [u32; 4] = [12 * HOUR, 24 * HOUR, 48 * HOUR, 96 * HOUR];
/// Time that ledgers stand for at most.
const WINDOW: u32 = 240 * HOUR;

/// What was watched; times are seconds since the first sample.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(Rust, packed(4))]
pub struct Exposure {
    born: Millis,
    window_from: u32,
    /// Samples that the peaks stand for.
    samples: f32,
    halvings: u8,
}

stored!(packed struct Exposure { born, window_from, samples, halvings } valid |e| e.samples >= 0.0);

impl Default for Exposure {
    fn default() -> Self {
        Exposure { born: Millis::MIN, window_from: 0, samples: 0.0, halvings: 0 }
    }
}

/// One sample's place in what is watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Seconds since the first sample.
    pub(super) now: u32,
    /// When that was.
    pub(super) born: Millis,
    /// Samples that the peaks stood for before it.
    samples: f32,
    /// Whether half of the peaks is to be forgotten after it: all but every second one, from this one on.
    pub(super) halve: Option<usize>,
}

fn depth(samples: f32) -> f64 {
    normal_ln(f64::from(samples).at_least(1.0))
}

impl Moment {
    /// [`Exposure::depth`] before it.
    pub(super) fn depth(&self) -> f64 {
        depth(self.samples)
    }
}

impl Exposure {
    /// −ln of one sample's share of all that the peaks stand for, at least 0.
    pub fn depth(&self) -> f64 {
        depth(self.samples)
    }

    /// Milliseconds since the first sample; 0 before it.
    pub fn age(&self, at: Millis) -> i64 {
        let born = self.born;
        if born == Millis::MIN { 0 } else { at.since(born) }
    }

    /// Counts a sample.
    pub fn take(&mut self, at: Millis) -> Moment {
        let mut born = self.born;
        if born == Millis::MIN {
            born = at;
            self.born = at;
        }
        let now = (at.since(born) / 1000).clamp(0, i64::from(u32::MAX)) as u32;
        let mut moment = Moment { now, born, samples: self.samples, halve: None };
        self.samples += 1.0;
        let early = EARLY.get(usize::from(self.halvings)).is_some_and(|age| now >= *age);
        let window = now.saturating_sub(self.window_from);
        if early || window >= WINDOW {
            self.halvings = self.halvings.saturating_add(1);
            self.window_from = now - window / 2;
            self.samples /= 2.0;
            moment.halve = Some(usize::from(self.halvings % 2));
        }
        moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_for_ten_days_at_most() {
        let mut exposure = Exposure::default();
        let mut halved = Vec::new();
        for hour in 0..24 * 30 {
            if exposure.take(Millis(7_000 + hour * 3_600_000)).halve.is_some() {
                halved.push(hour);
            }
        }
        assert_eq!(halved[..4], [12, 24, 48, 96]);
        let apart: Vec<i64> = halved[4..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|apart| (120..=240).contains(apart)), "{halved:?}");
        assert_eq!(exposure.age(Millis(10_000)), 3_000);
        assert!((60.0..240.0).contains(&libm::exp(exposure.depth())));
    }
}
