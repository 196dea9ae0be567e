//! What lets an MCP session outlive its connection: a log of what it says, with positions; who may come back to it, and until
//! when; which calls have been run.
//!
//! Everything here is a value that is told the time. One [`Recovery`] is one session's; whoever drives it pushes what it hands
//! out and keeps the sessions whose client is away in a [`DetachedSessions`].
//!
//! Source: the contract of the Elixir deployment, section 7, whose recovery token never left the server; protocol.md, "Sessions
//! that outlive their connection".

mod attachment;
mod detached;
mod executions;
mod kept;
mod log;
mod machine;
mod position;
#[cfg(test)]
mod tests;
mod token;
mod wish;

pub use attachment::Attachment;
pub use detached::DetachedSessions;
pub use executions::{Asked, AskedCall, Executions, RepeatRefused};
pub use kept::{Kept, KeptCall, KeptHead, KeptState, Unsaved};
pub use log::{Class, EventLog, Gap, Sending, Taken, UnsavedMessages};
pub use machine::{Attached, Recovery, Stale};
pub use position::Position;
pub use token::{Claims, Tokens};
pub use wish::{Offer, Wish};

/// Messages that one session's log keeps, those included that wait for its client.
pub const RECOVERY_EVENTS_MAX: usize = 1_024;
/// Bytes of messages that one session's log keeps.
pub const RECOVERY_BYTES_MAX: usize = 1_048_576;
/// Milliseconds for which a session whose client is away is kept, where the setting does not say. Source: the Elixir
/// deployment, five minutes.
pub const RECOVERY_WINDOW_MS: u64 = 300_000;
/// Sessions whose clients are away, of all users.
pub const DETACHED_SESSIONS_MAX: usize = 10_000;
/// Bytes that their logs may have when their clients go, together. 256 logs at their bound.
pub const DETACHED_BYTES_MAX: usize = 256 << 20;
/// Answers of ended calls that one session keeps, to give them again.
pub const EXECUTION_ANSWERS_MAX: usize = 256;
/// Bytes of these answers.
pub const EXECUTION_ANSWER_BYTES_MAX: usize = 1_048_576;
/// Calls of one session whose ids and keys are remembered, those whose answers were forgotten included.
pub const EXECUTIONS_MAX: usize = 4_096;
/// Bytes of these ids and keys.
pub const EXECUTION_NAME_BYTES_MAX: usize = 262_144;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Bytes of the URIs that a session which is stored may be subscribed to: they are stored together.
pub const STORED_SUBSCRIPTION_BYTES_MAX: usize = 65_536;
/// Field of a request's `_meta` that names a call, whatever its id.
pub const IDEMPOTENCY_KEY: &str = "idempotencyKey";
/// Event that tells a client that messages are missing: `{"from": n, "to": m, "dropped": count}`.
pub const GAP: &str = "gap";
