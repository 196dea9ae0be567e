//! The sessions on channels and over HTTP as their operator sees them: which there are, how they do, what happens to them, and
//! their end.

mod http;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use http::Visits;
pub(crate) use http::{HttpCarrier, Visit};
use parking_lot::Mutex;
use serde::Serialize;

use super::channel::Info;
use super::deployment::StoreError;
use super::session::Session;
use super::session_index::SessionIndex;
use super::{Mcp, McpBuilder};
use crate::channel::{Handle, Reason};
use crate::clock;
use crate::protocol::Time;
use crate::protocol::mcp::CREDENTIAL_EXPIRED;
use crate::protocol::mcp::recovery::Attachment;

/// Milliseconds without a message of its client after which a session is idle.
const IDLE_AFTER_MS: u64 = 60_000;

/// One session, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id, which is no credential.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The server that it is with.
    pub server: String,
    /// What its messages come by.
    pub carrier: SessionCarrier,
    /// Whether its client is there.
    #[serde(flatten)]
    pub state: SessionState,
    /// Whether anything is heard of its client.
    pub health: SessionHealth,
    /// Milliseconds since 1970.
    pub opened_unix_ms: u64,
    /// When its client last sent a message on it.
    pub last_activity_unix_ms: u64,
    /// Requests under way that are no streams of changes.
    pub calls: usize,
    /// Messages that wait for its client.
    pub waiting: usize,
    /// How often its client has come back.
    pub resumed: u64,
    /// Whether its client may come back.
    pub recoverable: bool,
}

/// What a session's messages come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionCarrier {
    /// A channel of a socket.
    Channel,
    /// Requests over HTTP, of a client that opened with `initialize`.
    Http,
}

/// Whether a session's client is there. Over HTTP it is while a request or a stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// It is.
    Connected,
    /// It has lost its connection, or over HTTP has nothing open, and may come back.
    Detached {
        /// For so many milliseconds.
        left_ms: u64,
    },
}

/// Whether anything is heard of a session's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionHealth {
    /// It sent a message on the session within the last minute.
    Active,
    /// It sent none for longer, but its socket lives, or a stream is open.
    Idle,
    /// Its socket sent no frame for longer than half of [`Settings::heartbeat_timeout_ms`](super::Settings), or is gone; over HTTP,
    /// nothing is open.
    Silent,
}

/// What has happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionChange {
    /// It has begun.
    Opened,
    /// Its client has lost its connection, and may come back. Over HTTP its last stream broke off, and nothing else is open: of one
    /// that has got all its answers this is not told.
    Detached,
    /// Its client has come back, or has taken it over on another connection.
    Resumed,
    /// Its client did not come back in time: it has ended.
    Expired,
    /// It has ended.
    Ended(SessionEnd),
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionEnd {
    /// Its client left.
    Left,
    /// [`Mcp::end_session`].
    Kicked,
    /// Its client sent nothing for too long, and can't come back.
    Heartbeat,
    /// Its connection was lost, and its client can't come back.
    Lost,
    /// Its channel crashed, or was replaced by a join of the same topic.
    Crashed,
    /// Its credential's time was over, or it was revoked.
    Credential,
    /// Its client was away, and another needed the place.
    GaveWay,
    /// The server stops.
    Shutdown,
    /// It could not be stored.
    NotStored,
}

/// Word of a session, for [`McpBuilder::on_session_event`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionNotice<'a> {
    /// What has happened.
    pub change: SessionChange,
    /// The session's id.
    pub id: &'a str,
    /// Whose it is.
    pub user: &'a str,
    /// The server that it is with.
    pub server: &'a str,
    /// What its messages come by.
    pub carrier: SessionCarrier,
}

/// The sessions together, and what was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionStats {
    /// Sessions whose clients are there.
    pub connected: usize,
    /// Sessions whose clients may come back.
    pub detached: usize,
    /// Sessions that began.
    pub opened: u64,
    /// Clients that came back.
    pub resumed: u64,
    /// Clients that lost their connection and might have come back.
    pub detachments: u64,
    /// Of these, those that did not in time.
    pub expired: u64,
    /// Sessions ended by [`Mcp::end_session`].
    pub kicked: u64,
    /// Joins with a recovery token that did not count.
    pub bad_tokens: u64,
}

/// Who is told what happens.
pub(super) type Hook = Box<dyn Fn(&SessionNotice<'_>) + Send + Sync>;

/// The sessions of a node that others see.
#[derive(Default)]
pub(super) struct Connections {
    index: Mutex<SessionIndex<Weak<Session>>>,
    hook: Option<Hook>,
    opened: AtomicU64,
    resumed: AtomicU64,
    detachments: AtomicU64,
    expired: AtomicU64,
    kicked: AtomicU64,
    bad_tokens: AtomicU64,
    /// Sessions over HTTP of which nothing is open.
    away: AtomicUsize,
}

/// What is noted of one session. Empty for one that is neither on a channel nor over HTTP, as that of a stateless request.
#[derive(Default)]
pub(super) struct Record {
    opened_unix_ms: OnceLock<u64>,
    /// A [`Time`] by the clock.
    active: AtomicU64,
    resumed: AtomicU64,
    channel: Mutex<Option<Handle<Info>>>,
    /// What holds it, over HTTP.
    http: OnceLock<Box<dyn HttpCarrier>>,
    visits: Mutex<Visits>,
    end: OnceLock<Ending>,
    is_told: OnceLock<()>,
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Expired,
    By(SessionEnd),
}

fn unix_ms() -> u64 {
    clock::unix_micros() / 1_000
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Record {
    /// Its client has sent a message.
    pub(super) fn touch(&self) {
        self.active.store(clock::now().0, Ordering::Relaxed);
    }

    /// It begins now.
    pub(super) fn opens(&self) {
        self.opened_at(unix_ms());
    }

    /// It began at that time.
    pub(super) fn opened_at(&self, unix_ms: u64) {
        // It begins once.
        let _ = self.opened_unix_ms.set(unix_ms);
    }

    /// When it was opened; 0 where it is not on a channel.
    pub(super) fn opened_unix_ms(&self) -> u64 {
        self.opened_unix_ms.get().copied().unwrap_or_default()
    }

    /// Notes why it ends, unless that is known; whether it was not.
    fn note(&self, end: Ending) -> bool {
        self.end.set(end).is_ok()
    }

    /// It ends with its channel.
    pub(super) fn ends_with_channel(&self, reason: &Reason) {
        self.note(Ending::By(match reason {
            Reason::Left | Reason::Stopped(_) => SessionEnd::Left,
            Reason::SocketClosed => SessionEnd::Lost,
            Reason::Crashed(why) if why == "heartbeat_timeout" => SessionEnd::Heartbeat,
            Reason::Crashed(why) if why == CREDENTIAL_EXPIRED => SessionEnd::Credential,
            Reason::Crashed(_) | Reason::DuplicateJoin => SessionEnd::Crashed,
        }));
    }

    /// It ends because its credential was revoked.
    pub(super) fn is_revoked(&self) {
        self.note(Ending::By(SessionEnd::Credential));
    }

    /// It ends, by the words of who lets it go.
    pub(super) fn ends(&self, why: &str) {
        self.note(match why {
            "RecoveryExpired" => Ending::Expired,
            "GaveWay" => Ending::By(SessionEnd::GaveWay),
            "Shutdown" => Ending::By(SessionEnd::Shutdown),
            "Revoked" => Ending::By(SessionEnd::Credential),
            "SocketClosed" => Ending::By(SessionEnd::Lost),
            "NotStored" => Ending::By(SessionEnd::NotStored),
            _ => Ending::By(SessionEnd::Left),
        });
    }
}

impl Connections {
    pub(super) fn new(hook: Option<Hook>) -> Self {
        Connections { hook, ..Connections::default() }
    }

    /// A session has begun on a channel.
    pub(super) fn opened(&self, session: &Arc<Session>, channel: Handle<Info>) {
        *session.record.channel.lock() = Some(channel);
        self.begin(session);
    }

    fn begin(&self, session: &Arc<Session>) {
        session.record.touch();
        session.record.opens();
        self.index.lock().insert(session.id(), &session.user.user, Arc::downgrade(session));
        count(&self.opened);
        self.tell(session, SessionChange::Opened);
    }

    /// A session has come back from the store. Its client follows.
    pub(super) fn recalled(&self, session: &Arc<Session>) {
        session.record.touch();
        self.index.lock().insert(session.id(), &session.user.user, Arc::downgrade(session));
    }

    /// Its client has come back by another channel.
    pub(super) fn resumed(&self, session: &Session, channel: Handle<Info>) {
        session.record.touch();
        let older = session.record.channel.lock().replace(channel);
        drop(older);
        count(&session.record.resumed);
        count(&self.resumed);
        self.tell(session, SessionChange::Resumed);
    }

    /// Its client is away.
    pub(super) fn detached(&self, session: &Session) {
        count(&self.detachments);
        self.tell(session, SessionChange::Detached);
    }

    /// It has ended, which is told once.
    pub(super) fn ended(&self, session: &Session) {
        let record = &session.record;
        if record.opened_unix_ms.get().is_none() || record.is_told.set(()).is_err() {
            return;
        }
        self.index.lock().remove(session.id());
        self.visits_ended(session);
        match record.end.get() {
            Some(Ending::Expired) => {
                count(&self.expired);
                self.tell(session, SessionChange::Expired);
            }
            Some(Ending::By(end)) => self.tell(session, SessionChange::Ended(*end)),
            // Its channel went without a word.
            None => self.tell(session, SessionChange::Ended(SessionEnd::Crashed)),
        }
    }

    /// A join had a recovery token that did not count.
    pub(super) fn bad_token(&self) {
        count(&self.bad_tokens);
    }

    /// Tells whoever wants to know. Never under a lock.
    fn tell(&self, session: &Session, change: SessionChange) {
        let Some(hook) = &self.hook else { return };
        let (id, user, server) = (session.id(), &*session.user.user, &*session.server.name);
        let notice = SessionNotice { change, id, user, server, carrier: session.carrier() };
        if catch_unwind(AssertUnwindSafe(|| hook(&notice))).is_err() {
            tracing::error!(?change, "a hook of session events panicked");
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.index.lock().get(id)?.upgrade()
    }

    /// A page that is full unless it is the last: sessions that are ending take no place of it.
    fn page(&self, user: Option<&str>, after: Option<&str>, limit: usize) -> Vec<SessionInfo> {
        let mut infos = Vec::new();
        let mut after = after.map(Arc::<str>::from);
        while infos.len() < limit {
            let wanted = limit - infos.len();
            let found = self.index.lock().page(user, after.as_deref(), wanted, Weak::upgrade);
            infos.extend(found.iter().filter_map(|(_, session)| session.info()));
            if found.len() < wanted {
                break;
            }
            after = found.last().map(|(id, _)| Arc::clone(id));
        }
        infos
    }
}

impl Session {
    fn carrier(&self) -> SessionCarrier {
        if self.record.http.get().is_some() { SessionCarrier::Http } else { SessionCarrier::Channel }
    }

    /// Whether its client is there; none where it has ended.
    fn state(&self) -> Option<SessionState> {
        if let Some(http) = self.record.http.get() {
            return Some(if self.is_visited() {
                SessionState::Connected
            } else {
                SessionState::Detached { left_ms: http.left_ms() }
            });
        }
        match self.standing().recovery(|recovery| recovery.state()) {
            None | Some(Attachment::Attached) => Some(SessionState::Connected),
            Some(Attachment::Detached { until }) => Some(SessionState::Detached { left_ms: until.since(clock::now()) }),
            Some(Attachment::Ended) => None,
        }
    }

    fn info(&self) -> Option<SessionInfo> {
        let state = self.state()?;
        let record = &self.record;
        let http = record.http.get();
        let idle_ms = clock::now().since(Time(record.active.load(Ordering::Relaxed)));
        let socket_idle_ms = record.channel.lock().as_ref().and_then(Handle::idle_ms);
        let silent_after_ms = self.mcp.settings.heartbeat_timeout_ms / 2;
        let health = match socket_idle_ms {
            // Between two requests nothing need be open.
            _ if http.is_some() && idle_ms <= IDLE_AFTER_MS => SessionHealth::Active,
            _ if http.is_some() && state == SessionState::Connected => SessionHealth::Idle,
            _ if state != SessionState::Connected => SessionHealth::Silent,
            None => SessionHealth::Silent,
            Some(ms) if ms > silent_after_ms => SessionHealth::Silent,
            Some(_) if idle_ms > IDLE_AFTER_MS => SessionHealth::Idle,
            Some(_) => SessionHealth::Active,
        };
        Some(SessionInfo {
            id: self.id().to_owned(),
            user: self.user.user.to_string(),
            server: self.server.name.to_string(),
            carrier: self.carrier(),
            state,
            health,
            opened_unix_ms: record.opened_unix_ms.get().copied()?,
            last_activity_unix_ms: unix_ms().saturating_sub(idle_ms),
            calls: self.calls_under_way(),
            waiting: http.map_or_else(|| self.standing().waiting(), |http| http.waiting()),
            resumed: record.resumed.load(Ordering::Relaxed),
            recoverable: http.is_some() || self.standing().is_recoverable(),
        })
    }
}

impl McpBuilder {
    /// Tells a function what happens to sessions on channels and over HTTP. It is called where that happens, and must not block.
    pub fn on_session_event(mut self, hook: impl Fn(&SessionNotice<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }
}

impl Mcp {
    /// At most `limit` sessions on channels and over HTTP, in the order of their ids: those that follow the id `after`, or the first.
    pub fn list_sessions(&self, after: Option<&str>, limit: usize) -> Vec<SessionInfo> {
        self.connections.page(None, after, limit)
    }

    /// The same of one user.
    pub fn list_sessions_of(&self, user: &str, after: Option<&str>, limit: usize) -> Vec<SessionInfo> {
        self.connections.page(Some(user), after, limit)
    }

    /// One session on a channel or over HTTP.
    pub fn session(&self, id: &str) -> Option<SessionInfo> {
        self.connections.find(id)?.info()
    }

    /// Ends a session for good, whether its client is there or away: its channel is closed, or over HTTP its streams end and its
    /// next request gets 404; its calls are cancelled, and nobody comes back to it. False if there is none.
    pub fn end_session(&self, id: &str) -> bool {
        let Some(session) = self.connections.find(id) else { return false };
        if !session.record.note(Ending::By(SessionEnd::Kicked)) {
            return false;
        }
        count(&self.connections.kicked);
        if let Some(http) = session.record.http.get() {
            http.end();
        } else if !self.recoveries.end_session(&session) {
            session.standing().close();
            session.end();
            let channel = session.record.channel.lock().take();
            if let Some(channel) = channel {
                // Where its connection is going, its channel ends anyway.
                let _ = channel.send(Info::Superseded);
            }
        }
        true
    }

    /// The same of a session that the process before left in the store, and that nobody has come back to since.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn end_stored_session(&self, id: &str) -> Result<bool, StoreError> {
        self.recoveries.end_stored(self, id).await
    }

    /// The sessions together, and what was counted since the start.
    pub fn session_stats(&self) -> SessionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let it = &self.connections;
        let (all, away) = (it.index.lock().len(), it.away.load(Ordering::Relaxed));
        let detached = self.recoveries.detached() + away;
        SessionStats {
            connected: all.saturating_sub(detached),
            detached,
            opened: read(&it.opened),
            resumed: read(&it.resumed),
            detachments: read(&it.detachments),
            expired: read(&it.expired),
            kicked: read(&it.kicked),
            bad_tokens: read(&it.bad_tokens),
        }
    }
}
