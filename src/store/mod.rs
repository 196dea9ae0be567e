//! Bytes that survive a crash: named tables of keys and values, in one file or in memory, changed by atomic transactions.
//!
//! ```text
//! Store::get, Store::range   read what has been stored, each at one moment
//! Store::change              reads and changes as one step: all of it is stored durably, or nothing
//! ```
//!
//! Changes happen one after another, so that what a change reads is still so when it is stored. Values are bytes: what they
//! mean is up to the table's owner. Nothing here blocks the runtime. One process has a file; a store in memory ends with it.

mod file;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

/// Bytes of a key.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a value. As much as one message of MCP.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of keys and values that one transaction puts: it is held in memory until it is stored.
pub(crate) const CHANGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of keys and values of a store in memory, which nothing but the process's memory would bound otherwise.
pub(crate) const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Transactions that wait for the thread that stores them. Whoever comes later waits outside.
pub(crate) const CHANGES_WAITING_MAX: usize = 256;
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
    #[error("{path} is no store: expected a redb database or no file, came another file, which was left as it is")]
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
    /// The operating system could not do it. After a failed write the file has to be opened anew.
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

    /// Opens the store in a file, which is made where there is none.
    ///
    /// # Errors
    /// [`StoreError`]: what is there is something else, in use, damaged or can't be reached.
    pub(crate) async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Ok(Store(Arc::new(Kept::File(file::File::open(path.into()).await?))))
    }

    /// Whether what is stored outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(&*self.0, Kept::File(_))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn get(&self, table: Table, key: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.into();
        match &*self.0 {
            Kept::Memory(memory) => memory.read(|tables| tables.get(table, &key)),
            Kept::File(file) => file.read(move |snapshot| snapshot.get(table, &key)).await,
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
            Kept::Memory(memory) => memory.read(|tables| tables.range(table, &keys, limit)),
            Kept::File(file) => file.read(move |snapshot| snapshot.range(table, &keys, limit)).await,
        }
    }

    /// Does `work` as one step between those of others. When this returns, what `work` changed is stored durably; where it
    /// gives an error or panics, nothing is changed, and the panic goes on here.
    ///
    /// `work` holds up all others, so it computes little and waits for nothing. It is done even where nobody waits for this
    /// future any more.
    ///
    /// # Errors
    /// Those of `work`, and [`StoreError`]: nothing is changed then either.
    pub(crate) async fn change<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &*self.0 {
            Kept::Memory(memory) => memory.change(work),
            Kept::File(file) => {
                let (sender, receiver) = oneshot::channel();
                let job = Job::new(work, sender);
                file.change(job).await?;
                match receiver.await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(panic)) => std::panic::resume_unwind(panic),
                    Err(_) => Err(StoreError::Closed.into()),
                }
            }
        }
    }

    /// Closes the file after the transactions that wait, so that the next who opens it need not look for traces of a crash.
    /// Whatever comes later fails. A store in memory stays as it is.
    pub(crate) async fn close(&self) {
        if let Kept::File(file) = &*self.0 {
            file.close().await;
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

type Panic = Box<dyn std::any::Any + Send>;

/// A transaction on its way to the thread that stores it.
struct Job(Box<dyn FnOnce(&mut Transaction<'_>) -> Done + Send>);

/// What a transaction came to: whether its changes count, and how its caller is told once they are stored, or why not.
struct Done {
    counts: bool,
    tell: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

impl Job {
    fn new<T, E>(
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
        sender: oneshot::Sender<Result<Result<T, E>, Panic>>,
    ) -> Self
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Job(Box::new(move |transaction| {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| work(transaction)));
            Done {
                counts: matches!(outcome, Ok(Ok(_))),
                tell: Box::new(move |stored| {
                    let told = match (outcome, stored) {
                        (Ok(Ok(_)), Err(error)) => Ok(Err(error.into())),
                        (outcome, _) => outcome,
                    };
                    // Nobody may be waiting any more.
                    let _ = sender.send(told);
                }),
            }
        }))
    }
}
