//! One label, short ones in one piece.

use arrayvec::ArrayString;

/// Bytes of a name and its value that are kept where their lengths are: a pair is then 88 bytes with its counts,
/// which an allocator makes 96.
const SHORT: usize = 52;

/// Most labels are short. Those that are not wait for memory twice when they are read.
#[derive(Debug, PartialEq, Eq)]
enum Text {
    Short(ArrayString<SHORT>),
    Long(Box<str>),
}

/// One label: a name and its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    split: u32,
    text: Text,
}

impl Pair {
    /// A pair outside any interner (tests, fixed labels).
    pub fn new(name: &str, value: &str) -> Pair {
        let mut short = ArrayString::new();
        let text = match short.try_push_str(name).and_then(|()| short.try_push_str(value)) {
            Ok(()) => Text::Short(short),
            Err(_) => Text::Long([name, value].concat().into()),
        };
        Pair { split: name.len() as u32, text }
    }
    #[inline]
    fn text(&self) -> &str {
        match &self.text {
            Text::Short(text) => text,
            Text::Long(text) => text,
        }
    }
    /// The label's name.
    #[inline]
    pub fn name(&self) -> &str {
        &self.text()[..self.split as usize]
    }
    /// The label's value.
    #[inline]
    pub fn value(&self) -> &str {
        &self.text()[self.split as usize..]
    }
    /// Bytes on the heap beside the pair's own.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.text {
            Text::Short(_) => 0,
            Text::Long(text) => text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_any_length_are_what_was_put_in() {
        assert_eq!(size_of::<Pair>(), 72);
        for length in [0, 1, 48, 49, 50, 51, 4096] {
            let value = "ä".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
            let pair = Pair::new("pod", &value);
            assert_eq!((pair.name(), pair.value()), ("pod", value.as_str()));
            assert_eq!(pair.heap_bytes(), if length > 49 { length + 3 } else { 0 });
            assert!(pair == Pair::new("pod", &value) && pair != Pair::new("po", &format!("d{value}")));
        }
    }
}
