//! What the store needs of a file system, and the real one.

use std::fs;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// How often something is tried before it counts as broken.
pub(super) const ATTEMPTS: u32 = 3;

/// What a name stands for; a symbolic link stands for what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// Nothing.
    Missing,
    /// A file with bytes.
    File,
    /// A directory.
    Directory,
    /// A pipe, a socket or a device.
    Special,
    /// A symbolic link to this path, which does not exist.
    DanglingLink(PathBuf),
}

/// A file system. Tests have one that fails and loses power.
pub trait FileSystem: Send + Sync {
    /// An open file.
    type File: StoreFile;
    /// A held lock, released when it is dropped.
    type Lock: Send;

    /// Return what a name stands for, without waiting for it: to open a pipe may take forever.
    ///
    /// # Errors
    /// When the file system does not say.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;

    /// Create a directory and its missing parents, so that they survive a power cut. It may exist.
    ///
    /// # Errors
    /// When the directory cannot be created.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Return the names in a directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Open a file to read it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Create a file that does not exist, to write and read it.
    ///
    /// # Errors
    /// When the file exists or cannot be created.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Rename a file inside the store, and replace a file that has the new name.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Remove a file.
    ///
    /// # Errors
    /// When the file cannot be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Make the names in a directory survive a power cut.
    ///
    /// # Errors
    /// When the directory cannot be synced.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Lock a file, creating it if needed, and write a note into it. If another one has the lock, wait for it or return its note.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    fn lock(&self, path: &Path, note: &str, waits: bool) -> io::Result<Result<Self::Lock, String>>;
}

/// An open file of a store.
pub trait StoreFile: Send {
    /// Return the number of bytes.
    ///
    /// # Errors
    /// When the file system does not say.
    fn length(&self) -> io::Result<u64>;

    /// Read bytes at a place; fewer than asked for are no error, 0 is the end of the file.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Write bytes at a place; fewer than given are no error.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cut the file.
    ///
    /// # Errors
    /// When the file cannot be cut.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Make the content survive a power cut.
    ///
    /// # Errors
    /// When the content, or a part of it, may be lost. Whether a later call succeeds says nothing about it.
    fn sync(&self) -> io::Result<()>;
}

/// Write all bytes at a place.
///
/// # Errors
/// The error of `write_at`.
pub fn write_all_at(file: &impl StoreFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Read bytes at a place until the buffer is full or the file ends. Return their number.
///
/// # Errors
/// The error of `read_at`.
pub fn read_full_at(file: &impl StoreFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl FileSystem for Disk {
    type File = File;
    type Lock = File;

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(FileKind::File),
            Ok(found) if found.is_dir() => Ok(FileKind::Directory),
            Ok(_) => Ok(FileKind::Special),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(fs::read_link(path).map_or(FileKind::Missing, FileKind::DanglingLink))
            }
            Err(error) => Err(error),
        }
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let missing: Vec<_> = path.ancestors().take_while(|one| !one.exists()).map(PathBuf::from).collect();
        for one in missing.into_iter().rev() {
            match fs::create_dir(&one) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => one.parent().map_or(Ok(()), |parent| self.sync_directory(parent))?,
            }
        }
        if path.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Other systems write names without being asked.
    #[cfg(not(unix))]
    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path, note: &str, waits: bool) -> io::Result<Result<File, String>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let locked = if waits { wait_for_lock(&file).map_err(TryLockError::Error) } else { file.try_lock() };
        match locked {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(note.as_bytes())?;
                Ok(Ok(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The lock is reported anyway; only who holds it may stay unknown.
                let _ = file.take(100).read_to_string(&mut text);
                Ok(Err(text))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn wait_for_lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

impl StoreFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buffer, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
