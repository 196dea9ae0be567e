//! One queue with its consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Durability;
use super::log::Write;
use super::record::{Record, id_of, next_write};
use crate::protocol::Time;
use crate::protocol::queue::{ConsumerId, Limits, Queue, Seq};

/// Numbers that are reserved in the store at once, so that none is given twice and few messages cost a further write.
const NUMBERS_RESERVED: u64 = 1_000;

/// Producers of a queue that may wait for the answer of another with the same key.
const REPEATING_MAX: usize = 1_000;
/// What a key costs in memory while it is remembered: it counts for the bound of all queues.
const KEY_COST_BYTES: usize = 512;

/// Calls whoever has something to take.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) class: Durability,
    /// Held for moments: never while something is waited for.
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) queue: Queue<Arc<Record>>,
    pub(super) wakers: BTreeMap<ConsumerId, Wake>,
    /// Consumers that found nothing when they last took, and have not been woken since.
    asleep: BTreeSet<ConsumerId>,
    /// Whose messages the idempotency keys are: number and Unix milliseconds of acceptance.
    pub(super) firsts: BTreeMap<Box<str>, (Seq, u64)>,
    /// Producers that wait for the answer of another with the same key.
    repeating: usize,
    /// Messages that were not stored while some wait so.
    failed: BTreeSet<Seq>,
    /// Numbers below it are reserved in the store.
    reserved: u64,
    /// Whether the store has, or may have, a row of them.
    pub(super) has_row: bool,
    /// The next number when it was last seen idle.
    next_when_idle: Option<Seq>,
    /// When the timer looks after it.
    pub(super) armed: Option<Time>,
}

impl Entry {
    pub(super) fn new(name: Arc<str>, class: Durability, limits: Limits, next: u64) -> Self {
        let state = State {
            queue: Queue::new(limits, Seq(next)),
            wakers: BTreeMap::new(),
            asleep: BTreeSet::new(),
            firsts: BTreeMap::new(),
            repeating: 0,
            failed: BTreeSet::new(),
            reserved: 0,
            has_row: false,
            next_when_idle: None,
            armed: None,
        };
        Entry { name, class, state: Mutex::new(state) }
    }
}

impl State {
    /// Bytes of its messages and dead letters.
    pub(super) fn bytes(&self) -> usize {
        self.queue.bytes() + self.queue.dead_bytes() + self.queue.keys() * KEY_COST_BYTES
    }

    /// Whether it is idle, and was so the last time it was asked, without a message in between.
    pub(super) fn is_long_idle(&mut self) -> bool {
        let next = self.queue.is_idle().then(|| self.queue.next_seq());
        let was = std::mem::replace(&mut self.next_when_idle, next);
        next.is_some() && was == next
    }

    /// Lets a producer wait for the answer of the first with its key. False if too many do.
    pub(super) fn repeat(&mut self) -> bool {
        let has_room = self.repeating < REPEATING_MAX;
        self.repeating += usize::from(has_room);
        has_room
    }

    /// Whether the message was stored that a producer has waited for.
    pub(super) fn repeated(&mut self, seq: Seq) -> bool {
        self.repeating = self.repeating.saturating_sub(1);
        let is_stored = !self.failed.contains(&seq);
        if self.repeating == 0 {
            self.failed.clear();
        }
        is_stored
    }

    /// A message was not stored: it is forgotten.
    pub(super) fn not_stored(&mut self, seq: Seq, key: Option<&str>) {
        self.queue.failed(seq);
        if let Some(key) = key
            && self.firsts.get(key).is_some_and(|(first, _)| *first == seq)
        {
            self.firsts.remove(key);
        }
        if self.repeating > 0 {
            self.failed.insert(seq);
        }
    }

    /// The id of the message that a key stands for.
    pub(super) fn first_of(&self, key: &str) -> Option<String> {
        self.firsts.get(key).map(|(seq, created)| id_of(*created, *seq))
    }

    /// What has to be stored before a number may be given.
    pub(super) fn reserve(&mut self, seq: Seq) -> Option<Write> {
        if seq.0 < self.reserved {
            return None;
        }
        self.reserved = seq.0.saturating_add(NUMBERS_RESERVED);
        self.has_row = true;
        Some(next_write(self.reserved))
    }

    /// What was to be stored was not: numbers are reserved anew.
    pub(super) fn forget_reserved(&mut self) {
        self.reserved = 0;
    }

    /// Reserves for a message that counted on what was not stored.
    pub(super) fn reserve_again(&mut self, seq: Seq) -> Write {
        self.reserved = self.reserved.max(seq.0.saturating_add(NUMBERS_RESERVED));
        next_write(self.reserved)
    }

    pub(super) fn add_waker(&mut self, consumer: ConsumerId, wake: Wake) {
        self.wakers.insert(consumer, wake);
        self.asleep.insert(consumer);
    }

    pub(super) fn remove_waker(&mut self, consumer: ConsumerId) {
        self.wakers.remove(&consumer);
        self.asleep.remove(&consumer);
    }

    /// A consumer has found nothing: the next message wakes it.
    pub(super) fn sleeps(&mut self, consumer: ConsumerId) {
        self.asleep.insert(consumer);
    }

    pub(super) fn is_anyone_asleep(&self) -> bool {
        !self.asleep.is_empty()
    }

    /// Those who have something to take and do not know it yet.
    pub(super) fn wake_those(&mut self, now: Time) -> Vec<Wake> {
        if !self.queue.has_ready(now) {
            return Vec::new();
        }
        let woken = self.asleep.extract_if(.., |consumer| self.queue.wants(*consumer));
        woken.filter_map(|consumer| self.wakers.get(&consumer).map(Arc::clone)).collect()
    }
}
