//! State for people.

use crate::keeper::models::{Exported, Imported};
use crate::keeper::survey::{Content, Survey};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::Write as _;
use std::path::Path;

/// A number with commas.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A table whose columns but the first stand to the right.
fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn head(survey: &Survey) -> String {
    let mut text = format!("{}", survey.folder.display());
    if let Some(incarnation) = &survey.incarnation {
        let _ = write!(text, ", incarnation {incarnation}");
    }
    if survey.in_use {
        text += ", in use";
    }
    text + "\n"
}

fn remarks(survey: &Survey, text: &mut String) {
    for note in &survey.notes {
        *text += &format!("note: {note}\n");
    }
    for file in &survey.set_aside {
        *text +=
            &format!("note: {} was set aside as damaged; remove it when you have looked\n", file.display());
    }
    for problem in &survey.problems {
        *text += &format!("problem: {problem}\n");
    }
}

/// All of it.
pub(super) fn survey(survey: &Survey) -> String {
    let mut text = head(survey);
    if !survey.checkpoints.is_empty() {
        let row = |c: &crate::keeper::survey::Checkpoint| {
            let content = |of: fn(&Content) -> usize| {
                c.content.as_ref().map_or("".into(), |content| number(of(content) as u64))
            };
            vec![
                name(&c.file),
                number(c.bytes),
                number(c.sequence),
                content(|content| content.series),
                content(|content| content.signals),
            ]
        };
        let rows = survey.checkpoints.iter().map(row).collect();
        text += &format!("\n{}\n", table(&["checkpoint", "bytes", "sequence", "series", "signals"], rows));
    }
    if let Some(content) = survey.checkpoints.first().and_then(|checkpoint| checkpoint.content.as_ref()) {
        let mut rows: Vec<Vec<String>> =
            content.rules.iter().map(|(rule, count)| vec![rule.clone(), number(*count as u64)]).collect();
        if content.unmatched > 0 {
            rows.push(vec!["(no rule)".into(), number(content.unmatched as u64)]);
        }
        text += &format!("\n{}\n", table(&["rule", "series"], rows));
    }
    if !survey.log.is_empty() {
        let row = |segment: &crate::keeper::survey::Segment| {
            let (first, last) = segment
                .sequences
                .map_or(("".into(), "".into()), |(first, last)| (number(first), number(last)));
            vec![name(&segment.file), number(segment.bytes), number(segment.records), first, last]
        };
        let rows = survey.log.iter().map(row).collect();
        text += &format!("\n{}\n", table(&["log", "bytes", "records", "first", "last"], rows));
    }
    text += &format!("\na restart applies {} again\n", plural(survey.replay, "record"));
    if !survey.queues.is_empty() {
        let row = |queue: &crate::keeper::survey::Queue| {
            let target = if queue.target.is_empty() { "(unknown)".into() } else { queue.target.clone() };
            vec![format!("{target} {}", name(&queue.file)), number(queue.bytes), number(queue.batches)]
        };
        let rows = survey.queues.iter().map(row).collect();
        text += &format!("\n{}\n", table(&["queue", "bytes", "batches"], rows));
    }
    remarks(survey, &mut text);
    text
}

/// Whether it is whole.
pub(super) fn verdict(survey: &Survey) -> String {
    let mut text = head(survey);
    remarks(survey, &mut text);
    let records = survey.log.iter().map(|segment| segment.records).sum();
    let checked = format!(
        "{}, {} of the log, {} of queues",
        plural(survey.checkpoints.len() as u64, "checkpoint"),
        plural(records, "record"),
        plural(survey.queues.len() as u64, "file"),
    );
    text += &match survey.problems.len() as u64 {
        0 => format!("whole: {checked}\n"),
        count => format!("not whole: {} in {checked}\n", plural(count, "problem")),
    };
    text
}

/// What was taken out.
pub(super) fn exported(exported: &Exported) -> String {
    format!(
        "{}: {} with {}, {} bytes, as of sequence {}; {} left out",
        exported.file.display(),
        number(exported.series as u64) + " series",
        plural(exported.signals as u64, "model"),
        number(exported.bytes),
        number(exported.sequence),
        number(exported.left as u64) + " series",
    )
}

/// What was put in.
pub(super) fn imported(imported: &Imported) -> String {
    let mut text = format!(
        "{}: {} series added, {} replaced\n",
        imported.checkpoint.display(),
        number(imported.added as u64),
        number(imported.replaced as u64)
    );
    for (count, why) in [
        (imported.kept, "are there already (--replace lets them give way)"),
        (imported.unmatched, "are taken by no rule there"),
        (imported.unusable, "have models with other parameters than their rule there"),
        (imported.over_limit, "are beyond limits.max_series there"),
    ] {
        if count > 0 {
            text += &format!("{} series left out: they {why}\n", number(count as u64));
        }
    }
    text
}
