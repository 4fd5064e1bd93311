//! Healthy synthetic series, by family.

use crate::random::Random;

const DAY: f64 = 86_400.0;

/// A kind of healthy series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named for what they are
pub enum Family {
    Gauss,
    Student3,
    LogNormal,
    Exponential,
    PoissonSmall,
    PoissonLarge,
    Ar50,
    Ar90,
    Ar99,
    DailyWeekly,
    Bursty,
    Quantised,
    MostlyConstant,
    CounterRate,
    RandomWalk,
    Trend,
    Regimes,
    NightlyJob,
    Job90,
}

impl Family {
    /// All; the promise is held against the first fourteen, the others are only watched.
    pub const ALL: [Family; 19] = [
        Family::Gauss,
        Family::Student3,
        Family::LogNormal,
        Family::Exponential,
        Family::PoissonSmall,
        Family::PoissonLarge,
        Family::Ar50,
        Family::Ar90,
        Family::Ar99,
        Family::DailyWeekly,
        Family::Bursty,
        Family::Quantised,
        Family::MostlyConstant,
        Family::CounterRate,
        Family::RandomWalk,
        Family::Trend,
        Family::Regimes,
        Family::NightlyJob,
        Family::Job90,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        [
            "gauss",
            "student t3",
            "log-normal",
            "exponential",
            "poisson 2",
            "poisson 500",
            "ar 0.5",
            "ar 0.9",
            "ar 0.99",
            "daily+weekly",
            "bursty",
            "quantised",
            "mostly constant",
            "counter rate",
            "(random walk)",
            "(trend)",
            "(on/off regime)",
            "(nightly job)",
            "(90-minute job)",
        ][self as usize]
    }
}

/// A series being made, one sample after the other.
#[derive(Clone, Debug)]
pub struct Series {
    family: Family,
    random: Random,
    level: f64,
    scale: f64,
    state: f64,
    left: u32,
    phase: f64,
}

impl Series {
    /// The `index`-th series of a family.
    pub fn new(family: Family, seed: u64, index: usize) -> Series {
        let mut random = Random::new(seed, 1_000 * (family as u64 + 1) + index as u64);
        // Neither level nor width is special; days begin on a full or half hour.
        let scale = 10f64.powf(-2.0 + 5.0 * random.uniform());
        let level = scale * 10f64.powf(0.5 + 1.5 * random.uniform());
        let phase = 1_800.0 * (48.0 * random.uniform()).floor();
        Series { family, level, scale, state: 0.0, left: 0, phase, random }
    }

    /// The width of its noise, in its unit: the standard deviation round its (seasonal) mean.
    pub fn width(&self) -> f64 {
        match self.family {
            Family::PoissonSmall => 2f64.sqrt(),
            Family::PoissonLarge => 500f64.sqrt(),
            Family::Student3 => 3f64.sqrt() * self.scale,
            Family::LogNormal => self.scale * (1f64.exp() * (1f64.exp() - 1.0)).sqrt(),
            Family::Quantised => self.scale,
            Family::MostlyConstant => 0.35,
            // One burst in 200 samples, 10 long, 8 scales high on average.
            Family::Bursty => 3.0 * self.scale,
            Family::CounterRate => 100f64.sqrt() / 15.0,
            Family::DailyWeekly => self.scale,
            _ => self.scale,
        }
    }

    /// Whether 8 noise widths are far outside all that the healthy family does.
    pub fn light(family: Family) -> bool {
        !matches!(
            family,
            Family::Student3
                | Family::LogNormal
                | Family::Bursty
                | Family::MostlyConstant
                | Family::Exponential
        )
    }

    fn auto_regressive(&mut self, phi: f64) -> f64 {
        self.state = phi * self.state + (1.0 - phi * phi).sqrt() * self.random.normal();
        self.level + self.scale * self.state
    }

    /// The season's part at a time in seconds, without noise.
    fn season(&self, at: f64) -> f64 {
        let day = (std::f64::consts::TAU * (at + self.phase) / DAY).sin();
        let weekend = ((at + self.phase) / DAY).rem_euclid(7.0) >= 5.0;
        (10.0 + 6.0 * day) * if weekend { 0.6 } else { 1.0 }
    }

    /// The value at `at` seconds; `None` where the family has no sample (a counter's reset).
    pub fn next(&mut self, at: f64, interval: f64) -> Option<f64> {
        let (level, scale) = (self.level, self.scale);
        let value = match self.family {
            Family::Gauss => level + scale * self.random.normal(),
            Family::Student3 => level + scale * self.random.student3(),
            Family::LogNormal => scale * self.random.normal().exp(),
            Family::Exponential => scale * self.random.exponential(),
            Family::PoissonSmall => self.random.poisson(2.0),
            Family::PoissonLarge => self.random.poisson(500.0),
            Family::Ar50 => self.auto_regressive(0.5),
            Family::Ar90 => self.auto_regressive(0.9),
            Family::Ar99 => self.auto_regressive(0.99),
            Family::DailyWeekly => {
                let season = self.season(at);
                scale * season * (1.0 + 0.08 * self.random.normal())
            }
            Family::Bursty => {
                if self.left == 0 && self.random.happens(0.005) {
                    self.left = 1 + (10.0 * self.random.exponential()) as u32;
                    self.state = 8.0 * self.random.exponential();
                }
                let burst = if self.left > 0 { self.state } else { 0.0 };
                self.left = self.left.saturating_sub(1);
                level + scale * (burst + self.random.normal())
            }
            Family::Quantised => (level / scale).round() * scale + scale * self.random.normal().round(),
            Family::MostlyConstant => {
                if self.left == 0 && self.random.happens(0.01) {
                    self.left = 1 + (5.0 * self.random.exponential()) as u32;
                    self.state = 1.0 + self.random.poisson(0.5);
                }
                let off = if self.left > 0 { self.state } else { 0.0 };
                self.left = self.left.saturating_sub(1);
                3.0 + off
            }
            Family::CounterRate => {
                if self.random.happens(interval / (3.0 * DAY)) {
                    return None;
                }
                let mean = 100.0 * interval / 15.0;
                self.random.poisson(mean) / interval
            }
            Family::RandomWalk => {
                self.state += self.random.normal();
                level + scale * self.state
            }
            Family::Trend => level + scale * (at / DAY * 2.0 + self.random.normal()),
            Family::Regimes => {
                if self.left == 0 {
                    self.left = 1 + (4.0 * 3_600.0 / interval * self.random.exponential()) as u32;
                    self.state = if self.state == 0.0 { 10.0 } else { 0.0 };
                }
                self.left -= 1;
                level + scale * (self.state + self.random.normal())
            }
            Family::NightlyJob => {
                let on = (at + self.phase).rem_euclid(DAY) < 1_800.0;
                level + scale * (if on { 12.0 } else { 0.0 } + self.random.normal())
            }
            Family::Job90 => {
                let on = (at + self.phase / 16.0).rem_euclid(5_400.0) < 600.0;
                level + scale * (if on { 12.0 } else { 0.0 } + self.random.normal())
            }
        };
        Some(value)
    }
}
