//! What stores sessions, many at a time, and takes those that have ended away.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Recoverable;
use super::records::{Change, KeptClient, SessionRecord, StateRecord};
use crate::clock;
use crate::mcp::outgoing::NotStored;
use crate::mcp::session::Session;
use crate::protocol::mcp::recovery::{KeptHead, Unsaved};
use crate::store::{Store, StoreError};

/// Sessions that are stored together.
const SESSIONS_PER_ROUND: usize = 256;
/// Bytes of messages of one session that are stored together.
const BYTES_PER_SESSION: usize = 1 << 20;
/// Bytes of one transaction, and changes in it.
const TRANSACTION: (usize, usize) = (4 << 20, 4_096);
/// How often storing is tried where it fails, and milliseconds between.
const TRIES: (u32, u64) = (20, 250);
/// Sessions that may be read from the store at once.
const READS: usize = 16;

/// What stores the sessions of a node. A session is stored with all that it says before its client gets that.
pub(super) struct Keeper(Arc<Inner>);

struct Inner {
    store: Store,
    todo: Mutex<Todo>,
    notify: Notify,
    /// Whether nothing is left to do.
    is_idle: watch::Sender<bool>,
    is_stopped: AtomicBool,
    task: OnceLock<()>,
    /// Held by whoever reads a session, by its id.
    pub(super) reading: [tokio::sync::Mutex<()>; READS],
}

#[derive(Default)]
struct Todo {
    changed: Vec<Weak<Recoverable>>,
    /// Those that have ended and are not taken away yet.
    ended: BTreeSet<Box<str>>,
}

/// What one session has to store.
struct Snapshot {
    recoverable: Arc<Recoverable>,
    unsaved: Unsaved,
}

impl Keeper {
    pub(super) fn new(store: Store) -> Self {
        Keeper(Arc::new(Inner {
            store,
            todo: Mutex::default(),
            notify: Notify::new(),
            is_idle: watch::Sender::new(true),
            is_stopped: AtomicBool::new(false),
            task: OnceLock::new(),
            reading: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }))
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Notes that a session has something to store. Its first is within a runtime.
    pub(super) fn note(&self, recoverable: &Weak<Recoverable>) {
        if self.0.is_stopped.load(Ordering::SeqCst) {
            if let Some(recoverable) = recoverable.upgrade() {
                recoverable.session.standing().snapshot_stored(Err(NotStored));
            }
            return;
        }
        self.begin(|todo| todo.changed.push(Weak::clone(recoverable)));
    }

    /// Takes a session that has ended away.
    pub(super) fn end(&self, id: &str) {
        if !self.0.is_stopped.load(Ordering::SeqCst) {
            self.begin(|todo| {
                todo.ended.insert(id.into());
            });
        }
    }

    fn begin(&self, add: impl FnOnce(&mut Todo)) {
        {
            let mut todo = self.0.todo.lock();
            add(&mut todo);
            self.0.is_idle.send_replace(false);
        }
        self.0.notify.notify_one();
        if self.0.task.get().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && self.0.task.set(()).is_ok()
        {
            // It ends with the last handle.
            runtime.spawn(Arc::clone(&self.0).run());
        }
    }

    /// Whether a session has ended and is still stored.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.0.todo.lock().ended.contains(id)
    }

    /// Makes changes of sessions that nobody has.
    pub(super) async fn make(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.0.store_all(changes).await
    }

    /// Waits until nobody else reads that session.
    pub(super) async fn reading(&self, id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let place = id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.reading[place % READS].lock().await
    }

    /// Stores what is left, and nothing after that: sessions that end from here on stay stored.
    pub(super) async fn stop(&self) {
        let mut is_idle = self.0.is_idle.subscribe();
        let _ = is_idle.wait_for(|is_idle| *is_idle).await;
        self.0.is_stopped.store(true, Ordering::SeqCst);
        self.0.notify.notify_one();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::SeqCst);
        self.0.notify.notify_one();
    }
}

impl Inner {
    async fn run(self: Arc<Self>) {
        while !self.is_stopped.load(Ordering::SeqCst) {
            self.notify.notified().await;
            while self.round().await {}
        }
    }

    /// Stores some of what is to be stored; whether there may be more.
    async fn round(&self) -> bool {
        let (changed, ended) = {
            let mut todo = self.todo.lock();
            let count = todo.changed.len().min(SESSIONS_PER_ROUND);
            let changed: Vec<_> = todo.changed.drain(..count).collect();
            let ended: Vec<_> = todo.ended.iter().take(SESSIONS_PER_ROUND).cloned().collect();
            if changed.is_empty() && ended.is_empty() {
                self.is_idle.send_replace(true);
                return false;
            }
            (changed, ended)
        };
        let snapshot = |recoverable: Arc<Recoverable>| {
            let asked = asked(&recoverable.session);
            let unsaved = recoverable.session.standing().snapshot(BYTES_PER_SESSION)?;
            Some((asked, Snapshot { recoverable, unsaved }))
        };
        let taken: Vec<_> = changed.iter().filter_map(Weak::upgrade).filter_map(snapshot).collect();
        let mut changes = Vec::new();
        for (asked, Snapshot { recoverable, unsaved }) in &taken {
            changes.extend(changes_of(recoverable, unsaved, asked));
        }
        changes.extend(ended.iter().flat_map(|id| Change::session_gone(id)));
        let stored = self.store_all(changes).await;
        if let Err(error) = &stored {
            tracing::error!(%error, sessions = taken.len(), "MCP sessions could not be stored: they end");
        }
        for (_, Snapshot { recoverable, unsaved }) in taken {
            let outgoing = recoverable.session.standing();
            outgoing.snapshot_stored(stored.as_ref().map(|()| &unsaved).map_err(|_| NotStored));
            if stored.is_err() {
                recoverable.session.mcp.recoveries.break_off(&recoverable);
            }
        }
        let mut todo = self.todo.lock();
        for id in ended {
            todo.ended.remove(&id);
        }
        true
    }

    /// Makes changes in their order, several at a time as one.
    async fn store_all(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(change) = rest.next_if(|change| {
                some.is_empty() || bytes + change.bytes() <= TRANSACTION.0 && some.len() < TRANSACTION.1
            }) {
                bytes += change.bytes();
                some.push(change);
            }
            let some = Arc::new(some);
            let mut tries = 0;
            loop {
                let some = Arc::clone(&some);
                let stored = self
                    .store
                    .change(move |transaction| some.iter().try_for_each(|change| change.make(transaction)))
                    .await;
                match stored {
                    Ok(()) => break,
                    Err(StoreError::Failed { .. } | StoreError::Damaged { .. }) if tries < TRIES.0 => {
                        tries += 1;
                        tokio::time::sleep(Duration::from_millis(TRIES.1)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The ids of requests under way that are no calls which are stored themselves.
fn asked(session: &Session) -> Vec<String> {
    let ids = session.peer.lock().ids_under_way();
    let is_stored = |id: &String| {
        let id = serde_json::value::RawValue::from_string(id.clone()).ok()?;
        session.standing().recovery(|recovery| recovery.knows(&id))
    };
    ids.into_iter().filter(|id| is_stored(id) == Some(false)).collect()
}

fn changes_of(recoverable: &Recoverable, unsaved: &Unsaved, asked: &[String]) -> Vec<Change> {
    let id = recoverable.session.id();
    let calls = unsaved.calls.iter().flat_map(|(order, call)| Change::call(id, *order, call.as_ref()));
    let messages = unsaved.messages.iter().flat_map(|message| Change::message(id, message));
    let session = unsaved.is_touched.then(|| Change::session(id, &session_record(recoverable))).into_iter().flatten();
    let state = Change::state(id, &state_record(unsaved.head, asked.to_vec()));
    let gone = unsaved.gone.iter().map(|position| Change::message_gone(id, *position));
    session.chain(calls).chain(messages).chain(state).chain(gone).collect()
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

fn state_record(head: KeptHead, asked: Vec<String>) -> StateRecord {
    let wall_ms = clock::unix_micros() / 1_000;
    StateRecord {
        asked,
        used: head.used,
        given: head.given,
        last: head.last.0,
        acknowledged: head.acknowledged.0,
        begun: head.begun,
        until_unix_ms: head.until.map(|until| wall_ms + until.since(clock::now())),
    }
}
