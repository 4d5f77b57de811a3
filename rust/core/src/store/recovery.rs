//! Opening a log: what is on disk after a clean end, after a crash, and after damage.
//!
//! The newest segment with a readable head says which sends are live; it and newer ones are read completely. Of older segments only
//! the footers are read, unless some of their sends are settled. Nothing is appended to a segment that was found: the first commit
//! makes a new one. So opening can be interrupted and repeated.

use std::io;
use std::path::{Path, PathBuf};

use super::chunk::{Lane, Table, Totals, Written};
use super::files::{FileSystem, StoreFile, read_full_at, write_all_at};
use super::frame::{Header, Kind, MARKER};
use super::intervals::IntervalSet;
use super::log::{Log, Segment, Settings, StoreError, add_live, failed};
use super::reading::ATTEMPTS;
use super::segment::{FORMAT, Head, LaneSummary, Step, Walk, file_name, number_of, read_footer};
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
            let lock = lock(&files, path, note)?;
            // Another process may have had the lock until now.
            (Some(lock), files.names(path).map_err(failed("cannot list", path))?)
        };
        let header = read_header(&files, path)?;
        let segments = segments_in(&names);
        let mut log = Self::empty(files, path, owner, settings, lock);
        let start = log.newest_head_of(&segments)?;
        log.check_owner(&header, start.as_ref().map(|(_, head)| head.owner.as_str()))?;
        log.recover(&segments, start)?;
        if !settings.read_only {
            log.repair(&header, &names);
        }
        Ok(log)
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
                if let Some(format) = Reader(&walk.table).int().filter(|&format| format > FORMAT) {
                    return Err(StoreError::NewerFormat(self.path.clone(), format));
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

    fn recover(&mut self, segments: &[u64], start: Option<(u64, Head)>) -> Result<(), StoreError> {
        self.last_segment = segments.last().copied().unwrap_or(0);
        let newest = start.as_ref().map(|(number, _)| *number);
        if let Some((number, head)) = start {
            self.newest_head = number;
            self.next_number = head.next_number;
            // Also those of segments that are gone: if their removal was not synced, they come back with a power cut.
            (self.live, self.last, self.voids) = (head.live, head.last, head.voids);
        }
        for &number in segments {
            let Some(file) = self.open_segment(number)? else { continue };
            let path = self.file(number);
            let failed = || failed("cannot read", &path);
            let length = file.length().map_err(failed())?;
            if self.voids.get(&number).is_some_and(|voids| voids.covers(&(0..=u64::MAX))) {
                self.segments.insert(number, Segment { length, ..Segment::default() });
                continue;
            }
            let old = newest.is_some_and(|newest| number < newest);
            // A footer also counts what was damaged afterwards.
            let whole = old && !self.voids.get(&number).is_some_and(|voids| voids.meets(&(0..=length)));
            // Without its footer, the segment is read.
            let footer = if whole { read_footer(&file, number, length).unwrap_or_default() } else { None };
            let lanes = match footer {
                Some(lanes) => lanes,
                None => self.scan(number, &file, length, old).map_err(failed())?,
            };
            self.add_segment(number, length, &lanes);
        }
        self.count_live()
    }

    fn add_segment(&mut self, number: u64, length: u64, lanes: &[LaneSummary; 2]) {
        let segment = self.segments.entry(number).or_default();
        segment.length = length;
        for (lane, summary) in segment.lanes.iter_mut().zip(lanes) {
            lane.summary = *summary;
            self.next_number = self.next_number.max(summary.last.saturating_add(1));
        }
    }

    /// Read a segment completely. If it is `old`, the head that was read first has its live numbers, and a torn end is damage.
    fn scan(&mut self, number: u64, file: &F::File, length: u64, old: bool) -> io::Result<[LaneSummary; 2]> {
        let mut lanes = [LaneSummary::default(); 2];
        let mut bad: Vec<(u64, u64)> = Vec::new();
        let mut durable = 0;
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
                        Kind::Telemetry | Kind::Attributes => {
                            let lane = if header.kind == Kind::Attributes { Lane::Attributes } else { Lane::Telemetry };
                            if self.scan_chunk(&walk.table, lane, &mut lanes[lane.index()], old).is_none() {
                                bad.push((offset, end));
                                durable = durable.max(end);
                            }
                        }
                        Kind::Settled if !old => {
                            for range in Reader(&walk.table).intervals().unwrap_or_default().iter() {
                                self.live.iter_mut().for_each(|live| live.remove(range.clone()));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        if frames == 0 && !old {
            self.without_frames(number, file, length);
            return Ok(lanes);
        }
        for (start, end) in bad {
            // What was not on disk for certain when a later frame was written is the rest of a write that did not finish.
            if old || start < durable {
                self.set_aside(number, Some(file), start, end);
            } else {
                self.void(number, start, end);
            }
        }
        if !old && end < length {
            self.void(number, end, length);
        }
        Ok(lanes)
    }

    fn scan_chunk(&mut self, table: &[u8], lane: Lane, summary: &mut LaneSummary, old: bool) -> Option<()> {
        let mut rows = Table::new(table)?;
        let mut found = *summary;
        let mut numbers = Vec::new();
        while let Some(row) = rows.next_row() {
            let row = row?;
            let (number, accepted, datapoints, bytes) = (row.number, row.accepted, row.datapoints, row.bytes);
            found.add(Written { number, accepted, datapoints, bytes });
            numbers.push(number);
        }
        *summary = found;
        if !old {
            let index = lane.index();
            for number in numbers {
                add_live(&mut self.live[index], &mut self.last[index], number);
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
        let mut covered = [IntervalSet::default(), IntervalSet::default()];
        for number in numbers {
            let Some(segment) = self.segments.get(&number) else { continue };
            let summaries = [segment.lanes[0].summary, segment.lanes[1].summary];
            let mut partly = false;
            for lane in 0..2 {
                let LaneSummary { all, first, last, oldest } = summaries[lane];
                if all.sends == 0 || first > last {
                    continue;
                }
                covered[lane].insert(first..=last);
                if self.live[lane].covers(&(first..=last)) {
                    let Some(segment) = self.segments.get_mut(&number) else { continue };
                    segment.lanes[lane].live = all;
                    segment.lanes[lane].oldest = Some(oldest);
                } else {
                    partly |= self.live[lane].meets(&(first..=last));
                }
            }
            if partly {
                let mut slot = self.index(number);
                for _ in 1..ATTEMPTS {
                    slot = slot.or_else(|_| self.index(number));
                }
                let slot = slot?;
                let index = &self.cache.indices()[slot];
                let Some(segment) = self.segments.get_mut(&number) else { continue };
                for lane in 0..2 {
                    let live = index.lanes[lane].iter().filter(|entry| self.live[lane].contains(entry.number));
                    let mut totals = Totals::default();
                    let mut oldest = None;
                    for entry in live {
                        totals.add(entry.totals());
                        oldest.get_or_insert(entry.accepted);
                    }
                    (segment.lanes[lane].live, segment.lanes[lane].oldest) = (totals, oldest);
                }
            }
            let Some(segment) = self.segments.get(&number) else { continue };
            for lane in 0..2 {
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
    fn repair(&mut self, header: &HeaderState, names: &[String]) {
        // None of this is needed to go on: what fails is tried again when the store is opened the next time.
        if !matches!(header, HeaderState::Owner(_)) {
            if matches!(header, HeaderState::Damaged) {
                self.damage.places += 1;
                let _ = self.quarantine(HEADER, "store.json");
            }
            let _ = self.write_header(names);
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if read_only { not_a_store("it does not exist") } else { Ok(Vec::new()) };
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return not_a_store("it is a file, not a directory");
        }
        names => names.map_err(failed("cannot list", path))?,
    };
    if names.iter().any(|name| name == HEADER) || !segments_in(&names).is_empty() {
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

fn lock<F: FileSystem>(files: &F, path: &Path, note: &str) -> Result<F::Lock, StoreError> {
    match files.create_directory(path) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) => {
            return Err(StoreError::NotAStore(path.to_owned(), "it is a file, not a directory".to_owned()));
        }
        Err(error) => return Err(failed("cannot create", path)(error)),
    }
    let file = path.join(LOCK);
    let held = files.lock(&file, note).map_err(failed("cannot lock", &file))?;
    held.map_err(|holder| StoreError::Held(path.to_owned(), holder.trim().to_owned()))
}

fn read_header<F: FileSystem>(files: &F, directory: &Path) -> Result<HeaderState, StoreError> {
    let path = directory.join(HEADER);
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
        (Some(format), _) if format > FORMAT => Err(StoreError::NewerFormat(directory.to_owned(), format)),
        (Some(_), Some(owner)) => Ok(HeaderState::Owner(owner.to_vec())),
        _ => Ok(HeaderState::Damaged),
    }
}
