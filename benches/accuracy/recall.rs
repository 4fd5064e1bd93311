//! Recall of injected spikes and shifts, family by family, and after a month of incidents.

use crate::Options;
use crate::families::{Family, Series};
use crate::random::Random;
use crate::run::{BUDGETS, Run, families, parallel};

const DAY: f64 = 86_400.0;
/// Faults tried in each series.
const TRIES: usize = 12;
/// What is injected: name, widths, whether it lasts, samples within which it must be flagged.
const FAULTS: [(&str, f64, bool, usize); 5] = [
    ("spike 6", 6.0, false, 2),
    ("spike 8", 8.0, false, 2),
    ("spike 12", 12.0, false, 2),
    ("shift 3", 3.0, true, 60),
    ("shift 6", 6.0, true, 60),
];

/// Found and tried, by fault and budget.
type Found = [[u32; 3]; FAULTS.len()];

/// Prints the tables.
pub fn print(options: &Options) {
    let Options { days, series, interval, seed, .. } = options;
    println!(
        "recall in percent at 1 per 1d / 7d / 30d; seed {seed}, {series} series, {interval} s, after {days} d"
    );
    print!("{:<16}", "family");
    FAULTS.iter().for_each(|(name, ..)| print!(" {name:>14}"));
    println!();
    let mut light = [[0u32; 3]; FAULTS.len()];
    let mut lights = 0;
    for family in families(options) {
        let each = parallel(*series, |index| tried(options, family, index, 0.0));
        let sum = total(&each);
        row(family.name(), &sum, *series * TRIES);
        if Series::light(family) && !family.name().starts_with('(') {
            lights += 1;
            light.iter_mut().flatten().zip(sum.iter().flatten()).for_each(|(a, b)| *a += b);
        }
    }
    if lights > 1 {
        row("light-tailed", &light, *series * TRIES * lights);
    }
    println!("after 28 more days with an incident of 12 widths a day:");
    for family in [Family::Gauss, Family::PoissonLarge, Family::Ar90, Family::Quantised] {
        if families(options).contains(&family) {
            let each = parallel(*series, |index| tried(options, family, index, 28.0));
            row(family.name(), &total(&each), *series * TRIES);
        }
    }
}

fn total(each: &[Found]) -> Found {
    let mut sum = Found::default();
    for found in each {
        sum.iter_mut().flatten().zip(found.iter().flatten()).for_each(|(a, b)| *a += b);
    }
    sum
}

fn row(name: &str, found: &Found, tries: usize) {
    print!("{name:<16}");
    for fault in found {
        let percent = fault.map(|n| format!("{:.0}", 100.0 * f64::from(n) / tries as f64));
        print!(" {:>14}", percent.join(" / "));
    }
    println!();
}

fn tried(options: &Options, family: Family, index: usize, stormy: f64) -> Found {
    let mut run = Run::new(family, options, index);
    let mut random = Random::new(options.seed, 77_000 + index as u64);
    let width = run.series.width();
    let calm = options.days * DAY;
    while run.age() < calm {
        run.step(|value| value);
    }
    // One incident a day, at any time of the day, 5 to 30 minutes long.
    let mut incident = (f64::INFINITY, 0.0);
    let mut day = f64::NEG_INFINITY;
    while run.age() < calm + stormy * DAY {
        let age = run.age();
        if age - day >= DAY {
            day = age;
            let start = age + DAY * 0.95 * random.uniform();
            incident = (start, start + 300.0 + 1_500.0 * random.uniform());
        }
        let on = (incident.0..incident.1).contains(&age);
        run.step(|value| if on { value + 12.0 * width } else { value });
    }
    let factors = BUDGETS.map(|days| run.at_budget(days));
    let mut found = Found::default();
    for _ in 0..TRIES {
        // Some hours apart, at no special time.
        let wait = 1.0 + (6.0 * 3_600.0 * random.uniform() / options.interval as f64).floor();
        for _ in 0..wait as usize {
            run.step(|value| value);
        }
        for ((_, widths, lasts, within), found) in FAULTS.iter().zip(&mut found) {
            let mut clone = run.clone();
            let mut best = 0f64;
            for k in 0..*within {
                let add = if *lasts || k == 0 { widths * width } else { 0.0 };
                best = best.max(clone.step(|value| value + add).map_or(0.0, |v| v.score));
            }
            for (hits, factor) in found.iter_mut().zip(factors) {
                *hits += u32::from(best * factor >= 1.0);
            }
        }
    }
    found
}
