//! The report as text for people.

use crate::backtest::{Alarm, Report, SeriesReport, Summary};
use comfy_table::{CellAlignment, Table, presets};

/// Rows of series and of alarms on a terminal.
const MOST_SERIES: usize = 30;
const MOST_ALARMS: usize = 10;
/// Characters of a series' name on a terminal.
const WIDEST: usize = 70;

/// The report; `short` for a terminal.
pub(super) fn text(report: &Report, short: bool) -> String {
    let mut text = format!("{}\n", series(report, short));
    if report.series.iter().any(|one| !one.alarm_list.is_empty()) {
        text += &alarms(report, short);
    }
    if report.totals.scored > 0 {
        text += &format!("\nsensitivity\n{}\n", sweep(report));
    }
    if let Some(told) = &report.recommended {
        text += &format!("\nrecommended: false_alarms: {}: {}\n", told.false_alarms, told.why);
    }
    text
}

fn table(header: Vec<&str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn finished(mut table: Table, left: usize) -> String {
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn count(value: Option<usize>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

fn delay(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.1} h", s / 3_600.0),
    }
}

fn rate(value: f64) -> String {
    if value > 0.0 && value < 0.001 { format!("{value:.1e}") } else { format!("{value:.3}") }
}

fn name(text: &str, short: bool) -> String {
    if short && text.chars().count() > WIDEST {
        text.chars().take(WIDEST - 1).chain(['…']).collect()
    } else {
        text.to_string()
    }
}

/// Columns that every table of summaries shares.
fn numbers(summary: &Summary, labelled: bool) -> Vec<String> {
    let mut cells = vec![summary.alarms.to_string()];
    if labelled {
        cells.extend([
            count(summary.events),
            count(summary.found),
            ratio(summary.precision),
            ratio(summary.recall),
            ratio(summary.f1),
            delay(summary.delay_median_seconds),
            delay(summary.delay_p90_seconds),
            summary.false_alarms_per_series_day.map_or_else(|| "-".into(), rate),
        ]);
    } else {
        cells.push(rate(summary.alarms_per_series_day));
    }
    cells
}

fn columns(labelled: bool) -> &'static [&'static str] {
    if labelled {
        &["alarms", "events", "found", "precision", "recall", "F1", "delay", "p90", "false/day"]
    } else {
        &["alarms", "alarms/day"]
    }
}

fn series(report: &Report, short: bool) -> String {
    let labelled = report.totals.labelled_series > 0;
    let mut table = table([&["series", "samples", "days"], columns(labelled)].concat());
    let mut shown: Vec<usize> = (0..report.series.len()).collect();
    if short && shown.len() > MOST_SERIES {
        // Those with most alarms, in the input's order.
        shown.sort_by_key(|at| std::cmp::Reverse(report.series.get(*at).map_or(0, |s| s.summary.alarms)));
        shown.truncate(MOST_SERIES);
        shown.sort_unstable();
    }
    let row = |name: String, samples: usize, summary: &Summary| {
        let mut cells = vec![name, samples.to_string(), format!("{:.1}", summary.days)];
        cells.extend(numbers(summary, labelled));
        cells
    };
    for one in shown.iter().filter_map(|at| report.series.get(*at)) {
        table.add_row(row(name(&one.series, short), one.samples, &one.summary));
    }
    let left_out = report.series.len() - shown.len();
    if left_out > 0 {
        table.add_row([format!("… {left_out} more with fewer alarms (--format json has all)")]);
    }
    let totals = &report.totals;
    table.add_row(row(format!("all {}", totals.series), totals.samples, &totals.summary));
    finished(table, 1)
}

fn alarms(report: &Report, short: bool) -> String {
    let mut all: Vec<(&SeriesReport, &Alarm)> =
        report.series.iter().flat_map(|one| one.alarm_list.iter().map(move |alarm| (one, alarm))).collect();
    all.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
    let mut text = listed("highest alarms", &all, short);
    if all.len() > MOST_ALARMS {
        all.sort_by_key(|(_, alarm)| std::cmp::Reverse(alarm.start));
        text += &listed("newest alarms", &all, short);
    }
    text
}

fn listed(title: &str, all: &[(&SeriesReport, &Alarm)], short: bool) -> String {
    let mut table = table(vec!["series", "as", "from", "lasted", "score", "value", "expected", "label"]);
    for (one, alarm) in all.iter().take(MOST_ALARMS) {
        table.add_row([
            name(&one.series, short),
            alarm.transform.clone(),
            when(alarm.start),
            delay(Some((alarm.end - alarm.start) as f64 / 1e3)),
            format!("{:.2}", alarm.score),
            figures(alarm.value),
            figures(alarm.expected),
            alarm.labelled.map_or("-", |hit| if hit { "event" } else { "false" }).to_string(),
        ]);
    }
    let more = match all.len().saturating_sub(MOST_ALARMS) {
        0 => String::new(),
        more => format!("… {more} more (--format json has all)\n"),
    };
    format!("\n{title}\n{}\n{more}", finished(table, 3))
}

fn when(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => ms.to_string(),
    }
}

/// A number with four figures.
fn figures(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if size != 0.0 && !(1e-3..1e7).contains(&size) => format!("{x:.3e}"),
        _ if size >= 1e3 => format!("{x:.0}"),
        _ if size >= 10.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}

fn sweep(report: &Report) -> String {
    let labelled = report.totals.labelled_series > 0;
    let mut table = table([&["false_alarms", "promised/day"], columns(labelled)].concat());
    for step in &report.sweep {
        let mut cells = vec![step.false_alarms.clone(), rate(step.promised_per_series_day)];
        cells.extend(numbers(&step.summary, labelled));
        table.add_row(cells);
    }
    finished(table, 1)
}
