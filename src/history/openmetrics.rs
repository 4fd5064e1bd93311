//! OpenMetrics text with timestamps, as `promtool tsdb dump-openmetrics` writes it: one line a sample,
//! `name{label="value"} value seconds`, the lines of a series together, `# EOF` at the end.
//!
//! The file is read line by line, and labels are parsed where the series changes. Labels may have Go's
//! escapes, which promtool writes, and a name may stand in quotes inside the braces.

use super::{History, HistoryError, kind};
use crate::labels::NAME;
use crate::wire::Sample;
use std::io::{BufRead, Read};
use std::path::Path;

/// Bytes of a line: more than 128 labels of 4096 bytes.
const MAX_LINE: u64 = 2 << 20;

/// Reads a history; `path` is for messages, `progress` is told of the bytes of each line.
///
/// # Errors
/// The first line that cannot be used.
pub fn read(
    mut from: impl BufRead,
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<History, HistoryError> {
    let mut history = History::default();
    // The series of the line before, and its place.
    let mut series: (Vec<u8>, usize) = (Vec::new(), 0);
    let mut buffer = Vec::new();
    let mut line = 0;
    let mut ended = false;
    loop {
        buffer.clear();
        let file = |source| HistoryError::File { path: path.to_path_buf(), source };
        let bytes = (&mut from).take(MAX_LINE).read_until(b'\n', &mut buffer).map_err(file)? as u64;
        if bytes == 0 {
            break;
        }
        line += 1;
        progress(bytes);
        let wrong = |what: &str| HistoryError::Line { path: path.to_path_buf(), line, what: what.into() };
        if bytes == MAX_LINE && !buffer.ends_with(b"\n") {
            return Err(wrong("the line is too long"));
        }
        let text = buffer.trim_ascii_end();
        match text.strip_prefix(b"#") {
            Some(rest) if rest.trim_ascii() == b"EOF" => ended = true,
            Some(rest) => metadata(rest, &mut history),
            None if text.is_empty() => {}
            None if ended => return Err(wrong("a sample after `# EOF`")),
            None => sample(text, &mut series, &mut history).map_err(|what| wrong(&what))?,
        }
    }
    if !ended {
        let what = "the file ends without `# EOF`: it may be cut short (add that line if it is not)".into();
        return Err(HistoryError::Line { path: path.to_path_buf(), line, what });
    }
    history.finish();
    Ok(history)
}

/// `# TYPE name kind`; other comments say nothing about samples.
fn metadata(text: &[u8], history: &mut History) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut words = text.split_ascii_whitespace();
    if let (Some("TYPE"), Some(name), Some(what)) = (words.next(), words.next(), words.next()) {
        history.kinds.push((name.to_string(), kind(what)));
    }
}

fn sample(line: &[u8], series: &mut (Vec<u8>, usize), history: &mut History) -> Result<(), String> {
    let same = line.strip_prefix(series.0.as_slice()).filter(|rest| rest.starts_with(b" "));
    let rest = match same {
        Some(rest) if !series.0.is_empty() => rest,
        _ => {
            let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
            let (mut labels, end) = labels(text)?;
            let place = {
                let mut pairs: Vec<(&str, &str)> =
                    labels.iter_mut().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                history.place(&mut pairs).map_err(|error| error.to_string())?
            };
            let (head, rest) = line.split_at(end);
            *series = (head.to_vec(), place);
            rest
        }
    };
    let rest = std::str::from_utf8(rest).map_err(|_| "not UTF-8")?;
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("no value")?;
    let value = value.parse().map_err(|_| format!("the value {value:?} is not a number"))?;
    let at = words.next().ok_or("no timestamp: a dump has one on each line")?;
    let seconds: f64 = at.parse().map_err(|_| format!("the timestamp {at:?} is not a number of seconds"))?;
    let ms = (seconds * 1e3).round();
    if ms.is_nan() || ms.abs() >= 1e15 {
        return Err(format!("the timestamp {at:?} is out of range; it must be in seconds"));
    }
    if words.next().is_some_and(|more| more != "#") {
        return Err("more than a value and a timestamp".into());
    }
    history.push(series.1, Sample { timestamp: ms as i64, value });
    Ok(())
}

type Pairs = Vec<(String, String)>;

/// Name and labels at the start of a line, and where they end.
fn labels(line: &str) -> Result<(Pairs, usize), String> {
    let end = line.find(['{', ' ', '\t']).ok_or("no value")?;
    let mut found = Vec::new();
    if end > 0 {
        found.push((NAME.to_string(), line[..end].to_string()));
    }
    if !line[end..].starts_with('{') {
        return Ok((found, end));
    }
    let mut text = Text { line, at: end + 1 };
    loop {
        text.spaces();
        if text.take('}') {
            return Ok((found, text.at));
        }
        let name = if text.rest().starts_with('"') { text.quoted()? } else { text.bare()?.to_string() };
        text.spaces();
        if text.take('=') {
            text.spaces();
            let value = text.quoted()?;
            found.push((name, value));
        } else {
            found.push((NAME.to_string(), name));
        }
        text.spaces();
        if !text.take(',') && !text.rest().starts_with('}') {
            return Err("expected `,` or `}` after a label".into());
        }
    }
}

struct Text<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Text<'a> {
    fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or("")
    }
    fn take(&mut self, wanted: char) -> bool {
        let there = self.rest().starts_with(wanted);
        self.at += if there { wanted.len_utf8() } else { 0 };
        there
    }
    fn spaces(&mut self) {
        while self.take(' ') {}
    }
    fn bare(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let end = rest.find(['=', '"', ',', '{', '}', ' ']).unwrap_or(rest.len());
        self.at += end;
        if end == 0 || !self.rest().starts_with(['=', ' ']) {
            return Err("expected a label such as name=\"value\"".into());
        }
        Ok(&rest[..end])
    }

    /// A text in double quotes, with the escapes of OpenMetrics and of Go.
    fn quoted(&mut self) -> Result<String, String> {
        let wrong = || "a label's value is not in double quotes".to_string();
        if !self.take('"') {
            return Err(wrong());
        }
        let mut bytes = Vec::new();
        loop {
            let rest = self.rest();
            let stop = rest.find(['"', '\\']).ok_or_else(wrong)?;
            bytes.extend_from_slice(&rest.as_bytes()[..stop]);
            self.at += stop;
            if self.take('"') {
                return String::from_utf8(bytes).map_err(|_| "a label is not valid UTF-8".into());
            }
            self.take('\\');
            let next = self.rest().chars().next().ok_or_else(wrong)?;
            self.at += next.len_utf8();
            match next {
                'n' => bytes.push(b'\n'),
                't' => bytes.push(b'\t'),
                'r' => bytes.push(b'\r'),
                'a' => bytes.push(7),
                'b' => bytes.push(8),
                'f' => bytes.push(12),
                'v' => bytes.push(11),
                'x' => bytes.push(self.code(2)? as u8),
                'u' => self.character(4, &mut bytes)?,
                'U' => self.character(8, &mut bytes)?,
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn code(&mut self, digits: usize) -> Result<u32, String> {
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        self.at += digits;
        code.ok_or_else(|| "an escape in a label is not hexadecimal".into())
    }

    fn character(&mut self, digits: usize, into: &mut Vec<u8>) -> Result<(), String> {
        let code = self.code(digits)?;
        let character = char::from_u32(code).ok_or("an escape in a label is no character")?;
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MetricKind;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<History, String> {
        read(text.as_bytes(), Path::new("dump.txt"), &mut |_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_dump_is_read_with_its_labels_and_every_number() {
        let text = "# HELP up x\n# TYPE up gauge\n\
            up{job=\"a\\\"b\\\\\", instance=\"x\\ty\\u00e9\\x41\\n\"} 1 1700000000.123\n\
            up{job=\"a\\\"b\\\\\", instance=\"x\\ty\\u00e9\\x41\\n\"} NaN 1700000015.123\n\
            up 1e+06 1700000000.000\n\
            upper 3 1700000000.000\n\
            up -Inf 1700000015.000 # {trace=\"z\"} 1\n\
            {\"my.metric\", \"a.b\"=\"c\"} +Inf 5\n\
            up{job=\"a\\\"b\\\\\", instance=\"x\\ty\\u00e9\\x41\\n\"} 2 1700000030.123\n\
            # EOF\n";
        let history = parse(text).expect("valid");
        assert_eq!(history.kinds, [("up".to_string(), MetricKind::Gauge)]);
        let labels: Vec<Vec<(&str, &str)>> = history.series.iter().map(|s| s.pairs().collect()).collect();
        assert_eq!(labels[0], [(NAME, "up"), ("instance", "x\tyéA\n"), ("job", "a\"b\\")]);
        assert_eq!(labels[1], [(NAME, "up")]);
        assert_eq!(labels[2], [(NAME, "upper")]);
        assert_eq!(labels[3], [(NAME, "my.metric"), ("a.b", "c")]);
        let samples = |k: usize| -> Vec<(i64, String)> {
            history.series[k].samples.iter().map(|s| (s.timestamp, s.value.to_string())).collect()
        };
        let at = 1_700_000_000_123;
        assert_eq!(samples(0), [(at, "1".into()), (at + 15_000, "NaN".into()), (at + 30_000, "2".into())]);
        assert_eq!(samples(1), [(at - 123, "1000000".into()), (at + 14_877, "-inf".into())]);
        assert_eq!(samples(3), [(5_000, "inf".to_string())]);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        for (text, message) in [
            ("", "dump.txt:0: the file ends without `# EOF`"),
            ("up 1 2\n", "dump.txt:1: the file ends without `# EOF`"),
            ("# EOF\nup 1 2\n", "dump.txt:2: a sample after `# EOF`"),
            ("up\n", "dump.txt:1: no value"),
            ("up 1\n", "dump.txt:1: no timestamp"),
            ("up one 2\n", "dump.txt:1: the value \"one\" is not a number"),
            ("up 1 soon\n", "dump.txt:1: the timestamp \"soon\" is not a number"),
            ("up 1 1e300\n", "dump.txt:1: the timestamp \"1e300\" is out of range"),
            ("up 1 NaN\n", "dump.txt:1: the timestamp \"NaN\" is out of range"),
            ("up 1 2 3\n", "dump.txt:1: more than a value"),
            ("up{a=1} 1 2\n", "dump.txt:1: a label's value is not in double quotes"),
            ("up{a=\"1} 1 2\n", "dump.txt:1: a label's value is not in double quotes"),
            ("up{a} 1 2\n", "dump.txt:1: expected a label"),
            ("up{a=\"1\" b=\"2\"} 1 2\n", "dump.txt:1: expected `,` or `}`"),
            ("up{a=\"1\",a=\"2\"} 1 2\n", "dump.txt:1: a label name occurs twice"),
            ("{a=\"1\"} 1 2\n", "dump.txt:1: no __name__ label"),
            ("up{a=\"\\xzz\"} 1 2\n", "dump.txt:1: an escape in a label is not hexadecimal"),
            ("up{a=\"\\ud800\"} 1 2\n", "dump.txt:1: an escape in a label is no character"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(# EOF\n|up|[a-z{}=\"\\\\ ,0-9.#\u{e9}\n]{0,30}){0,6}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            values in prop::collection::vec(any::<f64>(), 1..20),
            label in "\\PC{0,12}",
        ) {
            let mut text = String::new();
            for (k, value) in values.iter().enumerate() {
                text += &format!("m{{l={label:?}}} {value:?} {k}.500\n");
            }
            // Rust escapes some marks as \u{…}, which no dump has.
            prop_assume!(!text.contains("\\u{"));
            let history = parse(&(text + "# EOF\n")).expect("valid");
            let got: Vec<u64> = history.series[0].samples.iter().map(|s| s.value.to_bits()).collect();
            let nan = |v: &f64| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
            prop_assert_eq!(got, values.iter().map(nan).collect::<Vec<_>>());
        }
    }
}
