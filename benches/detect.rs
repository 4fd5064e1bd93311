//! Detection: one sample by each detector alone and by the default set, calibration alone, the band, and the
//! model's binary form.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use oddity::calibrate::{Exposure, Ledger, PEAKS, Prior};
use oddity::codec::{Stored, image, restored};
use oddity::detect::{Detector, DetectorSet, Model, ModelParams, ReadOut};
use oddity::time::Millis;

const INTERVAL: i64 = 15_000;

/// A fixed sequence close to normal: the sum of twelve uniforms.
fn noise() -> Vec<f64> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..65_536).map(|_| 94.0 + (0..12).map(|_| uniform()).sum::<f64>()).collect()
}

/// A model and its clock.
struct Run {
    params: ModelParams,
    model: Model,
    count: usize,
}

impl Run {
    fn new(detectors: DetectorSet, values: &[f64], samples: usize) -> Run {
        let params = ModelParams { detectors, ..ModelParams::default() };
        let mut run = Run { model: Model::new(&params), params, count: 0 };
        for _ in 0..samples {
            run.step(values);
        }
        run
    }

    fn at(&self) -> Millis {
        Millis(self.count as i64 * INTERVAL)
    }

    fn step(&mut self, values: &[f64]) -> f64 {
        let value = values[self.count % values.len()];
        let verdict = self.model.observe(&self.params, &ReadOut::default(), self.at(), value);
        self.count += 1;
        verdict.map_or(0.0, |v| v.score)
    }
}

fn detect(c: &mut Criterion) {
    let values = noise();
    let alone = Detector::ALL.map(|d| (d.name(), DetectorSet(0).with(d)));
    let mut group = c.benchmark_group("observe");
    for (name, set) in alone.into_iter().chain([("default", DetectorSet::DEFAULT)]) {
        let mut run = Run::new(set, &values, 5_000);
        println!("{name}: {} + {} bytes", size_of::<Model>(), run.model.heap_bytes());
        group.bench_function(name, |b| b.iter(|| black_box(run.step(&values))));
    }
    // A ledger as of ten days: what it says of a sample's evidence, and what it learns of it.
    let (mut exposure, mut ledger, mut count) = (Exposure::default(), Ledger::default(), 0);
    let mut calibrate = || {
        count += 1;
        let evidence = (values[count % values.len()] - 100.0).abs();
        let nats = ledger.nats(exposure.depth(), evidence, Prior { peaks: 10.0, scale: 1.0 });
        let moment = exposure.take(Millis(count as i64 * INTERVAL));
        ledger.learn(&moment, evidence, 12.0, PEAKS / 2);
        nats
    };
    for _ in 0..57_600 {
        calibrate();
    }
    group.bench_function("calibrate", |b| b.iter(|| black_box(calibrate())));
    // Too many for the caches.
    let mut runs: Vec<Run> = (0..50_000).map(|_| Run::new(DetectorSet::DEFAULT, &values, 120)).collect();
    let mut next = 0;
    group.bench_function("default, 50,000 models in turn", |b| {
        b.iter(|| {
            next = (next + 1) % runs.len();
            black_box(runs[next].step(&values))
        });
    });
    group.finish();

    let mut run = Run::new(DetectorSet::DEFAULT, &values, 5_000);
    let params = run.params.clone();
    c.bench_function("band", |b| {
        b.iter_batched(
            || {
                run.step(&values);
                (run.model.clone(), run.at())
            },
            |(model, at)| model.band(&params, &ReadOut::default(), at),
            BatchSize::SmallInput,
        );
    });

    let run = Run::new(DetectorSet::DEFAULT, &values, 5_000);
    let mut bytes = image(&run.model);
    c.bench_function("load", |b| b.iter(|| restored::<Model>(black_box(&bytes))));
    c.bench_function("store", |b| {
        b.iter(|| {
            bytes.clear();
            black_box(&run.model).store(&mut bytes);
        });
    });
}

criterion_group!(benches, detect);
criterion_main!(benches);
