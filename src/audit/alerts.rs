//! Counts what may be an attack, and says so once a minute.

use super::entry::{Entry, EntryType};

/// How long one window is: microseconds.
const WINDOW_MICROS: u64 = 60_000_000;

/// What is counted, how many of it within a window are alarming, and in which words that is said.
///
/// Source: the Elixir deployment's `AuditLogger`, whose own counter never counted.
const METRICS: [(&str, u64, &str); 3] = [
    ("auth_failures", 10, "authentications failed"),
    ("rate_limits", 50, "requests were limited"),
    ("security_events", 5, "security events happened"),
];

/// Something alarming.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Alert {
    pub(super) metric: &'static str,
    pub(super) message: String,
    pub(super) count: u64,
    /// The time of the entry that was one too many.
    pub(super) timestamp: String,
}

/// A window begins with the first that is counted, so that no quick series is parted by the turn of a minute.
#[derive(Default)]
pub(super) struct Alerts([Window; METRICS.len()]);

#[derive(Clone, Copy, Default)]
struct Window {
    began_unix_micros: u64,
    count: u64,
}

impl Alerts {
    /// Counts an entry; gives the alert with the entry that makes it alarming.
    pub(super) fn count(&mut self, entry: &Entry, unix_micros: u64) -> Option<Alert> {
        let counted = match entry.entry_type {
            EntryType::Authentication if entry.is_failed_authentication() => 0,
            EntryType::RateLimit => 1,
            EntryType::SecurityEvent => 2,
            _ => return None,
        };
        let (window, (metric, limit, what)) = (&mut self.0[counted], METRICS[counted]);
        // A clock that was set back begins a new one as well.
        let is_within = unix_micros.checked_sub(window.began_unix_micros).is_some_and(|passed| passed < WINDOW_MICROS);
        if window.count == 0 || !is_within {
            *window = Window { began_unix_micros: unix_micros, count: 0 };
        }
        window.count += 1;
        (window.count == limit).then(|| Alert {
            metric,
            message: format!("{limit} {what} within a minute"),
            count: limit,
            timestamp: entry.timestamp.clone(),
        })
    }
}
