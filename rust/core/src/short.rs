//! Appends and searches short texts without loops and without calling the system's copy function. Most keys, values and numbers
//! are so short that a call takes longer than the copy.
//!
//! A text is copied in two pieces of a fixed size, its first and its last bytes, which may overlap.
#![expect(clippy::inline_always, reason = "called for every datapoint, where a call takes as long as the work")]

/// Longest text that [`place`] copies.
pub const SHORT: usize = 32;

/// A word whose bytes are all 1.
pub const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte of a word.
pub const HIGH: u64 = ONES * 0x80;

/// Append what `write` puts at the beginning of a room of `N` bytes, whose length it returns.
///
/// There is one check of the memory for all of it. Zeros after the text are cut off.
#[inline(always)]
pub fn append_with<const N: usize>(out: &mut Vec<u8>, write: impl FnOnce(&mut [u8; N]) -> usize) {
    let start = out.len();
    out.extend_from_slice(&[0; N]);
    if let Some(room) = out.last_chunk_mut() {
        let length = write(room);
        out.truncate(start + length);
    }
}

/// Append a text, which is short in most cases.
#[inline(always)]
pub fn append(text: &[u8], out: &mut Vec<u8>) {
    if text.len() <= SHORT {
        append_with::<SHORT>(out, |room| {
            place(text, room, 0);
            text.len()
        });
    } else {
        out.extend_from_slice(text);
    }
}

/// Copy a text of at most [`SHORT`] bytes into a room, from `at` on.
#[inline(always)]
pub fn place<const N: usize>(text: &[u8], room: &mut [u8; N], at: usize) {
    if !(place_ends::<16, N>(text, room, at)
        || place_ends::<8, N>(text, room, at)
        || place_ends::<4, N>(text, room, at))
    {
        for (to, from) in room[at..].iter_mut().zip(text.iter().take(3)) {
            *to = *from;
        }
    }
}

#[inline(always)]
fn place_ends<const PIECE: usize, const N: usize>(text: &[u8], room: &mut [u8; N], at: usize) -> bool {
    let Some((first, last)) = ends::<PIECE>(text) else { return false };
    let end = at + text.len();
    room[end - PIECE..end].copy_from_slice(last);
    room[at..at + PIECE].copy_from_slice(first);
    true
}

#[inline(always)]
fn ends<const PIECE: usize>(text: &[u8]) -> Option<(&[u8; PIECE], &[u8; PIECE])> {
    Some((text.first_chunk()?, text.last_chunk()?))
}

/// Whether two texts are equal, which are short in most cases.
#[inline(always)]
#[must_use]
pub fn are_equal(text: &[u8], other: &[u8]) -> bool {
    if text.len() != other.len() {
        return false;
    }
    if text.len() > SHORT {
        return text == other;
    }
    same_ends::<16>(text, other)
        .or_else(|| same_ends::<8>(text, other))
        .or_else(|| same_ends::<4>(text, other))
        .unwrap_or_else(|| text.iter().zip(other).all(|(byte, other)| byte == other))
}

/// Whether the first and the last bytes of two texts are equal; none if the texts have fewer bytes.
#[inline(always)]
fn same_ends<const PIECE: usize>(text: &[u8], other: &[u8]) -> Option<bool> {
    Some(ends::<PIECE>(text)? == ends::<PIECE>(other)?)
}

/// Whether any byte of the text is marked. `marks` sets the highest bit of each byte of a word that is marked, and no other bits.
#[inline(always)]
pub fn any_marked(text: &[u8], marks: impl Fn(u64) -> u64) -> bool {
    let of = |word: &[u8; 8]| marks(u64::from_ne_bytes(*word));
    // Two words side by side are one vector for the compiler.
    let of_two = |words: &[u8; 16]| {
        let (halves, _) = words.as_chunks();
        of(&halves[0]) | of(&halves[1])
    };
    let marked = if let Some((first, last)) = ends::<16>(text) {
        text.as_chunks().0.iter().skip(1).fold(of_two(first) | of_two(last), |marked, words| marked | of_two(words))
    } else if let Some((first, last)) = ends::<8>(text) {
        of(first) | of(last)
    } else if let Some((first, last)) = ends::<4>(text) {
        let (first, last) = (u32::from_ne_bytes(*first), u32::from_ne_bytes(*last));
        marks(u64::from(first) << 32 | u64::from(last))
    } else if let ([first, ..], [.., last]) = (text, text) {
        of(&[*first, text[text.len() / 2], *last, *first, *first, *first, *first, *first])
    } else {
        0
    };
    marked != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_equal_if_all_their_bytes_are() {
        for length in 0..=SHORT + 2 {
            let text: Vec<u8> = (0..length).map(|place| b'a' + u8::try_from(place % 26).unwrap_or_default()).collect();
            assert!(are_equal(&text, &text.clone()));
            assert!(!are_equal(&text, &[text.as_slice(), b"a"].concat()));
            for place in 0..length {
                let mut other = text.clone();
                other[place] = b'-';
                assert!(!are_equal(&text, &other), "{place} of {length}");
            }
        }
    }
}
