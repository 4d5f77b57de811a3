//! The sends of a commit as bytes, and back.
//!
//! A chunk has sends of one kind. Its *payload* is the encoded datapoints of the sends, one after the other, exactly as they are in
//! memory. Its *table* has everything else, so the sends can be counted without reading their datapoints: the devices, each once,
//! and a row for each send. Numbers and times are differences from the row before.

use std::num::NonZeroU32;
use std::ptr;
use std::sync::Arc;

use ahash::AHashMap;

use super::wire::{Reader, put, put_bytes, put_signed};
use crate::numbers::Conversions;
use crate::points::{Points, Timestamp};
use crate::uplink::{Extras, Identity, Metadata, Uplink};

/// Bits of a row's flags. The lowest two are the priority.
const PRIORITY: u8 = 0b11;
const EXPIRES: u8 = 1 << 2;
const MAIN_TIMESTAMP: u8 = 1 << 3;
const EXTRAS: u8 = 1 << 4;
const METADATA: u8 = 1 << 5;
const CONVERSIONS: u8 = 1 << 6;

/// Highest priority number that a row can hold.
pub const MAX_PRIORITY: u8 = PRIORITY;

/// A send with what the store keeps of it. `U` is the uplink, or a reference to it.
#[derive(Debug, Clone)]
pub struct StoredSend<U> {
    /// The datapoints.
    pub uplink: U,
    /// Number of the send, 1 or more.
    pub number: u64,
    /// When the send was accepted, in milliseconds since the epoch.
    pub accepted: i64,
    /// 0 for normal, 1 for high, 2 for low; at most [`MAX_PRIORITY`].
    pub priority: u8,
    /// When the send expires, in milliseconds since the epoch; 0 for never.
    pub expires: i64,
}

/// Number of lanes.
pub const LANES: usize = 4;

/// The kinds of sends that can be read apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Only telemetry, of normal priority.
    Normal = 0,
    /// With attributes, perhaps also with telemetry. They keep their order, so their priority does not count.
    Attributes = 1,
    /// Only telemetry, of high priority.
    High = 2,
    /// Only telemetry, of low priority.
    Low = 3,
}

impl Lane {
    /// All, in the order of their indices.
    pub const ALL: [Self; LANES] = [Self::Normal, Self::Attributes, Self::High, Self::Low];

    /// Return the lane of an uplink with a priority.
    #[must_use]
    pub fn of(uplink: &Uplink, priority: u8) -> Self {
        match priority {
            _ if uplink.attribute_count() > 0 => Self::Attributes,
            1 => Self::High,
            2 => Self::Low,
            _ => Self::Normal,
        }
    }

    /// Return the index in arrays with one element for each lane.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Sums over sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of sends.
    pub sends: u64,
    /// Number of datapoints.
    pub datapoints: u64,
    /// Encoded bytes of these datapoints, as `Uplink::nbytes` counts them.
    pub bytes: u64,
}

impl Totals {
    /// Return the totals of one send.
    #[must_use]
    pub fn of_one(datapoints: u32, bytes: u32) -> Self {
        Self { sends: 1, datapoints: datapoints.into(), bytes: bytes.into() }
    }

    /// Add others. A damaged footer may have any numbers; the sums do not wrap.
    pub fn add(&mut self, other: Self) {
        self.sends = self.sends.saturating_add(other.sends);
        self.datapoints = self.datapoints.saturating_add(other.datapoints);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Subtract others. Damage may have made the difference negative; it is 0 then.
    pub fn subtract(&mut self, other: Self) {
        self.sends = self.sends.saturating_sub(other.sends);
        self.datapoints = self.datapoints.saturating_sub(other.datapoints);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Number, sizes and times of a written send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of the send.
    pub number: u64,
    /// When it was accepted.
    pub accepted: i64,
    /// Number of its datapoints.
    pub datapoints: u32,
    /// Bytes of its datapoints.
    pub bytes: u32,
    /// When the send expires; 0 for never.
    pub expires: i64,
}

impl Written {
    /// Return what a row says.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let Row { number, accepted, datapoints, bytes, expires, .. } = *row;
        Self { number, accepted, datapoints, bytes, expires }
    }
}

/// Writes chunks, one after the other.
#[derive(Debug, Default)]
pub struct ChunkWriter {
    devices: Vec<u8>,
    rows: Vec<u8>,
    sends: u64,
    /// Places of devices by the address of their identity, which their uplinks share.
    places: AHashMap<usize, u64>,
    last: Base,
}

/// The values that a row's differences are relative to.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    number: u64,
    accepted: i64,
    timestamp: i64,
    device: (usize, u64),
}

impl Base {
    fn put_timestamp(&mut self, out: &mut Vec<u8>, millis: i64) {
        put_signed(out, millis.wrapping_sub(self.timestamp));
        self.timestamp = millis;
    }

    fn timestamp(&mut self, reader: &mut Reader<'_>) -> Option<Timestamp> {
        self.timestamp = self.timestamp.wrapping_add(reader.signed()?);
        Timestamp::new(self.timestamp)
    }
}

impl ChunkWriter {
    /// Append the datapoints of a send to `payload`, and remember its row. Numbers rise.
    pub fn push(&mut self, send: &StoredSend<&Uplink>, payload: &mut Vec<u8>) {
        let StoredSend { uplink, number, accepted, priority, expires } = *send;
        let device = self.place(uplink.device.as_ref());
        let rows = &mut self.rows;
        self.sends += 1;
        put(rows, number - self.last.number);
        put_signed(rows, accepted.wrapping_sub(self.last.accepted));
        (self.last.number, self.last.accepted) = (number, accepted);
        put(rows, device);
        let none = Points::default();
        let attributes = uplink.attributes().unwrap_or(&none);
        let counts = [uplink.timeseries.conversions(), attributes.conversions()];
        let main_timestamp = uplink.main_timestamp.millis();
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        rows.push(
            (priority & PRIORITY)
                | flag(EXPIRES, expires != 0)
                | flag(MAIN_TIMESTAMP, main_timestamp.is_some())
                | flag(EXTRAS, uplink.extras.is_some())
                | flag(METADATA, uplink.metadata().is_some())
                | flag(CONVERSIONS, counts != [Conversions::default(); 2]),
        );
        if expires != 0 {
            put_signed(rows, expires);
        }
        if let Some(millis) = main_timestamp {
            self.last.put_timestamp(rows, millis);
        }
        put_points(rows, &mut self.last, &uplink.timeseries);
        payload.extend_from_slice(uplink.timeseries.bytes());
        if uplink.extras.is_some() {
            put_points(rows, &mut self.last, attributes);
            payload.extend_from_slice(attributes.bytes());
        }
        if let Some(metadata) = uplink.metadata() {
            put(rows, metadata.as_bytes().len() as u64);
            payload.extend_from_slice(metadata.as_bytes());
        }
        if counts != [Conversions::default(); 2] {
            for Conversions { rounded, as_text } in counts {
                put(rows, rounded.into());
                put(rows, as_text.into());
            }
        }
    }

    /// Return 0 for no device, and otherwise 1 plus the place of the device in the table.
    fn place(&mut self, device: Option<&Arc<Identity>>) -> u64 {
        let Some(device) = device else { return 0 };
        let address = ptr::from_ref::<Identity>(device).addr();
        if self.last.device.0 != address {
            let new = self.places.len() as u64 + 1;
            let place = *self.places.entry(address).or_insert(new);
            if place == new {
                put_bytes(&mut self.devices, device.name().as_bytes());
                put_bytes(&mut self.devices, device.profile().as_bytes());
            }
            self.last.device = (address, place);
        }
        self.last.device.1
    }

    /// Append the table of the sends and begin the next chunk.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        put(out, self.places.len() as u64);
        out.append(&mut self.devices);
        put(out, self.sends);
        out.append(&mut self.rows);
        self.places.clear();
        (self.sends, self.last) = (0, Base::default());
    }
}

fn put_points(out: &mut Vec<u8>, last: &mut Base, points: &Points) {
    put(out, points.run_count() as u64);
    for (run, bytes) in points.runs() {
        let millis = run.timestamp.millis();
        put(out, u64::from(run.count.get()) << 1 | u64::from(millis.is_some()));
        put(out, bytes.len() as u64);
        if let Some(millis) = millis {
            last.put_timestamp(out, millis);
        }
    }
}

type RunParts = (Timestamp, NonZeroU32, u32);

/// One row of a table.
#[derive(Debug, Default)]
pub struct Row {
    /// Number of the send.
    pub number: u64,
    /// When the send was accepted.
    pub accepted: i64,
    /// Number of datapoints.
    pub datapoints: u32,
    /// Bytes of the send in the payload.
    pub bytes: u32,
    /// 0 for no device, and otherwise 1 plus the place of the device in the table.
    device: usize,
    /// Where the bytes of the send begin in the payload.
    start: usize,
    priority: u8,
    /// When the send expires; 0 for never.
    pub expires: i64,
    main_timestamp: Option<Timestamp>,
    timeseries: Vec<RunParts>,
    extras: bool,
    attributes: Vec<RunParts>,
    metadata: Option<u32>,
    conversions: [Conversions; 2],
}

/// Reads a table row by row.
#[derive(Debug)]
pub struct Table<'a> {
    /// Name and profile of the devices.
    devices: Vec<(&'a str, &'a str)>,
    /// The devices whose sends were read.
    identities: Vec<Option<Arc<Identity>>>,
    /// Rows that are left.
    left: u64,
    reader: Reader<'a>,
    last: Base,
    row: Row,
    payload: usize,
}

impl<'a> Table<'a> {
    /// Begin to read a table. `None` if it is not one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mut devices = Vec::new();
        for _ in 0..reader.int()? {
            devices.push((reader.text()?, reader.text()?));
        }
        let left = reader.int()?;
        let identities = vec![None; devices.len()];
        Some(Self { devices, identities, left, reader, last: Base::default(), row: Row::default(), payload: 0 })
    }

    /// Read the next row: `None` after the last one, and `Some(None)` if the table is malformed.
    pub fn next_row(&mut self) -> Option<Option<&Row>> {
        self.left = self.left.checked_sub(1)?;
        if self.read_row().is_none() {
            self.left = 0;
            return Some(None);
        }
        Some(Some(&self.row))
    }

    fn read_row(&mut self) -> Option<()> {
        let (reader, last, row) = (&mut self.reader, &mut self.last, &mut self.row);
        last.number = last.number.checked_add(reader.int()?).filter(|number| (1..u64::MAX).contains(number))?;
        last.accepted = last.accepted.wrapping_add(reader.signed()?);
        (row.number, row.accepted) = (last.number, last.accepted);
        row.device = reader.size()?;
        if row.device > self.devices.len() {
            return None;
        }
        let flags = reader.byte()?;
        row.priority = flags & PRIORITY;
        row.expires = if flags & EXPIRES == 0 { 0 } else { reader.signed()? };
        row.main_timestamp = if flags & MAIN_TIMESTAMP == 0 { None } else { Some(last.timestamp(reader)?) };
        row.extras = flags & EXTRAS != 0;
        row.attributes.clear();
        let mut sums = (0_u32, 0_u32);
        read_points(reader, last, &mut row.timeseries, &mut sums)?;
        if row.extras {
            read_points(reader, last, &mut row.attributes, &mut sums)?;
        }
        row.metadata = if flags & METADATA == 0 { None } else { Some(reader.int()?.try_into().ok()?) };
        row.conversions = Default::default();
        if flags & CONVERSIONS != 0 {
            for one in &mut row.conversions {
                one.rounded = reader.int()?.try_into().ok()?;
                one.as_text = reader.int()?.try_into().ok()?;
            }
        }
        row.datapoints = sums.0;
        row.bytes = sums.1.checked_add(row.metadata.unwrap_or(0))?;
        row.start = self.payload;
        self.payload = self.payload.checked_add(row.bytes as usize)?;
        Some(())
    }

    /// Return name and profile of the device of the row that was read last.
    #[must_use]
    pub fn device(&self) -> Option<(&'a str, &'a str)> {
        self.row.device.checked_sub(1).map(|place| self.devices[place])
    }

    /// Return the send of the row that was read last. `None` if the payload does not fit to the table.
    #[must_use]
    pub fn send(&mut self, payload: &[u8]) -> Option<StoredSend<Uplink>> {
        let row = &self.row;
        let mut rest = Reader(payload.get(row.start..)?);
        let timeseries = read_bytes(&mut rest, &row.timeseries, row.conversions[0])?;
        let extras = if row.extras {
            let attributes = read_bytes(&mut rest, &row.attributes, row.conversions[1])?;
            let metadata = match row.metadata {
                Some(length) => Some(Metadata::from_bytes(rest.take(length as usize)?)),
                None => None,
            };
            Some(Box::new(Extras { attributes, metadata }))
        } else {
            None
        };
        let device = row.device.checked_sub(1).map(|place| {
            let (name, profile) = self.devices[place];
            Arc::clone(self.identities[place].get_or_insert_with(|| Arc::new(Identity::new(name, profile))))
        });
        let main_timestamp = row.main_timestamp.unwrap_or(Timestamp::NONE);
        let uplink = Uplink { device, timeseries, extras, main_timestamp };
        let Row { number, accepted, priority, expires, .. } = *row;
        Some(StoredSend { uplink, number, accepted, priority, expires })
    }
}

fn read_points(
    reader: &mut Reader<'_>,
    last: &mut Base,
    runs: &mut Vec<RunParts>,
    sums: &mut (u32, u32),
) -> Option<()> {
    runs.clear();
    for _ in 0..reader.int()? {
        let count = reader.int()?;
        let nbytes = reader.int()?.try_into().ok()?;
        let timestamp = if count & 1 == 0 { Timestamp::NONE } else { last.timestamp(reader)? };
        let count = NonZeroU32::new((count >> 1).try_into().ok()?)?;
        sums.0 = sums.0.checked_add(count.get())?;
        sums.1 = sums.1.checked_add(nbytes)?;
        runs.push((timestamp, count, nbytes));
    }
    Some(())
}

fn read_bytes(payload: &mut Reader<'_>, runs: &[RunParts], conversions: Conversions) -> Option<Points> {
    let length = runs.iter().map(|run| run.2 as usize).sum();
    Points::from_runs(payload.take(length)?, runs, conversions)
}
