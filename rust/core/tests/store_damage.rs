//! Damaged files never stop the store: what can be read is kept, and the rest is counted once and moved aside.
#![allow(dead_code, reason = "the modules are shared with other tests")]

#[path = "common/simulated.rs"]
mod simulated;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use simulated::{Dice, Simulated, State};
use tb_mqtt_core::points::{Points, PointsBuilder, Timestamp};
use tb_mqtt_core::store::segment::file_name;
use tb_mqtt_core::store::{Lane, Log, Settings, StoreError};
use tb_mqtt_core::uplink::Extras;
use world::{described, open, path, random_send, read_all};

/// Sends of one commit.
const SENDS: u64 = 3;
/// Commits.
const COMMITS: u64 = 12;

/// Make a store with several segments. Some have no footer: the process was killed. Return all sends, and whether each is unsettled.
fn store(dice: &mut Dice) -> (State, BTreeMap<u64, (String, bool)>) {
    let disk = Simulated::default();
    let mut log = open(&disk, 900).expect("a new store");
    let mut sends = BTreeMap::new();
    for commit in 0..COMMITS {
        let made: Vec<_> = (1..=SENDS).map(|index| random_send(dice, commit * SENDS + index)).collect();
        let borrowed: Vec<_> = made.iter().map(world::borrowed).collect();
        let settled: Vec<u64> = if dice.one_in(3) { vec![1 + dice.below(commit * SENDS + 1)] } else { vec![] };
        log.commit(&borrowed, &settled).expect("no fault");
        sends.extend(made.iter().map(|send| (send.number, (described(send), true))));
        for number in settled {
            sends.get_mut(&number).expect("committed").1 = false;
        }
        // The last commit of a killed process cannot be told from one that did not finish, so the end is a clean one.
        if dice.one_in(5) && commit + 1 < COMMITS {
            // Killed, or closed.
            if dice.one_in(2) {
                drop(log);
            } else {
                log.close().expect("no fault");
            }
            log = open(&disk, 900).expect("it opens again");
        }
    }
    log.close().expect("no fault");
    (disk.state(), sends)
}

fn files(state: &State) -> Vec<(PathBuf, Vec<u8>)> {
    state.files().map(|(path, content)| (path.to_owned(), content.to_owned())).collect()
}

/// Open a damaged store twice. Return how many unsettled sends are lost, and the damaged places that were found.
fn check(state: State, sends: &BTreeMap<u64, (String, bool)>) -> (usize, u64) {
    let disk = Simulated::new(state);
    let before: BTreeMap<_, _> = files(&disk.state()).into_iter().collect();
    let mut log = match open(&disk, 900) {
        Ok(log) => log,
        // A flipped bit in a text of the header.
        Err(StoreError::OtherOwner(..) | StoreError::OtherFormat(..)) => {
            let after: BTreeMap<_, _> = files(&disk.state()).into_iter().collect();
            assert_eq!(after, before);
            return (0, 0);
        }
        Err(error) => panic!("{error}"),
    };
    let found: BTreeMap<_, _> = read_all(&mut log).iter().map(|send| (send.number, described(send))).collect();
    for (number, text) in &found {
        assert_eq!(*text, sends[number].0);
    }
    let places = log.damage().places;
    let moved = files(&disk.state()).iter().any(|(path, _)| path.starts_with("/store/quarantine"));
    assert!(moved || places == 0 || log.damage().bytes == 0, "damaged bytes are in the quarantine");
    log.close().expect("no fault");
    // Nothing is overwritten.
    for (path, content) in files(&disk.state()) {
        let header = path.ends_with("store.json");
        assert!(header || before.get(&path).is_none_or(|before| *before == content), "{} was changed", path.display());
    }
    let mut log = open(&disk, 900).expect("it opens again");
    assert_eq!(log.damage().places, 0, "damage is reported once");
    let again: BTreeMap<_, _> = read_all(&mut log).iter().map(|send| (send.number, described(send))).collect();
    assert_eq!(again, found);
    let number = log.next_number();
    let send = random_send(&mut Dice::new(1), number);
    log.commit(&[world::borrowed(&send)], &[]).expect("it can be used");
    let lost = sends.iter().filter(|(number, (_, live))| *live && !found.contains_key(number)).count();
    (lost, places)
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(u64),
    Cut(u64),
    Zero(u64, u64),
    Garbage(u64, u64),
    Delete,
    Duplicate,
    Empty,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<u64>().prop_map(Damage::Flip),
        1 => any::<u64>().prop_map(Damage::Cut),
        1 => (any::<u64>(), 1_u64..600).prop_map(|(at, length)| Damage::Zero(at, length)),
        1 => (any::<u64>(), 1_u64..600).prop_map(|(at, length)| Damage::Garbage(at, length)),
        1 => Just(Damage::Delete),
        1 => Just(Damage::Duplicate),
        1 => Just(Damage::Empty),
    ]
}

fn place(at: u64, content: &[u8]) -> usize {
    usize::try_from(at % content.len().max(1) as u64).expect("small")
}

fn damage(state: &mut State, which: u64, damage: &Damage) {
    let all = files(state);
    let (path, mut content) = all[place(which, &vec![0; all.len()])].clone();
    match *damage {
        Damage::Flip(at) if !content.is_empty() => {
            let at = place(at, &content);
            content[at] ^= 1 << (at % 8);
        }
        Damage::Cut(at) => content.truncate(place(at, &content)),
        Damage::Zero(at, length) => {
            let at = place(at, &content);
            content.iter_mut().skip(at).take(usize::try_from(length).expect("small")).for_each(|byte| *byte = 0);
        }
        Damage::Garbage(at, length) => {
            let at = place(at, &content);
            let mut dice = Dice::new(length);
            let random = content.iter_mut().skip(at).take(usize::try_from(length).expect("small"));
            random.for_each(|byte| *byte = u8::try_from(dice.below(256)).expect("a byte"));
        }
        Damage::Delete => return state.delete(&path),
        Damage::Duplicate => return state.put(&world::path().join(file_name(which % 30 + 1)), content),
        Damage::Flip(_) | Damage::Empty => content.clear(),
    }
    state.put(&path, content);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Any damage of any files.
    #[test]
    fn any_damage(seed in 1_u64..50, all in prop::collection::vec((any::<u64>(), damages()), 1..4)) {
        let (mut state, sends) = store(&mut Dice::new(seed));
        for (which, one) in &all {
            damage(&mut state, *which, one);
        }
        check(state, &sends);
    }

    /// A single flipped bit of a segment costs the sends of one lane of one commit at most, and is counted.
    #[test]
    fn one_flipped_bit(seed in 1_u64..50, which in any::<u64>(), at in any::<u64>()) {
        let (mut state, sends) = store(&mut Dice::new(seed));
        let segments: Vec<_> = files(&state).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")).collect();
        let (path, mut content) = segments[place(which, &vec![0; segments.len()])].clone();
        let at = place(at, &content);
        content[at] ^= 0x10;
        state.put(&path, content);
        let (lost, places) = check(state, &sends);
        prop_assert!(lost <= usize::try_from(SENDS).expect("small"), "{lost} lost");
        prop_assert!(lost == 0 || places == 1, "{lost} lost, {places} places");
    }
}

/// Return the files of the segments of a store, in order.
fn segments(state: &State) -> Vec<(PathBuf, Vec<u8>)> {
    files(state).into_iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// A segment that is missing is noticed, and so are its unsettled sends, unless it is the newest one, which no head lists.
#[test]
fn a_missing_segment() {
    let mut missing = 0;
    for seed in 1..20 {
        let (state, sends) = store(&mut Dice::new(seed));
        let all = segments(&state);
        for (index, (path, _)) in all.iter().enumerate() {
            let mut state = state.clone();
            state.delete(path);
            let disk = Simulated::new(state.clone());
            let found = open(&disk, 900).expect("it opens").damage();
            let (lost, places) = check(state, &sends);
            let newest = index + 1 == all.len();
            assert_eq!(places, u64::from(lost > 0 || newest), "{lost} sends were in {}", path.display());
            // Some of those that were settled after the newest head may be counted, too.
            let settled = sends.values().filter(|(_, live)| !live).count();
            let counted = lost as u64..=(lost + settled) as u64;
            assert!(newest || counted.contains(&found.lost.sends), "{found:?}, and {lost} are lost");
            missing += lost;
        }
    }
    assert!(missing > 100, "{missing}");
}

/// A segment that is shorter than it was is noticed, also if it ends between two frames.
#[test]
fn a_shortened_segment() {
    for seed in 1..4 {
        let (state, sends) = store(&mut Dice::new(seed));
        let all = segments(&state);
        for (index, (path, content)) in all.iter().enumerate() {
            let newest = index + 1 == all.len();
            for length in (0..content.len()).step_by(41) {
                let mut state = state.clone();
                state.put(path, content[..length].to_vec());
                let (lost, places) = check(state, &sends);
                assert!(places > 0 || (lost == 0 && !newest), "{lost} sends were in {}", path.display());
            }
        }
    }
}

/// After a kill, the newest segment may end anywhere, but it cannot be missing.
#[test]
fn the_newest_segment_of_a_killed_process() {
    let disk = Simulated::default();
    let mut log = open(&disk, 1 << 20).expect("a new store");
    let send = random_send(&mut Dice::new(1), 1);
    log.commit(&[world::borrowed(&send)], &[]).expect("no fault");
    drop(log);
    let mut state = disk.state();
    let log = open(&Simulated::new(state.clone()), 900).expect("it opens");
    assert_eq!((log.damage().places, log.backlog(Lane::of(&send.uplink, send.priority)).sends), (0, 1));
    drop(log);
    state.delete(&path().join(file_name(1)));
    let log = open(&Simulated::new(state), 900).expect("it opens");
    assert_eq!(log.damage().places, 1);
}

/// Without its header, the store knows its owner from its segments.
#[test]
fn a_missing_header() {
    let (mut state, sends) = store(&mut Dice::new(3));
    state.delete(&path().join("store.json"));
    let settings = Settings { max_segment_bytes: 900, read_only: false, waits: false };
    let other = Log::open(Simulated::new(state.clone()), path(), "other", "", settings).err();
    assert!(matches!(other, Some(StoreError::OtherOwner(..))));
    assert_eq!(check(state, &sends), (0, 0));
}

/// Reading beside a process that removes segments, and reading damaged files, changes nothing.
#[test]
fn reading_only_changes_nothing() {
    let (mut state, _) = store(&mut Dice::new(4));
    damage(&mut state, 1, &Damage::Garbage(300, 100));
    damage(&mut state, 2, &Damage::Delete);
    let disk = Simulated::new(state.clone());
    let settings = Settings { max_segment_bytes: 900, read_only: true, waits: false };
    let mut log = Log::open(disk.clone(), path(), "", "", settings).expect("it opens");
    read_all(&mut log);
    log.devices().expect("no fault");
    log.verify().expect("no fault");
    assert_eq!(files(&disk.state()), files(&state));
}

/// Make a store of one segment with commits of one send of about 5000 bytes each, all of one lane.
fn large_sends(lane: Lane, closed: bool) -> (Simulated, PathBuf) {
    let disk = Simulated::default();
    let mut log = open(&disk, 1 << 20).expect("a new store");
    for number in 1..=20 {
        let point = format!("\"k\":\"{}\",", "v".repeat(5000));
        let mut builder = PointsBuilder::default();
        builder.push_encoded(Timestamp::NONE, b"\"k\"", point.as_bytes()).unwrap_or_else(|_| panic!("too large"));
        let mut send = random_send(&mut Dice::new(number), number);
        let points = builder.finish();
        send.uplink.timeseries = Points::default();
        send.uplink.extras = None;
        if lane == Lane::Attributes {
            send.uplink.extras = Some(Box::new(Extras { attributes: points, metadata: None }));
        } else {
            send.uplink.timeseries = points;
        }
        send.priority = match lane {
            Lane::Normal | Lane::Attributes => 0,
            Lane::High => 1,
            Lane::Low => 2,
        };
        log.commit(&[world::borrowed(&send)], &[]).expect("no fault");
    }
    if closed {
        log.close().expect("no fault");
    }
    (disk, path().join(file_name(1)))
}

/// A sector that can never be read costs the sends in it, wherever it is, and the store opens.
#[test]
fn an_unreadable_sector() {
    let lanes_and_sectors = Lane::ALL.into_iter().flat_map(|lane| [1, 5, 12, 20].map(|sector| (lane, sector)));
    for (lane, sector) in lanes_and_sectors {
        for closed in [true, false] {
            let (disk, file) = large_sends(lane, closed);
            disk.break_sectors(&file, sector * 4096..(sector + 1) * 4096);
            let mut log = open(&disk, 1 << 20).expect("the rest can be read");
            let mut numbers = Vec::new();
            for _ in 0..200 {
                // Reading raises the error a few times, before it gives up.
                let Ok(sends) = log.read(&[lane], 100_000, 10) else { continue };
                numbers.extend(sends.iter().map(|send| send.number));
            }
            assert!((18..20).contains(&numbers.len()), "{lane:?}, sector {sector}: {numbers:?}");
            assert!(numbers.is_sorted_by(|first, second| first < second), "each send once: {numbers:?}");
            assert!(log.damage().places > 0 && log.damage().bytes > 0);
            log.close().expect("it can be written");
            let log = open(&disk, 1 << 20).expect("it opens again");
            assert_eq!(log.damage().places, 0, "damage is reported once");
        }
    }
}

/// A disk that cannot be read at all is not damage of the files on it.
#[test]
fn an_unreadable_disk() {
    let (disk, file) = large_sends(Lane::Normal, false);
    disk.break_sectors(&file, 0..u64::MAX);
    assert!(matches!(open(&disk, 1 << 20).err(), Some(StoreError::Io(..))));
}
