//! The functions `pack_*` and `split_*` and their results.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tb_mqtt_core::attribution::Attribution;
use tb_mqtt_core::group::Kind;
use tb_mqtt_core::numbers::Conversions;
use tb_mqtt_core::pack::{self, Limits, Packed, Part};
use tb_mqtt_core::points::Timestamp;
use tb_mqtt_core::repack::repack;
use tb_mqtt_core::sink::Layout;
use tb_mqtt_core::uplink::Uplink;

use crate::convert::{value_error, wrong_type};
use crate::gathering::GatheredSends;
use crate::uplinks::{DeviceIdentity, EncodedUplink};

/// One MQTT payload and the uplinks that its datapoints came from.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct Payload {
    #[pyo3(get)]
    data: Py<PyBytes>,
    layout: Layout,
    rest: Part<()>,
}

impl Payload {
    fn new(layout: Layout, part: Part<Py<PyBytes>>) -> Self {
        let (data, rest) = part.split_output();
        Self { data, layout, rest }
    }

    fn repack(&self, py: Python<'_>, limits: Limits) -> Vec<Self> {
        let parts = repack(self.data.as_bytes(py), self.layout, &self.rest, limits);
        let kept = |part: Part<Vec<u8>>| part.map_output(|data| PyBytes::new(py, &data).unbind());
        parts.into_iter().map(|part| Self::new(self.layout, kept(part))).collect()
    }
}

#[pymethods]
impl Payload {
    #[getter]
    fn datapoints(&self) -> usize {
        self.rest.datapoints
    }

    #[getter]
    fn devices(&self) -> usize {
        self.rest.devices
    }

    #[getter]
    fn sources(&self) -> Vec<(usize, usize)> {
        pairs(&self.rest.attribution)
    }

    /// The items of the sources, and the number of datapoints of each: one number if it is the same for all.
    fn of_sources<'py>(&self, items: &Bound<'py, PyList>) -> PyResult<(Bound<'py, PyList>, Shares)> {
        let (py, sources) = (items.py(), self.rest.attribution.sources());
        let found: Vec<_> = sources.iter().map(|source| items.get_item(source.uplink)).collect::<PyResult<_>>()?;
        let first = sources.first().map_or(0, |source| source.datapoints);
        let shares = if sources.iter().all(|source| source.datapoints == first) {
            Shares::Equal(first)
        } else {
            Shares::Each(sources.iter().map(|source| source.datapoints).collect())
        };
        Ok((PyList::new(py, found)?, shares))
    }

    fn device_identities(&self) -> Vec<DeviceIdentity> {
        self.rest.entries.iter().map(|entry| DeviceIdentity(Arc::clone(&entry.device))).collect()
    }

    #[pyo3(signature = (max_size, max_datapoints = 0, max_devices = 0))]
    fn split(&self, py: Python<'_>, max_size: usize, max_datapoints: usize, max_devices: usize) -> Vec<Self> {
        self.repack(py, Limits::with_zero_as_unlimited(max_size, max_datapoints, max_devices))
    }
}

/// How many datapoints of its uplinks a payload acknowledges.
#[derive(IntoPyObject)]
enum Shares {
    Equal(usize),
    Each(Vec<usize>),
}

/// The payloads of a batch of uplinks.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct PackedUplinks {
    payloads: Vec<Py<Payload>>,
    #[pyo3(get)]
    oversized: Vec<(usize, String, usize)>,
    #[pyo3(get)]
    conversions: (u32, u32),
    #[pyo3(get)]
    suspicious_ts: Option<i64>,
    #[pyo3(get)]
    is_one_to_one: bool,
}

#[pymethods]
impl PackedUplinks {
    #[getter]
    fn payloads(&self, py: Python<'_>) -> Vec<Py<Payload>> {
        self.payloads.iter().map(|payload| payload.clone_ref(py)).collect()
    }
}

fn pairs(attribution: &Attribution) -> Vec<(usize, usize)> {
    attribution.sources().iter().map(|source| (source.uplink, source.datapoints)).collect()
}

/// The uplinks of a sequence, kept alive while the core reads them.
enum Batch<'py> {
    Objects(Vec<Bound<'py, EncodedUplink>>),
    Gathered(Bound<'py, GatheredSends>),
}

impl<'py> Batch<'py> {
    fn new(uplinks: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(gathered) = uplinks.cast::<GatheredSends>() {
            return Ok(Self::Gathered(gathered.clone()));
        }
        let one = |(index, uplink): (usize, PyResult<Bound<'py, PyAny>>)| {
            let wrong = |uplink| wrong_type("uplinks", index, "EncodedUplink", &uplink);
            uplink?.cast_into::<EncodedUplink>().map_err(|error| wrong(error.into_inner()))
        };
        uplinks.try_iter()?.enumerate().map(one).collect::<PyResult<_>>().map(Self::Objects)
    }

    fn uplinks(&self) -> Vec<&Uplink> {
        match self {
            Self::Objects(uplinks) => uplinks.iter().map(|uplink| &uplink.get().0).collect(),
            Self::Gathered(gathered) => gathered.get().uplinks.iter().collect(),
        }
    }
}

/// Write the timeseries of many uplinks into few payloads.
#[pyfunction]
#[pyo3(signature = (uplinks, *, gateway, max_size, max_datapoints = 0, max_devices = 1, now_ms = None))]
pub fn pack_timeseries(
    uplinks: &Bound<'_, PyAny>,
    gateway: bool,
    max_size: usize,
    max_datapoints: usize,
    max_devices: usize,
    now_ms: Option<i64>,
) -> PyResult<PackedUplinks> {
    let limits = Limits::with_zero_as_unlimited(max_size, max_datapoints, max_devices);
    pack(uplinks, Layout { kind: Kind::Timeseries, gateway }, limits, now_ms)
}

/// Write the attributes of many uplinks into few payloads.
#[pyfunction]
#[pyo3(signature = (uplinks, *, gateway, max_size, max_datapoints = 0, max_devices = 1))]
pub fn pack_attributes(
    uplinks: &Bound<'_, PyAny>,
    gateway: bool,
    max_size: usize,
    max_datapoints: usize,
    max_devices: usize,
) -> PyResult<PackedUplinks> {
    let limits = Limits::with_zero_as_unlimited(max_size, max_datapoints, max_devices);
    pack(uplinks, Layout { kind: Kind::Attributes, gateway }, limits, None)
}

/// Return whether every uplink is in exactly one payload.
fn each_in_one<T>(parts: &[Part<T>], uplinks: usize) -> bool {
    let sources = || parts.iter().flat_map(|part| part.attribution.sources());
    if sources().count() != uplinks {
        return false;
    }
    // As many as there are uplinks: all of them, unless one is missing and another is in two payloads.
    let mut is_seen = vec![false; uplinks];
    sources().all(|source| !std::mem::replace(&mut is_seen[source.uplink], true))
}

fn pack(uplinks: &Bound<'_, PyAny>, layout: Layout, limits: Limits, now_ms: Option<i64>) -> PyResult<PackedUplinks> {
    let (py, batch) = (uplinks.py(), Batch::new(uplinks)?);
    let uplinks = batch.uplinks();
    let keep = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    let Packed { parts, oversized, suspicious, conversions } =
        pack::pack_into(&uplinks, layout, limits, now_ms, keep).map_err(value_error)?;
    let Conversions { rounded, as_text } = conversions;
    let suspicious_ts = suspicious.and_then(Timestamp::millis);
    let is_one_to_one = oversized.is_empty() && each_in_one(&parts, uplinks.len());
    let payloads = parts.into_iter().map(|part| Py::new(py, Payload::new(layout, part))).collect::<PyResult<_>>()?;
    let oversized = oversized
        .into_iter()
        .map(|oversized| {
            let key = crate::entries::loads(py, oversized.point.key())?.extract()?;
            Ok((oversized.uplink, key, oversized.size))
        })
        .collect::<PyResult<_>>()?;
    Ok(PackedUplinks { payloads, oversized, conversions: (rounded, as_text), suspicious_ts, is_one_to_one })
}

type SplitUplink = (EncodedUplink, Vec<(usize, usize)>);

/// Cut the timeseries of many uplinks into uplinks that fit.
#[pyfunction]
#[pyo3(signature = (uplinks, *, gateway, max_size, max_datapoints = 0))]
pub fn split_timeseries(
    uplinks: &Bound<'_, PyAny>,
    gateway: bool,
    max_size: usize,
    max_datapoints: usize,
) -> PyResult<Vec<SplitUplink>> {
    let limits = Limits::with_zero_as_unlimited(max_size, max_datapoints, 1);
    split(uplinks, Layout { kind: Kind::Timeseries, gateway }, limits)
}

/// Cut the attributes of many uplinks into uplinks that fit.
#[pyfunction]
#[pyo3(signature = (uplinks, *, gateway, max_size, max_datapoints = 0))]
pub fn split_attributes(
    uplinks: &Bound<'_, PyAny>,
    gateway: bool,
    max_size: usize,
    max_datapoints: usize,
) -> PyResult<Vec<SplitUplink>> {
    let limits = Limits::with_zero_as_unlimited(max_size, max_datapoints, 1);
    split(uplinks, Layout { kind: Kind::Attributes, gateway }, limits)
}

fn split(uplinks: &Bound<'_, PyAny>, layout: Layout, limits: Limits) -> PyResult<Vec<SplitUplink>> {
    let batch = Batch::new(uplinks)?;
    let parts = pack::split(&batch.uplinks(), layout, limits).map_err(value_error)?;
    Ok(parts.into_iter().map(|part| (EncodedUplink(part.output), pairs(&part.attribution))).collect())
}
