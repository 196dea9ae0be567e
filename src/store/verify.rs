//! Looks a store's file over without changing it: whether it is one, whole, and what is in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase};

use super::file::{caught, fault};
use super::format::{self, Content, FORMAT, Found};
use super::{CACHE_BYTES, StoreError, disk};

/// What was found in a store's file that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Its format. An older one than the current is changed when a server opens it.
    pub(crate) format: u32,
    /// The version of the program that wrote it, where the format tells.
    pub(crate) version: Option<String>,
    /// Its tables, in the order of their names.
    pub(crate) tables: Vec<VerifiedTable>,
}

/// A table of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedTable {
    /// Its name.
    pub(crate) name: String,
    /// How many keys it has.
    pub(crate) entries: u64,
    /// Bytes of its keys and values.
    pub(crate) bytes: u64,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { path, bytes, format, version, tables } = self;
        write!(f, "store {}: whole, format {format}", path.display())?;
        if *format < FORMAT {
            write!(f, " (a server changes it to {FORMAT})")?;
        }
        if let Some(version) = version {
            write!(f, " by bennu {version}")?;
        }
        let entries: u64 = tables.iter().map(|table| table.entries).sum();
        write!(f, ", {bytes} bytes, {entries} entries")?;
        for (n, VerifiedTable { name, entries, bytes }) in tables.iter().enumerate() {
            write!(f, "{}{name} {entries} ({bytes} bytes)", if n == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// Reads the whole file and holds each page and each value against its checksum: of values with a wrong one, which pages that
/// were written anew may have, it says how many each table has. The file stays as it is: what a crash left
/// unfinished is put right in memory alone, as a server would when it opens it.
///
/// # Errors
/// [`StoreError`]: it is something else, newer, in use, damaged or can't be read.
pub(crate) async fn verify(path: &Path) -> Result<Verified, StoreError> {
    let path = path.to_owned();
    blocking(move || {
        let opened = open(&path)?;
        let (verified, damaged) = caught(&path, || look_over(&path, &opened).map_err(|error| fault(&path, error)))?;
        if damaged.is_empty() {
            return Ok(verified);
        }
        let counts = damaged.iter().map(|(table, count)| format!("{count} of the table {table}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        Err(StoreError::Damaged { path, why: format!("entries are not what was written: {counts}") })
    })
    .await
}

/// What is in it; and by table how many entries have a wrong checksum, where any has.
fn look_over(path: &Path, opened: &Opened) -> Result<(Verified, BTreeMap<String, u64>), redb::Error> {
    let transaction = opened.database.begin_read()?;
    let mut tables: Vec<VerifiedTable> = Vec::new();
    let mut damaged = BTreeMap::new();
    for listed in format::tables(&transaction)? {
        let mut table = VerifiedTable { name: listed.name.clone(), entries: 0, bytes: 0 };
        listed.each::<redb::Error>(&transaction, |key, value| {
            table.entries += 1;
            table.bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
            if value.is_none() {
                *damaged.entry(listed.name.clone()).or_default() += 1;
            }
            Ok(())
        })?;
        match tables.last_mut() {
            // The part of it that a migration has not moved yet, and the other.
            Some(last) if last.name == table.name => {
                last.entries += table.entries;
                last.bytes += table.bytes;
            }
            _ => tables.push(table),
        }
    }
    let Found { format, version } = opened.found.clone().unwrap_or(Found { format: FORMAT, version: None });
    Ok((Verified { path: path.to_owned(), bytes: opened.bytes, format, version, tables }, damaged))
}

/// A file that is open and stays as it is.
pub(super) struct Opened {
    pub(super) database: Database,
    found: Option<Found>,
    bytes: u64,
}

pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let (staged, bytes) = disk::untouched(path)?;
    let (database, found) = open_checked(path, staged)?;
    Ok(Opened { database, found, bytes })
}

/// Opens what is no newer than this program, after redb has held all of it against its checksums.
pub(super) fn open_checked(path: &Path, staged: disk::Staged) -> Result<(Database, Option<Found>), StoreError> {
    caught(path, || {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(staged).map_err(|error| fault(path, error))?;
        let transaction = database.begin_read().map_err(|error| fault(path, error))?;
        match format::found(&transaction).map_err(|error| fault(path, error))? {
            Content::Store(Found { format, version }) if format > FORMAT => Err(StoreError::Newer {
                path: path.to_owned(),
                found: format,
                known: FORMAT,
                writer: version.unwrap_or_else(|| "of unknown version".to_owned()),
            }),
            Content::Store(found) => Ok((database, Some(found))),
            Content::Nothing => Ok((database, None)),
            Content::Foreign => Err(StoreError::Foreign { path: path.to_owned() }),
        }
    })
}

/// Does what waits for a disk apart from the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime stops and never started it.
        Err(_) => Err(StoreError::Closed),
    }
}
