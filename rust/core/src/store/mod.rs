//! The store: sends on disk, so that they survive the process and the power.
//!
//! The log is a directory of segments ([`segment`]), files to which frames ([`frame`]) are only appended. A commit is one write and
//! one sync: chunks of sends ([`chunk`]) and the numbers of sends that are settled. [`log`] has the state and the commits, `reading`
//! reads the backlog, and `recovery` opens a log after a crash and moves damaged bytes to a folder `quarantine`. [`files`] is the
//! file system; tests have one that fails and loses power.
//!
//! Every head lists the segments that must exist. A segment without unsettled sends is removed after an empty file, its tombstone, is
//! on disk. The name of another empty file has the number of the newest segment, and its length when it was made or closed. So a
//! segment that is missing or too short is noticed when the log is opened.

pub mod chunk;
mod error;
pub mod files;
pub mod frame;
mod index;
pub mod intervals;
pub mod log;
mod reading;
mod recovery;
pub mod segment;
mod verify;
pub mod wire;

pub use chunk::{LANES, Lane, StoredSend, Totals};
pub use error::StoreError;
pub use files::{Disk, FileKind, FileSystem, StoreFile};
pub use log::{Damage, Log, Settings};
pub use reading::{Dropped, Due};
pub use verify::{DeviceTotals, Fault, Report};
