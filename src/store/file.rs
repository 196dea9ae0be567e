//! A store in a file, by redb. A thread of its own has the file: it takes the transactions that wait, does them one after
//! another and stores them together, so that many cost one write to the disk. Reads go past it, each at a moment that was
//! stored whole.
//!
//! ```text
//!            ┌──────── opened again, checked whole ────────┐
//!            ▼                                             │
//! opened ─▶ Open ── a write failed, or redb panicked ──▶ Failed ─▶ again, at the next change or read
//!            └───────────── close ──▶ Closed ◀── close ────┘
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableError, WriteTransaction};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::disk::{self, Backing, Staged};
use super::format::{self, Checked, Definition};
use super::verify::{blocking, open_checked};
use super::{
    Backend, CHANGES_WAITING_MAX, Changes, Entry, GROUP_BYTES_MAX, Keys, READS_MAX, Snapshot, StoreError, Table,
    Transaction, copy,
};

/// How long changes wait after a failed write, at first; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long they wait at most. The file is opened again as often, which reads all of it.
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct File {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    readers: Arc<Semaphore>,
}

/// What the thread and the reads have in common.
struct Shared {
    path: PathBuf,
    /// The thread alone changes it. It holds the lock to read while it stores; a read, while it begins.
    state: RwLock<State>,
}

enum State {
    Open(Database),
    Failed(StoreError),
    Closed,
}

enum Order {
    Change(Job),
    /// Sees to it that the file is open and works, and says why not.
    Mend(oneshot::Sender<Result<(), StoreError>>),
    /// The sender is dropped when the file is closed.
    Close(#[expect(dead_code, reason = "it tells by its end")] oneshot::Sender<()>),
}

impl File {
    pub(super) async fn open(path: PathBuf) -> Result<Self, StoreError> {
        Self::open_on(path.clone(), disk::backing(path)).await
    }

    /// As [`File::open`], on whatever the backing gives; `path` is its name.
    pub(super) async fn open_on(path: PathBuf, backing: Backing) -> Result<Self, StoreError> {
        let (orders, taken) = mpsc::channel(CHANGES_WAITING_MAX);
        let (opened, opening) = oneshot::channel();
        let shared = Arc::new(Shared { path, state: RwLock::new(State::Closed) });
        let keeper = Keeper { shared: Arc::clone(&shared), backing, failures: 0, is_pause_due: false };
        let thread = std::thread::Builder::new().name("bennu-store".to_owned());
        let started = thread.spawn(move || match keeper.open(false) {
            Ok(database) => {
                *keeper.shared.state.write() = State::Open(database);
                if opened.send(Ok(())).is_ok() {
                    keeper.serve(taken);
                }
            }
            Err(error) => {
                // Nobody may be waiting any more.
                let _ = opened.send(Err(error));
            }
        });
        let failed = |error: io::Error| StoreError::Failed {
            path: shared.path.clone(),
            why: format!("starting its thread: {error}"),
        };
        started.map_err(failed)?;
        opening.await.unwrap_or(Err(StoreError::Closed))?;
        Ok(File { shared, orders, readers: Arc::new(Semaphore::new(READS_MAX)) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        let permit = readers.acquire_owned().await.expect("the semaphore is never closed");
        self.read_transaction(move |transaction, path| {
            let _permit = permit;
            read(&Reading { transaction, path })
        })
        .await
    }

    async fn read_transaction<T: Send + 'static>(
        &self,
        read: impl FnOnce(ReadTransaction, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if matches!(&*self.shared.state.read(), State::Failed(_)) {
            self.mend().await?;
        }
        let shared = Arc::clone(&self.shared);
        let outcome = blocking(move || {
            let transaction = shared.begin_read()?;
            let outcome = caught(&shared.path, || read(transaction, &shared.path));
            match outcome {
                Err(StoreError::Closed) if !matches!(&*shared.state.read(), State::Closed) => Err(StoreError::Failed {
                    path: shared.path.clone(),
                    why: "it was opened again during this read, after a write had failed".to_owned(),
                }),
                outcome => outcome,
            }
        });
        let outcome = outcome.await;
        if let Err(StoreError::Failed { .. } | StoreError::Damaged { .. }) = outcome {
            // redb fails for ever after the first time; this one keeps its reason.
            let _ = self.mend().await;
        }
        outcome
    }

    async fn mend(&self) -> Result<(), StoreError> {
        let (sender, mended) = oneshot::channel();
        self.orders.send(Order::Mend(sender)).await.map_err(|_| StoreError::Closed)?;
        mended.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn copy_to(&self, to: std::fs::File, named: PathBuf) -> Result<u64, StoreError> {
        self.read_transaction(move |transaction, path| copy::write(&transaction, path, to, &named)).await
    }
}

impl Backend for File {
    fn is_durable(&self) -> bool {
        true
    }

    async fn get(&self, table: Table, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |snapshot| snapshot.get(table, &key)).await
    }

    async fn range(&self, table: Table, keys: Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(move |snapshot| snapshot.range(table, &keys, limit)).await
    }

    async fn change<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job = Job::new(work, sender);
        self.orders.send(Order::Change(job)).await.map_err(|_| StoreError::Closed)?;
        match receiver.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.orders.send(Order::Close(sender)).await.is_ok() {
            // An error says that the sender was dropped.
            let _ = closed.await;
        }
    }
}

impl Shared {
    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        match &*self.state.read() {
            State::Open(database) => {
                caught(&self.path, || database.begin_read().map_err(|error| fault(&self.path, error)))
            }
            State::Failed(error) => Err(error.clone()),
            State::Closed => Err(StoreError::Closed),
        }
    }

    /// Puts a state in the place of the one that is, whose database is closed.
    fn enter(&self, state: State) {
        let left = std::mem::replace(&mut *self.state.write(), state);
        // redb may panic where the file is not what it wrote. It is opened anew, and checked, in any case.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(left)));
    }
}

/// What the thread has.
struct Keeper {
    shared: Arc<Shared>,
    backing: Backing,
    /// Failed writes and openings since the last write that did not.
    failures: u32,
    /// Each failure is followed by one pause, before the next attempt.
    is_pause_due: bool,
}

impl Keeper {
    /// Opens the file or makes it, and brings it to the current format.
    fn open(&self, after_failure: bool) -> Result<Database, StoreError> {
        let path = &self.shared.path;
        let failed = |error: io::Error| fault(path, StorageError::from(error));
        caught(path, || {
            let staged = Staged::new((self.backing)(after_failure)?).map_err(failed)?;
            let (database, found) = open_checked(path, staged.clone())?;
            staged.release().map_err(failed)?;
            format::migrate(&database, found).map_err(|error| fault(path, error))?;
            Ok(database)
        })
    }

    /// Takes orders until nobody can give any more.
    fn serve(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                waiting.extend(orders.blocking_recv());
            }
            while waiting.len() < CHANGES_WAITING_MAX
                && let Ok(order) = orders.try_recv()
            {
                waiting.push_back(order);
            }
            match waiting.front() {
                Some(Order::Change(_)) => self.change(&mut waiting),
                Some(Order::Mend(_)) => self.mend_for(&mut waiting),
                Some(Order::Close(_)) | None => break,
            }
        }
        // Those who sent just now are told that it is closed, by the channels that go with their orders; whoever closes it is,
        // when it is closed.
        orders.close();
        while let Ok(order) = orders.try_recv() {
            waiting.push_back(order);
        }
        waiting.retain(|order| matches!(order, Order::Close(_)));
        self.shared.enter(State::Closed);
    }

    /// Stores changes that wait together, and opens the file again where that fails.
    fn change(&mut self, waiting: &mut VecDeque<Order>) {
        self.pause();
        let shared = Arc::clone(&self.shared);
        let mut group = Group::default();
        let mended = self.mend();
        let stored = mended.clone().and_then(|()| caught(&shared.path, || store(&shared, waiting, &mut group)));
        match &stored {
            Err(error) if mended.is_ok() => self.fail(error.clone()),
            Ok(()) if group.is_changed => self.failures = 0,
            // It was noted when the file could not be opened, or says nothing about writing.
            Err(_) | Ok(()) => {}
        }
        if let Err(error) = &stored {
            if group.done.is_empty() {
                // They are done on nothing, so that their callers hear why.
                while let Some(job) = next_job(waiting) {
                    group.done.push((job.0)(&mut Transaction::new(&Unreadable(error.clone()))));
                }
            }
            tracing::error!(%error, changes = group.done.len(), "changes could not be stored");
        }
        for Done { tell, .. } in group.done {
            tell(stored.clone());
        }
        // A file that could not be opened just now is tried again after a pause.
        if mended.is_ok() {
            let _ = self.mend();
        }
    }

    /// Answers all who wait for that at once.
    fn mend_for(&mut self, waiting: &mut VecDeque<Order>) {
        self.pause();
        let probed = {
            let state = self.shared.state.read();
            match &*state {
                State::Open(database) => caught(&self.shared.path, || {
                    let begun = database.begin_write().map_err(|error| fault(&self.shared.path, error))?;
                    begun.abort().map_err(|error| fault(&self.shared.path, error))
                }),
                State::Failed(_) | State::Closed => Ok(()),
            }
        };
        if let Err(error) = probed {
            tracing::error!(%error, "the store could not be read");
            self.fail(error);
        }
        let mended = self.mend();
        for order in std::mem::take(waiting) {
            match order {
                Order::Mend(sender) => {
                    // Nobody may be waiting any more.
                    let _ = sender.send(mended.clone());
                }
                other => waiting.push_back(other),
            }
        }
    }

    /// Opens the file again if that has to be.
    fn mend(&mut self) -> Result<(), StoreError> {
        if !matches!(&*self.shared.state.read(), State::Failed(_)) {
            return Ok(());
        }
        match self.open(true) {
            Ok(database) => {
                tracing::info!("the store's file was opened again and is whole");
                self.shared.enter(State::Open(database));
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the store's file could not be opened again");
                self.fail(error.clone());
                Err(error)
            }
        }
    }

    fn fail(&mut self, error: StoreError) {
        self.failures = self.failures.saturating_add(1);
        self.is_pause_due = true;
        self.shared.enter(State::Failed(error));
    }

    /// Waits after a failure, longer after each.
    fn pause(&mut self) {
        if std::mem::take(&mut self.is_pause_due) {
            std::thread::sleep(PAUSE_MIN.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(PAUSE_MAX));
        }
    }
}

/// Changes that are stored together.
#[derive(Default)]
struct Group {
    done: Vec<Done>,
    is_changed: bool,
}

/// The next order, if it is a change.
fn next_job(waiting: &mut VecDeque<Order>) -> Option<Job> {
    match waiting.pop_front()? {
        Order::Change(job) => Some(job),
        other => {
            waiting.push_front(other);
            None
        }
    }
}

/// Does the transactions that wait, up to a group's bounds, and stores them at once.
fn store(shared: &Shared, waiting: &mut VecDeque<Order>, group: &mut Group) -> Result<(), StoreError> {
    let (path, state) = (&*shared.path, shared.state.read());
    let database = match &*state {
        State::Open(database) => database,
        State::Failed(error) => return Err(error.clone()),
        State::Closed => return Err(StoreError::Closed),
    };
    let transaction = database.begin_write().map_err(|error| fault(path, error))?;
    let writing = Writing { transaction, path, unreadable: RefCell::new(None) };
    let mut stored = Ok(());
    let mut bytes = 0;
    while bytes < GROUP_BYTES_MAX
        && stored.is_ok()
        && writing.unreadable.borrow().is_none()
        && let Some(job) = next_job(waiting)
    {
        let mut changing = Transaction::new(&writing);
        let outcome = (job.0)(&mut changing);
        let Transaction { changes, bytes: changed, .. } = changing;
        let counts = outcome.counts;
        group.done.push(outcome);
        if counts && !changes.is_empty() {
            group.is_changed = true;
            bytes += changed;
            stored = writing.apply(changes);
        }
    }
    let Writing { transaction, unreadable, .. } = writing;
    stored?;
    if let Some(error) = unreadable.into_inner() {
        // redb failed within this transaction, or panicked: nobody knows what a commit would store.
        let _ = transaction.abort();
        return Err(error);
    }
    if group.is_changed {
        transaction.commit().map_err(|error| fault(path, error))
    } else {
        transaction.abort().map_err(|error| fault(path, error))
    }
}

fn definition(table: Table) -> Definition<'static> {
    debug_assert_ne!(table.0, format::META, "the table of the format is its own");
    Definition::new(table.0)
}

struct Reading<'a> {
    transaction: ReadTransaction,
    path: &'a Path,
}

struct Writing<'a> {
    transaction: WriteTransaction,
    path: &'a Path,
    /// Why something could not be read: the database does no more then.
    unreadable: RefCell<Option<StoreError>>,
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
            Ok(entries) => get(self.path, table, &entries, key),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(fault(self.path, error)),
        }
    }

    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        match self.transaction.open_table(definition(table)) {
            Ok(entries) => range(self.path, table, &entries, keys, limit),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(fault(self.path, error)),
        }
    }
}

impl Snapshot for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|| {
            let entries = self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
            get(self.path, table, &entries, key)
        })
    }

    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.reading(|| {
            let entries = self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
            range(self.path, table, &entries, keys, limit)
        })
    }
}

impl Writing<'_> {
    /// Reads for a change; a panic of redb is not the change's own.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(error) = &*self.unreadable.borrow() {
            return Err(error.clone());
        }
        let mut has_panicked = true;
        let outcome = caught(self.path, || {
            let outcome = read();
            has_panicked = false;
            outcome
        });
        // An entry with a wrong checksum is that entry's matter.
        if let Err(error) = &outcome
            && (has_panicked || matches!(error, StoreError::Failed { .. }))
        {
            *self.unreadable.borrow_mut() = Some(error.clone());
        }
        outcome
    }

    fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        for (table, changed) in changes {
            let mut entries =
                self.transaction.open_table(definition(table)).map_err(|error| fault(self.path, error))?;
            for (key, value) in changed {
                let outcome = match value {
                    Some(value) => entries.insert(&*key, &*format::seal(table.0, &key, value)).map(drop),
                    None => entries.remove(&*key).map(drop),
                };
                outcome.map_err(|error| fault(self.path, error))?;
            }
        }
        Ok(())
    }
}

fn get(
    path: &Path,
    table: Table,
    entries: &impl ReadableTable<&'static [u8], Checked>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let stored = entries.get(key).map_err(|error| fault(path, error))?;
    stored.map(|stored| unsealed(path, table, key, stored.value())).transpose()
}

fn range(
    path: &Path,
    table: Table,
    entries: &impl ReadableTable<&'static [u8], Checked>,
    keys: &Keys,
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    for entry in entries.range::<&[u8]>(keys.bounds()).map_err(|error| fault(path, error))?.take(limit) {
        let (key, stored) = entry.map_err(|error| fault(path, error))?;
        found.push((key.value().to_vec(), unsealed(path, table, key.value(), stored.value())?));
    }
    Ok(found)
}

fn unsealed(path: &Path, table: Table, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StoreError> {
    let value = format::unseal(table.0, key, stored);
    let damaged = || StoreError::Damaged { path: path.to_owned(), why: format::wrong(table.0, key) };
    Ok(value.ok_or_else(damaged)?.to_vec())
}

/// Does what redb may panic in where the file is not what it wrote.
pub(super) fn caught<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a reason");
        Err(StoreError::Damaged { path: path.to_owned(), why: format!("redb gave up on it: {text}") })
    })
}

/// What redb says, in our words.
pub(super) fn fault(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::InUse { path },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => StoreError::Foreign { path },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path, why: format!("it is shorter than what was written: {error}") }
        }
        redb::Error::Io(error) => StoreError::Failed { path, why: error.to_string() },
        redb::Error::Corrupted(why) => StoreError::Damaged { path, why },
        redb::Error::DatabaseClosed => StoreError::Closed,
        error => StoreError::Failed { path, why: error.to_string() },
    }
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
