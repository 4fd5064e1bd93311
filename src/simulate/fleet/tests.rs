use super::*;

const START: i64 = 116_000_000;

fn fleet(series: usize, churn: f64) -> Fleet {
    Fleet::new(FleetOptions { series, churn, seed: 9, ..Default::default() }).expect("valid")
}

fn values(fleet: &Fleet, series: usize, steps: std::ops::Range<i64>) -> Vec<f64> {
    steps
        .map(|step| match fleet.point(series, step) {
            Point::Value(value) => value,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn equal_options_give_equal_bytes_and_another_seed_others() {
    let all: Vec<u32> = (0..100).collect();
    for version in [Version::V1, Version::V2] {
        let a = fleet(100, 0.0).body(version, &all, START);
        let b = fleet(100, 0.0).body(version, &all, START);
        assert_eq!((&a.bytes, a.samples), (&b.bytes, 100));
        let other = Fleet::new(FleetOptions { series: 100, seed: 10, ..Default::default() });
        assert_ne!(other.expect("valid").body(version, &all, START).bytes, a.bytes);
    }
}

#[test]
fn a_value_does_not_depend_on_the_size_of_the_fleet() {
    let (small, large) = (fleet(40, 0.0), fleet(4000, 0.0));
    for series in 0..40 {
        assert_eq!(small.point(series, START), large.point(series, START));
        assert_eq!(small.labels(series, START), large.labels(series, START));
    }
}

#[test]
fn counters_never_fall_but_at_a_restart() {
    let fleet = fleet(20, 0.0);
    for series in (0..20).filter(|&series| fleet.kind(series) == MetricKind::Counter) {
        let values = values(&fleet, series, START..START + 40_000);
        let falls = values.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((1..=4).contains(&falls), "series {series}: {falls} resets in a week");
    }
}

#[test]
fn a_shift_of_k_widths_is_k_standard_deviations() {
    let mut shifted = fleet(20, 0.0);
    let fault = Fault { kind: FaultKind::Shift, series: 1, start: START + 100, steps: 10, size: 12.0 };
    shifted.inject(fault);
    let (with, without) =
        (values(&shifted, 1, START..START + 200), values(&fleet(20, 0.0), 1, START..START + 200));
    let day = values(&fleet(20, 0.0), 1, START..START + 240);
    let mean = day.iter().sum::<f64>() / 240.0;
    let sd = (day.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 240.0).sqrt();
    for i in 0..200 {
        let lift = (with[i] - without[i]) / sd;
        if fault.active(START + i as i64) {
            assert!((7.0..17.0).contains(&lift), "{lift} widths at {i}");
        } else {
            assert_eq!(with[i], without[i]);
        }
    }
}

#[test]
fn a_stalled_counter_stands_and_goes_on_and_errors_only_add() {
    let mut faulty = fleet(20, 0.0);
    // A counter that has just restarted has the whole run before its next restart.
    let start = faulty.restarted(0, START + 20_000) + 100;
    faulty.inject(Fault { kind: FaultKind::Stall, series: 3, start: start + 10, steps: 20, size: 0.0 });
    faulty.inject(Fault { kind: FaultKind::Errors, series: 4, start: start + 10, steps: 20, size: 10.0 });
    let stalled = values(&faulty, 3, start..start + 60);
    assert!(stalled[9..30].windows(2).all(|pair| pair[0] == pair[1]), "stands");
    assert!(stalled[29..].windows(2).all(|pair| pair[0] < pair[1]), "goes on");
    let errors = values(&faulty, 4, start..start + 60);
    assert!(errors.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(errors[29] - errors[9] > 5.0 * (errors[59] - errors[39]));
}

#[test]
fn a_gone_pod_ends_with_stale_markers_and_comes_back() {
    let mut fleet = fleet(40, 0.0);
    fleet.inject(Fault { kind: FaultKind::Gone, series: 7, start: START, steps: 3, size: 0.0 });
    for series in 0..20 {
        assert_eq!(fleet.point(series, START), Point::Stale);
        assert_eq!(fleet.point(series, START + 1), Point::Absent);
        assert!(matches!(fleet.point(series, START + 3), Point::Value(_)));
        assert!(matches!(fleet.point(series + 20, START), Point::Value(_)));
    }
}

#[test]
fn churn_replaces_the_stated_share_and_ends_what_it_replaces() {
    let pods = 4000;
    let fleet = fleet(pods * METRICS.len(), 20.0);
    let replaced: Vec<usize> =
        (0..pods).filter(|&pod| fleet.generation(pod, START) != fleet.generation(pod, START + 240)).collect();
    assert!((700..=900).contains(&replaced.len()), "{} of {pods} pods in an hour", replaced.len());
    let first = (replaced[0] * METRICS.len()) as u32;
    let series: Vec<u32> = (first..first + METRICS.len() as u32).collect();
    let samples: u64 = (1..=240).map(|i| fleet.body(Version::V1, &series, START + i).samples).sum();
    assert_eq!(samples, 241 * METRICS.len() as u64, "one stale marker for each series");
    assert_ne!(fleet.labels(0, START), fleet.labels(0, START + 6 * 240), "a life lasts five hours");
}
