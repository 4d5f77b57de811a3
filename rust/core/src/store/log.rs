//! The log: what is on disk, and how sends are committed to it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ahash::AHashMap;

use super::chunk::{ChunkWriter, LANES, Lane, MAX_PRIORITY, StoredSend, Totals, Written};
use super::error::{StoreError, failed};
use super::files::{ATTEMPTS, FileSystem, StoreFile, write_all_at};
use super::frame::{Frames, Kind};
use super::index::Cache;
use super::intervals::{IntervalSet, runs_of};
use super::segment::{End, Head, LaneSummary, Listed, Voids, file_name, tombstone_name, write_footer};
use super::wire::put_intervals;
use crate::uplink::Uplink;

/// Settings of a log.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A segment with more bytes gets no further commit.
    pub max_segment_bytes: u64,
    /// Whether nothing is changed, and no lock is needed.
    pub read_only: bool,
    /// Whether to wait until another process does not have the store any more.
    pub waits: bool,
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
    /// Earliest time at which an unsettled send expires, or before that.
    pub expires: Option<i64>,
    /// Whether `expires` leaves out an expired send that was held.
    pub skips_held: bool,
}

/// A segment that exists.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    pub length: u64,
    /// Bytes that are on disk for certain.
    pub durable: u64,
    pub lanes: [SegmentLane; LANES],
}

impl Segment {
    pub(super) fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.live.sends == 0)
    }

    /// Return the number of sends in each lane, settled or not.
    pub(super) fn sends(&self) -> [u64; LANES] {
        self.lanes.each_ref().map(|lane| lane.summary.all.sends)
    }

    /// Return the sums of the unsettled sends.
    pub(super) fn live(&self) -> Totals {
        let mut live = Totals::default();
        self.lanes.iter().for_each(|lane| live.add(lane.live));
        live
    }

    fn listed(&self) -> Listed {
        let with_sends = || self.lanes.iter().map(|lane| lane.summary).filter(|summary| summary.all.sends > 0);
        Listed {
            durable: self.durable,
            live: self.live(),
            first: with_sends().map(|summary| summary.first).min().unwrap_or(u64::MAX),
            last: with_sends().map(|summary| summary.last).max().unwrap_or(0),
        }
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
    /// Index of the lane in the lowest two bits, and above them the number of the segment.
    place: u64,
    pub datapoints: u32,
    pub bytes: u32,
    accepted: i64,
}

impl Held {
    pub(super) fn new(segment: u64, lane: Lane, send: Written) -> Self {
        let Written { datapoints, bytes, accepted, .. } = send;
        Self { place: segment << 2 | lane.index() as u64, datapoints, bytes, accepted }
    }

    pub(super) fn segment(self) -> u64 {
        self.place >> 2
    }

    pub(super) fn lane(self) -> usize {
        usize::try_from(self.place & 3).unwrap_or(0)
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
    /// The segments that this head lists: one of them is removed only after a tombstone for it is on disk.
    pub(super) listed: BTreeSet<u64>,
    /// Tombstones that exist.
    pub(super) tombstones: BTreeSet<u64>,
    /// How often a tombstone could not be made since the last success.
    tombstone_failures: u32,
    /// What the name of a file notes as the end of the log.
    pub(super) end: Option<End>,
    pub(super) next_number: u64,
    /// Numbers of sends on disk that are not settled, by lane. Numbers that no send on disk has may be in it too, so that gaps
    /// between numbers do not make it large.
    pub(super) live: [IntervalSet; LANES],
    /// The largest number of each lane.
    pub(super) last: [u64; LANES],
    /// Numbers that were settled, the newest ones at least.
    settled: IntervalSet,
    /// Settled numbers that a frame must still be written for.
    unwritten: IntervalSet,
    pub(super) held: AHashMap<u64, Held>,
    /// No released send of the lane has a smaller number.
    pub(super) cursor: [u64; LANES],
    pub(super) backlog: [Totals; LANES],
    pub(super) voids: Voids,
    pub(super) damage: Damage,
    /// Names of files that something else has, such as a directory.
    pub(super) obstacles: Vec<String>,
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
            listed: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            tombstone_failures: 0,
            end: None,
            next_number: 1,
            live: Default::default(),
            last: [0; LANES],
            settled: IntervalSet::default(),
            unwritten: IntervalSet::default(),
            held: AHashMap::new(),
            cursor: [0; LANES],
            backlog: Default::default(),
            voids: Voids::new(),
            damage: Damage::default(),
            obstacles: Vec::new(),
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

    /// Return a time before which no released send expires; `None` if none expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<i64> {
        let released = |lane: &&SegmentLane| lane.oldest.is_some() && lane.live.sends > 0;
        let lanes = self.segments.values().flat_map(|segment| segment.lanes.iter());
        lanes.filter(released).filter_map(|lane| lane.expires).min()
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

    /// Return the names of files that something else had when the log was opened, such as a directory. Each is a damaged place.
    #[must_use]
    pub fn obstacles(&self) -> &[String] {
        &self.obstacles
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
            self.cache.next[lane].take_if(|next| *number < next.until);
            if let Some(segment) = self.segments.get_mut(&held.segment()) {
                let lane = &mut segment.lanes[lane];
                lane.oldest = Some(lane.oldest.map_or(held.accepted, |oldest| oldest.min(held.accepted)));
                if std::mem::take(&mut lane.skips_held) {
                    lane.expires = lane.summary.expiry();
                }
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
        let last = self.active.as_ref().map(|active| active.number);
        let sealed = self.seal();
        if let Some(number) = last
            && sealed.is_ok()
        {
            self.note_end(number, self.segments.get(&number).map_or(0, |segment| segment.durable));
        }
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
        (0..LANES).any(|lane| self.backlog[lane].sends > 0 && self.live[lane].contains(number))
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
            listed: self
                .segments
                .iter()
                .filter(|(_, segment)| !segment.is_settled())
                .map(|(number, segment)| (*number, segment.listed()))
                .collect(),
        }
    }

    fn frame_sends(&mut self, sends: &[&StoredSend<&Uplink>]) -> [Vec<Written>; LANES] {
        let mut written: [Vec<Written>; LANES] = Default::default();
        for lane in Lane::ALL {
            let kind = Kind::of(lane);
            let mut open = false;
            for send in sends {
                if Lane::of(send.uplink, send.priority) != lane {
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
                    expires: send.expires,
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
            (segment.length, segment.durable) = (active.length, active.durable);
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
                // Before the segment counts: they are those that its head has.
                self.listed = self.unsettled().collect();
                self.segments.insert(number, Segment { length, durable: length, ..Segment::default() });
                self.active = Some(Active { number, file, length, durable: length });
                self.newest_head = number;
                self.damage_is_new = false;
                self.note_end(number, length);
                // This head does not list their segments.
                let path = &self.path;
                let files = &self.files;
                self.tombstones.retain(|segment| files.remove(&path.join(tombstone_name(*segment))).is_err());
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

    fn unsettled(&self) -> impl Iterator<Item = u64> {
        self.segments.iter().filter(|(_, segment)| !segment.is_settled()).map(|(number, _)| *number)
    }

    /// Note that the log ends in this segment, which has this many bytes on disk for certain.
    fn note_end(&mut self, segment: u64, length: u64) {
        let end = End { segment, length };
        let new = self.path.join(end.name());
        // Without it, it is not noticed if the segment gets lost; nothing else needs it.
        let noted = match self.end {
            Some(old) => self.files.rename(&self.path.join(old.name()), &new),
            None => self.files.create(&new).map(drop),
        };
        self.end = noted.is_ok().then_some(end);
    }

    fn count_written(&mut self, number: u64, written: &[Vec<Written>; LANES]) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        for lane in Lane::ALL {
            let index = lane.index();
            self.held.reserve(written[index].len());
            for send in &written[index] {
                let lane_of_segment = &mut segment.lanes[index];
                lane_of_segment.summary.add(*send);
                lane_of_segment.live.add(Totals::of_one(send.datapoints, send.bytes));
                if send.expires != 0 {
                    let earliest = lane_of_segment.expires.map_or(send.expires, |other| other.min(send.expires));
                    lane_of_segment.expires = Some(earliest);
                }
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
                    segment.durable = segment.length;
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
        if !self.make_tombstones(&settled) {
            return;
        }
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

    /// Let it be on disk that some segments have no unsettled sends, so that they are not missing afterwards. Return whether they
    /// may be removed. To announce it in a segment would need space, which a full disk gets only when segments are removed.
    fn make_tombstones(&mut self, segments: &[u64]) -> bool {
        let needed = |number: &&u64| self.listed.contains(number) && !self.tombstones.contains(number);
        let needed: Vec<u64> = segments.iter().filter(needed).copied().collect();
        if needed.is_empty() {
            return !segments.is_empty();
        }
        let create = |number: &u64| match self.files.create(&self.path.join(tombstone_name(*number))) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        let made = needed.iter().try_for_each(create).and_then(|()| self.files.sync_directory(&self.path));
        if made.is_ok() {
            self.tombstones.extend(needed);
            self.tombstone_failures = 0;
            return true;
        }
        self.tombstone_failures += 1;
        // A disk that is too full for an empty file has to be freed all the same. After a power cut, the segments may seem to be lost.
        self.tombstone_failures >= ATTEMPTS
    }

    /// Remove the numbers of a removed segment that no other segment can have.
    fn forget_numbers(&mut self, removed: &Segment) {
        for lane in 0..LANES {
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
