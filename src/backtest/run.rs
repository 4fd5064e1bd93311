//! Inputs through the engine: CSV files side by side, each a series of its own, or a history of many
//! series through one engine. Results are written out, and every series is judged.

use super::BacktestError;
use super::alarm::usual_interval;
use super::answers::Answers;
use super::csv::{self, Table};
use super::inputs::{Input, file_error};
use super::replay::replay;
use super::report::{Row, SeriesReport};
use super::results::{Entry, Line, Results, alarms, index, stem};
use crate::engine::own;
use crate::history::{History, Series};
use crate::labels::{Labels, NAME, value_of};
use crate::rules::RuleSet;
use crate::wire::Sample;
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

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Metric name of the series made of a file.
    pub metric: String,
    /// Where results go; `None` writes none.
    pub out: Option<PathBuf>,
    /// How they are laid out.
    pub layout: Layout,
    /// Threads, at least 1.
    pub threads: usize,
}

/// Does `work` for each of `0..count` on some threads; the results come in order.
fn each<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, BacktestError> + Sync,
) -> Result<Vec<T>, BacktestError> {
    let next = AtomicUsize::new(0);
    let go = || {
        let mut mine = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return mine;
            }
            mine.push((number, work(number)));
        }
    };
    let mut results: Vec<(usize, Result<T, BacktestError>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, count.max(1))).map(|_| scope.spawn(go)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs files; `done` is called after each one. Reports come in the inputs' order.
///
/// # Errors
/// The first file (in that order) that cannot be read, replayed or written.
pub fn run_files(
    inputs: &[Input],
    options: &Options,
    done: &(impl Fn() + Sync),
) -> Result<Vec<SeriesReport>, BacktestError> {
    each(inputs.len(), options.threads, |number| {
        let report = inputs.get(number).map(|input| one_file(input, options));
        done();
        report.unwrap_or_else(|| Err(BacktestError::Input("no such input".into())))
    })
}

/// A table as a history of one series, and which sample each row is.
fn series_of(
    table: &Table,
    metric: &str,
    file: &str,
) -> Result<(History, Vec<Option<usize>>), BacktestError> {
    let mut history = History::default();
    let wrong = |error| BacktestError::Input(format!("metric {metric:?} of file {file:?}: {error}"));
    let place = history.place(&mut vec![(NAME, metric), ("file", file)]).map_err(wrong)?;
    let mut newest = i64::MIN;
    let mut sent = 0;
    let mut samples = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        // A row out of order, or without a value, is not sent.
        samples.push(row.value.filter(|_| row.at.0 > newest).map(|value| {
            newest = row.at.0;
            history.push(place, Sample { timestamp: row.at.0, value });
            sent += 1;
            sent - 1
        }));
    }
    history.finish();
    Ok((history, samples))
}

fn one_file(input: &Input, options: &Options) -> Result<SeriesReport, BacktestError> {
    let table = csv::read(&input.path)?;
    let (history, samples) = series_of(&table, &options.metric, &input.stem)?;
    let history = Arc::new(history);
    let mut answers = replay(&history, options.rules.clone(), 0, options.out.is_some(), &|_| ())?;
    let answers = answers.pop().unwrap_or_default();
    let times: Vec<i64> =
        history.series.iter().flat_map(|series| &series.samples).map(|sample| sample.timestamp).collect();
    let interval = usual_interval(&times);
    if let Some(out) = &options.out {
        let path = out.join("oddity").join(&input.category).join(format!("oddity_{}.csv", input.stem));
        let alarms = alarms(times.iter().copied(), &answers, interval);
        let write = || {
            let mut results = Results::create(&path)?;
            for (row, sample) in table.rows.iter().zip(&samples) {
                let line = Line { written: &row.written, value: row.value, sample: *sample };
                results.line(line, &answers, &alarms, options.layout == Layout::Nab)?;
            }
            results.finish()
        };
        write().map_err(file_error(&path))?;
    }
    let windows = input.windows.as_deref();
    let rows = || {
        table.rows.iter().zip(&samples).map(|(row, sample)| {
            let at = row.at.0;
            let marks = sample.and_then(|at| answers.marks.get(at)).copied().unwrap_or(0);
            let label =
                windows.map_or(row.label, |all| all.iter().any(|(from, to)| (*from..=*to).contains(&at)));
            Row { at, label, marks }
        })
    };
    let name = match input.category.as_str() {
        "" => input.stem.clone(),
        category => format!("{category}/{}", input.stem),
    };
    let labelled = windows.is_some() || table.labelled;
    let mut report = SeriesReport::new(name, rows, &answers, labelled, interval);
    let unsent = || table.rows.iter().zip(&samples).filter(|(_, sample)| sample.is_none());
    report.missing = unsent().filter(|(row, _)| row.value.is_none()).count();
    report.out_of_order = unsent().count() - report.missing;
    Ok(report)
}

/// The places of the series that a rule takes: not those of others, nor outputs of oddity itself.
fn taken(history: &History, rules: &RuleSet) -> Vec<usize> {
    let takes = |series: &Series| {
        let labels: Vec<(&str, &str)> = series.pairs().collect();
        !own::is_own(&labels) && rules.select(|name| value_of(&labels, name)).is_some()
    };
    let all = history.series.iter().enumerate();
    all.filter(|(_, series)| takes(series)).map(|(place, _)| place).collect()
}

/// Runs a history through one engine; `progress` is told of the samples of each body. Reports come in
/// the order of its series, those left out that no rule takes. With `out`, `OUT/oddity/index.json` tells which series is in which file.
///
/// # Errors
/// The engine refuses a body; results cannot be written.
pub fn run_history(
    history: History,
    options: &Options,
    progress: &dyn Fn(u64),
) -> Result<Vec<SeriesReport>, BacktestError> {
    let history = Arc::new(history);
    let lanes = if options.threads > 1 { options.threads } else { 0 };
    let answers = replay(&history, options.rules.clone(), lanes, options.out.is_some(), progress)?;
    let folder = options.out.as_ref().map(|out| out.join("oddity"));
    let taken = taken(&history, &options.rules);
    let reports = each(taken.len(), options.threads, |number| {
        let place = taken.get(number).copied().unwrap_or(usize::MAX);
        let (Some(series), Some(answers)) = (history.series.get(place), answers.get(place)) else {
            return Err(BacktestError::Input("no such series".into()));
        };
        one_series(series, answers, folder.as_deref())
    })?;
    if let Some(folder) = &folder {
        let path = folder.join("index.json");
        let entry = |series| Entry { file: file_name(series), labels: series.pairs().collect() };
        let entries: Vec<Entry<'_>> =
            taken.iter().filter_map(|place| history.series.get(*place)).map(entry).collect();
        std::fs::create_dir_all(folder).and_then(|()| index(&path, &entries)).map_err(file_error(&path))?;
    }
    Ok(reports)
}

fn file_name(series: &Series) -> String {
    format!("oddity_{}.csv", stem(series))
}

fn one_series(
    series: &Series,
    answers: &Answers,
    folder: Option<&Path>,
) -> Result<SeriesReport, BacktestError> {
    let times: Vec<i64> = series.samples.iter().map(|sample| sample.timestamp).collect();
    let interval = usual_interval(&times);
    if let Some(folder) = folder {
        let path = folder.join(file_name(series));
        let alarms = alarms(times.iter().copied(), answers, interval);
        let write = || {
            let mut results = Results::create(&path)?;
            for (at, sample) in series.samples.iter().enumerate() {
                let ms = sample.timestamp;
                let sign = if ms < 0 { "-" } else { "" };
                let written = format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
                let line = Line { written: &written, value: Some(sample.value), sample: Some(at) };
                results.line(line, answers, &alarms, false)?;
            }
            results.finish()
        };
        write().map_err(file_error(&path))?;
    }
    let rows =
        || times.iter().zip(&answers.marks).map(|(at, marks)| Row { at: *at, label: false, marks: *marks });
    let pairs: Vec<(&str, &str)> = series.pairs().collect();
    let name = Labels::from_pairs(&pairs).to_string();
    Ok(SeriesReport::new(name, rows, answers, false, interval))
}

#[cfg(test)]
mod tests {
    use super::super::inputs::{inputs_of_nab, inputs_of_paths};
    use super::super::replay::default_rules;
    use super::super::report::Report;
    use super::*;
    use crate::rules::As;
    use std::fs;

    fn options(out: &Path, layout: Layout) -> Options {
        Options {
            rules: Arc::new(default_rules(Some("csv"), Some(As::Value), true).expect("valid")),
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
        let reports = run_files(&inputs, &options(&out, Layout::Plain), &count).expect("runs");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!((reports[0].samples, reports[0].missing, reports[0].out_of_order), (300, 1, 2));
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
        assert_eq!(rows[200][3], "1");
        assert!(rows[200][7].parse::<f64>().is_ok_and(|upper| upper < 900.0), "{:?}", rows[200]);
        let report = Report::of(reports);
        assert_eq!((report.totals.series, report.totals.samples), (1, 300));
        let summary = &report.totals.summary;
        assert_eq!((summary.events, summary.found, summary.f1), (Some(1), Some(1), Some(1.0)));
        assert_eq!(summary.delay_median_seconds, Some(0.0));
        let [alarm] = &report.series[0].alarm_list[..] else { panic!("{:?}", report.series[0]) };
        assert_eq!((alarm.value, alarm.labelled), (900.0, Some(true)));
        assert!(report.recommended.expect("scored").why.contains("F1"));
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
        let reports = run_files(&inputs, &options(folder.path(), Layout::Nab), &|| ()).expect("runs");
        assert!(at("oddity/real/oddity_x.csv").is_file());
        assert_eq!((reports[0].series.as_str(), reports[0].summary.events), ("real/x", Some(1)));
    }

    #[test]
    fn a_history_has_a_file_for_each_series_and_an_index() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut history = History::default();
        for (name, job) in [("anomaly_score", "a"), ("load", "a"), ("load", "b")] {
            let labels = [(NAME, name), ("job", job), ("metric", "load"), ("rule", "x")];
            let own = name == "anomaly_score";
            let place = history.place(&mut labels[..if own { 4 } else { 2 }].to_vec()).expect("valid");
            for i in 0..120i64 {
                let value = if i == 110 && job == "b" { 90.0 } else { ((i * 7919) % 7) as f64 };
                history.push(place, Sample { timestamp: 1_700_000_000_250 + 15_000 * i, value });
            }
        }
        history.finish();
        let rules = Arc::new(default_rules(None, None, true).expect("valid"));
        let options = Options { rules, ..options(folder.path(), Layout::Plain) };
        let reports = run_history(history, &options, &|_| ()).expect("runs");
        assert_eq!(reports.iter().map(|r| r.alarm_list.len()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(reports[1].series, "load{job=\"b\"}");
        let index = fs::read_to_string(folder.path().join("oddity/index.json")).expect("written");
        let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
        assert_eq!(index[1]["labels"]["job"], "b");
        let file = folder.path().join("oddity").join(index[1]["file"].as_str().expect("a name"));
        let text = fs::read_to_string(file).expect("the file");
        let row = text.lines().nth(111).expect("a row");
        assert!(row.starts_with("1700001650.250,90,") && row.split(',').nth(3) == Some("1"), "{row}");
        let report = Report::of(reports);
        assert_eq!((report.totals.summary.alarms, report.totals.summary.f1), (1, None));
    }
}
