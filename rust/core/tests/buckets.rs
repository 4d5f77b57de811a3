//! Over any span of time no window admits more than its capacity and its refill, and a wait is exact.

use std::time::Duration;

use proptest::prelude::*;
use tb_mqtt_core::buckets::{Buckets, Window, take_all};

fn window(capacity: u64, nanos: u64) -> Window {
    Window { capacity, duration: Duration::from_nanos(nanos) }
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    prop::collection::vec((1_u64..1000, 1_u64..10_000_000_000).prop_map(|(c, n)| window(c, n)), 1..4)
}

proptest! {
    /// Between any two takes, what was admitted is at most the capacity and what flowed in.
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

    /// After exactly the wait the same take succeeds, and a nanosecond earlier it does not.
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

    /// When one limit refuses, none is charged.
    #[test]
    fn all_or_nothing(windows in windows(), amount in 1_u64..100) {
        let mut open = Buckets::new(&windows, 0).expect("sound windows");
        let mut empty = Buckets::new(&[window(100, 1_000_000_000)], 0).expect("a sound window");
        empty.spend(100, 0);
        let before = open.tokens(0);
        let result = take_all(&mut [(&mut open, amount.min(windows.iter().map(|w| w.capacity).min().unwrap_or(1))), (&mut empty, amount)], 0);
        prop_assert!(matches!(result, Ok(Some(_))));
        prop_assert_eq!(open.tokens(0), before);
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
fn what_was_spent_stays_spent() {
    let second = 1_000_000_000;
    let mut buckets = Buckets::new(&[window(100, second)], 0).expect("a sound window");
    buckets.spend(70, 0);
    buckets.set_windows(&[window(80, second), window(5, 60 * second)], 0).expect("sound windows");
    assert_eq!(buckets.tokens(0), [10.0, 5.0]);
}

#[test]
fn windows_that_cannot_be() {
    assert!(Buckets::new(&[window(0, 1)], 0).is_err());
    assert!(Buckets::new(&[window(1, 0)], 0).is_err());
    assert!(Buckets::new(&[window(u64::MAX, u64::MAX)], 0).is_ok());
}
