//! Subscriptions with positions: how one begins behind a position, and how it catches up.
//!
//! The lock of a topic's history covers two things that have to be one: what is behind a position, and the place in the
//! shard's queue from which on everything newer comes. Few bytes are read and handed over under it at once. Where there
//! are more, the connection reads piece by piece, no faster than its client takes them, while its shard passes it over; the
//! last piece, again small, is handed over under the lock and ends that.

use std::sync::Arc;

use super::positioned::{write_broadcast, write_gap, write_position};
use super::{Command, Hub, Kept, OnSlow, Subscription};
use crate::outbox::{Broadcast, Conn};
use crate::protocol::history::{Position, Reader, Resume, is_kept, thin};
use crate::protocol::jsonrpc::splice;
use crate::protocol::limits::CHANNEL_WAITING_MAX;
use crate::protocol::message::Payload;
use crate::protocol::socket::ChannelId;

/// Bytes that are encoded and handed over under the lock of a topic's history.
const AT_ONCE_BYTES_MAX: usize = 8 * 1024;
/// Broadcasts that a channel which gets them by mail is handed at once: fewer than make it one that is not read.
const MAILS_MAX: usize = CHANNEL_WAITING_MAX / 2;
/// Bytes that a connection which is behind reads at once.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// A channel's subscription with positions.
#[derive(Debug)]
pub(crate) struct Resumable {
    /// The subscribing channel.
    pub(super) channel: ChannelId,
    /// The events its handler intercepts, if any.
    #[expect(clippy::redundant_allocation, reason = "8 bytes of each idle topic, not 16")]
    intercept: Option<Box<&'static [&'static str]>>,
    /// Whether some of them have a position: then all broadcasts that do go to the channel's inbox, which keeps their order.
    pub(super) by_mail: bool,
    pub(super) reader: Reader,
    /// Whether it falls behind where there is no room, instead of filling the outbox.
    pub(super) gives_way: bool,
    /// Keeps the topic's history, and with it its epoch.
    kept: Arc<Kept>,
}

impl Resumable {
    /// Whether its handler intercepts an event.
    pub(super) fn intercepts(&self, event: &str) -> bool {
        self.intercept.as_ref().is_some_and(|intercept| intercept.contains(&event))
    }
}

impl Drop for Resumable {
    /// Its client may come back.
    fn drop(&mut self) {
        self.kept.is_used();
    }
}

/// A subscription that is behind.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) channel: ChannelId,
    kept: Arc<Kept>,
    after: u64,
    /// Whether only the latest of each key is left to it.
    is_thinned: bool,
    /// As of its subscription.
    pub(crate) by_mail: bool,
}

/// Broadcasts with their offsets.
pub(crate) type Pieces = Vec<(u64, Arc<Broadcast>)>;

impl Behind {
    /// A subscription for which there was no room behind an offset.
    pub(crate) fn slow(channel: ChannelId, intercept: &[&str], kept: Arc<Kept>, after: u64) -> Self {
        let is_thinned = matches!(kept.on_slow(), OnSlow::Latest { .. });
        Behind { channel, kept, after, is_thinned, by_mail: is_by_mail(intercept) }
    }
}

impl Hub {
    /// As [`Hub::subscribe`], behind a position of the topic's history. `first` encodes the reply to the join, given the
    /// position from which the client goes on; `has_room` says whether more may go with it. Gives the bytes that do, and what
    /// the connection has to catch up with by itself, if there is something.
    pub(crate) fn subscribe_behind<E>(
        &self,
        conn: &Arc<Conn>,
        kept: &Arc<Kept>,
        resume: &Resume,
        (channel, intercept): (ChannelId, &'static [&'static str]),
        has_room: bool,
        first: impl FnOnce(Position) -> Result<Vec<u8>, E>,
    ) -> Result<(usize, Option<Behind>), E> {
        kept.with(|history| {
            let (after, gap) = history.start(resume);
            let position = match resume {
                Resume::FromNow => Position { epoch: history.epoch(), offset: after },
                Resume::After(position) => *position,
            };
            let mut first = first(position)?;
            if let Some(gap) = gap {
                write_gap(&mut first, conn.version(), kept.topic(), &gap);
            }
            let by_mail = is_by_mail(intercept);
            let at_once_bytes_max = if by_mail || !has_room { 0 } else { AT_ONCE_BYTES_MAX };
            let is_small = history.has_at_most(after, at_once_bytes_max);
            let reader = if is_small {
                let behind = history.behind(after, usize::MAX).expect("its bytes were counted under this lock");
                write_pieces(&mut first, conn, channel, &behind.items);
                Reader::live(history.head())
            } else {
                Reader::behind(after)
            };
            let gives_way = *kept.on_slow() != OnSlow::Disconnect;
            let intercept = (!intercept.is_empty()).then(|| Box::new(intercept));
            let resumable = Resumable { channel, intercept, by_mail, reader, gives_way, kept: Arc::clone(kept) };
            let subscription = Subscription::Resumable(Box::new(resumable));
            let bytes = first.len();
            self.subscribe(conn, Arc::clone(kept.topic()), subscription, first);
            let behind = Behind { channel, kept: Arc::clone(kept), after, is_thinned: false, by_mail };
            Ok((bytes, (!is_small).then_some(behind)))
        })
    }

    /// Appends the next piece of what a subscription is behind. Whether it has caught up: then the last piece is on its way
    /// through the shard, and `out`, which was empty, still is.
    pub(crate) fn catch_up(&self, conn: &Arc<Conn>, behind: &mut Behind, out: &mut Vec<u8>) -> bool {
        let Behind { channel, kept, after, is_thinned, .. } = behind;
        let bytes_max = if *is_thinned { usize::MAX } else { PIECE_BYTES_MAX };
        let piece = kept.with(|history| {
            let mut last = Vec::new();
            match history.behind(*after, bytes_max) {
                Ok(piece) if !history.has_at_most(*after, AT_ONCE_BYTES_MAX) => return Some(piece.items),
                Ok(piece) => write_pieces(&mut last, conn, *channel, &thinned(kept, *is_thinned, piece.items)),
                Err(gap) => write_gap(&mut last, conn.version(), kept.topic(), &gap),
            }
            conn.raise_fence();
            let (conn, topic) = (Arc::clone(conn), Arc::clone(kept.topic()));
            let shard = conn.shard();
            self.command(shard, Command::CaughtUp { conn, topic, channel: *channel, after: history.head(), last });
            None
        });
        let Some(items) = piece else { return true };
        let items = thinned(kept, *is_thinned, items);
        let mut written = 0;
        for (offset, broadcast) in &items {
            if out.len() > PIECE_BYTES_MAX {
                break;
            }
            write_piece(out, conn, *channel, broadcast, *offset);
            written += 1;
        }
        *after = items[written - 1].0;
        false
    }

    /// As [`Hub::catch_up`], for a channel that gets broadcasts by mail: gives the next of them, few enough for a channel that
    /// waits; all come before any mail that has not come yet. Only a gap is appended.
    pub(crate) fn catch_up_by_mail(&self, conn: &Arc<Conn>, behind: &mut Behind, out: &mut Vec<u8>) -> (Pieces, bool) {
        let Behind { channel, kept, after, is_thinned, .. } = behind;
        let bytes_max = if *is_thinned { usize::MAX } else { PIECE_BYTES_MAX };
        let (items, is_all) = kept.with(|history| {
            let (items, is_all) = match history.behind(*after, bytes_max) {
                Ok(piece) => {
                    let mut items = thinned(kept, *is_thinned, piece.items);
                    let is_all = piece.is_all && items.len() <= MAILS_MAX;
                    items.truncate(MAILS_MAX);
                    (items, is_all)
                }
                Err(gap) => {
                    write_gap(out, conn.version(), kept.topic(), &gap);
                    (Vec::new(), true)
                }
            };
            if is_all {
                conn.raise_fence();
                let (conn, topic) = (Arc::clone(conn), Arc::clone(kept.topic()));
                let (shard, after) = (conn.shard(), history.head());
                self.command(shard, Command::CaughtUp { conn, topic, channel: *channel, after, last: Vec::new() });
            }
            (items, is_all)
        });
        *after = items.last().map_or(*after, |(offset, _)| *offset);
        (items, is_all)
    }
}

fn is_by_mail(intercept: &[&str]) -> bool {
    intercept.iter().any(|event| is_kept(event))
}

/// What of it a slow client still gets.
fn thinned(kept: &Kept, is_thinned: bool, items: Pieces) -> Pieces {
    let OnSlow::Latest { key } = kept.on_slow() else { return items };
    if !is_thinned {
        return items;
    }
    thin(items, |broadcast| {
        let value = key.as_deref().and_then(|key| field(&broadcast.payload, key));
        (broadcast.event.clone(), value)
    })
}

/// The JSON text of a payload's field.
fn field(payload: &Payload, key: &str) -> Option<Box<str>> {
    let Payload::Json(text) = payload else { return None };
    splice::get(std::str::from_utf8(text).ok()?, &[key]).map(Into::into)
}

fn write_pieces(out: &mut Vec<u8>, conn: &Conn, channel: ChannelId, items: &[(u64, Arc<Broadcast>)]) {
    for (offset, broadcast) in items {
        write_piece(out, conn, channel, broadcast, *offset);
    }
}

fn write_piece(out: &mut Vec<u8>, conn: &Conn, channel: ChannelId, broadcast: &Broadcast, offset: u64) {
    if broadcast.except == Some((conn.id(), channel)) {
        write_position(out, conn.version(), &broadcast.topic, offset);
    } else {
        write_broadcast(out, conn.version(), broadcast, offset);
    }
}
