//! Where a new series borrows from: what the series of one kind, a *cohort*, have learnt.
//!
//! Members tell their level and scale; one of them, the *donor*, lends a copy of its whole model.
//! A new series that has shown a few samples starts from that copy, moved to its own level as far
//! as members' levels differ. What lies beyond is judged as odd: a pod that is broken from its start.

mod image;

pub use image::Donors;
pub(crate) use image::EPOCHS;

use super::{Model, ModelParams};
use crate::stats::math::{bounded, sqrt};
use crate::time::Millis;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Samples of its own that a series shows before it borrows.
pub const SHOWN: u32 = 4;
/// Members of a cohort whose level and scale are kept.
const MEMBERS: usize = 8;
/// Cohorts of an epoch.
const COHORTS: usize = 16_384;
/// Donors that one summary holds before it is merged with others: models are large.
const DONORS: usize = 64;
/// Epochs for which a prior is kept that nobody renews: a week.
const KEPT: i64 = 168;
/// Scales that the mean of the first samples may be off a level.
const WITHIN: f64 = 3.0;
/// Standard deviations of the members' levels that a new one may be off, if those are well known.
const BETWEEN: f64 = 4.0;
/// Scales of members that differ by more than this are not of one kind.
const ALIKE: f32 = 2.0;
/// Epochs for which a cohort's level is taken to go on drifting.
const DRIFTING: i64 = 6;

/// What a member tells.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Member {
    hash: u64,
    level: f32,
    scale: f32,
}

/// Members of one cohort: how many, and those of the lowest hashes, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    series: u32,
    members: Vec<Member>,
}

impl Group {
    fn add(&mut self, member: Member) {
        let at = self.members.partition_point(|have| have.hash <= member.hash);
        if at < MEMBERS {
            self.members.insert(at, member);
            self.members.truncate(MEMBERS);
        }
    }
}

/// What the cohorts' members told in one epoch. Bounded; order-free.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cohorts {
    groups: BTreeMap<u64, Group>,
    /// By cohort: the member of the lowest hash, and its model.
    donors: BTreeMap<u64, (u64, Arc<Model>)>,
    refused: u64,
}

impl Cohorts {
    /// A member of some cohorts tells its state: `hash` is of the series and the epoch. Nothing is
    /// told by a model that is young or in an odd time.
    pub fn add(
        &mut self,
        cohorts: impl Iterator<Item = u64>,
        hash: u64,
        params: &ModelParams,
        model: &Model,
    ) {
        let Some((level, scale)) = model.settled(params) else { return };
        let member = Member { hash, level: bounded(level) as f32, scale: bounded(scale) as f32 };
        let mut lent: Option<Arc<Model>> = None;
        for cohort in cohorts {
            self.join(cohort, Group { series: 1, members: vec![member] });
            if self.lacks_donor(cohort, hash) {
                let donor = lent.get_or_insert_with(|| Arc::new(model.clone()));
                self.donors.insert(cohort, (hash, donor.clone()));
                // The lowest hashes stay: those of the smallest cohorts may have to wait for an epoch.
                if self.donors.len() > DONORS
                    && let Some(last) = self.donors.iter().max_by_key(|(_, (hash, _))| *hash)
                {
                    let last = *last.0;
                    self.donors.remove(&last);
                }
            }
        }
    }

    fn lacks_donor(&self, cohort: u64, hash: u64) -> bool {
        match self.donors.get(&cohort) {
            Some((have, _)) => hash < *have,
            None => self.donors.len() < DONORS || self.donors.values().any(|(have, _)| hash < *have),
        }
    }

    /// Adds members to a cohort; beyond the bound, cohorts of the lowest keys stay.
    fn join(&mut self, cohort: u64, group: Group) {
        match self.groups.entry(cohort) {
            Entry::Occupied(have) => {
                let have = have.into_mut();
                have.series = have.series.saturating_add(group.series);
                group.members.into_iter().for_each(|member| have.add(member));
            }
            Entry::Vacant(slot) => {
                slot.insert(group);
                if self.groups.len() > COHORTS
                    && let Some((_, last)) = self.groups.pop_last()
                {
                    self.refused += u64::from(last.series);
                }
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let group = size_of::<(u64, Group)>();
        let members = |group: &Group| group.members.capacity() * size_of::<Member>();
        let groups: usize = self.groups.values().map(|g| group + members(g)).sum();
        let donors = self.donors.values();
        groups + donors.map(|(_, donor)| 24 + size_of::<Model>() + donor.heap_bytes()).sum::<usize>()
    }

    /// Joins another's part.
    pub fn merge(&mut self, other: Cohorts) {
        for (cohort, group) in other.groups {
            self.join(cohort, group);
        }
        for (cohort, (hash, donor)) in other.donors {
            match self.donors.entry(cohort) {
                Entry::Occupied(have) if have.get().0 <= hash => {}
                Entry::Occupied(mut have) => drop(have.insert((hash, donor))),
                Entry::Vacant(slot) => drop(slot.insert((hash, donor))),
            }
        }
        self.refused += other.refused;
    }
}

/// What a cohort lends.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// The epoch it was last renewed in.
    epoch: i64,
    donor: Arc<Model>,
    /// The middle of the members' levels.
    centre: f64,
    /// The standard deviation of the members' levels; `None`: there was only one.
    between: Option<f64>,
    /// Series that told, and those of them whose levels are known.
    series: u32,
    members: usize,
    /// By how much the centre moves in an epoch.
    drift: f64,
    /// Whether the members' scales are alike.
    alike: bool,
}

impl Prior {
    fn of(epoch: i64, group: &Group, donor: Arc<Model>, before: Option<&Prior>) -> Prior {
        let mut levels: Vec<f64> = group.members.iter().map(|m| f64::from(m.level)).collect();
        let mut scales: Vec<f32> = group.members.iter().map(|m| m.scale).collect();
        levels.sort_unstable_by(f64::total_cmp);
        scales.sort_unstable_by(f32::total_cmp);
        let n = levels.len();
        let centre = levels.get(n / 2).copied().unwrap_or(0.0);
        // The outermost of a full set may be of another kind.
        let skip = usize::from(n == MEMBERS);
        let (low, high) = (scales.get(skip), scales.get(n.saturating_sub(1 + skip)));
        let alike = low.zip(high).is_some_and(|(low, high)| {
            // A donor calmer than its like would find them odd.
            *high <= ALIKE * *low && donor.base.sd() >= f64::from(*low) * (1.0 - 1e-6)
        });
        let between = (n > 1).then(|| {
            let mean = levels.iter().sum::<f64>() / n as f64;
            sqrt(levels.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1) as f64)
        });
        let drift = before.map_or(0.0, |before| {
            let epochs = (epoch - before.epoch).max(1) as f64;
            ((centre - before.centre).abs() / epochs).max(0.9 * before.drift)
        });
        Prior { epoch, donor, centre, between, series: group.series, members: n, drift, alike }
    }

    /// The model that a series goes on with at `at`, in epoch `epoch`, after `own` has seen its first
    /// samples. `None` where the cohort's members are not alike.
    pub fn adopt(&self, params: &ModelParams, own: &Model, at: Millis, epoch: i64) -> Option<Model> {
        if !self.alike {
            return None;
        }
        let (level, scale) = self.donor.usual(params, at);
        let between = self.between.unwrap_or(scale);
        let drift = self.drift * (epoch - self.epoch).clamp(0, DRIFTING) as f64;
        let off = own.base.mean - level;
        // What rests at a level of each series' own (a start time) cannot tell a wrong level.
        let free = self.donor.steps.moves == 0 && self.between.is_some_and(|between| between > 0.0);
        // Few members cannot tell well how they differ.
        let few = 1.0 + 3.0 / (self.members.max(2) - 1) as f64;
        let differ = if free { f64::INFINITY } else { BETWEEN * few * between + drift };
        // Beyond all chance the level is what members may have: the rest is odd.
        let off = if off.abs() <= WITHIN * scale + differ { off } else { off.clamp(-differ, differ) };
        let spread = 2.0 * between * between + drift * drift;
        let whole = spread + scale * scale;
        // Whether it is the level that differs, or chance: the usual shrinking towards the mean.
        let share = if whole > 0.0 { spread / whole } else { 0.0 };
        let mut model = self.donor.moved(own, at, params, bounded(share * off), bounded(level + off));
        model.kin = self.series.clamp(1, u32::from(u16::MAX)) as u16;
        Some(model)
    }
}

/// What the cohorts of an epoch lend, by cohort.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Priors {
    by_cohort: BTreeMap<u64, Prior>,
    /// Series that told something and were in no cohort that is kept.
    pub refused: u64,
}

impl Priors {
    /// Freezes an epoch's cohorts. Cohorts that were silent lend what they lent before, for a week.
    pub fn of(epoch: i64, cohorts: Cohorts, before: Option<&Priors>) -> Priors {
        let mut by_cohort = BTreeMap::new();
        let before = before.map(|before| &before.by_cohort);
        for (cohort, group) in &cohorts.groups {
            let old = before.and_then(|before| before.get(cohort));
            let donor = cohorts.donors.get(cohort).map(|(_, donor)| donor);
            if let Some(donor) = donor.or(old.map(|old| &old.donor)) {
                by_cohort.insert(*cohort, Prior::of(epoch, group, donor.clone(), old));
            }
        }
        for (cohort, prior) in before.into_iter().flatten() {
            if epoch - prior.epoch <= KEPT && !by_cohort.contains_key(cohort) {
                by_cohort.insert(*cohort, prior.clone());
            }
        }
        while by_cohort.len() > COHORTS {
            by_cohort.pop_last();
        }
        Priors { by_cohort, refused: cohorts.refused }
    }

    /// What a cohort lends.
    pub fn get(&self, cohort: u64) -> Option<&Prior> {
        self.by_cohort.get(&cohort)
    }

    /// Cohorts that lend.
    pub fn len(&self) -> usize {
        self.by_cohort.len()
    }

    /// Bytes held, donors counted with each prior.
    pub fn bytes(&self) -> usize {
        let prior = size_of::<(u64, Prior)>() + size_of::<Model>();
        self.by_cohort.values().map(|p| prior + p.donor.heap_bytes()).sum()
    }

    /// Whether none lends.
    pub fn is_empty(&self) -> bool {
        self.by_cohort.is_empty()
    }
}

impl Model {
    /// Level and scale, once enough was learnt and while nothing is odd.
    fn settled(&self, params: &ModelParams) -> Option<(f64, f64)> {
        self.teaches(params).then(|| (self.base.mean, self.base.sd()))
    }

    /// The usual level at a time (the season's, where it is known) and the slow scale.
    fn usual(&self, params: &ModelParams, at: Millis) -> (f64, f64) {
        let frame = self.frame(params, at);
        (frame.season.map_or(self.base.mean, |season| season.value), frame.scale())
    }

    /// A copy for another series that has shown its first samples to `own`: what was learnt slowly is
    /// moved by `slow`, what follows quickly starts at `level`.
    fn moved(&self, own: &Model, at: Millis, params: &ModelParams, slow: f64, level: f64) -> Model {
        let mut model = self.clone();
        model.base.mean = bounded(model.base.mean + slow);
        model.rarity.rebase(slow, level);
        model.season.shift(slow);
        let season = model.season.at(at, &params.zone, own.interval.ms());
        let season = season.map_or(0.0, |season| season.value);
        model.ewma.accept(level);
        model.holt.accept(level - season);
        model.zscore.rebase(level);
        model.shift.accept();
        if let Some(slope) = &mut model.slope {
            slope.accept(level);
        }
        model.interval = own.interval;
        model.steps.last = own.steps.last;
        model.last_at = own.last_at;
        // What the series has shown counts as evidence, though it was not judged.
        let frame = model.frame(params, at);
        let seen = own.base.mean;
        let seasonal =
            frame.season.and_then(|season| model.season.rarity(season.residual(seen), frame.floor));
        model.rarity.dwell(seen, model.samples, &model.steps, frame.floor, seasonal, SHOWN);
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{ReadOut, Season};
    use proptest::prelude::*;

    fn params() -> ModelParams {
        ModelParams { min_samples: 10, season: Season::None, ..ModelParams::default() }
    }

    /// A saw tooth around a level.
    fn model(level: f64, samples: i64) -> Model {
        let mut model = Model::new(&params());
        for k in 0..samples {
            let x = level + (k * 7 % 11 - 5) as f64 / 5.0;
            model.observe(&params(), &ReadOut::default(), Millis(k * 15_000), x);
        }
        model
    }

    fn told(members: &[(u64, u64, f64)]) -> Cohorts {
        let mut cohorts = Cohorts::default();
        for (cohort, hash, level) in members {
            cohorts.add(std::iter::once(*cohort), *hash, &params(), &model(*level, 40));
        }
        cohorts
    }

    #[test]
    fn young_and_odd_models_tell_nothing() {
        let mut cohorts = Cohorts::default();
        cohorts.add(std::iter::once(1), 1, &params(), &model(5.0, 19));
        let mut odd = model(5.0, 400);
        odd.observe(&params(), &ReadOut::default(), Millis(400 * 15_000), 500.0);
        assert!(odd.odd().is_some());
        cohorts.add(std::iter::once(1), 1, &params(), &odd);
        assert_eq!(cohorts, Cohorts::default());
    }

    #[test]
    fn the_lowest_hash_is_the_donor_and_silent_cohorts_lend_for_a_week() {
        let priors = Priors::of(7, told(&[(1, 30, 5.0), (1, 10, 6.0), (1, 20, 7.0)]), None);
        let prior = priors.get(1).expect("a prior");
        assert_eq!((priors.len(), prior.members, &*prior.donor), (1, 3, &model(6.0, 40)));
        assert!((prior.centre - 6.0).abs() < 0.2 && prior.between.is_some_and(|b| (b - 1.0).abs() < 1e-6));
        let later = Priors::of(7 + KEPT, told(&[(2, 1, 5.0)]), Some(&priors));
        assert_eq!(later.get(1), Some(prior));
        assert_eq!(Priors::of(8 + KEPT, Cohorts::default(), Some(&priors)).get(1), None);
        let moved = Priors::of(9, told(&[(1, 10, 10.0)]), Some(&priors));
        assert!(moved.get(1).is_some_and(|p| (p.drift - 2.0).abs() < 0.1), "4 in two epochs");
    }

    #[test]
    fn a_borrower_starts_at_its_own_level_as_far_as_members_differ() {
        let alone = Priors::of(0, told(&[(1, 1, 50.0)]), None);
        let many: Vec<_> = (0..8).map(|k| (1, k, 50.0)).collect();
        let same = Priors::of(0, told(&many), None);
        let many: Vec<_> = (0..8).map(|k| (1, k, 50.0 + 10.0 * k as f64)).collect();
        let unlike = Priors::of(0, told(&many), None);
        let at = Millis(10_000_000);
        let starts = |priors: &Priors, level: f64| {
            let own = model(level, 4);
            let prior = priors.get(1).expect("a prior");
            let model = prior.adopt(&params(), &own, at, 2).expect("alike");
            assert_eq!((model.last_at, model.interval, model.samples), (own.last_at, own.interval, 40));
            (model.base.mean - prior.donor.base.mean, model.ewma.expected() - prior.donor.base.mean)
        };
        let (slow, quick) = starts(&same, 51.0);
        assert!(slow.abs() < 0.1 && (quick - 1.0).abs() < 0.7, "chance: {slow} {quick}");
        assert_eq!(starts(&same, 60.0), (0.0, 0.0));
        let (slow, quick) = starts(&unlike, 90.0);
        assert!(
            (slow - 40.0).abs() < 1.0 && (quick - 40.0).abs() < 1.0,
            "a level of its own: {slow} {quick}"
        );
        let (slow, quick) = starts(&unlike, 900.0);
        assert!(slow < 200.0 && quick < 200.0, "as far as members differ: {slow} {quick}");
        let (slow, quick) = starts(&alone, 52.0);
        assert!(slow > 0.5 && slow < quick && quick < 2.5, "nobody knows: {slow} {quick}");
    }

    #[test]
    fn members_of_other_scales_lend_nothing() {
        let mut cohorts = told(&[(1, 1, 50.0)]);
        let mut wide = model(0.0, 1);
        for k in 1..40 {
            let x = (k * 7 % 11 - 5) as f64;
            wide.observe(&params(), &ReadOut::default(), Millis(k * 15_000), x);
        }
        cohorts.add(std::iter::once(1), 2, &params(), &wide);
        let priors = Priors::of(0, cohorts, None);
        let adopted = priors.get(1).and_then(|p| p.adopt(&params(), &model(50.0, 4), Millis(10_000_000), 2));
        assert_eq!(adopted, None);
    }

    #[test]
    fn cohorts_beyond_the_bound_are_counted() {
        let lent = model(5.0, 40);
        let mut cohorts = Cohorts::default();
        for key in (0..COHORTS as u64 + 10).rev() {
            cohorts.add(std::iter::once(key), key * 7919 % 65_521, &params(), &lent);
        }
        assert_eq!((cohorts.groups.len(), cohorts.refused, cohorts.donors.len()), (COHORTS, 10, DONORS));
        assert!(cohorts.groups.keys().all(|key| *key < COHORTS as u64));
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), -1e3..1e3f64, Just(0.0), Just(1e308), Just(-1e308), Just(5e-324)]
    }

    proptest! {
        #[test]
        fn adoption_is_total(
            members in proptest::collection::vec(proptest::collection::vec(any_value(), 20..40), 1..4),
            own in proptest::collection::vec(any_value(), 8),
        ) {
            let (params, read) = (params(), ReadOut::default());
            let mut cohorts = Cohorts::default();
            for (hash, values) in members.iter().enumerate() {
                let mut member = Model::new(&params);
                for (k, x) in values.iter().enumerate() {
                    member.observe(&params, &read, Millis(k as i64 * 15_000), *x);
                }
                cohorts.add(std::iter::once(1), hash as u64, &params, &member);
            }
            let mut priors = Priors::of(0, cohorts, None);
            for prior in priors.by_cohort.values_mut() {
                prior.alike = true;
                let mut borrower = Model::new(&params);
                for (k, x) in own.iter().enumerate() {
                    let at = Millis(1_000_000 + k as i64 * 15_000);
                    if borrower.samples() == SHOWN {
                        borrower = prior.adopt(&params, &borrower, at, 2).expect("alike");
                    }
                    let told = borrower.observe(&params, &read, at, *x);
                    prop_assert!(told.is_none_or(|v| v.score.is_finite() && v.score >= 0.0 && v.expected.is_finite()));
                }
                prop_assert!(borrower == borrower.clone(), "not a number in the state");
            }
        }

        #[test]
        fn the_order_of_telling_and_merging_does_not_matter(
            members in proptest::collection::hash_map(0..1_000_000u64, 0..90u64, 1..200),
            seed in any::<u64>(),
        ) {
            let lent: Vec<Model> = (0..5).map(|k| model(f64::from(k), 20)).collect();
            let tell = |members: &[(u64, u64)]| {
                let mut cohorts = Cohorts::default();
                for (hash, cohort) in members {
                    cohorts.add(std::iter::once(*cohort), *hash, &params(), &lent[*hash as usize % 5]);
                }
                cohorts
            };
            let mut sorted: Vec<(u64, u64)> = members.into_iter().collect();
            sorted.sort_unstable();
            let mut shuffled = sorted.clone();
            shuffled.sort_unstable_by_key(|(hash, _)| xxhash_rust::xxh3::xxh3_64_with_seed(&hash.to_le_bytes(), seed));
            prop_assert_eq!(tell(&sorted), tell(&shuffled));
            // The same parts in any order.
            let parts: Vec<Cohorts> = sorted.chunks(23).map(tell).collect();
            let merged = |parts: Vec<Cohorts>| parts.into_iter().fold(Cohorts::default(), |mut all, part| {
                all.merge(part);
                all
            });
            let backwards = parts.iter().rev().cloned().collect();
            prop_assert_eq!(merged(parts), merged(backwards));
        }
    }
}
