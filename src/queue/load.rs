//! What was stored becomes queues again.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::smallvec;

use super::entry::Entry;
use super::log::{self, Kind, LOG, Log, UNREADABLE, Write, group_key};
use super::message::weight;
use super::record::{Record, read_key, read_next};
use super::writer::{Op, Then};
use super::{Durability, Queues};
use crate::clock;
use crate::protocol::Time;
use crate::protocol::queue::{DeadLetter, DeadReason, Limits, Restored, Seq};
use crate::store::{Keys, Store, StoreError};

/// Groups that are read at once: at most so many times the store's largest value.
const PAGE: usize = 16;

/// The moment of loading on both clocks. A lifetime counts on by wall time, but never longer than what was left of it when the
/// message was last written: whatever the wall clock has done, a message ends.
#[derive(Clone, Copy)]
struct Moment {
    now: Time,
    unix_ms: u64,
}

impl Moment {
    /// A point of wall time in the process's own, no further than `at_most_ms` from here.
    fn time(self, unix_ms: u64, at_most_ms: u64) -> Time {
        self.now + unix_ms.saturating_sub(self.unix_ms).min(at_most_ms)
    }
}

/// The latest state of every item, by queue.
type Items = BTreeMap<Arc<str>, BTreeMap<(Kind, Seq), Vec<u8>>>;

impl Queues {
    /// Reads everything. What can't be read stays where it is, and is counted in the log.
    pub(super) async fn load(&self, store: &Store) -> Result<Log, StoreError> {
        let (log, items, mut unread) = read(store).await?;
        let moment = Moment { now: clock::now(), unix_ms: clock::unix_micros() / 1_000 };
        let mut messages = 0;
        for (name, items) in items {
            let Some(entry) = self.stored_entry(&name, &items) else {
                unread += items.len();
                continue;
            };
            let mut state = entry.state.lock();
            state.has_row = items.contains_key(&(Kind::Next, Seq(0)));
            for ((kind, seq), value) in &items {
                match restore(&mut state, *kind, *seq, value, moment, &self.0.settings.limits) {
                    Some(Taken::In) => {}
                    Some(Taken::Over) => {
                        let writes = smallvec![Write::remove(*kind, *seq)];
                        self.0.writer.push(Op { entry: Arc::clone(&entry), writes, then: Then::Nothing });
                    }
                    None => unread += 1,
                }
            }
            messages += state.queue.stats().messages;
            self.0.count(0, state.bytes());
            self.0.timer.arm(&entry, &mut state);
        }
        if unread > 0 {
            tracing::error!(
                unread,
                "entries of queues can't be read or are of no durable queue: they are left as they are"
            );
        }
        if messages > 0 {
            tracing::info!(messages, "queues were read from the store");
        }
        Ok(log)
    }

    /// The queue of something stored, however many there may be. None where the settings do not name it, or as one that is
    /// not durable.
    fn stored_entry(&self, name: &Arc<str>, items: &BTreeMap<(Kind, Seq), Vec<u8>>) -> Option<Arc<Entry>> {
        let class = self.class(name).ok().filter(|class| *class == Durability::Durable)?;
        let next = items.get(&(Kind::Next, Seq(0))).and_then(|value| read_next(value)).unwrap_or(1);
        let entry = Arc::new(Entry::new(Arc::clone(name), class, self.0.settings.limits, next));
        self.0.entries.lock().insert(Arc::clone(name), Arc::clone(&entry));
        Some(entry)
    }
}

/// Reads the log from its beginning.
async fn read(store: &Store) -> Result<(Log, Items, usize), StoreError> {
    let (mut log, mut items, mut unread) = (Log::default(), Items::new(), 0);
    let mut keys = Keys::beginning_with("");
    loop {
        let page = store.range(LOG, keys, PAGE).await?;
        for (key, value) in &page {
            let Ok(number) = <[u8; 8]>::try_from(&key[..]).map(u64::from_be_bytes) else { continue };
            match log::entries(value) {
                Ok(entries) => {
                    log.read(number, value.len(), &entries);
                    for entry in entries {
                        let of_queue = match items.get_mut(entry.queue) {
                            Some(of_queue) => of_queue,
                            None => items.entry(entry.queue.into()).or_default(),
                        };
                        match entry.value {
                            Some(value) => of_queue.insert((entry.kind, entry.seq), value.to_vec()),
                            None => of_queue.remove(&(entry.kind, entry.seq)),
                        };
                    }
                }
                Err(why) => {
                    tracing::error!(group = number, why, "a group of changes of queues can't be read: it is put aside");
                    unread += 1;
                    put_aside(store, number, value.clone()).await?;
                    log.passed(number);
                }
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => {
                // The least key behind it.
                let mut next = last.clone();
                next.push(0);
                keys = Keys::onwards(next);
            }
            _ => return Ok((log, items, unread)),
        }
    }
}

/// What became of an item that can be read.
enum Taken {
    /// It is there again.
    In,
    /// Its time was over.
    Over,
}

/// Moves a group to where nothing looks but people.
async fn put_aside(store: &Store, number: u64, value: Vec<u8>) -> Result<(), StoreError> {
    let change = store.change(move |transaction| {
        transaction.delete(LOG, group_key(number));
        transaction.put(UNREADABLE, group_key(number), value)
    });
    change.await
}

/// Takes an item in. None where it can't be read.
fn restore(
    state: &mut super::entry::State,
    kind: Kind,
    seq: Seq,
    value: &[u8],
    moment: Moment,
    limits: &Limits,
) -> Option<Taken> {
    match kind {
        Kind::Next => drop(read_next(value)?),
        Kind::Key => {
            let stored = read_key(value)?;
            state.queue.restore_key(stored.key.into(), seq, moment.time(stored.until_unix_ms, limits.dedup_window_ms));
            state.firsts.insert(stored.key.into(), (seq, stored.created_unix_ms));
        }
        Kind::Message => {
            let stored = Record::read(kind, value)?;
            let (body, standing) = (stored.record, stored.standing);
            let left_ms = standing.expires_unix_ms.saturating_sub(standing.written_unix_ms);
            let delay_ms = standing.due_unix_ms.saturating_sub(standing.written_unix_ms);
            state.queue.restore(Restored {
                seq,
                priority: body.priority,
                bytes: weight(&body.payload, body.key.as_deref()),
                expires: Some(moment.time(standing.expires_unix_ms, left_ms)),
                due: moment.time(standing.due_unix_ms, delay_ms),
                retries_max: body.retries_max,
                failures: standing.failures,
                last_error: standing.last_error.map(Into::into),
                // Nobody knows: whoever had it before the restart may still say that it is done.
                deliveries: 1,
                key: body.key.clone(),
                body,
            });
        }
        Kind::Dead => {
            let stored = Record::read(kind, value)?;
            let (body, standing) = (stored.record, stored.standing);
            let (reason, died_unix_ms) = standing.died?;
            let age_ms = moment.unix_ms.saturating_sub(died_unix_ms);
            if age_ms >= limits.dead_letter_ttl_ms {
                return Some(Taken::Over);
            }
            state.queue.restore_dead(DeadLetter {
                seq,
                priority: body.priority,
                bytes: weight(&body.payload, body.key.as_deref()),
                retries_max: body.retries_max,
                failures: standing.failures,
                last_error: standing.last_error.map(Into::into),
                deliveries: 1,
                reason: DeadReason::parse(reason)?,
                died: Time(moment.now.0.saturating_sub(age_ms)),
                body,
            });
        }
    }
    Some(Taken::In)
}
