//! Session tokens: who has a session open, how many at once, and until when.
//!
//! ```text
//! open ──► live ──► expired (its time is over, and nobody refreshed it)
//!           │ ▲
//!           │ └── refresh, within the window before its end: new token, later end, the old token is revoked
//!           ├──► closed (its client disconnected; its place is free at once)
//!           └──► revoked (remembered for a while, so that whoever comes with its token hears so)
//! ```
//!
//! All of it is in memory. A session lasts no longer than the process: a token of an earlier one is still signed well,
//! and answered with `Session not found`, so nothing revoked comes back by a restart and there is nothing to store.
//! Forgetting a revocation is safe for the same reason: what it had revoked is not found then.
//!
//! How tokens are signed is the caller's: data goes in, text comes out. No token is kept.
//!
//! Source: the Elixir deployment's `SessionManager`, whose limit per user was never freed on disconnect.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::random;

/// Sessions at all, whatever the options say.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Revoked sessions that are remembered; the oldest go first.
pub const REVOKED_MAX: usize = 100_000;
/// Bytes of a user agent that are kept, and of an address.
pub const META_BYTES_MAX: usize = 512;

/// What the ids of sessions begin with, as in the Elixir deployment.
const ID_PREFIX: &str = "mcp_session_";

/// How sessions live. The defaults are those of the Elixir deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Seconds from the opening, or the last refresh, to the end.
    pub timeout_s: u64,
    /// Sessions of one user at once.
    pub per_user_max: usize,
    /// Seconds before the end in which a session may be refreshed; 0 turns refreshing off.
    pub refresh_window_s: u64,
    /// Seconds for which a revoked session is remembered.
    pub revoked_remembered_s: u64,
    /// Sessions of all users at once, at most [`SESSIONS_MAX`].
    pub sessions_max: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            timeout_s: 3_600,
            per_user_max: 5,
            refresh_window_s: 300,
            revoked_remembered_s: 3_600,
            sessions_max: 100_000,
        }
    }
}

/// Where a session comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionMeta {
    /// The client's address.
    pub ip_address: Option<String>,
    /// What it calls itself; cut at [`META_BYTES_MAX`].
    pub user_agent: Option<String>,
}

/// A session. Its token is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionRecord {
    /// `mcp_session_` and 32 hex digits. It is an id, no credential: only a token opens anything.
    pub id: Arc<str>,
    /// Whose it is.
    pub user_id: Arc<str>,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When it was last validated.
    pub last_activity_unix_ms: u64,
    /// When it ends; in that millisecond it has.
    pub expires_unix_ms: u64,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// Why a session was not opened. The texts are those of the Elixir deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// The user has as many as one user may have.
    #[error("Maximum sessions ({max}) reached for user")]
    OfUser {
        /// How many that is.
        max: usize,
    },
    /// There are as many as there may be.
    #[error("Maximum sessions ({max}) reached")]
    OfAll {
        /// How many that is.
        max: usize,
    },
}

/// Why a token or an id does not count. The texts are those of the Elixir deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// It is no token of ours, or its signature's own time is over.
    #[error("Invalid token: invalid")]
    Invalid,
    /// The session was revoked, or the token was replaced by a refresh.
    #[error("Token revoked")]
    Revoked,
    /// The session's time is over.
    #[error("Session expired")]
    Expired,
    /// The session was closed, or never was.
    #[error("Session not found")]
    NotFound,
    /// A refresh outside the window before the session's end.
    #[error("Token not eligible for refresh")]
    NotEligible,
}

/// What was counted since the start, and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionStats {
    /// Opened.
    pub sessions_created: u64,
    /// Tokens and ids that were found good, by [`Sessions::validate`] and [`Sessions::touch`].
    pub sessions_validated: u64,
    /// Refreshed.
    pub sessions_refreshed: u64,
    /// Ended by their time.
    pub sessions_expired: u64,
    /// Ended by a revocation.
    pub sessions_revoked: u64,
    /// Ended by a disconnect.
    pub sessions_closed: u64,
    /// There are, those included whose end has come and was not swept up yet.
    pub active_sessions: usize,
    /// Revoked sessions that are remembered.
    pub revoked_tokens: usize,
    /// Users who have a session.
    pub unique_users: usize,
}

type Sign = Box<dyn Fn(&str) -> String + Send + Sync>;
type Verify = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The sessions of a server. Clones are the same ones. All times are milliseconds since 1970.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    options: SessionOptions,
    sign: Sign,
    verify: Verify,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_id: BTreeMap<Arc<str>, Kept>,
    by_user: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    by_end: BTreeSet<(u64, Arc<str>)>,
    revoked: BTreeSet<Arc<str>>,
    /// The same with when to forget each, in the order in which they were revoked.
    revoked_until: VecDeque<(u64, Arc<str>)>,
    stats: SessionStats,
}

struct Kept {
    record: SessionRecord,
    /// Counts the refreshes: a token counts for one of them.
    generation: u64,
}

impl Sessions {
    /// No sessions yet. `sign` makes a token's text of its data; `verify` gives the data back, or none for a text that
    /// `sign` did not make. With Phoenix.Token the salt is `mcp_session`, and its maximal age no less than `timeout_s`.
    pub fn new(
        options: SessionOptions,
        sign: impl Fn(&str) -> String + Send + Sync + 'static,
        verify: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let options = SessionOptions { sessions_max: options.sessions_max.min(SESSIONS_MAX), ..options };
        Sessions(Arc::new(Inner { options, sign: Box::new(sign), verify: Box::new(verify), table: Mutex::default() }))
    }

    /// Opens a session; gives it and its token.
    ///
    /// # Errors
    /// [`OpenRefused`].
    pub fn open(
        &self,
        user: &str,
        meta: SessionMeta,
        now_unix_ms: u64,
    ) -> Result<(SessionRecord, String), OpenRefused> {
        let options = &self.0.options;
        let id: Arc<str> = format!("{ID_PREFIX}{:032x}", u128::from_be_bytes(random::bytes())).into();
        let record = SessionRecord {
            id: Arc::clone(&id),
            user_id: user.into(),
            created_unix_ms: now_unix_ms,
            last_activity_unix_ms: now_unix_ms,
            expires_unix_ms: end(now_unix_ms, options.timeout_s),
            ip_address: meta.ip_address.map(cut),
            user_agent: meta.user_agent.map(cut),
        };
        let mut table = self.0.table.lock();
        // Sessions whose end has come take no place, even where nobody has swept them up.
        table.expire(now_unix_ms);
        if table.by_user.get(user).is_some_and(|ids| ids.len() >= options.per_user_max) || options.per_user_max == 0 {
            return Err(OpenRefused::OfUser { max: options.per_user_max });
        }
        if table.by_id.len() >= options.sessions_max {
            return Err(OpenRefused::OfAll { max: options.sessions_max });
        }
        table.stats.sessions_created += 1;
        table.insert(Kept { record: record.clone(), generation: 0 });
        drop(table);
        let token = (self.0.sign)(&data(&id, 0));
        Ok((record, token))
    }

    /// Closes a session as its client disconnects: its place is free. False if it had ended before.
    pub fn close(&self, id: &str) -> bool {
        let mut table = self.0.table.lock();
        let is_there = table.remove(id).is_some();
        table.stats.sessions_closed += u64::from(is_there);
        is_there
    }

    /// A guard that closes the session when it is dropped.
    pub fn hold(&self, id: &str) -> HeldSession {
        HeldSession { sessions: self.clone(), id: id.into() }
    }

    /// The session of a token.
    ///
    /// # Errors
    /// [`SessionRefused`].
    pub fn validate(&self, token: &str, now_unix_ms: u64) -> Result<SessionRecord, SessionRefused> {
        let (id, generation) = self.read(token)?;
        self.0.table.lock().touch(&id, Some(generation), now_unix_ms)
    }

    /// The session with an id, for one that we have opened ourselves: what comes from a client is a token.
    ///
    /// # Errors
    /// [`SessionRefused`].
    pub fn touch(&self, id: &str, now_unix_ms: u64) -> Result<SessionRecord, SessionRefused> {
        self.0.table.lock().touch(id, None, now_unix_ms)
    }

    /// Gives a session a new token and a later end; its old token is revoked.
    ///
    /// # Errors
    /// [`SessionRefused`]; outside the window it is [`SessionRefused::NotEligible`].
    pub fn refresh(&self, token: &str, now_unix_ms: u64) -> Result<(SessionRecord, String), SessionRefused> {
        let options = &self.0.options;
        let (id, generation) = self.read(token)?;
        let mut table = self.0.table.lock();
        table.check(&id, Some(generation), now_unix_ms)?;
        let kept = table.by_id.get_mut(&*id).expect("it was checked above");
        let end_before = kept.record.expires_unix_ms;
        if end_before - now_unix_ms > options.refresh_window_s.saturating_mul(1_000) || options.refresh_window_s == 0 {
            return Err(SessionRefused::NotEligible);
        }
        kept.generation += 1;
        kept.record.expires_unix_ms = end(now_unix_ms, options.timeout_s);
        kept.record.last_activity_unix_ms = now_unix_ms;
        let (record, generation) = (kept.record.clone(), kept.generation);
        table.by_end.remove(&(end_before, Arc::clone(&record.id)));
        table.by_end.insert((record.expires_unix_ms, Arc::clone(&record.id)));
        table.stats.sessions_refreshed += 1;
        drop(table);
        let token = (self.0.sign)(&data(&id, generation));
        Ok((record, token))
    }

    /// Revokes a session; gives it as it was, or none if it had ended before.
    pub fn revoke(&self, id: &str, now_unix_ms: u64) -> Option<SessionRecord> {
        self.0.revoke(&mut self.0.table.lock(), id, now_unix_ms)
    }

    /// Revokes the session of a token.
    ///
    /// # Errors
    /// As [`Sessions::validate`].
    pub fn revoke_token(&self, token: &str, now_unix_ms: u64) -> Result<SessionRecord, SessionRefused> {
        let (id, generation) = self.read(token)?;
        let mut table = self.0.table.lock();
        table.check(&id, Some(generation), now_unix_ms)?;
        Ok(self.0.revoke(&mut table, &id, now_unix_ms).expect("it was checked above"))
    }

    /// Revokes all sessions of a user; gives them as they were.
    pub fn revoke_user(&self, user: &str, now_unix_ms: u64) -> Vec<SessionRecord> {
        let mut table = self.0.table.lock();
        let ids = table.by_user.get(user).cloned().unwrap_or_default();
        ids.iter().filter_map(|id| self.0.revoke(&mut table, id, now_unix_ms)).collect()
    }

    /// Ends the sessions whose time is over and forgets old revocations; gives the sessions that ended. To be called
    /// about once a minute: it decides when memory is freed, not what counts.
    pub fn expire(&self, now_unix_ms: u64) -> Vec<SessionRecord> {
        let mut table = self.0.table.lock();
        table.forget_revoked(now_unix_ms);
        table.expire(now_unix_ms)
    }

    /// The sessions of a user, by their ids.
    pub fn of_user(&self, user: &str) -> Vec<SessionRecord> {
        let table = self.0.table.lock();
        let ids = table.by_user.get(user).into_iter().flatten();
        ids.map(|id| table.by_id[id].record.clone()).collect()
    }

    /// What was counted.
    pub fn stats(&self) -> SessionStats {
        let table = self.0.table.lock();
        SessionStats {
            active_sessions: table.by_id.len(),
            revoked_tokens: table.revoked.len(),
            unique_users: table.by_user.len(),
            ..table.stats
        }
    }

    /// The session and the generation that a token names.
    fn read(&self, token: &str) -> Result<(String, u64), SessionRefused> {
        let data = (self.0.verify)(token).ok_or(SessionRefused::Invalid)?;
        let (id, generation) = data.rsplit_once('.').ok_or(SessionRefused::Invalid)?;
        Ok((id.to_owned(), generation.parse().map_err(|_| SessionRefused::Invalid)?))
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({:?})", self.stats())
    }
}

impl Inner {
    fn revoke(&self, table: &mut Table, id: &str, now_unix_ms: u64) -> Option<SessionRecord> {
        let record = table.remove(id)?.record;
        table.stats.sessions_revoked += 1;
        table.revoked.insert(Arc::clone(&record.id));
        let until = end(now_unix_ms, self.options.revoked_remembered_s);
        table.revoked_until.push_back((until, Arc::clone(&record.id)));
        if table.revoked_until.len() > REVOKED_MAX {
            table.forget_oldest_revoked();
        }
        Some(record)
    }
}

impl Table {
    fn insert(&mut self, kept: Kept) {
        let record = &kept.record;
        self.by_user.entry(Arc::clone(&record.user_id)).or_default().insert(Arc::clone(&record.id));
        self.by_end.insert((record.expires_unix_ms, Arc::clone(&record.id)));
        self.by_id.insert(Arc::clone(&record.id), kept);
    }

    fn remove(&mut self, id: &str) -> Option<Kept> {
        let kept = self.by_id.remove(id)?;
        let record = &kept.record;
        self.by_end.remove(&(record.expires_unix_ms, Arc::clone(&record.id)));
        if let Some(ids) = self.by_user.get_mut(&record.user_id) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_user.remove(&record.user_id);
            }
        }
        Some(kept)
    }

    fn check(&self, id: &str, generation: Option<u64>, now_unix_ms: u64) -> Result<(), SessionRefused> {
        if self.revoked.contains(id) {
            return Err(SessionRefused::Revoked);
        }
        let kept = self.by_id.get(id).ok_or(SessionRefused::NotFound)?;
        if generation.is_some_and(|generation| generation != kept.generation) {
            return Err(SessionRefused::Revoked);
        }
        if kept.record.expires_unix_ms <= now_unix_ms {
            return Err(SessionRefused::Expired);
        }
        Ok(())
    }

    fn touch(&mut self, id: &str, generation: Option<u64>, now_unix_ms: u64) -> Result<SessionRecord, SessionRefused> {
        self.check(id, generation, now_unix_ms)?;
        self.stats.sessions_validated += 1;
        let kept = self.by_id.get_mut(id).expect("it was checked above");
        kept.record.last_activity_unix_ms = kept.record.last_activity_unix_ms.max(now_unix_ms);
        Ok(kept.record.clone())
    }

    fn expire(&mut self, now_unix_ms: u64) -> Vec<SessionRecord> {
        let mut ended = Vec::new();
        while let Some((_, id)) = self.by_end.first().filter(|(end, _)| *end <= now_unix_ms) {
            let id = Arc::clone(id);
            self.stats.sessions_expired += 1;
            ended.extend(self.remove(&id).map(|kept| kept.record));
        }
        ended
    }

    fn forget_revoked(&mut self, now_unix_ms: u64) {
        while self.revoked_until.front().is_some_and(|(until, _)| *until <= now_unix_ms) {
            self.forget_oldest_revoked();
        }
    }

    fn forget_oldest_revoked(&mut self) {
        if let Some((_, id)) = self.revoked_until.pop_front() {
            self.revoked.remove(&id);
        }
    }
}

/// Closes its session when it is dropped; one that has ended before stays as it is.
#[derive(Debug)]
pub struct HeldSession {
    sessions: Sessions,
    id: Arc<str>,
}

impl HeldSession {
    /// The session's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        self.sessions.close(&self.id);
    }
}

/// What is signed.
fn data(id: &str, generation: u64) -> String {
    format!("{id}.{generation}")
}

fn end(now_unix_ms: u64, seconds: u64) -> u64 {
    now_unix_ms.saturating_add(seconds.saturating_mul(1_000))
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(META_BYTES_MAX));
    text
}
