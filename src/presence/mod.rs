//! Who is on a topic: drives [`protocol::presence`](crate::protocol::presence) on this node.
//!
//! A change's diff is broadcast by the channel that made it, in the order of what that channel says: an entry belongs to
//! one channel, so its joins and leaves reach every client in their order. Diffs of different entries have no order among
//! each other, and need none.
//!
//! Source: `Phoenix.Presence`, `Phoenix.Tracker`.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock;
use crate::outbox::{Broadcast, Conn};
use crate::protocol::limits::PRESENCES_PER_CHANNEL_MAX;
use crate::protocol::message::{PRESENCE_DIFF, Payload};
use crate::protocol::presence::{self as values, Diff, Meta, NotPresent, Owner, Replica, ReplicaRef, UnsafeKey};
use crate::protocol::socket::ChannelId;
use crate::pubsub::Hub;
use crate::random;

/// The presences of a server. Cloned handles share them.
#[derive(Clone, Debug)]
pub struct Presence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    replica: Mutex<Replica>,
    hub: Hub,
}

impl Presence {
    /// No presences yet. The replica's name is this node and the moment it started.
    pub fn new(hub: Hub) -> Self {
        let replica = Replica::new(ReplicaRef::new("bennu@localhost", clock::unix_micros()));
        Presence { inner: Arc::new(Inner { replica: Mutex::new(replica), hub }) }
    }

    /// Tracks a channel under a key.
    ///
    /// # Errors
    /// [`TrackError`] if the channel is tracked under this key already, tracks too many, or the key is one that stock
    /// clients can't hold.
    ///
    /// # Panics
    /// If `meta` is no JSON object.
    pub(crate) fn track(
        &self,
        conn: &Arc<Conn>,
        channel: ChannelId,
        topic: &str,
        key: &str,
        meta: &Payload,
    ) -> Result<Changed, TrackError> {
        let meta = read_meta(meta);
        let phx_ref = meta.phx_ref().to_owned();
        let owner = owner(conn, channel);
        let mut replica = self.inner.replica.lock();
        if replica.get_by_owner(owner).take(PRESENCES_PER_CHANNEL_MAX).count() == PRESENCES_PER_CHANNEL_MAX {
            return Err(TrackError::TooMany);
        }
        let (_, diff) = replica.join(owner, topic, key, meta)?;
        Ok(Changed { phx_ref, diffs: broadcasts(&diff) })
    }

    /// Replaces a meta.
    ///
    /// # Errors
    /// [`TrackError::NotPresent`] if the channel is not tracked under this key.
    ///
    /// # Panics
    /// If `meta` is no JSON object.
    pub(crate) fn update(
        &self,
        conn: &Arc<Conn>,
        channel: ChannelId,
        topic: &str,
        key: &str,
        meta: &Payload,
    ) -> Result<Changed, TrackError> {
        let meta = read_meta(meta);
        let phx_ref = meta.phx_ref().to_owned();
        let mut replica = self.inner.replica.lock();
        let (_, diff) = replica.update(owner(conn, channel), topic, key, meta)?;
        Ok(Changed { phx_ref, diffs: broadcasts(&diff) })
    }

    /// Ends the presence of a channel under a key. Gives back what to broadcast.
    pub(crate) fn untrack(&self, conn: &Arc<Conn>, channel: ChannelId, topic: &str, key: &str) -> Vec<Broadcast> {
        let mut replica = self.inner.replica.lock();
        broadcasts(&replica.leave(owner(conn, channel), topic, key))
    }

    /// Ends all presences of a channel and broadcasts that.
    pub(crate) fn untrack_channel(&self, conn: &Arc<Conn>, channel: ChannelId) {
        let mut replica = self.inner.replica.lock();
        for diff in broadcasts(&replica.leave_owner(owner(conn, channel))) {
            self.inner.hub.publish(diff, Some(conn));
        }
    }

    /// Everyone on a topic: `{key: {"metas": [...]}}`.
    pub fn list(&self, topic: &str) -> Payload {
        let replica = self.inner.replica.lock();
        Payload::Json(values::view::state_json(&replica, topic))
    }
}

/// What became of a track or an update.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The presence's new reference.
    pub(crate) phx_ref: String,
    /// What to broadcast.
    pub(crate) diffs: Vec<Broadcast>,
}

/// A diff as broadcasts, one a topic. Deltas are for other nodes, and there are none yet.
fn broadcasts(diff: &Diff) -> Vec<Broadcast> {
    let broadcast = |(topic, changes): (&Arc<str>, _)| Broadcast {
        topic: (**topic).into(),
        event: PRESENCE_DIFF.into(),
        payload: Payload::Json(values::view::diff_json(changes)),
        except: None,
    };
    diff.topics.iter().map(broadcast).collect()
}

fn owner(conn: &Arc<Conn>, channel: ChannelId) -> Owner {
    Owner { connection: conn.id(), channel: u64::from(channel.0) }
}

fn read_meta(meta: &Payload) -> Meta {
    let text = match meta {
        Payload::Json(text) => std::str::from_utf8(text).expect("a JSON payload is UTF-8"),
        Payload::Binary(data) => panic!("presence meta must be a JSON object, got {} bytes of binary", data.len()),
    };
    Meta::new(text, values::phx_ref(random::bytes())).unwrap_or_else(|error| panic!("{error}"))
}

/// Why a presence was not tracked or updated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The channel is tracked under this key already.
    #[error("{0}")]
    AlreadyTracked(String),
    /// The key would break stock clients.
    #[error(transparent)]
    UnsafeKey(#[from] UnsafeKey),
    /// The channel is not tracked under this key.
    #[error(transparent)]
    NotPresent(#[from] NotPresent),
    /// The channel tracks as many keys as it may.
    #[error("a channel may track {PRESENCES_PER_CHANNEL_MAX} presences, it has as many")]
    TooMany,
}

impl From<values::TrackError> for TrackError {
    fn from(error: values::TrackError) -> Self {
        match error {
            values::TrackError::UnsafeKey(key) => TrackError::UnsafeKey(key),
            taken @ values::TrackError::AlreadyTracked { .. } => TrackError::AlreadyTracked(taken.to_string()),
        }
    }
}
