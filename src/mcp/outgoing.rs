//! What waits to be sent to a client on one stream: a channel, the answer to a POST, a standing stream of events.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::recovery::Asking;
use crate::protocol::jsonrpc::CallNumber;
use crate::protocol::mcp::recovery::{Asked, AskedCall, Class, Recovery, RepeatRefused, Taken, Unsaved};
use crate::protocol::mcp::{OUTGOING_BYTES_MAX, OUTGOING_MESSAGES_MAX};

/// What sort of message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer to a request: an error's code, or none for a result.
    Response(Option<i64>),
    /// No answer: a workflow's call was not begun, because too many are under way.
    Busy,
    /// A request of the server, or what takes one back.
    Request,
    /// A notification in the course of a request, or of a change: it may be dropped where too much waits.
    Notification,
    /// A `streaming_event`, which is no JSON-RPC; it may be dropped.
    Event,
    /// No message: a request that its client gave up will not be answered.
    Unanswered,
    /// No message: the stream should end here, for its client to come back later. What follows waits for it.
    Pause,
}

impl Kind {
    fn class(self) -> Option<Class> {
        match self {
            Kind::Response(_) | Kind::Busy => Some(Class::Response),
            Kind::Request => Some(Class::Request),
            Kind::Notification => Some(Class::Notification),
            Kind::Event => Some(Class::Event),
            Kind::Unanswered | Kind::Pause => None,
        }
    }

    /// Whether it is a message for the client, and not a word to whoever sends these.
    pub(crate) fn is_message(self) -> bool {
        !matches!(self, Kind::Unanswered | Kind::Pause)
    }
}

/// One message that waits.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) text: Bytes,
}

/// A stream's waiting messages, in order. Whoever sends them is woken at most once until it takes them, so that no inbox
/// overflows however much there is.
///
/// That of a session which can be come back to keeps its messages in its log instead, where they stay when they are taken.
pub(crate) struct Outgoing {
    state: Mutex<State>,
    is_recoverable: bool,
    /// The calls of its session, where it is the answer to a POST of one.
    asking: Option<Asking>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Where its session is stored: nothing is handed out before it was.
    storing: Option<Storing>,
}

/// How a stream's session is stored: snapshot by snapshot.
struct Storing {
    /// Called when there is something to store, once until it is taken.
    note: Box<dyn Fn() + Send + Sync>,
    /// The last snapshot that is stored and left nothing; none once storing has failed.
    stored: watch::Sender<Option<u64>>,
}

/// What should have been stored could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotStored;

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    bytes: usize,
    is_woken: bool,
    is_closed: bool,
    recovery: Option<Box<Recovery>>,
    /// Whether it is known that there is something to store.
    is_noted: bool,
    /// Snapshots that were taken.
    snapshots: u64,
    /// The last of these that left nothing.
    whole: u64,
}

impl Outgoing {
    /// An empty stream; `wake` is called from any thread when there is something to take, and must not block.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Outgoing { state: Mutex::default(), is_recoverable: false, asking: None, wake: Box::new(wake), storing: None }
    }

    /// The same for a session that can be come back to.
    pub(crate) fn recoverable(recovery: Recovery, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State { recovery: Some(Box::new(recovery)), ..State::default() };
        Outgoing { state: Mutex::new(state), is_recoverable: true, asking: None, wake: Box::new(wake), storing: None }
    }

    /// The same for the answer to a POST, in a session that remembers its calls.
    pub(crate) fn asking(asking: Asking, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Outgoing { asking: Some(asking), ..Outgoing::new(wake) }
    }

    /// The same for one that is stored; `note` is called from any thread when there is something to store, and must not block.
    pub(crate) fn stored(self, note: impl Fn() + Send + Sync + 'static) -> Self {
        let storing = Storing { note: Box::new(note), stored: watch::Sender::new(Some(0)) };
        Outgoing { storing: Some(storing), ..self }
    }

    /// Whether its session is stored.
    pub(crate) fn is_stored(&self) -> bool {
        self.storing.is_some()
    }

    /// Waits until all that has happened so far is stored; at once where nothing is.
    ///
    /// # Errors
    /// [`NotStored`]: the session ends.
    pub(crate) async fn until_stored(&self) -> Result<(), NotStored> {
        let Some(storing) = &self.storing else { return Ok(()) };
        let wanted = {
            let state = self.state.lock();
            let has_unsaved = state.recovery.as_ref().is_some_and(|recovery| recovery.has_unsaved());
            state.snapshots + u64::from(has_unsaved)
        };
        let mut stored = storing.stored.subscribe();
        let reached = stored.wait_for(|stored| stored.is_none_or(|stored| stored >= wanted)).await;
        if reached.is_ok_and(|stored| stored.is_some()) { Ok(()) } else { Err(NotStored) }
    }

    /// Takes a snapshot of what is to be stored, about so many bytes of messages; none where there is nothing. One at a time.
    pub(crate) fn snapshot(&self, bytes_max: usize) -> Option<Unsaved> {
        let mut state = self.state.lock();
        state.is_noted = false;
        let recovery = state.recovery.as_mut()?;
        let unsaved = recovery.unsaved(bytes_max)?;
        let is_whole = !recovery.has_unsaved();
        state.snapshots += 1;
        if is_whole {
            state.whole = state.snapshots;
        }
        Some(unsaved)
    }

    /// Notes that the last snapshot is stored, or can't be.
    pub(crate) fn snapshot_stored(&self, unsaved: Result<&Unsaved, NotStored>) {
        let Some(storing) = &self.storing else { return };
        let Ok(unsaved) = unsaved else {
            storing.stored.send_replace(None);
            return;
        };
        let mut state = self.state.lock();
        let has_more = state.recovery.as_mut().is_some_and(|recovery| recovery.saved(unsaved.upto));
        let stored = state.whole;
        let wakes = has_more && !std::mem::replace(&mut state.is_woken, true);
        self.note(state);
        storing.stored.send_if_modified(|known| match known {
            Some(known) => std::mem::replace(known, stored) != stored,
            None => false,
        });
        if wakes {
            (self.wake)();
        }
    }

    /// Says that there is something to store, where there is.
    fn note(&self, mut state: MutexGuard<'_, State>) {
        let Some(storing) = &self.storing else { return };
        let has_unsaved = state.recovery.as_ref().is_some_and(|recovery| recovery.has_unsaved());
        if has_unsaved && !std::mem::replace(&mut state.is_noted, true) {
            drop(state);
            (storing.note)();
        }
    }

    /// Whether its session can be come back to.
    pub(crate) fn is_recoverable(&self) -> bool {
        self.is_recoverable
    }

    /// Whether its session remembers which calls have been run.
    pub(crate) fn remembers_calls(&self) -> bool {
        self.is_recoverable || self.asking.is_some()
    }

    /// Adds what is no message: [`Kind::Unanswered`] or [`Kind::Pause`].
    pub(crate) fn mark(&self, kind: Kind) {
        self.push(kind, Bytes::new());
    }

    /// Adds a message. Above the bounds the oldest notifications go; answers and requests stay, which are bounded by the
    /// calls under way.
    pub(crate) fn push(&self, kind: Kind, text: Bytes) {
        self.add(kind, text, None);
    }

    /// Adds the answer to a request, which may be asked again.
    pub(crate) fn answer(&self, number: CallNumber, kind: Kind, text: Bytes) {
        let text = match &self.asking {
            Some(asking) => asking.answered(number, text),
            None => text,
        };
        self.add(kind, text, Some(number));
    }

    fn add(&self, kind: Kind, text: Bytes, answered: Option<CallNumber>) {
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            if let Some(recovery) = &mut state.recovery {
                match (answered, kind.class()) {
                    (_, None) => return,
                    (Some(number), _) => recovery.answer(number, text),
                    (None, Some(class)) => recovery.push(class, text),
                }
                if self.is_stored() {
                    return self.note(state);
                }
                if std::mem::replace(&mut state.is_woken, true) {
                    return;
                }
                drop(state);
                return (self.wake)();
            }
            if kind == Kind::Pause && state.queue.back().is_some_and(|last| last.kind == Kind::Pause) {
                return;
            }
            state.bytes += text.len();
            state.queue.push_back(Item { kind, text });
            if state.queue.len() > OUTGOING_MESSAGES_MAX || state.bytes > OUTGOING_BYTES_MAX {
                state.drop_notifications();
            }
            if std::mem::replace(&mut state.is_woken, true) {
                return;
            }
        }
        (self.wake)();
    }

    /// Notes that a request gets no answer, because its client took it back.
    pub(crate) fn unanswered(&self, number: CallNumber) {
        self.take_back(number);
        if !self.is_recoverable {
            self.mark(Kind::Unanswered);
        }
    }

    /// Notes that a client took a call back.
    pub(crate) fn take_back(&self, number: CallNumber) {
        self.recovery(|recovery| recovery.take_back(number));
        self.with_asking(|asking| asking.with(|executions| executions.take_back(number)));
    }

    /// Looks at a call that is asked for; an id that `is_anothers` is no call's unless it is remembered as one. What is to be said
    /// of it is added here.
    pub(crate) fn ask(&self, call: &AskedCall, is_anothers: bool) -> Result<Asked, RepeatRefused> {
        let asked = match &self.asking {
            Some(asking) => Some(asking.ask(call, is_anothers)),
            None => self.recovery(|recovery| {
                if is_anothers && !recovery.knows(&call.id) { Ok(Asked::New) } else { recovery.ask(call) }
            }),
        };
        let asked = asked.unwrap_or(Ok(Asked::New))?;
        match &asked {
            Asked::Again(_, text) if self.asking.is_some() => self.push(Kind::Response(None), text.clone()),
            Asked::Again(..) => self.rouse(),
            _ => {}
        }
        Ok(asked)
    }

    /// The attachment on whose stream the only call asked for goes on.
    pub(crate) fn joined(&self) -> Option<u64> {
        self.asking.as_ref().and_then(Asking::joined)
    }

    fn with_asking(&self, act: impl FnOnce(&Asking)) {
        if let Some(asking) = &self.asking {
            act(asking);
        }
    }

    /// Notes that a call was refused before anything ran.
    pub(crate) fn not_run(&self, number: CallNumber) {
        self.recovery(|recovery| recovery.not_run(number));
        self.with_asking(|asking| asking.with(|executions| executions.forget(number)));
    }

    /// Notes that the answer to a call will say that it was not run.
    pub(crate) fn answers_not_run(&self, number: CallNumber) {
        self.recovery(|recovery| recovery.answers_not_run(number));
        self.with_asking(|asking| asking.with(|executions| executions.answers_not_run(number)));
    }

    /// Notes that a call begins, with the text of its request; false where one of its id or its key has begun meanwhile.
    pub(crate) fn begin(&self, number: CallNumber, call: &AskedCall, request: &[u8]) -> bool {
        if let Some(asking) = &self.asking {
            return asking.begin(number, call);
        }
        let begin = |recovery: &mut Recovery| {
            let begins = recovery.begin(number, call);
            if begins && self.is_stored() {
                recovery.keep_request(number, Bytes::copy_from_slice(request));
            }
            begins
        };
        self.recovery(begin).unwrap_or(true)
    }

    /// Does something with what makes its session one to come back to, if anything does. Whoever says something so calls
    /// [`Outgoing::rouse`] afterwards.
    pub(crate) fn recovery<R>(&self, act: impl FnOnce(&mut Recovery) -> R) -> Option<R> {
        if !self.is_recoverable {
            return None;
        }
        let mut state = self.state.lock();
        let acted = state.recovery.as_deref_mut().map(act);
        self.note(state);
        acted
    }

    /// Wakes whoever sends, unless that has been done.
    pub(crate) fn rouse(&self) {
        if !std::mem::replace(&mut self.state.lock().is_woken, true) {
            (self.wake)();
        }
    }

    /// Hands the present attachment about so many bytes of what waits; none to an older one.
    pub(crate) fn take_for(&self, attachment: u64, bytes_max: usize) -> Option<Taken> {
        let mut state = self.state.lock();
        let taken = state.recovery.as_mut()?.take(attachment, bytes_max)?;
        state.is_woken = false;
        Some(taken)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.recovery.as_ref().map_or(state.bytes, |recovery| recovery.log().waiting_bytes())
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.recovery.as_ref().map_or(state.queue.len(), |recovery| recovery.log().waiting_len())
    }

    /// Takes everything that waits, in order.
    pub(crate) fn take(&self) -> VecDeque<Item> {
        let mut state = self.state.lock();
        state.is_woken = false;
        state.bytes = 0;
        std::mem::take(&mut state.queue)
    }

    /// Takes what waits without having been woken: whoever calls this takes again at once whatever comes.
    pub(crate) fn hold(&self) -> Held<'_> {
        let was_woken = std::mem::replace(&mut self.state.lock().is_woken, true);
        Held { outgoing: self, was_woken }
    }

    /// Drops what waits and takes no more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
    }
}

impl State {
    fn drop_notifications(&mut self) {
        while self.queue.len() > OUTGOING_MESSAGES_MAX || self.bytes > OUTGOING_BYTES_MAX {
            let is_droppable = |item: &Item| matches!(item.kind, Kind::Notification | Kind::Event);
            let Some(index) = self.queue.iter().position(is_droppable) else {
                return;
            };
            let gone = self.queue.remove(index).expect("the index was found above");
            self.bytes -= gone.text.len();
        }
    }
}

/// A stream whose reader is at work: it is not woken, and reads before it lets go.
pub(crate) struct Held<'a> {
    outgoing: &'a Outgoing,
    was_woken: bool,
}

impl Held<'_> {
    /// Lets go and takes nothing. A wake-up that was under way before stays so, unless another attachment has come meanwhile, which
    /// is woken.
    pub(crate) fn release(self, attachment: u64) {
        let mut state = self.outgoing.state.lock();
        let is_present = state.recovery.as_ref().is_some_and(|recovery| recovery.is_present(attachment));
        state.is_woken = !is_present || self.was_woken;
        drop(state);
        if !is_present {
            (self.outgoing.wake)();
        }
    }

    /// Takes what waits and lets go. A wake-up that was under way before stays so.
    pub(crate) fn take(self) -> VecDeque<Item> {
        let mut state = self.outgoing.state.lock();
        state.is_woken = self.was_woken;
        state.bytes = 0;
        std::mem::take(&mut state.queue)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn stream() -> (Outgoing, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let wake = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (Outgoing::new(wake), wakes)
    }

    #[test]
    fn a_reader_is_woken_once_until_it_reads() {
        let (stream, wakes) = stream();

        stream.push(Kind::Request, Bytes::from_static(b"1"));
        stream.push(Kind::Request, Bytes::from_static(b"2"));
        assert_eq!((wakes.load(Ordering::SeqCst), stream.take().len()), (1, 2));
        stream.push(Kind::Request, Bytes::from_static(b"3"));
        assert_eq!(wakes.load(Ordering::SeqCst), 2);

        let held = stream.hold();
        stream.push(Kind::Request, Bytes::from_static(b"4"));
        assert_eq!((held.take().len(), wakes.load(Ordering::SeqCst)), (2, 2));
    }

    #[test]
    fn a_held_stream_wakes_nobody() {
        let (stream, wakes) = stream();

        let held = stream.hold();
        stream.push(Kind::Request, Bytes::from_static(b"1"));
        assert_eq!((held.take().len(), wakes.load(Ordering::SeqCst)), (1, 0));

        stream.push(Kind::Request, Bytes::from_static(b"2"));
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_flood_drops_the_oldest_notifications_and_nothing_else() {
        let (stream, _) = stream();
        stream.push(Kind::Response(None), Bytes::from_static(b"first"));
        for n in 0..OUTGOING_MESSAGES_MAX * 2 {
            stream.push(Kind::Notification, Bytes::from(n.to_string()));
        }
        stream.push(Kind::Response(None), Bytes::from_static(b"last"));

        let taken = stream.take();

        assert_eq!(taken.len(), OUTGOING_MESSAGES_MAX);
        assert_eq!((&taken[0].text[..], &taken[taken.len() - 1].text[..]), (&b"first"[..], &b"last"[..]));
        assert_eq!(taken[taken.len() - 2].text, (OUTGOING_MESSAGES_MAX * 2 - 1).to_string());
    }

    #[test]
    fn bytes_are_bounded_too_and_a_closed_stream_takes_nothing() {
        let (stream, _) = stream();
        for _ in 0..5 {
            stream.push(Kind::Notification, Bytes::from(vec![b'x'; OUTGOING_BYTES_MAX / 3]));
        }
        assert_eq!(stream.take().len(), 3);

        stream.close();
        stream.push(Kind::Request, Bytes::new());
        assert!(stream.take().is_empty());
    }
}
