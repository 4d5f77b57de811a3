//! A log on a simulated disk, and what a caller knows about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tb_mqtt_core::points::{PointsBuilder, Timestamp};
use tb_mqtt_core::store::{Damage, Due, Lane, Log, Settings, StoreError, StoredSend, Totals};
use tb_mqtt_core::uplink::{Extras, Identity, Metadata, Uplink};

use super::simulated::{Dice, Simulated, State};

pub const OWNER: &str = "host:1883 \"é\"";

pub fn path() -> &'static Path {
    Path::new("/store")
}

/// All of a send, as text that differs if anything differs.
pub fn described(send: &StoredSend<Uplink>) -> String {
    format!("{send:?}")
}

/// Make a send of random form.
pub fn random_send(dice: &mut Dice, number: u64) -> StoredSend<Uplink> {
    let points = |dice: &mut Dice| {
        let mut builder = PointsBuilder::default();
        for _ in 0..dice.below(4) {
            let timestamp = if dice.one_in(3) { None } else { Timestamp::new(1000 + dice.below(5).cast_signed()) };
            let key = format!("\"k{}\"", dice.below(3));
            let length = if dice.one_in(5) { dice.below(900) } else { dice.below(9) };
            let point = format!("{key}:\"{}\",", "v".repeat(usize::try_from(length).expect("small")));
            let timestamp = timestamp.unwrap_or(Timestamp::NONE);
            builder.push_encoded(timestamp, key.as_bytes(), point.as_bytes()).expect("small");
        }
        builder.finish()
    };
    let device = (!dice.one_in(4)).then(|| Arc::new(Identity::new(["A", "B"][usize::from(dice.one_in(2))], "p")));
    let timeseries = points(dice);
    let extras = dice.one_in(3).then(|| {
        let metadata = dice.one_in(2).then(|| Metadata::new("c", dice.below(100).cast_signed()));
        Box::new(Extras { attributes: points(dice), metadata })
    });
    let main_timestamp = if dice.one_in(2) { Timestamp::NONE } else { Timestamp::new(-5).expect("a time") };
    let uplink = Uplink { device, timeseries, extras, main_timestamp };
    let accepted = 1_700_000_000_000 + dice.below(1000).cast_signed();
    let expires = if dice.one_in(2) { 0 } else { accepted + 1 + dice.below(500).cast_signed() };
    StoredSend { uplink, number, accepted, priority: u8::try_from(dice.below(4)).expect("small"), expires }
}

pub fn borrowed(send: &StoredSend<Uplink>) -> StoredSend<&Uplink> {
    let StoredSend { uplink, number, accepted, priority, expires } = send;
    StoredSend { uplink, number: *number, accepted: *accepted, priority: *priority, expires: *expires }
}

/// What must and may be on disk.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Committed and not settled.
    pub must: BTreeMap<u64, String>,
    /// All sends that were ever passed to a commit. After a power cut, numbers of lost ones are used again.
    pub may: BTreeSet<String>,
}

/// The log and its caller.
pub struct World {
    pub disk: Simulated,
    pub log: Option<Log<Simulated>>,
    pub model: Model,
    /// Accepted sends that are not committed.
    waiting: BTreeMap<u64, StoredSend<Uplink>>,
    held: BTreeSet<u64>,
    released: BTreeMap<u64, Lane>,
    /// When sends were accepted, and when they expire.
    times: BTreeMap<u64, (i64, i64)>,
    next: u64,
    max_segment_bytes: u64,
    /// Models before each step.
    pub steps: Vec<Model>,
}

pub fn open(disk: &Simulated, max_segment_bytes: u64) -> Result<Log<Simulated>, StoreError> {
    Log::open(disk.clone(), path(), OWNER, "1", Settings { max_segment_bytes, read_only: false, waits: false })
}

/// Read the whole backlog.
pub fn read_all(log: &mut Log<Simulated>) -> Vec<StoredSend<Uplink>> {
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let mut last = 0;
        loop {
            // A fault happens once.
            let part = log.read(&[lane], 700, 3).or_else(|_| log.read(&[lane], 700, 3)).expect("no second fault");
            for send in &part {
                assert!(send.number > last, "{} after {last}", send.number);
                assert_eq!(Lane::of(&send.uplink, send.priority), lane);
                last = send.number;
            }
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        assert_eq!(log.backlog(lane), Totals::default());
    }
    all
}

impl World {
    pub fn new(disk: Simulated, model: Model, max_segment_bytes: u64) -> Self {
        Self {
            disk,
            log: None,
            model,
            waiting: BTreeMap::new(),
            held: BTreeSet::new(),
            released: BTreeMap::new(),
            times: BTreeMap::new(),
            next: 1,
            max_segment_bytes,
            steps: Vec::new(),
        }
    }

    /// Note the model for the states that follow.
    fn begin_step(&mut self) {
        self.disk.note(self.steps.len());
        self.steps.push(self.model.clone());
    }

    /// Open the log, again and again while the disk fails.
    pub fn open(&mut self) {
        self.begin_step();
        let log = loop {
            match open(&self.disk, self.max_segment_bytes) {
                Ok(log) => break log,
                Err(StoreError::Io(..)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        self.next = self.next.max(log.next_number());
        self.log = Some(log);
    }

    /// After an opening, everything on disk is in the backlog; take it as the truth.
    pub fn adopt(&mut self) {
        let log = self.log.as_mut().expect("open");
        let found = check_content(log, &self.model);
        self.released.clear();
        self.held = found.iter().map(|send| send.number).collect();
        self.model.must = found.iter().map(|send| (send.number, described(send))).collect();
        self.times = found.iter().map(|send| (send.number, (send.accepted, send.expires))).collect();
    }

    /// Do something at random.
    pub fn step(&mut self, dice: &mut Dice) {
        for _ in 0..dice.below(3) {
            // Numbers of sends that were settled before their commit are missing on disk.
            self.next += dice.below(3);
            let number = self.next;
            self.next += 1;
            self.waiting.insert(number, random_send(dice, number));
        }
        match dice.below(11) {
            0..=4 => {
                let later = dice.below(4);
                let sends: Vec<_> = self.waiting.values().filter(|_| !dice.one_in(1 + later)).cloned().collect();
                let known: Vec<_> = self.held.iter().chain(self.waiting.keys()).copied().collect();
                let settled =
                    if dice.one_in(2) { known.into_iter().filter(|_| dice.one_in(4)).collect() } else { vec![] };
                self.commit(&sends, &settled);
            }
            5 => {
                let known = self.held.iter().chain(self.waiting.keys()).chain(self.released.keys());
                let settled: Vec<_> = known.copied().filter(|_| dice.one_in(3)).collect();
                self.commit(&[], &settled);
            }
            6 => self.release(dice),
            7 => self.read(dice),
            8 => self.drop_oldest(dice.below(2000)),
            9 => self.drop_due(dice),
            _ => self.reopen(),
        }
        self.check_counts();
    }

    fn log(&mut self) -> &mut Log<Simulated> {
        self.log.as_mut().expect("open")
    }

    fn commit(&mut self, sends: &[StoredSend<Uplink>], settled: &[u64]) {
        for number in settled {
            self.model.must.remove(number);
            self.held.remove(number);
            self.released.remove(number);
        }
        self.model.may.extend(sends.iter().map(described));
        self.begin_step();
        let borrowed: Vec<_> = sends.iter().map(borrowed).collect();
        let mut attempts = 0;
        while let Err(error) = self.log().commit(&borrowed, settled) {
            assert!(matches!(error, StoreError::Io(..)), "{error}");
            attempts += 1;
            assert!(attempts < 100, "{error}");
        }
        for send in sends.iter().filter(|send| !settled.contains(&send.number)) {
            self.model.must.insert(send.number, described(send));
            self.times.insert(send.number, (send.accepted, send.expires));
            self.held.insert(send.number);
            self.waiting.remove(&send.number);
        }
        self.waiting.retain(|number, _| !settled.contains(number));
    }

    fn release(&mut self, dice: &mut Dice) {
        let numbers: Vec<_> = self.held.iter().copied().filter(|_| !dice.one_in(3)).collect();
        self.log().release(&numbers);
        for number in numbers {
            self.held.remove(&number);
            let lane = self.lane_of(number);
            self.released.insert(number, lane);
        }
    }

    fn lane_of(&self, number: u64) -> Lane {
        // The description says whether there are attributes.
        let text = &self.model.must[&number];
        let none = text.contains("extras: None") || text.contains("attributes: Points { bytes: [], ");
        match text {
            _ if !none => Lane::Attributes,
            _ if text.contains(", priority: 1,") => Lane::High,
            _ if text.contains(", priority: 2,") => Lane::Low,
            _ => Lane::Normal,
        }
    }

    fn read(&mut self, dice: &mut Dice) {
        self.begin_step();
        let mut lanes: Vec<_> = Lane::ALL.into_iter().filter(|_| dice.one_in(2)).collect();
        if lanes.is_empty() {
            lanes.push(Lane::Normal);
        }
        let (max_bytes, max_sends) = (usize::try_from(dice.below(2000)).expect("small"), 1 + dice.below(5));
        let max_sends = usize::try_from(max_sends).expect("small");
        let mut found = self.log().read(&lanes, max_bytes, max_sends);
        if found.is_err() {
            found = self.log().read(&lanes, max_bytes, max_sends);
        }
        let found = found.expect("a fault happens once");
        let expected: Vec<_> = self
            .released
            .iter()
            .filter(|(_, one)| lanes.contains(one))
            .map(|(number, _)| *number)
            .take(found.len())
            .collect();
        assert_eq!(found.iter().map(|send| send.number).collect::<Vec<_>>(), expected);
        assert!(!found.is_empty() || !self.released.values().any(|one| lanes.contains(one)));
        for send in found {
            assert_eq!(described(&send), self.model.must[&send.number]);
            self.released.remove(&send.number);
            self.held.insert(send.number);
        }
    }

    fn drop_oldest(&mut self, nbytes: u64) {
        // Dropping settles; which sends, is known only afterwards.
        let before = self.model.clone();
        self.model.must.retain(|number, _| !self.released.contains_key(number));
        self.begin_step();
        self.model = before;
        let mut dropped = self.log().drop_oldest(nbytes);
        if dropped.is_err() {
            dropped = self.log().drop_oldest(nbytes);
        }
        for one in dropped.expect("a fault happens once") {
            // The lowest priority first, and of one the smallest number.
            let rank = |lane: Lane| [1, 1, 2, 0][lane.index()];
            let first = self.released.iter().min_by_key(|(number, lane)| (rank(**lane), **number));
            assert_eq!(first.map(|(number, _)| *number), Some(one.number));
            self.released.remove(&one.number);
            self.model.must.remove(&one.number);
        }
    }

    fn drop_due(&mut self, dice: &mut Dice) {
        let start = 1_700_000_000_000;
        let time = |dice: &mut Dice, below: u64| start + dice.below(below).cast_signed();
        let due = Due { expired_at: time(dice, 1500), accepted: (start, time(dice, 300)) };
        let max_sends = 1 + usize::try_from(dice.below(6)).expect("small");
        let is_due = |number: &u64| {
            let (accepted, expires) = self.times[number];
            (expires != 0 && expires <= due.expired_at) || (due.accepted.0..due.accepted.1).contains(&accepted)
        };
        let expected: BTreeSet<_> = self.released.keys().copied().filter(is_due).collect();
        let before = self.model.clone();
        self.model.must.retain(|number, _| !expected.contains(number));
        self.begin_step();
        self.model = before;
        let mut dropped = self.log().drop_due(due, max_sends);
        if dropped.is_err() {
            dropped = self.log().drop_due(due, max_sends);
        }
        let dropped = dropped.expect("a fault happens once");
        assert!(dropped.len() == expected.len().min(max_sends), "{dropped:?} of {expected:?}");
        for one in dropped {
            assert!(expected.contains(&one.number));
            let expires = self.times[&one.number].1;
            assert_eq!(one.expired, expires != 0 && expires <= due.expired_at);
            self.released.remove(&one.number);
            self.model.must.remove(&one.number);
        }
    }

    fn reopen(&mut self) {
        self.begin_step();
        if let Some(log) = self.log.take() {
            // What was committed is safe, whatever happens here.
            let _ = log.close();
        }
        self.open();
        self.adopt();
    }

    fn check_counts(&mut self) {
        let sends: u64 = Lane::ALL.iter().map(|lane| self.log().backlog(*lane).sends).sum();
        assert_eq!(sends, self.released.len() as u64);
        let expiries = self.released.keys().map(|number| self.times[number].1).filter(|expires| *expires != 0);
        if let Some(first) = expiries.min() {
            let next = self.log().next_expiry();
            assert!(next.is_some_and(|next| next <= first), "{next:?}, and one expires at {first}");
        }
    }
}

/// Read everything; each committed send must be there, once and equal, and nothing that no commit had.
pub fn check_content(log: &mut Log<Simulated>, model: &Model) -> Vec<StoredSend<Uplink>> {
    let counted: u64 = Lane::ALL.iter().map(|lane| log.backlog(*lane).sends).sum();
    let datapoints: u64 = Lane::ALL.iter().map(|lane| log.backlog(*lane).datapoints).sum();
    let found = read_all(log);
    assert_eq!(found.len() as u64, counted, "counted and found");
    let points = found.iter().map(|send| (send.uplink.timeseries.count() + send.uplink.attribute_count()) as u64);
    assert_eq!(points.sum::<u64>(), datapoints);
    let mut numbers = BTreeSet::new();
    for send in &found {
        assert!(numbers.insert(send.number), "{} is there twice", send.number);
        assert!(send.number < log.next_number());
        let text = described(send);
        match model.must.get(&send.number) {
            Some(expected) => assert_eq!(text, *expected),
            None => assert!(model.may.contains(&text), "{text} was never passed"),
        }
    }
    for number in model.must.keys() {
        assert!(numbers.contains(number), "{number} is lost");
    }
    found
}

/// Open the log on a disk after a power cut, and check what is there.
pub fn check_image(image: &State, model: &Model) {
    let mut log = open(&Simulated::new(image.clone()), 700).expect("it opens");
    check_content(&mut log, model);
    assert_eq!(log.damage(), Damage::default(), "a power cut is not damage");
}
