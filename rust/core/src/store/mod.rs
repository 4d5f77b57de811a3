//! The store: sends on disk, so that they survive the process and the power.
//!
//! The log is a directory of segments ([`segment`]), files to which frames ([`frame`]) are only appended. A commit is one write and
//! one sync: chunks of sends ([`chunk`]) and the numbers of sends that are settled. [`log`] has the state and the commits, `reading`
//! reads the backlog, and `recovery` opens a log after a crash and moves damaged bytes to a folder `quarantine`. [`files`] is the
//! file system; tests have one that fails and loses power.

pub mod chunk;
pub mod files;
pub mod frame;
pub mod intervals;
pub mod log;
mod reading;
mod recovery;
pub mod segment;
mod verify;
pub mod wire;

pub use chunk::{Lane, StoredSend, Totals};
pub use files::{Disk, FileSystem, StoreFile};
pub use log::{Damage, Log, Settings, StoreError};
pub use verify::{DeviceTotals, Fault, Report};
