//! What the demo says, for people or for programs.

use super::watch::{Alarm, Flag, Tracked, Watch};
use crate::cli::simulate::{Format, clock, short};
use crate::simulate::FaultKind;
use crate::time::{Millis, Span};
use serde_json::json;
use std::io::IsTerminal;

/// Where and how the demo speaks.
pub struct Show {
    format: Format,
    colour: bool,
    interval: i64,
}

/// A number with four significant digits, large ones with a unit.
fn number(x: f64) -> String {
    for (size, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if x.abs() >= size {
            let scale = if unit == "k" { 1e3 } else { size };
            return format!("{:.4}", x / scale).trim_end_matches('0').trim_end_matches('.').to_string()
                + unit;
        }
    }
    let digits = if x == 0.0 { 0 } else { (3 - x.abs().log10().floor() as i32).clamp(0, 9) as usize };
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A fault in words.
fn words(tracked: &Tracked) -> String {
    let size = tracked.fault.size;
    match tracked.fault.kind {
        FaultKind::Spike => format!("a spike of {size} noise widths"),
        FaultKind::Dip => format!("a dip of {size} noise widths"),
        FaultKind::Shift => format!("a shift by {size} noise widths"),
        FaultKind::Ramp => format!("a ramp up to {size} noise widths"),
        FaultKind::Variance => format!("noise {size} times as wide"),
        FaultKind::Stall => "a counter that stands still".into(),
        FaultKind::Errors => format!("errors {size} times as frequent"),
        FaultKind::Gone => "a removed target (no anomaly)".into(),
    }
}

fn series(flag: &Flag) -> String {
    let labels: Vec<(&String, &String)> = flag.labels.iter().collect();
    let name = short(&labels);
    if flag.transform == "value" { name } else { format!("{}({name})", flag.transform) }
}

impl Show {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub fn new(format: Format, interval: i64) -> Show {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Show { format, colour: !no_colour && std::io::stdout().is_terminal(), interval }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn text(&self, line: &str) {
        if self.format == Format::Text {
            println!("{line}");
        }
    }

    fn json(&self, value: serde_json::Value) {
        if self.format == Format::Json {
            println!("{value}");
        }
    }

    /// A word on what is going on.
    pub fn say(&self, line: &str) {
        self.text(&self.paint("2", line));
        self.json(json!({"event": "status", "message": line}));
    }

    /// The sidecar runs.
    pub fn started(&self, url: &str) {
        self.text(&format!("oddity listens on {}", self.paint("1", url)));
        self.json(json!({"event": "started", "url": url}));
    }

    /// A fault begins.
    pub fn fault(&self, tracked: &Tracked) {
        let at = Millis(tracked.fault.start * self.interval);
        let line = format!(
            "{}  injected: {} in {} for {}",
            clock(at),
            words(tracked),
            short(&tracked.labels.iter().collect::<Vec<_>>()),
            Span(tracked.fault.steps * self.interval)
        );
        self.text(&self.paint("2", &line));
        self.json(json!({"event": "fault", "kind": tracked.fault.kind.name(), "size": tracked.fault.size,
            "timestamp": at.0 as f64 / 1e3, "steps": tracked.fault.steps, "labels": tracked.labels}));
    }

    /// An anomaly is found.
    pub fn alarm(&self, alarm: &Alarm, watch: &Watch) {
        let flag = &alarm.flag;
        let truth = match alarm.fault.and_then(|number| watch.faults.get(number)) {
            Some(tracked) => format!("injected: {}", words(tracked)),
            None => "not injected: a false alarm".into(),
        };
        let normal = match flag.band {
            (Some(lower), Some(upper)) => format!(", normal {} to {}", number(lower), number(upper)),
            (Some(lower), None) => format!(", normal from {}", number(lower)),
            (None, Some(upper)) => format!(", normal up to {}", number(upper)),
            (None, None) => String::new(),
        };
        let side = if flag.value >= flag.expected { "▲" } else { "▼" };
        let mark = self.paint(if alarm.fault.is_some() { "1;31" } else { "1;33" }, side);
        self.text(&format!(
            "{}  {mark} {}  score {}",
            clock(Millis(flag.at)),
            self.paint("1", &series(flag)),
            self.paint("1", &number(flag.score))
        ));
        let detectors: Vec<String> =
            flag.evidence.iter().map(|(name, nats)| format!("{name} {nats:.0}")).collect();
        self.text(&format!(
            "            value {}, expected {}{normal}; {}",
            number(flag.value),
            number(flag.expected),
            detectors.join(", ")
        ));
        self.text(&format!("            {}", self.paint("2", &format!("({truth})"))));
        let injected = alarm.fault.and_then(|number| watch.faults.get(number)).map(|t| t.fault.kind.name());
        self.json(json!({"event": "anomaly", "labels": flag.labels, "as": flag.transform,
            "timestamp": flag.at as f64 / 1e3, "value": flag.value, "expected": flag.expected,
            "lower": flag.band.0, "upper": flag.band.1, "score": flag.score,
            "evidence": flag.evidence.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "injected": injected}));
    }

    /// A fault is over.
    pub fn over(&self, tracked: &Tracked) {
        let name = words(tracked);
        let line = match (tracked.fault.kind.is_anomaly(), tracked.found, tracked.passed()) {
            (true, Some((step, _)), _) => {
                let behind = step - tracked.fault.start;
                format!(
                    "✔ found: {name}, at its sample {}, {} after it began",
                    behind + 1,
                    Span(behind * self.interval)
                )
            }
            (true, None, _) => format!("✘ not found: {name}"),
            (false, _, true) => format!("✔ quiet: {name} raised no alarm"),
            (false, _, false) => format!("✘ flagged: {name}"),
        };
        self.text(&self.paint(if tracked.passed() { "32" } else { "31" }, &format!("          {line}")));
        self.json(
            json!({"event": "fault_over", "kind": tracked.fault.kind.name(), "passed": tracked.passed(),
            "samples_to_first_flag": tracked.found.map(|(step, _)| step - tracked.fault.start + 1)}),
        );
    }

    /// The sum.
    pub fn summary(&self, watch: &Watch, series: usize, samples: u64, seconds: f64) {
        let real: Vec<&Tracked> = watch.faults.iter().filter(|t| t.fault.kind.is_anomaly()).collect();
        let found = real.iter().filter(|t| t.found.is_some()).count();
        self.text(&format!(
            "{} of {} faults found, {} false alarms on {series} series; {samples} samples in {seconds:.0} s",
            self.paint("1", &found.to_string()),
            real.len(),
            watch.false_alarms
        ));
        self.json(json!({"event": "summary", "faults": real.len(), "found": found,
            "false_alarms": watch.false_alarms, "series": series, "samples": samples, "seconds": seconds}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (0.123456, "0.1235"),
            (1.0, "1"),
            (12.345, "12.35"),
            (3.2e8, "320M"),
            (-54321.0, "-54.321k"),
        ] {
            assert_eq!(number(x), text, "{x}");
        }
    }
}
