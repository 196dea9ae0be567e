//! What stores sessions, many at a time, and takes those that have ended away.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::records::{Change, KeptClient, SessionRecord, StateRecord};
use super::{Info, Recoverable};
use crate::mcp::outgoing::NotStored;
use crate::protocol::Time;
use crate::protocol::mcp::recovery::{KeptHead, Unsaved};
use crate::store::{Store, StoreError};
use crate::{clock, random};

/// Sessions that are stored together.
const SESSIONS_PER_ROUND: usize = 256;
/// Sessions that are taken away together.
const ENDED_PER_ROUND: usize = 16;
/// Bytes of messages, and of calls, of one session that are stored together: what a snapshot has is one transaction.
const BYTES_PER_SESSION: usize = 1 << 20;
/// Bytes of one transaction, and changes in it, where several sessions are in it.
const TRANSACTION: (usize, usize) = (4 << 20, 4_096);
/// How often storing is tried where it fails, and milliseconds between.
const TRIES: (u32, u64) = (20, 250);
/// Milliseconds until it is tried again to take sessions away.
const LATER_MS: u64 = 5_000;
/// Sessions that may be read from the store at once.
const READS: usize = 16;

/// What stores the sessions of a node. A session is stored with all that it says before its client gets that.
pub(super) struct Keeper(Arc<Inner>);

struct Inner {
    store: Store,
    /// The number of this process, by which it tells what it stored.
    process: u64,
    todo: Mutex<Todo>,
    notify: Notify,
    /// Whether nothing is left to do.
    is_idle: watch::Sender<bool>,
    /// Held by whoever reads a session, by its id.
    reading: [tokio::sync::Mutex<()>; READS],
}

#[derive(Default)]
struct Todo {
    changed: Vec<Weak<Recoverable>>,
    /// Those that have ended and are not taken away yet.
    ended: BTreeSet<Box<str>>,
    has_task: bool,
    /// A round is under way.
    is_at_work: bool,
    /// When it is tried again to take sessions away, where that failed.
    again: Option<Time>,
    /// Nothing more is stored.
    is_stopped: bool,
    /// Nobody has it any more.
    is_dropped: bool,
}

/// What one session has to store, as one transaction.
struct Snapshot {
    recoverable: Arc<Recoverable>,
    unsaved: Unsaved,
    changes: Vec<Change>,
}

impl Todo {
    /// Whether nothing is left but what is tried later.
    fn is_idle(&self) -> bool {
        !self.is_at_work && self.changed.is_empty() && (self.ended.is_empty() || self.again.is_some())
    }
}

impl Keeper {
    pub(super) fn new(store: Store) -> Self {
        Keeper(Arc::new(Inner {
            store,
            process: u64::from_be_bytes(random::bytes()),
            todo: Mutex::default(),
            notify: Notify::new(),
            is_idle: watch::Sender::new(true),
            reading: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }))
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The number of this process.
    pub(super) fn process(&self) -> u64 {
        self.0.process
    }

    /// Notes that a session has something to store. The first is noted within a runtime. Once storing has stopped, whoever is attached
    /// is let go: they come back after the restart.
    pub(super) fn note(&self, recoverable: &Weak<Recoverable>) {
        let is_noted = self.begin(|todo| {
            if !todo.is_stopped {
                todo.changed.push(Weak::clone(recoverable));
            }
            !todo.is_stopped
        });
        if !is_noted && let Some(recoverable) = recoverable.upgrade() {
            recoverable.session.standing().snapshot_stored(Err(NotStored));
            recoverable.present.tell(Info::NotStored);
        }
    }

    /// Takes a session that has ended away.
    pub(super) fn end(&self, id: &str) {
        self.begin(|todo| {
            todo.ended.insert(id.into());
        });
    }

    fn begin<R>(&self, add: impl FnOnce(&mut Todo) -> R) -> R {
        let (added, task) = {
            let mut todo = self.0.todo.lock();
            let added = add(&mut todo);
            self.0.is_idle.send_replace(todo.is_idle());
            let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| !todo.has_task);
            todo.has_task |= runtime.is_some();
            (added, runtime)
        };
        if let Some(runtime) = task {
            // It ends with the keeper.
            runtime.spawn(Arc::clone(&self.0).run());
        }
        self.0.notify.notify_one();
        added
    }

    /// Whether a session has ended and is still stored.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.0.todo.lock().ended.contains(id)
    }

    /// Makes changes of sessions that nobody has, all at once.
    pub(super) async fn make(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.0.store_some(Arc::new(changes), 0).await
    }

    /// Waits until nobody else reads that session.
    pub(super) async fn reading(&self, id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let place = id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.reading[place % READS].lock().await
    }

    /// Waits until what has changed is stored and what has ended is taken away, or could not be.
    pub(super) async fn flush(&self) {
        let mut is_idle = self.0.is_idle.subscribe();
        // The sender is part of self.
        let _ = is_idle.wait_for(|is_idle| *is_idle).await;
    }

    /// Stores nothing more; sessions that have ended are still taken away.
    pub(super) fn stop(&self) {
        self.0.todo.lock().is_stopped = true;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.todo.lock().is_dropped = true;
        self.0.notify.notify_one();
    }
}

impl Inner {
    async fn run(self: Arc<Self>) {
        while !self.todo.lock().is_dropped {
            let again = self.todo.lock().again;
            let later = async {
                match again {
                    Some(again) => tokio::time::sleep(Duration::from_millis(again.since(clock::now()))).await,
                    None => std::future::pending().await,
                }
            };
            // Both may be dropped.
            tokio::select! {
                () = self.notify.notified() => {}
                () = later => {}
            }
            while self.round().await {}
        }
    }

    /// Stores some of what is to be stored; whether there may be more to do at once.
    async fn round(&self) -> bool {
        let (changed, ended) = {
            let mut todo = self.todo.lock();
            let count = todo.changed.len().min(SESSIONS_PER_ROUND);
            let changed: Vec<_> = todo.changed.drain(..count).collect();
            let takes_away = todo.again.is_none_or(|again| again <= clock::now());
            let ended = todo.ended.iter().take(if takes_away { ENDED_PER_ROUND } else { 0 });
            let ended: Vec<_> = ended.cloned().collect();
            todo.is_at_work = !changed.is_empty() || !ended.is_empty();
            if !todo.is_at_work {
                self.is_idle.send_replace(todo.is_idle());
                return false;
            }
            (changed, ended)
        };
        let snapshot = |recoverable: Arc<Recoverable>| {
            let unsaved = recoverable.session.standing().snapshot(BYTES_PER_SESSION)?;
            let changes = self.changes_of(&recoverable, &unsaved);
            Some(Snapshot { recoverable, unsaved, changes })
        };
        let mut numbers = BTreeSet::new();
        let is_first = |one: &Arc<Recoverable>| numbers.insert(one.session.number());
        let changed = changed.iter().filter_map(Weak::upgrade).filter(is_first);
        let mut snapshots = changed.filter_map(snapshot).collect::<Vec<_>>().into_iter();
        loop {
            let (mut some, mut bytes, mut count) = (Vec::new(), 0, 0);
            while let Some(next) = snapshots.as_slice().first() {
                bytes += next.changes.iter().map(Change::bytes).sum::<usize>();
                count += next.changes.len();
                if !some.is_empty() && (bytes > TRANSACTION.0 || count > TRANSACTION.1) {
                    break;
                }
                some.extend(snapshots.next());
            }
            if some.is_empty() {
                break;
            }
            self.store_snapshots(some).await;
        }
        if ended.is_empty() {
            return true;
        }
        let gone = ended.iter().flat_map(|id| Change::session_gone(id)).collect();
        let mut gone = vec![self.store_some(Arc::new(gone), 0).await];
        if gone[0].is_err() {
            gone.clear();
            for id in &ended {
                gone.push(self.store_some(Arc::new(Change::session_gone(id).to_vec()), 0).await);
            }
        }
        let mut todo = self.todo.lock();
        todo.again = None;
        for (id, gone) in ended.iter().zip(gone.iter().cycle()) {
            match gone {
                Ok(()) => {
                    todo.ended.remove(id);
                }
                Err(error) => {
                    tracing::warn!(%error, session = &**id, "an MCP session could not be taken out of the store: it is tried again");
                    todo.again = Some(clock::now() + LATER_MS);
                }
            }
        }
        true
    }

    /// Stores snapshots together, or where that fails one by one. A session that can't be stored ends.
    async fn store_snapshots(&self, snapshots: Vec<Snapshot>) {
        let changes: Arc<Vec<Change>> = Arc::new(snapshots.iter().flat_map(|one| one.changes.clone()).collect());
        let together = self.store_some(changes, TRIES.0).await;
        let is_alone = snapshots.len() == 1;
        for Snapshot { recoverable, unsaved, changes } in snapshots {
            let stored = match &together {
                Err(_) if !is_alone => self.store_some(Arc::new(changes), 0).await,
                together => together.clone(),
            };
            let outgoing = recoverable.session.standing();
            match stored {
                Ok(()) => outgoing.snapshot_stored(Ok(&unsaved)),
                Err(error) => {
                    tracing::error!(%error, session = recoverable.session.id(), "an MCP session could not be stored: it ends");
                    outgoing.snapshot_stored(Err(NotStored));
                    recoverable.session.mcp.recoveries.break_off(&recoverable);
                }
            }
        }
    }

    /// Makes changes as one.
    async fn store_some(&self, changes: Arc<Vec<Change>>, tries_max: u32) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let changes = Arc::clone(&changes);
            let change =
                self.store.change(move |transaction| changes.iter().try_for_each(|change| change.make(transaction)));
            match AssertUnwindSafe(change).catch_unwind().await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(StoreError::Failed { .. } | StoreError::Damaged { .. })) if tries < tries_max => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(TRIES.1)).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    tracing::error!("storing MCP sessions panicked");
                    return Err(StoreError::Closed);
                }
            }
        }
    }

    fn changes_of(&self, recoverable: &Recoverable, unsaved: &Unsaved) -> Vec<Change> {
        let id = recoverable.session.id();
        let session =
            unsaved.is_touched.then(|| Change::session(id, &session_record(recoverable))).into_iter().flatten();
        let calls = unsaved.calls.iter().flat_map(|(order, call)| Change::call(id, *order, call.as_ref()));
        let messages = unsaved.messages.iter().flat_map(|message| Change::message(id, message));
        let state = Change::state(id, &state_record(recoverable, unsaved.head, self.process));
        let gone = unsaved.gone.iter().map(|position| Change::message_gone(id, *position));
        session.chain(calls).chain(messages).chain(state).chain(gone).collect()
    }
}

/// The ids of requests that wait and are no calls which are stored themselves, those included that the process before left.
fn asked(recoverable: &Recoverable) -> Vec<String> {
    let left = recoverable.broken_off.lock().as_ref().map(|left| left.requests.clone()).unwrap_or_default();
    let ids = recoverable.session.waiting_requests().into_iter().chain(left);
    ids.map(|id| id.get().to_owned()).collect()
}

fn session_record(recoverable: &Recoverable) -> SessionRecord {
    let session = &recoverable.session;
    let (client, is_initialized, level) = {
        let peer = session.peer.lock();
        (peer.client().map(|client| KeptClient::of(client)), peer.is_initialized(), peer.asked_level())
    };
    SessionRecord {
        user: session.user.user.to_string(),
        topic: recoverable.topic.to_string(),
        server: session.server.name.to_string(),
        client,
        is_initialized,
        level,
        is_streaming: session.is_streaming(),
        subscriptions: session.lively.lock().subscriptions.iter().cloned().collect(),
        opened_unix_ms: session.record.opened_unix_ms(),
    }
}

fn state_record(recoverable: &Recoverable, head: KeptHead, process: u64) -> StateRecord {
    let wall_ms = clock::unix_micros() / 1_000;
    StateRecord {
        process,
        asked: asked(recoverable),
        asking: recoverable.session.peer.lock().asking.ids().map(|id| id.0).collect(),
        used: head.used,
        given: head.given,
        last: head.last.0,
        acknowledged: head.acknowledged.0,
        begun: head.begun,
        until_unix_ms: head.until.map(|until| wall_ms + until.since(clock::now())),
    }
}
