//! The queue of a session on a channel: messages that the server's own code or an operator sends it, delivered as
//! `mcp_message`.
//!
//! A client that declares `message_ack` among the experimental capabilities of its `clientInfo` gets each with its id as
//! `_messageId`, and acknowledges it with the event `message_ack`. Source: the contract of the Elixir deployment, section 8.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::channel::{Info, SessionChannel};
use crate::channel::inbox::{Handled, Inbox, MESSAGE_ACK, MESSAGE_EXTEND, MESSAGE_NACK, Step, refused};
use crate::channel::{Cx, JoinCx, Payload};
use crate::protocol::json::write_str;
use crate::protocol::mcp::MCP_MESSAGE;
use crate::queue::{Awaiting, Delivered, SESSION_PREFIX};

/// A session's queue, once it has one.
pub(super) struct Mailbox {
    queue: Arc<str>,
    acks: bool,
    inbox: Option<Inbox>,
    _awaiting: Awaiting,
}

/// Whether a client's capabilities say that it acknowledges messages.
pub(super) fn acknowledges(capabilities: &str) -> bool {
    let capabilities: Value = serde_json::from_str(capabilities).unwrap_or_default();
    let declared = &capabilities["experimental"][MESSAGE_ACK];
    !declared.is_null() && *declared != Value::Bool(false)
}

impl Mailbox {
    pub(super) fn new(session: &str, acks: bool, cx: &JoinCx<SessionChannel>) -> Self {
        let queue = Arc::<str>::from(format!("{SESSION_PREFIX}{session}"));
        let handle = cx.handle();
        let awaiting = cx.endpoint().queues().await_queue(Arc::clone(&queue), move || {
            // Where the connection is going, nobody waits for the message.
            let _ = handle.send(Info::QueueBegan);
        });
        Mailbox { queue, acks, inbox: None, _awaiting: awaiting }
    }

    /// The queue has come to be.
    pub(super) fn begin(&mut self, cx: &Cx<SessionChannel>) {
        if self.inbox.is_some() {
            return;
        }
        let in_flight_max = cx.queues().settings().in_flight_max;
        match Inbox::join(&self.queue, in_flight_max, self.acks, Info::Queue, cx) {
            Ok(inbox) => self.inbox = Some(inbox),
            Err(error) => tracing::debug!(%error, "a session's queue is not consumed"),
        }
    }

    /// Pushes messages as they are. Where the session can be come back to they have no position all the same: their log is the queue.
    pub(super) fn step(&mut self, step: &Step, cx: &mut Cx<SessionChannel>) {
        let acks = self.acks;
        if let Some(inbox) = &mut self.inbox {
            inbox.step(step, Info::Queue, cx, |message, cx| {
                let payload = if acks { with_id(&message) } else { message.payload };
                cx.push(MCP_MESSAGE, Payload::Json(payload));
            });
        }
    }

    /// Handles an ack, a nack or an extension. None for another event.
    pub(super) fn handle_in(&self, event: &str, payload: &Payload, cx: &Cx<SessionChannel>) -> Option<Handled> {
        match &self.inbox {
            Some(inbox) => inbox.handle_in(event, payload, cx),
            None => [MESSAGE_ACK, MESSAGE_NACK, MESSAGE_EXTEND]
                .contains(&event)
                .then(|| Handled::Now(refused("unknown_message", "the session has had no message"))),
        }
    }

    pub(super) fn end(&mut self, cx: &Cx<SessionChannel>) {
        if let Some(inbox) = &mut self.inbox {
            inbox.end(cx);
        }
    }
}

/// The message with its id as its first field. It is a JSON object, as every message of a queue is.
fn with_id(message: &Delivered) -> Bytes {
    let text = message.payload.trim_ascii();
    let rest = text[1..].trim_ascii_start();
    let mut out = Vec::with_capacity(text.len() + message.id.len() + 20);
    out.extend_from_slice(b"{\"_messageId\":");
    write_str(&mut out, &message.id);
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stands_before_what_the_message_has() {
        let with = |payload: &'static str| {
            let message = Delivered::sample("msg_1_2", payload);
            String::from_utf8(with_id(&message).to_vec()).expect("text")
        };

        assert_eq!(with(r#"{"jsonrpc":"2.0"}"#), r#"{"_messageId":"msg_1_2","jsonrpc":"2.0"}"#);
        assert_eq!(with("{}"), r#"{"_messageId":"msg_1_2"}"#);
        assert_eq!(with(" { } "), r#"{"_messageId":"msg_1_2"}"#);
    }

    #[test]
    fn a_client_acknowledges_if_it_says_so() {
        assert!(acknowledges(r#"{"experimental":{"message_ack":{}}}"#));
        assert!(acknowledges(r#"{"experimental":{"message_ack":true}}"#));
        for not in [r#"{"experimental":{"message_ack":false}}"#, r#"{"experimental":{}}"#, "{}", "null", "no"] {
            assert!(!acknowledges(not), "{not}");
        }
    }
}
