//! A server with MCP over HTTP, tools whose calls wait until a test lets them go on, and a client that reads answers as they
//! come. What the server says is held against the schema of its revision.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bennu::mcp::auth::{Development, McpAuth};
use bennu::mcp::{CallContext, Mcp, McpServer, NoArguments, Resource, SessionCarrier, SessionNotice, Tool};
use bennu::server::{Held, McpHttpOptions, Running};
use bennu::{Endpoint, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::mcp_schema::{Flavour, Recorder};

/// Bounds every wait for something that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The revision whose requests say everything themselves.
pub const MODERN: &str = "2026-07-28";

/// Bytes of what `large` gives.
pub const LARGE_BYTES: usize = 250_000;

/// A server in this process, at `/mcp` and `/mcp/lab`, and a second one at `/mcp/other`.
pub struct Lab {
    pub server: McpServer,
    /// What the calls of `wait` and `report` wait for, a permit each step.
    pub gate: Arc<Semaphore>,
    /// Tells of each call of `wait` that began, and how it ended.
    told: Mutex<Receiver<&'static str>>,
    /// What was said in each session.
    said: Mutex<BTreeMap<String, Arc<Said>>>,
    pub mcp: Arc<Mcp>,
    /// What happened to its sessions.
    events: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
    runtime: Runtime,
}

/// What was said in a session, or in one exchange without.
struct Said(Mutex<(Recorder, BTreeSet<String>)>);

impl Said {
    fn new() -> Arc<Self> {
        Arc::new(Said(Mutex::new((Recorder::new(Flavour::Standard), BTreeSet::new()))))
    }

    fn sent(&self, message: &Value) {
        self.0.lock().expect("no complaint before").0.sent(message);
    }

    /// Takes what the server said; what is said again under the same id of an event is left out.
    #[track_caller]
    fn received(&self, message: &Value, event_id: &str) {
        let (recorder, seen) = &mut *self.0.lock().expect("no complaint before");
        if event_id.is_empty() || seen.insert(event_id.to_owned()) {
            recorder.received(message);
        }
    }
}

/// Tells how a call ends whose future is dropped.
struct Ending(Sender<&'static str>, bool);

impl Ending {
    fn finish(&mut self) {
        self.1 = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(if self.1 { "finished" } else { "dropped" });
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with(Development, |_| {})
    }

    pub fn with(auth: impl McpAuth, change: impl FnOnce(&mut McpHttpOptions)) -> Self {
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        let guard = runtime.enter();
        let endpoint = Endpoint::start();
        let gate = Arc::new(Semaphore::new(0));
        let (tell, told) = channel();
        let server = McpServer::builder("lab")
            .tool(Tool::new(
                "echo",
                |arguments: BTreeMap<String, Value>, _| async move { Ok(json!(arguments).to_string()) },
            ))
            .tool(Tool::untyped("headed", headed_schema(), |_, _| async { Ok("passed") }))
            .tool(waiting(&gate, &tell))
            .tool(reporting(&gate))
            .tool(pausing(&gate))
            .tool(Tool::new("quick", |_: NoArguments, context: CallContext| async move {
                context.progress(1.0, None, None);
                Ok("quick")
            }))
            .tool(Tool::new("large", |_: NoArguments, context: CallContext| async move {
                context.progress(1.0, None, None);
                Ok("x".repeat(LARGE_BYTES))
            }))
            .tool(Tool::new("ask", |_: NoArguments, context: CallContext| async move {
                let roots = context.roots("roots").await?;
                Ok(format!("{} roots", roots.len()))
            }))
            .resource(Resource::new("test://a", "a", |_| async { Ok("text") }))
            .build()
            .expect("a server");
        let other = McpServer::builder("other").build().expect("a server");
        let events = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&events);
        let hook = move |notice: &SessionNotice<'_>| {
            assert_eq!(notice.carrier, SessionCarrier::Http);
            heard.lock().expect("no panic").push(format!("{:?}", notice.change));
        };
        let mcp = Mcp::builder(&endpoint, auth)
            .on_session_event(hook)
            .server(server.clone())
            .server(other)
            .build()
            .expect("servers");
        let running = Server::new(&endpoint)
            .mcp(&mcp)
            .options(|options| change(&mut options.mcp))
            .listen(([127, 0, 0, 1], 0))
            .expect("a free port of 127.0.0.1");
        let address = running.address();
        drop(guard);
        Lab {
            server,
            gate,
            told: Mutex::new(told),
            said: Mutex::default(),
            mcp,
            events,
            address,
            running: Mutex::new(Some(running)),
            runtime,
        }
    }

    /// The next word of a call of `wait`.
    #[track_caller]
    pub fn told(&self) -> &'static str {
        self.told.lock().expect("no panic").recv_timeout(DEADLINE).expect("a call tells")
    }

    /// What happened to sessions since this was asked last.
    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().expect("no panic"))
    }

    /// Waits until so many things have happened to sessions, and says which.
    #[track_caller]
    pub fn wait_for_events(&self, count: usize) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        while self.events.lock().expect("no panic").len() < count {
            assert!(Instant::now() < end, "{:?}", self.events());
            std::thread::yield_now();
        }
        self.events()
    }

    pub fn held(&self) -> Held {
        self.running.lock().expect("no panic").as_ref().expect("it runs").held()
    }

    /// Sessions of the core, over whatever transport.
    pub fn core_sessions(&self) -> usize {
        self.mcp.sessions()
    }

    /// Stops the server beside the test.
    pub fn shut_down(&self) {
        let running = self.running.lock().expect("no panic").take().expect("a server is shut down once");
        self.runtime.spawn(running.shut_down());
    }

    /// Sends a request and reads the head of its answer. What the answer says belongs to the session that is named, or opened.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("mcp-session-id"));
        let said = named.and_then(|(_, id)| self.said.lock().expect("no panic").get(*id).cloned());
        let said = said.unwrap_or_else(Said::new);
        if let Some(message) = body.and_then(|body| serde_json::from_slice(body).ok()) {
            said.sent(&message);
        }
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: localhost:{}\r\n", self.address.port());
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        // A server that refuses by the head may close before it has read the body.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.unwrap_or_default()));
        let answer = Answer::read(stream, Arc::clone(&said));
        if let Some(id) = answer.header("mcp-session-id") {
            self.said.lock().expect("no panic").insert(id.to_owned(), said);
        }
        answer
    }

    /// Sends a request whose headers say how its body is framed, and the bytes as they are.
    #[track_caller]
    pub fn send_raw(&self, method: &str, path: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
        Answer::read(stream, Said::new())
    }

    /// A POST as a client would send it, with further headers; an empty value leaves one out.
    #[track_caller]
    pub fn post(&self, headers: &[(&str, &str)], message: &Value) -> Answer {
        self.post_to("/mcp", headers, message.to_string().as_bytes())
    }

    #[track_caller]
    pub fn post_to(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let defaults = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
        let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut all: Vec<_> = defaults.into_iter().filter(|(name, _)| !is_given(name)).collect();
        all.extend_from_slice(headers);
        self.send("POST", path, &all, Some(body))
    }

    /// A stateless request with the headers that belong to it, but for those given.
    #[track_caller]
    pub fn stateless(&self, id: u64, method: &str, params: Value, headers: &[(&str, &str)]) -> Answer {
        let message = modern(id, method, params);
        let name =
            ["name", "uri", "taskId"].into_iter().find_map(|key| message["params"][key].as_str()).unwrap_or_default();
        let defaults = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", method), ("Mcp-Name", name)];
        let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut all: Vec<_> = defaults.into_iter().filter(|(name, _)| !is_given(name)).collect();
        all.extend_from_slice(headers);
        self.post(&all, &message)
    }

    /// Opens a session of that revision.
    #[track_caller]
    pub fn open(&self, version: &str) -> Client<'_> {
        let answer = self.post(&[], &initialize(version));
        let session = answer.header("mcp-session-id").expect("a session id").to_owned();
        assert_eq!((answer.status, answer.json()["result"]["protocolVersion"].as_str()), (200, Some(version)));
        let client = Client { lab: self, session };
        assert_eq!(client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).status, 202);
        client
    }
}

/// A client of the legacy era in its session.
pub struct Client<'a> {
    lab: &'a Lab,
    pub session: String,
}

impl Client<'_> {
    #[track_caller]
    pub fn post(&self, message: &Value) -> Answer {
        self.lab.post(&[("Mcp-Session-Id", &self.session)], message)
    }

    /// Calls a tool, with its id as the token of progress.
    #[track_caller]
    pub fn call(&self, id: u64, tool: &str) -> Answer {
        self.post(&call(id, tool))
    }

    /// The standing stream, or the one that an event was on.
    #[track_caller]
    pub fn get(&self, last_event_id: &str) -> Answer {
        let headers =
            [("Mcp-Session-Id", &*self.session), ("Accept", "text/event-stream"), ("Last-Event-ID", last_event_id)];
        self.lab.send("GET", "/mcp", &headers, None)
    }

    #[track_caller]
    pub fn delete(&self) -> Answer {
        self.lab.send("DELETE", "/mcp", &[("Mcp-Session-Id", &self.session)], None)
    }
}

pub fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub fn call(id: u64, tool: &str) -> Value {
    request(id, "tools/call", json!({"name": tool, "arguments": {}, "_meta": {"progressToken": id}}))
}

pub fn initialize(version: &str) -> Value {
    let client = json!({"name": "test", "version": "1"});
    request(0, "initialize", json!({"protocolVersion": version, "capabilities": {"roots": {}}, "clientInfo": client}))
}

/// A stateless request; what `params` has in `_meta` is kept.
pub fn modern(id: u64, method: &str, mut params: Value) -> Value {
    let meta = &mut params["_meta"];
    if meta.is_null() {
        *meta = json!({});
    }
    for (key, value) in [("protocolVersion", json!(MODERN)), ("clientCapabilities", json!({}))] {
        let key = format!("io.modelcontextprotocol/{key}");
        if meta.get(&key).is_none() {
            meta[key] = value;
        }
    }
    request(id, method, params)
}

/// The head of an answer, and the way to its body.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    from: BufReader<TcpStream>,
    /// Bytes of the body, or of the present chunk, that have not been read.
    left: usize,
    is_chunked: bool,
    /// What of a stream has been read and not been given.
    text: String,
    is_over: bool,
    said: Arc<Said>,
}

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: String,
    pub retry: Option<u64>,
    pub data: Option<String>,
    pub comment: bool,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> Value {
        let data = self.data.as_ref().expect("an event with data");
        serde_json::from_str(data).unwrap_or_else(|error| panic!("expected JSON, came {data:?}: {error}"))
    }
}

impl Answer {
    #[track_caller]
    fn read(stream: TcpStream, said: Arc<Said>) -> Self {
        let mut from = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            from.read_line(&mut line).expect("a head");
            line.trim_end().to_owned()
        };
        let status = line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("expected an HTTP answer"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer =
            Answer { status, headers, from, left: 0, is_chunked: false, text: String::new(), is_over: false, said };
        answer.is_chunked = answer.header("transfer-encoding") == Some("chunked");
        answer.left = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }

    /// Reads further; false at the end.
    fn more(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        if self.is_chunked && self.left == 0 {
            let mut line = String::new();
            self.from.read_line(&mut line).expect("a chunk");
            self.left = usize::from_str_radix(line.trim(), 16).expect("the size of a chunk");
        }
        if self.left == 0 {
            self.is_over = true;
            return false;
        }
        let mut bytes = vec![0; self.left];
        self.from.read_exact(&mut bytes).expect("the body");
        self.left = 0;
        self.text += std::str::from_utf8(&bytes).expect("text");
        if self.is_chunked {
            let mut end = [0; 2];
            self.from.read_exact(&mut end).expect("the end of a chunk");
        }
        true
    }

    /// The whole body.
    pub fn body(mut self) -> String {
        while self.more() {}
        std::mem::take(&mut self.text)
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let said = Arc::clone(&self.said);
        let body = self.body();
        let message =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("expected JSON, came {body:?}: {error}"));
        said.received(&message, "");
        message
    }

    /// The next event, comments included; none at the end of the stream.
    #[track_caller]
    pub fn next(&mut self) -> Option<Event> {
        while !self.text.contains("\n\n") {
            if !self.more() {
                assert_eq!(self.text, "", "half an event");
                return None;
            }
        }
        let (block, rest) = self.text.split_once("\n\n").expect("looked for above");
        let mut event = Event::default();
        for line in block.lines() {
            match line.split_once(':').map(|(name, value)| (name, value.trim_start())) {
                Some(("", _)) => event.comment = true,
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("retry", retry)) => event.retry = retry.parse().ok(),
                Some(("data", data)) => assert_eq!(event.data.replace(data.to_owned()), None, "one line of data"),
                Some(("event", "message")) => {}
                _ => panic!("expected a field, came {line:?}"),
            }
        }
        self.text = rest.to_owned();
        if event.data.as_ref().is_some_and(|data| !data.is_empty()) {
            self.said.received(&event.json(), &event.id);
        }
        Some(event)
    }

    /// The next event with a message.
    #[track_caller]
    pub fn message(&mut self) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.data.as_ref().is_some_and(|data| !data.is_empty()) {
                return event;
            }
        }
    }

    /// Breaks the connection off.
    pub fn vanish(self) {
        let _ = self.from.get_ref().shutdown(Shutdown::Both);
    }
}

fn waiting(gate: &Arc<Semaphore>, tell: &Sender<&'static str>) -> Tool {
    let (gate, tell) = (Arc::clone(gate), tell.clone());
    Tool::new("wait", move |_: NoArguments, _: CallContext| {
        let (gate, mut ending) = (Arc::clone(&gate), Ending(tell.clone(), false));
        async move {
            let _ = ending.0.send("began");
            gate.acquire().await.expect("open").forget();
            ending.finish();
            Ok("waited")
        }
    })
}

/// Reports progress once for each permit, four times.
fn reporting(gate: &Arc<Semaphore>) -> Tool {
    let gate = Arc::clone(gate);
    Tool::new("report", move |_: NoArguments, context: CallContext| {
        let gate = Arc::clone(&gate);
        async move {
            for step in 1..=4 {
                context.progress(f64::from(step), Some(4.0), None);
                gate.acquire().await.expect("open").forget();
            }
            Ok("reported")
        }
    })
}

fn pausing(gate: &Arc<Semaphore>) -> Tool {
    let gate = Arc::clone(gate);
    Tool::new("pause", move |_: NoArguments, context: CallContext| {
        let gate = Arc::clone(&gate);
        async move {
            context.progress(1.0, None, None);
            context.close_stream();
            context.progress(2.0, None, None);
            gate.acquire().await.expect("open").forget();
            Ok("paused")
        }
    })
}

fn headed_schema() -> Value {
    json!({"type": "object", "properties": {"p": {"type": "string", "x-mcp-header": "P"}, "n": {"type": "integer"}}})
}
