//! The server behind both transports: its conversations, what they asked to be told, and what it answers at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use crate::call::Call;
use crate::message::{Filter, Message, Params, id_key};
use crate::output::Output;
use crate::{Eras, Options, catalog, exit, odd};

pub const STATELESS_VERSION: &str = "2026-07-28";
const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

pub const METHOD_NOT_FOUND: &str = "-32601";
pub const INVALID_PARAMS: &str = "-32602";
pub const HEADER_MISMATCH: &str = "-32020";
pub const MISSING_CAPABILITY: &str = "-32021";
const UNSUPPORTED_VERSION: &str = "-32022";

/// In whose words a request is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Stateless,
}

/// A request that is being answered.
pub struct Request {
    pub id: Box<RawValue>,
    pub era: Era,
    /// The text of its parameters.
    pub text: Option<Box<RawValue>>,
    pub params: Params,
}

/// What a message leads to.
pub enum Work {
    Nothing,
    Answer(Answer),
    /// A call of a tool, which may take its time.
    Call(Request),
    /// A stream of changes.
    Listen(Request),
}

/// A response that is there at once.
pub struct Answer {
    pub text: String,
    /// Its status over HTTP.
    pub status: u16,
}

/// What a client answered to a request of ours.
pub struct Reply {
    /// The id as it came back.
    pub id: Box<RawValue>,
    pub result: Result<Box<RawValue>, Box<RawValue>>,
}

pub struct Server {
    pub options: Options,
    log: Option<Mutex<File>>,
    /// Whether there is a tool `extra`.
    extra: AtomicBool,
    asks: AtomicU64,
    calls: AtomicU64,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    listens: Mutex<Vec<Listen>>,
}

/// One conversation: that of the process over stdio, one of many over HTTP. A stateless request over HTTP has one of its own.
pub struct Session {
    pub server: Arc<Server>,
    pub name: String,
    /// Where goes what belongs to no request.
    standing: Mutex<Standing>,
    is_initialized: AtomicBool,
    capabilities: Mutex<BTreeSet<String>>,
    subscribed: Mutex<BTreeSet<String>>,
    calls: Mutex<BTreeMap<String, Arc<Call>>>,
    asked: Mutex<BTreeMap<String, Sender<Reply>>>,
}

enum Standing {
    Open(Arc<Output>),
    /// Kept until somebody reads.
    Waiting(Vec<String>),
}

struct Listen {
    session: String,
    id: Box<RawValue>,
    filter: Filter,
    output: Arc<Output>,
}

/// Something of the server's that changed.
pub enum Change {
    Tools,
    Prompts,
    Resources,
    Resource(String),
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub fn new(options: Options) -> Arc<Self> {
        let log = std::env::var_os("ODD_LOG").map(|path| {
            let file = OpenOptions::new().append(true).create(true).open(&path);
            Mutex::new(file.unwrap_or_else(|fault| panic!("ODD_LOG={}: {fault}", path.display())))
        });
        let server = Server {
            options,
            log,
            extra: AtomicBool::new(false),
            asks: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            sessions: Mutex::default(),
            listens: Mutex::default(),
        };
        let words: Vec<_> = std::env::args().skip(1).map(|word| odd::string(&word)).collect();
        server.log(&format!(r#""event":"start","pid":{},"args":[{}]"#, std::process::id(), words.join(",")));
        Arc::new(server)
    }

    /// Appends a line with these members to the log.
    pub fn log(&self, members: &str) {
        if let Some(log) = &self.log {
            // Between the tokens of JSON a line break is a blank.
            let line = format!("{{{}}}\n", members.replace(['\n', '\r'], " "));
            lock(log).write_all(line.as_bytes()).expect("the log can be written");
        }
    }

    /// Logs what was received.
    pub fn log_received(&self, via: &str, received: &[u8]) {
        let text = String::from_utf8_lossy(received);
        let text = text.trim();
        if serde_json::from_str::<&RawValue>(text).is_ok() {
            self.log(&format!(r#"{via},"message":{text}"#));
        } else {
            self.log(&format!(r#"{via},"junk":{}"#, odd::string(text)));
        }
    }

    /// A conversation with the server. `standing` is there if it has a stream of its own from the start.
    pub fn open(self: &Arc<Self>, name: String, standing: Option<Arc<Output>>) -> Arc<Session> {
        let session = Arc::new(Session {
            server: self.clone(),
            name: name.clone(),
            standing: Mutex::new(standing.map_or(Standing::Waiting(Vec::new()), Standing::Open)),
            is_initialized: AtomicBool::new(false),
            capabilities: Mutex::default(),
            subscribed: Mutex::default(),
            calls: Mutex::default(),
            asked: Mutex::default(),
        });
        if !name.is_empty() {
            lock(&self.sessions).insert(name, session.clone());
        }
        session
    }

    pub fn session(&self, name: &str) -> Option<Arc<Session>> {
        lock(&self.sessions).get(name).cloned()
    }

    /// Ends a conversation and its calls. Returns whether there was one.
    pub fn close(&self, name: &str) -> bool {
        let Some(session) = lock(&self.sessions).remove(name) else { return false };
        self.log(&format!(r#""event":"session_ended","session":{}"#, odd::string(name)));
        lock(&session.calls).values().for_each(|call| call.cancel());
        true
    }

    pub fn next_ask(&self) -> u64 {
        self.asks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Counts a call that has been answered, which may be the last.
    pub fn call_ended(&self) {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.options.exit_after_calls.is_some_and(|last| calls >= last) {
            std::process::exit(exit::AFTER_CALLS);
        }
    }

    pub fn has_extra(&self) -> bool {
        self.extra.load(Ordering::SeqCst)
    }

    /// Returns whether there is a tool `extra` now.
    pub fn toggle_extra(&self) -> bool {
        !self.extra.fetch_xor(true, Ordering::SeqCst)
    }

    /// Tells everybody who asked for it.
    pub fn announce(&self, change: &Change) {
        let method = change.method();
        let members = format!("{}{}", change.members(), odd::MEMBERS);
        let sessions: Vec<_> = lock(&self.sessions).values().cloned().collect();
        for session in sessions.into_iter().filter(|session| session.wants(change)) {
            session.tell(&odd::notification(method, &format!("{{ {members}}}")));
        }
        let mut listens = lock(&self.listens);
        listens.retain(|listen| !listen.output.is_broken());
        for listen in listens.iter().filter(|listen| listen.filter.wants(change)) {
            let params = format!("{{ {members},\"_meta\":{}}}", listen.meta());
            listen.output.send(&odd::notification(method, &params));
        }
    }

    /// Begins a stream of changes.
    pub fn listen(&self, session: &Session, request: Request, output: Arc<Output>) {
        let Request { id, params, .. } = request;
        let filter = params.notifications;
        let listen = Listen { session: session.name.clone(), id, filter, output };
        let params =
            format!(r#"{{"notifications":{},{},"_meta":{}}}"#, listen.filter.text(), odd::MEMBERS, listen.meta());
        // The acknowledgement is first on the stream.
        let mut listens = lock(&self.listens);
        listen.output.send(&odd::notification("notifications/subscriptions/acknowledged", &params));
        // What was received is in the log before it is done: from here on changes are told.
        self.log(&format!(r#""event":"listening","notifications":{}"#, listen.filter.text()));
        listens.push(listen);
    }

    /// Ends a stream of changes that its client cancels.
    fn forget_listen(&self, session: &Session, id: &RawValue) {
        let key = id_key(id);
        lock(&self.listens).retain(|listen| listen.session != session.name || id_key(&listen.id) != key);
    }

    /// Ends a stream of changes that nobody reads any more.
    pub fn forget_stream(&self, output: &Arc<Output>) {
        lock(&self.listens).retain(|listen| !Arc::ptr_eq(&listen.output, output));
    }
}

impl Session {
    /// Takes a message in. What it leads to is the transport's to do, in order.
    pub fn receive(&self, message: Message) -> Work {
        let Some(method) = message.method.clone() else {
            self.replied(message);
            return Work::Nothing;
        };
        let params = match Params::of(&message) {
            // They may be anything.
            Err(_) if method.starts_with("vendor/") => Ok(Params::default()),
            params => params,
        };
        let Message { id: Some(id), params: text, .. } = message else {
            if let Ok(Params { request_id: Some(id), .. }) = &params
                && method == "notifications/cancelled"
            {
                self.cancelled(id);
            }
            return Work::Nothing;
        };
        if self.server.options.stderr {
            eprintln!("odd_upstream: {method} {}", id.get());
        }
        match params {
            Ok(params) => {
                let era = self.server.era_of(&method, &params);
                self.asked_for(&method, Request { id, era, text, params })
            }
            Err(fault) => {
                let request = Request { id, era: Era::Legacy, text, params: Params::default() };
                request.refuse(INVALID_PARAMS, &fault.to_string(), odd::VALUE)
            }
        }
    }

    fn asked_for(&self, method: &str, request: Request) -> Work {
        let versions = format!(r#""supported":["{STATELESS_VERSION}"]"#);
        if request.era == Era::Stateless {
            match request.params.meta.version.as_deref() {
                _ if method == "initialize" => {
                    let requested = odd::string(&request.params.protocol_version);
                    let data = format!(r#"{{"requested":{requested},{versions}}}"#);
                    return request.refuse(UNSUPPORTED_VERSION, "this server needs no handshake", &data);
                }
                None => return request.refuse(INVALID_PARAMS, "_meta lacks the protocol version", odd::VALUE),
                Some(_) if request.params.meta.capabilities.is_none() => {
                    return request.refuse(INVALID_PARAMS, "_meta lacks the client's capabilities", odd::VALUE);
                }
                Some(STATELESS_VERSION) => {}
                Some(other) => {
                    let data = format!(r#"{{"requested":{},{versions}}}"#, odd::string(other));
                    return request.refuse(UNSUPPORTED_VERSION, "an unknown protocol version", &data);
                }
            }
        }
        match (method, request.era) {
            ("tools/call", _) => Work::Call(request),
            ("subscriptions/listen", Era::Stateless) => Work::Listen(request),
            ("initialize", Era::Legacy) => self.initialize(&request),
            ("resources/subscribe", Era::Legacy) => {
                lock(&self.subscribed).insert(request.params.uri.clone());
                request.answer("")
            }
            ("resources/unsubscribe", Era::Legacy) => {
                lock(&self.subscribed).remove(&request.params.uri);
                request.answer("")
            }
            ("ping" | "logging/setLevel", Era::Legacy) => request.answer(""),
            _ => catalog::answer(&self.server, method, &request),
        }
    }

    fn initialize(&self, request: &Request) -> Work {
        self.is_initialized.store(true, Ordering::SeqCst);
        *lock(&self.capabilities) = request.params.capabilities.keys().cloned().collect();
        let requested = request.params.protocol_version.as_str();
        let version = if LEGACY_VERSIONS.contains(&requested) { requested } else { LEGACY_VERSIONS[0] };
        request.answer(&format!(
            r#""serverInfo":{},"instructions":"Be odd \u00e9\/.","capabilities":{} , "protocolVersion":"{version}""#,
            odd::SERVER_INFO,
            catalog::capabilities(Era::Legacy),
        ))
    }

    fn replied(&self, message: Message) {
        let Message { id: Some(id), result, error, .. } = message else { return };
        let asked = lock(&self.asked).remove(&id_key(&id));
        let result = match (result, error) {
            (_, Some(error)) => Err(error),
            (result, None) => Ok(result.unwrap_or_else(|| RawValue::NULL.to_owned())),
        };
        if let Some(asked) = asked {
            // Who has stopped waiting needs no answer.
            let _ = asked.send(Reply { id, result });
        }
    }

    fn cancelled(&self, id: &RawValue) {
        let call = lock(&self.calls).get(&id_key(id)).cloned();
        if let Some(call) = call {
            call.cancel();
        }
        self.server.forget_listen(self, id);
    }

    /// Has a call found by those who cancel it.
    pub fn begin(&self, call: &Arc<Call>) {
        lock(&self.calls).insert(id_key(&call.request.id), call.clone());
    }

    pub fn end(&self, call: &Call) {
        lock(&self.calls).remove(&id_key(&call.request.id));
    }

    /// Says where the answer to a request of ours arrives.
    pub fn expect_reply(&self, id: &RawValue) -> Receiver<Reply> {
        let (sender, receiver) = mpsc::channel();
        lock(&self.asked).insert(id_key(id), sender);
        receiver
    }

    /// Whether the client said at `initialize` that it can do something.
    pub fn can(&self, capability: &str) -> bool {
        lock(&self.capabilities).contains(capability)
    }

    /// Sends what belongs to no request.
    fn tell(&self, text: &str) {
        match &mut *lock(&self.standing) {
            Standing::Open(output) if !output.is_broken() => output.send(text),
            Standing::Waiting(waiting) => waiting.push(text.to_owned()),
            broken @ Standing::Open(_) => *broken = Standing::Waiting(vec![text.to_owned()]),
        }
    }

    /// Has what belongs to no request go here, with what waits for it.
    pub fn stand(&self, output: Arc<Output>) {
        let mut standing = lock(&self.standing);
        if let Standing::Waiting(waiting) = &*standing {
            waiting.iter().for_each(|text| output.send(text));
        }
        *standing = Standing::Open(output);
    }

    fn wants(&self, change: &Change) -> bool {
        match change {
            Change::Resource(uri) => lock(&self.subscribed).contains(uri),
            _ => self.is_initialized.load(Ordering::SeqCst),
        }
    }
}

impl Server {
    /// In whose words a request is to be answered.
    pub fn era_of(&self, method: &str, params: &Params) -> Era {
        let looks_stateless = params.meta.version.is_some() || method == "server/discover";
        match self.options.eras {
            Eras::Stateless => Era::Stateless,
            Eras::Both if looks_stateless => Era::Stateless,
            Eras::Both | Eras::Legacy => Era::Legacy,
        }
    }
}

impl Request {
    /// The text of a result with these members, if any, and all that is odd.
    pub fn result(&self, members: &str) -> String {
        self.result_of_type(members, "complete")
    }

    pub fn result_of_type(&self, members: &str, result_type: &str) -> String {
        let separator = if members.is_empty() { "" } else { "," };
        let of_era = match self.era {
            Era::Legacy => format!(r#""_meta":{{{}}}"#, odd::META),
            Era::Stateless => format!(
                r#""resultType":"{result_type}" ,"_meta":{{{}, "io.modelcontextprotocol/serverInfo":{}}}"#,
                odd::META,
                odd::SERVER_INFO
            ),
        };
        let text = odd::or_null(self.text.as_deref());
        format!(r#"{{ {},"x-odd-params":{text} , {of_era}{separator}{members}}}"#, odd::MEMBERS)
    }

    pub fn answer(&self, members: &str) -> Work {
        Work::Answer(Answer { text: odd::response(self.id.get(), &self.result(members)), status: 200 })
    }

    /// As [`answer`](Self::answer), with what the stateless era wants to know of a list.
    pub fn answer_cacheable(&self, members: &str) -> Work {
        match self.era {
            Era::Legacy => self.answer(members),
            Era::Stateless => self.answer(&format!(r#"{members} ,"cacheScope":"public","ttlMs":0"#)),
        }
    }

    pub fn refuse(&self, code: &str, message: &str, data: &str) -> Work {
        let status = match (self.era, code) {
            (Era::Legacy, _) => 200,
            (Era::Stateless, METHOD_NOT_FOUND) => 404,
            (Era::Stateless, _) => 400,
        };
        Work::Answer(Answer { text: odd::error(self.id.get(), code, message, data), status })
    }
}

impl Listen {
    fn meta(&self) -> String {
        format!(r#"{{{},"io.modelcontextprotocol\/subscriptionId":{}}}"#, odd::META, self.id.get())
    }
}

impl Filter {
    fn wants(&self, change: &Change) -> bool {
        match change {
            Change::Tools => self.tools_list_changed,
            Change::Prompts => self.prompts_list_changed,
            Change::Resources => self.resources_list_changed,
            Change::Resource(uri) => self.resource_subscriptions.contains(uri),
        }
    }

    fn text(&self) -> String {
        let uris: Vec<_> = self.resource_subscriptions.iter().map(|uri| odd::string(uri)).collect();
        format!(
            r#"{{ "resourceSubscriptions":[{}],"toolsListChanged":{},"resourcesListChanged":{} ,"promptsListChanged":{}}}"#,
            uris.join(" , "),
            self.tools_list_changed,
            self.resources_list_changed,
            self.prompts_list_changed
        )
    }
}

impl Change {
    fn method(&self) -> &'static str {
        match self {
            Change::Tools => "notifications/tools/list_changed",
            Change::Prompts => "notifications/prompts/list_changed",
            Change::Resources => "notifications/resources/list_changed",
            Change::Resource(_) => "notifications/resources/updated",
        }
    }

    fn members(&self) -> String {
        match self {
            Change::Resource(uri) => format!(r#""uri":{} ,"#, odd::string(uri)),
            _ => String::new(),
        }
    }
}
