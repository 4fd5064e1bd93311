//! The house: a module uses only modules on lower floors, or of its own room.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms of one row do not know each other; a row may use all rows before it.
/// Floors whose rooms build on each other take several rows.
const FLOORS: &[(&str, &[&str])] = &[
    ("F0", &["codec", "fail"]),
    ("F0", &["time", "labels", "stats"]),
    ("F1", &["wire"]),
    ("F2", &["calibrate"]),
    ("F2", &["detect"]),
    ("F3", &["rules"]),
    ("F3", &["record"]),
    ("F4", &["registry"]),
    ("F5", &["engine", "state"]),
    ("F6", &["outbound"]),
    ("F6", &["ingest", "emit", "history"]),
    ("F7", &["backtest", "simulate", "keeper"]),
    ("F8", &["secure"]),
    ("F8", &["telemetry"]),
    ("F8", &["api"]),
    ("F9", &["config"]),
    ("F9", &["app"]),
    ("F9", &["cli"]),
    ("F9", &["main"]),
];

fn row(room: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, rooms)| rooms.contains(&room))
}

/// Source text without comments, string contents and `#[cfg(test)]` items; line ends stay.
fn code(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") {
            3
        } else if rest.starts_with("'\\\"'") || rest.starts_with("b'\"'") {
            4
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        plain.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        rest = &rest[skip..];
    }
    without_tests(&plain)
}

fn without_tests(source: &str) -> String {
    let Some(start) = source.find("#[cfg(test)]") else { return source.to_string() };
    let (before, item) = source.split_at(start);
    let mut depth = 0;
    let mut end = item.len();
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == '}' || c == ';') {
            end = at + 1;
            break;
        }
    }
    let lines: String = item[..end].chars().filter(|c| *c == '\n').collect();
    format!("{before}{lines}{}", without_tests(&item[end..]))
}

/// Rooms named by `crate::…` paths, with the line of each; `crate::{a::X, b}` names a and b.
fn rooms_used(source: &str) -> Vec<(usize, String)> {
    let code = code(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if !whole {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let path = &code[at + "crate::".len()..];
        let name = |text: &str| {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        if let Some(group) = path.strip_prefix('{') {
            let mut depth = 0;
            let mut next = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => next = true,
                    c if next && !c.is_whitespace() => {
                        found.push((line, name(&group[i..])));
                        next = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push((line, name(path)));
        }
    }
    found
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the source tree") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn modules_use_only_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        let inside = file.strip_prefix(&src).expect("below src");
        assert!(inside.file_name().is_none_or(|name| name != "mod.rs"), "{}: no mod.rs", inside.display());
        let first = inside.iter().next().and_then(|part| part.to_str()).expect("a UTF-8 name");
        let room = first.trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let Some(own) = row(room) else {
            wrong.push(format!("{}: room {room} is on no floor", inside.display()));
            continue;
        };
        let source = std::fs::read_to_string(file).expect("UTF-8 source");
        *seen.entry(room.to_string()).or_default() += 1;
        for (line, used) in rooms_used(&source) {
            let allowed = used == room || row(&used).is_some_and(|theirs| theirs < own);
            if !allowed {
                wrong.push(format!("src/{}:{line}: {room} must not use {used}", inside.display()));
            }
        }
    }
    for (_, rooms) in FLOORS {
        for room in *rooms {
            if !seen.contains_key(*room) {
                wrong.push(format!("room {room} has no source"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_what_it_should() {
    let source = r##"
//! crate::comment::X
use crate::labels::{self, Labels};
use crate::{time::Millis, wire::{v1, v2}, stats};
fn f() { let _ = "crate::text::Y"; crate::emit::go(); let c = '"'; crate::api::x(); }
#[cfg(test)]
mod tests {
    use crate::engine::Engine;
    fn g() { if true {} }
}
macro_rules! m { () => { $crate::config::y() } }
#[cfg(test)]
use crate::cli::Z;
fn h() { crate::rules::z() }
"##;
    let names: Vec<String> = rooms_used(source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["labels", "time", "wire", "stats", "emit", "api", "rules"]);
    assert_eq!(rooms_used(source).last().expect("one").0, 14);
}
