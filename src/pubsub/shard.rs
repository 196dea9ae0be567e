//! A fan-out shard: one task that owns its connections' subscriptions and writes to them.
//!
//! It takes up to [`BATCH_MAX`] commands at a time and obeys them in order. What a command sends is not written at once
//! but *staged*: the frame is encoded once a wire version into the batch's arena, and each receiving connection notes its
//! number. At the end of the batch every connection that has something staged gets one write. Neighbours with the same
//! list, which is the common case of a busy topic, share one concatenation.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::listener::{Audience, Listener};
use super::load::{Backlog, Load};
use super::positioned;
use super::resuming::Resumable;
use super::{Command, Histories, Holds, Role, Subscription};
use crate::clock;
use crate::metrics::METRICS;
use crate::outbox::{Broadcast, Conn, Control, Mail};
use crate::protocol::history::Offer;
use crate::protocol::message::DISCONNECT;
use crate::protocol::websocket::{self, Opcode};
use crate::protocol::wire::{self, Kind, WireVersion};

/// Commands taken at once. Larger batches gained nothing where this was measured.
const BATCH_MAX: usize = 64;
/// Bytes of encoded frames after which a batch is written out early.
const ARENA_BYTES_MAX: usize = 1 << 20;
/// Writes between two yields to the runtime.
const WRITES_PER_YIELD: usize = 512;
/// How often the shard looks for idle connections. An idle close is late by at most this.
const TICK: Duration = Duration::from_millis(250);

/// One subscriber of a topic.
enum Subscriber {
    Connection { slot: u32, subscription: Subscription },
    Listener(Box<Listener>),
}

impl Subscriber {
    /// Whether this is what a connection subscribed in such a role.
    fn is(&self, wanted: u32, role: Role) -> bool {
        let Subscriber::Connection { slot, subscription } = self else { return false };
        let held = match subscription {
            Subscription::Fastlane { channel, .. } => Role::Fastlane(*channel),
            Subscription::Resumable(resumable) => Role::Fastlane(resumable.channel),
            Subscription::Inbox { channel, .. } => Role::Inbox(*channel),
            Subscription::SocketId => Role::SocketId,
        };
        *slot == wanted && held == role
    }
}

struct Member {
    conn: Arc<Conn>,
    /// The connection's place in `staged` within this batch, or none.
    staged: Option<u32>,
    /// What it was last ordered.
    ordered: Option<Control>,
}

/// What one connection gets at the end of the batch.
#[derive(Default)]
struct Staged {
    slot: u32,
    items: Vec<u32>,
    /// Of all items together.
    bytes: usize,
    fences: u32,
}

/// A broadcast's frames, as far as somebody gets them: plain and with its offset, by wire version. None inside where the
/// version can't carry it.
#[derive(Default)]
struct Encoded {
    plain: [Option<Option<u32>>; 2],
    positioned: [Option<Option<u32>>; 2],
}

#[derive(Default)]
struct Shard {
    members: Slab<Member>,
    topics: HashMap<Arc<str>, SmallVec<[Subscriber; 1]>>,
    arena: Vec<u8>,
    items: Vec<Range<usize>>,
    staged: Vec<Staged>,
    staged_len: usize,
    scratch: Vec<u8>,
}

/// Runs a shard until every handle of its hub is gone.
pub(super) async fn run(
    mut commands: mpsc::UnboundedReceiver<Command>,
    backlog: Arc<Backlog>,
    load: Arc<Load>,
    holds: Arc<Holds>,
    histories: Option<Arc<Histories>>,
) {
    let mut shard = Shard::default();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_usize;

    loop {
        // Both arms are cancel-safe: recv_many loses nothing, a tick missed is a tick later.
        tokio::select! {
            taken = commands.recv_many(&mut batch, BATCH_MAX) => {
                if taken == 0 {
                    return;
                }
                backlog.take(taken);
                for command in batch.drain(..) {
                    shard.obey(command);
                    if shard.arena.len() > ARENA_BYTES_MAX {
                        shard.write_out().await;
                    }
                }
                shard.write_out().await;
                holds.connections.store(shard.members.len(), Ordering::Release);
                holds.topics.store(shard.topics.len(), Ordering::Release);
                backlog.look(&load);
            }
            _ = tick.tick() => {
                shard.close_idle();
                backlog.look(&load);
                ticks = ticks.wrapping_add(1);
                if let Some(histories) = &histories {
                    histories.sweep(ticks, clock::now());
                }
            }
        }
    }
}

impl Shard {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Register(conn) => {
                let entry = self.members.vacant_entry();
                let slot = u32::try_from(entry.key()).expect("connections are fewer than u32::MAX");
                conn.slot.store(slot, Ordering::Relaxed);
                entry.insert(Member { conn, staged: None, ordered: None });
            }
            Command::Unregister(conn) => {
                let Some(slot) = slot_of(&conn) else { return };
                self.write_staged(slot);
                self.members.remove(slot as usize);
                conn.slot.store(u32::MAX, Ordering::Relaxed);
            }
            Command::Subscribe { conn, topic, subscription, first } => {
                let Some(slot) = slot_of(&conn) else { return conn.lower_fence(1) };
                self.stage_bytes(&conn, &first);
                self.topics.entry(topic).or_default().push(Subscriber::Connection { slot, subscription });
            }
            Command::Unsubscribe { conn, topic, role } => {
                let Some(slot) = slot_of(&conn) else { return conn.lower_fence(1) };
                self.stage_bytes(&conn, &[]);
                self.unsubscribe(&topic, |subscriber| subscriber.is(slot, role), matches!(role, Role::Inbox(_)));
            }
            Command::Listen { topic, listener } => {
                self.topics.entry(topic).or_default().push(Subscriber::Listener(Box::new(listener)));
            }
            Command::Count { topic, answer } => {
                let counted = |subscriber: &&Subscriber| match subscriber {
                    Subscriber::Connection { .. } => true,
                    Subscriber::Listener(listener) => listener.audience == Audience::Counted,
                };
                let count = self.topics.get(&topic).map_or(0, |subscribers| subscribers.iter().filter(counted).count());
                // Whoever asked may have given up.
                let _ = answer.send(count);
            }
            Command::Unlisten { topic, id } => {
                let is_over =
                    |subscriber: &Subscriber| matches!(subscriber, Subscriber::Listener(listener) if listener.id == id);
                self.unsubscribe(&topic, is_over, false);
            }
            Command::CaughtUp { conn, topic, channel, after, last } => {
                let Some(slot) = slot_of(&conn) else { return conn.lower_fence(1) };
                self.stage_bytes(&conn, &last);
                let role = Role::Fastlane(channel);
                let subscribers = self.topics.get_mut(&topic).into_iter().flatten();
                for subscriber in subscribers.filter(|subscriber| subscriber.is(slot, role)) {
                    if let Subscriber::Connection { subscription: Subscription::Resumable(resumable), .. } = subscriber
                    {
                        resumable.reader.caught_up(after);
                    }
                }
            }
            Command::Publish { broadcast, offset, fence } => {
                self.publish(&broadcast, offset);
                if let Some(conn) = fence {
                    self.stage_bytes(&conn, &[]);
                }
            }
            Command::Direct { conn, bytes } => self.stage_bytes(&conn, &bytes),
            Command::Order(control, count) => {
                let untold = self.members.iter_mut().filter(|(_, member)| member.ordered != Some(control));
                for (_, member) in untold.take(count) {
                    member.ordered = Some(control);
                    member.conn.order(control);
                }
            }
        }
    }

    /// Ends the subscription that `is_over` says, or all such where there may be `several`.
    fn unsubscribe(&mut self, topic: &Arc<str>, is_over: impl Fn(&Subscriber) -> bool, several: bool) {
        let Some(subscribers) = self.topics.get_mut(topic) else {
            return;
        };
        let mut from = 0;
        while let Some(at) = subscribers[from..].iter().position(&is_over) {
            from += at;
            subscribers.swap_remove(from);
            if !several {
                break;
            }
        }
        if subscribers.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn publish(&mut self, broadcast: &Arc<Broadcast>, offset: Option<u64>) {
        let Some(held) = self.topics.get_mut(&*broadcast.topic) else {
            return;
        };
        let mut subscribers = std::mem::take(held);
        let mut encoded = Encoded::default();
        for subscriber in &mut subscribers {
            let (slot, subscription) = match subscriber {
                Subscriber::Connection { slot, subscription } => (*slot, subscription),
                Subscriber::Listener(listener) => {
                    listener.tell(broadcast);
                    continue;
                }
            };
            let member = &self.members[slot as usize];
            let is_excepted = |channel| broadcast.except == Some((member.conn.id(), channel));
            match (subscription, offset) {
                (Subscription::SocketId, _) => {
                    if &*broadcast.event == DISCONNECT {
                        member.conn.order(Control::Disconnect);
                    }
                }
                (Subscription::Resumable(resumable), Some(offset)) => {
                    let is_excepted = is_excepted(resumable.channel);
                    self.offer(slot, resumable, broadcast, offset, is_excepted, &mut encoded);
                }
                (Subscription::Fastlane { channel, .. } | Subscription::Inbox { channel, .. }, _)
                    if is_excepted(*channel) => {}
                (Subscription::Resumable(resumable), None) if is_excepted(resumable.channel) => {}
                // A connection whose inbox is full closes itself; the shard goes on.
                (Subscription::Inbox { channel, tag }, _) => {
                    let _ = member.conn.post(*channel, Mail::Heard(Arc::clone(broadcast), Arc::clone(tag)));
                }
                (Subscription::Fastlane { channel, intercept }, _) if intercept.contains(&&*broadcast.event) => {
                    let _ = member.conn.post(*channel, Mail::Intercepted(Arc::clone(broadcast)));
                }
                (Subscription::Resumable(resumable), None) if resumable.intercepts(&broadcast.event) => {
                    let _ = member.conn.post(resumable.channel, Mail::Intercepted(Arc::clone(broadcast)));
                }
                (Subscription::Fastlane { .. } | Subscription::Resumable(_), _) => {
                    let version = member.conn.version();
                    let item = match encoded.plain[version as usize] {
                        Some(item) => item,
                        None => *encoded.plain[version as usize].insert(self.encode(version, broadcast)),
                    };
                    if let Some(item) = item {
                        self.stage_item(slot, item);
                    }
                }
            }
        }
        if let Some(held) = self.topics.get_mut(&*broadcast.topic) {
            *held = subscribers;
        }
    }

    /// Gives a broadcast with an offset to one who can resume, if there is room; else the connection gets it from the history.
    fn offer(
        &mut self,
        slot: u32,
        resumable: &mut Resumable,
        broadcast: &Arc<Broadcast>,
        offset: u64,
        is_excepted: bool,
        encoded: &mut Encoded,
    ) {
        let after = resumable.reader.after();
        let conn = Arc::clone(&self.members[slot as usize].conn);
        if resumable.by_mail {
            let has_room = conn.has_room_for_mail() && conn.has_room_for(self.staged_bytes(slot), 0);
            let _ = match resumable.reader.offer(offset, has_room || !resumable.gives_way) {
                Offer::Give => conn.post(resumable.channel, Mail::Positioned(Arc::clone(broadcast), offset)),
                Offer::Skip => Ok(()),
                Offer::FallBehind => conn.post(resumable.channel, Mail::Behind(after)),
            };
            return;
        }
        let version = conn.version();
        let item = if is_excepted {
            Some(self.encode_position(version, &broadcast.topic, offset))
        } else {
            match encoded.positioned[version as usize] {
                Some(item) => item,
                None => *encoded.positioned[version as usize].insert(self.encode_at(version, broadcast, offset)),
            }
        };
        let bytes = item.map_or(0, |item| self.items[item as usize].len());
        let has_room = !resumable.gives_way || conn.has_room_for(self.staged_bytes(slot), bytes);
        match (resumable.reader.offer(offset, has_room), item) {
            (Offer::Give, Some(item)) => self.stage_item(slot, item),
            (Offer::Give, None) | (Offer::Skip, _) => {}
            (Offer::FallBehind, _) => {
                // What is staged goes out before what the connection now sends by itself.
                conn.raise_fence();
                self.stage(slot).fences += 1;
                let _ = conn.post(resumable.channel, Mail::Behind(after));
            }
        }
    }

    /// Encodes a broadcast into the arena. None where the version can't carry it: binary in V1, a payload that is no
    /// object in V2.
    fn encode(&mut self, version: WireVersion, broadcast: &Broadcast) -> Option<u32> {
        let start = websocket::begin_frame(&mut self.arena);
        match wire::encode_broadcast(version, &mut self.arena, &broadcast.topic, &broadcast.event, &broadcast.payload) {
            Ok(kind) => {
                let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
                websocket::end_frame(&mut self.arena, start, opcode);
                Some(self.item(start))
            }
            Err(error) => {
                self.arena.truncate(start);
                METRICS.unencodable_broadcasts.inc();
                tracing::warn!(topic = %broadcast.topic, event = %broadcast.event, ?version, %error, "broadcast skipped");
                None
            }
        }
    }

    /// As [`Shard::encode`], with the offset.
    fn encode_at(&mut self, version: WireVersion, broadcast: &Broadcast, offset: u64) -> Option<u32> {
        let start = self.arena.len();
        positioned::write_broadcast(&mut self.arena, version, broadcast, offset).then(|| self.item(start))
    }

    fn encode_position(&mut self, version: WireVersion, topic: &str, offset: u64) -> u32 {
        let start = self.arena.len();
        positioned::write_position(&mut self.arena, version, topic, offset);
        self.item(start)
    }

    fn item(&mut self, start: usize) -> u32 {
        self.items.push(start..self.arena.len());
        u32::try_from(self.items.len() - 1).expect("a batch has fewer items than u32::MAX")
    }

    /// Stages bytes that the connection's owner sent through the shard; one fence passes with them.
    fn stage_bytes(&mut self, conn: &Arc<Conn>, bytes: &[u8]) {
        let Some(slot) = slot_of(conn) else { return conn.lower_fence(1) };
        self.stage(slot).fences += 1;
        if !bytes.is_empty() {
            let start = self.arena.len();
            self.arena.extend_from_slice(bytes);
            let item = self.item(start);
            self.stage_item(slot, item);
        }
    }

    fn stage_item(&mut self, slot: u32, item: u32) {
        let bytes = self.items[item as usize].len();
        let staged = self.stage(slot);
        staged.items.push(item);
        staged.bytes += bytes;
    }

    /// Bytes that are staged for a connection.
    fn staged_bytes(&self, slot: u32) -> usize {
        self.members[slot as usize].staged.map_or(0, |at| self.staged[at as usize].bytes)
    }

    fn stage(&mut self, slot: u32) -> &mut Staged {
        let member = &mut self.members[slot as usize];
        let at = *member.staged.get_or_insert_with(|| {
            let at = self.staged_len;
            self.staged_len += 1;
            if self.staged.len() < self.staged_len {
                self.staged.push(Staged::default());
            }
            self.staged[at].slot = slot;
            u32::try_from(at).expect("connections are fewer than u32::MAX")
        });
        &mut self.staged[at as usize]
    }

    /// Writes what is staged for one connection, which is about to be forgotten.
    fn write_staged(&mut self, slot: u32) {
        let member = &mut self.members[slot as usize];
        if let Some(at) = member.staged.take() {
            let staged = &mut self.staged[at as usize];
            concatenate(&self.arena, &self.items, &staged.items, &mut self.scratch);
            member.conn.send(&self.scratch);
            member.conn.lower_fence(staged.fences);
            staged.items.clear();
            staged.bytes = 0;
            staged.fences = 0;
            staged.slot = u32::MAX;
        }
    }

    /// Writes everything that is staged, one write a connection.
    async fn write_out(&mut self) {
        let mut last: Option<usize> = None;
        for at in 0..self.staged_len {
            if at % WRITES_PER_YIELD == WRITES_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            let staged = &self.staged[at];
            if staged.slot == u32::MAX {
                continue;
            }
            let same = last.is_some_and(|last| self.staged[last].items == staged.items);
            if !same {
                concatenate(&self.arena, &self.items, &staged.items, &mut self.scratch);
                last = Some(at);
            }
            let member = &mut self.members[staged.slot as usize];
            member.staged = None;
            member.conn.send(&self.scratch);
            member.conn.lower_fence(staged.fences);
        }
        for staged in &mut self.staged[..self.staged_len] {
            staged.items.clear();
            staged.bytes = 0;
            staged.fences = 0;
        }
        self.staged_len = 0;
        self.items.clear();
        self.arena.clear();
        self.trim();
    }

    /// Gives memory of a large burst back.
    fn trim(&mut self) {
        self.arena.shrink_to(ARENA_BYTES_MAX);
        self.scratch.shrink_to(ARENA_BYTES_MAX);
        self.staged.shrink_to(16 * 1024);
    }

    fn close_idle(&self) {
        let now = clock::now();
        for (_, member) in &self.members {
            if member.conn.is_idle(now) {
                member.conn.order(Control::Idle);
            }
        }
    }
}

/// The slot of a connection. None once it is unregistered: a handler that outlives its connection may still bring about a
/// broadcast.
fn slot_of(conn: &Conn) -> Option<u32> {
    let slot = conn.slot.load(Ordering::Relaxed);
    (slot != u32::MAX).then_some(slot)
}

fn concatenate(arena: &[u8], items: &[Range<usize>], list: &[u32], out: &mut Vec<u8>) {
    out.clear();
    for item in list {
        out.extend_from_slice(&arena[items[*item as usize].clone()]);
    }
}
