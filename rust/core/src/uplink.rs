//! What one call sends: whose datapoints they are, and the datapoints.

use std::sync::Arc;

use crate::json;
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

/// The datapoints of one call.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Whose they are; none for the connected device itself.
    pub device: Option<Arc<Identity>>,
    /// Timeseries datapoints.
    pub timeseries: Points,
    /// Attributes; boxed because most uplinks have none.
    pub attributes: Option<Box<Points>>,
    /// The timestamp of timeseries datapoints that have none of their own.
    pub main_timestamp: Timestamp,
}

impl Uplink {
    /// Number of attributes.
    #[must_use]
    pub fn attribute_count(&self) -> usize {
        self.attributes.as_ref().map_or(0, |points| points.count())
    }

    /// Encoded bytes held.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.timeseries.nbytes() + self.attributes.as_ref().map_or(0, |points| points.nbytes())
    }
}
