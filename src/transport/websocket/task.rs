//! One WebSocket connection: a hand-written future, so that its size is what its fields are.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Sleep;

use super::link::Link;
use crate::channel::host::Host;
use crate::clock;
use crate::outbox::{Conn, Control, Status};
use crate::protocol::limits::{CLOSE_LINGER_MS, ORPHAN_HANDLER_MS, OUTBOX_BYTES_READ_PAUSE};
use crate::protocol::websocket::deflate::Negotiated;
use crate::protocol::websocket::{self, Decoder, Event, Step};
use crate::pubsub::Live;
use crate::transport::admission::Permit;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one poll, after which the task lets others run.
const READS_PER_POLL: usize = 8;
/// Bytes of answers that a thread keeps room for between polls.
const OUT_BYTES_KEPT: usize = 256 * 1024;

/// Close code of an internal error: a malformed message.
const CLOSE_MALFORMED: u16 = 1011;
/// Close code after `disconnect`.
const CLOSE_GOING_AWAY: u16 = 1001;
/// Close code of an idle socket, as Bandit's.
const CLOSE_IDLE: u16 = 1002;
/// Close code of a server that stops.
const CLOSE_RESTART: u16 = 1012;
/// The answer to any valid close of the client.
const CLOSE_NORMAL: u16 = 1000;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection's future.
pub(super) struct Task {
    link: Link,
    conn: Arc<Conn>,
    host: Host,
    decoder: Decoder,
    /// The beginning of a frame whose rest has not come, or frames that wait for a busy channel.
    unparsed: Vec<u8>,
    /// Bytes that `unparsed` must have before parsing it is worth while.
    need: usize,
    closing: Option<Box<Closing>>,
    /// The conversation counts as live until its last output is written and its handlers are through.
    live: Option<Live>,
    _permit: Option<Arc<Permit>>,
}

struct Closing {
    deadline: Pin<Box<Sleep>>,
    stage: Stage,
}

enum Stage {
    /// Output is still on its way.
    Flushing,
    /// All output is written; that it is all is still to be told.
    Shutting,
    /// Our side is shut; the client's close is awaited.
    Lingering,
    /// The stream is gone; handlers may still run.
    Gone,
}

/// How the conversation ends.
enum End {
    /// With a close frame.
    Close(u16),
    /// The client sends no more, without a close frame; it may still read.
    Finished,
    /// The stream is broken, or its client too slow.
    Reset,
}

impl Task {
    pub(super) fn new(
        link: Link,
        conn: Arc<Conn>,
        host: Host,
        negotiated: Option<Negotiated>,
        unparsed: Vec<u8>,
        permit: Option<Arc<Permit>>,
    ) -> Self {
        let decoder = Decoder::new(negotiated);
        let live = Some(host.live_guard());
        Task { link, conn, host, decoder, unparsed, need: 1, closing: None, live, _permit: permit }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        match self.conn.ordered() {
            Some(Control::Disconnect) => return Err(End::Close(CLOSE_GOING_AWAY)),
            Some(Control::Drain) => {
                // What was said before, such as that a stream of changes ends, still goes out.
                let _ = self.host.poll(cx, out);
                return Err(End::Close(CLOSE_RESTART));
            }
            // A client that is not read because its channels are busy, or the shards, is not idle.
            Some(Control::Idle) if self.host.is_clogged() || self.awaits_room() => self.conn.forgive_idle(clock::now()),
            Some(Control::Idle) => return Err(End::Close(CLOSE_IDLE)),
            None => {}
        }
        if self.conn.status() != Status::Open {
            return Err(End::Reset);
        }
        self.host.poll(cx, out).map_err(|fatal| malformed(&fatal.0))?;
        self.host.flush(out);

        for _ in 0..READS_PER_POLL {
            if self.poll_write(cx)?.is_pending() && self.conn.pending_bytes() > OUTBOX_BYTES_READ_PAUSE {
                return Ok(());
            }
            if self.host.awaits_shard() || self.awaits_room() {
                return Ok(());
            }
            if self.unparsed.len() >= self.need {
                self.parse_kept(cx, out)?;
                self.host.flush(out);
            }
            if self.host.is_clogged() {
                return Ok(());
            }
            if self.unparsed.len() >= self.need {
                continue;
            }
            match self.poll_read(cx, out)? {
                Poll::Pending => {
                    // What the reads brought about may have left output or mail behind.
                    let _ = self.poll_write(cx)?;
                    return Ok(());
                }
                Poll::Ready(()) => self.host.flush(out),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Whether the shards have so much waiting that no more is read; where they have, the task is woken once it has passed.
    fn awaits_room(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.awaits_room(&self.conn))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        match self.link.poll_flush(&self.conn, cx) {
            Poll::Ready(Status::Open) => Ok(Poll::Ready(())),
            Poll::Ready(_) => Err(End::Reset),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<Poll<()>, End> {
        // The buffer is taken, not borrowed, so that a panic in between costs this thread a buffer and nothing else.
        let mut buffer = READ.take();
        buffer.resize(READ_BYTES, 0);
        let result = self.read_into(&mut buffer, cx, out);
        READ.set(buffer);
        result
    }

    fn read_into(&mut self, buffer: &mut [u8], cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<Poll<()>, End> {
        let mut read = ReadBuf::new(buffer);
        match self.link.poll_read(cx, &mut read) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(_)) => return Err(End::Reset),
            Poll::Ready(Ok(())) => {}
        }
        let data = read.filled_mut();
        if data.is_empty() {
            return Err(End::Finished);
        }
        if self.unparsed.is_empty() {
            let parsed = self.parse(data, cx, out)?;
            self.unparsed.extend_from_slice(&data[parsed..]);
        } else {
            self.unparsed.extend_from_slice(data);
            if self.unparsed.len() >= self.need {
                self.parse_kept(cx, out)?;
            }
        }
        Ok(Poll::Ready(()))
    }

    fn parse_kept(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        let mut kept = std::mem::take(&mut self.unparsed);
        let parsed = self.parse(&mut kept, cx, out)?;
        if parsed < kept.len() {
            kept.drain(..parsed);
            self.unparsed = kept;
        }
        Ok(())
    }

    /// Parses and handles whole frames, until there is enough to say for one write. Gives back how many bytes they were.
    fn parse(&mut self, data: &mut [u8], cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, End> {
        let mut parsed = 0;
        self.need = 1;
        while parsed < data.len()
            && !self.host.is_clogged()
            && !self.host.is_ahead()
            && out.len() < OUTBOX_BYTES_READ_PAUSE
        {
            let limits = self.host.frame_limits();
            let step = self.decoder.next(&mut data[parsed..], &limits).map_err(|error| {
                tracing::debug!(%error, "protocol error");
                End::Close(error.close_code())
            })?;
            let (consumed, event) = match step {
                Step::Incomplete { need } => {
                    self.need = need;
                    break;
                }
                Step::Frame { consumed, event } => (consumed, event),
            };
            parsed += consumed;
            match event {
                Event::Message(opcode, bytes) => {
                    let received = self.host.receive(opcode, bytes, cx, out);
                    received.map_err(|fatal| malformed(&fatal.0))?;
                }
                Event::Ping(data) => websocket::write_pong(out, data),
                Event::Pong | Event::Fragment => {}
                Event::Close(_) => return Err(End::Close(CLOSE_NORMAL)),
            }
        }
        if parsed > 0 {
            self.conn.seen(clock::now());
        }
        if parsed == data.len() && !self.decoder.is_idle() {
            // Gives the memory of a reassembled or inflated message back.
            let _ = self.decoder.next(&mut [], &self.host.frame_limits());
        }
        Ok(parsed)
    }

    fn begin_closing(&mut self, end: End, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let mut farewell = Vec::new();
        let stage = match end {
            End::Close(code) => {
                websocket::write_close(&mut farewell, code, "");
                Stage::Flushing
            }
            End::Finished => Stage::Flushing,
            End::Reset => {
                out.clear();
                Stage::Gone
            }
        };
        self.host.flush(out);
        // The close frame follows the last frame of the topics: nothing comes after it.
        self.host.close(cx, &farewell);
        if matches!(stage, Stage::Gone) {
            self.drop_stream();
        }
        let wait = if matches!(stage, Stage::Gone) { ORPHAN_HANDLER_MS } else { CLOSE_LINGER_MS };
        let deadline = Box::pin(tokio::time::sleep(Duration::from_millis(wait)));
        self.closing = Some(Box::new(Closing { deadline, stage }));
        self.unparsed = Vec::new();
    }

    fn drop_stream(&mut self) {
        let direct: Option<OwnedWriteHalf> = self.conn.close();
        drop(direct);
        self.link.cut();
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        // After the close frame nothing else is said: what late handlers push is dropped.
        let _ = self.host.poll(cx, out);
        out.clear();

        let Some(mut closing) = self.closing.take() else {
            return Poll::Ready(());
        };
        if matches!(closing.stage, Stage::Flushing) && !self.conn.awaits_fence() {
            match self.poll_write(cx) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => {
                    // Dropping the write half shuts our side of the stream; what the kernel holds still goes out.
                    let direct: Option<OwnedWriteHalf> = self.conn.close();
                    drop(direct);
                    closing.stage = Stage::Shutting;
                }
                Err(_) => {
                    self.drop_stream();
                    closing.stage = Stage::Gone;
                }
            }
        }
        if matches!(closing.stage, Stage::Shutting) {
            match self.link.poll_shut(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => closing.stage = Stage::Lingering,
                Poll::Ready(Err(_)) => {
                    self.link.cut();
                    closing.stage = Stage::Gone;
                }
            }
        }
        if matches!(closing.stage, Stage::Lingering) && self.poll_discard(cx).is_ready() {
            closing.stage = Stage::Gone;
        }
        if !matches!(closing.stage, Stage::Flushing | Stage::Shutting) && self.host.is_at_rest() {
            self.live = None;
        }
        let over = closing.deadline.as_mut().poll(cx).is_ready();
        if over || matches!(closing.stage, Stage::Gone) && self.host.is_at_rest() {
            self.drop_stream();
            return Poll::Ready(());
        }
        self.closing = Some(closing);
        Poll::Pending
    }

    /// Reads and forgets until the client has closed. Ready when it has.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = READ.take();
        buffer.resize(READ_BYTES, 0);
        let mut reads = READS_PER_POLL;
        let gone = loop {
            let mut read = ReadBuf::new(&mut buffer);
            match self.link.poll_read(cx, &mut read) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => break Poll::Ready(()),
            }
            reads -= 1;
            if reads == 0 {
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
        };
        READ.set(buffer);
        gone
    }
}

fn malformed(why: &str) -> End {
    tracing::debug!(why, "malformed message");
    End::Close(CLOSE_MALFORMED)
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        task.conn.register(cx);
        let mut out = OUT.take();

        let mut done = Poll::Pending;
        if task.closing.is_none() {
            match task.poll_open(cx, &mut out) {
                Ok(()) if task.host.can_catch_up() => cx.waker().wake_by_ref(),
                Ok(()) => {}
                Err(end) => task.begin_closing(end, cx, &mut out),
            }
        }
        if task.closing.is_some() {
            done = task.poll_closing(cx, &mut out);
        }

        debug_assert!(out.is_empty(), "everything said was sent");
        out.clear();
        out.shrink_to(OUT_BYTES_KEPT);
        OUT.set(out);
        done
    }
}
