//! One message to every subscriber of a topic, on this node.
//!
//! The [`Hub`] is sharded. A connection belongs to one shard for its life; a topic's subscribers are spread over the
//! shards of their connections. A publish is one command to each shard. See `shard` for how a shard delivers.
//!
//! Order: what one connection sends through its shard (its broadcasts, and what it says afterwards) reaches it in that
//! order, because it is one queue. Different publishers have no order among each other, as in Phoenix.

mod history;
mod listener;
mod load;
mod positioned;
mod resuming;
mod shard;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::metrics::METRICS;
use crate::outbox::{Broadcast, Conn, ConnLimits, Control, Tag};
use crate::protocol::limits::SHARD_COMMANDS_MAX;
use crate::protocol::message::Payload;
use crate::protocol::socket::ChannelId;
use crate::protocol::wire::WireVersion;
pub(crate) use history::{Histories, Kept};
pub use history::{HistoryOptions, OnSlow};
use listener::Listener;
pub(crate) use listener::{Audience, Listening, Received};
use load::{Backlog, Load};
pub(crate) use positioned::{write_broadcast, write_position};
pub(crate) use resuming::Behind;
use resuming::Resumable;

/// What a connection wants of a topic.
#[derive(Debug)]
pub(crate) enum Subscription {
    /// Frames for the client, except the events of the list, which go to the channel's inbox.
    Fastlane {
        /// The subscribing channel.
        channel: ChannelId,
        /// The events its handler intercepts.
        intercept: &'static [&'static str],
    },
    /// Mail for the channel's own code, with what it gave to know it by.
    Inbox {
        /// The subscribing channel.
        channel: ChannelId,
        /// Comes with each mail.
        tag: Tag,
    },
    /// As `Fastlane`, with positions.
    Resumable(Box<Resumable>),
    /// The connection itself listens for `disconnect` on its socket id.
    SocketId,
}

/// Which of a connection's subscriptions to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that joining made.
    Fastlane(ChannelId),
    /// Those that the channel's own code made.
    Inbox(ChannelId),
    /// The socket id's.
    SocketId,
}

enum Command {
    Register(Arc<Conn>),
    Unregister(Arc<Conn>),
    Subscribe {
        conn: Arc<Conn>,
        topic: Arc<str>,
        subscription: Subscription,
        first: Vec<u8>,
    },
    Unsubscribe {
        conn: Arc<Conn>,
        topic: Arc<str>,
        role: Role,
    },
    Listen {
        topic: Arc<str>,
        listener: Listener,
    },
    Unlisten {
        topic: Arc<str>,
        id: u64,
    },
    Count {
        topic: Arc<str>,
        answer: oneshot::Sender<usize>,
    },
    /// A broadcast, and its offset where its topic has a history.
    Publish {
        broadcast: Arc<Broadcast>,
        offset: Option<u64>,
        fence: Option<Arc<Conn>>,
    },
    /// A reader that was behind has been given everything up to an offset, the last of it with this.
    CaughtUp {
        conn: Arc<Conn>,
        topic: Arc<str>,
        channel: ChannelId,
        after: u64,
        last: Vec<u8>,
    },
    Direct {
        conn: Arc<Conn>,
        bytes: Vec<u8>,
    },
    Order(Control, usize),
}

struct ShardHandle {
    commands: mpsc::UnboundedSender<Command>,
    backlog: Arc<Backlog>,
    holds: Arc<Holds>,
}

/// What a shard holds, as of its last batch.
#[derive(Debug, Default)]
struct Holds {
    connections: AtomicUsize,
    topics: AtomicUsize,
}

/// The sharded PubSub of one node. Cloned handles share it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<ShardHandle>,
    next_id: AtomicU64,
    live: AtomicUsize,
    load: Arc<Load>,
    histories: Arc<Histories>,
}

/// A conversation that has not ended: its last output and its handlers included.
#[derive(Debug)]
pub struct Live(Hub);

impl Live {
    /// Whether a shard has so much waiting that the conversation's client is not to be read; where one has, the task of
    /// its connection is woken once that has passed.
    pub fn awaits_room(&self, conn: &Arc<Conn>) -> bool {
        self.0.inner.load.awaits_room(conn)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.inner.live.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hub {
    /// Starts `shards` shard tasks (at least one) on the current runtime. They end when the last handle is dropped.
    pub fn start(shards: usize) -> (Hub, Vec<JoinHandle<()>>) {
        let load = Arc::<Load>::default();
        let histories = Arc::<Histories>::default();
        let (shards, tasks) = (0..shards.clamp(1, usize::from(u16::MAX)))
            .map(|index| {
                let (commands, receiver) = mpsc::unbounded_channel();
                let (backlog, holds) = (Arc::<Backlog>::default(), Arc::<Holds>::default());
                // One of them looks after the histories beside its own work.
                let kept = (index == 0).then(|| Arc::clone(&histories));
                let running = shard::run(receiver, Arc::clone(&backlog), Arc::clone(&load), Arc::clone(&holds), kept);
                (ShardHandle { commands, backlog, holds }, tokio::spawn(watched(running)))
            })
            .unzip();
        let inner = Inner { shards, next_id: AtomicU64::new(1), live: AtomicUsize::new(0), load, histories };
        (Hub { inner: Arc::new(inner) }, tasks)
    }

    /// Takes up a connection and gives it a shard. `direct` is the stream to write to, or none for a queued sink.
    pub fn connect(&self, version: WireVersion, limits: ConnLimits, direct: Option<OwnedWriteHalf>) -> Arc<Conn> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let shard = u16::try_from(self.shard_of(id)).expect("shards are at most u16::MAX");
        let conn = Conn::new(id, shard, version, limits, direct);
        self.command(conn.shard(), Command::Register(Arc::clone(&conn)));
        conn
    }

    /// Forgets a connection, which has unsubscribed from its topics.
    pub fn disconnect(&self, conn: &Arc<Conn>) {
        self.command(conn.shard(), Command::Unregister(Arc::clone(conn)));
    }

    /// Publishes to every subscriber.
    ///
    /// # Errors
    /// [`Overloaded`] if a shard has more than [`SHARD_COMMANDS_MAX`] commands waiting; nothing was published.
    pub fn broadcast(&self, topic: &str, event: &str, payload: Payload) -> Result<(), Overloaded> {
        if self.is_overloaded() {
            METRICS.overloaded_broadcasts.inc();
            return Err(Overloaded);
        }
        self.publish(Broadcast { topic: topic.into(), event: event.into(), payload, except: None }, None);
        Ok(())
    }

    /// Publishes on behalf of a connection, whose own output from here on follows the broadcast.
    pub(crate) fn publish(&self, broadcast: Broadcast, from: Option<&Arc<Conn>>) {
        let broadcast = Arc::new(broadcast);
        match self.inner.histories.numbering(&broadcast) {
            None => self.hand_on(&broadcast, None, from),
            Some(kept) => kept.append(&broadcast, |offset| self.hand_on(&broadcast, offset, from)),
        }
    }

    fn hand_on(&self, broadcast: &Arc<Broadcast>, offset: Option<u64>, from: Option<&Arc<Conn>>) {
        for index in 0..self.inner.shards.len() {
            let fence = from.filter(|conn| conn.shard() == index).cloned();
            if let Some(conn) = &fence {
                conn.raise_fence();
            }
            self.command(index, Command::Publish { broadcast: Arc::clone(broadcast), offset, fence });
        }
    }

    /// The topics with history.
    pub(crate) fn histories(&self) -> &Histories {
        &self.inner.histories
    }

    /// Subscribes. `first` is written to the connection before anything of the topic: the reply to its join.
    pub(crate) fn subscribe(&self, conn: &Arc<Conn>, topic: Arc<str>, subscription: Subscription, first: Vec<u8>) {
        conn.raise_fence();
        self.command(conn.shard(), Command::Subscribe { conn: Arc::clone(conn), topic, subscription, first });
    }

    /// Ends subscriptions of a connection to a topic. What the connection sends afterwards follows the last frame of the
    /// topic.
    pub(crate) fn unsubscribe(&self, conn: &Arc<Conn>, topic: Arc<str>, role: Role) {
        conn.raise_fence();
        self.command(conn.shard(), Command::Unsubscribe { conn: Arc::clone(conn), topic, role });
    }

    /// Subscribes somebody who is no connection, until the subscription is dropped.
    pub(crate) fn listen(&self, topic: &str, audience: Audience) -> Listening {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (listener, broadcasts, missed) = Listener::new(id, audience);
        let topic = Arc::<str>::from(topic);
        let shard = self.shard_of(id);
        self.command(shard, Command::Listen { topic: Arc::clone(&topic), listener });
        Listening { hub: Arc::downgrade(&self.inner), shard, topic, id, broadcasts, missed }
    }

    /// How many subscriptions a topic has.
    pub(crate) async fn subscriptions(&self, topic: &str) -> usize {
        let topic = Arc::<str>::from(topic);
        let ask = |index| {
            let (answer, counted) = oneshot::channel();
            self.command(index, Command::Count { topic: Arc::clone(&topic), answer });
            counted
        };
        let asked: Vec<_> = (0..self.inner.shards.len()).map(ask).collect();
        let mut sum = 0;
        for counted in asked {
            // A shard that is gone with its runtime has no subscribers.
            sum += counted.await.unwrap_or(0);
        }
        sum
    }

    fn shard_of(&self, id: u64) -> usize {
        usize::try_from(id % self.inner.shards.len() as u64).expect("shards are at most u16::MAX")
    }

    /// Sends framed bytes to a connection behind everything that it has sent through its shard so far.
    pub(crate) fn send_behind(&self, conn: &Arc<Conn>, bytes: Vec<u8>) {
        conn.raise_fence();
        self.command(conn.shard(), Command::Direct { conn: Arc::clone(conn), bytes });
    }

    /// Orders up to `count` connections of each shard that have not been told yet.
    pub fn order(&self, control: Control, count: usize) {
        for index in 0..self.inner.shards.len() {
            self.command(index, Command::Order(control, count));
        }
    }

    /// How many connections are registered.
    pub fn connections(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.holds.connections.load(Ordering::Acquire)).sum()
    }

    /// How many topics have subscribers, socket ids among them; one with subscribers in several shards counts in each.
    pub fn topics(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.holds.topics.load(Ordering::Acquire)).sum()
    }

    /// Counts a conversation until the guard is dropped.
    pub fn live_guard(&self) -> Live {
        self.inner.live.fetch_add(1, Ordering::AcqRel);
        Live(self.clone())
    }

    /// How many conversations have not ended.
    pub fn live(&self) -> usize {
        self.inner.live.load(Ordering::Acquire)
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// Whether a shard has so much waiting that broadcasts from outside are refused.
    pub fn is_overloaded(&self) -> bool {
        self.inner.shards.iter().any(|shard| shard.backlog.is_full())
    }

    fn command(&self, index: usize, command: Command) {
        let shard = &self.inner.shards[index];
        shard.backlog.add(&self.inner.load);
        // A send fails only when the runtime, and with it the shard, is gone: then there is nobody to tell.
        if shard.commands.send(command).is_err() {
            shard.backlog.take(1);
        }
    }
}

/// A shard that panics takes the process along: its connections would hang for ever, and whoever supervises the process
/// starts a whole one.
async fn watched(shard: impl Future<Output = ()>) {
    if AssertUnwindSafe(shard).catch_unwind().await.is_err() {
        tracing::error!("a PubSub shard crashed, the process ends");
        std::process::abort();
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({} shards)", self.inner.shards.len())
    }
}

/// A shard has too much waiting; the broadcast was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {SHARD_COMMANDS_MAX} commands wait for a shard, the broadcast was refused")]
pub struct Overloaded;
