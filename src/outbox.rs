//! Where a connection's output goes, shared by the connection's task and the fan-out shards.
//!
//! A [`Conn`] is one of two sinks. A *direct* one holds the write half of a plain TCP stream: whoever has something to
//! send writes it at once, and only what the kernel does not take waits here. A *queued* one (TLS, deflate, long poll) never
//! writes: bytes are appended and its owner's task is woken to re-encode them. Both take the same framed bytes.
//!
//! The outbox is bounded: a connection that does not read and whose outbox is full is closed and counted. Nobody ever
//! waits for it.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;

use crate::clock;
use crate::metrics::METRICS;
use crate::protocol::Time;
use crate::protocol::limits::SUBSCRIPTIONS_PER_CHANNEL_MAX;
use crate::protocol::message::{Payload, Ref, Reply};
use crate::protocol::socket::ChannelId;
use crate::protocol::wire::WireVersion;

/// Bounds of one connection. They come from the socket's settings.
#[derive(Debug, Clone, Copy)]
pub struct ConnLimits {
    /// Bytes that may wait for the client; beyond it the connection is closed.
    pub outbox_bytes_max: usize,
    /// Mails that may wait for the connection's channels; beyond it the connection is closed.
    pub inbox_messages_max: usize,
    /// Milliseconds without a frame from the client after which the connection is closed; 0 for never.
    pub idle_timeout_ms: u64,
}

/// A broadcast on a topic, as published.
#[derive(Debug)]
pub struct Broadcast {
    /// The topic it is published on.
    pub topic: Box<str>,
    /// Its event.
    pub event: Box<str>,
    /// Its payload.
    pub payload: Payload,
    /// The channel that is not to get it: connection and channel (`broadcast_from`).
    pub except: Option<(u64, ChannelId)>,
}

/// What a channel gave with a subscription, to know its mail by.
pub type Tag = Arc<dyn Any + Send + Sync>;

/// A message of a channel's own type. It may be dropped unread anywhere: then a panic of its destructor is nobody's end.
pub struct Info(Option<Box<dyn Any + Send>>);

impl Info {
    /// Wraps a message.
    pub(crate) fn new(info: impl Any + Send) -> Self {
        Info(Some(Box::new(info)))
    }

    /// The message.
    pub(crate) fn open(mut self) -> Box<dyn Any + Send> {
        self.0.take().expect("it is there until it is opened")
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        let info = self.0.take();
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(info))).is_err() {
            tracing::error!("a message that its channel did not get panicked when it was dropped");
        }
    }
}

impl std::fmt::Debug for Info {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Info")
    }
}

/// What reaches a channel other than by its client's frames.
#[derive(Debug)]
pub enum Mail {
    /// A message of the channel's own type, from a handle.
    Info(Info),
    /// A broadcast that the channel intercepts.
    Intercepted(Arc<Broadcast>),
    /// A broadcast on a topic that the channel's own code has subscribed to.
    Heard(Arc<Broadcast>, Tag),
    /// A reply given later; `Ref` is the `ref` of the message it answers.
    Reply(Ref, Reply),
    /// A broadcast with its offset, for a channel that intercepts some of its topic's: all of them go this way, in their order.
    Positioned(Arc<Broadcast>, u64),
    /// There was no room for a broadcast of the channel's topic: what follows this offset is to be had from the history.
    Behind(u64),
}

/// Orders to a connection that bypass its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Close with 1001: a `disconnect` broadcast on the socket's id.
    Disconnect = 1,
    /// Close with 1002: nothing from the client for too long.
    Idle = 2,
    /// Close with 1012: the server stops.
    Drain = 4,
}

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It takes output.
    Open,
    /// Its outbox or inbox was full: its owner resets it.
    Overflowed,
    /// Its stream is broken or closed.
    Closed,
}

/// The bit of a fence that says its fall is awaited; the others count.
const FENCE_AWAITED: u32 = 1 << 31;

/// One connection's shared part.
pub struct Conn {
    id: u64,
    shard: u16,
    version: WireVersion,
    limits: ConnLimits,
    /// The shard's slot for this connection; the shard writes it when it registers the connection.
    pub(crate) slot: AtomicU32,
    fence: AtomicU32,
    last_seen_ms: AtomicU64,
    control: AtomicU8,
    has_mail: AtomicBool,
    parked: AtomicBool,
    /// How often the owner's output went on its way; it wraps.
    flushes: AtomicU32,
    /// The last of these that went straight to the outbox.
    direct_flush: AtomicU32,
    waker: AtomicWaker,
    state: Mutex<State>,
}

/// What was sent before it was taken, to be asked whether the kernel has that by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    flushes: u32,
    /// Known once the output has reached the outbox.
    accepted: Option<u64>,
}

/// The further topics that channels have subscribed to, by the channel's number.
type Subscriptions = BTreeMap<u32, Vec<Arc<str>>>;

struct State {
    direct: Option<OwnedWriteHalf>,
    pending: Vec<u8>,
    /// Bytes of the one write among what waits that was larger than the outbox; 0 where there is none.
    oversized: u32,
    /// Bytes that were ever sent; those that the kernel has are fewer by what waits.
    accepted: u64,
    /// Bytes that a queued sink's owner has taken and written.
    handed: u64,
    #[expect(clippy::box_collection, reason = "empty and small at rest: 8 bytes of each connection, not 32")]
    inbox: Option<Box<VecDeque<(ChannelId, Mail)>>>,
    subscriptions: Option<Box<Subscriptions>>,
    refuses_mail: bool,
    status: Status,
}

impl State {
    /// Whether so many bytes may wait besides those that do. One write may be larger than the outbox, as a message may be:
    /// it alone does not make its client a slow one.
    fn has_room(&mut self, bytes: usize, outbox_bytes_max: usize) -> bool {
        let fits = self.pending.len() + bytes <= outbox_bytes_max.saturating_add(self.oversized as usize);
        let first = self.oversized == 0 && bytes > outbox_bytes_max;
        if !fits && first {
            self.oversized = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        fits || first
    }

    fn take_pending(&mut self) -> Vec<u8> {
        self.oversized = 0;
        std::mem::take(&mut self.pending)
    }
}

impl Conn {
    /// A connection of a shard. `direct` is the stream to write to, or none for a queued sink.
    pub fn new(
        id: u64,
        shard: u16,
        version: WireVersion,
        limits: ConnLimits,
        direct: Option<OwnedWriteHalf>,
    ) -> Arc<Self> {
        Arc::new(Conn {
            id,
            shard,
            version,
            limits,
            slot: AtomicU32::new(u32::MAX),
            fence: AtomicU32::new(0),
            last_seen_ms: AtomicU64::new(clock::now().0),
            control: AtomicU8::new(0),
            has_mail: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            flushes: AtomicU32::new(0),
            direct_flush: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            state: Mutex::new(State {
                direct,
                pending: Vec::new(),
                oversized: 0,
                accepted: 0,
                handed: 0,
                inbox: None,
                subscriptions: None,
                refuses_mail: false,
                status: Status::Open,
            }),
        })
    }

    /// The connection's number, unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The shard it belongs to.
    pub fn shard(&self) -> usize {
        usize::from(self.shard)
    }

    /// The wire version its frames are encoded in.
    pub fn version(&self) -> WireVersion {
        self.version
    }

    /// Notes that the client sent a frame.
    pub fn seen(&self, now: Time) {
        self.last_seen_ms.store(now.0, Ordering::Relaxed);
    }

    /// Milliseconds since the client's last frame.
    pub fn idle_ms(&self, now: Time) -> u64 {
        now.since(Time(self.last_seen_ms.load(Ordering::Relaxed)))
    }

    /// Whether the client has been silent for longer than its socket allows.
    pub fn is_idle(&self, now: Time) -> bool {
        self.limits.idle_timeout_ms != 0 && self.idle_ms(now) >= self.limits.idle_timeout_ms
    }

    /// Registers the owner's task, which is woken by [`Conn::post`], [`Conn::order`] and by waiting output.
    pub fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether output of this connection is still on its way through its shard. Then its owner must send through the
    /// shard as well, or its frames would overtake.
    pub fn is_fenced(&self) -> bool {
        self.fence.load(Ordering::Acquire) & !FENCE_AWAITED != 0
    }

    /// As [`Conn::is_fenced`]; where it is, the owner's task is woken once it no longer is.
    pub fn awaits_fence(&self) -> bool {
        let fenced = self.fence.fetch_or(FENCE_AWAITED, Ordering::AcqRel) & !FENCE_AWAITED != 0;
        if !fenced {
            self.fence.fetch_and(!FENCE_AWAITED, Ordering::AcqRel);
        }
        fenced
    }

    /// One more piece of output goes through the shard.
    pub(crate) fn raise_fence(&self) {
        self.fence.fetch_add(1, Ordering::AcqRel);
    }

    /// The shard has written `passed` pieces.
    pub(crate) fn lower_fence(&self, passed: u32) {
        if passed != 0 && self.fence.fetch_sub(passed, Ordering::AcqRel) == FENCE_AWAITED | passed {
            self.waker.wake();
        }
    }

    /// The owner waits for room in the shards. False if it does already.
    pub(crate) fn park(&self) -> bool {
        !self.parked.swap(true, Ordering::AcqRel)
    }

    /// There is room in the shards again: wakes the owner.
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::Release);
        self.waker.wake();
    }

    /// Sends framed bytes: at once where the stream takes them, otherwise they wait in the outbox.
    pub fn send(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.status != Status::Open {
            return;
        }

        state.accepted += bytes.len() as u64;
        let mut rest = bytes;
        if state.pending.is_empty()
            && let Some(stream) = &state.direct
        {
            match stream.try_write(bytes) {
                Ok(written) if written == bytes.len() => return,
                Ok(written) => rest = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => state.status = Status::Closed,
            }
        }
        if state.status == Status::Open {
            if state.has_room(rest.len(), self.limits.outbox_bytes_max) {
                state.pending.extend_from_slice(rest);
            } else {
                state.status = Status::Overflowed;
                state.pending = Vec::new();
                METRICS.slow_consumers.inc();
            }
        }
        drop(state);
        self.waker.wake();
    }

    /// Writes what waits. Ready when the outbox is empty or the connection no longer open. Direct sinks only.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Status> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while state.status == Status::Open && !state.pending.is_empty() {
            let Some(stream) = &state.direct else { break };
            match stream.try_write(&state.pending) {
                Ok(written) if written == state.pending.len() => drop(state.take_pending()),
                Ok(written) => drop(state.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.as_ref().poll_write_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => state.status = Status::Closed,
                },
                Err(_) => state.status = Status::Closed,
            }
        }
        Poll::Ready(state.status)
    }

    /// A receipt for what the handler that is being polled has sent so far.
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt { flushes: self.flushes.load(Ordering::Relaxed), accepted: None }
    }

    /// The owner's output goes to the outbox now, or behind what is on its way through the shard. Called by the owner alone.
    pub(crate) fn flushed(&self, is_direct: bool) {
        let number = self.flushes.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if is_direct {
            self.direct_flush.store(number, Ordering::Relaxed);
        }
    }

    /// The owner of a queued sink has written all that it took.
    pub(crate) fn handed_over(&self) {
        let mut state = self.state.lock();
        state.handed = state.accepted - state.pending.len() as u64;
    }

    /// Whether the kernel has what a receipt is for; of a long poll, whether a poll has been answered with it. Asked by the
    /// owner, in a later handler than the one that sent it.
    pub(crate) fn has_handed_over(&self, receipt: &mut Receipt) -> bool {
        // Whether that flush was behind the receipt, as far as numbers that wrap can tell.
        let is_behind = |flush: u32| (1..=u32::MAX / 2).contains(&flush.wrapping_sub(receipt.flushes));
        let has_left = is_behind(self.flushes.load(Ordering::Relaxed));
        // One that went straight to the outbox had everything before it there; a fence that was raised since says nothing of it.
        let is_there = is_behind(self.direct_flush.load(Ordering::Relaxed)) || has_left && !self.is_fenced();
        if receipt.accepted.is_none() && !is_there {
            return false;
        }
        let state = self.state.lock();
        let accepted = *receipt.accepted.get_or_insert(state.accepted);
        let handed = if state.direct.is_some() { state.accepted - state.pending.len() as u64 } else { state.handed };
        state.status == Status::Open && handed >= accepted
    }

    /// Takes what waits in a queued sink, and says how the connection stands.
    pub fn take_pending(&self) -> (Vec<u8>, Status) {
        let mut state = self.state.lock();
        (state.take_pending(), state.status)
    }

    /// As [`Conn::take_pending`], but of more than `bytes_max` only the first so many: the rest goes on counting as waiting.
    pub fn take_pending_at_most(&self, bytes_max: usize) -> (Vec<u8>, Status) {
        let mut state = self.state.lock();
        let taken = if state.pending.len() <= bytes_max {
            state.take_pending()
        } else {
            state.pending.drain(..bytes_max).collect()
        };
        (taken, state.status)
    }

    /// Whether an eighth of what may wait for the client does.
    pub(crate) fn is_crowded(&self) -> bool {
        self.pending_bytes() > self.limits.outbox_bytes_max / 8
    }

    /// Whether half of the mails that may wait do.
    pub(crate) fn has_room_for_mail(&self) -> bool {
        let inbox_messages_max = self.limits.inbox_messages_max;
        self.state.lock().inbox.as_ref().is_none_or(|inbox| inbox.len() < inbox_messages_max / 2)
    }

    /// Whether, behind so many bytes and with so many more, at most half of what may wait for the client does, or nothing else.
    pub(crate) fn has_room_for(&self, ahead: usize, bytes: usize) -> bool {
        let waiting = self.pending_bytes() + ahead;
        waiting == 0 || waiting + bytes <= self.limits.outbox_bytes_max / 2
    }

    /// Bytes that wait for the client.
    pub fn pending_bytes(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// How the connection stands.
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    /// Ends output. Gives back the stream, so that its owner can close it as it should.
    pub fn close(&self) -> Option<OwnedWriteHalf> {
        let mut state = self.state.lock();
        state.status = Status::Closed;
        state.pending = Vec::new();
        let (inbox, direct) = (state.inbox.take(), state.direct.take());
        // What a mail does when it is dropped is its channel's code, which may send: not under the lock.
        drop(state);
        drop(inbox);
        direct
    }

    /// Puts a mail for one of the connection's channels into the inbox and wakes its owner.
    ///
    /// # Errors
    /// [`Undelivered`] if the connection is closed or its inbox full; a full inbox also closes the connection.
    pub fn post(&self, channel: ChannelId, mail: Mail) -> Result<(), Undelivered> {
        let mut state = self.state.lock();
        if state.status != Status::Open || state.refuses_mail {
            return Err(Undelivered);
        }
        let inbox = state.inbox.get_or_insert_default();
        let full = inbox.len() >= self.limits.inbox_messages_max;
        if full {
            state.status = Status::Overflowed;
            METRICS.slow_consumers.inc();
        } else {
            inbox.push_back((channel, mail));
            self.has_mail.store(true, Ordering::Release);
        }
        drop(state);
        self.waker.wake();
        if full { Err(Undelivered) } else { Ok(()) }
    }

    /// Notes that a channel subscribes to a further topic, so that its end finds it. False, and nothing noted, where it has
    /// as many as it may.
    pub(crate) fn note_subscription(&self, channel: ChannelId, topic: Arc<str>) -> bool {
        let mut state = self.state.lock();
        let held = state.subscriptions.get_or_insert_default().entry(channel.0).or_default();
        let has_room = held.len() < SUBSCRIPTIONS_PER_CHANNEL_MAX;
        if has_room {
            held.push(topic);
        }
        has_room
    }

    /// Forgets a channel's subscriptions to a topic. False if there were none.
    pub(crate) fn forget_subscription(&self, channel: ChannelId, topic: &str) -> bool {
        let mut state = self.state.lock();
        let held = state.subscriptions.as_mut().and_then(|subscriptions| subscriptions.get_mut(&channel.0));
        let Some(held) = held else { return false };
        let before = held.len();
        held.retain(|held| **held != *topic);
        held.len() < before
    }

    /// Takes the topics that a channel has subscribed to.
    pub(crate) fn take_subscriptions(&self, channel: ChannelId) -> Vec<Arc<str>> {
        let mut state = self.state.lock();
        let Some(subscriptions) = &mut state.subscriptions else { return Vec::new() };
        let taken = subscriptions.remove(&channel.0).unwrap_or_default();
        if subscriptions.is_empty() {
            state.subscriptions = None;
        }
        taken
    }

    /// Takes the topics that all channels have subscribed to.
    pub(crate) fn take_all_subscriptions(&self) -> impl Iterator<Item = (ChannelId, Arc<str>)> + use<> {
        let taken = self.state.lock().subscriptions.take().map(|subscriptions| *subscriptions).unwrap_or_default();
        taken.into_iter().flat_map(|(channel, topics)| topics.into_iter().map(move |topic| (ChannelId(channel), topic)))
    }

    /// Takes no more mail: the conversation is over, only its last output is still to leave.
    pub fn refuse_mail(&self) {
        let mut state = self.state.lock();
        state.refuses_mail = true;
        let inbox = state.inbox.take();
        // As in `close`.
        drop(state);
        drop(inbox);
    }

    /// Takes the mails that wait. Empty, and cheap, where there are none.
    pub fn take_mail(&self) -> VecDeque<(ChannelId, Mail)> {
        if !self.has_mail.swap(false, Ordering::AcqRel) {
            return VecDeque::new();
        }
        self.state.lock().inbox.take().map(|inbox| *inbox).unwrap_or_default()
    }

    /// Gives an order and wakes the owner.
    pub fn order(&self, control: Control) {
        self.control.fetch_or(control as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Takes back an idle close: the client could not be heard, because its channels were busy.
    pub fn forgive_idle(&self, now: Time) {
        self.seen(now);
        self.control.fetch_and(!(Control::Idle as u8), Ordering::AcqRel);
    }

    /// The order to follow, if any: a disconnect before a drain before an idle close.
    pub fn ordered(&self) -> Option<Control> {
        let bits = self.control.load(Ordering::Acquire);
        [Control::Disconnect, Control::Drain, Control::Idle].into_iter().find(|control| bits & *control as u8 != 0)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.id)
    }
}

/// The connection is closed, or its inbox was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed or its inbox is full")]
pub struct Undelivered;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_receipt_is_good_once_its_flush_is_handed_over_whatever_fence_was_raised_since() {
        let limits = ConnLimits { outbox_bytes_max: 100, inbox_messages_max: 1, idle_timeout_ms: 0 };
        let conn = Conn::new(1, 0, WireVersion::V2, limits, None);
        let mut receipt = conn.receipt();
        assert!(!conn.has_handed_over(&mut receipt), "it has not left");
        conn.flushed(true);
        conn.send(b"pushed");
        assert!(!conn.has_handed_over(&mut receipt), "it waits in the outbox");
        conn.raise_fence();
        let mut first = conn.receipt();
        conn.take_pending();
        conn.handed_over();
        assert!(conn.has_handed_over(&mut receipt));

        conn.flushed(false);
        assert!(!conn.has_handed_over(&mut first), "it is on its way through the shard");
        conn.send(b"by the shard");
        conn.lower_fence(1);
        assert!(!conn.has_handed_over(&mut first), "it is in the outbox");
        conn.take_pending();
        conn.handed_over();
        assert!(conn.has_handed_over(&mut first));

        let mut lost = conn.receipt();
        conn.flushed(true);
        conn.send(&[0; 500]);
        conn.send(&[0; 500]);
        assert!(!conn.has_handed_over(&mut lost), "what overflowed went nowhere");
    }

    #[test]
    fn a_receipt_that_was_raised_behind_a_fence_waits_for_it() {
        let limits = ConnLimits { outbox_bytes_max: 100, inbox_messages_max: 1, idle_timeout_ms: 0 };
        let conn = Conn::new(1, 0, WireVersion::V2, limits, None);
        conn.flushed(true);
        let mut receipt = conn.receipt();
        conn.raise_fence();
        conn.flushed(false);

        assert!(!conn.has_handed_over(&mut receipt), "the direct flush was before it");
        conn.lower_fence(1);
        assert!(conn.has_handed_over(&mut receipt), "nothing was ever sent");
    }

    #[test]
    fn the_fall_of_an_awaited_fence_wakes_the_owner_once() {
        let limits = ConnLimits { outbox_bytes_max: 1, inbox_messages_max: 1, idle_timeout_ms: 0 };
        let conn = Conn::new(1, 0, WireVersion::V2, limits, None);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Arc::clone(&wakes).into();
        let woken = |passed| {
            conn.register(&Context::from_waker(&waker));
            conn.lower_fence(passed);
            wakes.0.swap(0, Ordering::Relaxed)
        };
        conn.raise_fence();
        assert_eq!(woken(1), 0, "nobody awaits it");

        for _ in 0..3 {
            conn.raise_fence();
        }
        assert!(conn.awaits_fence());

        assert_eq!(woken(1), 0, "two pieces are still on their way");
        assert!(conn.is_fenced());
        assert_eq!(woken(2), 1);
        assert!(!conn.is_fenced());
        assert!(!conn.awaits_fence());
    }
}
