//! One conversation with a client, whatever carries it: its peer, its calls, and who else hears of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Mcp;
use super::auth::Identity;
use super::call::Call;
use super::cancel::CancelReason;
use super::connections::Record;
use super::outgoing::{Kind, Outgoing};
use super::recovery::Orphans;
use super::runs::{Run, Watch};
use super::server::ServerShared;
use super::upstream::{Attachment, Instance};
use crate::protocol::jsonrpc::{self, AskId, CallNumber, Incoming};
use crate::protocol::mcp::BATCH_ANSWER_BYTES_MAX;
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::peer::{Peer, Received};
use crate::protocol::mcp::session::session_id;
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::version::Version;
use crate::{clock, random};

/// The sessions of this node that can be found by their id.
#[derive(Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<Box<str>, Weak<Session>>>>);

/// One conversation. Its calls end with it, but for those that became tasks.
pub(crate) struct Session {
    id: Box<str>,
    number: u64,
    connection: AtomicU64,
    pub(super) mcp: Arc<Mcp>,
    pub(super) server: Arc<ServerShared>,
    pub(super) user: Identity,
    /// Where goes what no request caused.
    standing: Arc<Outgoing>,
    /// Whether the client gets the streaming events of its calls.
    is_streaming: AtomicBool,
    /// Whether its client is a workflow's run of this program.
    is_workflow: bool,
    /// What it has with the servers behind its own, where that one passes requests on.
    pub(super) attachment: Option<Box<Attachment>>,
    pub(super) peer: Mutex<Peer>,
    pub(super) lively: Mutex<Lively>,
    /// The place of its calls among those that run on, once its client is lost.
    pub(super) orphans: OnceLock<Orphans>,
    pub(super) record: Record,
}

type Answered = Result<Box<RawValue>, Box<RawValue>>;

/// Who waits for the answer to a request of the server.
pub(super) enum Waiting {
    /// For its result or its error.
    Outcome(oneshot::Sender<Answered>),
    /// For its text, as another server does, and with it for word of how the client gets on.
    Text { sender: oneshot::Sender<Bytes>, progress: Option<(Box<RawValue>, Arc<Instance>)> },
}

#[derive(Default)]
pub(super) struct Lively {
    /// Those that wait for something.
    calls: Vec<Arc<Call>>,
    pub(super) asks: BTreeMap<AskId, Waiting>,
    pub(super) listens: Vec<Listen>,
    /// URIs, in the legacy era.
    pub(super) subscriptions: BTreeSet<String>,
    observer: Option<Observer>,
    /// Counts the observers, so that one that goes takes only itself away.
    last_observer: u64,
    /// Why the session ended, once it has.
    ended: Option<CancelReason>,
}

/// A stream of change notifications, in the stateless era.
pub(super) struct Listen {
    pub(super) number: CallNumber,
    pub(super) id: Box<RawValue>,
    pub(super) filter: Filter,
    pub(super) route: Arc<Outgoing>,
}

/// The channel beside the session that sees its events: how it is woken, and its watch of each call under way.
struct Observer {
    number: u64,
    wake: Wake,
    watches: Vec<Arc<Watch>>,
}

type Wake = Arc<dyn Fn(&Arc<Watch>) -> bool + Send + Sync>;

/// The right to see a session's events, until it is dropped or another channel takes its place.
pub(super) struct Observation {
    session: Weak<Session>,
    number: u64,
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            let mut lively = session.lively.lock();
            drop(lively.observer.take_if(|observer| observer.number == self.number));
        }
    }
}

impl Observer {
    fn watch(&mut self, run: &Arc<Run>, after: u64) {
        let wake = Arc::clone(&self.wake);
        self.watches.push(run.watch(after, move |watch| wake(watch)));
    }
}

impl Drop for Observer {
    /// A channel that is gone takes mail without a word while its connection lives, so that no run would notice.
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.run().unwatch(watch);
        }
    }
}

/// What a session is opened with.
pub(crate) struct NewSession {
    pub(crate) server: Arc<ServerShared>,
    pub(crate) user: Identity,
    /// Among whose calls its calls are counted.
    pub(crate) connection: u64,
    pub(crate) peer: Peer,
    pub(crate) standing: Arc<Outgoing>,
    pub(crate) is_streaming: bool,
    /// The params of an `initialize` that says what the join said, where that was the handshake.
    pub(crate) introduction: Option<Box<RawValue>>,
    /// Whether the client is a workflow's run, whose steps are no runs of their own.
    pub(crate) is_workflow: bool,
}

impl Sessions {
    /// The session of that id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.0.lock().get(id)?.upgrade()
    }

    /// Lets nobody find a session any more; another of its id stays.
    fn forget(&self, session: &Session) {
        let mut sessions = self.0.lock();
        if sessions.get(&session.id).is_some_and(|found| std::ptr::eq(found.as_ptr(), session)) {
            sessions.remove(&session.id);
        }
    }

    /// Sessions that can be found.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Session {
    /// Opens a session that can be found by its id and hears of changes.
    pub(crate) fn open(mcp: &Arc<Mcp>, new: NewSession) -> Arc<Self> {
        Self::reopen(mcp, new, &session_id(random::bytes()))
    }

    /// Opens a session that nobody finds: that of one stateless request.
    pub(crate) fn passing(mcp: &Arc<Mcp>, new: NewSession) -> Arc<Self> {
        Self::of_id(mcp, new, session_id(random::bytes()).into())
    }

    /// Opens a session that was there before, under its id.
    pub(super) fn reopen(mcp: &Arc<Mcp>, new: NewSession, id: &str) -> Arc<Self> {
        let session = Self::of_id(mcp, new, id.into());
        mcp.sessions.0.lock().insert(session.id.clone(), Arc::downgrade(&session));
        session.server.join(session.number, &session);
        session
    }

    fn of_id(mcp: &Arc<Mcp>, new: NewSession, id: Box<str>) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let passes_on = new.server.passes_on();
        Arc::new(Session {
            id,
            number: LAST.fetch_add(1, Ordering::Relaxed),
            connection: AtomicU64::new(new.connection),
            mcp: Arc::clone(mcp),
            server: new.server,
            user: new.user,
            standing: new.standing,
            is_streaming: AtomicBool::new(new.is_streaming),
            is_workflow: new.is_workflow,
            attachment: passes_on.then(|| Box::new(Attachment::new(new.introduction))),
            peer: Mutex::new(if passes_on { new.peer.relaying() } else { new.peer }),
            lively: Mutex::default(),
            orphans: OnceLock::new(),
            record: Record::default(),
        })
    }

    /// `mcp_session_` and 16 hex digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    pub(crate) fn user(&self) -> &Identity {
        &self.user
    }

    /// Among whose calls its calls are counted.
    pub(super) fn connection(&self) -> u64 {
        self.connection.load(Ordering::Relaxed)
    }

    /// Counts its calls among those of another connection from here on: its client has come back by that.
    pub(super) fn move_to(&self, connection: u64) {
        self.connection.store(connection, Ordering::Relaxed);
    }

    /// Its number among the sessions of this process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Where goes what no request caused.
    pub(crate) fn standing(&self) -> &Arc<Outgoing> {
        &self.standing
    }

    /// Requests under way.
    pub(crate) fn under_way(&self) -> usize {
        self.peer.lock().under_way()
    }

    /// Requests under way that are no streams of changes.
    pub(super) fn calls_under_way(&self) -> usize {
        let under_way = self.peer.lock().under_way();
        under_way - self.lively.lock().listens.len().min(under_way)
    }

    /// The revision that was agreed on, once it was.
    pub(crate) fn version(&self) -> Option<Version> {
        self.peer.lock().client().map(|client| client.version)
    }

    /// Takes a message of the client, the text of one JSON value; what it is answered with goes to `route`.
    pub(crate) fn receive(self: &Arc<Self>, text: &[u8], route: &Arc<Outgoing>) {
        let Ok(asked) = self.ask_once(text, route) else { return };
        let received = self.peer.lock().receive(text, clock::now());
        match received {
            Received::Nothing => {}
            Received::Initialized => {
                self.note_change();
                self.pass_initialized(text);
            }
            Received::RootsChanged | Received::Other(_) => self.pass_notification(text),
            Received::Progress(ask, text) => self.pass_progress(ask, text),
            Received::Serve(call) => {
                if asked.is_none_or(|asked| route.begin(call.number, &asked, text)) {
                    return self.serve(call, route);
                }
                self.finish(call.number);
                self.refuse_twin(call.id, route);
            }
            Received::Refuse(id, fault) => self.refuse(id, &fault, route),
            Received::Batch(messages) => {
                // Of a channel what others are answered with waits in the same place.
                let before = route.bytes();
                for message in messages {
                    // A batch within a batch is no message, and would nest as deeply as its sender likes.
                    match message.get().as_bytes() {
                        [b'[', ..] => self.refuse(None, &jsonrpc::Fault::InvalidMessage, route),
                        text if route.bytes().saturating_sub(before) > BATCH_ANSWER_BYTES_MAX => {
                            self.refuse_rest(text, route)
                        }
                        text => self.receive(text, route),
                    }
                }
            }
            Received::Cancel(number, reason) => self.cancel(number, reason),
            Received::Answered(ask, outcome) => {
                let waiting = self.lively.lock().asks.remove(&ask);
                if let Some(waiting) = waiting {
                    // The call that asked may have ended just now.
                    match waiting {
                        Waiting::Outcome(sender) => {
                            drop(sender.send(outcome.map(ToOwned::to_owned).map_err(ToOwned::to_owned)));
                        }
                        Waiting::Text { sender, .. } => drop(sender.send(Bytes::copy_from_slice(text))),
                    }
                }
            }
        }
    }

    /// Refuses a request of a batch whose answers so far are as much as may wait. What is no request is taken.
    fn refuse_rest(self: &Arc<Self>, text: &[u8], route: &Arc<Outgoing>) {
        match Incoming::classify(text) {
            Incoming::Request(request) => {
                let text = format!(
                    "the answers of this batch are more than {BATCH_ANSWER_BYTES_MAX} bytes: ask again for the rest"
                );
                self.refuse(Some(request.id), &jsonrpc::Fault::InvalidRequest(text), route);
            }
            _ => self.receive(text, route),
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(&self, id: Option<&RawValue>, fault: &jsonrpc::Fault, route: &Outgoing) {
        let era = self.peer.lock().client().map_or(Era::Modern, |client| client.era);
        let compat = self.mcp.compat(era);
        let text = match (id, era) {
            (None, Era::Legacy | Era::Modern) => jsonrpc::anonymous_error(fault, compat),
            _ => jsonrpc::error_response(id, fault, compat),
        };
        route.push(Kind::Response(Some(fault.code(compat))), text);
    }

    /// Ends one request of the client, which gets no answer.
    fn cancel(&self, number: CallNumber, reason: Option<String>) {
        let (call, listen) = {
            let mut lively = self.lively.lock();
            let call = lively.calls.iter().find(|call| call.number == number).cloned();
            let listen = lively.listens.iter().position(|listen| listen.number == number);
            (call, listen.map(|index| lively.listens.swap_remove(index)))
        };
        if let Some(listen) = listen {
            self.release(&listen.filter.uris);
            listen.route.mark(Kind::Unanswered);
        }
        if let Some(call) = call {
            if let Some(reason) = reason {
                // A request is taken back once.
                let _ = call.why_taken_back.set(reason);
            }
            // From now on, not only once it heeds that.
            call.route.take_back(number);
            call.cancel(CancelReason::Client);
        }
    }

    /// Notes that a request was answered; whether the client still wants that answer.
    pub(super) fn finish(&self, number: CallNumber) -> bool {
        self.peer.lock().finish(number)
    }

    /// Makes the client of a served `initialize` the session's.
    pub(super) fn initialize(&self, client: &Arc<crate::protocol::mcp::client::Client>) {
        self.peer.lock().initialize(Arc::clone(client));
        self.note_change();
    }

    /// Notes that what is stored of it beside its messages and calls has changed.
    pub(super) fn note_change(&self) {
        self.standing.recovery(|recovery| recovery.touch());
    }

    /// Whether the client gets the streaming events of its calls.
    pub(super) fn is_streaming(&self) -> bool {
        self.is_streaming.load(Ordering::Relaxed)
    }

    /// Whether its client is a workflow's run of this program.
    pub(super) fn is_workflow(&self) -> bool {
        self.is_workflow
    }

    /// The least severe log message that the client asked for, if it did.
    pub(super) fn asked_level(&self) -> Option<Level> {
        self.peer.lock().asked_level()
    }

    pub(super) fn level(&self) -> Level {
        self.peer.lock().level()
    }

    pub(super) fn set_level(&self, level: Level) {
        self.peer.lock().set_level(level);
        self.note_change();
    }

    /// Keeps a call that waits, so that it can be cancelled and ends with the session.
    pub(super) fn keep(&self, call: &Arc<Call>) {
        if call.task.get().is_some() {
            return;
        }
        let reason = {
            let mut lively = self.lively.lock();
            lively.calls.push(Arc::clone(call));
            lively.ended
        };
        // It may have been cancelled before it was kept.
        let is_wanted = self.peer.lock().is_under_way(call.number);
        if let Some(reason) = reason.or((!is_wanted).then_some(CancelReason::Client)) {
            call.cancel(reason);
        }
    }

    /// The ids of requests that wait for something and are no calls which are remembered.
    pub(super) fn waiting_requests(&self) -> Vec<Box<RawValue>> {
        let lively = self.lively.lock();
        let calls = lively.calls.iter().filter(|call| call.order().is_none()).map(|call| call.id.clone());
        calls.chain(lively.listens.iter().map(|listen| listen.id.clone())).collect()
    }

    /// Lets whoever observes the session see a run that begins.
    pub(super) fn show(&self, run: &Arc<Run>) {
        if let Some(observer) = &mut self.lively.lock().observer {
            observer.watch(run, 0);
        }
    }

    /// Forgets a call that has ended, or became a task; its questions to the client are taken back.
    pub(super) fn forget(&self, call: &Call) {
        {
            let mut lively = self.lively.lock();
            lively.calls.retain(|other| other.number != call.number);
            if lively.calls.is_empty() {
                lively.calls = Vec::new();
            }
            if let (Some(observer), Some(run)) =
                (&mut lively.observer, call.run.as_ref().or_else(|| call.workflow.get()))
            {
                observer.watches.retain(|watch| !Arc::ptr_eq(watch.run(), run));
            }
        }
        let told = self.peer.lock().asking.give_up(call.number);
        for text in told {
            call.route.push(Kind::Request, text);
        }
    }

    /// Lets a channel of the same socket see the session's events from now on. A later observer takes its place: the
    /// topic of observers is one a socket. `wake` is as in [`Run::watch`].
    pub(super) fn observe(self: &Arc<Self>, wake: impl Fn(&Arc<Watch>) -> bool + Send + Sync + 'static) -> Observation {
        let mut lively = self.lively.lock();
        lively.last_observer += 1;
        let number = lively.last_observer;
        let mut observer = Observer { number, wake: Arc::new(wake), watches: Vec::new() };
        for run in lively.calls.iter().filter_map(|call| call.run.as_ref().or_else(|| call.workflow.get())) {
            observer.watch(run, run.last_seq());
        }
        lively.observer = Some(observer);
        Observation { session: Arc::downgrade(self), number }
    }

    /// Lets nobody observe the session any more: its client is on another socket.
    pub(super) fn end_observation(&self) {
        let observer = self.lively.lock().observer.take();
        drop(observer);
    }

    /// Ends what would go on for ever, because the server stops: streams of changes end in order, and the client is let go
    /// from the standing stream.
    pub(super) fn end_streams(&self) {
        let listens = std::mem::take(&mut self.lively.lock().listens);
        for listen in listens {
            self.end_listen(&listen);
        }
        self.standing.mark(Kind::Pause);
    }

    /// Lets a session go whose client is lost and can't come back: nobody finds it, nothing is said, and calls under way run to
    /// their own ends. Where there are none, or too many run on already, it ends.
    ///
    /// What executes a workflow ends as with the session: the run itself goes on if its definition says so.
    pub(super) fn let_run_on(&self) {
        let (workflows, calls) = {
            let lively = self.lively.lock();
            let workflows: Vec<_> = lively.calls.iter().filter(|call| call.executes_workflow()).cloned().collect();
            let calls = lively.calls.len() - workflows.len();
            (workflows, calls)
        };
        for call in workflows {
            call.cancel(CancelReason::SessionEnded);
        }
        // As many as one connection may have under way.
        let limit = self.mcp.settings.orphans_max();
        let orphans = (calls > 0).then(|| self.mcp.recoveries.orphan(calls, limit)).flatten();
        let Some(orphans) = orphans else { return self.end() };
        // It is lost once.
        let _ = self.orphans.set(orphans);
        let (asks, listens) = {
            let mut lively = self.lively.lock();
            (std::mem::take(&mut lively.asks), std::mem::take(&mut lively.listens))
        };
        // Nobody answers what was asked.
        drop(asks);
        for listen in listens {
            self.end_listen(&listen);
        }
        self.mcp.sessions.forget(self);
        self.server.leave(self.number);
        self.mcp.connections.ended(self);
    }

    /// Ends the session: its calls are cancelled, its streams of changes end in order, and nobody finds it any more.
    pub(crate) fn end(&self) {
        self.end_by(CancelReason::SessionEnded);
    }

    /// Ends the session of one stateless request because its client has gone, which is how such a client cancels.
    pub(crate) fn abandon(&self) {
        self.end_by(CancelReason::Client);
    }

    fn end_by(&self, reason: CancelReason) {
        let (calls, asks, listens) = {
            let mut lively = self.lively.lock();
            lively.ended = Some(reason);
            (std::mem::take(&mut lively.calls), std::mem::take(&mut lively.asks), std::mem::take(&mut lively.listens))
        };
        drop(asks);
        for call in calls {
            call.cancel(reason);
        }
        for listen in listens {
            self.end_listen(&listen);
        }
        self.mcp.sessions.forget(self);
        self.server.leave(self.number);
        self.detach();
        self.mcp.connections.ended(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.mcp.sessions.forget(self);
        self.server.leave(self.number);
        self.detach();
    }
}
