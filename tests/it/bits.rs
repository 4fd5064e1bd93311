//! Case 5: same records, same bits: whatever the number of senders and workers, the protocol and
//! the cuts between requests.

use crate::harness::fleet::Fleet;
use crate::harness::reference::Reference;
use crate::harness::sidecar::Sidecar;
use crate::harness::sink::{Kept, Sink, count, differences};
use crate::harness::wire::{Series, V1, V2, encode_v1, encode_v2, send};
use crate::harness::{heavy, now_ms, temp_dir, wait_until};
use std::ops::Range;
use std::time::Duration;

const SERIES: usize = 10_000;
const SENDERS: usize = 4;
const STEPS: usize = 60;
const RELOAD_AT: usize = 33;

fn rules(target: &str, budget: &str) -> String {
    format!(
        r#"
remote_write: [{{url: "{target}"}}]
defaults: {{min_samples: 12, false_alarms: {budget}}}
rules:
- {{name: level, match: [fleet_level], as: value}}
- {{name: work, match: [fleet_work_total], as: rate}}
"#
    )
}

const BEFORE: &str = "1 per 30d";
const AFTER: &str = "1 per 7d";

/// A small generator of cuts: any would do, this one is seeded.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// Sends a quarter of the fleet over some steps, cut at random in time and in series.
fn send_share(url: &str, fleet: &Fleet, share: usize, steps: Range<usize>, dice: &mut Dice) {
    let mine: Vec<usize> = (share..SERIES).step_by(SENDERS).collect();
    let mut step = steps.start;
    while step < steps.end {
        let until = (step + 1 + dice.roll(4)).min(steps.end);
        let mut rest = mine.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + dice.roll(1_200)));
            rest = later;
            let body: Vec<Series> = if dice.roll(2) == 0 {
                now.iter().map(|series| fleet.slice(*series, step..until)).collect()
            } else {
                // As Prometheus sends: one sample a series, the same series again later in the body.
                (step..until).flat_map(|s| now.iter().map(move |n| fleet.slice(*n, s..s + 1))).collect()
            };
            let (kind, bytes) =
                if dice.roll(2) == 0 { (V1, encode_v1(&body)) } else { (V2, encode_v2(&body)) };
            let answer = send(url, kind, &bytes).expect("an answer");
            assert_eq!(answer.status, 204, "{}", answer.text());
        }
        step = until;
    }
}

fn live(fleet: Fleet, workers: usize, seed: u64, wanted: usize) -> Kept {
    let home = temp_dir();
    let sink = Sink::start();
    let sidecar = Sidecar::start(home.path(), &rules(&sink.url(), BEFORE), workers);
    let url = sidecar.write_url();
    let all = |steps: Range<usize>| {
        std::thread::scope(|scope| {
            for share in 0..SENDERS {
                let (url, fleet, steps) = (&url, &fleet, steps.clone());
                let mut dice = Dice(seed * 100 + share as u64 + steps.start as u64);
                scope.spawn(move || send_share(url, fleet, share, steps, &mut dice));
            }
        });
    };
    all(0..RELOAD_AT);
    sidecar.reload(&rules(&sink.url(), AFTER));
    all(RELOAD_AT..STEPS);
    wait_until("all outputs at the sink", Duration::from_secs(120), || {
        let have = sink.count();
        if have >= wanted { Ok(()) } else { Err(format!("{have} of {wanted}")) }
    });
    drop(sidecar);
    sink.into_kept()
}

#[test]
fn senders_protocols_cuts_and_workers_change_no_bit() {
    let _turn = heavy();
    let fleet = Fleet { seed: 51, start: now_ms() - 1_000 * STEPS as i64, interval: 1_000 };
    let target = "http://127.0.0.1:1/api/v1/write";
    let reference = Reference::new(&rules(target, BEFORE));
    for step in 0..STEPS {
        if step == RELOAD_AT {
            reference.reload(&rules(target, AFTER));
        }
        let body: Vec<Series> = (0..SERIES).map(|series| fleet.slice(series, step..step + 1)).collect();
        reference.apply(encode_v1(&body));
    }
    let expected = reference.into_kept();
    let wanted = count(&expected);
    assert!(wanted > SERIES * 2 * (STEPS - 15), "the engine scored the log: {wanted} samples");
    for (workers, seed) in [(1, 1), (2, 2)] {
        let got = live(fleet, workers, seed, wanted);
        println!("{workers} workers: {} samples in {} series", count(&got), got.len());
        assert!(got == expected, "{workers} workers, seed {seed}:\n{}", differences(&got, &expected));
    }
}
