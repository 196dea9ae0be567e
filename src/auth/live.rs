//! Who is here, by which credential and until when.
//!
//! A socket or a channel that was let in is a *resident* as long as it lives. When its credential's time is over, or it is
//! revoked, the resident is told to go. One task waits for the next expiry; nothing polls.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Identity;
use crate::clock;

/// The longest that the task sleeps: the wall clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a resident is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its credential's time is over.
    Expired,
    /// Its credential, its session or its user was revoked.
    Revoked,
}

type Leave = Box<dyn Fn(Gone) + Send + Sync>;

/// Whom a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// All that a user has.
    User(String),
    /// What came by one credential.
    Credential(String),
}

/// The residents of this node. Clones are the same.
#[derive(Clone, Default)]
pub struct Live(Arc<Shared>);

#[derive(Default)]
struct Shared {
    residents: Mutex<Residents>,
    /// An expiry came that is earlier than those before.
    earlier: Notify,
}

#[derive(Default)]
struct Residents {
    last: u64,
    by_number: HashMap<u64, Entry>,
    /// Expiries with their residents. One that was renewed, or is gone, is passed over when its time comes.
    due: BinaryHeap<Reverse<(u64, u64)>>,
}

struct Entry {
    identity: Identity,
    session: Option<Arc<str>>,
    leave: Arc<Leave>,
    /// The end that is expected, and whether it was told of it.
    end: Option<u64>,
    is_told: bool,
}

impl Entry {
    /// Whether its time is over at that moment and it does not know.
    fn is_due(&self, at: u64) -> bool {
        self.end == Some(at) && !self.is_told
    }
}

/// A place among the residents, until it is dropped.
pub struct Resident {
    number: u64,
    of: Weak<Shared>,
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resident({})", self.number)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({})", self.len())
    }
}

impl Live {
    /// Adds a resident; `leave` is called at most once for each reason, by whoever revokes or by the task of expiries.
    ///
    /// `session` is a session's name by which it can be revoked too.
    pub fn enter(
        &self,
        identity: &Identity,
        session: Option<Arc<str>>,
        leave: impl Fn(Gone) + Send + Sync + 'static,
    ) -> Resident {
        let mut residents = self.0.residents.lock();
        residents.last += 1;
        let number = residents.last;
        let leave: Arc<Leave> = Arc::new(Box::new(leave));
        let entry = Entry { identity: identity.clone(), session, leave, end: None, is_told: false };
        residents.by_number.insert(number, entry);
        let is_first = residents.expect(number);
        drop(residents);
        if is_first {
            self.0.earlier.notify_one();
        }
        Resident { number, of: Arc::downgrade(&self.0) }
    }

    /// How many residents there are.
    pub fn len(&self) -> usize {
        self.0.residents.lock().by_number.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells all to go that a revocation is about. How many they were.
    pub fn revoke(&self, revoked: &Revoked) -> usize {
        let is_meant = |entry: &Entry| match revoked {
            Revoked::User(user) => *entry.identity.user == **user,
            Revoked::Credential(credential) => {
                let rights = entry.identity.rights();
                let names = [&rights.credential, &rights.session, &entry.session];
                names.iter().any(|name| name.as_deref() == Some(credential))
            }
        };
        let leaving: Vec<_> = {
            let residents = self.0.residents.lock();
            let meant = residents.by_number.values().filter(|entry| is_meant(entry));
            meant.map(|entry| Arc::clone(&entry.leave)).collect()
        };
        for leave in &leaving {
            leave(Gone::Revoked);
        }
        leaving.len()
    }

    /// Tells those to go whose session is over, by its token, though their time is not.
    pub fn end_session(&self, session: &str) {
        let leaving: Vec<_> = {
            let residents = self.0.residents.lock();
            let by_token = |entry: &&Entry| entry.identity.rights().session.as_deref() == Some(session);
            residents.by_number.values().filter(by_token).map(|entry| Arc::clone(&entry.leave)).collect()
        };
        for leave in leaving {
            leave(Gone::Expired);
        }
    }

    /// Tells residents to go when their time is over, for ever: a task's work. Ends with the last handle.
    pub fn expiring(&self) -> impl Future<Output = ()> + Send + use<> {
        let of = Arc::downgrade(&self.0);
        async move {
            loop {
                let Some(shared) = of.upgrade() else { return };
                let now_ms = clock::unix_micros() / 1_000;
                let (leaving, next) = shared.residents.lock().expired(now_ms);
                for leave in leaving {
                    leave(Gone::Expired);
                }
                let sleep = next.map_or(SLEEP_MAX, |next| Duration::from_millis(next - now_ms).min(SLEEP_MAX));
                // Both are cancel-safe.
                let _ = tokio::time::timeout(sleep, shared.earlier.notified()).await;
            }
        }
    }
}

impl Residents {
    /// Notes when a resident's identity ends; whether that is before all others. What is known already takes no room.
    fn expect(&mut self, number: u64) -> bool {
        let Some(entry) = self.by_number.get_mut(&number) else { return false };
        let end = entry.identity.rights().expires_unix_ms;
        if std::mem::replace(&mut entry.end, end) == end {
            return false;
        }
        entry.is_told = false;
        let Some(end) = end else { return false };
        let is_first = self.due.peek().is_none_or(|Reverse((first, _))| end < *first);
        self.due.push(Reverse((end, number)));
        self.tidy();
        is_first
    }

    /// Drops expiries that nobody waits for once they are the most: those who left early are many where tokens live long.
    fn tidy(&mut self) {
        let Residents { by_number, due, .. } = self;
        if due.len() > 64 && due.len() > 2 * by_number.len() {
            due.retain(|Reverse((at, number))| by_number.get(number).is_some_and(|entry| entry.is_due(*at)));
        }
    }

    /// Those whose time is over, and when the next one's is.
    fn expired(&mut self, now_ms: u64) -> (Vec<Arc<Leave>>, Option<u64>) {
        let mut leaving = Vec::new();
        while let Some(Reverse((at, number))) = self.due.peek().copied() {
            let entry = self.by_number.get_mut(&number).filter(|entry| entry.is_due(at));
            if entry.is_some() && at > now_ms {
                return (leaving, Some(at));
            }
            self.due.pop();
            if let Some(entry) = entry {
                entry.is_told = true;
                leaving.push(Arc::clone(&entry.leave));
            }
        }
        (leaving, None)
    }
}

impl Resident {
    /// Notes that its identity's rights were renewed: with it end all who share them, such as the channels that came in as
    /// their socket's user.
    pub fn renewed(&self) {
        let Some(shared) = self.of.upgrade() else { return };
        let mut residents = shared.residents.lock();
        let Some(Entry { identity, end, .. }) = residents.by_number.get(&self.number) else { return };
        // The usual case over HTTP, where each request brings its credential again.
        if *end == identity.rights().expires_unix_ms {
            return;
        }
        let sharing = residents.by_number.iter().filter(|(_, other)| other.identity.shares_rights(identity));
        let sharing: Vec<u64> = sharing.map(|(number, _)| *number).collect();
        let mut is_first = false;
        for number in sharing {
            is_first |= residents.expect(number);
        }
        drop(residents);
        if is_first {
            shared.earlier.notify_one();
        }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(shared) = self.of.upgrade() {
            let mut residents = shared.residents.lock();
            residents.by_number.remove(&self.number);
            residents.tidy();
        }
    }
}
