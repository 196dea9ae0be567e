//! A store in the process's memory, as long as the process lives.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Backend, Entry, Keys, MEMORY_BYTES_MAX, Snapshot, StoreError, Table, Transaction};

/// The tables behind a lock. All that is done under it is short.
#[derive(Default)]
pub(super) struct Memory(Mutex<Tables>);

#[derive(Default)]
pub(super) struct Tables {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Of all keys and values.
    bytes: usize,
}

impl Backend for Memory {
    fn is_durable(&self) -> bool {
        false
    }

    async fn get(&self, table: Table, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lock().get(table, &key)
    }

    async fn range(&self, table: Table, keys: Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.0.lock().range(table, &keys, limit)
    }

    async fn change<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let mut tables = self.0.lock();
        let mut transaction = Transaction::new(&*tables);
        let outcome = work(&mut transaction)?;
        let changes = transaction.changes;
        let mut bytes = tables.bytes;
        for (table, changed) in &changes {
            let before = tables.tables.get(table);
            for (key, value) in changed {
                bytes -= before.and_then(|before| before.get(key)).map_or(0, |value| key.len() + value.len());
                bytes += value.as_ref().map_or(0, |value| key.len() + value.len());
            }
        }
        // What makes it smaller is always taken.
        if bytes > MEMORY_BYTES_MAX && bytes > tables.bytes {
            return Err(StoreError::Full { limit: MEMORY_BYTES_MAX }.into());
        }
        tables.bytes = bytes;
        for (table, changed) in changes {
            let entries = tables.tables.entry(table).or_default();
            for (key, value) in changed {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
        }
        Ok(outcome)
    }

    /// It stays as it is: there is nothing to give back.
    async fn close(&self) {}
}

impl Snapshot for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.get(&table).and_then(|entries| entries.get(key)).cloned())
    }

    fn range(&self, table: Table, keys: &Keys, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.tables.get(&table).into_iter().flat_map(|entries| entries.range::<[u8], _>(keys.bounds()));
        Ok(entries.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
