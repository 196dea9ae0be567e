//! What a channel's handlers can do: push, broadcast, track presences, reach themselves later.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::effect::{self, Effect};
use super::endpoint::{Assigns, Endpoint, EndpointShared, SocketHandle};
use super::handle::{Handle, ReplyHandle};
use super::subscriber::{Broadcast, Hearing, TooManySubscriptions};
use super::{Channel, Payload};
use crate::clock;
use crate::outbox::{self, Conn, Receipt};
use crate::presence::{Changed, Presence, TrackError};
use crate::protocol::message::Ref;
use crate::protocol::socket::ChannelId;
use crate::protocol::wire::WireVersion;
use crate::pubsub::{Overloaded, Role, Subscription};
use crate::queue::{Enqueued, NewMessage, QueueError, Queues};

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

impl Env {
    fn subscribe<I: Send + 'static>(&self, topic: &str, hearing: Hearing<I>) -> Result<(), TooManySubscriptions> {
        let topic = Arc::<str>::from(topic);
        if !self.conn.note_subscription(self.channel, Arc::clone(&topic)) {
            return Err(TooManySubscriptions);
        }
        let subscription = Subscription::Inbox { channel: self.channel, tag: Arc::new(hearing) };
        self.endpoint.hub.subscribe(&self.conn, topic, subscription, Vec::new());
        Ok(())
    }
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

    /// Sends the channel that is about to be a message: the first that it handles, unless the client was quicker. That is
    /// the place for what a join can't do, such as to push or to track.
    ///
    /// Source: `send(self(), :after_join)`.
    pub fn send(&mut self, info: C::Info) {
        // Where the connection is going, nobody waits for the message.
        let _ = self.handle().send(info);
    }

    /// The number of the client's connection, unique in this process. Channels of one socket share it.
    pub fn connection_id(&self) -> u64 {
        self.env.conn.id()
    }

    /// The client's socket, to close it.
    pub fn socket(&self) -> SocketHandle {
        SocketHandle::new(&self.env.conn)
    }

    /// As [`Cx::subscribe`]. What is published before the join is answered waits until then; if the join is refused, the
    /// subscription ends.
    ///
    /// # Errors
    /// [`TooManySubscriptions`].
    pub fn subscribe(
        &mut self,
        topic: &str,
        hear: impl Fn(Broadcast) -> C::Info + Send + Sync + 'static,
    ) -> Result<(), TooManySubscriptions> {
        self.env.subscribe(topic, Hearing::new(hear))
    }

    /// The endpoint: to broadcast on other topics, to disconnect sockets, to keep.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { shared: Arc::clone(&self.env.endpoint) }
    }
}

/// The surroundings of a joined channel's handler.
pub struct Cx<C> {
    pub(super) env: Env,
    pub(super) reference: Option<Ref>,
    pub(super) tracked: bool,
    pub(super) tasks: Option<Box<JoinSet<()>>>,
    pub(super) channel: PhantomData<fn(C)>,
}

impl<C: Channel> Cx<C> {
    pub(super) fn new(env: Env) -> Self {
        Cx { env, reference: None, tracked: false, tasks: None, channel: PhantomData }
    }

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
        self.push_with(event, payload.into(), None);
    }

    /// The same with a position, which stands as `"@<position>"` in the otherwise null `ref`.
    ///
    /// # Panics
    /// As [`Cx::push`].
    pub(crate) fn push_at(&mut self, event: &str, payload: impl Into<Payload>, position: u64) {
        self.push_with(event, payload.into(), Some(position));
    }

    fn push_with(&mut self, event: &str, payload: Payload, position: Option<u64>) {
        assert_carried(self.env.conn.version(), "push", event, &payload);
        effect::record(self.env.channel, Effect::Push { event: event.into(), payload, position });
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
        effect::record(
            self.env.channel,
            Effect::Broadcast(outbox::Broadcast { topic, event: event.into(), payload, except }),
        );
    }

    /// Broadcasts an event on another topic.
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn broadcast_on(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> Result<(), Overloaded> {
        if self.env.endpoint.hub.is_overloaded() {
            return Err(Overloaded);
        }
        let broadcast =
            outbox::Broadcast { topic: topic.into(), event: event.into(), payload: payload.into(), except: None };
        effect::record(self.env.channel, Effect::Broadcast(broadcast));
        Ok(())
    }

    /// A handle that sends this channel messages from anywhere.
    pub fn handle(&self) -> Handle<C::Info> {
        Handle::new(&self.env.conn, self.env.channel)
    }

    /// Sends this channel a message, which it handles when the present handler is through.
    pub fn send(&mut self, info: C::Info) {
        // Where the connection is going, nobody waits for the message.
        let _ = self.handle().send(info);
    }

    /// Gives a queue a message; see [`Queues::enqueue`](crate::queue::Queues::enqueue). What waits for the answer is this
    /// channel alone; [`Cx::spawn`] waits beside it.
    ///
    /// # Errors
    /// [`QueueError`]: it was not taken.
    pub async fn enqueue(&mut self, queue: &str, message: NewMessage) -> Result<Enqueued, QueueError> {
        let queues = self.queues().clone();
        queues.enqueue(queue, message).await
    }

    /// The endpoint's queues.
    pub fn queues(&self) -> &Queues {
        self.env.endpoint.queues()
    }

    /// A receipt for what this handler has pushed.
    pub(crate) fn receipt(&self) -> Receipt {
        self.env.conn.receipt()
    }

    /// Whether the kernel has what an earlier handler pushed.
    pub(crate) fn has_handed_over(&self, receipt: &mut Receipt) -> bool {
        self.env.conn.has_handed_over(receipt)
    }

    /// Whether so much waits for the client already that what can wait should.
    pub(crate) fn is_crowded(&self) -> bool {
        self.env.conn.is_crowded()
    }

    /// A handle to answer the present message later. There is one in every [`Channel::handle_in`], and none elsewhere.
    pub fn reply_handle(&self) -> Option<ReplyHandle> {
        let reference = self.reference.clone()?;
        Some(ReplyHandle::new(&self.env.conn, self.env.channel, reference))
    }

    /// Subscribes this channel's own code to a topic: [`Channel::handle_info`] gets what `hear` makes of each broadcast.
    /// It holds from this call on and ends with the channel. Subscribing twice means hearing twice. What a handler broadcasts
    /// leaves when it waits or is through, so what it has broadcast since it last waited is heard too.
    ///
    /// What the same handler broadcasts leaves when it waits or returns, so it is heard if that is before
    /// [`Cx::unsubscribe`], wherever in the handler the broadcast stands.
    ///
    /// `hear` runs in the channel, and a panic of it crashes the channel. Broadcasts wait in the connection's inbox
    /// ([`SocketOptions::inbox_messages_max`](super::SocketOptions::inbox_messages_max)).
    ///
    /// ```
    /// # use bennu::{Broadcast, Channel, Cx, JoinCx, Next, Payload, Refusal};
    /// struct Ticker;
    ///
    /// enum Heard {
    ///     Price(Broadcast),
    /// }
    ///
    /// impl Channel for Ticker {
    ///     type Info = Heard;
    ///
    ///     async fn join(_: &str, _: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
    ///         cx.subscribe("prices", Heard::Price)?;
    ///         Ok((Ticker, Payload::EMPTY))
    ///     }
    ///
    ///     async fn handle_in(&mut self, event: &str, _: Payload, _: &mut Cx<Self>) -> Next {
    ///         Next::unknown(event)
    ///     }
    ///
    ///     async fn handle_info(&mut self, Heard::Price(price): Heard, cx: &mut Cx<Self>) -> Next {
    ///         cx.push(price.event(), price.payload().clone());
    ///         Next::NoReply
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`TooManySubscriptions`].
    ///
    /// Source: `Phoenix.Endpoint.subscribe/1` in a channel.
    pub fn subscribe(
        &mut self,
        topic: &str,
        hear: impl Fn(Broadcast) -> C::Info + Send + Sync + 'static,
    ) -> Result<(), TooManySubscriptions> {
        self.env.subscribe(topic, Hearing::new(hear))
    }

    /// Ends all that [`Cx::subscribe`] began on a topic. What is in the inbox already still comes. The channel stays joined
    /// to its own topic.
    pub fn unsubscribe(&mut self, topic: &str) {
        let channel = self.env.channel;
        if self.env.conn.forget_subscription(channel, topic) {
            self.env.endpoint.hub.unsubscribe(&self.env.conn, topic.into(), Role::Inbox(channel));
        }
    }

    /// Sends this channel a message after a while. It is cancelled by aborting the handle, and by the channel's end; as with
    /// `Process.cancel_timer`, a message that had its time already may still come.
    pub fn send_after(&mut self, after: Duration, info: C::Info) -> AbortHandle {
        self.spawn(async move {
            tokio::time::sleep(after).await;
            info
        })
    }

    /// Runs a future beside the channel; its result comes back as a message. It is cancelled by aborting the handle, and by
    /// the channel's end: what is to outlive the channel belongs to a task of its own. A panic ends it without a message.
    pub fn spawn(&mut self, work: impl Future<Output = C::Info> + Send + 'static) -> AbortHandle {
        let handle = self.handle();
        let tasks = self.tasks.get_or_insert_default();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // Where the connection is going, nobody waits for the result.
            let _ = handle.send(work.await);
        })
    }

    /// Tracks a presence of this channel on its topic: everyone gets `presence_diff`. `meta` is a JSON object. It ends
    /// with the channel. Gives back its `phx_ref`.
    ///
    /// Put a prefix before a key that users choose: some words, such as `constructor`, can't be keys in old phoenix.js.
    ///
    /// # Errors
    /// [`TrackError`]: tracked already, a key that stock clients can't hold, or too many.
    ///
    /// # Panics
    /// If `meta` is no JSON object, as in Phoenix.
    pub fn track(&mut self, key: &str, meta: impl Into<Payload>) -> Result<String, TrackError> {
        self.tracked = true;
        let tracked = self.presence().track(&self.env.conn, self.env.channel, &self.env.topic, key, &meta.into());
        self.tell(tracked)
    }

    /// Replaces the meta of a presence of this channel.
    ///
    /// # Errors
    /// [`TrackError::NotPresent`] if the channel does not track this key.
    ///
    /// # Panics
    /// If `meta` is no JSON object, as in Phoenix.
    pub fn update(&mut self, key: &str, meta: impl Into<Payload>) -> Result<String, TrackError> {
        let updated = self.presence().update(&self.env.conn, self.env.channel, &self.env.topic, key, &meta.into());
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

    fn record(&mut self, diffs: Vec<outbox::Broadcast>) {
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

    /// The endpoint: to disconnect sockets, to give to other tasks.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { shared: Arc::clone(&self.env.endpoint) }
    }

    /// The number of the client's connection, unique in this process. Channels of one socket share it.
    pub fn connection_id(&self) -> u64 {
        self.env.conn.id()
    }

    /// The client's socket, to close it.
    pub fn socket(&self) -> SocketHandle {
        SocketHandle::new(&self.env.conn)
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
