//! Sessions on channels that outlive their connection: who comes back to which, which are ended when, and by whom.
//!
//! A session that can be come back to is held here, not by its channel. The channel is its *attachment* for as long as it lives;
//! what is said meanwhile and afterwards stands in the log of the session's [`Outgoing`].

mod attachment;
mod beginning;
mod keeper;
mod once;
mod recall;
mod records;
mod repeats;
mod seal;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub(super) use attachment::Attachment;
pub(super) use beginning::Begun;
use keeper::Keeper;
pub(crate) use once::{Asking, Once};
use recall::BrokenOff;
use seal::Seal;

use super::Mcp;
use super::auth::{Identity, SessionEvent, SessionPlace, SessionToken};
use super::channel::Info;
use super::outgoing::{NotStored, Outgoing};
use super::server::ServerShared;
use super::session::Session;
use crate::auth::live::{Gone, Resident};
use crate::channel::Handle;
use crate::clock;
use crate::protocol::Time;
use crate::protocol::mcp::recovery::{
    Attached, Attachment as State, Claims, DetachedSessions, Offer, Position, RECOVERY_BYTES_MAX, Recovery, Wish,
};
use crate::store::Store;

/// Why a session ends that is left in the store, where it is stored.
const SHUTDOWN: &str = "Shutdown";

/// The sessions of a node that can be come back to.
pub(super) struct Recoveries {
    window_ms: u64,
    seal: Seal,
    held: Mutex<Held>,
    /// Where sessions are stored, if they are.
    keeper: Option<Keeper>,
    /// Calls under way whose clients are lost and can't come back.
    pub(super) orphans: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Held {
    by_number: BTreeMap<u64, Arc<Recoverable>>,
    detached: DetachedSessions,
    /// Whether a task waits for the next end.
    is_watched: bool,
}

/// One of them.
pub(super) struct Recoverable {
    pub(super) session: Arc<Session>,
    /// The topic on which it is come back to.
    topic: Box<str>,
    present: Present,
    kept: Mutex<Kept>,
    /// What the process before left, until its client has come back.
    broken_off: Mutex<Option<BrokenOff>>,
}

/// Who is attached.
#[derive(Clone)]
pub(super) struct Present(Arc<PresentState>);

struct PresentState {
    channel: Mutex<Option<Channel>>,
    /// What the session is held as, once it is.
    of: OnceLock<Weak<Recoverable>>,
}

/// An attachment's number, and its channel.
type Channel = (u64, Handle<Info>);

/// What a session has until it ends.
#[derive(Default)]
struct Kept {
    /// Among its user's sessions.
    place: Option<SessionPlace>,
    /// By which it is revoked.
    name: Option<Arc<str>>,
    token: Option<SessionToken>,
    /// Hears of its credential's revocation.
    resident: Option<Resident>,
}

/// What a join begins or comes back with.
pub(super) struct Joining<'a> {
    pub(super) topic: &'a str,
    pub(super) user: &'a Identity,
    pub(super) handle: Handle<Info>,
    pub(super) connection: u64,
}

impl Present {
    /// A session's first attachment.
    pub(super) fn first(handle: Handle<Info>) -> Self {
        Self::new(Some((1, handle)))
    }

    /// Nobody.
    pub(super) fn nobody() -> Self {
        Self::new(None)
    }

    fn new(channel: Option<Channel>) -> Self {
        Present(Arc::new(PresentState { channel: Mutex::new(channel), of: OnceLock::new() }))
    }

    /// Tells whoever is attached that there is something to send.
    pub(super) fn wake(&self) {
        self.tell(Info::Outgoing);
    }

    fn tell(&self, info: Info) {
        if let Some((_, handle)) = &*self.0.channel.lock() {
            // Where the connection is going, nobody waits for the message.
            let _ = handle.send(info);
        }
    }
}

impl Recoveries {
    /// Sessions that are stored, where there is a `store`.
    pub(super) fn new(window_ms: u64, secret: &[u8], store: Option<Store>) -> Self {
        let (held, orphans) = Default::default();
        Recoveries { window_ms, seal: Seal::new(secret), held, keeper: store.map(Keeper::new), orphans }
    }

    /// What a join's params say of recovery, where there is such a thing.
    pub(super) fn wish(&self, fields: &crate::protocol::jsonrpc::Object<'_>) -> Option<Wish> {
        (self.window_ms > 0).then(|| Wish::read(fields)).flatten()
    }

    /// What a session that begins says with, to whoever is `present`.
    ///
    /// What a server that passes requests on has is in the connections to those behind it, which end with the process: its sessions
    /// are not stored.
    pub(super) fn outgoing(&self, mcp: &Arc<Mcp>, server: &ServerShared, present: &Present) -> Outgoing {
        if self.keeper.is_some() && !server.passes_on() {
            return self.stored(mcp, Recovery::stored(self.window_ms), present);
        }
        let present = present.clone();
        Outgoing::recoverable(Recovery::new(self.window_ms), move || present.wake())
    }

    fn stored(&self, mcp: &Arc<Mcp>, recovery: Recovery, present: &Present) -> Outgoing {
        let (waking, noting, mcp) = (present.clone(), present.clone(), Arc::downgrade(mcp));
        Outgoing::recoverable(recovery, move || waking.wake()).stored(move || {
            if let (Some(mcp), Some(of)) = (mcp.upgrade(), noting.0.of.get())
                && let Some(keeper) = &mcp.recoveries.keeper
            {
                keeper.note(of);
            }
        })
    }

    /// Where a session is stored, if it is.
    fn keeper_of(&self, session: &Session) -> Option<&Keeper> {
        self.keeper.as_ref().filter(|_| session.standing().is_stored())
    }

    /// Holds a session that begins, to which `present` is attached.
    pub(super) fn hold(&self, session: &Arc<Session>, topic: &str, present: Present) -> Arc<Recoverable> {
        let recoverable = Arc::new(Recoverable {
            session: Arc::clone(session),
            topic: topic.into(),
            present,
            kept: Mutex::default(),
            broken_off: Mutex::default(),
        });
        self.held.lock().by_number.insert(session.number(), Arc::clone(&recoverable));
        // It is held once.
        let _ = recoverable.present.0.of.set(Arc::downgrade(&recoverable));
        if let Some(keeper) = self.keeper_of(session) {
            keeper.note(&Arc::downgrade(&recoverable));
        }
        recoverable
    }

    /// Brings a client back to its session. None where the token is not one for that, for whatever reason.
    pub(super) fn attach(
        &self,
        mcp: &Mcp,
        token: &str,
        position: Option<Position>,
        joining: Joining<'_>,
    ) -> Option<(Arc<Recoverable>, Attached)> {
        let Joining { topic, user, handle, connection } = joining;
        let claims = self.seal.open(token)?;
        if claims.user != *user.user {
            return None;
        }
        let session = mcp.sessions.find(&claims.session)?;
        let (recoverable, attached, older) = {
            let mut held = self.held.lock();
            let recoverable = Arc::clone(held.by_number.get(&session.number())?);
            if *recoverable.topic != *topic || session.user != *user {
                return None;
            }
            let attach = |recovery: &mut Recovery| recovery.attach(claims.serial, position, clock::now());
            let attached = session.standing().recovery(attach)?.ok()?;
            held.detached.remove(session.number());
            let older = recoverable.present.0.channel.lock().replace((attached.attachment, handle));
            (recoverable, attached, older)
        };
        session.end_observation();
        session.move_to(connection);
        session.user.renew(user);
        if let Some((_, older)) = older {
            // Where its connection is going, it does nothing more anyway.
            let _ = older.send(Info::Superseded);
        }
        Some((recoverable, attached))
    }

    /// What the reply to a join says, or the offer that a heartbeat renews.
    pub(super) fn offer(&self, session: &Session, serial: u64, resumed: bool, position: Position) -> Offer {
        Offer {
            recovery_token: self.token(session, serial),
            recovery_window: self.window_ms / 1_000,
            resumed,
            last_message_id: position,
        }
    }

    fn token(&self, session: &Session, serial: u64) -> String {
        let (session, user) = (session.id().to_owned(), session.user.user.to_string());
        self.seal.seal(&Claims { session, user, serial })
    }

    /// An attachment has lost its client, who may come back.
    fn detach(&self, recoverable: &Arc<Recoverable>, attachment: u64) {
        let session = &recoverable.session;
        // What its calls may still say comes on top, and its topic, which is as long as its client likes.
        let more = recoverable.topic.len() + if session.under_way() > 0 { RECOVERY_BYTES_MAX } else { 0 };
        let (gone, begins_watch) = {
            let mut held = self.held.lock();
            let detach = |recovery: &mut Recovery| {
                let bytes = recovery.bytes() + more;
                recovery.detach(attachment, clock::now()).map(|until| (until, bytes))
            };
            let Some((until, bytes)) = session.standing().recovery(detach).flatten() else { return };
            drop(recoverable.present.0.channel.lock().take_if(|(present, _)| *present == attachment));
            let gone = held.detached.insert(session.number(), &session.user.user, until, bytes);
            let gone: Vec<_> = gone.iter().filter_map(|number| held.by_number.get(number).cloned()).collect();
            (gone, !std::mem::replace(&mut held.is_watched, true))
        };
        session.mcp.connections.detached(session);
        self.put_away_others(recoverable, &gone, begins_watch);
    }

    /// Takes a session up whose client is away from the start.
    fn put_away(&self, recoverable: &Arc<Recoverable>, until: Time, bytes: usize) {
        let session = &recoverable.session;
        let (gone, begins_watch) = {
            let mut held = self.held.lock();
            if !held.by_number.contains_key(&session.number()) {
                return;
            }
            let gone = held.detached.insert(session.number(), &session.user.user, until, bytes);
            let gone: Vec<_> = gone.iter().filter_map(|number| held.by_number.get(number).cloned()).collect();
            (gone, !std::mem::replace(&mut held.is_watched, true))
        };
        self.put_away_others(recoverable, &gone, begins_watch);
    }

    /// Ends those that have to give way to a session, and sees to it that this one ends in time.
    fn put_away_others(&self, recoverable: &Recoverable, gone: &[Arc<Recoverable>], begins_watch: bool) {
        for other in gone {
            self.end_away(other, "GaveWay");
        }
        if begins_watch {
            match tokio::runtime::Handle::try_current() {
                // It ends with the last session whose client is away.
                Ok(runtime) => drop(runtime.spawn(watch(Arc::downgrade(&recoverable.session.mcp)))),
                // Nothing would end it.
                Err(_) => {
                    self.held.lock().is_watched = false;
                    self.end(recoverable, "SocketClosed");
                }
            }
        }
    }

    /// Ends a session for good.
    fn end(&self, recoverable: &Recoverable, why: &str) {
        if recoverable.session.standing().recovery(Recovery::end) == Some(true) {
            self.bury(recoverable, why);
        }
    }

    /// The same, if an attachment is the present one.
    fn end_present(&self, recoverable: &Recoverable, attachment: u64, why: &str) {
        let end = |recovery: &mut Recovery| recovery.is_present(attachment) && recovery.end();
        if recoverable.session.standing().recovery(end) == Some(true) {
            self.bury(recoverable, why);
        }
    }

    /// Ends a session for good, if it is one to come back to; whether it is.
    pub(super) fn end_session(&self, session: &Session) -> bool {
        let recoverable = self.held.lock().by_number.get(&session.number()).cloned();
        recoverable.inspect(|recoverable| self.end(recoverable, "Kicked")).is_some()
    }

    /// The same, unless its client has come back meanwhile.
    fn end_away(&self, recoverable: &Recoverable, why: &str) {
        let end = |recovery: &mut Recovery| recovery.state() != State::Attached && recovery.end();
        if recoverable.session.standing().recovery(end) == Some(true) {
            self.bury(recoverable, why);
        }
    }

    /// Ends a session that could not be stored; its client begins another.
    fn break_off(&self, recoverable: &Recoverable) {
        recoverable.present.tell(Info::NotStored);
        self.end(recoverable, "NotStored");
    }

    /// Stores what is left of sessions, ends those whose clients are away, or leaves them in the store, to be come back to after the
    /// restart, and waits until what else has ended is taken out of it. Nothing is stored after that.
    pub(super) async fn stop(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.flush().await;
            keeper.stop();
        }
        self.end_detached();
        if let Some(keeper) = &self.keeper {
            keeper.flush().await;
        }
    }

    /// Lets go what a session had that has ended.
    fn bury(&self, recoverable: &Recoverable, why: &str) {
        let session = &recoverable.session;
        {
            let mut held = self.held.lock();
            held.by_number.remove(&session.number());
            held.detached.remove(session.number());
        }
        tracing::debug!(why, calls = session.under_way(), "an MCP session ends");
        session.record.ends(why);
        if let Some(keeper) = self.keeper_of(session) {
            if why != SHUTDOWN {
                keeper.end(session.id());
            }
            session.standing().snapshot_stored(Err(NotStored));
        }
        session.standing().close();
        session.end();
        if session.mcp.auth.is_audited() {
            session.mcp.auth.session_changed(&session.user, session.id(), SessionEvent::Terminated(why));
        }
        // Its place goes after it, and not under a lock.
        let kept = std::mem::take(&mut *recoverable.kept.lock());
        drop(kept);
        let present = recoverable.present.0.channel.lock().take();
        if let Some((_, handle)) = present {
            let _ = handle.send(Info::Superseded);
        }
    }

    /// Ends the session of a user whose client has been away for longest, so that another has its place; false if there is none.
    pub(super) fn give_way(&self, user: &Identity) -> bool {
        let longest = {
            let held = self.held.lock();
            held.detached.longest_of(&user.user).and_then(|number| held.by_number.get(&number).cloned())
        };
        longest.inspect(|longest| self.end_away(longest, "GaveWay")).is_some()
    }

    /// Ends all sessions whose clients are away: the server stops.
    fn end_detached(&self) {
        for recoverable in self.expire(Time(u64::MAX)).0 {
            self.end_away(&recoverable, SHUTDOWN);
        }
    }

    /// Sessions whose clients are away.
    pub(super) fn detached(&self) -> usize {
        self.held.lock().detached.len()
    }

    /// Takes out those whose time is over, and says when the next one's is; without one nobody waits for it any more.
    fn expire(&self, now: Time) -> (Vec<Arc<Recoverable>>, Option<Time>) {
        let mut held = self.held.lock();
        let over = held.detached.expire(now);
        let over = over.iter().filter_map(|number| held.by_number.get(number).cloned()).collect();
        let next = held.detached.next_end();
        held.is_watched = next.is_some();
        (over, next)
    }
}

/// Ends sessions when their time is over, as long as there is one whose client is away. One that goes later ends later, so that
/// nobody has to wake this.
async fn watch(mcp: Weak<Mcp>) {
    loop {
        let next = {
            let Some(mcp) = mcp.upgrade() else { return };
            let (over, next) = mcp.recoveries.expire(clock::now());
            for recoverable in over {
                mcp.recoveries.end_away(&recoverable, "RecoveryExpired");
            }
            next
        };
        let Some(next) = next else { return };
        tokio::time::sleep(Duration::from_millis(next.since(clock::now()))).await;
    }
}

impl Recoverable {
    /// Keeps what the session was opened with.
    pub(super) fn keep(
        self: &Arc<Self>,
        place: Option<SessionPlace>,
        name: Option<Arc<str>>,
        token: Option<SessionToken>,
    ) {
        {
            let mut kept = self.kept.lock();
            (kept.place, kept.name, kept.token) = (place, name, token);
        }
        self.watch_credential();
    }

    /// The name by which it can be revoked.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        self.kept.lock().name.clone()
    }

    /// Its session token.
    pub(super) fn token(&self) -> Option<SessionToken> {
        self.kept.lock().token.clone()
    }

    /// Notes that a token was made anew, if it is the session's.
    pub(super) fn refreshed(&self, before: &str, after: &SessionToken) {
        let mut kept = self.kept.lock();
        if kept.token.as_ref().is_some_and(|token| token.token == before) {
            kept.token = Some(after.clone());
        }
    }

    /// The session ends when the credential of whoever was attached last is revoked, whether they are there or away. When that
    /// credential's time is over nothing happens here: who comes back brings another.
    fn watch_credential(self: &Arc<Self>) {
        let (mcp, weak, name) = (&self.session.mcp, Arc::downgrade(self), self.name());
        let leave = move |gone| {
            if gone == Gone::Revoked
                && let Some(this) = weak.upgrade()
            {
                this.session.mcp.recoveries.end(&this, "Revoked");
            }
        };
        let resident = mcp.auth.watch_credential(&self.session.user, name.as_ref(), Box::new(leave));
        self.kept.lock().resident = resident;
    }
}

/// Counts a lost session's calls among those that run on, until it is dropped.
pub(super) struct Orphans {
    count: usize,
    of: Arc<AtomicUsize>,
}

impl Recoveries {
    /// A place for the calls of a session whose client is lost; none where `limit` of them run on already.
    pub(super) fn orphan(&self, count: usize, limit: usize) -> Option<Orphans> {
        let fits = |running: usize| (running + count <= limit).then_some(running + count);
        self.orphans.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok()?;
        Some(Orphans { count, of: Arc::clone(&self.orphans) })
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        self.of.fetch_sub(self.count, Ordering::SeqCst);
    }
}
