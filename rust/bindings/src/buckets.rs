//! `TokenBuckets` and `take_all`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use tb_mqtt_core::buckets::{self, Buckets, Wait, Window};

use crate::convert::value_error;

/// All windows of one rate limit.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct TokenBuckets(Mutex<Buckets>);

/// Nanoseconds, capacity and seconds of the window.
type WaitTuple = (u64, u64, f64);

fn wait_tuple(wait: Wait) -> WaitTuple {
    (wait.nanos, wait.window.capacity, wait.window.duration.as_secs_f64())
}

fn windows_of(windows: Vec<(u64, f64)>) -> PyResult<Vec<Window>> {
    windows
        .into_iter()
        .map(|(capacity, seconds)| {
            let duration = Duration::try_from_secs_f64(seconds).map_err(|_| {
                PyValueError::new_err(format!(
                    "a window's duration must be a positive number of seconds, not {seconds}"
                ))
            })?;
            Ok(Window { capacity, duration })
        })
        .collect()
}

impl TokenBuckets {
    fn lock(&self) -> MutexGuard<'_, Buckets> {
        // The arithmetic in there cannot leave a bucket half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl TokenBuckets {
    #[new]
    #[pyo3(signature = (windows, now_ns))]
    fn new(windows: Vec<(u64, f64)>, now_ns: i64) -> PyResult<Self> {
        let buckets = Buckets::new(&windows_of(windows)?, now_ns).map_err(value_error)?;
        Ok(Self(Mutex::new(buckets)))
    }

    #[getter]
    fn windows(&self) -> Vec<(u64, f64)> {
        self.lock().windows().map(|window| (window.capacity, window.duration.as_secs_f64())).collect()
    }

    #[getter]
    fn smallest_capacity(&self) -> u64 {
        self.lock().smallest_capacity().unwrap_or(0)
    }

    #[pyo3(signature = (now_ns))]
    fn tokens(&self, now_ns: i64) -> Vec<f64> {
        self.lock().tokens(now_ns)
    }

    #[pyo3(signature = (amount, now_ns))]
    fn take(&self, amount: u64, now_ns: i64) -> PyResult<Option<WaitTuple>> {
        let wait = self.lock().take(amount, now_ns).map_err(value_error)?;
        Ok(wait.map(wait_tuple))
    }

    #[pyo3(signature = (amount, now_ns, window = None))]
    fn spend(&self, amount: u64, now_ns: i64, window: Option<usize>) -> PyResult<()> {
        let mut buckets = self.lock();
        let Some(index) = window else {
            buckets.spend(amount, now_ns);
            return Ok(());
        };
        if buckets.spend_window(index, amount, now_ns) {
            return Ok(());
        }
        let windows = buckets.windows().count();
        Err(PyIndexError::new_err(format!("window must be less than {windows}, the number of windows, not {index}")))
    }

    #[pyo3(signature = (windows, now_ns))]
    fn set_windows(&self, windows: Vec<(u64, f64)>, now_ns: i64) -> PyResult<()> {
        self.lock().set_windows(&windows_of(windows)?, now_ns).map_err(value_error)
    }
}

/// Take from several limits: everything, or nothing.
#[pyfunction]
#[pyo3(signature = (requests, now_ns))]
#[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
pub fn take_all(requests: Vec<(Bound<'_, TokenBuckets>, u64)>, now_ns: i64) -> PyResult<Option<WaitTuple>> {
    for (index, (limit, _)) in requests.iter().enumerate() {
        if requests[..index].iter().any(|(earlier, _)| earlier.is(limit)) {
            return Err(PyValueError::new_err("requests must name each limit once"));
        }
    }
    // The interpreter's lock is held from here to the end: two threads cannot lock two limits in opposite orders.
    let mut guards: Vec<_> = requests.iter().map(|(limit, amount)| (limit.get().lock(), *amount)).collect();
    let mut takes: Vec<_> = guards.iter_mut().map(|(guard, amount)| (&mut **guard, *amount)).collect();
    let wait = buckets::take_all(&mut takes, now_ns).map_err(value_error)?;
    Ok(wait.map(wait_tuple))
}
