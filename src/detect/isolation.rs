//! Isolation forest over the samples of all series of a rule (Liu, Ting, Zhou 2008).
//!
//! A sample is a point of six signed distances in scales of its own series, compressed to
//! sign · ln(1 + |z|): so that a thousand series of any unit fill one space. The fewer random cuts
//! it takes to set a point apart, the odder it is; how odd in nats, the forest's own points tell.

mod image;

use super::fuse::Frame;
use super::{Detector, Model, ModelParams};
use crate::stats::math::{exp2, ln, ratio};
use crate::stats::steps::Steps;
use crate::time::Millis;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// Features of a point.
pub const FEATURES: usize = 6;
/// Distances from the slow mean, the EWMA and the sliding mean, the step over the usual step, the
/// residuals of Holt-Winters and of the season; 0 where a detector is not chosen.
pub type Features = [f32; FEATURES];

/// Points kept of a rule and epoch.
const POINTS: usize = 256;
/// Points that a forest is made of at least.
const FEWEST: usize = 128;
/// Rules that have a forest.
const FORESTS: usize = 64;
const TREES: u64 = 32;
/// Points a tree is grown from.
const GROWN: usize = 64;
/// Cuts after which a tree stops: log2 of its points.
const HEIGHT: u32 = 6;
/// A point is kept at first where its hash is at most this many times the greatest of those that
/// were kept of the epoch before: most partitions need not remember any.
const SPARE: u64 = 4;

/// A point, ordered by its hash.
#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u64,
    at: Features,
}

impl PartialEq for Point {
    fn eq(&self, other: &Point) -> bool {
        self.hash == other.hash
    }
}
impl Eq for Point {}
impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Point) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Point {
    fn cmp(&self, other: &Point) -> std::cmp::Ordering {
        self.hash.cmp(&other.hash)
    }
}

/// Points of the lowest hashes, by rule. Bounded; order-free.
#[derive(Clone, Debug, Default)]
pub struct Points {
    by_rule: BTreeMap<u64, BinaryHeap<Point>>,
}

fn add(points: &mut BinaryHeap<Point>, point: Point) {
    if points.len() < POINTS {
        points.push(point);
    } else if let Some(mut last) = points.peek_mut()
        && point.hash < last.hash
    {
        *last = point;
    }
}

impl Points {
    /// Adds a sample's point; `hash` is of its series and time. Beyond the bound, rules of the lowest
    /// keys stay.
    pub fn add(&mut self, rule: u64, hash: u64, at: Features) {
        add(self.by_rule.entry(rule).or_default(), Point { hash, at });
        self.cut();
    }

    fn cut(&mut self) {
        while self.by_rule.len() > FORESTS {
            self.by_rule.pop_last();
        }
    }

    /// Joins another's part.
    pub fn merge(&mut self, other: Points) {
        for (rule, points) in other.by_rule {
            match self.by_rule.entry(rule) {
                Entry::Vacant(slot) => drop(slot.insert(points)),
                Entry::Occupied(mut have) => points.into_iter().for_each(|point| add(have.get_mut(), point)),
            }
        }
        self.cut();
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.by_rule.values().map(|points| 48 + points.capacity() * size_of::<Point>()).sum()
    }
}

/// Where a tree goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    /// Below `at` at the node `left`, else at the one after it.
    Cut { feature: usize, at: f32, left: usize },
    /// Cuts that set a point here apart, those that were not made among them.
    Leaf(f64),
}

/// A forest; immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    epoch: i64,
    trees: Arc<[Vec<Node>]>,
    /// Scores of the points it was made from, ascending.
    scores: Arc<[f64]>,
    /// Points of greater hashes need not be kept.
    limit: u64,
}

/// The mean number of cuts that set a point apart among `n`.
fn usual_cuts(n: usize) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let last = (n - 1) as f64;
            2.0 * (ln(last) + EULER) - 2.0 * last / n as f64
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Below `n`, which is small and not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// In [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
}

/// Grows the tree below `node` from these points.
fn grow(tree: &mut Vec<Node>, node: usize, points: &mut [Features], depth: u32, random: &mut Random) {
    let range = |feature: usize| {
        let values = points.iter().map(|point| point[feature]);
        values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ranges: [(f32, f32); FEATURES] = std::array::from_fn(range);
    let wide: Vec<usize> = (0..FEATURES).filter(|feature| ranges[*feature].0 < ranges[*feature].1).collect();
    if depth == HEIGHT || points.len() < 2 || wide.is_empty() {
        tree[node] = Node::Leaf(f64::from(depth) + usual_cuts(points.len()));
        return;
    }
    let feature = wide[random.below(wide.len())];
    let (low, high) = ranges[feature];
    let at = low + random.unit() * (high - low);
    // Either side has a point.
    let at = if at > low { at.min(high) } else { high };
    points.sort_unstable_by(|a, b| a[feature].total_cmp(&b[feature]));
    let middle = points.partition_point(|point| point[feature] < at);
    let left = tree.len();
    tree.extend([Node::Leaf(0.0); 2]);
    tree[node] = Node::Cut { feature, at, left };
    let (below, above) = points.split_at_mut(middle);
    grow(tree, left, below, depth + 1, random);
    grow(tree, left + 1, above, depth + 1, random);
}

/// The fewest cuts of any point between `low` and `high`.
fn cuts(tree: &[Node], node: usize, low: &Features, high: &Features) -> f64 {
    match tree[node] {
        Node::Leaf(depth) => depth,
        Node::Cut { feature, at, left } => {
            let (below, above) = (low[feature] < at, high[feature] >= at);
            match (below, above) {
                (true, true) => cuts(tree, left, low, high).min(cuts(tree, left + 1, low, high)),
                (false, _) => cuts(tree, left + 1, low, high),
                (true, false) => cuts(tree, left, low, high),
            }
        }
    }
}

impl Forest {
    fn of(rule: u64, epoch: i64, points: BinaryHeap<Point>) -> Option<Forest> {
        let points = points.into_sorted_vec();
        if points.len() < FEWEST {
            return None;
        }
        let limit = match points.last() {
            Some(last) if points.len() == POINTS => last.hash.saturating_mul(SPARE),
            _ => u64::MAX,
        };
        let points: Vec<Features> = points.iter().map(|point| point.at).collect();
        let mut random = Random(rule ^ (epoch as u64).rotate_left(32));
        let trees = (0..TREES)
            .map(|_| {
                // The first of a shuffle (Fisher and Yates).
                let mut chosen = points.clone();
                for k in 0..GROWN {
                    let from = k + random.below(chosen.len() - k);
                    chosen.swap(k, from);
                }
                chosen.truncate(GROWN);
                let mut tree = vec![Node::Leaf(0.0)];
                grow(&mut tree, 0, &mut chosen, 0, &mut random);
                tree
            })
            .collect();
        let mut forest = Forest { epoch, trees, scores: Arc::default(), limit };
        let mut scores: Vec<f64> = points.iter().map(|point| forest.score(point, point)).collect();
        scores.sort_unstable_by(f64::total_cmp);
        forest.scores = scores.into();
        Some(forest)
    }

    /// 2^(−cuts / usual cuts): the greatest of any point between `low` and `high`, or a little more.
    fn score(&self, low: &Features, high: &Features) -> f64 {
        let sum: f64 = self.trees.iter().map(|tree| cuts(tree, 0, low, high)).sum();
        exp2(-sum / TREES as f64 / usual_cuts(GROWN))
    }

    /// Nats of a sample's point: −ln of the share of the forest's own points that are as odd; from 0 to
    /// the logarithm of their number.
    pub fn nats(&self, at: &Features) -> f32 {
        self.most(at, at)
    }

    /// At least the nats of every point between `low` and `high`; those of the point where both are one.
    pub(super) fn most(&self, low: &Features, high: &Features) -> f32 {
        let score = self.score(low, high);
        let calmer = self.scores.partition_point(|have| *have < score);
        let (all, odder) = (self.scores.len(), self.scores.len() - calmer);
        ln((all + 1) as f64 / (odder + 1) as f64) as f32
    }

    /// Points of greater hashes need not be told.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

/// The forests of an epoch, by rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forests {
    by_rule: BTreeMap<u64, Forest>,
}

impl Forests {
    /// Epochs for which a forest is kept that has too few new points: a week.
    const KEPT: i64 = 168;

    /// Grows an epoch's forests. Rules with too few points keep the forest they had, for a week.
    pub fn of(epoch: i64, points: Points, before: Option<&Forests>) -> Forests {
        let grown = points.by_rule.into_iter();
        let mut by_rule: BTreeMap<u64, Forest> =
            grown.filter_map(|(rule, points)| Some((rule, Forest::of(rule, epoch, points)?))).collect();
        for (rule, forest) in before.iter().flat_map(|before| &before.by_rule) {
            if epoch - forest.epoch <= Self::KEPT && !by_rule.contains_key(rule) {
                // It may be its limit that left too few.
                by_rule.insert(*rule, Forest { limit: u64::MAX, ..forest.clone() });
            }
        }
        while by_rule.len() > FORESTS {
            by_rule.pop_last();
        }
        Forests { by_rule }
    }

    /// A rule's forest.
    pub fn get(&self, rule: u64) -> Option<&Forest> {
        self.by_rule.get(&rule)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_rule.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_rule.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let nodes = |forest: &Forest| forest.trees.iter().map(Vec::len).sum::<usize>();
        let one = |forest: &Forest| size_of::<Forest>() + nodes(forest) * size_of::<Node>() + 8 * POINTS;
        self.by_rule.values().map(one).sum()
    }
}

impl Frame {
    /// The point of a value; each feature rises with it.
    pub(super) fn features(&self, x: f64, steps: &Steps) -> Features {
        let signed = |from: f64, scale: f64| {
            let size = if scale > 0.0 { ln(1.0 + ratio(x - from, scale)) as f32 } else { 0.0 };
            if x < from { -size } else { size }
        };
        let season = self.season.map_or(0.0, |season| signed(season.value, self.base.scale));
        [
            signed(self.base.at, self.base.scale),
            signed(self.ewma.at, self.ewma.scale),
            signed(self.zscore.at, self.zscore.scale),
            signed(steps.last, steps.mean + self.floor),
            signed(self.holt.at + self.bias, self.holt.scale),
            season,
        ]
    }
}

impl Model {
    /// The point of the sample at `at`, as what was learnt before it has it; `None` before the first
    /// sample, where isolation is not chosen, and where the value is not finite.
    pub fn features(&self, params: &ModelParams, at: Millis, x: f64) -> Option<Features> {
        let asked = params.detectors.has(Detector::Isolation) && self.samples > 0 && x.is_finite();
        asked.then(|| self.frame(params, at).features(crate::stats::math::bounded(x), &self.steps))
    }

    /// Whether its samples may teach others: enough was learnt, and nothing is odd.
    pub fn teaches(&self, params: &ModelParams) -> bool {
        self.samples >= params.min_samples.saturating_mul(2) && self.odd().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hashes in any order, points near 0 and some far off.
    fn point(k: u64) -> (u64, Features) {
        let mut random = Random(k);
        let mut near = || (0..12).map(|_| random.unit()).sum::<f32>() - 6.0;
        let at = std::array::from_fn(|_| near());
        (Random(k ^ 0xABCD).next(), at)
    }

    fn points(of: impl Iterator<Item = u64>) -> Points {
        let mut points = Points::default();
        for k in of {
            let (hash, at) = point(k);
            points.add(k % 2, hash, at);
        }
        points
    }

    #[test]
    fn cuts_by_hand() {
        // 2 (ln 255 + 0.5772) − 2 · 255 / 256 (Liu et al.: 10.24 for 256).
        assert!((usual_cuts(256) - 10.244_770).abs() < 1e-5 && usual_cuts(2) == 1.0 && usual_cuts(1) == 0.0);
        let tree = [Node::Cut { feature: 1, at: 2.0, left: 1 }, Node::Leaf(3.0), Node::Leaf(1.0)];
        let at = |x: f32| [0.0, x, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(cuts(&tree, 0, &at(1.9), &at(1.9)), 3.0);
        assert_eq!((cuts(&tree, 0, &at(2.0), &at(2.0)), cuts(&tree, 0, &at(0.0), &at(5.0))), (1.0, 1.0));
    }

    #[test]
    fn what_lies_apart_is_odd_and_nats_are_shares() {
        let forests = Forests::of(5, points(0..8_000), None);
        let forest = forests.get(0).expect("a forest");
        let far = forest.nats(&[6.0, 6.0, 6.0, -6.0, 6.0, 0.0]);
        let near = forest.nats(&[0.1; FEATURES]);
        assert!(near < 1.0 && far > 4.5, "{near} {far}");
        assert!(far <= (POINTS as f32 + 1.0).ln() + 1e-6);
        // Of fresh points, about e^-2 have two nats or more.
        let rare = (10_000..14_000).filter(|k| forest.nats(&point(*k).1) >= 2.0).count();
        assert!((300..900).contains(&rare), "{rare} of 4000");
        assert!(forest.limit() < u64::MAX);
    }

    #[test]
    fn too_few_points_make_no_forest_and_the_old_one_stays_for_a_week() {
        let first = Forests::of(5, points(0..2_000), None);
        assert_eq!((first.len(), Forests::of(5, points(0..200), None).len()), (2, 0));
        let later = Forests::of(5 + Forests::KEPT, points(0..200), Some(&first));
        let (old, kept) = (first.get(1).expect("one"), later.get(1).expect("kept"));
        assert_eq!((&old.trees, kept.limit()), (&kept.trees, u64::MAX));
        assert!(Forests::of(6 + Forests::KEPT, Points::default(), Some(&first)).is_empty());
    }

    #[test]
    fn constant_points_can_be_grown_from() {
        let mut same = Points::default();
        (0..200).for_each(|hash| same.add(1, hash, [0.0; FEATURES]));
        let forests = Forests::of(0, same, None);
        assert_eq!(forests.get(1).map(|forest| forest.nats(&[0.0; FEATURES])), Some(0.0));
    }

    proptest! {
        #[test]
        fn the_order_of_telling_and_merging_does_not_matter(
            told in proptest::collection::hash_set(any::<u64>(), 1..1_500),
            cut in 1..500usize,
        ) {
            let told: Vec<u64> = told.into_iter().collect();
            let backwards = points(told.iter().rev().copied());
            let parts = told.chunks(cut).map(|part| points(part.iter().copied()));
            let merged = parts.rev().fold(Points::default(), |mut all, part| {
                all.merge(part);
                all
            });
            prop_assert_eq!(Forests::of(3, backwards, None), Forests::of(3, merged, None));
        }

        #[test]
        fn a_box_is_at_least_as_odd_as_any_point_in_it(
            a in proptest::array::uniform6(-8.0..8.0f32),
            b in proptest::array::uniform6(-8.0..8.0f32),
            share in 0.0..1.0f32,
        ) {
            let forests = Forests::of(5, points(0..1_000), None);
            let forest = forests.get(0).expect("a forest");
            let low: Features = std::array::from_fn(|f| a[f].min(b[f]));
            let high: Features = std::array::from_fn(|f| a[f].max(b[f]));
            let within: Features = std::array::from_fn(|f| low[f] + share * (high[f] - low[f]));
            prop_assert!(forest.most(&low, &high) >= forest.nats(&within));
        }
    }
}
