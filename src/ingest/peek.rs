//! A look at the beginning of a body, without decoding it: the labels of its first series, and
//! whether it is in the protocol it claims.

use crate::wire::Version;

/// A protobuf field: its number and, for length-delimited ones, its bytes.
struct Field<'a> {
    number: u64,
    bytes: Option<&'a [u8]>,
    varint: u64,
}

fn varint(at: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = at.split_first()?;
        *at = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(at: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = at.split_at_checked(len)?;
    *at = rest;
    Some(head)
}

fn field<'a>(at: &mut &'a [u8]) -> Option<Field<'a>> {
    let key = varint(at)?;
    let (mut bytes, mut value) = (None, 0);
    match key & 7 {
        0 => value = varint(at)?,
        1 => drop(take(at, 8)?),
        2 => {
            let len = usize::try_from(varint(at)?).ok()?;
            bytes = Some(take(at, len)?);
        }
        5 => drop(take(at, 4)?),
        _ => return None,
    }
    Some(Field { number: key >> 3, bytes, varint: value })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The value of each of `names` among the labels of the body's first series; `None` where it has no
/// such label or is broken (which the decoder will say).
pub(super) fn first_series<'a, const N: usize>(
    version: Version,
    body: &'a [u8],
    names: [&str; N],
) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    let mut each = |name: &str, value: &'a str| {
        if let Some(i) = names.iter().position(|want| *want == name) {
            found[i] = Some(value);
        }
    };
    match version {
        Version::V1 => walk_v1(body, &mut each),
        Version::V2 => walk_v2(body, &mut each),
    };
    found
}

fn walk_v1<'a>(mut at: &'a [u8], each: &mut impl FnMut(&str, &'a str)) -> Option<()> {
    let mut series = loop {
        let field = field(&mut at)?;
        if let (1, Some(bytes)) = (field.number, field.bytes) {
            break bytes;
        }
    };
    while !series.is_empty() {
        let Field { number: 1, bytes: Some(mut label), .. } = field(&mut series)? else { continue };
        let (mut name, mut value) = ("", "");
        while !label.is_empty() {
            match field(&mut label)? {
                Field { number: 1, bytes: Some(bytes), .. } => name = text(bytes)?,
                Field { number: 2, bytes: Some(bytes), .. } => value = text(bytes)?,
                _ => {}
            }
        }
        each(name, value);
    }
    Some(())
}

fn walk_v2<'a>(mut at: &'a [u8], each: &mut impl FnMut(&str, &'a str)) -> Option<()> {
    let mut symbols: Vec<&[u8]> = Vec::new();
    let mut series = None;
    // Protobuf lets symbols come after the series; senders write them first, and only such bodies
    // are looked into further than the first series.
    while !at.is_empty() {
        match field(&mut at)? {
            Field { number: 4, bytes: Some(bytes), .. } => symbols.push(bytes),
            Field { number: 5, bytes: Some(bytes), .. } if series.is_none() => {
                series = Some(bytes);
                if !symbols.is_empty() {
                    break;
                }
            }
            _ => {}
        }
    }
    let mut series = series?;
    let mut refs = Vec::new();
    while !series.is_empty() {
        match field(&mut series)? {
            Field { number: 1, bytes: Some(mut packed), .. } => {
                while !packed.is_empty() {
                    refs.push(varint(&mut packed)?);
                }
            }
            Field { number: 1, bytes: None, varint } => refs.push(varint),
            _ => {}
        }
    }
    let symbol = |i: u64| symbols.get(usize::try_from(i).ok()?).copied().and_then(text);
    for pair in refs.chunks_exact(2) {
        if let (Some(name), Some(value)) = (symbol(pair[0]), symbol(pair[1])) {
            each(name, value);
        }
    }
    Some(())
}

/// Whether a body begins like the other protocol. Their top-level fields are disjoint, so such a
/// body would decode to an empty request and its samples would be lost without a word.
pub(super) fn is_other_protocol(version: Version, body: &[u8]) -> bool {
    let other: [u8; 2] = match version {
        Version::V1 => [0x22, 0x2a],
        Version::V2 => [0x0a, 0x1a],
    };
    body.first().is_some_and(|tag| other.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delimited(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn v1() -> Vec<u8> {
        let label = |n: &str, v: &str| {
            delimited(1, &[delimited(1, n.as_bytes()), delimited(2, v.as_bytes())].concat())
        };
        let series = [label("cluster", "c"), label("__replica__", "a")].concat();
        [delimited(3, b""), delimited(1, &series), delimited(1, &label("cluster", "second"))].concat()
    }

    fn v2() -> Vec<u8> {
        let symbols: Vec<u8> = ["", "cluster", "c", "__replica__", "a"]
            .iter()
            .flat_map(|s| delimited(4, s.as_bytes()))
            .collect();
        [symbols, delimited(5, &delimited(1, &[1, 2, 3, 4])), delimited(5, &delimited(1, &[1, 4]))].concat()
    }

    #[test]
    fn only_the_first_series_is_read() {
        for (version, body) in [(Version::V1, v1()), (Version::V2, v2())] {
            let [cluster, replica, none] = first_series(version, &body, ["cluster", "__replica__", "x"]);
            assert_eq!((cluster, replica, none), (Some("c"), Some("a"), None), "{version:?}");
        }
    }

    #[test]
    fn broken_bodies_never_panic() {
        for (version, body) in [(Version::V1, v1()), (Version::V2, v2())] {
            for cut in 0..body.len() {
                let _ = first_series(version, &body[..cut], ["cluster"]);
                let mut flipped = body.clone();
                flipped[cut] ^= 0xff;
                let _ = first_series(version, &flipped, ["cluster"]);
            }
        }
    }

    #[test]
    fn the_wrong_protocol_is_noticed() {
        assert!(is_other_protocol(Version::V1, &v2()) && !is_other_protocol(Version::V2, &v2()));
        assert!(is_other_protocol(Version::V2, &v1()) && !is_other_protocol(Version::V1, &v1()));
        assert!(!is_other_protocol(Version::V1, b""));
    }
}
