//! `TokenBuckets` and `take_all`.

use std::time::Duration;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use tb_mqtt_core::buckets::{self, Buckets, SharedBuckets, Wait, Window};

use crate::convert::value_error;

/// All windows of one rate limit.
///
/// While the buckets are locked, no Python code runs and no Python object is made. So a thread that waits for them waits for
/// a few instructions, and may stay attached to the interpreter.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct TokenBuckets(SharedBuckets);

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

#[pymethods]
impl TokenBuckets {
    #[new]
    #[pyo3(signature = (windows, now_ns))]
    fn new(windows: Vec<(u64, f64)>, now_ns: i64) -> PyResult<Self> {
        let buckets = Buckets::new(&windows_of(windows)?, now_ns).map_err(value_error)?;
        Ok(Self(SharedBuckets::new(buckets)))
    }

    #[getter]
    fn windows(&self) -> Vec<(u64, f64)> {
        self.0.lock().windows().map(|window| (window.capacity, window.duration.as_secs_f64())).collect()
    }

    #[getter]
    fn smallest_capacity(&self) -> u64 {
        self.0.lock().smallest_capacity().unwrap_or(0)
    }

    #[pyo3(signature = (now_ns))]
    fn tokens(&self, now_ns: i64) -> Vec<f64> {
        self.0.lock().tokens(now_ns)
    }

    #[pyo3(signature = (amount, now_ns))]
    fn take(&self, amount: u64, now_ns: i64) -> PyResult<Option<WaitTuple>> {
        let wait = self.0.lock().take(amount, now_ns).map_err(value_error)?;
        Ok(wait.map(wait_tuple))
    }

    #[pyo3(signature = (amount, now_ns, window = None))]
    fn spend(&self, amount: u64, now_ns: i64, window: Option<usize>) -> PyResult<()> {
        let Some(index) = window else {
            self.0.lock().spend(amount, now_ns);
            return Ok(());
        };
        self.0.lock().spend_window(index, amount, now_ns).map_err(|refusal| PyIndexError::new_err(refusal.to_string()))
    }

    #[pyo3(signature = (windows, now_ns))]
    fn set_windows(&self, windows: Vec<(u64, f64)>, now_ns: i64) -> PyResult<()> {
        let windows = windows_of(windows)?;
        self.0.lock().set_windows(&windows, now_ns).map_err(value_error)
    }
}

/// Take tokens of several limits: all of them, or none.
#[pyfunction]
#[pyo3(signature = (requests, now_ns))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts an owned list from the argument")]
pub fn take_all(requests: Vec<(Bound<'_, TokenBuckets>, u64)>, now_ns: i64) -> PyResult<Option<WaitTuple>> {
    let requests: Vec<_> = requests.iter().map(|(limit, amount)| (&limit.get().0, *amount)).collect();
    Ok(buckets::take_all(&requests, now_ns).map_err(value_error)?.map(wait_tuple))
}
