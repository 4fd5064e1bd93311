//! The binary form of isolation's points and forests.

use super::{FEATURES, FORESTS, Forest, Forests, HEIGHT, Node, POINTS, Point, Points, TREES};
use crate::codec::{Damaged, Reader, Stored, stored};
use crate::detect::cohort::EPOCHS;
use std::collections::{BTreeMap, BinaryHeap};

stored!(plain struct Point { hash, at });
stored!(struct Forests { by_rule } valid |forests| forests.by_rule.len() <= FORESTS);

/// Of each rule its points, by their hashes.
impl Stored for Points {
    fn store(&self, to: &mut Vec<u8>) {
        let Points { by_rule } = self;
        let sorted = |points: &BinaryHeap<Point>| {
            let mut points = points.clone().into_vec();
            points.sort_unstable_by_key(|point| (point.hash, point.at.map(f32::to_bits)));
            points
        };
        by_rule.iter().map(|(rule, points)| (*rule, sorted(points))).collect::<BTreeMap<_, _>>().store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let by_rule: BTreeMap<u64, Vec<Point>> = Stored::load(from)?;
        let bounded = by_rule.len() <= FORESTS && by_rule.values().all(|points| points.len() <= POINTS);
        from.check(bounded, "more points than are kept")?;
        Ok(Points { by_rule: by_rule.into_iter().map(|(rule, points)| (rule, points.into())).collect() })
    }
}

impl Stored for Forest {
    fn store(&self, to: &mut Vec<u8>) {
        let Forest { epoch, trees, scores, limit } = self;
        epoch.store(to);
        limit.store(to);
        for tree in trees.iter() {
            store_tree(tree, 0, to);
        }
        scores.to_vec().store(to);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        from.plain(|from| {
            let (epoch, limit) = Stored::load(from)?;
            from.check(EPOCHS.contains(&epoch), "no such epoch")?;
            let mut trees = Vec::new();
            for _ in 0..TREES {
                let mut tree = vec![Node::Leaf(0.0)];
                load_tree(&mut tree, 0, 0, from)?;
                tree.shrink_to_fit();
                trees.push(tree);
            }
            let scores: Vec<f64> = Stored::load(from)?;
            from.check(scores.len() <= POINTS && scores.is_sorted(), "no scores of a forest")?;
            Ok(Forest { epoch, trees: trees.into(), scores: scores.into(), limit })
        })
    }
}

/// A node, then what is below it and what is not: where they stand in the tree follows from that.
fn store_tree(tree: &[Node], node: usize, to: &mut Vec<u8>) {
    match tree.get(node) {
        Some(Node::Cut { feature, at, left }) => {
            to.push(1 + *feature as u8);
            at.store(to);
            store_tree(tree, *left, to);
            store_tree(tree, left + 1, to);
        }
        Some(Node::Leaf(depth)) => {
            to.push(0);
            depth.store(to);
        }
        None => {}
    }
}

/// Fills a node and all below it, in the order in which they were grown.
fn load_tree(tree: &mut Vec<Node>, node: usize, depth: u32, from: &mut Reader<'_>) -> Result<(), Damaged> {
    let [kind] = from.array()?;
    let filled = match usize::from(kind) {
        0 => Node::Leaf(Stored::load(from)?),
        feature @ 1..=FEATURES if depth < HEIGHT => {
            Node::Cut { feature: feature - 1, at: Stored::load(from)?, left: tree.len() }
        }
        _ => return Err(from.damaged("no node of a tree")),
    };
    if let Some(place) = tree.get_mut(node) {
        *place = filled;
    }
    if let Node::Cut { left, .. } = filled {
        tree.extend([Node::Leaf(0.0); 2]);
        load_tree(tree, left, depth + 1, from)?;
        load_tree(tree, left + 1, depth + 1, from)?;
    }
    Ok(())
}
