//! Compression of bodies: snappy blocks, and zstd as vmagent sends it.

use std::io::Read;

use super::WireError;

/// What `Content-Encoding` says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// A snappy block (not the framed format).
    Snappy,
    /// One or more zstd frames.
    Zstd,
}

/// First bytes of a zstd frame. No snappy block starts so: it would be 40 bytes long and begin
/// with a back-reference.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Largest zstd window accepted, as a power of two: 32 MiB, the common limit of a whole body.
const ZSTD_WINDOW_LOG: u32 = 25;

/// Snappy's densest element makes 64 bytes out of 3.
const SNAPPY_EXPANSION: usize = 22;

/// Decompresses `body` into `out`, whose memory is reused.
///
/// vmagent may label a body with the other codec than it used after a downgrade, and VictoriaMetrics
/// takes either; since the two can be told apart by their first bytes, so does this.
///
/// # Errors
/// [`WireError::TooLarge`] if more than `limit` bytes would come out, known before they are
/// allocated; [`WireError::Frame`] if the frame is broken. `out` is then empty.
pub fn decompress(encoding: Encoding, body: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let result = match encoding {
        _ if body.starts_with(&ZSTD_MAGIC) => zstd(body, limit, out),
        Encoding::Zstd if body.is_empty() => Err(WireError::Frame("zstd", "an empty body".into())),
        Encoding::Snappy | Encoding::Zstd => snappy(body, limit, out),
    };
    if result.is_err() {
        out.clear();
    }
    result
}

fn snappy(body: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let broken = |error: snap::Error| WireError::Frame("snappy", error.to_string());
    let declared = snap::raw::decompress_len(body).map_err(broken)?;
    if declared > limit {
        return Err(WireError::TooLarge { got: declared as u64, limit: limit as u64 });
    }
    if declared > body.len().saturating_mul(SNAPPY_EXPANSION) {
        let what = format!("{declared} bytes declared, impossible from {} compressed", body.len());
        return Err(WireError::Frame("snappy", what));
    }
    // Every byte is written by the decoder, so the old content needs no clearing.
    out.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(body, out).map_err(broken)?;
    out.truncate(written);
    Ok(())
}

fn zstd(body: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    let broken = |error: std::io::Error| WireError::Frame("zstd", error.to_string());
    out.clear();
    if let Ok(Some(declared)) = zstd::zstd_safe::get_frame_content_size(body) {
        if declared > limit as u64 {
            return Err(WireError::TooLarge { got: declared, limit: limit as u64 });
        }
        // No more than what such a body plausibly holds; a denser one grows as it is read.
        out.reserve((declared as usize).min(body.len().saturating_mul(16)));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
    // One byte over the limit is enough to know; a declared size is not trusted either way.
    let read = decoder.take((limit as u64).saturating_add(1)).read_to_end(out).map_err(broken)?;
    if read > limit {
        return Err(WireError::TooLarge { got: read as u64, limit: limit as u64 });
    }
    Ok(())
}

/// The decompressed size a body declares; `None` where it declares none or is broken. Like [`decompress`] it
/// believes the first bytes more than what the body is said to be.
pub fn declared_size(body: &[u8]) -> Option<u64> {
    match body.starts_with(&ZSTD_MAGIC) {
        true => zstd::zstd_safe::get_frame_content_size(body).ok().flatten(),
        false => snap::raw::decompress_len(body).ok().map(|len| len as u64),
    }
}

/// Compresses `body` as one snappy block.
///
/// # Errors
/// [`WireError::Frame`] if the body is 4 GiB or more.
pub fn compress_snappy(body: &[u8]) -> Result<Vec<u8>, WireError> {
    snap::raw::Encoder::new()
        .compress_vec(body)
        .map_err(|error| WireError::Frame("snappy", error.to_string()))
}

/// Compresses snappy blocks, and keeps its memory from one to the next.
pub struct Compressor {
    snappy: snap::raw::Encoder,
    out: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Compressor { snappy: snap::raw::Encoder::new(), out: Vec::new() }
    }
}

impl Compressor {
    /// As [`compress_snappy`].
    ///
    /// # Errors
    /// As there.
    pub fn snappy(&mut self, body: &[u8]) -> Result<&[u8], WireError> {
        let most = snap::raw::max_compress_len(body.len());
        if self.out.len() < most {
            self.out.resize(most, 0);
        }
        let compressed = self.snappy.compress(body, &mut self.out);
        let len = compressed.map_err(|error| WireError::Frame("snappy", error.to_string()))?;
        Ok(self.out.get(..len).unwrap_or(&[]))
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("bytes", &self.out.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn zstd_of(body: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(body, 1).expect("compress")
    }

    #[test]
    fn both_codecs_are_taken_whatever_the_label() {
        let body = b"some body, some body, some body".as_slice();
        let mut out = vec![7; 100];
        for encoding in [Encoding::Snappy, Encoding::Zstd] {
            for packed in [compress_snappy(body).expect("compress"), zstd_of(body)] {
                decompress(encoding, &packed, LIMIT, &mut out).expect("decompress");
                assert_eq!(out, body);
            }
        }
    }

    #[test]
    fn a_declared_length_is_refused_without_allocating() {
        let mut out = Vec::new();
        // 33 MiB declared by three bytes of content.
        let over = [0x80, 0x80, 0x80, 0x10 | 0x01, 0x08, b'a', b'b', b'c'];
        let result = decompress(Encoding::Snappy, &over, LIMIT, &mut out);
        assert!(matches!(result, Err(WireError::TooLarge { got, .. }) if got > 32 << 20), "{result:?}");
        assert_eq!(out.capacity(), 0);
        // Under the limit, but more than snappy can make of so few bytes.
        let result = decompress(Encoding::Snappy, &[0x80, 0x80, 0x20, 0x08, b'a'], LIMIT, &mut out);
        assert!(matches!(result, Err(WireError::Frame("snappy", _))), "{result:?}");
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn a_zstd_bomb_stops_at_the_limit() {
        let bomb = vec![0; 64 << 20];
        let mut out = Vec::new();
        let declared = zstd::bulk::compress(&bomb, 1).expect("compress");
        let result = decompress(Encoding::Zstd, &declared, LIMIT, &mut out);
        assert_eq!(result, Err(WireError::TooLarge { got: 64 << 20, limit: LIMIT as u64 }));
        assert_eq!(out.capacity(), 0);
        // A stream declares no size.
        let result = decompress(Encoding::Zstd, &zstd_of(&bomb), LIMIT, &mut out);
        assert_eq!(result, Err(WireError::TooLarge { got: LIMIT as u64 + 1, limit: LIMIT as u64 }));
        assert!(out.capacity() <= 4 * LIMIT);
    }

    #[test]
    fn a_huge_zstd_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("encoder");
        encoder.window_log(27).expect("window");
        std::io::Write::write_all(&mut encoder, b"x").expect("write");
        let frame = encoder.finish().expect("finish");
        let result = decompress(Encoding::Zstd, &frame, LIMIT, &mut Vec::new());
        assert!(matches!(result, Err(WireError::Frame("zstd", _))), "{result:?}");
    }

    #[test]
    fn a_truncated_frame_is_broken() {
        let body: Vec<u8> = (0..5000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for packed in [compress_snappy(&body).expect("compress"), zstd_of(&body)] {
            for cut in [1, packed.len() / 2, packed.len() - 1] {
                let mut out = vec![1];
                let result = decompress(Encoding::Zstd, &packed[..cut], LIMIT, &mut out);
                assert!(matches!(result, Err(WireError::Frame(..))), "{result:?}");
                assert!(out.is_empty());
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut out = Vec::new();
            decompress(Encoding::Snappy, &compress_snappy(&body).expect("compress"), LIMIT, &mut out).expect("back");
            prop_assert_eq!(&out, &body);
            decompress(Encoding::Zstd, &zstd_of(&body), LIMIT, &mut out).expect("back");
            prop_assert_eq!(&out, &body);
        }

        #[test]
        fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let mut bytes = if magic { ZSTD_MAGIC.to_vec() } else { Vec::new() };
            bytes.extend(body);
            let mut out = Vec::new();
            let _ = decompress(Encoding::Snappy, &bytes, LIMIT, &mut out);
            prop_assert!(out.len() <= LIMIT);
        }
    }
}
