use super::*;
use crate::emit::names::tests::{SCORE_ONLY, alone, rule};
use crate::engine::OutputValue;
use crate::labels::{Labels, NAME};
use crate::rules::{As, RuleSet};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

fn batch(rules: &Arc<RuleSet>, partition: u16, sequence: u64, outputs: usize) -> Arc<OutputBatch> {
    let output = |at| Output {
        labels: Labels::from_pairs(&[(NAME, "up")]),
        rule: 0,
        transform: As::Value,
        at: Millis(at),
        value: OutputValue::Stale,
        emit: true,
    };
    let outputs = (0..outputs as i64).map(output).collect();
    Arc::new(OutputBatch { sequence, partition, rules: rules.clone(), outputs })
}

fn shard(capacity: usize, max_samples: usize, age_limit: Span) -> Shard {
    let (spill_bytes, memory_bytes) = (usize::MAX, usize::MAX);
    Shard::new(Bounds { capacity, spill_bytes, memory_bytes, max_samples, age_limit })
}

#[test]
fn a_request_is_due_when_it_is_full_or_old_enough() {
    let (rule, metrics, now) = (alone(rule(SCORE_ONLY, &[])), Metrics::default(), Millis(5_000));
    let deadline = Span(200);
    let shard = shard(100, 10, Span::HOUR);
    assert_eq!(shard.due(now, deadline, true), Due::Never);
    shard.push(&batch(&rule, 0, 1, 6), 6, now, &metrics);
    assert_eq!(shard.due(now, deadline, false), Due::In(deadline.as_std()));
    assert_eq!(shard.due(now, deadline, true), Due::Now);
    assert_eq!(shard.due(now.plus(200), deadline, false), Due::Now);
    shard.push(&batch(&rule, 0, 2, 6), 6, now, &metrics);
    assert_eq!(shard.due(now, deadline, false), Due::Now);
    shard.push(&batch(&rule, 0, 3, 30), 30, now, &metrics);
    let sequences = |work: Option<Work>| match work {
        Some(Work::Memory(items)) => items.iter().map(|item| item.batch.sequence).collect(),
        _ => Vec::new(),
    };
    for (sequence, size) in [(1, 6), (2, 6), (3, 30)] {
        assert_eq!(sequences(shard.begin(now.plus(Span::HOUR.0), &metrics)), [sequence], "{size}");
        assert_eq!(shard.complete(&metrics), [(0, sequence)]);
    }
    assert_eq!(shard.acked(), BTreeMap::from([(0, 3)]));
}

#[derive(Clone, Debug)]
enum Step {
    Push { partition: u16, outputs: usize },
    Begin,
    Complete,
    Wait,
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u16..3, 0usize..9).prop_map(|(partition, outputs)| Step::Push { partition, outputs }),
        3 => Just(Step::Begin),
        3 => Just(Step::Complete),
        1 => Just(Step::Wait),
        1 => Just(Step::Move),
    ]
}

proptest! {
    /// Whatever happens in whatever order: nothing is acknowledged while a sample of it or of
    /// anything before it is pending, all is in the end, and the accounts agree.
    #[test]
    fn acknowledgement_never_overtakes_what_is_pending(steps in prop::collection::vec(step(), 0..80)) {
        let (rule, metrics) = (alone(rule(SCORE_ONLY, &[])), Metrics::default());
        let mut now = Millis(0);
        let new = || shard(20, 7, Span::seconds(10));
        let (mut shard, mut busy) = (new(), false);
        let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
        let mut before: BTreeMap<u16, u64> = BTreeMap::new();
        let mut pushed = 0;
        let mut done = 0;
        let flying = |state: &State| match &state.in_flight {
            Flight::Memory { items, .. } => items.clone(),
            _ => Vec::new(),
        };
        for (sequence, step) in steps.into_iter().enumerate() {
            let sequence = sequence as u64;
            match step {
                Step::Push { partition, outputs } => {
                    shard.push(&batch(&rule, partition, sequence, outputs), outputs, now, &metrics);
                    newest.insert(partition, sequence);
                    pushed += outputs;
                }
                Step::Begin if !busy => busy = shard.begin(now, &metrics).is_some(),
                Step::Complete if busy => {
                    done += flying(&shard.state.lock()).iter().map(|item| item.samples).sum::<usize>();
                    shard.complete(&metrics);
                    busy = false;
                }
                Step::Wait => now = now.plus(6_000),
                Step::Move => {
                    let estate = shard.dismantle(&metrics);
                    shard = new();
                    for (partition, progress) in estate.progress {
                        shard.adopt_progress(partition, progress, None);
                    }
                    estate.items.into_iter().for_each(|item| shard.adopt(item, now, &metrics));
                    busy = false;
                }
                Step::Begin | Step::Complete => {}
            }
            let state = shard.state.lock();
            let flying = flying(&state);
            let all = || flying.iter().chain(&state.queue);
            let pending: usize = all().map(|item| item.samples).sum();
            prop_assert_eq!(metrics.pending.load(Relaxed), pending);
            prop_assert_eq!(state.queue.iter().map(|item| item.samples).sum::<usize>(), state.samples);
            prop_assert_eq!(state.queue.iter().map(Item::bytes).sum::<usize>(), state.bytes);
            prop_assert_eq!(metrics.snapshot().pending_bytes, all().map(Item::bytes).sum::<usize>() as u64);
            prop_assert!(state.samples <= 20);
            let dropped: u64 = metrics.snapshot().dropped.iter().map(|(_, n)| n).sum();
            prop_assert_eq!(pushed, done + pending + dropped as usize);
            let acked = |partition: &u16| state.progress.get(partition).and_then(Progress::acked);
            for item in all() {
                prop_assert!(acked(&item.batch.partition).is_none_or(|acked| acked < item.batch.sequence));
            }
            for (partition, sequence) in &before {
                prop_assert!(acked(partition) >= Some(*sequence), "never goes back");
            }
            before = newest.keys().filter_map(|partition| Some((*partition, acked(partition)?))).collect();
        }
        while busy || shard.due(now, Span(0), true) != Due::Never {
            shard.complete(&metrics);
            busy = shard.begin(now, &metrics).is_some();
        }
        prop_assert_eq!(shard.acked(), newest);
        prop_assert_eq!(metrics.pending.load(Relaxed), 0);
    }
}
