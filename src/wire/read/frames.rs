//! The frames in which an answer of chunks comes: length, CRC-32C, message.

use super::ReadError;

/// Bytes of a frame. Prometheus sends about 1 MiB, and lets others send 50 MB.
pub const MAX_FRAME: usize = 50 << 20;

/// Takes the bytes of a streamed answer as they come and gives whole frames' messages.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins in it.
    next: usize,
}

impl Frames {
    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.next);
        self.next = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame's message; `None` until all of it has come.
    ///
    /// # Errors
    /// A frame that is too large or not what was sent. The stream is of no use then.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let rest = self.buffer.get(self.next..).unwrap_or(&[]);
        let Some((length, head)) = length(rest)? else { return Ok(None) };
        let body = rest.get(head..).unwrap_or(&[]);
        let Some((checksum, body)) = body.split_first_chunk::<4>() else { return Ok(None) };
        let Some(message) = body.get(..length) else { return Ok(None) };
        let (said, found) = (u32::from_be_bytes(*checksum), crc32c(message));
        if said != found {
            return Err(ReadError::Checksum { said, found });
        }
        self.next += head + 4 + length;
        Ok(Some(message))
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.next
    }

    /// Says that no more will come.
    ///
    /// # Errors
    /// A frame has come in part.
    pub fn end(&self) -> Result<(), ReadError> {
        if self.held() == 0 { Ok(()) } else { Err(ReadError::Cut) }
    }
}

/// A frame's length and how many bytes say it; `None` until all of them have come.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ReadError> {
    let mut length = 0u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // What the tenth byte has beyond 64 bits makes it too large as well.
        length |= bits.checked_shl(7 * n as u32).filter(|_| n < 9).unwrap_or(u64::MAX);
        if *byte < 0x80 {
            return match usize::try_from(length) {
                Ok(small) if small <= MAX_FRAME => Ok(Some((small, n + 1))),
                _ => Err(ReadError::Frame(length)),
            };
        }
    }
    if bytes.len() < 10 { Ok(None) } else { Err(ReadError::Frame(length)) }
}

/// CRC-32C (Castagnoli), as in iSCSI.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::super::chunks::tests::read;
    use super::super::testing::{frame, series};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn frames_come_whole_however_the_bytes_are_cut() {
        let stream =
            [series(&[("__name__", "up")], 1, &[(1, 2, vec![7; 300])]), frame(b""), series(&[], 1, &[])]
                .concat();
        for step in [1, 2, 3, 100, stream.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(step) {
                frames.feed(bytes);
                while let Some(message) = frames.frame().expect("sound") {
                    got.push(message.to_vec());
                }
            }
            assert_eq!((got.len(), frames.end()), (3, Ok(())));
            let up = vec![("__name__".to_string(), "up".to_string())];
            assert_eq!(read(&got[0]), Ok(vec![(up, vec![7; 300])]));
        }
        let mut frames = Frames::default();
        frames.feed(&stream[..stream.len() - 1]);
        while frames.frame().expect("sound").is_some() {}
        assert_eq!(frames.end(), Err(ReadError::Cut));
    }

    #[test]
    fn a_flipped_bit_and_a_huge_frame_are_refused() {
        let mut bad = series(&[("__name__", "up")], 1, &[(1, 2, vec![7; 30])]);
        *bad.last_mut().expect("bytes") ^= 1;
        let mut frames = Frames::default();
        frames.feed(&bad);
        assert!(matches!(frames.frame(), Err(ReadError::Checksum { .. })));
        for huge in [
            &[0x80, 0x80, 0x80, 0x20][..],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            let mut frames = Frames::default();
            frames.feed(huge);
            assert!(matches!(frames.frame(), Err(ReadError::Frame(_))), "{huge:x?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let mut frames = Frames::default();
            for piece in bytes.chunks(cut) {
                frames.feed(piece);
                while let Ok(Some(message)) = frames.frame() {
                    prop_assert!(message.len() <= bytes.len());
                }
            }
        }
    }
}
