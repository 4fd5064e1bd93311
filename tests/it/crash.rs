//! Killed at any moment, again and again: every receiver ends up with what an undisturbed engine gives,
//! bit for bit, no moment ever has two values, and what was learnt is the same.
//!
//! `ODDITY_CRASH=series=50000,rounds=150,kills=100,seed=1` makes it as large as wanted.

use crate::harness::fleet::Fleet;
use crate::harness::reference::Reference;
use crate::harness::sink::{Sink, differences};
use crate::harness::wire::{V1, V2, encode_v1, encode_v2, send};
use crate::harness::{free_port, gauss, heavy, http, now_ms, temp_dir, wait_until};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SENDERS: usize = 4;
const BATCH: usize = 2_000;
/// Fail points, and how often each is passed at most before it strikes.
const POINTS: [(&str, u64); 5] =
    [("append", 30), ("apply", 60), ("checkpoint", 2), ("rename", 2), ("queue-cut", 4)];
/// Steps so far apart that epochs are closed on the way.
const INTERVAL: i64 = 300_000;

#[derive(Clone, Copy, Debug)]
struct Plan {
    series: usize,
    rounds: usize,
    kills: usize,
    seed: u64,
    /// Milliseconds a round takes at least.
    pace: u64,
}

impl Plan {
    fn read() -> Plan {
        let mut plan = Plan { series: 1_200, rounds: 60, kills: 15, seed: now_ms() as u64, pace: 500 };
        let text = std::env::var("ODDITY_CRASH").unwrap_or_default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').expect("name=number");
            let value: u64 = value.parse().expect("a number");
            match name {
                "series" => plan.series = value as usize,
                "rounds" => plan.rounds = value as usize,
                "kills" => plan.kills = value as usize,
                "seed" => plan.seed = value,
                "pace" => plan.pace = value,
                _ => panic!("ODDITY_CRASH has no {name}"),
            }
        }
        plan
    }

    /// A number below `below`.
    fn draw(&self, what: u64, number: usize, below: u64) -> u64 {
        let bits = gauss(self.seed, what, number as u64).to_bits();
        (bits >> 8) % below.max(1)
    }
}

/// The sidecar, as something that dies.
pub struct Mortal {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Mortal {
    pub fn start(dir: &Path, port: u16, points: Option<String>) -> Mortal {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("oddity.log"));
        let log = log.expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_oddity"));
        command
            .current_dir(dir)
            .args(["serve", "--config", "rules.yaml", "--workers", "2"])
            .args(["--web.listen-address", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().expect("a second handle")))
            .stderr(Stdio::from(log));
        if let Some(points) = points {
            command.env("ODDITY_FAIL", points);
        }
        let child = command.spawn().expect("oddity starts");
        Mortal { dir: dir.to_path_buf(), port, child }
    }

    pub fn ready(&self) -> bool {
        let ready = http::get(&format!("http://127.0.0.1:{}/-/ready", self.port));
        ready.is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until it is dead; `None` when it lives longer than that.
    fn dies(&mut self, within: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(status.signal().unwrap_or_else(|| {
                    let log = std::fs::read_to_string(self.dir.join("oddity.log")).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(20).collect();
                    panic!("oddity ended by itself with {status}:\n{tail:#?}")
                }));
            }
            if start.elapsed() > within {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rules(targets: [&str; 2]) -> String {
    format!(
        r#"
state: {{dir: data, checkpoint_every: 2s}}
remote_write:
- {{url: "{}", name: first, queue_config: {{min_backoff: 30ms, max_backoff: 300ms}}}}
- {{url: "{}", name: second, queue_config: {{min_backoff: 30ms, max_backoff: 300ms}}}}
defaults: {{min_samples: 15}}
rules:
- {{name: level, match: [fleet_level], as: value, identity_without: [n]}}
- {{name: work, match: [fleet_work_total], as: rate}}
"#,
        targets[0], targets[1]
    )
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_changes_nothing() {
    let _turn = heavy();
    let plan = Plan::read();
    println!("{plan:?}");
    let home = temp_dir();
    let dir = home.path();
    // The first target is away for a while, the second is moody.
    let away = std::sync::Arc::new(AtomicBool::new(false));
    let gone = away.clone();
    let first = Sink::moody(move |_| gone.load(SeqCst).then_some(503));
    let second = Sink::moody(move |n| (plan.draw(1, n as usize, 5) == 0).then_some(503));
    let rules = rules([&first.url(), &second.url()]);
    std::fs::write(dir.join("rules.yaml"), &rules).expect("its configuration");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let start = now_ms() - INTERVAL * plan.rounds as i64;
    let fleet = Fleet { seed: plan.seed, start, interval: INTERVAL };
    let share = plan.series.div_ceil(SENDERS);
    let (done, retries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    let (mut hit, mut random) = ([0; POINTS.len()], 0);
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (fleet, url, done, retries) = (fleet, url.as_str(), &done, &retries);
            scope.spawn(move || {
                let mine = (sender * share)..((sender + 1) * share).min(plan.series);
                for round in 0..plan.rounds {
                    let due = Duration::from_millis(plan.pace * round as u64);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    for first in mine.clone().step_by(BATCH) {
                        let to = (first + BATCH).min(mine.end);
                        let slice: Vec<_> =
                            (first..to).map(|series| fleet.slice(series, round..round + 1)).collect();
                        let (kind, body) = match sender % 2 {
                            0 => (V1, encode_v1(&slice)),
                            _ => (V2, encode_v2(&slice)),
                        };
                        // As Prometheus: until it is taken, and nothing else meanwhile.
                        loop {
                            match send(url, kind, &body) {
                                Ok(answer) if answer.status / 100 == 2 => break,
                                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                                Err(_) => {}
                            }
                            retries.fetch_add(1, SeqCst);
                            std::thread::sleep(Duration::from_millis(30));
                        }
                    }
                }
                done.fetch_add(1, SeqCst);
            });
        }
        let mut number = 0;
        while done.load(SeqCst) < SENDERS && number < plan.kills {
            away.store((plan.kills / 4..plan.kills / 2).contains(&number), SeqCst);
            let point = (number % 2 == 1).then(|| (number / 2) % POINTS.len());
            let armed = point.map(|point| {
                let (name, most) = POINTS[point];
                format!("{name}={}", 1 + plan.draw(2, number, most))
            });
            let mut oddity = Mortal::start(dir, port, armed);
            let patience = match point {
                Some(_) => Duration::from_secs(8),
                None => Duration::from_millis(100 + plan.draw(3, number, 2_500)),
            };
            match (oddity.dies(patience), point) {
                (Some(_), Some(point)) => hit[point] += 1,
                (Some(signal), None) => panic!("oddity died of signal {signal} by itself"),
                (None, _) => {
                    oddity.kill();
                    random += 1;
                }
            }
            number += 1;
        }
        away.store(false, SeqCst);
        let mut oddity = Mortal::start(dir, port, None);
        wait_until("the last start", Duration::from_secs(120), || match oddity.ready() {
            true => Ok(()),
            false => Err("not ready".into()),
        });
        wait_until("the senders", Duration::from_secs(600), || match done.load(SeqCst) {
            SENDERS => Ok(()),
            done => Err(format!("{done} are done")),
        });
        let reference = Reference::new(&rules);
        for round in 0..plan.rounds {
            for first in (0..plan.series).step_by(BATCH) {
                let to = (first + BATCH).min(plan.series);
                let slice: Vec<_> = (first..to).map(|series| fleet.slice(series, round..round + 1)).collect();
                reference.apply(encode_v1(&slice));
            }
        }
        let digest = reference.digest();
        let expected = reference.into_kept();
        let wanted = crate::harness::sink::count(&expected);
        for (sink, name) in [(&first, "first"), (&second, "second")] {
            wait_until(&format!("all scores at the {name} target"), Duration::from_secs(120), || match sink
                .count()
            {
                have if have >= wanted => Ok(()),
                have => Err(format!("{have} of {wanted}")),
            });
        }
        let stopped = Command::new("kill").arg(oddity.child.id().to_string()).status();
        assert!(stopped.is_ok_and(|status| status.success()));
        wait_until("its end", Duration::from_secs(60), || match oddity.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        println!(
            "{} series, {} rounds, {random} killed at random, {hit:?} in {:?}, {} retries, {wanted} samples, {:.0} s",
            plan.series,
            plan.rounds,
            POINTS.map(|(name, _)| name),
            retries.load(SeqCst),
            begun.elapsed().as_secs_f64()
        );
        for (sink, name) in [(first, "first"), (second, "second")] {
            let kept = sink.into_kept();
            assert!(kept == expected, "{name} target and engine differ:\n{}", differences(&kept, &expected));
        }
        assert_eq!(learnt(&dir.join("data")), digest, "what was learnt differs");
    });
    let least = plan.kills / (4 * POINTS.len());
    assert!(hit.iter().all(|hit| *hit >= least), "every point was to be hit {least} times: {hit:?}");
}

/// The digest of the newest checkpoint in a folder.
fn learnt(dir: &Path) -> u64 {
    let folder = oddity::state::Folder::open(dir).expect("its state");
    let incarnation = folder.incarnation().expect("a number").expect("a state");
    let newest = folder.checkpoints().expect("a list").remove(0);
    let image = oddity::keeper::load(&folder, &newest, incarnation).expect("a whole checkpoint");
    oddity::engine::Engine::restored(image, 0, Vec::new()).digest()
}
