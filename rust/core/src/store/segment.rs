//! Segments: the files of the log. A head, frames, and a footer once nothing is appended any more.

use std::collections::BTreeMap;
use std::io;

use super::chunk::{LANES, Lane, Totals, Written};
use super::files::{ATTEMPTS, StoreFile, read_full_at};
use super::frame::{HEADER, Header, Kind, MARKER, checksum};
use super::intervals::IntervalSet;
use super::wire::{Reader, put, put_bytes, put_intervals, put_signed};

/// The version of the format of heads, frames and chunks, the only one that this module reads.
pub const FORMAT: u64 = 2;

/// Return the name of a segment's file.
#[must_use]
pub fn file_name(segment: u64) -> String {
    format!("{segment:020}.log")
}

/// Return the number of the segment with this file name.
#[must_use]
pub fn number_of(name: &str) -> Option<u64> {
    number_from(name.strip_suffix(".log")?)
}

fn number_from(digits: &str) -> Option<u64> {
    // The log counts on from the largest one, and keeps two bits beside it.
    let numbers = 1..u64::MAX / 4;
    let number = digits.parse().ok().filter(|number| numbers.contains(number))?;
    (format!("{number:020}") == digits).then_some(number)
}

/// Return the name of the empty file that says that a segment was removed because all its sends were settled.
#[must_use]
pub fn tombstone_name(segment: u64) -> String {
    format!("{segment:020}.settled")
}

/// Return the number of the removed segment whose tombstone has this name.
#[must_use]
pub fn number_of_tombstone(name: &str) -> Option<u64> {
    number_from(name.strip_suffix(".settled")?)
}

/// The newest segment, and bytes of it that were on disk for certain when this was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes.
    pub length: u64,
}

impl End {
    /// Return the name of the empty file that notes it: to rename a file needs no space, and is done or not.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:020}.{}.end", self.segment, self.length)
    }

    /// Read the name of such a file.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (segment, length) = name.strip_suffix(".end")?.split_once('.')?;
        let end = Self { segment: number_from(segment)?, length: length.parse().ok()? };
        (end.name() == name).then_some(end)
    }
}

/// Bytes of segments that count for nothing, by segment: remains of commits that failed, and damage that was reported.
pub type Voids = BTreeMap<u64, IntervalSet>;

/// What a head says about an earlier segment with unsettled sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listed {
    /// Bytes that were on disk for certain.
    pub durable: u64,
    /// Its unsettled sends.
    pub live: Totals,
    /// Smallest number of a send.
    pub first: u64,
    /// Largest number of a send.
    pub last: u64,
}

/// What a segment knows about all segments before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The owner of the store.
    pub owner: String,
    /// The number that the next send gets.
    pub next_number: u64,
    /// Numbers of the sends that are on disk and not settled, by lane. Numbers that no send has may be in it.
    pub live: [IntervalSet; LANES],
    /// The largest number of each lane.
    pub last: [u64; LANES],
    /// Void bytes of earlier segments.
    pub voids: Voids,
    /// The earlier segments with unsettled sends: they must exist, unless there is a tombstone.
    pub listed: BTreeMap<u64, Listed>,
}

impl Head {
    /// Append the table of a head's frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        put(out, FORMAT);
        put_bytes(out, self.owner.as_bytes());
        put(out, self.next_number);
        for lane in Lane::ALL.map(Lane::index) {
            put(out, self.last[lane]);
            write_set(out, &self.live[lane]);
        }
        put(out, self.voids.len() as u64);
        for (segment, ranges) in &self.voids {
            put(out, *segment);
            write_set(out, ranges);
        }
        put(out, self.listed.len() as u64);
        for (segment, Listed { durable, live, first, last }) in &self.listed {
            for number in [*segment, *durable, live.sends, live.datapoints, live.bytes, *first, *last] {
                put(out, number);
            }
        }
    }

    /// Read the table of a head's frame. `None` if it has another format.
    #[must_use]
    pub fn read(table: &[u8]) -> Option<Self> {
        let mut reader = Reader(table);
        (reader.int()? == FORMAT).then_some(())?;
        let owner = reader.text()?.to_owned();
        let next_number = reader.int()?;
        let mut head = Self { owner, next_number, ..Self::default() };
        for lane in Lane::ALL.map(Lane::index) {
            head.last[lane] = reader.int()?;
            head.live[lane] = reader.intervals()?;
        }
        for _ in 0..reader.int()? {
            let segment = reader.int()?;
            head.voids.insert(segment, reader.intervals()?);
        }
        for _ in 0..reader.int()? {
            let segment = reader.int()?;
            let durable = reader.int()?;
            let live = Totals { sends: reader.int()?, datapoints: reader.int()?, bytes: reader.int()? };
            head.listed.insert(segment, Listed { durable, live, first: reader.int()?, last: reader.int()? });
        }
        Some(head)
    }
}

fn write_set(out: &mut Vec<u8>, set: &IntervalSet) {
    let ranges: Vec<_> = set.iter().collect();
    put_intervals(out, ranges.iter());
}

/// What a segment has of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneSummary {
    /// All sends, settled or not.
    pub all: Totals,
    /// Smallest number of a send.
    pub first: u64,
    /// Largest number of a send.
    pub last: u64,
    /// Earliest time at which a send was accepted.
    pub oldest: i64,
    /// Earliest time at which a send expires; the largest number if none does.
    pub expires: i64,
}

impl Default for LaneSummary {
    fn default() -> Self {
        Self { all: Totals::default(), first: u64::MAX, last: 0, oldest: i64::MAX, expires: i64::MAX }
    }
}

impl LaneSummary {
    /// Count a send.
    pub fn add(&mut self, send: Written) {
        self.all.add(Totals::of_one(send.datapoints, send.bytes));
        self.first = self.first.min(send.number);
        self.last = self.last.max(send.number);
        self.oldest = self.oldest.min(send.accepted);
        if send.expires != 0 {
            self.expires = self.expires.min(send.expires);
        }
    }

    /// Return the earliest time at which a send expires, if any does.
    #[must_use]
    pub fn expiry(&self) -> Option<i64> {
        (self.expires != i64::MAX).then_some(self.expires)
    }
}

/// Append the table of a footer's frame. Its last bytes say how long the frame is, so it is found from the end of the file.
///
/// # Panics
/// Never: a footer is small.
pub fn write_footer(out: &mut Vec<u8>, lanes: &[LaneSummary; LANES]) {
    let start = out.len();
    for lane in lanes {
        put(out, lane.all.sends);
        if lane.all.sends == 0 {
            continue;
        }
        for number in [lane.all.datapoints, lane.all.bytes, lane.first, lane.last] {
            put(out, number);
        }
        put_signed(out, lane.oldest);
        put_signed(out, lane.expires);
    }
    let length = u32::try_from(HEADER + out.len() - start + 4).expect("a few bytes");
    out.extend_from_slice(&length.to_le_bytes());
}

/// Read the footer at the end of a segment: what the segment has, and its bytes that were on disk for certain before the footer was
/// written. `None` if there is no footer.
///
/// # Errors
/// When the file cannot be read.
pub fn read_footer(
    file: &impl StoreFile,
    segment: u64,
    length: u64,
) -> io::Result<Option<([LaneSummary; LANES], u64)>> {
    let mut tail = vec![0; 512.min(usize::try_from(length).unwrap_or(512))];
    let start = length - tail.len() as u64;
    let filled = read_full_at(file, &mut tail, start)?;
    tail.truncate(filled);
    Ok(footer_in(&tail, segment, start))
}

fn footer_in(tail: &[u8], segment: u64, start: u64) -> Option<([LaneSummary; LANES], u64)> {
    let length = u32::from_le_bytes(*tail.last_chunk()?) as usize;
    let at = tail.len().checked_sub(length)?;
    let (header, table) = tail[at..].split_first_chunk()?;
    let header = Header::from_bytes(header, segment, start + at as u64)?;
    let sound = header.kind == Kind::Footer && header.frame_length() == length as u64;
    if !sound || checksum(table) != header.table_checksum {
        return None;
    }
    let mut reader = Reader(table);
    let mut lanes = [LaneSummary::default(); LANES];
    for lane in &mut lanes {
        let sends = reader.int()?;
        if sends == 0 {
            continue;
        }
        lane.all = Totals { sends, datapoints: reader.int()?, bytes: reader.int()? };
        (lane.first, lane.last) = (reader.int()?, reader.int()?);
        (lane.oldest, lane.expires) = (reader.signed()?, reader.signed()?);
    }
    Some((lanes, header.durable.into()))
}

/// A stretch of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A frame at this offset. Its table is in [`Walk::table`].
    Frame(u64, Header),
    /// Bytes that are not a frame, from the first to before the second offset.
    Bad(u64, u64),
}

/// Bytes of a sector, at most.
const SECTOR: usize = 4096;

/// Read bytes. With `around`, sectors that cannot be read become zeros, unless nothing at all can be read.
fn read(file: &impl StoreFile, buffer: &mut [u8], offset: u64, around: bool) -> io::Result<usize> {
    let whole = read_full_at(file, buffer, offset);
    if whole.is_ok() || !around {
        return whole;
    }
    let in_file = usize::try_from(file.length()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
    let mut at = 0;
    let mut last_error = None;
    while at < in_file {
        let place = offset + at as u64;
        // To the end of the sector.
        let length = (SECTOR - usize::try_from(place % SECTOR as u64).unwrap_or(0)).min(in_file - at);
        let sector = &mut buffer[at..at + length];
        if let Err(error) = (1..ATTEMPTS)
            .fold(read_full_at(file, sector, place), |result, _| result.or_else(|_| read_full_at(file, sector, place)))
        {
            sector.fill(0);
            last_error = Some(error);
        }
        at += length;
    }
    match last_error {
        // A disk that is gone is not damage of a file.
        Some(error) if !readable_somewhere(file) => Err(error),
        _ => Ok(in_file),
    }
}

/// Whether any of a few sectors of a file can be read.
fn readable_somewhere(file: &impl StoreFile) -> bool {
    let length = file.length().unwrap_or(0);
    let mut byte = [0];
    (0..16).any(|part| read_full_at(file, &mut byte, length / 16 * part).is_ok())
}

/// Bytes that are read at once while looking at headers and tables.
const WINDOW: usize = 64 << 10;

/// Goes through a segment frame by frame. Damaged bytes are stepped over.
pub struct Walk<'a, F> {
    file: &'a F,
    segment: u64,
    /// Where the segment ends.
    length: u64,
    voids: Option<&'a IntervalSet>,
    /// Whether payloads are checked too.
    full: bool,
    /// Whether sectors that cannot be read are passed: they count as zeros, so the checksums say what is damaged by them.
    pub around: bool,
    offset: u64,
    window: Vec<u8>,
    window_start: u64,
    /// The table of the last frame.
    pub table: Vec<u8>,
}

impl<'a, F: StoreFile> Walk<'a, F> {
    /// Begin at an offset. `full` checks payloads too.
    pub fn new(
        file: &'a F,
        segment: u64,
        range: std::ops::Range<u64>,
        voids: Option<&'a IntervalSet>,
        full: bool,
    ) -> Self {
        let (offset, length) = (range.start, range.end);
        Self {
            file,
            segment,
            length,
            voids,
            full,
            around: false,
            offset,
            window: Vec::new(),
            window_start: 0,
            table: Vec::new(),
        }
    }

    /// Return the next stretch, or `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        while let Some(void) = self.voids.and_then(|voids| voids.containing(self.offset)) {
            let Some(end) = void.end().checked_add(1) else { return Ok(None) };
            self.offset = end;
        }
        if self.offset >= self.length {
            return Ok(None);
        }
        let start = self.offset;
        let Some(header) = self.header(start)? else {
            let found = self.find_header(start + 1)?;
            let void = self.voids.and_then(|voids| voids.from(start)).map_or(u64::MAX, |void| *void.start());
            self.offset = found.min(void);
            return Ok(Some(Step::Bad(start, self.offset)));
        };
        let end = start + header.frame_length();
        if end > self.length {
            self.offset = self.length;
            return Ok(Some(Step::Bad(start, self.length)));
        }
        self.offset = end;
        let payload_end = start + HEADER as u64 + u64::from(header.payload);
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        let sound = (!self.full || self.payload_is_sound(start + HEADER as u64, &header)?)
            && self.read_into(&mut table, payload_end, header.table)?
            && checksum(&table) == header.table_checksum;
        self.table = table;
        Ok(Some(if sound { Step::Frame(start, header) } else { Step::Bad(start, end) }))
    }

    fn header(&mut self, offset: u64) -> io::Result<Option<Header>> {
        let segment = self.segment;
        let bytes = self.window(offset, HEADER)?;
        Ok(bytes.first_chunk().and_then(|bytes| Header::from_bytes(bytes, segment, offset)))
    }

    /// Return the offset of the next header, or of the end.
    fn find_header(&mut self, mut from: u64) -> io::Result<u64> {
        loop {
            let segment = self.segment;
            let bytes = self.window(from, WINDOW)?;
            for (place, candidate) in bytes.windows(HEADER).enumerate() {
                let offset = from + place as u64;
                if candidate[..3] == MARKER
                    && let Some(candidate) = candidate.first_chunk()
                    && Header::from_bytes(candidate, segment, offset).is_some()
                {
                    return Ok(offset);
                }
            }
            if bytes.len() < WINDOW {
                return Ok(self.length);
            }
            from += (bytes.len() - HEADER + 1) as u64;
        }
    }

    /// Return up to `length` bytes at an offset: fewer only at the end.
    fn window(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let start = offset.checked_sub(self.window_start).and_then(|start| usize::try_from(start).ok());
        let held = start.filter(|start| start.checked_add(length).is_some_and(|end| end <= self.window.len()));
        let start = if let Some(start) = held {
            start
        } else {
            let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.window.resize(WINDOW.max(length).min(left), 0);
            let filled = read(self.file, &mut self.window, offset, self.around)?;
            self.window.truncate(filled);
            self.window_start = offset;
            0
        };
        let end = self.window.len().min(start + length);
        Ok(&self.window[start..end])
    }

    fn read_into(&mut self, out: &mut Vec<u8>, offset: u64, length: u32) -> io::Result<bool> {
        let length = length as usize;
        if length > WINDOW {
            out.resize(length, 0);
            return Ok(read(self.file, out, offset, self.around)? == length);
        }
        let bytes = self.window(offset, length)?;
        out.extend_from_slice(bytes);
        Ok(out.len() == length)
    }

    fn payload_is_sound(&mut self, offset: u64, header: &Header) -> io::Result<bool> {
        let mut hasher = crc32fast::Hasher::new();
        let end = offset + u64::from(header.payload);
        let mut at = offset;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
            let bytes = self.window(at, length)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            hasher.update(bytes);
            at += bytes.len() as u64;
        }
        Ok(hasher.finalize() == header.payload_checksum)
    }
}
