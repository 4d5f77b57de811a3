//! `Gathering` and `GatheredSends`: sends that wait to be packed, with the receipts of their results.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tb_mqtt_core::gathering::{self, Allowance, Amount};
use tb_mqtt_core::points::Timestamp;
use tb_mqtt_core::uplink::Uplink;

use crate::uplinks::{DeviceIdentity, EncodedUplink, encode_telemetry, shared, timestamp_of_now};

type Queue = gathering::Gathering<Py<PyAny>>;

/// A queue of sends, see `gathering::Gathering`.
///
/// While it is locked, no Python code runs and no Python object is made or freed. Receipts are only kept.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct Gathering {
    queue: Mutex<Queue>,
    round_floats: bool,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Gathering {
    #[new]
    #[pyo3(signature = (round_floats = true))]
    fn new(round_floats: bool) -> Self {
        Self { queue: Mutex::default(), round_floats }
    }

    #[pyo3(signature = (data, now_ms, receipt, device = None, /))]
    fn push(
        &self,
        data: &Bound<'_, PyAny>,
        now_ms: i64,
        receipt: Bound<'_, PyAny>,
        device: Option<&Bound<'_, DeviceIdentity>>,
    ) -> PyResult<usize> {
        if self.lock().is_closed() {
            return Ok(0);
        }
        let timeseries = encode_telemetry(data, timestamp_of_now(Some(now_ms))?, self.round_floats)?;
        let uplink = Uplink { device: shared(device), timeseries, extras: None, main_timestamp: Timestamp::NONE };
        let mut queue = self.lock();
        Ok(if queue.push(uplink, receipt.unbind()) { queue.len() } else { 0 })
    }

    #[pyo3(signature = (sends, nbytes))]
    fn allow(&self, sends: usize, nbytes: usize) {
        self.lock().allow(Allowance { sends, nbytes });
    }

    #[getter]
    fn sends_allowed(&self) -> usize {
        self.lock().allowance().sends
    }

    fn take_added(&self) -> (usize, usize, usize) {
        let Amount { sends, nbytes, datapoints } = self.lock().take_added();
        (sends, nbytes, datapoints)
    }

    #[pyo3(signature = (sends, nbytes, datapoints))]
    fn take(&self, py: Python<'_>, sends: usize, nbytes: usize, datapoints: usize) -> PyResult<GatheredSends> {
        let taken = self.lock().take(Amount { sends, nbytes, datapoints });
        let receipts = PyList::new(py, taken.receipts)?.unbind();
        Ok(GatheredSends { uplinks: taken.uplinks, receipts, nbytes: taken.nbytes })
    }

    fn __len__(&self) -> usize {
        self.lock().len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Locked only if another thread was stopped while it had the lock: what is not visited is not collected.
        self.queue.try_lock().map_or(Ok(()), |queue| queue.receipts().try_for_each(|receipt| visit.call(receipt)))
    }

    fn __clear__(&self) {
        let cleared = std::mem::take(&mut *self.lock());
        drop(cleared);
    }
}

/// Sends that were taken from a `Gathering` to be packed together.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct GatheredSends {
    pub uplinks: Vec<Uplink>,
    #[pyo3(get)]
    receipts: Py<PyList>,
    #[pyo3(get)]
    nbytes: usize,
}

#[pymethods]
impl GatheredSends {
    fn __len__(&self) -> usize {
        self.uplinks.len()
    }

    fn encoded(&self) -> Vec<EncodedUplink> {
        self.uplinks.iter().cloned().map(EncodedUplink).collect()
    }
}
