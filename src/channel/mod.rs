//! What users write: topics with behaviour.
//!
//! A [`Channel`] is the state of one joined topic. It lives inside its connection's task: a handler that completes at
//! once is just called; one that waits is polled there while other topics go on. Messages for a waiting channel wait in
//! order. A panic ends that channel with `phx_error` and nothing else.
//!
//! Source: `Phoenix.Channel`, `Phoenix.Channel.Server`.

mod context;
mod effect;
mod endpoint;
mod erased;
mod handle;
pub(crate) mod host;

use std::future::Future;

pub use context::{Cx, JoinCx};
pub use endpoint::{
    Assigns, Compression, ConnectError, ConnectInfo, Connected, Endpoint, LongPollOptions, RequestUri, SocketOptions,
    SocketSpec, SocketSpecBuilder,
};
pub use handle::{Handle, ReplyHandle};

pub use crate::protocol::message::{Payload, PayloadError, Reply};

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
    /// message through [`JoinCx::handle`]).
    ///
    /// # Errors
    /// A [`Refusal`] becomes the error reply. A panic becomes `{"reason":"join crashed"}`.
    fn join(
        topic: &str,
        params: Payload,
        cx: &mut JoinCx<Self>,
    ) -> impl Future<Output = Result<(Self, Payload), Refusal>> + Send;

    /// Handles a message from the client. An event that the channel does not know is answered as the channel likes;
    /// Phoenix channels crash ([`Next::crash`]).
    fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> impl Future<Output = Next> + Send;

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

    /// Ends the channel as a failure: the client gets `phx_error` and rejoins.
    pub fn crash(why: impl Into<String>) -> Self {
        Next::Stop { reason: StopReason::Error(why.into()), reply: None }
    }
}

/// Why a handler ends its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
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
pub enum Refusal {
    /// The response of the error reply, by custom `{"reason": …}`.
    Reply(Payload),
    /// The ok reply has no JSON form. As in Phoenix this is the socket's end (close 1011), not the channel's.
    Unencodable(PayloadError),
}

impl Refusal {
    /// The error reply `{"reason": reason}`.
    pub fn reason(reason: &str) -> Self {
        Refusal::Reply(Payload::reason(reason))
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        Refusal::Unencodable(error)
    }
}
