//! Subscriptions to topics: by a channel's own code, and by code that is no channel.

use std::fmt;
use std::sync::Arc;

use super::Payload;
use crate::outbox;
use crate::protocol::limits::SUBSCRIPTIONS_PER_CHANNEL_MAX;
use crate::pubsub::{Audience, Hub, Listening, Received};

/// A broadcast, as those who subscribed get it. Cheap to clone: subscribers share one.
///
/// Source: `Phoenix.Socket.Broadcast`.
#[derive(Clone)]
pub struct Broadcast(Arc<outbox::Broadcast>);

impl Broadcast {
    pub(crate) fn new(broadcast: Arc<outbox::Broadcast>) -> Self {
        Broadcast(broadcast)
    }

    /// The topic it was published on.
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Its event.
    pub fn event(&self) -> &str {
        &self.0.event
    }

    /// Its payload.
    pub fn payload(&self) -> &Payload {
        &self.0.payload
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broadcast({:?}, {:?}, {:?})", self.topic(), self.event(), self.payload())
    }
}

/// What a channel makes of the broadcasts it subscribed to: messages of its own type.
pub(super) struct Hearing<I>(Option<Hear<I>>);

type Hear<I> = Box<dyn Fn(Broadcast) -> I + Send + Sync>;

impl<I> Hearing<I> {
    pub(super) fn new(hear: impl Fn(Broadcast) -> I + Send + Sync + 'static) -> Self {
        Hearing(Some(Box::new(hear)))
    }

    pub(super) fn hear(&self, broadcast: Broadcast) -> I {
        let hear = self.0.as_ref().expect("it is there until it is dropped");
        hear(broadcast)
    }
}

impl<I> Drop for Hearing<I> {
    /// The last to hold it may be a shard, and a shard that panics takes the process along.
    fn drop(&mut self) {
        let hear = self.0.take();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(hear))).is_err() {
            tracing::error!("what a subscription captured panicked when it was dropped");
        }
    }
}

/// The channel has as many subscriptions as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a channel may hold {SUBSCRIPTIONS_PER_CHANNEL_MAX} subscriptions to further topics, it has as many")]
pub struct TooManySubscriptions;

/// A subscription of code that is no channel, made by [`Endpoint::subscribe`](super::Endpoint::subscribe). It does not keep
/// the endpoint alive.
#[derive(Debug)]
pub struct Subscriber(Listening);

impl Subscriber {
    pub(super) fn new(hub: &Hub, topic: &str, audience: Audience) -> Self {
        Subscriber(hub.listen(topic, audience))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.0.topic()
    }

    /// Waits for the next broadcast. Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`RecvError::Missed`] where too many waited to be received, [`RecvError::Closed`] once there will be no more.
    pub async fn recv(&mut self) -> Result<Broadcast, RecvError> {
        received(self.0.next().await)
    }

    /// As [`Subscriber::recv`], for a thread outside of any runtime.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    ///
    /// # Panics
    /// Within an asynchronous runtime.
    pub fn blocking_recv(&mut self) -> Result<Broadcast, RecvError> {
        received(self.0.blocking_next())
    }

    /// What has come already, if anything.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Broadcast>, RecvError> {
        self.0.waiting().map(received).transpose()
    }
}

fn received(received: Received) -> Result<Broadcast, RecvError> {
    match received {
        Received::Broadcast(broadcast) => Ok(Broadcast(broadcast)),
        Received::Missed(count) => Err(RecvError::Missed(count)),
        Received::Closed => Err(RecvError::Closed),
    }
}

/// Why a [`Subscriber`] got no broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// At this place so many broadcasts were dropped, because too many waited. What follows is received as ever.
    #[error("{0} broadcasts were missed, because too many waited to be received")]
    Missed(u64),
    /// Nobody holds the endpoint any more, or the runtime that it was started on has ended.
    #[error("the endpoint, or its runtime, has ended")]
    Closed,
}
