//! From a tree back to text: JSON, which is YAML too and has no comments, aliases or places.

use super::tree::{Kind, Raw};
use std::fmt::Write as _;

/// Appends a node. Single values are all quoted: fields know what they want.
pub(super) fn json(raw: &Raw, to: &mut String) {
    match &raw.kind {
        Kind::Null => to.push_str("null"),
        Kind::Scalar(text) => quoted(text, to),
        Kind::List(items) => {
            to.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    to.push(',');
                }
                json(item, to);
            }
            to.push(']');
        }
        Kind::Map(fields) => object(fields.iter().map(|(key, value)| (key.name.as_str(), value)), to),
    }
}

/// Appends fields.
pub(super) fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a Raw)>, to: &mut String) {
    to.push('{');
    for (at, (name, value)) in fields.enumerate() {
        if at > 0 {
            to.push(',');
        }
        quoted(name, to);
        to.push(':');
        json(value, to);
    }
    to.push('}');
}

fn quoted(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\t' => to.push_str("\\t"),
            // What YAML takes for the end of a line, for a mark of its own or for nothing at all.
            '\0'..' '
            | '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                // Writing to a text cannot fail.
                let _ = write!(to, "\\u{:04x}", c as u32);
            }
            c => to.push(c),
        }
    }
    to.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::tree::{MAX_BYTES, parse};
    use super::*;

    fn text(raw: &Raw) -> String {
        let mut text = String::new();
        json(raw, &mut text);
        text
    }

    #[test]
    fn a_tree_is_written_as_json() {
        let yaml =
            "# said\na: &x [1, ~, 'two\n\n  lines', \"\\x07é\\u2028\"]\nb: {c: *x, 'q\"': null, e: ''}\n";
        let raw = parse(yaml, MAX_BYTES).expect("valid").expect("a tree");
        let a = r#"["1",null,"two\nlines","\u0007é\u2028"]"#;
        assert_eq!(text(&raw), format!(r#"{{"a":{a},"b":{{"c":{a},"q\"":null,"e":""}}}}"#));
        let read: serde_json::Value = serde_json::from_str(&text(&raw)).expect("JSON");
        assert_eq!(read["a"][3], "\u{7}é\u{2028}");
    }

    proptest::proptest! {
        #[test]
        fn what_was_written_is_read_as_the_same(words in proptest::collection::vec(proptest::prelude::any::<String>(), 1..6)) {
            let items: Vec<String> = words.iter().map(|word| {
                let mut item = String::new();
                quoted(word, &mut item);
                item
            }).collect();
            let raw = parse(&format!("[{}]", items.join(",")), MAX_BYTES).expect("valid").expect("a tree");
            let Kind::List(read) = &raw.kind else { panic!("a list") };
            for (word, raw) in words.iter().zip(read) {
                assert!(matches!(&raw.kind, Kind::Scalar(text) if text == word), "{word:?}: {raw:?}");
            }
            let again = parse(&text(&raw), MAX_BYTES).expect("valid").expect("a tree");
            assert_eq!(text(&again), text(&raw));
        }
    }
}
