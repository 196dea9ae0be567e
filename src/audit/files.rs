//! The log's files: which there are, which is written, and which are deleted.
//!
//! A day's first file is `audit_2026-11-26.log`; when it is full the next is `audit_2026-11-26.log.1`, then `.2`. No
//! file is ever renamed, so that whoever reads the folder, also from another process, neither misses an entry nor gets
//! one twice.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::clock;

/// Microseconds of a day.
const DAY_MICROS: u64 = 86_400_000_000;

/// A file of the log. They sort in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// `2026-11-26`.
    pub(super) day: String,
    /// Counts the files of a day from 0.
    pub(super) piece: u32,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let (day, piece) = name.strip_prefix("audit_")?.split_once(".log")?;
        let is_day = day.len() == 10
            && day
                .bytes()
                .enumerate()
                .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
        let piece = match piece {
            "" => 0,
            piece => piece.strip_prefix('.')?.parse().ok().filter(|piece| *piece > 0)?,
        };
        let parsed = Name { day: day.to_owned(), piece };
        (is_day && parsed.spell() == name).then_some(parsed)
    }

    fn spell(&self) -> String {
        let Name { day, piece } = self;
        if *piece == 0 { format!("audit_{day}.log") } else { format!("audit_{day}.log.{piece}") }
    }

    pub(super) fn within(&self, folder: &Path) -> PathBuf {
        folder.join(self.spell())
    }
}

/// The files in a folder, the oldest first. Others in it are passed over.
///
/// # Errors
/// The folder can't be read. Where there is none, there are no files.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Name>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_str().and_then(Name::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// The day of a moment.
pub(super) fn day(unix_micros: u64) -> String {
    let mut text = clock::iso8601_micros(unix_micros);
    text.truncate(10);
    text
}

/// Appends to a folder's files.
pub(super) struct Appender {
    folder: PathBuf,
    file_bytes_max: u64,
    retention_days: u64,
    open: Option<Open>,
    /// Files that were begun because the one before was full.
    pub(super) rotated: u64,
}

struct Open {
    name: Name,
    file: File,
    bytes: u64,
}

impl Appender {
    pub(super) fn new(folder: PathBuf, file_bytes_max: u64, retention_days: u64) -> Self {
        Appender { folder, file_bytes_max, retention_days, open: None, rotated: 0 }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much more may be written to this day's file at once; 0 where another has to be begun first.
    pub(super) fn room(&self, day: &str) -> u64 {
        let open = self.open.as_ref().filter(|open| open.name.day == day);
        open.map_or(0, |open| self.file_bytes_max.saturating_sub(open.bytes))
    }

    /// Appends whole lines to a day's file. Where it is full another is begun; a file takes one line at least.
    ///
    /// # Errors
    /// The operating system could not. A part of the lines may be there; the next append begins a line of its own.
    pub(super) fn append(&mut self, day: &str, lines: &[u8]) -> io::Result<()> {
        let written = self.try_append(day, lines);
        if written.is_err() {
            // Opened anew next time: its folder may be gone, its last line may be half of one.
            self.open = None;
        }
        written
    }

    fn try_append(&mut self, day: &str, lines: &[u8]) -> io::Result<()> {
        let bytes = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let is_of_day = self.open.as_ref().is_some_and(|open| open.name.day == day);
        if !is_of_day {
            self.close()?;
            self.open = Some(open_last(&self.folder, day)?);
        }
        while let Some(open) =
            self.open.as_ref().filter(|open| open.bytes > 0 && open.bytes + bytes > self.file_bytes_max)
        {
            let next = Name { day: day.to_owned(), piece: open.name.piece.saturating_add(1) };
            self.close()?;
            self.open = Some(open_file(&self.folder, next)?);
            self.rotated += 1;
        }
        let open = self.open.as_mut().expect("one was opened above");
        open.file.write_all(lines)?;
        open.bytes += bytes;
        Ok(())
    }

    /// Brings what was written to the disk, and closes the file.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.open.take().map_or(Ok(()), |open| open.file.sync_data())
    }

    /// Deletes the files of days that are over for longer than the retention.
    ///
    /// # Errors
    /// The first that could not be deleted; the others are.
    pub(super) fn delete_old(&self, now_unix_micros: u64) -> io::Result<u64> {
        let Some(oldest) = now_unix_micros.checked_sub(self.retention_days.saturating_mul(DAY_MICROS)) else {
            return Ok(0);
        };
        let oldest = day(oldest);
        let mut deleted = 0;
        let mut failed = None;
        for name in list(&self.folder)?.into_iter().filter(|name| name.day < oldest) {
            match std::fs::remove_file(name.within(&self.folder)) {
                Ok(()) => deleted += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        failed.map_or(Ok(deleted), Err)
    }
}

/// Opens the day's last file, so that a restarted process goes on where it was.
fn open_last(folder: &Path, day: &str) -> io::Result<Open> {
    make_folder(folder)?;
    let last = list(folder)?.into_iter().rfind(|name| name.day == day);
    open_file(folder, last.unwrap_or_else(|| Name { day: day.to_owned(), piece: 0 }))
}

fn open_file(folder: &Path, name: Name) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(name.within(folder))?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // A process or a disk ended in the middle of a line: it stays damaged, and the next is whole.
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(Open { name, file, bytes })
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others_and_sort_as_they_were_written() {
        let mut names =
            ["audit_2026-11-26.log.10", "audit_2026-11-26.log.2", "audit_2026-11-27.log", "audit_2026-11-26.log"];
        let others = [
            "audit_2026-11-26.log.0",
            "audit_2026-11-26.log.01",
            "audit_2026-11-26.log.gz",
            "audit_x.log",
            "audit_2026-1-26.log",
        ];

        assert!(names.iter().all(|name| Name::parse(name).is_some_and(|parsed| parsed.spell() == *name)));
        assert!(others.iter().all(|name| Name::parse(name).is_none()));
        names.sort_by_key(|name| Name::parse(name));
        assert_eq!(
            names,
            ["audit_2026-11-26.log", "audit_2026-11-26.log.2", "audit_2026-11-26.log.10", "audit_2026-11-27.log"]
        );
    }
}
