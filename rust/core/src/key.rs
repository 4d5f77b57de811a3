//! Which keys of datapoints the platform can store.
//!
//! The rules are those of `platform_contract.md`, section 3. The platform applies them after the PUBACK: a key that it refuses takes
//! the whole record, or the whole attributes message, with it.

use std::fmt;

use crate::json::write_str;

/// Longest key, in UTF-16 code units: characters beyond U+FFFF count as two.
pub const MAX_KEY_LENGTH: usize = 255;

/// Why the platform would drop a key together with its whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Nothing in it, or only white space.
    Blank,
    /// More UTF-16 code units than [`MAX_KEY_LENGTH`].
    TooLong(usize),
    /// A control character.
    Control(char),
    /// `<` with a letter behind it, or behind white space.
    Tag,
    /// `{{` and a later `}}`.
    Template,
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => write!(f, "it is blank, a key has 1 to {MAX_KEY_LENGTH} characters and is not blank"),
            Self::TooLong(length) => write!(
                f,
                "it has {length} characters, a key has 1 to {MAX_KEY_LENGTH} (counted as UTF-16 code units) and is not blank"
            ),
            Self::Control(character) => {
                write!(
                    f,
                    "it has the control character U+{:04X}, which the platform refuses in a key",
                    u32::from(*character)
                )
            }
            Self::Tag => f.write_str("it has '<' followed by a letter, which the platform refuses in a key as HTML"),
            Self::Template => {
                f.write_str("it has '{{' followed by '}}', which the platform refuses in a key as a template")
            }
        }
    }
}

/// What Unicode or Java (the server) or Python takes for white space: the separators 0x1C to 0x1F are not Unicode's.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Append a key in quotes.
///
/// # Errors
/// When the platform cannot store it; nothing is appended then.
#[inline]
pub fn write(key: &str, out: &mut Vec<u8>) -> Result<(), KeyRefusal> {
    if is_plain(key.as_bytes()) {
        out.reserve(key.len() + 2);
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
        return Ok(());
    }
    validate(key)?;
    write_str(key, out);
    Ok(())
}

/// Whether a key needs neither a closer look nor an escape: eight bytes at a time, since this is done for every datapoint.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let flags = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let quote = zero_byte(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_byte(word ^ (ONES * u64::from(b'\\')));
        let less = zero_byte(word ^ (ONES * u64::from(b'<')));
        // Braces, the DEL character and all that is not ASCII. A carry comes only from a byte that is flagged itself.
        let beyond = (word | word.wrapping_add(ONES * u64::from(0x80 - b'{'))) & HIGH;
        control | quote | backslash | less | beyond
    };
    let starts_visibly = bytes.first().is_some_and(|first| *first != b' ');
    if !starts_visibly || bytes.len() > MAX_KEY_LENGTH {
        return false;
    }
    // The last word may overlap the one before it: cheaper than a byte at a time.
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| matches!(byte, b' '..b'{') && !matches!(byte, b'"' | b'\\' | b'<'));
    };
    bytes.as_chunks().0.iter().fold(flags(last), |flagged, word| flagged | flags(word)) == 0
}

/// Check the key of a datapoint.
///
/// # Errors
/// When the platform cannot store it.
pub fn validate(key: &str) -> Result<(), KeyRefusal> {
    if key.chars().all(is_blank) {
        return Err(KeyRefusal::Blank);
    }
    if key.len() > MAX_KEY_LENGTH {
        let length = key.encode_utf16().count();
        if length > MAX_KEY_LENGTH {
            return Err(KeyRefusal::TooLong(length));
        }
    }
    if let Some(control) = key.chars().find(|character| character.is_control()) {
        return Err(KeyRefusal::Control(control));
    }
    let opens_tag = |rest: &str| rest.trim_start().starts_with(|first: char| first.is_ascii_alphabetic());
    if key.split('<').skip(1).any(opens_tag) {
        return Err(KeyRefusal::Tag);
    }
    if key.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}")) {
        return Err(KeyRefusal::Template);
    }
    Ok(())
}
