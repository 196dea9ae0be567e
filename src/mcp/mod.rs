//! MCP sessions as channels: tools that are called, runs that are watched.
//!
//! ```text
//! mcp:session, mcp:session:<name>   a session: JSON-RPC both ways, streaming events of its own calls
//! mcp:session:streaming             the streaming events of a session on the same socket
//! mcp:run:<id>                      one run: its events so far, then live
//! mcp:runs                          which runs there are, begin and end
//! ```
//!
//! Nothing is ever broadcast on a session's topic: its clients don't learn of each other, so there is no
//! `presence_diff`. A run ends with the session that called it.

pub mod auth;
mod channel;
pub mod runs;
mod session;
pub mod tools;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;

use auth::McpAuth;
use runs::Runs;
use session::Sessions;
use tools::Tools;

use crate::channel::{Endpoint, Payload, SocketSpecBuilder};
use crate::protocol::jsonrpc::Compat;
use crate::protocol::mcp::run_log::{RUN_BYTES_MAX, RUN_EVENTS_MAX, RUN_RETENTION_MS};
use crate::protocol::mcp::{
    CALLS_PER_SESSION_MAX, OBSERVER_TOPIC, RUN_TOPIC_PREFIX, RUNS_TOPIC, SESSION_TOPIC, SESSION_TOPIC_PREFIX,
};

/// The name in the join reply's `serverInfo`.
pub const SERVER_NAME: &str = "Bennu";

/// What the operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Milliseconds without any frame from the client after which a session ends with `phx_error`.
    pub heartbeat_timeout_ms: u64,
    /// Calls of one session that may be under way at once.
    pub calls_per_session_max: usize,
    /// Runs in memory, under way or ended. A quarter of them, or [`Settings::calls_per_session_max`] if that is more,
    /// may be under way on one connection.
    pub runs_max: usize,
    /// Events kept of one run: the first, the last, and progress between; less than 2 counts as 2.
    pub run_events_max: usize,
    /// Bytes of events kept of one run.
    pub run_bytes_max: usize,
    /// Milliseconds that a run is found after its end.
    pub run_retention_ms: u64,
    /// Which codes JSON-RPC errors carry.
    pub compat: Compat,
    /// The folder that `text_search` may read.
    pub search_root: Option<PathBuf>,
    /// Threads that tools may keep busy at once, over all sessions; one connection has half of them. At least 1.
    pub worker_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat_timeout_ms: 60_000,
            calls_per_session_max: CALLS_PER_SESSION_MAX,
            runs_max: 1_000,
            run_events_max: RUN_EVENTS_MAX,
            run_bytes_max: RUN_BYTES_MAX,
            run_retention_ms: RUN_RETENTION_MS,
            compat: Compat::Standard,
            search_root: None,
            // One processor is left to those who are not calling tools.
            worker_threads: std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
        }
    }
}

/// What the MCP channels of a server share.
pub struct Mcp {
    settings: Settings,
    auth: Arc<dyn McpAuth>,
    tools: Tools,
    runs: Arc<Runs>,
    sessions: Sessions,
}

impl Mcp {
    /// MCP with these tools (see [`Tools::builtin`]), whose runs can be watched on the endpoint's topics.
    pub fn new(settings: Settings, auth: Arc<dyn McpAuth>, tools: Tools, endpoint: &Endpoint) -> Arc<Self> {
        let endpoint = endpoint.clone();
        let publish =
            move |topic: &str, event: &str, json| endpoint.broadcast(topic, event, Payload::Json(json)).is_ok();
        let runs = Arc::new(Runs::new(&settings, Arc::new(publish)));
        Arc::new(Mcp { settings, auth, tools, runs, sessions: Sessions::default() })
    }

    /// Adds the MCP topics to a socket.
    pub fn routes(self: &Arc<Self>, socket: SocketSpecBuilder) -> SocketSpecBuilder {
        // The first route that matches is taken, so the last one gets every other topic.
        socket
            .channel_with::<watching::Observer>(OBSERVER_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(SESSION_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(&format!("{SESSION_TOPIC_PREFIX}*"), self.clone())
            .channel_with::<watching::RunChannel>(&format!("{RUN_TOPIC_PREFIX}*"), self.clone())
            .channel_with::<watching::RunsChannel>(RUNS_TOPIC, self.clone())
            .channel_with::<watching::Unknown>("mcp:*", self.clone())
    }

    /// The runs, to list them; and to [`Runs::drain`] them, which a program of your own does when it stops.
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }
}
