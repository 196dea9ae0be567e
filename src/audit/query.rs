//! Finds entries: in a folder, which may be another process's, or in memory.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::backwards::{Backwards, Line};
use super::entry::{Entry, EntryType, LINE_BYTES_MAX};
use super::files;
use crate::clock;

/// Entries that a query gives where it does not say how many. Source: the Elixir deployment.
pub const QUERY_ENTRIES_DEFAULT: usize = 1_000;
/// Entries that [`query_folder`] gives at most: they are in memory. [`each_in_folder`] has no such bound.
pub const QUERY_ENTRIES_MAX: usize = 10_000;
/// Bytes of the lines of those entries.
pub const QUERY_BYTES_MAX: usize = 32 << 20;

/// How far a clock may have been set back, so that an entry stands behind a later one: microseconds. Reading ends at an
/// entry that is so much older than what was asked for.
const CLOCK_SLACK_MICROS: u64 = 3_600_000_000;

/// The last microsecond of the year 9999: timestamps sort as long as their years have four digits.
const LATEST_MICROS: u64 = 253_402_300_799_999_999;

/// Which entries are wanted. What is not set is not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// From this moment on: microseconds since 1970.
    pub from_unix_micros: Option<u64>,
    /// Before this moment.
    pub to_unix_micros: Option<u64>,
    /// Of one of these types; all if there are none.
    pub types: Vec<EntryType>,
    /// Of this user.
    pub user_id: Option<String>,
    /// Of this connection.
    pub client_id: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
    /// The newest so many.
    pub limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Filter {
            from_unix_micros: None,
            to_unix_micros: None,
            types: Vec::new(),
            user_id: None,
            client_id: None,
            operation: None,
            limit: QUERY_ENTRIES_DEFAULT,
        }
    }
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The newest first: in the opposite order of their recording.
    pub entries: Vec<Entry>,
    /// Lines that were passed over because they are no entries: half written, changed, or too long.
    pub damaged_lines: u64,
    /// Whether it ended at one of its bounds, so that older entries may match as well.
    pub is_cut: bool,
}

/// What [`each_in_folder`] went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Entries that matched.
    pub entries: u64,
    /// Lines that were passed over.
    pub damaged_lines: u64,
    /// Whether it ended at the limit, or because it was told to.
    pub is_cut: bool,
}

impl Filter {
    /// The filter with its bounds as timestamps, which sort as the times do.
    pub(super) fn prepared(&self) -> Prepared<'_> {
        let text = |micros: Option<u64>| micros.map(|micros| clock::iso8601_micros(micros.min(LATEST_MICROS)));
        let slack = self.from_unix_micros.map(|from| from.saturating_sub(CLOCK_SLACK_MICROS));
        Prepared { filter: self, from: text(self.from_unix_micros), to: text(self.to_unix_micros), stop: text(slack) }
    }
}

pub(super) struct Prepared<'a> {
    filter: &'a Filter,
    from: Option<String>,
    to: Option<String>,
    /// Nothing before an entry as old as this matches.
    stop: Option<String>,
}

impl Prepared<'_> {
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let is_equal = |wanted: &Option<String>, came: &Option<String>| wanted.is_none() || wanted == came;
        self.from.as_ref().is_none_or(|from| *from <= entry.timestamp)
            && self.to.as_ref().is_none_or(|to| entry.timestamp < *to)
            && (self.filter.types.is_empty() || self.filter.types.contains(&entry.entry_type))
            && is_equal(&self.filter.user_id, &entry.user_id)
            && is_equal(&self.filter.client_id, &entry.client_id)
            && is_equal(&self.filter.operation, &entry.operation)
    }

    /// Whether a file of this day can have a match: it has the entries with that day's timestamps, and no others.
    fn reaches(&self, day: &str) -> bool {
        let from = self.from.as_ref().map(|from| &from[..10]);
        let to = self.to.as_ref().map(|to| &to[..10]);
        from.is_none_or(|from| from <= day) && to.is_none_or(|to| day <= to)
    }

    fn is_before_all(&self, entry: &Entry) -> bool {
        self.stop.as_ref().is_some_and(|stop| entry.timestamp < *stop)
    }
}

/// Gives the entries of a folder that match to `visit`, the newest first, until it breaks. Files are read from their
/// ends with the memory of one entry; those of other days are not opened.
///
/// It reads what was written when it came to each file, and blocks: not to be called on the runtime.
///
/// # Errors
/// The operating system could not read the folder, or a file of it. A folder that is not there has no entries.
pub fn each_in_folder(
    folder: &Path,
    filter: &Filter,
    mut visit: impl FnMut(Entry, &[u8]) -> ControlFlow<()>,
) -> io::Result<Visited> {
    let prepared = filter.prepared();
    let mut visited = Visited::default();
    let limit = u64::try_from(filter.limit).unwrap_or(u64::MAX);
    for name in files::list(folder)?.into_iter().rev().filter(|name| prepared.reaches(&name.day)) {
        let file = match File::open(name.within(folder)) {
            // Deleted meanwhile, since it was too old.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut lines = Backwards::new(file, LINE_BYTES_MAX)?;
        while let Some(line) = lines.next()? {
            let entry = match &line {
                Line::Whole(line) => serde_json::from_slice::<Entry>(line).ok().map(|entry| (entry, line)),
                Line::TooLong => None,
            };
            let Some((entry, line)) = entry else {
                visited.damaged_lines += 1;
                continue;
            };
            if prepared.is_before_all(&entry) {
                break;
            }
            if !prepared.matches(&entry) {
                continue;
            }
            if visited.entries == limit {
                visited.is_cut = true;
                return Ok(visited);
            }
            visited.entries += 1;
            if visit(entry, line).is_break() {
                visited.is_cut = true;
                return Ok(visited);
            }
        }
    }
    Ok(visited)
}

/// The entries of a folder that match, at most [`QUERY_ENTRIES_MAX`] and [`QUERY_BYTES_MAX`]. It blocks.
///
/// # Errors
/// As [`each_in_folder`].
pub fn query_folder(folder: &Path, filter: &Filter) -> io::Result<Found> {
    let filter = Filter { limit: filter.limit.min(QUERY_ENTRIES_MAX), ..filter.clone() };
    let mut entries = Vec::new();
    let mut bytes = 0;
    let visited = each_in_folder(folder, &filter, |entry, line| {
        bytes += line.len();
        entries.push(entry);
        if bytes > QUERY_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(Found { entries, damaged_lines: visited.damaged_lines, is_cut: visited.is_cut })
}

/// The timestamp of the oldest entry of a folder. It reads the oldest file, and blocks.
///
/// # Errors
/// The operating system could not read.
pub(super) fn oldest(folder: &Path) -> io::Result<Option<String>> {
    use io::BufRead;
    for name in files::list(folder)? {
        let file = io::BufReader::new(File::open(name.within(folder))?);
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        // A damaged first line is rare enough that the rest of its file is not looked through.
        let mut line = Vec::new();
        io::Read::take(file, limit).read_until(b'\n', &mut line)?;
        if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
            return Ok(Some(entry.timestamp));
        }
    }
    Ok(None)
}
