//! Which keys of datapoints the platform can store.
//!
//! The rules are those of `docs/platform_contract.md`, section 3. The platform applies them after the PUBACK: a key that it refuses
//! takes the whole record, or the whole attributes message, with it.

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

/// Append a key in quotes, if it is one of the usual ones that need neither a closer look nor an escape. Whether it was.
#[inline]
pub fn write_plain(key: &str, out: &mut Vec<u8>) -> bool {
    let plain = is_plain(key.as_bytes());
    if plain {
        out.reserve(key.len() + 2);
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.push(b'"');
    }
    plain
}

/// Append any key in quotes.
///
/// # Errors
/// When the platform cannot store it; nothing is appended then.
pub fn write(key: &str, out: &mut Vec<u8>) -> Result<(), KeyRefusal> {
    if !write_plain(key, out) {
        validate(key)?;
        write_str(key, out);
    }
    Ok(())
}

/// Whether a key needs neither a closer look nor an escape: eight bytes at a time, since this is done for every datapoint.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    /// Begins the control characters beyond ASCII, among others.
    const LATIN: u8 = 0xc2;
    let flags = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        // Each of these sets the highest bit of a byte. A carry or borrow comes only from a byte that is flagged itself.
        let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
        // `<` and the backslash, and with the same bits a control character and `|`, which are flagged anyway.
        let less_or_backslash = ((word | (ONES * 0x60)) ^ (ONES * 0x7c)).wrapping_sub(ONES);
        // Braces and the DEL character.
        let brace = word.wrapping_add(ONES * u64::from(0x80 - b'{'));
        let latin = (word ^ (ONES * u64::from(LATIN))).wrapping_sub(ONES);
        ((control_or_quote | less_or_backslash | brace) & !word | latin & word) & HIGH
    };
    // No character that begins with another byte is white space. There are never more UTF-16 code units than bytes.
    let is_visible = |first: &u8| !matches!(*first, b' ' | LATIN | 0xe1..=0xe3);
    if !bytes.first().is_some_and(is_visible) || bytes.len() > MAX_KEY_LENGTH {
        return false;
    }
    // The last word may overlap the one before it: cheaper than a byte at a time.
    let Some(last) = bytes.last_chunk() else {
        return !bytes.iter().any(|byte| matches!(*byte, ..b' ' | b'{'..=0x7f | b'"' | b'\\' | b'<' | LATIN));
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
    // Rare characters first: searching for more than one character at a time takes longer than all of the rest.
    if key.contains('<') {
        let opens_tag = |rest: &str| rest.trim_start().starts_with(|first: char| first.is_ascii_alphabetic());
        if key.split('<').skip(1).any(opens_tag) {
            return Err(KeyRefusal::Tag);
        }
    }
    if key.contains('{') && key.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}")) {
        return Err(KeyRefusal::Template);
    }
    Ok(())
}
