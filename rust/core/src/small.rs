//! Short JSON values in a room of a fixed size: integers, readings with a few decimal places, and short strings.
//!
//! A value is placed with a few stores of a fixed size, which overlap, without loops and nearly without branches: lengths and digits
//! of readings differ from value to value, and a processor that guesses a branch wrong loses as much time as the whole value takes.
//! Each function returns the length of the value, and 0 if the value is not one of its kind; the bytes after it have no meaning.
#![expect(clippy::inline_always, reason = "called for every datapoint, where a call takes as long as the work")]

use crate::short::{HIGH, ONES};

/// Bytes of a room.
pub const ROOM: usize = 24;

/// The memory that a value is placed in.
pub type Room = [u8; ROOM];

/// Bytes of the longest string that is placed, without its quotes.
pub const LONGEST_STRING: usize = 14;

const TEN_TO_8: u64 = 100_000_000;
const TEN_TO_15: u64 = 1_000_000_000_000_000;

/// The digit zero in each byte of a word.
const ZEROS: u64 = ONES * b'0' as u64;

/// Place `true` or `false`.
#[inline(always)]
pub fn boolean(value: bool, room: &mut Room) -> usize {
    store(if value { *b"true\0\0\0\0" } else { *b"false\0\0\0" }, room, 0);
    5 - usize::from(value)
}

/// Place an integer of up to 15 digits.
#[inline(always)]
pub fn int(value: i64, room: &mut Room) -> usize {
    let start = sign(value, room);
    let magnitude = value.unsigned_abs();
    if magnitude < TEN_TO_8 {
        start + first_digits(magnitude, room, start)
    } else if magnitude < TEN_TO_15 {
        let end = start + first_digits(magnitude / TEN_TO_8, room, start);
        store(eight_digits(magnitude % TEN_TO_8).to_le_bytes(), room, end);
        end + 8
    } else {
        0
    }
}

/// Place a float that has at most four decimal places and at most eight digits before them, as most readings have. No other float is
/// placed, and neither are NaN, infinity and zero.
///
/// No two decimals of up to 15 digits are nearest to the same float, so the one that is found is the shortest form, without the zeros
/// at its end.
#[inline(always)]
#[expect(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "fewer than 10^12 units, and the comparison is the check"
)]
pub fn reading(value: f64, room: &mut Room) -> usize {
    const UNITS: u64 = 10_000;
    const UNITS_IN_ONE: f64 = UNITS as f64;
    const MOST_UNITS: f64 = 1e12 - 1.0;
    // Among floats of this size, neighbours differ by 1, so that adding it rounds to an integer, which is in the last bits then.
    const LARGE: f64 = (1_u64 << 52 | 1 << 51) as f64;
    let scaled = value * UNITS_IN_ONE;
    // Not NaN either.
    let is_small = scaled.abs() < MOST_UNITS;
    if !is_small {
        return 0;
    }
    let shifted = scaled + LARGE;
    let whole_units = shifted - LARGE;
    if whole_units == 0.0 || whole_units / UNITS_IN_ONE != value {
        return 0;
    }
    let units = shifted.to_bits().wrapping_sub(LARGE.to_bits()).cast_signed();
    let start = sign(units, room);
    let magnitude = units.unsigned_abs();
    let (end, places) = if magnitude < TEN_TO_8 {
        let digits = eight_digits(magnitude);
        let zeros = ((digits ^ ZEROS) | 1 << 24).trailing_zeros() / 8;
        store((digits >> (8 * zeros)).to_le_bytes(), room, start);
        (start + 4 - zeros as usize, digits >> 32)
    } else {
        let end = start + first_digits(magnitude / UNITS, room, start);
        (end, eight_digits(magnitude % UNITS) >> 32)
    };
    store((u64::from(b'.') | places << 8).to_le_bytes(), room, end);
    // The last place is the highest byte of four. One zero stays after the point.
    let zeros = (((places ^ (ZEROS >> 32)) << 32) | 1 << 32).leading_zeros() / 8;
    end + 5 - zeros as usize
}

/// Place a string in quotes: the first `length` bytes, at most [`LONGEST_STRING`]. One with a byte that must be escaped is not placed.
#[inline(always)]
pub fn string(bytes: [u8; 16], length: usize, room: &mut Room) -> usize {
    if length > LONGEST_STRING {
        return 0;
    }
    let (halves, _) = bytes.as_chunks();
    let [low, high] = [0, 1].map(|half| u128::from(escaped(u64::from_le_bytes(halves[half]))));
    // Shift out the marks of the bytes after the string; for an empty string, these are all marks.
    if (low | high << 64) << 16 << (8 * (LONGEST_STRING - length)) != 0 {
        return 0;
    }
    room[0] = b'"';
    room[1..17].copy_from_slice(&bytes);
    room[length + 1] = b'"';
    length + 2
}

/// Mark the bytes of a word that must be escaped in a string.
#[inline(always)]
pub(crate) fn escaped(word: u64) -> u64 {
    // Each difference sets the highest bit of a byte below a limit. A borrow comes only from a byte that is marked itself.
    let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGH
}

/// Place a minus sign that counts only if the number is negative.
#[inline(always)]
fn sign(number: i64, room: &mut Room) -> usize {
    room[0] = b'-';
    usize::from(number < 0)
}

/// Place a number of up to eight digits, and return the number of its digits.
#[inline(always)]
fn first_digits(number: u64, room: &mut Room, at: usize) -> usize {
    let digits = eight_digits(number);
    // The first digit is the lowest byte, and the last one always stays.
    let zeros = ((digits ^ ZEROS) | 1 << 56).trailing_zeros() / 8;
    store((digits >> (8 * zeros)).to_le_bytes(), room, at);
    8 - zeros as usize
}

#[inline(always)]
fn store(bytes: [u8; 8], room: &mut Room, at: usize) {
    room[at..at + 8].copy_from_slice(&bytes);
}

/// Return a number below 10^4 as four digits.
#[inline(always)]
#[must_use]
pub fn four_digits(number: u64) -> [u8; 4] {
    let [first, last] = [number / 100, number % 100];
    [first / 10, first % 10, last / 10, last % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or_default())
}

/// Return a number below 10^8 as eight digits, the first one in the lowest byte.
#[inline(always)]
fn eight_digits(number: u64) -> u64 {
    // Halves of four digits, then quarters of two, then single digits, all of them side by side in one register.
    let halves = (number / 10_000) | (number % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let quarters = hundreds | (halves - 100 * hundreds) << 16;
    let tens = ((quarters * 103) >> 10) & 0x000f_000f_000f_000f;
    (tens | (quarters - 10 * tens) << 8) + ZEROS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Return what a function places; none for nothing. The room has other bytes before.
    fn placed(place: impl FnOnce(&mut Room) -> usize) -> Option<String> {
        let mut room = [b'x'; ROOM];
        let length = place(&mut room);
        (length > 0).then(|| String::from_utf8_lossy(&room[..length]).into_owned())
    }

    /// The numbers up to 10^4, and those beside each multiple of a power of ten.
    fn numbers() -> impl Iterator<Item = u64> {
        let beside = |number: u64| [number.wrapping_sub(1), number, number + 1];
        let rounds = (0..16).flat_map(|power| (1..10).map(move |digit| digit * 10_u64.pow(power)));
        (0..10_000).chain(rounds.flat_map(beside))
    }

    #[test]
    fn integers_of_up_to_15_digits_are_placed() {
        for number in numbers().filter_map(|number| i64::try_from(number).ok()).flat_map(|number| [number, -number]) {
            let expected = (number.unsigned_abs() < TEN_TO_15).then(|| number.to_string());
            assert_eq!(placed(|room| int(number, room)), expected, "{number}");
        }
        assert_eq!(placed(|room| int(i64::MIN, room)), None);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "numbers with decimal places are the point of this test")]
    fn readings_have_the_shortest_form() {
        for units in numbers().filter(|units| (1..999_999_999_999).contains(units)) {
            for value in [units as f64 / 10_000.0, -(units as f64) / 10_000.0] {
                let expected = zmij::Buffer::new().format_finite(value).to_owned();
                let found = placed(|room| reading(value, room)).expect("a reading");
                assert!(
                    found == expected || value.abs() < 0.001 && found.parse() == Ok(value),
                    "{found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn other_floats_are_not_placed() {
        for value in [0.0, -0.0, 0.000_01, 1.000_01, 1e8, 1e12, 1e300, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
            assert_eq!(placed(|room| reading(value, room)), None, "{value}");
        }
    }

    #[test]
    fn four_digits_have_zeros_before_them() {
        for number in 0..10_000 {
            assert_eq!(four_digits(number).as_slice(), format!("{number:04}").as_bytes());
        }
    }

    #[test]
    fn booleans_are_placed() {
        assert_eq!(
            [true, false].map(|value| placed(|room| boolean(value, room))),
            ["true", "false"].map(|text| Some(text.to_owned()))
        );
    }

    #[test]
    fn only_the_bytes_of_a_string_are_looked_at() {
        for length in 0..=LONGEST_STRING {
            let mut bytes = [b'"'; 16];
            bytes[..length].fill(b'a');
            let expected = format!("\"{}\"", "a".repeat(length));
            assert_eq!(placed(|room| string(bytes, length, room)), Some(expected));
            for marked in 0..length {
                for byte in [b'"', b'\\', b'\n', 0, 0x1f] {
                    let mut escaped = bytes;
                    escaped[marked] = byte;
                    assert_eq!(placed(|room| string(escaped, length, room)), None, "{byte} at {marked} of {length}");
                }
            }
        }
        assert_eq!(placed(|room| string([b'a'; 16], LONGEST_STRING + 1, room)), None);
        let text = *b"\xc3\xa4\x7f\xe2\x82\xac          ";
        assert_eq!(placed(|room| string(text, 6, room)), Some("\"ä\u{7f}€\"".to_owned()));
    }
}
