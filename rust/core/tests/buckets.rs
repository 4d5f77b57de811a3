//! Over any span of time no window admits more than its capacity and its refill, and a returned wait is exact.

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tb_mqtt_core::buckets::{Buckets, SharedBuckets, TakeAllRefusal, Window, take_all};
use tb_mqtt_core::locks::Repeated;

fn window(capacity: u64, nanos: u64) -> Window {
    Window { capacity, duration: Duration::from_nanos(nanos) }
}

fn shared(windows: &[Window]) -> SharedBuckets {
    SharedBuckets::new(Buckets::new(windows, 0).expect("sound windows"))
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    prop::collection::vec((1_u64..1000, 1_u64..10_000_000_000).prop_map(|(c, n)| window(c, n)), 1..4)
}

proptest! {
    /// Between any two takes, the admitted sum is at most the capacity plus the refill.
    #[test]
    fn never_more_than_capacity_and_refill(
        windows in windows(),
        takes in prop::collection::vec((0_u64..2_000_000_000, 0_u64..200), 1..60),
    ) {
        let mut buckets = Buckets::new(&windows, 0).expect("sound windows");
        let mut now = 0_i64;
        let mut admitted: Vec<(i64, u64)> = Vec::new();
        for (elapsed, amount) in takes {
            now += i64::try_from(elapsed).expect("small");
            if matches!(buckets.take(amount, now), Ok(None)) {
                admitted.push((now, amount));
            }
        }
        for window in &windows {
            for (first, &(from, _)) in admitted.iter().enumerate() {
                let mut sum = 0_u128;
                for &(to, amount) in &admitted[first..] {
                    sum += u128::from(amount);
                    let span = u128::from(to.abs_diff(from));
                    let nanos = window.duration.as_nanos();
                    prop_assert!(sum * nanos <= u128::from(window.capacity) * (nanos + span));
                }
            }
        }
    }

    /// The take succeeds after exactly the returned wait, and a nanosecond earlier it does not.
    #[test]
    fn waits_are_exact(windows in windows(), spent in 0_u64..2000, amount in 1_u64..1000) {
        let mut buckets = Buckets::new(&windows, 0).expect("sound windows");
        buckets.spend(spent, 0);
        if let Ok(Some(wait)) = buckets.take(amount, 0) {
            let due = i64::try_from(wait.nanos).expect("a few seconds");
            prop_assert!(buckets.clone().take(amount, due - 1).expect("possible").is_some());
            prop_assert!(buckets.take(amount, due).expect("possible").is_none());
        }
    }

    /// When one limit refuses, no limit loses tokens.
    #[test]
    fn all_or_nothing(windows in windows(), amount in 1_u64..100) {
        let open = shared(&windows);
        let empty = shared(&[window(100, 1_000_000_000)]);
        empty.lock().spend(100, 0);
        let before = open.lock().tokens(0);
        let possible = amount.min(windows.iter().map(|window| window.capacity).min().unwrap_or(1));
        prop_assert!(matches!(take_all(&[(&open, possible), (&empty, amount)], 0), Ok(Some(_))));
        prop_assert_eq!(open.lock().tokens(0), before);
    }
}

#[test]
fn a_clock_that_goes_back_refills_nothing() {
    let mut buckets = Buckets::new(&[window(10, 1000)], 5000).expect("a sound window");
    buckets.spend(10, 5000);
    assert!(buckets.take(1, 0).expect("possible").is_some());
    assert!(buckets.take(10, 5999).expect("possible").is_some());
    assert!(buckets.take(10, 6000).expect("possible").is_none());
}

#[test]
fn spent_tokens_stay_spent() {
    let second = 1_000_000_000;
    let mut buckets = Buckets::new(&[window(100, second)], 0).expect("a sound window");
    buckets.spend(70, 0);
    buckets.set_windows(&[window(80, second), window(5, 60 * second)], 0).expect("sound windows");
    assert_eq!(buckets.tokens(0), [10.0, 5.0]);
}

#[test]
fn impossible_windows_are_refused() {
    assert!(Buckets::new(&[window(0, 1)], 0).is_err());
    assert!(Buckets::new(&[window(1, 0)], 0).is_err());
    assert!(Buckets::new(&[window(u64::MAX, u64::MAX)], 0).is_ok());
}

#[test]
fn a_limit_is_named_once() {
    let (first, second) = (shared(&[window(5, 1000)]), shared(&[window(5, 1000)]));
    let refused = take_all(&[(&first, 1), (&second, 1), (&first, 1)], 0);
    assert_eq!(refused, Err(TakeAllRefusal::Repeated(Repeated { first: 0, second: 2 })));
    assert_eq!((first.lock().tokens(0), second.lock().tokens(0)), (vec![5.0], vec![5.0]));
}

/// Threads that take the same limits in opposite orders do not wait for each other forever, and take every token once.
#[test]
fn opposite_orders_do_not_deadlock() {
    const LIMITS: usize = 4;
    const THREADS: usize = 4;
    const TAKES: usize = 50_000;
    /// Much longer than the test takes: a deadlock fails the test instead of hanging it.
    const WATCHDOG: Duration = Duration::from_secs(60);
    let capacity = u64::try_from(THREADS * TAKES).expect("small");
    let limits: Arc<Vec<_>> = Arc::new((0..LIMITS).map(|_| shared(&[window(capacity, 1000)])).collect());
    let (start, (finished, results)) = (Arc::new(Barrier::new(THREADS)), mpsc::channel());
    for thread in 0..THREADS {
        let (limits, start, finished) = (Arc::clone(&limits), Arc::clone(&start), finished.clone());
        // Not scoped: a scope would wait for threads that never end.
        thread::spawn(move || {
            let mut requests: Vec<_> = limits.iter().map(|limit| (limit, 1)).collect();
            if thread % 2 == 1 {
                requests.reverse();
            }
            start.wait();
            let taken = (0..TAKES).filter(|_| take_all(&requests, 0) == Ok(None)).count();
            finished.send(taken).expect("the test waits for this thread");
        });
    }
    for _ in 0..THREADS {
        let taken = results.recv_timeout(WATCHDOG).expect("a thread waits for a lock forever");
        assert_eq!(taken, TAKES);
    }
    for limit in limits.iter() {
        assert_eq!(limit.lock().tokens(0), [0.0]);
    }
}
