//! The sessions of clients that opened with `initialize`: found by their id, bounded, and ended when nobody uses them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::stream::{EventStream, Kept, STANDING};
use crate::auth::live::Resident;
use crate::clock;
use crate::mcp::auth::Identity;
use crate::mcp::{
    Asking, Ending, Hex, HttpCarrier, Item, Mcp, Once, Outgoing, ServerShared, Session, SessionEnd, Visit,
};
use crate::protocol::mcp::replay::SESSION_REPLAY_BYTES_MAX;
use crate::protocol::mcp::version::Version;

/// Streams of a session that are kept after their end, for clients that lost the answer; the oldest go. More than calls may be
/// under way, so that a client which lost all of them finds each answer.
const ENDED_STREAMS_MAX: usize = 32;
/// Milliseconds that a stream is kept after its end, or a little longer.
const ENDED_STREAM_MS: u64 = 60_000;
/// The longest that the table waits between two looks at what may go.
const SWEEP_MS_MAX: u64 = 15_000;

/// The live sessions. Cloned handles share them.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Table>);

struct Table {
    sessions_max: usize,
    per_user_max: usize,
    idle_ms: u64,
    kept: Kept,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<u128, Arc<HttpSession>>,
    /// Whether the task runs that ends what nobody uses.
    is_swept: bool,
}

/// There are as many sessions as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// In all.
    Server,
    /// Of this user, and all of them are in use.
    User,
}

impl Entries {
    /// Takes the session away that a user has used least lately, where they have as many as they may and nothing of it is open:
    /// many clients go without a word.
    fn make_room(&mut self, user: &Identity, per_user_max: usize) -> Result<Option<Arc<HttpSession>>, Full> {
        let theirs = || self.by_id.iter().filter(|(_, session)| session.user == *user);
        if theirs().count() < per_user_max {
            return Ok(None);
        }
        let idle = theirs().filter(|(_, session)| session.idle_ms() > 0).max_by_key(|(_, session)| session.idle_ms());
        let id = idle.map(|(id, _)| *id).ok_or(Full::User)?;
        Ok(self.by_id.remove(&id))
    }
}

/// A request of a session, as long as it is served.
pub(super) struct Visiting(Arc<HttpSession>);

impl Deref for Visiting {
    type Target = Arc<HttpSession>;

    fn deref(&self) -> &Arc<HttpSession> {
        &self.0
    }
}

impl Drop for Visiting {
    fn drop(&mut self) {
        self.0.touch();
        self.0.session.leave(Visit::Request, false);
    }
}

/// A session's place in the table.
struct Place {
    table: Weak<Table>,
    id: u128,
}

impl Place {
    fn session(&self) -> Option<(Arc<Table>, Arc<HttpSession>)> {
        let table = self.table.upgrade()?;
        let session = table.entries.lock().by_id.get(&self.id).cloned()?;
        Some((table, session))
    }
}

impl HttpCarrier for Place {
    fn left_ms(&self) -> u64 {
        self.session().map_or(0, |(table, session)| table.idle_ms.saturating_sub(session.idle_ms()))
    }

    fn waiting(&self) -> usize {
        self.session().map_or(0, |(_, session)| session.waiting())
    }

    fn end(&self) {
        if let Some(table) = self.table.upgrade() {
            Sessions(table).end_by(self.id, SessionEnd::Kicked);
        }
    }
}

/// One session.
pub(super) struct HttpSession {
    pub(super) session: Arc<Session>,
    /// What goes to no request.
    pub(super) standing: Arc<EventStream>,
    server: Arc<ServerShared>,
    user: Identity,
    /// The answers to POSTs that are streams.
    answers: Mutex<BTreeMap<u64, Arc<EventStream>>>,
    last_stream: AtomicU64,
    /// Which calls have been run.
    once: Arc<Once>,
    /// Their bytes, as they were counted last.
    once_bytes: Mutex<usize>,
    last_attachment: AtomicU64,
    /// When a request came last, in milliseconds.
    last_used: AtomicU64,
    /// Its entry among those who are here.
    resident: OnceLock<Resident>,
    /// Held while messages are decided on.
    turn: Mutex<()>,
}

impl Sessions {
    pub(super) fn new(sessions_max: usize, per_user_max: usize, idle_ms: u64) -> Self {
        Sessions(Arc::new(Table {
            sessions_max,
            per_user_max,
            idle_ms,
            kept: Kept::default(),
            entries: Mutex::default(),
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.0.entries.lock().by_id.len()
    }

    /// What the streams of all sessions keep.
    pub(super) fn kept(&self) -> &Kept {
        &self.0.kept
    }

    /// Takes a session in and gives its id, 32 hex digits, and the request that opens it.
    pub(super) fn insert(&self, session: HttpSession) -> Result<(String, Visiting), Full> {
        let id = Hex::draw();
        let session = Arc::new(session);
        let (must_sweep, given_up) = {
            let mut entries = self.0.entries.lock();
            let given_up = entries.make_room(&session.user, self.0.per_user_max)?;
            if entries.by_id.len() >= self.0.sessions_max {
                return Err(Full::Server);
            }
            entries.by_id.insert(id, Arc::clone(&session));
            (!std::mem::replace(&mut entries.is_swept, true), given_up)
        };
        session.session.begins_over_http(Box::new(Place { table: Arc::downgrade(&self.0), id }));
        if let Some(given_up) = given_up {
            given_up.end(Ending::By(SessionEnd::GaveWay));
        }
        if must_sweep {
            let interval = Duration::from_millis((self.0.idle_ms / 4).clamp(1, SWEEP_MS_MAX));
            // Ends when there is no session, or no table.
            tokio::spawn(sweep(Arc::downgrade(&self.0), interval));
        }
        Ok((Hex::of(id).as_str().to_owned(), Visiting(session)))
    }

    /// The session of that id, if it is one with that server and of that user. Its client is there, so it does not end now.
    pub(super) fn find(&self, id: &str, server: &Arc<ServerShared>, user: &Identity) -> Option<Visiting> {
        let id = Hex::number(id)?;
        let session = {
            let entries = self.0.entries.lock();
            let session = entries.by_id.get(&id)?;
            if !Arc::ptr_eq(&session.server, server) || session.user != *user {
                return None;
            }
            session.touch();
            Arc::clone(session)
        };
        session.session.visit(Visit::Request);
        Some(Visiting(session))
    }

    /// Lets a session stay while its user's credential holds.
    pub(super) fn watch(&self, mcp: &Mcp, id: &str) {
        let Some(session) = Hex::number(id).and_then(|id| self.0.entries.lock().by_id.get(&id).cloned()) else {
            return;
        };
        let (table, ended) = (Arc::downgrade(&self.0), Hex::number(id));
        let leave = move |_| {
            if let (Some(table), Some(ended)) = (table.upgrade(), ended) {
                Sessions(table).end_by(ended, SessionEnd::Credential);
            }
        };
        if let Some(resident) = mcp.watch_credential(&session.user, Box::new(leave)) {
            // It is watched once.
            let _ = session.resident.set(resident);
        }
    }

    /// Ends a session that its client leaves.
    pub(super) fn end(&self, id: &str) {
        if let Some(id) = Hex::number(id) {
            self.end_by(id, SessionEnd::Left);
        }
    }

    fn end_by(&self, id: u128, why: SessionEnd) {
        let session = self.0.entries.lock().by_id.remove(&id);
        if let Some(session) = session {
            session.end(Ending::By(why));
        }
    }

    /// Ends all sessions: the server stops.
    pub(super) fn end_all(&self) {
        let all = std::mem::take(&mut self.0.entries.lock().by_id);
        for session in all.into_values() {
            session.end(Ending::By(SessionEnd::Shutdown));
        }
    }
}

async fn sweep(table: Weak<Table>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(table) = table.upgrade() else { return };
        let now = clock::now();
        let (idle, kept) = {
            let mut entries = table.entries.lock();
            let idle: Vec<_> = entries
                .by_id
                .extract_if(|_, session| session.idle_ms() >= table.idle_ms)
                .map(|(_, session)| session)
                .collect();
            if entries.by_id.is_empty() {
                entries.is_swept = false;
            }
            (idle, entries.by_id.values().cloned().collect::<Vec<_>>())
        };
        for session in idle {
            tracing::debug!(session = session.session.id(), "an MCP session that nobody uses ends");
            session.end(Ending::Expired);
        }
        if kept.is_empty() {
            return;
        }
        for session in kept {
            session.forget_ended(&mut session.answers.lock(), now);
            session.count_calls();
        }
    }
}

impl HttpSession {
    pub(super) fn new(
        session: Arc<Session>,
        standing: Arc<EventStream>,
        server: Arc<ServerShared>,
        user: Identity,
    ) -> Self {
        HttpSession {
            session,
            standing,
            server,
            user,
            answers: Mutex::default(),
            last_stream: AtomicU64::new(STANDING),
            once: Arc::default(),
            once_bytes: Mutex::default(),
            last_attachment: AtomicU64::new(0),
            last_used: AtomicU64::new(clock::now().0),
            resident: OnceLock::new(),
            turn: Mutex::new(()),
        }
    }

    /// Whether its client sees events without data for what they are, and comes back after a pause.
    ///
    /// Source: SEP-1699, in force from 2025-11-25.
    pub(super) fn can_pause(&self) -> bool {
        self.session.version() == Some(Version::V2025_11_25)
    }

    /// Takes messages that came by a credential: what they may do is decided by that one, not by the one before or after, until
    /// here nothing waits.
    pub(super) fn receive(&self, user: &Identity, text: &[u8], route: &Arc<Outgoing>) {
        self.receive_then(user, text, route, || ());
    }

    /// The same, and does what has to be done before the next messages are taken.
    pub(super) fn receive_then<R>(
        &self,
        user: &Identity,
        text: &[u8],
        route: &Arc<Outgoing>,
        then: impl FnOnce() -> R,
    ) -> R {
        let _turn = self.turn.lock();
        self.user.renew(user);
        if let Some(resident) = self.resident.get() {
            resident.renewed();
        }
        self.session.receive(text, route);
        then()
    }

    /// By what the next POST asks: an attachment that lives as long as the stream is read on which it asked.
    pub(super) fn asking(self: &Arc<Self>, is_batch: bool) -> (Asking, u64) {
        let attachment = self.last_attachment.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::downgrade(self);
        let lives = move |attachment| {
            let stream = session.upgrade().and_then(|session| session.stream_of(attachment));
            stream.is_some_and(|stream| stream.is_read())
        };
        (Asking::new(&self.once, attachment, is_batch, lives), attachment)
    }

    /// The stream on which an attachment asks.
    pub(super) fn stream_of(&self, attachment: u64) -> Option<Arc<EventStream>> {
        self.answers.lock().values().find(|stream| stream.attachment() == attachment).cloned()
    }

    /// Notes that the client has got what a POST asked for.
    pub(super) fn delivered(&self, attachment: u64) {
        self.once.delivered(attachment);
    }

    /// Counts what is kept of calls among what all streams keep, and forgets their answers where that is too much.
    pub(super) fn count_calls(&self) {
        let kept = self.standing.kept();
        let mut counted = self.once_bytes.lock();
        if kept.is_too_much() {
            self.once.forget_answers();
        }
        let bytes = self.once.bytes();
        kept.change(std::mem::replace(&mut *counted, bytes), bytes);
    }

    /// Notes that the client is there.
    fn touch(&self) {
        self.last_used.store(clock::now().0, Ordering::Relaxed);
    }

    /// A stream for the answer to a POST.
    pub(super) fn open_answer(
        &self,
        outgoing: Arc<Outgoing>,
        waker: Arc<AtomicWaker>,
        attachment: u64,
        waiting: VecDeque<Item>,
        requests: usize,
    ) -> Arc<EventStream> {
        let number = self.last_stream.fetch_add(1, Ordering::Relaxed) + 1;
        let kept = self.standing.kept();
        let stream = EventStream::answer(number, outgoing, waker, kept, waiting, requests, self.can_pause());
        stream.attach(attachment);
        let mut answers = self.answers.lock();
        self.forget_ended(&mut answers, clock::now());
        answers.insert(number, Arc::clone(&stream));
        stream
    }

    /// The stream of that number.
    pub(super) fn stream(&self, number: u64) -> Option<Arc<EventStream>> {
        if number == STANDING {
            return Some(Arc::clone(&self.standing));
        }
        self.answers.lock().get(&number).cloned()
    }

    /// Forgets streams at their ends: those that are over for long, and the oldest of those that are too many or too large. Where
    /// the whole server keeps too much, all give up what was read of them, the oldest first.
    fn forget_ended(&self, answers: &mut BTreeMap<u64, Arc<EventStream>>, now: crate::protocol::Time) {
        for stream in answers.values().chain([&self.standing]) {
            stream.relieve();
        }
        let ended: Vec<_> = answers
            .values()
            .filter_map(|stream| Some((stream.ended_at(now)?, stream.number(), stream.kept_bytes())))
            .collect();
        let (mut streams, mut bytes) = (0, 0);
        for (ended_at, number, kept) in ended.into_iter().rev() {
            streams += 1;
            bytes += kept;
            let is_newest = streams == 1;
            let fits = streams <= ENDED_STREAMS_MAX && (bytes <= SESSION_REPLAY_BYTES_MAX || is_newest);
            if !fits || now.since(ended_at) >= ENDED_STREAM_MS {
                answers.remove(&number);
            }
        }
    }

    pub(super) fn reader_came(&self) {
        self.session.visit(Visit::Stream);
    }

    /// A stream's reader goes; whether it did before the stream's end.
    pub(super) fn reader_left(&self, broke_off: bool) {
        self.touch();
        self.session.leave(Visit::Stream, broke_off);
    }

    /// Messages that wait for its client.
    fn waiting(&self) -> usize {
        let answers: usize = self.answers.lock().values().map(|stream| stream.waiting()).sum();
        self.standing.waiting() + answers
    }

    /// How long nobody has used it.
    fn idle_ms(&self) -> u64 {
        if self.session.is_visited() || self.session.under_way() > 0 {
            self.touch();
            return 0;
        }
        clock::now().0.saturating_sub(self.last_used.load(Ordering::Relaxed))
    }

    fn end(&self, ending: Ending) {
        self.session.ends_by(ending);
        self.session.end();
        self.standing.close();
    }
}

impl Drop for HttpSession {
    fn drop(&mut self) {
        self.standing.kept().change(*self.once_bytes.get_mut(), 0);
    }
}
