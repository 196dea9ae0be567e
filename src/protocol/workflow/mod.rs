//! Workflows: definitions that compose tools, and the machine that steps through them.
//!
//! ```text
//! definition ─ read ─► Definition ─► Stepper ◄─ Event (a tool returned, a timer elapsed, a trigger fired)
//!                                       └─► Action (call a tool, arm a timer, tell a watcher, end)
//! ```
//!
//! Nothing here calls, waits or draws: whoever drives a [`Stepper`] does, and writes each [`Event`] down. The same events in
//! the same order bring another stepper to the same state, which is how a run goes on after a crash.
//!
//! Source: the contract of the Elixir deployment, section 10; protocol.md, "Workflows".

pub mod builtin;
pub mod definition;
pub mod expression;
pub mod fault;
mod fill;
mod mask;
pub mod measure;
pub mod parameter;
pub mod read;
mod reader;
pub mod sanitise;
pub mod shared_context;
pub mod source;
pub mod stepper;
pub mod template;
pub mod trigger;
pub mod version;

pub use definition::{Definition, Step, StepIndex};
pub use fault::Fault;
pub use read::{Templates, compile};
pub use reader::standing_trigger;
pub use stepper::{Action, CallId, Event, Failure, FailureKind, Stepper, TimerId, WatchId};

/// Bytes of a definition as JSON, templates filled in.
pub const DEFINITION_BYTES_MAX: usize = 262_144;
/// Steps of a definition, nested ones included.
pub const STEPS_MAX: usize = 2_000;
/// Definitions within definitions.
pub const NESTING_MAX: usize = 16;
/// Rounds of one loop.
pub const ITERATIONS_MAX: usize = 100_000;
/// Steps that one run begins, repeated ones counted each time.
pub const STARTS_MAX: usize = 1_000_000;
/// Steps of one run that are under way at once.
pub const NODES_MAX: usize = 20_000;
/// Bytes of JSON that the steps of one run give in all, and that lists and objects of such results repeat.
pub const RUN_BYTES_MAX: usize = 64 << 20;
/// Lists and objects of a value within each other: it is written as JSON and read again.
pub const DEPTH_MAX: usize = 64;
/// Further attempts of a step.
pub const RETRIES_MAX: u32 = 10;
/// Milliseconds of a step's timeout, and of a whole run's: a day.
pub const TIMEOUT_MS_MAX: u64 = 86_400_000;
/// Milliseconds between two attempts, and of a trigger's delay: an hour.
pub const DELAY_MS_MAX: u64 = 3_600_000;
/// Triggers of one reactive step.
pub const TRIGGERS_MAX: usize = 100;
/// Tools among which one is chosen.
pub const CHOICES_MAX: usize = 1_000;
/// Bytes of a step's id.
pub const ID_BYTES_MAX: usize = 64;
