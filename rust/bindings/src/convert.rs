//! Conversions from Python objects to values of the core, and from refusals of the core to Python exceptions.

use std::cell::Cell;
use std::fmt::Display;

use num_bigint::BigInt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::iter::{BoundDictIterator, BoundListIterator};
use pyo3::types::{
    PyBool, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt, PyList, PyString, PyType, PyTzInfo,
};
use tb_mqtt_core::json::{self, Node, Output, Refusal, Shape, Text};
use tb_mqtt_core::key::{self, KeyRefusal};
use tb_mqtt_core::numbers::Numbers;
use tb_mqtt_core::points::{PointsBuilder, Timestamp, TooLarge};

use crate::keys::KeyCache;
use crate::other_values;

/// A Python object as a JSON value. Only exact types are supported, because the value of a subclass may mean something else.
pub struct Value<'py>(pub Bound<'py, PyAny>);

impl<'py> Node for Value<'py> {
    type Items = Items<'py>;
    type Pairs = Pairs<'py>;

    #[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
    #[inline(always)]
    fn shape(&self) -> Shape<'_, Self> {
        let object = &self.0;
        if let Ok(float) = object.cast_exact::<PyFloat>() {
            Shape::Float(float.value())
        } else if let Ok(text) = object.cast_exact::<PyString>() {
            text.to_str().map_or(Shape::BrokenText, Shape::Text)
        } else if object.is_exact_instance_of::<PyInt>() {
            object.extract().map_or_else(|_| big_integer(object), Shape::Int)
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            Shape::Bool(value.is_true())
        } else if object.is_none() {
            Shape::Null
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            Shape::List(Items(list.iter()))
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            Shape::Dict(Pairs(at_this_moment(dict).iter()))
        } else {
            other_values::shape(object)
        }
    }

    #[inline]
    fn text(&self) -> Text<'_> {
        match self.0.cast_exact::<PyString>() {
            Ok(text) => text.to_str().map_or(Text::Broken, Text::Sound),
            Err(_) => Text::Other,
        }
    }

    fn describe(&self) -> (String, String) {
        let type_name = self.0.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        // repr runs the caller's code. If that fails, the refusal must still name the place.
        let repr = self.0.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string_lossy().into_owned());
        (type_name, repr)
    }
}

/// The pairs of a dict at this moment. Without the interpreter's lock another thread may change the dict between two steps of
/// an iteration over it, which panics; so a copy is read there.
#[cfg(Py_GIL_DISABLED)]
pub fn at_this_moment<'py>(dict: &Bound<'py, PyDict>) -> Bound<'py, PyDict> {
    dict.copy().expect("memory for a shallow copy of a dict")
}

/// The pairs of a dict at this moment: the dict itself, because no other thread runs while it is read.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub fn at_this_moment<'a, 'py>(dict: &'a Bound<'py, PyDict>) -> &'a Bound<'py, PyDict> {
    dict
}

pub fn big_integer<'a, 'py>(object: &Bound<'py, PyAny>) -> Shape<'a, Value<'py>> {
    object.extract::<BigInt>().map_or(Shape::Unsupported, |integer| Shape::Digits(integer.to_string()))
}

/// Elements of a list.
pub struct Items<'py>(pub BoundListIterator<'py>);

impl<'py> Iterator for Items<'py> {
    type Item = Value<'py>;

    #[inline]
    fn next(&mut self) -> Option<Value<'py>> {
        self.0.next().map(Value)
    }
}

/// Keys and values of a dict.
pub struct Pairs<'py>(pub BoundDictIterator<'py>);

impl<'py> Iterator for Pairs<'py> {
    type Item = (Value<'py>, Value<'py>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (Value(key), Value(value)))
    }
}

/// Why a datapoint cannot be encoded. A single pointer, as `Refusal` is.
pub struct PointRefusal(Box<RefusedPoint>);

struct RefusedPoint {
    text: String,
    unsupported: bool,
}

impl PointRefusal {
    fn new(refusal: impl Display, unsupported: bool) -> Self {
        Self(Box::new(RefusedPoint { text: refusal.to_string(), unsupported }))
    }

    fn value(refusal: impl Display) -> Self {
        Self::new(refusal, false)
    }

    fn unsupported(refusal: impl Display) -> Self {
        Self::new(refusal, true)
    }
}

impl From<TooLarge> for PointRefusal {
    fn from(refusal: TooLarge) -> Self {
        Self::value(refusal)
    }
}

impl From<Refusal> for PointRefusal {
    #[cold]
    fn from(refusal: Refusal) -> Self {
        Self::new(&refusal, refusal.reason().is_unsupported())
    }
}

impl From<PointRefusal> for PyErr {
    fn from(refusal: PointRefusal) -> Self {
        let RefusedPoint { text, unsupported } = *refusal.0;
        if !unsupported {
            return value_error(text);
        }
        Python::attach(|py| match unsupported_value_error(py) {
            Ok(class) => Self::from_type(class.clone(), (text,)),
            Err(error) => error,
        })
    }
}

/// Return the class of errors for values that JSON cannot represent: both a `ValueError` and a `TypeError`.
pub fn unsupported_value_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || {
        let bases = (py.get_type::<PyValueError>(), py.get_type::<PyTypeError>());
        let members = PyDict::new(py);
        // Tracebacks and pickles have the name of the module that publishes the class.
        members.set_item("__module__", "tb_mqtt_client.common.exceptions")?;
        members.set_item("__doc__", "A value, or a key, cannot be written as JSON.")?;
        // Made as Python's `class` statement does, because PyO3 has no safe way to make an exception with two bases.
        let class = py.get_type::<PyType>().call1(("UnsupportedValueError", bases, members))?;
        Ok::<_, PyErr>(class.cast_into::<PyType>()?.unbind())
    })?;
    Ok(class.bind(py))
}

/// Append `"key":`. Return the length of the key with its quotes.
#[inline]
pub fn write_key(name: &Value<'_>, out: &mut Vec<u8>) -> Result<usize, PointRefusal> {
    let start = out.len();
    let text = json::text_of(name)?;
    if !key::write_plain(text, out) {
        write_unusual_key(text, out)?;
    }
    Ok(out.len() - start - 1)
}

/// Not inlined, so that the usual case stays small where it is inlined.
#[inline(never)]
fn write_unusual_key(key: &str, out: &mut Vec<u8>) -> Result<(), PointRefusal> {
    key::write(key, out).map_err(|refusal| refused_key(key, &refusal))
}

#[cold]
fn refused_key(key: &str, refusal: &KeyRefusal) -> PointRefusal {
    PointRefusal::value(format_args!("Invalid key {key:?}: {refusal}"))
}

/// Append `"key":value,`. Return the length of the key with its quotes.
#[inline]
pub fn write_point(name: &Value<'_>, value: &Value<'_>, out: &mut Output) -> Result<usize, PointRefusal> {
    let length = write_key(name, &mut out.bytes)?;
    write_point_value(name, value, out)?;
    Ok(length)
}

/// Append `value,` after its key.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
pub fn write_point_value(name: &Value<'_>, value: &Value<'_>, out: &mut Output) -> Result<(), PointRefusal> {
    if let Err(refusal) = json::write_value(value, out) {
        return Err(refused_value(name, &refusal));
    }
    out.bytes.push(b',');
    Ok(())
}

#[cold]
pub fn refused_value(name: &Value<'_>, refusal: &Refusal) -> PointRefusal {
    let key = name.describe().1;
    PointRefusal::new(format_args!("{refusal} (value of key {key})"), refusal.reason().is_unsupported())
}

/// Check a datapoint's key and return its text.
pub fn key_text<'a>(object: &'a Bound<'_, PyAny>) -> Result<&'a str, PointRefusal> {
    let text = object.cast_exact::<PyString>().map_err(|_| {
        let (type_name, repr) = Value(object.clone()).describe();
        PointRefusal::unsupported(format_args!("Invalid key {repr}: expected str, got {type_name}"))
    })?;
    let text = text
        .to_str()
        .map_err(|_| PointRefusal::unsupported("Invalid key: lone surrogates cannot be encoded as UTF-8"))?;
    key::validate(text).map_err(|refusal| refused_key(text, &refusal))?;
    Ok(text)
}

/// Return a timestamp as milliseconds since the epoch, or none.
pub fn timestamp(ts: Option<&Bound<'_, PyAny>>) -> PyResult<Timestamp> {
    let Some(ts) = ts.filter(|ts| !ts.is_none()) else { return Ok(Timestamp::NONE) };
    if ts.is_exact_instance_of::<PyInt>()
        && let Some(timestamp) = ts.extract().ok().and_then(Timestamp::new)
    {
        return Ok(timestamp);
    }
    other_timestamp(ts)
}

/// Convert a timestamp that is not an `int` of the usual range.
#[inline(never)]
fn other_timestamp(ts: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    // The outer None is for a wrong type, the inner one for a number out of range.
    let millis = if let Ok(float) = ts.cast_exact::<PyFloat>() {
        Some(whole_millis(float.value()))
    } else if ts.is_instance_of::<PyInt>() && !ts.is_exact_instance_of::<PyBool>() {
        Some(ts.extract().ok())
    } else if let Ok(datetime) = ts.cast::<PyDateTime>() {
        Some(Some(millis_of(datetime)?))
    } else {
        None
    };
    let timestamp = millis.flatten().and_then(Timestamp::new);
    timestamp.ok_or_else(|| refused_timestamp(ts, millis.is_some(), millis.flatten()))
}

#[cold]
fn refused_timestamp(ts: &Bound<'_, PyAny>, is_time: bool, millis: Option<i64>) -> PyErr {
    PointRefusal::new(Timestamp::refusal(&Value(ts.clone()).describe().1, millis), !is_time).into()
}

/// Return the milliseconds from the epoch to a datetime, cut to whole ones.
fn millis_of(datetime: &Bound<'_, PyDateTime>) -> PyResult<i64> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    let py = datetime.py();
    if datetime.call_method0(pyo3::intern!(py, "utcoffset"))?.is_none() {
        return Err(PyValueError::new_err(format!(
            "Invalid ts {}: a datetime must have a timezone, use datetime.now(UTC), or .astimezone() if it is in local time",
            Value(datetime.clone().into_any()).describe().1
        )));
    }
    let epoch = EPOCH.get_or_try_init(py, || {
        let utc = PyTzInfo::utc(py)?;
        PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&*utc)).map(Bound::unbind)
    })?;
    let since = datetime.sub(epoch.bind(py))?.cast_into::<PyDelta>()?;
    let seconds = i64::from(since.get_days()) * 86_400 + i64::from(since.get_seconds());
    Ok(seconds * 1000 + i64::from(since.get_microseconds()) / 1000)
}

/// Cut to whole milliseconds, as the platform does with a decimal.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked, and cutting is intended"
)]
fn whole_millis(millis: f64) -> Option<i64> {
    (millis > i64::MIN as f64 && millis < i64::MAX as f64).then_some(millis as i64)
}

/// The error for an element of a sequence that has the wrong type.
#[cold]
pub fn wrong_type(argument: &str, index: usize, expected: &str, object: &Bound<'_, PyAny>) -> PyErr {
    let (type_name, _) = Value(object.clone()).describe();
    PyTypeError::new_err(format!("{argument}[{index}] must be of type {expected}, not {type_name}"))
}

/// A refusal as a `ValueError`.
pub fn value_error(refusal: impl Display) -> PyErr {
    PyValueError::new_err(refusal.to_string())
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static ENCODER: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

/// Larger buffers are freed after use, so that one huge value does not occupy memory from then on.
const KEPT_SCRATCH: usize = 1 << 20;

/// Lend an empty buffer of this thread.
pub fn with_scratch<T>(work: impl FnOnce(&mut Output) -> PyResult<T>) -> PyResult<T> {
    SCRATCH.with(|kept| {
        // Taken out while in use, because a refusal runs the caller's repr(), which may call this function again.
        let mut scratch = Output { bytes: kept.take(), numbers: Numbers::default() };
        scratch.bytes.clear();
        let result = work(&mut scratch);
        if scratch.bytes.capacity() <= KEPT_SCRATCH {
            kept.set(scratch.bytes);
        }
        result
    })
}

/// What the encoder of a thread keeps from one send to the next.
#[derive(Default)]
pub struct Encoder {
    pub points: PointsBuilder,
    pub keys: KeyCache,
}

/// Lend the encoder of this thread, with an empty builder.
pub fn with_encoder<T>(numbers: Numbers, work: impl FnOnce(&mut Encoder) -> PyResult<T>) -> PyResult<T> {
    ENCODER.with(|kept| {
        // Taken out while in use, as the scratch buffer is.
        let mut encoder = kept.take().unwrap_or_default();
        encoder.points.begin(numbers);
        let result = work(&mut encoder);
        if encoder.points.capacity() > KEPT_SCRATCH {
            encoder.points = PointsBuilder::default();
        }
        kept.set(Some(encoder));
        result
    })
}
