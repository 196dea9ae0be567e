//! One client's conversation: carries out what [`protocol::socket`](crate::protocol::socket) decides, inside the
//! connection's task.
//!
//! The transport feeds frames in and polls; the host appends framed answers to the buffer it is given. Whatever has to go
//! through the connection's shard (a join's subscription, a broadcast, an unsubscription) first sends that buffer, so
//! that the client sees one order.

mod answer;
mod join;
mod resuming;
mod work;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use compact_str::CompactString;
use futures::stream::{FuturesUnordered, Stream};

use super::effect;
use super::endpoint::{Assigns, SocketSpec};
use super::erased::{Boxed, Call, Running};
use super::{Payload, Reason};
use crate::outbox::{Broadcast, Conn, Mail};
use crate::protocol::history::Resume;
use crate::protocol::limits::{ORPHAN_HANDLERS_MAX, OUTBOX_BYTES_READ_PAUSE};
use crate::protocol::message::{Ref, Reply};
use crate::protocol::socket::{ChannelId, Request, Socket};
use crate::protocol::websocket::{self, Opcode};
use crate::protocol::wire::{self, DecodeError, Incoming};
use crate::pubsub::{Behind, Hub, Live, Role, Subscription};

/// Rounds of mail that one poll hands out.
const MAIL_ROUNDS_PER_POLL: usize = 16;

/// A channel's place in the table.
enum Slot {
    /// Its join is pending.
    Joining(Box<Joining>),
    /// It waits for something to do.
    Idle(Boxed),
    /// One of its handlers waits; what comes meanwhile waits too.
    Busy(Option<Box<Waiting>>),
}

type Waiting = VecDeque<Work>;

struct Joining {
    reference: Ref,
    /// The join_ref of the channel that this join replaces: its `phx_close` follows this join's answer.
    replaced: Option<Ref>,
    intercept: &'static [&'static str],
    /// What its client asked for, where the topic keeps history.
    resume: Option<Resume>,
    waiting: Waiting,
}

/// What waits for a channel.
enum Work {
    Call(Call),
    Leave {
        join_ref: Ref,
        reference: Ref,
    },
    /// A message that no channel can take, with its ref.
    Crash(Ref),
    /// A broadcast with its offset, of a channel that intercepts some.
    Positioned(Arc<Broadcast>, u64),
    /// What the client has been given moves its position to an offset.
    Position(u64),
    /// A join of the same topic behind one that is pending, or behind what ends the channel.
    Join {
        join_ref: Ref,
        reference: Ref,
        params: Payload,
    },
}

impl Work {
    /// Whether it came from the server's own code, for one channel.
    fn is_mail(&self) -> bool {
        let is_call = matches!(self, Work::Call(Call::Info(_) | Call::Intercepted(_) | Call::Heard(..)));
        is_call || matches!(self, Work::Positioned(..) | Work::Position(_))
    }
}

/// The client sent what can't be read, or a join's answer could not be encoded: the socket ends with close 1011.
#[derive(Debug)]
pub(crate) struct Fatal(pub(crate) String);

impl From<DecodeError> for Fatal {
    fn from(error: DecodeError) -> Self {
        Fatal(error.to_string())
    }
}

/// The conversation with one client.
pub(crate) struct Host {
    socket: Socket<Slot>,
    conn: Arc<Conn>,
    spec: Arc<SocketSpec>,
    assigns: Assigns,
    socket_id: Option<Arc<str>>,
    running: Option<Box<FuturesUnordered<Running>>>,
    /// Channels whose waiting work is at its limit.
    clogged: u16,
    fatal: Option<Box<Fatal>>,
    /// Channels that said what can't be encoded, and why not: they crash when their handlers are through.
    #[expect(clippy::box_collection, reason = "none at rest: 8 bytes of each connection, not 24")]
    doomed: Option<Box<Vec<(ChannelId, String)>>>,
    /// Subscriptions with positions that the client has not caught up with.
    #[expect(clippy::box_collection, reason = "none at rest: 8 bytes of each connection, not 24")]
    behind: Option<Box<Vec<Behind>>>,
    /// Bytes sent, through the shard or past it, since [`Host::awaits_shard`] last found that it has nothing of this connection.
    ahead_bytes: u32,
    closed: bool,
}

impl Host {
    /// Begins a conversation; a socket with an id listens for `disconnect` from here on.
    pub(crate) fn new(conn: Arc<Conn>, spec: Arc<SocketSpec>, assigns: Assigns, socket_id: Option<Arc<str>>) -> Self {
        if let Some(id) = &socket_id {
            spec.endpoint.hub.subscribe(&conn, Arc::clone(id), Subscription::SocketId, Vec::new());
        }
        Host {
            socket: Socket::default(),
            conn,
            spec,
            assigns,
            socket_id,
            running: None,
            clogged: 0,
            fatal: None,
            doomed: None,
            behind: None,
            ahead_bytes: 0,
            closed: false,
        }
    }

    /// Takes one message of the client.
    ///
    /// # Errors
    /// [`Fatal`]: close the socket with 1011.
    pub(crate) fn receive(
        &mut self,
        opcode: Opcode,
        bytes: &[u8],
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fatal> {
        let version = self.conn.version();
        let message = match opcode {
            Opcode::Text => {
                let text = std::str::from_utf8(bytes).map_err(|error| Fatal(error.to_string()))?;
                wire::decode_text(version, text)?
            }
            Opcode::Binary => wire::decode_binary(version, bytes)?,
        };
        self.obey(&message, cx, out);
        self.fatal.take().map_or(Ok(()), |fatal| Err(*fatal))
    }

    fn obey(&mut self, message: &Incoming<'_>, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        match self.socket.classify(message) {
            Request::Deliver(at) => {
                let call = Call::Message {
                    event: CompactString::new(message.event.as_str().unwrap_or_default()),
                    payload: message.payload.to_owned(),
                    reference: message.reference.clone(),
                };
                // No clause of any channel takes an event that is no string.
                let is_text = message.event.as_str().is_some();
                let work = if is_text { Work::Call(call) } else { Work::Crash(message.reference.clone()) };
                self.work(at, work, cx, out);
            }
            Request::Heartbeat => {
                self.answer(out, &Ref::NULL, &message.reference, &message.topic, &Reply::ok(Payload::EMPTY));
            }
            Request::Stale => {}
            Request::Unmatched => self.unmatched(&message.reference, &message.topic, out),
            Request::LeaveUnjoined => {
                self.answer(out, &message.join_ref, &message.reference, &message.topic, &Reply::ok(Payload::EMPTY));
            }
            Request::Leave(at) => {
                let (join_ref, reference) = (message.join_ref.clone(), message.reference.clone());
                self.work(at, Work::Leave { join_ref, reference }, cx, out);
            }
            Request::Join { existing } => {
                let Some(topic) = message.topic.as_str() else {
                    return self.unmatched(&message.reference, &message.topic, out);
                };
                let (join_ref, reference) = (message.join_ref.clone(), message.reference.clone());
                let params = message.payload.to_owned();
                match existing {
                    Some(at) if self.ends_by_itself(at) => {
                        self.work(at, Work::Join { join_ref, reference, params }, cx, out);
                    }
                    Some(at) => {
                        let topic = Arc::clone(&self.socket.entry(at).topic);
                        let replaced = self.end(at, Reason::DuplicateJoin, cx, out);
                        self.join(topic, join_ref, reference, params, Some(replaced), cx, out);
                    }
                    None => self.join(topic.into(), join_ref, reference, params, None, cx, out),
                }
            }
        }
    }

    /// Sends what has gathered, behind what is still on its way through the shard.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            return;
        }
        self.sent_ahead(out.len());
        let is_fenced = self.conn.is_fenced();
        self.conn.flushed(!is_fenced);
        if is_fenced {
            self.hub().send_behind(&self.conn, out.clone());
        } else {
            self.conn.send(out);
        }
        out.clear();
    }

    fn sent_ahead(&mut self, bytes: usize) {
        self.ahead_bytes = self.ahead_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Whether so much was sent that it should get through the shard, and the outbox be looked at, before more is read. What a
    /// quick shard has already written counts too: it may wait in the outbox.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead_bytes as usize > OUTBOX_BYTES_READ_PAUSE
    }

    /// As [`Host::is_ahead`]; where it is, the connection's task is woken once everything has got through.
    pub(crate) fn awaits_shard(&mut self) -> bool {
        let awaits = self.is_ahead() && self.conn.awaits_fence();
        if !awaits && self.is_ahead() {
            self.ahead_bytes = 0;
        }
        awaits
    }

    /// Polls the waiting handlers, takes the mail and lets subscriptions catch up. What there is to say is in `out`.
    ///
    /// # Errors
    /// [`Fatal`]: close the socket with 1011.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Fatal> {
        self.poll_channels(cx, out)?;
        if self.behind.is_some() {
            self.catch_up(cx, out);
        }
        self.verdict()
    }

    fn poll_channels(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Fatal> {
        for _ in 0..MAIL_ROUNDS_PER_POLL {
            effect::discard();
            while self.fatal.is_none()
                && let Some(running) = &mut self.running
            {
                let polled = Pin::new(&mut **running).poll_next(cx);
                self.carry_out_effects(out);
                match polled {
                    Poll::Ready(Some(finished)) => self.finish(finished, cx, out),
                    Poll::Ready(None) => self.running = None,
                    Poll::Pending => break,
                }
            }
            if self.is_clogged() || self.closed {
                return self.verdict();
            }
            let mail = self.conn.take_mail();
            if mail.is_empty() {
                return self.verdict();
            }
            for (channel, mail) in mail {
                if self.fatal.is_some() {
                    return self.verdict();
                }
                let Some(at) = self.socket.position(channel) else {
                    continue;
                };
                match mail {
                    Mail::Info(info) => self.work(at, Work::Call(Call::Info(info)), cx, out),
                    Mail::Intercepted(broadcast) => {
                        self.work(at, Work::Call(Call::Intercepted(broadcast)), cx, out);
                    }
                    Mail::Heard(broadcast, tag) => self.work(at, Work::Call(Call::Heard(broadcast, tag)), cx, out),
                    Mail::Reply(reference, reply) => match self.reply(at, &reference, &reply, out) {
                        Err(why) if matches!(self.socket.entry(at).state, Slot::Idle(_)) => {
                            self.stop(at, Reason::Crashed(why), cx, out);
                        }
                        Err(why) => self.doom(channel, why),
                        Ok(()) => {}
                    },
                    Mail::Positioned(broadcast, offset) => self.work(at, Work::Positioned(broadcast, offset), cx, out),
                    Mail::Behind(after) => self.fell_behind(at, after),
                }
            }
        }
        // Channels that keep sending themselves messages let others run in between.
        cx.waker().wake_by_ref();
        self.verdict()
    }

    fn verdict(&mut self) -> Result<(), Fatal> {
        self.fatal.take().map_or(Ok(()), |fatal| Err(*fatal))
    }

    /// Whether a channel has as much waiting as it may, or handlers of ended channels as many as may run on: the client is
    /// not read until there are fewer.
    pub(crate) fn is_clogged(&self) -> bool {
        let running_max = self.spec.options.channels_max.saturating_add(ORPHAN_HANDLERS_MAX);
        self.clogged > 0 || self.running.as_ref().is_some_and(|running| running.len() >= running_max)
    }

    /// Whether no handler waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.running.is_none()
    }

    /// Ends the conversation: subscriptions end, `farewell` (framed bytes) is the last that is sent, presences leave,
    /// channels run `terminate`. Handlers that wait run on until [`Host::is_at_rest`], for as long as the transport polls.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>, farewell: &[u8]) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut nowhere = Vec::new();
        for state in self.give_up_topics(farewell) {
            self.terminate(state, Reason::SocketClosed, cx, &mut nowhere);
        }
    }

    /// Ends subscriptions, says farewell behind the last frame of the topics, ends presences and leaves the hub. Gives back
    /// the channels that wait for nothing.
    fn give_up_topics(&mut self, farewell: &[u8]) -> Vec<Boxed> {
        self.conn.refuse_mail();
        self.doomed = None;
        self.behind = None;
        let entries = self.socket.drain();
        for entry in &entries {
            self.hub().unsubscribe(&self.conn, Arc::clone(&entry.topic), Role::Fastlane(entry.id));
        }
        for (channel, topic) in self.conn.take_all_subscriptions() {
            self.hub().unsubscribe(&self.conn, topic, Role::Inbox(channel));
        }
        if let Some(id) = self.socket_id.take() {
            self.hub().unsubscribe(&self.conn, id, Role::SocketId);
        }
        if !farewell.is_empty() {
            self.hub().send_behind(&self.conn, farewell.to_vec());
        }
        let mut idle = Vec::new();
        for entry in entries {
            match entry.state {
                Slot::Idle(state) => {
                    self.untrack(entry.id, &state);
                    idle.push(state);
                }
                Slot::Busy(_) => self.spec.endpoint.presence.untrack_channel(&self.conn, entry.id),
                Slot::Joining(_) => {}
            }
        }
        self.hub().disconnect(&self.conn);
        idle
    }

    /// Counts the conversation among the live ones.
    pub(crate) fn live_guard(&self) -> Live {
        self.hub().live_guard()
    }

    /// The limits of the client's frames.
    pub(crate) fn frame_limits(&self) -> websocket::Limits {
        let options = &self.spec.options;
        websocket::Limits { frame_bytes_max: options.frame_bytes_max, message_bytes_max: options.message_bytes_max }
    }

    /// Ends what a channel has subscribed to by its own code.
    fn end_subscriptions(&self, channel: ChannelId) {
        for topic in self.conn.take_subscriptions(channel) {
            self.hub().unsubscribe(&self.conn, topic, Role::Inbox(channel));
        }
    }

    fn hub(&self) -> &Hub {
        &self.spec.endpoint.hub
    }
}

impl Drop for Host {
    /// A transport closes its host; one that is cut off (a panic, the runtime's end) still leaves nothing behind in PubSub.
    fn drop(&mut self) {
        if !self.closed {
            drop(self.give_up_topics(&[]));
        }
    }
}
