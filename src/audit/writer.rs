//! What the log's thread does with the entries that it takes: a machine that is told the time.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::alerts::Alerts;
use super::entry::{self, Entry, EntryType, NewEntry, Redact};
use super::files::{self, Appender};
use super::queue::{Batch, Waiting};
use super::{ALERTS_TOPIC, AUDIT_TOPIC, Publish, Shared};
use crate::{clock, random};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 262_144;
/// How often a failure is said: microseconds.
const SAID_EVERY_MICROS: u64 = 60_000_000;

pub(super) struct Writer {
    redact: Redact,
    publish: Publish,
    /// None where entries are kept in memory.
    files: Option<Appender>,
    shared: Arc<Shared>,
    alerts: Alerts,
    /// Lines that wait to be written, and of which day.
    lines: Vec<u8>,
    lines_count: u64,
    lines_day: String,
    /// The day on which old files were last deleted.
    cleaned_day: String,
    said_unix_micros: Option<u64>,
    /// Entries that the log does not say anything about yet.
    lost_by_queue: u64,
    lost_by_disk: u64,
}

impl Writer {
    pub(super) fn new(redact: Redact, publish: Publish, files: Option<Appender>, shared: Arc<Shared>) -> Self {
        Writer {
            redact,
            publish,
            files,
            shared,
            alerts: Alerts::default(),
            lines: Vec::new(),
            lines_count: 0,
            lines_day: String::new(),
            cleaned_day: String::new(),
            said_unix_micros: None,
            lost_by_queue: 0,
            lost_by_disk: 0,
        }
    }

    /// Writes a batch, and once a day deletes what is too old. With the last batch the file is closed.
    pub(super) fn take(&mut self, batch: Batch, now_unix_micros: u64) {
        for waiting in batch.entries {
            self.add(waiting);
        }
        self.write(now_unix_micros);
        if batch.lost > 0 {
            self.lost_by_queue += batch.lost;
            self.shared.stats.lock().dropped += batch.lost;
            self.say(now_unix_micros, "audit entries were dropped: more came than could be written", batch.lost, None);
        }
        self.tell_lost(now_unix_micros);
        self.clean(now_unix_micros);
        if batch.is_last
            && let Some(Err(error)) = self.files.as_mut().map(Appender::close)
        {
            self.say(now_unix_micros, "the audit log could not be brought to the disk", 0, Some(&error));
        }
        for flushed in batch.flushes {
            // Nobody may be waiting any more.
            let _ = flushed.send(());
        }
    }

    fn add(&mut self, Waiting { entry, unix_micros }: Waiting) {
        let redact = self.redact;
        let id = format!("{:032x}", u128::from_be_bytes(random::bytes()));
        let timestamp = clock::iso8601_micros(unix_micros);
        // Neither function is ours: a panic of one must not end the log.
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut entry = entry::redacted(entry, id, timestamp, redact);
            let line = Bytes::from(entry.line());
            (entry, line)
        }));
        let Ok((entry, line)) = made else {
            tracing::error!("an audit entry was lost: removing its secrets panicked");
            self.shared.stats.lock().dropped += 1;
            return;
        };
        self.publish(AUDIT_TOPIC, "audit_log", line.clone());
        let alert = self.alerts.count(&entry, unix_micros);
        if let Some(alert) = &alert {
            tracing::warn!(metric = alert.metric, count = alert.count, "security alert");
            let json = serde_json::to_vec(alert).expect("an alert has string keys");
            self.publish(ALERTS_TOPIC, "security_alert", json.into());
        }
        {
            let mut stats = self.shared.stats.lock();
            stats.count(entry.entry_type);
            stats.alerts_triggered += u64::from(alert.is_some());
            stats.newest_entry = Some(entry.timestamp.clone());
        }
        self.keep(entry, &line, unix_micros);
    }

    fn keep(&mut self, entry: Entry, line: &[u8], unix_micros: u64) {
        let Some(files) = &self.files else {
            self.shared.ring.lock().push(entry, line.len());
            return;
        };
        let day = files::day(unix_micros);
        let room = usize::try_from(files.room(&day)).unwrap_or(usize::MAX);
        let bytes = self.lines.len() + line.len() + 1;
        // All lines of one write go into one file.
        if day != self.lines_day || bytes > WRITE_BYTES || bytes > room {
            self.write(unix_micros);
            self.lines_day = day;
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.lines_count += 1;
    }

    /// Gives the lines that wait to the operating system.
    fn write(&mut self, now_unix_micros: u64) {
        let Some(files) = self.files.as_mut().filter(|_| !self.lines.is_empty()) else { return };
        let written = files.append(&self.lines_day, &self.lines);
        let rotated = files.rotated;
        let lost = if written.is_err() { self.lines_count } else { 0 };
        self.lines.clear();
        self.lines_count = 0;
        self.lost_by_disk += lost;
        {
            let mut stats = self.shared.stats.lock();
            stats.files_rotated = rotated;
            stats.unwritten += lost;
        }
        if let Err(error) = written {
            self.say(now_unix_micros, "audit entries could not be written", lost, Some(&error));
        }
    }

    /// Records that entries were lost, so that the log itself says where it is not whole.
    fn tell_lost(&mut self, now_unix_micros: u64) {
        if self.lost_by_queue == 0 && self.lost_by_disk == 0 {
            return;
        }
        let told = (self.lost_by_queue, self.lost_by_disk);
        let lost = json!({"dropped": told.0, "unwritten": told.1});
        let entry =
            NewEntry { operation: Some("audit.lost".into()), result: Some(lost), ..NewEntry::new(EntryType::Error) };
        let redact = std::mem::replace(&mut self.redact, serde_json::Value::clone);
        self.add(Waiting { entry, unix_micros: now_unix_micros });
        self.redact = redact;
        self.write(now_unix_micros);
        // The disk may still be full: this entry is not one of those that were lost, and they are told later.
        if self.lost_by_disk > told.1 {
            self.lost_by_disk = told.1;
        } else {
            (self.lost_by_queue, self.lost_by_disk) = (0, 0);
        }
    }

    fn clean(&mut self, now_unix_micros: u64) {
        let today = files::day(now_unix_micros);
        if today == self.cleaned_day {
            return;
        }
        self.cleaned_day = today;
        match self.files.as_ref().map(|files| files.delete_old(now_unix_micros)) {
            None | Some(Ok(0)) => {}
            Some(Ok(files)) => tracing::info!(files, "audit log files were deleted: their retention is over"),
            Some(Err(error)) => tracing::error!(%error, "old audit log files could not be deleted"),
        }
    }

    fn publish(&self, topic: &str, event: &str, json: Bytes) {
        let publish = &self.publish;
        if std::panic::catch_unwind(AssertUnwindSafe(|| publish(topic, event, json))).is_err() {
            tracing::error!(topic, "publishing an audit entry panicked");
        }
    }

    /// Says a failure, unless one was said within the last minute. A log that is about a flood must not be one.
    fn say(&mut self, now_unix_micros: u64, what: &str, entries: u64, error: Option<&io::Error>) {
        let said = self.said_unix_micros.and_then(|said| now_unix_micros.checked_sub(said));
        if said.is_some_and(|passed| passed < SAID_EVERY_MICROS) {
            return;
        }
        self.said_unix_micros = Some(now_unix_micros);
        let folder = self.files.as_ref().map(|files| files.folder().display().to_string());
        let error = error.map(ToString::to_string);
        tracing::error!(entries, folder, error, "{what}");
    }
}
