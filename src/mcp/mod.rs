//! MCP: servers with tools, resources and prompts, whose sessions are channels; runs that others watch.
//!
//! ```text
//! mcp:server:<server>, mcp:server:<server>:<name>   a session with that server
//! mcp:session, mcp:session:<name>                   a session with the first server, for clients of the Elixir deployment
//! mcp:session:streaming                             the streaming events of a session on the same socket
//! mcp:hub, mcp:hub:<name>                           a session with all servers as one
//! mcp:run:<id>                                      one run: its events so far, then live
//! mcp:runs                                          which runs there are, begin and end
//! status:system, status:system:tool                 the same for dashboards of the Elixir deployment
//! ```
//!
//! A [`Tool`], a [`Resource`] or a [`Prompt`] is made of an async function, and a [`CallContext`] lets it report, log and ask.
//! An [`McpServer`] has them, and an [`Mcp`] brings servers to topics and to HTTP.
//!
//! Nothing is ever broadcast on a session's topic: its clients don't learn of each other, so there is no
//! `presence_diff`. A run ends with the session that called it, unless it became a task or its client is lost. A session ends with its
//! channel, unless its client asked for recovery.

pub mod auth;
mod authorize;
mod call;
mod cancel;
mod catalog;
mod changes;
mod channel;
mod completion;
mod connections;
mod context;
mod credential;
pub mod deployment;
mod elixir;
mod error;
mod hex;
mod input;
mod listing;
mod mailbox;
mod newest;
mod outgoing;
mod prompts;
mod questions;
mod recovery;
mod relay;
mod request_state;
mod resources;
mod respond;
pub mod runs;
mod serve;
mod server;
mod session;
mod session_index;
mod status;
mod stopwatch;
mod tasks;
mod template_tools;
pub mod tools;
mod under_way;
pub mod upstream;
mod uuid;
mod watching;
mod workers;
mod workflows;

use std::sync::Arc;

use auth::{AuthRefused, Identity, McpAuth, Presented};
pub use cancel::CancelReason;
pub use completion::CompletionRequest;
use connections::{Connections, Hook};
pub(crate) use connections::{Ending, HttpCarrier, Visit};
pub use connections::{
    SessionCarrier, SessionChange, SessionEnd, SessionHealth, SessionInfo, SessionNotice, SessionState, SessionStats,
};
pub use context::CallContext;
pub use error::CallError;
pub(crate) use hex::Hex;
pub use input::InputRequest;
pub(crate) use outgoing::{Item, Kind, Outgoing};
pub use prompts::{Prompt, PromptOutput};
use recovery::Recoveries;
pub(crate) use recovery::{Asking, Once};
use request_state::Sealer;
pub use resources::{Resource, ResourceOutput, ResourceTemplate};
use runs::{Publish, Runs};
pub(crate) use server::ServerShared;
pub use server::{Caching, McpServer, McpServerBuilder, McpServerError};
use session::Sessions;
pub(crate) use session::{NewSession, Session};
use tasks::Tasks;
pub use template_tools::{TemplateToolOptions, TemplateTools};
pub use tools::{NoArguments, OnRestart, Tool, ToolOutput};
use under_way::UnderWay;
use upstream::UpstreamHealth;
use workers::Workers;
use workflows::Workflows;
pub use workflows::workflow_tools;

use crate::channel::{Endpoint, Payload, SocketSpecBuilder};
use crate::protocol::jsonrpc::Compat;
use crate::protocol::mcp::client::Era;
pub use crate::protocol::mcp::content::{
    Annotations, Content, Icon, PromptMessage, ResourceContents, ResourceLink, Role,
};
pub use crate::protocol::mcp::elicitation::{
    self, Answer, BooleanField, ChoiceField, ChoicesField, Form, NumberField, TextField, UrlRequest,
};
pub use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::recovery::RECOVERY_WINDOW_MS;
pub use crate::protocol::mcp::roots::Root;
use crate::protocol::mcp::run_log::{RUN_BYTES_MAX, RUN_EVENTS_MAX, RUN_RETENTION_MS};
pub use crate::protocol::mcp::sampling::{self, SamplingMessage, SamplingRequest, SamplingResult};
use crate::protocol::mcp::status::{STATUS_TOOL_TOPIC, STATUS_TOPIC};
pub use crate::protocol::mcp::tool::{TaskSupport, ToolSpec};
use crate::protocol::mcp::{
    CALLS_PER_SESSION_MAX, HUB, HUB_TOPIC, OBSERVER_TOPIC, RUN_TOPIC_PREFIX, RUNS_TOPIC, SERVER_TOPIC_PREFIX,
    SESSION_TOPIC, SESSION_TOPIC_PREFIX,
};
use crate::random;
use crate::store::Store;

/// What the operator can set.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// Milliseconds for which a session on a channel is kept whose client wants to come back and has lost its connection; 0 turns
    /// that off.
    pub recovery_window_ms: u64,
    /// Whether such sessions are stored in the [`McpBuilder::deployment`], so that they outlive the process. Then [`McpBuilder::secret`]
    /// has to be the same after a restart.
    pub stores_sessions: bool,
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
            recovery_window_ms: RECOVERY_WINDOW_MS,
            stores_sessions: false,
            // One processor is left to those who are not calling tools.
            worker_threads: std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
        }
    }
}

impl Settings {
    /// Calls under way of one connection.
    fn calls_each_max(&self) -> usize {
        (self.runs_max / 4).max(self.calls_per_session_max).min(self.runs_max)
    }

    /// Calls that run on though their clients are lost and can't come back: as many as one connection may have under way.
    fn orphans_max(&self) -> usize {
        self.calls_each_max()
    }
}

/// Several MCP servers behind one address, with what they share: who may come in, runs, tasks, threads, limits.
pub struct Mcp {
    settings: Settings,
    auth: Arc<dyn McpAuth>,
    /// The first is the one that is meant where none is named.
    servers: Vec<McpServer>,
    /// All of them as one.
    hub: McpServer,
    runs: Arc<Runs>,
    workers: Workers,
    sessions: Sessions,
    tasks: Tasks,
    under_way: UnderWay,
    sealer: Sealer,
    recoveries: Recoveries,
    connections: Connections,
    workflows: Workflows,
}

/// An [`Mcp`] that is being put together.
#[must_use = "it is nothing before it is built"]
pub struct McpBuilder {
    publish: Publish,
    settings: Settings,
    auth: Arc<dyn McpAuth>,
    servers: Vec<McpServer>,
    secret: Option<Vec<u8>>,
    hook: Option<Hook>,
    endpoint: Option<Endpoint>,
    store: Option<Store>,
}

/// Servers that can't stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// There is none.
    #[error("expected a server at least, came none")]
    NoServer,
    /// One has the name by which all of them are reached.
    #[error("the server name {HUB:?} is taken, expected another")]
    ReservedName,
    /// Two have one name.
    #[error("two servers are named {0:?}, expected one")]
    DuplicateServer(String),
}

impl McpBuilder {
    /// Nothing yet, on whatever `publish` brings broadcasts to.
    fn new(publish: Publish, auth: impl McpAuth) -> Self {
        McpBuilder {
            publish,
            settings: Settings::default(),
            auth: Arc::new(auth),
            servers: Vec::new(),
            secret: None,
            hook: None,
            endpoint: None,
            store: None,
        }
    }

    /// Adds a server. The first is also the one on `mcp:session` and at `/mcp`.
    pub fn server(mut self, server: McpServer) -> Self {
        self.servers.push(server);
        self
    }

    /// Changes settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets what `requestState` and recovery tokens are sealed with, for several nodes to share; by default it is made anew at each start.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Keeps workflows, their runs, templates, triggers and contexts where the deployment's other things are; by default they
    /// end with the process. [`Mcp::resume`] goes on with what is there.
    pub fn deployment(mut self, deployment: &deployment::Deployment) -> Self {
        self.store = Some(deployment.store().clone());
        self
    }

    /// The whole.
    ///
    /// # Errors
    /// [`McpError`].
    pub fn build(self) -> Result<Arc<Mcp>, McpError> {
        let McpBuilder { publish, settings, auth, servers, secret, hook, endpoint, store } = self;
        if servers.is_empty() {
            return Err(McpError::NoServer);
        }
        for (index, server) in servers.iter().enumerate() {
            if server.name() == HUB {
                return Err(McpError::ReservedName);
            }
            if servers[..index].iter().any(|other| other.name() == server.name()) {
                return Err(McpError::DuplicateServer(server.name().to_owned()));
            }
        }
        let runs = Arc::new(Runs::new(&settings, publish));
        let each_max = settings.calls_each_max();
        let (window_ms, stores) = (settings.recovery_window_ms, settings.stores_sessions);
        let secret = secret.unwrap_or_else(|| random::bytes::<32>().to_vec());
        Ok(Arc::new(Mcp {
            workers: Workers::new(settings.worker_threads, each_max),
            settings,
            auth,
            hub: McpServer::hub(HUB, &servers),
            servers,
            runs,
            sessions: Sessions::default(),
            tasks: Tasks::default(),
            under_way: UnderWay::default(),
            sealer: Sealer::new(&secret),
            recoveries: Recoveries::new(window_ms, &secret, store.clone().filter(|_| stores)),
            connections: Connections::new(hook),
            workflows: Workflows::new(store.unwrap_or_else(Store::in_memory), endpoint),
        }))
    }
}

impl Mcp {
    /// MCP whose clients `auth` lets in and whose runs can be watched on the endpoint's topics.
    pub fn builder(endpoint: &Endpoint, auth: impl McpAuth) -> McpBuilder {
        let broadcasting = endpoint.clone();
        let publish =
            move |topic: &str, event: &str, json| broadcasting.broadcast(topic, event, Payload::Json(json)).is_ok();
        let mut builder = McpBuilder::new(Arc::new(publish), auth);
        builder.endpoint = Some(endpoint.clone());
        builder
    }

    /// Adds the MCP topics to a socket.
    pub fn routes(self: &Arc<Self>, socket: SocketSpecBuilder) -> SocketSpecBuilder {
        // The first route that matches is taken, so the last one gets every other topic.
        socket
            .channel_with::<watching::Observer>(OBSERVER_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(SESSION_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(&format!("{SESSION_TOPIC_PREFIX}*"), self.clone())
            .channel_with::<channel::SessionChannel>(&format!("{SERVER_TOPIC_PREFIX}*"), self.clone())
            .channel_with::<watching::RunChannel>(&format!("{RUN_TOPIC_PREFIX}*"), self.clone())
            .channel_with::<watching::RunsChannel>(RUNS_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(HUB_TOPIC, self.clone())
            .channel_with::<channel::SessionChannel>(&format!("{HUB_TOPIC}:*"), self.clone())
            .channel_with::<watching::Unknown>("mcp:*", self.clone())
            .channel_with::<status::StatusChannel>(STATUS_TOPIC, self.clone())
            .channel_with::<status::StatusChannel>(STATUS_TOOL_TOPIC, self.clone())
    }

    /// The runs, to list them.
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// Sessions that are open, those of single stateless requests apart.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions whose clients have lost their connection and may come back; they are open too.
    pub fn detached_sessions(&self) -> usize {
        self.recoveries.detached()
    }

    /// Lets clients go whose streams would never end by themselves: those of changes end in order, standing ones break off.
    pub(crate) fn end_streams(&self) {
        for server in self.servers.iter().chain([&self.hub]) {
            server.shared.end_streams();
        }
    }

    /// Starts those servers of others that are to start with this one. Within a runtime.
    pub fn boot(&self) {
        for upstream in self.upstreams() {
            upstream.boot();
        }
    }

    /// Goes on with what the process before left in the store: runs of workflows go on, or have failed, as their definitions
    /// say, triggers are heeded again, and sessions are come back to. Within a runtime, before anybody is served.
    ///
    /// # Errors
    /// [`StoreError`](deployment::StoreError).
    pub async fn resume(self: &Arc<Self>) -> Result<(), deployment::StoreError> {
        self.recoveries.resume(self).await?;
        workflows::resume(self).await
    }

    /// How the servers of others stand, by their names, in the order in which they were added.
    pub fn upstream_health(&self) -> Vec<(String, UpstreamHealth)> {
        self.upstreams().map(|upstream| (upstream.name.to_string(), upstream.health())).collect()
    }

    fn upstreams(&self) -> impl Iterator<Item = &Arc<upstream::Upstream>> {
        self.servers.iter().filter_map(|server| server.shared.upstream())
    }

    /// Ends the connections with servers of others, and waits until their programs are gone. Clients that call again start
    /// them again.
    pub async fn stop_upstreams(&self) {
        futures::future::join_all(self.upstreams().map(|upstream| upstream.stop())).await;
    }

    /// Cancels every call, tasks included, and waits until all have ended, so that their callers hear of it: the `bennu`
    /// program does that when it stops, and so has a program that embeds the crate. The caller bounds the waiting.
    pub async fn drain(&self) {
        self.end_streams();
        self.workflows.drain().await;
        self.under_way.drain().await;
        self.recoveries.stop().await;
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        self.under_way.idle().await;
    }

    /// Who is behind a credential.
    ///
    /// # Errors
    /// What the authenticator says.
    pub(crate) async fn authenticate(&self, presented: Presented) -> Result<Identity, AuthRefused> {
        self.auth.authenticate(presented).await
    }

    /// Tells `leave` when a user's credential ends or is revoked.
    pub(crate) fn watch_credential(&self, user: &Identity, leave: auth::Leave) -> Option<crate::auth::live::Resident> {
        self.auth.watch_credential(user, None, leave)
    }

    /// Whether a user may use a server.
    pub(crate) fn may_use(&self, user: &Identity, server: &Arc<ServerShared>) -> bool {
        if server.name == HUB {
            return true;
        }
        match Arc::ptr_eq(&self.servers[0].shared, server) {
            true => self.auth.may_use_default(user, &server.name),
            false => self.auth.may_use(user, &server.name),
        }
    }

    /// The same through the hub.
    fn may_use_in_hub(&self, user: &Identity, server: &Arc<ServerShared>) -> bool {
        !self.auth.is_apart(&server.name) && self.may_use(user, server)
    }

    /// The server of that name.
    pub(crate) fn server(&self, name: &str) -> Option<Arc<ServerShared>> {
        if name == HUB {
            return Some(self.hub());
        }
        self.servers.iter().find(|server| server.name() == name).map(|server| Arc::clone(&server.shared))
    }

    /// All servers as one.
    pub(crate) fn hub(&self) -> Arc<ServerShared> {
        Arc::clone(&self.hub.shared)
    }

    /// The server at the path that names none: all as one, where there are several.
    pub(crate) fn server_at_root(&self) -> Arc<ServerShared> {
        if self.servers.len() > 1 { self.hub() } else { self.default_server() }
    }

    /// The server that is meant where none is named.
    pub(crate) fn default_server(&self) -> Arc<ServerShared> {
        Arc::clone(&self.servers[0].shared)
    }

    /// Which codes errors carry for a client.
    fn compat(&self, era: Era) -> Compat {
        // The setting is for clients of the Elixir deployment; others match on the codes of the specification.
        if era == Era::Elixir { self.settings.compat } else { Compat::Standard }
    }
}
