//! A disk in memory: it notes what is written to it, of which a crash leaves a part, and fails when it is told to.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::store::disk::Backing;
use crate::store::file::File;
use crate::store::{Kept, Store, StoreError};

/// An error of the disk itself.
pub(super) const EIO: i32 = 5;
/// Bytes that a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// Numbers that look random and are the same for the same seed (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    pub(super) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    pub(super) fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    SetLen,
    Sync,
}

/// How a disk fails: operations of these kinds from the nth on, with an error of the operating system, or by a panic. A sync that
/// fails with [`EIO`] takes what was not synced along; after others it is still there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) operations: &'static [Operation],
    pub(super) after: usize,
    /// None for a panic.
    pub(super) errno: Option<i32>,
}

/// What was done to a disk.
#[derive(Clone, Debug)]
pub(super) enum Noted {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    log: Vec<Noted>,
    fault: Option<Fault>,
    handles: usize,
    openings: usize,
    /// The bytes at the last sync.
    synced: Vec<u8>,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Content>>);

impl Disk {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Disk(Arc::new(Mutex::new(Content { synced: bytes.clone(), bytes, ..Content::default() })))
    }

    pub(super) fn name() -> PathBuf {
        PathBuf::from("disk.redb")
    }

    pub(super) async fn open(&self) -> Result<Store, StoreError> {
        let disk = self.clone();
        let backing: Backing = Box::new(move |_| {
            let mut content = disk.0.lock();
            assert_eq!(content.handles, 0, "the one before is closed");
            content.handles += 1;
            content.openings += 1;
            Ok(Box::new(Handle { disk: disk.clone(), is_closed: Mutex::new(false) }))
        });
        Ok(Store(Arc::new(Kept::File(File::open_on(Self::name(), backing).await?))))
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    pub(super) fn heal(&self) {
        self.0.lock().fault = None;
    }

    /// How often it was opened.
    pub(super) fn openings(&self) -> usize {
        self.0.lock().openings
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    pub(super) fn flip(&self, bit: usize) {
        self.0.lock().bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// What was done to it so far.
    pub(super) fn log(&self) -> Vec<Noted> {
        self.0.lock().log.clone()
    }

    pub(super) fn logged(&self) -> usize {
        self.0.lock().log.len()
    }
}

/// What a crash leaves of a disk to which this was done: all that was synced, and any part of the rest.
pub(super) fn image(log: &[Noted], dice: &mut Dice) -> Vec<u8> {
    let synced = log.iter().rposition(|noted| matches!(noted, Noted::Sync)).map_or(0, |at| at + 1);
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>, at: usize, data: &[u8]| {
        let end = at + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(data);
    };
    for noted in &log[..synced] {
        match noted {
            Noted::Write(at, data) => write(&mut bytes, *at, data),
            Noted::SetLen(len) => bytes.resize(*len, 0),
            Noted::Sync => {}
        }
    }
    // Either whole writes arrive, but for the last, or any sectors of each; mostly many, mostly few, or half of them.
    let by_sector = dice.one_in(2);
    let missing = dice.within(1..5);
    let mut last = None;
    for noted in &log[synced..] {
        match noted {
            Noted::Write(at, data) if by_sector => {
                for (n, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if dice.below(5) >= missing {
                        write(&mut bytes, at + n * SECTOR_BYTES, sector);
                    }
                }
            }
            Noted::Write(at, data) if dice.below(5) >= missing => {
                last = Some((*at, data, bytes.clone()));
                write(&mut bytes, *at, data);
            }
            Noted::SetLen(len) if dice.below(5) >= missing => bytes.resize(*len, 0),
            Noted::Write(..) | Noted::SetLen(_) | Noted::Sync => {}
        }
    }
    if let Some((at, data, mut before)) = last
        && dice.one_in(2)
    {
        let sectors = data.len().div_ceil(SECTOR_BYTES);
        let torn = (dice.below(sectors) * SECTOR_BYTES).min(data.len());
        write(&mut before, at, &data[..torn]);
        bytes = before;
    }
    bytes
}

struct Handle {
    disk: Disk,
    is_closed: Mutex<bool>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    fn perform<T>(&self, operation: Operation, perform: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        assert!(!*self.is_closed.lock(), "it is used after it was closed");
        let mut content = self.disk.0.lock();
        if let Some(fault) = &mut content.fault
            && fault.operations.contains(&operation)
        {
            match (fault.after.checked_sub(1), fault.errno) {
                (Some(after), _) => fault.after = after,
                (None, Some(errno)) => {
                    if operation == Operation::Sync && errno == EIO {
                        // What could not be written is forgotten, as Linux does after a failed sync.
                        content.bytes = content.synced.clone();
                    }
                    return Err(io::Error::from_raw_os_error(errno));
                }
                (None, None) => {
                    drop(content);
                    panic!("planted")
                }
            }
        }
        Ok(perform(&mut content))
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.perform(Operation::Read, |content| {
            let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let bytes = content.bytes.get(at..).and_then(|bytes| bytes.get(..out.len()));
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })?
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.perform(Operation::SetLen, |content| {
            let len = usize::try_from(len).expect("a small disk");
            content.bytes.resize(len, 0);
            content.log.push(Noted::SetLen(len));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.perform(Operation::Sync, |content| {
            content.synced.clone_from(&content.bytes);
            content.log.push(Noted::Sync);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.perform(Operation::Write, |content| {
            let at = usize::try_from(offset).expect("a small disk");
            if content.bytes.len() < at + data.len() {
                content.bytes.resize(at + data.len(), 0);
            }
            content.bytes[at..at + data.len()].copy_from_slice(data);
            content.log.push(Noted::Write(at, data.to_vec()));
        })
    }

    fn close(&self) -> io::Result<()> {
        *self.is_closed.lock() = true;
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.0.lock().handles -= 1;
    }
}

/// A store in memory as bytes of a disk, for those who look at one file more than once.
pub(super) fn path_of(disk: &Disk, folder: &Path) -> PathBuf {
    let path = folder.join("image.redb");
    std::fs::write(&path, disk.bytes()).expect("written");
    path
}
