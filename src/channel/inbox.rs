//! A channel whose client consumes a queue: messages are pushed no faster than the connection takes them, and are done when
//! the client says so, or, where it never does, when the kernel has their frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::{Channel, Cx, Handle, JoinCx, Next, Payload, Reply};
use crate::outbox::Receipt;
use crate::queue::{AckRefused, Delivered, Durability, Member, Nacked, QueueError, Queues, Settling};

/// Event and capability of an acknowledgement.
pub(crate) const MESSAGE_ACK: &str = "message_ack";
/// Event and capability of giving a message back.
pub(crate) const MESSAGE_NACK: &str = "message_nack";
/// Event that asks for a fresh lease.
pub(crate) const MESSAGE_EXTEND: &str = "message_extend";
/// Messages that one acknowledgement may name.
const ACKED_MAX: usize = 1_000;
/// Messages that are pushed before other topics of the connection have their turn.
const PUSHED_MAX: usize = 16;
/// Bytes that are pushed before the kernel has them: far less than an outbox holds.
const HANDING_BYTES_MAX: usize = 64 * 1024;
/// Batches that are pushed before the kernel has them.
const HANDING_MAX: usize = 64;
/// Replies that may be on their way to one channel.
const REPLIES_MAX: usize = 256;
/// How long the kernel is given, the first time and at most.
const HANDING_MS: (u64, u64) = (2, 100);

/// What the channel tells itself, wrapped in its own type of messages.
pub(crate) enum Step {
    /// There is something to take.
    Ready,
    /// Time to see what the kernel has.
    Handed,
}

/// What joining a queue takes: a channel that is about to be has it as well as one that is.
pub(crate) trait Surroundings<C: Channel> {
    fn handle(&self) -> Handle<C::Info>;
    fn queues(&self) -> &Queues;
}

impl<C: Channel> Surroundings<C> for JoinCx<C> {
    fn handle(&self) -> Handle<C::Info> {
        JoinCx::handle(self)
    }

    fn queues(&self) -> &Queues {
        self.env.endpoint.queues()
    }
}

impl<C: Channel> Surroundings<C> for Cx<C> {
    fn handle(&self) -> Handle<C::Info> {
        Cx::handle(self)
    }

    fn queues(&self) -> &Queues {
        Cx::queues(self)
    }
}

/// The consuming half of a channel.
pub(crate) struct Inbox {
    member: Arc<Member>,
    is_acked: bool,
    handing: VecDeque<Batch>,
    /// Bytes of them.
    handing_bytes: usize,
    replies: Replies,
    /// Until the kernel is asked again; 0 where it is not.
    asked_after_ms: u64,
    /// There was more to take.
    has_more: bool,
}

/// What was pushed by one handler.
struct Batch {
    receipt: Receipt,
    bytes: usize,
    /// To be acknowledged; empty where the client does.
    ids: Vec<String>,
}

/// An acknowledgement's message, or several.
#[derive(Deserialize)]
struct Named {
    message_id: Option<String>,
    message_ids: Option<Vec<String>>,
    error: Option<String>,
}

impl Inbox {
    /// Consumes a queue. `is_acked` says whether the client acknowledges what it gets.
    ///
    /// # Errors
    /// [`QueueError`]: there is no such queue.
    pub(crate) fn join<C: Channel>(
        queue: &str,
        in_flight_max: usize,
        is_acked: bool,
        wrap: fn(Step) -> C::Info,
        cx: &impl Surroundings<C>,
    ) -> Result<Self, QueueError> {
        let handle = cx.handle();
        let wake = move || {
            // Where the connection is going, nobody waits for the message.
            let _ = handle.send(wrap(Step::Ready));
        };
        let member = cx.queues().member(queue, in_flight_max, wake)?;
        Ok(Inbox {
            member: Arc::new(member),
            is_acked,
            handing: VecDeque::new(),
            handing_bytes: 0,
            replies: Replies::default(),
            asked_after_ms: 0,
            has_more: false,
        })
    }

    /// The class that the queue's messages reach.
    pub(crate) fn reached(&self) -> Durability {
        self.member.reached()
    }

    /// Takes a step. `push` pushes one message.
    pub(crate) fn step<C: Channel>(
        &mut self,
        step: &Step,
        wrap: fn(Step) -> C::Info,
        cx: &mut Cx<C>,
        push: impl FnMut(Delivered, &mut Cx<C>),
    ) {
        match step {
            Step::Ready => self.take(wrap, cx, push),
            Step::Handed => {
                self.conclude(cx);
                if !self.handing.is_empty() || self.has_more && cx.is_crowded() {
                    self.asked_after_ms = (self.asked_after_ms * 2).min(HANDING_MS.1);
                    cx.send_after(Duration::from_millis(self.asked_after_ms), wrap(Step::Handed));
                } else {
                    self.asked_after_ms = 0;
                }
                if self.has_more {
                    self.take(wrap, cx, push);
                }
            }
        }
    }

    fn take<C: Channel>(
        &mut self,
        wrap: fn(Step) -> C::Info,
        cx: &mut Cx<C>,
        mut push: impl FnMut(Delivered, &mut Cx<C>),
    ) {
        let is_full = self.handing_bytes > HANDING_BYTES_MAX || self.handing.len() >= HANDING_MAX;
        self.has_more = is_full || cx.is_crowded();
        if self.has_more {
            // It goes on when the kernel has some of it, or of what others sent.
            self.ask_later(wrap, cx);
            return;
        }
        let mut batch = Batch { receipt: cx.receipt(), bytes: 0, ids: Vec::new() };
        let mut pushed = 0;
        while let Some(message) = self.member.take() {
            batch.bytes += message.payload.len();
            pushed += 1;
            if !self.is_acked {
                batch.ids.push(message.id.clone());
            }
            push(message, cx);
            if pushed == PUSHED_MAX || self.handing_bytes + batch.bytes > HANDING_BYTES_MAX {
                cx.send(wrap(Step::Ready));
                break;
            }
        }
        if pushed == 0 {
            return;
        }
        self.handing_bytes += batch.bytes;
        self.handing.push_back(batch);
        self.ask_later(wrap, cx);
    }

    fn ask_later<C: Channel>(&mut self, wrap: fn(Step) -> C::Info, cx: &mut Cx<C>) {
        if self.asked_after_ms == 0 {
            self.asked_after_ms = HANDING_MS.0;
            cx.send_after(Duration::from_millis(self.asked_after_ms), wrap(Step::Handed));
        }
    }

    /// Lets go what the kernel has.
    fn conclude<C: Channel>(&mut self, cx: &Cx<C>) {
        while let Some(batch) = self.handing.front_mut()
            && cx.has_handed_over(&mut batch.receipt)
        {
            let batch = self.handing.pop_front().expect("there is one in front");
            self.handing_bytes -= batch.bytes;
            // The next that are handed over are soon.
            self.asked_after_ms = HANDING_MS.0;
            for id in batch.ids {
                // One whose ack can't be stored comes again when its lease is over.
                if let Err(refused) = self.member.ack(&id) {
                    tracing::debug!(%refused, id, "a message that was handed over is not acknowledged");
                }
            }
        }
    }

    /// The channel ends: what the kernel has by now is done, the rest goes back.
    pub(crate) fn end<C: Channel>(&mut self, cx: &Cx<C>) {
        self.conclude(cx);
    }

    /// Handles an ack, a nack or an extension. None for another event.
    pub(crate) fn handle_in<C: Channel>(&self, event: &str, payload: &Payload, cx: &Cx<C>) -> Option<Handled> {
        if ![MESSAGE_ACK, MESSAGE_NACK, MESSAGE_EXTEND].contains(&event) {
            return None;
        }
        let handled = self.settle(event, payload, cx);
        Some(handled.unwrap_or_else(Handled::Now))
    }

    fn settle<C: Channel>(&self, event: &str, payload: &Payload, cx: &Cx<C>) -> Result<Handled, Next> {
        let invalid = |detail: &str| refused("invalid_message", detail);
        let Named { message_id, message_ids, error } = payload.parse().map_err(|error| invalid(&error.to_string()))?;
        match (event, message_id, message_ids) {
            (MESSAGE_ACK, Some(id), None) => {
                let settling = self.member.ack(&id).map_err(|error| refusal(&error))?;
                let durability = self.reached();
                Ok(self.answer(settling, cx, move || json!({"durability": durability})))
            }
            (MESSAGE_ACK, None, Some(ids)) if ids.len() <= ACKED_MAX => Ok(self.ack_all(ids, cx)),
            (MESSAGE_ACK, None, Some(ids)) => {
                Err(invalid(&format!("message_ids: expected at most {ACKED_MAX}, came {}", ids.len())))
            }
            (MESSAGE_ACK, ..) => Err(invalid("expected message_id or message_ids")),
            (MESSAGE_NACK, Some(id), None) => {
                let nacked = self.member.nack(&id, error.as_deref().unwrap_or("nack"));
                let (nacked, settling) = nacked.map_err(|error| refusal(&error))?;
                Ok(self.answer(settling, cx, move || match nacked {
                    Nacked::Retry { failures, after_ms } => {
                        json!({"retry_count": failures, "retry_after_ms": after_ms})
                    }
                    Nacked::Dead => json!({"dead_letter": true}),
                    Nacked::Expired => json!({"expired": true}),
                }))
            }
            (MESSAGE_EXTEND, Some(id), None) => {
                let lease_ms = self.member.extend(&id).map_err(|error| refusal(&error))?;
                Ok(Handled::Now(Next::ok(json!({"lease_ms": lease_ms}))))
            }
            _ => Err(invalid("expected message_id")),
        }
    }

    fn ack_all<C: Channel>(&self, ids: Vec<String>, cx: &Cx<C>) -> Handled {
        let mut refused = serde_json::Map::new();
        let mut settling = Vec::new();
        for id in ids {
            match self.member.ack(&id) {
                Ok(one) => settling.push(one),
                Err(error) => drop(refused.insert(id, error.code().into())),
            }
        }
        let (acked, durability) = (settling.len(), self.reached());
        let response = move || json!({"durability": durability, "acked": acked, "refused": refused});
        self.answer(Settling::all(settling), cx, response)
    }

    /// Replies once something is stored; the channel goes on meanwhile.
    fn answer<C: Channel>(
        &self,
        settling: Settling,
        cx: &Cx<C>,
        response: impl FnOnce() -> serde_json::Value + Send + 'static,
    ) -> Handled {
        if settling.is_done() {
            return Handled::Now(Next::ok(response()));
        }
        self.replies.give(cx, async move {
            match settling.answer().await {
                Ok(()) => Reply::ok(response()),
                Err(error) => {
                    let told = "the store failed: the message stays with you until its lease is over";
                    Reply::error(json!({"reason": error.code(), "detail": told}))
                }
            }
        })
    }
}

/// What a handler decides, at once or later.
pub(crate) enum Handled {
    /// At once.
    Now(Next),
    /// Later, which holds up the channel.
    Later(BoxFuture<'static, Next>),
}

impl Handled {
    /// Waits, if it has to.
    pub(crate) async fn next(self) -> Next {
        match self {
            Handled::Now(next) => next,
            Handled::Later(later) => later.await,
        }
    }
}

/// Replies that are given once something is stored, while the channel goes on: a bounded number at a time, since each is a
/// message to the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies(Arc<AtomicUsize>);

impl Replies {
    /// Gives a reply when it is there.
    pub(crate) fn give<C: Channel>(&self, cx: &Cx<C>, reply: impl Future<Output = Reply> + Send + 'static) -> Handled {
        if self.0.load(Ordering::Relaxed) >= REPLIES_MAX {
            return Handled::Later(async move { Next::Reply(reply.await) }.boxed());
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        let (given, handle) = (Arc::clone(&self.0), cx.reply_handle().expect("a message is being handled"));
        tokio::spawn(async move {
            let reply = reply.await;
            given.fetch_sub(1, Ordering::Relaxed);
            // The connection may have gone.
            let _ = handle.send(reply);
        });
        Handled::Now(Next::NoReply)
    }
}

fn refusal(error: &AckRefused) -> Next {
    refused(error.code(), &error.to_string())
}

/// A refusal: one word, and what was expected and what came.
pub(crate) fn refused(reason: &str, detail: &str) -> Next {
    Next::error(json!({"reason": reason, "detail": detail}))
}
