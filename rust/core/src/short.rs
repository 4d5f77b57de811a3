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

/// Append a text of 1 to [`SHORT`] bytes in quotes, and a colon if `COLON`, unless a byte of it is marked. Return whether it was
/// appended. `N` is the length of the longest result. `marks` is as for [`any_marked`].
///
/// The bytes that are looked at are those that are copied, so they are read once.
#[inline(always)]
pub fn append_quoted<const N: usize, const COLON: bool>(
    text: &[u8],
    out: &mut Vec<u8>,
    marks: impl Fn(u64) -> u64,
) -> bool {
    let of = |word: &[u8; 8]| marks(u64::from_ne_bytes(*word));
    if let Some(done) = append_ends::<16, N, COLON>(text, out, |first, last| {
        let of_two = |words: &[u8; 16]| words.as_chunks().0.iter().fold(0, |marked, word| marked | of(word));
        of_two(first) | of_two(last)
    }) {
        return done;
    }
    if let Some(done) = append_ends::<8, N, COLON>(text, out, |first, last| of(first) | of(last)) {
        return done;
    }
    let four = |first: &[u8; 4], last: &[u8; 4]| {
        marks(u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last)))
    };
    if let Some(done) = append_ends::<4, N, COLON>(text, out, four) {
        return done;
    }
    if any_marked(text, marks) {
        return false;
    }
    append_with::<N>(out, |room| {
        place(text, room, 1);
        quote::<N, COLON>(room, text.len())
    });
    true
}

/// Append a text as [`append_quoted`] does, if it is not shorter than a piece; none if it is.
#[inline(always)]
fn append_ends<const PIECE: usize, const N: usize, const COLON: bool>(
    text: &[u8],
    out: &mut Vec<u8>,
    marks: impl Fn(&[u8; PIECE], &[u8; PIECE]) -> u64,
) -> Option<bool> {
    let (first, last) = ends::<PIECE>(text)?;
    if marks(first, last) != 0 {
        return Some(false);
    }
    append_with::<N>(out, |room| {
        let end = 1 + text.len();
        room[end - PIECE..end].copy_from_slice(last);
        room[1..=PIECE].copy_from_slice(first);
        quote::<N, COLON>(room, text.len())
    });
    Some(true)
}

/// Place the quotes around a text of this length, and the colon. Return the length of all of it.
#[inline(always)]
fn quote<const N: usize, const COLON: bool>(room: &mut [u8; N], length: usize) -> usize {
    room[0] = b'"';
    room[length + 1] = b'"';
    if COLON {
        room[length + 2] = b':';
    }
    length + 2 + usize::from(COLON)
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
