//! What one call sends: whose datapoints they are, and the datapoints.

use std::sync::Arc;

use crate::json::{self, write_int};
use crate::points::{Points, Timestamp};

/// A gateway's sub-device. Shared by all its uplinks, its name encoded once.
#[derive(Debug)]
pub struct Identity {
    name: Box<str>,
    profile: Box<str>,
    name_json: Box<[u8]>,
}

impl Identity {
    /// An identity of this name and profile.
    #[must_use]
    pub fn new(name: &str, profile: &str) -> Self {
        let mut name_json = Vec::with_capacity(name.len() + 2);
        json::write_str(name, &mut name_json);
        Self { name: name.into(), profile: profile.into(), name_json: name_json.into() }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// The name as JSON, with its quotes.
    #[must_use]
    pub fn name_json(&self) -> &[u8] {
        &self.name_json
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.profile == other.profile
    }
}

impl Eq for Identity {}

/// Where a sub-device's timeseries came from, and when: `,"metadata":{…}` of each record, without what is known last.
#[derive(Debug, Clone)]
pub struct Metadata(Box<[u8]>);

impl Metadata {
    /// Received by a connector of this name at this time, in milliseconds.
    #[must_use]
    pub fn new(connector: &str, received: i64) -> Self {
        let mut open = b",\"metadata\":{\"connector\":".to_vec();
        json::write_str(connector, &mut open);
        open.extend_from_slice(b",\"receivedTs\":");
        write_int(received, &mut open);
        open.extend_from_slice(b",\"publishedTs\":");
        Self(open.into())
    }

    /// The whole of it, for a payload that is published at this time.
    #[must_use]
    pub fn published(&self, published: i64) -> Vec<u8> {
        let mut tail = self.0.to_vec();
        write_int(published, &mut tail);
        tail.push(b'}');
        tail
    }
}

/// What few uplinks have.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Attributes.
    pub attributes: Points,
    /// Of the timeseries.
    pub metadata: Option<Metadata>,
}

/// The datapoints of one call.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Whose they are; none for the connected device itself.
    pub device: Option<Arc<Identity>>,
    /// Timeseries datapoints.
    pub timeseries: Points,
    /// Boxed because most uplinks have none: there may be a million of them.
    pub extras: Option<Box<Extras>>,
    /// The timestamp of timeseries datapoints that have none of their own.
    pub main_timestamp: Timestamp,
}

impl Uplink {
    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> Option<&Points> {
        self.extras.as_ref().map(|extras| &extras.attributes)
    }

    /// The metadata of the timeseries.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.extras.as_ref().and_then(|extras| extras.metadata.as_ref())
    }

    /// Number of attributes.
    #[must_use]
    pub fn attribute_count(&self) -> usize {
        self.attributes().map_or(0, Points::count)
    }

    /// Encoded bytes held.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let metadata = self.metadata().map_or(0, |metadata| metadata.0.len());
        self.timeseries.nbytes() + self.attributes().map_or(0, Points::nbytes) + metadata
    }
}
