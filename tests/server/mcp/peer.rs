//! A server with MCP topics on one socket, and a client that keeps what it gets until a test asks for it. What the server says
//! in a session is held against the schema of the session's revision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bennu::mcp::auth::{AuthRefused, Credential, Development, Identity, McpAuth, Presented};
use bennu::mcp::{Mcp, McpServer, Settings, tools};
use bennu::server::Running;
use bennu::{Endpoint, Server};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::mcp_schema::{Flavour, Recorder};
use crate::transcripts::client::Client;

/// A `clientInfo` that is accepted.
pub fn client_info() -> Value {
    json!({"clientInfo": {"name": "test", "version": "1"}})
}

/// A server of the test's own.
pub struct TestServer {
    running: Running,
    mcp: Arc<Mcp>,
    runtime: Runtime,
}

/// Lets in the users `ann` and `bob` by their names as tokens.
pub struct Names;

impl McpAuth for Names {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        async move {
            match presented.credential {
                None => Err(AuthRefused::no_credentials()),
                Some(Credential::Token(name)) if name == "ann" || name == "bob" => Ok(Identity::member(name)),
                Some(_) => Err(AuthRefused("Invalid token: invalid".to_owned())),
            }
        }
        .boxed()
    }
}

/// The server `bennu`, with the built-in tools.
pub fn bennu() -> McpServer {
    McpServer::builder("bennu").display_name("Bennu").tools(tools::builtin(None)).build().expect("a server")
}

impl TestServer {
    /// With the built-in tools, in the development setting.
    pub fn start(settings: impl FnOnce(&mut Settings)) -> Self {
        Self::with(settings, Development)
    }

    /// With an authenticator of the test's own.
    pub fn with(settings: impl FnOnce(&mut Settings), auth: impl McpAuth) -> Self {
        Self::of([bennu()], settings, auth)
    }

    /// With MCP servers of the test's own, in the development setting.
    pub fn serving(servers: impl IntoIterator<Item = McpServer>) -> Self {
        Self::of(servers, |_| {}, Development)
    }

    /// With all of these the test's own.
    pub fn of(
        servers: impl IntoIterator<Item = McpServer>,
        settings: impl FnOnce(&mut Settings),
        auth: impl McpAuth,
    ) -> Self {
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        let _guard = runtime.enter();
        let endpoint = Endpoint::start();
        let builder = Mcp::builder(&endpoint, auth).settings(settings);
        let mcp = servers.into_iter().fold(builder, |builder, server| builder.server(server)).build();
        let mcp = mcp.expect("servers of different names");
        // An observer joins each of many runs.
        let socket = mcp.routes(endpoint.socket("/socket")).options(|options| options.channels_max = 1_000);
        let running = Server::new(&endpoint).socket(socket).listen(([127, 0, 0, 1], 0));
        TestServer { running: running.expect("a free port of 127.0.0.1"), mcp, runtime }
    }

    /// What its sessions belong to.
    pub fn mcp(&self) -> &Mcp {
        &self.mcp
    }

    /// Starts the servers of others that are to start with this one.
    pub fn boot(&self) {
        let _guard = self.runtime.enter();
        self.mcp.boot();
    }

    /// A client on a socket of its own.
    pub fn connect(&self) -> Peer {
        Peer::connect(self.running.address())
    }

    /// The same, of which nothing is held against a schema: for servers that have fields of their own beside a message's.
    pub fn connect_unchecked(&self) -> Peer {
        Peer { is_checked: false, ..self.connect() }
    }
}

/// Params of a request in the stateless era.
pub fn stateless(mut params: Value, capabilities: &Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    params
}

/// One frame from the server.
#[derive(Clone, Debug)]
pub struct Frame {
    pub reference: Value,
    pub topic: String,
    pub event: String,
    pub payload: Value,
    /// The frame as it came.
    pub text: String,
}

impl Frame {
    /// Whether it is the response to the JSON-RPC request `id`.
    pub fn is_response(&self, id: &Value) -> bool {
        self.event == "mcp_message" && self.payload.get("method").is_none() && self.payload["id"] == *id
    }

    /// The `type` of a streaming event.
    pub fn kind(&self) -> Option<&str> {
        (self.event == "streaming_event").then(|| self.payload["type"].as_str().expect("events have a type"))
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.kind(), Some("tool_completed" | "tool_failed"))
    }
}

/// A client of the Phoenix protocol, version 2.
pub struct Peer {
    client: Client,
    /// Everything that came, in order.
    pub frames: Vec<Frame>,
    last_ref: u64,
    /// What was said in the sessions, by their topics.
    sessions: BTreeMap<String, Recorder>,
    is_checked: bool,
}

impl Peer {
    /// A client of the server at that address.
    pub fn connect(address: SocketAddr) -> Self {
        let client = Client::open(address, "/socket/websocket", "vsn=2.0.0");
        Peer { client, frames: Vec::new(), last_ref: 0, sessions: BTreeMap::new(), is_checked: true }
    }

    /// A client of the server at that address whose socket is opened with this query; nothing is held against a schema.
    pub fn open(address: SocketAddr, query: &str) -> Self {
        let client = Client::open(address, "/socket/websocket", query);
        Peer { client, frames: Vec::new(), last_ref: 0, sessions: BTreeMap::new(), is_checked: false }
    }

    /// The code with which the server closes the connection, which it has to.
    #[track_caller]
    pub fn closed(&self) -> u16 {
        assert!(self.client.await_closed(Duration::from_secs(20)), "still open: {:?}", self.client.events());
        let closed = self.client.events().into_iter().find(|event| event.kind == "close");
        closed.and_then(|event| event.code).expect("a close frame with a code")
    }

    /// Whether the connection is open.
    pub fn is_open(&self) -> bool {
        !self.client.events().iter().any(|event| ["close", "tcp_closed"].contains(&&*event.kind))
    }

    /// Joins; gives the status and the response.
    pub fn join(&mut self, topic: &str, params: &Value) -> (String, Value) {
        let is_of_the_deployment = topic.starts_with("mcp:session") || params.get("clientInfo").is_some();
        let flavour = if is_of_the_deployment { Flavour::Elixir } else { Flavour::Standard };
        if self.is_checked {
            self.sessions.insert(topic.to_owned(), Recorder::new(flavour));
        }
        let reference = self.send(topic, "phx_join", params);
        let reply = self.reply_to(reference);
        (reply["status"].as_str().expect("a status").to_owned(), reply["response"].clone())
    }

    /// Joins what has to be joinable; gives the response.
    #[track_caller]
    pub fn joined(&mut self, topic: &str, params: &Value) -> Value {
        let (status, response) = self.join(topic, params);
        assert_eq!(status, "ok", "{topic}: {response}");
        response
    }

    /// Joins what has to be refused; gives the reason.
    #[track_caller]
    pub fn refused(&mut self, topic: &str, params: &Value) -> String {
        let (status, response) = self.join(topic, params);
        assert_eq!(status, "error", "{topic}: {response}");
        response["reason"].as_str().expect("a reason").to_owned()
    }

    /// Sends an event on a joined topic; gives the reply's payload.
    pub fn push(&mut self, topic: &str, event: &str, payload: &Value) -> Value {
        let reference = self.send(topic, event, payload);
        self.reply_to(reference)
    }

    /// The payload of the reply to a frame that was sent.
    #[track_caller]
    pub fn reply_to(&mut self, reference: u64) -> Value {
        self.wait(|frame| frame.event == "phx_reply" && frame.reference == *reference.to_string()).payload
    }

    /// Sends a JSON-RPC message, which has to be answered with `ok` `{}`.
    #[track_caller]
    pub fn message(&mut self, topic: &str, message: &Value) {
        assert_eq!(self.push(topic, "mcp_message", message), json!({"status": "ok", "response": {}}));
    }

    /// Sends a request and waits for its response.
    #[track_caller]
    pub fn request(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.message("mcp:session", &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.wait(|frame| frame.is_response(&id)).payload
    }

    /// Sends a request on `topic` and waits for its response.
    #[track_caller]
    pub fn ask(&mut self, topic: &str, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let id = id.into();
        self.message(topic, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.wait(|frame| frame.topic == topic && frame.is_response(&id)).payload
    }

    /// Sends a request of the stateless era, and waits for its response.
    #[track_caller]
    pub fn stateless(&mut self, topic: &str, id: impl Into<Value>, method: &str, params: Value) -> Value {
        self.ask(topic, id, method, stateless(params, &json!({})))
    }

    /// Joins a topic and shakes hands as a client of a legacy revision; gives the result of `initialize`.
    #[track_caller]
    pub fn initialized(&mut self, topic: &str, version: &str, capabilities: &Value) -> Value {
        self.joined(topic, &json!({}));
        self.shake_hands(topic, version, capabilities)
    }

    /// Shakes hands on a joined topic as a client of a legacy revision; gives the result of `initialize`.
    #[track_caller]
    pub fn shake_hands(&mut self, topic: &str, version: &str, capabilities: &Value) -> Value {
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": client});
        let response = self.ask(topic, "initialize", "initialize", params);
        self.message(topic, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        response["result"].clone()
    }

    /// A request or notification of the server's with that method.
    #[track_caller]
    pub fn told(&mut self, topic: &str, method: &str) -> Value {
        self.wait(|frame| frame.topic == topic && frame.payload["method"] == method).payload
    }

    /// Starts a call on `topic` and gives its run's id.
    #[track_caller]
    pub fn call(&mut self, topic: &str, id: &Value, params: &Value) -> String {
        self.message(topic, &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
        let started = self.wait(|frame| {
            frame.topic == topic && frame.kind() == Some("tool_started") && frame.payload["request_id"] == *id
        });
        started.payload["stream_id"].as_str().expect("a run id").to_owned()
    }

    /// Sends a JSON-RPC message as it is written here.
    pub fn message_text(&mut self, topic: &str, message: &str) {
        self.last_ref += 1;
        self.note(topic, &serde_json::from_str(message).unwrap_or_default());
        self.client.send_text(&format!(r#"["{topic}","{}","{topic}","mcp_message",{message}]"#, self.last_ref));
        let reference = self.last_ref;
        self.reply_to(reference);
    }

    /// Sends a frame. The join_ref is the topic itself, so that it is the same from join to leave.
    pub fn send(&mut self, topic: &str, event: &str, payload: &Value) -> u64 {
        self.last_ref += 1;
        if event == "mcp_message" {
            self.note(topic, payload);
        }
        let frame = json!([topic, self.last_ref.to_string(), topic, event, payload]);
        self.client.send_text(&frame.to_string());
        self.last_ref
    }

    /// The first frame, of those that came or are to come, for which `wanted` holds.
    #[track_caller]
    pub fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut next = 0;
        loop {
            while next < self.frames.len() {
                if wanted(&self.frames[next]) {
                    return self.frames[next].clone();
                }
                next += 1;
            }
            let text = self.client.next_text();
            self.take(&text);
        }
    }

    /// Takes what comes within `limit`.
    pub fn listen(&mut self, limit: Duration) {
        let end = std::time::Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let mut received = self.client.recv(1, left, usize::MAX);
            let Some(event) = received.got.pop() else { return };
            self.take(&event.raw.expect("the server sends text"));
        }
    }

    /// The frames of a topic with that event.
    pub fn of(&self, topic: &str, event: &str) -> Vec<&Frame> {
        self.frames.iter().filter(|frame| frame.topic == topic && frame.event == event).collect()
    }

    /// Drops the connection without a word.
    pub fn vanish(self) {
        self.client.destroy();
    }

    /// Notes what is sent in a session.
    fn note(&mut self, topic: &str, message: &Value) {
        if let Some(session) = self.sessions.get_mut(topic) {
            session.sent(message);
        }
    }

    #[track_caller]
    fn take(&mut self, text: &str) {
        let (_, reference, topic, event, payload): (Value, Value, String, String, Value) =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("expected a frame, came {text}: {error}"));
        if let (Some(session), "mcp_message") = (self.sessions.get_mut(&topic), event.as_str()) {
            session.received(&payload);
        }
        self.frames.push(Frame { reference, topic, event, payload, text: text.to_owned() });
    }
}
