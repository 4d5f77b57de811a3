//! The outputs of packing: JSON payloads, or uplinks that are smaller than the ones that their datapoints came from.
//!
//! One type counts the bytes of a record and one trait writes it, side by side, so that a payload's size and bytes agree.

use std::ops::Range;
use std::sync::Arc;

use crate::group::{Around, DeviceView, Kind};
use crate::json::write_int;
use crate::points::{Point, PointIter, Points, PointsBuilder, Timestamp, TooLarge};
use crate::short::append_with;
use crate::small;
use crate::uplink::{Extras, Identity, Uplink};

/// The brackets of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Timeseries or attributes.
    pub kind: Kind,
    /// Whether device entries `"name":…` are around the records.
    pub gateway: bool,
}

impl Layout {
    /// Bytes of an empty payload: one pair of brackets.
    pub const EMPTY: usize = 2;

    /// Return the bytes that a device entry adds around its records. `first`: no entry is before it in the payload.
    #[must_use]
    pub fn device_cost(self, identity: Option<&Identity>, first: bool) -> usize {
        match identity {
            Some(identity) if self.gateway => identity.name_json().len() + 1 + 2 + usize::from(!first),
            _ => 0,
        }
    }

    /// Return the bytes that a record adds around its points. `first`: no record is before it.
    #[must_use]
    pub fn record_cost(self, around: Around<'_>, first: bool) -> usize {
        let brackets = match (self.kind, around.timestamp.millis()) {
            (Kind::Attributes, _) => return 0,
            (Kind::Timeseries, None) => 2,
            (Kind::Timeseries, Some(millis)) => {
                let digits = digits_of(millis);
                RECORD_OPEN.len() + digits + RECORD_VALUES.len() + 2
            }
        };
        brackets + around.metadata.len() + usize::from(!first)
    }

    /// Return the bytes of a payload with one record, without those of its points.
    #[must_use]
    pub fn size_around(self, identity: Option<&Identity>, around: Around<'_>) -> usize {
        Self::EMPTY + self.device_cost(identity, true) + self.record_cost(around, true)
    }
}

/// Text before the timestamp of a record.
pub const RECORD_OPEN: &[u8] = b"{\"ts\":";
/// Text after the timestamp of a record.
pub const RECORD_VALUES: &[u8] = b",\"values\":{";

/// Timestamps of 13 digits: times from the year 2001 on, and before 2286.
const THIRTEEN_DIGITS: Range<i64> = 1_000_000_000_000..10_000_000_000_000;

/// Return the number of bytes of a timestamp.
#[inline]
fn digits_of(millis: i64) -> usize {
    if THIRTEEN_DIGITS.contains(&millis) {
        return 13;
    }
    itoa::Buffer::new().format(millis).len()
}

/// The text before the points of a record with a timestamp. Records follow each other in time, so a timestamp often has the digits of
/// the one before it, except for the last four.
#[derive(Debug, Default)]
struct RecordStart {
    /// The timestamp in the text without its last four digits.
    upper: i64,
    /// `,{"ts":1700000000000,"values":{`, and a byte more.
    text: [u8; 32],
}

impl RecordStart {
    const OPEN: usize = 1 + RECORD_OPEN.len();
    const LAST_FOUR: usize = Self::OPEN + 9;
    const VALUES: usize = Self::LAST_FOUR + 4;
    const LENGTH: usize = Self::VALUES + RECORD_VALUES.len();

    /// Append the text, with a comma before it unless the record is the first one.
    #[inline]
    fn append(&mut self, millis: i64, first: bool, out: &mut Vec<u8>) {
        if first || !THIRTEEN_DIGITS.contains(&millis) {
            Self::append_any(millis, first, out);
            return;
        }
        let (upper, last_four) = (millis / 10_000, millis % 10_000);
        if upper != self.upper {
            self.set_upper(upper);
        }
        self.text[Self::LAST_FOUR..Self::VALUES].copy_from_slice(&small::four_digits(last_four.unsigned_abs()));
        append_with::<32>(out, |room| {
            *room = self.text;
            Self::LENGTH
        });
    }

    #[inline(never)]
    fn set_upper(&mut self, upper: i64) {
        self.upper = upper;
        self.text[0] = b',';
        self.text[1..Self::OPEN].copy_from_slice(RECORD_OPEN);
        self.text[Self::OPEN..Self::LAST_FOUR].copy_from_slice(itoa::Buffer::new().format(upper).as_bytes());
        self.text[Self::VALUES..Self::LENGTH].copy_from_slice(RECORD_VALUES);
    }

    #[inline(never)]
    fn append_any(millis: i64, first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(if first { b"" } else { b"," });
        out.extend_from_slice(RECORD_OPEN);
        write_int(millis, out);
        out.extend_from_slice(RECORD_VALUES);
    }
}

/// Receives the records of one payload after another.
pub trait Sink<'a> {
    /// The type of a finished payload.
    type Output;

    /// Begin a device's records.
    fn open_device(&mut self, device: DeviceView<'_, 'a>, first: bool);

    /// Write one record: points with their commas, in order.
    fn record(&mut self, around: Around<'_>, points: &[&'a [u8]], first: bool);

    /// End a device's records.
    fn close_device(&mut self);

    /// Finish the payload. `size` is the number of bytes that it must have.
    fn finish(&mut self, size: usize) -> Self::Output;
}

/// Writes payloads, one after the other into the same memory.
#[derive(Debug)]
pub struct JsonSink<F> {
    layout: Layout,
    out: Vec<u8>,
    start: RecordStart,
    keep: F,
}

impl<T, F: FnMut(&[u8]) -> T> JsonSink<F> {
    /// Make a sink for payloads of this layout. `keep` copies the bytes of each finished payload into the form that is needed.
    #[must_use]
    pub fn new(layout: Layout, keep: F) -> Self {
        Self { layout, out: Vec::new(), start: RecordStart::default(), keep }
    }

    /// The brackets around the records (`inner`) or around the payload. Without device entries the two are one.
    fn brackets(&self, inner: bool) -> (u8, u8) {
        let around_records = inner == self.layout.gateway;
        if around_records && self.layout.kind == Kind::Timeseries { (b'[', b']') } else { (b'{', b'}') }
    }
}

impl<'a, T, F: FnMut(&[u8]) -> T> Sink<'a> for JsonSink<F> {
    type Output = T;

    fn open_device(&mut self, device: DeviceView<'_, 'a>, first: bool) {
        if first {
            self.out.push(self.brackets(false).0);
        }
        if let (true, Some(identity)) = (self.layout.gateway, device.identity()) {
            if !first {
                self.out.push(b',');
            }
            self.out.extend_from_slice(identity.name_json());
            self.out.push(b':');
            self.out.push(self.brackets(true).0);
        }
    }

    fn record(&mut self, around: Around<'_>, points: &[&'a [u8]], first: bool) {
        let timestamp = around.timestamp.millis();
        let out = &mut self.out;
        if self.layout.kind == Kind::Timeseries {
            match timestamp {
                Some(millis) => self.start.append(millis, first, out),
                None => out.extend_from_slice(if first { b"{" } else { b",{" }),
            }
        }
        for point in points {
            out.extend_from_slice(point);
        }
        // The last point's comma.
        out.pop();
        if self.layout.kind == Kind::Timeseries {
            if timestamp.is_some() && around.metadata.is_empty() {
                out.extend_from_slice(b"}}");
                return;
            }
            if timestamp.is_some() {
                out.push(b'}');
            }
            out.extend_from_slice(around.metadata);
            out.push(b'}');
        }
    }

    fn close_device(&mut self) {
        if self.layout.gateway {
            self.out.push(self.brackets(true).1);
        }
    }

    fn finish(&mut self, size: usize) -> T {
        self.out.push(self.brackets(false).1);
        debug_assert_eq!(self.out.len(), size, "a payload has the counted size");
        let payload = (self.keep)(&self.out);
        self.out.clear();
        payload
    }
}

/// Makes smaller uplinks.
#[derive(Debug)]
pub struct UplinkSink {
    kind: Kind,
    points: PointsBuilder,
    device: Option<Arc<Identity>>,
}

impl UplinkSink {
    /// Make a sink for uplinks with datapoints of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, points: PointsBuilder::default(), device: None }
    }

    /// Make an uplink with a single datapoint.
    #[must_use]
    pub fn single(kind: Kind, device: Option<Arc<Identity>>, timestamp: Timestamp, point: Point<'_>) -> Uplink {
        let mut sink = Self::new(kind);
        sink.device = device;
        sink.record(Around { timestamp, metadata: &[] }, &[point.bytes()], true);
        sink.finish(0)
    }
}

impl<'a> Sink<'a> for UplinkSink {
    type Output = Uplink;

    fn open_device(&mut self, device: DeviceView<'_, 'a>, _first: bool) {
        self.device = device.shared_identity();
    }

    fn record(&mut self, around: Around<'_>, points: &[&'a [u8]], _first: bool) {
        self.points
            .push_run::<TooLarge>(around.timestamp, |out| {
                for stretch in points {
                    out.bytes.extend_from_slice(stretch);
                }
                Ok(points.iter().map(|stretch| PointIter(stretch).count()).sum())
            })
            .expect("a part is not larger than the uplinks it came from");
    }

    fn close_device(&mut self) {}

    fn finish(&mut self, _size: usize) -> Uplink {
        let points = self.points.finish();
        let (timeseries, extras) = match self.kind {
            Kind::Timeseries => (points, None),
            Kind::Attributes => (Points::default(), Some(Box::new(Extras { attributes: points, metadata: None }))),
        };
        Uplink { device: self.device.take(), timeseries, extras, main_timestamp: Timestamp::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_starts_with_its_own_timestamp() {
        let beside = |millis: i64| [millis - 1, millis, millis + 1];
        let round = [0, 1_700_000_000_000, 1_700_000_010_000, 1_699_999_990_000, 1_000_000_000_000, 10_000_000_000_000];
        let others = [1_700_000_000_007, 1_700_000_000_070, 1_700_000_000_700, 1_700_000_007_000, i64::MIN / 2];
        let mut start = RecordStart::default();
        for millis in round.into_iter().flat_map(beside).chain(others) {
            for (first, comma) in [(true, ""), (false, ",")] {
                let mut out = Vec::new();
                start.append(millis, first, &mut out);
                assert_eq!(String::from_utf8_lossy(&out), format!("{comma}{{\"ts\":{millis},\"values\":{{"));
            }
        }
    }
}
