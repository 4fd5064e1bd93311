//! Measured alarms of healthy series over promised ones.

use crate::Options;
use crate::run::{Alarms, BUDGETS, Run, families, parallel};

const DAY: f64 = 86_400.0;

/// Alarms of one series, by budget: in the first week, from then to day 30, and from the first week
/// to the end.
#[derive(Clone, Copy, Default)]
struct Counts {
    learning: [u32; 3],
    month: [u32; 3],
    after: [u32; 3],
}

/// Prints the table.
pub fn print(options: &Options) {
    let Options { days, series, interval, seed, .. } = options;
    println!(
        "alarms of healthy series over promised; seed {seed}, {series} series a family, {interval} s, {days} d"
    );
    println!(
        "budgets 1 per 1d / 7d / 30d; `week 1`: alarms a series in the first 7 days; then measured/promised"
    );
    println!(
        "{:<16} {:>20} {:>20} {:>20}   per series at 7d: median p95",
        "family", "week 1", "day 7 to 30", "day 7 to end"
    );
    for family in families(options) {
        let counts = parallel(*series, |index| count(options, Run::new(family, options, index)));
        let mean = |of: fn(&Counts) -> [u32; 3], promised: [f64; 3]| -> String {
            let each = (0..3).map(|b| {
                let sum: u32 = counts.iter().map(|c| of(c)[b]).sum();
                format!("{:.2}", f64::from(sum) / *series as f64 / promised[b])
            });
            each.collect::<Vec<_>>().join(" / ")
        };
        let promised = |span: f64| BUDGETS.map(|b| (span / b as f64).max(1e-9));
        let mut at_7d: Vec<u32> = counts.iter().map(|c| c.after[1]).collect();
        at_7d.sort_unstable();
        let rank = |share: f64| {
            at_7d.get(((at_7d.len() as f64 * share) as usize).min(at_7d.len() - 1)).copied().unwrap_or(0)
        };
        println!(
            "{:<16} {:>20} {:>20} {:>20}   {:>17} {:>4}",
            family.name(),
            mean(|c| c.learning, [1.0; 3]),
            mean(|c| c.month, promised((days - 7.0).clamp(0.0, 23.0))),
            mean(|c| c.after, promised((days - 7.0).max(0.0))),
            rank(0.5),
            rank(0.95),
        );
    }
}

fn count(options: &Options, mut run: Run) -> Counts {
    let mut counts = Counts::default();
    let mut alarms = [Alarms::new(); 3];
    let factors = BUDGETS.map(|days| run.at_budget(days));
    let quiet = run.quiet();
    while run.age() < options.days * DAY {
        let age = run.age();
        let Some(verdict) = run.step(|value| value) else { continue };
        for (b, alarm) in alarms.iter_mut().enumerate() {
            if alarm.take(age, verdict.score * factors[b], quiet) {
                if age < 7.0 * DAY {
                    counts.learning[b] += 1;
                } else {
                    counts.after[b] += 1;
                    counts.month[b] += u32::from(age < 30.0 * DAY);
                }
            }
        }
    }
    counts
}
