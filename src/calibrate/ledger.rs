//! A ledger of the series' own recent peaks of evidence.
//!
//! Events are counted, not samples: a peak is a running maximum that nothing exceeded for
//! [`APART`]. The largest [`PEAKS`] and the samples they stand for give the rate at which a healthy
//! series reaches any evidence; above the least of them the tail is exponential in the evidence
//! (nats already), its scale a censored mean: the top quarter counts no more than its least member,
//! so incidents cannot move it much (Epstein & Sobel 1953), shrunk towards a prior. Old peaks leave by halving.
//! Where few samples stand behind a peak, the tail is taken from nearer its middle, where it may be steeper
//! than farther out: there the top quarter's own scale tells what lies beyond it, should that be wider.

use super::exposure::Moment;
use crate::codec::{Damaged, Reader, Stored};
use crate::stats::math::{Bounds, normal_ln};

/// Peaks kept.
pub const PEAKS: usize = 24;
/// Time without a greater value that ends a peak, s.
const APART: u32 = 3_600;
/// Peaks before the ledger has a say.
const FEWEST: u16 = 3;
/// Steps a nat in a stored peak.
const STEPS: f64 = 256.0;
/// Where an incident is told from the tail.
const INCIDENT: Prior = Prior { peaks: 10.0, scale: 2.5 };
/// Peaks that the tail's scale weighs against that of the top quarter.
const TOP_PRIOR: f64 = 0.3;
/// Nats of the least peak's rate: from the first on the tail is told as one, to the second the top
/// quarter's scale counts in full beyond it. At 60 s a full ledger reaches deeper, at 5 min it does not.
const DEEP: f64 = 6.1;
const SHALLOW: f64 = 5.3;
/// Allowed nats beyond which, times this, a peak is an incident.
const FAR: f64 = 1.2;
/// Minutes that earn one peak left out, and how many can be saved up.
const CREDIT: u16 = 24 * 60;
const MOST: u16 = 8 * CREDIT;
/// Logarithms of the numbers of peaks held.
const LN_HELD: [f64; PEAKS + 1] = {
    let mut table = [0.0; PEAKS + 1];
    let mut held = 1;
    while held <= PEAKS {
        table[held] = normal_ln(held as f64);
        held += 1;
    }
    table
};

/// What is thought of a tail's scale before its peaks have told it. Chosen on the development data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// Peaks that it weighs.
    pub peaks: f64,
    /// The scale, in units of the evidence.
    pub scale: f64,
}

/// The peaks, largest first; 68 bytes. What they stand for is in the model's [`super::Exposure`]; times are
/// seconds since its birth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    candidate: f32,
    candidate_at: u32,
    peaks: [u16; PEAKS],
    /// Far peaks that may still be left out, in minutes.
    credit: u16,
    /// Peaks entered, saturating.
    entered: u16,
    /// Far peaks by hour of day, two bits each.
    hours: [u8; 6],
    held: u8,
}

/// Of the peaks, those held.
impl Stored for Ledger {
    fn store(&self, to: &mut Vec<u8>) {
        let Ledger { candidate, candidate_at, peaks, credit, entered, hours, held } = self;
        candidate.store(to);
        candidate_at.store(to);
        credit.store(to);
        entered.store(to);
        hours.store(to);
        held.store(to);
        u16::store_all(peaks.get(..usize::from(*held)).unwrap_or_default(), to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut ledger = Ledger {
            candidate: Stored::load(from)?,
            candidate_at: Stored::load(from)?,
            credit: Stored::load(from)?,
            entered: Stored::load(from)?,
            hours: from.array()?,
            held: Stored::load(from)?,
            peaks: [0; PEAKS],
        };
        let Some(held) = ledger.peaks.get_mut(..usize::from(ledger.held)) else {
            return Err(from.damaged("more peaks than a ledger holds"));
        };
        for (peak, bytes) in held.iter_mut().zip(from.bytes(2 * usize::from(ledger.held))?.as_chunks().0) {
            *peak = u16::from_le_bytes(*bytes);
        }
        Ok(ledger)
    }
}

impl Ledger {
    /// How much the ledger's word weighs, 0 (young) to 1.
    pub fn weight(&self) -> f64 {
        if self.held < 2 {
            return 0.0;
        }
        (f64::from(self.entered.saturating_sub(FEWEST)) / 8.0).at_most(1.0)
    }

    /// How much is still to be learnt of the tail: 1 at first, 0 once five days of peaks were entered.
    pub fn youth(&self) -> f64 {
        1.0 - (f64::from(self.entered) / 120.0).at_most(1.0)
    }

    /// −ln of the rate per sample at which the series' own peaks reach `evidence`, where they stand for
    /// samples of this [`super::Exposure::depth`]; strictly increasing in the evidence, 0 at 0.
    pub fn nats(&self, depth: f64, evidence: f64, prior: Prior) -> f64 {
        let held = usize::from(self.held);
        let Some(peaks) = self.peaks.get(..held) else { return 0.0 };
        let Some(least) = peaks.last() else { return 0.0 };
        let u = (f64::from(*least) / STEPS).at_least(1e-3);
        let few = LN_HELD.get(held).copied().unwrap_or_default();
        let at_least = (depth - few).at_least(std::f64::consts::LN_2);
        if evidence <= u {
            return at_least * evidence / u;
        }
        let scale = self.scale(peaks, u, prior);
        let knee = peaks.get(peaks.len() / 4).map_or(u, |p| f64::from(*p) / STEPS);
        let shallow = ((DEEP - at_least) / (DEEP - SHALLOW)).within(0.0, 1.0);
        if evidence <= knee || shallow <= 0.0 {
            return at_least + (evidence - u) / scale;
        }
        let beyond = scale + shallow * (Self::top_scale(peaks, knee, scale) - scale);
        at_least + (knee - u) / scale + (evidence - knee) / beyond
    }

    /// The scale of what exceeds the top quarter's least, at least `scale`; of six, the greatest counts
    /// no more than the second. Fewer than three tell nothing.
    fn top_scale(peaks: &[u16], knee: f64, scale: f64) -> f64 {
        let quarter = peaks.len() / 4;
        if quarter < 3 {
            return scale;
        }
        let censored = quarter / 5;
        let cap = peaks.get(censored).copied().unwrap_or(0);
        let steps: u32 = peaks.iter().take(quarter).map(|p| u32::from(*p.min(&cap))).sum();
        let sum = f64::from(steps) / STEPS - knee * quarter as f64;
        scale.at_least((sum + TOP_PRIOR * scale) / ((quarter - censored) as f64 + TOP_PRIOR))
    }

    /// The greatest evidence kept, of a peak that is over or still on.
    pub fn greatest(&self) -> f64 {
        let peak = self.peaks.first().map_or(0.0, |p| f64::from(*p) / STEPS);
        peak.at_least(f64::from(self.candidate))
    }

    /// The least peak held, 0 where there is none.
    pub fn least(&self) -> f64 {
        let last = usize::from(self.held).checked_sub(1);
        last.and_then(|k| self.peaks.get(k)).map_or(0.0, |p| f64::from(*p) / STEPS)
    }

    fn scale(&self, peaks: &[u16], u: f64, prior: Prior) -> f64 {
        let quarter = peaks.len() / 4;
        let cap = peaks.get(quarter).copied().unwrap_or(0);
        let steps: u32 = peaks.iter().map(|p| u32::from(*p.min(&cap))).sum();
        let sum = f64::from(steps) / STEPS - u * peaks.len() as f64;
        let free = (peaks.len().saturating_sub(1 + quarter)).max(1) as f64;
        // Peaks that are wider than the prior thought are believed sooner than narrower ones.
        let own = sum / free;
        let weight = if own > prior.scale && self.youth() > 0.0 {
            prior.peaks * (prior.scale / own) * (prior.scale / own)
        } else {
            prior.peaks
        };
        (sum + weight * prior.scale) / (free + weight)
    }

    /// Takes the evidence of one sample. `bar`: nats beyond which, by a margin, a peak is an incident.
    /// `refill`: peaks up to which one below all others is entered, at most [`PEAKS`]. After a halving
    /// such peaks are of the last hours and not of all the time that the ledger stands for: they tell
    /// the tail wider than it is.
    pub fn learn(&mut self, moment: &Moment, evidence: f64, bar: f64, refill: usize) {
        let past = moment.now.saturating_sub(self.candidate_at);
        if past >= APART {
            self.credit = self.credit.saturating_add((past / 60).min(u32::from(MOST)) as u16).min(MOST);
            self.enter(moment, bar, refill);
            self.candidate = 0.0;
            self.candidate_at = moment.now;
        }
        if evidence as f32 > self.candidate {
            (self.candidate, self.candidate_at) = (evidence as f32, moment.now);
        }
        if let Some(start) = moment.halve {
            self.halve(start);
        }
    }

    /// Enters the peak that is over; one far beyond the `bar` is left out while there is credit, for an
    /// incident is no news of the healthy tail. At an hour of the day that has had such peaks it is
    /// entered all the same: a nightly job is healthy.
    fn enter(&mut self, moment: &Moment, bar: f64, refill: usize) {
        let mut candidate = f64::from(self.candidate);
        let nats = self.nats(moment.depth(), candidate, INCIDENT);
        if nats > FAR * bar && usize::from(self.entered) >= PEAKS && !self.expected_now(moment) {
            if let Some(left) = self.credit.checked_sub(CREDIT) {
                self.credit = left;
                return;
            }
            // Entered, but no farther than it takes.
            candidate *= FAR * bar / nats;
        }
        let peak = (candidate * STEPS).at_most(f64::from(u16::MAX)) as u16;
        self.entered = self.entered.saturating_add(1);
        let held = usize::from(self.held);
        let at = self.peaks.iter().take(held).position(|p| *p < peak).unwrap_or(held);
        if at < PEAKS && (at < held || held < refill) {
            if let Some(tail) = self.peaks.get_mut(at..) {
                tail.rotate_right(1);
                if let Some(slot) = tail.first_mut() {
                    *slot = peak;
                }
            }
            self.held = (self.held + 1).min(PEAKS as u8);
        }
    }

    /// Counts a far peak at its hour of the day; whether that hour has had three before.
    fn expected_now(&mut self, moment: &Moment) -> bool {
        let at = moment.born.0.saturating_add(i64::from(self.candidate_at) * 1000);
        let hour = at.div_euclid(3_600_000).rem_euclid(24) as usize;
        let Some(four) = self.hours.get_mut(hour / 4) else { return false };
        let place = 2 * (hour % 4);
        let seen = (*four >> place) & 3;
        if seen < 3 {
            *four += 1 << place;
        }
        seen == 3
    }

    /// Forgets all but every second peak, from `start` on, and half of what was counted by hours.
    fn halve(&mut self, start: usize) {
        for hours in &mut self.hours {
            *hours = (*hours >> 1) & 0b0101_0101;
        }
        let mut kept = [0; PEAKS];
        let mut n = 0u8;
        for (slot, peak) in
            kept.iter_mut().zip(self.peaks.iter().take(usize::from(self.held)).skip(start).step_by(2))
        {
            *slot = *peak;
            n += 1;
        }
        (self.peaks, self.held) = (kept, n);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Exposure;
    use super::*;
    use crate::time::Millis;

    const PRIOR: Prior = Prior { peaks: 20.0, scale: 1.6 };

    fn hourly(peaks: &[f64]) -> (Ledger, f64) {
        let (mut l, mut exposure) = (Ledger::default(), Exposure::default());
        for (k, p) in peaks.iter().enumerate() {
            l.learn(&exposure.take(Millis(k as i64 * 3_600_000)), *p, 10.0, PEAKS);
        }
        (l, exposure.depth())
    }

    #[test]
    fn a_cluster_is_one_peak() {
        let (mut l, mut exposure) = (Ledger::default(), Exposure::default());
        for k in 0..100 {
            l.learn(&exposure.take(Millis(k * 60_000)), if k == 50 { 9.0 } else { 3.0 }, 10.0, PEAKS);
        }
        assert_eq!(l.entered, 0);
        l.learn(&exposure.take(Millis(50 * 60_000 + 3_600_000)), 1.0, 10.0, PEAKS);
        assert_eq!((l.entered, l.peaks[0]), (1, 9 * 256));
    }

    #[test]
    fn tail_by_hand() {
        // Nine samples, of which eight are entered: 8 7 6 5 4 3 2 1; a rate of 8 in 9.
        let (l, depth) = hourly(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0]);
        assert_eq!(l.held, 8);
        // The top two count as 6: a mean excess of (5 + 5 + 5 + 4 + 3 + 2 + 1 + 0) / 5 = 5. Being wider than
        // the prior, it is up against 20 · (1.6 / 5)² = 2.048 of it: (25 + 2.048 · 1.6) / (5 + 2.048) = 4.012.
        assert!(
            (l.nats(depth, 11.0, PRIOR) - (2f64.ln() + 10.0 / 4.012)).abs() < 1e-3,
            "{}",
            l.nats(depth, 11.0, PRIOR)
        );
        assert!(l.nats(depth, 1e300, PRIOR).is_finite() && l.nats(depth, 0.0, PRIOR) == 0.0);
    }

    #[test]
    fn one_huge_peak_hardly_moves_the_tail() {
        let quiet: Vec<f64> = (0..11).map(|k| 5.0 + f64::from(k % 4)).collect();
        let mut odd = quiet.clone();
        odd[7] = 200.0;
        let nats = |(l, depth): (Ledger, f64)| l.nats(depth, 20.0, PRIOR);
        assert!((nats(hourly(&odd)) - nats(hourly(&quiet))).abs() < 4.0);
    }
}
