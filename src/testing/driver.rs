//! The connection's task of a client that is not there: as a WebSocket's, with a mailbox for its stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use super::mailbox::Mailbox;
use super::message;
use crate::channel::host::Host;
use crate::clock;
use crate::outbox::{Conn, Control, Status};
use crate::protocol::limits::ORPHAN_HANDLER_MS;
use crate::protocol::websocket::Opcode;
use crate::pubsub::Live;

/// The code that a client sees where there was no close frame. Source: RFC 6455, section 7.1.5.
pub(super) const CLOSE_ABNORMAL: u16 = 1006;

/// What a client does.
pub(super) enum Sent {
    /// It sends a message.
    Message(Opcode, Vec<u8>),
    /// It goes away.
    Gone,
}

pub(super) struct Driver {
    pub(super) conn: Arc<Conn>,
    pub(super) host: Host,
    /// Ends when nobody holds the client.
    pub(super) frames: mpsc::UnboundedReceiver<Sent>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) live: Live,
    /// Bytes of one message.
    pub(super) message_bytes_max: usize,
    /// Whether the client sends nothing by itself; otherwise it is as if it had just sent a heartbeat.
    pub(super) silent: bool,
}

/// Tells whoever waits for a connection that it is gone, also where its task has panicked.
struct Gone(Arc<Mailbox>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.close(CLOSE_ABNORMAL);
    }
}

impl Driver {
    pub(super) async fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.mailbox));
        let code = poll_fn(|cx| self.poll_open(cx)).await;
        let mut closed = false;
        let closing = poll_fn(|cx| {
            self.conn.register(cx);
            if !std::mem::replace(&mut closed, true) {
                self.host.close(cx, &[]);
            }
            // After its end nothing more is said: what late handlers push is dropped.
            let _ = self.host.poll(cx, &mut Vec::new());
            let fenced = self.conn.awaits_fence();
            self.deliver();
            if !fenced && self.host.is_at_rest() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(Duration::from_millis(ORPHAN_HANDLER_MS), closing).await;
        self.conn.close();
        drop((self.host, self.live));
        self.mailbox.close(code);
    }

    /// Ready with the close code when the conversation is over.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<u16> {
        self.conn.register(cx);
        let mut out = Vec::new();
        match self.conn.ordered() {
            Some(Control::Disconnect) => return Poll::Ready(1001),
            Some(Control::Drain) => {
                let _ = self.host.poll(cx, &mut out);
                self.host.flush(&mut out);
                return Poll::Ready(1012);
            }
            Some(Control::Idle) if self.host.is_clogged() => self.conn.forgive_idle(clock::now()),
            Some(Control::Idle) => return Poll::Ready(1002),
            None => {}
        }
        if self.conn.status() != Status::Open {
            return Poll::Ready(CLOSE_ABNORMAL);
        }
        if !self.silent {
            self.conn.seen(clock::now());
        }
        let polled = self.host.poll(cx, &mut out);
        self.host.flush(&mut out);
        if polled.is_err() {
            return Poll::Ready(1011);
        }
        while !self.host.is_clogged() && !self.host.awaits_shard() && !self.live.awaits_room(&self.conn) {
            let Poll::Ready(sent) = self.frames.poll_recv(cx) else { break };
            let Some(Sent::Message(opcode, bytes)) = sent else { return Poll::Ready(CLOSE_ABNORMAL) };
            if bytes.len() > self.message_bytes_max {
                return Poll::Ready(1009);
            }
            self.conn.seen(clock::now());
            let received = self.host.receive(opcode, &bytes, cx, &mut out);
            self.host.flush(&mut out);
            if received.is_err() {
                return Poll::Ready(1011);
            }
        }
        self.deliver();
        if self.host.can_catch_up() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn deliver(&self) {
        let (framed, _) = self.conn.take_pending();
        self.mailbox.put(message::decode(self.conn.version(), &framed));
        self.conn.handed_over();
    }
}
