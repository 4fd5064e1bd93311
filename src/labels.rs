//! Label sets: canonical form, persistent identity, interned storage, matchers.
//!
//! *Canonical* means sorted by name, no empty values, no ignored labels. The persistent
//! [`SeriesId`] is the xxh3-128 of the canonical bytes, so it does not depend on the order or the
//! protocol in which labels arrive.

mod intern;
mod matcher;
mod pair;

pub use intern::{Interner, Known, Labels};
pub use matcher::{MatchOp, Matcher, Selector};
pub use pair::Pair;

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";

/// xxh3-128 of a series' canonical labels; stable across versions and machines. Packed, or a record that holds
/// one would be a multiple of 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct SeriesId(pub u128);

/// What is wrong with a label set, found when a series is first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No `__name__`, or an empty one.
    #[error("no __name__ label")]
    NoName,
    /// A label name occurs twice.
    #[error("a label name occurs twice")]
    Duplicate,
    /// A label has an empty name.
    #[error("an empty label name")]
    EmptyName,
    /// A name or value is not UTF-8.
    #[error("a label is not valid UTF-8")]
    NotUtf8,
    /// More labels than the limit.
    #[error("more than {0} labels")]
    TooMany(usize),
    /// A name or value longer than the limit.
    #[error("a label name or value is longer than {0} bytes")]
    TooLong(usize),
}

/// Bounds on one label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels in a set. Default 128 (Mimir allows 30, VictoriaMetrics 40).
    pub labels: usize,
    /// Bytes in a name or value. Default 4096 (VictoriaMetrics' limit for values).
    pub bytes: usize,
}

impl Default for LabelLimits {
    fn default() -> Self {
        LabelLimits { labels: 128, bytes: 4096 }
    }
}

/// Brings borrowed labels to canonical order in place: sorted by name, empty values removed.
///
/// # Errors
/// The first thing wrong with the set; a set with an error names no series.
pub fn canonicalise<'a>(raw: &mut Vec<(&'a str, &'a str)>, limits: LabelLimits) -> Result<(), LabelError> {
    raw.sort_unstable_by(|a, b| a.0.cmp(b.0));
    if raw.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(LabelError::Duplicate);
    }
    if raw.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err(LabelError::EmptyName);
    }
    raw.retain(|(_, value)| !value.is_empty());
    if raw.len() > limits.labels {
        return Err(LabelError::TooMany(limits.labels));
    }
    if raw.iter().any(|(name, value)| name.len().max(value.len()) > limits.bytes) {
        return Err(LabelError::TooLong(limits.bytes));
    }
    if value_of(raw, NAME).is_none() {
        return Err(LabelError::NoName);
    }
    Ok(())
}

/// The value of a label in a borrowed set.
pub fn value_of<'a>(labels: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    labels.iter().find(|(have, _)| *have == name).map(|(_, value)| *value)
}

/// The persistent id of a canonical set. Layout hashed: for each label, name length (u32 LE),
/// name, value length (u32 LE), value.
pub fn series_id(canonical: &[(&str, &str)]) -> SeriesId {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for (name, value) in canonical {
        hash.update(&(name.len() as u32).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(value.len() as u32).to_le_bytes());
        hash.update(value.as_bytes());
    }
    SeriesId(hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_empty_values_do_not_change_the_id() {
        let mut a = vec![("job", "x"), (NAME, "up"), ("gone", "")];
        let mut b = vec![(NAME, "up"), ("job", "x")];
        canonicalise(&mut a, LabelLimits::default()).expect("valid");
        canonicalise(&mut b, LabelLimits::default()).expect("valid");
        assert_eq!(a, b);
        assert_eq!(series_id(&a), series_id(&b));
    }

    #[test]
    fn persisted_ids_never_change() {
        assert_eq!(series_id(&[(NAME, "up")]), SeriesId(0x03fa_e6ee_53d1_4ac5_b6ea_fe0d_8414_9a43));
    }

    #[test]
    fn every_defect_is_named() {
        let limits = LabelLimits { labels: 2, bytes: 8 };
        for (labels, error) in [
            (vec![("a", "1")], LabelError::NoName),
            (vec![(NAME, "")], LabelError::NoName),
            (vec![(NAME, "m"), ("a", "1"), ("a", "2")], LabelError::Duplicate),
            (vec![(NAME, "m"), ("", "1")], LabelError::EmptyName),
            (vec![(NAME, "m"), ("a", "1"), ("b", "1")], LabelError::TooMany(2)),
            (vec![(NAME, "m"), ("a", "123456789")], LabelError::TooLong(8)),
        ] {
            assert_eq!(canonicalise(&mut labels.clone(), limits), Err(error), "{labels:?}");
        }
    }
}
