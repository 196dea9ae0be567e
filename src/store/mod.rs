//! Bytes that survive a crash: named tables of keys and values, in one file or in memory, changed by atomic transactions.
//!
//! ```text
//! Store::get, Store::range   read what has been stored, each at one moment
//! Store::change              reads and changes as one step: all of it is stored durably, or nothing
//! ```
//!
//! What is promised stands at [`Backend`], which both kinds keep. Values are bytes: what they mean is up to the table's owner.
//! Nothing here blocks the runtime. One process has a file; a store in memory ends with it.

mod copy;
mod disk;
mod file;
mod format;
mod memory;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use copy::copy_file;
pub(crate) use disk::{name_file, nameless_beside, new_beside, room_beside};
pub(crate) use verify::verify;

/// Bytes of a key.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a value. As much as one message of MCP.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of keys and values that one transaction puts: it is held in memory until it is stored. A queue's group of 4 MiB of
/// payloads fits with its keys.
pub(crate) const CHANGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of keys and values above which no further transaction joins those that are stored together. redb holds them until then.
pub(crate) const GROUP_BYTES_MAX: usize = 16 << 20;
/// Bytes of keys and values of a store in memory, which nothing but the process's memory would bound otherwise.
pub(crate) const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Transactions that wait for the thread that stores them, and that it stores together. Whoever comes later waits outside.
pub(crate) const CHANGES_WAITING_MAX: usize = 1_024;
/// Reads of a file at once, each on a thread. Whoever comes later waits.
pub(crate) const READS_MAX: usize = 8;
/// Bytes of the file that redb keeps in memory; its own default is 1 GiB.
pub(crate) const CACHE_BYTES: usize = 16 << 20;

/// The name of a table. It is there as soon as something is put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table(pub(crate) &'static str);

/// A key with its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Keys from one on, itself included, up to another, itself left out; in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    from: Vec<u8>,
    /// None for all further ones.
    to: Option<Vec<u8>>,
}

impl Keys {
    /// All keys that begin so.
    pub(crate) fn beginning_with(prefix: impl Into<Vec<u8>>) -> Self {
        let from = prefix.into();
        // The next prefix of that length: the last byte that can be raised is, and those behind it go.
        let mut to = from.clone();
        while let Some(last) = to.pop() {
            if last < u8::MAX {
                to.push(last + 1);
                break;
            }
        }
        Keys { to: (!to.is_empty()).then_some(to), from }
    }

    /// The keys from one on up to another, which is left out.
    pub(crate) fn between(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Keys { from: from.into(), to: Some(to.into()) }
    }

    /// The keys from one on.
    pub(crate) fn onwards(from: impl Into<Vec<u8>>) -> Self {
        Keys { from: from.into(), to: None }
    }

    /// Whether there can be any; ordered maps refuse ends that stand before their beginning.
    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn bounds(&self) -> (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) {
        let to = self.to.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        (std::ops::Bound::Included(&self.from), to)
    }
}

/// Why something could not be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another handle has the file, of this process or of another.
    #[error("the store's file {path} is in use: another process has it open")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else. It is left as it was.
    #[error("{path} is no store: expected a file of bennu or none, came another, which was left as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file's content is not what was written.
    #[error("the store's file {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A later version of this program wrote the file. It is left as it was.
    #[error(
        "the store's file {path} has format {found}, written by bennu {writer}, and this is bennu {}, which knows formats up to \
         {known}: the file was left as it is", env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
        /// The version of the program that wrote it.
        writer: String,
    },
    /// The operating system could not do it. The file is opened again for the next who wants something of it.
    #[error("the store's file {path}: {why}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// It has been closed.
    #[error("the store is closed")]
    Closed,
    /// A key, a value or a transaction above its bound.
    #[error("{what} is {came} bytes, the limit is {limit}")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// Bytes of it.
        came: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// A store in memory holds as much as it may.
    #[error("the store in memory is full: it holds at most {limit} bytes")]
    Full {
        /// Bytes that it may hold.
        limit: usize,
    },
}

/// What keeps tables of bytes, and what it promises. Both kinds are held to it by one suite (`tests/mod.rs`); callers have a
/// [`Store`], which adds nothing.
///
/// - **Atomic.** All that a change did is there afterwards, or nothing of it: also after a crash, a failed write, an error or a
///   panic of the change itself.
/// - **Isolated.** Changes happen one after another. What a change reads is what all those before it left, with its own changes
///   laid over, and nobody changes it before it is stored. A read sees one moment between changes, never the half of one.
/// - **In order.** Changes of one caller, each begun after the one before was sent or answered, are made in that order; where a
///   later one is stored, so is the earlier one. Of different callers' any order.
/// - **Durable before the answer**, where [`Backend::is_durable`]: once a change has been answered with its result it outlives
///   the process and the machine's power, as far as the disk keeps what it was told to sync. A change whose caller has gone is
///   made all the same. A read may see only what is stored so; a change may see what is not stored yet, and then it is stored
///   with it or not at all.
/// - **In groups.** Changes that wait at the same time are stored by one write to the disk, up to [`CHANGES_WAITING_MAX`] and
///   about [`GROUP_BYTES_MAX`]. So a failed write fails all of its group.
/// - **After a failed write** its changes have an error, and either all of the group is there afterwards or nothing is: which,
///   a read tells. The file is opened again by itself, checked whole, and later changes work as soon as the disk does; until
///   then they fail with what the disk says, after a pause of up to a second. Reads work from the file as it was opened again;
///   where it can't be, they fail with the reason, and each asks for one more try. It has to be the same file: one that is
///   missing is not made anew, and another in its place is not opened.
/// - **Never other bytes.** Where the file is not what was written, that is [`StoreError::Damaged`] (or `Foreign`, where not even
///   its beginning is), at open or when it is read; never a panic. docs/adr/0033 has the one exception.
///
/// Without atomicity and order a queue would lose jobs or do them twice; without isolation each read-modify-write would need a
/// lock of its own.
trait Backend {
    /// Whether what is stored outlives the process.
    fn is_durable(&self) -> bool;

    /// The value of a key.
    fn get(&self, table: Table, key: Vec<u8>) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// The first `limit` entries of these keys, of which there can be some.
    fn range(
        &self,
        table: Table,
        keys: Keys,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// Does `work` as one step between those of others, and stores what it changed.
    fn change<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static;

    /// Ends it after the changes that wait. Whatever comes later fails.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A store. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Store(Arc<Kept>);

enum Kept {
    Memory(memory::Memory),
    File(file::File),
}

impl Store {
    /// An empty store that ends with its last handle.
    pub(crate) fn in_memory() -> Self {
        Store(Arc::new(Kept::Memory(memory::Memory::default())))
    }

    /// Opens the store in a file, which is made where there is none. The whole file is read and checked, and what an older
    /// version wrote is brought to the current format.
    ///
    /// # Errors
    /// [`StoreError`]: what is there is something else, newer, in use, damaged or can't be reached.
    pub(crate) async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Ok(Store(Arc::new(Kept::File(file::File::open(path.into()).await?))))
    }

    /// Whether what is stored outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        match &*self.0 {
            Kept::Memory(memory) => memory.is_durable(),
            Kept::File(file) => file.is_durable(),
        }
    }

    /// Its file, where it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Kept::Memory(_) => None,
            Kept::File(file) => Some(file.path()),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn get(&self, table: Table, key: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.into();
        match &*self.0 {
            Kept::Memory(memory) => memory.get(table, key).await,
            Kept::File(file) => file.get(table, key).await,
        }
    }

    /// The first `limit` entries of these keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn range(&self, table: Table, keys: Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match &*self.0 {
            Kept::Memory(memory) => memory.range(table, keys, limit).await,
            Kept::File(file) => file.range(table, keys, limit).await,
        }
    }

    /// Does `work` as one step between those of others. When this returns, what `work` changed is stored durably; where it
    /// gives an error or panics, nothing is changed, and the panic goes on here.
    ///
    /// `work` holds up all others, so it computes little and waits for nothing. It is done even where nobody waits for this
    /// future any more.
    ///
    /// # Errors
    /// Those of `work`: nothing is changed then. And [`StoreError`], of which [`StoreError::Failed`] leaves open whether the
    /// change is there, whole; see [`Backend`].
    pub(crate) async fn change<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &*self.0 {
            Kept::Memory(memory) => memory.change(work).await,
            Kept::File(file) => file.change(work).await,
        }
    }

    /// Writes all that is stored at one moment into an empty file, as a store of its own, and says how many bytes that has.
    /// Changes go on meanwhile. None for a store in memory. It goes on where nobody waits for this future any more, and it is
    /// none of the [`READS_MAX`]: whoever asks for copies sees to it that they are few.
    ///
    /// # Errors
    /// [`StoreError`], of this file or of the other, which `named` is said to be.
    pub(crate) async fn copy_to(&self, to: std::fs::File, named: PathBuf) -> Result<Option<u64>, StoreError> {
        match &*self.0 {
            Kept::Memory(_) => Ok(None),
            Kept::File(file) => file.copy_to(to, named).await.map(Some),
        }
    }

    /// Closes the file after the transactions that wait, so that the next who opens it need not look for traces of a crash.
    /// Whatever comes later fails. A store in memory stays as it is.
    pub(crate) async fn close(&self) {
        match &*self.0 {
            Kept::Memory(memory) => memory.close().await,
            Kept::File(file) => file.close().await,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            Kept::Memory(_) => f.write_str("Store(in memory)"),
            Kept::File(file) => write!(f, "Store({})", file.path().display()),
        }
    }
}

/// What is stored at one moment.
trait Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Not asked for empty ranges.
    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError>;
}

/// What a transaction has changed: by table and key the new value, or none.
type Changes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// One step of changes, which sees what it has changed itself.
pub(crate) struct Transaction<'a> {
    before: &'a dyn Snapshot,
    changes: Changes,
    bytes: usize,
}

impl<'a> Transaction<'a> {
    fn new(before: &'a dyn Snapshot) -> Self {
        Transaction { before, changes: Changes::new(), bytes: 0 }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(&table).and_then(|changes| changes.get(key)) {
            Some(changed) => Ok(changed.clone()),
            None => self.before.get(table, key),
        }
    }

    /// The first `limit` entries of these keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let changed = self.changes.get(&table).into_iter().flat_map(|changes| changes.range::<[u8], _>(keys.bounds()));
        let changed: Vec<_> = changed.collect();
        let deleted = changed.iter().filter(|(_, value)| value.is_none()).count();
        // As many more as may be gone of them.
        let before = self.before.range(table, keys, limit.saturating_add(deleted))?;
        let mut entries: BTreeMap<_, _> = before.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        Ok(entries.into_iter().take(limit).collect())
    }

    /// Puts a value in the place of what the key had.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub(crate) fn put(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (key, value) = (key.into(), value.into());
        within("a key", key.len(), KEY_BYTES_MAX)?;
        within("a value", value.len(), VALUE_BYTES_MAX)?;
        self.bytes += key.len() + value.len();
        within("a transaction", self.bytes, CHANGE_BYTES_MAX)?;
        self.changes.entry(table).or_default().insert(key, Some(value));
        Ok(())
    }

    /// Takes a key away, if it is there.
    pub(crate) fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.entry(table).or_default().insert(key.into(), None);
    }
}

fn within(what: &'static str, came: usize, limit: usize) -> Result<(), StoreError> {
    if came > limit { Err(StoreError::TooLarge { what, came, limit }) } else { Ok(()) }
}
