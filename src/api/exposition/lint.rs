//! A strict reader of the classic text format, which finds what `promtool check metrics` does and more.

use std::collections::{BTreeMap, HashSet};

struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    endless: bool,
}

/// Everything wrong with a page; empty where nothing is.
pub(crate) fn complaints(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.is_empty() && !text.ends_with('\n') {
        found.push("the last line has no newline".to_string());
    }
    let (mut helps, mut families, mut samples) = (BTreeMap::new(), Vec::<Family>::new(), HashSet::new());
    for (number, line) in text.lines().enumerate() {
        let mut wrong = |what: &str| found.push(format!("line {}: {what}: {line}", number + 1));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
            if words.trim().is_empty() || helps.insert(name, words).is_some() {
                wrong("help that is empty or given twice");
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            if !["counter", "gauge", "histogram", "summary"].contains(&kind) {
                wrong("no type");
            }
            if (kind == "counter") != name.ends_with("_total") {
                wrong("_total is for counters");
            }
            let reserved = ["_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
            if reserved || !is_name(name) || name.ends_with("_ms") || name.contains("milliseconds") {
                wrong("a name that is not fit for a metric");
            }
            if families.iter().any(|family| family.name == name) {
                wrong("a type given twice");
            }
            if !helps.contains_key(name) {
                wrong("no help text");
            }
            families.push(Family { name, kind, endless: false });
        } else if line.starts_with('#') {
            wrong("neither # HELP nor # TYPE");
        } else {
            match sample(line) {
                None => wrong("not a sample"),
                Some((name, labels)) => {
                    let family = of(name, &mut families);
                    match family {
                        None => wrong("a sample without # TYPE, or away from its family"),
                        Some(family) => {
                            family.endless |= labels.contains(&("le", "+Inf"));
                        }
                    }
                    let mut labels = labels;
                    labels.sort_unstable();
                    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                        wrong("a label given twice");
                    }
                    if !samples.insert((name, labels)) {
                        wrong("a sample given twice");
                    }
                }
            }
        }
    }
    for family in &families {
        let any = samples.iter().any(|(name, _)| name.starts_with(family.name));
        if family.kind == "histogram" && any && !family.endless {
            found.push(format!("{}: no bucket +Inf", family.name));
        }
    }
    found
}

/// The newest family, where the sample belongs to it.
fn of<'f, 'a>(name: &str, families: &'f mut [Family<'a>]) -> Option<&'f mut Family<'a>> {
    let family = families.last_mut()?;
    let rest = name.strip_prefix(family.name)?;
    let fits = match family.kind {
        "histogram" => ["_sum", "_count", "_bucket"].contains(&rest),
        "summary" => ["", "_sum", "_count"].contains(&rest),
        _ => rest.is_empty(),
    };
    fits.then_some(family)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Name and labels of `name{label="value",…} value [timestamp]`; `None` where it is anything else.
fn sample(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, tail) = rest.split_once("=\"")?;
            let bytes = tail.as_bytes();
            let mut at = 0;
            while *bytes.get(at)? != b'"' {
                at +=
                    if bytes[at] == b'\\' { b"\\\"n".contains(bytes.get(at + 1)?).then_some(2)? } else { 1 };
            }
            if !is_name(label) || label.contains(':') {
                return None;
            }
            labels.push((label, &tail[..at]));
            rest = &tail[at + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let mut fields = rest.strip_prefix(' ')?.split(' ');
    let value = fields.next()?;
    let number = ["+Inf", "-Inf", "NaN"].contains(&value) || value.parse::<f64>().is_ok_and(f64::is_finite);
    let timed = fields.next().is_none_or(|at| at.parse::<i64>().is_ok());
    (is_name(name) && number && timed && fields.next().is_none()).then_some((name, labels))
}
