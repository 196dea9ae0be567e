//! MCP as values and machines: the conversation with a client of any revision, shapes of methods and events. Pure.
//!
//! A client opens in one of three ways ([`client::Era`]): its join is the handshake, as in the Elixir deployment whose clients
//! move here and whose texts and keys such a session has; with `initialize`; or with stateless requests.
//!
//! Source: the MCP specification, revisions 2024-11-05 to 2026-07-28; the contract of the Elixir deployment, sections 2 to 5,
//! with the decisions made on it.

pub mod backoff;
pub mod client;
pub mod content;
pub mod cursor;
pub mod elicitation;
pub mod error;
pub mod event;
pub mod headers;
pub mod hub;
pub mod level;
pub mod log_gate;
pub mod peer;
pub mod progress;
pub mod recovery;
pub mod relay;
pub mod replay;
pub mod roots;
pub mod run_log;
pub mod sampling;
pub mod session;
pub mod sse;
pub mod status;
pub mod subscription;
pub mod tool;
pub mod uri_template;
pub mod version;

/// The version that the reply to a join states which is the handshake.
pub const PROTOCOL_VERSION: &str = "2024-11-05";

/// Topic of a client's first session.
pub const SESSION_TOPIC: &str = "mcp:session";
/// What topics of further sessions start with, before a name of the client's choice.
pub const SESSION_TOPIC_PREFIX: &str = "mcp:session:";
/// Topic on which a client watches the streaming events of a session on the same socket.
pub const OBSERVER_TOPIC: &str = "mcp:session:streaming";
/// What topics of sessions with a named server start with, before its name and perhaps `:` and a name of the client's choice.
pub const SERVER_TOPIC_PREFIX: &str = "mcp:server:";
/// Topic of sessions with all servers as one; behind `:` a name of the client's choice may follow.
pub const HUB_TOPIC: &str = "mcp:hub";
/// The name of all servers as one.
pub const HUB: &str = "hub";
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

/// Method with which a client of the legacy era opens.
pub const INITIALIZE: &str = "initialize";
/// Notification that ends the handshake.
pub const INITIALIZED: &str = "notifications/initialized";
/// Method that says what a server of the stateless era is.
pub const DISCOVER: &str = "server/discover";
/// Method that opens a stream of change notifications in the stateless era.
pub const SUBSCRIPTIONS_LISTEN: &str = "subscriptions/listen";
/// Notification with which such a stream begins.
pub const SUBSCRIPTIONS_ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// Method that lists resources.
pub const RESOURCES_LIST: &str = "resources/list";
/// Method that lists the templates of resources.
pub const RESOURCE_TEMPLATES_LIST: &str = "resources/templates/list";
/// Method that reads a resource.
pub const RESOURCES_READ: &str = "resources/read";
/// Method that asks to hear of a resource's changes, in the legacy era.
pub const RESOURCES_SUBSCRIBE: &str = "resources/subscribe";
/// Method that takes [`RESOURCES_SUBSCRIBE`] back.
pub const RESOURCES_UNSUBSCRIBE: &str = "resources/unsubscribe";
/// Method that lists prompts.
pub const PROMPTS_LIST: &str = "prompts/list";
/// Method that fills a prompt in.
pub const PROMPTS_GET: &str = "prompts/get";
/// Method that completes an argument.
pub const COMPLETE: &str = "completion/complete";
/// Method that says which log messages the client wants, in the legacy era.
pub const SET_LEVEL: &str = "logging/setLevel";
/// Method that asks a client's model; in the Elixir deployment the client asks the server with it.
pub const CREATE_MESSAGE: &str = "sampling/createMessage";
/// Method that asks the client's user.
pub const ELICIT: &str = "elicitation/create";
/// Method that asks for the client's roots.
pub const ROOTS_LIST: &str = "roots/list";
/// Notification that the client's roots are others.
pub const ROOTS_CHANGED: &str = "notifications/roots/list_changed";
/// Notification of a log message.
pub const LOG_MESSAGE: &str = "notifications/message";
/// Notification that the tools are others.
pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
/// Notification that the resources are others.
pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
/// Notification that a resource has another content.
pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";
/// Notification that the prompts are others.
pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
/// Method that tells how a task stands.
pub const TASKS_GET: &str = "tasks/get";
/// Method that brings a task the input it asked for.
pub const TASKS_UPDATE: &str = "tasks/update";
/// Method that ends a task.
pub const TASKS_CANCEL: &str = "tasks/cancel";
/// Notification of how a task stands.
pub const TASKS_CHANGED: &str = "notifications/tasks";
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
/// Reason of a join on a topic of a server that is not there.
pub const UNKNOWN_SERVER: &str = "unknown MCP server";
/// Reason of a join on [`OBSERVER_TOPIC`] for anything but a session of the same socket.
pub const SESSION_NOT_FOUND: &str = "Session not found";
/// Reason of a join on a run that is unknown, expired, or not for this client to see.
pub const RUN_NOT_FOUND: &str = "run not found";
/// Event with which a client of a channel brings a later credential: `{"access_token": <token>}`.
pub const ACCESS_TOKEN: &str = "access_token";
/// Event with which a session's client wants its session token made anew: `{"sessionToken": <token>}`.
pub const REFRESH_SESSION: &str = "refresh_session";
/// Why a channel ends whose credential's time is over.
pub const CREDENTIAL_EXPIRED: &str = "credential_expired";
/// Reason in the reply to an event that a channel does not have.
pub const UNKNOWN_EVENT: &str = "unknown event";

/// Most bytes of `{"method":…,"params":…}` in a request; above is `Request too large`. From the deployment.
pub const REQUEST_BYTES_MAX: usize = 1_048_576;
/// Messages that wait for a client on one stream; above it the oldest notifications go.
pub const OUTGOING_MESSAGES_MAX: usize = 1_024;
/// Bytes that wait for a client on one stream; above it the oldest notifications go.
pub const OUTGOING_BYTES_MAX: usize = 1_048_576;
/// Requests of the server that wait for one client.
pub const ASKS_PER_SESSION_MAX: usize = 64;
/// Streams of change notifications that one session may have open.
pub const LISTENS_PER_SESSION_MAX: usize = 16;
/// Resources that one session, or one stream of changes, may hear of.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1_000;
/// Bytes of what a client says of itself, which its session keeps.
pub const CLIENT_INFO_BYTES_MAX: usize = 8_192;
/// Bytes of a resource's URI.
pub const URI_BYTES_MAX: usize = 8_192;
/// Items of a page of a list, where a server does not say.
pub const PAGE_ITEMS_MAX: usize = 100;
/// Messages of a batch.
pub const BATCH_MESSAGES_MAX: usize = 100;
/// Bytes of the answers of a batch that are there at once, above which its further requests are refused.
pub const BATCH_ANSWER_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a call's arguments.
pub const ARGUMENT_BYTES_MAX: usize = 65_536;
/// Most bytes of a call's result, as JSON; a call with a larger one has failed. Without it one answer would be more
/// than a client may have waiting.
pub const RESULT_BYTES_MAX: usize = 262_144;
/// Most bytes of any other result, such as what a resource holds.
pub const RESOURCE_BYTES_MAX: usize = 1_048_576;
/// Most bytes of a request's `id`, and of a progress token: each event of a run repeats them.
pub const ID_BYTES_MAX: usize = 1_024;
/// Calls of one session that may be under way at once.
pub const CALLS_PER_SESSION_MAX: usize = 16;
/// Bytes of a result that the terminal event repeats for those who watch; a larger one goes to the caller alone.
pub const EVENT_RESULT_BYTES_MAX: usize = 65_536;
/// Bytes of a progress message; a longer one is cut.
pub const PROGRESS_MESSAGE_BYTES_MAX: usize = 1_024;
/// Progress events that a run may tell at once; then one each [`PROGRESS_INTERVAL_MS`], so that no tool can flood its
/// watchers.
pub const PROGRESS_BURST: u32 = 64;
/// Milliseconds in which a run that has told as much as it may gains a further progress event.
pub const PROGRESS_INTERVAL_MS: u64 = 50;
