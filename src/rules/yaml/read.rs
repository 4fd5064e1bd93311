//! Questions to a node.

use super::tree::{Key, Kind, Raw};
use super::{Pos, Report, write};
use crate::time::Span;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// A value in the file, with its path.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    raw: &'a Raw,
    pos: Pos,
    path: String,
    report: &'a Report,
}

impl<'a> Node<'a> {
    pub(super) fn root(raw: &'a Raw, report: &'a Report) -> Node<'a> {
        Node { raw, pos: raw.pos, path: String::new(), report }
    }

    /// Reports that something is wrong here.
    pub fn error(&self, message: impl Into<String>) {
        self.report.add(&self.report.problems, self.pos, &self.path, message.into());
    }

    /// Remarks on something valid here.
    pub fn note(&self, message: impl Into<String>) {
        self.report.add(&self.report.notes, self.pos, &self.path, message.into());
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.raw.kind, Kind::List(_))
    }

    /// Whether it is a single value, neither list nor fields.
    pub fn is_scalar(&self) -> bool {
        matches!(self.raw.kind, Kind::Scalar(_))
    }

    /// The text of a single value.
    pub fn text(&self) -> Option<&'a str> {
        match &self.raw.kind {
            Kind::Scalar(text) => return Some(text),
            Kind::Null => self.error("expected a value, found nothing"),
            Kind::List(_) => self.error("expected a single value, found a list"),
            Kind::Map(_) => self.error("expected a single value, found fields"),
        }
        None
    }

    /// What `parse` makes of the text.
    pub fn parse<T, E: Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(self.text()?).map_err(|error| self.error(error.to_string())).ok()
    }

    /// A text that is not empty.
    pub fn string(&self) -> Option<String> {
        self.parse(|text| match text.is_empty() {
            true => Err("expected a text that is not empty"),
            false => Ok(text.to_string()),
        })
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        self.parse(|text| match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err(format!("expected true or false, found {text:?}")),
        })
    }

    /// A whole number in a range.
    pub fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        self.parse(|text| match text.replace('_', "").parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ if *range.end() == u64::MAX => {
                Err(format!("expected a whole number of at least {}, found {text:?}", range.start()))
            }
            _ => Err(format!(
                "expected a whole number from {} to {}, found {text:?}",
                range.start(),
                range.end()
            )),
        })
    }

    /// [`Node::whole`] as a size.
    pub fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let (least, most) = (*range.start() as u64, *range.end() as u64);
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        self.parse(|text| {
            let found = units.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, *power)));
            let (number, power) = found.unwrap_or((text, 0));
            let size = number.trim_end().parse::<u64>().ok().and_then(|n| n.checked_mul(1 << power));
            match size.filter(|size| (least..=most).contains(size)).map(usize::try_from) {
                Some(Ok(size)) => Ok(size),
                _ => Err(format!("expected a whole number from {least} to {most}, found {text:?}")),
            }
        })
    }

    /// A finite number for which `fits` holds; `expected` says which.
    pub fn number(&self, expected: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
        self.parse(|text| match text.parse::<f64>() {
            Ok(number) if number.is_finite() && fits(number) => Ok(number),
            _ => Err(format!("expected {expected}, found {text:?}")),
        })
    }

    /// A duration in a range.
    pub fn duration(&self, range: RangeInclusive<Span>) -> Option<Span> {
        self.parse(|text| {
            let span = Span::parse(text).map_err(|error| format!("{error}, found {text:?}"))?;
            match range.contains(&span) {
                true => Ok(span),
                false => Err(format!(
                    "expected a duration from {} to {}, found {text}",
                    range.start(),
                    range.end()
                )),
            }
        })
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        self.parse(|text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let hint = suggest(text, &list).map(|word| format!("; did you mean {word:?}?"));
                Err(format!("expected {}, found {text:?}{}", either(&list), hint.unwrap_or_default()))
            }
        })
    }

    /// The items of a list.
    pub fn list(&self) -> Option<Vec<Node<'a>>> {
        match &self.raw.kind {
            Kind::List(items) => Some(self.items(items)),
            _ => {
                self.error("expected a list, such as [a, b]");
                None
            }
        }
    }

    /// The items of a list, or the one value that stands in its place.
    pub fn one_or_many(&self) -> Option<Vec<Node<'a>>> {
        if self.is_scalar() { Some(vec![self.clone()]) } else { self.list() }
    }

    /// A list of texts, none of them empty.
    pub fn strings(&self) -> Option<Vec<String>> {
        // All are asked, so that all are reported.
        let texts: Vec<Option<String>> = self.list()?.iter().map(Node::string).collect();
        texts.into_iter().collect()
    }

    fn items(&self, items: &'a [Raw]) -> Vec<Node<'a>> {
        let node =
            |(i, raw)| Node { raw, pos: raw.pos, path: format!("{}[{i}]", self.path), report: self.report };
        items.iter().enumerate().map(node).collect()
    }

    /// The fields.
    pub fn map(&self) -> Option<Map<'a>> {
        let Kind::Map(fields) = &self.raw.kind else {
            self.error(match &self.raw.kind {
                Kind::List(_) => "expected fields (`name: value`), found a list",
                _ => "expected fields (`name: value`)",
            });
            return None;
        };
        let map = Map { node: self.clone(), fields, asked: Vec::new() };
        let mut first = HashMap::with_capacity(fields.len());
        for (key, _) in fields {
            match first.entry(key.name.as_str()) {
                Entry::Vacant(entry) => {
                    entry.insert(key.pos.line);
                }
                Entry::Occupied(entry) => {
                    let line = entry.get();
                    map.error_at(key, format!("given twice, first on line {line}; remove one of them"));
                }
            }
        }
        Some(map)
    }

    /// Fields whose names the user chooses: the name as a place for errors, the name, the value.
    pub fn pairs(&self) -> Option<Vec<(Node<'a>, String, Node<'a>)>> {
        let map = self.map()?;
        let pair = |(key, raw): &'a (Key, Raw)| {
            let path = map.path(&key.name);
            let node = Node { raw, pos: raw.pos, path, report: self.report };
            (Node { pos: key.pos, ..node.clone() }, key.name.clone(), node)
        };
        Some(map.fields.iter().map(pair).collect())
    }
}

/// Fields with fixed names.
#[derive(Debug)]
pub struct Map<'a> {
    /// The map as a node: for errors that concern it as a whole.
    pub node: Node<'a>,
    fields: &'a [(Key, Raw)],
    asked: Vec<&'static str>,
}

impl<'a> Map<'a> {
    fn path(&self, name: &str) -> String {
        if self.node.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.node.path) }
    }

    fn error_at(&self, key: &Key, message: String) {
        let report = self.node.report;
        report.add(&report.problems, key.pos, &self.path(&key.name), message);
    }

    /// Remembers a known name; several readers may ask for the same one.
    fn ask(&mut self, name: &'static str) {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
    }

    /// A field; `None` where it is absent or null.
    pub fn take(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.ask(name);
        let (_, raw) = self.fields.iter().find(|(key, _)| key.name == name)?;
        match raw.kind {
            Kind::Null => None,
            _ => Some(Node { raw, pos: raw.pos, path: self.path(name), report: self.node.report }),
        }
    }

    /// A field that must be there; `what` says what to write.
    pub fn require(&mut self, name: &'static str, what: &str) -> Option<Node<'a>> {
        let node = self.take(name);
        if node.is_none() {
            self.node.error(format!("`{name}` is missing: {what}"));
        }
        node
    }

    /// A known name that this version does not take: an error that says why.
    pub fn refuse(&mut self, name: &'static str, why: &str) {
        self.ask(name);
        if let Some((key, _)) = self.fields.iter().find(|(key, _)| key.name == name) {
            self.error_at(key, why.to_string());
        }
    }

    /// JSON of the fields for which `keep` has a name: a field whole, or of its own fields those named.
    pub fn json(&self, keep: &[(&str, &[&str])]) -> String {
        let mut text = String::new();
        let mut kept = Vec::new();
        for (key, raw) in self.fields {
            let Some((_, fields)) = keep.iter().find(|(name, _)| *name == key.name) else { continue };
            let mut raw = raw.clone();
            if let Kind::Map(inner) = &mut raw.kind
                && !fields.is_empty()
            {
                inner.retain(|(key, _)| fields.contains(&key.name.as_str()));
            }
            kept.push((key.name.as_str(), raw));
        }
        write::object(kept.iter().map(|(name, raw)| (*name, raw)), &mut text);
        text
    }

    /// Reports the fields nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.fields {
            if self.asked.contains(&key.name.as_str()) {
                continue;
            }
            if key.name == "<<" {
                self.error_at(
                    key,
                    "merge keys are not supported; use `defaults` or repeat the fields".into(),
                );
                continue;
            }
            let message = match suggest(&key.name, &self.asked) {
                Some(known) => format!("unknown field; did you mean `{known}`?"),
                None => format!("unknown field; expected {}", either(&self.asked)),
            };
            self.error_at(key, message);
        }
    }
}

/// "a, b or c"
fn either(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_string(),
        [one] => one.to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The known word a mistyped one is probably meant to be.
fn suggest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let near = |word: &&'w str| (distance(&text.to_lowercase(), word), *word);
    let (distance, word) = words.iter().map(near).min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.len() / 4).then_some(word)
}

/// Insertions, deletions and replacements from one word to the other; words much longer than any of
/// ours are far from all of them.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(x != *y)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn mistyped_words_find_their_meaning() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
        let words = ["false_alarms", "direction", "emit", "emit_when"];
        assert_eq!(suggest("false_alarm", &words), Some("false_alarms"));
        assert_eq!(suggest("Direction", &words), Some("direction"));
        assert_eq!(suggest("emitwhen", &words), Some("emit_when"));
        assert_eq!(suggest("zebra", &words), None);
    }

    #[test]
    fn all_is_reported_at_once_in_the_order_of_the_file() {
        let text = "b: 1\na: x\nlist:\n  - 1\n  - two\nb: 2\nnoise: {deep: 1}\nspan: 5\n";
        let problems = read("f.yaml", text, |map| {
            map.take("span").and_then(|node| node.duration(Span::SECOND..=Span::HOUR));
            map.take("a").and_then(|node| node.whole(1..=9));
            for item in map.take("list").and_then(|node| node.list()).unwrap_or_default() {
                item.number("a number above 0", |x| x > 0.0);
            }
            map.take("b").and_then(|node| node.bool());
            map.take("a");
            map.require("must", "write it");
            Some(())
        })
        .expect_err("many problems");
        let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "f.yaml:1:1: `must` is missing: write it",
                "f.yaml:1:4: b: expected true or false, found \"1\"",
                "f.yaml:2:4: a: expected a whole number from 1 to 9, found \"x\"",
                "f.yaml:5:5: list[1]: expected a number above 0, found \"two\"",
                "f.yaml:6:1: b: given twice, first on line 1; remove one of them",
                "f.yaml:7:1: noise: unknown field; expected span, a, list, b or must",
                "f.yaml:8:7: span: expected a duration such as 30s, 5m, 1h30m or 7d, found \"5\"",
            ]
        );
    }
}
