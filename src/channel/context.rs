//! What a channel's handlers can do: push, broadcast, track presences, reach themselves later.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::effect::{self, Effect};
use super::endpoint::{Assigns, EndpointShared};
use super::handle::{Handle, ReplyHandle};
use super::{Channel, Payload};
use crate::clock;
use crate::outbox::{Broadcast, Conn};
use crate::presence::{Changed, Presence, TrackError};
use crate::protocol::message::Ref;
use crate::protocol::socket::ChannelId;
use crate::protocol::wire::WireVersion;
use crate::pubsub::{Hub, Overloaded};

/// Bytes of each part of a V2 binary header: its lengths are one byte.
const HEADER_PART_BYTES_MAX: usize = 255;

/// What a channel knows of its surroundings; one copy a channel.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) conn: Arc<Conn>,
    pub(crate) endpoint: Arc<EndpointShared>,
    pub(crate) assigns: Assigns,
    pub(crate) topic: Arc<str>,
    pub(crate) channel: ChannelId,
}

/// The surroundings of a join.
pub struct JoinCx<C> {
    pub(super) env: Env,
    pub(super) state: Option<Arc<dyn Any + Send + Sync>>,
    pub(super) channel: PhantomData<fn(C)>,
}

impl<C: Channel> JoinCx<C> {
    /// The socket's assigns, as `connect` made them, if they are of this type.
    pub fn assigns<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.env.assigns.get()
    }

    /// What the route was given with [`super::SocketSpecBuilder::channel_with`], if it is of this type.
    pub fn state<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::downcast(Arc::clone(self.state.as_ref()?)).ok()
    }

    /// A handle to the channel that is about to be. What it is sent waits until the join is answered.
    pub fn handle(&self) -> Handle<C::Info> {
        Handle::new(&self.env.conn, self.env.channel)
    }

    /// The number of the client's connection, unique in this process. Channels of one socket share it.
    pub fn connection_id(&self) -> u64 {
        self.env.conn.id()
    }

    /// PubSub, to broadcast on other topics.
    pub fn hub(&self) -> &Hub {
        &self.env.endpoint.hub
    }
}

/// The surroundings of a joined channel's handler.
pub struct Cx<C> {
    pub(super) env: Env,
    pub(super) reference: Option<Ref>,
    pub(super) tracked: bool,
    pub(super) channel: PhantomData<fn(C)>,
}

impl<C: Channel> Cx<C> {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.env.topic
    }

    /// The socket's assigns, as `connect` made them, if they are of this type.
    pub fn assigns<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.env.assigns.get()
    }

    /// Pushes an event to this channel's client alone.
    ///
    /// # Panics
    /// If the client's wire version can't carry the payload: V2 wants a JSON object or binary data, V1 any JSON. The
    /// panic crashes this channel, as the same mistake does in Phoenix.
    pub fn push(&mut self, event: &str, payload: impl Into<Payload>) {
        let payload = payload.into();
        assert_carried(self.env.conn.version(), "push", event, &payload);
        effect::record(self.env.channel, Effect::Push { event: event.into(), payload });
    }

    /// Broadcasts an event on this topic, this channel's client included.
    ///
    /// # Panics
    /// As [`Cx::push`]. Subscribers of the other wire version that can't be sent the payload are passed over.
    pub fn broadcast(&mut self, event: &str, payload: impl Into<Payload>) {
        self.publish(event, payload.into(), false);
    }

    /// Broadcasts an event on this topic to everyone but this channel.
    ///
    /// # Panics
    /// As [`Cx::broadcast`].
    pub fn broadcast_from(&mut self, event: &str, payload: impl Into<Payload>) {
        self.publish(event, payload.into(), true);
    }

    fn publish(&mut self, event: &str, payload: Payload, without_me: bool) {
        if matches!(payload, Payload::Json(_)) || !without_me {
            assert_carried(self.env.conn.version(), "broadcast", event, &payload);
        }
        if matches!(payload, Payload::Binary(_)) {
            let longest = self.env.topic.len().max(event.len());
            assert!(
                longest <= HEADER_PART_BYTES_MAX,
                "a binary broadcast's topic or event has {longest} bytes, V2 carries {HEADER_PART_BYTES_MAX}"
            );
        }
        let except = without_me.then(|| (self.env.conn.id(), self.env.channel));
        let topic = (*self.env.topic).into();
        effect::record(self.env.channel, Effect::Broadcast(Broadcast { topic, event: event.into(), payload, except }));
    }

    /// Broadcasts an event on another topic.
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn broadcast_on(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> Result<(), Overloaded> {
        if self.env.endpoint.hub.is_overloaded() {
            return Err(Overloaded);
        }
        let broadcast = Broadcast { topic: topic.into(), event: event.into(), payload: payload.into(), except: None };
        effect::record(self.env.channel, Effect::Broadcast(broadcast));
        Ok(())
    }

    /// A handle that sends this channel messages from anywhere.
    pub fn handle(&self) -> Handle<C::Info> {
        Handle::new(&self.env.conn, self.env.channel)
    }

    /// A handle to answer the present message later. None outside [`Channel::handle_in`].
    pub fn reply_handle(&self) -> Option<ReplyHandle> {
        let reference = self.reference.clone()?;
        Some(ReplyHandle::new(&self.env.conn, self.env.channel, reference))
    }

    /// Sends this channel a message after a while. Aborting the handle cancels it.
    pub fn send_after(&self, after: Duration, info: C::Info) -> AbortHandle {
        let handle = self.handle();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // The channel may have ended meanwhile; then nobody waits for the message.
            let _ = handle.send(info);
        })
        .abort_handle()
    }

    /// Runs a future beside the channel; its result comes back as a message. Aborting the handle cancels it.
    pub fn spawn(&self, work: impl Future<Output = C::Info> + Send + 'static) -> AbortHandle {
        let handle = self.handle();
        tokio::spawn(async move {
            let info = work.await;
            // The channel may have ended meanwhile; then nobody waits for the result.
            let _ = handle.send(info);
        })
        .abort_handle()
    }

    /// Tracks a presence of this channel on its topic: everyone gets `presence_diff`. `meta` is a JSON object. It ends
    /// with the channel. Gives back its `phx_ref`.
    ///
    /// # Errors
    /// [`TrackError`]: tracked already, or a key that stock clients can't hold.
    ///
    /// # Panics
    /// If `meta` is no JSON object, as in Phoenix.
    pub fn track(&mut self, key: &str, meta: &Payload) -> Result<String, TrackError> {
        self.tracked = true;
        let tracked = self.presence().track(&self.env.conn, self.env.channel, &self.env.topic, key, meta);
        self.tell(tracked)
    }

    /// Replaces the meta of a presence of this channel.
    ///
    /// # Errors
    /// [`TrackError::NotPresent`] if the channel does not track this key.
    ///
    /// # Panics
    /// If `meta` is no JSON object, as in Phoenix.
    pub fn update(&mut self, key: &str, meta: &Payload) -> Result<String, TrackError> {
        let updated = self.presence().update(&self.env.conn, self.env.channel, &self.env.topic, key, meta);
        self.tell(updated)
    }

    /// Ends a presence of this channel. Nothing happens where it has none of this key.
    pub fn untrack(&mut self, key: &str) {
        let diffs = self.presence().untrack(&self.env.conn, self.env.channel, &self.env.topic, key);
        self.record(diffs);
    }

    /// A presence's diff takes its turn among what the handler says.
    fn tell(&mut self, changed: Result<Changed, TrackError>) -> Result<String, TrackError> {
        let changed = changed?;
        self.record(changed.diffs);
        Ok(changed.phx_ref)
    }

    fn record(&mut self, diffs: Vec<Broadcast>) {
        for diff in diffs {
            effect::record(self.env.channel, Effect::Broadcast(diff));
        }
    }

    /// Everyone present on the topic: `{key: {"metas": [...]}}`.
    pub fn presences(&self) -> Payload {
        self.presence().list(&self.env.topic)
    }

    fn presence(&self) -> &Presence {
        &self.env.endpoint.presence
    }

    /// PubSub, to broadcast from elsewhere.
    pub fn hub(&self) -> &Hub {
        &self.env.endpoint.hub
    }

    /// The number of the client's connection, unique in this process. Channels of one socket share it.
    pub fn connection_id(&self) -> u64 {
        self.env.conn.id()
    }

    /// Milliseconds since the client last sent any frame on this socket.
    pub fn socket_idle_ms(&self) -> u64 {
        self.env.conn.idle_ms(clock::now())
    }
}

impl<C> Drop for Cx<C> {
    /// Presences end with their channel, also where its handler is dropped while it waits.
    fn drop(&mut self) {
        if self.tracked {
            self.env.endpoint.presence.untrack_channel(&self.env.conn, self.env.channel);
        }
    }
}

fn assert_carried(version: WireVersion, what: &str, event: &str, payload: &Payload) {
    let carried = match (version, payload) {
        (WireVersion::V2, Payload::Json(_)) => payload.is_object(),
        (WireVersion::V2, Payload::Binary(_)) | (WireVersion::V1, Payload::Json(_)) => true,
        (WireVersion::V1, Payload::Binary(_)) => false,
    };
    assert!(
        carried,
        "{what} of {event:?}: {version:?} carries {}, got {payload:?}",
        if version == WireVersion::V2 { "a JSON object or binary data" } else { "JSON" },
    );
}
