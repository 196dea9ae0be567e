//! Who takes messages from a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use smallvec::smallvec;
use tokio::sync::{Notify, oneshot};
use tokio::task::coop::consume_budget;

use super::changes::random_u64;
use super::entry::Entry;
use super::log::{Kind, Write};
use super::record::{Record, parse_id};
use super::writer::{Op, Then, Writes};
use super::{AckRefused, Durability, Priority, QueueError, Queues, Shared};
use crate::clock;
use crate::protocol::queue::{self, Change, ConsumerId, Delivery, Seq};
use crate::store::StoreError;

/// A message that a consumer has, until it acknowledges it or its lease is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivered {
    /// Its id, for acks.
    pub id: String,
    /// A JSON object.
    pub payload: Bytes,
    /// Its priority.
    pub priority: Priority,
    /// How often it has been delivered, this time included.
    pub deliveries: u32,
    /// How often it has failed.
    pub failures: u32,
    /// Unix milliseconds of its acceptance.
    pub created_unix_ms: u64,
}

/// What became of a message that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nacked {
    /// It comes again.
    Retry {
        /// How often it has failed.
        failures: u32,
        /// In so many milliseconds, or as soon as somebody takes it then.
        after_ms: u64,
    },
    /// It is a dead letter.
    Dead,
    /// Its time was over: it is gone.
    Expired,
}

/// A consumer of one queue. Where it is dropped its messages in flight go back, and are not counted as failed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bennu::queue::{Durability, NewMessage, QueueSettings, Queues};
/// use serde_json::json;
///
/// let queues = Queues::in_memory(QueueSettings::default().class("jobs", Durability::Memory)?);
/// queues.enqueue("jobs", NewMessage::new(json!({"n": 1}))).await?;
///
/// let consumer = queues.consume("jobs")?;
/// let message = consumer.recv().await;
/// assert_eq!(message.payload, r#"{"n":1}"#);
/// consumer.ack(&message.id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    member: Member,
    ready: Arc<Notify>,
    /// Tasks within [`Consumer::recv`].
    receiving: AtomicUsize,
}

impl Queues {
    /// Consumes a queue. Several consumers share its messages.
    ///
    /// # Errors
    /// [`QueueError`]: there is no such queue.
    pub fn consume(&self, queue: &str) -> Result<Consumer, QueueError> {
        let ready = Arc::new(Notify::new());
        let wake = Arc::clone(&ready);
        let member = self.member(queue, self.0.settings.in_flight_max, move || wake.notify_one())?;
        Ok(Consumer { member, ready, receiving: AtomicUsize::new(0) })
    }

    /// As [`Queues::consume`] for those who are called when there is something to take. A call may come from within other
    /// calls of these queues' methods, so it only notes it.
    pub(crate) fn member(
        &self,
        queue: &str,
        in_flight_max: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Member, QueueError> {
        let entry = self.entry(queue, self.class(queue)?)?;
        let id = ConsumerId(self.0.consumers.fetch_add(1, Ordering::Relaxed));
        let mut state = entry.state.lock();
        state.queue.join(id, in_flight_max.clamp(1, self.0.settings.in_flight_max));
        state.add_waker(id, Arc::new(wake));
        self.0.settled(&entry, state);
        Ok(Member { shared: Arc::clone(&self.0), entry, id })
    }
}

impl Consumer {
    /// The next message, as soon as there is one. Cancelling it loses none.
    pub async fn recv(&self) -> Delivered {
        // Where there always is a message, others have their turn all the same.
        consume_budget().await;
        self.receiving.fetch_add(1, Ordering::AcqRel);
        let _receiving = Receiving(&self.receiving);
        loop {
            if let Some(message) = self.member.take() {
                if self.receiving.load(Ordering::Acquire) > 1 {
                    // Another who waits here may have one as well.
                    self.ready.notify_one();
                }
                return message;
            }
            self.ready.notified().await;
        }
    }

    /// The next message, if there is one now.
    pub fn try_recv(&self) -> Option<Delivered> {
        self.member.take()
    }

    /// The message is done. When this returns, it will not be delivered again, as far as the queue's durability class reaches.
    ///
    /// One whose lease is over is taken too while nobody else has it.
    ///
    /// # Errors
    /// [`AckRefused`].
    pub async fn ack(&self, id: &str) -> Result<(), AckRefused> {
        self.member.ack(id)?.answer().await
    }

    /// The message can't be done now: it comes again after a while, or is a dead letter once it has failed too often.
    ///
    /// # Errors
    /// [`AckRefused`].
    pub async fn nack(&self, id: &str, error: &str) -> Result<Nacked, AckRefused> {
        let (nacked, settling) = self.member.nack(id, error)?;
        settling.answer().await?;
        Ok(nacked)
    }

    /// The message takes longer: its lease begins anew. Gives back the milliseconds of it.
    ///
    /// # Errors
    /// [`AckRefused`].
    pub fn extend(&self, id: &str) -> Result<u64, AckRefused> {
        self.member.extend(id)
    }
}

/// One task within [`Consumer::recv`], until this is dropped.
struct Receiving<'a>(&'a AtomicUsize);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A consumer without a way to wait.
pub(crate) struct Member {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    id: ConsumerId,
}

impl Member {
    /// The class that the queue's messages reach.
    pub(crate) fn reached(&self) -> Durability {
        self.shared.reached(self.entry.class)
    }

    /// Takes a message. Who finds none is called when there is one.
    pub(crate) fn take(&self) -> Option<Delivered> {
        let now = clock::now();
        let mut state = self.entry.state.lock();
        let Some(delivery) = state.queue.take(self.id, now) else {
            state.sleeps(self.id);
            return None;
        };
        if self.entry.class == Durability::Ephemeral {
            // To hand it over is all that was promised.
            let before = state.bytes();
            let _ = state.queue.ack(self.id, delivery.seq, now);
            state.queue.acked(delivery.seq, now);
            self.shared.count(before, state.bytes());
        }
        self.shared.timer.arm(&self.entry, &mut state);
        drop(state);
        Some(Delivered::of(delivery))
    }

    /// Begins an ack.
    pub(crate) fn ack(&self, id: &str) -> Result<Settling, AckRefused> {
        let now = clock::now();
        let mut state = self.entry.state.lock();
        let seq = find(&state.queue, id)?;
        state.queue.ack(self.id, seq, now)?;
        if self.shared.stores(&self.entry) {
            let (sender, receiver) = oneshot::channel();
            let writes = smallvec![Write::remove(Kind::Message, seq)];
            let op = Op { entry: Arc::clone(&self.entry), writes, then: Then::Acked(seq, sender) };
            self.shared.writer.push(op);
            return Ok(Settling::of(receiver));
        }
        let before = state.bytes();
        state.queue.acked(seq, now);
        self.shared.count(before, state.bytes());
        self.shared.settled(&self.entry, state);
        Ok(Settling::default())
    }

    /// Begins a nack.
    pub(crate) fn nack(&self, id: &str, error: &str) -> Result<(Nacked, Settling), AckRefused> {
        let now = clock::now();
        let mut state = self.entry.state.lock();
        let seq = find(&state.queue, id)?;
        let before = state.bytes();
        let nacked = state.queue.nack(self.id, seq, error, now, random_u64())?;
        let change = match nacked {
            queue::Nacked::Retry { .. } => Change::Failed(seq),
            queue::Nacked::Dead => Change::Dead(seq),
            queue::Nacked::Expired => Change::Removed(seq),
        };
        let failures = self.shared.writer.failures();
        self.shared.note(&self.entry, &mut state, vec![change]);
        self.shared.count(before, state.bytes());
        let nacked = match nacked {
            queue::Nacked::Retry { failures, due } => Nacked::Retry { failures, after_ms: due.since(now) },
            queue::Nacked::Dead => Nacked::Dead,
            queue::Nacked::Expired => Nacked::Expired,
        };
        let settling = if self.shared.stores(&self.entry) {
            let (sender, receiver) = oneshot::channel();
            // Behind what was noted.
            let op = Op { entry: Arc::clone(&self.entry), writes: Writes::new(), then: Then::Told(failures, sender) };
            self.shared.writer.push(op);
            Settling::of(receiver)
        } else {
            Settling::default()
        };
        self.shared.settled(&self.entry, state);
        Ok((nacked, settling))
    }

    /// A fresh lease, in milliseconds.
    pub(crate) fn extend(&self, id: &str) -> Result<u64, AckRefused> {
        let now = clock::now();
        let mut state = self.entry.state.lock();
        let seq = find(&state.queue, id)?;
        let until = state.queue.extend(self.id, seq, now)?;
        self.shared.timer.arm(&self.entry, &mut state);
        Ok(until.since(now))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.entry.state.lock();
        let before = state.bytes();
        let mut changes = Vec::new();
        state.queue.leave(self.id, clock::now(), &mut changes);
        state.remove_waker(self.id);
        self.shared.note(&self.entry, &mut state, changes);
        self.shared.count(before, state.bytes());
        self.shared.settled(&self.entry, state);
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("queue", &self.entry.name).field("id", &self.id.0).finish_non_exhaustive()
    }
}

impl Delivered {
    /// One for a test.
    #[cfg(test)]
    pub(crate) fn sample(id: &str, payload: &'static str) -> Self {
        Delivered {
            id: id.to_owned(),
            payload: Bytes::from_static(payload.as_bytes()),
            priority: Priority::Normal,
            deliveries: 1,
            failures: 0,
            created_unix_ms: 0,
        }
    }

    fn of(delivery: Delivery<Arc<Record>>) -> Self {
        let Delivery { seq, body, deliveries, failures, .. } = delivery;
        Delivered {
            id: body.id(seq),
            payload: body.payload.clone(),
            priority: body.priority,
            deliveries,
            failures,
            created_unix_ms: body.created_unix_ms,
        }
    }
}

/// Acks or a nack on their way to the store.
#[derive(Debug, Default)]
pub(crate) struct Settling(Vec<oneshot::Receiver<Result<(), StoreError>>>);

impl Settling {
    fn of(receiver: oneshot::Receiver<Result<(), StoreError>>) -> Self {
        Settling(vec![receiver])
    }

    /// Several as one, which is there once all are.
    pub(crate) fn all(several: Vec<Settling>) -> Self {
        Settling(several.into_iter().flat_map(|one| one.0).collect())
    }

    /// Whether it is there already.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`AckRefused::Store`]: one of them could not be stored.
    pub(crate) async fn answer(self) -> Result<(), AckRefused> {
        let mut outcome = Ok(());
        for receiver in self.0 {
            outcome = outcome.and(receiver.await.unwrap_or(Err(StoreError::Closed)).map_err(AckRefused::Store));
        }
        outcome
    }
}

/// The number that an id stands for. A number alone would be taken for a message of the same number that came after a queue
/// had been forgotten.
pub(super) fn find(queue: &queue::Queue<Arc<Record>>, id: &str) -> Result<Seq, AckRefused> {
    let (seconds, seq) = parse_id(id).ok_or(AckRefused::Unknown)?;
    match queue.message(seq) {
        Some(kept) if kept.body.created_unix_ms / 1_000 != seconds => Err(AckRefused::Unknown),
        _ => Ok(seq),
    }
}
