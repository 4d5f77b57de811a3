//! Encoded datapoints and their timestamps.
//!
//! A point is `"key":value,` with its comma, so any stretch of points is one slice to copy, and a record with these points
//! only drops the last byte. There is no index of points: the end of one is found in the bytes when a payload must be cut
//! between two of them, which is rare.

use std::fmt;
use std::num::NonZeroU32;
use std::slice;

use ahash::{AHashSet, RandomState};

use crate::json::Output;
use crate::numbers::{Conversions, Numbers};
use crate::short;

/// The number that means "no timestamp", so that a run has 16 bytes. No clock reaches it.
const NO_TIMESTAMP: i64 = i64::MIN;

/// Smaller numbers are times of a monotonic clock, counted from the middle of their range.
const FIRST_MILLIS: i64 = i64::MIN / 2;
const MONOTONIC_ZERO: i64 = FIRST_MILLIS + FIRST_MILLIS / 2;

/// Milliseconds since the epoch, milliseconds of a monotonic clock whose offset to the epoch is not known yet, or none, which is
/// before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// No timestamp.
    pub const NONE: Self = Self(NO_TIMESTAMP);

    /// The year 10000: the platform acknowledges datapoints from here on and stores none of them (`docs/platform_contract.md`,
    /// section 3).
    pub const END: i64 = 253_402_300_800_000;

    /// Make a timestamp. `None` if the platform cannot store it, or if the number is one that has another meaning.
    #[must_use]
    pub fn new(millis: i64) -> Option<Self> {
        (FIRST_MILLIS..Self::END).contains(&millis).then_some(Self(millis))
    }

    /// Make a time of a monotonic clock, in milliseconds. `None` if no monotonic clock has such a time.
    #[must_use]
    pub fn monotonic(millis: i64) -> Option<Self> {
        const LIMIT: i64 = 1 << 60;
        (-LIMIT..LIMIT).contains(&millis).then_some(Self(MONOTONIC_ZERO + millis))
    }

    /// Whether this is a time of a monotonic clock.
    #[must_use]
    pub fn is_monotonic(self) -> bool {
        self.0 < FIRST_MILLIS && self.0 != NO_TIMESTAMP
    }

    /// Return a time of a monotonic clock as milliseconds since the epoch, and any other timestamp unchanged. Times that the
    /// platform cannot store become none.
    ///
    /// `offset`: the time since the epoch when the monotonic clock is zero, in milliseconds.
    #[must_use]
    pub fn with_offset(self, offset: i64) -> Self {
        if !self.is_monotonic() {
            return self;
        }
        (self.0 - MONOTONIC_ZERO).checked_add(offset).and_then(Self::new).unwrap_or(Self::NONE)
    }

    /// Whether the number is more likely a time in seconds (1973 to 5138) or in microseconds (from 1973 on) than one in
    /// milliseconds, which would be in the early seventies or after the year 5138.
    #[must_use]
    pub fn is_suspicious(self) -> bool {
        matches!(self.0, 100_000_000..100_000_000_000 | 100_000_000_000_000..)
    }

    /// Return why a time is refused, for an error.
    ///
    /// `shown` is the time as its owner gave it, and `millis` the milliseconds since the epoch, if it has such a number.
    #[must_use]
    pub fn refusal(shown: &str, millis: Option<i64>) -> String {
        let end = Self::END;
        let Some(millis) = millis.filter(|millis| *millis >= end) else {
            return format!(
                "Invalid ts {shown}: allowed are None, milliseconds since the epoch (a number from -2**62 to below {end}), \
                 and a datetime with a timezone"
            );
        };
        let unit = unit_of(millis).map_or_else(String::new, |unit| format!(", and this looks like {unit}"));
        format!(
            "Invalid ts {shown}: the platform stores nothing from {end} (the year 10000) on; ts is in milliseconds since the \
             epoch{unit}"
        )
    }

    /// Return the milliseconds, if there is a timestamp.
    #[must_use]
    pub fn millis(self) -> Option<i64> {
        (self.0 != NO_TIMESTAMP).then_some(self.0)
    }

    /// Return this timestamp, or `other` if there is none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::NONE { other } else { self }
    }
}

/// Return the unit in which a number is a time between the years 2001 and 2100.
fn unit_of(number: i64) -> Option<&'static str> {
    let is_time = |divisor| (1_000_000_000_000..4_102_444_800_000).contains(&(number / divisor));
    [(1000, "microseconds"), (1_000_000, "nanoseconds")]
        .into_iter()
        .find_map(|(divisor, unit)| is_time(divisor).then_some(unit))
}

/// Points that follow each other, share a timestamp and have different keys.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The timestamp of all of them.
    pub timestamp: Timestamp,
    /// Number of points.
    pub count: NonZeroU32,
    /// Index after the last point in the bytes.
    end: u32,
}

/// Nearly every uplink has one run, which needs no allocation of its own. The type has 16 bytes: a count of 0 marks the second
/// variant, which is a single pointer.
#[derive(Debug, Clone)]
enum Runs {
    One(Run),
    Many(Option<Box<Box<[Run]>>>),
}

impl Default for Runs {
    fn default() -> Self {
        Self::Many(None)
    }
}

/// Encoded datapoints, in the order given.
#[derive(Debug, Clone, Default)]
pub struct Points {
    bytes: Box<[u8]>,
    runs: Runs,
    conversions: Conversions,
}

/// There may be a million of them in a queue.
const _: () = assert!(size_of::<Points>() <= 40);

impl Points {
    /// Return the bytes of all points, with one comma each.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    /// Return the number of datapoints.
    #[must_use]
    pub fn count(&self) -> usize {
        self.runs_slice().iter().map(|run| run.count.get() as usize).sum()
    }

    /// Return the conversions that were made when the datapoints were encoded for a client.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        self.conversions
    }

    /// Return the runs with their bytes.
    pub fn runs(&self) -> impl Iterator<Item = (Run, &[u8])> {
        let mut start = 0;
        self.runs_slice().iter().map(move |run| {
            let end = run.end as usize;
            let bytes = &self.bytes[start..end];
            start = end;
            (*run, bytes)
        })
    }

    /// Put stored points together: each run with its timestamp, its number of points and its number of bytes. `None` unless
    /// the runs have exactly these bytes.
    #[must_use]
    pub fn from_runs(bytes: &[u8], runs: &[(Timestamp, NonZeroU32, u32)], conversions: Conversions) -> Option<Self> {
        let mut end = 0_u32;
        let mut next = |&(timestamp, count, nbytes): &(Timestamp, NonZeroU32, u32)| {
            end = end.checked_add(nbytes)?;
            Some(Run { timestamp, count, end })
        };
        let runs = match runs {
            [] => Runs::Many(None),
            [run] => Runs::One(next(run)?),
            runs => Runs::Many(Some(Box::new(runs.iter().map(next).collect::<Option<_>>()?))),
        };
        (end as usize == bytes.len()).then(|| Self { bytes: bytes.into(), runs, conversions })
    }

    /// Return the bytes of all points.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Return the number of runs.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs_slice().len()
    }

    /// Return every point with its timestamp.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, Point<'_>)> {
        self.runs().flat_map(|(run, bytes)| PointIter(bytes).map(move |point| (run.timestamp, point)))
    }

    /// Return the points with other timestamps.
    #[must_use]
    pub fn with_timestamps(&self, map: impl Fn(Timestamp) -> Timestamp) -> Self {
        let mapped = |run: &Run| Run { timestamp: map(run.timestamp), ..*run };
        let runs = match &self.runs {
            Runs::One(run) => Runs::One(mapped(run)),
            Runs::Many(None) => Runs::Many(None),
            Runs::Many(Some(runs)) => Runs::Many(Some(Box::new(runs.iter().map(mapped).collect()))),
        };
        Self { bytes: self.bytes.clone(), runs, conversions: self.conversions }
    }

    /// Whether any point has a time of a monotonic clock.
    #[must_use]
    pub fn has_monotonic(&self) -> bool {
        self.runs_slice().iter().any(|run| run.timestamp.is_monotonic())
    }

    /// Return the points without a timestamp.
    pub fn unstamped(&self) -> impl Iterator<Item = Point<'_>> {
        let without = self.runs().filter(|(run, _)| run.timestamp == Timestamp::NONE);
        without.flat_map(|(_, bytes)| PointIter(bytes))
    }

    fn runs_slice(&self) -> &[Run] {
        match &self.runs {
            Runs::One(run) => slice::from_ref(run),
            Runs::Many(Some(runs)) => runs,
            Runs::Many(None) => &[],
        }
    }
}

/// One encoded datapoint, `"key":value,`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point<'a>(&'a [u8]);

impl<'a> Point<'a> {
    /// Return the point, with its comma.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Return the key as JSON, with its quotes.
    #[must_use]
    pub fn key(self) -> &'a [u8] {
        &self.0[..string_end(self.0, 0)]
    }

    /// Return the value as JSON.
    #[must_use]
    pub fn value(self) -> &'a [u8] {
        &self.0[string_end(self.0, 0) + 1..self.0.len() - 1]
    }
}

/// Iterates over encoded points.
#[derive(Debug, Clone)]
pub struct PointIter<'a>(pub &'a [u8]);

impl<'a> Iterator for PointIter<'a> {
    type Item = Point<'a>;

    fn next(&mut self) -> Option<Point<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (point, rest) = self.0.split_at(point_end(self.0));
        self.0 = rest;
        Some(Point(point))
    }
}

/// Return the index after the string that begins at `start`.
pub(crate) fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut index = start + 1;
    loop {
        match bytes[index] {
            b'"' => return index + 1,
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
}

/// Return the index after the comma of the first point.
fn point_end(bytes: &[u8]) -> usize {
    value_end(bytes, string_end(bytes, 0) + 1) + 1
}

/// Return the index of the comma or the closing bracket after the value that begins at `start`.
pub(crate) fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut index = start;
    let mut depth = 0_usize;
    loop {
        match bytes[index] {
            b'"' => {
                index = string_end(bytes, index);
                continue;
            }
            b',' | b']' | b'}' if depth == 0 => return index,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        index += 1;
    }
}

/// More encoded bytes, or more datapoints, than one uplink can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one send can have at most 4 GiB of encoded datapoints")
    }
}

/// Where runs end that are being appended.
#[derive(Debug)]
pub struct Ends<'b>(&'b mut Vec<Run>);

impl Ends<'_> {
    /// End a run of some points, after so many bytes of all runs. A run without points is none.
    ///
    /// # Errors
    /// When the uplink becomes too large.
    #[inline]
    pub fn push(&mut self, timestamp: Timestamp, count: usize, end: usize) -> Result<(), TooLarge> {
        let count = u32::try_from(count).map_err(|_| TooLarge)?;
        if let Some(count) = NonZeroU32::new(count) {
            let end = u32::try_from(end).map_err(|_| TooLarge)?;
            self.0.push(Run { timestamp, count, end });
        }
        Ok(())
    }
}

/// The number of keys among which another one is found faster by comparing it with each of them than with a hash table.
const FIRST_KEYS: usize = 16;

/// Collects points. Its buffers are kept for the next use; the collected points have exactly the size needed.
#[derive(Debug, Default)]
pub struct PointsBuilder {
    out: Output,
    runs: Vec<Run>,
    /// Hashes of the first keys of the last run, if `push_encoded` began it: most runs have no others.
    first_keys: Vec<u64>,
    /// Hashes of the other keys of runs, each mixed with its run's number, so that the set need not be cleared between runs.
    keys: AHashSet<u64>,
    hasher: RandomState,
    /// The number of runs, if `push_encoded` began the last one. The keys of runs that were pushed as a whole are not known.
    began: usize,
}

impl PointsBuilder {
    /// Remove all points and keep the memory. From here on, `numbers` converts values that are numbers.
    pub fn begin(&mut self, numbers: Numbers) {
        self.out.bytes.clear();
        self.out.numbers = numbers;
        self.runs.clear();
        self.keys.clear();
        self.began = 0;
    }

    /// Append a run of points with different keys. `write` appends `"key":value,` for each and returns their number.
    ///
    /// # Errors
    /// The error of `write`, or [`TooLarge`].
    #[inline]
    pub fn push_run<E: From<TooLarge>>(
        &mut self,
        timestamp: Timestamp,
        write: impl FnOnce(&mut Output) -> Result<usize, E>,
    ) -> Result<(), E> {
        let count = u32::try_from(write(&mut self.out)?).map_err(|_| TooLarge)?;
        if let Some(count) = NonZeroU32::new(count) {
            let end = self.end()?;
            self.runs.push(Run { timestamp, count, end });
        }
        Ok(())
    }

    /// Append runs of points with different keys. `write` appends the points of all of them, and says where each run ends.
    ///
    /// # Errors
    /// The error of `write`, or [`TooLarge`].
    #[inline]
    pub fn push_runs<E: From<TooLarge>>(
        &mut self,
        write: impl FnOnce(&mut Output, &mut Ends<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        write(&mut self.out, &mut Ends(&mut self.runs))
    }

    /// Append an encoded point: to the last run if this method began it, and timestamp and key allow it; otherwise to a new one.
    ///
    /// # Errors
    /// When the uplink becomes too large.
    pub fn push_encoded(&mut self, timestamp: Timestamp, key: &[u8], point: &[u8]) -> Result<(), TooLarge> {
        short::append(point, &mut self.out.bytes);
        self.extend_runs(timestamp, key)
    }

    /// Count the point at the end of the bytes: in the last run, or in a new one.
    fn extend_runs(&mut self, timestamp: Timestamp, key: &[u8]) -> Result<(), TooLarge> {
        let hash = self.hasher.hash_one(key);
        let end = self.end()?;
        // If two keys have one hash, there is one run more than needed, which does no harm.
        let continues = self.continues_run(timestamp, hash);
        match self.runs.last_mut() {
            Some(run) if continues => {
                run.count = run.count.saturating_add(1);
                run.end = end;
            }
            _ => {
                self.runs.push(Run { timestamp, count: NonZeroU32::MIN, end });
                self.first_keys.clear();
                self.first_keys.push(hash);
                self.began = self.runs.len();
            }
        }
        Ok(())
    }

    /// Append an encoded key and a value that `write` appends, as `push_encoded` does.
    ///
    /// # Errors
    /// The error of `write`, or [`TooLarge`].
    pub fn push_value<E: From<TooLarge>>(
        &mut self,
        timestamp: Timestamp,
        key: &[u8],
        write: impl FnOnce(&mut Output) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.bytes.extend_from_slice(key);
        self.out.bytes.push(b':');
        write(&mut self.out)?;
        self.out.bytes.push(b',');
        Ok(self.extend_runs(timestamp, key)?)
    }

    fn continues_run(&mut self, timestamp: Timestamp, hash: u64) -> bool {
        let Some(run) = self.runs.last() else { return false };
        if run.timestamp != timestamp || self.began != self.runs.len() || self.first_keys.contains(&hash) {
            return false;
        }
        if self.first_keys.len() < FIRST_KEYS {
            self.first_keys.push(hash);
            return true;
        }
        let number = self.runs.len() as u64;
        self.keys.insert(hash ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn end(&self) -> Result<u32, TooLarge> {
        u32::try_from(self.out.bytes.len()).map_err(|_| TooLarge)
    }

    /// Return the memory that the builder keeps, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.out.bytes.capacity() + self.runs.capacity() * size_of::<Run>() + self.keys.capacity() * size_of::<u64>()
    }

    /// Return the collected points and begin again.
    #[must_use]
    pub fn finish(&mut self) -> Points {
        let runs = match self.runs.as_slice() {
            [] => Runs::Many(None),
            [run] => Runs::One(*run),
            runs => Runs::Many(Some(Box::new(runs.into()))),
        };
        let conversions = self.out.numbers.conversions();
        let points = Points { bytes: self.out.bytes.as_slice().into(), runs, conversions };
        self.begin(Numbers::default());
        points
    }
}
