//! Result files: one line for each sample, in the input's order.

use super::alarm::{MARGIN, QUIET_INTERVALS, alarm_scores};
use super::answers::{Answers, SCORED};
use super::csv::number;
use crate::history::Series;
use crate::labels::NAME;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// One line of the input.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The timestamp as it was written.
    pub written: &'a str,
    /// The value; `None` where there is none.
    pub value: Option<f64>,
    /// Which of the samples sent it is; `None` where it was not sent.
    pub sample: Option<usize>,
}

/// The alarm scores of samples at these times, ms.
pub fn alarms(times: impl Iterator<Item = i64>, answers: &Answers, interval: i64) -> Vec<f64> {
    let timed: Vec<(i64, f64)> = times.zip(answers.scores.iter().copied()).collect();
    alarm_scores(&timed, QUIET_INTERVALS.saturating_mul(interval), MARGIN)
}

/// A result file being written.
pub struct Results {
    file: BufWriter<File>,
}

impl Results {
    /// Makes the file and its folder.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Results> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"timestamp,value,anomaly_score,anomaly_flag,alarm_score,expected,lower,upper\n")?;
        Ok(Results { file })
    }

    /// Writes a line. With `benchmark` the column `anomaly_score` holds the alarm score.
    ///
    /// # Errors
    /// The system's.
    pub fn line(
        &mut self,
        line: Line<'_>,
        answers: &Answers,
        alarms: &[f64],
        benchmark: bool,
    ) -> io::Result<()> {
        let of = |all: &[f64]| line.sample.and_then(|at| all.get(at)).copied().unwrap_or(0.0);
        let (score, alarm) = (of(&answers.scores), of(alarms));
        let scored = line.sample.and_then(|at| answers.marks.get(at)).is_some_and(|m| m & SCORED != 0);
        let told = line.sample.filter(|_| scored).and_then(|at| answers.expected.get(at));
        let edge = |edge: Option<f64>| edge.filter(|edge| !edge.is_nan()).map(number).unwrap_or_default();
        writeln!(
            self.file,
            "{},{},{},{},{},{},{},{}",
            line.written,
            line.value.map(number).unwrap_or_default(),
            number(if benchmark { alarm } else { score }),
            u8::from(score >= 1.0),
            number(alarm),
            edge(told.map(|told| told.expected)),
            edge(told.map(|told| told.lower)),
            edge(told.map(|told| told.upper)),
        )
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A series' file name: the metric's name as far as it is safe, and the series' id, which makes it unique.
pub fn stem(series: &Series) -> String {
    let name = series.pairs().find(|(name, _)| *name == NAME).map_or("", |(_, value)| value);
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let name: String = name.chars().map(safe).take(80).collect();
    format!("{name}-{:016x}", (series.id.0 >> 64) as u64)
}

/// An entry of the index: which series is in which file.
#[derive(Serialize)]
pub struct Entry<'a> {
    /// The file's name.
    pub file: String,
    /// The series' labels.
    pub labels: BTreeMap<&'a str, &'a str>,
}

/// Writes the index of the result files.
///
/// # Errors
/// The system's.
pub fn index(path: &Path, entries: &[Entry<'_>]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, entries)?;
    file.write_all(b"\n")?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;

    #[test]
    fn names_of_files_are_safe_and_unique() {
        let mut history = History::default();
        for labels in [
            [(NAME, "up"), ("job", "a/b")],
            [(NAME, "up"), ("job", "a b")],
            [(NAME, "../../etc/é metric"), ("job", "x")],
        ] {
            history.place(&mut labels.to_vec()).expect("valid");
        }
        let stems: Vec<String> = history.series.iter().map(stem).collect();
        assert!(stems[0].starts_with("up-") && stems[1].starts_with("up-") && stems[0] != stems[1]);
        assert!(stems[2].starts_with("______etc___metric-"), "{}", stems[2]);
    }
}
