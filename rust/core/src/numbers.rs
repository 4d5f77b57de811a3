//! Numbers that the platform would store as text, and the numbers that are written instead.
//!
//! The platform stores a decimal of at most 16 places as a number. A longer one becomes text, and so does an integer beyond 64 bits
//! (`docs/platform_contract.md`, section 3). Places are those of plain notation: `1.5e-10` has 11.

use std::iter::Sum;
use std::ops::Range;

/// Most decimal places of a number that the platform stores as a number.
pub const MAX_PLACES: u32 = 16;

/// Smallest rounded float, in units of the last place: it has six digits. Text loses less than rounding to fewer digits.
const LEAST_UNITS: u64 = 100_000;

/// Number of units of the last place in 1.
const UNITS_IN_ONE: f64 = 1e16;

/// Magnitudes of floats that are written as they are. From one half on, floats are so far apart that the shortest form of each
/// has 16 places or fewer; from 2^63 on they are integers beyond 64 bits.
pub const PLAIN: Range<f64> = 0.5..9_223_372_036_854_775_808.0;

/// Most digits with which every integer has 64 bits; also the bytes of a float with 16 places after a 0 and a point.
const LONGEST_PLAIN: usize = 18;

/// Conversions of some numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversions {
    /// Number of floats that were rounded, so that the platform stores them as numbers.
    pub rounded: u32,
    /// Number of numbers that were not rounded and that the platform stores as text.
    pub as_text: u32,
}

impl Sum for Conversions {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            rounded: sum.rounded.saturating_add(one.rounded),
            as_text: sum.as_text.saturating_add(one.as_text),
        })
    }
}

/// Converts numbers and counts conversions. By default nothing is rounded.
#[derive(Debug, Default)]
pub struct Numbers {
    round: bool,
    conversions: Conversions,
}

impl Numbers {
    /// Round floats of too many places if `round` is true. Otherwise every float is written in its shortest form.
    #[must_use]
    pub fn new(round: bool) -> Self {
        Self { round, conversions: Conversions::default() }
    }

    /// Return the conversions counted by now.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        self.conversions
    }

    /// Count an integer beyond 64 bits.
    pub fn large_integer(&mut self) {
        self.conversions.as_text += 1;
    }

    /// Return the float to write for a finite one that is not [`PLAIN`].
    #[inline(never)]
    #[expect(clippy::cast_precision_loss, reason = "half of 10^16 units are fewer than 2^53")]
    pub fn unusual_float(&mut self, value: f64) -> f64 {
        if value.abs() < PLAIN.start {
            let units = units(value);
            // Both sides are exact, so that this is the float nearest to the decimal.
            let rounded = (units as f64 / UNITS_IN_ONE).copysign(value);
            if rounded.to_bits() == value.to_bits() {
                // The float nearest to a decimal of 16 places: its shortest form is that one or a shorter one.
                return value;
            }
            if self.round && units >= LEAST_UNITS {
                self.conversions.rounded += 1;
                return rounded;
            }
        }
        self.conversions.as_text += 1;
        value
    }
}

/// Whether an encoded value may be a number that the platform stores as text.
#[must_use]
#[inline]
pub fn may_become_text(json: &[u8]) -> bool {
    if json[0] == b'"' {
        return false;
    }
    // An exponent has a sign and up to three digits.
    let exponent = matches!(json, [.., b'e', _, _] | [.., b'e', _, _, _] | [.., b'e', _, _, _, _]);
    let long = json.len() > LONGEST_PLAIN + usize::from(json[0] == b'-');
    (exponent || long) && matches!(json[0], b'-' | b'0'..=b'9')
}

/// Return the float with this JSON, if it is a float.
#[must_use]
pub fn float_of(json: &[u8]) -> Option<f64> {
    let digits = json.strip_prefix(b"-").unwrap_or(json);
    let float = digits[0].is_ascii_digit() && digits.iter().any(|byte| matches!(byte, b'.' | b'e'));
    if float { str::from_utf8(json).ok()?.parse().ok() } else { None }
}

/// Return the magnitude of `value` in units of the last place, to the nearest: of the exact value and not of its shortest form, a tie to
/// the even neighbour, as Python's `round(value, 16)` does. `value` is between -0.5 and 0.5.
#[expect(clippy::cast_possible_truncation, reason = "at most half of 10^16 units")]
fn units(value: f64) -> u64 {
    const FRACTION_BITS: u32 = f64::MANTISSA_DIGITS - 1;
    const FIVES: u64 = 5_u64.pow(MAX_PLACES);
    const HALF: u128 = 1 << 127;
    let bits = value.abs().to_bits();
    let mantissa = bits & ((1 << FRACTION_BITS) - 1) | (1 << FRACTION_BITS);
    let exponent = bits >> FRACTION_BITS;
    // value is mantissa * 2^(exponent - 1075), and a unit is 5^-16 * 2^-16. The mantissa has 53 bits, and 5^16 has 38.
    let product = u128::from(mantissa) * u128::from(FIVES);
    let shift = 1075 - u64::from(MAX_PLACES) - exponent;
    if shift > 53 + 38 {
        // Less than half a unit; the smallest floats too, whose mantissa has no leading bit.
        return 0;
    }
    let whole = (product >> shift) as u64;
    let rest = product << (128 - shift);
    // More than half, or half of an odd number.
    whole + u64::from(rest + u128::from(whole & 1) > HALF)
}
