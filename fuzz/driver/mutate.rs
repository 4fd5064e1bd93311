//! Mutations of bytes, as fuzzers have them.

/// splitmix64.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }
}

/// Bytes that often mean something.
const BYTES: [u8; 12] = [0, 1, 2, 0x0a, 0x12, 0x1a, 0x22, 0x7f, 0x80, 0xfe, 0xff, b'"'];
const MAX: usize = 1 << 16;

/// One of the corpus, changed in one to eight ways.
pub fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 << random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = 1 << random.below(6);
        let end = (at + length).min(bytes.len());
        match random.below(10) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 if at < bytes.len() => bytes[at] = BYTES[random.below(BYTES.len())],
            4 => drop(bytes.drain(at..end)),
            5 => bytes.truncate(at),
            6 => {
                let new: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, new);
            }
            7 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            8 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + 8 * length).min(other.len())].to_vec();
                bytes.splice(at..end, piece);
            }
            _ => {
                // A number, as the formats write them.
                let number = random.next() >> random.below(64);
                let new =
                    if random.below(2) == 0 { number.to_le_bytes()[..4].to_vec() } else { varint(number) };
                bytes.splice(at..(at + new.len()).min(bytes.len()), new);
            }
        }
        bytes.truncate(MAX);
    }
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
