//! Any bytes as the files of a store.

use std::path::Path;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tb_mqtt_core::points::{PointsBuilder, Timestamp};
use tb_mqtt_core::store::frame::{Frames, Kind};
use tb_mqtt_core::store::segment::{End, FORMAT, file_name, tombstone_name};
use tb_mqtt_core::store::wire::{put, put_bytes, put_signed};
use tb_mqtt_core::store::{Due, LANES, Lane, Log, Settings, StoreError, StoredSend};
use tb_mqtt_core::uplink::Uplink;

use crate::simulated::Simulated;

const OWNER: &str = "o";

/// Files of a store: the header and the segments.
#[derive(Debug, Arbitrary)]
pub struct Directory {
    header: Header,
    segments: Vec<(u8, Vec<Piece>)>,
    tombstones: Vec<u8>,
    ends: Vec<(u8, u16)>,
    dropped: u16,
    expired_at: i64,
}

#[derive(Debug, Arbitrary)]
enum Header {
    Missing,
    Sound,
    Bytes(Vec<u8>),
}

/// Bytes of a segment. Those of a frame have correct checksums, which a fuzzer would not find.
#[derive(Debug, Arbitrary)]
enum Piece {
    Bytes(Vec<u8>),
    Frame {
        kind: u8,
        payload: Vec<u8>,
        table: Vec<u8>,
        durable: u32,
    },
    Head {
        next_number: u64,
        live: [Vec<(u16, u16)>; LANES],
        last: [u64; LANES],
        voids: Vec<(u8, Vec<(u64, u16)>)>,
        listed: Vec<(u8, [u64; 6])>,
        rest: Vec<u8>,
    },
    Settled(Vec<(u64, u64)>),
    Chunk {
        lane: u8,
        devices: u8,
        rows: Vec<Row>,
        payload: Vec<u8>,
    },
    Footer {
        lanes: [[u64; 5]; LANES],
        times: [(i64, i64); LANES],
    },
}

/// A row of a table, with its difference to the number before.
#[derive(Debug, Arbitrary)]
struct Row {
    number: u64,
    small: bool,
    accepted: i64,
    device: u8,
    flags: u8,
    runs: Vec<(u8, u8)>,
    rest: Vec<u8>,
}

fn put_ranges<N: Copy + Into<u64>, M: Copy + Into<u64>>(out: &mut Vec<u8>, ranges: &[(N, M)]) {
    put(out, ranges.len() as u64);
    for &(start, length) in ranges {
        put(out, start.into());
        put(out, length.into());
    }
}

fn append(piece: &Piece, frames: &mut Frames) {
    frames.open();
    match piece {
        Piece::Bytes(_) => {}
        Piece::Frame { kind, payload, table, .. } => {
            frames.bytes.extend(payload);
            frames.table().extend(table);
            let kinds =
                [Kind::Head, Kind::Settled, Kind::Footer, Kind::Normal, Kind::Attributes, Kind::High, Kind::Low];
            frames.close(kinds[usize::from(*kind) % kinds.len()]);
        }
        Piece::Head { next_number, live, last, voids, listed, rest } => {
            let out = frames.table();
            put(out, FORMAT);
            put_bytes(out, OWNER.as_bytes());
            put(out, *next_number);
            for lane in 0..LANES {
                put(out, last[lane]);
                put_ranges(out, &live[lane]);
            }
            put(out, voids.len() as u64);
            for (segment, ranges) in voids {
                put(out, (*segment).into());
                put_ranges(out, ranges);
            }
            put(out, listed.len() as u64);
            for (segment, numbers) in listed {
                put(out, (*segment).into());
                for number in numbers {
                    put(out, *number);
                }
            }
            out.extend(rest);
            frames.close(Kind::Head);
        }
        Piece::Settled(ranges) => {
            put_ranges(frames.table(), ranges);
            frames.close(Kind::Settled);
        }
        Piece::Chunk { lane, devices, rows, payload } => {
            frames.bytes.extend(payload);
            let out = frames.table();
            put(out, (*devices).into());
            for device in 0..*devices {
                put_bytes(out, &[b'a' + device % 26]);
                put_bytes(out, b"p");
            }
            put(out, rows.len() as u64);
            for row in rows {
                put(out, if row.small { row.number % 4 } else { row.number });
                put_signed(out, row.accepted);
                put(out, row.device.into());
                out.push(row.flags);
                put_ranges(out, &row.runs);
                out.extend(&row.rest);
            }
            frames.close(Kind::of(Lane::ALL[usize::from(*lane) % LANES]));
        }
        Piece::Footer { lanes, times } => {
            let out = frames.table();
            let start = out.len();
            for (numbers, (oldest, expires)) in lanes.iter().zip(times) {
                // A lane without sends has no other numbers.
                for number in &numbers[..if numbers[0] == 0 { 1 } else { 5 }] {
                    put(out, *number);
                }
                if numbers[0] > 0 {
                    put_signed(out, *oldest);
                    put_signed(out, *expires);
                }
            }
            let length = tb_mqtt_core::store::frame::HEADER + out.len() - start + 4;
            out.extend(u32::try_from(length).expect("small").to_le_bytes());
            frames.close(Kind::Footer);
        }
    }
}

fn content(number: u64, pieces: &[Piece]) -> Vec<u8> {
    let mut content = Vec::new();
    for piece in pieces {
        if let Piece::Bytes(bytes) = piece {
            content.extend(bytes);
            continue;
        }
        let durable = if let Piece::Frame { durable, .. } = piece { u64::from(*durable) } else { content.len() as u64 };
        let mut frames = Frames::default();
        frames.begin(number, content.len() as u64, durable);
        append(piece, &mut frames);
        content.append(&mut frames.bytes);
    }
    content
}

/// Read the whole backlog. Return its numbers.
fn read_all(log: &mut Log<Simulated>) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let sends = log.read(&Lane::ALL, 1000, 5).expect("the disk works");
        if sends.is_empty() {
            return numbers;
        }
        numbers.extend(sends.iter().map(|send| send.number));
    }
}

fn open(disk: &Simulated, path: &Path, read_only: bool) -> Result<Log<Simulated>, StoreError> {
    Log::open(disk.clone(), path, OWNER, "1", Settings { max_segment_bytes: 300, read_only, waits: false })
}

/// A store whose files have any bytes opens or says why not, keeps what is committed to it, and opens again.
///
/// # Panics
/// When the property does not hold.
pub fn store(directory: &Directory) {
    let path = Path::new("/store");
    let empty = Simulated::default();
    open(&empty, path, false).expect("an empty store").close().expect("the disk works");
    let mut state = empty.state();
    match &directory.header {
        Header::Missing => state.delete(&path.join("store.json")),
        Header::Sound => {}
        Header::Bytes(bytes) => state.put(&path.join("store.json"), bytes.clone()),
    }
    for (number, pieces) in &directory.segments {
        // There is no segment 0.
        let number = u64::from(*number) + 1;
        state.put(&path.join(file_name(number)), content(number, pieces));
    }
    for number in &directory.tombstones {
        state.put(&path.join(tombstone_name(u64::from(*number) + 1)), Vec::new());
    }
    for (number, length) in &directory.ends {
        let end = End { segment: u64::from(*number) + 1, length: (*length).into() };
        state.put(&path.join(end.name()), Vec::new());
    }
    let disk = Simulated::new(state);
    // A reader says the same as a writer, and changes nothing.
    if let Ok(mut log) = open(&disk, path, true) {
        log.devices().expect("the disk works");
        log.verify().expect("the disk works");
        read_all(&mut log);
    }
    let mut log = match open(&disk, path, false) {
        Ok(log) => log,
        Err(StoreError::OtherOwner(..) | StoreError::OtherFormat(..)) => return,
        Err(error) => panic!("{error}"),
    };
    log.drop_oldest(directory.dropped.into()).expect("the disk works");
    let due = Due { expired_at: directory.expired_at, accepted: (0, 0) };
    log.drop_due(due, 1000).expect("the disk works");
    let found = read_all(&mut log);
    log.verify().expect("the disk works");
    let next = log.next_number();
    // No number is left.
    if next > u64::MAX - 10 {
        return;
    }
    let mut builder = PointsBuilder::default();
    assert!(builder.push_encoded(Timestamp::NONE, b"\"k\"", b"\"k\":1,").is_ok(), "it is small");
    let uplink = Uplink { device: None, timeseries: builder.finish(), extras: None, main_timestamp: Timestamp::NONE };
    let send = |number| StoredSend { uplink: &uplink, number, accepted: 1, priority: 0, expires: 0 };
    let settled = &found[..found.len() / 2];
    log.commit(&[send(next), send(next + 1)], settled).expect("the disk works");
    log.commit(&[send(next + 2)], &[next + 1]).expect("the disk works");
    log.close().expect("the disk works");
    let mut log = open(&disk, path, false).expect("it opens again");
    let again = read_all(&mut log);
    assert_eq!(log.damage().places, 0, "damage is reported once");
    assert!(log.next_number() > next + 2);
    for (number, kept) in [(next, true), (next + 1, false), (next + 2, true)] {
        assert_eq!(again.contains(&number), kept, "{number}");
    }
    let everything = [found, again].concat();
    log.commit(&[], &everything).expect("the disk works");
    log.close().expect("the disk works");
    let mut log = open(&disk, path, false).expect("it opens again");
    assert!(read_all(&mut log).is_empty(), "everything is settled");
}
