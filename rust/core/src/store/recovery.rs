//! Opening a log: what is on disk after a clean end, after a crash, and after damage.
//!
//! The newest segment with a readable head says which sends are live; it and newer ones are read completely. Of older segments only
//! the footers are read, unless some of their sends are settled. Nothing is appended to a segment that was found: the first commit
//! makes a new one. So opening can be interrupted and repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::chunk::{LANES, Lane, Table, Totals, Written};
use super::error::{StoreError, failed};
use super::files::{FileKind, FileSystem, StoreFile, read_full_at, write_all_at};
use super::frame::{Header, Kind, MARKER};
use super::intervals::IntervalSet;
use super::log::{Log, Segment, Settings, add_live};
use super::segment::{
    End, FORMAT, Head, LaneSummary, Listed, Step, Walk, file_name, number_of, number_of_tombstone, read_footer,
};
use super::wire::Reader;
use crate::json::write_str;

/// The file with format and owner.
const HEADER: &str = "store.json";
/// The header while it is written.
const NEW_HEADER: &str = "store.json.new";
const LOCK: &str = "lock";
const QUARANTINE: &str = "quarantine";

/// Bytes that are copied at once.
const COPY: usize = 1 << 20;

/// What the header says.
enum HeaderState {
    Missing,
    /// Not a header.
    Damaged,
    /// The owner as JSON.
    Owner(Vec<u8>),
}

/// What the names in the directory say.
struct Found {
    /// Numbers of the segments, in order.
    segments: Vec<u64>,
    /// Numbers of segments whose names something else has, such as a directory.
    obstacles: Vec<u64>,
    tombstones: BTreeSet<u64>,
    /// The latest end that is noted.
    end: Option<End>,
    /// Names of files that note another one.
    old_ends: Vec<String>,
}

impl Found {
    fn of(names: &[String]) -> Self {
        let mut ends: Vec<_> = names.iter().filter_map(|name| End::of(name)).collect();
        ends.sort_unstable();
        let end = ends.pop();
        Self {
            segments: segments_in(names),
            obstacles: Vec::new(),
            tombstones: names.iter().filter_map(|name| number_of_tombstone(name)).collect(),
            end,
            old_ends: ends.into_iter().map(End::name).collect(),
        }
    }
}

impl<F: FileSystem> Log<F> {
    /// Open the log in a directory, which is created if needed. `note` is written into the lock file for others. After that, all
    /// unsettled sends are released.
    ///
    /// With `read_only`, nothing is created, changed or locked, and an empty owner means any.
    ///
    /// # Errors
    /// When the store is in use, has another owner or a newer format, when there is something else at the path, or when the file
    /// system fails. Nothing is changed then.
    pub fn open(files: F, path: &Path, owner: &str, note: &str, settings: Settings) -> Result<Self, StoreError> {
        let names = names_of(&files, path, settings.read_only)?;
        let (lock, names) = if settings.read_only {
            (None, names)
        } else {
            let lock = lock(&files, path, note, settings.waits)?;
            // Another process may have had the lock until now.
            (Some(lock), files.names(path).map_err(failed("cannot list", path))?)
        };
        let header = read_header(&files, path)?;
        let mut found = Found::of(&names);
        let mut log = Self::empty(files, path, owner, settings, lock);
        found.obstacles = log.obstacles_in(&found.segments)?;
        found.segments.retain(|number| !found.obstacles.contains(number));
        let start = log.newest_head_of(&found.segments)?;
        log.check_owner(&header, start.as_ref().map(|(_, head)| head.owner.as_str()))?;
        log.recover(&found, start)?;
        if !settings.read_only {
            log.repair(&header, &names, &found);
        }
        Ok(log)
    }

    /// Return the segments whose names something else has, such as a directory.
    ///
    /// # Errors
    /// When one is a symbolic link to a file that does not exist: its data may be on a disk that is not mounted.
    fn obstacles_in(&self, segments: &[u64]) -> Result<Vec<u64>, StoreError> {
        let mut obstacles = Vec::new();
        for &number in segments {
            let path = self.file(number);
            match self.files.kind(&path).map_err(failed("cannot open", &path))? {
                // Another process may have removed it while this one reads.
                FileKind::File | FileKind::Missing => {}
                FileKind::Directory | FileKind::Special => obstacles.push(number),
                FileKind::DanglingLink(target) => return Err(StoreError::DanglingLink(path, target)),
            }
        }
        Ok(obstacles)
    }

    /// Return the newest segment with a sound head, and that head.
    fn newest_head_of(&self, segments: &[u64]) -> Result<Option<(u64, Head)>, StoreError> {
        for &number in segments.iter().rev() {
            let path = self.file(number);
            let Some(file) = self.open_segment(number)? else { continue };
            let length = file.length().map_err(failed("cannot read", &path))?;
            let mut walk = Walk::new(&file, number, 0..length, None, false);
            walk.around = true;
            if let Some(Step::Frame(0, Header { kind: Kind::Head, .. })) =
                walk.step().map_err(failed("cannot read", &path))?
            {
                if let Some(head) = Head::read(&walk.table) {
                    return Ok(Some((number, head)));
                }
                if let Some(format) = Reader(&walk.table).int().filter(|&format| format != FORMAT) {
                    return Err(StoreError::OtherFormat(self.path.clone(), format));
                }
            }
        }
        Ok(None)
    }

    /// Open a segment's file. `None` if it does not exist: another process may have removed it while this one reads.
    fn open_segment(&self, number: u64) -> Result<Option<F::File>, StoreError> {
        let path = self.file(number);
        match self.files.open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("cannot open", &path)(error)),
        }
    }

    fn check_owner(&mut self, header: &HeaderState, in_segment: Option<&str>) -> Result<(), StoreError> {
        let other = match (header, in_segment) {
            (HeaderState::Owner(owner), _) => {
                (*owner != json(&self.owner)).then(|| String::from_utf8_lossy(owner).into_owned())
            }
            (_, Some(owner)) => (owner != self.owner).then(|| format!("{owner:?}")),
            (_, None) => None,
        };
        match other {
            Some(_) if self.settings.read_only && self.owner.is_empty() => {
                in_segment.unwrap_or_default().clone_into(&mut self.owner);
                Ok(())
            }
            Some(owner) => Err(StoreError::OtherOwner(self.path.clone(), owner)),
            None => Ok(()),
        }
    }

    fn recover(&mut self, found: &Found, start: Option<(u64, Head)>) -> Result<(), StoreError> {
        let last = found.segments.last().copied().unwrap_or(0);
        // No number is used again, not even that of a segment that is missing.
        let removed = found.tombstones.last().copied().unwrap_or(0);
        self.last_segment = last.max(removed).max(found.end.map_or(0, |end| end.segment));
        (self.end, self.tombstones) = (found.end, found.tombstones.clone());
        let newest = start.as_ref().map(|(number, _)| *number);
        let mut listed = BTreeMap::new();
        if let Some((number, head)) = start {
            self.listed = head.listed.keys().copied().collect();
            listed = head.listed;
            self.newest_head = number;
            self.next_number = head.next_number;
            // Also those of segments that are gone: if their removal was not synced, they come back with a power cut.
            (self.live, self.last, self.voids) = (head.live, head.last, head.voids);
        }
        for &number in &found.obstacles {
            self.damage.places += 1;
            self.damage_is_new = true;
            self.obstacles.push(file_name(number));
        }
        let mut damaged = BTreeSet::new();
        for &number in &found.segments {
            let Some(file) = self.open_segment(number)? else { continue };
            let path = self.file(number);
            let failed = || failed("cannot read", &path);
            let length = file.length().map_err(failed())?;
            if self.voids.get(&number).is_some_and(|voids| voids.covers(&(0..=u64::MAX))) {
                self.segments.insert(number, Segment { length, ..Segment::default() });
                continue;
            }
            let old = newest.is_some_and(|newest| number < newest);
            if old && found.tombstones.contains(&number) {
                // Its sends are settled, and the process ended before the file was removed, or the power was cut.
                self.segments.insert(number, Segment { length, ..Segment::default() });
                continue;
            }
            let places = self.damage.places;
            // A footer also counts what was damaged afterwards.
            let whole = old && !self.voids.get(&number).is_some_and(|voids| voids.meets(&(0..=length)));
            // Without its footer, the segment is read.
            let footer = if whole { read_footer(&file, number, length).unwrap_or_default() } else { None };
            let (lanes, durable) = match footer {
                Some(footer) => footer,
                None => self.scan(number, &file, length, old).map_err(failed())?,
            };
            let listed = listed.get(&number).map_or(0, |listed: &Listed| listed.durable);
            let mut durable = durable.max(listed).min(length);
            // The end that a killed process has left may not be on disk yet.
            if durable < length && !self.settings.read_only && file.sync().is_ok() {
                durable = length;
            }
            self.add_segment(number, length, durable, &lanes);
            if self.damage.places > places {
                damaged.insert(number);
            }
        }
        damaged.extend(self.find_missing(found, newest, &listed)?);
        let had = |number: &u64| listed.get(number).map(|listed| (*number, self.unsettled_of(listed)));
        let had: Vec<_> = damaged.iter().filter_map(had).collect();
        self.count_live()?;
        for (number, mut lost) in had {
            lost.subtract(self.segments.get(&number).map(Segment::live).unwrap_or_default());
            self.damage.lost.add(lost);
        }
        Ok(())
    }

    /// Count segments that are not there, or shorter than they were, as damage. Return those that a head lists.
    fn find_missing(
        &mut self,
        found: &Found,
        newest: Option<u64>,
        listed: &BTreeMap<u64, Listed>,
    ) -> Result<Vec<u64>, StoreError> {
        let last = found.segments.last().copied().unwrap_or(0);
        let mut missing: Vec<(u64, u64)> = Vec::new();
        // If there was a newer head, which is damaged, segments that this one lists may have been removed.
        if newest.is_some_and(|newest| found.end.is_none_or(|end| end.segment <= newest)) {
            missing.extend(listed.iter().map(|(number, listed)| (*number, listed.durable)));
        }
        if let Some(end) = found.end.filter(|end| end.segment >= last) {
            missing.push((end.segment, end.length));
        }
        let length_of = |number: &u64| self.segments.get(number).map_or(0, |segment| segment.length);
        let is_short = |(number, durable): &(u64, u64)| length_of(number) < *durable;
        let is_missing = |(number, _): &(u64, u64)| !self.segments.contains_key(number);
        missing.retain(|one| (is_missing(one) || is_short(one)) && !found.tombstones.contains(&one.0));
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        if self.settings.read_only {
            // The process that has the store may have removed them meanwhile, or may just have made them.
            let names = self.files.names(&self.path).map_err(failed("cannot list", &self.path))?;
            let now = Found::of(&names);
            if now.segments.last() > Some(&last) {
                return Ok(Vec::new());
            }
            missing.retain(|(number, _)| !now.tombstones.contains(number));
        }
        for &(number, durable) in &missing {
            let length = self.segments.get(&number).map_or(0, |segment| segment.length);
            self.damage.places += 1;
            self.damage.bytes = self.damage.bytes.saturating_add(durable.saturating_sub(length));
            self.damage_is_new = true;
            if !self.settings.read_only {
                // The note is for an examination. That it cannot be written must not stop the log.
                let _ = self.note_missing(number, length, durable);
            }
        }
        Ok(missing.into_iter().map(|(number, _)| number).collect())
    }

    /// Write a note about bytes of a segment that are missing.
    fn note_missing(&self, number: u64, length: u64, durable: u64) -> io::Result<()> {
        let folder = self.path.join(QUARANTINE);
        self.files.create_directory(&folder)?;
        let file = self.files.create(&folder.join(format!("{}.{length}.missing", file_name(number))))?;
        let text = format!("{}: the bytes from {length} to {durable} are missing\n", file_name(number));
        write_all_at(&file, text.as_bytes(), 0)
    }

    /// Return at most how many unsettled sends a segment had, by what a head says: some of the numbers may belong to no send, or to one
    /// of another segment.
    fn unsettled_of(&self, listed: &Listed) -> Totals {
        let Listed { live, first, last, .. } = *listed;
        let unsettled = self.live.iter().map(|live| live.count_in(&(first..=last)));
        scaled(live, live.sends.min(unsettled.fold(0, u64::saturating_add)))
    }

    fn add_segment(&mut self, number: u64, length: u64, durable: u64, lanes: &[LaneSummary; LANES]) {
        let segment = self.segments.entry(number).or_default();
        (segment.length, segment.durable) = (length, durable);
        for (lane, summary) in segment.lanes.iter_mut().zip(lanes) {
            lane.summary = *summary;
            self.next_number = self.next_number.max(summary.last.saturating_add(1));
        }
    }

    /// Read a segment completely. Return what it has, and its bytes that were on disk for certain. If it is `old`, the head that was read first has its live numbers, and a torn end is damage.
    fn scan(&mut self, number: u64, file: &F::File, length: u64, old: bool) -> io::Result<([LaneSummary; LANES], u64)> {
        let mut lanes = [LaneSummary::default(); LANES];
        let mut bad: Vec<(u64, u64)> = Vec::new();
        let mut durable = 0;
        let mut malformed = 0;
        let mut frames = 0;
        let mut end = 0;
        let voids = self.voids.get(&number).cloned();
        // The datapoints of an old segment are checked when they are read: those of settled sends do not matter.
        let mut walk = Walk::new(file, number, 0..length, voids.as_ref(), !old);
        walk.around = true;
        while let Some(step) = walk.step()? {
            match step {
                Step::Bad(start, end) => bad.push((start, end)),
                Step::Frame(offset, header) => {
                    frames += 1;
                    end = offset + header.frame_length();
                    durable = durable.max(u64::from(header.durable));
                    match header.kind {
                        Kind::Settled if !old => {
                            for range in Reader(&walk.table).intervals().unwrap_or_default().iter() {
                                self.live.iter_mut().for_each(|live| live.remove(range.clone()));
                            }
                        }
                        kind => {
                            let Some(lane) = kind.lane().map(Lane::index) else { continue };
                            if self.scan_chunk(&walk.table, lane, &mut lanes[lane], old).is_none() {
                                bad.push((offset, end));
                                malformed = end;
                            }
                        }
                    }
                }
            }
        }
        if frames == 0 && !old {
            self.without_frames(number, file, length);
            return Ok((lanes, 0));
        }
        for (start, end) in bad {
            // What was not on disk for certain when a later frame was written is the rest of a write that did not finish.
            if old || start < durable.max(malformed) {
                self.set_aside(number, Some(file), start, end);
            } else {
                self.void(number, start, end);
            }
        }
        if !old && end < length {
            self.void(number, end, length);
        }
        Ok((lanes, durable))
    }

    fn scan_chunk(&mut self, table: &[u8], lane: usize, summary: &mut LaneSummary, old: bool) -> Option<()> {
        let mut rows = Table::new(table)?;
        let mut found = *summary;
        let mut numbers = Vec::new();
        while let Some(row) = rows.next_row() {
            let row = row?;
            found.add(Written::of(row));
            numbers.push(row.number);
        }
        *summary = found;
        if !old {
            for number in numbers {
                add_live(&mut self.live[lane], &mut self.last[lane], number);
            }
        }
        Some(())
    }

    /// Handle a file without any frame: a segment that was being created when the process ended, or something else.
    fn without_frames(&mut self, number: u64, file: &F::File, length: u64) {
        let mut first = [0];
        let known = read_full_at(file, &mut first, 0).is_ok();
        if !known || first[0] != 0 && first[0] != MARKER[0] {
            self.set_aside(number, Some(file), 0, length);
        }
        self.voids.entry(number).or_default().insert(0..=u64::MAX);
    }

    /// Count the unsettled sends of every segment, and release them.
    fn count_live(&mut self) -> Result<(), StoreError> {
        let numbers: Vec<_> = self.segments.keys().copied().collect();
        let mut covered: [IntervalSet; LANES] = Default::default();
        for number in numbers {
            let Some(segment) = self.segments.get(&number) else { continue };
            let summaries = segment.lanes.map(|lane| lane.summary);
            let mut partly = false;
            for (lane, summary) in summaries.into_iter().enumerate() {
                let LaneSummary { all, first, last, oldest, .. } = summary;
                if all.sends == 0 || first > last {
                    continue;
                }
                covered[lane].insert(first..=last);
                if self.live[lane].covers(&(first..=last)) {
                    let Some(segment) = self.segments.get_mut(&number) else { continue };
                    let lane = &mut segment.lanes[lane];
                    (lane.live, lane.oldest, lane.expires) = (all, Some(oldest), summary.expiry());
                } else {
                    partly |= self.live[lane].meets(&(first..=last));
                }
            }
            if partly {
                let slot = self.index_surely(number)?;
                let index = &self.cache.indices[slot];
                let Some(segment) = self.segments.get_mut(&number) else { continue };
                for lane in 0..LANES {
                    let live = index.lanes[lane].iter().filter(|entry| self.live[lane].contains(entry.number));
                    let mut totals = Totals::default();
                    let mut oldest = None;
                    for entry in live {
                        totals.add(entry.totals());
                        oldest.get_or_insert(entry.accepted);
                    }
                    let lane = &mut segment.lanes[lane];
                    (lane.live, lane.oldest, lane.expires) = (totals, oldest, lane.summary.expiry());
                }
            }
            let Some(segment) = self.segments.get(&number) else { continue };
            for lane in 0..LANES {
                self.backlog[lane].add(segment.lanes[lane].live);
            }
        }
        // Numbers of segments that are gone.
        for (live, covered) in self.live.iter_mut().zip(&covered) {
            let mut gone = IntervalSet::default();
            gone.insert(0..=u64::MAX);
            covered.iter().for_each(|range| gone.remove(range));
            gone.iter().for_each(|range| live.remove(range));
        }
        Ok(())
    }

    /// Write a missing header, and write down damage so that it is reported once.
    fn repair(&mut self, header: &HeaderState, names: &[String], found: &Found) {
        // None of this is needed to go on: what fails is tried again when the store is opened the next time.
        if !matches!(header, HeaderState::Owner(_)) {
            if matches!(header, HeaderState::Damaged) {
                self.damage.places += 1;
                let _ = self.quarantine(HEADER, "store.json");
            }
            let _ = self.write_header(names);
        }
        for &number in &found.obstacles {
            let name = file_name(number);
            if self.quarantine(&name, &name).is_err() {
                // No new segment can have this name.
                self.last_segment = self.last_segment.max(number);
            }
        }
        for name in &found.old_ends {
            let _ = self.files.remove(&self.path.join(name));
        }
        self.remove_settled_segments();
        if self.damage.places > 0 {
            let _ = self.begin_segment();
        }
    }

    fn write_header(&self, names: &[String]) -> io::Result<()> {
        let (path, new) = (self.path.join(HEADER), self.path.join(NEW_HEADER));
        if names.iter().any(|name| name == NEW_HEADER) {
            self.files.remove(&new)?;
        }
        let mut text = format!("{{\"format\":{FORMAT},\"owner\":").into_bytes();
        text.extend(json(&self.owner));
        text.extend_from_slice(b"}\n");
        let file = self.files.create(&new)?;
        write_all_at(&file, &text, 0)?;
        file.sync()?;
        // An older file of this name, which was removed, must not be the one that is renamed.
        self.files.sync_directory(&self.path)?;
        self.files.rename(&new, &path)?;
        self.files.sync_directory(&self.path)
    }

    /// Move a file to the quarantine.
    fn quarantine(&self, name: &str, new_name: &str) -> io::Result<()> {
        let folder = self.path.join(QUARANTINE);
        self.files.create_directory(&folder)?;
        let taken = self.files.names(&folder)?;
        // One of these many names is free.
        let free = (0..=taken.len()).map(|count| format!("{new_name}.{count}")).find(|name| !taken.contains(name));
        self.files.rename(&self.path.join(name), &folder.join(free.unwrap_or_default()))
    }

    /// Count damaged bytes of a segment, and copy them to the quarantine.
    pub(super) fn set_aside(&mut self, segment: u64, file: Option<&F::File>, start: u64, end: u64) {
        self.damage.places += 1;
        self.damage.bytes += end - start;
        self.damage_is_new = true;
        self.void(segment, start, end);
        if let Some(file) = file.filter(|_| !self.settings.read_only) {
            // The bytes are of no use for the log. That they cannot be kept for an examination must not stop it.
            let _ = self.copy_to_quarantine(segment, file, start, end);
        }
    }

    fn void(&mut self, segment: u64, start: u64, end: u64) {
        if let Some(last) = end.checked_sub(1) {
            self.voids.entry(segment).or_default().insert(start..=last);
        }
    }

    fn copy_to_quarantine(&self, segment: u64, file: &F::File, start: u64, end: u64) -> io::Result<()> {
        let folder = self.path.join(QUARANTINE);
        self.files.create_directory(&folder)?;
        let name: PathBuf = folder.join(format!("{}.{start}", file_name(segment)));
        let copy = match self.files.create(&name) {
            // It was copied when the store was opened before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            copy => copy?,
        };
        let mut buffer = vec![0; COPY.min(usize::try_from(end - start).unwrap_or(COPY))];
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(COPY).min(buffer.len());
            let filled = read_full_at(file, &mut buffer[..length], at)?;
            if filled == 0 {
                break;
            }
            write_all_at(&copy, &buffer[..filled], at - start)?;
            at += filled as u64;
        }
        Ok(())
    }
}

/// Return the totals of some of the sends, of which only the number is known.
fn scaled(all: Totals, sends: u64) -> Totals {
    let part = |whole: u64| {
        let part = u128::from(whole) * u128::from(sends) / u128::from(all.sends.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    Totals { sends, datapoints: part(all.datapoints), bytes: part(all.bytes) }
}

/// Return the numbers of the segments among some names, in order.
fn segments_in(names: &[String]) -> Vec<u64> {
    let mut segments: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    segments.sort_unstable();
    segments
}

/// Return the names in the directory, if it is a store or can become one.
fn names_of<F: FileSystem>(files: &F, path: &Path, read_only: bool) -> Result<Vec<String>, StoreError> {
    let not_a_store = |why: &str| Err(StoreError::NotAStore(path.to_owned(), why.to_owned()));
    let names = match files.names(path) {
        Ok(names) => names,
        Err(error) => match obstacle_at(files, path) {
            Some(obstacle) => return Err(obstacle),
            None if error.kind() != io::ErrorKind::NotFound => return Err(failed("cannot list", path)(error)),
            None if read_only => return not_a_store("it does not exist"),
            None => return Ok(Vec::new()),
        },
    };
    let of_log = |name: &String| End::of(name).is_some() || number_of_tombstone(name).is_some();
    if names.iter().any(|name| name == HEADER || of_log(name)) || !segments_in(&names).is_empty() {
        return Ok(names);
    }
    if read_only {
        return not_a_store("it has no header and no segments");
    }
    let ours = [NEW_HEADER, LOCK, QUARANTINE, "lost+found"];
    match names.iter().find(|name| !ours.contains(&name.as_str()) && !name.starts_with('.')) {
        Some(other) => not_a_store(&format!("it has other files, such as {other:?}")),
        None => Ok(names),
    }
}

fn json(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_str(text, &mut out);
    out
}

/// Say what is in the way at the path of a store, or above it.
fn obstacle_at<F: FileSystem>(files: &F, path: &Path) -> Option<StoreError> {
    let mut above: Vec<_> = path.ancestors().collect();
    above.reverse();
    above.into_iter().find_map(|one| match files.kind(one) {
        Ok(FileKind::DanglingLink(target)) => Some(StoreError::DanglingLink(one.to_owned(), target)),
        Ok(FileKind::File | FileKind::Special) => {
            let what = if one == path { "it is".to_owned() } else { format!("{} is", one.display()) };
            Some(StoreError::NotAStore(path.to_owned(), format!("{what} a file, not a directory")))
        }
        // An error is raised by what comes next.
        Ok(FileKind::Missing | FileKind::Directory) | Err(_) => None,
    })
}

fn lock<F: FileSystem>(files: &F, path: &Path, note: &str, waits: bool) -> Result<F::Lock, StoreError> {
    files
        .create_directory(path)
        .map_err(|error| obstacle_at(files, path).unwrap_or_else(|| failed("cannot create", path)(error)))?;
    let file = path.join(LOCK);
    match files.kind(&file).map_err(failed("cannot lock", &file))? {
        FileKind::File | FileKind::Missing => {}
        FileKind::DanglingLink(target) => return Err(StoreError::DanglingLink(file, target)),
        FileKind::Directory | FileKind::Special => return Err(StoreError::NotAFile(file)),
    }
    let held = files.lock(&file, note, waits).map_err(failed("cannot lock", &file))?;
    held.map_err(|holder| StoreError::Held(path.to_owned(), holder.trim().to_owned()))
}

fn read_header<F: FileSystem>(files: &F, directory: &Path) -> Result<HeaderState, StoreError> {
    let path = directory.join(HEADER);
    match files.kind(&path).map_err(failed("cannot open", &path))? {
        FileKind::File | FileKind::Missing => {}
        FileKind::Directory | FileKind::Special => return Ok(HeaderState::Damaged),
        FileKind::DanglingLink(target) => return Err(StoreError::DanglingLink(path, target)),
    }
    let file = match files.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HeaderState::Missing),
        Err(error) => return Err(failed("cannot open", &path)(error)),
    };
    let mut bytes = vec![0; 1 << 16];
    let length = read_full_at(&file, &mut bytes, 0).map_err(failed("cannot read", &path))?;
    let Some(rest) = bytes[..length].strip_prefix(b"{\"format\":") else { return Ok(HeaderState::Damaged) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let format: Option<u64> = str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse().ok());
    let owner = rest[digits..].strip_prefix(b",\"owner\":").and_then(|rest| rest.strip_suffix(b"}\n"));
    match (format, owner) {
        (Some(format), _) if format != FORMAT => Err(StoreError::OtherFormat(directory.to_owned(), format)),
        (Some(_), Some(owner)) => Ok(HeaderState::Owner(owner.to_vec())),
        _ => Ok(HeaderState::Damaged),
    }
}
