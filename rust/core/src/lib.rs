//! The work that is done once per datapoint: encode it, group it, cut it into payloads, and check the rate limits.
//!
//! This crate sees values, limits and the time. It uses neither Python nor a clock, and files only in [`store`], which keeps sends on
//! disk.
//!
//! A datapoint passes through these modules: [`json`] writes key and value once, with numbers converted by [`numbers`]; [`points`]
//! holds them; [`uplink`] adds the device; [`gathering`] queues the sends of a device; [`group`] puts the datapoints of one device and timestamp side by side; [`pack`] copies
//! them into payloads; [`attribution`] records which uplinks a payload acknowledges; [`repack`] cuts a payload for tighter limits;
//! [`buckets`] limits when they may be sent. `table` (feature `arrow`) makes points from the columns of a table.

pub mod attribution;
pub mod buckets;
pub mod gathering;
pub mod group;
pub mod inline;
pub mod json;
pub mod key;
pub mod locks;
pub mod numbers;
pub mod pack;
pub mod points;
pub mod repack;
pub mod short;
pub mod sink;
pub mod small;
pub mod store;
#[cfg(feature = "arrow")]
pub mod table;
pub mod uplink;
