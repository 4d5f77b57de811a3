//! `DataEntry`, `AttributeEntry`, `TimeseriesEntry`: one datapoint, encoded when it is made.

use pyo3::PyTypeInfo;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyTuple};
use tb_mqtt_core::inline::InlineBytes;
use tb_mqtt_core::json::Node;
use tb_mqtt_core::numbers;
use tb_mqtt_core::points::{Point, Timestamp};

use crate::convert::{Value, timestamp, with_scratch, write_point};

/// One datapoint: `"key":value,` and its timestamp. The value is as given; what a client sends for it is the client's choice.
#[pyclass(subclass, module = "tb_mqtt_client._native")]
pub struct DataEntry {
    point: InlineBytes,
    key_length: u16,
    pub timestamp: Timestamp,
}

impl DataEntry {
    fn encode(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, timestamp: Timestamp) -> PyResult<Self> {
        with_scratch(|out| {
            let key_length = write_point(&Value(key.clone()), &Value(value.clone()), out)?;
            let key_length = u16::try_from(key_length).expect("255 characters of at most 6 bytes");
            Ok(Self { point: out.bytes.as_slice().into(), key_length, timestamp })
        })
    }

    pub fn from_point(timestamp: Timestamp, point: Point<'_>) -> Self {
        let key_length = u16::try_from(point.key().len()).expect("255 characters of at most 6 bytes");
        Self { point: point.bytes().into(), key_length, timestamp }
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

    /// `"key"` and `value` of this entry's point.
    pub fn parts<'a>(&self, point: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (key, rest) = point.split_at(usize::from(self.key_length));
        (key, &rest[1..rest.len() - 1])
    }

    fn same_as(&self, other: &Self, py: Python<'_>) -> PyResult<bool> {
        if self.key_json() != other.key_json() || self.timestamp != other.timestamp {
            return Ok(false);
        }
        // Python's ==, by which 1, 1.0 and True are equal.
        Ok(self.value_json() == other.value_json() || self.value(py)?.eq(other.value(py)?)?)
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

/// Make a Python object of JSON that this extension wrote.
pub fn loads<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Floats without a call into Python: entries whose value is written again at a client's door may be many.
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
        loads(py, self.key_json())
    }

    #[setter]
    fn set_key(&mut self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        *self = Self::encode(key, &self.value(key.py())?, self.timestamp)?;
        Ok(())
    }

    #[getter]
    pub fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loads(py, self.value_json())
    }

    #[setter]
    fn set_value(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        *self = Self::encode(&self.key(value.py())?, value, self.timestamp)?;
        Ok(())
    }

    #[getter]
    fn ts(&self) -> Option<i64> {
        self.timestamp.millis()
    }

    #[setter]
    fn set_ts(&mut self, ts: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.timestamp = timestamp(ts)?;
        Ok(())
    }

    #[getter]
    fn size(&self) -> usize {
        published_size(self.timestamp, self.point())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let ts = self.ts().map_or_else(|| "None".to_owned(), |ts| ts.to_string());
        Ok(format!("DataEntry(key={}, value={}, ts={ts})", self.key(py)?, self.value(py)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, entry) = (slf.py(), slf.borrow());
        let arguments = (entry.key(py)?, entry.value(py)?, entry.ts()).into_pyobject(py)?;
        Ok((slf.get_type().into_any(), arguments))
    }
}

/// One attribute.
#[pyclass(extends = DataEntry, subclass, module = "tb_mqtt_client._native")]
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
        entry_dict(&slf.as_super().borrow(), slf.py())
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        slf.as_super().borrow().same_as(&other.as_super().borrow(), slf.py())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (py, entry) = (slf.py(), slf.as_super().borrow());
        Ok(format!("AttributeEntry(key={}, value={})", entry.key(py)?, entry.value(py)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, entry) = (slf.py(), slf.as_super().borrow());
        let arguments = (entry.key(py)?, entry.value(py)?).into_pyobject(py)?;
        Ok((slf.get_type().into_any(), arguments))
    }
}

/// One timeseries datapoint.
#[pyclass(extends = DataEntry, subclass, module = "tb_mqtt_client._native")]
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
        let entry = slf.as_super().borrow();
        let dict = entry_dict(&entry, slf.py())?;
        if let Some(ts) = entry.ts() {
            dict.set_item("ts", ts)?;
        }
        Ok(dict)
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        slf.as_super().borrow().same_as(&other.as_super().borrow(), slf.py())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let entry = slf.as_super().borrow();
        Ok(entry.__repr__(slf.py())?.replacen("DataEntry", "TimeseriesEntry", 1))
    }
}

fn entry_dict<'py>(entry: &DataEntry, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("key", entry.key(py)?)?;
    dict.set_item("value", entry.value(py)?)?;
    Ok(dict)
}

/// Lend the datapoint of an entry of the class `T`, one of the two above.
pub fn with_entry<T: PyTypeInfo, R>(
    object: &Bound<'_, PyAny>,
    work: impl FnOnce(&DataEntry) -> PyResult<R>,
) -> PyResult<R> {
    if !object.is_instance_of::<T>() {
        let (type_name, _) = Value(object.clone()).describe();
        let expected = T::type_object(object.py()).name()?;
        return Err(PyTypeError::new_err(format!("expected {expected}, got {type_name}")));
    }
    work(&object.cast::<DataEntry>()?.borrow())
}
