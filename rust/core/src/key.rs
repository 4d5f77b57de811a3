//! Which keys of datapoints the platform can store.

use std::fmt;

/// Longest key, in characters (`platform_contract.md`, section 3: `KvUtils` refuses longer ones after the PUBACK).
pub const MAX_KEY_LENGTH: usize = 255;

/// A key that the platform would drop together with its whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Nothing in it, or only white space.
    Blank,
    /// More characters than [`MAX_KEY_LENGTH`].
    TooLong(usize),
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("it is blank"),
            Self::TooLong(length) => write!(f, "it has {length} characters"),
        }?;
        write!(f, ", a key has 1 to {MAX_KEY_LENGTH} characters and is not blank")
    }
}

/// What Unicode or Java (the server) or Python takes for white space: the separators 0x1C to 0x1F are not Unicode's.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Check the key of a datapoint.
///
/// # Errors
/// When the platform cannot store it.
#[inline]
pub fn validate(key: &str) -> Result<(), KeyRefusal> {
    let plain_start = key.as_bytes().first().is_some_and(u8::is_ascii_graphic);
    if !plain_start && key.chars().all(is_blank) {
        return Err(KeyRefusal::Blank);
    }
    if key.len() > MAX_KEY_LENGTH {
        let length = key.chars().count();
        if length > MAX_KEY_LENGTH {
            return Err(KeyRefusal::TooLong(length));
        }
    }
    Ok(())
}
