//! Values of types that JSON does not have, and that have one usual form in it: times, decimals, enums, UUIDs, and numpy's numbers and
//! arrays. They are looked for after all other types, so that those do not become slower.
//!
//! As little Python code as possible runs here, because another thread could change a dict that is being read.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDate, PyDict, PyFloat, PyInt, PyList, PyString, PyTime, PyType};
use tb_mqtt_core::json::Shape;

use crate::convert::{Items, Pairs, Value, at_this_moment, big_integer};

/// Return the shape of a value that has no type of JSON.
#[inline(never)]
pub fn shape<'a, 'py>(object: &Bound<'py, PyAny>) -> Shape<'a, Value<'py>> {
    // An error in a conversion makes the value one that cannot be written, and its type is in the error.
    converted(object).unwrap_or(Shape::Unsupported)
}

fn converted<'a, 'py>(object: &Bound<'py, PyAny>) -> PyResult<Shape<'a, Value<'py>>> {
    let py = object.py();
    // A datetime is a date.
    if object.is_instance_of::<PyDate>() || object.is_instance_of::<PyTime>() {
        let text = object.call_method0(pyo3::intern!(py, "isoformat"))?.extract::<String>()?;
        // pandas has a datetime that is none.
        return Ok(if text.starts_with(|first: char| first.is_ascii_digit()) {
            Shape::OwnText(text)
        } else {
            Shape::Unsupported
        });
    }
    let [decimal, member, uuid] = classes(py)?;
    if object.is_instance(member.bind(py))? {
        return plain(&object.getattr(pyo3::intern!(py, "_value_"))?);
    }
    if object.is_instance(decimal.bind(py))? {
        if !object.call_method0(pyo3::intern!(py, "is_finite"))?.extract::<bool>()? {
            let is_nan = object.call_method0(pyo3::intern!(py, "is_nan"))?.extract::<bool>()?;
            return Ok(Shape::Float(if is_nan { f64::NAN } else { object.extract()? }));
        }
        let text = object.call_method1(pyo3::intern!(py, "__format__"), ("f",))?;
        return Ok(Shape::Decimal(text.extract()?));
    }
    if object.is_instance(uuid.bind(py))? {
        let number: u128 = object.getattr(pyo3::intern!(py, "int"))?.extract()?;
        let hex = format!("{number:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        return Ok(Shape::OwnText(parts.join("-")));
    }
    let module = object.get_type().module()?;
    if module.to_str()? == "numpy" { of_numpy(object) } else { Ok(Shape::Unsupported) }
}

/// Convert a number or an array of numpy.
fn of_numpy<'a, 'py>(object: &Bound<'py, PyAny>) -> PyResult<Shape<'a, Value<'py>>> {
    let py = object.py();
    let dtype = object.getattr(pyo3::intern!(py, "dtype"))?;
    let kind: String = dtype.getattr(pyo3::intern!(py, "kind"))?.extract()?;
    let is_short = dtype.getattr(pyo3::intern!(py, "itemsize"))?.extract::<usize>()? < size_of::<f64>();
    match kind.as_str() {
        // The shortest form of a float of 32 bits has fewer digits than that of the equal float of 64 bits.
        "f" if is_short => {
            let texts = object.call_method1(pyo3::intern!(py, "astype"), ("str",))?;
            let floats = texts.call_method1(pyo3::intern!(py, "astype"), ("float64",))?;
            plain(&floats.call_method0(pyo3::intern!(py, "tolist"))?)
        }
        "b" | "i" | "u" | "f" | "U" | "O" => plain(&object.call_method0(pyo3::intern!(py, "tolist"))?),
        _ => Ok(Shape::Unsupported),
    }
}

/// Return the shape of an object that only this function refers to.
fn plain<'a, 'py>(object: &Bound<'py, PyAny>) -> PyResult<Shape<'a, Value<'py>>> {
    if object.is_exact_instance_of::<PyString>() {
        return Ok(object.extract::<String>().map_or(Shape::BrokenText, Shape::OwnText));
    }
    Ok(if let Ok(float) = object.cast_exact::<PyFloat>() {
        Shape::Float(float.value())
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
    } else if object.get_type().module()?.to_str()? == "numpy" {
        // A float of more than 64 bits is its own plain form.
        Shape::Unsupported
    } else {
        converted(object)?
    })
}

/// Return the classes `Decimal`, `Enum` and `UUID`.
fn classes(py: Python<'_>) -> PyResult<&[Py<PyType>; 3]> {
    static CLASSES: PyOnceLock<[Py<PyType>; 3]> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let class = |module: &str, name: &str| {
            Ok::<_, PyErr>(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok::<_, PyErr>([class("decimal", "Decimal")?, class("enum", "Enum")?, class("uuid", "UUID")?])
    })
}
