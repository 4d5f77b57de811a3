//! Why an operation of a store failed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::segment::FORMAT;

/// Why an operation failed.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the store; its note.
    Held(PathBuf, String),
    /// The store belongs to another owner.
    OtherOwner(PathBuf, String),
    /// The store has another format.
    OtherFormat(PathBuf, u64),
    /// There is something else at the path.
    NotAStore(PathBuf, String),
    /// A symbolic link leads to a path that does not exist.
    DanglingLink(PathBuf, PathBuf),
    /// Something has the name of a file that the store needs, and is not a file.
    NotAFile(PathBuf),
    /// An argument cannot be used.
    Argument(String),
    /// The log was opened only to read it.
    ReadOnly,
    /// The log was closed.
    Closed,
    /// The file system failed while it did this.
    Io(String, io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(path, note) => {
                let holder = if note.is_empty() { "another process".to_owned() } else { format!("process {note}") };
                write!(
                    f,
                    "the store {} is in use by {holder}: stop it, or give this client a store of its own",
                    path.display()
                )
            }
            Self::OtherOwner(path, owner) => write!(
                f,
                "the store {} has data for another platform or another credential ({owner}): choose another path, or send \
                 its data with the old configuration first",
                path.display()
            ),
            Self::OtherFormat(path, format) => {
                let version = if *format > FORMAT { "a newer" } else { "the older" };
                write!(
                    f,
                    "the store {} has format {format}, and this version reads only {FORMAT}: install {version} version of \
                     tb-mqtt-client, or choose another path",
                    path.display()
                )
            }
            Self::NotAStore(path, why) => {
                write!(f, "{} is not a store: {why}; choose a new or empty directory", path.display())
            }
            Self::DanglingLink(path, target) => write!(
                f,
                "{} is a symbolic link to {}, which does not exist: mount or create the target, or remove the link",
                path.display(),
                target.display()
            ),
            Self::NotAFile(path) => {
                write!(f, "{} is not a file, and the store needs one of this name: move it away", path.display())
            }
            Self::Argument(text) => f.write_str(text),
            Self::ReadOnly => f.write_str("the store was opened only to read it"),
            Self::Closed => f.write_str("the store was closed"),
            Self::Io(action, error) => write!(f, "{action}: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Make an error of the file system an error of the store.
pub(super) fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let text = format!("{action} {}", path.display());
    move |error| StoreError::Io(text, error)
}
