//! Reading the backlog makes an index of a segment once, however the lanes are spread over the segments.
#![allow(dead_code, reason = "the modules are shared with other tests")]

#[path = "common/simulated.rs"]
mod simulated;
#[path = "common/world.rs"]
mod world;

use simulated::{Dice, Simulated};
use tb_mqtt_core::points::{PointsBuilder, Timestamp};
use tb_mqtt_core::store::segment::number_of;
use tb_mqtt_core::store::{Lane, Log, StoredSend};
use tb_mqtt_core::uplink::{Extras, Uplink};
use world::{borrowed, open, random_send};

/// Bytes after which a segment gets no further commit.
const SEGMENT: u64 = 20_000;
/// Commits of one lane, one after the other: they fill several segments.
const COMMITS: u64 = 300;

/// Make a send of a lane.
fn send_of(lane: Lane, number: u64) -> StoredSend<Uplink> {
    let mut builder = PointsBuilder::default();
    let point = format!("\"k\":\"{}\",", "v".repeat(100));
    builder.push_encoded(Timestamp::NONE, b"\"k\"", point.as_bytes()).expect("small");
    let mut send = random_send(&mut Dice::new(number), number);
    send.uplink.extras = None;
    send.uplink.timeseries = builder.finish();
    if lane == Lane::Attributes {
        let attributes = std::mem::take(&mut send.uplink.timeseries);
        send.uplink.extras = Some(Box::new(Extras { attributes, metadata: None }));
    }
    send.priority = match lane {
        Lane::Normal | Lane::Attributes => 0,
        Lane::High => 1,
        Lane::Low => 2,
    };
    send
}

/// Make a store with the sends of each lane in segments of their own, in this order. Return it open, with all sends released.
fn store(lanes: &[Lane]) -> (Simulated, Log<Simulated>) {
    let disk = Simulated::default();
    let mut log = open(&disk, SEGMENT).expect("a new store");
    let mut number = 0;
    for lane in lanes {
        for _ in 0..COMMITS {
            number += 1;
            log.commit(&[borrowed(&send_of(*lane, number))], &[]).expect("no fault");
        }
        log.close().expect("no fault");
        log = open(&disk, SEGMENT).expect("it opens again");
    }
    disk.forget_opened();
    (disk, log)
}

/// Return how often the segment was opened that was opened most often, and how many segments were opened.
fn opened(disk: &Simulated) -> (u64, usize) {
    let opened = disk.opened();
    let is_segment = |path: &std::path::Path| path.file_name().and_then(|name| number_of(name.to_str()?)).is_some();
    let times: Vec<_> = opened.iter().filter(|(path, _)| is_segment(path)).map(|(_, times)| *times).collect();
    (times.iter().copied().max().unwrap_or(0), times.len())
}

/// Several lanes are read together, by rising numbers: one segment after the other.
#[test]
fn lanes_that_are_read_together() {
    let lanes = [Lane::Low, Lane::Normal, Lane::High];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let (disk, mut log) = store(&order.map(|index| lanes[index]));
        let mut numbers = Vec::new();
        loop {
            let sends = log.read(&lanes, 100_000, 7).expect("no fault");
            if sends.is_empty() {
                break;
            }
            numbers.extend(sends.iter().map(|send| send.number));
        }
        assert!(numbers.iter().copied().eq(1..=3 * COMMITS), "in order, each once");
        let (times, segments) = opened(&disk);
        assert!(segments > 3, "{segments}");
        assert_eq!(times, 1, "a segment was opened {times} times: {:?}", disk.opened());
    }
}

/// Lanes are read in turns: an index stays until its segment was read.
#[test]
fn lanes_that_are_read_in_turns() {
    let (disk, mut log) = store(&Lane::ALL);
    let mut counts = [0; Lane::ALL.len()];
    loop {
        let before = counts;
        for lane in Lane::ALL {
            counts[lane.index()] += log.read(&[lane], 100_000, 7).expect("no fault").len() as u64;
        }
        if counts == before {
            break;
        }
    }
    assert_eq!(counts, [COMMITS; Lane::ALL.len()]);
    let (times, segments) = opened(&disk);
    assert!(segments > 3, "{segments}");
    assert_eq!(times, 1, "a segment was opened {times} times: {:?}", disk.opened());
}

/// Sends in the memory of the caller are passed over once, not with every read.
#[test]
fn lanes_whose_sends_are_held() {
    let (disk, mut log) = store(&[Lane::Normal, Lane::Low]);
    while !log.read(&[Lane::Normal], 100_000, 100).expect("no fault").is_empty() {}
    let number = log.next_number();
    for number in number..number + COMMITS {
        log.commit(&[borrowed(&send_of(Lane::Normal, number))], &[]).expect("no fault");
    }
    disk.forget_opened();
    let mut count = 0;
    loop {
        let sends = log.read(&[Lane::High, Lane::Normal, Lane::Low], 100_000, 7).expect("no fault").len() as u64;
        if sends == 0 {
            break;
        }
        count += sends;
    }
    assert_eq!(count, COMMITS);
    let (times, _) = opened(&disk);
    assert_eq!(times, 1, "a segment was opened {times} times: {:?}", disk.opened());
}
