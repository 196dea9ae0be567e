//! Which keys were seen lately.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Seq;
use crate::protocol::Time;

/// Keys, each with the number of the first message that had it and the end of its window.
///
/// A key whose window is over stays until it is told: then whoever stores keys forgets it too.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_key: BTreeMap<Arc<str>, (Seq, Time)>,
    by_end: BTreeSet<(Time, Arc<str>)>,
    /// Made room for others, and this is to be told.
    evicted: BTreeSet<Arc<str>>,
}

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<(Seq, Time)> {
        self.by_key.get(key).copied()
    }

    /// Whether there is room for the key. Those over make room, so that there are `max` at most.
    pub(super) fn make_room(&mut self, key: &str, max: usize, now: Time) -> bool {
        if self.by_key.contains_key(key) {
            return true;
        }
        while self.by_key.len() >= max
            && let Some(over) = self.pop_over(now)
        {
            self.evicted.insert(over);
        }
        self.by_key.len() < max
    }

    /// Adds a key or replaces what it says.
    pub(super) fn insert(&mut self, key: Arc<str>, seq: Seq, until: Time) {
        self.remove(&key);
        // Who stores the key anew must not be told afterwards to forget it.
        self.evicted.remove(&key);
        self.by_end.insert((until, Arc::clone(&key)));
        self.by_key.insert(key, (seq, until));
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((key, (_, until))) = self.by_key.remove_entry(key) {
            self.by_end.remove(&(until, key));
        }
    }

    /// The next key to be forgotten, with those that had to make room first.
    pub(super) fn next_over(&mut self, now: Time) -> Option<Arc<str>> {
        self.next_evicted().or_else(|| self.pop_over(now))
    }

    pub(super) fn next_evicted(&mut self) -> Option<Arc<str>> {
        self.evicted.pop_first()
    }

    fn pop_over(&mut self, now: Time) -> Option<Arc<str>> {
        if self.by_end.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_end.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        if !self.evicted.is_empty() {
            return Some(Time::default());
        }
        Some(self.by_end.first()?.0)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.evicted.is_empty()
    }
}
