//! Remembers encoded keys by the identity of their string. Most programs use the same string objects as keys in every send, and
//! looking one up takes a quarter of the time of checking and encoding it.
#![expect(clippy::inline_always, reason = "called for every datapoint, where a call takes as long as the work")]

use pyo3::prelude::*;

use crate::convert::{PointRefusal, Value, write_key};

/// Number of keys. It is bounded because the cache keeps their strings alive.
const KEYS: usize = 1024;

/// Longest `"key":` that is remembered.
const LONGEST: usize = 48;

/// Keys after which the cache decides whether it is of use.
const TRIAL: usize = 512;

/// Keys that are encoded without the cache after a trial in which most were new objects.
const REST: usize = 16_384;

/// Encoded keys of one thread.
///
/// A string is immutable, and while the cache refers to it, no other object can have its address. If keys are new objects in
/// every send, as `json.loads` makes them, the cache rests for most of the time, because remembering a key takes longer than
/// encoding it.
pub struct KeyCache {
    slots: Box<[Slot; KEYS]>,
    seen: usize,
    missed: usize,
    resting: usize,
}

#[derive(Default)]
struct Slot {
    key: Option<Py<PyAny>>,
    length: u8,
    bytes: [[u8; 16]; LONGEST / 16],
}

/// One slot is one line of the processor's cache.
const _: () = assert!(size_of::<Slot>() <= 64);

impl Default for KeyCache {
    fn default() -> Self {
        let slots: Box<[Slot]> = std::iter::repeat_with(Slot::default).take(KEYS).collect();
        let slots = slots.try_into().unwrap_or_else(|_| unreachable!("as many slots as keys"));
        Self { slots, seen: 0, missed: 0, resting: 0 }
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
                slot.write(out);
                return Ok(());
            }
        }
        self.miss(place, name, out)
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
        let mut bytes = [[0; 16]; LONGEST / 16];
        bytes.as_flattened_mut()[..written.len()].copy_from_slice(written);
        Self { key: Some(name.0.clone().unbind()), length: u8::try_from(written.len()).unwrap_or_default(), bytes }
    }

    #[inline(always)]
    fn has(&self, name: &Value<'_>) -> bool {
        self.key.as_ref().is_some_and(|key| key.is(&name.0))
    }

    #[inline(always)]
    fn write(&self, out: &mut Vec<u8>) {
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
