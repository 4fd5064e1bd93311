//! Many files, in parallel: results written out, verdicts added up.

use super::BacktestError;
use super::alarm::{MARGIN, QUIET_INTERVALS, alarm_scores};
use super::csv::{self, Table};
use super::judge::{Judged, Judgement, events_of_labels, judge};
use super::replay::{Replay, replay};
use crate::rules::RuleSet;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How results are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `OUT/oddity/oddity_<stem>.csv`; the column `anomaly_score` holds the score.
    Plain,
    /// `OUT/oddity/<category>/oddity_<stem>.csv`; the column `anomaly_score` holds the alarm score,
    /// because the benchmark counts every row above its threshold as an alarm.
    Nab,
}

/// One input file.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Folder of the result below `OUT/oddity`; empty for none.
    pub category: String,
    /// Its name without `.csv`.
    pub stem: String,
    /// Labelled windows, ms, both ends included; `None` where the file's own labels count.
    pub windows: Option<Vec<(i64, i64)>>,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The series' metric name.
    pub metric: String,
    /// Where results go; `None` writes none.
    pub out: Option<PathBuf>,
    /// How they are laid out.
    pub layout: Layout,
    /// Files at a time, at least 1.
    pub threads: usize,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    /// `<category>/<stem>`, or the stem.
    pub file: String,
    /// Rows.
    pub rows: usize,
    /// Rows scored.
    pub scored: usize,
    /// Rows flagged.
    pub flagged: usize,
    /// Rows without a value.
    pub missing: usize,
    /// Rows at or before the newest time before them.
    pub out_of_order: usize,
    /// Whether the file has labels.
    pub labelled: bool,
    /// The verdict.
    pub judgement: Judgement,
    /// Days of data scored.
    pub days: f64,
}

/// The sum over files.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Files.
    pub files: usize,
    /// Rows.
    pub rows: usize,
    /// Rows scored.
    pub scored: usize,
    /// Rows flagged.
    pub flagged: usize,
    /// The verdict over the labelled files.
    pub judgement: Judgement,
    /// Precision over all alarms of labelled files.
    pub precision: Option<f64>,
    /// Recall over all their events.
    pub recall: Option<f64>,
    /// F1 of the two.
    pub f1: Option<f64>,
    /// False alarms a series and day of scored data, labelled files.
    pub false_alarms_per_series_day: Option<f64>,
}

impl Totals {
    /// Adds files up.
    pub fn of(reports: &[FileReport]) -> Totals {
        let mut totals = Totals { files: reports.len(), ..Default::default() };
        let mut days = 0.0;
        for report in reports {
            totals.rows += report.rows;
            totals.scored += report.scored;
            totals.flagged += report.flagged;
            if report.labelled {
                totals.judgement.add(&report.judgement);
                days += report.days;
            }
        }
        totals.precision = totals.judgement.precision();
        totals.recall = totals.judgement.recall();
        totals.f1 = totals.judgement.f1();
        totals.false_alarms_per_series_day =
            (days > 0.0).then(|| totals.judgement.false_alarms as f64 / days);
        totals
    }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> BacktestError {
    let path = path.to_path_buf();
    move |source| BacktestError::File { path: path.clone(), source }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn csv_files(folder: &Path) -> Result<Vec<PathBuf>, BacktestError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "csv") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Finds input files: files as they are, folders by their `.csv` files.
///
/// # Errors
/// A path that cannot be read, no file at all, or two files of one name.
pub fn inputs_of_paths(paths: &[PathBuf]) -> Result<Vec<Input>, BacktestError> {
    let mut inputs = Vec::new();
    let mut seen = HashMap::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(file_error(path))?;
        let files = if meta.is_dir() { csv_files(path)? } else { vec![path.clone()] };
        for path in files {
            let stem = stem(&path);
            if let Some(other) = seen.insert(stem.clone(), path.clone()) {
                return Err(BacktestError::Input(format!(
                    "{} and {} would have the same result file",
                    other.display(),
                    path.display()
                )));
            }
            inputs.push(Input { path, category: String::new(), stem, windows: None });
        }
    }
    if inputs.is_empty() {
        return Err(BacktestError::Input("no .csv file found".into()));
    }
    Ok(inputs)
}

/// Finds the files of a checkout of the Numenta Anomaly Benchmark:
/// `data/<category>/<file>.csv` and `labels/combined_windows.json`.
///
/// # Errors
/// The folder is not laid out like that.
pub fn inputs_of_nab(folder: &Path) -> Result<Vec<Input>, BacktestError> {
    let labels = folder.join("labels").join("combined_windows.json");
    let text = fs::read_to_string(&labels).map_err(file_error(&labels))?;
    let windows: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&text)
        .map_err(|error| BacktestError::Input(format!("{}: {error}", labels.display())))?;
    let data = folder.join("data");
    let mut categories = Vec::new();
    for entry in fs::read_dir(&data).map_err(file_error(&data))? {
        let path = entry.map_err(file_error(&data))?.path();
        if path.is_dir() {
            categories.push(path);
        }
    }
    categories.sort();
    let mut inputs = Vec::new();
    for folder in categories {
        let category = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in csv_files(&folder)? {
            let stem = stem(&path);
            let time = |text: &str| {
                csv::parse_time(text)
                    .map(|at| at.0)
                    .map_err(|what| BacktestError::Input(format!("{}: {what}", labels.display())))
            };
            let windows = windows
                .get(&format!("{category}/{stem}.csv"))
                .map(|list| list.iter().map(|(from, to)| Ok((time(from)?, time(to)?))).collect())
                .transpose()?;
            inputs.push(Input { path, category: category.clone(), stem, windows });
        }
    }
    if inputs.is_empty() {
        return Err(BacktestError::Input(format!("{}: no .csv file found", data.display())));
    }
    Ok(inputs)
}

/// Runs all inputs; `done` is called after each file. Reports come in the inputs' order.
///
/// # Errors
/// The first file (in that order) that cannot be read, replayed or written.
pub fn run(
    inputs: &[Input],
    options: &Options,
    done: &(impl Fn() + Sync),
) -> Result<Vec<FileReport>, BacktestError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut mine = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = inputs.get(number) else { break };
            mine.push((number, one(input, options)));
            done();
        }
        mine
    };
    let mut results: Vec<(usize, Result<FileReport, BacktestError>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn one(input: &Input, options: &Options) -> Result<FileReport, BacktestError> {
    let table = csv::read(&input.path)?;
    let replay = replay(&table, &options.metric, &input.stem, options.rules.clone(), &input.path)?;
    let timed = in_order(&table);
    let scores: Vec<(i64, f64)> =
        timed.iter().map(|row| (table.rows[*row].at.0, replay.answers[*row].score)).collect();
    let quiet = QUIET_INTERVALS.saturating_mul(replay.interval);
    let mut alarms = vec![0.0; table.rows.len()];
    for (row, alarm) in timed.iter().zip(alarm_scores(&scores, quiet, MARGIN)) {
        alarms[*row] = alarm;
    }
    if let Some(out) = &options.out {
        let folder = out.join("oddity").join(&input.category);
        fs::create_dir_all(&folder).map_err(file_error(&folder))?;
        let path = folder.join(format!("oddity_{}.csv", input.stem));
        let text = results(&table, &replay, &alarms, options.layout);
        let mut file = fs::File::create(&path).map_err(file_error(&path))?;
        file.write_all(text.as_bytes()).map_err(file_error(&path))?;
    }
    Ok(report(input, &table, &replay, &timed))
}

/// The rows whose time is after every row's before them.
fn in_order(table: &Table) -> Vec<usize> {
    let mut newest = i64::MIN;
    let mut rows = Vec::with_capacity(table.rows.len());
    for (row, read) in table.rows.iter().enumerate() {
        if read.at.0 > newest {
            newest = read.at.0;
            rows.push(row);
        }
    }
    rows
}

/// The result file: one line for each row of the table, in its order.
fn results(table: &Table, replay: &Replay, alarms: &[f64], layout: Layout) -> String {
    use std::fmt::Write;
    let bound = |value: f64| match value {
        value if value.is_nan() => String::new(),
        value => csv::number(value),
    };
    let mut text = String::with_capacity(64 * (table.rows.len() + 1));
    text.push_str("timestamp,value,anomaly_score,anomaly_flag,alarm_score,expected,lower,upper\n");
    for ((row, answer), alarm) in table.rows.iter().zip(&replay.answers).zip(alarms) {
        let score = if layout == Layout::Nab { *alarm } else { answer.score };
        let value = row.value.map(csv::number).unwrap_or_default();
        let (expected, lower, upper) = if answer.scored {
            (csv::number(answer.expected), bound(answer.lower), bound(answer.upper))
        } else {
            Default::default()
        };
        let flag = u8::from(answer.score >= 1.0);
        let (score, alarm) = (csv::number(score), csv::number(*alarm));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{},{value},{score},{flag},{alarm},{expected},{lower},{upper}", row.written);
    }
    text
}

fn report(input: &Input, table: &Table, replay: &Replay, timed: &[usize]) -> FileReport {
    let judged: Vec<Judged> = timed
        .iter()
        .map(|row| Judged { at: table.rows[*row].at.0, flagged: replay.answers[*row].score >= 1.0 })
        .collect();
    let labels = timed.iter().map(|row| (table.rows[*row].at.0, table.rows[*row].label));
    let events = input.windows.clone().unwrap_or_else(|| events_of_labels(labels));
    let scored_from = timed.iter().find(|row| replay.answers[**row].scored).map(|row| table.rows[*row].at.0);
    let newest = timed.last().map_or(0, |row| table.rows[*row].at.0);
    let file = match input.category.as_str() {
        "" => input.stem.clone(),
        category => format!("{category}/{}", input.stem),
    };
    FileReport {
        file,
        rows: table.rows.len(),
        scored: replay.answers.iter().filter(|answer| answer.scored).count(),
        flagged: replay.answers.iter().filter(|answer| answer.score >= 1.0).count(),
        missing: replay.missing,
        out_of_order: replay.out_of_order,
        labelled: input.windows.is_some() || table.labelled,
        judgement: judge(&judged, &events, replay.interval, scored_from.unwrap_or(i64::MAX)),
        days: scored_from.map_or(0.0, |from| (newest - from) as f64 / 8.64e7),
    }
}

#[cfg(test)]
mod tests {
    use super::super::default_rules;
    use super::*;

    fn options(out: &Path, layout: Layout) -> Options {
        Options {
            rules: Arc::new(default_rules("csv", true).expect("valid")),
            metric: "csv".into(),
            out: Some(out.to_path_buf()),
            layout,
            threads: 2,
        }
    }

    #[test]
    fn results_have_every_row_in_the_order_of_the_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("cpu.csv");
        let mut text = "timestamp,value,label\n".to_string();
        let mut written = Vec::new();
        for i in 0..300i64 {
            // Row 50 is late, row 60 a duplicate, row 70 has no value; row 200 is far off.
            let at = 1_500_000_000
                + 60 * match i {
                    50 => 40,
                    60 => 59,
                    i => i,
                };
            let value = match i {
                70 => String::new(),
                200 => "900".into(),
                i => format!("{}", 10 + (i * 7919) % 5),
            };
            text += &format!("{at},{value},{}\n", u8::from(i == 200));
            written.push((at.to_string(), value));
        }
        fs::write(&input, text).expect("written");
        let out = folder.path().join("out");
        let inputs = inputs_of_paths(&[folder.path().to_path_buf()]).expect("found");
        let calls = AtomicUsize::new(0);
        let count = || {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        let reports = run(&inputs, &options(&out, Layout::Plain), &count).expect("runs");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!((reports[0].rows, reports[0].missing, reports[0].out_of_order), (300, 1, 2));
        let result = fs::read_to_string(out.join("oddity/oddity_cpu.csv")).expect("written");
        let mut lines = result.lines();
        assert_eq!(
            lines.next(),
            Some("timestamp,value,anomaly_score,anomaly_flag,alarm_score,expected,lower,upper")
        );
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        let got: Vec<_> = rows.iter().map(|row| (row[0].to_string(), row[1].to_string())).collect();
        assert_eq!(got, written);
        for quiet in [0, 50, 60, 70] {
            assert_eq!(rows[quiet][2..], ["0", "0", "0", "", "", ""], "row {quiet}");
        }
        let totals = Totals::of(&reports);
        assert_eq!((totals.files, totals.rows), (1, 300));
    }

    #[test]
    fn a_benchmark_folder_gives_categories_and_windows() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("data/real")).expect("made");
        fs::create_dir_all(at("labels")).expect("made");
        fs::write(at("data/real/x.csv"), "timestamp,value\n2014-04-01 00:00:00,1\n").expect("written");
        let windows = r#"{"real/x.csv": [["2014-04-01 00:00:00.000000", "2014-04-01 01:00:00.000000"]]}"#;
        fs::write(at("labels/combined_windows.json"), windows).expect("written");
        let inputs = inputs_of_nab(folder.path()).expect("found");
        assert_eq!(inputs[0].windows, Some(vec![(1_396_310_400_000, 1_396_314_000_000)]));
        run(&inputs, &options(folder.path(), Layout::Nab), &|| ()).expect("runs");
        assert!(at("oddity/real/oddity_x.csv").is_file());
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b"] {
            fs::create_dir(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join("x.csv"), "timestamp,value\n").expect("written");
        }
        let paths = [folder.path().join("a"), folder.path().join("b")];
        let error = inputs_of_paths(&paths).expect_err("refused").to_string();
        assert!(error.contains("same result file"), "{error}");
        assert!(inputs_of_paths(&[folder.path().to_path_buf()]).is_err(), "no .csv file in it");
    }
}
