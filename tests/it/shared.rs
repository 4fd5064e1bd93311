//! Case 5, where series hang together: shared models, silence, windows, and pods that come and go.
//! Same records, same bits: live over HTTP from several senders, the engine in this process, and a
//! back-test of the same samples.

use crate::harness::http::get;
use crate::harness::pods::{Line, ROUND, SENDERS, STEPS, fleet};
use crate::harness::reference::{Reference, STALE};
use crate::harness::results;
use crate::harness::sidecar::Sidecar;
use crate::harness::sink::{Kept, Sink, count, differences};
use crate::harness::wire::{Series, V1, V2, encode_v1, encode_v2, send};
use crate::harness::{heavy, temp_dir};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const MIN_SAMPLES: usize = 20;
const RELOAD_AT: usize = 8 * ROUND;
const NOWHERE: &str = "http://127.0.0.1:1/api/v1/write";

/// Before the reload and after it: nothing that starts a series anew.
const BEFORE: (&str, &str) = ("1 per 7d", "3m");
const AFTER: (&str, &str) = ("1 per 2d", "4m");

fn rules(target: &str, (budget, silent): (&str, &str)) -> String {
    format!(
        r#"
remote_write: [{{url: "{target}"}}]
defaults:
  min_samples: {MIN_SAMPLES}
  false_alarms: {budget}
  detectors: [ewma, zscore, holt_winters, rarity, isolation]
  identity_without: [pod]
  cohort: [job, metric]
  silence: {{after: {silent}}}
  emit: [score, flag, bands, detectors]
rules:
- name: level
  match: [pod_queue]
  ignore:
  - {{from: 2023-11-15T01:30:10Z, to: 2023-11-15T01:50:20Z, match: '{{job="web", cluster!="c"}}'}}
- {{name: work, match: [pod_work_total]}}
ignore:
- {{cron: "20 3 * * *", duration: 7m, match: '{{pod=~".*-0-1"}}'}}
"#
    )
}

/// A small generator of cuts: any would do, this one is seeded.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

fn post(url: &str, body: &[Series], dice: &mut Dice) {
    let (kind, bytes) = if dice.roll(2) == 0 { (V1, encode_v1(body)) } else { (V2, encode_v2(body)) };
    // Now and then an answer is lost on the way, and the request is sent again.
    for _ in 0..1 + usize::from(dice.roll(8) == 0) {
        let answer = send(url, kind, &bytes).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

/// Sends lines over some steps, in one body or cut at random, series after series or step after step.
fn window(url: &str, lines: &[&Line], steps: Range<usize>, whole: bool, dice: &mut Dice) {
    let mut rest = lines;
    while !rest.is_empty() {
        let size = if whole { rest.len() } else { rest.len().min(1 + dice.roll(40)) };
        let (now, later) = rest.split_at(size);
        rest = later;
        let of = |steps: Range<usize>| now.iter().filter_map(move |line| line.slice(steps.clone()));
        let body: Vec<Series> = if dice.roll(2) == 0 {
            of(steps.clone()).collect()
        } else {
            steps.clone().flat_map(|step| of(step..step + 1)).collect()
        };
        if !body.is_empty() {
            post(url, &body, dice);
        }
    }
}

/// Sends a round of steps, each sender on its own. Samples of one source (cluster) may be a minute
/// late: senders 0 and 1, who share one, go on minute by minute; the others may send many at once.
fn round(url: &str, lines: &[Line], steps: Range<usize>, seed: u64) {
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (together, steps) = (&together, steps.clone());
            scope.spawn(move || {
                let mine: Vec<&Line> = lines.iter().filter(|line| line.sender == sender).collect();
                let mut dice = Dice(seed * 1_000 + (steps.start * SENDERS + sender) as u64);
                let mut step = steps.start;
                while step < steps.end {
                    let whole = sender > 1 && dice.roll(3) == 0;
                    let most = if whole { ROUND } else { 2 };
                    let until = (step + if sender > 1 { 1 + dice.roll(most) } else { 2 }).min(steps.end);
                    window(url, &mine, step..until, whole, &mut dice);
                    step = until;
                    if sender < 2 {
                        together.wait();
                    }
                }
            });
        }
    });
}

/// What a sidecar says, and its `/metrics` at the end.
fn live(lines: &[Line], workers: usize, seed: u64, reload: bool, wanted: usize) -> (Kept, Sidecar) {
    let home = temp_dir();
    let sink = Sink::start();
    let sidecar = Sidecar::start(home.path(), &rules(&sink.url(), BEFORE), workers);
    let url = sidecar.write_url();
    for start in (0..STEPS).step_by(ROUND) {
        if reload && start == RELOAD_AT {
            sidecar.reload(&rules(&sink.url(), AFTER));
        }
        round(&url, lines, start..start + ROUND, seed);
    }
    // What is missing in the end is shown series by series, by the comparison with what was expected.
    let start = Instant::now();
    while sink.count() < wanted && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(&format!("{}/-/healthy", sidecar.base)).expect("an answer").status, 200);
    (sink.into_kept(), sidecar)
}

/// What the engine says in this process, of bodies of a step each.
fn reference(lines: &[Line], reload: bool) -> Kept {
    let reference = Reference::new(&rules(NOWHERE, BEFORE));
    for step in 0..STEPS {
        if reload && step == RELOAD_AT {
            reference.reload(&rules(NOWHERE, AFTER));
        }
        let body: Vec<Series> = lines.iter().filter_map(|line| line.slice(step..step + 1)).collect();
        reference.apply(encode_v1(&body));
    }
    reference.into_kept()
}

/// The case is worth nothing where the shared models are not used: they are.
fn check_sharing(lines: &[Line], kept: &Kept, sidecar: &Sidecar) {
    let of = |line: &Line, name: &str| {
        let part = format!("pod={:?}", line.label("pod"));
        let metric = format!("metric={:?}", line.label("__name__"));
        let name = format!("__name__={name:?}");
        let found = kept
            .iter()
            .find(|(labels, _)| [&part, &metric, &name].iter().all(|text| labels.contains(text.as_str())));
        found.map(|(_, samples)| samples.clone()).unwrap_or_default()
    };
    let (mut kin, mut cohort, mut silent) = (0, 0, 0);
    for line in lines.iter().filter(|line| !line.label("pod").is_empty()) {
        let scores = of(line, "anomaly_score");
        let before = |at: i64| line.samples.iter().take_while(|sample| sample.0 < at).count();
        let first = scores.keys().next().map(|at| before(*at));
        let counter = usize::from(line.label("__name__") == "pod_work_total");
        match line.generation {
            0 => assert_eq!(first, Some(MIN_SAMPLES - 1 + counter), "{:?}", line.labels),
            _ if first == Some(4 + counter) && line.label("instance").starts_with("host-") => kin += 1,
            _ if first == Some(4 + counter) => cohort += 1,
            _ => {}
        }
        let own = |at: &i64| line.samples.iter().any(|sample| sample.0 == *at);
        silent += scores.iter().filter(|(at, bits)| **bits != STALE && !own(at)).count();
    }
    println!("{kin} pods borrowed of those before them, {cohort} of their cohort; {silent} silences told");
    assert!(kin >= 20 && cohort >= 20 && silent >= 20);
    let isolated = kept.iter().filter(|(labels, _)| labels.contains("detector=\"isolation\""));
    let isolated = isolated.flat_map(|(_, samples)| samples.values().copied());
    let isolated = isolated.filter(|bits| f64::from_bits(*bits) > 0.0).count();
    let flags = kept.iter().filter(|(labels, _)| labels.contains("anomaly_flag"));
    let flags = flags.flat_map(|(_, samples)| samples.values()).filter(|b| **b == 1f64.to_bits()).count();
    println!("isolation spoke of {isolated} samples; {flags} flags");
    assert!(isolated > 5_000 && flags > 50);
    assert!(sidecar.metric("oddity_cohorts", "") >= 2.0, "{}", sidecar.metrics());
    assert_eq!(sidecar.metric("oddity_isolation_forests", ""), 2.0);
    assert!(sidecar.metric("oddity_epochs_closed_total", "") >= 4.0);
    assert_eq!(sidecar.metric("oddity_contributions_late_total", ""), 0.0);
    for reason in ["ignored", "withheld", "duplicate", "warming", "scored"] {
        let part = format!("reason={reason:?}");
        assert!(sidecar.metric("oddity_samples_handled_total", &part) > 0.0, "{reason}");
    }
}

#[test]
fn shared_models_silence_and_a_reload_are_the_same_to_the_bit_however_samples_come() {
    let _turn = heavy();
    let lines = fleet(true);
    let expected = reference(&lines, true);
    let wanted = count(&expected);
    for (workers, seed) in [(1, 11), (2, 12)] {
        let (got, sidecar) = live(&lines, workers, seed, true, wanted);
        println!("{workers} workers: {} samples in {} series", count(&got), got.len());
        assert!(got == expected, "{workers} workers, seed {seed}:\n{}", differences(&got, &expected));
        check_sharing(&lines, &got, &sidecar);
    }
}

#[test]
fn a_dump_with_shared_models_is_replayed_as_it_was_live() {
    let _turn = heavy();
    // A dump holds no stale markers.
    let lines = fleet(false);
    let expected = reference(&lines, false);
    let (got, _sidecar) = live(&lines, 2, 3, false, count(&expected));
    assert!(got == expected, "live:\n{}", differences(&got, &expected));

    let home = temp_dir();
    let path = |name: &str| home.path().join(name);
    let dump: String = lines.iter().map(Line::openmetrics).collect();
    std::fs::write(path("dump.txt"), dump + "# EOF\n").expect("written");
    std::fs::write(path("rules.yaml"), rules(NOWHERE, BEFORE)).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddity"));
    command.arg("backtest").arg("--openmetrics").arg(path("dump.txt"));
    command.arg("--rules").arg(path("rules.yaml")).arg("--out").arg(path("out"));
    let output = command.stdin(Stdio::null()).output().expect("oddity runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let replayed = results::read(&path("out"), true, |metric| match metric {
        "pod_work_total" => ("work", Some("rate")),
        _ => ("level", None),
    });
    // Result files say something of samples only: no silences, no ends, no single detectors.
    let mut live = Kept::new();
    for line in &lines {
        let times: std::collections::BTreeSet<i64> = line.samples.iter().map(|sample| sample.0).collect();
        let pod = format!("pod={:?}", line.label("pod"));
        let metric = format!("metric={:?}", line.label("__name__"));
        for (labels, samples) in got.iter().filter(|(l, _)| l.contains(&pod) && l.contains(&metric)) {
            let told = samples.iter().filter(|(at, bits)| times.contains(at) && **bits != STALE);
            let told: std::collections::BTreeMap<i64, u64> = told.map(|(at, bits)| (*at, *bits)).collect();
            if !labels.contains("anomaly_detector_score") && !told.is_empty() {
                live.insert(labels.clone(), told);
            }
        }
    }
    println!("{} samples replayed", count(&replayed));
    assert!(count(&replayed) > 100_000, "{}", count(&replayed));
    assert!(replayed == live, "by the dump:\n{}", differences(&replayed, &live));
}
