//! Subscriptions of those who are no connection: a bounded queue each.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{Command, Hub, Inner};
use crate::outbox::Broadcast;
use crate::protocol::limits::SUBSCRIBER_BROADCASTS_MAX;

/// Broadcasts that found the queue full. As long as there are some, further ones count too: there is one gap, and it is
/// where the queue ends.
type Missed = Arc<Mutex<u64>>;

/// Whether a subscription is among those that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Counted,
    Uncounted,
}

/// The shard's end of a subscription.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: u64,
    pub(super) audience: Audience,
    queue: mpsc::Sender<Arc<Broadcast>>,
    missed: Missed,
}

impl Listener {
    pub(super) fn new(id: u64, audience: Audience) -> (Self, mpsc::Receiver<Arc<Broadcast>>, Missed) {
        let (queue, broadcasts) = mpsc::channel(SUBSCRIBER_BROADCASTS_MAX);
        let missed = Missed::default();
        (Listener { id, audience, queue, missed: Arc::clone(&missed) }, broadcasts, missed)
    }

    /// Hands over a broadcast, or counts it where too many wait.
    pub(super) fn tell(&self, broadcast: &Arc<Broadcast>) {
        let mut missed = self.missed.lock();
        if *missed > 0 || self.queue.try_send(Arc::clone(broadcast)).is_err() {
            *missed += 1;
        }
    }
}

/// The subscriber's end.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(super) hub: Weak<Inner>,
    pub(super) shard: usize,
    pub(super) topic: Arc<str>,
    pub(super) id: u64,
    pub(super) broadcasts: mpsc::Receiver<Arc<Broadcast>>,
    pub(super) missed: Missed,
}

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) enum Received {
    /// The next broadcast.
    Broadcast(Arc<Broadcast>),
    /// So many came while the queue was full.
    Missed(u64),
    /// There will be no more: PubSub has ended.
    Closed,
}

impl Listening {
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Waits for the next broadcast. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Received {
        // What waits already is taken without the runtime's knowledge: others have their turn nevertheless.
        tokio::task::coop::consume_budget().await;
        match self.waiting() {
            Some(received) => received,
            None => self.broadcasts.recv().await.map_or(Received::Closed, Received::Broadcast),
        }
    }

    /// As [`Listening::next`], for threads outside of a runtime.
    pub(crate) fn blocking_next(&mut self) -> Received {
        match self.waiting() {
            Some(received) => received,
            None => self.broadcasts.blocking_recv().map_or(Received::Closed, Received::Broadcast),
        }
    }

    /// What there is already: broadcasts first, then the gap behind them.
    pub(crate) fn waiting(&mut self) -> Option<Received> {
        // Under the lock nothing is queued behind a gap.
        let mut missed = self.missed.lock();
        match self.broadcasts.try_recv() {
            Ok(broadcast) => Some(Received::Broadcast(broadcast)),
            Err(TryRecvError::Disconnected) => Some(Received::Closed),
            Err(TryRecvError::Empty) if *missed > 0 => Some(Received::Missed(std::mem::take(&mut *missed))),
            Err(TryRecvError::Empty) => None,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(inner) = self.hub.upgrade() {
            let topic = Arc::clone(&self.topic);
            Hub { inner }.command(self.shard, Command::Unlisten { topic, id: self.id });
        }
    }
}
