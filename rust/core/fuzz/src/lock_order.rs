//! Every interleaving of two threads that lock the same locks in opposite orders, not only those that a stress test meets.

use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;
use tb_mqtt_core::locks::lock_all;

fn increment<'a>(locks: &'a [&'a Mutex<u32>]) {
    let acquire = |lock: &'a Mutex<u32>| lock.lock().expect("no thread panics");
    let guards: Vec<MutexGuard<'_, u32>> = lock_all(locks, |lock| *lock, acquire).expect("different locks");
    for mut guard in guards {
        *guard += 1;
    }
}

/// Loom fails the test in the first interleaving in which both threads wait.
#[test]
fn opposite_orders_never_deadlock() {
    loom::model(|| {
        let locks = Arc::new([Mutex::new(0), Mutex::new(0), Mutex::new(0)]);
        let shared = Arc::clone(&locks);
        let other = thread::spawn(move || {
            let [first, second, third] = &*shared;
            increment(&[third, first, second]);
        });
        let [first, second, third] = &*locks;
        increment(&[second, first, third]);
        other.join().expect("the other thread does not panic");
        for lock in locks.iter() {
            assert_eq!(*lock.lock().expect("no thread panics"), 2);
        }
    });
}
