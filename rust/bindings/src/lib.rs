//! The extension `tb_mqtt_client._native`. Its contract is `python/tb_mqtt_client/_native.pyi`.
//!
//! It converts arguments and errors; `tb-mqtt-core` makes all decisions.

mod buckets;
mod convert;
mod entries;
mod gathering;
mod keys;
mod other_values;
mod packing;
mod results;
mod store;
#[cfg(feature = "arrow")]
mod table;
mod uplinks;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{PointRefusal, key_text, unsupported_value_error, with_scratch};
use tb_mqtt_core::{json, key};

/// Write a JSON-compatible value as compact UTF-8 JSON.
#[pyfunction]
#[pyo3(signature = (value))]
fn dumps<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_scratch(|out| {
        json::write_value(&convert::Value(value.clone()), out).map_err(PointRefusal::from)?;
        Ok(PyBytes::new(value.py(), &out.bytes))
    })
}

/// Raise `ValueError` unless the platform can store the key.
#[pyfunction]
#[pyo3(signature = (key))]
fn validate_key(key: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(key_text(key).map(drop)?)
}

/// The module does not need the interpreter's lock. All classes are frozen: their objects are only shared. Those that change,
/// `DataEntry`, `Gathering`, `TokenBuckets`, `StoreLog` and `TableReader`, keep their state in a mutex; a `ResultSlot` is filled
/// once. No Python code runs while a mutex is locked. `take_all` locks several at once, in the same order in every thread, and
/// `StoreLog` locks its counts while its log is locked, never the other way round.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("build_profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    module.add("MAX_KEY_LENGTH", key::MAX_KEY_LENGTH)?;
    module.add("MAX_DEPTH", json::MAX_DEPTH)?;
    module.add("UnsupportedValueError", unsupported_value_error(module.py())?)?;
    module.add_function(wrap_pyfunction!(dumps, module)?)?;
    module.add_function(wrap_pyfunction!(validate_key, module)?)?;
    module.add_class::<entries::DataEntry>()?;
    module.add_class::<entries::AttributeEntry>()?;
    module.add_class::<entries::TimeseriesEntry>()?;
    module.add_class::<uplinks::DeviceIdentity>()?;
    module.add_class::<uplinks::EncodedUplink>()?;
    module.add_class::<gathering::Gathering>()?;
    module.add_class::<gathering::GatheredSends>()?;
    module.add_class::<results::ResultSlot>()?;
    module.add_function(wrap_pyfunction!(results::settle, module)?)?;
    module.add_function(wrap_pyfunction!(results::settle_each, module)?)?;
    module.add_class::<packing::Payload>()?;
    module.add_class::<packing::PackedUplinks>()?;
    module.add_function(wrap_pyfunction!(packing::pack_timeseries, module)?)?;
    module.add_function(wrap_pyfunction!(packing::pack_attributes, module)?)?;
    module.add_function(wrap_pyfunction!(packing::split_timeseries, module)?)?;
    module.add_function(wrap_pyfunction!(packing::split_attributes, module)?)?;
    let py = module.py();
    module.add("StoreError", py.get_type::<store::StoreError>())?;
    module.add("StoreInUseError", py.get_type::<store::StoreInUseError>())?;
    module.add("StoreOwnerError", py.get_type::<store::StoreOwnerError>())?;
    module.add("StoreFormatError", py.get_type::<store::StoreFormatError>())?;
    module.add("NotAStoreError", py.get_type::<store::NotAStoreError>())?;
    module.add_class::<store::RecoveredCounts>()?;
    module.add_class::<store::StoreLog>()?;
    #[cfg(feature = "arrow")]
    module.add_class::<table::TableReader>()?;
    module.add_class::<buckets::TokenBuckets>()?;
    module.add_function(wrap_pyfunction!(buckets::take_all, module)?)?;
    Ok(())
}
