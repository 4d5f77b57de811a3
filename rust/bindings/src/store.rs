//! `StoreLog`: sends on disk.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tb_mqtt_core::store::log::MAX_SEGMENT_BYTES;
use tb_mqtt_core::store::{Damage, Disk, Due, Lane, Log, Settings, StoreError as Refusal, StoredSend, Totals};
use tb_mqtt_core::uplink::{Identity, Uplink};

use crate::convert::wrong_type;
use crate::uplinks::{DeviceIdentity, EncodedUplink};

create_exception!(tb_mqtt_client._native, StoreError, PyOSError, "A store cannot be opened.");
create_exception!(
    tb_mqtt_client._native,
    StoreInUseError,
    StoreError,
    "Another process, or another client, has the store."
);
create_exception!(
    tb_mqtt_client._native,
    StoreOwnerError,
    StoreError,
    "The store has data for another platform or credential."
);
create_exception!(
    tb_mqtt_client._native,
    StoreFormatError,
    StoreError,
    "Another version of the package wrote the store."
);
create_exception!(
    tb_mqtt_client._native,
    NotAStoreError,
    StoreError,
    "There is something else at the path of the store."
);

fn error_of(refusal: Refusal) -> PyErr {
    let text = refusal.to_string();
    match refusal {
        Refusal::Held(..) => StoreInUseError::new_err(text),
        Refusal::OtherOwner(..) => StoreOwnerError::new_err(text),
        Refusal::OtherFormat(..) => StoreFormatError::new_err(text),
        Refusal::NotAStore(..) | Refusal::DanglingLink(..) | Refusal::NotAFile(..) => NotAStoreError::new_err(text),
        Refusal::Argument(_) | Refusal::ReadOnly | Refusal::Closed => PyValueError::new_err(text),
        // With the number, Python chooses the subclass, such as PermissionError.
        Refusal::Io(action, error) => match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, text)),
            None => PyOSError::new_err(format!("{action}: {error}")),
        },
    }
}

/// What was found when a store was opened.
#[pyclass(frozen, get_all, module = "tb_mqtt_client._native")]
pub struct RecoveredCounts {
    sends: u64,
    attribute_sends: u64,
    datapoints: u64,
    bytes: u64,
    oldest_ms: Option<i64>,
    damaged_places: u64,
    damaged_bytes: u64,
    next_number: u64,
}

/// Counts that are read without waiting for the disk.
#[derive(Clone, Copy, Default)]
struct Counts {
    backlog: Totals,
    attribute_sends: u64,
    oldest: Option<i64>,
    expires: Option<i64>,
    disk_bytes: u64,
    damage: Damage,
    next_number: u64,
}

impl Counts {
    fn of(log: &Log<Disk>) -> Self {
        let mut backlog = Totals::default();
        for lane in Lane::ALL {
            backlog.add(log.backlog(lane));
        }
        Self {
            backlog,
            attribute_sends: log.backlog(Lane::Attributes).sends,
            oldest: log.oldest(),
            expires: log.next_expiry(),
            disk_bytes: log.disk_bytes(),
            damage: log.damage(),
            next_number: log.next_number(),
        }
    }
}

/// The log of a store.
///
/// `log` is locked while the disk works, always without the interpreter: no Python code runs and no Python object is made then.
/// `counts` is locked for a few instructions, by one who has `log` or by a getter, which locks nothing else.
#[pyclass(frozen, weakref, module = "tb_mqtt_client._native")]
pub struct StoreLog {
    log: Mutex<Option<Log<Disk>>>,
    counts: Mutex<Counts>,
    /// The process that has opened it.
    process: u32,
    #[pyo3(get)]
    obstacles: Vec<String>,
    #[pyo3(get)]
    recovered: Py<RecoveredCounts>,
    #[pyo3(get)]
    owner: String,
}

impl StoreLog {
    /// Work with the log, and take its counts afterwards.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Log<Disk>) -> Result<T, Refusal> + Send,
    ) -> PyResult<T> {
        if std::process::id() != self.process {
            return Err(StoreInUseError::new_err(format!(
                "the store is in use by process {}, of which this process is a fork: start processes with the method spawn, \
                 or open the store only after the fork",
                self.process
            )));
        }
        py.detach(|| {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let log = log.as_mut().ok_or(Refusal::Closed)?;
            let result = work(log);
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts::of(log);
            result
        })
        .map_err(error_of)
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Return the lane with a name.
fn lane_of(name: &str) -> PyResult<Lane> {
    match name {
        "normal" => Ok(Lane::Normal),
        "attributes" => Ok(Lane::Attributes),
        "high" => Ok(Lane::High),
        "low" => Ok(Lane::Low),
        other => Err(PyValueError::new_err(format!(
            "lanes must be names among attributes, high, normal and low, not {other:?}"
        ))),
    }
}

/// The number of a dropped send, its datapoints, and whether it had expired.
type DroppedTuple = (u64, u32, bool);
type SendTuple = (EncodedUplink, u64, i64, u8, i64);
type DeviceTuple = (Option<DeviceIdentity>, u64, u64, u64, Option<i64>);
type ReportTuple = (u64, u64, u64, Vec<(String, u64, u64, &'static str)>);

#[pymethods]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts owned values from arguments")]
impl StoreLog {
    #[staticmethod]
    #[pyo3(signature = (path, owner, *, max_segment_bytes = 8_388_608, read_only = false, waits = false))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        owner: &str,
        max_segment_bytes: u64,
        read_only: bool,
        waits: bool,
    ) -> PyResult<Self> {
        if max_segment_bytes == 0 || max_segment_bytes > MAX_SEGMENT_BYTES {
            return Err(PyValueError::new_err(format!(
                "max_segment_bytes must be from 1 to {MAX_SEGMENT_BYTES}, not {max_segment_bytes}"
            )));
        }
        let settings = Settings { max_segment_bytes, read_only, waits };
        let process = std::process::id();
        let note = process.to_string();
        let log = py.detach(|| Log::open(Disk, &path, owner, &note, settings)).map_err(error_of)?;
        let counts = Counts::of(&log);
        let recovered = RecoveredCounts {
            sends: counts.backlog.sends,
            attribute_sends: counts.attribute_sends,
            datapoints: counts.backlog.datapoints,
            bytes: counts.backlog.bytes,
            oldest_ms: counts.oldest,
            damaged_places: counts.damage.places,
            damaged_bytes: counts.damage.bytes,
            next_number: counts.next_number,
        };
        Ok(Self {
            owner: log.owner().to_owned(),
            obstacles: log.obstacles().to_vec(),
            log: Mutex::new(Some(log)),
            counts: Mutex::new(counts),
            process,
            recovered: Py::new(py, recovered)?,
        })
    }

    #[pyo3(signature = (sends, settled))]
    fn commit(&self, sends: &Bound<'_, PyAny>, settled: Vec<u64>) -> PyResult<()> {
        let kept = Kept::new(sends)?;
        let sends = kept.sends();
        self.with(kept.py, |log| log.commit(&sends, &settled))
    }

    #[pyo3(signature = (numbers))]
    fn release(&self, py: Python<'_>, numbers: Vec<u64>) -> PyResult<()> {
        self.with(py, |log| {
            log.release(&numbers);
            Ok(())
        })
    }

    #[pyo3(signature = (max_bytes, max_sends, lanes))]
    fn read(&self, py: Python<'_>, max_bytes: usize, max_sends: usize, lanes: Vec<String>) -> PyResult<Vec<SendTuple>> {
        let lanes = lanes.iter().map(|name| lane_of(name)).collect::<PyResult<Vec<_>>>()?;
        let sends = self.with(py, |log| log.read(&lanes, max_bytes, max_sends))?;
        let tuple = |send: StoredSend<Uplink>| {
            let StoredSend { uplink, number, accepted, priority, expires } = send;
            (EncodedUplink(uplink), number, accepted, priority, expires)
        };
        Ok(sends.into_iter().map(tuple).collect())
    }

    #[pyo3(signature = (nbytes))]
    fn drop_oldest(&self, py: Python<'_>, nbytes: u64) -> PyResult<Vec<DroppedTuple>> {
        let dropped = self.with(py, |log| log.drop_oldest(nbytes))?;
        Ok(dropped.into_iter().map(|one| (one.number, one.datapoints, one.expired)).collect())
    }

    #[pyo3(signature = (expired_at_ms, accepted_ms, max_sends))]
    fn drop_due(
        &self,
        py: Python<'_>,
        expired_at_ms: i64,
        accepted_ms: (i64, i64),
        max_sends: usize,
    ) -> PyResult<Vec<DroppedTuple>> {
        let due = Due { expired_at: expired_at_ms, accepted: accepted_ms };
        let dropped = self.with(py, |log| log.drop_due(due, max_sends))?;
        Ok(dropped.into_iter().map(|one| (one.number, one.datapoints, one.expired)).collect())
    }

    fn devices(&self, py: Python<'_>) -> PyResult<Vec<DeviceTuple>> {
        let devices = self.with(py, |log| log.devices())?;
        let tuple = |(name, sums): (Option<(String, String)>, tb_mqtt_core::store::DeviceTotals)| {
            let device = name.map(|(name, profile)| DeviceIdentity(Identity::new(&name, &profile).into()));
            let Totals { sends, datapoints, bytes } = sums.totals;
            (device, sends, datapoints, bytes, sums.oldest)
        };
        Ok(devices.into_iter().map(tuple).collect())
    }

    fn verify(&self, py: Python<'_>) -> PyResult<ReportTuple> {
        let report = self.with(py, |log| log.verify())?;
        let faults = report.faults.into_iter().map(|fault| (fault.file, fault.offset, fault.bytes, fault.reason));
        Ok((report.segments, report.frames, report.bytes, faults.collect()))
    }

    fn leave_to_parent(&self) {
        // A thread of the parent may have had the lock when this process was forked. It is never released here then.
        if std::process::id() != self.process
            && let Ok(mut log) = self.log.try_lock()
        {
            *log = None;
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if std::process::id() != self.process {
            self.leave_to_parent();
            return Ok(());
        }
        py.detach(|| {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
            log.map_or(Ok(()), Log::close)
        })
        .map_err(error_of)
    }

    #[getter]
    fn backlog_sends(&self) -> u64 {
        self.counts().backlog.sends
    }

    #[getter]
    fn backlog_attribute_sends(&self) -> u64 {
        self.counts().attribute_sends
    }

    #[getter]
    fn backlog_datapoints(&self) -> u64 {
        self.counts().backlog.datapoints
    }

    #[getter]
    fn backlog_bytes(&self) -> u64 {
        self.counts().backlog.bytes
    }

    #[getter]
    fn backlog_oldest_ms(&self) -> Option<i64> {
        self.counts().oldest
    }

    #[getter]
    fn backlog_expires_ms(&self) -> Option<i64> {
        self.counts().expires
    }

    #[getter]
    fn disk_bytes(&self) -> u64 {
        self.counts().disk_bytes
    }

    #[getter]
    fn next_number(&self) -> u64 {
        self.counts().next_number
    }

    #[getter]
    fn damaged_places(&self) -> u64 {
        self.counts().damage.places
    }

    #[getter]
    fn damaged_bytes(&self) -> u64 {
        self.counts().damage.bytes
    }

    #[getter]
    fn lost_sends(&self) -> u64 {
        self.counts().damage.lost.sends
    }

    #[getter]
    fn lost_datapoints(&self) -> u64 {
        self.counts().damage.lost.datapoints
    }
}

/// The sends of an argument, kept alive while the core reads them.
struct Kept<'py> {
    py: Python<'py>,
    sends: Vec<(Bound<'py, EncodedUplink>, u64, i64, u8, i64)>,
}

impl<'py> Kept<'py> {
    fn new(sends: &Bound<'py, PyAny>) -> PyResult<Self> {
        let shape = "tuple of (EncodedUplink, number, accepted_ms, priority, expires_ms)";
        let one = |(index, send): (usize, PyResult<Bound<'py, PyAny>>)| {
            let send = send?;
            let Ok(tuple) = send.cast::<PyTuple>() else { return Err(wrong_type("sends", index, shape, &send)) };
            if tuple.len() != 5 {
                return Err(wrong_type("sends", index, shape, &send));
            }
            let uplink = tuple.get_item(0)?;
            let uplink = uplink
                .cast_into::<EncodedUplink>()
                .map_err(|error| wrong_type(&format!("sends[{index}]"), 0, "EncodedUplink", &error.into_inner()))?;
            let number = tuple.get_borrowed_item(1)?.extract()?;
            let accepted = tuple.get_borrowed_item(2)?.extract()?;
            let priority = tuple.get_borrowed_item(3)?.extract()?;
            let expires = tuple.get_borrowed_item(4)?.extract()?;
            Ok((uplink, number, accepted, priority, expires))
        };
        let all = sends.try_iter()?.enumerate().map(one).collect::<PyResult<_>>()?;
        Ok(Self { py: sends.py(), sends: all })
    }

    fn sends(&self) -> Vec<StoredSend<&Uplink>> {
        let all = self.sends.iter();
        all.map(|(uplink, number, accepted, priority, expires)| StoredSend {
            uplink: &uplink.get().0,
            number: *number,
            accepted: *accepted,
            priority: *priority,
            expires: *expires,
        })
        .collect()
    }
}
