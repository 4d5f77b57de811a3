//! The datapoints of one send and the device that they belong to.

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
    /// Make an identity.
    #[must_use]
    pub fn new(name: &str, profile: &str) -> Self {
        let mut name_json = Vec::with_capacity(name.len() + 2);
        json::write_str(name, &mut name_json);
        Self { name: name.into(), profile: profile.into(), name_json: name_json.into() }
    }

    /// Return the device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Return the device's profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// Return the name as JSON, with its quotes.
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

/// The connector of a sub-device's timeseries and the time of receipt: `,"metadata":{…}` of each record, without the time of
/// publishing and the closing bracket.
#[derive(Debug, Clone)]
pub struct Metadata(Box<[u8]>);

impl Metadata {
    /// Make metadata from the name of the connector and the time of receipt in milliseconds.
    #[must_use]
    pub fn new(connector: &str, received: i64) -> Self {
        let mut open = b",\"metadata\":{\"connector\":".to_vec();
        json::write_str(connector, &mut open);
        open.extend_from_slice(b",\"receivedTs\":");
        write_int(received, &mut open);
        open.extend_from_slice(b",\"publishedTs\":");
        Self(open.into())
    }

    /// Make metadata of the bytes that `as_bytes` returned.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Return the text without the time of publishing and the closing bracket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Return the complete text for a payload that is published at this time, in milliseconds.
    #[must_use]
    pub fn published(&self, published: i64) -> Vec<u8> {
        let mut tail = self.0.to_vec();
        write_int(published, &mut tail);
        tail.push(b'}');
        tail
    }
}

/// The parts that few uplinks have.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Attributes.
    pub attributes: Points,
    /// Metadata of the timeseries.
    pub metadata: Option<Metadata>,
}

/// The datapoints of one send.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// The sub-device, or none for the connected device itself.
    pub device: Option<Arc<Identity>>,
    /// Timeseries datapoints.
    pub timeseries: Points,
    /// Boxed because most uplinks have none, and a queue may have a million uplinks.
    pub extras: Option<Box<Extras>>,
    /// The timestamp of timeseries datapoints that have none of their own.
    pub main_timestamp: Timestamp,
}

impl Uplink {
    /// Return the attributes.
    #[must_use]
    pub fn attributes(&self) -> Option<&Points> {
        self.extras.as_ref().map(|extras| &extras.attributes)
    }

    /// Return the metadata of the timeseries.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.extras.as_ref().and_then(|extras| extras.metadata.as_ref())
    }

    /// Return the number of attributes.
    #[must_use]
    pub fn attribute_count(&self) -> usize {
        self.attributes().map_or(0, Points::count)
    }

    /// Return the number of datapoints.
    #[must_use]
    pub fn datapoints(&self) -> usize {
        self.timeseries.count() + self.attribute_count()
    }

    /// Return the number of encoded bytes.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let metadata = self.metadata().map_or(0, |metadata| metadata.0.len());
        self.timeseries.nbytes() + self.attributes().map_or(0, Points::nbytes) + metadata
    }
}
