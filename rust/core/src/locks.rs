//! Several locks at once, without a deadlock.

use std::fmt;
use std::ptr;

/// One lock is in a list twice, by the two places in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// The earlier place.
    pub first: usize,
    /// The later place.
    pub second: usize,
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = self;
        write!(f, "requests must name each limit once, but requests[{first}] and requests[{second}] are the same limit")
    }
}

/// Acquire the lock of every request and return the guards in the order of the requests.
///
/// Two threads that acquire two locks in opposite orders can wait for each other forever. So the order of the requests does
/// not decide: locks are acquired by rising address, which is one order for all threads, because a lock that is borrowed here
/// cannot move.
///
/// # Errors
/// When two requests have one lock: the second acquisition would wait for the first. No lock is acquired then.
pub fn lock_all<'a, R, L: 'a, G>(
    requests: &'a [R],
    lock_of: impl Fn(&'a R) -> &'a L,
    acquire: impl Fn(&'a L) -> G,
) -> Result<Vec<G>, Repeated> {
    let mut order: Vec<_> = requests.iter().map(lock_of).enumerate().collect();
    // By place too, so that an equal pair is reported in the order of the requests.
    order.sort_unstable_by_key(|(place, lock)| (ptr::from_ref(*lock).addr(), *place));
    for pair in order.windows(2) {
        let [(first, lock), (second, next)] = [pair[0], pair[1]];
        if ptr::eq(lock, next) {
            return Err(Repeated { first, second });
        }
    }
    let mut guards: Vec<_> = order.into_iter().map(|(place, lock)| (place, acquire(lock))).collect();
    guards.sort_unstable_by_key(|(place, _)| *place);
    Ok(guards.into_iter().map(|(_, guard)| guard).collect())
}
