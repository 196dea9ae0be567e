//! The protocols as deterministic values and machines.
//!
//! Nothing here performs I/O, spawns a task, reads a clock or draws a random number: time and randomness are arguments.
//! The module builds with `--no-default-features`, without tokio and warp.

pub mod etf;
#[doc(hidden)]
pub mod fuzz;
pub mod history;
pub mod json;
pub mod jsonrpc;
pub mod limits;
pub mod longpoll;
pub mod mcp;
pub mod message;
pub mod origin;
pub mod policy;
pub mod presence;
pub mod query;
pub mod queue;
pub mod redact;
pub mod socket;
pub mod timestamp;
pub mod topic;
pub mod websocket;
pub mod wire;
pub mod workflow;

use std::ops::Add;

/// A point on the server's monotonic clock, in milliseconds since its start.
///
/// It has no `now()`: whoever drives a machine brings the time along, so that tests and fuzzers can make it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Milliseconds from `earlier` to this, 0 if `earlier` is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Time {
    type Output = Time;

    fn add(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }
}
