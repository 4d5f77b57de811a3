//! `TableReader`: the rows of a table in Arrow's columns, as uplinks.

use std::sync::{Mutex, PoisonError};

use arrow_array::{RecordBatch, RecordBatchReader};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::PyRecordBatchReader;
use tb_mqtt_core::json::Node;
use tb_mqtt_core::points::{PointsBuilder, Timestamp};
use tb_mqtt_core::table::{DeviceRows, Roles, Table, TableRefusal};
use tb_mqtt_core::uplink::Uplink;

use crate::convert::{Value, unsupported_value_error, value_error};
use crate::uplinks::EncodedUplink;

/// The rows that were read for one device: its name, its profile, and their datapoints.
type Rows = (Option<String>, Option<String>, EncodedUplink);

/// Reads a table once, in parts.
///
/// The source is taken out of the mutex while it is read, because it may run Python code.
#[pyclass(frozen, module = "tb_mqtt_client._native")]
pub struct TableReader(Mutex<State>);

enum State {
    Ready(Box<Source>),
    Reading,
    Ended,
}

struct Source {
    batches: Box<dyn RecordBatchReader + Send>,
    table: Table,
    builder: PointsBuilder,
    round_floats: bool,
    batch: Option<RecordBatch>,
    /// Rows of the batch that were read, and rows of the batches before it.
    row: usize,
    rows_before: u64,
}

#[pymethods]
impl TableReader {
    #[new]
    #[pyo3(signature = (table, ts, *, key = None, value = None, device = None, profile = None, round_floats = true))]
    fn new(
        table: &Bound<'_, PyAny>,
        ts: &str,
        key: Option<&str>,
        value: Option<&str>,
        device: Option<&str>,
        profile: Option<&str>,
        round_floats: bool,
    ) -> PyResult<Self> {
        let key_and_value = match (key, value) {
            (Some(key), Some(value)) => Some((key, value)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("key and value: give both columns, or none of them")),
        };
        if profile.is_some() && device.is_none() {
            return Err(PyValueError::new_err("profile: needs the column with the devices (device)"));
        }
        let batches = open(table)?;
        let roles = Roles { ts, key_and_value, device, profile };
        let table = Table::new(&batches.schema(), roles).map_err(|refusal| error(table.py(), &refusal))?;
        Ok(Self(Mutex::new(State::Ready(Box::new(Source {
            batches,
            table,
            builder: PointsBuilder::default(),
            round_floats,
            batch: None,
            row: 0,
            rows_before: 0,
        })))))
    }

    #[pyo3(signature = (max_datapoints))]
    fn read(&self, py: Python<'_>, max_datapoints: usize) -> PyResult<Option<Vec<Rows>>> {
        let mut source = match self.replace(State::Reading) {
            State::Ready(source) => source,
            State::Ended => {
                self.replace(State::Ended);
                return Ok(None);
            }
            State::Reading => return Err(PyRuntimeError::new_err("the table is read by another call already")),
        };
        let read = py.detach(|| {
            let rows = source.read(max_datapoints);
            (rows, source)
        });
        // After an error the rest is not read: nobody may skip a row by accident.
        match read {
            (Ok(Some(rows)), source) => {
                self.replace(State::Ready(source));
                let rows = rows.into_iter().map(|DeviceRows { device, profile, points }| {
                    let uplink =
                        Uplink { device: None, timeseries: points, extras: None, main_timestamp: Timestamp::NONE };
                    (device, profile, EncodedUplink(uplink))
                });
                Ok(Some(rows.collect()))
            }
            (Ok(None), _) => {
                self.replace(State::Ended);
                Ok(None)
            }
            (Err(failure), _) => {
                self.replace(State::Ended);
                Err(match failure {
                    Failure::Refused(refusal) => error(py, &refusal),
                    Failure::Stream(text) => value_error(format_args!("table: its next rows cannot be read: {text}")),
                })
            }
        }
    }
}

impl TableReader {
    fn replace(&self, state: State) -> State {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), state)
    }
}

enum Failure {
    Refused(TableRefusal),
    Stream(String),
}

impl Source {
    /// Return the next rows, or none at the end. A part may have no datapoint.
    fn read(&mut self, max_datapoints: usize) -> Result<Option<Vec<DeviceRows>>, Failure> {
        let max_rows = (max_datapoints / self.table.datapoints_a_row()).max(1);
        loop {
            if let Some(batch) = self.batch.take_if(|batch| self.row < batch.num_rows()) {
                let end = batch.num_rows().min(self.row + max_rows);
                let rows =
                    self.table.encode(&batch, self.row..end, self.rows_before, &mut self.builder, self.round_floats);
                self.row = end;
                self.batch = Some(batch);
                return rows.map(Some).map_err(Failure::Refused);
            }
            self.rows_before += self.row as u64;
            self.row = 0;
            match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) => self.batch = Some(batch),
                Some(Err(error)) => return Err(Failure::Stream(error.to_string())),
            }
        }
    }
}

fn open(table: &Bound<'_, PyAny>) -> PyResult<Box<dyn RecordBatchReader + Send>> {
    let Some(stream) = table.getattr_opt(pyo3::intern!(table.py(), "__arrow_c_stream__"))? else {
        let (type_name, _) = Value(table.clone()).describe();
        return Err(PyTypeError::new_err(format!(
            "table must have the method __arrow_c_stream__, as tables of pyarrow, polars, pandas and DuckDB have it, not {type_name}"
        )));
    };
    let capsule = stream.call0()?.cast_into::<PyCapsule>()?;
    let reader = PyRecordBatchReader::from_arrow_pycapsule(&capsule)?;
    reader.into_reader()
}

fn error(py: Python<'_>, refusal: &TableRefusal) -> PyErr {
    if !refusal.is_unsupported() {
        return value_error(refusal);
    }
    match unsupported_value_error(py) {
        Ok(class) => PyErr::from_type(class.clone(), (refusal.to_string(),)),
        Err(error) => error,
    }
}
