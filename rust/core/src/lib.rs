//! What is done once per datapoint: encode it, group it, cut it into payloads, and ask the rate limits.
//!
//! This crate sees values, limits and the time. It has no Python, no I/O and no clock in it.
//!
//! The road of a datapoint: [`json`] writes key and value once, as [`numbers`] says, [`points`] holds them, [`uplink`] says whose they are,
//! [`group`] puts what belongs together side by side, [`pack`] copies it into payloads, [`attribution`] says which uplinks a payload
//! answers for, [`repack`] cuts a payload for tighter limits, [`buckets`] says when they may go.

pub mod attribution;
pub mod buckets;
pub mod group;
pub mod inline;
pub mod json;
pub mod key;
pub mod locks;
pub mod numbers;
pub mod pack;
pub mod points;
pub mod repack;
pub mod sink;
pub mod uplink;
