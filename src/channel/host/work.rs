//! What channels do: one thing after another, what waits in order, and how they end.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::answer::{frame, text};
use super::{Fatal, Host, Slot, Waiting, Work};
use crate::channel::effect::{self, Effect};
use crate::channel::erased::{Boxed, Call, Finished, Outcome, Running};
use crate::channel::{Next, Reason, Refusal, StopReason};
use crate::metrics::METRICS;
use crate::outbox::Broadcast;
use crate::protocol::limits::CHANNEL_WAITING_MAX;
use crate::protocol::message::{PHX_CLOSE, PHX_ERROR, Payload, Ref, Reply};
use crate::protocol::socket::ChannelId;
use crate::protocol::wire;
use crate::pubsub::{Role, write_position};

/// What a broadcast counts at least towards the bytes that a connection may have ahead in its shard. It costs a write a
/// subscriber, so a connection has some 60 under way, however small they are.
const BROADCAST_BYTES: usize = 1_024;

impl Host {
    /// Polls a future of a channel once; if it waits, it joins the others.
    pub(super) fn run(&mut self, mut running: Running, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        effect::discard();
        let polled = running.as_mut().poll(cx);
        self.carry_out_effects(out);
        match polled {
            Poll::Ready(finished) => self.finish(finished, cx, out),
            Poll::Pending => self.running.get_or_insert_default().push(running),
        }
    }

    /// Gives a channel something to do, now or when it is free.
    pub(super) fn work(&mut self, at: usize, work: Work, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let entry = self.socket.entry(at);
        let channel = entry.id;
        if let Work::Join { join_ref, .. } = &work {
            entry.awaited_join_ref = Some(Box::new(join_ref.clone()));
        }
        match &mut entry.state {
            Slot::Joining(joining) => joining.waiting.push_back(work),
            Slot::Busy(waiting) => waiting.get_or_insert_default().push_back(work),
            Slot::Idle(_) => return self.perform(at, work, cx, out),
        }
        if self.waiting(channel) == CHANNEL_WAITING_MAX {
            self.clogged += 1;
        }
    }

    pub(super) fn waiting(&mut self, channel: ChannelId) -> usize {
        let Some(at) = self.socket.position(channel) else {
            return 0;
        };
        match &self.socket.entry(at).state {
            Slot::Joining(joining) => joining.waiting.len(),
            Slot::Busy(waiting) => waiting.as_ref().map_or(0, |waiting| waiting.len()),
            Slot::Idle(_) => 0,
        }
    }

    /// Whether a further join has to wait: behind a pending one, or behind a leave or join that waits itself.
    pub(super) fn ends_by_itself(&mut self, at: usize) -> bool {
        match &self.socket.entry(at).state {
            Slot::Joining(_) => true,
            Slot::Busy(Some(waiting)) => {
                waiting.iter().any(|work| matches!(work, Work::Leave { .. } | Work::Join { .. }))
            }
            Slot::Busy(None) | Slot::Idle(_) => false,
        }
    }

    /// Does one thing with an idle channel, or replaces a channel.
    pub(super) fn perform(&mut self, at: usize, work: Work, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        match work {
            Work::Call(call) => {
                let entry = self.socket.entry(at);
                let Slot::Idle(state) = std::mem::replace(&mut entry.state, Slot::Busy(None)) else {
                    unreachable!("perform is called for idle channels");
                };
                self.run(state.call(call), cx, out);
            }
            Work::Positioned(broadcast, offset) => self.positioned(at, broadcast, offset, cx, out),
            Work::Position(offset) => {
                write_position(out, self.conn.version(), &self.socket.entry(at).topic, offset);
            }
            Work::Crash(_) => self.stop(at, Reason::Crashed("an event that is no string".to_owned()), cx, out),
            Work::Leave { reference, .. } => {
                let entry = self.socket.entry(at);
                let (push_ref, topic) = (entry.push_ref().clone(), Arc::clone(&entry.topic));
                self.answer(out, &push_ref, &reference, &text(&topic), &Reply::ok(Payload::EMPTY));
                self.stop(at, Reason::Left, cx, out);
            }
            Work::Join { join_ref, reference, params } => {
                let topic = Arc::clone(&self.socket.entry(at).topic);
                let replaced = self.end(at, Reason::DuplicateJoin, cx, out);
                self.join(topic, join_ref, reference, params, Some(replaced), cx, out);
            }
        }
    }

    /// Takes up what a future of a channel came to.
    pub(super) fn finish(&mut self, finished: Finished, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let channel = finished.channel;
        let Some(at) = self.socket.position(channel) else {
            return self.finish_orphan(finished, cx, out);
        };
        match finished.outcome {
            Outcome::Joined(Ok((state, response))) => self.joined(at, state, response, cx, out),
            Outcome::Joined(Err(Refusal::Reply(response))) => self.refused(at, &Reply::error(response), cx, out),
            Outcome::Joined(Err(Refusal::Unencodable(error))) => {
                // The socket ends: nothing is said of this join, nor of what waited for it.
                let entry = self.socket.remove(at);
                let Slot::Joining(joining) = entry.state else { unreachable!("only a pending join is answered") };
                self.unclog(joining.waiting.len());
                self.end_subscriptions(channel);
                self.fatal = Some(Box::new(Fatal(format!("the answer to a join has no JSON form: {error}"))));
            }
            Outcome::JoinCrashed(why) => {
                self.count_crash(at, &why);
                self.refused(at, &Reply::error(Payload::reason("join crashed")), cx, out);
            }
            Outcome::Handled { state, next, reference } => {
                let next = match self.take_doom(channel) {
                    Some(why) => Err(Reason::Crashed(why)),
                    None => next.map_err(Reason::Crashed),
                };
                self.settle(at, state, next, reference.as_ref(), cx, out);
            }
            Outcome::Terminated(state) => {
                self.end_subscriptions(channel);
                // Its presences leave, behind what `terminate` has said.
                drop(state);
            }
        }
    }

    /// A channel that is no longer in the table still gets its `terminate`.
    pub(super) fn finish_orphan(&mut self, finished: Finished, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let channel = finished.channel;
        self.end_subscriptions(channel);
        let state = match finished.outcome {
            Outcome::Joined(Ok((state, _))) => state,
            Outcome::Handled { state, next, .. } => {
                if let Err(why) = next {
                    METRICS.channel_crashes.inc();
                    tracing::error!(why, "a channel crashed after it had ended");
                }
                state
            }
            Outcome::Joined(Err(_)) | Outcome::JoinCrashed(_) | Outcome::Terminated(_) => return,
        };
        self.untrack(channel, &state);
        let reason = if self.closed { Reason::SocketClosed } else { Reason::DuplicateJoin };
        self.terminate(state, reason, cx, out);
    }

    /// Puts a channel's state back and takes the work that came meanwhile.
    pub(super) fn rest(&mut self, at: usize, state: Boxed) -> Waiting {
        let slot = std::mem::replace(&mut self.socket.entry(at).state, Slot::Idle(state));
        let waiting = match slot {
            Slot::Busy(waiting) => waiting.map(|waiting| *waiting).unwrap_or_default(),
            Slot::Joining(joining) => joining.waiting,
            Slot::Idle(_) => Waiting::new(),
        };
        self.unclog(waiting.len());
        waiting
    }

    /// Puts a handler's decision into effect and goes on with what waited.
    pub(super) fn settle(
        &mut self,
        at: usize,
        state: Boxed,
        next: Result<Next, Reason>,
        reference: Option<&Ref>,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let waiting = self.rest(at, state);
        let ended = (!waiting.is_empty()).then(|| {
            let entry = self.socket.entry(at);
            (Arc::clone(&entry.topic), entry.id)
        });
        match next {
            Ok(next) => self.decide(at, next, reference, cx, out),
            Err(reason) => {
                // A client that comes back is not given again what its channel crashed of.
                if let Some(Work::Position(offset)) = waiting.front() {
                    write_position(out, self.conn.version(), &self.socket.entry(at).topic, *offset);
                }
                self.stop(at, reason, cx, out);
            }
        }
        if let Some((topic, channel)) = ended {
            self.resume(&topic, channel, waiting, cx, out);
        }
    }

    /// Works off what waited for a channel, as if it came now: as far as the topic's channel gets, which may be another one after a join,
    /// and which a join replaces also where its handler waits. What is left when there is no channel was sent to a topic
    /// that is not joined, and is answered so. The socket's end is the end of it.
    pub(super) fn resume(
        &mut self,
        topic: &Arc<str>,
        channel: ChannelId,
        mut waiting: Waiting,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        while self.fatal.is_none()
            && let Some(work) = waiting.pop_front()
        {
            match self.socket.find(topic) {
                // Its mail was for that channel and for no other.
                Some(at) if work.is_mail() && self.socket.entry(at).id != channel => {}
                Some(at) if matches!(work, Work::Join { .. }) && !self.ends_by_itself(at) => {
                    self.perform(at, work, cx, out);
                }
                Some(at) => self.work(at, work, cx, out),
                None => self.perform_unjoined(topic, work, cx, out),
            }
        }
    }

    /// Does one thing for a topic whose channel has ended.
    pub(super) fn perform_unjoined(&mut self, topic: &Arc<str>, work: Work, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        match work {
            Work::Call(Call::Message { reference, .. }) | Work::Crash(reference) => {
                self.unmatched(&reference, &text(topic), out);
            }
            Work::Call(_) | Work::Positioned(..) | Work::Position(_) => {}
            Work::Leave { join_ref, reference } => {
                self.answer(out, &join_ref, &reference, &text(topic), &Reply::ok(Payload::EMPTY));
            }
            Work::Join { join_ref, reference, params } => {
                self.join(Arc::clone(topic), join_ref, reference, params, None, cx, out);
            }
        }
    }

    pub(super) fn decide(
        &mut self,
        at: usize,
        next: Next,
        reference: Option<&Ref>,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let (reply, reason) = match next {
            Next::NoReply => return,
            Next::Reply(reply) => (Some(reply), None),
            Next::Stop { reason, reply } => (reply, Some(reason)),
        };
        if let Some(reply) = reply {
            let answered = match reference {
                Some(reference) => self.reply(at, reference, &reply, out),
                None => Err("a reply where there is no message to reply to".to_owned()),
            };
            if let Err(why) = answered {
                return self.stop(at, Reason::Crashed(why), cx, out);
            }
        }
        if let Some(reason) = reason {
            self.stop(at, Reason::Stopped(reason), cx, out);
        }
    }

    /// Ends a channel and tells the client.
    pub(super) fn stop(&mut self, at: usize, reason: Reason, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let event = match &reason {
            Reason::Stopped(StopReason::Error(why)) | Reason::Crashed(why) => {
                self.count_crash(at, why);
                PHX_ERROR
            }
            _ => PHX_CLOSE,
        };
        let topic = Arc::clone(&self.socket.entry(at).topic);
        let join_ref = self.end(at, reason, cx, out);
        self.encode_end(&topic, &join_ref, event, out);
    }

    pub(super) fn count_crash(&mut self, at: usize, why: &str) {
        METRICS.channel_crashes.inc();
        tracing::error!(topic = &*self.socket.entry(at).topic, why, "channel crashed");
    }

    /// Ends a channel: nothing more of its topic reaches the client, its presences leave, `terminate` runs, and it is out
    /// of the table. Gives back its join_ref.
    pub(super) fn end(&mut self, at: usize, reason: Reason, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Ref {
        self.flush(out);
        let entry = self.socket.entry(at);
        let (channel, topic) = (entry.id, Arc::clone(&entry.topic));
        let slot = std::mem::replace(&mut entry.state, Slot::Busy(None));
        let _ = self.take_doom(channel);
        self.hub().unsubscribe(&self.conn, topic, Role::Fastlane(channel));
        self.end_subscriptions(channel);
        match slot {
            Slot::Idle(state) => {
                self.untrack(channel, &state);
                self.terminate(state, reason, cx, out);
            }
            // The handler runs on; `finish_orphan` terminates it. What waited for it is lost, as a dead process's
            // mailbox is.
            Slot::Busy(waiting) => {
                self.spec.endpoint.presence.untrack_channel(&self.conn, channel);
                self.unclog(waiting.map_or(0, |waiting| waiting.len()));
            }
            Slot::Joining(joining) => self.unclog(joining.waiting.len()),
        }
        let at = self.socket.position(channel).expect("terminate leaves the table alone");
        self.socket.remove(at).join_ref
    }

    pub(super) fn unclog(&mut self, waiting: usize) {
        if waiting >= CHANNEL_WAITING_MAX {
            self.clogged -= 1;
        }
    }

    pub(super) fn untrack(&self, channel: ChannelId, state: &Boxed) {
        if state.tracked() {
            self.spec.endpoint.presence.untrack_channel(&self.conn, channel);
        }
    }

    pub(super) fn terminate(&mut self, state: Boxed, reason: Reason, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        self.run(state.call(Call::Terminate(reason)), cx, out);
    }

    /// Carries out what handlers did while they were polled.
    pub(super) fn carry_out_effects(&mut self, out: &mut Vec<u8>) {
        for (channel, effect) in effect::take() {
            if self.doomed.as_ref().is_some_and(|doomed| doomed.iter().any(|(doomed, _)| *doomed == channel)) {
                continue;
            }
            match effect {
                Effect::Push { event, payload, position } => {
                    let Some(at) = self.socket.position(channel) else {
                        continue;
                    };
                    let (version, entry) = (self.conn.version(), self.socket.entry(at));
                    let (join_ref, topic) = (entry.push_ref(), &entry.topic);
                    let reference = position.map_or(Ref::NULL, Ref::position);
                    let pushed = frame(out, |out| {
                        wire::encode_message(version, out, join_ref, &reference, topic, &event, &payload)
                    });
                    if let Err(error) = pushed {
                        self.doom(channel, format!("push of {event:?}: {error}"));
                    }
                }
                Effect::Broadcast(broadcast) => self.publish(broadcast, out),
            }
        }
    }

    /// A channel whose handler is under way is to crash.
    pub(super) fn doom(&mut self, channel: ChannelId, why: String) {
        self.doomed.get_or_insert_default().push((channel, why));
    }

    fn take_doom(&mut self, channel: ChannelId) -> Option<String> {
        let doomed = self.doomed.as_mut()?;
        let at = doomed.iter().position(|(doomed, _)| *doomed == channel)?;
        let (_, why) = doomed.swap_remove(at);
        if doomed.is_empty() {
            self.doomed = None;
        }
        Some(why)
    }

    pub(super) fn publish(&mut self, broadcast: Broadcast, out: &mut Vec<u8>) {
        self.flush(out);
        self.sent_ahead(BROADCAST_BYTES + broadcast.payload.as_bytes().len());
        let from = (!self.closed).then_some(&self.conn);
        self.hub().publish(broadcast, from);
    }
}
