//! A stream of events that its client may lose and pick up again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::events::{self, KeepAlive};
use super::sessions::HttpSession;
use crate::mcp::{Item, Kind, Outgoing};
use crate::protocol::Time;
use crate::protocol::mcp::replay::{EventId, NotKept, ReplayLog, SERVER_REPLAY_BYTES_MAX};

/// The number of a session's standing stream.
pub(super) const STANDING: u64 = 0;

/// The bytes that all streams keep for clients that come back. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<AtomicUsize>);

impl Kept {
    /// Notes that one stream keeps `after` bytes instead of `before`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after >= before {
            self.0.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.0.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Whether all streams keep more than they may.
    pub(super) fn is_too_much(&self) -> bool {
        self.0.load(Ordering::Relaxed) > SERVER_REPLAY_BYTES_MAX
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The answer to one POST, or a session's standing stream.
///
/// ```text
/// outgoing ─► waiting ─► log, and the reader
/// ```
///
/// Nothing goes into the log that was not given to a reader, so that a client without a stream loses notifications at
/// most, and these only above the bounds of [`Outgoing`].
pub(super) struct EventStream {
    number: u64,
    outgoing: Arc<Outgoing>,
    waker: Arc<AtomicWaker>,
    kept: Kept,
    /// The POST by which its requests were asked last.
    attachment: AtomicU64,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<Item>,
    log: ReplayLog,
    /// Bytes of both, as they were counted last.
    counted: usize,
    /// Requests of the POST that are not answered; none for a standing stream, which has no end.
    unanswered: Option<usize>,
    /// Whether its client can come back after a pause.
    pauses: bool,
    /// Who reads; 0 for nobody.
    reader: u64,
    last_reader: u64,
    /// The session has ended, and nothing more will come.
    is_closed: bool,
    /// When it was first seen to be at its end.
    ended_at: Option<Time>,
}

/// A stream that can't be picked up.
pub(super) enum Unreadable {
    /// It is at its end, and the client has everything.
    Ended,
    /// What the client lacks is not there.
    NotKept(NotKept),
}

/// What reading brought.
#[derive(PartialEq)]
enum Step {
    /// There may be more.
    Open,
    /// This reader gets no more.
    Over,
}

impl EventStream {
    /// The standing stream of a session.
    pub(super) fn standing(outgoing: Arc<Outgoing>, waker: Arc<AtomicWaker>, kept: &Kept) -> Arc<Self> {
        Arc::new(Self::new(STANDING, outgoing, waker, kept, VecDeque::new(), None, true))
    }

    /// The answer to a POST with so many requests; `waiting` is there already.
    pub(super) fn answer(
        number: u64,
        outgoing: Arc<Outgoing>,
        waker: Arc<AtomicWaker>,
        kept: &Kept,
        waiting: VecDeque<Item>,
        requests: usize,
        pauses: bool,
    ) -> Arc<Self> {
        Arc::new(Self::new(number, outgoing, waker, kept, waiting, Some(requests), pauses))
    }

    fn new(
        number: u64,
        outgoing: Arc<Outgoing>,
        waker: Arc<AtomicWaker>,
        kept: &Kept,
        waiting: VecDeque<Item>,
        unanswered: Option<usize>,
        pauses: bool,
    ) -> Self {
        let state = State {
            waiting,
            log: ReplayLog::default(),
            counted: 0,
            unanswered,
            pauses,
            reader: 0,
            last_reader: 0,
            is_closed: false,
            ended_at: None,
        };
        let attachment = AtomicU64::new(0);
        EventStream { number, outgoing, waker, kept: kept.clone(), attachment, state: Mutex::new(state) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn attachment(&self) -> u64 {
        self.attachment.load(Ordering::Relaxed)
    }

    /// Notes that a POST asks for what it answers. What pauses were meant for an earlier reader mean nothing to this one.
    pub(super) fn attach(&self, attachment: u64) {
        if self.attachment.swap(attachment, Ordering::Relaxed) != 0 {
            self.forget_pauses(&mut self.state.lock());
        }
    }

    /// Whether a client reads it, and does not have all its answers yet.
    pub(super) fn is_read(&self) -> bool {
        let state = self.state.lock();
        state.reader != 0 && state.unanswered != Some(0)
    }

    /// Reads it from here on; `retry_ms` where the client is told at once how to come back. Whoever read it before reads no
    /// more: a session has one client, whose earlier connection may be dead without anyone having been told.
    pub(super) fn open(
        self: &Arc<Self>,
        session: &Arc<HttpSession>,
        retry_ms: Option<u64>,
        keep_alive_ms: u64,
    ) -> Reader {
        let mut state = self.state.lock();
        let id = EventId { stream: self.number, seq: state.log.last() };
        let first = retry_ms.map(|retry_ms| events::priming(id, retry_ms));
        if self.number == STANDING {
            self.forget_pauses(&mut state);
        }
        self.reader(&mut state, session, first.unwrap_or_default(), keep_alive_ms)
    }

    /// Reads on after an event. Whoever read it before reads no more.
    pub(super) fn resume(
        self: &Arc<Self>,
        session: &Arc<HttpSession>,
        after: u64,
        keep_alive_ms: u64,
    ) -> Result<Reader, Unreadable> {
        let mut state = self.state.lock();
        let mut replayed = Vec::new();
        for event in state.log.after(after).map_err(Unreadable::NotKept)? {
            replayed.extend_from_slice(event);
        }
        self.forget_pauses(&mut state);
        if replayed.is_empty() && state.waiting.is_empty() && state.unanswered == Some(0) {
            return Err(Unreadable::Ended);
        }
        Ok(self.reader(&mut state, session, replayed.into(), keep_alive_ms))
    }

    /// The pauses that were meant for the reader before.
    fn forget_pauses(&self, state: &mut State) {
        state.waiting.extend(self.outgoing.take());
        state.waiting.retain(|item| item.kind != Kind::Pause);
    }

    fn reader(
        self: &Arc<Self>,
        state: &mut State,
        session: &Arc<HttpSession>,
        first: Bytes,
        keep_alive_ms: u64,
    ) -> Reader {
        state.last_reader += 1;
        state.reader = state.last_reader;
        // The one before sees that it reads no more.
        self.waker.wake();
        session.reader_came();
        Reader {
            session: Arc::clone(session),
            stream: Arc::clone(self),
            number: state.reader,
            first,
            is_over: false,
            keep_alive: KeepAlive::new(keep_alive_ms),
        }
    }

    /// Lets the reader go once it has what there is.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.waker.wake();
    }

    /// Since when the stream has been at its end, if it is and nobody reads it.
    pub(super) fn ended_at(&self, now: Time) -> Option<Time> {
        let mut state = self.state.lock();
        // Calls hold on to their route, so that one which nobody holds brings nothing more.
        let is_at_its_end = state.unanswered == Some(0) || Arc::strong_count(&self.outgoing) == 1;
        if state.reader != 0 || !is_at_its_end {
            return None;
        }
        // What came last and nobody has read counts among what is kept.
        state.waiting.extend(self.outgoing.take());
        self.count(&mut state);
        Some(*state.ended_at.get_or_insert(now))
    }

    /// Writes what waits. Only the reader registers its waker, and under the lock, so that no earlier one takes its place.
    fn read(&self, reader: u64, cx: &Context<'_>, out: &mut Vec<u8>) -> Step {
        let mut state = self.state.lock();
        if state.reader != reader {
            return Step::Over;
        }
        let State { waiting, log, unanswered, pauses, .. } = &mut *state;
        self.waker.register(cx.waker());
        waiting.extend(self.outgoing.take());
        let mut is_paused = false;
        while let Some(item) = waiting.pop_front() {
            match item.kind {
                Kind::Pause if *pauses => {
                    is_paused = true;
                    break;
                }
                Kind::Pause | Kind::Event | Kind::Busy => continue,
                Kind::Unanswered => {}
                Kind::Response(_) | Kind::Request | Kind::Notification => {
                    let event = log.append(|seq| {
                        let mut event = Vec::new();
                        events::write(&mut event, Some(EventId { stream: self.number, seq }), &item.text);
                        event.into()
                    });
                    out.extend_from_slice(event);
                }
            }
            if let (Kind::Response(_) | Kind::Unanswered, Some(left)) = (item.kind, unanswered.as_mut()) {
                *left = left.saturating_sub(1);
            }
        }
        self.count(&mut state);
        if self.kept.is_too_much() {
            state.log.forget();
            self.count(&mut state);
        }
        if is_paused || state.is_closed || state.unanswered == Some(0) { Step::Over } else { Step::Open }
    }

    /// Forgets what was given to a reader already, where all streams of the server keep more than they may. What nobody has
    /// read stays.
    pub(super) fn relieve(&self) {
        if self.kept.is_too_much() {
            let mut state = self.state.lock();
            state.log.forget();
            self.count(&mut state);
        }
    }

    /// Counts what the stream keeps among what all keep.
    fn count(&self, state: &mut State) {
        let bytes = state.log.bytes() + state.waiting.iter().map(|item| item.text.len()).sum::<usize>();
        self.kept.change(std::mem::replace(&mut state.counted, bytes), bytes);
    }

    /// Bytes that it keeps for a client that comes back, as they were counted last.
    pub(super) fn kept_bytes(&self) -> usize {
        self.state.lock().counted
    }

    /// Messages that wait for a reader.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len() + self.outgoing.waiting()
    }

    fn leave(&self, reader: u64) {
        let mut state = self.state.lock();
        if state.reader == reader {
            state.reader = 0;
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.kept.change(self.state.get_mut().counted, 0);
    }
}

/// The body of a response that reads a stream.
pub(super) struct Reader {
    session: Arc<HttpSession>,
    stream: Arc<EventStream>,
    number: u64,
    /// What is there already.
    first: Bytes,
    is_over: bool,
    keep_alive: KeepAlive,
}

impl Stream for Reader {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut out = Vec::from(std::mem::take(&mut this.first));
        if !this.is_over {
            this.is_over = this.stream.read(this.number, cx, &mut out) == Step::Over;
        }
        if !out.is_empty() {
            this.keep_alive.sent();
            return Poll::Ready(Some(Ok(out.into())));
        }
        if this.is_over {
            if this.stream.state.lock().unanswered == Some(0) {
                this.session.delivered(this.stream.attachment());
            }
            return Poll::Ready(None);
        }
        this.keep_alive.poll(cx).map(|()| Some(Ok(events::COMMENT)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.leave(self.number);
        self.session.reader_left(!self.is_over);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads what there is without being a client's reader.
    fn read(stream: &EventStream) -> usize {
        let mut out = Vec::new();
        stream.read(0, &Context::from_waker(Waker::noop()), &mut out);
        out.len()
    }

    #[test]
    fn where_all_streams_keep_too_much_one_that_is_read_keeps_nothing() {
        let kept = Kept::default();
        let (outgoing, waker) = events::outgoing();
        let stream = EventStream::standing(Arc::clone(&outgoing), waker, &kept);
        let push = || outgoing.push(Kind::Notification, Bytes::from_static(b"{}"));
        push();
        push();
        let event = read(&stream) / 2;
        assert_eq!((kept.bytes(), stream.kept_bytes()), (2 * event, 2 * event));

        kept.change(0, SERVER_REPLAY_BYTES_MAX - 2 * event);
        assert!(!kept.is_too_much(), "as much as may be");
        push();
        assert_eq!((read(&stream), stream.kept_bytes()), (event, 0), "given to its reader alone");
        push();
        assert_eq!((read(&stream), stream.kept_bytes()), (event, event), "there is room again");

        kept.change(SERVER_REPLAY_BYTES_MAX - 2 * event, 0);
        drop(stream);
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn a_quiet_stream_gives_up_what_was_read_of_it_and_nothing_else() {
        let kept = Kept::default();
        let (outgoing, waker) = events::outgoing();
        let stream = EventStream::standing(Arc::clone(&outgoing), waker, &kept);
        outgoing.push(Kind::Notification, Bytes::from_static(b"{}"));
        let event = read(&stream);
        stream.relieve();
        assert_eq!(stream.kept_bytes(), event, "there is room");

        kept.change(0, SERVER_REPLAY_BYTES_MAX);
        outgoing.push(Kind::Notification, Bytes::from_static(b"{}"));
        stream.relieve();

        assert_eq!((stream.kept_bytes(), kept.bytes()), (0, SERVER_REPLAY_BYTES_MAX));
        assert_eq!(read(&stream), event, "what nobody has read");
    }

    #[test]
    fn what_nobody_has_read_of_an_ended_stream_is_counted() {
        let kept = Kept::default();
        let (outgoing, waker) = events::outgoing();
        let stream = EventStream::answer(1, Arc::clone(&outgoing), waker, &kept, VecDeque::new(), 1, false);
        outgoing.push(Kind::Response(None), Bytes::from_static(b"{}"));
        assert_eq!(stream.ended_at(Time(1)), None, "somebody may still answer");

        drop(outgoing);

        assert_eq!((stream.ended_at(Time(1)), stream.kept_bytes(), kept.bytes()), (Some(Time(1)), 2, 2));
    }
}
