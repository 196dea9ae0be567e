//! One conversation with an MCP client, as a machine: what each message that comes asks of the server.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::protocol::Time;
use crate::protocol::jsonrpc::{
    self, AskId, Asking, CallNumber, Fault, Incoming, Notification, Object, Request, Serving,
};
use crate::protocol::mcp::client::{Client, Era, RequestMeta};
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    BATCH_MESSAGES_MAX, CANCELLED, DISCOVER, ID_BYTES_MAX, INITIALIZE, INITIALIZED, PING, PROGRESS, REQUEST_BYTES_MAX,
    ROOTS_CHANGED, SUBSCRIPTIONS_LISTEN,
};

/// The least severe log message that a client gets which never said what it wants.
const LEVEL_DEFAULT: Level = Level::Info;

/// One conversation. It performs nothing: [`Peer::receive`] says what a message asks for, and whoever drives the machine does
/// it and reports with [`Peer::finish`].
///
/// ```text
///           ┌─ a request with `_meta` of a stateless revision: served in any state, changes none
/// Opening ──┼─ `initialize` ─► Legacy
///           └─ (or it begins as Joined, where the join was the handshake) ─ `initialize` ─► Legacy
/// ```
///
/// Source: MCP, lifecycle; 2026-07-28, "Versioning": a server of both eras chooses by how the client opens.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The client, once it has shaken hands; none where it has not, or is stateless.
    client: Option<Arc<Client>>,
    level: Option<Level>,
    is_initialized: bool,
    serving: Serving,
    /// Requests of the server that wait for the client.
    pub asking: Asking,
    is_relay: bool,
}

/// What a message asks for.
#[derive(Debug)]
pub enum Received<'a> {
    /// Nothing.
    Nothing,
    /// To serve a request, and to call [`Peer::finish`] when its answer is there.
    Serve(Call<'a>),
    /// To answer with an error; with `id` null where there is none.
    Refuse(Option<&'a RawValue>, Fault),
    /// To receive each of these in turn.
    Batch(Vec<&'a RawValue>),
    /// To end a request under way, which gets no answer; with the reason, if the client gave one.
    Cancel(CallNumber, Option<String>),
    /// To note that the client gets on with a request of the server; with the notification's text.
    Progress(AskId, &'a [u8]),
    /// To pass a notification on that means nothing here, where there is someone to pass it to.
    Other(&'a [u8]),
    /// To take the answer to a request of the server: its result, or its error.
    Answered(AskId, Result<&'a RawValue, &'a RawValue>),
    /// To note that the client is ready for requests and notifications.
    Initialized,
    /// To note that the client's roots are others.
    RootsChanged,
}

/// A request to serve.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its number in this conversation.
    pub number: CallNumber,
    /// The id to echo.
    pub id: &'a RawValue,
    /// The method asked for.
    pub method: String,
    /// `params`; empty where there are none.
    pub params: Object<'a>,
    /// The same as their text, if there are any.
    pub raw_params: Option<&'a RawValue>,
    /// The whole message.
    pub text: &'a [u8],
    /// Who asks, and in which words to answer.
    pub client: Arc<Client>,
    /// For a stateless request: the least severe log message it wants, if any.
    pub level: Option<Level>,
    /// The token to report progress with, a string or a number.
    pub progress_token: Option<&'a RawValue>,
}

impl Peer {
    /// A conversation whose handshake has been made.
    pub fn joined(client: Client) -> Self {
        Peer { client: Some(Arc::new(client)), is_initialized: true, ..Peer::default() }
    }

    /// A conversation that goes on: with what its client said, behind so many requests from it and to it.
    pub fn going_on(
        client: Option<Client>,
        level: Option<Level>,
        is_initialized: bool,
        asked: u64,
        asking: u64,
    ) -> Self {
        Peer {
            client: client.map(Arc::new),
            level,
            is_initialized,
            serving: Serving::after(asked),
            asking: Asking::after(asking),
            is_relay: false,
        }
    }

    /// The same for a server that passes requests on: of methods that nobody here knows the params may be of any type.
    pub fn relaying(self) -> Self {
        Peer { is_relay: true, ..self }
    }

    /// Takes one message, the text of one JSON value.
    pub fn receive<'a>(&mut self, text: &'a [u8], now: Time) -> Received<'a> {
        if text.first() == Some(&b'[') {
            return self.batch(text);
        }
        match Incoming::classify(text) {
            Incoming::Request(request) => self.request(request, text),
            Incoming::Notification(notification) => self.notification(&notification, text, now),
            Incoming::Response(response) => match self.asking.answer(response.id) {
                Some(ask) => Received::Answered(ask, response.outcome),
                None => Received::Nothing,
            },
            Incoming::Invalid { id } => Received::Refuse(id, Fault::InvalidMessage),
        }
    }

    /// Notes that a request was answered; whether the client still wants that answer.
    pub fn finish(&mut self, number: CallNumber) -> bool {
        self.serving.finish(number)
    }

    /// Gives a request under way another id, under which it is answered.
    pub fn rename(&mut self, number: CallNumber, id: &RawValue) {
        self.serving.rename(number, id);
    }

    /// Whether an id is that of a request under way.
    pub fn is_in_use(&self, id: &RawValue) -> bool {
        self.serving.find(id).is_some()
    }

    /// Whether a request is under way: neither answered nor given up.
    pub fn is_under_way(&self, number: CallNumber) -> bool {
        self.serving.contains(number)
    }

    /// The client that has shaken hands.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// Makes the client of a served `initialize` the conversation's.
    pub fn initialize(&mut self, client: Arc<Client>) {
        self.client = Some(client);
        self.is_initialized = false;
    }

    /// Whether the client said that it is ready: before, it gets no notifications that it did not cause.
    pub fn is_initialized(&self) -> bool {
        self.is_initialized
    }

    /// The least severe log message that the client gets.
    pub fn level(&self) -> Level {
        self.level.unwrap_or(LEVEL_DEFAULT)
    }

    /// The same, if the client said so.
    pub fn asked_level(&self) -> Option<Level> {
        self.level
    }

    /// Sets [`Peer::level`].
    pub fn set_level(&mut self, level: Level) {
        self.level = Some(level);
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.serving.len()
    }

    fn batch<'a>(&self, text: &'a [u8]) -> Received<'a> {
        let takes =
            self.client.as_ref().is_some_and(|client| client.era == Era::Legacy && client.version.has_batches());
        match jsonrpc::batch(text) {
            Some(messages) if takes && messages.len() > BATCH_MESSAGES_MAX => {
                let text = format!("a batch has at most {BATCH_MESSAGES_MAX} messages, came {}", messages.len());
                Received::Refuse(None, Fault::InvalidRequest(text))
            }
            Some(messages) if takes && !messages.is_empty() => Received::Batch(messages),
            _ => Received::Refuse(None, Fault::InvalidMessage),
        }
    }

    fn request<'a>(&mut self, request: Request<'a>, text: &'a [u8]) -> Received<'a> {
        let id = request.id;
        match self.admit(request, text) {
            Ok(call) => Received::Serve(call),
            // An id too long to be kept is too long to be sent back.
            Err(fault) => Received::Refuse((id.get().len() <= ID_BYTES_MAX).then_some(id), fault),
        }
    }

    fn admit<'a>(&mut self, request: Request<'a>, text: &'a [u8]) -> Result<Call<'a>, Fault> {
        if request.bytes() > REQUEST_BYTES_MAX || request.id.get().len() > ID_BYTES_MAX {
            return Err(Fault::RequestTooLarge);
        }
        let params = match request.params.map(RawValue::get) {
            None | Some("null") => Object::default(),
            Some(params) => match Object::parse(params.as_bytes()) {
                Some(params) => params,
                None if self.is_relay && !has_object_params(&request.method) => Object::default(),
                None => return Err(Fault::InvalidParams("params must be an object".to_owned())),
            },
        };
        let meta = params.object("_meta");
        let (client, level) = self.client_of(&request.method, &params, meta.as_ref())?;
        let progress_token = meta.as_ref().and_then(|meta| meta.raw("progressToken"));
        match progress_token.map(RawValue::get) {
            Some(token) if token.len() > ID_BYTES_MAX => {
                return Err(Fault::InvalidParams("progressToken is too long".to_owned()));
            }
            Some(token) if !token.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) => {
                return Err(Fault::InvalidParams("progressToken must be a string or a number".to_owned()));
            }
            _ => {}
        }
        let in_use = |_| Fault::InvalidRequest(format!("id {} is in use by a request under way", request.id.get()));
        let number = self.serving.begin(request.id).map_err(in_use)?;
        let Request { id, method, params: raw_params, .. } = request;
        Ok(Call { number, id, method, params, raw_params, text, client, level, progress_token })
    }

    /// Who asks, and what a stateless request wants to hear of logs.
    fn client_of(
        &self,
        method: &str,
        params: &Object<'_>,
        meta: Option<&Object<'_>>,
    ) -> Result<(Arc<Client>, Option<Level>), Fault> {
        // These two exist in the stateless era alone, so whoever sends them without `_meta` is told what is missing there.
        if RequestMeta::is_modern(meta) || matches!(method, DISCOVER | SUBSCRIPTIONS_LISTEN) {
            let meta = RequestMeta::read(meta)?;
            return Ok((meta.client, meta.level));
        }
        if method == INITIALIZE {
            let again = self.client.as_ref().is_some_and(|client| client.era == Era::Legacy);
            if again {
                return Err(Fault::InvalidRequest("the session is initialized already".to_owned()));
            }
            return Ok((Arc::new(Client::initialize(params)?), None));
        }
        match &self.client {
            Some(client) => Ok((Arc::clone(client), None)),
            None if method == PING => Ok((Arc::new(unknown_client()), None)),
            None => Err(Fault::InvalidRequest(
                "expected initialize first, or _meta with a protocol version in every request".to_owned(),
            )),
        }
    }

    fn notification<'a>(&mut self, notification: &Notification<'a>, text: &'a [u8], now: Time) -> Received<'a> {
        let params = notification.params.and_then(|params| Object::parse(params.get().as_bytes()));
        let raw = |key: &str| params.as_ref().and_then(|params| params.raw(key));
        match notification.method.as_str() {
            CANCELLED => {
                let number = raw("requestId").and_then(|id| self.serving.find(id));
                // From here on no answer is wanted, so none can overtake this.
                match number.filter(|number| self.serving.finish(*number)) {
                    Some(number) => {
                        Received::Cancel(number, params.as_ref().and_then(|params| params.string("reason")))
                    }
                    None => Received::Nothing,
                }
            }
            PROGRESS => match raw("progressToken").and_then(|token| self.asking.progress(token, now)) {
                Some(ask) => Received::Progress(ask, text),
                None => Received::Nothing,
            },
            INITIALIZED if self.client.as_ref().is_some_and(|client| client.era == Era::Legacy) => {
                self.is_initialized = true;
                Received::Initialized
            }
            ROOTS_CHANGED => Received::RootsChanged,
            _ => Received::Other(text),
        }
    }
}

/// Whether a method is of MCP, where params are objects.
fn has_object_params(method: &str) -> bool {
    const SPACES: [&str; 9] = [
        "tools/",
        "resources/",
        "prompts/",
        "tasks/",
        "logging/",
        "completion/",
        "server/",
        "subscriptions/",
        "sampling/",
    ];
    matches!(method, INITIALIZE | PING) || SPACES.iter().any(|space| method.starts_with(space))
}

/// Who may ask nothing but whether the server is there.
fn unknown_client() -> Client {
    Client { era: Era::Legacy, version: Version::LATEST_LEGACY, capabilities: Default::default(), info: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::jsonrpc::{Compat, Patience};
    use crate::protocol::mcp::client::{META_CAPABILITIES, META_VERSION};

    /// What a message asks for, in a word.
    fn asks(peer: &mut Peer, message: &Value) -> String {
        let text = message.to_string();
        match peer.receive(text.as_bytes(), Time(0)) {
            Received::Nothing => "nothing".into(),
            Received::Serve(call) => format!("serve {} {:?}", call.method, call.client.era),
            Received::Refuse(id, fault) => {
                format!("refuse {} {}", id.map_or("-", RawValue::get), fault.code(Compat::Standard))
            }
            Received::Batch(messages) => format!("batch of {}", messages.len()),
            Received::Cancel(number, _) => format!("cancel {}", number.0),
            Received::Progress(ask, _) => format!("progress {}", ask.0),
            Received::Other(_) => "other".into(),
            Received::Answered(ask, outcome) => format!("answered {} {}", ask.0, outcome.is_ok()),
            Received::Initialized => "initialized".into(),
            Received::RootsChanged => "roots changed".into(),
        }
    }

    fn request(id: Value, method: &str, params: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    }

    fn initialize(version: &str) -> Value {
        let client = json!({"name": "c", "version": "1"});
        request(json!(0), "initialize", json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client}))
    }

    fn legacy(version: &str) -> Peer {
        let mut peer = Peer::default();
        let text = initialize(version).to_string();
        let Received::Serve(call) = peer.receive(text.as_bytes(), Time(0)) else { panic!("served") };
        peer.initialize(Arc::clone(&call.client));
        assert!(peer.finish(call.number));
        peer
    }

    fn meta() -> Value {
        json!({META_VERSION: "2026-07-28", META_CAPABILITIES: {}})
    }

    #[test]
    fn the_first_words_choose_the_era() {
        let mut peer = Peer::default();
        assert_eq!(asks(&mut peer, &request(json!(1), "tools/list", json!({}))), "refuse 1 -32600");
        assert_eq!(asks(&mut peer, &request(json!(1), "ping", json!({}))), "serve ping Legacy");
        let stateless = request(json!(2), "tools/list", json!({"_meta": meta()}));
        assert_eq!(asks(&mut peer, &stateless), "serve tools/list Modern");
        assert_eq!(asks(&mut peer, &initialize("2025-06-18")), "serve initialize Legacy");

        let mut peer = legacy("2025-06-18");
        assert_eq!(asks(&mut peer, &request(json!(1), "tools/list", json!({}))), "serve tools/list Legacy");
        assert_eq!(asks(&mut peer, &stateless), "serve tools/list Modern", "in any state");
        assert_eq!(asks(&mut peer, &initialize("2025-06-18")), "refuse 0 -32600");
        assert!(!peer.is_initialized());
        assert_eq!(asks(&mut peer, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})), "initialized");
        assert!(peer.is_initialized());

        let capabilities = jsonrpc::raw(&json!({}));
        let mut peer = Peer::joined(Client::joined("n", "1", &capabilities));
        assert_eq!(asks(&mut peer, &request(json!(1), "tools/list", json!({}))), "serve tools/list Elixir");
        assert_eq!(asks(&mut peer, &initialize("2025-06-18")), "serve initialize Legacy");
    }

    #[test]
    fn stateless_methods_without_their_meta_are_told_so() {
        let mut peer = Peer::default();

        assert_eq!(asks(&mut peer, &request(json!(1), "server/discover", json!({}))), "refuse 1 -32602");
        let other = json!({META_VERSION: "2031-01-01", META_CAPABILITIES: {}});
        assert_eq!(asks(&mut peer, &request(json!(1), "tools/list", json!({"_meta": other}))), "refuse 1 -32022");
    }

    #[test]
    fn an_id_in_use_is_refused_and_free_again_after_its_answer() {
        let mut peer = legacy("2025-11-25");
        let call = |id: Value| request(id, "tools/call", json!({"name": "t"}));

        assert_eq!(asks(&mut peer, &call(json!("a"))), "serve tools/call Legacy");
        assert_eq!(asks(&mut peer, &call(json!("a"))), "refuse \"a\" -32600");
        assert!(peer.finish(CallNumber(2)));
        assert_eq!(asks(&mut peer, &call(json!("a"))), "serve tools/call Legacy");
        for id in [json!(null), json!({"x": [1]}), json!(1.5)] {
            assert_eq!(asks(&mut peer, &call(id)), "serve tools/call Legacy", "any JSON is an id");
        }
    }

    #[test]
    fn a_cancelled_request_wants_no_answer() {
        let mut peer = legacy("2025-11-25");
        asks(&mut peer, &request(json!(7), "tools/call", json!({"name": "t"})));
        let cancel =
            |id: Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});

        assert_eq!(asks(&mut peer, &cancel(json!("7"))), "nothing");
        assert_eq!(asks(&mut peer, &cancel(json!(7))), "cancel 2");
        assert_eq!(asks(&mut peer, &cancel(json!(7))), "nothing");
        assert!(!peer.finish(CallNumber(2)));
    }

    #[test]
    fn batches_are_taken_in_their_one_revision() {
        let pings = json!([request(json!(1), "ping", json!({})), request(json!(2), "ping", json!({}))]);

        assert_eq!(asks(&mut legacy("2025-03-26"), &pings), "batch of 2");
        assert_eq!(asks(&mut legacy("2025-03-26"), &json!([])), "refuse - -32600");
        let many: Vec<_> = (0..=BATCH_MESSAGES_MAX).map(|id| request(json!(id), "ping", json!({}))).collect();
        assert_eq!(asks(&mut legacy("2025-03-26"), &json!(many)), "refuse - -32600");
        assert_eq!(asks(&mut legacy("2025-06-18"), &pings), "refuse - -32600");
        assert_eq!(asks(&mut Peer::default(), &pings), "refuse - -32600");
    }

    #[test]
    fn responses_go_to_the_request_that_waits() {
        let mut peer = legacy("2025-11-25");
        let patience = Patience { idle_ms: 10, total_ms: 100 };
        let ask = peer.asking.ask(CallNumber(1), patience, 1, Time(0)).expect("room");
        let progress =
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": ask.0}});
        let text = progress.to_string();

        peer.receive(text.as_bytes(), Time(5));
        assert_eq!(peer.asking.due(ask), Some(Time(15)));
        assert_eq!(asks(&mut peer, &json!({"jsonrpc": "2.0", "id": 1, "result": {}})), "answered 1 true");
        assert_eq!(asks(&mut peer, &json!({"jsonrpc": "2.0", "id": 1, "result": {}})), "nothing");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut peer = legacy("2025-11-25");
        let refused = [
            (json!({"id": 1, "method": "ping"}), "refuse 1 -32600"),
            (request(json!(1), "ping", json!([1])), "refuse 1 -32602"),
            (request(json!(1), "ping", json!({"_meta": {"progressToken": {}}})), "refuse 1 -32602"),
            (
                request(json!(1), "ping", json!({"_meta": {"progressToken": "x".repeat(ID_BYTES_MAX)}})),
                "refuse 1 -32602",
            ),
            (request(json!("x".repeat(ID_BYTES_MAX)), "ping", json!({})), "refuse - -32600"),
            (request(json!(1), "ping", json!({"x": "x".repeat(REQUEST_BYTES_MAX)})), "refuse 1 -32600"),
        ];

        for (message, expected) in refused {
            let shown: String = message.to_string().chars().take(80).collect();
            assert_eq!(asks(&mut peer, &message), expected, "{shown}");
        }
        assert_eq!(peer.under_way(), 0);
    }
}
