//! The message in a frame: series of chunks.

use super::ReadError;
use crate::wire::WireError;
use crate::wire::cursor::{BYTES, Cursor, VARINT, tag};

/// Labels of one series.
const MAX_LABELS: usize = 1 << 10;

/// A chunk as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'b> {
    /// First and last time it says it has, Unix milliseconds.
    pub span: (i64, i64),
    /// Its encoding: see [`XOR`].
    pub encoding: u64,
    /// Its bytes.
    pub data: &'b [u8],
}

/// The encoding of [XOR chunks](crate::wire::xor); others are histograms, or newer than this program.
pub const XOR: u64 = 1;

/// Labels of a series as they came.
pub type RawLabels<'b> = Vec<(&'b str, &'b str)>;

/// Walks a frame's message; `each` gets a series' labels and one of its chunks.
///
/// # Errors
/// A broken message, or what `each` gives.
pub fn chunked<'b, E: From<ReadError>>(
    message: &'b [u8],
    mut each: impl FnMut(&RawLabels<'b>, Chunk<'b>) -> Result<(), E>,
) -> Result<(), E> {
    const SERIES: u32 = tag(1, BYTES);
    const INDEX: u32 = tag(2, VARINT);
    let mut labels = Vec::new();
    let mut m = Cursor::new(message);
    while m.more() {
        match m.tag().map_err(ReadError::from)? {
            SERIES => chunked_series(m.nested().map_err(ReadError::from)?, &mut labels, &mut each)?,
            INDEX => drop(m.varint().map_err(ReadError::from)?),
            other => m.skip(other, 0b110).map_err(ReadError::from)?,
        }
    }
    Ok(())
}

fn chunked_series<'b, E: From<ReadError>>(
    m: Cursor<'b>,
    labels: &mut RawLabels<'b>,
    each: &mut impl FnMut(&RawLabels<'b>, Chunk<'b>) -> Result<(), E>,
) -> Result<(), E> {
    const LABEL: u32 = tag(1, BYTES);
    const CHUNK: u32 = tag(2, BYTES);
    labels.clear();
    // Protobuf lets labels come after chunks, so they are read first.
    for wanted in [LABEL, CHUNK] {
        let mut m = m;
        while m.more() {
            match m.tag().map_err(ReadError::from)? {
                found @ (LABEL | CHUNK) => {
                    let field = m.nested().map_err(ReadError::from)?;
                    match (found == wanted, found) {
                        (false, _) => {}
                        (true, LABEL) => labels.push(label(field, labels.len())?),
                        (true, _) => each(labels, chunk(field).map_err(ReadError::from)?)?,
                    }
                }
                other => m.skip(other, 0b110).map_err(ReadError::from)?,
            }
        }
    }
    Ok(())
}

fn label<'b>(mut m: Cursor<'b>, have: usize) -> Result<(&'b str, &'b str), ReadError> {
    const NAME: u32 = tag(1, BYTES);
    const VALUE: u32 = tag(2, BYTES);
    if have == MAX_LABELS {
        return Err(WireError::TooMany { what: "labels in one series", limit: MAX_LABELS }.into());
    }
    let (mut name, mut value) = (&b""[..], &b""[..]);
    while m.more() {
        match m.tag()? {
            NAME => name = m.nested()?.rest(),
            VALUE => value = m.nested()?.rest(),
            other => m.skip(other, 0b110)?,
        }
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8);
    Ok((text(name)?, text(value)?))
}

fn chunk(mut m: Cursor<'_>) -> Result<Chunk<'_>, WireError> {
    const MIN: u32 = tag(1, VARINT);
    const MAX: u32 = tag(2, VARINT);
    const ENCODING: u32 = tag(3, VARINT);
    const DATA: u32 = tag(4, BYTES);
    let mut chunk = Chunk { span: (0, 0), encoding: 0, data: &[] };
    while m.more() {
        match m.tag()? {
            MIN => chunk.span.0 = m.varint()? as i64,
            MAX => chunk.span.1 = m.varint()? as i64,
            ENCODING => chunk.encoding = m.varint()?,
            DATA => chunk.data = m.nested()?.rest(),
            other => m.skip(other, 0b1_1110)?,
        }
    }
    Ok(chunk)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::frames::Frames;
    use super::super::testing::series;
    use super::*;
    use crate::wire::proto::v1;
    use proptest::prelude::*;
    use prost::Message;

    pub(in crate::wire::read) type Got = Vec<(Vec<(String, String)>, Vec<u8>)>;

    pub(in crate::wire::read) fn read(message: &[u8]) -> Result<Got, ReadError> {
        let mut got = Vec::new();
        chunked(message, |labels, chunk| {
            let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            got.push((labels, chunk.data.to_vec()));
            Ok::<(), ReadError>(())
        })?;
        Ok(got)
    }

    #[test]
    fn labels_after_chunks_belong_to_them_too() {
        let label = v1::Label { name: "n".into(), value: "v".into() }.encode_to_vec();
        let chunk = v1::Chunk { data: vec![9], ..Default::default() }.encode_to_vec();
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
        let message = field(1, &[field(2, &chunk), field(1, &label)].concat());
        assert_eq!(read(&message), Ok(vec![(vec![("n".into(), "v".into())], vec![9])]));
        let message = field(1, &field(1, &field(1, &[0xff])));
        assert_eq!(read(&message), Err(ReadError::NotUtf8));
    }

    #[test]
    fn labels_are_bounded() {
        let labels = vec![("a", "b"); MAX_LABELS + 1];
        let stream = series(&labels, 1, &[]);
        let mut frames = Frames::default();
        frames.feed(&stream);
        let message = frames.frame().expect("sound").expect("whole").to_vec();
        assert!(matches!(read(&message), Err(ReadError::Wire(WireError::TooMany { .. }))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_prost_reads_is_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..60), flip in any::<(u8, u8)>()) {
            let name = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = series(&[("__name__", &name), ("x", "y")], 1, &[(-1, 2, bytes.clone()), (3, 4, Vec::new())]);
            // Somewhere in the message.
            let at = 5 + usize::from(flip.0) % (stream.len() - 5);
            stream[at] ^= flip.1;
            let message = &stream[5..];
            if let (Ok(theirs), Ok(ours)) = (v1::ChunkedReadResponse::decode(message), read(message)) {
                let flat: Got = theirs.chunked_series.iter().flat_map(|s| {
                    let labels: Vec<_> = s.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
                    s.chunks.iter().map(move |c| (labels.clone(), c.data.clone()))
                }).collect();
                prop_assert_eq!(flat, ours);
            }
        }
    }
}
