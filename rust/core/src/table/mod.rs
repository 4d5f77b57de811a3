//! Encodes tables whose data is in Arrow's columns, without an object for each datapoint.
//!
//! A [`Table`] knows the meaning of each column, and encodes the rows of one record batch after the other into the points that an
//! ordinary send has. [`column`] reads the columns, [`block`] writes the datapoints of rows, [`time`] writes
//! dates and times.

mod block;
mod column;
mod time;

use std::fmt::{self, Display};
use std::ops::Range;

use ahash::AHashMap;
use arrow_array::{Array, RecordBatch, new_empty_array};
use arrow_schema::{DataType, Schema};

use crate::json::{Output, Refusal, write_value};
use crate::key;
use crate::numbers::Numbers;
use crate::points::{Ends, Points, PointsBuilder, Timestamp, TooLarge};

use block::{Block, Key, Row};
use column::{Cell, Column, SUPPORTED};
use time::Times;

/// The names of the columns that are not values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Roles<'a> {
    /// The column with the time.
    pub ts: &'a str,
    /// Of a table with one datapoint a row: the columns with the key and with the value.
    pub key_and_value: Option<(&'a str, &'a str)>,
    /// The column with the name of the sub-device; none if all rows are of one device.
    pub device: Option<&'a str>,
    /// The column with the profile of sub-devices.
    pub profile: Option<&'a str>,
}

/// Why a table, or a row of it, is refused. The text names the column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRefusal {
    text: String,
    unsupported: bool,
}

impl TableRefusal {
    fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), unsupported: false }
    }

    fn unsupported(text: impl Display) -> Self {
        Self { text: text.to_string(), unsupported: true }
    }

    /// Whether JSON has no form for the values of a column.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

impl Display for TableRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<TooLarge> for TableRefusal {
    fn from(refusal: TooLarge) -> Self {
        Self::new(refusal)
    }
}

#[derive(Debug)]
enum Form {
    /// One column for each key.
    Wide(Vec<Key>),
    /// One datapoint a row: the indexes of the columns with its key and its value.
    Long(usize, usize),
}

/// The meaning of the columns of a table.
#[derive(Debug)]
pub struct Table {
    names: Vec<String>,
    ts: usize,
    form: Form,
    device: Option<usize>,
    profile: Option<usize>,
}

/// The rows of one device in a part of a table.
#[derive(Debug)]
pub struct DeviceRows {
    /// The name of the sub-device; none if the table has no column with names.
    pub device: Option<String>,
    /// The profile in the first of these rows; none if it has none.
    pub profile: Option<String>,
    /// The datapoints; at least one.
    pub points: Points,
}

impl Table {
    /// Check the columns of a table.
    ///
    /// # Errors
    /// When a column is missing, occurs twice or has a type that is not supported, or when a name is not a key.
    pub fn new(schema: &Schema, roles: Roles<'_>) -> Result<Self, TableRefusal> {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let find = |role: &str, name: &str| {
            let mut found = names.iter().enumerate().filter(|(_, known)| *known == name).map(|(index, _)| index);
            match (found.next(), found.next()) {
                (Some(index), None) => Ok(index),
                (None, _) => Err(TableRefusal::new(format_args!(
                    "{role}: the table has no column {name:?}; its columns: {}",
                    names.join(", ")
                ))),
                _ => Err(TableRefusal::new(format_args!("{role}: the table has several columns {name:?}"))),
            }
        };
        let optional = |role: &str, name: Option<&str>| name.map(|name| find(role, name)).transpose();
        let ts = find("ts", roles.ts)?;
        let (device, profile) = (optional("device", roles.device)?, optional("profile", roles.profile)?);
        let form = if let Some((key, value)) = roles.key_and_value {
            Form::Long(find("key", key)?, find("value", value)?)
        } else {
            Form::Wide(key_columns(&names, &[Some(ts), device, profile])?)
        };
        let table = Self { names, ts, form, device, profile };
        table.check_types(schema)?;
        Ok(table)
    }

    /// Check that columns of these types can be read, as columns without rows.
    fn check_types(&self, schema: &Schema) -> Result<(), TableRefusal> {
        let arrays = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
        let empty = RecordBatch::try_new(schema.clone().into(), arrays)
            .map_err(|error| TableRefusal::new(format_args!("table: {error}")))?;
        self.encode(&empty, 0..0, 0, &mut PointsBuilder::default(), false).map(drop)
    }

    /// Return the number of datapoints that a row may have.
    #[must_use]
    pub fn datapoints_a_row(&self) -> usize {
        match &self.form {
            Form::Wide(columns) => columns.len(),
            Form::Long(..) => 1,
        }
    }

    /// Encode rows of a batch: for each device, in order of its first row, the datapoints of its rows in their order.
    ///
    /// Nulls are left out. `first_row` is the number of the batch's first row in the table, for errors; `round_floats` is as in
    /// [`Numbers::new`]. `builder` is used again from call to call.
    ///
    /// # Errors
    /// When a row cannot be sent: it has no time, no device, or a value that JSON does not have.
    pub fn encode(
        &self,
        batch: &RecordBatch,
        rows: Range<usize>,
        first_row: u64,
        builder: &mut PointsBuilder,
        round_floats: bool,
    ) -> Result<Vec<DeviceRows>, TableRefusal> {
        let first_row = first_row + rows.start as u64;
        let batch = batch.slice(rows.start, rows.len());
        let times = Times::new(batch.column(self.ts).as_ref())
            .map_err(|text| TableRefusal::unsupported(format_args!("ts: column {:?} {text}", self.names[self.ts])))?;
        let part = Part { table: self, batch: &batch, times, first_row };
        let mut values = part.values()?;
        let mut encoded = Vec::new();
        let Some(devices) = self.device else {
            builder.begin(Numbers::new(round_floats));
            part.encode(&mut values, 0..batch.num_rows(), builder)?;
            let points = builder.finish();
            if points.nbytes() > 0 {
                encoded.push(DeviceRows { device: None, profile: None, points });
            }
            return Ok(encoded);
        };
        let devices = part.texts("device", devices)?;
        let profiles = self.profile.map(|index| part.texts("profile", index)).transpose()?;
        for (device, rows) in part.rows_by_device(&devices)? {
            builder.begin(Numbers::new(round_floats));
            let profile = profiles.as_ref().and_then(|profiles| profiles.text(rows[0]));
            part.encode(&mut values, rows.iter().copied(), builder)?;
            let points = builder.finish();
            if points.nbytes() > 0 {
                let (device, profile) = (Some(device.to_owned()), profile.map(str::to_owned));
                encoded.push(DeviceRows { device, profile, points });
            }
        }
        Ok(encoded)
    }
}

/// Return the columns that are not among `others`.
fn key_columns(names: &[String], others: &[Option<usize>]) -> Result<Vec<Key>, TableRefusal> {
    let mut columns = Vec::new();
    for (index, name) in names.iter().enumerate().filter(|(index, _)| !others.contains(&Some(*index))) {
        if names[..index].contains(name) {
            return Err(TableRefusal::new(format_args!("the table has several columns {name:?}")));
        }
        let mut prefix = Vec::new();
        key::write(name, &mut prefix)
            .map_err(|refusal| TableRefusal::new(format_args!("Invalid key {name:?}: {refusal}")))?;
        columns.push(Key::new(index, &prefix));
    }
    if columns.is_empty() {
        return Err(TableRefusal::new("the table has no column with values"));
    }
    Ok(columns)
}

/// Columns with values, in the form of the table.
enum Values<'a> {
    /// With the memory in which rows are written.
    Wide(Vec<(&'a Key, Column<'a>)>, Block),
    Long(Column<'a>, Column<'a>),
}

/// Rows that are encoded by one call.
struct Part<'a> {
    table: &'a Table,
    batch: &'a RecordBatch,
    times: Times<'a>,
    first_row: u64,
}

impl<'a> Part<'a> {
    fn column(&self, index: usize) -> Result<Column<'a>, TableRefusal> {
        Column::new(self.batch.column(index).as_ref()).map_err(|kind| self.wrong_type(index, &kind, SUPPORTED))
    }

    fn texts(&self, role: &str, index: usize) -> Result<Column<'a>, TableRefusal> {
        let column = self.column(index)?;
        if column.is_text() {
            return Ok(column);
        }
        let kind = self.batch.column(index).data_type();
        let TableRefusal { text, unsupported } = self.wrong_type(index, kind, "text, also in a dictionary");
        Err(TableRefusal { text: format!("{role}: {text}"), unsupported })
    }

    fn wrong_type(&self, index: usize, kind: &DataType, allowed: &str) -> TableRefusal {
        let name = &self.table.names[index];
        TableRefusal::unsupported(format_args!("column {name:?} has the type {kind}, allowed are {allowed}"))
    }

    fn values(&self) -> Result<Values<'a>, TableRefusal> {
        match &self.table.form {
            Form::Wide(columns) => {
                let with_values = |key: &'a Key| Ok((key, self.column(key.column())?));
                let columns = columns.iter().map(with_values).collect::<Result<Vec<_>, TableRefusal>>()?;
                let block = Block::new(&columns, self.batch.num_rows());
                Ok(Values::Wide(columns, block))
            }
            Form::Long(key, value) => Ok(Values::Long(self.texts("key", *key)?, self.column(*value)?)),
        }
    }

    /// Return the rows of each device, in the order of their first rows.
    fn rows_by_device<'c>(&self, devices: &'c Column<'a>) -> Result<Vec<(&'c str, Vec<usize>)>, TableRefusal> {
        let mut found: Vec<(&'c str, Vec<usize>)> = Vec::new();
        let mut by_name: AHashMap<&'c str, usize> = AHashMap::new();
        let mut last = 0;
        for row in 0..self.batch.num_rows() {
            let name = match devices.text(row) {
                Some(name) if !name.is_empty() => name,
                name => {
                    let what = if name.is_some() { "an empty text" } else { "null" };
                    return Err(self.at(
                        self.table.device.unwrap_or_default(),
                        row,
                        what,
                        &"a device's name is needed",
                    ));
                }
            };
            // Rows of one device often follow each other.
            if found.get(last).is_none_or(|(known, _)| *known != name) {
                last = *by_name.entry(name).or_insert(found.len());
                if last == found.len() {
                    found.push((name, Vec::new()));
                }
            }
            found[last].1.push(row);
        }
        Ok(found)
    }

    fn encode(
        &self,
        values: &mut Values<'a>,
        mut rows: impl Iterator<Item = usize>,
        builder: &mut PointsBuilder,
    ) -> Result<(), TableRefusal> {
        match values {
            Values::Wide(columns, block) => {
                let mut chosen = Vec::with_capacity(block.rows());
                loop {
                    chosen.extend(rows.by_ref().take(block.rows()));
                    if chosen.is_empty() {
                        break;
                    }
                    block.place(columns, &chosen);
                    builder.push_runs(|out, ends| self.write_block(columns, &chosen, block, out, ends))?;
                    chosen.clear();
                }
            }
            Values::Long(keys, column) => {
                let mut key_json = Vec::new();
                for row in rows {
                    if column.is_null(row) {
                        continue;
                    }
                    let timestamp = self.timestamp(row)?;
                    self.write_key(keys, row, &mut key_json)?;
                    // Without the colon.
                    let key = &key_json[..key_json.len() - 1];
                    builder.push_value(timestamp, key, |out| {
                        write_value(&Cell { column, row }, out)
                            .map_err(|refusal| self.refused_value(self.value_column(), row, &refusal))
                    })?;
                }
            }
        }
        Ok(())
    }

    fn value_column(&self) -> usize {
        if let Form::Long(_, value) = self.table.form { value } else { 0 }
    }

    /// Append the datapoints of rows whose short values are in a block.
    fn write_block(
        &self,
        columns: &[(&Key, Column<'a>)],
        rows: &[usize],
        block: &mut Block,
        out: &mut Output,
        ends: &mut Ends<'_>,
    ) -> Result<(), TableRefusal> {
        for (line, &row) in rows.iter().enumerate() {
            let timestamp = self.timestamp(row)?;
            let (mut count, mut from) = (0, 0);
            loop {
                match block.put(columns, line, row, from, &mut out.numbers) {
                    Row::Complete(more) => {
                        count += more;
                        break;
                    }
                    Row::Until(index, more) => {
                        block.append_to(&mut out.bytes);
                        self.write_other(&columns[index], row, out)?;
                        count += more + 1;
                        from = index + 1;
                    }
                }
            }
            ends.push(timestamp, count, out.bytes.len() + block.pending())?;
        }
        block.append_to(&mut out.bytes);
        Ok(())
    }

    /// Append a datapoint that is long or takes more work.
    #[inline(never)]
    fn write_other(
        &self,
        (key, column): &(&Key, Column<'a>),
        row: usize,
        out: &mut Output,
    ) -> Result<(), TableRefusal> {
        key.append_to(&mut out.bytes);
        if let Err(refusal) = write_value(&Cell { column, row }, out) {
            return Err(self.refused_value(key.column(), row, &refusal));
        }
        out.bytes.push(b',');
        Ok(())
    }

    fn write_key(&self, keys: &Column<'a>, row: usize, out: &mut Vec<u8>) -> Result<(), TableRefusal> {
        out.clear();
        let column = if let Form::Long(key, _) = self.table.form { key } else { 0 };
        let key = keys.text(row).ok_or_else(|| self.at(column, row, "null", &"a key is needed"))?;
        key::write(key, out).map_err(|refusal| self.at(column, row, &format!("the invalid key {key:?}"), &refusal))
    }

    #[inline]
    fn timestamp(&self, row: usize) -> Result<Timestamp, TableRefusal> {
        self.times.millis(row).and_then(Timestamp::new).ok_or_else(|| self.refused_time(row))
    }

    #[cold]
    fn refused_time(&self, row: usize) -> TableRefusal {
        let advice: &dyn Display = match self.times.text(row) {
            Some(text) => &Timestamp::refusal(&text, self.times.millis(row)),
            None => &"null, a time is needed in each row",
        };
        let (name, number) = (&self.table.names[self.table.ts], self.first_row + row as u64);
        TableRefusal::new(format_args!("ts: column {name:?}, row {number}: {advice}"))
    }

    #[cold]
    fn refused_value(&self, column: usize, row: usize, refusal: &Refusal) -> TableRefusal {
        let (name, number) = (&self.table.names[column], self.first_row + row as u64);
        let text = format!("column {name:?}, row {number}: {refusal}");
        TableRefusal { text, unsupported: refusal.reason().is_unsupported() }
    }

    #[cold]
    fn at(&self, column: usize, row: usize, what: &str, why: &dyn Display) -> TableRefusal {
        let (name, number) = (&self.table.names[column], self.first_row + row as u64);
        TableRefusal::new(format_args!("column {name:?}, row {number} has {what}: {why}"))
    }
}
