//! Cuts a written payload into smaller ones, for limits that are tighter than those it was packed for.
//!
//! Records and datapoints are found in the payload's own bytes, so packing keeps no index of them.

use std::iter;
use std::ops::Range;
use std::str;
use std::sync::Arc;

use crate::group::{Around, Grouped, Kind};
use crate::pack::{Limits, Packer, Part, Unstamped};
use crate::points::{Timestamp, string_end, value_end};
use crate::sink::{JsonSink, Layout, RECORD_OPEN, RECORD_VALUES};
use crate::uplink::Identity;

/// Cut a payload into parts within the limits. Datapoints keep their order, and each is in one part. Values that an uplink wrote
/// into one record stay together where they fit in a payload. A datapoint that alone exceeds `max_size` is a part of its own.
///
/// The sources of a part are places among the sources of the whole.
#[must_use]
pub fn repack(data: &[u8], layout: Layout, whole: &Part<()>, limits: Limits) -> Vec<Part<Vec<u8>>> {
    let text = Text::read(data, layout, whole);
    let pieces = text.pieces(layout, limits.max_size, &whole.attribution.writers(whole.datapoints));
    let unlimited = Limits { max_size: usize::MAX >> 1, ..limits };
    let mut parts = Vec::new();
    // A datapoint that is too large is in a part of its own, between the parts with the datapoints before and after it.
    for pieces in pieces.chunk_by(|piece, next| !piece.oversized && !next.oversized) {
        parts.extend(text.pack(pieces, layout, if pieces[0].oversized { unlimited } else { limits }));
    }
    let goes_to: Vec<_> =
        parts.iter().enumerate().flat_map(|(part, one)| iter::repeat_n(part, one.datapoints)).collect();
    let attributions = whole.attribution.cut(&goes_to, parts.len());
    parts.into_iter().zip(attributions).map(|(part, attribution)| Part { attribution, ..part }).collect()
}

/// Datapoints of one record that stay together, and the index of that record.
#[derive(Debug)]
struct Piece {
    record: usize,
    /// Number of its first datapoint.
    first: usize,
    count: usize,
    /// One datapoint that fits in no payload.
    oversized: bool,
}

#[derive(Debug)]
struct Record<'a> {
    device: Option<&'a Arc<Identity>>,
    timestamp: Timestamp,
    metadata: Range<usize>,
    /// Number of its first datapoint.
    first: usize,
    count: usize,
}

/// A payload whose datapoints all end with a comma: the bracket after the last one of a record is replaced.
#[derive(Debug)]
struct Text<'a> {
    bytes: Vec<u8>,
    records: Vec<Record<'a>>,
    /// The bytes of each datapoint, with its comma.
    datapoints: Vec<Range<usize>>,
}

impl<'a> Text<'a> {
    fn read(data: &[u8], layout: Layout, whole: &'a Part<()>) -> Self {
        let mut text =
            Self { bytes: data.to_vec(), records: Vec::new(), datapoints: Vec::with_capacity(whole.datapoints) };
        let mut unstamped = whole.unstamped.iter().copied().peekable();
        let mut next_unstamped = |datapoint| unstamped.next_if(|record| record.first == datapoint);
        if !layout.gateway {
            text.read_records(0, layout, None, &mut next_unstamped);
        }
        let mut start = 0;
        for entry in &whole.entries {
            // After the payload's bracket, or the comma, come the name and a colon.
            let records = start + 1 + entry.device.name_json().len() + 1;
            text.read_records(records, layout, Some(&entry.device), &mut next_unstamped);
            start = entry.bytes;
        }
        text
    }

    /// Read the records of one device, beginning at their bracket.
    fn read_records(
        &mut self,
        start: usize,
        layout: Layout,
        device: Option<&'a Arc<Identity>>,
        next_unstamped: &mut impl FnMut(usize) -> Option<Unstamped>,
    ) {
        if layout.kind == Kind::Attributes {
            self.read_record(start + 1, Timestamp::NONE, false, device);
            return;
        }
        let mut index = start;
        // After the bracket, then after the comma before each record.
        while self.bytes[index] != b']' {
            let open = index + 1;
            index = if let Some(record) = next_unstamped(self.datapoints.len()) {
                self.read_record(open + 1, Timestamp::NONE, record.has_metadata, device)
            } else {
                let digits = open + RECORD_OPEN.len();
                let end = digits + self.bytes[digits..].iter().take_while(|byte| **byte != b',').count();
                let millis = str::from_utf8(&self.bytes[digits..end]).ok().and_then(|digits| digits.parse().ok());
                let timestamp = millis.and_then(Timestamp::new).expect("a record that was written with its timestamp");
                self.read_record(end + RECORD_VALUES.len(), timestamp, false, device) + 1
            };
        }
    }

    /// Read a record, beginning at its first datapoint. Return the index after its values and its metadata.
    ///
    /// Metadata of a record with a timestamp follow the bracket that closes its values. Those of a record without one are its last
    /// member, `has_metadata` says whether there are any, and the bracket that closes the record follows them.
    fn read_record(
        &mut self,
        start: usize,
        timestamp: Timestamp,
        has_metadata: bool,
        device: Option<&'a Arc<Identity>>,
    ) -> usize {
        let (first, mut index) = (self.datapoints.len(), start);
        let (metadata, after) = loop {
            let end = self.member_end(index);
            self.datapoints.push(index..end + 1);
            index = end + 1;
            if self.bytes[end] != b',' {
                self.bytes[end] = b',';
                let follows = timestamp != Timestamp::NONE && self.bytes[index] == b',';
                let metadata = index..if follows { self.member_end(index + 1) } else { index };
                break (metadata.clone(), metadata.end);
            }
            if has_metadata && self.bytes[self.member_end(index)] == b'}' {
                let metadata = end..self.member_end(index);
                break (metadata.clone(), metadata.end + 1);
            }
        };
        let count = self.datapoints.len() - first;
        self.records.push(Record { device, timestamp, metadata, first, count });
        after
    }

    /// Return the index after `"key":value`.
    fn member_end(&self, start: usize) -> usize {
        value_end(&self.bytes, string_end(&self.bytes, start) + 1)
    }

    fn around(&self, record: &Record<'a>) -> Around<'_> {
        Around { timestamp: record.timestamp, metadata: &self.bytes[record.metadata.clone()] }
    }

    /// Cut each record where no uplink has values on both sides, and on both sides of datapoints that are too large.
    fn pieces(&self, layout: Layout, max_size: usize, writers: &[usize]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let sources = writers.iter().max().map_or(0, |last| last + 1);
        let mut last_of = vec![0; sources];
        for (index, record) in self.records.iter().enumerate() {
            let numbers = record.first..record.first + record.count;
            numbers.clone().for_each(|number| last_of[writers[number]] = number);
            let identity = record.device.map(Arc::as_ref);
            let around = layout.size_around(identity, self.around(record));
            let mut together = record.first;
            let mut previous_oversized = true;
            for number in numbers {
                let oversized = around + self.datapoints[number].len() - 1 > max_size;
                if oversized || previous_oversized || number > together {
                    pieces.push(Piece { record: index, first: number, count: 0, oversized });
                }
                pieces.last_mut().expect("the first datapoint begins a piece").count += 1;
                together = together.max(last_of[writers[number]]);
                previous_oversized = oversized;
            }
        }
        pieces
    }

    fn pack(&self, pieces: &[Piece], layout: Layout, limits: Limits) -> Vec<Part<Vec<u8>>> {
        let mut grouped = Grouped::default();
        for (index, piece) in pieces.iter().enumerate() {
            if index == 0 || pieces[index - 1].record != piece.record {
                let record = &self.records[piece.record];
                grouped.push_record(record.device, self.around(record));
            }
            let last = &self.datapoints[piece.first + piece.count - 1];
            let bytes = &self.bytes[self.datapoints[piece.first].start..last.end];
            grouped.push_piece(bytes, piece.count, index);
        }
        Packer::new(layout, limits, JsonSink::new(layout, <[u8]>::to_vec), pieces.len()).run(&[grouped]).0
    }
}
