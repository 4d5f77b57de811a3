//! Cuts grouped datapoints into payloads: every datapoint exactly once, in order, no payload over its limits, and none
//! closed while the next datapoint would still fit.

use std::fmt;
use std::mem;
use std::sync::Arc;

use ahash::AHashMap;

use crate::group::{Around, DeviceView, GroupView, Grouped, Kind, Piece};
use crate::points::{Point, PointIter, Timestamp};
use crate::sink::{JsonSink, Layout, Sink, UplinkSink};
use crate::uplink::{Identity, Uplink};

/// What one payload may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub max_size: usize,
    /// Datapoints.
    pub max_datapoints: usize,
    /// Device entries.
    pub max_devices: usize,
}

impl Limits {
    /// Limits in which 0 stands for "no limit", as the public functions take them.
    #[must_use]
    pub fn with_zero_as_unlimited(max_size: usize, max_datapoints: usize, max_devices: usize) -> Self {
        let unlimited = |limit| if limit == 0 { usize::MAX } else { limit };
        Self { max_size, max_datapoints: unlimited(max_datapoints), max_devices: unlimited(max_devices) }
    }
}

/// Which uplink, and how many of its datapoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Index in the input.
    pub uplink: usize,
    /// Datapoints that the payload answers for.
    pub datapoints: usize,
}

/// Where one device's part of a gateway payload ends. It begins behind the one before it and a comma.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is.
    pub device: Arc<Identity>,
    /// Bytes of the payload up to here.
    pub bytes: usize,
    /// Datapoints written up to here.
    pub datapoints: usize,
    /// Sources up to here: an uplink is of one device, so that they stand together.
    pub sources: usize,
}

/// One payload.
#[derive(Debug, Clone)]
pub struct Part<T> {
    /// The payload.
    pub output: T,
    /// Datapoints written.
    pub datapoints: usize,
    /// Device entries.
    pub devices: usize,
    /// The device entries of a gateway payload.
    pub entries: Vec<Entry>,
    /// Where they came from.
    pub sources: Vec<Source>,
}

/// A datapoint that fits in no payload.
#[derive(Debug, Clone)]
pub struct Oversized<'a> {
    /// Index of the uplink.
    pub uplink: usize,
    /// The datapoint.
    pub point: Point<'a>,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Bytes that a payload with it alone would have.
    pub size: usize,
}

/// An uplink that cannot be in what is to be written, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// One of no device among those of a gateway.
    NoDevice(usize),
    /// One with metadata, and nobody says when it is published.
    NoPublishTime(usize),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice(index) => write!(f, "uplinks[{index}] has no device, a gateway payload needs one"),
            Self::NoPublishTime(index) => {
                write!(f, "uplinks[{index}] has metadata: it is packed with now_ms, and cannot be split")
            }
        }
    }
}

/// Payloads of a batch.
pub type Packed<'a> = (Vec<Part<Vec<u8>>>, Vec<Oversized<'a>>);

/// Write payloads. `published` is now in milliseconds; only metadata need it.
///
/// # Errors
/// When an uplink for a gateway payload has no device, or one has metadata and there is no `published`.
pub fn pack<'a>(
    uplinks: &[&'a Uplink],
    layout: Layout,
    limits: Limits,
    published: Option<i64>,
) -> Result<Packed<'a>, Misfit> {
    check(uplinks, layout, published)?;
    let grouped = Grouped::new(uplinks, layout.kind, published.unwrap_or_default());
    Ok(Packer::new(layout, limits, JsonSink::new(layout), uplinks.len()).run(&grouped))
}

/// Cut uplinks into smaller ones, each of which fits in a payload if a datapoint of it does.
///
/// # Errors
/// When an uplink for a gateway payload has no device, or one has metadata.
pub fn split(uplinks: &[&Uplink], layout: Layout, limits: Limits) -> Result<Vec<Part<Uplink>>, Misfit> {
    check(uplinks, layout, None)?;
    let limits = Limits { max_devices: 1, ..limits };
    let grouped = Grouped::new(uplinks, layout.kind, 0);
    let (mut parts, oversized) = Packer::new(layout, limits, UplinkSink::new(layout.kind), uplinks.len()).run(&grouped);
    parts.extend(oversized.into_iter().map(|oversized| {
        let device = uplinks[oversized.uplink].device.as_ref().map(Arc::clone);
        Part {
            output: UplinkSink::single(layout.kind, device, oversized.timestamp, oversized.point),
            datapoints: 1,
            devices: 1,
            entries: Vec::new(),
            sources: vec![Source { uplink: oversized.uplink, datapoints: 1 }],
        }
    }));
    Ok(parts)
}

fn check(uplinks: &[&Uplink], layout: Layout, published: Option<i64>) -> Result<(), Misfit> {
    let timeless = layout.kind == Kind::Timeseries && published.is_none();
    for (index, uplink) in uplinks.iter().enumerate() {
        if layout.gateway && uplink.device.is_none() {
            return Err(Misfit::NoDevice(index));
        }
        if timeless && uplink.metadata().is_some() {
            return Err(Misfit::NoPublishTime(index));
        }
    }
    Ok(())
}

/// The payload that is being filled.
#[derive(Debug, Default)]
struct Open<'a> {
    /// Bytes that it would have if it were closed now.
    size: usize,
    datapoints: usize,
    devices: usize,
    /// Number of the open device, if there is one.
    device: Option<usize>,
    /// Who that is.
    identity: Option<Arc<Identity>>,
    entries: Vec<Entry>,
    /// Records of the open device, the open one included.
    records: usize,
    /// Names of devices in it that another device has too.
    shared_names: Vec<Option<&'a str>>,
    sources: Vec<Source>,
}

struct Packer<'a, S: Sink<'a>> {
    layout: Layout,
    limits: Limits,
    sink: S,
    open: Open<'a>,
    /// The record that is being filled: stretches of points. Written when it ends, because a later value may replace one.
    record: Option<Timestamp>,
    /// Its metadata.
    metadata: Vec<u8>,
    stretches: Vec<&'a [u8]>,
    /// Where a key stands in `stretches`, by the record's number: nothing has to be cleared between records.
    keys: AHashMap<(usize, &'a [u8]), usize>,
    record_number: usize,
    /// For each uplink: the number of the last part that it is a source of, and its place there.
    places: Vec<(usize, usize)>,
    parts: Vec<Part<S::Output>>,
    oversized: Vec<Oversized<'a>>,
}

impl<'a, S: Sink<'a>> Packer<'a, S> {
    fn new(layout: Layout, limits: Limits, sink: S, uplinks: usize) -> Self {
        // Without device entries a second device has no place in a payload.
        let max_devices = if layout.gateway { limits.max_devices } else { 1 };
        Self {
            layout,
            limits: Limits { max_devices, ..limits },
            sink,
            open: Open { size: Layout::EMPTY, ..Open::default() },
            record: None,
            metadata: Vec::new(),
            stretches: Vec::new(),
            keys: AHashMap::new(),
            record_number: 0,
            places: vec![(usize::MAX, 0); uplinks],
            parts: Vec::new(),
            oversized: Vec::new(),
        }
    }

    fn run(mut self, grouped: &Grouped<'a>) -> (Vec<Part<S::Output>>, Vec<Oversized<'a>>) {
        for device in grouped.devices() {
            for group in device.groups() {
                for piece in group.pieces() {
                    self.add_piece(device, group, piece);
                }
                self.end_record();
            }
            self.end_device();
        }
        self.end_payload();
        (self.parts, self.oversized)
    }

    fn add_piece(&mut self, device: DeviceView<'_, 'a>, group: GroupView<'_, 'a>, piece: Piece<'a>) {
        if group.may_repeat_keys() {
            for point in PointIter(piece.bytes) {
                if self.replace(device, group.around(), point, piece.source) {
                    continue;
                }
                let refused = self.oversized.len();
                self.add_stretch(device, group, piece.part(point.bytes(), 1));
                if self.oversized.len() == refused {
                    self.keys.insert((self.record_number, point.key()), self.stretches.len() - 1);
                }
            }
        } else {
            self.add_stretch(device, group, piece);
        }
    }

    /// Put a later value of a key where the earlier one stands in this payload. False when there is none, or no room.
    fn replace(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, point: Point<'a>, source: usize) -> bool {
        if self.record.is_none() {
            return false;
        }
        let Some(&place) = self.keys.get(&(self.record_number, point.key())) else { return false };
        let size = self.open.size - self.stretches[place].len() + point.bytes().len();
        if size > self.limits.max_size {
            // Both values travel, in two payloads, unless the later one fits in none: then this payload stays open.
            if self.size_alone(device, around, point) <= self.limits.max_size {
                self.end_payload();
            }
            return false;
        }
        self.open.size = size;
        self.stretches[place] = point.bytes();
        self.count_source(source, 1);
        true
    }

    /// Add points with different keys, in as many payloads as they need.
    fn add_stretch(&mut self, device: DeviceView<'_, 'a>, group: GroupView<'_, 'a>, mut piece: Piece<'a>) {
        let around = group.around();
        while piece.count > 0 {
            let opening = self.opening_cost(device, around);
            let (bytes, count) = opening.map_or((0, 0), |opening| self.fitting(opening, &piece));
            if count > 0 {
                let last_comma = usize::from(self.begin(device, around));
                let (fitting, rest) = piece.bytes.split_at(bytes);
                self.stretches.push(fitting);
                self.open.size += bytes - last_comma;
                self.open.datapoints += count;
                self.count_source(piece.source, count);
                piece = piece.part(rest, piece.count - count);
                continue;
            }
            let point = PointIter(piece.bytes).next().expect("a piece with a count holds points");
            let alone = self.size_alone(device, around, point);
            if alone > self.limits.max_size {
                let (uplink, timestamp) = (piece.source, around.timestamp);
                self.oversized.push(Oversized { uplink, point, timestamp, size: alone });
                piece = piece.part(&piece.bytes[point.bytes().len()..], piece.count - 1);
            } else {
                self.end_payload();
            }
        }
    }

    /// How many of the points fit in the open payload, and their bytes.
    fn fitting(&self, opening: usize, piece: &Piece<'a>) -> (usize, usize) {
        // A record drops its last comma: what opens one has a byte more.
        let room = self.limits.max_size + usize::from(self.record.is_none());
        let bytes_left = room.saturating_sub(self.open.size + opening);
        let count_left = self.limits.max_datapoints - self.open.datapoints;
        if piece.bytes.len() <= bytes_left && piece.count <= count_left {
            return (piece.bytes.len(), piece.count);
        }
        let (mut bytes, mut count) = (0, 0);
        for point in PointIter(piece.bytes) {
            let next = bytes + point.bytes().len();
            if next > bytes_left || count == count_left {
                break;
            }
            bytes = next;
            count += 1;
        }
        (bytes, count)
    }

    /// Bytes of what must be opened before a point can stand in the payload; `None` when the device has no place in it.
    fn opening_cost(&self, device: DeviceView<'_, 'a>, around: Around<'_>) -> Option<usize> {
        if self.open.device == Some(device.index()) {
            let record =
                if self.record.is_some() { 0 } else { self.layout.record_cost(around, self.open.records == 0) };
            return Some(record);
        }
        let name = device.identity().map(Identity::name);
        let namesake_inside = device.shares_name() && self.open.shared_names.contains(&name);
        if self.open.devices == self.limits.max_devices || namesake_inside {
            return None;
        }
        let entry = self.layout.device_cost(device.identity(), self.open.devices == 0);
        Some(entry + self.layout.record_cost(around, true))
    }

    fn size_alone(&self, device: DeviceView<'_, 'a>, around: Around<'_>, point: Point<'a>) -> usize {
        let opening = self.layout.device_cost(device.identity(), true) + self.layout.record_cost(around, true);
        Layout::EMPTY + opening + point.bytes().len() - 1
    }

    /// Open what is not open. Whether that was a record.
    fn begin(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>) -> bool {
        if self.open.device != Some(device.index()) {
            let first = self.open.devices == 0;
            self.open.size += self.layout.device_cost(device.identity(), first);
            self.sink.open_device(device, first);
            self.open.device = Some(device.index());
            self.open.identity = if self.layout.gateway { device.shared_identity() } else { None };
            if device.shares_name() {
                self.open.shared_names.push(device.identity().map(Identity::name));
            }
            self.open.devices += 1;
            self.open.records = 0;
        }
        let opens_record = self.record.is_none();
        if opens_record {
            self.open.size += self.layout.record_cost(around, self.open.records == 0);
            self.open.records += 1;
            self.record = Some(around.timestamp);
            self.metadata.clear();
            self.metadata.extend_from_slice(around.metadata);
            self.record_number += 1;
        }
        opens_record
    }

    fn end_record(&mut self) {
        if let Some(timestamp) = self.record.take() {
            let around = Around { timestamp, metadata: &self.metadata };
            self.sink.record(around, &self.stretches, self.open.records == 1);
            self.stretches.clear();
        }
    }

    fn end_device(&mut self) {
        self.end_record();
        if self.open.device.take().is_some() {
            self.sink.close_device();
        }
        let open = &mut self.open;
        if let Some(device) = open.identity.take() {
            // The size counts the payload's last bracket, which stands behind all entries.
            let (bytes, datapoints, sources) = (open.size - 1, open.datapoints, open.sources.len());
            open.entries.push(Entry { device, bytes, datapoints, sources });
        }
    }

    fn end_payload(&mut self) {
        self.end_device();
        let open = mem::replace(&mut self.open, Open { size: Layout::EMPTY, ..Open::default() });
        if open.datapoints > 0 {
            let output = self.sink.finish(open.size);
            let Open { datapoints, devices, entries, sources, .. } = open;
            self.parts.push(Part { output, datapoints, devices, entries, sources });
        }
    }

    fn count_source(&mut self, uplink: usize, datapoints: usize) {
        let part = self.parts.len();
        let place = &mut self.places[uplink];
        if place.0 == part {
            self.open.sources[place.1].datapoints += datapoints;
        } else {
            *place = (part, self.open.sources.len());
            self.open.sources.push(Source { uplink, datapoints });
        }
    }
}
