//! Prometheus's label matchers: `=`, `!=`, `=~`, `!~`; a missing label counts as empty.

use regex::Regex;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// One matcher on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// The text it compares with.
    pub value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Compiles a matcher. Regular expressions are anchored at both ends, as in Prometheus.
    ///
    /// # Errors
    /// The regular expression's own message.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Matcher, String> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => {
                Some(Regex::new(&format!("^(?s:{value})$")).map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        Ok(Matcher { name: name.to_string(), op, value: value.to_string(), regex })
    }

    /// Whether a label's value fits; `""` for a missing label.
    pub fn matches(&self, value: &str) -> bool {
        let hit = self.regex.as_ref().map_or(self.value == value, |regex| regex.is_match(value));
        hit != matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let op = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        match plain(&self.name) {
            true => f.write_str(&self.name)?,
            false => quoted(f, &self.name)?,
        }
        f.write_str(op)?;
        quoted(f, &self.value)
    }
}

/// Whether PromQL takes a label name as it is.
fn plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Writes a string as PromQL does; Rust's own escapes are not all PromQL's.
fn quoted(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// A vector selector: all its matchers must fit.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The matchers, the one on `__name__` first when there is one.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Whether a series fits. `get` gives a label's value, `None` for a missing one.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.matchers.iter().all(|m| m.matches(get(&m.name).unwrap_or("")))
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            write!(f, "{}{matcher}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_kinds_and_missing_labels() {
        let m = |op, value| Matcher::new("code", op, value).expect("compiles");
        assert!(m(MatchOp::Equal, "200").matches("200"));
        assert!(m(MatchOp::NotEqual, "200").matches(""));
        assert!(m(MatchOp::Regex, "5..").matches("503") && !m(MatchOp::Regex, "5..").matches("x503"));
        assert!(m(MatchOp::Regex, "a|b").matches("b") && !m(MatchOp::Regex, "a|b").matches("ab"));
        assert!(m(MatchOp::NotRegex, "5..").matches(""));
        assert!(Matcher::new("code", MatchOp::Regex, "(").is_err());
    }
}
