//! Bytes that live inside their owner while they are few: an entry costs one allocation instead of two.

/// Enough bytes for a key of two dozen letters and a number.
const INLINE: usize = 46;

/// A few bytes inline, or many on the heap. Immutable.
#[derive(Debug, Clone)]
pub enum InlineBytes {
    /// The number of bytes, and the bytes.
    Inline(u8, [u8; INLINE]),
    /// More than fit inline.
    Heap(Box<[u8]>),
}

impl InlineBytes {
    /// Return the bytes.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for InlineBytes {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(length) if bytes.len() <= INLINE => {
                let mut inline = [0; INLINE];
                inline[..bytes.len()].copy_from_slice(bytes);
                Self::Inline(length, inline)
            }
            _ => Self::Heap(bytes.into()),
        }
    }
}
