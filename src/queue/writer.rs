//! Group commit: what waits to be stored is stored with one change, in the order in which it was decided.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::entry::Entry;
use super::log::{self, Group, LOG, Log, Write, group_key};
use super::{QueueError, Shared};
use crate::clock;
use crate::protocol::queue::Seq;
use crate::store::{Store, StoreError, VALUE_BYTES_MAX};

/// Bytes of a group that has more than one operation. A value of the store holds one with the largest message alone.
const GROUP_BYTES_MAX: usize = 512 << 10;
/// Operations of one group.
const GROUP_OPS_MAX: usize = 1_024;

/// Bytes that are written again with a commit, at least, while the log is too long.
const MOVED_BYTES_MIN: usize = 64 << 10;
/// Groups that are read for that.
const MOVED_GROUPS_MAX: usize = 64;
/// Groups that one commit writes: what changed, and what is written again.
const GROUPS_MAX: u64 = 2;

type Answer<E> = oneshot::Sender<Result<(), E>>;

/// What follows once an operation is stored, or could not be.
pub(super) enum Then {
    /// A message can be delivered.
    Stored(Seq, Option<Box<str>>, Answer<QueueError>),
    /// A message came again while its first was being stored.
    Repeated(Seq, Answer<QueueError>),
    /// A message is gone.
    Acked(Seq, Answer<StoreError>),
    /// Somebody waits for all that was pushed since [`Writer::failures`] was this.
    Told(u64, Answer<StoreError>),
    /// Nobody does: where it is lost, a restart finds the state before, and decides the same again.
    Nothing,
}

pub(super) struct Op {
    pub(super) entry: Arc<Entry>,
    pub(super) writes: Vec<Write>,
    pub(super) then: Then,
}

/// What waits to be stored.
#[derive(Default)]
pub(super) struct Writer(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    ops: Mutex<VecDeque<Op>>,
    more: Notify,
    is_closed: AtomicBool,
    /// The task is gone, in order or by a panic.
    has_ended: AtomicBool,
    failures: AtomicU64,
    /// How the next commits fail.
    #[cfg(test)]
    faults: Mutex<VecDeque<Fault>>,
}

/// How a commit fails for a test.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Nothing is stored.
    Lost,
    /// It is stored, and nobody is told: the disk's answer was lost.
    Unheard,
    /// Nothing is stored, and it is told that it was.
    Lied,
}

impl Writer {
    /// The next commits fail so.
    #[cfg(test)]
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.faults.lock().extend(faults);
    }

    /// What is pushed to a task that has ended is dropped, and with it its answer.
    pub(super) fn push(&self, op: Op) {
        let mut ops = self.0.ops.lock();
        if self.0.has_ended.load(Ordering::Acquire) {
            drop(ops);
            return;
        }
        ops.push_back(op);
        drop(ops);
        self.0.more.notify_one();
    }

    /// How many commits have failed.
    pub(super) fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Acquire)
    }

    /// Ends the task once nothing waits.
    pub(super) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.more.notify_one();
    }
}

impl Waiting {
    /// The next group, and whose it is.
    fn take(&self) -> (Vec<Op>, Group) {
        let mut waiting = self.ops.lock();
        let (mut ops, mut group) = (Vec::new(), Group::new());
        while let Some(op) = waiting.front() {
            let further: usize = op.writes.iter().map(|write| write.bytes(&op.entry.name)).sum();
            if !ops.is_empty() && (group.bytes() + further > GROUP_BYTES_MAX || ops.len() >= GROUP_OPS_MAX) {
                break;
            }
            let op = waiting.pop_front().expect("there is one in front");
            op.writes.iter().for_each(|write| group.push(&op.entry.name, write));
            ops.push(op);
        }
        (ops, group)
    }
}

/// Where the task ends, whatever ends it, nobody waits for it any more.
struct End(Arc<Waiting>);

impl Drop for End {
    fn drop(&mut self) {
        let left = {
            let mut ops = self.0.ops.lock();
            self.0.has_ended.store(true, Ordering::Release);
            std::mem::take(&mut *ops)
        };
        if std::thread::panicking() {
            tracing::error!(operations = left.len(), "the task that stores queues has crashed: nothing more is stored");
        }
    }
}

impl Waiting {
    /// A group was not stored, and with it perhaps numbers that messages behind it count on: the first of each queue reserves
    /// them again.
    fn reserve_again(&self) {
        // Out of the lock, which others take under their queue's. Nobody else takes anything out.
        let mut waiting = std::mem::take(&mut *self.ops.lock());
        let mut seen = HashSet::new();
        for op in &mut waiting {
            if let Then::Stored(seq, ..) = op.then
                && seen.insert(Arc::as_ptr(&op.entry))
            {
                op.writes.push(op.entry.state.lock().reserve_again(seq));
            }
        }
        let mut ops = self.ops.lock();
        waiting.append(&mut ops);
        *ops = waiting;
    }
}

/// Stores what waits, until the queues are dropped and nothing does.
pub(super) fn run(shared: &Arc<Shared>, store: Store, mut log: Log) {
    let (waiting, shared) = (Arc::clone(&shared.writer.0), Arc::downgrade(shared));
    tokio::spawn(async move {
        let _end = End(Arc::clone(&waiting));
        loop {
            let (ops, group) = waiting.take();
            if ops.is_empty() {
                if waiting.is_closed.load(Ordering::Acquire) {
                    return;
                }
                waiting.more.notified().await;
                continue;
            }
            let stored = match group.is_empty() {
                true => Ok(()),
                #[cfg(not(test))]
                false => commit(&store, &mut log, group).await,
                #[cfg(test)]
                false => {
                    let fault = waiting.faults.lock().pop_front();
                    commit_or_fail(&store, &mut log, group, fault).await
                }
            };
            if let Err(error) = &stored {
                waiting.failures.fetch_add(1, Ordering::AcqRel);
                tracing::error!(%error, operations = ops.len(), "changes of queues could not be stored");
            }
            conclude(&shared, ops, &stored, waiting.failures.load(Ordering::Acquire));
            if stored.is_err() {
                waiting.reserve_again();
            }
        }
    });
}

/// As [`commit`], or fails.
#[cfg(test)]
async fn commit_or_fail(store: &Store, log: &mut Log, group: Group, fault: Option<Fault>) -> Result<(), StoreError> {
    let failed = Err(StoreError::Failed { path: "store".into(), why: "a test has it fail".to_owned() });
    match fault {
        None => commit(store, log, group).await,
        Some(Fault::Lost) => failed,
        Some(Fault::Lied) => Ok(()),
        Some(Fault::Unheard) => {
            let before = log.clone();
            commit(store, log, group).await?;
            *log = before;
            log.failed();
            failed
        }
    }
}

/// Stores a group, and takes from the log what is no longer needed, as one change.
async fn commit(store: &Store, log: &mut Log, mut group: Group) -> Result<(), StoreError> {
    let over = log.over();
    let mut moved = if log.is_long() { living(store, log, &group).await } else { Group::new() };
    let mut values = vec![group.take_value()];
    if !moved.is_empty() {
        values.push(moved.take_value());
    }
    let sizes: Vec<usize> = values.iter().map(Vec::len).collect();
    let (gone, number) = (over.clone(), log.next());
    // Where an earlier commit failed, the disk may have its groups all the same, and what they say is not so.
    let stale = log.may_have_more().then_some(number..number + GROUPS_MAX);
    let change = store.change(move |transaction| {
        for group in gone.into_iter().chain(stale.into_iter().flatten()) {
            transaction.delete(LOG, group_key(group));
        }
        for (group, value) in (number..).zip(values) {
            transaction.put(LOG, group_key(group), value)?;
        }
        Ok(())
    });
    if let Err(error) = change.await {
        log.failed();
        return Err(error);
    }
    log.drop_groups(&over);
    for (group, bytes) in [group, moved].iter().zip(sizes) {
        log.stored(bytes, group);
    }
    Ok(())
}

/// What lives in the oldest groups of the log, to be written again behind `behind`, which may change some of it: as much as
/// that has at least, so that the log gets shorter however small or large the groups are.
async fn living(store: &Store, log: &mut Log, behind: &Group) -> Group {
    let mut moved = Group::new();
    let changed = behind.changed();
    let wanted = behind.bytes().max(MOVED_BYTES_MIN);
    let oldest: Vec<_> = log.living().take(MOVED_GROUPS_MAX).collect();
    for (number, bytes) in oldest {
        if moved.bytes() >= wanted || !moved.is_empty() && moved.bytes() + bytes > VALUE_BYTES_MAX {
            break;
        }
        let value = store.get(LOG, group_key(number)).await;
        let entries = match &value {
            Ok(Some(value)) => log::entries(value),
            Ok(None) => Err("it is gone"),
            Err(error) => {
                tracing::error!(%error, group = number, "a group of changes of queues can't be read");
                break;
            }
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(why) => {
                tracing::error!(
                    group = number,
                    why,
                    "a group of changes of queues can't be read: it stays until a restart"
                );
                log.stuck(number);
                break;
            }
        };
        for entry in entries {
            let lives = log.lives_in(number, entry.queue, entry.kind, entry.seq);
            if lives && !changed.contains(&(entry.queue, entry.kind, entry.seq)) {
                let write = Write { kind: entry.kind, seq: entry.seq, value: entry.value.map(<[u8]>::to_vec) };
                moved.push(&Arc::from(entry.queue), &write);
            }
        }
    }
    moved
}

/// Tells the queues and those who wait what became of a group, in its order.
fn conclude(shared: &Weak<Shared>, ops: Vec<Op>, stored: &Result<(), StoreError>, failures: u64) {
    let shared = shared.upgrade();
    let mut ops = ops.into_iter().peekable();
    while let Some(op) = ops.next() {
        let entry = Arc::clone(&op.entry);
        let mut state = entry.state.lock();
        let before = state.bytes();
        let now = clock::now();
        let mut next = Some(op);
        while let Some(op) = next {
            if stored.is_err() {
                state.forget_reserved();
            }
            // Whoever asked may have gone.
            match op.then {
                Then::Stored(seq, _, answer) if stored.is_ok() => {
                    state.queue.stored(seq, now);
                    let _ = answer.send(Ok(()));
                }
                Then::Stored(seq, key, answer) => {
                    state.not_stored(seq, key.as_deref());
                    let _ = answer.send(stored.clone().map_err(QueueError::Store));
                }
                Then::Repeated(seq, answer) => {
                    let outcome = match state.repeated(seq) {
                        true => Ok(()),
                        false => Err(QueueError::Store(stored.clone().err().unwrap_or(StoreError::Closed))),
                    };
                    let _ = answer.send(outcome);
                }
                Then::Acked(seq, answer) => {
                    match stored {
                        Ok(()) => state.queue.acked(seq, now),
                        Err(_) => state.queue.ack_failed(seq, now),
                    }
                    let _ = answer.send(stored.clone());
                }
                Then::Told(since, answer) => {
                    let outcome = match (stored, failures == since) {
                        (Ok(()), false) => Err(StoreError::Closed),
                        (stored, _) => stored.clone(),
                    };
                    let _ = answer.send(outcome);
                }
                Then::Nothing => {}
            }
            next = ops.next_if(|further| Arc::ptr_eq(&further.entry, &entry));
        }
        if let Some(shared) = &shared {
            shared.count(before, state.bytes());
            shared.settled(&entry, state);
        }
    }
}
