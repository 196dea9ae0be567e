//! Messages that must arrive: the driver of [`protocol::queue`](crate::protocol::queue) over the store.
//!
//! ```text
//! Queues::enqueue     a producer's message: answered once its durability class is reached
//! Queues::consume     a Consumer: takes messages, acks, nacks, extends; leaves when it is dropped
//! Queues::stats, ...  what waits, what is dead; retry and purge for operators
//! ```
//!
//! # What it promises
//! - **At least once.** What [`Queues::enqueue`] answered for is delivered until a consumer acknowledges it, it expires, it
//!   becomes a dead letter, or an operator purges it. A durable message outlives the process: it is in the store's file, synced,
//!   before the answer. An acknowledgement that was answered holds as long: nothing is delivered after it.
//! - **Order within a priority.** First deliveries come in the order of acceptance. A message whose consumer left comes again
//!   ahead of later ones; one that failed comes again when its backoff is over, and does not hold up others meanwhile.
//! - **One consumer at a time** has a message, for the time of its lease.
//! - **Bounds**: [`QueueSettings`] names every one of them. A producer that finds a queue full is told so at once.
//!
//! All messages are in memory as well, so a queue costs its messages' bytes there; the store is its journal. Time is the
//! process's own, which no change of the wall clock moves; what is stored is wall time, trusted only across a restart and then
//! no further than a message's own lifetime.

mod changes;
mod consumer;
mod entry;
mod error;
mod load;
mod log;
mod message;
mod operate;
mod record;
mod settings;
#[cfg(test)]
mod tests;
mod timer;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::smallvec;
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;

pub use self::consumer::{Consumer, Delivered, Nacked};
pub(crate) use self::consumer::{Member, Settling};
pub use self::error::{AckRefused, QueueError};
pub use self::message::{Enqueued, MESSAGE_ID_PREFIX, NewMessage};
pub use self::operate::{DeadLetterView, MessageView, PriorityCounts, QueueStats, QueuesStats, RetryRefused, Totals};
pub use self::settings::{Durability, QueueSettings};
pub use crate::protocol::queue::Priority;

use self::entry::{Entry, Wake};
use self::log::{Kind, Log, Write};
use self::record::{Record, Standing, key_write};
use self::timer::Timer;
use self::writer::{Op, Then, Writer, Writes};
use crate::clock;
pub use crate::protocol::queue::{Backoff, Limits, Refused};
pub use crate::store::StoreError;

use crate::protocol::queue::{Offer, Offered};
use crate::store::Store;

/// The longest name of a queue, in bytes. As long as a topic's.
pub const NAME_BYTES_MAX: usize = 255;
/// What begins the names of MCP sessions' queues.
pub const SESSION_PREFIX: &str = "session:";
/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// All queues of a process. Clones are the same.
#[derive(Clone)]
pub struct Queues(Arc<Shared>);

struct Shared {
    settings: QueueSettings,
    entries: Mutex<BTreeMap<Arc<str>, Arc<Entry>>>,
    /// Whoever wants to know of a queue that is not there yet.
    awaited: Mutex<BTreeMap<Arc<str>, Wake>>,
    /// Bytes of all messages of all queues, dead letters among them.
    bytes: AtomicUsize,
    consumers: AtomicU64,
    /// The first number of a new queue: above those of all that were forgotten, one of which may have had its name.
    first: AtomicU64,
    writer: Writer,
    timer: Timer,
    started_ms: u64,
    /// Whether durable queues are.
    is_durable: bool,
}

impl Queues {
    /// Queues that end with the process: durable ones are kept in memory, and say so. Within a runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn in_memory(settings: QueueSettings) -> Self {
        let store = Store::in_memory();
        let queues = Self::make(&store, settings);
        queues.run(store, Log::default());
        queues
    }

    /// Queues in a store's file of their own, which is made where there is none. Within a runtime.
    ///
    /// # Errors
    /// [`StoreError`]: the file is something else, in use, damaged or can't be reached.
    pub async fn open(path: impl Into<std::path::PathBuf>, settings: QueueSettings) -> Result<Self, StoreError> {
        Self::on(Store::open(path).await?, settings).await
    }

    /// Queues in a store that others use as well.
    ///
    /// # Errors
    /// [`StoreError`]: what is stored can't be read.
    pub(crate) async fn on(store: Store, settings: QueueSettings) -> Result<Self, StoreError> {
        let queues = Self::make(&store, settings);
        let log = if store.is_durable() { queues.load(&store).await? } else { Log::default() };
        queues.run(store, log);
        Ok(queues)
    }

    fn make(store: &Store, settings: QueueSettings) -> Self {
        let is_durable = store.is_durable();
        let shared = Arc::new(Shared {
            settings,
            entries: Mutex::default(),
            awaited: Mutex::default(),
            bytes: AtomicUsize::new(0),
            consumers: AtomicU64::new(1),
            first: AtomicU64::new(1),
            writer: Writer::default(),
            timer: Timer::default(),
            started_ms: clock::now().0,
            is_durable,
        });
        Queues(shared)
    }

    fn run(&self, store: Store, log: Log) {
        writer::run(&self.0, store, log);
        timer::run(&self.0);
    }

    /// The settings.
    pub fn settings(&self) -> &QueueSettings {
        &self.0.settings
    }

    /// Gives a queue a message; the answer comes once its durability class is reached, and names it.
    ///
    /// Messages take their place in the order of the calls, not of the answers. Where the future is dropped, the message may
    /// have been taken all the same: a producer that has to know uses an idempotency key.
    ///
    /// # Errors
    /// [`QueueError`]: nothing was taken.
    pub async fn enqueue(&self, queue: &str, message: NewMessage) -> Result<Enqueued, QueueError> {
        self.offer(queue, message)?.answer().await
    }

    /// As [`Queues::enqueue`]; the message has its place when this returns, and its answer is waited for apart.
    pub(crate) fn offer(&self, queue: &str, message: NewMessage) -> Result<Storing, QueueError> {
        let existing = self.existing(queue);
        let class = match &existing {
            Some(entry) => entry.class,
            None => self.class(queue)?,
        };
        let now = clock::now();
        let now_unix_ms = clock::unix_micros() / 1_000;
        let settings = &self.0.settings;
        let message = message.check(settings)?;
        let bytes = message.bytes();
        let entry = match existing {
            Some(entry) => entry,
            None if class == Durability::Ephemeral => return Err(QueueError::NoConsumer),
            None => self.entry(queue, class)?,
        };
        let due_unix_ms = now_unix_ms.saturating_add(message.delay_ms);
        let expires_unix_ms = due_unix_ms.saturating_add(message.ttl_ms);
        let record = Arc::new(Record {
            payload: message.payload,
            priority: message.priority,
            created_unix_ms: now_unix_ms,
            retries_max: message.retries_max,
            key: message.key,
        });
        let reached = self.0.reached(class);
        // Encoded before the lock is taken, which others wait for.
        let value = (reached == Durability::Durable).then(|| {
            let written_unix_ms = now_unix_ms;
            record.stored(Standing { written_unix_ms, expires_unix_ms, due_unix_ms, ..Standing::default() })
        });
        let mut state = entry.state.lock();
        // One that came before is answered so, however full it is now.
        let is_known =
            record.key.as_deref().is_some_and(|key| state.queue.key(key).is_some_and(|(_, until)| until > now));
        // Whoever comes at the same time may pass this as well, which puts the sum above the bound by what they bring at most.
        let held = self.0.bytes.load(Ordering::Relaxed);
        if !is_known && held.saturating_add(bytes) > settings.total_bytes_max {
            return Err(QueueError::AllFull { limit: settings.total_bytes_max });
        }
        if !is_known && class == Durability::Ephemeral && state.wakers.is_empty() {
            return Err(QueueError::NoConsumer);
        }
        let offer = Offer {
            body: Arc::clone(&record),
            bytes,
            priority: record.priority,
            ttl_ms: Some(message.ttl_ms),
            delay_ms: message.delay_ms,
            retries_max: record.retries_max,
            key: record.key.clone(),
        };
        let before = state.bytes();
        let offered = state.queue.offer(offer, now)?;
        match offered {
            Offered::Duplicate { seq, stored } => {
                let first = record.key.as_deref().and_then(|key| state.first_of(key));
                let first = first.unwrap_or_else(|| record.id(seq));
                let enqueued = Enqueued { id: first, durability: reached, duplicate: true };
                if stored {
                    return Ok(Storing::Done(enqueued));
                }
                if !state.repeat() {
                    let messages = state.queue.stats().messages;
                    return Err(Refused::Full { messages, limit: settings.limits.messages_max }.into());
                }
                // It is answered behind the first, as the first was.
                let (sender, receiver) = oneshot::channel();
                let then = Then::Repeated(seq, sender);
                self.0.writer.push(Op { entry: Arc::clone(&entry), writes: Writes::new(), then });
                Ok(Storing::Wait(receiver, enqueued))
            }
            Offered::New(seq) => {
                let enqueued = Enqueued { id: record.id(seq), durability: reached, duplicate: false };
                self.0.count(before, state.bytes());
                let former = record.key.as_ref().and_then(|key| state.firsts.insert(key.clone(), (seq, now_unix_ms)));
                let Some(value) = value else {
                    state.queue.stored(seq, now);
                    self.0.settled(&entry, state);
                    return Ok(Storing::Done(enqueued));
                };
                let mut writes = smallvec![Write::put(Kind::Message, seq, value)];
                if let Some(key) = &record.key {
                    let until = now_unix_ms.saturating_add(settings.limits.dedup_window_ms);
                    writes.push(key_write(key, seq, now_unix_ms, until));
                }
                // The key's window was over, and it was not forgotten yet.
                writes.extend(former.map(|(former, _)| Write::remove(Kind::Key, former)));
                writes.extend(state.reserve(seq));
                // Pushed under the lock, so that what is stored first was accepted first.
                let (sender, receiver) = oneshot::channel();
                let then = Then::Stored(seq, record.key.clone(), sender);
                self.0.writer.push(Op { entry: Arc::clone(&entry), writes, then });
                self.0.timer.arm(&entry, &mut state);
                Ok(Storing::Wait(receiver, enqueued))
            }
        }
    }

    /// The class that a queue is of.
    ///
    /// # Errors
    /// [`QueueError::Name`], [`QueueError::Unknown`].
    pub fn class(&self, queue: &str) -> Result<Durability, QueueError> {
        if queue.is_empty() || queue.len() > NAME_BYTES_MAX || queue.chars().any(char::is_control) {
            return Err(QueueError::Name);
        }
        self.0.settings.class_of(queue).ok_or_else(|| QueueError::Unknown(queue.to_owned()))
    }

    /// The class that messages of a queue do reach: without a file none is durable.
    ///
    /// # Errors
    /// As [`Queues::class`].
    pub fn reached(&self, queue: &str) -> Result<Durability, QueueError> {
        Ok(self.0.reached(self.class(queue)?))
    }

    /// A queue, which is made where there is none.
    fn entry(&self, name: &str, class: Durability) -> Result<Arc<Entry>, QueueError> {
        let mut entries = self.0.entries.lock();
        if let Some(entry) = entries.get(name) {
            return Ok(Arc::clone(entry));
        }
        let limit = self.0.settings.queues_max;
        if entries.len() >= limit {
            return Err(QueueError::TooMany { limit });
        }
        let next = self.0.first.load(Ordering::Relaxed);
        let entry = Arc::new(Entry::new(name.into(), class, self.0.settings.limits, next));
        entries.insert(Arc::clone(&entry.name), Arc::clone(&entry));
        let awaited = self.0.awaited.lock().get(name).map(Arc::clone);
        drop(entries);
        if let Some(wake) = awaited {
            wake();
        }
        Ok(entry)
    }

    /// Calls `wake` when a queue of this name comes to be, or at once if it is there: for those of whom few ever have one, so
    /// that a queue each would cost too much.
    pub(crate) fn await_queue(&self, name: Arc<str>, wake: impl Fn() + Send + Sync + 'static) -> Awaiting {
        let wake: Wake = Arc::new(wake);
        let is_there = {
            let entries = self.0.entries.lock();
            self.0.awaited.lock().insert(Arc::clone(&name), Arc::clone(&wake));
            entries.contains_key(&name)
        };
        if is_there {
            wake();
        }
        Awaiting { shared: Arc::clone(&self.0), name, wake }
    }

    /// Waits until what was decided so far is stored, or could not be: before the store is closed.
    pub(crate) async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        let then = Then::Told(self.0.writer.failures(), sender);
        let nowhere = Arc::new(Entry::new("".into(), Durability::Durable, self.0.settings.limits, 1));
        self.0.writer.push(Op { entry: nowhere, writes: Writes::new(), then });
        // What could not be stored was told where it was decided.
        let _ = receiver.await;
    }

    fn existing(&self, name: &str) -> Option<Arc<Entry>> {
        self.0.entries.lock().get(name).map(Arc::clone)
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.0.entries.lock().values().map(Arc::clone).collect()
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").field("queues", &self.0.entries.lock().len()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.writer.close();
        self.timer.close();
    }
}

impl Shared {
    fn reached(&self, class: Durability) -> Durability {
        match class {
            Durability::Durable if !self.is_durable => Durability::Memory,
            other => other,
        }
    }

    /// Counts what a queue's change did to the sum of bytes.
    fn count(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// What follows every change of a queue: its next time is noted, and those are woken who have something to take.
    fn settled(&self, entry: &Arc<Entry>, mut state: parking_lot::MutexGuard<'_, entry::State>) {
        self.timer.arm(entry, &mut state);
        let woken = if state.is_anyone_asleep() { state.wake_those(clock::now()) } else { Vec::new() };
        drop(state);
        for wake in woken {
            wake();
        }
    }
}

/// Somebody waits for a queue to come to be, until this is dropped.
pub(crate) struct Awaiting {
    shared: Arc<Shared>,
    name: Arc<str>,
    wake: Wake,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let mut awaited = self.shared.awaited.lock();
        // A later one of the same name may have taken its place.
        if awaited.get(&self.name).is_some_and(|wake| Arc::ptr_eq(wake, &self.wake)) {
            awaited.remove(&self.name);
        }
    }
}

/// A message that was taken, on its way to its durability class.
#[derive(Debug)]
pub(crate) enum Storing {
    Done(Enqueued),
    Wait(oneshot::Receiver<Result<(), QueueError>>, Enqueued),
}

impl Storing {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`QueueError::Store`]: it was not taken.
    pub(crate) async fn answer(self) -> Result<Enqueued, QueueError> {
        match self {
            Storing::Done(enqueued) => {
                // Nothing was waited for, and others have their turn all the same.
                consume_budget().await;
                Ok(enqueued)
            }
            Storing::Wait(receiver, enqueued) => match receiver.await {
                Ok(stored) => stored.map(|()| enqueued),
                Err(_) => Err(QueueError::Store(StoreError::Closed)),
            },
        }
    }
}
