//! A store in a file, by redb. A thread of its own has the file: it takes the transactions that wait, does them one after
//! another and stores them together, so that many cost one write to the disk. Reads go past it, each at a moment that was
//! stored whole.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
    WriteTransaction,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    CACHE_BYTES, CHANGES_WAITING_MAX, Changes, Done, Entry, Job, Keys, READS_MAX, Snapshot, StoreError, Table,
    Transaction,
};

pub(super) struct File {
    path: Arc<Path>,
    /// The thread owns it: it is closed when the thread ends and the last read.
    database: Weak<Database>,
    orders: mpsc::Sender<Order>,
    readers: Semaphore,
}

enum Order {
    Change(Job),
    /// The sender is dropped when the file is closed.
    Close(oneshot::Sender<()>),
}

impl File {
    pub(super) async fn open(path: PathBuf) -> Result<Self, StoreError> {
        let path: Arc<Path> = path.into();
        let (orders, taken) = mpsc::channel(CHANGES_WAITING_MAX);
        let (opened, opening) = oneshot::channel();
        let failed = |why: String| StoreError::Failed { path: path.to_path_buf(), why };
        let thread = std::thread::Builder::new().name("bennu-store".to_owned());
        let at = Arc::clone(&path);
        let started = thread.spawn(move || match create(&at) {
            Ok(database) => {
                let database = Arc::new(database);
                if opened.send(Ok(Arc::downgrade(&database))).is_ok() {
                    serve(database, taken, &at);
                }
            }
            Err(error) => {
                // Nobody may be waiting any more.
                let _ = opened.send(Err(error));
            }
        });
        started.map_err(|error| failed(format!("starting its thread: {error}")))?;
        // redb trusts a file that was closed in order, and panics where someone else has changed it since.
        let damaged =
            || StoreError::Damaged { path: path.to_path_buf(), why: "it was changed by something else".to_owned() };
        let database = opening.await.map_err(|_| damaged())??;
        Ok(File { path, database, orders, readers: Semaphore::new(READS_MAX) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.readers.acquire().await.expect("the semaphore is never closed");
        let database = self.database.upgrade().ok_or(StoreError::Closed)?;
        let path = Arc::clone(&self.path);
        let reading = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read().map_err(|error| fault(&path, error))?;
            read(&Reading { transaction, path: &path })
        });
        match reading.await {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime stops and never started it.
            Err(_) => Err(StoreError::Closed),
        }
    }

    pub(super) async fn change(&self, job: Job) -> Result<(), StoreError> {
        self.orders.send(Order::Change(job)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.orders.send(Order::Close(sender)).await.is_ok() {
            // An error says that the sender was dropped.
            let _ = closed.await;
        }
    }
}

/// Opens the file or makes it, readable for its owner alone.
fn create(path: &Path) -> Result<Database, StoreError> {
    let failed = |error: io::Error| StoreError::Failed { path: path.to_owned(), why: error.to_string() };
    #[cfg(unix)]
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(failed)?;
    let backend = FileBackend::new(file).map_err(|error| fault(path, error))?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    let database = database.map_err(|error| fault(path, error))?;
    #[cfg(unix)]
    if is_new {
        // The file's name has to outlive a crash as well.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(database)
}

/// Takes orders until nobody can give any more.
fn serve(database: Arc<Database>, mut orders: mpsc::Receiver<Order>, path: &Path) {
    while let Some(order) = orders.blocking_recv() {
        let mut jobs = Vec::new();
        let mut next = Some(order);
        let mut closing = None;
        while let Some(order) = next {
            match order {
                Order::Change(job) => jobs.push(job),
                Order::Close(sender) => {
                    closing = Some(sender);
                    break;
                }
            }
            next = if jobs.len() < CHANGES_WAITING_MAX { orders.try_recv().ok() } else { None };
        }
        if !jobs.is_empty() {
            let mut done = Vec::with_capacity(jobs.len());
            let stored = store(&database, jobs, &mut done, path);
            if let Err(error) = &stored {
                tracing::error!(%error, changes = done.len(), "changes could not be stored");
            }
            for Done { tell, .. } in done {
                tell(stored.clone());
            }
        }
        if let Some(sender) = closing {
            orders.close();
            // Those who sent just now are told that it is closed, by the channels that go with their orders.
            while orders.try_recv().is_ok() {}
            drop(database);
            drop(sender);
            return;
        }
    }
}

/// Does these transactions and stores them at once.
fn store(database: &Database, jobs: Vec<Job>, done: &mut Vec<Done>, path: &Path) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(|error| fault(path, error));
    let writing = match transaction {
        Ok(transaction) => Writing { transaction, path },
        Err(error) => {
            // They are done on nothing, so that their callers hear why.
            done.extend(jobs.into_iter().map(|job| (job.0)(&mut Transaction::new(&Unreadable(error.clone())))));
            return Err(error);
        }
    };
    let mut stored = Ok(());
    let mut is_changed = false;
    for job in jobs {
        let mut changing = Transaction::new(&writing);
        let outcome = (job.0)(&mut changing);
        let changes = changing.changes;
        if outcome.counts && stored.is_ok() && !changes.is_empty() {
            is_changed = true;
            stored = writing.apply(changes);
        }
        done.push(outcome);
    }
    stored?;
    if is_changed {
        writing.transaction.commit().map_err(|error| fault(path, error))
    } else {
        writing.transaction.abort().map_err(|error| fault(path, error))
    }
}

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Definition {
    TableDefinition::new(table.0)
}

struct Reading<'a> {
    transaction: ReadTransaction,
    path: &'a Path,
}

struct Writing<'a> {
    transaction: WriteTransaction,
    path: &'a Path,
}

/// A store that could not be read, for this reason.
struct Unreadable(StoreError);

impl Snapshot for Unreadable {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Err(self.0.clone())
    }

    fn range(&self, _table: Table, _keys: &Keys, _limit: usize) -> Result<Vec<Entry>, StoreError> {
        Err(self.0.clone())
    }
}

impl Snapshot for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.transaction.open_table(definition(table)) {
            Ok(table) => get(&table, key).map_err(|error| fault(self.path, error)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(fault(self.path, error)),
        }
    }

    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        match self.transaction.open_table(definition(table)) {
            Ok(table) => range(&table, keys, limit).map_err(|error| fault(self.path, error)),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(fault(self.path, error)),
        }
    }
}

impl Snapshot for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
        get(&table, key).map_err(|error| fault(self.path, error))
    }

    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let table = self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
        range(&table, keys, limit).map_err(|error| fault(self.path, error))
    }
}

impl Writing<'_> {
    fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        for (table, changed) in changes {
            let mut table = self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
            for (key, value) in changed {
                let outcome = match value {
                    Some(value) => table.insert(&*key, &*value).map(drop),
                    None => table.remove(&*key).map(drop),
                };
                outcome.map_err(|error| fault(self.path, error))?;
            }
        }
        Ok(())
    }
}

fn get(table: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn range(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    keys: &Keys,
    limit: usize,
) -> Result<Vec<Entry>, StorageError> {
    let mut entries = Vec::new();
    for entry in table.range::<&[u8]>(keys.bounds())?.take(limit) {
        let (key, value) = entry?;
        entries.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(entries)
}

/// What redb says, in our words.
fn fault(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::InUse { path },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => StoreError::Foreign { path },
        redb::Error::Io(error) => StoreError::Failed { path, why: error.to_string() },
        redb::Error::Corrupted(why) => StoreError::Damaged { path, why },
        redb::Error::DatabaseClosed => StoreError::Closed,
        error => StoreError::Failed { path, why: error.to_string() },
    }
}
