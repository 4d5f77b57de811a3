//! Indices of segments, and the chunk that was read last.

use std::io;

use super::chunk::{LANES, StoredSend, Table, Totals, Written};
use super::files::{ATTEMPTS, StoreFile, read_full_at};
use super::frame::{HEADER, Header, checksum};
use super::intervals::IntervalSet;
use super::segment::{Step, Walk};
use crate::uplink::Uplink;

/// A send in an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub number: u64,
    pub accepted: i64,
    /// Where its chunk begins.
    pub chunk: u32,
    pub datapoints: u32,
    pub bytes: u32,
}

impl Entry {
    pub(super) fn totals(&self) -> Totals {
        Totals::of_one(self.datapoints, self.bytes)
    }

    pub(super) fn written(&self) -> Written {
        let Self { number, accepted, datapoints, bytes, .. } = *self;
        Written { number, accepted, datapoints, bytes, expires: 0 }
    }
}

/// The sends of one segment, made of its tables.
pub(super) struct Index<F> {
    pub segment: u64,
    pub file: F,
    /// Where the part that is not indexed begins.
    pub end: u64,
    /// By lane, in the order of numbers.
    pub lanes: [Vec<Entry>; LANES],
}

impl<F: StoreFile> Index<F> {
    /// Make an index of a segment of a length, without sends, and room for a number of sends in each lane.
    pub(super) fn new(segment: u64, file: F, length: u64, sends: [u64; LANES]) -> Self {
        // A row of a table has seven bytes or more, whatever a damaged footer says.
        let lanes = sends.map(|sends| Vec::with_capacity(usize::try_from(sends.min(length / 7)).unwrap_or(0)));
        Self { segment, file, end: 0, lanes }
    }

    /// Add the sends up to a length. Return the damaged stretches that were found. `around` passes sectors that
    /// cannot be read.
    ///
    /// # Errors
    /// When the file cannot be read. The index is as it was then.
    pub(super) fn extend(
        &mut self,
        length: u64,
        voids: Option<&IntervalSet>,
        around: bool,
    ) -> io::Result<Vec<(u64, u64)>> {
        let counts = self.lanes.each_ref().map(Vec::len);
        let bad = self.add(length, voids, around);
        if bad.is_ok() {
            self.end = length;
            self.lanes.iter_mut().for_each(|lane| lane.sort_by_key(|entry| entry.number));
        } else {
            self.lanes.iter_mut().zip(counts).for_each(|(lane, count)| lane.truncate(count));
        }
        bad
    }

    fn add(&mut self, length: u64, voids: Option<&IntervalSet>, around: bool) -> io::Result<Vec<(u64, u64)>> {
        let mut walk = Walk::new(&self.file, self.segment, self.end..length, voids, false);
        walk.around = around;
        let mut bad = Vec::new();
        while let Some(step) = walk.step()? {
            match step {
                Step::Frame(offset, Header { kind, .. }) => {
                    let Some(lane) = kind.lane() else { continue };
                    let lane = &mut self.lanes[lane.index()];
                    let before = lane.len();
                    if index_chunk(&walk.table, offset, lane).is_none() {
                        lane.truncate(before);
                        bad.push((offset, offset + walk.table.len() as u64));
                    }
                }
                Step::Bad(start, end) => bad.push((start, end)),
            }
        }
        Ok(bad)
    }
}

/// A chunk of a segment.
pub(super) struct Chunk {
    pub segment: u64,
    pub offset: u64,
    payload: Vec<u8>,
    table: Vec<u8>,
}

impl Chunk {
    /// Read and check a chunk. `None` if it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(file: &impl StoreFile, segment: u64, offset: u64) -> io::Result<Option<Self>> {
        let Some(header) = header_at(file, segment, offset)? else { return Ok(None) };
        // It was in the file when the index was made.
        if offset + header.frame_length() > file.length()? {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload as usize];
        let mut table = vec![0; header.table as usize];
        let start = offset + HEADER as u64;
        let complete = read_full_at(file, &mut payload, start)? == payload.len()
            && read_full_at(file, &mut table, start + payload.len() as u64)? == table.len();
        let sound = checksum(&payload) == header.payload_checksum && checksum(&table) == header.table_checksum;
        Ok((complete && sound).then_some(Self { segment, offset, payload, table }))
    }

    /// Decode some of its sends, in the order of the table. `None` if it is damaged.
    pub(super) fn sends(&self, wanted: &[Entry]) -> Option<Vec<StoredSend<Uplink>>> {
        let mut table = Table::new(&self.table)?;
        let mut sends = Vec::with_capacity(wanted.len());
        for entry in wanted {
            while table.next_row()??.number != entry.number {}
            sends.push(table.send(&self.payload)?);
        }
        Some(sends)
    }
}

/// The released send of a lane with the smallest number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub number: u64,
    pub segment: u64,
    /// Another segment may have sends of the lane from this number on.
    pub until: u64,
}

/// Most indices that are kept: every lane may be read in another segment.
const KEPT: usize = LANES;

/// More than two indices are kept only if they have at most this many sends together, so that they take at most 8 MiB.
const KEPT_SENDS: u64 = 1 << 18;

/// What was read last.
pub(super) struct Cache<F> {
    /// In the order of their last use.
    pub indices: Vec<Index<F>>,
    pub chunk: Option<Chunk>,
    /// By lane, what was found last, so that no index is needed to compare lanes.
    pub next: [Option<Next>; LANES],
    /// The segment and place of the last failure, and the number of failures there.
    failure: (u64, u64, u32),
}

impl<F> Default for Cache<F> {
    fn default() -> Self {
        Self { indices: Vec::new(), chunk: None, next: [None; LANES], failure: (0, 0, 0) }
    }
}

impl<F> Cache<F> {
    /// Return the index of a segment.
    pub(super) fn of(&self, segment: u64) -> Option<&Index<F>> {
        self.indices.iter().find(|index| index.segment == segment)
    }

    /// Remove and return the index of a segment.
    pub(super) fn take(&mut self, segment: u64) -> Option<Index<F>> {
        let slot = self.indices.iter().position(|index| index.segment == segment)?;
        Some(self.indices.remove(slot))
    }

    /// Keep an index as the one that was used last. Return its place.
    pub(super) fn put(&mut self, index: Index<F>) -> usize {
        self.indices.push(index);
        self.indices.len() - 1
    }

    /// Drop the indices that were not used for the longest time, so that there is room for one with this many sends.
    pub(super) fn make_room(&mut self, sends: u64) {
        let held = |index: &Index<F>| index.lanes.iter().map(|lane| lane.len() as u64).sum::<u64>();
        let is_full = |indices: &[Index<F>]| {
            let all = indices.iter().map(held).fold(sends, u64::saturating_add);
            indices.len() >= KEPT || indices.len() > 1 && all > KEPT_SENDS
        };
        while is_full(&self.indices) {
            self.indices.remove(0);
        }
    }

    /// Drop what belongs to a segment.
    pub(super) fn forget(&mut self, segment: u64) {
        self.take(segment);
        self.chunk.take_if(|chunk| chunk.segment == segment);
    }

    /// Whether reading at a place failed so often that it counts as damaged.
    pub(super) fn failed_too_often(&mut self, segment: u64, offset: u64) -> bool {
        let failure = &mut self.failure;
        if (failure.0, failure.1) == (segment, offset) {
            failure.2 += 1;
        } else {
            *failure = (segment, offset, 1);
        }
        failure.2 >= ATTEMPTS
    }
}

/// Append the sends of a chunk to an index.
fn index_chunk(table: &[u8], offset: u64, entries: &mut Vec<Entry>) -> Option<()> {
    let mut rows = Table::new(table)?;
    let chunk = u32::try_from(offset).ok()?;
    while let Some(row) = rows.next_row() {
        let row = row?;
        let (number, accepted, datapoints, bytes) = (row.number, row.accepted, row.datapoints, row.bytes);
        entries.push(Entry { number, accepted, chunk, datapoints, bytes });
    }
    Some(())
}

fn header_at(file: &impl StoreFile, segment: u64, offset: u64) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    read_full_at(file, &mut bytes, offset)?;
    Ok(Header::from_bytes(&bytes, segment, offset))
}

/// Return where the frame at an offset ends, if its header can be read.
pub(super) fn frame_end(file: &impl StoreFile, segment: u64, offset: u64) -> Option<u64> {
    header_at(file, segment, offset).ok().flatten().map(|header| offset + header.frame_length())
}
