//! A file system in memory that fails on demand, and that can lose power at every operation.
//!
//! A power cut keeps what was synced. Of the rest, every sector of a write and every change of a directory is kept or lost on its own,
//! so writes are dropped, torn and reordered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tb_mqtt_core::store::{FileKind, FileSystem, StoreFile};

const SECTOR: usize = 512;

/// Small random numbers (xorshift), so that an image can be made again from its seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end.max(1)
    }

    pub fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What reads return.
    content: Vec<u8>,
    /// What a power cut keeps for certain.
    durable: Vec<u8>,
    /// What was not synced.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Rename {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Move(PathBuf, PathBuf),
}

#[derive(Debug, Clone, Default)]
pub struct State {
    inodes: Vec<Arc<Inode>>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<Rename>,
    directories: Vec<PathBuf>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Change::Length(length) => content.resize(*length, 0),
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &Rename) {
    match change {
        Rename::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Rename::Unlink(path) => {
            names.remove(path);
        }
        Rename::Move(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl State {
    /// Return one state in which the disk may be after a power cut.
    pub fn after_power_cut(&self, dice: &mut Dice) -> Self {
        // Often all or nothing is kept, sometimes any part.
        let style = dice.below(4);
        let keeps = |dice: &mut Dice| match style {
            0 => false,
            1 => true,
            _ => dice.one_in(2),
        };
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            if keeps(dice) {
                apply_name(&mut names, change);
            }
        }
        let inodes = self.inodes.iter().map(|inode| {
            let mut content = inode.durable.clone();
            for change in &inode.pending {
                let Change::Write(offset, bytes) = change else {
                    if keeps(dice) {
                        apply(&mut content, change);
                    }
                    continue;
                };
                if dice.one_in(3) && content.len() < offset + bytes.len() {
                    // The new length is on disk before the data.
                    content.resize(offset + bytes.len(), 0);
                }
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
                    if keeps(dice) {
                        apply(&mut content, &Change::Write(offset + at, bytes[at..end].to_vec()));
                    }
                    at = end;
                }
            }
            Arc::new(Inode { content: content.clone(), durable: content, pending: Vec::new() })
        });
        Self {
            inodes: inodes.collect(),
            names: names.clone(),
            durable_names: names,
            pending_names: Vec::new(),
            directories: self.directories.clone(),
        }
    }

    /// Return names and contents of the files.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.names.iter().map(|(path, inode)| (path.as_path(), self.inodes[*inode].content.as_slice()))
    }

    /// Replace a file, or add one, as if it had been there before.
    pub fn put(&mut self, path: &Path, content: Vec<u8>) {
        let inode = self.inodes.len();
        self.inodes.push(Arc::new(Inode { content: content.clone(), durable: content, pending: Vec::new() }));
        self.names.insert(path.to_owned(), inode);
        self.durable_names.insert(path.to_owned(), inode);
    }

    pub fn delete(&mut self, path: &Path) {
        self.names.remove(path);
        self.durable_names.remove(path);
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `ENOSPC`, after half of a write.
    Full,
    /// `EIO`; a write or a sync may have done a part of its work.
    Broken,
    /// A write writes half, and reports that.
    Short,
}

#[derive(Debug, Default)]
struct Machine {
    state: State,
    locked: bool,
    operations: u64,
    /// How often each file was opened.
    opened: BTreeMap<PathBuf, u64>,
    faults: BTreeMap<u64, Fault>,
    /// Bytes of a file that can never be read.
    unreadable: Option<(PathBuf, std::ops::Range<u64>)>,
    /// States before each change, with the note that was current.
    recording: Option<Vec<(State, usize)>>,
    note: usize,
    /// Syncs of files, or of directories, succeed and do nothing.
    lies: (bool, bool),
}

/// The file system. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Simulated(Arc<Mutex<Machine>>);

impl Simulated {
    pub fn new(state: State) -> Self {
        let simulated = Self::default();
        simulated.machine().state = state;
        simulated
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("no panic")
    }

    pub fn state(&self) -> State {
        self.machine().state.clone()
    }

    /// Keep the states before each change from here on.
    pub fn record(&self) {
        self.machine().recording = Some(Vec::new());
    }

    /// Attach this note to the following states.
    pub fn note(&self, note: usize) {
        self.machine().note = note;
    }

    /// Return the recorded states, and the current one.
    pub fn recorded(&self) -> Vec<(State, usize)> {
        let mut machine = self.machine();
        let last = (machine.state.clone(), machine.note);
        let mut states = machine.recording.take().unwrap_or_default();
        states.push(last);
        states
    }

    /// Let syncs of files, or of directories, do nothing from here on.
    pub fn lie(&self, files: bool, directories: bool) {
        self.machine().lies = (files, directories);
    }

    pub fn operations(&self) -> u64 {
        self.machine().operations
    }

    /// Return how often each file was opened since `forget_opened`.
    pub fn opened(&self) -> BTreeMap<PathBuf, u64> {
        self.machine().opened.clone()
    }

    pub fn forget_opened(&self) {
        self.machine().opened.clear();
    }

    /// Let the operation with this number fail.
    pub fn fail(&self, operation: u64, fault: Fault) {
        self.machine().faults.insert(operation, fault);
    }

    /// Let every read of some bytes of a file fail from here on.
    pub fn break_sectors(&self, path: &Path, range: std::ops::Range<u64>) {
        self.machine().unreadable = Some((path.to_owned(), range));
    }

    /// Count an operation. Return its fault.
    fn operation(&self, changes: bool) -> (MutexGuard<'_, Machine>, Option<Fault>) {
        let mut machine = self.machine();
        if changes && machine.recording.is_some() {
            let state = (machine.state.clone(), machine.note);
            machine.recording.as_mut().expect("checked").push(state);
        }
        let number = machine.operations;
        let fault = machine.faults.remove(&number);
        machine.operations += 1;
        (machine, fault)
    }

    fn simple(&self, changes: bool) -> io::Result<MutexGuard<'_, Machine>> {
        match self.operation(changes) {
            (machine, None | Some(Fault::Short)) => Ok(machine),
            (_, Some(fault)) => Err(error_of(fault)),
        }
    }
}

fn error_of(fault: Fault) -> io::Error {
    // ENOSPC and EIO of Linux.
    io::Error::from_raw_os_error(if fault == Fault::Full { 28 } else { 5 })
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

pub struct SimulatedFile {
    disk: Simulated,
    inode: usize,
}

pub struct Lock(Simulated);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.machine().locked = false;
    }
}

impl FileSystem for Simulated {
    type File = SimulatedFile;
    type Lock = Lock;

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let machine = self.simple(false)?;
        let is_directory = machine.state.directories.iter().any(|one| one == path);
        Ok(match machine.state.names.contains_key(path) {
            true => FileKind::File,
            false if is_directory => FileKind::Directory,
            false => FileKind::Missing,
        })
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.simple(true)?;
        if !machine.state.directories.iter().any(|one| one == path) {
            machine.state.directories.push(path.to_owned());
        }
        Ok(())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let machine = self.simple(false)?;
        if !machine.state.directories.iter().any(|one| one == directory) {
            return Err(missing());
        }
        let paths = machine.state.names.keys().chain(&machine.state.directories);
        let inside = paths.filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect())
    }

    fn open(&self, path: &Path) -> io::Result<SimulatedFile> {
        let mut machine = self.simple(false)?;
        let inode = *machine.state.names.get(path).ok_or_else(missing)?;
        *machine.opened.entry(path.to_owned()).or_default() += 1;
        Ok(SimulatedFile { disk: self.clone(), inode })
    }

    fn create(&self, path: &Path) -> io::Result<SimulatedFile> {
        let mut machine = self.simple(true)?;
        if machine.state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = machine.state.inodes.len();
        machine.state.inodes.push(Arc::default());
        machine.change(Rename::Link(path.to_owned(), inode));
        Ok(SimulatedFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.simple(true)?;
        machine.state.names.get(from).ok_or_else(missing)?;
        machine.change(Rename::Move(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.simple(true)?;
        machine.state.names.get(path).ok_or_else(missing)?;
        machine.change(Rename::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut machine = self.simple(true)?;
        if machine.lies.1 {
            return Ok(());
        }
        let state = &mut machine.state;
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, _path: &Path, _note: &str, _waits: bool) -> io::Result<Result<Lock, String>> {
        let mut machine = self.simple(true)?;
        if machine.locked {
            return Ok(Err("1".to_owned()));
        }
        machine.locked = true;
        drop(machine);
        Ok(Ok(Lock(self.clone())))
    }
}

impl Machine {
    fn change(&mut self, change: Rename) {
        apply_name(&mut self.state.names, &change);
        self.state.pending_names.push(change);
    }
}

impl StoreFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.simple(false)?.state.inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let machine = self.disk.simple(false)?;
        if let Some((path, range)) = &machine.unreadable
            && machine.state.names.get(path) == Some(&self.inode)
            && offset < range.end
            && offset + buffer.len() as u64 > range.start
        {
            return Err(error_of(Fault::Broken));
        }
        let content = &machine.state.inodes[self.inode].content;
        let rest = content.get(usize::try_from(offset).expect("small")..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let (mut machine, fault) = self.disk.operation(true);
        let written = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        let inode = Arc::make_mut(&mut machine.state.inodes[self.inode]);
        let change = Change::Write(usize::try_from(offset).expect("small"), written.to_vec());
        apply(&mut inode.content, &change);
        inode.pending.push(change);
        match fault {
            None => Ok(bytes.len()),
            Some(Fault::Short) if bytes.len() > 1 => Ok(written.len()),
            Some(fault) => Err(error_of(fault)),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut machine = self.disk.simple(true)?;
        let inode = Arc::make_mut(&mut machine.state.inodes[self.inode]);
        let change = Change::Length(usize::try_from(length).expect("small"));
        apply(&mut inode.content, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut machine, fault) = self.disk.operation(true);
        if machine.lies.0 {
            return Ok(());
        }
        let inode = Arc::make_mut(&mut machine.state.inodes[self.inode]);
        let pending = std::mem::take(&mut inode.pending);
        if let Some(fault) = fault.filter(|fault| *fault != Fault::Short) {
            // The pages count as written from here on, although they are not: a later sync does not write them.
            let first = pending.len() / 2;
            for change in &pending[..first] {
                apply(&mut inode.durable, change);
            }
            return Err(error_of(fault));
        }
        for change in &pending {
            apply(&mut inode.durable, change);
        }
        Ok(())
    }
}
