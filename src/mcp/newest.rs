//! What a store keeps for each user by itself, the newest of it: entries in the order in which they came.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::auth::Identity;
use super::{CallError, uuid};
use crate::store::{Keys, Store, StoreError, Table, Transaction};

/// A table of such entries, and how many of them one user has at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// By user and id; each value is JSON.
    pub(super) table: Table,
    pub(super) entries_max: usize,
    /// Bytes of all entries of one user, as they are stored. No entry by itself is larger.
    pub(super) bytes_max: usize,
}

/// The entries of one user.
#[derive(Clone, Debug)]
pub(super) struct NewestOf {
    of: Newest,
    /// What the user's keys begin with: no user's is the beginning of another's.
    prefix: Vec<u8>,
}

impl Newest {
    /// Those of this user.
    pub(super) fn of(self, user: &Identity) -> NewestOf {
        let user = user.user.as_bytes();
        let length = u32::try_from(user.len()).unwrap_or(u32::MAX);
        NewestOf { of: self, prefix: [&length.to_be_bytes(), user].concat() }
    }
}

impl NewestOf {
    /// All entries, the oldest first.
    ///
    /// # Errors
    /// The store failed, or has what this version does not read.
    pub(super) async fn read<T: DeserializeOwned>(&self, store: &Store) -> Result<Vec<T>, CallError> {
        let all = store.range(self.of.table, self.keys(), self.of.entries_max).await?;
        all.iter().map(|(_, entry)| self.parse(entry)).collect()
    }

    /// The same within a change.
    ///
    /// # Errors
    /// As [`NewestOf::read`].
    pub(super) fn read_in<T: DeserializeOwned>(&self, change: &Transaction<'_>) -> Result<Vec<T>, CallError> {
        let all = change.range(self.of.table, &self.keys(), self.of.entries_max)?;
        all.iter().map(|(_, entry)| self.parse(entry)).collect()
    }

    /// Adds the entry that `make` makes of its id. The oldest go where there is no place for it beside them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn add<T: Serialize>(
        &self,
        change: &mut Transaction<'_>,
        make: impl FnOnce(String) -> T,
    ) -> Result<T, StoreError> {
        let table = self.of.table;
        let mut entries = change.range(table, &self.keys(), self.of.entries_max)?;
        let mut id = uuid::draw();
        // The clock may have been set back, or not have moved: what is newest sorts last all the same.
        if let Some((last, _)) = entries.last().filter(|(last, _)| *last >= self.key(&id)) {
            id = uuid::after(&String::from_utf8_lossy(&last[self.prefix.len()..]));
        }
        let key = self.key(&id);
        let made = make(id);
        let entry = serde_json::to_vec(&made).expect("an entry has string keys");
        let mut bytes = entry.len() + entries.iter().map(|(_, entry)| entry.len()).sum::<usize>();
        let mut count = 1 + entries.len();
        for (key, entry) in entries.drain(..) {
            if count <= self.of.entries_max && bytes <= self.of.bytes_max {
                break;
            }
            count -= 1;
            bytes -= entry.len();
            change.delete(table, key);
        }
        change.put(table, key, entry)?;
        Ok(made)
    }

    /// Takes an entry away. Whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn remove(&self, change: &mut Transaction<'_>, id: &str) -> Result<bool, StoreError> {
        let key = self.key(id);
        let is_there = change.get(self.of.table, &key)?.is_some();
        if is_there {
            change.delete(self.of.table, key);
        }
        Ok(is_there)
    }

    /// Takes all entries away. How many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn clear(&self, change: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let all = change.range(self.of.table, &self.keys(), self.of.entries_max)?;
        let count = all.len();
        for (key, _) in all {
            change.delete(self.of.table, key);
        }
        Ok(count)
    }

    fn keys(&self) -> Keys {
        Keys::beginning_with(self.prefix.as_slice())
    }

    fn key(&self, id: &str) -> Vec<u8> {
        [&self.prefix, id.as_bytes()].concat()
    }

    fn parse<T: DeserializeOwned>(&self, entry: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(entry).map_err(|error| {
            let table = self.of.table.0;
            tracing::error!(%error, table, "an entry is stored in a form that this version does not read");
            CallError::failed("the store failed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: Newest = Newest { table: Table("notes"), entries_max: 10, bytes_max: 100 };

    fn of(user: &str) -> NewestOf {
        NOTES.of(&Identity::of_user(user))
    }

    async fn add(store: &Store, user: &str, note: &str) -> String {
        let (of, note) = (of(user), note.to_owned());
        let mut id = String::new();
        let added = store.change(move |change| {
            of.add(change, |drawn| {
                id = drawn;
                note
            })?;
            Ok::<_, StoreError>(id)
        });
        added.await.expect("added")
    }

    async fn notes(store: &Store, user: &str) -> Vec<String> {
        of(user).read(store).await.expect("read")
    }

    #[tokio::test]
    async fn the_newest_are_kept() {
        let store = Store::in_memory();

        for n in 0..25 {
            add(&store, "ann", &n.to_string()).await;
        }

        let kept: Vec<_> = (15..25).map(|n| n.to_string()).collect();
        assert_eq!(notes(&store, "ann").await, kept);
    }

    #[tokio::test]
    async fn no_more_bytes_are_kept_than_the_bound() {
        let store = Store::in_memory();

        for letter in ["a", "b", "c", "d"] {
            // 32 bytes with its quotes: three have place.
            add(&store, "ann", &letter.repeat(30)).await;
        }

        assert_eq!(notes(&store, "ann").await, ["b", "c", "d"].map(|letter| letter.repeat(30)));
    }

    #[tokio::test]
    async fn a_user_has_no_part_in_what_others_have() {
        let store = Store::in_memory();
        let id = add(&store, "ann", "hers").await;
        add(&store, "annabel", "another's").await;
        let remove_as = async |user: &str| {
            let (of, id) = (of(user), id.clone());
            store.change(move |change| of.remove(change, &id)).await
        };

        assert_eq!(notes(&store, "ann").await, ["hers"]);
        assert_eq!(remove_as("annabel").await, Ok(false));
        assert_eq!(remove_as("ann").await, Ok(true));
        assert_eq!(remove_as("ann").await, Ok(false));
        let bobs = of("bob");
        assert_eq!(store.change(move |change| bobs.clear(change)).await, Ok(0));
        let annabels = of("annabel");
        assert_eq!(store.change(move |change| annabels.clear(change)).await, Ok(1));
        assert!(notes(&store, "annabel").await.is_empty());
    }
}
