//! Files as redb's backend: made so that a crash leaves a whole one or none, left untouched until they are known to be ours, and
//! opened again only where they are the same.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::RwLock;
use redb::backends::FileBackend;
use redb::{BackendError, Builder, StorageBackend};

use super::file::fault;
use super::{StoreError, format};

/// What opens the bytes under a store; told whether an attempt to write them failed before.
pub(super) type Backing = Box<dyn Fn(bool) -> Result<Box<dyn StorageBackend>, StoreError> + Send>;

/// The backing of a store in a file, which is made where there is none at the first opening. After a failure it has to be the
/// same file: what was answered is in that one, and a new or another one in its place would pass for a store without it.
pub(super) fn backing(path: PathBuf) -> Backing {
    let first = OnceLock::new();
    Box::new(move |after_failure| {
        let file = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !after_failure => {
                create(&followed(&path))?;
                open(&path)
            }
            opened => opened,
        };
        let file = file.map_err(|error| failed(&path, &error))?;
        let metadata = file.metadata().map_err(|error| failed(&path, &error))?;
        not_empty(&path, &metadata)?;
        if *first.get_or_init(|| Identity::of(&metadata)) != Identity::of(&metadata) {
            let why = "another file is in the place of the one that was open, which is not used before the server is \
                       started again";
            return Err(StoreError::Failed { path: path.clone(), why: why.to_owned() });
        }
        if after_failure {
            forget_cached(&file);
        }
        Ok(Box::new(FileBackend::new(file).map_err(|error| fault(&path, error))?))
    })
}

/// Which file it is, whatever its name. Numbers of files are given anew; the time at which one was made tells those apart, where
/// the file system knows it.
#[derive(PartialEq, Eq)]
struct Identity {
    device_and_number: Option<(u64, u64)>,
    made: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let device_and_number = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let device_and_number = None;
        Identity { device_and_number, made: metadata.created().ok() }
    }
}

/// Refuses a file without a byte: redb would make a new store of it, and no crash of this program leaves one.
fn not_empty(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    if metadata.len() > 0 {
        return Ok(());
    }
    let why =
        "it is empty, which a store never is: put a backup in its place, or remove it to begin with an empty store";
    Err(StoreError::Damaged { path: path.to_owned(), why: why.to_owned() })
}

/// Where the links at a path lead, also where nothing is yet.
fn followed(path: &Path) -> PathBuf {
    /// As many as Linux follows.
    const LINKS_MAX: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// An existing file as a backend that is never changed, whatever redb writes to it; and its bytes.
pub(super) fn untouched(path: &Path) -> Result<(Staged, u64), StoreError> {
    let file = open(path).map_err(|error| failed(path, &error))?;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    not_empty(path, &metadata)?;
    let backend = FileBackend::new(file).map_err(|error| fault(path, error))?;
    let staged = Staged::new(Box::new(backend)).map_err(|error| failed(path, &error))?;
    Ok((staged, metadata.len()))
}

/// Makes an empty file beside another, for its owner alone, under a name that nobody has: what a process that was killed has
/// left there stays as it is.
///
/// # Errors
/// What the operating system says.
pub(crate) fn new_beside(path: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let mut number = 0_u64;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{number}"));
        match options().create_new(true).open(&name) {
            Ok(file) => return Ok((file, name.into())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Gives a file its name where nobody has that, and sees to it that this outlives a crash. Where it fails the file may still
/// have its old name.
///
/// # Errors
/// `AlreadyExists`, and what else the operating system says.
pub(crate) fn name_file(unfinished: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(unfinished, path) {
        Ok(()) => std::fs::remove_file(unfinished)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Not every file system has links.
        Err(_) if is_missing(path) => std::fs::rename(unfinished, path)?,
        Err(error) => return Err(error),
    }
    sync_folder(path)
}

/// Whether there is nothing of that name, not even a link that leads nowhere. What can't be reached is not missing.
fn is_missing(path: &Path) -> bool {
    matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Bytes that there is room for beside a file. None where the system does not tell.
pub(crate) fn room_beside(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let room = rustix::fs::statvfs(folder_of(path)).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Makes an empty file beside another, for its owner alone, that has no name: it ends with its last handle.
///
/// # Errors
/// What the operating system says.
pub(crate) fn nameless_beside(path: &Path) -> io::Result<std::fs::File> {
    let (file, name) = new_beside(path)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}

/// Sees to it that a file's name outlives a crash as well.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder_of(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(unix)]
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Sees to it that a file's content outlives a crash, and says how much it is.
pub(super) fn sync(file: &std::fs::File) -> io::Result<u64> {
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    options().open(path)
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed { path: path.to_owned(), why: error.to_string() }
}

/// Makes an empty store under another name and gives it its own when it is whole: a crash leaves none, but perhaps a small file
/// of the other name. Where another makes one at the same time, the first stays.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| failed(path, &error);
    let (file, unfinished) = new_beside(path).map_err(failed)?;
    let named = make(path, file).and_then(|()| match name_file(&unfinished, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::fs::remove_file(&unfinished).map_err(failed),
        named => named.map_err(failed),
    });
    if named.is_err() {
        // What failed may have been the folder's sync: then it has its name, and nothing is left.
        let _ = std::fs::remove_file(&unfinished);
    }
    named
}

fn make(path: &Path, file: std::fs::File) -> Result<(), StoreError> {
    let backend = FileBackend::new(file).map_err(|error| fault(path, error))?;
    let database = Builder::new().create_with_backend(backend).map_err(|error| fault(path, error))?;
    format::begin(&database).map_err(|error| fault(path, error))?;
    database.close().map_err(|error| fault(path, error))
}

/// Has the next reads come from the disk. After a failed sync the system holds pages that it takes for written, though they
/// are not; what is checked and built upon has to be what the disk has.
fn forget_cached(file: &std::fs::File) {
    // It is advice: where it is not taken, nothing is worse than without it.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// A backend of which nothing is changed until [`Staged::release`]: whatever is written before is held in memory and read from
/// there. redb writes a little when it opens a file; one that turns out to be another's is to stay as it is.
#[derive(Clone, Debug)]
pub(super) struct Staged(Arc<Both>);

#[derive(Debug)]
struct Both {
    inner: Box<dyn StorageBackend>,
    /// None from the release on.
    held: RwLock<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    len: u64,
    /// Bytes from the beginning on that are still those of the file, but for what is written over them.
    kept: u64,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl Staged {
    pub(super) fn new(inner: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = inner.len()?;
        Ok(Staged(Arc::new(Both { inner, held: RwLock::new(Some(Held { len, kept: len, steps: Vec::new() })) })))
    }

    /// Does to the file what was held back, in its order, and all further changes at once.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held.write();
        let Some(Held { steps, .. }) = held.take() else { return Ok(()) };
        steps.into_iter().try_for_each(|step| match step {
            Step::Write(offset, bytes) => self.0.inner.write(offset, &bytes),
            Step::SetLen(len) => self.0.inner.set_len(len),
            Step::Sync => self.0.inner.sync_data(),
        })
    }

    /// Notes a step where nothing is released yet.
    fn hold(&self, step: impl FnOnce(&mut Held)) -> bool {
        if self.0.held.read().is_none() {
            return false;
        }
        let mut held = self.0.held.write();
        held.as_mut().map(step).is_some()
    }
}

impl Held {
    fn read(&self, inner: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.fill(0);
        if self.kept > offset {
            let kept = usize::try_from(self.kept.min(end) - offset).expect("no more than was asked for");
            inner.read(offset, &mut out[..kept])?;
        }
        // Writes behind a later end of the file were shortened with it.
        for step in &self.steps {
            let Step::Write(at, bytes) = step else { continue };
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let place = |of: u64, base: u64| usize::try_from(of - base).expect("within what is in memory");
                out[place(from, offset)..place(to, offset)].copy_from_slice(&bytes[place(from, *at)..place(to, *at)]);
            }
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.kept = self.kept.min(len);
        for step in &mut self.steps {
            if let Step::Write(at, bytes) = step {
                bytes.truncate(usize::try_from(len.saturating_sub(*at)).unwrap_or(usize::MAX));
            }
        }
        self.steps.push(Step::SetLen(len));
    }
}

impl StorageBackend for Staged {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.held.read() {
            Some(held) => Ok(held.len),
            None => self.0.inner.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.held.read() {
            Some(held) => held.read(&*self.0.inner, offset, out),
            None => self.0.inner.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.hold(|held| held.set_len(len)) { Ok(()) } else { self.0.inner.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.hold(|held| held.steps.push(Step::Sync)) { Ok(()) } else { self.0.inner.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let held = self.hold(|held| held.steps.push(Step::Write(offset, data.to_vec())));
        if held { Ok(()) } else { self.0.inner.write(offset, data) }
    }

    fn close(&self) -> io::Result<()> {
        self.0.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.query_lock_range(start, end)
    }
}
