use super::*;
use crate::emit::disk::{Disk, QueueDir};
use crate::emit::names::tests::{SCORE_ONLY, alone, rule};
use crate::emit::request::Encoding;
use crate::emit::spill::blocks;
use crate::engine::OutputValue;
use crate::labels::{Labels, NAME};
use crate::rules::{As, RuleSet};
use crate::state::Fsync;
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

#[derive(Clone, Debug)]
enum DiskStep {
    Push {
        partition: u16,
        outputs: usize,
    },
    Begin,
    Complete,
    /// Begins to write, does another step meanwhile, and has written, or failed to.
    Write {
        works: bool,
        between: Option<bool>,
    },
    Move,
}

fn disk_step() -> impl Strategy<Value = DiskStep> {
    prop_oneof![
        6 => (0u16..3, 0usize..5).prop_map(|(partition, outputs)| DiskStep::Push { partition, outputs }),
        3 => Just(DiskStep::Begin),
        3 => Just(DiskStep::Complete),
        2 => (any::<bool>(), any::<Option<bool>>()).prop_map(|(works, between)| DiskStep::Write { works, between }),
        1 => Just(DiskStep::Move),
    ]
}

/// A shard with a disk, and what a list knows of it.
struct Model {
    rules: Arc<RuleSet>,
    shard: Shard,
    disk: Disk,
    metrics: Metrics,
    sequence: u64,
    /// Batches not delivered: sequence and samples, by partition.
    pending: BTreeMap<u16, VecDeque<(u64, usize)>>,
    newest: BTreeMap<u16, u64>,
    work: Option<Work>,
}

impl Model {
    const NOW: Millis = Millis(0);

    fn push(&mut self, partition: u16, outputs: usize) {
        self.sequence += 1;
        let batch = batch(&self.rules, partition, self.sequence, outputs);
        self.shard.push(&batch, outputs, Self::NOW, &self.metrics);
        self.newest.insert(partition, self.sequence);
        if outputs > 0 {
            self.pending.entry(partition).or_default().push_back((self.sequence, outputs));
        }
    }

    fn begin(&mut self) {
        if self.work.is_none() {
            self.work = self.shard.begin(Self::NOW, &self.metrics);
        }
    }

    /// The receiver takes what is in flight: exactly what comes next of each partition.
    fn complete(&mut self) {
        match self.work.take() {
            None => return,
            Some(Work::Memory(items)) => {
                for item in items {
                    let first = self.pending.get_mut(&item.batch.partition).and_then(VecDeque::pop_front);
                    assert_eq!(first, Some((item.batch.sequence, item.samples)));
                }
            }
            Some(Work::Disk(block)) => {
                let partitions = self.shard.wants(&block);
                let wanted = |entry: &crate::emit::disk::format::Entry| {
                    partitions[&entry.partition].is_none_or(|acked| acked < entry.sequence)
                };
                let stored = self.disk.load(&block, wanted).expect("whole");
                let mut samples = 0;
                for (partition, last) in &block.partitions {
                    let waiting = self.pending.entry(*partition).or_default();
                    while waiting.front().is_some_and(|(sequence, _)| sequence <= last) {
                        samples += waiting.pop_front().map_or(0, |(_, samples)| samples);
                    }
                }
                assert_eq!(stored.len(), samples, "what is sent is what was not");
            }
        }
        self.shard.complete(&self.metrics);
        self.disk.settle(&self.shard.released(Self::NOW, &self.metrics));
    }

    fn write(&mut self, works: bool, between: Option<bool>) {
        let items = self.shard.write();
        match between {
            Some(true) => self.complete(),
            Some(false) => self.push(1, 2),
            None => {}
        }
        if items.is_empty() {
            return;
        }
        let mut segments = self.disk.lock();
        let blocks = blocks(&items, 7, &mut Encoding::default()).expect("encodes");
        let blocks = works.then(|| self.disk.append(&mut segments, 2_000, blocks).expect("written"));
        self.shard.written(&items, blocks, &self.metrics);
    }

    fn check(&self) {
        let acked = self.shard.acked();
        for (partition, waiting) in &self.pending {
            if let Some((first, _)) = waiting.front() {
                assert!(
                    acked.get(partition).is_none_or(|acked| acked < first),
                    "{acked:?} {:?}",
                    self.pending
                );
            }
        }
    }
}

proptest! {
    /// Through memory and disk, failed writes and reloads: each batch is sent once and in order, and
    /// nothing is acknowledged before.
    #[test]
    fn each_batch_is_sent_once_through_memory_and_disk(steps in prop::collection::vec(disk_step(), 0..60)) {
        let home = tempfile::tempdir().expect("dir");
        let dir = QueueDir { path: home.path().to_path_buf(), incarnation: 1, fsync: Fsync::Never };
        let new = || shard(1000, 7, Span::HOUR);
        let mut model = Model {
            rules: alone(rule(SCORE_ONLY, &[])),
            shard: new(),
            disk: Disk::open(&dir, "t").expect("opens").disk,
            metrics: Metrics::default(),
            sequence: 0,
            pending: BTreeMap::new(),
            newest: BTreeMap::new(),
            work: None,
        };
        for step in steps {
            match step {
                DiskStep::Push { partition, outputs } => model.push(partition, outputs),
                DiskStep::Begin => model.begin(),
                DiskStep::Complete => model.complete(),
                DiskStep::Write { works, between } => model.write(works, between),
                DiskStep::Move => {
                    let estate = model.shard.dismantle(&model.metrics);
                    model.shard = new();
                    for (partition, progress) in estate.progress {
                        model.shard.adopt_progress(partition, progress, None);
                    }
                    for block in estate.backlog {
                        model.shard.adopt_block(block, true, &model.metrics);
                    }
                    for item in estate.items {
                        model.shard.adopt(item, Model::NOW, &model.metrics);
                    }
                    model.disk.settle(&estate.released);
                    model.work = None;
                }
            }
            model.check();
        }
        model.begin();
        while model.work.is_some() {
            model.complete();
            model.check();
            model.begin();
        }
        prop_assert!(model.pending.values().all(VecDeque::is_empty), "{:?}", model.pending);
        prop_assert_eq!(model.shard.acked(), model.newest);
        prop_assert_eq!(model.metrics.pending.load(Relaxed), 0);
        model.disk.settle(&model.shard.released(Model::NOW, &model.metrics));
        model.disk.flush(&mut model.disk.lock()).expect("flushed");
        prop_assert_eq!(model.disk.bytes(), 0, "no segment is kept");
    }
}
