//! A run as an MCP client of the server that it runs on: calls of tools go through a session as anybody's do, with the same
//! limits, threads, checks and servers behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::mcp::Mcp;
use crate::mcp::auth::Identity;
use crate::mcp::outgoing::{Kind, Outgoing};
use crate::mcp::server::ServerShared;
use crate::mcp::session::{NewSession, Session};
use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::client::{Client, ClientCapabilities, Era};
use crate::protocol::mcp::peer::Peer;
use crate::protocol::mcp::relay::Introduction;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{CANCELLED, PROGRESS, TOOLS_CALL, TOOLS_LIST};
use crate::protocol::workflow::stepper::Arguments;
use crate::protocol::workflow::{CallId, Failure, FailureKind};

/// How long a list of tools may take; a tool that is not known by then gets what its step gives it alone.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits where there was no place for its question.
const BUSY: Duration = Duration::from_millis(50);
/// Pages of tools that are read of a server that passes requests on.
const PAGES_MAX: usize = 100;
/// What the answer to a list of tools is known by; calls have numbers.
const LIST_ID: &str = "list";
/// How a server says that a tool is not there.
const UNKNOWN_TOOL: &str = "Unknown tool: ";
/// How an error begins that says what of the params does not fit.
const INVALID_PARAMS: &str = "Invalid params: ";
/// How a tool says that its arguments do not fit.
const INVALID_ARGUMENTS: &str = "invalid arguments: ";

/// The client that a run is.
pub(super) struct Caller {
    session: Arc<Session>,
    route: Arc<Outgoing>,
    news: Arc<Notify>,
    /// The tools' input schemas, of a server that passes requests on.
    listed: Option<BTreeMap<String, Takes>>,
}

/// Something that the server said.
pub(super) enum Heard {
    /// A call gave this, with its bytes.
    Returned(CallId, Value, usize),
    /// A call failed.
    Failed(CallId, Failure),
    /// A call could not be made yet: too many are under way.
    Busy(CallId),
    /// A call's tool got on.
    Progress(CallId, Value),
    /// A tool asks the client something: the request's id, its method and params.
    Asked(Box<RawValue>, String, Box<RawValue>),
}

/// Which arguments a tool takes beside those that its schema requires.
#[derive(Clone, Debug, Default)]
struct Takes {
    names: Vec<String>,
    any: bool,
}

impl Takes {
    fn of(schema: Option<&Value>) -> Self {
        let Some(schema) = schema else { return Takes { names: Vec::new(), any: true } };
        let properties = schema.get("properties").and_then(Value::as_object);
        let names = properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
        Takes { names, any: schema.get("additionalProperties").is_none_or(|any| *any != Value::Bool(false)) }
    }

    fn has(&self, name: &str) -> bool {
        self.any || self.names.iter().any(|other| other == name)
    }
}

impl Caller {
    /// A client of `server` in the name of a user, whose calls are counted among those of a connection.
    pub(super) fn open(
        mcp: &Arc<Mcp>,
        server: &Arc<ServerShared>,
        user: &Identity,
        connection: u64,
        capabilities: ClientCapabilities,
    ) -> Self {
        let news = Arc::new(Notify::new());
        let woken = Arc::clone(&news);
        let route = Arc::new(Outgoing::new(move || woken.notify_one()));
        let info = jsonrpc::raw(&json!({"name": "bennu-workflow", "version": env!("CARGO_PKG_VERSION")}));
        let introduction = server.passes_on().then(|| {
            let mut asked = Map::new();
            for (name, is_there) in [
                ("sampling", capabilities.sampling),
                ("elicitation", capabilities.elicitation_form),
                ("roots", capabilities.roots),
            ] {
                if is_there {
                    asked.insert(name.to_owned(), json!({}));
                }
            }
            let introduction = Introduction { capabilities: jsonrpc::raw(&asked), info: Some(info.clone()) };
            introduction.to_initialize(Version::LATEST_LEGACY)
        });
        let client = Client { era: Era::Legacy, version: Version::LATEST_LEGACY, capabilities, info: Some(info) };
        let session = Session::passing(
            mcp,
            NewSession {
                server: Arc::clone(server),
                user: user.clone(),
                connection,
                peer: Peer::joined(client),
                standing: Arc::clone(&route),
                is_streaming: false,
                introduction,
                is_workflow: true,
            },
        );
        Caller { session, route, news, listed: None }
    }

    /// Reads which tools there are, where that is not known here. They may change meanwhile; a call then says so.
    pub(super) async fn learn(&mut self) {
        if !self.session.server.passes_on() {
            return;
        }
        let mut listed = BTreeMap::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let params = cursor.as_ref().map_or(json!({}), |cursor| json!({"cursor": cursor}));
            let page = tokio::time::timeout(LIST_PATIENCE, self.list_page(&params)).await;
            let Ok(Some(page)) = page else { break };
            for tool in page.get("tools").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = tool.get("name").and_then(Value::as_str) {
                    listed.insert(name.to_owned(), Takes::of(tool.get("inputSchema")));
                }
            }
            cursor = page.get("nextCursor").and_then(Value::as_str).map(ToOwned::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        self.listed = Some(listed);
    }

    async fn list_page(&self, params: &Value) -> Option<Value> {
        let asked = json!({"jsonrpc": "2.0", "id": LIST_ID, "method": TOOLS_LIST, "params": params});
        self.send(&asked);
        loop {
            for item in self.route.take() {
                let response = Object::parse(&item.text).unwrap_or_default();
                if response.string("id").as_deref() != Some(LIST_ID) {
                    continue;
                }
                if item.kind != Kind::Busy {
                    return response.get("result");
                }
                tokio::time::sleep(BUSY).await;
                self.send(&asked);
            }
            self.news.notified().await;
        }
    }

    /// Calls a tool. The further arguments go along as far as it takes them.
    pub(super) fn call(&self, id: CallId, tool: &str, arguments: Arguments) {
        let Arguments { given: mut arguments, further } = arguments;
        if !further.is_empty() {
            let takes = self.takes(tool);
            let taken = further.into_iter().filter(|(name, _)| takes.has(name));
            arguments.extend(taken.map(|(name, value)| (name.to_owned(), Value::clone(&value))));
        }
        self.send(&json!({
            "jsonrpc": "2.0", "id": id.0, "method": TOOLS_CALL,
            "params": {"name": tool, "arguments": arguments, "_meta": {"progressToken": id.0}},
        }));
    }

    /// Takes a call back.
    pub(super) fn cancel(&self, id: CallId, why: &str) {
        let params = json!({"requestId": id.0, "reason": why});
        self.send(&json!({"jsonrpc": "2.0", "method": CANCELLED, "params": params}));
    }

    /// Answers what a tool asked.
    pub(super) fn answer(&self, id: &RawValue, outcome: Result<Box<RawValue>, String>) {
        match outcome {
            Ok(result) => self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})),
            Err(why) => {
                let error = json!({"code": jsonrpc::INTERNAL_ERROR, "message": why});
                self.send(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
        }
    }

    fn send(&self, message: &Value) {
        self.session.receive(message.to_string().as_bytes(), &self.route);
    }

    fn takes(&self, tool: &str) -> Takes {
        match &self.listed {
            Some(listed) => listed.get(tool).cloned().unwrap_or_default(),
            None => match self.session.server.catalog().tools.find(tool) {
                Some(tool) => {
                    let listed = Object::parse(tool.listed_legacy.get().as_bytes());
                    Takes::of(listed.and_then(|listed| listed.get("inputSchema")).as_ref())
                }
                None => Takes::default(),
            },
        }
    }

    /// Waits until there is something to hear. Cancel-safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// What the server has said since.
    pub(super) fn hear(&self) -> Vec<Heard> {
        self.route.take().into_iter().filter_map(|item| heard(item.kind, &item.text)).collect()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.route.close();
        self.session.end();
    }
}

fn heard(kind: Kind, text: &[u8]) -> Option<Heard> {
    let message = Object::parse(text)?;
    match kind {
        Kind::Response(code) => {
            let id = CallId(message.get("id")?);
            Some(match message.raw("result") {
                Some(result) => returned(id, result),
                None => {
                    let error = message.object("error").unwrap_or_default();
                    let text = error.string("message").unwrap_or_default();
                    Heard::Failed(id, refused(&text, code))
                }
            })
        }
        Kind::Busy => Some(Heard::Busy(CallId(message.get("id")?))),
        Kind::Request => {
            let params = message.raw("params").map_or_else(|| jsonrpc::raw(&json!({})), ToOwned::to_owned);
            Some(Heard::Asked(message.raw("id")?.to_owned(), message.string("method")?, params))
        }
        Kind::Notification if message.string("method").as_deref() == Some(PROGRESS) => {
            let params = message.object("params")?;
            let id = CallId(params.get("progressToken")?);
            let mut progress = Map::new();
            for name in ["progress", "total", "message"] {
                if let Some(value) = params.get::<Value>(name) {
                    progress.insert(name.to_owned(), value);
                }
            }
            Some(Heard::Progress(id, Value::Object(progress)))
        }
        _ => None,
    }
}

fn refused(text: &str, code: Option<i64>) -> Failure {
    let text = text.strip_prefix(INVALID_PARAMS).unwrap_or(text);
    if let Some(name) = text.strip_prefix(UNKNOWN_TOOL) {
        return Failure::new(FailureKind::ToolNotFound, format!("Tool not found: {name}"));
    }
    let is_unfit = code == Some(jsonrpc::INVALID_PARAMS);
    Failure::new(if is_unfit { FailureKind::Invalid } else { FailureKind::Tool }, text)
}

/// What a step makes of a call's result.
fn returned(id: CallId, result: &RawValue) -> Heard {
    let bytes = result.get().len();
    let result = Object::parse(result.get().as_bytes()).unwrap_or_default();
    let content = result.get::<Value>("content").unwrap_or(Value::Null);
    if result.get::<bool>("isError").unwrap_or(false) {
        let texts = content.as_array().into_iter().flatten();
        let texts: Vec<_> = texts.filter_map(|one| one.get("text")?.as_str()).collect();
        let text = if texts.is_empty() { "the tool failed without a word".to_owned() } else { texts.join("\n") };
        let kind = if text.starts_with(INVALID_ARGUMENTS) { FailureKind::Invalid } else { FailureKind::Tool };
        return Heard::Failed(id, Failure::new(kind, text.strip_prefix(INVALID_ARGUMENTS).unwrap_or(&text)));
    }
    if let Some(structured) = result.get::<Value>("structuredContent") {
        return Heard::Returned(id, structured, bytes);
    }
    let value = match content.as_array().map(Vec::as_slice) {
        None | Some([]) => Value::Null,
        Some([one]) if one.get("type").is_some_and(|kind| kind == "text") => {
            let text = one.get("text").and_then(Value::as_str).unwrap_or_default();
            // JSON, where it is an object or a list: a text of digits stays one.
            let parsed = text.trim_start().starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten();
            parsed.unwrap_or_else(|| text.into())
        }
        Some(_) => content,
    };
    Heard::Returned(id, value, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jsonrpc::Fault;

    fn value_of(result: &Value) -> Result<Value, Failure> {
        match returned(CallId(1), &jsonrpc::raw(result)) {
            Heard::Returned(_, value, _) => Ok(value),
            Heard::Failed(_, failure) => Err(failure),
            _ => unreachable!("a result is one or the other"),
        }
    }

    #[test]
    fn a_result_is_its_structured_content_or_its_text() {
        let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});

        assert_eq!(value_of(&json!({"content": [], "structuredContent": {"a": 1}})), Ok(json!({"a": 1})));
        assert_eq!(value_of(&text("plain")), Ok(json!("plain")));
        assert_eq!(value_of(&text(" {\"a\": [1]}")), Ok(json!({"a": [1]})));
        assert_eq!(value_of(&text("17")), Ok(json!("17")));
        assert_eq!(value_of(&text("[broken")), Ok(json!("[broken")));
        assert_eq!(value_of(&json!({"content": []})), Ok(Value::Null));
        let image = json!([{"type": "image", "data": "", "mimeType": "image/png"}]);
        assert_eq!(value_of(&json!({"content": image})), Ok(image));
    }

    #[test]
    fn a_failure_says_which_sort_it_is() {
        let failed = |text: &str| {
            let failure = value_of(&json!({"isError": true, "content": [{"type": "text", "text": text}]}));
            failure.expect_err("a failure").to_error_text()
        };

        assert_eq!(failed("no disk"), "Tool execution failed: no disk");
        assert_eq!(failed("invalid arguments: n: expected 1"), "Validation failed: n: expected 1");
        let unknown =
            refused(&Fault::InvalidParams("Unknown tool: x".to_owned()).to_string(), Some(jsonrpc::INVALID_PARAMS));
        assert_eq!(unknown.to_error_text(), "Tool execution failed: Tool not found: x");
    }
}
