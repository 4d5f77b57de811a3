//! Examining a log: what is in it by device, and whether every byte can be read.

use std::collections::BTreeMap;

use super::chunk::{Lane, Table, Totals};
use super::error::{StoreError, failed};
use super::files::{FileSystem, read_full_at};
use super::frame::HEADER;
use super::log::Log;
use super::segment::{Step, Walk, file_name};
use crate::points::Points;

/// The unsettled sends of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceTotals {
    /// The sums.
    pub totals: Totals,
    /// When the oldest send was accepted, in milliseconds since the epoch.
    pub oldest: Option<i64>,
}

/// Bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file.
    pub file: String,
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Why they cannot be read.
    pub reason: &'static str,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of segments.
    pub segments: u64,
    /// Number of frames with correct checksums.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// The rest.
    pub faults: Vec<Fault>,
}

/// Name and profile of a sub-device; none for the connected device itself.
type DeviceName = Option<(String, String)>;

impl<F: FileSystem> Log<F> {
    /// Count unsettled sends by device, whether or not they are released.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn devices(&self) -> Result<BTreeMap<DeviceName, DeviceTotals>, StoreError> {
        let mut devices = BTreeMap::<DeviceName, DeviceTotals>::new();
        for (&number, segment) in self.segments.iter().filter(|(_, segment)| !segment.is_settled()) {
            let path = self.file(number);
            let file = self.files.open(&path).map_err(failed("cannot open", &path))?;
            let mut walk = Walk::new(&file, number, 0..segment.length, self.voids.get(&number), false);
            walk.around = true;
            while let Some(step) = walk.step().map_err(failed("cannot read", &path))? {
                let Step::Frame(_, header) = step else { continue };
                let Some(lane) = header.kind.lane().map(Lane::index) else { continue };
                let Some(mut table) = Table::new(&walk.table) else { continue };
                while let Some(Some(row)) = table.next_row() {
                    if !self.live[lane].contains(row.number) {
                        continue;
                    }
                    let (accepted, totals) = (row.accepted, Totals::of_one(row.datapoints, row.bytes));
                    let device = table.device().map(|(name, profile)| (name.to_owned(), profile.to_owned()));
                    let sums = devices.entry(device).or_default();
                    sums.totals.add(totals);
                    sums.oldest = Some(sums.oldest.map_or(accepted, |oldest| oldest.min(accepted)));
                }
            }
        }
        Ok(devices)
    }

    /// Read every byte of every segment, and check checksums and the form of the datapoints.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn verify(&self) -> Result<Report, StoreError> {
        let mut report = Report::default();
        report.faults.extend(self.obstacles.iter().map(|name| Fault {
            file: name.clone(),
            offset: 0,
            bytes: 0,
            reason: "it is not a file",
        }));
        for (&number, segment) in &self.segments {
            let path = self.file(number);
            let file = self.files.open(&path).map_err(failed("cannot open", &path))?;
            report.segments += 1;
            let mut fault = |offset: u64, end: u64, reason| {
                report.faults.push(Fault { file: file_name(number), offset, bytes: end - offset, reason });
            };
            let mut walk = Walk::new(&file, number, 0..segment.length, self.voids.get(&number), true);
            walk.around = true;
            while let Some(step) = walk.step().map_err(failed("cannot read", &path))? {
                let (offset, header) = match step {
                    Step::Bad(start, end) => {
                        fault(start, end, "the checksum is wrong, or it is not a frame");
                        continue;
                    }
                    Step::Frame(offset, header) => (offset, header),
                };
                if header.kind.lane().is_some() {
                    let mut payload = vec![0; header.payload as usize];
                    read_full_at(&file, &mut payload, offset + HEADER as u64).map_err(failed("cannot read", &path))?;
                    if !sends_are_sound(&walk.table, &payload) {
                        fault(offset, offset + header.frame_length(), "the sends are malformed");
                        continue;
                    }
                }
                report.frames += 1;
                report.bytes += header.frame_length();
            }
        }
        Ok(report)
    }
}

fn sends_are_sound(table: &[u8], payload: &[u8]) -> bool {
    let Some(mut table) = Table::new(table) else { return false };
    while let Some(row) = table.next_row() {
        if row.is_none() {
            return false;
        }
        let Some(send) = table.send(payload) else { return false };
        if !points_are_sound(&send.uplink.timeseries) || !send.uplink.attributes().is_none_or(points_are_sound) {
            return false;
        }
    }
    true
}

/// Whether every run has as many points as it says. These bytes are not trusted: a wrong index must not panic.
fn points_are_sound(points: &Points) -> bool {
    points.runs().all(|(run, mut bytes)| {
        let mut count = 0;
        while !bytes.is_empty() {
            let Some(end) = point_end(bytes) else { return false };
            bytes = &bytes[end..];
            count += 1;
        }
        count == run.count.get()
    })
}

/// Return the index after `"key":value,`.
fn point_end(bytes: &[u8]) -> Option<usize> {
    let mut at = string_end(bytes, 0)?;
    (bytes.get(at) == Some(&b':')).then_some(())?;
    at += 1;
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b',' if depth == 0 => return Some(at + 1),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
}

/// Return the index after the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    (bytes.get(start) == Some(&b'"')).then_some(())?;
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
