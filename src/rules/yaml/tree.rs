//! From text to a tree that knows where each node stands.
//!
//! Built from the parser's events, not from a ready-made tree: so that fields given twice are seen,
//! and that nesting and the expansion of aliases are bounded before memory is spent on them.

use super::{Pos, Problem};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Bytes of a configuration file.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 64;

/// A node and where it starts.
#[derive(Clone, Debug)]
pub struct Raw {
    /// First character.
    pub pos: Pos,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar's text, whatever its type: fields know what they want.
    Scalar(String),
    /// A list.
    List(Vec<Raw>),
    /// Fields in the order of the file, those given twice included.
    Map(Vec<(Key, Raw)>),
}

/// A field's name and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    /// First character.
    pub pos: Pos,
    /// The name.
    pub name: String,
}

impl Raw {
    /// Nodes in all, and levels.
    fn size(&self) -> (usize, usize) {
        let children: Vec<_> = match &self.kind {
            Kind::Null | Kind::Scalar(_) => return (1, 1),
            Kind::List(items) => items.iter().map(Raw::size).collect(),
            Kind::Map(fields) => fields.iter().map(|(_, value)| value.size()).collect(),
        };
        let nodes = children.iter().map(|(nodes, _)| nodes).sum::<usize>();
        (nodes + 1, children.iter().map(|(_, levels)| *levels).max().unwrap_or(0) + 1)
    }
}

fn pos(marker: Marker) -> Pos {
    // The parser counts lines from 1 and columns from 0.
    Pos { line: marker.line(), column: marker.col() + 1 }
}

/// A list or map that is not closed yet.
struct Open {
    pos: Pos,
    anchor: usize,
    kind: Kind,
    /// In a map: the name whose value comes next.
    key: Option<Key>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Raw>,
    nodes: usize,
    root: Option<Raw>,
}

/// Reads one document of at most `limit` bytes; `None` where it is empty.
///
/// # Errors
/// The first thing that is not YAML, or is larger, deeper or stranger than a configuration needs.
pub fn parse(text: &str, limit: usize) -> Result<Option<Raw>, Problem> {
    if text.len() > limit {
        return Err(Problem::new(Pos::NONE, format!("the file is larger than {limit} bytes")));
    }
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| {
            Problem::new(pos(*error.marker()), format!("not valid YAML: {}", error.info()))
        })?;
        let at = pos(span.start);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(Problem::new(at, "a second document starts here; a file holds one"));
            }
        }
        builder.take(event, at).map_err(|message| Problem::new(at, message))?;
    }
    Ok(builder.root)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Pos) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_ref())?;
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar(text.into_owned()) };
                self.count(1, 1)?;
                self.close(Raw { pos: at, kind }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, tag, Kind::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.open(at, anchor, tag, Kind::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.close(Raw { pos: open.pos, kind: open.kind }, open.anchor),
                None => Err("not valid YAML: nothing to close".into()),
            },
            Event::Alias(anchor) => {
                let raw =
                    self.anchors.get(&anchor).ok_or("an alias to something that is not complete yet")?;
                let (nodes, levels) = raw.size();
                // Before the copy: aliases of aliases grow exponentially.
                let copy = |builder: &Builder| builder.anchors.get(&anchor).cloned();
                self.count(nodes, levels)?;
                copy(self).map_or(Ok(()), |raw| self.close(raw, 0))
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, levels: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values, aliases counted each time they are used"));
        }
        if self.open.len() + levels > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        Ok(())
    }

    fn open(&mut self, pos: Pos, anchor: usize, tag: Option<Cow<'_, Tag>>, kind: Kind) -> Result<(), String> {
        check_tag(tag.as_ref())?;
        self.count(1, 1)?;
        self.open.push(Open { pos, anchor, kind, key: None });
        Ok(())
    }

    /// A node is complete: it goes where it belongs.
    fn close(&mut self, raw: Raw, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, raw.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(raw);
            return Ok(());
        };
        match (&mut parent.kind, parent.key.take()) {
            (Kind::List(items), _) => items.push(raw),
            (Kind::Map(fields), Some(key)) => fields.push((key, raw)),
            (Kind::Map(_), None) => match raw.kind {
                Kind::Scalar(name) => parent.key = Some(Key { pos: raw.pos, name }),
                _ => return Err("expected a field's name".into()),
            },
            (Kind::Null | Kind::Scalar(_), _) => return Err("not valid YAML: a scalar holds nothing".into()),
        }
        Ok(())
    }
}

fn check_tag(tag: Option<&Cow<'_, Tag>>) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() || tag.handle.is_empty() && tag.suffix == "!") => {
            Err(format!("tags such as {tag} have no meaning here; remove it"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Raw>, Problem> {
        parse(text, MAX_BYTES)
    }

    #[test]
    fn bombs_are_refused_before_they_grow() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let items = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{items}]\n");
        }
        assert!(parsed(&text).expect_err("too many").message.contains("100000 values"));
        assert!(parsed(&"[".repeat(200)).expect_err("too deep").message.contains("64 levels"));
        assert!(parsed(&"- ".repeat(300)).expect_err("too deep").message.contains("64 levels"));
        assert!(parsed(&" ".repeat(MAX_BYTES + 1)).expect_err("too large").message.contains("larger"));
    }

    #[test]
    fn syntax_errors_say_where() {
        let problem = parsed("a: 1\nb: [1, 2\nc: 3\n").expect_err("a list that is not closed");
        assert!(problem.pos.line >= 2 && problem.message.starts_with("not valid YAML"), "{problem:?}");
        assert_eq!(parsed("a: 1\n---\nb: 2\n").expect_err("two").pos, Pos { line: 2, column: 1 });
        assert_eq!(parsed("a: !secret x\n").expect_err("a tag").pos.line, 1);
        assert!(parsed("a: *b\n").is_err());
        assert!(parsed("? [a]\n: b\n").is_err());
    }
}
