//! Where labelled CSV files are found: paths, folders, a checkout of the Numenta Anomaly Benchmark.

use super::BacktestError;
use super::csv;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

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

pub(super) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> BacktestError {
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

#[cfg(test)]
mod tests {
    use super::*;

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
