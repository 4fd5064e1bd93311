//! Case 4: the target is down under ten thousand series, then back. Nothing is missing, nothing is
//! different: the store holds, bit for bit, what the engine gives on the same log.

use crate::harness::fleet::Fleet;
use crate::harness::peers::{Prometheus, Suite};
use crate::harness::reference::Reference;
use crate::harness::sidecar::Sidecar;
use crate::harness::sink::{Kept, count, differences, keep};
use crate::harness::store::{Store, text};
use crate::harness::wire::{V1, encode_v1, send};
use crate::harness::{free_port, heavy, now_ms, temp_dir, wait_until};
use std::time::{Duration, Instant};

const SERIES: usize = 10_000;
/// Steps sent before, while and after the target is down; each stands for one second.
const STEPS: [usize; 3] = [25, 90, 15];
const BATCH: usize = 2_000;

fn rules(target: &str) -> String {
    format!(
        r#"
remote_write: [{{url: "{target}"}}]
defaults: {{min_samples: 20}}
rules:
- {{name: level, match: [fleet_level], as: value}}
- {{name: work, match: [fleet_work_total], as: rate}}
"#
    )
}

/// Everything of one output metric that the store holds, read in slices by instance.
fn read_back(store: &Store, kept: &mut Kept, metric: &str) {
    for host in 0..97 {
        let range = format!("{metric}{{instance=\"host-{host}\"}}[1h]");
        for (labels, samples) in store.samples(&range) {
            let labels = text(&labels);
            for (at, value) in samples {
                keep(kept, &labels, at, value.to_bits()).expect("a store has one value a moment");
            }
        }
    }
}

#[test]
fn what_was_sent_while_the_target_was_down_arrives_bit_for_bit() {
    let _turn = heavy();
    let home = temp_dir();
    let dir = home.path();
    let port = free_port();
    let rules = rules(&Store::new(port).write_url());
    let config = "global: {}\n";
    let mut target = Prometheus::start_on(port, Suite::Sid, &dir.join("prometheus"), config);
    let sidecar = Sidecar::start(&dir.join("oddity"), &rules, 2);
    let total: usize = STEPS.iter().sum();
    let fleet = Fleet { seed: 41, start: now_ms() - 1_000 * total as i64, interval: 1_000 };
    let reference = Reference::new(&rules);
    let mut slowest = Duration::ZERO;
    let mut send_steps = |steps: std::ops::Range<usize>| {
        for step in steps {
            for first in (0..SERIES).step_by(BATCH) {
                let slice: Vec<_> =
                    (first..first + BATCH).map(|series| fleet.slice(series, step..step + 1)).collect();
                let body = encode_v1(&slice);
                let start = Instant::now();
                let answer = send(&sidecar.write_url(), V1, &body).expect("an answer");
                slowest = slowest.max(start.elapsed());
                assert_eq!(answer.status, 204, "{}", answer.text());
                reference.apply(body);
            }
        }
    };
    let [before, down, _] = STEPS;
    send_steps(0..before);
    target.stop();
    let away = Instant::now();
    send_steps(before..before + down);
    // Long enough for retries to back off to their longest wait.
    std::thread::sleep(Duration::from_secs(20).saturating_sub(away.elapsed()));
    let away = away.elapsed();
    let target = target.restart();
    send_steps(before + down..total);
    let expected = reference.into_kept();
    let wanted = count(&expected);
    assert!(wanted > SERIES * 2 * (total - 25), "the engine scored the log: {wanted} samples");
    let flags = expected.iter().filter(|(labels, _)| labels.contains("anomaly_flag"));
    let flags =
        flags.flat_map(|(_, samples)| samples.values()).filter(|bits| **bits == 1f64.to_bits()).count();
    wait_until("all scores in the store", Duration::from_secs(180), || {
        // One name at a time: count_over_time drops it, and both would then be one series.
        let query = "sum(count_over_time(anomaly_score[1h])) + sum(count_over_time(anomaly_flag[1h]))";
        let have = target.store.try_instant(query)?.first().map_or(0.0, |(_, value)| *value);
        let pending = sidecar.metric("oddity_remote_write_pending_samples", "");
        if have as usize == wanted { Ok(()) } else { Err(format!("{have} of {wanted}, {pending} pending")) }
    });
    let mut kept = Kept::new();
    read_back(&target.store, &mut kept, "anomaly_score");
    read_back(&target.store, &mut kept, "anomaly_flag");
    println!(
        "down for {:.0}s under {SERIES} series: {} samples in {} series, {flags} flags, slowest answer {slowest:?}",
        away.as_secs_f64(),
        count(&kept),
        kept.len()
    );
    assert!(kept == expected, "store and engine differ:\n{}", differences(&kept, &expected));
}
