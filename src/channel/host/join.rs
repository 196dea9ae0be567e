//! Joins: from the client's request to its answer.

use std::sync::Arc;
use std::task::Context;

use super::answer::text;
use super::resuming::with_position;
use super::{Fatal, Host, Joining, Slot, Waiting};
use crate::channel::context::Env;
use crate::channel::erased::Boxed;
use crate::protocol::message::{PHX_CLOSE, Payload, Ref, Reply};
use crate::pubsub::Subscription;

impl Host {
    #[expect(clippy::too_many_arguments, reason = "the parts of one join, used in two places")]
    pub(super) fn join(
        &mut self,
        topic: Arc<str>,
        join_ref: Ref,
        reference: Ref,
        params: Payload,
        replaced: Option<Ref>,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let name = text(&topic);
        let Some(factory) = self.spec.route(&topic) else {
            return self.unmatched(&reference, &name, out);
        };
        if self.socket.len() >= self.spec.options.channels_max {
            let reply = Reply::error(Payload::reason("too many channels joined"));
            return self.answer(out, &join_ref, &reference, &name, &reply);
        }

        let intercept = factory.intercept();
        let resume = match self.wanted(&topic, &params) {
            Ok(resume) => resume,
            Err(bad) => {
                let reply = Reply::error(Payload::reason(&bad.to_string()));
                self.answer(out, &join_ref, &reference, &name, &reply);
                return self.close_replaced(&topic, replaced, out);
            }
        };

        let joining = Joining { reference: reference.clone(), replaced, intercept, resume, waiting: Waiting::new() };
        let slot = Slot::Joining(Box::new(joining));
        let channel = self.socket.insert(Arc::clone(&topic), join_ref, &reference, slot);
        let env = Env {
            conn: Arc::clone(&self.conn),
            endpoint: Arc::clone(&self.spec.endpoint),
            assigns: self.assigns.clone(),
            topic,
            channel,
        };
        let running = factory.join(env, params);
        self.run(running, cx, out);
    }

    pub(super) fn joined(
        &mut self,
        at: usize,
        state: Boxed,
        response: Payload,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let entry = self.socket.entry(at);
        let channel = entry.id;
        let Slot::Joining(joining) = &mut entry.state else { unreachable!("only a pending join is answered") };
        let (reference, replaced, intercept) = (joining.reference.clone(), joining.replaced.take(), joining.intercept);
        let resume = joining.resume.take();
        let (topic, join_ref) = (Arc::clone(&entry.topic), entry.join_ref.clone());
        let waiting = self.rest(at, state);

        self.flush(out);
        let name = text(&topic);
        let encode = |response| {
            let mut first = Vec::new();
            self.encode_reply(&mut first, &join_ref, &reference, &name, &Reply::ok(response)).map(|()| first)
        };
        let subscribed = match resume.and_then(|resume| Some((resume, self.kept_behind(&topic, &response)?))) {
            Some((resume, kept)) => {
                let first = |position| encode(with_position(&response, &position));
                let has_room = !self.is_ahead() && !self.conn.is_crowded();
                self.hub().subscribe_behind(&self.conn, &kept, &resume, (channel, intercept), has_room, first)
            }
            None => encode(response).map(|first| {
                let subscription = Subscription::Fastlane { channel, intercept };
                let bytes = first.len();
                self.hub().subscribe(&self.conn, Arc::clone(&topic), subscription, first);
                (bytes, None)
            }),
        };
        match subscribed {
            Ok((bytes, behind)) => {
                self.sent_ahead(bytes);
                behind.into_iter().for_each(|behind| self.falls_behind(behind));
            }
            Err(error) => {
                self.fatal = Some(Box::new(Fatal(format!("the answer to a join: {error}"))));
                return;
            }
        }
        if self.behind.is_some() {
            self.catch_up(cx, out);
        }
        self.close_replaced(&topic, replaced, out);
        self.resume(&topic, channel, waiting, cx, out);
    }

    pub(super) fn refused(&mut self, at: usize, reply: &Reply, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let entry = self.socket.remove(at);
        let Slot::Joining(joining) = entry.state else { unreachable!("only a pending join is refused") };
        self.unclog(joining.waiting.len());
        self.end_subscriptions(entry.id);
        self.answer(out, &entry.join_ref, &joining.reference, &text(&entry.topic), reply);
        self.close_replaced(&entry.topic, joining.replaced, out);

        self.resume(&entry.topic, entry.id, joining.waiting, cx, out);
    }

    pub(super) fn close_replaced(&mut self, topic: &str, replaced: Option<Ref>, out: &mut Vec<u8>) {
        if let Some(join_ref) = replaced {
            self.encode_end(topic, &join_ref, PHX_CLOSE, out);
        }
    }
}
