//! Who is present on which topic, as a replicated set that needs no agreement between nodes.
//!
//! # The state
//!
//! Every node runs one [`Replica`]. It may write only its own entries and reads everybody's. An [`Entry`] says: this
//! `owner` (a channel of a connection) is on `topic` under `key`, with this `meta`. What makes the set mergeable:
//!
//! - A [`Dot`] `(replica, clock)` names one local change; the clock grows by one with each. A join's dot stays with its
//!   entry, so two joins of the same owner, topic and key are two different elements.
//! - The *causal context* maps each replica to the clock up to which every change of it has been seen without a gap.
//! - The *cloud* of a replica holds the clocks seen beyond that, out of order. As soon as a cloud continues the context,
//!   it is compacted into it. Context and cloud together are [`clock::Seen`].
//! - A removed entry leaves nothing behind: its dot is *seen* and has no value, which is what removed means. There are
//!   no tombstones.
//!
//! Two states merge by one rule for each dot: a value both have stays; a value only one has stays when the other has not
//! seen its dot, and goes when it has. Hence a join wins over a concurrent leave, because the leave can only have meant
//! the dots its replica had seen (observed remove). Merging is commutative, associative and idempotent.
//!
//! A local change takes these clocks, as recorded from Phoenix on the wire:
//!
//! | change | clocks | cloud of the delta | values of the delta |
//! |---|---|---|---|
//! | join | n | n | n |
//! | leave of dot d | n | d, n | d removed |
//! | update of dot d | n, n+1 | d, n, n+1 | d removed, n+1 |
//!
//! [`Delta`] is the part of the state that changed since the last one; [`Generations`] keeps merged deltas of growing
//! size, so that a node that missed some is served with one of them and not with the [`FullState`].
//!
//! A replica that is *down* keeps its entries, hidden: they leave in the diff, and join again when it comes up. A replica
//! removed for good is forgotten, entries and clocks. Every change returns a [`Diff`] of what became visible or hidden;
//! an entry joins once and leaves once, however often its messages arrive.
//!
//! # Presence keys that clients cannot hold
//!
//! `presence.js` keeps presences in an object indexed by key. Before 1.8.9 it is a plain `{}`, and a key that names a
//! member of `Object.prototype` finds that member (CVE-2026-56812):
//!
//! | presence.js before 1.8.9 | with key `constructor`, `toString`, … or `__proto__` |
//! |---|---|
//! | `syncState`: `if(!newState[key])` | never true for these keys: a leave is overlooked |
//! | `syncState`: `currentPresence = state[key]`, then `currentPresence.metas.map` | the inherited function or `Object.prototype`, which is truthy and has no `metas`: TypeError |
//! | `syncState`: `joins[key] = newPresence` | with `__proto__` sets the prototype of `joins`: the presence is lost |
//! | `syncDiff` joins: `state[key] = clone(newPresence)` | with `__proto__` sets the prototype of the client's state |
//! | `syncDiff` joins: `currentPresence.metas.filter` | TypeError, on the first join already |
//! | `syncDiff` leaves: `currentPresence.metas.filter` | TypeError, also when the key was never present |
//! | `map`: `getOwnPropertyNames(obj)` | harmless: `JSON.parse` makes an own property even of `__proto__` |
//!
//! The exception ends the handler before `onSync`, so one such user blinds every client on the topic. Later versions use
//! `Object.create(null)` throughout and cope. A server cannot tell which version is connected: all say `vsn=2.0.0`.
//!
//! So these keys are refused when they are tracked ([`check_key`], [`TrackError::UnsafeKey`]), and an entry with such a
//! key that another node tracked is replicated but neither listed nor reported. Escaping was the alternative: clients
//! would then show a key that is not the user's, and whoever looks a presence up by user name would miss it. An
//! application whose keys are free text puts a prefix before them, such as `user:constructor`.
//!
//! This module sends nothing and reads no clock: when a replica is down, and when deltas go out, its driver decides.
//!
//! Sources: `Phoenix.Tracker.State`, `.Clock`, `.DeltaGeneration`, `.Shard` and `Phoenix.Presence` of phoenix_pubsub
//! 2.2 and phoenix 1.8; Bieniusa et al., "An optimized conflict-free replicated set" (ORSWOT), arXiv:1210.3368;
//! Almeida, Shoker and Baquero, "Delta state replicated data types", arXiv:1603.01529.

pub mod clock;
pub mod delta;
pub mod replica;
pub mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

pub use clock::{Context, PendingClocks};
pub use delta::{Delta, FullState, Generations, Transfer};
pub use replica::{Presence, Replica, Status};
pub use view::{Meta, MetaError, UnsafeKey, check_key, phx_ref};

/// One life of one node: its name and a number that differs at each start.
///
/// Phoenix uses the start time in microseconds as `vsn`, so that it grows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaRef {
    /// The node's name in the cluster.
    pub name: Arc<str>,
    /// The number of this start.
    pub vsn: u64,
}

impl ReplicaRef {
    /// Names the replica that `name` runs since the start `vsn`.
    pub fn new(name: &str, vsn: u64) -> Self {
        ReplicaRef { name: Arc::from(name), vsn }
    }
}

impl fmt::Debug for ReplicaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.vsn)
    }
}

/// The name of one change: the replica that made it and that replica's clock, from 1 up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made the change.
    pub replica: ReplicaRef,
    /// Which of its changes this is.
    pub clock: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.replica, self.clock)
    }
}

/// What is present: a channel of a connection. Phoenix has the channel's pid here.
///
/// The order is the order in which one key's metas are listed, as Phoenix orders by pid: numbers given in the order of
/// connecting list the oldest first, and an update keeps its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The connection, numbered by its node.
    pub connection: u64,
    /// The channel within the connection.
    pub channel: u64,
}

/// One element of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is present.
    pub topic: Arc<str>,
    /// Under which name, for example a user id.
    pub key: Arc<str>,
    /// Who is present.
    pub owner: Owner,
    /// What is told about it.
    pub meta: Meta,
}

/// Clocks of each replica, one by one.
pub type Clouds = BTreeMap<ReplicaRef, BTreeSet<u64>>;

/// Entries by the dot of their join: replica, then clock.
pub type Values = BTreeMap<ReplicaRef, BTreeMap<u64, Arc<Entry>>>;

/// What became visible and what is gone, by topic. Topics without a change are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Topic to its changes.
    pub topics: BTreeMap<Arc<str>, TopicDiff>,
}

impl Diff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

/// The changes of one topic: key to the metas that joined or left, ordered by owner.
///
/// An update is both: the new meta joins and the old one leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicDiff {
    /// What joined.
    pub joins: BTreeMap<Arc<str>, Vec<Meta>>,
    /// What left.
    pub leaves: BTreeMap<Arc<str>, Vec<Meta>>,
}

/// Why something was not tracked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrackError {
    /// The owner is on that topic under that key; [`Replica::update`] changes its meta.
    #[error("presence key {key:?} is already tracked on topic {topic:?} by this owner")]
    AlreadyTracked {
        /// The topic asked for.
        topic: String,
        /// The key asked for.
        key: String,
    },
    /// The key would break clients.
    #[error(transparent)]
    UnsafeKey(#[from] UnsafeKey),
}

/// The owner is not on that topic under that key (`:nopresence` in Phoenix).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("presence key {key:?} is not tracked on topic {topic:?} by this owner")]
pub struct NotPresent {
    /// The topic asked for.
    pub topic: String,
    /// The key asked for.
    pub key: String,
}
