//! Where packed records go: into JSON payloads, or into uplinks that are smaller than the ones they came from.
//!
//! One trait gives both what a record costs and the writing of it, so that a payload's size and its bytes cannot disagree.

use std::sync::Arc;

use crate::group::{Around, DeviceView, Kind};
use crate::json::write_int;
use crate::points::{Point, PointIter, Points, PointsBuilder, Timestamp, TooLarge};
use crate::uplink::{Extras, Identity, Uplink};

/// The brackets of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Timeseries or attributes.
    pub kind: Kind,
    /// Device entries `"name":…` around the records.
    pub gateway: bool,
}

impl Layout {
    /// Bytes of a payload with nothing in it: one pair of brackets.
    pub const EMPTY: usize = 2;

    /// Bytes that a device entry adds around its records. `first`: no entry before it in the payload.
    #[must_use]
    pub fn device_cost(self, identity: Option<&Identity>, first: bool) -> usize {
        match identity {
            Some(identity) if self.gateway => identity.name_json().len() + 1 + 2 + usize::from(!first),
            _ => 0,
        }
    }

    /// Bytes that a record adds around its points. `first`: no record before it.
    #[must_use]
    pub fn record_cost(self, around: Around<'_>, first: bool) -> usize {
        let brackets = match (self.kind, around.timestamp.millis()) {
            (Kind::Attributes, _) => return 0,
            (Kind::Timeseries, None) => 2,
            (Kind::Timeseries, Some(millis)) => {
                let digits = itoa::Buffer::new().format(millis).len();
                RECORD_OPEN.len() + digits + RECORD_VALUES.len() + 2
            }
        };
        brackets + around.metadata.len() + usize::from(!first)
    }

    /// Bytes of a payload with one record, without those of its points.
    #[must_use]
    pub fn size_around(self, identity: Option<&Identity>, around: Around<'_>) -> usize {
        Self::EMPTY + self.device_cost(identity, true) + self.record_cost(around, true)
    }
}

/// Stands before the timestamp of a record.
pub const RECORD_OPEN: &[u8] = b"{\"ts\":";
/// Stands behind it.
pub const RECORD_VALUES: &[u8] = b",\"values\":{";

/// Takes the records of one payload after the other.
pub trait Sink<'a> {
    /// What a payload becomes.
    type Output;

    /// A device's records begin.
    fn open_device(&mut self, device: DeviceView<'_, 'a>, first: bool);

    /// One record: points with their commas, in order.
    fn record(&mut self, around: Around<'_>, points: &[&'a [u8]], first: bool);

    /// A device's records end.
    fn close_device(&mut self);

    /// The payload is complete; `size` is what it must weigh.
    fn finish(&mut self, size: usize) -> Self::Output;
}

/// Writes payloads.
#[derive(Debug)]
pub struct JsonSink {
    layout: Layout,
    out: Vec<u8>,
}

impl JsonSink {
    /// A sink for payloads of this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, out: Vec::new() }
    }

    /// The brackets around the records (`inner`) or around the payload. Without device entries the two are one.
    fn brackets(&self, inner: bool) -> (u8, u8) {
        let around_records = inner == self.layout.gateway;
        if around_records && self.layout.kind == Kind::Timeseries { (b'[', b']') } else { (b'{', b'}') }
    }
}

impl<'a> Sink<'a> for JsonSink {
    type Output = Vec<u8>;

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
            if !first {
                out.push(b',');
            }
            if let Some(millis) = timestamp {
                out.extend_from_slice(RECORD_OPEN);
                write_int(millis, out);
                out.extend_from_slice(RECORD_VALUES);
            } else {
                out.push(b'{');
            }
        }
        for point in points {
            out.extend_from_slice(point);
        }
        // The last point's comma.
        out.pop();
        if self.layout.kind == Kind::Timeseries {
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

    fn finish(&mut self, size: usize) -> Vec<u8> {
        self.out.push(self.brackets(false).1);
        debug_assert_eq!(self.out.len(), size, "a payload weighs what was counted");
        // The next payload is likely to be about as large as this one; growing would move it to twice the memory.
        let next = Vec::with_capacity(size + size / 16);
        std::mem::replace(&mut self.out, next)
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
    /// A sink for uplinks with datapoints of this kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, points: PointsBuilder::default(), device: None }
    }

    /// An uplink with a single datapoint.
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
