//! The default model on labelled data.

use crate::Options;
use crate::events::{Events, Scored, best};
use crate::run::{BUDGETS, parallel};
use oddity::calibrate::readout;
use oddity::detect::{Detector, DetectorSet, Model, ModelParams, ReadOut};
use oddity::time::{Millis, Span};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints event F1 of each folder, at score ≥ 1 for each budget and at the best threshold. Rows of
/// `split` 0 are learnt and not judged.
pub fn print(options: &Options) -> ExitCode {
    let mut params = ModelParams::default();
    if let Some(name) = &options.without {
        let Some(left_out) = Detector::ALL.into_iter().find(|d| d.name() == name) else {
            eprintln!("no detector {name}");
            return ExitCode::from(2);
        };
        params.detectors = DetectorSet(params.detectors.0 & !DetectorSet(0).with(left_out).0);
    }
    if options.paths.is_empty() {
        eprintln!("name a folder of timestamp,value,label[,split] files");
        return ExitCode::from(2);
    }
    println!(
        "event F1 (precision/recall, false alarms a day over promised) at score >= 1, and at the best threshold"
    );
    for folder in &options.paths {
        let files = match files(Path::new(folder), options.only.as_deref()) {
            Ok(files) => files,
            Err(error) => {
                eprintln!("{folder}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut at_budgets = Vec::new();
        let scored = parallel(files.len(), |i| read(&files[i]).map(|rows| score(&params, &rows)));
        let mut series: Vec<Scored> = Vec::new();
        for (one, file) in scored.into_iter().zip(&files) {
            match one {
                Ok(one) => series.push(one),
                Err(error) => {
                    eprintln!("{}: {error}", file.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        let days: f64 = series.iter().map(|s| s.days).sum();
        for budget in BUDGETS {
            // Scores are kept in nats here: the threshold is what the budget allows at 60 s.
            let threshold = readout::allowed(Span::days(budget).0, 60_000.0);
            let events = Events::of(&series, threshold, None);
            let (precision, recall) = events.rates();
            let over = f64::from(events.false_events) / days * budget as f64;
            at_budgets.push(format!("{:.3} ({precision:.2}/{recall:.2}, {over:.2})", events.f1()));
        }
        let (threshold, top) = best(&series, None);
        let (_, delayed) = best(&series, Some(7));
        println!(
            "{folder}: {} series, {:.0} series-days, {} events\n  1d {}  7d {}  30d {}\n  best {:.3} at {:.2} nats; delayed best {:.3}",
            series.len(),
            days,
            top.labelled,
            at_budgets[0],
            at_budgets[1],
            at_budgets[2],
            top.f1(),
            threshold,
            delayed.f1(),
        );
    }
    ExitCode::SUCCESS
}

fn files(folder: &Path, only: Option<&str>) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| {
        path.extension().is_some_and(|e| e == "csv")
            && only.is_none_or(|part| path.to_string_lossy().contains(part))
    });
    files.sort();
    Ok(files)
}

struct Row {
    at: i64,
    value: Option<f64>,
    label: bool,
    judged: bool,
}

fn read(path: &Path) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or("").split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name);
    let (time, value) = (column("timestamp").ok_or("no timestamp")?, column("value").ok_or("no value")?);
    let (label, split) = (column("label").ok_or("no label")?, column("split"));
    let mut rows = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse::<f64>().ok());
        let at = number(time).ok_or_else(|| format!("no time in {line:?}"))?;
        rows.push(Row {
            at: (if at > 1e11 { at } else { at * 1000.0 }) as i64,
            value: number(value),
            label: number(label).unwrap_or(0.0) > 0.5,
            judged: split.is_none_or(|split| number(split).unwrap_or(0.0) > 0.5),
        });
    }
    Ok(rows)
}

/// Scores in nats, so that every budget can be read from one run.
fn score(params: &ModelParams, rows: &[Row]) -> Scored {
    let mut model = Model::new(params);
    let mut scored = Scored { labels: Vec::new(), scores: Vec::new(), days: 0.0 };
    let mut last = None;
    for row in rows {
        let verdict =
            row.value.and_then(|value| model.observe(params, &ReadOut::default(), Millis(row.at), value));
        if row.judged {
            let nats =
                verdict.map_or(0.0, |v| v.score) * readout::allowed(ReadOut::default().budget.0, 60_000.0);
            scored.labels.push(row.label);
            scored.scores.push(nats);
            scored.days += last.map_or(0.0, |last: i64| (row.at - last) as f64 / 86_400_000.0);
        }
        last = Some(row.at);
    }
    scored
}
