//! Input files: `timestamp,value[,label][,split]`, one row a sample.

use super::BacktestError;
use crate::time::Millis;
use std::path::Path;

/// Unix times of at least this size are milliseconds: as seconds it would be the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The timestamp as it is written in the file.
    pub written: String,
    /// The same as a time.
    pub at: Millis,
    /// The value; `None` where the field is empty.
    pub value: Option<f64>,
    /// Whether it is labelled an anomaly; `false` without labels.
    pub label: bool,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Its rows, in its order.
    pub rows: Vec<Row>,
    /// Whether it has a column `label`.
    pub labelled: bool,
}

/// Reads a timestamp: Unix seconds or milliseconds, RFC 3339, or `YYYY-MM-DD HH:MM:SS` in UTC.
///
/// # Errors
/// The forms that are known.
pub fn parse_time(text: &str) -> Result<Millis, String> {
    if let Ok(number) = text.parse::<f64>() {
        let ms = if number.abs() >= MILLISECONDS_FROM { number } else { number * 1e3 };
        if ms.is_finite() && ms.abs() < 1e15 {
            return Ok(Millis(ms.round() as i64));
        }
        return Err("the timestamp is out of range".into());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Millis(at.as_millisecond()));
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok();
    let at = civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok());
    at.map(|at| Millis(at.timestamp().as_millisecond()))
        .ok_or_else(|| "expected Unix seconds or milliseconds, RFC 3339 or YYYY-MM-DD HH:MM:SS".to_string())
}

/// Splits a line at its commas and takes surrounding quotes and spaces off each field.
fn fields(line: &str) -> Vec<&str> {
    line.split(',')
        .map(|field| {
            let field = field.trim();
            field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
        })
        .collect()
}

/// Reads a table from text; `path` is for messages.
///
/// # Errors
/// The first row that cannot be used, with its line.
pub fn parse(text: &str, path: &Path) -> Result<Table, BacktestError> {
    let wrong = |line: usize, what: String| BacktestError::Row { path: path.to_path_buf(), line, what };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    let header = lines.next().map(|(_, line)| fields(line)).unwrap_or_default();
    let column = |name: &str| header.iter().position(|field| field.eq_ignore_ascii_case(name));
    let need =
        |name: &str| column(name).ok_or_else(|| wrong(1, format!("the header has no column `{name}`")));
    let (timestamp, value, label) = (need("timestamp")?, need("value")?, column("label"));
    let mut table = Table { rows: Vec::new(), labelled: label.is_some() };
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields = fields(line);
        let wrong = |what: String| wrong(index + 1, what);
        if fields.len() != header.len() {
            return Err(wrong(format!("{} fields where the header has {}", fields.len(), header.len())));
        }
        let at = parse_time(fields[timestamp]).map_err(wrong)?;
        let value = match fields[value] {
            "" => None,
            text => Some(text.parse().map_err(|_| wrong("the value is not a number".into()))?),
        };
        let label = match label.map_or("", |label| fields[label]) {
            "" => false,
            text => match text.parse::<f64>() {
                Ok(number) if number == 0.0 || number == 1.0 => number == 1.0,
                _ => return Err(wrong("the label is neither 0 nor 1".into())),
            },
        };
        table.rows.push(Row { written: fields[timestamp].to_string(), at, value, label });
    }
    Ok(table)
}

/// A number as a result file has it: the shortest text that reads back as the same bits, with an
/// exponent where it would be long, and `+Inf`, `-Inf` or `NaN`.
pub fn number(x: f64) -> String {
    match x {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        x if x.abs() >= 1e17 || x != 0.0 && x.abs() < 1e-5 => format!("{x:e}"),
        x => x.to_string(),
    }
}

/// Reads a file.
///
/// # Errors
/// The file cannot be read, or a row cannot be used.
pub fn read(path: &Path) -> Result<Table, BacktestError> {
    let file = |source| BacktestError::File { path: path.to_path_buf(), source };
    parse(&std::fs::read_to_string(path).map_err(file)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_timestamp() {
        for (text, ms) in [
            ("1491041280", 1_491_041_280_000),
            ("1491041280.5", 1_491_041_280_500),
            ("1491041280123", 1_491_041_280_123),
            ("0", 0),
            ("2014-04-01 00:05:00", 1_396_310_700_000),
            ("2014-04-01 00:05:00.250", 1_396_310_700_250),
            ("2014-04-01T00:05:00Z", 1_396_310_700_000),
            ("2014-04-01T02:05:00+02:00", 1_396_310_700_000),
        ] {
            assert_eq!(parse_time(text), Ok(Millis(ms)), "{text}");
        }
        for text in ["", "soon", "2014-13-01 00:00:00", "nan", "1e300", "inf"] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_short_and_read_back_to_the_bit() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e-5, "0.00001"),
            (9.9e-6, "9.9e-6"),
            (-5e-324, "-5e-324"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (99_999_999_999_999_980.0, "99999999999999980"),
            (1e17, "1e17"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(number(x), text);
            assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(x.to_bits()), "{text}");
        }
        assert!(number(f64::NAN).parse::<f64>().is_ok_and(f64::is_nan));
    }

    proptest::proptest! {
        #[test]
        fn any_bits_survive_the_writer(bits: u64) {
            let x = f64::from_bits(bits);
            let text = number(x);
            proptest::prop_assert!(text.len() <= 26, "{text}");
            let back: f64 = text.parse().expect("a number");
            proptest::prop_assert!(back.to_bits() == bits || x.is_nan() && back.is_nan(), "{text}");
        }
    }

    #[test]
    fn columns_are_found_by_name_and_values_may_be_missing() {
        let text = "\u{feff}label,timestamp,\"value\",split\r\n0,10,1.5,0\r\n1,20,,1\r\n\r\n,30,NaN,1\r\n";
        let table = parse(text, Path::new("x.csv")).expect("valid");
        assert!(table.labelled);
        let got: Vec<_> = table.rows.iter().map(|row| (row.at.0, row.value.is_some(), row.label)).collect();
        assert_eq!(got, [(10_000, true, false), (20_000, false, true), (30_000, true, false)]);
        assert_eq!(table.rows[1].written, "20");
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        for (text, message) in [
            ("", "dir/x.csv:1: the header has no column `timestamp`"),
            ("timestamp,v\n", "dir/x.csv:1: the header has no column `value`"),
            ("timestamp,value\n1,2\n1\n", "dir/x.csv:3: 1 fields where the header has 2"),
            ("timestamp,value\n1,2\n\nx,2\n", "dir/x.csv:4: expected Unix seconds"),
            ("timestamp,value\n1,two\n", "dir/x.csv:2: the value is not a number"),
            ("timestamp,value,label\n1,2,3\n", "dir/x.csv:2: the label is neither 0 nor 1"),
        ] {
            let error = parse(text, Path::new("dir/x.csv")).expect_err(text).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
