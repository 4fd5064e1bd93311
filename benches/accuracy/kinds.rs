//! Recall and delay by kind of anomaly and by size.

use crate::Options;
use crate::families::Family;
use crate::random::Random;
use crate::run::{Run, parallel};

const DAY: f64 = 86_400.0;
/// Faults tried in each series.
const TRIES: usize = 6;

/// How a fault changes the value: (value, samples since it began, widths, what the healthy value was
/// when it began) to a value.
type Change = fn(f64, usize, f64, Start, &mut Random) -> f64;

/// What holds as a fault begins.
#[derive(Clone, Copy)]
struct Start {
    value: f64,
    level: f64,
    width: f64,
}

/// Name, host family, sizes in widths, minutes it is watched, change.
const KINDS: [(&str, Family, &[f64], f64, Change); 9] = [
    (
        "spike",
        Family::Gauss,
        &[4.0, 6.0, 8.0, 12.0],
        2.0,
        |v, k, s, at, _| if k == 0 { v + s * at.width } else { v },
    ),
    (
        "dip",
        Family::Gauss,
        &[4.0, 6.0, 8.0, 12.0],
        2.0,
        |v, k, s, at, _| if k == 0 { v - s * at.width } else { v },
    ),
    ("level shift", Family::Gauss, &[1.5, 3.0, 6.0, 12.0], 60.0, |v, _, s, at, _| v + s * at.width),
    ("ramp (widths an hour)", Family::Gauss, &[1.0, 2.0, 4.0, 8.0], 360.0, |v, k, s, at, _| {
        v + s * at.width * k as f64 / 60.0
    }),
    ("variance (times)", Family::Gauss, &[2.0, 3.0, 5.0], 120.0, |v, _, s, at, _| {
        at.level + s * (v - at.level)
    }),
    ("flat line (on noise)", Family::Gauss, &[1.0], 120.0, |_, _, _, at, _| at.value),
    ("rate (times)", Family::CounterRate, &[0.5, 0.8, 1.3, 2.0], 30.0, |v, _, s, _, _| v * s),
    ("slow season (times)", Family::DailyWeekly, &[0.5, 0.7, 1.5, 2.0], 120.0, |v, _, s, _, _| v * s),
    ("extra noise (widths)", Family::Ar90, &[1.0, 3.0], 120.0, |v, _, s, at, random| {
        v + s * at.width * random.normal()
    }),
];

/// Prints the tables.
pub fn print(options: &Options) {
    let Options { days, series, interval, seed, .. } = options;
    println!(
        "recall and median delay by kind at the default budget; seed {seed}, {series} series, {interval} s, after {days} d"
    );
    println!("{:<24} {:>6} {:>8} {:>10} {:>14}", "kind", "size", "recall", "delay", "within");
    for (name, family, sizes, minutes, change) in KINDS {
        if options.only.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        for size in sizes {
            let delays: Vec<Option<usize>> =
                parallel(*series, |index| tried(options, family, index, *size, minutes, change))
                    .into_iter()
                    .flatten()
                    .collect();
            line(name, *size, minutes, options, delays);
        }
    }
    for (name, shift) in [("daily peak missing", None), ("season 6 h late", Some(6.0 * 3_600.0))] {
        if options.only.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let delays: Vec<Option<usize>> =
            parallel(*series, |index| season(options, index, shift)).into_iter().collect();
        line(name, 1.0, 24.0 * 60.0, options, delays);
    }
}

fn line(name: &str, size: f64, minutes: f64, options: &Options, delays: Vec<Option<usize>>) {
    let mut found: Vec<usize> = delays.iter().flatten().copied().collect();
    found.sort_unstable();
    let median =
        found.get(found.len() / 2).map_or("-".to_string(), |k| format!("{} s", *k as i64 * options.interval));
    let recall = 100.0 * found.len() as f64 / delays.len().max(1) as f64;
    println!("{name:<24} {size:>6} {recall:>7.0}% {median:>10} {minutes:>10} min");
}

fn warmed(options: &Options, family: Family, index: usize) -> (Run, f64) {
    let mut run = Run::new(family, options, index);
    let (mut sum, mut count) = (0.0, 0.0);
    while run.age() < options.days * DAY {
        run.step(|value| {
            sum += value;
            count += 1.0;
            value
        });
    }
    (run, sum / count)
}

fn tried(
    options: &Options,
    family: Family,
    index: usize,
    size: f64,
    minutes: f64,
    change: Change,
) -> Vec<Option<usize>> {
    let (mut run, level) = warmed(options, family, index);
    let mut random = Random::new(options.seed, 99_000 + index as u64);
    let width = run.series.width();
    let within = (minutes * 60.0 / options.interval as f64).ceil().max(2.0) as usize;
    let mut delays = Vec::new();
    for _ in 0..TRIES {
        let mut value = level;
        for _ in 0..(1.0 + 6.0 * 3_600.0 * random.uniform() / options.interval as f64) as usize {
            run.step(|v| {
                value = v;
                v
            });
        }
        let start = Start { value, level, width };
        let mut clone = run.clone();
        delays.push((0..within).find(|k| {
            let verdict = clone.step(|v| change(v, *k, size, start, &mut random));
            verdict.is_some_and(|v| v.score >= 1.0)
        }));
    }
    delays
}

/// A day whose peak stays away, or comes `shift` seconds late.
fn season(options: &Options, index: usize, shift: Option<f64>) -> Option<usize> {
    // Weekends seen, and a weekday now: a season must have been seen to be missed.
    let longer =
        Options { days: options.days.max(18.0), paths: Vec::new(), only: None, without: None, ..*options };
    let (mut run, level) = warmed(&longer, Family::DailyWeekly, index);
    let within = (DAY / options.interval as f64) as usize;
    let mut delayed = run.clone();
    if let Some(shift) = shift {
        // The values that the series had so much earlier.
        let mut past = Run::new(Family::DailyWeekly, &longer, index);
        while past.age() < run.age() - shift {
            past.step(|value| value);
        }
        return (0..within).find(|_| {
            let mut old = 0.0;
            past.step(|value| {
                old = value;
                value
            });
            delayed.step(|_| old).is_some_and(|v| v.score >= 1.0)
        });
    }
    let (mut random, width) = (Random::new(options.seed, 55_000 + index as u64), run.series.width());
    (0..within).find(|_| {
        let verdict = run.step(|value| if value > level { level + width * random.normal() } else { value });
        verdict.is_some_and(|v| v.score >= 1.0)
    })
}
