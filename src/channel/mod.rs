//! What users write: topics with behaviour.
//!
//! A [`Channel`] is the state of one joined topic. It lives inside its connection's task: a handler that completes at
//! once is just called; one that waits is polled there while other topics go on. Messages for a waiting channel wait in
//! order. A panic ends that channel with `phx_error` and nothing else. A handler that computes for long holds up its
//! connection: such work belongs into [`Cx::spawn`] with `tokio::task::spawn_blocking`.
//!
//! # For those who know Phoenix
//!
//! | Phoenix | here |
//! |---|---|
//! | `socket "/socket", UserSocket, options` | [`Endpoint::socket`], [`SocketSpecBuilder::options`] |
//! | `connect/3`, `id/1` | [`SocketSpecBuilder::connect`], which gives a [`Connected`] |
//! | `channel "room:*", RoomChannel` | [`SocketSpecBuilder::channel`] |
//! | `socket.assigns` of the socket | [`Cx::assigns`]; those of a channel are the fields of its type |
//! | `join/3` | [`Channel::join`] |
//! | `handle_in/3`, `handle_info/2`, `terminate/2` | [`Channel::handle_in`], [`Channel::handle_info`], [`Channel::terminate`] |
//! | `intercept`, `handle_out/3` | [`Channel::INTERCEPT`], [`Channel::handle_out`] |
//! | `{:reply, {:ok, map}, socket}`, `{:noreply, socket}`, `{:stop, reason, socket}` | [`Next`] |
//! | `push/3`, `broadcast!/3`, `broadcast_from!/3` | [`Cx::push`], [`Cx::broadcast`], [`Cx::broadcast_from`] |
//! | `socket_ref/1`, `reply/2` | [`Cx::reply_handle`], [`ReplyHandle::send`] |
//! | `send(pid, message)`, `Process.send_after/3`, `Task.async/1` | [`Handle::send`], [`Cx::send_after`], [`Cx::spawn`] |
//! | `Endpoint.subscribe/1` | [`Cx::subscribe`] in a channel, [`Endpoint::subscribe`] elsewhere |
//! | `Endpoint.broadcast/3` | [`Endpoint::broadcast`], [`Cx::broadcast_on`] |
//! | `Endpoint.broadcast(id, "disconnect", %{})` | [`Endpoint::disconnect`] |
//! | (nothing: what is broadcast while a client is away is lost) | [`Endpoint::keep`] |
//! | `Presence.track/3`, `update/3`, `untrack/2`, `list/1` | [`Cx::track`], [`Cx::update`], [`Cx::untrack`], [`Cx::presences`] |
//! | `Phoenix.ChannelTest` | [`testing`](crate::testing) |
//!
//! Source: `Phoenix.Channel`, `Phoenix.Channel.Server`.

mod context;
mod effect;
mod endpoint;
mod erased;
mod handle;
pub(crate) mod host;
pub(crate) mod inbox;
mod subscriber;

use std::fmt;
use std::future::Future;

pub use context::{Cx, JoinCx};
pub use endpoint::{
    Assigns, Compression, ConnectError, ConnectInfo, Connected, Endpoint, LongPollOptions, RequestUri, SocketHandle,
    SocketOptions, SocketSpec, SocketSpecBuilder,
};
pub use handle::{Handle, ReplyHandle};
pub use subscriber::{Broadcast, RecvError, Subscriber, TooManySubscriptions};

pub(crate) use crate::outbox::Receipt;
pub use crate::outbox::Undelivered;
pub use crate::presence::TrackError;
pub use crate::protocol::message::{ParseError, Payload, PayloadError, Reply};
pub use crate::pubsub::{HistoryOptions, OnSlow, Overloaded};

/// One joined topic.
///
/// Handlers of one channel run one after another; those of different channels of a socket may interleave where they
/// wait. A handler that panics, and a push or reply that its wire version can't carry, crash the channel: the client
/// gets `phx_error` and rejoins by itself.
pub trait Channel: Send + Sized + 'static {
    /// What the channel's own code sends it, through a [`Handle`].
    type Info: Send + 'static;

    /// Broadcast events that go through [`Channel::handle_out`] instead of straight to the client.
    const INTERCEPT: &'static [&'static str] = &[];

    /// Answers a join. `params` is the payload of `phx_join`, any JSON value or binary data.
    ///
    /// The client is subscribed to the topic when the reply leaves; a push is possible only afterwards (send yourself a
    /// message with [`JoinCx::send`]). What is broadcast between the reading of some state here and that reply is in
    /// neither: who needs both without a gap first subscribes ([`JoinCx::subscribe`]), then reads.
    ///
    /// # Errors
    /// A [`Refusal`] becomes the error reply. A panic becomes `{"reason":"join crashed"}`.
    fn join(
        topic: &str,
        params: Payload,
        cx: &mut JoinCx<Self>,
    ) -> impl Future<Output = Result<(Self, Payload), Refusal>> + Send;

    /// Handles a message from the client. By default every event is unknown ([`Next::unknown`]).
    fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> impl Future<Output = Next> + Send {
        let _ = (payload, cx);
        std::future::ready(Next::unknown(event))
    }

    /// Handles a message from the server's own code.
    fn handle_info(&mut self, info: Self::Info, cx: &mut Cx<Self>) -> impl Future<Output = Next> + Send {
        let _ = (info, cx);
        std::future::ready(Next::NoReply)
    }

    /// Handles a broadcast named in [`Channel::INTERCEPT`]. By default it is pushed as it is.
    fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> impl Future<Output = Next> + Send {
        cx.push(event, payload.clone());
        std::future::ready(Next::NoReply)
    }

    /// The channel ends. It is no longer subscribed; pushes still reach the client if it is there.
    fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) -> impl Future<Output = ()> + Send {
        let _ = (reason, cx);
        std::future::ready(())
    }
}

/// What a handler decides.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Next {
    /// No reply (or a later one through a [`ReplyHandle`]).
    NoReply,
    /// Reply to the message. Only [`Channel::handle_in`] has a message to reply to; elsewhere it crashes the channel.
    Reply(Reply),
    /// End the channel, after a reply if there is one.
    Stop {
        /// Why: normal ends give `phx_close`, errors `phx_error`.
        reason: StopReason,
        /// The last reply.
        reply: Option<Reply>,
    },
}

impl Next {
    /// Replies ok.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Next::Reply(Reply::ok(response))
    }

    /// Replies error.
    pub fn error(response: impl Into<Payload>) -> Self {
        Next::Reply(Reply::error(response))
    }

    /// Ends the channel in order, without a reply: the client gets `phx_close` and does not rejoin.
    pub fn stop() -> Self {
        Next::Stop { reason: StopReason::Normal, reply: None }
    }

    /// Ends the channel in order, after a reply.
    pub fn stop_with(reply: Reply) -> Self {
        Next::Stop { reason: StopReason::Normal, reply: Some(reply) }
    }

    /// Ends the channel because the client sent an event that it has no use for, as a Phoenix channel without a clause for
    /// it does.
    pub fn unknown(event: &str) -> Self {
        Next::crash(format!("no clause for {event:?}"))
    }

    /// Ends the channel as a failure: the client gets `phx_error` and rejoins.
    pub fn crash(why: impl Into<String>) -> Self {
        Next::Stop { reason: StopReason::Error(why.into()), reply: None }
    }
}

/// Why a handler ends its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// `:normal`: the client gets `phx_close` and does not rejoin.
    Normal,
    /// `:shutdown` or `{:shutdown, _}`: the same.
    Shutdown,
    /// Anything else: the client gets `phx_error` and rejoins.
    Error(String),
}

/// Why [`Channel::terminate`] runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A handler said so.
    Stopped(StopReason),
    /// The client left.
    Left,
    /// The client joined the topic again.
    DuplicateJoin,
    /// The connection is gone.
    SocketClosed,
    /// A handler panicked, or sent what the wire version can't carry.
    Crashed(String),
}

/// A refused join.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The response of the error reply, by custom `{"reason": …}`.
    Reply(Payload),
    /// The ok reply has no JSON form. As in Phoenix this is the socket's end (close 1011), not the channel's.
    Unencodable(PayloadError),
}

impl Refusal {
    /// The error reply `{"reason": reason}`.
    pub fn reason(reason: impl fmt::Display) -> Self {
        Refusal::Reply(Payload::reason(&reason.to_string()))
    }
}

impl From<ParseError> for Refusal {
    /// The params were not as expected, and the error reply says so.
    fn from(error: ParseError) -> Self {
        Refusal::reason(error)
    }
}

impl From<TooManySubscriptions> for Refusal {
    fn from(error: TooManySubscriptions) -> Self {
        Refusal::reason(error)
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        Refusal::Unencodable(error)
    }
}
