//! The keys that the platform can store.
//!
//! The rules are those of `docs/platform_contract.md`, section 3. The platform applies them after the PUBACK: it drops the whole
//! record, or the whole attributes message, that has a refused key.

use std::fmt;

use crate::json::write_str;
use crate::short::{HIGH, ONES, SHORT, any_marked, append_with, place};

/// Longest key, in UTF-16 code units: characters beyond U+FFFF count as two.
pub const MAX_KEY_LENGTH: usize = 255;

/// Why the platform would drop a key together with its whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRefusal {
    /// The key is empty or has only white space.
    Blank,
    /// The key has more UTF-16 code units than [`MAX_KEY_LENGTH`]: this many.
    TooLong(usize),
    /// The key has a control character.
    Control(char),
    /// The key has `<` followed by a letter, with or without white space between them.
    Tag,
    /// The key has `{{` and a later `}}`.
    Template,
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("it is blank, a key must have a character that is not white space"),
            Self::TooLong(length) => {
                write!(f, "it has {length} characters, counted as UTF-16 code units, a key can have {MAX_KEY_LENGTH}")
            }
            Self::Control(character) => {
                write!(
                    f,
                    "it has the control character U+{:04X}, the platform refuses such keys",
                    u32::from(*character)
                )
            }
            Self::Tag => f.write_str("it has '<' followed by a letter, the platform refuses such keys as HTML"),
            Self::Template => f.write_str("it has '{{' followed by '}}', the platform refuses such keys as templates"),
        }
    }
}

/// Whether Unicode, Java (the server) or Python considers a character white space. Unicode does not count the separators 0x1C to
/// 0x1F.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Append a key in quotes, and a colon, if it is a usual one: short ASCII that needs neither a full check nor an escape. Return
/// whether it was appended.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
pub fn write_plain(key: &str, out: &mut Vec<u8>) -> bool {
    let unusual = |word: u64| {
        // Each of these sets the highest bit of a byte. A carry or borrow comes only from a byte that is marked itself.
        let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
        // `<` and the backslash, and with the same bits a control character and `|`, which are marked anyway.
        let less_or_backslash = ((word | (ONES * 0x60)) ^ (ONES * 0x7c)).wrapping_sub(ONES);
        // Braces and the DEL character.
        let brace = word.wrapping_add(ONES * u64::from(0x80 - b'{'));
        (control_or_quote | less_or_backslash | brace | word) & HIGH
    };
    let bytes = key.as_bytes();
    let length = bytes.len();
    if length > SHORT || matches!(bytes, [] | [b' ', ..]) || any_marked(bytes, unusual) {
        return false;
    }
    append_with::<{ SHORT + 3 }>(out, |room| {
        room[0] = b'"';
        place(bytes, room, 1);
        room[length + 1] = b'"';
        room[length + 2] = b':';
        length + 3
    });
    true
}

/// Append any key in quotes, and a colon.
///
/// # Errors
/// When the platform cannot store the key; nothing is appended then.
pub fn write(key: &str, out: &mut Vec<u8>) -> Result<(), KeyRefusal> {
    if !write_plain(key, out) {
        validate(key)?;
        write_str(key, out);
        out.push(b':');
    }
    Ok(())
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
    // Rare characters first: a search for more than one character takes longer than all other checks.
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
