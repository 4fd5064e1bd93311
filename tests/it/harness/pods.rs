//! A fleet of pods over hours of event time: they are replaced, pause, and end with a stale marker or
//! without one.

use super::gauss;
use super::reference::STALE;
use super::wire::Series;
use std::iter::once;
use std::ops::Range;

/// Soon after midnight of 15 November 2023, UTC, and not at a full minute: senders are apart at the full
/// minutes, where silence is decided, and at the full hours, where shared models are made.
pub const START: i64 = 1_700_006_400_000 + 287_000;
/// Milliseconds between samples of a series.
pub const INTERVAL: i64 = 30_000;
/// Steps of the fleet: five and a half hours.
pub const STEPS: usize = 660;
/// Steps after which all senders wait for each other: 22 minutes.
pub const ROUND: usize = 44;
/// Senders; 0 and 1 are of one cluster.
pub const SENDERS: usize = 4;
const SLOTS: usize = 8;
/// Steps without the pod of slot 6: it is back soon after it was due where silence is told after three
/// minutes, where after four, and in between.
const PAUSES: [Range<usize>; 4] = [260..267, 328..342, 400..409, 500..530];

/// One series.
#[derive(Clone, Debug)]
pub struct Line {
    /// Who sends it.
    pub sender: usize,
    /// How many pods were in its place before.
    pub generation: usize,
    /// Labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// (milliseconds, value)
    pub samples: Vec<(i64, f64)>,
}

impl Line {
    /// A label's value, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
    }

    /// Its samples in some steps, ready to send.
    pub fn slice(&self, steps: Range<usize>) -> Option<Series> {
        let at =
            |step: usize| self.samples.partition_point(|sample| sample.0 < START + INTERVAL * step as i64);
        let samples = &self.samples[at(steps.start)..at(steps.end)];
        let labels: Vec<(&str, &str)> = self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        (!samples.is_empty()).then(|| Series::new(&labels, samples))
    }

    /// Its samples as lines of OpenMetrics.
    pub fn openmetrics(&self) -> String {
        let labels: Vec<String> =
            self.labels.iter().filter(|(n, _)| n != "__name__").map(|(n, v)| format!("{n}={v:?}")).collect();
        let head = format!("{}{{{}}}", self.label("__name__"), labels.join(","));
        let line = |(at, value): &(i64, f64)| format!("{head} {value} {}.{:03}\n", at / 1_000, at % 1_000);
        self.samples.iter().map(line).collect()
    }
}

/// When the pods of a slot live. Slot 6 has one pod that pauses, slot 7 one that comes late.
fn lives(sender: usize, slot: usize) -> Vec<Range<usize>> {
    let change = 245 + 29 * slot + 11 * sender;
    let gap = 2 + slot % 5;
    match slot {
        6 => once(0..STEPS).collect(),
        7 => once(130..STEPS).collect(),
        0 | 1 => vec![0..change, change + gap..change + 160, change + 160 + gap..STEPS],
        // Nothing comes after it.
        5 => vec![0..change, change + gap..STEPS - 90],
        _ => vec![0..change, change + gap..STEPS],
    }
}

fn value(seed: u64, counter: bool, odd: f64, step: usize) -> f64 {
    let noise = gauss(77, seed, step as u64);
    match counter {
        true => 1e4 + 100.0 * step as f64 + 3.0 * noise + 20.0 * odd,
        false => 50.0 + (seed % 7) as f64 / 2.0 + noise + odd,
    }
}

/// All series; `markers`: those that end do so with a stale marker, every other one.
pub fn fleet(markers: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for (sender, slot) in (0..SENDERS).flat_map(|sender| (0..SLOTS).map(move |slot| (sender, slot))) {
        let place = sender * SLOTS + slot;
        let cluster = ["a", "a", "b", "c"][sender];
        let offset = 600 * place as i64;
        let at = |step: usize| START + INTERVAL * step as i64 + offset;
        let text = |text: &str| text.to_string();
        let lives = lives(sender, slot);
        let host = format!("host-{place}");
        for (generation, life) in lives.iter().enumerate() {
            let pod = format!("web-{place}-{generation}");
            // Every other slot is a place that outlives its pods, as a host does.
            let instance = if slot % 2 == 0 { host.clone() } else { pod.clone() };
            let broken = slot == 4 && generation == 1;
            for name in ["pod_queue", "pod_work_total"] {
                let counter = name == "pod_work_total";
                let seed = (place * 10 + generation) as u64 * 2 + u64::from(counter);
                let pauses = |step: usize| {
                    slot == 6 && PAUSES.iter().any(|p| p.contains(&step.saturating_sub(2 * sender)))
                };
                let odd = |step: usize| {
                    let spike = slot == 2 && step > 30 && (step + 31 * sender).is_multiple_of(97);
                    if broken && !counter {
                        45.0
                    } else if spike {
                        15.0
                    } else {
                        0.0
                    }
                };
                let steps = life.clone().filter(|step| !pauses(*step));
                let mut samples: Vec<(i64, f64)> =
                    steps.map(|step| (at(step), value(seed, counter, odd(step), step))).collect();
                // Some markers come a minute after the series was due, amid what is said of its silence.
                let late = match slot {
                    3 => Some(7),
                    5 => Some(9),
                    _ => (place + generation).is_multiple_of(3).then_some(0),
                };
                if let Some(late) = late.filter(|late| markers && life.end + late < STEPS) {
                    samples.push((at(life.end + late), f64::from_bits(STALE)));
                }
                lines.push(Line {
                    sender,
                    generation,
                    labels: vec![
                        (text("__name__"), text(name)),
                        (text("cluster"), text(cluster)),
                        (text("instance"), instance.clone()),
                        (text("job"), text("web")),
                        (text("pod"), pod.clone()),
                    ],
                    samples,
                });
            }
            // `up` of hosts goes on, of pods it ends with them; of slots 3 and 7 none is known.
            let watched = match slot {
                3 | 7 => continue,
                slot if slot % 2 == 0 && generation > 0 => continue,
                slot if slot % 2 == 0 => 0..STEPS,
                _ => life.clone(),
            };
            let mut samples: Vec<(i64, f64)> = watched.clone().map(|step| (at(step), 1.0)).collect();
            if markers && watched.end < STEPS {
                samples.push((at(watched.end), f64::from_bits(STALE)));
            }
            lines.push(Line {
                sender,
                generation,
                labels: vec![
                    (text("__name__"), text("up")),
                    (text("cluster"), text(cluster)),
                    (text("instance"), instance),
                    (text("job"), text("web")),
                ],
                samples,
            });
        }
    }
    lines
}
