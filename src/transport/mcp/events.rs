//! Server-sent events: how messages are written, and what wakes whoever writes them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::time::Sleep;
use warp::Reply;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

use crate::clock;
use crate::mcp::{Asking, Outgoing};
use crate::protocol::mcp::replay::EventId;

/// A comment, which clients skip.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Writes a message as an event. JSON has line breaks between its tokens at most, where spaces do as well.
pub(super) fn write(out: &mut Vec<u8>, id: Option<EventId>, text: &[u8]) {
    use std::io::Write;

    out.reserve(text.len() + 64);
    if let Some(id) = id {
        writeln!(out, "id: {id}").expect("a Vec takes everything");
    }
    out.extend_from_slice(b"event: message\ndata: ");
    let start = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
}

/// The event with which a stream begins that its client may lose: it has an id, and no message.
///
/// Source: MCP 2025-11-25, Streamable HTTP (SEP-1699). Without its `data` line, clients would not see it.
pub(super) fn priming(id: EventId, retry_ms: u64) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {retry_ms}\ndata: \n\n"))
}

/// The answer whose body is a stream of events.
pub(super) fn response<S>(events: S) -> Response
where
    S: futures::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + Sync + 'static,
{
    let mut response = warp::reply::stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Messages that wait, and the task that is to send them.
pub(super) fn outgoing() -> (Arc<Outgoing>, Arc<AtomicWaker>) {
    let waker = Arc::new(AtomicWaker::new());
    let woken = Arc::clone(&waker);
    (Arc::new(Outgoing::new(move || woken.wake())), waker)
}

/// The same in a session that remembers its calls.
pub(super) fn asking(asking: Asking) -> (Arc<Outgoing>, Arc<AtomicWaker>) {
    let waker = Arc::new(AtomicWaker::new());
    let woken = Arc::clone(&waker);
    (Arc::new(Outgoing::asking(asking, move || woken.wake())), waker)
}

/// When a silent stream gets its next comment.
pub(super) struct KeepAlive {
    interval_ms: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl KeepAlive {
    pub(super) fn new(interval_ms: u64) -> Self {
        KeepAlive { interval_ms, timer: None }
    }

    /// Notes that something was sent.
    pub(super) fn sent(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(clock::in_ms(self.interval_ms));
        }
    }

    /// Ready when it is time for a comment.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let interval_ms = self.interval_ms;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(clock::in_ms(interval_ms))));
        std::task::ready!(timer.as_mut().poll(cx));
        timer.as_mut().reset(clock::in_ms(interval_ms));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_json() {
        let mut out = Vec::new();

        write(&mut out, Some(EventId { stream: 3, seq: 7 }), b"{\"id\":{\n\"a\":\r\n1}}");
        write(&mut out, None, b"{}");

        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "id: 3-7\nevent: message\ndata: {\"id\":{ \"a\":  1}}\n\nevent: message\ndata: {}\n\n");
        assert_eq!(priming(EventId { stream: 3, seq: 0 }, 500), "id: 3-0\nretry: 500\ndata: \n\n");
    }
}
