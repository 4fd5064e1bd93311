//! Reading a YAML file so that everything wrong with it is said at once, each with its place.
//!
//! A [`Node`] is asked for what a field should hold; what it does not hold becomes a [`Problem`] in the
//! shared [`Report`] and the question gives `None`. [`Map::finish`] complains of fields nobody asked for.

mod read;
mod tree;
mod write;

pub use read::{Map, Node};
pub use tree::MAX_BYTES;

use std::cell::RefCell;
use std::fmt;

/// A place in the file, both counted from 1; [`Pos::NONE`] for the file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Pos {
    /// No place in particular.
    pub const NONE: Pos = Pos { line: 0, column: 0 };
}

/// Something wrong, or worth a remark, at a place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where.
    pub pos: Pos,
    /// The field, as in `rules[2].min_change.relative`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A remark on something valid: what has no effect yet, or is not what it seems.
pub type Note = Problem;

impl Problem {
    fn new(pos: Pos, message: impl Into<String>) -> Problem {
        Problem { file: String::new(), pos, path: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.pos != Pos::NONE {
            write!(f, ":{}:{}", self.pos.line, self.pos.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything wrong with a file, in its order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A file that cannot be read at all.
    pub fn unreadable(file: &str, message: impl Into<String>) -> Problems {
        Problems(vec![Problem { file: file.to_string(), ..Problem::new(Pos::NONE, message) }])
    }
}

/// What was found while reading; shared by all nodes of a file.
#[derive(Debug)]
pub struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
    notes: RefCell<Vec<Note>>,
}

impl Report {
    fn add(&self, to: &RefCell<Vec<Problem>>, pos: Pos, path: &str, message: String) {
        to.borrow_mut().push(Problem { file: self.file.clone(), pos, path: path.to_string(), message });
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }
}

fn in_order(mut list: Vec<Problem>) -> Vec<Problem> {
    list.sort_by_key(|problem| problem.pos);
    // A node that two readers look at (`state`) is reported once.
    list.dedup();
    list
}

/// Reads a file with `read`, which gets the fields of its top level and gives `None` where something
/// it cannot do without is wrong (and reported).
///
/// # Errors
/// Everything that was reported.
pub fn read<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&mut Map<'_>) -> Option<T>,
) -> Result<(T, Vec<Note>), Problems> {
    read_within(MAX_BYTES, file, text, read)
}

/// [`read`] of a text of at most `limit` bytes.
///
/// # Errors
/// Everything that was reported.
pub fn read_within<T>(
    limit: usize,
    file: &str,
    text: &str,
    read: impl FnOnce(&mut Map<'_>) -> Option<T>,
) -> Result<(T, Vec<Note>), Problems> {
    let report = Report { file: file.to_string(), problems: RefCell::default(), notes: RefCell::default() };
    let fail = |problem: Problem| Problems(vec![Problem { file: file.to_string(), ..problem }]);
    let empty = || tree::Raw { pos: Pos { line: 1, column: 1 }, kind: tree::Kind::Map(Vec::new()) };
    let raw = match tree::parse(text, limit).map_err(fail)? {
        Some(tree::Raw { kind: tree::Kind::Null, .. }) | None => empty(),
        Some(raw) => raw,
    };
    let value = Node::root(&raw, &report).map().and_then(|mut map| {
        let value = read(&mut map);
        map.finish();
        value
    });
    let problems = in_order(report.problems.into_inner());
    match value {
        Some(value) if problems.is_empty() => Ok((value, in_order(report.notes.into_inner()))),
        _ if problems.is_empty() => Err(Problems::unreadable(file, "the file cannot be used")),
        _ => Err(Problems(problems)),
    }
}
