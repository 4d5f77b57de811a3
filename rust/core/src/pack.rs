//! Cuts grouped datapoints into payloads: every datapoint exactly once, in order, no payload over its limits, and none
//! closed while the next record would still fit. The datapoints that an uplink has for one record stay together if they fit in a
//! payload. Two values of one key without a timestamp are never in one payload, where the platform would keep only the last.

use std::fmt;
use std::iter;
use std::mem;
use std::sync::Arc;

use ahash::AHashMap;

use crate::attribution::Attribution;
use crate::group::{self, Around, DeviceView, GroupView, Grouped, Kind, Piece};
use crate::numbers::Conversions;
use crate::points::{Point, PointIter, Timestamp};
use crate::sink::{JsonSink, Layout, Sink, UplinkSink};
use crate::uplink::{Identity, Uplink};

/// The limits of one payload.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes.
    pub max_size: usize,
    /// Most datapoints.
    pub max_datapoints: usize,
    /// Most device entries.
    pub max_devices: usize,
}

impl Limits {
    /// Make limits from the numbers of the public functions, in which 0 means "no limit".
    #[must_use]
    pub fn with_zero_as_unlimited(max_size: usize, max_datapoints: usize, max_devices: usize) -> Self {
        let unlimited = |limit| if limit == 0 { usize::MAX } else { limit };
        Self { max_size, max_datapoints: unlimited(max_datapoints), max_devices: unlimited(max_devices) }
    }
}

/// The end of one device's entry in a gateway payload. The entry begins after the previous one and a comma.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The device.
    pub device: Arc<Identity>,
    /// Bytes of the payload up to this end.
    pub bytes: usize,
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
    /// The uplinks that the payload acknowledges.
    pub attribution: Attribution,
    /// The records without a timestamp.
    pub unstamped: Vec<Unstamped>,
}

/// A record without a timestamp: its form is not found in the bytes, where a key may be called `ts` or `metadata`.
#[derive(Debug, Clone, Copy)]
pub struct Unstamped {
    /// Number of its first datapoint.
    pub first: usize,
    /// Whether metadata follows its datapoints.
    pub has_metadata: bool,
}

impl<T> Part<T> {
    /// Replace the output and keep all other fields.
    pub fn with_output<U>(self, output: U) -> Part<U> {
        self.map_output(|_| output)
    }

    /// Convert the output.
    pub fn map_output<U>(self, convert: impl FnOnce(T) -> U) -> Part<U> {
        let Self { output, datapoints, devices, entries, attribution, unstamped } = self;
        Part { output: convert(output), datapoints, devices, entries, attribution, unstamped }
    }

    /// Take the output out.
    pub fn split_output(self) -> (T, Part<()>) {
        let Self { output, datapoints, devices, entries, attribution, unstamped } = self;
        (output, Part { output: (), datapoints, devices, entries, attribution, unstamped })
    }
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
    /// Bytes of a payload with this datapoint alone.
    pub size: usize,
}

/// Why an uplink cannot be packed or split, with the index of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It has no device, and the payload is a gateway's.
    NoDevice(usize),
    /// It has metadata, and the time of publishing is missing.
    NoPublishTime(usize),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice(index) => {
                write!(f, "uplinks[{index}] has no device, an uplink in a gateway payload must have one")
            }
            Self::NoPublishTime(index) => {
                write!(f, "uplinks[{index}] has metadata, so now_ms is needed to pack it, and it cannot be split")
            }
        }
    }
}

/// The payloads of a batch.
#[derive(Debug)]
pub struct Packed<'a, T = Vec<u8>> {
    /// The payloads.
    pub parts: Vec<Part<T>>,
    /// Datapoints that fit in no payload.
    pub oversized: Vec<Oversized<'a>>,
    /// The first timestamp that is probably not in milliseconds.
    pub suspicious: Option<Timestamp>,
    /// The conversions that were made when the datapoints were encoded.
    pub conversions: Conversions,
}

/// Write payloads. `published` is the time of publishing in milliseconds; only uplinks with metadata need it.
///
/// # Errors
/// When an uplink for a gateway payload has no device, or one has metadata and there is no `published`.
pub fn pack<'a>(
    uplinks: &[&'a Uplink],
    layout: Layout,
    limits: Limits,
    published: Option<i64>,
) -> Result<Packed<'a>, Misfit> {
    pack_into(uplinks, layout, limits, published, <[u8]>::to_vec)
}

/// Write payloads as [`pack`] does. `keep` copies the bytes of each into the form that is needed; so the memory in which they are
/// written is used again.
///
/// # Errors
/// As [`pack`].
pub fn pack_into<'a, T>(
    uplinks: &[&'a Uplink],
    layout: Layout,
    limits: Limits,
    published: Option<i64>,
    keep: impl FnMut(&[u8]) -> T,
) -> Result<Packed<'a, T>, Misfit> {
    let (runs, conversions) = survey(uplinks, layout, published)?;
    let rounds = Grouped::rounds(uplinks, layout.kind, published.unwrap_or_default(), runs);
    let sink = JsonSink::new(layout, keep);
    let (parts, oversized) = Packer::new(layout, limits, sink, uplinks.len()).run(&rounds);
    let suspicious = rounds.iter().find_map(Grouped::suspicious_timestamp);
    Ok(Packed { parts, oversized, suspicious, conversions })
}

/// Cut uplinks into smaller ones, each of which fits in a payload if a datapoint of it does.
///
/// # Errors
/// When an uplink for a gateway payload has no device, or one has metadata.
pub fn split(uplinks: &[&Uplink], layout: Layout, limits: Limits) -> Result<Vec<Part<Uplink>>, Misfit> {
    let (runs, _) = survey(uplinks, layout, None)?;
    let limits = Limits { max_devices: 1, ..limits };
    let rounds = Grouped::rounds(uplinks, layout.kind, 0, runs);
    let (mut parts, oversized) = Packer::new(layout, limits, UplinkSink::new(layout.kind), uplinks.len()).run(&rounds);
    parts.extend(oversized.into_iter().map(|oversized| {
        let device = uplinks[oversized.uplink].device.as_ref().map(Arc::clone);
        Part {
            output: UplinkSink::single(layout.kind, device, oversized.timestamp, oversized.point),
            datapoints: 1,
            devices: 1,
            entries: Vec::new(),
            attribution: Attribution::of_one(oversized.uplink),
            unstamped: Vec::new(),
        }
    }));
    Ok(parts)
}

/// What is known of uplinks before they are grouped: the number of their runs, and the conversions of their datapoints. It is found in
/// one pass, since the uplinks of a large batch are in no cache.
fn survey(uplinks: &[&Uplink], layout: Layout, published: Option<i64>) -> Result<(usize, Conversions), Misfit> {
    let timeless = layout.kind == Kind::Timeseries && published.is_none();
    let (mut runs, mut conversions) = (0, Conversions::default());
    for (index, uplink) in uplinks.iter().enumerate() {
        if layout.gateway && uplink.device.is_none() {
            return Err(Misfit::NoDevice(index));
        }
        if timeless && uplink.metadata().is_some() {
            return Err(Misfit::NoPublishTime(index));
        }
        if let Some(points) = group::points_of(uplink, layout.kind) {
            runs += points.run_count();
            conversions = [conversions, points.conversions()].into_iter().sum();
        }
    }
    Ok((runs, conversions))
}

/// The open payload, which is being filled.
#[derive(Debug, Default)]
struct Open<'a> {
    /// Bytes of the payload if it were closed now.
    size: usize,
    datapoints: usize,
    devices: usize,
    /// Number of the open device, if one is open.
    device: Option<usize>,
    /// Identity of the open device.
    identity: Option<Arc<Identity>>,
    entries: Vec<Entry>,
    /// Records of the open device, the open one included.
    records: usize,
    /// Names of its devices that belong to another device too.
    shared_names: Vec<Option<&'a str>>,
    attribution: Attribution,
    unstamped: Vec<Unstamped>,
    /// Datapoints before the open record.
    before_record: usize,
}

/// Space that is left in a payload, for points with a comma each.
#[derive(Debug, Clone, Copy)]
struct Left {
    bytes: usize,
    datapoints: usize,
}

impl Left {
    fn holds(self, bytes: usize, count: usize) -> bool {
        bytes <= self.bytes && count <= self.datapoints
    }

    /// Return bytes and number of the points at the beginning of a piece that fit.
    fn fitting(self, piece: &Piece<'_>) -> (usize, usize) {
        let (mut bytes, mut count) = (0, 0);
        for point in PointIter(piece.bytes) {
            let next = bytes + point.bytes().len();
            if !self.holds(next, count + 1) {
                break;
            }
            bytes = next;
            count += 1;
        }
        (bytes, count)
    }
}

fn points_of<'a>(pieces: &[Piece<'a>]) -> impl Iterator<Item = Point<'a>> {
    pieces.iter().flat_map(|piece| PointIter(piece.bytes))
}

/// Fills one payload after the other.
pub(crate) struct Packer<'a, S: Sink<'a>> {
    layout: Layout,
    limits: Limits,
    sink: S,
    open: Open<'a>,
    /// The open record: stretches of points. It is written when it ends, because a later value may replace an earlier one.
    record: Option<Timestamp>,
    /// Metadata of the open record.
    metadata: Vec<u8>,
    stretches: Vec<&'a [u8]>,
    /// Index of a key in `stretches`. With the record's number in it, the map need not be cleared between records.
    keys: AHashMap<(usize, &'a [u8]), usize>,
    record_number: usize,
    /// For each uplink: the number of the last part with this source, and its place there.
    places: Vec<(usize, usize)>,
    parts: Vec<Part<S::Output>>,
    oversized: Vec<Oversized<'a>>,
}

impl<'a, S: Sink<'a>> Packer<'a, S> {
    pub(crate) fn new(layout: Layout, limits: Limits, sink: S, uplinks: usize) -> Self {
        // Without device entries a payload can have only one device.
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

    /// Fill payloads with the datapoints of one round after the other; no payload has datapoints of two rounds.
    pub(crate) fn run(mut self, rounds: &[Grouped<'a>]) -> (Vec<Part<S::Output>>, Vec<Oversized<'a>>) {
        for grouped in rounds {
            for device in grouped.devices() {
                for group in device.groups() {
                    if group.may_repeat_keys() {
                        self.add_repeating(device, group);
                    } else {
                        let around = group.around();
                        for piece in group.pieces() {
                            if !self.add_whole(device, around, piece) {
                                self.add_stretch(device, around, piece);
                            }
                        }
                    }
                    self.end_record();
                }
                self.end_device();
            }
            self.end_payload();
        }
        (self.parts, self.oversized)
    }

    /// Add a group in which a key may occur more than once. The datapoints of an uplink follow each other in it.
    fn add_repeating(&mut self, device: DeviceView<'_, 'a>, group: GroupView<'_, 'a>) {
        let around = group.around();
        let mut pieces = group.pieces().peekable();
        let mut together = Vec::new();
        while let Some(first) = pieces.next() {
            together.push(first);
            together.extend(iter::from_fn(|| pieces.next_if(|piece| piece.source == first.source)));
            if self.has_room_for(device, around, &together) {
                for point in points_of(&together) {
                    self.put(device, around, point, first.source);
                }
            } else {
                for point in points_of(&together) {
                    self.put_where_it_fits(device, around, point, first);
                }
            }
            together.clear();
        }
    }

    /// Whether an uplink's record fits in the open payload, or in an empty one. In the second case this closes the open one.
    fn has_room_for(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, together: &[Piece<'a>]) -> bool {
        let opening = self.opening_cost(device, around);
        let (bytes, count) =
            together.iter().fold((0, 0), |sum, piece| (sum.0 + piece.bytes.len(), sum.1 + piece.count));
        let left = opening.and_then(|opening| self.left(opening));
        if left.is_some_and(|left| left.holds(bytes, count)) {
            return true;
        }
        // Bytes of the record in an empty payload, and bytes that it adds to the open one, where it replaces values.
        let (mut alone, mut added, mut freed, mut new_keys, mut largest) = (0, 0, 0, 0, 0);
        let mut own = AHashMap::new();
        for point in points_of(together) {
            let size = point.bytes().len();
            let before = own.insert(point.key(), size).unwrap_or(0);
            alone = alone + size - before;
            added += size;
            largest = largest.max(size);
            match self.place_of_key(point.key()) {
                _ if before > 0 => freed += before,
                Some(place) => freed += self.stretches[place].len(),
                None => new_keys += 1,
            }
        }
        if !self.fits_alone(device, around, largest, 1) {
            return false;
        }
        if left.is_some_and(|left| new_keys <= left.datapoints && added <= left.bytes + freed) {
            return true;
        }
        let fits = self.fits_alone(device, around, alone, own.len());
        if fits {
            self.end_payload();
        }
        fits
    }

    /// Whether points of this many bytes, including commas, fit in an empty payload.
    fn fits_alone(&self, device: DeviceView<'_, 'a>, around: Around<'_>, bytes: usize, count: usize) -> bool {
        let size = self.layout.size_around(device.identity(), around) + bytes - 1;
        size <= self.limits.max_size && count <= self.limits.max_datapoints
    }

    /// Return the place of a key in the open record, if the record has it.
    fn place_of_key(&self, key: &'a [u8]) -> Option<usize> {
        self.record?;
        self.keys.get(&(self.record_number, key)).copied()
    }

    /// Put a point into the open payload, where it fits.
    fn put(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, point: Point<'a>, source: usize) {
        if let Some(place) = self.place_of_key(point.key()) {
            self.put_over(place, point, source);
        } else {
            self.append(device, around, point.bytes(), 1, source);
            self.keys.insert((self.record_number, point.key()), self.stretches.len() - 1);
        }
    }

    /// Replace the earlier value of a key with a later one.
    fn put_over(&mut self, place: usize, point: Point<'a>, source: usize) {
        self.open.size = self.open.size - self.stretches[place].len() + point.bytes().len();
        self.stretches[place] = point.bytes();
        // Every point of a record in which keys may repeat is a stretch of its own.
        let written = self.open.before_record + place;
        let source_place = self.open.attribution.supersede(self.place_of(source), source, written);
        self.places[source] = (self.parts.len(), source_place);
    }

    /// Put a point of a record that is larger than a payload.
    fn put_where_it_fits(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, point: Point<'a>, of: Piece<'a>) {
        if let Some(place) = self.place_of_key(point.key()) {
            let size = self.open.size - self.stretches[place].len() + point.bytes().len();
            if size <= self.limits.max_size {
                self.put_over(place, point, of.source);
                return;
            }
            // Both values are sent, in two payloads, unless the later one fits in none: then this payload stays open.
            if self.fits_alone(device, around, point.bytes().len(), 1) {
                self.end_payload();
            }
        }
        let refused = self.oversized.len();
        self.add_stretch(device, around, of.part(point.bytes(), 1));
        if self.oversized.len() == refused {
            self.keys.insert((self.record_number, point.key()), self.stretches.len() - 1);
        }
    }

    /// Write a record with one piece, if that fits in the open device: most records do. Return whether it is written.
    #[inline]
    fn add_whole(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, piece: Piece<'a>) -> bool {
        let (layout, limits, open) = (self.layout, self.limits, &mut self.open);
        if open.device != Some(device.index()) || around.timestamp == Timestamp::NONE {
            return false;
        }
        let first = open.records == 0;
        // A record drops its last comma.
        let size = open.size + layout.record_cost(around, first) + piece.bytes.len() - 1;
        let datapoints = open.datapoints + piece.count;
        if size > limits.max_size || datapoints > limits.max_datapoints {
            return false;
        }
        self.sink.record(around, &[piece.bytes], first);
        open.records += 1;
        open.size = size;
        self.attribute(piece.source, piece.count);
        true
    }

    /// Add points with different keys: together if they fit in one payload, otherwise in as many as they need.
    fn add_stretch(&mut self, device: DeviceView<'_, 'a>, around: Around<'_>, mut piece: Piece<'a>) {
        let mut torn = false;
        while piece.count > 0 {
            let opening = self.opening_cost(device, around);
            let left = opening.and_then(|opening| self.left(opening));
            if left.is_some_and(|left| left.holds(piece.bytes.len(), piece.count)) {
                self.append(device, around, piece.bytes, piece.count, piece.source);
                return;
            }
            let (bytes, count) = left.map_or((0, 0), |left| left.fitting(&piece));
            if !torn {
                torn = !self.fits_alone(device, around, piece.bytes.len(), piece.count);
                if !torn {
                    self.end_payload();
                    continue;
                }
            }
            if count > 0 {
                let (fitting, rest) = piece.bytes.split_at(bytes);
                self.append(device, around, fitting, count, piece.source);
                piece = piece.part(rest, piece.count - count);
                continue;
            }
            let point = PointIter(piece.bytes).next().expect("a piece with a count holds points");
            let alone = self.layout.size_around(device.identity(), around) + point.bytes().len() - 1;
            if alone > self.limits.max_size {
                let (uplink, timestamp) = (piece.source, around.timestamp);
                self.oversized.push(Oversized { uplink, point, timestamp, size: alone });
                piece = piece.part(&piece.bytes[point.bytes().len()..], piece.count - 1);
            } else {
                self.end_payload();
            }
        }
    }

    /// Append points to the open payload, where they fit.
    #[inline]
    fn append(
        &mut self,
        device: DeviceView<'_, 'a>,
        around: Around<'_>,
        points: &'a [u8],
        count: usize,
        source: usize,
    ) {
        let last_comma = usize::from(self.begin(device, around));
        self.stretches.push(points);
        self.open.size += points.len() - last_comma;
        self.attribute(source, count);
    }

    /// Count datapoints that were appended to the open payload.
    #[inline]
    fn attribute(&mut self, source: usize, count: usize) {
        let place = self.open.attribution.append(self.place_of(source), source, self.open.datapoints, count);
        self.places[source] = (self.parts.len(), place);
        self.open.datapoints += count;
    }

    /// Return the space that is left in the open payload when `opening` bytes are used to open a device and a record.
    #[inline]
    fn left(&self, opening: usize) -> Option<Left> {
        // A record drops its last comma, so opening one leaves a byte more.
        let end = self.limits.max_size + usize::from(self.record.is_none());
        let bytes = end.checked_sub(self.open.size + opening)?;
        Some(Left { bytes, datapoints: self.limits.max_datapoints - self.open.datapoints })
    }

    /// Return the bytes that opening a device and a record needs before a point; `None` if the payload cannot have the device.
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

    /// Open the device and the record if they are not open. Return whether the record was opened.
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
            self.open.before_record = self.open.datapoints;
            if around.timestamp == Timestamp::NONE && self.layout.kind == Kind::Timeseries {
                let has_metadata = !around.metadata.is_empty();
                self.open.unstamped.push(Unstamped { first: self.open.datapoints, has_metadata });
            }
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
            // The size includes the payload's last bracket, which follows all entries.
            open.entries.push(Entry { device, bytes: open.size - 1 });
        }
    }

    fn end_payload(&mut self) {
        self.end_device();
        let open = mem::replace(&mut self.open, Open { size: Layout::EMPTY, ..Open::default() });
        if open.datapoints > 0 {
            let output = self.sink.finish(open.size);
            let Open { datapoints, devices, entries, attribution, unstamped, .. } = open;
            self.parts.push(Part { output, datapoints, devices, entries, attribution, unstamped });
        }
    }

    /// Return the place of an uplink among the sources of the open payload, if it is one of them.
    fn place_of(&self, uplink: usize) -> Option<usize> {
        let (part, place) = self.places[uplink];
        (part == self.parts.len()).then_some(place)
    }
}
