//! Channels whose clients have positions: from the join that asks for them to what the client has to catch up with.

use std::sync::Arc;
use std::task::Context;

use super::{Host, Slot, Waiting, Work};
use crate::channel::erased::Call;
use crate::outbox::Broadcast;
use crate::protocol::history::{BadResume, Position, Resume};
use crate::protocol::jsonrpc::splice;
use crate::protocol::message::Payload;
use crate::pubsub::{Behind, Kept, write_broadcast, write_position};

/// Pieces that one poll sends of what a client has to catch up with.
const PIECES_PER_POLL: usize = 4;

impl Host {
    /// What a join asks for, where its topic keeps history.
    pub(super) fn wanted(&self, topic: &str, params: &Payload) -> Result<Option<Resume>, BadResume> {
        match params {
            Payload::Json(params) if self.hub().histories().keeps(topic) => Resume::from_params(params),
            _ => Ok(None),
        }
    }

    /// The history of a topic, where there is room for one and the response to the join for a position.
    pub(super) fn kept_behind(&self, topic: &Arc<str>, response: &Payload) -> Option<Arc<Kept>> {
        let kept = response.is_object().then(|| self.hub().histories().of(topic)).flatten();
        if kept.is_none() {
            tracing::debug!(
                topic = &**topic,
                "a client can't resume a topic: too many have a history, or its join's answer is no object"
            );
        }
        kept
    }

    /// A channel was passed over, because its client has no room.
    pub(super) fn fell_behind(&mut self, at: usize, after: u64) {
        let entry = self.socket.entry(at);
        let (channel, topic) = (entry.id, Arc::clone(&entry.topic));
        if let Some(kept) = self.hub().histories().of(&topic) {
            let behind = Behind::slow(channel, self.intercepted(&topic), kept, after);
            self.falls_behind(behind);
        }
    }

    fn intercepted(&self, topic: &str) -> &'static [&'static str] {
        self.spec.route(topic).map_or(&[], |factory| factory.intercept())
    }

    /// Gives a channel that intercepts events a broadcast in its turn. What its handler makes of one comes before the position.
    pub(super) fn positioned(
        &mut self,
        at: usize,
        broadcast: Arc<Broadcast>,
        offset: u64,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let entry = self.socket.entry(at);
        let channel = entry.id;
        let topic = Arc::clone(&entry.topic);
        if broadcast.except == Some((self.conn.id(), channel)) {
            write_position(out, self.conn.version(), &topic, offset);
        } else if self.intercepted(&topic).contains(&&*broadcast.event) {
            // What comes next for the channel is the position, whether or not the handler waits.
            let next = Slot::Busy(Some(Box::new(Waiting::from([Work::Position(offset)]))));
            let Slot::Idle(state) = std::mem::replace(&mut self.socket.entry(at).state, next) else {
                unreachable!("it is the turn of an idle channel");
            };
            self.run(state.call(Call::Intercepted(broadcast)), cx, out);
        } else {
            write_broadcast(out, self.conn.version(), &broadcast, offset);
        }
    }

    pub(super) fn falls_behind(&mut self, behind: Behind) {
        self.behind.get_or_insert_default().push(behind);
    }

    /// Sends some of what the client has to catch up with, as far as there is room.
    pub(super) fn catch_up(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let Some(mut behind) = self.behind.take() else { return };
        behind.retain(|behind| self.socket.position(behind.channel).is_some());
        let mut pieces = 0;
        while pieces < PIECES_PER_POLL {
            self.flush(out);
            let Some(next) = behind.first_mut() else { break };
            if !self.has_room() {
                break;
            }
            pieces += 1;
            let has_caught_up = match next.by_mail {
                true => self.catch_up_by_mail(next, cx, out),
                false => self.spec.endpoint.hub.catch_up(&self.conn, next, out),
            };
            if has_caught_up {
                behind.remove(0);
            } else {
                // Each has its turn.
                behind.rotate_left(1);
            }
        }
        self.flush(out);
        // A handler that ran meanwhile may have brought another about.
        behind.extend(self.behind.take().map(|more| *more).unwrap_or_default());
        if !behind.is_empty() {
            self.behind = Some(behind);
        }
        if pieces == PIECES_PER_POLL && self.can_catch_up() {
            cx.waker().wake_by_ref();
        }
    }

    /// The same for a channel that gets broadcasts by mail. While a handler of it waits it is passed over; its end is when it
    /// goes on.
    fn catch_up_by_mail(&mut self, behind: &mut Behind, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        let Some(at) = self.socket.position(behind.channel) else { return true };
        if !matches!(self.socket.entry(at).state, Slot::Idle(_)) {
            return false;
        }
        let (pieces, is_all) = self.spec.endpoint.hub.catch_up_by_mail(&self.conn, behind, out);
        for (offset, broadcast) in pieces {
            let Some(at) = self.socket.position(behind.channel) else { return true };
            self.work(at, Work::Positioned(broadcast, offset), cx, out);
        }
        is_all
    }

    /// Whether there is something to catch up with, and room for it. If not for what is on its way through the shard, the
    /// connection's task is woken once that has got through.
    pub(crate) fn can_catch_up(&mut self) -> bool {
        let Some(behind) = &self.behind else { return false };
        let socket = &mut self.socket;
        let mut is_free = |channel| {
            let at = socket.position(channel);
            at.is_none_or(|at| matches!(socket.entry(at).state, Slot::Idle(_)))
        };
        behind.iter().any(|behind| !behind.by_mail || is_free(behind.channel)) && self.has_room()
    }

    fn has_room(&self) -> bool {
        !self.conn.is_crowded() && !self.conn.awaits_fence()
    }
}

/// A join's response with the position from which its client goes on; as it is where it only looks like an object.
pub(super) fn with_position(response: &Payload, position: &Position) -> Payload {
    let text = std::str::from_utf8(response.as_bytes()).expect("a JSON payload is UTF-8");
    let position = Payload::json(position).expect("a position is JSON");
    let position = std::str::from_utf8(position.as_bytes()).expect("JSON is UTF-8");
    splice::set(text, &["resume"], position).map_or_else(|| response.clone(), |text| Payload::Json(text.into()))
}
