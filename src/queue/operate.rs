//! What operators see and do.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::smallvec;
use tokio::sync::oneshot;

use super::changes::{in_unix_ms, stored};
use super::entry::Entry;
use super::log::{Kind, Write};
use super::record::{Record, parse_id};
use super::writer::{Op, Then, Writes};
use super::{Durability, QueueError, Queues};
use crate::clock;
use crate::protocol::queue::{Change, Place, Queue, RetryError, Seq};
use crate::store::StoreError;

/// What one queue holds, and has counted since the process began.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueStats {
    /// Its name.
    pub queue: String,
    /// The class that its messages reach.
    pub durability: Durability,
    /// Consumers.
    pub consumers: usize,
    /// Messages that are neither acknowledged nor dead: those in flight and those that are being stored among them.
    pub messages: usize,
    /// Of those: messages in flight.
    pub in_flight: usize,
    /// Of those: messages that are not due, or wait for their next try.
    pub delayed: usize,
    /// Of those that can be delivered now, how many of each priority.
    pub priority_counts: PriorityCounts,
    /// Dead letters.
    pub dead_letters: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// What was counted.
    pub totals: Totals,
}

/// A number for each priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct PriorityCounts {
    pub urgent: usize,
    pub high: usize,
    pub normal: usize,
    pub low: usize,
}

/// What a queue has counted since the process began, or since the queue was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Messages taken from producers.
    pub accepted: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Failures: nacks, and leases that were over.
    pub failed: u64,
    /// Messages whose lifetime was over.
    pub expired: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Messages that came again with their idempotency key.
    pub duplicates: u64,
}

/// All queues. The first fields are those of the Elixir deployment's statistics.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueuesStats {
    /// Messages of all queues.
    pub total_messages: usize,
    /// Dead letters of all queues.
    pub dead_letter_messages: usize,
    /// Messages that can be delivered, by priority.
    pub priority_counts: PriorityCounts,
    /// Messages of each MCP session that has some.
    pub session_counts: std::collections::BTreeMap<String, usize>,
    /// Seconds since the queues were started.
    pub uptime: u64,
    /// Queues.
    pub queues: usize,
    /// Bytes of all messages.
    pub bytes: usize,
}

/// A message as operators see it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MessageView {
    /// Its id.
    pub message_id: String,
    /// `storing`, `waiting`, `delayed`, `in_flight`, `settling` or `expired`.
    pub state: &'static str,
    /// Its priority.
    pub priority: &'static str,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Unix milliseconds.
    pub expires_at: u64,
    /// Failures so far.
    pub retry_count: u32,
    /// Failures that it may have.
    pub max_retries: u32,
    /// What was said of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What it says.
    pub payload: Box<RawValue>,
}

/// A dead letter as operators see it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DeadLetterView {
    /// Its id.
    pub message_id: String,
    /// Why it is dead: `retries_exhausted` or `too_many_deliveries`.
    pub reason: &'static str,
    /// What was said of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Failures.
    pub retry_count: u32,
    /// Its priority.
    pub priority: &'static str,
    /// Unix milliseconds.
    pub created_at: u64,
    /// What it says.
    pub payload: Box<RawValue>,
}

impl Queues {
    /// The names of all queues, in their order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.all().iter().map(|entry| Arc::clone(&entry.name)).collect()
    }

    /// What a queue holds; none where it has never had anything, or has been empty for a while.
    pub fn queue_stats(&self, queue: &str) -> Option<QueueStats> {
        let entry = self.existing(queue)?;
        Some(self.stats_of(&entry))
    }

    /// What every queue holds, in the order of their names.
    pub fn list(&self) -> Vec<QueueStats> {
        self.all().iter().map(|entry| self.stats_of(entry)).collect()
    }

    fn stats_of(&self, entry: &Entry) -> QueueStats {
        let state = entry.state.lock();
        let stats = state.queue.stats();
        let ready = stats.waiting;
        QueueStats {
            queue: entry.name.to_string(),
            durability: self.0.reached(entry.class),
            consumers: state.wakers.len(),
            messages: stats.messages,
            in_flight: stats.in_flight,
            delayed: stats.delayed,
            priority_counts: PriorityCounts { urgent: ready[0], high: ready[1], normal: ready[2], low: ready[3] },
            dead_letters: stats.dead,
            bytes: stats.bytes,
            totals: Totals {
                accepted: stats.accepted,
                delivered: stats.delivered,
                acked: stats.acked,
                failed: stats.failed,
                expired: stats.expired,
                dead_lettered: stats.dead_lettered,
                duplicates: stats.duplicates,
            },
        }
    }

    /// What all of them hold.
    pub fn stats(&self) -> QueuesStats {
        let mut sum = QueuesStats {
            total_messages: 0,
            dead_letter_messages: 0,
            priority_counts: PriorityCounts::default(),
            session_counts: std::collections::BTreeMap::new(),
            uptime: clock::now().0.saturating_sub(self.0.started_ms) / 1_000,
            queues: 0,
            bytes: 0,
        };
        for stats in self.list() {
            sum.total_messages += stats.messages;
            sum.dead_letter_messages += stats.dead_letters;
            sum.priority_counts.urgent += stats.priority_counts.urgent;
            sum.priority_counts.high += stats.priority_counts.high;
            sum.priority_counts.normal += stats.priority_counts.normal;
            sum.priority_counts.low += stats.priority_counts.low;
            sum.queues += 1;
            sum.bytes += stats.bytes;
            if let Some(session) = stats.queue.strip_prefix(super::SESSION_PREFIX)
                && stats.messages > 0
            {
                sum.session_counts.insert(session.to_owned(), stats.messages);
            }
        }
        sum
    }

    /// The first messages of a queue in the order of their acceptance, those in flight among them.
    pub fn messages(&self, queue: &str, limit: usize) -> Vec<MessageView> {
        let Some(entry) = self.existing(queue) else { return Vec::new() };
        let state = entry.state.lock();
        let messages = state.queue.list(None, limit);
        messages
            .map(|kept| MessageView {
                message_id: kept.body.id(kept.seq),
                state: place(kept.place),
                priority: kept.body.priority.name(),
                created_at: kept.body.created_unix_ms,
                expires_at: kept.expires.map_or(u64::MAX, in_unix_ms),
                retry_count: kept.failures,
                max_retries: kept.body.retries_max,
                last_error: kept.last_error.map(ToOwned::to_owned),
                payload: payload(kept.body),
            })
            .collect()
    }

    /// The first dead letters of a queue.
    pub fn dead_letters(&self, queue: &str, limit: usize) -> Vec<DeadLetterView> {
        let Some(entry) = self.existing(queue) else { return Vec::new() };
        let state = entry.state.lock();
        let dead = state.queue.dead().take(limit);
        dead.map(|dead| DeadLetterView {
            message_id: dead.body.id(dead.seq),
            reason: dead.reason.name(),
            last_error: dead.last_error.as_deref().map(ToOwned::to_owned),
            retry_count: dead.failures,
            priority: dead.body.priority.name(),
            created_at: dead.body.created_unix_ms,
            payload: payload(&dead.body),
        })
        .collect()
    }

    /// Gives a dead letter another life: no failures, the default lifetime, its old priority and place.
    ///
    /// # Errors
    /// [`RetryRefused`].
    pub async fn retry(&self, queue: &str, id: &str) -> Result<(), RetryRefused> {
        let entry = self.existing(queue).ok_or(RetryRefused::Unknown)?;
        let receiver = {
            let now = clock::now();
            let mut state = entry.state.lock();
            let seq = dead_seq(&state.queue, id).ok_or(RetryRefused::Unknown)?;
            let before = state.bytes();
            let ttl_ms = self.0.settings.ttl_ms;
            state.queue.retry_dead(seq, now, Some(ttl_ms))?;
            self.0.count(before, state.bytes());
            let receiver = self.0.stores(&entry).then(|| {
                let mut writes = smallvec![Write::remove(Kind::Dead, seq)];
                if let Some(kept) = state.queue.message(seq) {
                    writes.push(Write::put(Kind::Message, seq, stored(&kept)));
                }
                let (sender, receiver) = oneshot::channel();
                let then = Then::Told(self.0.writer.failures(), sender);
                self.0.writer.push(Op { entry: Arc::clone(&entry), writes, then });
                receiver
            });
            self.0.settled(&entry, state);
            receiver
        };
        wait(receiver).await.map_err(RetryRefused::Store)
    }

    /// Takes all messages out of a queue but its dead letters. Gives back how many there were.
    ///
    /// # Errors
    /// [`StoreError`]: they are gone from memory, and may come back at a restart.
    pub async fn purge(&self, queue: &str) -> Result<usize, StoreError> {
        self.clear(queue, |state, changes| state.queue.purge(changes)).await
    }

    /// Takes one dead letter out of a queue, or all of them. Gives back how many there were.
    ///
    /// # Errors
    /// As [`Queues::purge`].
    pub async fn purge_dead(&self, queue: &str, id: Option<&str>) -> Result<usize, StoreError> {
        let Some(entry) = self.existing(queue) else { return Ok(0) };
        let seq = match id {
            None => None,
            Some(id) => match dead_seq(&entry.state.lock().queue, id) {
                Some(seq) => Some(seq),
                None => return Ok(0),
            },
        };
        self.clear(queue, |state, changes| state.queue.purge_dead(seq, changes)).await
    }

    async fn clear(
        &self,
        queue: &str,
        clear: impl FnOnce(&mut super::entry::State, &mut Vec<Change>),
    ) -> Result<usize, StoreError> {
        let Some(entry) = self.existing(queue) else { return Ok(0) };
        let (gone, receiver) = {
            let mut state = entry.state.lock();
            let before = state.bytes();
            let mut changes = Vec::new();
            clear(&mut state, &mut changes);
            let gone = changes.len();
            let failures = self.0.writer.failures();
            self.0.note(&entry, &mut state, changes);
            self.0.count(before, state.bytes());
            let receiver = self.0.stores(&entry).then(|| {
                let (sender, receiver) = oneshot::channel();
                let then = Then::Told(failures, sender);
                self.0.writer.push(Op { entry: Arc::clone(&entry), writes: Writes::new(), then });
                receiver
            });
            self.0.settled(&entry, state);
            (gone, receiver)
        };
        wait(receiver).await.map(|()| gone)
    }
}

/// Why a dead letter could not be retried.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryRefused {
    /// There is no such dead letter.
    #[error("no such dead letter")]
    Unknown,
    /// It could not be stored: at a restart it may be a dead letter again.
    #[error("it could not be stored: {0}")]
    Store(StoreError),
    /// The queue has no place for it.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl From<RetryError> for RetryRefused {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Unknown => RetryRefused::Unknown,
            RetryError::Refused(refused) => RetryRefused::Queue(refused.into()),
        }
    }
}

async fn wait(receiver: Option<oneshot::Receiver<Result<(), StoreError>>>) -> Result<(), StoreError> {
    match receiver {
        None => Ok(()),
        Some(receiver) => receiver.await.unwrap_or(Err(StoreError::Closed)),
    }
}

fn dead_seq(queue: &Queue<Arc<Record>>, id: &str) -> Option<Seq> {
    let (seconds, seq) = parse_id(id)?;
    let dead = queue.dead_letter(seq)?;
    (dead.body.created_unix_ms / 1_000 == seconds).then_some(seq)
}

fn payload(record: &Record) -> Box<RawValue> {
    serde_json::from_slice(&record.payload).expect("a payload is JSON")
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Storing | Place::Held => "storing",
        Place::Delayed => "delayed",
        Place::Ready => "waiting",
        Place::InFlight { .. } => "in_flight",
        Place::Settling { .. } => "settling",
        Place::Expired => "expired",
    }
}
