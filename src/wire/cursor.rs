//! Bounds-checked reading of protobuf: tags, varints, lengths. Positions are offsets into the
//! whole body, so errors can name the byte and pieces can be kept.

use super::WireError;
use super::batch::Piece;

/// Wire types.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const FIXED32: u32 = 5;

/// The tag of a field: its number and wire type.
pub(super) const fn tag(field: u32, wire: u32) -> u32 {
    field << 3 | wire
}

/// A place in a message. `body` ends where the message ends.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'b> {
    body: &'b [u8],
    /// Offset of the next byte.
    pub at: usize,
}

impl<'b> Cursor<'b> {
    pub fn new(body: &'b [u8]) -> Self {
        Cursor { body, at: 0 }
    }

    /// A cursor over one piece of the body; over nothing where the piece does not fit.
    pub fn over(body: &'b [u8], piece: Piece) -> Self {
        let (start, end) = (piece.start as usize, piece.start as usize + piece.len as usize);
        match body.get(..end) {
            Some(body) => Cursor { body, at: start },
            None => Cursor { body: &[], at: 0 },
        }
    }

    #[inline]
    pub fn more(&self) -> bool {
        self.at < self.body.len()
    }

    /// The bytes left in this message.
    #[inline]
    pub fn rest(&self) -> &'b [u8] {
        self.body.get(self.at..).unwrap_or(&[])
    }

    #[cold]
    pub fn broken<T>(&self, what: &'static str) -> Result<T, WireError> {
        Err(WireError::Protobuf { at: self.at, what })
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.body.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(&low) => match self.body.get(self.at + 1) {
                Some(&high) if high < 0x80 => {
                    self.at += 2;
                    Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
                }
                _ => self.long_varint(),
            },
            None => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (index, &byte) in self.rest().iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    return self.broken("a varint over 64 bits");
                }
                self.at += index + 1;
                return Ok(value);
            }
        }
        self.broken(if self.rest().len() < 10 { "a cut varint" } else { "a varint over 64 bits" })
    }

    #[inline]
    pub fn tag(&mut self) -> Result<u32, WireError> {
        let at = self.at;
        match u32::try_from(self.varint()?) {
            Ok(tag) if tag >= 8 => Ok(tag),
            _ => {
                self.at = at;
                self.broken("an invalid field number")
            }
        }
    }

    #[inline]
    pub fn double(&mut self) -> Result<f64, WireError> {
        match self.rest().first_chunk() {
            Some(bytes) => {
                self.at += 8;
                Ok(f64::from_le_bytes(*bytes))
            }
            None => self.broken("a cut 64-bit field"),
        }
    }

    #[inline]
    pub fn sint(&mut self) -> Result<i64, WireError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// protobuf's `sint32`: the low 32 bits of the varint, as every decoder takes them.
    #[inline]
    pub fn sint32(&mut self) -> Result<i32, WireError> {
        let value = self.varint()? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// A length and that many bytes: a cursor over them, this one moved past them.
    #[inline]
    pub fn nested(&mut self) -> Result<Cursor<'b>, WireError> {
        let len = self.varint()?;
        let start = self.at;
        if len > (self.body.len() - start) as u64 {
            return self.broken("a length past the end");
        }
        self.at = start + len as usize;
        Ok(Cursor { body: &self.body[..self.at], at: start })
    }

    /// A length and that many bytes as a piece.
    #[inline]
    pub fn piece(&mut self) -> Result<Piece, WireError> {
        let nested = self.nested()?;
        Ok(Piece { start: nested.at as u32, len: (self.at - nested.at) as u32 })
    }

    /// Skips a field that is not understood. `known` has a bit for every field number the message
    /// defines: such a field with another wire type than its own is broken. Groups are refused,
    /// for their nesting is unbounded and no sender uses them.
    #[cold]
    pub fn skip(&mut self, tag: u32, known: u32) -> Result<(), WireError> {
        if tag >> 3 < 32 && known >> (tag >> 3) & 1 == 1 {
            return self.broken("a known field of the wrong wire type");
        }
        match tag & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.double().map(drop),
            BYTES => self.nested().map(drop),
            FIXED32 => match self.rest().first_chunk::<4>() {
                Some(_) => {
                    self.at += 4;
                    Ok(())
                }
                None => self.broken("a cut 32-bit field"),
            },
            3 | 4 => self.broken("a group"),
            _ => self.broken("an unknown wire type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_end_at_64_bits() {
        let mut max = Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(max.varint(), Ok(u64::MAX));
        assert!(!max.more());
        for bad in [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0x00],
            &[0x80],
            &[],
        ] {
            let mut cursor = Cursor::new(bad);
            assert!(matches!(cursor.varint(), Err(WireError::Protobuf { at: 0, .. })), "{bad:x?}");
        }
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        assert!(Cursor::new(&[0x03]).tag().is_err());
        let mut cursor = Cursor::new(&[0x0b, 0x0c]);
        let tag = cursor.tag().expect("a tag");
        assert_eq!(cursor.skip(tag, 0), Err(WireError::Protobuf { at: 1, what: "a group" }));
    }

    proptest! {
        #[test]
        fn varints_are_prosts(value in any::<u64>(), shift in 0u32..64) {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value >> shift, &mut bytes);
            prop_assert_eq!(Cursor::new(&bytes).varint(), Ok(value >> shift));
        }
    }
}
