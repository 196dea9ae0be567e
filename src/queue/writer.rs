//! Group commit: what waits to be stored is stored with one change, in the order in which it was decided.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::entry::{Entry, State};
use super::log::{self, Group, LOG, Log, Write, group_key};
use super::{QueueError, Shared};
use crate::clock;
use crate::protocol::Time;
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

type Sender<E> = oneshot::Sender<Result<(), E>>;

/// What follows once an operation is stored, or could not be.
pub(super) enum Then {
    /// A message can be delivered.
    Stored(Seq, Option<Box<str>>, Sender<QueueError>),
    /// A message came again while its first was being stored.
    Repeated(Seq, Sender<QueueError>),
    /// A message is gone.
    Acked(Seq, Sender<StoreError>),
    /// Somebody waits for all that was pushed since [`Writer::failures`] was this.
    Told(u64, Sender<StoreError>),
    /// Nobody does: where it is lost, a restart finds the state before, and decides the same again.
    Nothing,
}

/// Nearly always one.
pub(super) type Writes = SmallVec<[Write; 1]>;

pub(super) struct Op {
    pub(super) entry: Arc<Entry>,
    pub(super) writes: Writes,
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
        let mut group = Group::new();
        let ops = self.take_ops(group.bytes());
        // Encoded when the lock is free again: who pushes meanwhile does not wait for that.
        for op in &ops {
            op.writes.iter().for_each(|write| group.push(&op.entry.name, write));
        }
        (ops, group)
    }

    /// The operations of a group that has so many bytes already.
    fn take_ops(&self, mut bytes: usize) -> Vec<Op> {
        let mut waiting = self.ops.lock();
        let mut taken = 0;
        for op in waiting.iter().take(GROUP_OPS_MAX) {
            let further: usize = op.writes.iter().map(|write| write.bytes(&op.entry.name)).sum();
            if taken > 0 && bytes + further > GROUP_BYTES_MAX {
                break;
            }
            bytes += further;
            taken += 1;
        }
        waiting.drain(..taken).collect()
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
                true => Ok(Committed::default()),
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
            let were_many = ops.len() > 1;
            let (committed, stored) = match stored {
                Ok(committed) => (Some(committed), Ok(())),
                Err(error) => (None, Err(error)),
            };
            conclude(&shared, ops, &stored, waiting.failures.load(Ordering::Acquire));
            match committed {
                // While others go on with their answers.
                Some(committed) => committed.note(&mut log),
                None => waiting.reserve_again(),
            }
            if were_many {
                // Those who were answered go on first, so that the next group has what they bring and not the first of them alone.
                tokio::task::yield_now().await;
            }
        }
    });
}

/// As [`commit`], or fails.
#[cfg(test)]
async fn commit_or_fail(
    store: &Store,
    log: &mut Log,
    group: Group,
    fault: Option<Fault>,
) -> Result<Committed, StoreError> {
    let failed = Err(StoreError::Failed { path: "store".into(), why: "a test has it fail".to_owned() });
    match fault {
        None => commit(store, log, group).await,
        Some(Fault::Lost) => failed,
        Some(Fault::Lied) => Ok(Committed::default()),
        Some(Fault::Unheard) => {
            commit(store, log, group).await?;
            log.failed();
            failed
        }
    }
}

/// What a commit stored and took away, for the log to note before the next.
#[derive(Default)]
struct Committed {
    over: Vec<u64>,
    /// With the bytes of their values.
    groups: Vec<(Group, usize)>,
}

impl Committed {
    fn note(&self, log: &mut Log) {
        log.drop_groups(&self.over);
        for (group, bytes) in &self.groups {
            log.stored(*bytes, group);
        }
    }
}

/// Stores a group, and takes from the log what is no longer needed, as one change. The log is to note it before the next.
async fn commit(store: &Store, log: &mut Log, group: Group) -> Result<Committed, StoreError> {
    let over = log.over();
    let moved = if log.is_long() { living(store, log, &group).await } else { Group::new() };
    let (mut values, mut groups) = (Vec::new(), Vec::new());
    for mut group in [group, moved] {
        if !group.is_empty() {
            let value = group.take_value();
            groups.push((group, value.len()));
            values.push(value);
        }
    }
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
    Ok(Committed { over, groups })
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

/// Tells the queues and those who wait what became of a group: each queue in its order.
fn conclude(shared: &Weak<Shared>, mut ops: Vec<Op>, stored: &Result<(), StoreError>, failures: u64) {
    let shared = shared.upgrade();
    // Each queue is locked once. The sort is stable.
    ops.sort_by_key(|op| Arc::as_ptr(&op.entry));
    let mut ops = ops.into_iter().peekable();
    let mut answers = Vec::new();
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
            answers.extend(outcome(&mut state, op.then, stored, failures, now));
            next = ops.next_if(|further| Arc::ptr_eq(&further.entry, &entry));
        }
        match &shared {
            Some(shared) => {
                shared.count(before, state.bytes());
                shared.settled(&entry, state);
            }
            None => drop(state),
        }
        // Those who are told come for the lock at once.
        answers.drain(..).for_each(Answer::tell);
    }
}

/// Tells a queue what became of an operation. Gives back what those who wait are to be told.
fn outcome(state: &mut State, then: Then, stored: &Result<(), StoreError>, failures: u64, now: Time) -> Option<Answer> {
    let answer = match then {
        Then::Stored(seq, _, sender) if stored.is_ok() => {
            state.queue.stored(seq, now);
            Answer::Producer(sender, Ok(()))
        }
        Then::Stored(seq, key, sender) => {
            state.not_stored(seq, key.as_deref());
            Answer::Producer(sender, stored.clone().map_err(QueueError::Store))
        }
        Then::Repeated(seq, sender) => {
            let outcome = match state.repeated(seq) {
                true => Ok(()),
                false => Err(QueueError::Store(stored.clone().err().unwrap_or(StoreError::Closed))),
            };
            Answer::Producer(sender, outcome)
        }
        Then::Acked(seq, sender) => {
            match stored {
                Ok(()) => state.queue.acked(seq, now),
                Err(_) => state.queue.ack_failed(seq, now),
            }
            Answer::Waiting(sender, stored.clone())
        }
        Then::Told(since, sender) => {
            let outcome = match (stored, failures == since) {
                (Ok(()), false) => Err(StoreError::Closed),
                (stored, _) => stored.clone(),
            };
            Answer::Waiting(sender, outcome)
        }
        Then::Nothing => return None,
    };
    Some(answer)
}

/// What somebody who waits is to be told.
enum Answer {
    Producer(Sender<QueueError>, Result<(), QueueError>),
    Waiting(Sender<StoreError>, Result<(), StoreError>),
}

impl Answer {
    fn tell(self) {
        // Whoever asked may have gone.
        let _ = match self {
            Answer::Producer(sender, outcome) => sender.send(outcome).is_ok(),
            Answer::Waiting(sender, outcome) => sender.send(outcome).is_ok(),
        };
    }
}
