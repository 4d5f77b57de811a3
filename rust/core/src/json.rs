//! Writes JSON values: compact, UTF-8, in the caller's order, the shortest form of every float.

use std::fmt;

use crate::numbers::{MAX_PLACES, Numbers, PLAIN};
use crate::short::{SHORT, any_marked, append_with, place};
use crate::small::{self, ROOM, Room, escaped};

/// Deepest nesting of lists and dicts in one value.
pub const MAX_DEPTH: usize = 128;

/// Bytes of the longest number that is written here, a float such as `-1.2345678901234567e-308`.
const LONGEST_NUMBER: usize = 24;

/// A value of another representation (a Python object, a test's tree) that can be written as JSON.
pub trait Node: Sized {
    /// The elements of a list.
    type Items: Iterator<Item = Self>;
    /// The keys and values of a dict.
    type Pairs: Iterator<Item = (Self, Self)>;

    /// Return the kind and content of this value.
    fn shape(&self) -> Shape<'_, Self>;

    /// Return the text of this value, if it is a string. Used for dict keys.
    fn text(&self) -> Text<'_>;

    /// Return the name of the value's type and its printed form. Used only when the value is refused.
    fn describe(&self) -> (String, String);
}

/// The kinds of value that the writer knows.
pub enum Shape<'a, N: Node> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A larger integer, already written as digits.
    Digits(String),
    /// A floating-point number.
    Float(f64),
    /// A floating-point number of 32 bits, whose shortest form has fewer digits.
    ShortFloat(f32),
    /// A decimal in plain notation, with a minus sign and a point if needed.
    Decimal(String),
    /// A string.
    Text(&'a str),
    /// A string that was made from another value, such as a time.
    OwnText(String),
    /// A string with a lone surrogate, which cannot be encoded as UTF-8.
    BrokenText,
    /// A list.
    List(N::Items),
    /// A dict.
    Dict(N::Pairs),
    /// A value that JSON cannot represent.
    Unsupported,
}

/// The result of [`Node::text`].
pub enum Text<'a> {
    /// A string.
    Sound(&'a str),
    /// A string with a lone surrogate, which cannot be encoded as UTF-8.
    Broken,
    /// Something else.
    Other,
}

/// One step on the way from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a dict, by key.
    Key(String),
    /// Into a list, by index.
    Index(usize),
}

/// Why a value cannot be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// A type that JSON cannot carry.
    Unsupported {
        /// The type's name.
        type_name: String,
        /// The value as the other world prints it.
        repr: String,
    },
    /// A dict key that is not a string.
    KeyNotText {
        /// The type's name.
        type_name: String,
        /// The key as the other world prints it.
        repr: String,
    },
    /// NaN or an infinity.
    NotFinite(f64),
    /// A string with a lone surrogate.
    LoneSurrogate,
    /// More than [`MAX_DEPTH`] lists and dicts inside each other.
    TooDeep,
}

impl Reason {
    /// Whether JSON has no form for such a value; it has one for numbers, of which only some are refused.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        !matches!(self, Self::NotFinite(_))
    }
}

/// A value that was refused: where and why.
///
/// It is a single pointer, so that a writer's result fits in a register.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal(Box<Refused>);

#[derive(Debug, Clone, PartialEq)]
struct Refused {
    /// Steps from the refused part up to the whole: innermost first, because they are collected on the way out.
    steps: Vec<Step>,
    reason: Reason,
}

impl Refusal {
    #[cold]
    fn new(reason: Reason) -> Self {
        Self(Box::new(Refused { steps: Vec::new(), reason }))
    }

    #[cold]
    fn inside(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// Return the reason.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// Return the path from the whole value (`$`) to the refused part.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::from("$");
        for step in self.0.steps.iter().rev() {
            match step {
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => {
                    path.push('[');
                    path.push_str(itoa::Buffer::new().format(*index));
                    path.push(']');
                }
            }
        }
        path
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        match self.reason() {
            Reason::Unsupported { type_name, repr } => {
                write!(
                    f,
                    "Invalid JSON value at {path}: unsupported - {type_name} ({repr}), \
                     allowed are None, bool, int, float, str, list and dict"
                )
            }
            Reason::KeyNotText { type_name, repr } => {
                write!(f, "Invalid JSON key at {path}: expected str, got {type_name} ({repr})")
            }
            Reason::NotFinite(value) => {
                let name = if value.is_nan() {
                    "nan"
                } else if *value > 0.0 {
                    "inf"
                } else {
                    "-inf"
                };
                write!(f, "Invalid JSON value at {path}: {name} is not a JSON number, numbers must be finite")
            }
            Reason::LoneSurrogate => {
                write!(f, "Invalid JSON string at {path}: lone surrogates cannot be encoded as UTF-8")
            }
            Reason::TooDeep => {
                write!(f, "Invalid JSON value at {path}: lists and dicts must be nested at most {MAX_DEPTH} deep")
            }
        }
    }
}

/// JSON that is being written.
#[derive(Debug, Default)]
pub struct Output {
    /// The text.
    pub bytes: Vec<u8>,
    /// Converts a value that is a number. Numbers in lists and dicts are not converted, because the platform stores those as
    /// JSON.
    pub numbers: Numbers,
}

/// Append `node` as JSON. On refusal `out` has a part of the value; the caller removes it.
///
/// # Errors
/// When the value or a part of it cannot be written as JSON.
#[inline]
pub fn write_value<N: Node>(node: &N, out: &mut Output) -> Result<(), Refusal> {
    write_at_depth(node, out, 0)
}

/// Inlined, because the usual value is a number or a text. Lists and dicts call it again.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
fn write_at_depth<N: Node>(node: &N, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    match node.shape() {
        Shape::Float(value) => write_float(value, out, depth)?,
        Shape::Int(value) => write_int(value, &mut out.bytes),
        Shape::Text(text) => write_str(text, &mut out.bytes),
        Shape::Bool(true) => out.bytes.extend_from_slice(b"true"),
        Shape::Bool(false) => out.bytes.extend_from_slice(b"false"),
        Shape::Null => out.bytes.extend_from_slice(b"null"),
        Shape::Digits(digits) => write_digits(&digits, out, depth),
        Shape::ShortFloat(value) => write_short_float(value, out, depth)?,
        Shape::OwnText(text) => write_str(&text, &mut out.bytes),
        Shape::Decimal(decimal) => write_decimal(&decimal, out, depth)?,
        Shape::List(items) => write_list::<N>(items, out, deeper(depth)?)?,
        Shape::Dict(pairs) => write_dict::<N>(pairs, out, deeper(depth)?)?,
        Shape::BrokenText => return Err(Refusal::new(Reason::LoneSurrogate)),
        Shape::Unsupported => return Err(unsupported(node)),
    }
    Ok(())
}

#[cold]
fn unsupported<N: Node>(node: &N) -> Refusal {
    let (type_name, repr) = node.describe();
    Refusal::new(Reason::Unsupported { type_name, repr })
}

#[cold]
fn write_digits(digits: &str, out: &mut Output, depth: usize) {
    if depth == 0 {
        out.numbers.large_integer();
    }
    out.bytes.extend_from_slice(digits.as_bytes());
}

/// Append a decimal with all its digits, unless the platform would store it as text: then as the float next to it.
#[inline(never)]
fn write_decimal(decimal: &str, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    if depth == 0 {
        let Some((_, fraction)) = decimal.split_once('.') else {
            if decimal.parse::<i64>().is_err() {
                out.numbers.large_integer();
            }
            out.bytes.extend_from_slice(decimal.as_bytes());
            return Ok(());
        };
        if fraction.len() > MAX_PLACES as usize
            && let Ok(float) = decimal.parse()
        {
            return write_float(float, out, depth);
        }
    }
    out.bytes.extend_from_slice(decimal.as_bytes());
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, Refusal> {
    if depth == MAX_DEPTH {
        return Err(Refusal::new(Reason::TooDeep));
    }
    Ok(depth + 1)
}

#[inline(never)]
fn write_list<N: Node>(items: N::Items, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    out.bytes.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.bytes.push(b',');
        }
        write_at_depth(&item, out, depth).map_err(|refusal| refusal.inside(Step::Index(index)))?;
    }
    out.bytes.push(b']');
    Ok(())
}

#[inline(never)]
fn write_dict<N: Node>(pairs: N::Pairs, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    out.bytes.push(b'{');
    for (index, (key, value)) in pairs.enumerate() {
        if index > 0 {
            out.bytes.push(b',');
        }
        let text = text_of(&key)?;
        write_str(text, &mut out.bytes);
        out.bytes.push(b':');
        write_at_depth(&value, out, depth).map_err(|refusal| refusal.inside(Step::Key(text.to_owned())))?;
    }
    out.bytes.push(b'}');
    Ok(())
}

/// Return the text of a dict key.
///
/// # Errors
/// When the key is not a string, or cannot be encoded as UTF-8.
#[inline]
pub fn text_of<N: Node>(key: &N) -> Result<&str, Refusal> {
    match key.text() {
        Text::Sound(text) => Ok(text),
        Text::Broken => Err(Refusal::new(Reason::LoneSurrogate)),
        Text::Other => Err(not_text(key)),
    }
}

#[cold]
fn not_text<N: Node>(key: &N) -> Refusal {
    let (type_name, repr) = key.describe();
    Refusal::new(Reason::KeyNotText { type_name, repr })
}

#[inline]
fn write_float(mut value: f64, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    if append_small(&mut out.bytes, |room| small::reading(value, room)) {
        return Ok(());
    }
    // One comparison answers two questions: whether it is finite, and whether the platform stores it as a number.
    if !PLAIN.contains(&value.abs()) {
        if !value.is_finite() {
            return Err(Refusal::new(Reason::NotFinite(value)));
        }
        if depth == 0 {
            value = out.numbers.unusual_float(value);
        }
    }
    append_number(zmij::Buffer::new().format_finite(value), &mut out.bytes);
    Ok(())
}

#[inline]
fn write_short_float(value: f32, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    if PLAIN.contains(&f64::from(value.abs())) {
        append_number(zmij::Buffer::new().format_finite(value), &mut out.bytes);
        return Ok(());
    }
    write_unusual_short_float(value, out, depth)
}

/// Append the float of 64 bits with the same shortest form, by the rules for those.
#[inline(never)]
fn write_unusual_short_float(value: f32, out: &mut Output, depth: usize) -> Result<(), Refusal> {
    let same = if value.is_finite() { zmij::Buffer::new().format_finite(value).parse().ok() } else { None };
    write_float(same.unwrap_or(f64::from(value)), out, depth)
}

/// Append an integer as digits.
#[inline]
pub fn write_int(value: i64, out: &mut Vec<u8>) {
    if !append_small(out, |room| small::int(value, room)) {
        append_number(itoa::Buffer::new().format(value), out);
    }
}

/// Append what `place` puts into a room. Return whether it is anything.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
fn append_small(out: &mut Vec<u8>, place: impl FnOnce(&mut Room) -> usize) -> bool {
    let start = out.len();
    append_with::<ROOM>(out, place);
    out.len() > start
}

/// Append the text of a number, which has at most 24 bytes.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
fn append_number(text: &str, out: &mut Vec<u8>) {
    append_with::<LONGEST_NUMBER>(out, |room| {
        place(text.as_bytes(), room, 0);
        text.len()
    });
}

/// Append a string in quotes, with the escapes that JSON requires and no others.
#[inline]
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if any_marked(bytes, escaped) {
        write_escaped(bytes, out);
    } else if bytes.len() <= SHORT {
        append_with::<{ SHORT + 2 }>(out, |room| {
            room[0] = b'"';
            place(bytes, room, 1);
            room[bytes.len() + 1] = b'"';
            bytes.len() + 2
        });
    } else {
        out.reserve(bytes.len() + 2);
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    }
}

#[cold]
fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[written..index]);
        written = index + 1;
        if escape == b'u' {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// The letter after the backslash for each byte that must be escaped, `u` for the long form, 0 for all others.
const ESCAPES: [u8; 256] = {
    let mut table = [0_u8; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};
