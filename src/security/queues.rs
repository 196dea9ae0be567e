//! Topics that are queues: `inbox:<user>`, `queue:<name>`, and what else the settings name.
//!
//! ```text
//! join            one's own inbox, or queues:consume:<topic>; with {"consume": false} queues:enqueue:<topic> is enough
//!                 params {"capabilities"?: ["message_ack", "message_nack"], "max_in_flight"?: n, "consume"?: bool}
//!                 replies {"queue", "durability", "capabilities", "lease_ms", "max_in_flight"}
//! message         push: {"message_id", "payload", "priority", "attempt", "retry_count", "created_at"}
//! message_ack     {"message_id"}: replies ok {"durability"} once that class is reached
//!                 {"message_ids": [..]}: replies ok {"durability", "acked": n, "refused": {id: word}}
//! message_nack    {"message_id", "error"?}: replies ok {"retry_count", "retry_after_ms"}, {"dead_letter": true} or {"expired": true}
//! message_extend  {"message_id"}: replies ok {"lease_ms"}
//! enqueue         queues:enqueue:<topic>
//!                 {"payload", "priority"?, "ttl_ms"?, "delay_ms"?, "max_retries"?, "idempotency_key"?}
//!                 replies ok {"message_id", "durability", "duplicate"?}
//! ```
//!
//! Who has not said `message_ack` gets messages as any client does: one is done as soon as the kernel has its frame. Refusals
//! are `{"reason": <word>, "detail": <text>}`. Source: the contract of the Elixir deployment, section 8.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::stay::{Stay, UNAUTHORIZED};
use crate::channel::inbox::{Handled, Inbox, MESSAGE_ACK, MESSAGE_NACK, Replies, Step, refused};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Reason, Refusal, Reply};
use crate::protocol::mcp::ACCESS_TOKEN;
use crate::protocol::policy::Grants;
use crate::protocol::topic::is_reserved;
use crate::queue::{Delivered, Enqueued, NewMessage, QueueError, Storing};

/// What begins the topic of a user's inbox.
const INBOX_PREFIX: &str = "inbox:";
/// Event of a message.
const MESSAGE: &str = "message";
/// Event of a producer.
const ENQUEUE: &str = "enqueue";
/// The capability that a consumer of another's queue needs.
const CONSUME: &str = "queues:consume";

/// One client on one queue's topic.
pub(crate) struct QueueChannel {
    stay: Stay,
    /// None for producers alone.
    inbox: Option<Inbox>,
    /// Of what was enqueued.
    replies: Replies,
}

/// What the channel is told by the server's own code.
pub(crate) enum Info {
    /// About the queue.
    Queue(Step),
    /// The time of its credential is over.
    CredentialExpired,
}

/// The parameters of a join, credentials apart.
#[derive(Deserialize, Default)]
struct Params {
    #[serde(default)]
    capabilities: Vec<String>,
    max_in_flight: Option<usize>,
    consume: Option<bool>,
}

impl Channel for QueueChannel {
    type Info = Info;

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let came = Stay::come(topic, &params, cx).await?;
        let wanted: Params = match params.is_object() {
            true => params.parse()?,
            false => Params::default(),
        };
        let consumes = wanted.consume.unwrap_or(true);
        let user = came.user().user.clone();
        // As for topics without code.
        if is_reserved(topic) || !came.may(|grants| may_join(grants, topic, &user, consumes)) {
            return Err(came.refuse(topic, if consumes { CONSUME } else { "queues:enqueue" }));
        }
        let queues = cx.endpoint().queues().clone();
        let settings = queues.settings();
        let in_flight_max = wanted.max_in_flight.unwrap_or(settings.in_flight_max).clamp(1, settings.in_flight_max);
        let is_acked = wanted.capabilities.iter().any(|capability| capability == MESSAGE_ACK);
        let reached = queues.reached(topic).map_err(|error| refusal(&error))?;
        let inbox = match consumes {
            true => {
                let inbox = Inbox::join(topic, in_flight_max, is_acked, Info::Queue, cx);
                Some(inbox.map_err(|error| refusal(&error))?)
            }
            false => None,
        };
        let reply = json!({
            "queue": topic,
            "durability": reached,
            "capabilities": if is_acked { &[MESSAGE_ACK, MESSAGE_NACK][..] } else { &[] },
            "lease_ms": settings.limits.lease_ms,
            "max_in_flight": in_flight_max,
        });
        let stay = came.stay(cx, || Info::CredentialExpired);
        Ok((QueueChannel { stay, inbox, replies: Replies::default() }, reply.into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        let consumes = self.inbox.is_some();
        match event {
            ACCESS_TOKEN => {
                let user = self.stay.user().user.clone();
                let may = |grants: &Grants| may_join(grants, cx.topic(), &user, consumes);
                self.stay.renew(&payload, cx, may).await
            }
            ENQUEUE => self.enqueue(&payload, cx).next().await,
            _ => {
                let handled = self.inbox.as_ref().and_then(|inbox| inbox.handle_in(event, &payload, cx));
                match handled {
                    Some(handled) => handled.next().await,
                    None => refused(
                        "unknown_event",
                        "expected enqueue, or of a consumer message_ack, message_nack or message_extend",
                    ),
                }
            }
        }
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::CredentialExpired => return self.stay.expire(),
            Info::Queue(step) => {
                let user = self.stay.user().user.clone();
                // A later credential of another topic may have taken rights away.
                if !self.stay.may(|grants| may_join(grants, cx.topic(), &user, true)) {
                    return Next::crash(UNAUTHORIZED);
                }
                if let Some(inbox) = &mut self.inbox {
                    inbox.step(&step, Info::Queue, cx, |message, cx| cx.push(MESSAGE, envelope(&message)));
                }
            }
        }
        Next::NoReply
    }

    async fn terminate(&mut self, _reason: &Reason, cx: &mut Cx<Self>) {
        if let Some(inbox) = &mut self.inbox {
            inbox.end(cx);
        }
    }
}

impl QueueChannel {
    fn enqueue(&self, payload: &Payload, cx: &Cx<Self>) -> Handled {
        if !self.stay.may(|grants| grants.may_enqueue(cx.topic())) {
            self.stay.denied(cx.topic(), "queues:enqueue");
            return Handled::Now(Next::error(Payload::reason(UNAUTHORIZED)));
        }
        let Payload::Json(text) = payload else {
            return Handled::Now(refused("invalid_message", "expected an object, came binary data"));
        };
        let storing = NewMessage::parse(text).and_then(|message| cx.queues().offer(cx.topic(), message));
        match storing {
            Ok(Storing::Done(enqueued)) => Handled::Now(Next::Reply(taken(&enqueued))),
            Ok(storing) => self.replies.give(cx, async move {
                match storing.answer().await {
                    Ok(enqueued) => taken(&enqueued),
                    Err(error) => Reply::error(told(&error)),
                }
            }),
            Err(error) => Handled::Now(Next::error(told(&error))),
        }
    }
}

fn taken(enqueued: &Enqueued) -> Reply {
    Payload::json(enqueued).map(Reply::ok).expect("texts have a JSON form")
}

/// Whether a user may be on a queue's topic.
fn may_join(grants: &Grants, topic: &str, user: &str, consumes: bool) -> bool {
    let is_own = topic.strip_prefix(INBOX_PREFIX) == Some(user);
    match consumes {
        true => is_own || grants.may_consume(topic),
        false => grants.may_enqueue(topic),
    }
}

/// A message as its consumer gets it.
fn envelope(message: &Delivered) -> Payload {
    #[derive(Serialize)]
    struct Envelope<'a> {
        message_id: &'a str,
        priority: &'a str,
        attempt: u32,
        retry_count: u32,
        created_at: u64,
        payload: &'a RawValue,
    }

    let envelope = Envelope {
        message_id: &message.id,
        priority: message.priority.name(),
        attempt: message.deliveries,
        retry_count: message.failures,
        created_at: message.created_unix_ms,
        payload: serde_json::from_slice(&message.payload).expect("a payload is JSON"),
    };
    Payload::json(&envelope).expect("texts and numbers have a JSON form")
}

fn told(error: &QueueError) -> Value {
    json!({"reason": error.code(), "detail": error.detail()})
}

fn refusal(error: &QueueError) -> Refusal {
    Refusal::Reply(told(error).into())
}
