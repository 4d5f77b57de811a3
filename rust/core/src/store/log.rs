//! The log: what is on disk, and how sends are committed to it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ahash::AHashMap;

use super::chunk::{ChunkWriter, Lane, MAX_PRIORITY, StoredSend, Totals, Written};
use super::files::{FileSystem, StoreFile, write_all_at};
use super::frame::{Frames, Kind};
use super::intervals::{IntervalSet, runs_of};
use super::reading::Cache;
use super::segment::{Head, LaneSummary, Voids, file_name, write_footer};
use super::wire::put_intervals;
use crate::uplink::Uplink;

/// Why an operation failed.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the store; its note.
    Held(PathBuf, String),
    /// The store belongs to another owner.
    OtherOwner(PathBuf, String),
    /// The store has a newer format.
    NewerFormat(PathBuf, u64),
    /// There is something else at the path.
    NotAStore(PathBuf, String),
    /// An argument cannot be used.
    Argument(String),
    /// The log was opened only to read it.
    ReadOnly,
    /// The log was closed.
    Closed,
    /// The file system failed while it did this.
    Io(String, io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(path, note) => {
                let holder = if note.is_empty() { "another process".to_owned() } else { format!("process {note}") };
                write!(
                    f,
                    "the store {} is in use by {holder}: stop it, or give this client a store of its own",
                    path.display()
                )
            }
            Self::OtherOwner(path, owner) => write!(
                f,
                "the store {} has data for another platform or another credential ({owner}): choose another path, or send \
                 its data with the old configuration first",
                path.display()
            ),
            Self::NewerFormat(path, format) => write!(
                f,
                "the store {} has format {format}, and this version reads up to {}: install a newer version of \
                 tb-mqtt-client, or choose another path",
                path.display(),
                super::segment::FORMAT
            ),
            Self::NotAStore(path, why) => {
                write!(f, "{} is not a store: {why}; choose a new or empty directory", path.display())
            }
            Self::Argument(text) => f.write_str(text),
            Self::ReadOnly => f.write_str("the store was opened only to read it"),
            Self::Closed => f.write_str("the store was closed"),
            Self::Io(action, error) => write!(f, "{action}: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Make an error of the file system an error of the store.
pub(super) fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let text = format!("{action} {}", path.display());
    move |error| StoreError::Io(text, error)
}

/// Settings of a log.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A segment with more bytes gets no further commit.
    pub max_segment_bytes: u64,
    /// Whether nothing is changed, and no lock is needed.
    pub read_only: bool,
}

/// Largest `max_segment_bytes`, so that every offset in a segment has 32 bits.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Most bytes of datapoints in one commit.
pub const MAX_COMMIT_BYTES: usize = 512 << 20;

/// Bytes of datapoints in a chunk that holds several sends.
const CHUNK_BYTES: usize = 256 << 10;

/// A larger buffer is freed after a commit.
const KEPT_BUFFER: usize = 4 << 20;

/// Most intervals of settled numbers that are remembered.
const MAX_SETTLED: usize = 4096;

/// What was damaged, and what was lost by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Number of stretches of files that could not be read.
    pub places: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unsettled sends in them, as far as it is known.
    pub lost: Totals,
}

/// One lane of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SegmentLane {
    pub summary: LaneSummary,
    /// Sends that are not settled.
    pub live: Totals,
    /// Acceptance time of the oldest send that is released.
    pub oldest: Option<i64>,
}

/// A segment that exists.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    pub length: u64,
    pub lanes: [SegmentLane; 2],
}

impl Segment {
    pub(super) fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.live.sends == 0)
    }
}

/// The segment that commits are appended to.
pub(super) struct Active<F> {
    pub number: u64,
    file: F,
    length: u64,
    durable: u64,
}

/// A send that is on disk, and also in the memory of the caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Index of the lane in the lowest bit, and above it the number of the segment.
    place: u64,
    pub datapoints: u32,
    pub bytes: u32,
    accepted: i64,
}

impl Held {
    pub(super) fn new(segment: u64, lane: Lane, send: Written) -> Self {
        let Written { datapoints, bytes, accepted, .. } = send;
        Self { place: segment << 1 | lane.index() as u64, datapoints, bytes, accepted }
    }

    pub(super) fn segment(self) -> u64 {
        self.place >> 1
    }

    pub(super) fn lane(self) -> usize {
        usize::from(self.place & 1 == 1)
    }

    pub(super) fn totals(self) -> Totals {
        Totals::of_one(self.datapoints, self.bytes)
    }
}

/// The log of one store.
///
/// A send is in one of these states: *held* (on disk and in the caller's memory), *released* (only on disk; together they are the
/// backlog) or *settled*. Settled sends may still have bytes on disk.
pub struct Log<F: FileSystem> {
    pub(super) files: F,
    pub(super) path: PathBuf,
    pub(super) owner: String,
    pub(super) settings: Settings,
    /// Released when the log is dropped.
    _lock: Option<F::Lock>,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) active: Option<Active<F::File>>,
    /// The largest number that a segment had.
    pub(super) last_segment: u64,
    /// The newest segment whose head is known to be on disk: all before it may be removed once they are settled.
    pub(super) newest_head: u64,
    pub(super) next_number: u64,
    /// Numbers of sends on disk that are not settled, by lane. Numbers that no send on disk has may be in it too, so that gaps
    /// between numbers do not make it large.
    pub(super) live: [IntervalSet; 2],
    /// The largest number of each lane.
    pub(super) last: [u64; 2],
    /// Numbers that were settled, the newest ones at least.
    settled: IntervalSet,
    /// Settled numbers that a frame must still be written for.
    unwritten: IntervalSet,
    pub(super) held: AHashMap<u64, Held>,
    /// No released send of the lane has a smaller number.
    pub(super) cursor: [u64; 2],
    pub(super) backlog: [Totals; 2],
    pub(super) voids: Voids,
    pub(super) damage: Damage,
    /// Whether damage was found that no head has among its voids.
    pub(super) damage_is_new: bool,
    pub(super) cache: Cache<F::File>,
    frames: Frames,
    chunk: ChunkWriter,
}

impl<F: FileSystem> Log<F> {
    pub(super) fn empty(files: F, path: &Path, owner: &str, settings: Settings, lock: Option<F::Lock>) -> Self {
        Self {
            files,
            path: path.to_owned(),
            owner: owner.to_owned(),
            settings,
            _lock: lock,
            segments: BTreeMap::new(),
            active: None,
            last_segment: 0,
            newest_head: 0,
            next_number: 1,
            live: Default::default(),
            last: [0; 2],
            settled: IntervalSet::default(),
            unwritten: IntervalSet::default(),
            held: AHashMap::new(),
            cursor: [0; 2],
            backlog: Default::default(),
            voids: Voids::new(),
            damage: Damage::default(),
            damage_is_new: false,
            cache: Cache::default(),
            frames: Frames::default(),
            chunk: ChunkWriter::default(),
        }
    }

    pub(super) fn file(&self, segment: u64) -> PathBuf {
        self.path.join(file_name(segment))
    }

    /// Return the owner of the store.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Return the number for the next send.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Return the released sends of a lane.
    #[must_use]
    pub fn backlog(&self, lane: Lane) -> Totals {
        self.backlog[lane.index()]
    }

    /// Return when the oldest released send was accepted.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.segments.values().flat_map(|segment| segment.lanes.iter().filter_map(|lane| lane.oldest)).min()
    }

    /// Return the bytes of the segments' files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.length).sum()
    }

    /// Return the damage that was found, also while the log was opened.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Write sends, and that numbers are settled, with one write and one sync. Sends that are settled are not written, and settled
    /// numbers that are not on disk cost nothing. A commit without sends is not synced: forgetting it sends again.
    ///
    /// # Errors
    /// When an argument is invalid, or when the file system fails. No send counts as committed then, and the same call can be
    /// repeated; the numbers stay settled.
    pub fn commit(&mut self, sends: &[StoredSend<&Uplink>], settled: &[u64]) -> Result<(), StoreError> {
        self.writable()?;
        check(sends)?;
        self.settle(settled);
        self.remove_settled_segments();
        let written: Vec<_> = sends
            .iter()
            .filter(|send| !self.settled.contains(send.number) && !self.held.contains_key(&send.number))
            .collect();
        while self.settled.len() > MAX_SETTLED {
            self.settled.remove_first();
        }
        if written.is_empty() && self.unwritten.is_empty() {
            return Ok(());
        }
        self.write(&written)?;
        self.remove_settled_segments();
        Ok(())
    }

    /// Put sends into the backlog that are on disk and no longer in the caller's memory. Other numbers are ignored.
    pub fn release(&mut self, numbers: &[u64]) {
        for number in numbers {
            let Some(held) = self.held.remove(number) else { continue };
            let lane = held.lane();
            self.backlog[lane].add(held.totals());
            self.cursor[lane] = self.cursor[lane].min(*number);
            if let Some(segment) = self.segments.get_mut(&held.segment()) {
                let oldest = &mut segment.lanes[lane].oldest;
                *oldest = Some(oldest.map_or(held.accepted, |oldest| oldest.min(held.accepted)));
            }
        }
        self.shrink_held();
    }

    /// End the log: seal the segment and release the lock.
    ///
    /// # Errors
    /// When the last write fails. Nothing that was committed is lost by it.
    pub fn close(mut self) -> Result<(), StoreError> {
        if self.settings.read_only {
            return Ok(());
        }
        // The head of a new segment says which damage was reported.
        let written = if self.damage_is_new {
            self.seal().and_then(|()| self.write(&[]))
        } else if self.unwritten.is_empty() {
            Ok(())
        } else {
            self.write(&[])
        };
        let sealed = self.seal();
        written.and(sealed)
    }

    pub(super) fn writable(&self) -> Result<(), StoreError> {
        if self.settings.read_only { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    /// Settle numbers in memory.
    fn settle(&mut self, numbers: &[u64]) {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        let mut on_disk = Vec::new();
        let mut perhaps = Vec::new();
        for &number in &numbers {
            if let Some(held) = self.held.remove(&number) {
                if let Some(segment) = self.segments.get_mut(&held.segment()) {
                    segment.lanes[held.lane()].live.subtract(held.totals());
                }
                on_disk.push(number);
            } else if self.may_be_released(number) {
                perhaps.push(number);
            }
        }
        on_disk.extend(self.take_released(&perhaps));
        self.mark_settled(&numbers, &on_disk);
    }

    /// Remember settled numbers, and that a frame must be written for those on disk.
    pub(super) fn mark_settled(&mut self, sorted: &[u64], on_disk: &[u64]) {
        runs_of(sorted).for_each(|run| self.settled.insert(run));
        let mut done = 0..=0;
        for number in on_disk {
            if done.contains(number) {
                continue;
            }
            // All numbers around it that are settled too, so that few intervals are left and written.
            done = self.settled.containing(*number).unwrap_or(*number..=*number);
            self.live.iter_mut().for_each(|live| live.remove(done.clone()));
            self.unwritten.insert(done.clone());
        }
        self.shrink_held();
    }

    fn shrink_held(&mut self) {
        if self.held.is_empty() && self.held.capacity() > 1 << 12 {
            self.held = AHashMap::new();
        }
    }

    fn may_be_released(&self, number: u64) -> bool {
        let in_backlog = |lane: usize| self.backlog[lane].sends > 0 && self.live[lane].contains(number);
        in_backlog(0) || in_backlog(1)
    }

    /// Begin a segment, whose head has the voids and the live numbers.
    pub(super) fn begin_segment(&mut self) -> Result<(), StoreError> {
        self.write(&[])
    }

    /// Append sends and settled numbers to the active segment, or to a new one.
    fn write(&mut self, sends: &[&StoredSend<&Uplink>]) -> Result<(), StoreError> {
        let full = |active: &Active<F::File>| active.length >= self.settings.max_segment_bytes;
        if self.active.as_ref().is_some_and(full) {
            // A segment without a footer is read again when the store is opened; nothing else is wrong with it.
            let _ = self.seal();
        }
        let new = self.active.is_none();
        let (segment, offset, durable) = match &self.active {
            Some(active) => (active.number, active.length, active.durable),
            None => (self.last_segment + 1, 0, 0),
        };
        self.frames.begin(segment, offset, durable);
        if new {
            // A damaged head may have had a claim about a segment that did not exist.
            self.voids.remove(&segment);
            let head = self.head();
            self.frames.open();
            head.write(self.frames.table());
            self.frames.close(Kind::Head);
        }
        let written = self.frame_sends(sends);
        if !new && !self.unwritten.is_empty() {
            self.frames.open();
            let ranges: Vec<_> = self.unwritten.iter().collect();
            put_intervals(self.frames.table(), ranges.iter());
            self.frames.close(Kind::Settled);
        }
        let result = if new { self.create_segment(segment) } else { self.append(!sends.is_empty()) };
        if result.is_ok() {
            self.unwritten = IntervalSet::default();
            self.count_written(segment, &written);
        }
        if self.frames.bytes.capacity() > KEPT_BUFFER {
            self.frames.bytes = Vec::new();
        }
        result
    }

    fn head(&self) -> Head {
        Head {
            owner: self.owner.clone(),
            next_number: self.next_number,
            live: self.live.clone(),
            last: self.last,
            voids: self.voids.clone(),
        }
    }

    fn frame_sends(&mut self, sends: &[&StoredSend<&Uplink>]) -> [Vec<Written>; 2] {
        let mut written = [Vec::new(), Vec::new()];
        for (lane, kind) in [(Lane::Telemetry, Kind::Telemetry), (Lane::Attributes, Kind::Attributes)] {
            let mut open = false;
            for send in sends {
                if Lane::of(send.uplink) != lane {
                    continue;
                }
                if !open {
                    self.frames.open();
                    open = true;
                }
                let size = |size: usize| u32::try_from(size).expect("less than MAX_COMMIT_BYTES");
                let uplink = send.uplink;
                written[lane.index()].push(Written {
                    number: send.number,
                    accepted: send.accepted,
                    datapoints: size(uplink.timeseries.count() + uplink.attribute_count()),
                    bytes: size(uplink.nbytes()),
                });
                self.chunk.push(send, &mut self.frames.bytes);
                if self.frames.payload_length() >= CHUNK_BYTES {
                    self.chunk.finish(self.frames.table());
                    self.frames.close(kind);
                    open = false;
                }
            }
            if open {
                self.chunk.finish(self.frames.table());
                self.frames.close(kind);
            }
        }
        written
    }

    /// Append the frames to the active segment.
    fn append(&mut self, sync: bool) -> Result<(), StoreError> {
        let Some(mut active) = self.active.take() else { return Err(StoreError::Closed) };
        let path = self.file(active.number);
        if let Err(error) = write_all_at(&active.file, &self.frames.bytes, active.length) {
            // What was written is cut off again. If that fails, or if the disk is broken rather than full, the segment is left as
            // it is: the head of the next one says where it ends.
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let cut = active.file.set_length(active.length);
            if full && cut.is_ok() {
                self.active = Some(active);
            } else {
                self.abandon(&active);
            }
            return Err(failed("cannot write", &path)(error));
        }
        if sync && let Err(error) = active.file.sync() {
            // The system may have dropped the pages, and a second sync may succeed nevertheless: never use this file again.
            let _ = active.file.set_length(active.length);
            self.abandon(&active);
            return Err(failed("cannot sync", &path)(error));
        }
        active.length += self.frames.bytes.len() as u64;
        if sync {
            active.durable = active.length;
        }
        if let Some(segment) = self.segments.get_mut(&active.number) {
            segment.length = active.length;
        }
        self.active = Some(active);
        Ok(())
    }

    /// Everything in a segment from its length on counts for nothing.
    fn abandon(&mut self, active: &Active<F::File>) {
        self.voids.entry(active.number).or_default().insert(active.length..=u64::MAX);
    }

    /// Make a segment of the frames.
    fn create_segment(&mut self, number: u64) -> Result<(), StoreError> {
        self.last_segment = number;
        let path = self.file(number);
        let file = self.files.create(&path).map_err(failed("cannot create", &path))?;
        let made = write_all_at(&file, &self.frames.bytes, 0)
            .and_then(|()| file.sync())
            .and_then(|()| self.files.sync_directory(&self.path));
        match made {
            Ok(()) => {
                let length = self.frames.bytes.len() as u64;
                self.segments.insert(number, Segment { length, ..Segment::default() });
                self.active = Some(Active { number, file, length, durable: length });
                self.newest_head = number;
                self.damage_is_new = false;
                // The names are synced, so a segment that was removed does not come back.
                let segments = &self.segments;
                self.voids.retain(|segment, _| segments.contains_key(segment));
                Ok(())
            }
            Err(error) => {
                // It is removed with the segments that have only settled sends, as soon as that works. If the power is cut before the
                // removal is on disk, the next head says that nothing in the file counts.
                self.voids.entry(number).or_default().insert(0..=u64::MAX);
                self.segments.insert(number, Segment::default());
                if self.files.remove(&path).is_ok() {
                    self.segments.remove(&number);
                }
                Err(failed("cannot write", &path)(error))
            }
        }
    }

    fn count_written(&mut self, number: u64, written: &[Vec<Written>; 2]) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        for lane in Lane::ALL {
            let index = lane.index();
            self.held.reserve(written[index].len());
            for send in &written[index] {
                segment.lanes[index].summary.add(*send);
                segment.lanes[index].live.add(Totals::of_one(send.datapoints, send.bytes));
                self.held.insert(send.number, Held::new(number, lane, *send));
                add_live(&mut self.live[index], &mut self.last[index], send.number);
                self.next_number = self.next_number.max(send.number.saturating_add(1));
            }
        }
    }

    /// Append the footer to the active segment; it is not used afterwards.
    fn seal(&mut self) -> Result<(), StoreError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        let lanes = self.segments.get(&active.number).map(|segment| segment.lanes).unwrap_or_default();
        self.frames.begin(active.number, active.length, active.durable);
        self.frames.open();
        write_footer(self.frames.table(), &lanes.map(|lane| lane.summary));
        self.frames.close(Kind::Footer);
        match write_all_at(&active.file, &self.frames.bytes, active.length).and_then(|()| active.file.sync()) {
            Ok(()) => {
                if let Some(segment) = self.segments.get_mut(&active.number) {
                    segment.length = active.length + self.frames.bytes.len() as u64;
                }
                Ok(())
            }
            Err(error) => {
                self.abandon(&active);
                Err(failed("cannot seal", &self.file(active.number))(error))
            }
        }
    }

    /// Remove segments without unsettled sends. One that cannot be removed is tried again with the next commit.
    pub(super) fn remove_settled_segments(&mut self) {
        let settled = |(number, segment): (&u64, &Segment)| {
            let removable = *number < self.newest_head && segment.is_settled();
            removable.then_some(*number)
        };
        let settled: Vec<_> = self.segments.iter().filter_map(settled).collect();
        for number in settled {
            match self.files.remove(&self.file(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => {
                    self.cache.forget(number);
                    if let Some(segment) = self.segments.remove(&number) {
                        self.forget_numbers(&segment);
                    }
                }
            }
        }
    }

    /// Remove the numbers of a removed segment that no other segment can have.
    fn forget_numbers(&mut self, removed: &Segment) {
        for lane in 0..2 {
            let LaneSummary { first, last, .. } = removed.lanes[lane].summary;
            let overlaps = |segment: &Segment| {
                let SegmentLane { summary, live, .. } = &segment.lanes[lane];
                live.sends > 0 && summary.first <= last && first <= summary.last
            };
            if !self.segments.values().any(overlaps) {
                self.live[lane].remove(first..=last);
            }
        }
    }
}

/// Add a number to the live ones of a lane. The numbers since the last one of the lane belong to no send of it.
pub(super) fn add_live(live: &mut IntervalSet, last: &mut u64, number: u64) {
    if number > *last {
        let joined = *last > 0 && live.last() == Some(*last);
        live.insert(if joined { *last } else { number }..=number);
        *last = number;
    } else {
        live.insert(number..=number);
    }
}

fn check(sends: &[StoredSend<&Uplink>]) -> Result<(), StoreError> {
    let mut bytes = 0_usize;
    let mut last = 0;
    for (index, send) in sends.iter().enumerate() {
        if send.number.cmp(&last) != Ordering::Greater || send.number == u64::MAX {
            let number = send.number;
            let text =
                format!("sends must have rising numbers from 1 on, but sends[{index}] has {number} after {last}");
            return Err(StoreError::Argument(text));
        }
        last = send.number;
        if send.priority > MAX_PRIORITY {
            let text = format!("the priority of sends[{index}] must be at most {MAX_PRIORITY}, not {}", send.priority);
            return Err(StoreError::Argument(text));
        }
        bytes = bytes.saturating_add(send.uplink.nbytes());
    }
    if bytes > MAX_COMMIT_BYTES {
        let text = format!("one commit can have {MAX_COMMIT_BYTES} bytes of datapoints, and these sends have {bytes}");
        return Err(StoreError::Argument(text));
    }
    Ok(())
}
