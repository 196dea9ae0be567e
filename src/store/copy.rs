//! A store's content at one moment as a file of its own: a backup, which is a store.

use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase};

use super::file::{caught, fault};
use super::format::{self, Definition};
use super::{CACHE_BYTES, StoreError, disk, verify};

/// Bytes of entries that one transaction of the copy takes; so many, and the cache, are in memory.
const STEP_BYTES_MAX: usize = 4 << 20;

/// Copies a store's file that no server has open, and leaves it as it is. Gives the bytes of the copy, which is synced.
///
/// # Errors
/// [`StoreError`], of either file. `to` is empty, and `named` in what is said of it.
pub(crate) async fn copy_file(from: &Path, to: std::fs::File, named: &Path) -> Result<u64, StoreError> {
    let (from, named) = (from.to_owned(), named.to_owned());
    verify::blocking(move || {
        let opened = verify::open(&from)?;
        let transaction = caught(&from, || opened.database.begin_read().map_err(|error| fault(&from, error)))?;
        write(&transaction, &from, to, &named)
    })
    .await
}

/// Writes what a transaction reads.
pub(super) fn write(
    transaction: &ReadTransaction,
    from: &Path,
    to: std::fs::File,
    named: &Path,
) -> Result<u64, StoreError> {
    let there = |error: redb::Error| fault(named, error);
    let handle = to.try_clone().map_err(|error| there(error.into()))?;
    let backend = FileBackend::new(to).map_err(|error| there(error.into()))?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    let database = database.map_err(|error| there(error.into()))?;
    for listed in caught(from, || format::tables(transaction).map_err(|error| fault(from, error)))? {
        let mut entries = Vec::new();
        let mut bytes = 0;
        // Of redb's errors while it reads; those of the copy say so themselves.
        let read = |error| match error {
            Step::Read(error) => fault(from, error),
            Step::Write(error) => fault(named, error),
        };
        caught(from, || {
            let each = |key: &[u8], value: Option<&[u8]>| {
                let value = value.ok_or_else(|| redb::Error::Corrupted(format::wrong(&listed.name, key)))?;
                bytes += key.len() + value.len();
                entries.push((key.to_vec(), format::seal(&listed.name, key, value.to_vec())));
                if bytes < STEP_BYTES_MAX {
                    return Ok(());
                }
                bytes = 0;
                store(&database, &listed.name, &mut entries).map_err(Step::Write)
            };
            listed.each(transaction, each).map_err(read)
        })?;
        store(&database, &listed.name, &mut entries).map_err(there)?;
    }
    format::begin(&database).map_err(there)?;
    database.close().map_err(|error| there(error.into()))?;
    disk::sync(&handle).map_err(|error| there(error.into()))
}

enum Step {
    Read(redb::Error),
    Write(redb::Error),
}

impl From<redb::Error> for Step {
    fn from(error: redb::Error) -> Self {
        Step::Read(error)
    }
}

fn store(database: &Database, table: &str, entries: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(Definition::new(table))?;
        for (key, value) in entries.drain(..) {
            table.insert(&*key, &*value)?;
        }
    }
    Ok(transaction.commit()?)
}
