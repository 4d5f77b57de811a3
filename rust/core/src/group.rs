//! Puts the runs of many uplinks side by side: by device, then by timestamp, each in order of first appearance.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use crate::numbers::Conversions;
use crate::points::{Point, PointIter, Points, Timestamp};
use crate::uplink::{Identity, Uplink};

/// A kind of datapoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Timeseries.
    Timeseries,
    /// Attributes. They have no timestamp, so a device has one group.
    Attributes,
}

/// A run of one uplink.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Its points.
    pub bytes: &'a [u8],
    /// Number of points.
    pub count: usize,
    /// Index of the uplink.
    pub source: usize,
    next: usize,
}

impl<'a> Piece<'a> {
    /// Return some of the points of this piece.
    #[must_use]
    pub fn part(self, bytes: &'a [u8], count: usize) -> Self {
        Self { bytes, count, ..self }
    }
}

/// The part of a record around its points.
#[derive(Debug, Clone, Copy)]
pub struct Around<'g> {
    /// The timestamp of all of them.
    pub timestamp: Timestamp,
    /// `,"metadata":{…}`, or nothing.
    pub metadata: &'g [u8],
}

/// Runs of one device with one timestamp. Runs of an uplink with metadata are in groups of their own.
#[derive(Debug)]
struct Group {
    timestamp: Timestamp,
    /// Index of its metadata.
    metadata: usize,
    first_piece: usize,
    last_piece: usize,
    next: usize,
}

/// The groups of one device.
#[derive(Debug)]
struct DeviceGroups<'a> {
    identity: Option<&'a Arc<Identity>>,
    first_group: usize,
    last_group: usize,
    /// Whether its groups are in no index, because each had a later timestamp than the one before it, and no metadata.
    ascending: bool,
    /// Whether another device has the same name, with another profile.
    shares_name: bool,
}

impl<'a> DeviceGroups<'a> {
    fn new(identity: Option<&'a Arc<Identity>>, shares_name: bool) -> Self {
        Self { identity, first_group: END, last_group: END, ascending: true, shares_name }
    }
}

/// The index that ends a list.
const END: usize = usize::MAX;

/// Devices, their groups and the groups' runs: three arrays linked by index, since most lists have one element.
#[derive(Debug, Default)]
pub struct Grouped<'a> {
    devices: Vec<DeviceGroups<'a>>,
    groups: Vec<Group>,
    pieces: Vec<Piece<'a>>,
    metadata: Vec<Vec<u8>>,
    /// The first suspicious timestamp.
    suspicious: Option<Timestamp>,
}

/// One device of [`Grouped`].
#[derive(Debug, Clone, Copy)]
pub struct DeviceView<'g, 'a> {
    grouped: &'g Grouped<'a>,
    index: usize,
}

/// One group of [`Grouped`].
#[derive(Debug, Clone, Copy)]
pub struct GroupView<'g, 'a> {
    grouped: &'g Grouped<'a>,
    index: usize,
}

impl<'a> Grouped<'a> {
    /// Group the datapoints of one kind. `published` is the time of publishing in metadata, in milliseconds, and `runs` the number of
    /// runs, for which memory is needed.
    ///
    /// The platform gives all datapoints of a payload that have no timestamp the time at which the payload arrives, so a payload
    /// must not have two values of such a key. The second one is in the second group of devices, and so on: no payload has
    /// datapoints of two of them. Usually there is only one.
    #[must_use]
    pub fn rounds(uplinks: &[&'a Uplink], kind: Kind, published: i64, runs: usize) -> Vec<Self> {
        let mut rounds = vec![Round::default()];
        rounds[0].grouped.groups.reserve(runs);
        rounds[0].grouped.pieces.reserve(runs);
        let mut unstamped = UnstampedKeys::default();
        for (source, &uplink) in uplinks.iter().enumerate() {
            let Some(points) = points_of(uplink, kind) else { continue };
            for (run, bytes) in points.runs() {
                let timestamp = match kind {
                    Kind::Timeseries => run.timestamp.or(uplink.main_timestamp),
                    Kind::Attributes => Timestamp::NONE,
                };
                let number = if timestamp == Timestamp::NONE && kind == Kind::Timeseries {
                    unstamped.round_of(uplink, bytes)
                } else {
                    0
                };
                if number == rounds.len() {
                    rounds.push(Round::default());
                }
                let piece = Piece { bytes, count: run.count.get() as usize, source, next: END };
                rounds[number].add(uplink, kind, published, timestamp, piece);
            }
        }
        rounds.into_iter().map(|round| round.grouped).collect()
    }

    /// Return the first timestamp that is probably not in milliseconds.
    #[must_use]
    pub fn suspicious_timestamp(&self) -> Option<Timestamp> {
        self.suspicious
    }

    /// Return the devices in order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView<'_, 'a>> {
        (0..self.devices.len()).map(|index| DeviceView { grouped: self, index })
    }

    /// Begin a record after all others.
    pub fn push_record(&mut self, identity: Option<&'a Arc<Identity>>, around: Around<'_>) {
        if self.devices.last().is_none_or(|device| device.identity != identity) {
            self.devices.push(DeviceGroups::new(identity, false));
        }
        let metadata = if around.metadata.is_empty() { END } else { self.add_metadata(around.metadata.to_vec()) };
        self.add_group(self.devices.len() - 1, around.timestamp, metadata);
    }

    /// Append datapoints to the last record.
    pub fn push_piece(&mut self, bytes: &'a [u8], count: usize, source: usize) {
        self.add_piece(self.groups.len() - 1, Piece { bytes, count, source, next: END });
    }

    fn add_metadata(&mut self, written: Vec<u8>) -> usize {
        self.metadata.push(written);
        self.metadata.len() - 1
    }

    fn add_group(&mut self, device: usize, timestamp: Timestamp, metadata: usize) -> usize {
        if timestamp.is_suspicious() {
            self.suspicious.get_or_insert(timestamp);
        }
        let group = self.groups.len();
        self.groups.push(Group { timestamp, metadata, first_piece: END, last_piece: END, next: END });
        let device = &mut self.devices[device];
        if device.first_group == END {
            device.first_group = group;
        } else {
            self.groups[device.last_group].next = group;
        }
        device.last_group = group;
        group
    }

    fn add_piece(&mut self, group: usize, piece: Piece<'a>) {
        let index = self.pieces.len();
        self.pieces.push(piece);
        let group = &mut self.groups[group];
        if group.first_piece == END {
            group.first_piece = index;
        } else {
            self.pieces[group.last_piece].next = index;
        }
        group.last_piece = index;
    }
}

impl<'g, 'a> DeviceView<'g, 'a> {
    /// Return the number of the device, in order of first appearance.
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// Return the identity of the device.
    #[must_use]
    pub fn identity(self) -> Option<&'a Identity> {
        self.grouped.devices[self.index].identity.map(Arc::as_ref)
    }

    /// Return the identity of the device as a shared pointer.
    #[must_use]
    pub fn shared_identity(self) -> Option<Arc<Identity>> {
        self.grouped.devices[self.index].identity.map(Arc::clone)
    }

    /// Whether another device has the same name: one JSON object cannot have both.
    #[must_use]
    pub fn shares_name(self) -> bool {
        self.grouped.devices[self.index].shares_name
    }

    /// Return the groups in order.
    pub fn groups(self) -> impl Iterator<Item = GroupView<'g, 'a>> {
        let grouped = self.grouped;
        follow(grouped.devices[self.index].first_group, |index| grouped.groups[index].next)
            .map(move |index| GroupView { grouped, index })
    }
}

impl<'g, 'a> GroupView<'g, 'a> {
    /// Return the part of the record around the datapoints of the group.
    #[must_use]
    pub fn around(self) -> Around<'g> {
        let grouped: &'g Grouped<'a> = self.grouped;
        let Group { timestamp, metadata, .. } = *self.group();
        Around { timestamp, metadata: grouped.metadata.get(metadata).map_or(&[], Vec::as_slice) }
    }

    /// Whether a key can occur more than once: only if there are several runs, because keys differ inside a run.
    #[must_use]
    pub fn may_repeat_keys(self) -> bool {
        self.group().first_piece != self.group().last_piece
    }

    /// Return the runs in order.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        let grouped: &'g Grouped<'a> = self.grouped;
        follow(self.group().first_piece, |index| grouped.pieces[index].next).map(|index| grouped.pieces[index])
    }

    fn group(self) -> &'g Group {
        &self.grouped.groups[self.index]
    }
}

fn follow(first: usize, next: impl Fn(usize) -> usize) -> impl Iterator<Item = usize> {
    let some = |index: usize| (index != END).then_some(index);
    std::iter::successors(some(first), move |&index| some(next(index)))
}

/// Return the conversions that were made when the datapoints of one kind were encoded for a client.
#[must_use]
pub fn conversions(uplinks: &[&Uplink], kind: Kind) -> Conversions {
    uplinks.iter().filter_map(|uplink| points_of(uplink, kind)).map(Points::conversions).sum()
}

/// Return the datapoints of one kind, if the uplink can have any.
pub(crate) fn points_of(uplink: &Uplink, kind: Kind) -> Option<&Points> {
    match kind {
        Kind::Timeseries => Some(&uplink.timeseries),
        Kind::Attributes => uplink.attributes(),
    }
}

/// Groups while runs are added to them.
#[derive(Debug, Default)]
struct Round<'a> {
    grouped: Grouped<'a>,
    index: GroupIndex<'a>,
    /// The last uplink that a run came from, with the indexes of its device and its metadata.
    last: Option<(usize, usize, usize)>,
}

impl<'a> Round<'a> {
    #[inline]
    fn add(&mut self, uplink: &'a Uplink, kind: Kind, published: i64, timestamp: Timestamp, piece: Piece<'a>) {
        let (device, metadata) = match self.last {
            Some((source, device, metadata)) if source == piece.source => (device, metadata),
            _ => {
                let device = self.index.device(&mut self.grouped, uplink.device.as_ref());
                let metadata = match uplink.metadata() {
                    Some(metadata) if kind == Kind::Timeseries => {
                        self.grouped.add_metadata(metadata.published(published))
                    }
                    _ => END,
                };
                self.last = Some((piece.source, device, metadata));
                (device, metadata)
            }
        };
        let group = self.index.group(&mut self.grouped, device, timestamp, metadata);
        self.grouped.add_piece(group, piece);
    }
}

/// Name and profile of a sub-device, or none for the connected device itself.
type DeviceKey<'a> = Option<(&'a str, &'a str)>;

fn device_key(identity: Option<&Arc<Identity>>) -> DeviceKey<'_> {
    identity.map(|identity| (identity.name(), identity.profile()))
}

/// For each device with datapoints without a timestamp: the number of its last round, and the keys that it has there.
#[derive(Debug, Default)]
struct UnstampedKeys<'a>(AHashMap<DeviceKey<'a>, (usize, AHashSet<&'a [u8]>)>);

impl<'a> UnstampedKeys<'a> {
    /// Return the round of a run without a timestamp: the last one of its device, or the one after it if that has a key of the run.
    fn round_of(&mut self, uplink: &'a Uplink, run: &'a [u8]) -> usize {
        let (round, keys) = self.0.entry(device_key(uplink.device.as_ref())).or_default();
        if PointIter(run).any(|point| keys.contains(point.key())) {
            *round += 1;
            keys.clear();
        }
        keys.extend(PointIter(run).map(Point::key));
        *round
    }
}

/// Finds the device and the group of a run while grouping.
#[derive(Debug, Default)]
struct GroupIndex<'a> {
    devices: AHashMap<DeviceKey<'a>, usize>,
    names: AHashMap<&'a str, usize>,
    groups: AHashMap<(usize, Timestamp), usize>,
    /// By the index of their metadata, which belongs to one uplink.
    with_metadata: AHashMap<(usize, Timestamp), usize>,
}

impl<'a> GroupIndex<'a> {
    /// Add the groups of a device to the index, because they are no longer in the order of time.
    #[cold]
    fn index_groups(&mut self, grouped: &mut Grouped<'a>, device: usize) {
        grouped.devices[device].ascending = false;
        let groups = DeviceView { grouped, index: device }.groups();
        self.groups.extend(groups.map(|group| ((device, group.group().timestamp), group.index)));
    }

    fn device(&mut self, grouped: &mut Grouped<'a>, identity: Option<&'a Arc<Identity>>) -> usize {
        let key = device_key(identity);
        if let Some(&device) = self.devices.get(&key) {
            return device;
        }
        let device = grouped.devices.len();
        let mut shares_name = false;
        if let Some((name, _)) = key
            && let Some(namesake) = self.names.insert(name, device)
        {
            grouped.devices[namesake].shares_name = true;
            shares_name = true;
        }
        grouped.devices.push(DeviceGroups::new(identity, shares_name));
        self.devices.insert(key, device);
        device
    }

    fn group(&mut self, grouped: &mut Grouped<'a>, device: usize, timestamp: Timestamp, metadata: usize) -> usize {
        // Uplinks are in the order of time, so the newest group is the likely one, and a new group the next likely one.
        let newest = grouped.groups.get(grouped.devices[device].last_group);
        if let Some(newest) = newest
            && (newest.timestamp, newest.metadata) == (timestamp, metadata)
        {
            return grouped.devices[device].last_group;
        }
        if grouped.devices[device].ascending {
            if metadata == END && newest.is_none_or(|newest| newest.timestamp < timestamp) {
                return grouped.add_group(device, timestamp, metadata);
            }
            self.index_groups(grouped, device);
        }
        if metadata == END {
            return *self
                .groups
                .entry((device, timestamp))
                .or_insert_with(|| grouped.add_group(device, timestamp, metadata));
        }
        *self.with_metadata.entry((metadata, timestamp)).or_insert_with(|| {
            // Later datapoints are newer and must not be written before this group.
            self.groups.remove(&(device, timestamp));
            grouped.add_group(device, timestamp, metadata)
        })
    }
}
