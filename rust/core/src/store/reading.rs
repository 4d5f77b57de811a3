//! Reading the backlog: the released sends, by rising numbers.
//!
//! A segment's index, a list of its sends, is made of the tables when the segment is needed, and only a few are kept. Of each lane it is
//! remembered which send comes next, so that reading several lanes together needs only the index of the segment that is read.

use super::chunk::{LANES, Lane, StoredSend, Table, Totals};
use super::error::{StoreError, failed};
use super::files::{ATTEMPTS, FileSystem};
use super::frame::HEADER;
use super::index::{Chunk, Entry, Index, Next, frame_end};
use super::log::{Held, Log, Segment, SegmentLane};
use super::segment::{Step, Walk};
use crate::uplink::Uplink;

/// Sends of one chunk, and the bytes of their datapoints.
type Part = (Vec<StoredSend<Uplink>>, u64);

/// Which sends have become useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Those that expire at this time or before, in milliseconds since the epoch.
    pub expired_at: i64,
    /// Those that were accepted from the first time on and before the second one.
    pub accepted: (i64, i64),
}

impl Due {
    fn has_expired(&self, expires: i64) -> bool {
        expires != 0 && expires <= self.expired_at
    }

    fn is_too_old(&self, accepted: i64) -> bool {
        self.accepted.0 <= accepted && accepted < self.accepted.1
    }
}

/// A send that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Its number.
    pub number: u64,
    /// Number of its datapoints.
    pub datapoints: u32,
    /// Whether it had expired.
    pub expired: bool,
}

/// The groups of lanes from which the oldest sends are dropped, one after the other.
const DROPPED: [&[Lane]; 3] = [&[Lane::Low], &[Lane::Normal, Lane::Attributes], &[Lane::High]];

/// Released sends of one lane and one segment with rising numbers, of which no other one has one in between.
#[derive(Debug, Clone, Copy)]
struct Run {
    lane: Lane,
    segment: u64,
    /// Index of the first entry.
    first: usize,
    /// Another segment, or another lane, may have sends from this number on.
    until: u64,
}

impl<F: FileSystem> Log<F> {
    /// Read released sends of some lanes, those with the smallest numbers first: up to `max_sends`, and up to `max_bytes` of
    /// datapoints, but at least one. They are held then.
    ///
    /// # Errors
    /// When the file system fails and nothing was read. After a few attempts, the place counts as damaged.
    pub fn read(
        &mut self,
        lanes: &[Lane],
        max_bytes: usize,
        max_sends: usize,
    ) -> Result<Vec<StoredSend<Uplink>>, StoreError> {
        let mut sends = Vec::new();
        let mut left = max_bytes as u64;
        while sends.len() < max_sends {
            match self.read_chunk(lanes, left, max_sends - sends.len(), sends.is_empty()) {
                Ok(Some((mut found, bytes))) => {
                    left = left.saturating_sub(bytes);
                    sends.append(&mut found);
                }
                Err(error) if sends.is_empty() => return Err(error),
                // The next call raises an error that comes after the first send.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(sends)
    }

    /// Remove released sends until they have at least this many bytes of datapoints: those of low priority first, and those of high
    /// priority last, and of one priority those with the smallest numbers first. Return them.
    ///
    /// # Errors
    /// When the file system fails and nothing was removed.
    pub fn drop_oldest(&mut self, nbytes: u64) -> Result<Vec<Dropped>, StoreError> {
        self.writable()?;
        let mut dropped = Vec::new();
        let mut freed = 0;
        for lanes in DROPPED {
            while freed < nbytes {
                match self.drop_run(lanes, nbytes - freed, &mut dropped) {
                    Ok(0) => break,
                    Ok(bytes) => freed += bytes,
                    Err(error) if dropped.is_empty() => return Err(error),
                    Err(_) => return Ok(self.forget(dropped)),
                }
            }
        }
        Ok(self.forget(dropped))
    }

    /// Remove released sends that are of no use any more: at most `max_sends`, and those of the oldest segments first. Return them.
    ///
    /// # Errors
    /// When the file system fails and nothing was removed.
    pub fn drop_due(&mut self, due: Due, max_sends: usize) -> Result<Vec<Dropped>, StoreError> {
        self.writable()?;
        let is_due = |lane: &SegmentLane| {
            lane.live.sends > 0
                && lane.oldest.is_some_and(|oldest| {
                    due.is_too_old(oldest) || lane.expires.is_some_and(|expires| expires <= due.expired_at)
                })
        };
        let segments = self.segments.iter().filter(|(_, segment)| segment.lanes.iter().any(is_due));
        let segments: Vec<_> = segments.map(|(number, _)| *number).collect();
        let mut dropped = Vec::new();
        for segment in segments {
            if dropped.len() >= max_sends {
                break;
            }
            match self.drop_due_of(segment, due, max_sends, &mut dropped) {
                Ok(()) => {}
                Err(error) if dropped.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(self.forget(dropped))
    }

    /// Drop the due sends of a segment by its tables, which do not need an index, and find out when the next ones are due.
    fn drop_due_of(
        &mut self,
        number: u64,
        due: Due,
        max_sends: usize,
        dropped: &mut Vec<Dropped>,
    ) -> Result<(), StoreError> {
        let path = self.file(number);
        let file = self.files.open(&path).map_err(failed("cannot open", &path))?;
        let Some(segment) = self.segments.get_mut(&number) else { return Ok(()) };
        let mut walk = Walk::new(&file, number, 0..segment.length, self.voids.get(&number), false);
        walk.around = true;
        let mut next: [(Option<i64>, Option<i64>, bool); LANES] = Default::default();
        let mut taken: Vec<(usize, Dropped, Totals)> = Vec::new();
        while let Some(step) = walk.step().map_err(failed("cannot read", &path))? {
            let Step::Frame(_, header) = step else { continue };
            let Some(lane) = header.kind.lane().map(Lane::index) else { continue };
            let Some(mut rows) = Table::new(&walk.table) else { continue };
            while let Some(Some(row)) = rows.next_row() {
                if !self.live[lane].contains(row.number) {
                    continue;
                }
                let over = due.has_expired(row.expires);
                let (oldest, expires, skips_held) = &mut next[lane];
                let held = self.held.contains_key(&row.number);
                if held && over {
                    // The caller ends it, or it is in a message that was packed in time.
                    *skips_held = true;
                    continue;
                }
                if !held && (over || due.is_too_old(row.accepted)) && dropped.len() + taken.len() < max_sends {
                    let one = Dropped { number: row.number, datapoints: row.datapoints, expired: over };
                    taken.push((lane, one, Totals::of_one(row.datapoints, row.bytes)));
                    continue;
                }
                if !held {
                    *oldest = Some(oldest.map_or(row.accepted, |other| other.min(row.accepted)));
                }
                if row.expires != 0 {
                    *expires = Some(expires.map_or(row.expires, |other| other.min(row.expires)));
                }
            }
        }
        for (lane, one, totals) in taken {
            self.live[lane].remove(one.number..=one.number);
            self.backlog[lane].subtract(totals);
            segment.lanes[lane].live.subtract(totals);
            dropped.push(one);
        }
        for (lane, (oldest, expires, skips_held)) in segment.lanes.iter_mut().zip(next) {
            (lane.oldest, lane.expires, lane.skips_held) = (oldest, expires, skips_held);
        }
        Ok(())
    }

    /// Settle sends that were taken out of the backlog.
    fn forget(&mut self, dropped: Vec<Dropped>) -> Vec<Dropped> {
        if dropped.is_empty() {
            return dropped;
        }
        let mut numbers: Vec<_> = dropped.iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        self.mark_settled(&numbers, &numbers);
        self.remove_settled_segments();
        // The next commit writes it if this one fails; until then a crash brings the sends back.
        let _ = self.commit(&[], &[]);
        dropped
    }

    fn drop_run(&mut self, lanes: &[Lane], nbytes: u64, dropped: &mut Vec<Dropped>) -> Result<u64, StoreError> {
        let Some(run) = self.first_run(lanes)? else { return Ok(0) };
        let lane = run.lane.index();
        let entries: Vec<_> = self.entries(run).take_while(|entry| entry.number < run.until).collect();
        let mut totals = Totals::default();
        for entry in entries {
            if totals.bytes >= nbytes {
                break;
            }
            totals.add(entry.totals());
            dropped.push(Dropped { number: entry.number, datapoints: entry.datapoints, expired: false });
            self.live[lane].remove(entry.number..=entry.number);
            self.cursor[lane] = entry.number + 1;
        }
        self.backlog[lane].subtract(totals);
        if let Some(segment) = self.segments.get_mut(&run.segment) {
            segment.lanes[lane].live.subtract(totals);
        }
        self.update_oldest(run.segment, run.lane);
        // Datapoints always have bytes; an empty uplink must not end the loop.
        Ok(totals.bytes.max(1))
    }

    /// Settle those of some numbers that are released. Return them.
    pub(super) fn take_released(&mut self, numbers: &[u64]) -> Vec<u64> {
        let mut taken = Vec::new();
        for &number in numbers {
            for lane in Lane::ALL {
                let index = lane.index();
                let may_have = |(_, segment): &(&u64, &Segment)| {
                    let lane = &segment.lanes[index];
                    lane.live.sends > 0 && lane.summary.first <= number && number <= lane.summary.last
                };
                if !self.live[index].contains(number) {
                    continue;
                }
                let segments: Vec<_> = self.segments.iter().filter(may_have).map(|(number, _)| *number).collect();
                for segment in segments {
                    // A number that cannot be looked up stays in the backlog: it is sent again.
                    let Ok(slot) = self.index_surely(segment) else { continue };
                    let entries = &self.cache.indices[slot].lanes[index];
                    let Ok(place) = entries.binary_search_by_key(&number, |entry| entry.number) else { continue };
                    let totals = entries[place].totals();
                    self.live[index].remove(number..=number);
                    self.backlog[index].subtract(totals);
                    if let Some(segment) = self.segments.get_mut(&segment) {
                        segment.lanes[index].live.subtract(totals);
                    }
                    self.update_oldest(segment, lane);
                    taken.push(number);
                    break;
                }
            }
        }
        taken
    }

    /// Read released sends of the next chunk.
    fn read_chunk(
        &mut self,
        lanes: &[Lane],
        max_bytes: u64,
        max_sends: usize,
        at_least_one: bool,
    ) -> Result<Option<Part>, StoreError> {
        loop {
            let Some(run) = self.first_run(lanes)? else {
                for lane in lanes {
                    self.reconcile(*lane);
                }
                return Ok(None);
            };
            let lane = run.lane;
            let index = lane.index();
            let mut totals = Totals::default();
            let mut wanted: Vec<Entry> = Vec::new();
            for entry in self.entries(run).take_while(|entry| entry.number < run.until).take(max_sends) {
                let fits = totals.bytes + u64::from(entry.bytes) <= max_bytes;
                let same = wanted.first().is_none_or(|first| first.chunk == entry.chunk);
                let first = at_least_one && wanted.is_empty();
                if !same || !(fits || first) {
                    break;
                }
                totals.add(entry.totals());
                wanted.push(entry);
            }
            let Some(first) = wanted.first() else { return Ok(None) };
            let chunk = u64::from(first.chunk);
            let Some(sends) = self.decode(run.segment, chunk, &wanted)? else {
                self.lose_chunk(run.segment, first.chunk, lane);
                continue;
            };
            for entry in &wanted {
                self.held.insert(entry.number, Held::new(run.segment, lane, entry.written()));
                self.cursor[index] = entry.number + 1;
            }
            self.backlog[index].subtract(totals);
            self.update_oldest(run.segment, lane);
            return Ok(Some((sends, totals.bytes)));
        }
    }

    /// Return the released sends of the lane and the segment of a run, from its first one on.
    fn entries(&self, run: Run) -> impl Iterator<Item = Entry> {
        let lane = run.lane.index();
        let (live, held) = (&self.live[lane], &self.held);
        let index = self.cache.of(run.segment);
        let entries = index.map_or(&[][..], |index| &index.lanes[lane][run.first..]);
        entries.iter().filter(|entry| live.contains(entry.number) && !held.contains_key(&entry.number)).copied()
    }

    /// Find the released send of some lanes with the smallest number.
    fn first_run(&mut self, lanes: &[Lane]) -> Result<Option<Run>, StoreError> {
        loop {
            let mut found = Vec::new();
            for lane in lanes {
                found.extend(self.next_of(*lane)?.map(|next| (*lane, next)));
            }
            found.sort_unstable_by_key(|(_, next)| next.number);
            let Some(&(lane, Next { number, segment, mut until })) = found.first() else { return Ok(None) };
            if let Some((_, other)) = found.get(1) {
                // After damage, both lanes may have a number.
                until = until.min(other.number.max(number + 1));
            }
            let slot = self.index(segment)?;
            let entries = &self.cache.indices[slot].lanes[lane.index()];
            let first = entries.partition_point(|entry| entry.number < number);
            if entries.get(first).is_some_and(|entry| entry.number == number) {
                return Ok(Some(Run { lane, segment, first, until }));
            }
            // It was damaged since it was found.
            self.cache.next[lane.index()] = None;
        }
    }

    /// Find the released send of a lane with the smallest number, unless it is known.
    fn next_of(&mut self, lane: Lane) -> Result<Option<Next>, StoreError> {
        let index = lane.index();
        let is_released = |number: u64| self.live[index].contains(number) && !self.held.contains_key(&number);
        let known = self.cache.next[index].filter(|next| is_released(next.number));
        if known.is_some() {
            return Ok(known);
        }
        let next = self.find_next(lane)?;
        // So that what was passed over, such as held sends, is not looked at again.
        self.cursor[index] = next.map_or(u64::MAX, |next| next.number);
        self.cache.next[index] = next;
        Ok(next)
    }

    fn find_next(&mut self, lane: Lane) -> Result<Option<Next>, StoreError> {
        let index = lane.index();
        let cursor = self.cursor[index];
        let bound = |(number, segment): (&u64, &Segment)| {
            let lane = &segment.lanes[index];
            let bound = lane.summary.first.max(cursor);
            (lane.live.sends > 0 && lane.summary.last >= cursor).then_some((bound, *number))
        };
        let mut bounds: Vec<_> = self.segments.iter().filter_map(bound).collect();
        bounds.sort_unstable();
        let mut best: Option<Next> = None;
        for (bound, segment) in bounds {
            if let Some(best) = &mut best
                && bound > best.number
            {
                best.until = best.until.min(bound);
                break;
            }
            let slot = self.index(segment)?;
            let entries = &self.cache.indices[slot].lanes[index];
            let begin = entries.partition_point(|entry| entry.number < cursor);
            let live = &self.live[index];
            let released = |entry: &&Entry| live.contains(entry.number) && !self.held.contains_key(&entry.number);
            let Some(&Entry { number, .. }) = entries[begin..].iter().find(released) else { continue };
            match &mut best {
                Some(best) if best.number <= number => best.until = best.until.min(number.max(best.number + 1)),
                Some(other) => best = Some(Next { number, segment, until: other.number }),
                None => best = Some(Next { number, segment, until: u64::MAX }),
            }
        }
        Ok(best)
    }

    /// Every released send was read, so what the counts have beyond that is not on disk (any more).
    fn reconcile(&mut self, lane: Lane) {
        let index = lane.index();
        if self.backlog[index] == Totals::default() {
            return;
        }
        self.backlog[index] = Totals::default();
        for segment in self.segments.values_mut() {
            (segment.lanes[index].live, segment.lanes[index].oldest) = (Totals::default(), None);
        }
        for held in self.held.values().filter(|held| held.lane() == index) {
            if let Some(segment) = self.segments.get_mut(&held.segment()) {
                segment.lanes[index].live.add(held.totals());
            }
        }
    }

    /// Set the acceptance time of the oldest released send of a segment, after its first sends changed.
    fn update_oldest(&mut self, segment: u64, lane: Lane) {
        let cursor = self.cursor[lane.index()];
        let Some(index) = self.cache.of(segment) else { return };
        let first = index.lanes[lane.index()].partition_point(|entry| entry.number < cursor);
        let run = Run { lane, segment, first, until: u64::MAX };
        let oldest = self.entries(run).next().map(|entry| entry.accepted);
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.lanes[lane.index()].oldest = oldest;
        }
    }

    /// Do what `index` does, and try it again if the file system fails, until the place counts as damaged.
    pub(super) fn index_surely(&mut self, segment: u64) -> Result<usize, StoreError> {
        let mut slot = self.index(segment);
        for _ in 1..ATTEMPTS {
            slot = slot.or_else(|_| self.index(segment));
        }
        slot
    }

    /// Return the place of a segment's index in the cache, and make or extend the index if needed.
    pub(super) fn index(&mut self, segment: u64) -> Result<usize, StoreError> {
        let length = self.segments.get(&segment).map_or(0, |segment| segment.length);
        let mut index = match self.cache.take(segment) {
            Some(index) if index.end >= length => return Ok(self.cache.put(index)),
            Some(index) => index,
            None => {
                let path = self.file(segment);
                let file = self.files.open(&path).map_err(failed("cannot open", &path))?;
                // An index that was read to its end is of no use, and several large ones are a lot of memory.
                let cursor = self.cursor;
                let needed = |lane: usize, last: &Entry| last.number >= cursor[lane];
                self.cache.indices.retain(|index| {
                    (0..LANES).any(|lane| index.lanes[lane].last().is_some_and(|last| needed(lane, last)))
                });
                let sends = self.segments.get(&segment).map_or([0; LANES], Segment::sends);
                self.cache.make_room(sends.iter().fold(0, |sum, sends| sum.saturating_add(*sends)));
                Index::new(segment, file, length, sends)
            }
        };
        let voids = self.voids.get(&segment);
        let bad = index.extend(length, voids, false).or_else(|error| {
            if self.cache.failed_too_often(segment, index.end) { index.extend(length, voids, true) } else { Err(error) }
        });
        let bad = bad.map_err(failed("cannot read", &self.file(segment)))?;
        for &(start, end) in &bad {
            self.set_aside(segment, Some(&index.file), start, end);
        }
        let slot = self.cache.put(index);
        if !bad.is_empty() {
            self.recount(slot);
        }
        Ok(slot)
    }

    /// Count the unsettled sends of a segment again after damage, by its index.
    fn recount(&mut self, slot: usize) {
        let index = &self.cache.indices[slot];
        let Some(segment) = self.segments.get_mut(&index.segment) else { return };
        for lane in 0..LANES {
            let mut live = Totals::default();
            for entry in index.lanes[lane].iter().filter(|entry| self.live[lane].contains(entry.number)) {
                live.add(entry.totals());
            }
            let mut lost = segment.lanes[lane].live;
            lost.subtract(live);
            segment.lanes[lane].live = live;
            self.backlog[lane].subtract(lost);
            self.damage.lost.add(lost);
        }
    }

    /// Give up a chunk whose datapoints are damaged.
    fn lose_chunk(&mut self, segment: u64, chunk: u32, lane: Lane) {
        let Some(mut index) = self.cache.take(segment) else { return };
        let end = frame_end(&index.file, segment, chunk.into()).unwrap_or(u64::from(chunk) + HEADER as u64);
        self.set_aside(segment, Some(&index.file), chunk.into(), end);
        index.lanes[lane.index()].retain(|entry| entry.chunk != chunk);
        self.cache.chunk = None;
        let slot = self.cache.put(index);
        self.recount(slot);
    }

    /// Decode some sends of a chunk. `None` if the chunk is damaged.
    fn decode(
        &mut self,
        segment: u64,
        offset: u64,
        wanted: &[Entry],
    ) -> Result<Option<Vec<StoredSend<Uplink>>>, StoreError> {
        if self.cache.chunk.as_ref().is_none_or(|chunk| (chunk.segment, chunk.offset) != (segment, offset)) {
            let Some(index) = self.cache.of(segment) else { return Ok(None) };
            match Chunk::read(&index.file, segment, offset) {
                Ok(Some(chunk)) => self.cache.chunk = Some(chunk),
                Ok(None) => return Ok(None),
                Err(_) if self.cache.failed_too_often(segment, offset) => return Ok(None),
                Err(error) => return Err(failed("cannot read", &self.file(segment))(error)),
            }
        }
        let Some(chunk) = &self.cache.chunk else { return Ok(None) };
        Ok(chunk.sends(wanted))
    }
}
