//! A bounded table by key, in shards, for what limits keep of each client.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use parking_lot::Mutex;

use crate::protocol::Time;

/// Locks that the keys of a table are spread over.
const SHARDS: usize = 16;
/// Milliseconds between two searches of a full shard for entries that are idle, so that a flood of new keys costs no
/// search each.
const SEARCH_INTERVAL_MS: u64 = 1_000;

/// What a table keeps of a key.
pub(super) trait Entry {
    /// Whether it says no more than a new one would, so that nobody notices when it is forgotten.
    fn is_idle(&self, now: Time) -> bool;
}

/// Entries by key, at most as many as it was made for.
///
/// An entry that is not idle is never given up for another. When a shard is full of them, keys that come new to it have
/// none until there is room ([`Table::with_own`]), or share one, so that what they do is limited as if they were one
/// ([`Table::with`]).
#[derive(Debug)]
pub(super) struct Table<K, E> {
    shards: Vec<Mutex<Shard<K, E>>>,
    hasher: RandomState,
    entries_per_shard_max: usize,
}

#[derive(Debug)]
struct Shard<K, E> {
    entries: HashMap<K, E>,
    /// Of the keys that found no room.
    shared: Option<E>,
    searched: Option<Time>,
}

impl<K: Hash + Eq, E: Entry> Table<K, E> {
    /// An empty table of at most `entries_max` entries, and a shared one for each shard.
    pub(super) fn new(entries_max: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: HashMap::new(), shared: None, searched: None });
        Table {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            entries_per_shard_max: entries_max.div_ceil(SHARDS).max(1),
        }
    }

    /// Does something with the entry of `key`; a new one is made where there is none.
    pub(super) fn with<Q, R>(&self, key: &Q, now: Time, new: impl FnOnce() -> E, act: impl FnOnce(&mut E) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.entries.get_mut(key) {
            return act(entry);
        }
        if shard.entries.len() >= self.entries_per_shard_max {
            shard.search(now);
        }
        if shard.entries.len() >= self.entries_per_shard_max {
            return act(shard.shared.get_or_insert_with(new));
        }
        act(shard.entries.entry(key.to_owned()).or_insert_with(new))
    }

    /// Does something with the entry of `key`, which a key that comes new to a full shard has none of: strangers are many where
    /// someone wants them to be, and must not answer for each other.
    pub(super) fn with_own<Q, R>(
        &self,
        key: &Q,
        now: Time,
        new: impl FnOnce() -> E,
        act: impl FnOnce(&mut E) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.entries.get_mut(key) {
            return Some(act(entry));
        }
        if shard.entries.len() >= self.entries_per_shard_max {
            shard.search(now);
        }
        if shard.entries.len() >= self.entries_per_shard_max {
            return None;
        }
        Some(act(shard.entries.entry(key.to_owned()).or_insert_with(new)))
    }

    /// Looks at what is known of `key`: its own entry, if it has one.
    pub(super) fn look<Q, R>(&self, key: &Q, look: impl FnOnce(Option<&E>) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        look(self.shard(key).lock().entries.get(key))
    }

    /// Forgets `key`. Says whether it had an entry of its own.
    pub(super) fn forget<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shard(key).lock().entries.remove(key).is_some()
    }

    /// Forgets what is idle, and gives its memory back.
    pub(super) fn forget_idle(&self, now: Time) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.forget_idle(now);
            shard.entries.shrink_to_fit();
        }
    }

    /// Entries, without the shared ones.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    /// Looks at every entry of a key.
    pub(super) fn each(&self, mut look: impl FnMut(&K, &E)) {
        for shard in &self.shards {
            shard.lock().entries.iter().for_each(|(key, entry)| look(key, entry));
        }
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &Mutex<Shard<K, E>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("it is below SHARDS")]
    }
}

impl<K: Hash + Eq, E: Entry> Shard<K, E> {
    fn search(&mut self, now: Time) {
        if self.searched.is_none_or(|searched| now.since(searched) >= SEARCH_INTERVAL_MS) {
            self.searched = Some(now);
            self.forget_idle(now);
        }
    }

    fn forget_idle(&mut self, now: Time) {
        self.entries.retain(|_, entry| !entry.is_idle(now));
        if self.shared.as_ref().is_some_and(|shared| shared.is_idle(now)) {
            self.shared = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle from its end on.
    #[derive(Debug)]
    struct Until {
        end: Time,
        uses: u32,
    }

    impl Entry for Until {
        fn is_idle(&self, now: Time) -> bool {
            now >= self.end
        }
    }

    fn use_key(table: &Table<String, Until>, key: &str, now: Time) -> u32 {
        let new = || Until { end: now + 10_000, uses: 0 };
        let act = |until: &mut Until| {
            until.uses += 1;
            until.uses
        };
        table.with(key, now, new, act)
    }

    #[test]
    fn a_key_finds_its_entry_again() {
        let table = Table::new(100);

        assert_eq!(
            (use_key(&table, "a", Time(0)), use_key(&table, "b", Time(0)), use_key(&table, "a", Time(1))),
            (1, 1, 2)
        );
        assert!(table.forget("a") && !table.forget("a"));
        assert_eq!(use_key(&table, "a", Time(2)), 1);
    }

    #[test]
    fn a_full_table_keeps_what_it_has_and_new_keys_share() {
        let table = Table::new(SHARDS * 4);
        assert_eq!(use_key(&table, "first", Time(0)), 1);
        for n in 0..1_000 {
            use_key(&table, &n.to_string(), Time(0));
        }

        assert_eq!(table.len(), SHARDS * 4);
        assert_eq!(use_key(&table, "first", Time(1)), 2, "it was not given up");
        assert!(use_key(&table, "another", Time(1)) > 10, "it shares the entry of those without room");
        assert!(table.look("another", |entry| entry.is_none()), "whoever looks sees its own alone");
        table.forget("first");
        assert_eq!(table.len(), SHARDS * 4 - 1);
    }

    #[test]
    fn idle_entries_make_room() {
        let table = Table::new(SHARDS);
        for n in 0..1_000 {
            use_key(&table, &n.to_string(), Time(0));
        }

        assert_eq!(use_key(&table, "new", Time(10_000)), 1);
        table.forget_idle(Time(20_000));
        assert_eq!(table.len(), 0);
        assert!(table.look("other", |entry| entry.is_none()), "the shared one went too");
    }
}
