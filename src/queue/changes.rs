//! What a queue decides by itself, written down: leases that are over, messages that expire, dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::smallvec;

use super::entry::{Entry, State};
use super::log::{Kind, Write};
use super::record::{Record, Standing};
use super::writer::{Op, Then, Writes};
use super::{Durability, Shared};
use crate::clock;
use crate::protocol::Time;
use crate::protocol::queue::{Change, Seq, View};
use crate::random;

impl Shared {
    /// Whether what becomes of an entry's messages is stored.
    pub(super) fn stores(&self, entry: &Entry) -> bool {
        self.reached(entry.class) == Durability::Durable
    }

    /// The time that a queue had noted has come.
    pub(super) fn time_passed(&self, entry: &Arc<Entry>, now: Time) {
        let mut state = entry.state.lock();
        state.armed = None;
        let before = state.bytes();
        let mut changes = Vec::new();
        state.queue.handle_timeout(now, &mut random_u64, &mut changes);
        self.note(entry, &mut state, changes);
        self.count(before, state.bytes());
        self.settled(entry, state);
    }

    /// Writes down what a queue has decided; each change apart, so that no group grows beyond its bound.
    pub(super) fn note(&self, entry: &Arc<Entry>, state: &mut State, changes: Vec<Change>) {
        for change in changes {
            let key = match &change {
                Change::KeyRemoved(key) => state.firsts.remove(key).map(|(seq, _)| seq),
                _ => None,
            };
            if self.stores(entry) {
                let writes = writes(state, &change, key);
                if !writes.is_empty() {
                    self.writer.push(Op { entry: Arc::clone(entry), writes, then: Then::Nothing });
                }
            }
        }
    }

    /// Forgets queues that have had nothing for a while, and their numbers with them: an id has the second of its acceptance in
    /// it, and by then that is long past. Should the wall clock be set back, new queues begin behind the numbers of all that
    /// were forgotten.
    pub(super) fn forget_idle(&self) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| {
            // Whoever is about to use it has a handle, and gets none while the table is locked.
            let is_used = Arc::strong_count(entry) > 1;
            let mut state = entry.state.lock();
            if !state.is_long_idle() || is_used {
                return true;
            }
            self.first.fetch_max(state.queue.next_seq().0, Ordering::Relaxed);
            if state.has_row && self.stores(entry) {
                let writes = smallvec![Write::remove(Kind::Next, Seq(0))];
                self.writer.push(Op { entry: Arc::clone(entry), writes, then: Then::Nothing });
            }
            false
        });
    }
}

/// What of a change is stored.
fn writes(state: &State, change: &Change, key: Option<Seq>) -> Writes {
    match change {
        Change::Removed(seq) => smallvec![Write::remove(Kind::Message, *seq)],
        Change::Failed(seq) => {
            let kept = state.queue.message(*seq);
            kept.map(|kept| Write::put(Kind::Message, *seq, stored(&kept))).into_iter().collect()
        }
        Change::Dead(seq) => {
            let mut writes = smallvec![Write::remove(Kind::Message, *seq)];
            // One that has been pushed out by others since is gone.
            if let Some(dead) = state.queue.dead_letter(*seq) {
                let standing = Standing {
                    failures: dead.failures,
                    last_error: dead.last_error.as_deref(),
                    died: Some((dead.reason.name(), clock::unix_micros() / 1_000)),
                    ..Standing::default()
                };
                writes.push(Write::put(Kind::Dead, *seq, dead.body.stored(standing)));
            }
            writes
        }
        Change::DeadRemoved(seq) => smallvec![Write::remove(Kind::Dead, *seq)],
        Change::KeyRemoved(_) => key.map(|seq| Write::remove(Kind::Key, seq)).into_iter().collect(),
    }
}

/// The value of a message that is kept.
pub(super) fn stored(kept: &View<'_, Arc<Record>>) -> Vec<u8> {
    let (now, now_unix_ms) = (clock::now(), clock::unix_micros() / 1_000);
    kept.body.stored(Standing {
        written_unix_ms: now_unix_ms,
        expires_unix_ms: kept.expires.map_or(u64::MAX, |time| unix_ms(time, now, now_unix_ms)),
        due_unix_ms: unix_ms(kept.due, now, now_unix_ms),
        failures: kept.failures,
        last_error: kept.last_error,
        died: None,
    })
}

/// A point of the process's time as wall time, as it is now.
pub(super) fn in_unix_ms(time: Time) -> u64 {
    unix_ms(time, clock::now(), clock::unix_micros() / 1_000)
}

fn unix_ms(time: Time, now: Time, now_unix_ms: u64) -> u64 {
    now_unix_ms.saturating_add(time.since(now)).saturating_sub(now.since(time))
}

pub(super) fn random_u64() -> u64 {
    u64::from_le_bytes(random::bytes())
}
