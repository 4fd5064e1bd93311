//! A look at the beginning of a body, without decoding it: the labels of its first series, and
//! whether it is in the protocol it claims.

use crate::time::Millis;
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

/// First and last time of the samples and histograms of the body's first and last series: of a body
/// that is cut from a stream, nearly those of all of it. `None` where it has none or is broken.
pub(super) fn times(version: Version, body: &[u8]) -> Option<(Millis, Millis)> {
    let (mut first, mut last, mut at) = (None, None, body);
    while !at.is_empty() {
        let field = field(&mut at)?;
        if let (true, Some(bytes)) = (field.number == series_field(version), field.bytes) {
            first = first.or(Some(bytes));
            last = Some(bytes);
        }
    }
    let mut range = None;
    let mut each = |at: i64| {
        let (low, high) = range.get_or_insert((at, at));
        (*low, *high) = (at.min(*low), at.max(*high));
    };
    series_times(version, first?, &mut each)?;
    series_times(version, last?, &mut each)?;
    range.map(|(low, high)| (Millis(low), Millis(high)))
}

/// The first time after `seen` of all the body's samples and histograms. `None` where there is none.
pub(super) fn first_after(version: Version, body: &[u8], seen: Millis) -> Option<Millis> {
    let (mut found, mut at) = (i64::MAX, body);
    while !at.is_empty() {
        let field = field(&mut at)?;
        if let (true, Some(bytes)) = (field.number == series_field(version), field.bytes) {
            series_times(version, bytes, &mut |at| {
                if at > seen.0 {
                    found = found.min(at);
                }
            })?;
        }
    }
    (found < i64::MAX).then_some(Millis(found))
}

fn series_field(version: Version) -> u64 {
    match version {
        Version::V1 => 1,
        Version::V2 => 5,
    }
}

/// Times of the samples (field 2 in both protocols) and histograms of a series.
fn series_times(version: Version, mut series: &[u8], each: &mut impl FnMut(i64)) -> Option<()> {
    let histograms = match version {
        Version::V1 => 4,
        Version::V2 => 3,
    };
    while !series.is_empty() {
        let Field { number, bytes: Some(mut message), .. } = field(&mut series)? else { continue };
        let time = match number {
            2 => 2,
            _ if number == histograms => 15,
            _ => continue,
        };
        let mut at = 0;
        while !message.is_empty() {
            let field = field(&mut message)?;
            if field.number == time && field.bytes.is_none() {
                at = field.varint as i64;
            }
        }
        each(at);
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
    fn times_are_of_the_ends_and_the_exact_one_of_all() {
        use crate::wire::{Encoder, Histogram, MetricKind, Sample};
        let sample = |timestamp| Sample { timestamp, value: 1.0 };
        for version in [Version::V1, Version::V2] {
            let mut encoder = Encoder::new(version);
            let labels = || [("__name__", "up")].into_iter();
            encoder.series(labels(), MetricKind::Gauge, &[sample(500), sample(900)]);
            encoder.series(labels(), MetricKind::Gauge, &[sample(450), sample(-7)]);
            encoder.histogram_series(labels(), MetricKind::Gauge, &[(700, Histogram::default())]);
            let body = encoder.finish();
            assert_eq!(times(version, &body), Some((Millis(500), Millis(900))), "{version:?}");
            for (seen, first) in [(-8, Some(-7)), (-7, Some(450)), (500, Some(700)), (900, None)] {
                assert_eq!(first_after(version, &body, Millis(seen)), first.map(Millis), "{seen}");
            }
            for cut in 0..body.len() {
                let _ = (times(version, &body[..cut]), first_after(version, &body[..cut], Millis(0)));
            }
            encoder.metadata("up", MetricKind::Gauge, "", "");
            assert_eq!(times(version, &encoder.finish()), None);
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
