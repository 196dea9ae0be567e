//! The audit log: who came, what they were allowed, what they did, and what looked like an attack.
//!
//! ```text
//! Audit::record ──► bounded queue ──► thread ──► removes secrets ──► a file a day, or a ring in memory
//!   (never waits)                                              └───► topics, for those who watch
//! ```
//!
//! Entries are JSON lines in `audit_2026-11-26.log` and, once a file is full, `audit_2026-11-26.log.1` and so on; they
//! are given to the operating system as soon as no further ones wait, and a crash of the machine may lose the last of
//! them. Where entries could not be recorded, one of the type `error` and the operation `audit.lost` says how many.
//!
//! Nothing bounds how much a day's files take but how fast entries come: limiting those who cause them is done
//! elsewhere.
//!
//! Source: the Elixir deployment's `AuditLogger`.

mod alerts;
mod backwards;
mod entry;
mod export;
mod files;
mod query;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use entry::{
    Entry, EntryType, FIELD_BYTES_MAX, LINE_BYTES_MAX, Metadata, NewEntry, Redact, VALUE_BYTES_MAX, VALUE_DEPTH_MAX,
};
pub use export::{Export, Format};
use files::Appender;
use parking_lot::Mutex;
pub use query::{
    Filter, Found, QUERY_BYTES_MAX, QUERY_ENTRIES_DEFAULT, QUERY_ENTRIES_MAX, Visited, each_in_folder, query_folder,
};
pub use queue::QUEUE_BYTES_MAX;
use queue::Queue;
use serde::Serialize;
use tokio::sync::Semaphore;
use writer::Writer;

use crate::clock;

/// The topic on which each entry is published, with the event `audit_log`. Source: the Elixir deployment.
pub const AUDIT_TOPIC: &str = "mcp_audit_stream";
/// The topic on which alerts are published, with the event `security_alert`. Source: the Elixir deployment.
pub const ALERTS_TOPIC: &str = "mcp_security_alerts";
/// Queries of files at once, each on a thread. Whoever comes later waits.
pub const QUERIES_MAX: usize = 2;
/// Bytes of the lines of the entries in memory, however few they are.
pub const MEMORY_BYTES_MAX: usize = 16 << 20;

/// How long the thread waits for entries before it looks whether another day has begun.
const IDLE: Duration = Duration::from_secs(60);

/// Brings JSON to the subscribers of a topic: topic, event, payload. It is called by the log's thread and must not
/// wait.
pub type Publish = Box<dyn Fn(&str, &str, Bytes) + Send + Sync>;

/// Where the log is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The folder of its files, which is made where there is none. None for memory alone.
    pub folder: Option<PathBuf>,
    /// Bytes after which another file is begun.
    pub file_bytes_max: u64,
    /// Days for which files are kept beside today's.
    pub retention_days: u64,
    /// Entries in memory where there is no folder; the oldest go first, also above [`MEMORY_BYTES_MAX`].
    pub memory_entries_max: usize,
    /// Entries that wait to be written; further ones are counted and lost, also above [`QUEUE_BYTES_MAX`].
    pub queue_max: usize,
}

impl Default for AuditOptions {
    /// The numbers of the Elixir deployment, in memory; the queue's bound is ours.
    fn default() -> Self {
        AuditOptions {
            folder: None,
            file_bytes_max: 100_000_000,
            retention_days: 90,
            memory_entries_max: 10_000,
            queue_max: 8_192,
        }
    }
}

/// What was counted since the start, and what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditStats {
    /// Entries recorded, by their types.
    pub by_type: BTreeMap<EntryType, u64>,
    /// Entries recorded.
    pub total_logged: u64,
    /// Files begun because the one before was full.
    pub files_rotated: u64,
    /// Alerts published.
    pub alerts_triggered: u64,
    /// Entries lost because too many waited, or because removing their secrets failed.
    pub dropped: u64,
    /// Entries lost because the disk was full or the folder could not be written.
    pub unwritten: u64,
    /// Entries in memory; none where the log is in files, which nobody counts.
    pub total_entries: Option<usize>,
    /// The timestamp of the oldest entry that there is.
    pub oldest_entry: Option<String>,
    /// The timestamp of the newest entry recorded since the start.
    pub newest_entry: Option<String>,
}

impl AuditStats {
    fn count(&mut self, entry_type: EntryType) {
        *self.by_type.entry(entry_type).or_default() += 1;
        self.total_logged += 1;
    }
}

/// An audit log. Clones are the same one; it ends with the last of them.
#[derive(Clone)]
pub struct Audit(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    folder: Option<PathBuf>,
    queries: Semaphore,
}

/// What the thread and those who ask share. Locks are held briefly.
struct Shared {
    stats: Mutex<AuditStats>,
    ring: Mutex<Ring>,
}

/// The newest entries in memory, with the bytes of each as a line.
struct Ring {
    entries: VecDeque<(Entry, usize)>,
    entries_max: usize,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        while self.entries.len() > self.entries_max || self.bytes > MEMORY_BYTES_MAX {
            let Some((_, bytes)) = self.entries.pop_front() else { return };
            self.bytes -= bytes;
        }
    }
}

impl Audit {
    /// Starts the log's thread. `redact` removes secrets from params, results and metadata; nothing is kept, published
    /// or written before. `publish` gets each entry as JSON on [`AUDIT_TOPIC`], and alerts on [`ALERTS_TOPIC`].
    ///
    /// A folder that can't be written is no error here: that is logged once a minute, and entries are counted as
    /// unwritten.
    ///
    /// # Errors
    /// The operating system could not start a thread.
    pub fn start(options: AuditOptions, redact: Redact, publish: Publish) -> io::Result<Self> {
        let ring = Ring { entries: VecDeque::new(), entries_max: options.memory_entries_max, bytes: 0 };
        let shared = Arc::new(Shared { stats: Mutex::default(), ring: Mutex::new(ring) });
        let queue = Arc::new(Queue::new(options.queue_max));
        let files = options.folder.clone();
        let files = files.map(|folder| Appender::new(folder, options.file_bytes_max, options.retention_days));
        let mut writer = Writer::new(redact, publish, files, Arc::clone(&shared));
        let taken = Arc::clone(&queue);
        std::thread::Builder::new().name("bennu-audit".to_owned()).spawn(move || {
            // Whatever is too old goes even where nobody records anything.
            writer.take(queue::Batch::default(), clock::unix_micros());
            loop {
                let batch = taken.take(IDLE);
                let is_last = batch.is_last;
                writer.take(batch, clock::unix_micros());
                if is_last {
                    return;
                }
            }
        })?;
        let queries = Semaphore::new(QUERIES_MAX);
        Ok(Audit(Arc::new(Handle { queue, shared, folder: options.folder, queries })))
    }

    /// Records an entry. It costs a look at the entry's size and a short lock; it never waits for the disk or for room.
    /// Where there is none the entry is counted and lost.
    ///
    /// The entry comes as it is: its secrets are removed by the log, so that nobody can forget to.
    pub fn record(&self, entry: NewEntry) {
        self.0.queue.push(entry, clock::unix_micros);
    }

    /// Waits until all that was recorded before is written.
    pub async fn flush(&self) {
        // An error says that the log is closed.
        let _ = self.0.queue.flush().await;
    }

    /// Writes what waits, brings it to the disk and ends the log. What is recorded afterwards is lost.
    pub async fn close(&self) {
        let flushed = self.0.queue.flush();
        self.0.queue.close();
        // An error says that it was closed before.
        let _ = flushed.await;
    }

    /// The entries that match, those recorded just now included; the newest first.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn query(&self, filter: Filter) -> io::Result<Found> {
        self.flush().await;
        match self.0.folder.clone() {
            Some(folder) => self.reading(move || query_folder(&folder, &filter)).await,
            None => Ok(self.query_memory(&filter)),
        }
    }

    /// What was counted.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn stats(&self) -> io::Result<AuditStats> {
        self.flush().await;
        let mut stats = self.0.shared.stats.lock().clone();
        if let Some(folder) = self.0.folder.clone() {
            stats.oldest_entry = self.reading(move || query::oldest(&folder)).await?;
        } else {
            let ring = self.0.shared.ring.lock();
            stats.total_entries = Some(ring.entries.len());
            stats.oldest_entry = ring.entries.front().map(|(entry, _)| entry.timestamp.clone());
        }
        Ok(stats)
    }

    async fn reading<T: Send + 'static>(&self, read: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let _permit = self.0.queries.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn query_memory(&self, filter: &Filter) -> Found {
        let prepared = filter.prepared();
        let limit = filter.limit.min(QUERY_ENTRIES_MAX);
        let ring = self.0.shared.ring.lock();
        let mut matching = ring.entries.iter().rev().map(|(entry, _)| entry).filter(|entry| prepared.matches(entry));
        let entries = matching.by_ref().take(limit).cloned().collect();
        Found { entries, damaged_lines: 0, is_cut: matching.next().is_some() }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Audit({:?})", self.0.folder)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}
