//! What MCP says on a Phoenix channel: names, the join's handshake, shapes of methods and events. Pure.
//!
//! Joining `mcp:session` is the handshake, so there is no `initialize`. The texts and keys are those of the Elixir
//! deployment whose clients move here.
//!
//! Source: the contract of the Elixir deployment, sections 2 to 5, with the decisions made on it.

pub mod event;
pub mod progress;
pub mod run_log;
pub mod session;
pub mod tool;

/// The one version that the join reply states.
pub const PROTOCOL_VERSION: &str = "2024-11-05";

/// Topic of a client's first session.
pub const SESSION_TOPIC: &str = "mcp:session";
/// What topics of further sessions start with, before a name of the client's choice.
pub const SESSION_TOPIC_PREFIX: &str = "mcp:session:";
/// Topic on which a client watches the streaming events of a session on the same socket.
pub const OBSERVER_TOPIC: &str = "mcp:session:streaming";
/// What the topic of one run starts with, before the run's id.
pub const RUN_TOPIC_PREFIX: &str = "mcp:run:";
/// Topic that announces runs.
pub const RUNS_TOPIC: &str = "mcp:runs";

/// Event of a JSON-RPC message, both ways; the payload is the bare JSON-RPC object.
pub const MCP_MESSAGE: &str = "mcp_message";
/// Event with which a client says that it lives.
pub const HEARTBEAT: &str = "heartbeat";
/// Event that answers [`HEARTBEAT`], beside the reply.
pub const HEARTBEAT_ACK: &str = "heartbeat_ack";
/// Event that carries one step of a run.
pub const STREAMING_EVENT: &str = "streaming_event";
/// Event on [`RUNS_TOPIC`] when a run began.
pub const RUN_STARTED: &str = "run_started";
/// Event on [`RUNS_TOPIC`] when a run ended.
pub const RUN_FINISHED: &str = "run_finished";

/// Method that lists the tools.
pub const TOOLS_LIST: &str = "tools/list";
/// Method that runs a tool.
pub const TOOLS_CALL: &str = "tools/call";
/// Method that does nothing but answer.
pub const PING: &str = "ping";
/// Notification with which a client gives up a request of its own.
pub const CANCELLED: &str = "notifications/cancelled";
/// Notification of a request's progress.
pub const PROGRESS: &str = "notifications/progress";

/// Reason of a join on an `mcp:` topic that does not exist.
pub const UNKNOWN_TOPIC: &str = "Unknown channel topic";
/// Reason of a join on [`OBSERVER_TOPIC`] for anything but a session of the same socket.
pub const SESSION_NOT_FOUND: &str = "Session not found";
/// Reason of a join on a run that is unknown, expired, or not for this client to see.
pub const RUN_NOT_FOUND: &str = "run not found";
/// Reason in the reply to an event that a channel does not have.
pub const UNKNOWN_EVENT: &str = "unknown event";

/// Most bytes of `{"method":…,"params":…}` in a request; above is `Request too large`. From the deployment.
pub const REQUEST_BYTES_MAX: usize = 1_048_576;
/// Most bytes of a call's arguments.
pub const ARGUMENT_BYTES_MAX: usize = 65_536;
/// Most bytes of a call's result, as JSON; a call with a larger one has failed. Without it one answer would be more
/// than a client may have waiting.
pub const RESULT_BYTES_MAX: usize = 262_144;
/// Most bytes of a request's `id`, and of a progress token: each event of a run repeats them.
pub const ID_BYTES_MAX: usize = 1_024;
/// Calls of one session that may be under way at once.
pub const CALLS_PER_SESSION_MAX: usize = 16;
/// Bytes of a result that the terminal event repeats for those who watch; a larger one goes to the caller alone.
pub const EVENT_RESULT_BYTES_MAX: usize = 65_536;
/// Bytes of a progress message; a longer one is cut.
pub const PROGRESS_MESSAGE_BYTES_MAX: usize = 1_024;
/// Milliseconds between two progress events of a run at least, so that no tool can flood its watchers.
pub const PROGRESS_INTERVAL_MS: u64 = 50;
