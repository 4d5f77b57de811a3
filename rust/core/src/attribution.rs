//! The uplinks that a payload acknowledges, and the datapoints that each of them wrote.

use std::iter;
use std::ops::Range;

use ahash::AHashMap;

/// An uplink, and the number of its datapoints that the payload acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Index in the input.
    pub uplink: usize,
    /// Number of datapoints that the payload acknowledges.
    pub datapoints: usize,
}

/// Datapoints that one source wrote in a row, by their numbers in the payload.
#[derive(Debug, Clone)]
struct Share {
    /// Place of the source.
    source: usize,
    /// Numbers of the datapoints.
    written: Range<usize>,
}

/// The sources of a payload, each once, in order of first appearance.
#[derive(Debug, Clone, Default)]
pub struct Attribution {
    sources: Vec<Source>,
    /// In the order of writing. Empty while every source has written its datapoints in a row and none was superseded: then they
    /// follow from the counts of the sources, and the usual payload needs no list.
    shares: Vec<Share>,
}

impl Attribution {
    /// Attribute one datapoint to one uplink.
    #[must_use]
    pub fn of_one(uplink: usize) -> Self {
        Self { sources: vec![Source { uplink, datapoints: 1 }], shares: Vec::new() }
    }

    /// Return the sources.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Count datapoints that an uplink appends to a payload of `before` datapoints. `place` is its place among the sources, if it
    /// is a source already. Return its place.
    #[inline]
    pub fn append(&mut self, place: Option<usize>, uplink: usize, before: usize, datapoints: usize) -> usize {
        if place.is_some_and(|place| place + 1 != self.sources.len()) {
            self.spell_out();
        }
        let source = self.count(place, uplink, datapoints);
        if !self.shares.is_empty() {
            match self.shares.last_mut() {
                Some(last) if last.source == source && last.written.end == before => last.written.end += datapoints,
                _ => self.shares.push(Share { source, written: before..before + datapoints }),
            }
        }
        source
    }

    /// Count a datapoint of an uplink that replaces the datapoint with the number `written`. Return the uplink's place.
    pub fn supersede(&mut self, place: Option<usize>, uplink: usize, written: usize) -> usize {
        self.spell_out();
        let source = self.count(place, uplink, 1);
        self.shares.push(Share { source, written: written..written + 1 });
        source
    }

    fn count(&mut self, place: Option<usize>, uplink: usize, datapoints: usize) -> usize {
        let place = place.unwrap_or(self.sources.len());
        match self.sources.get_mut(place) {
            Some(source) => source.datapoints += datapoints,
            None => self.sources.push(Source { uplink, datapoints }),
        }
        place
    }

    #[cold]
    fn spell_out(&mut self) {
        if self.shares.is_empty() {
            self.shares = self.shares().collect();
        }
    }

    fn shares(&self) -> impl Iterator<Item = Share> {
        let implied = if self.shares.is_empty() { self.sources.as_slice() } else { &[] };
        let implied = implied.iter().enumerate().scan(0, |before, (source, counted)| {
            let written = *before..*before + counted.datapoints;
            *before = written.end;
            Some(Share { source, written })
        });
        self.shares.iter().cloned().chain(implied)
    }

    /// Return, for each datapoint of the payload, the place of the source that wrote its value.
    #[must_use]
    pub fn writers(&self, datapoints: usize) -> Vec<usize> {
        let mut writers = vec![0; datapoints];
        for Share { source, written } in self.shares() {
            writers[written].fill(source);
        }
        writers
    }

    /// Return the attribution of each of `parts` payloads into which the payload is cut. `goes_to` has the part of each of its
    /// datapoints. The uplinks of the result are places among the sources of the whole.
    #[must_use]
    pub fn cut(&self, goes_to: &[usize], parts: usize) -> Vec<Self> {
        let mut cut: Vec<Self> = iter::repeat_with(Self::default).take(parts).collect();
        let mut lengths = vec![0; parts];
        let mut numbers = Vec::with_capacity(goes_to.len());
        let mut places = AHashMap::new();
        for Share { source, written } in self.shares() {
            for datapoint in written {
                let part = goes_to[datapoint];
                let place = places.get(&(part, source)).copied();
                let place = if datapoint == numbers.len() {
                    numbers.push(lengths[part]);
                    lengths[part] += 1;
                    cut[part].append(place, source, numbers[datapoint], 1)
                } else {
                    cut[part].supersede(place, source, numbers[datapoint])
                };
                places.insert((part, source), place);
            }
        }
        cut
    }
}
