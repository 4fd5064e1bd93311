//! A profile whose period was found: on trial, then kept as long as it helps.

use super::{CLEAR, HOUR, WORTH};
use crate::codec::stored;
use crate::stats::math::{bounded, young};
use crate::stats::period::valid_scale;
use crate::stats::season::{Now, Profile};
use crate::time::Millis;

/// A profile whose period was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    profile: Profile,
    /// The scale at which it showed, ms.
    scale: i64,
    started: Millis,
    /// A level that follows as fast as the profile, and the samples it took.
    level: f64,
    samples: u32,
    plain: f64,
    with: f64,
    kept: bool,
}

stored!(struct Found { profile, scale, started, level, samples, plain, with, kept } valid |f| {
    valid_scale(f.scale)
});

impl Found {
    /// A profile to be tried.
    pub(super) fn new(period: i64, scale: i64, now: Now, interval: f64) -> Found {
        Found {
            profile: Profile::fitted(period, interval),
            scale,
            started: Millis(now.utc),
            level: 0.0,
            samples: 0,
            plain: 0.0,
            with: 0.0,
            kept: false,
        }
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The scale at which its period showed, ms.
    pub(super) fn scale(&self) -> i64 {
        self.scale
    }

    /// The mean squared distance of the signal from the season with this profile.
    pub(super) fn with(&self) -> f64 {
        self.with
    }

    pub(super) fn kept(&self) -> bool {
        self.kept
    }

    /// Whether it is kept, or better than none so far.
    pub(super) fn useful(&self) -> bool {
        self.kept || self.plain > 0.0 && self.with <= WORTH * self.plain
    }

    /// Compares, learns and decides; `false` where it is not, or no longer, worth its memory.
    pub(super) fn take(
        &mut self,
        now: Now,
        interval: f64,
        rest: f64,
        gamma: f64,
        square: impl Fn(f64) -> f64,
    ) -> bool {
        let period = self.profile.period();
        let trial = (10 * period).clamp(6 * HOUR, 24 * HOUR);
        if let Some(value) = self.profile.at(now, interval) {
            let gain = (interval / trial as f64).min(0.1);
            self.plain += gain * (square(rest - self.level) - self.plain);
            self.with += gain * (square(rest - value) - self.with);
        }
        self.profile.learn(now, interval, rest, gamma);
        let gain = (gamma * self.profile.pace() * interval / period as f64).max(young(self.samples)).min(1.0);
        self.level = bounded(self.level + gain * (rest - self.level));
        self.samples = self.samples.saturating_add(1);
        let age = Millis(now.utc).since(self.started).saturating_sub(period);
        if self.kept {
            return self.with <= self.plain;
        }
        if age > 2 * trial || age > trial && self.with < CLEAR * self.plain {
            self.kept = self.with < WORTH * self.plain;
            return self.kept;
        }
        true
    }
}
