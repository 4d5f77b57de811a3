//! `DataEntry`, `AttributeEntry`, `TimeseriesEntry`: one datapoint, encoded when it is made.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyTuple};
use tb_mqtt_core::inline::InlineBytes;
use tb_mqtt_core::json;
use tb_mqtt_core::numbers;
use tb_mqtt_core::points::{Point, Timestamp};

use crate::convert::{Value, refused_value, timestamp, with_scratch, write_key, write_point};

/// One datapoint. Its value is never rounded; an uplink made of the entry may round it.
///
/// While the datapoint is locked, no Python code runs: that code could use the same entry, and other threads would wait for it.
#[pyclass(frozen, subclass, module = "tb_mqtt_client._native")]
pub struct DataEntry(Mutex<Datapoint>);

/// A point, `"key":value,`, and its timestamp.
#[derive(Clone)]
pub struct Datapoint {
    point: InlineBytes,
    key_length: u16,
    pub timestamp: Timestamp,
}

impl Datapoint {
    fn encode(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, timestamp: Timestamp) -> PyResult<Self> {
        with_scratch(|out| {
            let key_length = write_point(&Value(key.clone()), &Value(value.clone()), out)?;
            Ok(Self::new(&out.bytes, key_length, timestamp))
        })
    }

    fn new(point: &[u8], key_length: usize, timestamp: Timestamp) -> Self {
        let key_length = u16::try_from(key_length).expect("255 characters of at most 6 bytes");
        Self { point: point.into(), key_length, timestamp }
    }

    /// `"key":value,`
    pub fn point(&self) -> &[u8] {
        self.point.as_slice()
    }

    /// `"key"`
    pub fn key_json(&self) -> &[u8] {
        &self.point()[..usize::from(self.key_length)]
    }

    fn value_json(&self) -> &[u8] {
        self.parts(self.point()).1
    }

    /// `"key"` and `value` of this datapoint's point.
    pub fn parts<'a>(&self, point: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (key, rest) = point.split_at(usize::from(self.key_length));
        (key, &rest[1..rest.len() - 1])
    }

    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loads(py, self.key_json())
    }

    pub fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loads(py, self.value_json())
    }

    /// The arguments that make an equal entry.
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (self.key(py)?, self.value(py)?, self.timestamp.millis()).into_pyobject(py)
    }

    fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("key", self.key(py)?)?;
        dict.set_item("value", self.value(py)?)?;
        Ok(dict)
    }

    fn repr(&self, py: Python<'_>, class: &str) -> PyResult<String> {
        let ts = self.timestamp.millis().map_or_else(|| "None".to_owned(), |ts| ts.to_string());
        Ok(format!("{class}(key={}, value={}, ts={ts})", self.key(py)?, self.value(py)?))
    }

    fn same_as(&self, other: &Self, py: Python<'_>) -> PyResult<bool> {
        if self.key_json() != other.key_json() || self.timestamp != other.timestamp {
            return Ok(false);
        }
        // Python's == makes 1, 1.0 and True equal.
        Ok(self.value_json() == other.value_json() || self.value(py)?.eq(other.value(py)?)?)
    }
}

impl DataEntry {
    fn encode(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, timestamp: Timestamp) -> PyResult<Self> {
        Datapoint::encode(key, value, timestamp).map(Self::from)
    }

    pub fn from_point(timestamp: Timestamp, point: Point<'_>) -> Self {
        Datapoint::new(point.bytes(), point.key().len(), timestamp).into()
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Datapoint> {
        // A panic cannot leave a datapoint half changed: each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Run `work` with the datapoint, which must not run Python code.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&Datapoint) -> PyResult<R>) -> PyResult<R> {
        work(&self.lock())
    }

    /// The datapoint at this moment.
    fn datapoint(&self) -> Datapoint {
        self.lock().clone()
    }
}

impl From<Datapoint> for DataEntry {
    fn from(datapoint: Datapoint) -> Self {
        Self(Mutex::new(datapoint))
    }
}

/// Bytes that `{}` adds to a datapoint, and those that `{"ts":,"values":{}}` adds beside the timestamp's digits.
const PLAIN_WRAPPER: usize = 2;
const STAMPED_WRAPPER: usize = 19;

/// The published size of an entry: compact JSON of `{key: value}`, or of `{"ts": ts, "values": {key: value}}`.
pub fn published_size(timestamp: Timestamp, point: &[u8]) -> usize {
    let around = timestamp.millis().map_or(PLAIN_WRAPPER, |millis| STAMPED_WRAPPER + millis.to_string().len());
    around + point.len() - 1
}

/// Make a Python object from JSON that this extension wrote.
pub fn loads<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Floats need no call into Python: a send may have many entries whose value is encoded again.
    if let Some(float) = numbers::float_of(json) {
        return Ok(PyFloat::new(py, float).into_any());
    }
    LOADS.import(py, "json", "loads")?.call1((json,))
}

#[pymethods]
impl DataEntry {
    #[new]
    #[pyo3(signature = (key, value, ts = None))]
    fn new(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, ts: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::encode(key, value, timestamp(ts)?)
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.datapoint().key(py)
    }

    #[setter]
    fn set_key(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        with_scratch(|out| {
            let key_length = write_key(&Value(key.clone()), &mut out.bytes)?;
            let mut datapoint = self.lock();
            let point = [&out.bytes, datapoint.value_json(), b","].concat();
            *datapoint = Datapoint::new(&point, key_length, datapoint.timestamp);
            Ok(())
        })
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.datapoint().value(py)
    }

    #[setter]
    fn set_value(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        with_scratch(|out| {
            if let Err(refusal) = json::write_value(&Value(value.clone()), out) {
                return Err(refused_value(&Value(self.key(value.py())?), &refusal).into());
            }
            let mut datapoint = self.lock();
            let point = [datapoint.key_json(), b":", &out.bytes, b","].concat();
            *datapoint = Datapoint::new(&point, datapoint.key_json().len(), datapoint.timestamp);
            Ok(())
        })
    }

    #[getter]
    fn ts(&self) -> Option<i64> {
        self.lock().timestamp.millis()
    }

    #[setter]
    fn set_ts(&self, ts: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let timestamp = timestamp(ts)?;
        self.lock().timestamp = timestamp;
        Ok(())
    }

    #[getter]
    fn size(&self) -> usize {
        let datapoint = self.lock();
        published_size(datapoint.timestamp, datapoint.point())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.datapoint().repr(py, "DataEntry")
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Ok((slf.get_type().into_any(), slf.get().datapoint().arguments(slf.py())?))
    }
}

/// One attribute.
#[pyclass(frozen, extends = DataEntry, subclass, module = "tb_mqtt_client._native")]
pub struct AttributeEntry;

#[pymethods]
impl AttributeEntry {
    #[classattr]
    #[pyo3(name = "__hash__")]
    const HASH: Option<bool> = None;

    #[new]
    #[pyo3(signature = (key, value))]
    fn new(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
        let entry = DataEntry::encode(key, value, Timestamp::NONE)?;
        Ok(PyClassInitializer::from(entry).add_subclass(Self))
    }

    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        slf.as_super().get().datapoint().dict(slf.py())
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        slf.as_super().get().datapoint().same_as(&other.as_super().get().datapoint(), slf.py())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (py, entry) = (slf.py(), slf.as_super().get().datapoint());
        Ok(format!("AttributeEntry(key={}, value={})", entry.key(py)?, entry.value(py)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, entry) = (slf.py(), slf.as_super().get().datapoint());
        let arguments = (entry.key(py)?, entry.value(py)?).into_pyobject(py)?;
        Ok((slf.get_type().into_any(), arguments))
    }
}

/// One timeseries datapoint.
#[pyclass(frozen, extends = DataEntry, subclass, module = "tb_mqtt_client._native")]
pub struct TimeseriesEntry;

#[pymethods]
impl TimeseriesEntry {
    #[classattr]
    #[pyo3(name = "__hash__")]
    const HASH: Option<bool> = None;

    #[new]
    #[pyo3(signature = (key, value, ts = None))]
    fn new(
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let entry = DataEntry::encode(key, value, timestamp(ts)?)?;
        Ok(PyClassInitializer::from(entry).add_subclass(Self))
    }

    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let entry = slf.as_super().get().datapoint();
        let dict = entry.dict(slf.py())?;
        if let Some(ts) = entry.timestamp.millis() {
            dict.set_item("ts", ts)?;
        }
        Ok(dict)
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        slf.as_super().get().datapoint().same_as(&other.as_super().get().datapoint(), slf.py())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        slf.as_super().get().datapoint().repr(slf.py(), "TimeseriesEntry")
    }
}

/// Lend the datapoint of an entry. It is locked until `work` returns, so `work` must not run Python code.
#[inline]
pub fn with_entry<R>(entry: &Bound<'_, PyAny>, work: impl FnOnce(&Datapoint) -> PyResult<R>) -> PyResult<R> {
    entry.cast::<DataEntry>()?.get().with(work)
}
