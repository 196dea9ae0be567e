//! A channel that is attached to a session: what it pushes, and how it lets go.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Recoverable;
use crate::channel::{Cx, Next, Payload, Receipt};
use crate::mcp::channel::{Info, SessionChannel};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::recovery::{Class, GAP, Position, Recovery, Sending};
use crate::protocol::mcp::{MCP_MESSAGE, STREAMING_EVENT};

/// Bytes that are pushed before the kernel has them, where there is more: an eighth of what an outbox holds.
const PUSHED_BYTES_MAX: usize = 256 * 1024;
/// How long the kernel is given, the first time and at most.
const HANDING_MS: (u64, u64) = (2, 100);

/// What a channel has of the session that it is attached to.
pub(in crate::mcp) struct Attachment {
    recoverable: Arc<Recoverable>,
    number: u64,
    /// Of what was pushed last, while more waits.
    receipt: Option<Receipt>,
    asked_after_ms: u64,
}

impl Attachment {
    pub(in crate::mcp) fn new(recoverable: Arc<Recoverable>, number: u64) -> Self {
        Attachment { recoverable, number, receipt: None, asked_after_ms: 0 }
    }

    /// Its number among those of its session.
    pub(in crate::mcp) fn number(&self) -> u64 {
        self.number
    }

    pub(in crate::mcp) fn recoverable(&self) -> &Recoverable {
        &self.recoverable
    }

    /// Whether no other has taken its place, and the session has not ended.
    pub(in crate::mcp) fn is_present(&self) -> bool {
        let is_present = |recovery: &mut Recovery| recovery.is_present(self.number);
        self.recoverable.session.standing().recovery(is_present) == Some(true)
    }

    /// Pushes what waits, no faster than the kernel takes it. One whose place another has ends.
    pub(in crate::mcp) fn push(&mut self, cx: &mut Cx<SessionChannel>) -> Next {
        if let Some(receipt) = &mut self.receipt
            && !cx.has_handed_over(receipt)
        {
            if !self.is_present() {
                return Next::stop();
            }
            if self.asked_after_ms == 0 {
                self.ask_later(cx);
            }
            return Next::NoReply;
        }
        let receipt = cx.receipt();
        let Some(taken) = self.recoverable.session.standing().take_for(self.number, PUSHED_BYTES_MAX) else {
            return Next::stop();
        };
        if let Some(gap) = taken.gap {
            cx.push(GAP, Payload::Json(Bytes::from(jsonrpc::raw(&gap).get().to_owned())));
        }
        for Sending { position, class, text } in taken.messages {
            let event = if class == Class::Event { STREAMING_EVENT } else { MCP_MESSAGE };
            cx.push_at(event, Payload::Json(text), position.0);
        }
        self.receipt = taken.has_more.then_some(receipt);
        if taken.has_more && self.asked_after_ms == 0 {
            self.ask_later(cx);
        }
        Next::NoReply
    }

    fn ask_later(&mut self, cx: &mut Cx<SessionChannel>) {
        let (first, longest) = HANDING_MS;
        self.asked_after_ms = (self.asked_after_ms * 2).clamp(first, longest);
        cx.send_after(Duration::from_millis(self.asked_after_ms), Info::HandedOver);
    }

    /// Time to see what the kernel has.
    pub(in crate::mcp) fn look_again(&mut self, cx: &mut Cx<SessionChannel>) -> Next {
        let has_handed_over = self.receipt.as_mut().is_none_or(|receipt| cx.has_handed_over(receipt));
        if has_handed_over {
            self.asked_after_ms = 0;
            return self.push(cx);
        }
        self.ask_later(cx);
        if self.is_present() { Next::NoReply } else { Next::stop() }
    }

    /// The client lives, and may say what it has; gives its next token.
    pub(in crate::mcp) fn heartbeat(&self, position: Option<Position>) -> Option<String> {
        let session = &self.recoverable.session;
        let renew = |recovery: &mut Recovery| {
            if let Some(position) = position {
                recovery.acknowledge(self.number, position);
            }
            recovery.renew(self.number)
        };
        let serial = session.standing().recovery(renew).flatten()?;
        Some(session.mcp.recoveries.token(session, serial))
    }

    /// The channel ends, and its client may come back.
    pub(in crate::mcp) fn lose(&self) {
        self.recoverable.session.mcp.recoveries.detach(&self.recoverable, self.number);
    }

    /// The channel ends, and the session with it; but not where another has taken its place.
    pub(in crate::mcp) fn end(&self, why: &str) {
        self.recoverable.session.mcp.recoveries.end_present(&self.recoverable, self.number, why);
    }
}
