//! Whether a session's client is there, and until when it may come back.

use crate::protocol::Time;

/// Where a session stands. Each attachment has a number, counted from 1; whoever acts for an older one is refused.
///
/// ```text
///            ┌─────── attach: the newer wins ───────┐
///            ▼                                      │
/// Attached ──┴─ lost ─► Detached ── attach in time ─┘
///    │                     │
///    └──── leave ────► Ended ◄── its time is over, or others need its place
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A client is there.
    Attached,
    /// None is, until this moment; in that moment it is over.
    Detached {
        /// When it is over.
        until: Time,
    },
    /// Nobody comes back to it.
    Ended,
}

impl Attachment {
    /// Whether a client may attach at that time.
    pub fn may_attach(self, now: Time) -> bool {
        match self {
            Attachment::Attached => true,
            Attachment::Detached { until } => now < until,
            Attachment::Ended => false,
        }
    }
}
