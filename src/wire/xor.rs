//! Prometheus's XOR chunks: delta-of-delta times and XORed values, bit by bit, the first bit highest.
//!
//! Layout (Prometheus `tsdb/docs/format/chunks.md`): the number of samples as 16 bits; the first time
//! as a varint and its value as 64 bits; the second time as an unsigned difference; then differences
//! of differences. Bytes come from another server: nothing of them is believed.

use super::Sample;

/// Why a chunk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It ends before its samples do.
    #[error("the chunk is cut at sample {0}")]
    Cut(u16),
    /// A number that does not fit.
    #[error("the chunk has a varint over 64 bits at sample {0}")]
    Varint(u16),
    /// More bits than a value has.
    #[error("the chunk has a value window of more than 64 bits at sample {0}")]
    Window(u16),
}

/// The samples of a chunk, one after the other; at most 65,535. Ends after the first error.
#[derive(Clone, Debug)]
pub struct XorChunk<'b> {
    bits: Bits<'b>,
    left: u16,
    read: u16,
    at: i64,
    delta: u64,
    value: u64,
    leading: u32,
    trailing: u32,
}

impl<'b> XorChunk<'b> {
    /// The chunk in these bytes.
    ///
    /// # Errors
    /// There is no header.
    pub fn new(data: &'b [u8]) -> Result<XorChunk<'b>, ChunkError> {
        let (header, rest) = data.split_first_chunk::<2>().ok_or(ChunkError::Cut(0))?;
        Ok(XorChunk {
            bits: Bits { bytes: rest, at: 0 },
            left: u16::from_be_bytes(*header),
            read: 0,
            at: 0,
            delta: 0,
            value: 0,
            leading: 0,
            trailing: 0,
        })
    }

    /// How many samples it says it has.
    pub fn declared(&self) -> u16 {
        self.read + self.left
    }

    fn sample(&mut self) -> Result<Sample, ChunkError> {
        match self.read {
            0 => {
                let zigzag = self.varint()?;
                self.at = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                self.value = self.take(64)?;
            }
            1 => {
                self.delta = self.varint()?;
                self.at = self.at.wrapping_add(self.delta as i64);
                self.next_value()?;
            }
            _ => {
                let more = self.delta_of_delta()?;
                self.delta = self.delta.wrapping_add(more as u64);
                self.at = self.at.wrapping_add(self.delta as i64);
                self.next_value()?;
            }
        }
        Ok(Sample { timestamp: self.at, value: f64::from_bits(self.value) })
    }

    fn delta_of_delta(&mut self) -> Result<i64, ChunkError> {
        let mut ones = 0;
        while ones < 4 && self.take(1)? == 1 {
            ones += 1;
        }
        let width = match ones {
            0 => return Ok(0),
            1 => 14,
            2 => 17,
            3 => 20,
            _ => return Ok(self.take(64)? as i64),
        };
        let bits = self.take(width)?;
        // Half of the range is negative; the middle itself is positive.
        Ok(if bits > 1 << (width - 1) { bits as i64 - (1 << width) } else { bits as i64 })
    }

    fn next_value(&mut self) -> Result<(), ChunkError> {
        if self.take(1)? == 0 {
            return Ok(());
        }
        if self.take(1)? == 1 {
            let leading = self.take(5)? as u32;
            let width = match self.take(6)? as u32 {
                0 => 64,
                width => width,
            };
            self.trailing = 64u32.checked_sub(leading + width).ok_or(ChunkError::Window(self.read))?;
            self.leading = leading;
        }
        // `trailing` is below 64, for a window has at least one bit.
        let bits = self.take(64 - self.leading - self.trailing)?;
        self.value ^= bits << self.trailing;
        Ok(())
    }

    fn take(&mut self, width: u32) -> Result<u64, ChunkError> {
        self.bits.take(width).ok_or(ChunkError::Cut(self.read))
    }

    fn varint(&mut self) -> Result<u64, ChunkError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(8)?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ChunkError::Varint(self.read))
    }
}

impl Iterator for XorChunk<'_> {
    type Item = Result<Sample, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let sample = self.sample();
        match sample {
            Ok(_) => self.read += 1,
            Err(_) => self.left = 0,
        }
        Some(sample)
    }
}

/// Reads bits, the highest of a byte first.
#[derive(Clone, Debug)]
struct Bits<'b> {
    bytes: &'b [u8],
    /// The next bit.
    at: usize,
}

impl Bits<'_> {
    /// The next `width` bits, at most 64; `None` past the end.
    fn take(&mut self, width: u32) -> Option<u64> {
        let mut value = 0u64;
        let mut left = width;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let have = 8 - (self.at % 8) as u32;
            let now = have.min(left);
            let bits = u64::from(byte) >> (have - now) & ((1 << now) - 1);
            value = value << now | bits;
            self.at += now as usize;
            left -= now;
        }
        Some(value)
    }
}

/// An encoder, for tests: as Prometheus's appender writes.
#[cfg(test)]
pub(crate) mod testing {
    use super::Sample;

    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        used: u32,
    }

    impl Writer {
        fn put(&mut self, value: u64, width: u32) {
            for bit in (0..width).rev() {
                if self.used == 0 {
                    self.bytes.push(0);
                }
                if let Some(last) = self.bytes.last_mut() {
                    *last |= ((value >> bit & 1) as u8) << (7 - self.used);
                }
                self.used = (self.used + 1) % 8;
            }
        }
        fn varint(&mut self, mut value: u64) {
            while value >= 0x80 {
                self.put(value & 0x7f | 0x80, 8);
                value >>= 7;
            }
            self.put(value, 8);
        }
    }

    /// Encodes samples in order of time as one chunk.
    pub(crate) fn chunk(samples: &[Sample]) -> Vec<u8> {
        let mut out = Writer::default();
        out.put(samples.len() as u64, 16);
        let (mut before, mut delta) = (Sample { timestamp: 0, value: 0.0 }, 0i64);
        let mut window: Option<(u32, u32)> = None;
        for (n, sample) in samples.iter().enumerate() {
            let step = sample.timestamp.wrapping_sub(before.timestamp);
            match n {
                0 => {
                    out.varint((sample.timestamp << 1 ^ sample.timestamp >> 63) as u64);
                    out.put(sample.value.to_bits(), 64);
                }
                1 => out.varint(step as u64),
                _ => match step.wrapping_sub(delta) {
                    0 => out.put(0, 1),
                    more if (-8191..=8192).contains(&more) => {
                        out.put(0b10, 2);
                        out.put(more as u64, 14);
                    }
                    more if (-65_535..=65_536).contains(&more) => {
                        out.put(0b110, 3);
                        out.put(more as u64, 17);
                    }
                    more if (-524_287..=524_288).contains(&more) => {
                        out.put(0b1110, 4);
                        out.put(more as u64, 20);
                    }
                    more => {
                        out.put(0b1111, 4);
                        out.put(more as u64, 64);
                    }
                },
            }
            if n > 0 {
                delta = step;
                let xor = sample.value.to_bits() ^ before.value.to_bits();
                let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
                match window {
                    _ if xor == 0 => out.put(0, 1),
                    Some((l, t)) if l <= leading && t <= trailing => {
                        out.put(0b10, 2);
                        out.put(xor >> t, 64 - l - t);
                    }
                    _ => {
                        out.put(0b11, 2);
                        out.put(u64::from(leading), 5);
                        let width = 64 - leading - trailing;
                        out.put(u64::from(width % 64), 6);
                        out.put(xor >> trailing, width);
                        window = Some((leading, trailing));
                    }
                }
            }
            before = *sample;
        }
        out.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::chunk;
    use super::*;

    fn read(data: &[u8]) -> Result<Vec<(i64, u64)>, ChunkError> {
        let samples = XorChunk::new(data)?.collect::<Result<Vec<_>, _>>()?;
        Ok(samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect())
    }

    fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
        samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect()
    }

    #[test]
    fn known_bytes() {
        // Three samples at 1 s, 2 s, 3.001 s: 1.0, 1.0, 2.0.
        // 0003 | zigzag 2000 = d0 0f | 3ff0… | 1000 = e8 07, bit 0 | 10 + 14 bits of 1,
        // 11 + leading 1 (00001) + width 11 (001011) + the window of 0x7ff0….
        let mut expected = vec![0x00, 0x03, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07];
        // 0 10 00000000000001 11 00001 001011 11111111111 (+ 3 zero bits)
        expected.extend([0b0100_0000, 0b0000_0000, 0b1110_0001, 0b0010_1111, 0b1111_1111, 0b1000_0000]);
        let samples =
            [(1_000, 1.0), (2_000, 1.0), (3_001, 2.0)].map(|(timestamp, value)| Sample { timestamp, value });
        assert_eq!(chunk(&samples), expected);
        assert_eq!(read(&expected), Ok(bits(&samples)));
    }

    #[test]
    fn what_is_cut_or_impossible_is_told() {
        assert_eq!(read(&[0]), Err(ChunkError::Cut(0)));
        assert_eq!(read(&[0, 0]), Ok(Vec::new()));
        assert_eq!(read(&[0, 1, 0x80]), Err(ChunkError::Cut(0)));
        let endless = [&[0, 1][..], &[0xff; 12]].concat();
        assert_eq!(read(&endless), Err(ChunkError::Varint(0)));
        // 31 leading zeros and a window of 34 bits.
        let mut wide = vec![0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        wide.extend([0b1111_1111, 0b0001_0000, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&wide), Err(ChunkError::Window(1)));
        // The largest window there is.
        let far = [f64::from_bits(1 << 63), f64::from_bits(1)];
        let samples = [0, 1].map(|n| Sample { timestamp: n as i64, value: far[n] });
        assert_eq!(read(&chunk(&samples)), Ok(bits(&samples)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            start in any::<i32>(),
            steps in proptest::collection::vec((prop_oneof![0i64..3, 0i64..20_000, 0i64..2_000_000, 0..1i64 << 40], any::<u64>(), 0u32..70), 1..200),
        ) {
            let (mut at, mut value) = (i64::from(start), 0u64);
            let samples: Vec<Sample> = steps
                .iter()
                .map(|(step, bits, keep)| {
                    at += step;
                    // Often the same, often alike in the high bits.
                    value ^= bits.checked_shr(*keep).unwrap_or(0);
                    Sample { timestamp: at, value: f64::from_bits(value) }
                })
                .collect();
            prop_assert_eq!(read(&chunk(&samples)), Ok(bits(&samples)));
        }

        #[test]
        fn garbage_is_bounded_and_never_panics(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(samples) = XorChunk::new(&data) {
                let declared = usize::from(samples.declared());
                let all: Vec<_> = samples.collect();
                prop_assert!(all.len() <= declared && all.len() <= 4 * data.len() + 1);
                prop_assert!(all.iter().rev().skip(1).all(Result::is_ok), "nothing comes after an error");
            }
        }
    }
}
