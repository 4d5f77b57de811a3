//! Integers and texts as bytes: varints of seven bits per byte, lowest first.

use std::ops::RangeInclusive;

use super::intervals::IntervalSet;

/// Append an integer.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits")
}

/// Append a signed integer: small ones of either sign take few bytes.
#[inline]
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Append bytes with their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Append intervals with their number.
pub fn put_intervals<'a>(out: &mut Vec<u8>, intervals: impl ExactSizeIterator<Item = &'a RangeInclusive<u64>>) {
    put(out, intervals.len() as u64);
    let mut last = 0;
    for range in intervals {
        put(out, range.start() - last);
        put(out, range.end() - range.start());
        last = *range.end();
    }
}

/// Reads what the functions of this module appended. Every method returns `None` if the bytes are not of that form.
#[derive(Debug, Clone)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Read an integer.
    #[inline]
    pub fn int(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Read an integer that is an index, a count or a length in memory.
    #[inline]
    pub fn size(&mut self) -> Option<usize> {
        self.int().and_then(|value| value.try_into().ok())
    }

    /// Read a signed integer.
    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        let value = self.int()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Read a byte.
    #[inline]
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// Read this many bytes.
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Read bytes with their length.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.size()?;
        self.take(length)
    }

    /// Read text.
    pub fn text(&mut self) -> Option<&'a str> {
        self.bytes().and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// Read intervals.
    pub fn intervals(&mut self) -> Option<IntervalSet> {
        let count = self.int()?;
        let mut set = IntervalSet::default();
        let mut last = 0_u64;
        for _ in 0..count {
            let start = last.checked_add(self.int()?)?;
            last = start.checked_add(self.int()?)?;
            set.insert(start..=last);
        }
        Some(set)
    }
}
