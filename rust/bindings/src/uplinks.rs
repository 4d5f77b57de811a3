//! `DeviceIdentity` and `EncodedUplink`: a sub-device, and the datapoints of one send.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pyo3::PyTypeInfo;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use tb_mqtt_core::group::{Kind, conversions};
use tb_mqtt_core::json::{self, Node, Output};
use tb_mqtt_core::numbers::{self, Conversions, Numbers};
use tb_mqtt_core::points::{Points, PointsBuilder, Timestamp};
use tb_mqtt_core::uplink::{Extras, Identity, Metadata, Uplink};

use crate::convert::{
    Encoder, PointRefusal, Value, at_this_moment, timestamp, value_error, with_encoder, write_point_value, wrong_type,
};
use crate::entries::{AttributeEntry, DataEntry, TimeseriesEntry, published_size, with_entry};

/// Name and profile of a sub-device.
#[pyclass(frozen, eq, hash, module = "tb_mqtt_client._native")]
#[derive(PartialEq)]
pub struct DeviceIdentity(pub Arc<Identity>);

impl Hash for DeviceIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.name(), self.0.profile()).hash(state);
    }
}

#[pymethods]
impl DeviceIdentity {
    #[new]
    #[pyo3(signature = (name, profile = "default"))]
    fn new(name: &Bound<'_, PyString>, profile: &str) -> PyResult<Self> {
        let name = name.to_str().map_err(|_| {
            PyValueError::new_err("Device name must not have lone surrogates, they cannot be encoded as UTF-8.")
        })?;
        if name.is_empty() {
            return Err(PyValueError::new_err("Device name must not be empty."));
        }
        Ok(Self(Arc::new(Identity::new(name, profile))))
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn profile(&self) -> &str {
        self.0.profile()
    }

    fn __repr__(&self) -> String {
        format!("DeviceIdentity(name={:?}, profile={:?})", self.name(), self.profile())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, (String, String)) {
        let identity = slf.get();
        (slf.get_type().into_any(), (identity.name().to_owned(), identity.profile().to_owned()))
    }
}

/// The datapoints of one send.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct EncodedUplink(pub Uplink);

type Device<'a> = Option<&'a Bound<'a, DeviceIdentity>>;

pub fn shared(device: Device<'_>) -> Option<Arc<Identity>> {
    device.map(|device| Arc::clone(&device.get().0))
}

#[pymethods]
impl EncodedUplink {
    #[staticmethod]
    #[pyo3(signature = (data, now_ms, device = None, round_floats = true, metadata = None))]
    fn timeseries(
        data: &Bound<'_, PyAny>,
        now_ms: Option<i64>,
        device: Device<'_>,
        round_floats: bool,
        metadata: Option<(String, i64)>,
    ) -> PyResult<Self> {
        if metadata.is_some() && device.is_none() {
            return Err(PyValueError::new_err(
                "metadata must come with a device, only timeseries of a sub-device have metadata",
            ));
        }
        let timeseries = encode_telemetry(data, timestamp_of_now(now_ms)?, round_floats)?;
        let extras = metadata.map(|(connector, received)| {
            let metadata = Some(Metadata::new(&connector, received));
            Box::new(Extras { metadata, ..Extras::default() })
        });
        Ok(Self(Uplink { device: shared(device), timeseries, extras, main_timestamp: Timestamp::NONE }))
    }

    #[staticmethod]
    #[pyo3(signature = (calls, now_ms, round_floats = true))]
    fn timeseries_of_devices(
        calls: Vec<(Bound<'_, DeviceIdentity>, Bound<'_, PyAny>)>,
        now_ms: Option<i64>,
        round_floats: bool,
    ) -> PyResult<Vec<Self>> {
        let now = timestamp_of_now(now_ms)?;
        let encode = |(device, data): (Bound<'_, DeviceIdentity>, Bound<'_, PyAny>)| {
            let timeseries = encode_telemetry(&data, now, round_floats).map_err(|error| of_device(error, &device))?;
            Ok(Self(Uplink {
                device: shared(Some(&device)),
                timeseries,
                extras: None,
                main_timestamp: Timestamp::NONE,
            }))
        };
        calls.into_iter().map(encode).collect()
    }

    #[staticmethod]
    #[pyo3(signature = (data, device = None, round_floats = true))]
    fn attributes(data: &Bound<'_, PyAny>, device: Device<'_>, round_floats: bool) -> PyResult<Self> {
        let attributes = with_encoder(Numbers::new(round_floats), |encoder| {
            if let Ok(dict) = data.cast_exact::<PyDict>() {
                add_values(dict, Timestamp::NONE, encoder)?;
            } else if let Ok(entry) = data.cast::<AttributeEntry>() {
                add_entry(entry.as_super(), Timestamp::NONE, &mut encoder.points)?;
            } else if let Ok(list) = data.cast_exact::<PyList>() {
                for item in list {
                    let Ok(entry) = item.cast::<AttributeEntry>() else {
                        return Err(unsupported("item type in attributes list", &item, "AttributeEntry"));
                    };
                    add_entry(entry.as_super(), Timestamp::NONE, &mut encoder.points)?;
                }
            } else {
                return Err(unsupported(
                    "payload type for attributes",
                    data,
                    "a dict, an AttributeEntry and a list of AttributeEntry",
                ));
            }
            finish(&mut encoder.points, "attributes", data)
        })?;
        let extras = Some(Box::new(Extras { attributes, metadata: None }));
        let timeseries = Points::default();
        Ok(Self(Uplink { device: shared(device), timeseries, extras, main_timestamp: Timestamp::NONE }))
    }

    #[staticmethod]
    #[pyo3(signature = (attributes, timeseries, main_ts = None, device = None))]
    fn of_entries(
        attributes: &Bound<'_, PyAny>,
        timeseries: &Bound<'_, PyAny>,
        main_ts: Option<&Bound<'_, PyAny>>,
        device: Device<'_>,
    ) -> PyResult<Self> {
        let attributes = collect::<AttributeEntry>("attributes", attributes)?;
        Ok(Self(Uplink {
            device: shared(device),
            timeseries: collect::<TimeseriesEntry>("timeseries", timeseries)?,
            extras: (attributes.nbytes() > 0).then(|| Box::new(Extras { attributes, metadata: None })),
            main_timestamp: timestamp(main_ts)?,
        }))
    }

    #[pyo3(signature = (main_ts))]
    fn with_main_ts(&self, main_ts: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self(Uplink { main_timestamp: timestamp(main_ts)?, ..self.0.clone() }))
    }

    #[pyo3(signature = (now, readings = None))]
    fn on_monotonic_clock(&self, now: i64, readings: Option<(i64, i64, i64)>) -> PyResult<Self> {
        let at =
            |millis: i64| Timestamp::monotonic(millis).ok_or_else(|| value_error("now must be a monotonic time in ms"));
        let now = at(now)?;
        let (first, last, offset) = readings.unwrap_or((1, 0, 0));
        let timeseries =
            self.0.timeseries.with_timestamps(|timestamp| match timestamp.or(self.0.main_timestamp).millis() {
                None => now,
                Some(millis) if (first..=last).contains(&millis) => {
                    millis.checked_sub(offset).and_then(Timestamp::monotonic).unwrap_or(timestamp)
                }
                Some(_) => timestamp,
            });
        Ok(Self(Uplink { timeseries, ..self.0.clone() }))
    }

    fn with_clock_offset(&self, offset: i64) -> Self {
        let timeseries = self.0.timeseries.with_timestamps(|timestamp| timestamp.with_offset(offset));
        Self(Uplink { timeseries, ..self.0.clone() })
    }

    #[getter]
    fn awaits_clock(&self) -> bool {
        self.0.timeseries.has_monotonic()
    }

    fn with_device(&self, device: &Bound<'_, DeviceIdentity>) -> Self {
        Self(Uplink { device: shared(Some(device)), ..self.0.clone() })
    }

    #[getter]
    fn device(&self) -> Option<DeviceIdentity> {
        self.0.device.as_ref().map(|identity| DeviceIdentity(Arc::clone(identity)))
    }

    #[getter]
    fn main_ts(&self) -> Option<i64> {
        self.0.main_timestamp.millis()
    }

    #[getter]
    fn attribute_count(&self) -> usize {
        self.0.attribute_count()
    }

    #[getter]
    fn timeseries_count(&self) -> usize {
        self.0.timeseries.count()
    }

    #[getter]
    fn datapoints(&self) -> usize {
        self.0.datapoints()
    }

    #[getter]
    fn has_device(&self) -> bool {
        self.0.device.is_some()
    }

    #[getter]
    fn conversions(&self) -> (u32, u32) {
        let kinds = [Kind::Timeseries, Kind::Attributes];
        let Conversions { rounded, as_text } = kinds.iter().map(|&kind| conversions(&[&self.0], kind)).sum();
        (rounded, as_text)
    }

    fn key_that_needs_ts(&self) -> Option<&'static str> {
        if self.0.main_timestamp != Timestamp::NONE {
            return None;
        }
        self.0.timeseries.unstamped().find_map(|point| match point.key() {
            b"\"ts\"" => Some("ts"),
            b"\"values\"" => Some("values"),
            b"\"metadata\"" if self.0.device.is_some() => Some("metadata"),
            _ => None,
        })
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }

    #[getter]
    fn entries_size(&self) -> usize {
        let attributes = self.0.attributes().into_iter().flat_map(Points::iter);
        let all = self.0.timeseries.iter().chain(attributes);
        all.map(|(timestamp, point)| published_size(timestamp, point.bytes())).sum()
    }

    fn attribute_entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let points = self.0.attributes().into_iter().flat_map(Points::iter);
        entries(py, points, |entry| Bound::new(py, entry.add_subclass(AttributeEntry)))
    }

    fn timeseries_entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        entries(py, self.0.timeseries.iter(), |entry| Bound::new(py, entry.add_subclass(TimeseriesEntry)))
    }
}

pub fn timestamp_of_now(now_ms: Option<i64>) -> PyResult<Timestamp> {
    now_ms.map_or(Ok(Timestamp::NONE), |now_ms| {
        let end = Timestamp::END;
        Timestamp::new(now_ms).ok_or_else(|| {
            value_error(format_args!(
                "now_ms must be milliseconds since the epoch below {end} (the year 10000), not {now_ms}"
            ))
        })
    })
}

/// The error of one device's data among those of several devices, with the name of the device.
fn of_device(error: PyErr, device: &Bound<'_, DeviceIdentity>) -> PyErr {
    let (py, note) = (device.py(), format!("In the data of device {:?}.", device.get().0.name()));
    match error.value(py).call_method1(pyo3::intern!(py, "add_note"), (note,)) {
        Ok(_) => error,
        Err(other) => other,
    }
}

pub fn encode_telemetry(data: &Bound<'_, PyAny>, now: Timestamp, round_floats: bool) -> PyResult<Points> {
    with_encoder(Numbers::new(round_floats), |encoder| {
        if let Ok(dict) = data.cast_exact::<PyDict>() {
            add_telemetry_dict(dict, now, encoder)?;
        } else if let Ok(entry) = data.cast::<TimeseriesEntry>() {
            add_entry(entry.as_super(), now, &mut encoder.points)?;
        } else if let Ok(list) = data.cast_exact::<PyList>() {
            for item in list {
                add_telemetry_item(&item, now, encoder)?;
            }
        } else {
            return Err(unsupported(
                "payload type for telemetry",
                data,
                "a dict, a TimeseriesEntry and a list of these",
            ));
        }
        finish(&mut encoder.points, "telemetry", data)
    })
}

fn entries<'a, 'py, T: PyTypeInfo>(
    py: Python<'py>,
    points: impl Iterator<Item = (Timestamp, tb_mqtt_core::points::Point<'a>)>,
    make: impl Fn(PyClassInitializer<DataEntry>) -> PyResult<Bound<'py, T>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let entries: Vec<_> = points
        .map(|(timestamp, point)| make(PyClassInitializer::from(DataEntry::from_point(timestamp, point))))
        .collect::<PyResult<_>>()?;
    PyTuple::new(py, entries)
}

/// Collect the entries of an argument, which must all be of the class `T`.
fn collect<T: PyTypeInfo>(argument: &str, entries: &Bound<'_, PyAny>) -> PyResult<Points> {
    with_encoder(Numbers::default(), |Encoder { points: builder, .. }| {
        for (index, entry) in entries.try_iter()?.enumerate() {
            let entry = entry?;
            if !entry.is_instance_of::<T>() {
                let expected = T::type_object(entry.py()).name()?;
                return Err(wrong_type(argument, index, &format!("{expected}"), &entry));
            }
            with_entry(&entry, |entry| {
                builder.push_encoded(entry.timestamp, entry.key_json(), entry.point()).map_err(value_error)
            })?;
        }
        Ok(builder.finish())
    })
}

fn add_telemetry_item(item: &Bound<'_, PyAny>, now: Timestamp, encoder: &mut Encoder) -> PyResult<()> {
    if let Ok(dict) = item.cast_exact::<PyDict>() {
        add_telemetry_dict(dict, now, encoder)
    } else if let Ok(entry) = item.cast::<TimeseriesEntry>() {
        add_entry(entry.as_super(), now, &mut encoder.points)
    } else {
        Err(unsupported("item type in telemetry list", item, "dict and TimeseriesEntry"))
    }
}

/// Add `{"ts": ms, "values": {…}}`, or `{key: value}` if there is no `ts`.
fn add_telemetry_dict(dict: &Bound<'_, PyDict>, now: Timestamp, encoder: &mut Encoder) -> PyResult<()> {
    let py = dict.py();
    let Some(ts) = dict.get_item(pyo3::intern!(py, "ts"))? else { return add_values(dict, now, encoder) };
    let Some(values) = dict.get_item(pyo3::intern!(py, "values"))? else {
        return Err(PyValueError::new_err(
            "telemetry with 'ts' must have 'values', a dict with at least one datapoint",
        ));
    };
    if dict.len() > 2 {
        return Err(PyValueError::new_err("telemetry with 'ts' and 'values' must have no other keys"));
    }
    let Ok(values) = values.cast_exact::<PyDict>() else {
        let (type_name, _) = Value(values.clone()).describe();
        return Err(PyValueError::new_err(format!("Expected values to be a dict, got {type_name}")));
    };
    if values.is_empty() {
        return Err(PyValueError::new_err("'values' must have at least one datapoint"));
    }
    add_values(values, timestamp(Some(&ts))?.or(now), encoder)
}

fn add_values(values: &Bound<'_, PyDict>, timestamp: Timestamp, encoder: &mut Encoder) -> PyResult<()> {
    let values = at_this_moment(values);
    let Encoder { points, keys } = encoder;
    let awake = keys.is_awake(values.len());
    points.push_run(timestamp, |out| {
        for (place, (key, value)) in values.iter().enumerate() {
            let (key, value) = (Value(key), Value(value));
            if awake {
                keys.write(&key, &mut out.bytes)?;
            } else {
                keys.write_new(place, &key, &mut out.bytes)?;
            }
            write_point_value(&key, &value, out)?;
        }
        Ok::<_, PointRefusal>(values.len())
    })?;
    keys.judge();
    Ok(())
}

fn add_entry(entry: &Bound<'_, DataEntry>, now: Timestamp, builder: &mut PointsBuilder) -> PyResult<()> {
    let added = entry.get().with(|entry| {
        let point = entry.point();
        let (key, value) = entry.parts(point);
        if numbers::may_become_text(value) {
            return Ok(false);
        }
        builder.push_encoded(entry.timestamp.or(now), key, point).map_err(value_error)?;
        Ok(true)
    })?;
    if added { Ok(()) } else { add_again(entry, now, builder) }
}

/// Encode an entry's value again, by the builder's rules for numbers. That runs Python code, so a copy is read.
#[cold]
fn add_again(entry: &Bound<'_, DataEntry>, now: Timestamp, builder: &mut PointsBuilder) -> PyResult<()> {
    let datapoint = entry.get().with(|entry| Ok(entry.clone()))?;
    let value = Value(datapoint.value(entry.py())?);
    let write = |out: &mut Output| json::write_value(&value, out).map_err(PointRefusal::from);
    Ok(builder.push_value(datapoint.timestamp.or(now), datapoint.key_json(), write)?)
}

fn finish(builder: &mut PointsBuilder, kind: &str, data: &Bound<'_, PyAny>) -> PyResult<Points> {
    let points = builder.finish();
    if points.nbytes() == 0 {
        let (type_name, _) = Value(data.clone()).describe();
        return Err(PyValueError::new_err(format!(
            "Unsupported payload type for {kind}: {type_name} without a datapoint, at least one is needed"
        )));
    }
    Ok(points)
}

fn unsupported(what: &str, object: &Bound<'_, PyAny>, allowed: &str) -> PyErr {
    let (type_name, _) = Value(object.clone()).describe();
    PyValueError::new_err(format!("Unsupported {what}: {type_name}, allowed are {allowed}"))
}
