//! `ResultSlot`: the place of one send's result, and `settle` and `settle_each`, which fill those of a whole message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A place for one result, which is put there once.
#[pyclass(frozen, subclass, module = "tb_mqtt_client._native")]
#[derive(Default)]
pub struct ResultSlot {
    result: OnceLock<Py<PyAny>>,
    is_watched: AtomicBool,
}

impl ResultSlot {
    /// Put the result of a send into its slot. Returns false if that is left to the caller.
    fn settle(receipt: &Bound<'_, PyAny>, result: &Bound<'_, PyAny>) -> bool {
        receipt.cast::<Self>().is_ok_and(|slot| {
            let slot = slot.get();
            !slot.is_watched.load(Ordering::Relaxed) && slot.put(result.clone())
        })
    }
}

#[pymethods]
impl ResultSlot {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn outcome(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.result.get().map(|result| result.clone_ref(py))
    }

    fn done(&self) -> bool {
        self.result.get().is_some()
    }

    fn put(&self, result: Bound<'_, PyAny>) -> bool {
        self.result.set(result.unbind()).is_ok()
    }

    fn watch(&self) -> bool {
        !self.is_watched.swap(true, Ordering::Relaxed)
    }

    #[getter]
    fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.result.get().map_or(Ok(()), |result| visit.call(result))
    }
}

/// Put one result into all slots that nothing watches; return the other receipts.
#[pyfunction]
#[pyo3(signature = (receipts, result, /))]
pub fn settle<'py>(receipts: &Bound<'py, PyList>, result: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    if !receipts.iter().any(|receipt| receipt.is_instance_of::<ResultSlot>()) {
        return Ok(receipts.clone());
    }
    let left = PyList::empty(receipts.py());
    receipts
        .iter()
        .filter(|receipt| !ResultSlot::settle(receipt, result))
        .try_for_each(|receipt| left.append(receipt))?;
    Ok(left)
}

/// Put the result for its number of datapoints into each slot that nothing watches; return the others with their results.
#[pyfunction]
#[pyo3(signature = (receipts, datapoints, results, /))]
pub fn settle_each<'py>(
    receipts: &Bound<'py, PyList>,
    datapoints: &Bound<'py, PyList>,
    results: &Bound<'py, PyDict>,
) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let mut left = Vec::new();
    for (receipt, count) in receipts.iter().zip(datapoints.iter()) {
        let result = results.as_any().get_item(count)?;
        if !ResultSlot::settle(&receipt, &result) {
            left.push((receipt, result));
        }
    }
    Ok(left)
}
