//! Handles that reach a channel from anywhere: other tasks, other threads, timers.

use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use crate::clock;
use crate::outbox::{Conn, Info, Mail, Undelivered};
use crate::protocol::message::{Ref, Reply};
use crate::protocol::socket::ChannelId;

/// Sends a channel messages of its own type. Weak: it does not keep the connection.
pub struct Handle<I> {
    conn: Weak<Conn>,
    channel: ChannelId,
    info: PhantomData<fn(I)>,
}

impl<I: Send + 'static> Handle<I> {
    pub(super) fn new(conn: &Arc<Conn>, channel: ChannelId) -> Self {
        Handle { conn: Arc::downgrade(conn), channel, info: PhantomData }
    }

    /// Sends; [`super::Channel::handle_info`] gets it.
    ///
    /// # Errors
    /// [`Undelivered`] if the connection is gone or its inbox full. A channel that ended while its connection lives
    /// drops the message silently.
    pub fn send(&self, info: I) -> Result<(), Undelivered> {
        let conn = self.conn.upgrade().ok_or(Undelivered)?;
        conn.post(self.channel, Mail::Info(Info::new(info)))
    }

    /// Milliseconds since the client last sent any frame on the channel's socket; none where that is gone.
    pub(crate) fn idle_ms(&self) -> Option<u64> {
        Some(self.conn.upgrade()?.idle_ms(clock::now()))
    }
}

impl<I> Clone for Handle<I> {
    fn clone(&self) -> Self {
        Handle { conn: self.conn.clone(), channel: self.channel, info: PhantomData }
    }
}

impl<I> std::fmt::Debug for Handle<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({:?})", self.channel)
    }
}

/// Replies to one message, later. Used once.
///
/// Source: `Phoenix.Channel.socket_ref/1` and `reply/2`.
#[derive(Debug)]
pub struct ReplyHandle {
    conn: Weak<Conn>,
    channel: ChannelId,
    reference: Ref,
}

impl ReplyHandle {
    pub(super) fn new(conn: &Arc<Conn>, channel: ChannelId, reference: Ref) -> Self {
        ReplyHandle { conn: Arc::downgrade(conn), channel, reference }
    }

    /// Replies. Dropped silently if the channel has ended meanwhile.
    ///
    /// # Errors
    /// [`Undelivered`] if the connection is gone or its inbox full.
    pub fn send(self, reply: Reply) -> Result<(), Undelivered> {
        let conn = self.conn.upgrade().ok_or(Undelivered)?;
        conn.post(self.channel, Mail::Reply(self.reference, reply))
    }
}
