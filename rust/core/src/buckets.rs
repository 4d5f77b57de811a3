//! Token buckets that refill continuously. All windows of all limits are taken at once, or none.
//!
//! A level is counted in fractions of a token: one token is as many units as the window has nanoseconds, and each
//! nanosecond adds as many units as the window has tokens. So all arithmetic is exact, and the returned wait is
//! neither too short, which would make the caller try again, nor too long.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::locks::{Repeated, lock_all};

/// One window of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens when full.
    pub capacity: u64,
    /// Time to refill from empty.
    pub duration: Duration,
}

/// Why a window is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRefusal {
    /// The capacity is 0.
    ZeroCapacity,
    /// The duration is shorter than a nanosecond.
    ZeroDuration,
    /// The duration in nanoseconds has more than 64 bits.
    DurationTooLong,
}

impl fmt::Display for WindowRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCapacity => "a window's capacity must be at least 1",
            Self::ZeroDuration => "a window's duration must be at least one nanosecond",
            Self::DurationTooLong => "a window's duration must be less than 584 years",
        })
    }
}

/// The wait after a take that got no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Nanoseconds until the take succeeds.
    pub nanos: u64,
    /// The window with the longest wait.
    pub window: Window,
}

/// A take that no wait would make possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Impossible {
    /// Requested tokens.
    pub amount: u64,
    /// The window with a smaller capacity.
    pub window: Window,
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { amount, window } = self;
        write!(f, "amount must be at most {}, the capacity of a window, not {amount}", window.capacity)
    }
}

/// An index without a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownWindow {
    /// The index.
    pub index: usize,
    /// Number of windows.
    pub windows: usize,
}

impl fmt::Display for UnknownWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, windows } = self;
        write!(f, "window must be less than {windows}, the number of windows, not {index}")
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    window: Window,
    nanos: u64,
    level: u128,
}

impl Bucket {
    fn new(window: Window) -> Result<Self, WindowRefusal> {
        let nanos = u64::try_from(window.duration.as_nanos()).map_err(|_| WindowRefusal::DurationTooLong)?;
        if window.capacity == 0 {
            return Err(WindowRefusal::ZeroCapacity);
        }
        if nanos == 0 {
            return Err(WindowRefusal::ZeroDuration);
        }
        let mut bucket = Self { window, nanos, level: 0 };
        bucket.level = bucket.full();
        Ok(bucket)
    }

    fn units(&self, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(self.nanos)
    }

    fn full(&self) -> u128 {
        self.units(self.window.capacity)
    }

    fn refill(&mut self, elapsed: u64) {
        let refill = u128::from(elapsed) * u128::from(self.window.capacity);
        self.level = self.level.saturating_add(refill).min(self.full());
    }

    fn wait(&self, amount: u64) -> u64 {
        let missing = self.units(amount).saturating_sub(self.level);
        let nanos = missing.div_ceil(u128::from(self.window.capacity));
        u64::try_from(nanos).expect("a bucket is full after its duration, which fits")
    }

    #[expect(clippy::cast_precision_loss, reason = "only reports use the number")]
    fn tokens(&self) -> f64 {
        self.level as f64 / self.nanos as f64
    }
}

/// All windows of one limit. Without a window it admits everything.
#[derive(Debug, Clone)]
pub struct Buckets {
    buckets: Vec<Bucket>,
    updated: i64,
}

impl Buckets {
    /// Make full buckets. `now` is in nanoseconds of one clock, which later calls must use too.
    ///
    /// # Errors
    /// When a window is refused.
    pub fn new(windows: &[Window], now: i64) -> Result<Self, WindowRefusal> {
        let buckets = windows.iter().copied().map(Bucket::new).collect::<Result<_, _>>()?;
        Ok(Self { buckets, updated: now })
    }

    /// Return the windows, in the order given.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        self.buckets.iter().map(|bucket| bucket.window)
    }

    /// Return the largest amount that can be taken at once, if there is a limit.
    #[must_use]
    pub fn smallest_capacity(&self) -> Option<u64> {
        self.windows().map(|window| window.capacity).min()
    }

    /// Return the tokens in each window.
    pub fn tokens(&mut self, now: i64) -> Vec<f64> {
        self.refill(now);
        self.buckets.iter().map(Bucket::tokens).collect()
    }

    /// Return the wait of a take of `amount`: the longest of all windows, or none if it would succeed.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn wait(&mut self, amount: u64, now: i64) -> Result<Option<Wait>, Impossible> {
        self.refill(now);
        let mut longest: Option<Wait> = None;
        for bucket in &self.buckets {
            let window = bucket.window;
            if amount > window.capacity {
                return Err(Impossible { amount, window });
            }
            let nanos = bucket.wait(amount);
            if nanos > longest.map_or(0, |wait| wait.nanos) {
                longest = Some(Wait { nanos, window });
            }
        }
        Ok(longest)
    }

    /// Take `amount` from every window, or from none.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn take(&mut self, amount: u64, now: i64) -> Result<Option<Wait>, Impossible> {
        let wait = self.wait(amount, now)?;
        if wait.is_none() {
            self.remove(amount);
        }
        Ok(wait)
    }

    /// Take up to `amount` from each window, to count a message that was sent without taking tokens first.
    pub fn spend(&mut self, amount: u64, now: i64) {
        self.refill(now);
        self.remove(amount);
    }

    /// Take up to `amount` from one window only.
    ///
    /// # Errors
    /// When there is no window with this index.
    pub fn spend_window(&mut self, index: usize, amount: u64, now: i64) -> Result<(), UnknownWindow> {
        self.refill(now);
        let windows = self.buckets.len();
        let bucket = self.buckets.get_mut(index).ok_or(UnknownWindow { index, windows })?;
        bucket.level = bucket.level.saturating_sub(bucket.units(amount));
        Ok(())
    }

    /// Replace the windows. A window with the duration of an earlier one keeps that one's spent tokens.
    ///
    /// # Errors
    /// When a window is refused; nothing is changed then.
    pub fn set_windows(&mut self, windows: &[Window], now: i64) -> Result<(), WindowRefusal> {
        self.refill(now);
        let mut new = Self::new(windows, self.updated)?;
        for bucket in &mut new.buckets {
            if let Some(old) = self.buckets.iter().find(|old| old.nanos == bucket.nanos) {
                bucket.level = bucket.level.saturating_sub(old.full() - old.level);
            }
        }
        *self = new;
        Ok(())
    }

    fn remove(&mut self, amount: u64) {
        for bucket in &mut self.buckets {
            bucket.level = bucket.level.saturating_sub(bucket.units(amount));
        }
    }

    fn refill(&mut self, now: i64) {
        // When the clock goes back nothing is refilled, and no span of time is counted twice when it advances again.
        if now > self.updated {
            let elapsed = now.abs_diff(self.updated);
            self.buckets.iter_mut().for_each(|bucket| bucket.refill(elapsed));
            self.updated = now;
        }
    }
}

/// The buckets of one limit, for several threads.
#[derive(Debug)]
pub struct SharedBuckets(Mutex<Buckets>);

impl SharedBuckets {
    /// Put buckets behind a lock.
    #[must_use]
    pub fn new(buckets: Buckets) -> Self {
        Self(Mutex::new(buckets))
    }

    /// Wait until no other thread uses the buckets.
    pub fn lock(&self) -> MutexGuard<'_, Buckets> {
        // A panic cannot leave a bucket half changed: each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why tokens of several limits cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeAllRefusal {
    /// An amount is larger than a capacity.
    Impossible(Impossible),
    /// A limit is named twice.
    Repeated(Repeated),
}

impl fmt::Display for TakeAllRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(refusal) => refusal.fmt(f),
            Self::Repeated(refusal) => refusal.fmt(f),
        }
    }
}

impl From<Impossible> for TakeAllRefusal {
    fn from(refusal: Impossible) -> Self {
        Self::Impossible(refusal)
    }
}

impl From<Repeated> for TakeAllRefusal {
    fn from(refusal: Repeated) -> Self {
        Self::Repeated(refusal)
    }
}

/// Take tokens of several limits, each with its amount: all of them, or none.
///
/// Threads may name the same limits in any order: [`lock_all`] keeps them from a deadlock.
///
/// # Errors
/// When no wait would help, or when a limit is named twice.
pub fn take_all(requests: &[(&SharedBuckets, u64)], now: i64) -> Result<Option<Wait>, TakeAllRefusal> {
    let mut guards = lock_all(requests, |(limit, _)| *limit, SharedBuckets::lock)?;
    let mut longest: Option<Wait> = None;
    for (buckets, (_, amount)) in guards.iter_mut().zip(requests) {
        if let Some(wait) = buckets.wait(*amount, now)?
            && wait.nanos > longest.map_or(0, |longest| longest.nanos)
        {
            longest = Some(wait);
        }
    }
    if longest.is_none() {
        for (buckets, (_, amount)) in guards.iter_mut().zip(requests) {
            buckets.remove(*amount);
        }
    }
    Ok(longest)
}
