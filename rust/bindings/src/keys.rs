//! Remembers encoded keys by the identity of their string. Most programs use the same string objects as keys in every send, and
//! looking one up takes a quarter of the time of checking and encoding it. Other programs have new strings in every send, but with the
//! same keys in the same order; comparing one with the key that was at its place before takes half of that time.
#![expect(clippy::inline_always, reason = "called for every datapoint, where a call takes as long as the work")]

use pyo3::prelude::*;
use tb_mqtt_core::json::{Node, Text};
use tb_mqtt_core::short;

use crate::convert::{PointRefusal, Value, write_key};

/// Number of keys. It is bounded because the cache keeps their strings alive.
const KEYS: usize = 1024;

/// Longest `"key":` that is remembered.
const LONGEST: usize = 48;

/// Keys after which the cache decides whether it is of use.
const TRIAL: usize = 512;

/// Keys that are encoded without the cache after a trial in which most were new objects.
const REST: usize = 16_384;

/// Keys of a dict that are expected at the same places of the next one.
const EXPECTED: usize = 64;

/// Encoded keys of one thread.
///
/// A string is immutable, and while the cache refers to it, no other object can have its address. If keys are new objects in
/// every send, as `json.loads` makes them, the cache rests for most of the time, because remembering a key takes longer than
/// encoding it. Then it knows only the texts of the keys of the last dict.
pub struct KeyCache {
    slots: Box<[Slot; KEYS]>,
    expected: Vec<Written>,
    seen: usize,
    missed: usize,
    resting: usize,
}

#[derive(Default)]
struct Slot {
    key: Option<Py<PyAny>>,
    written: Written,
}

/// `"key":`, or nothing.
#[derive(Default)]
struct Written {
    length: u8,
    bytes: [[u8; 16]; LONGEST / 16],
}

/// One slot is one line of the processor's cache.
const _: () = assert!(size_of::<Slot>() <= 64);

impl Default for KeyCache {
    fn default() -> Self {
        let slots: Box<[Slot]> = std::iter::repeat_with(Slot::default).take(KEYS).collect();
        let slots = slots.try_into().unwrap_or_else(|_| unreachable!("as many slots as keys"));
        Self { slots, expected: Vec::new(), seen: 0, missed: 0, resting: 0 }
    }
}

impl KeyCache {
    /// Begin the datapoints of one dict. Return whether its keys are worth a look into the cache.
    #[inline]
    pub fn is_awake(&mut self, keys: usize) -> bool {
        if self.resting == 0 {
            self.seen += keys;
            return true;
        }
        self.resting = self.resting.saturating_sub(keys);
        false
    }

    /// End the datapoints of one dict.
    #[inline]
    pub fn judge(&mut self) {
        if self.seen >= TRIAL {
            if self.missed * 2 > self.seen {
                self.resting = REST;
            }
            (self.seen, self.missed) = (0, 0);
        }
    }

    /// Append `"key":`.
    #[inline(always)]
    pub fn write(&mut self, name: &Value<'_>, out: &mut Vec<u8>) -> Result<(), PointRefusal> {
        let place = place_of(name);
        for slot in [&self.slots[place], &self.slots[place ^ 1]] {
            if slot.has(name) {
                slot.written.append_to(out);
                return Ok(());
            }
        }
        self.miss(place, name, out)
    }

    /// Append `"key":` while the cache rests. `place`: the number of the key in its dict.
    #[inline(always)]
    pub fn write_new(&mut self, place: usize, name: &Value<'_>, out: &mut Vec<u8>) -> Result<(), PointRefusal> {
        if let Text::Sound(text) = name.text()
            && let Some(expected) = self.expected.get(place)
            && expected.is(text)
        {
            expected.append_to(out);
            return Ok(());
        }
        self.expect(place, name, out)
    }

    #[inline(never)]
    fn expect(&mut self, place: usize, name: &Value<'_>, out: &mut Vec<u8>) -> Result<(), PointRefusal> {
        let start = out.len();
        write_key(name, out)?;
        if place < EXPECTED {
            let written = &out[start..];
            // With an escape, the text between the quotes is that of another key.
            let is_plain = matches!(name.text(), Text::Sound(text) if text.len() + 3 == written.len());
            self.expected.resize_with(self.expected.len().max(place + 1), Written::default);
            self.expected[place] = if is_plain { Written::new(written) } else { Written::default() };
        }
        Ok(())
    }

    #[inline(never)]
    fn miss(&mut self, place: usize, name: &Value<'_>, out: &mut Vec<u8>) -> Result<(), PointRefusal> {
        let start = out.len();
        write_key(name, out)?;
        self.missed += 1;
        if out.len() - start <= LONGEST {
            // The older key of the two stays.
            self.slots.swap(place, place ^ 1);
            self.slots[place] = Slot::new(name, &out[start..]);
        }
        Ok(())
    }
}

impl Slot {
    fn new(name: &Value<'_>, written: &[u8]) -> Self {
        Self { key: Some(name.0.clone().unbind()), written: Written::new(written) }
    }

    #[inline(always)]
    fn has(&self, name: &Value<'_>) -> bool {
        self.key.as_ref().is_some_and(|key| key.is(&name.0))
    }
}

impl Written {
    /// Copy a key that is not too long, or nothing.
    fn new(written: &[u8]) -> Self {
        let mut new = Self::default();
        if let Some(bytes) = new.bytes.as_flattened_mut().get_mut(..written.len()) {
            bytes.copy_from_slice(written);
            new.length = u8::try_from(written.len()).unwrap_or_default();
        }
        new
    }

    /// Whether it is this key, which was written without an escape.
    #[inline(always)]
    fn is(&self, key: &str) -> bool {
        usize::from(self.length) == key.len() + 3
            && self
                .bytes
                .as_flattened()
                .get(1..=key.len())
                .is_some_and(|written| short::are_equal(written, key.as_bytes()))
    }

    #[inline(always)]
    fn append_to(&self, out: &mut Vec<u8>) {
        // A copy of a fixed size is faster than one of the exact size.
        let end = out.len() + usize::from(self.length);
        out.extend_from_slice(self.bytes.as_flattened());
        out.truncate(end);
    }
}

/// Return the place of a key: the upper bits of its address times a large odd number.
#[inline(always)]
fn place_of(name: &Value<'_>) -> usize {
    let mixed = (name.0.as_ptr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> (u64::BITS - KEYS.trailing_zeros())).unwrap_or_default() % KEYS
}
