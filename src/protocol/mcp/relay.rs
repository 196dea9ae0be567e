//! Messages between a client and another server, passed on as their text: ids and tokens are exchanged, and where the two
//! speak revisions of different eras what each expects is added. Everything else stays as its author wrote it.
//!
//! | from | to | what changes |
//! |---|---|---|
//! | any | same era | `id`, `params._meta.progressToken` |
//! | legacy client | stateless server | its revision, capabilities and name go into `params._meta` |
//! | stateless client | legacy server | these keys, `inputResponses` and `requestState` are left out |
//! | legacy server | stateless client | `resultType`, how long to keep it, and who answers are added |
//! | stateless server | legacy client | output that is no object, and schemas of such, are left out |
//!
//! Source: MCP 2025-11-25 and 2026-07-28; no specification says how the two are joined.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::json;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, splice};
use crate::protocol::mcp::client::{
    META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_SERVER_INFO, META_VERSION,
};
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    PROMPTS_LIST, RESOURCE_TEMPLATES_LIST, RESOURCES_LIST, RESOURCES_READ, TOOLS_CALL, TOOLS_LIST, error,
};

const META: &str = "_meta";
const TOKEN: [&str; 3] = ["params", META, "progressToken"];
const NO_OBJECT: &str = "a message that was read as an object is one";

/// A request under another id, and where `with_token`, with the same number as its progress token.
///
/// # Panics
/// If `text` is no JSON object.
pub fn request(text: &str, id: u64, with_token: bool) -> String {
    let id = id.to_string();
    let text = edit(text, &["id"], &id);
    if with_token { edit(&text, &TOKEN, &id) } else { text }
}

/// A response, or a request of a server, under another id.
///
/// # Panics
/// If `text` is no JSON object.
pub fn under_id(text: &str, id: &RawValue) -> String {
    edit(text, &["id"], id.get())
}

/// A notification of progress with another token.
///
/// # Panics
/// If `text` is no JSON object.
pub fn progress(text: &str, token: &RawValue) -> String {
    edit(text, &["params", "progressToken"], token.get())
}

fn edit(text: &str, path: &[&str], value: &str) -> String {
    splice::set(text, path, value).expect(NO_OBJECT)
}

fn without<'a>(text: &'a str, path: &[&str]) -> Cow<'a, str> {
    splice::remove(text, path).expect(NO_OBJECT)
}

/// What a client of the legacy era said of itself, for the requests that are made stateless for it.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// A `ClientCapabilities` object.
    pub capabilities: Box<RawValue>,
    /// An `Implementation` object, if it said who it is.
    pub info: Option<Box<RawValue>>,
}

impl Introduction {
    /// Reads the params of `initialize`; what is missing counts as empty.
    pub fn of_initialize(params: &RawValue) -> Self {
        let params = jsonrpc::Object::parse(params.get().as_bytes()).unwrap_or_default();
        let empty = || jsonrpc::raw(&json!({}));
        Introduction {
            capabilities: params.raw("capabilities").map_or_else(empty, ToOwned::to_owned),
            info: params.raw("clientInfo").map(ToOwned::to_owned),
        }
    }

    /// Reads the `_meta` of a stateless request.
    pub fn of_meta(params: Option<&RawValue>) -> Self {
        let meta = params.and_then(|params| splice::get(params.get(), &[META]));
        let meta = meta.and_then(|meta| jsonrpc::Object::parse(meta.as_bytes())).unwrap_or_default();
        let empty = || jsonrpc::raw(&json!({}));
        Introduction {
            capabilities: meta.raw(META_CAPABILITIES).map_or_else(empty, ToOwned::to_owned),
            info: meta.raw(META_CLIENT_INFO).map(ToOwned::to_owned),
        }
    }

    /// The params of an `initialize` that says the same.
    pub fn to_initialize(&self, version: Version) -> Box<RawValue> {
        let info = self.info.as_ref().map_or(r#"{"name":"unknown","version":"0"}"#, |info| info.get());
        let capabilities = self.capabilities.get();
        let text = format!(r#"{{"protocolVersion":"{version}","capabilities":{capabilities},"clientInfo":{info}}}"#);
        RawValue::from_string(text).expect("an object of JSON values is one")
    }
}

/// A request of the legacy era as a stateless server takes it.
///
/// # Panics
/// If `text` is no JSON object.
pub fn into_stateless(text: &str, client: &Introduction, level: Option<Level>) -> String {
    let version = format!("\"{}\"", Version::V2026_07_28);
    let mut text = edit(text, &["params", META, META_VERSION], &version);
    text = edit(&text, &["params", META, META_CAPABILITIES], client.capabilities.get());
    if let Some(info) = &client.info {
        text = edit(&text, &["params", META, META_CLIENT_INFO], info.get());
    }
    if let Some(level) = level {
        text = edit(&text, &["params", META, META_LOG_LEVEL], jsonrpc::raw(&level).get());
    }
    text
}

/// A stateless request as a server of the legacy era takes it.
///
/// # Panics
/// If `text` is no JSON object.
pub fn into_legacy(text: &str) -> String {
    let mut text = text.to_owned();
    for key in [META_VERSION, META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL] {
        text = without(&text, &["params", META, key]).into_owned();
    }
    for key in ["inputResponses", "requestState"] {
        text = without(&text, &["params", key]).into_owned();
    }
    text
}

/// A stateless request with the answers to what it was answered with, and the text of the state to bring along.
///
/// # Panics
/// If `text` is no JSON object.
pub fn with_answers(text: &str, responses: &RawValue, state: Option<&str>) -> String {
    let text = edit(text, &["params", "inputResponses"], responses.get());
    match state {
        Some(state) => edit(&text, &["params", "requestState"], state),
        None => text,
    }
}

/// A question that came in an answer, by its method and params, as a request; the id is to be exchanged. What else is with it
/// belongs to the answer: SDKs refuse requests with further members.
pub fn question_of(embedded: &jsonrpc::Object<'_>) -> String {
    let mut text = r#"{"jsonrpc":"2.0","id":0}"#.to_owned();
    for key in ["method", "params"] {
        if let Some(value) = embedded.raw(key) {
            text = edit(&text, &[key], value.get());
        }
    }
    text
}

/// A question that came as a request, as it stands in an answer.
pub fn embedded(question: &str) -> String {
    let text = without(question, &["jsonrpc"]);
    without(&text, &["id"]).into_owned()
}

/// A response that asks a stateless client for more: one question by its key, and the state to bring along.
pub fn input_required(id: &RawValue, key: &str, question: &str, state: &str, server_info: Option<&RawValue>) -> String {
    let (key, state) = (jsonrpc::raw(key), jsonrpc::raw(state));
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{key}:{question}}},"requestState":{state}}}}}"#
    );
    match server_info {
        Some(info) => edit(&text, &["result", META, META_SERVER_INFO], info.get()),
        None => text,
    }
}

/// A client's message as it is passed on: of keys that come twice where this side looks, only the first is.
///
/// # Panics
/// If `text` is no JSON object.
pub fn unambiguous(text: &str) -> String {
    let text = splice::without_repeats(text).expect(NO_OBJECT);
    let Some(params) = splice::get(&text, &["params"]) else { return text.into_owned() };
    let Some(plain) = splice::without_repeats(params) else { return text.into_owned() };
    let plain = match splice::get(&plain, &[META]).and_then(splice::without_repeats) {
        Some(Cow::Owned(meta)) => Cow::Owned(edit(&plain, &[META], &meta)),
        _ => plain,
    };
    match plain {
        Cow::Borrowed(_) => text.into_owned(),
        Cow::Owned(plain) => edit(&text, &["params"], &plain),
    }
}

/// An answer to `tasks/list` with these tasks alone.
///
/// # Panics
/// If `text` is no JSON object.
pub fn with_tasks(text: &str, ids: &BTreeSet<String>) -> String {
    let Some(tasks) = splice::get(text, &["result", "tasks"]) else { return text.to_owned() };
    let Ok(each) = serde_json::from_str::<Vec<&RawValue>>(tasks) else { return text.to_owned() };
    let id_of = |task: &RawValue| serde_json::from_str::<String>(splice::get(task.get(), &["taskId"])?).ok();
    let kept: Vec<_> =
        each.iter().filter(|task| id_of(task).is_some_and(|id| ids.contains(&id))).map(|task| task.get()).collect();
    edit(text, &["result", "tasks"], &format!("[{}]", kept.join(",")))
}

/// The response to `initialize` with another revision.
///
/// # Panics
/// If `text` is no JSON object.
pub fn agreeing_on(text: &str, version: Version) -> String {
    edit(text, &["result", "protocolVersion"], &format!("\"{version}\""))
}

/// The response of a legacy server as a stateless client takes it. `server_info` is an `Implementation` object.
///
/// # Panics
/// If `text` is no JSON object.
pub fn answer_for_stateless(text: &str, method: &str, server_info: Option<&RawValue>) -> String {
    if splice::get(text, &["result"]).is_none() {
        let is_not_found = splice::get(text, &["error", "code"]) == Some(RESOURCE_NOT_FOUND);
        if is_not_found && method == RESOURCES_READ {
            return edit(text, &["error", "code"], &jsonrpc::INVALID_PARAMS.to_string());
        }
        return text.to_owned();
    }
    let mut text = added(text, &["result", "resultType"], "\"complete\"");
    if let Some(info) = server_info {
        text = added(&text, &["result", META, META_SERVER_INFO], info.get());
    }
    if matches!(method, TOOLS_LIST | PROMPTS_LIST | RESOURCES_LIST | RESOURCE_TEMPLATES_LIST | RESOURCES_READ) {
        text = added(&text, &["result", "ttlMs"], "0");
        text = added(&text, &["result", "cacheScope"], "\"private\"");
    }
    text
}

/// [`error::RESOURCE_NOT_FOUND`] as it is written.
const RESOURCE_NOT_FOUND: &str = "-32002";
const _: () = assert!(error::RESOURCE_NOT_FOUND == -32002);

/// The response of a stateless server as a legacy client takes it.
///
/// # Panics
/// If `text` is no JSON object.
pub fn answer_for_legacy(text: &str, method: &str) -> String {
    match method {
        // Before 2026-07-28 both are objects, or are not there.
        TOOLS_CALL => {
            let output = splice::get(text, &["result", "structuredContent"]);
            match output {
                Some(output) if !output.starts_with('{') => {
                    without(text, &["result", "structuredContent"]).into_owned()
                }
                _ => text.to_owned(),
            }
        }
        TOOLS_LIST => {
            let Some(tools) = splice::get(text, &["result", "tools"]) else { return text.to_owned() };
            let Ok(each) = serde_json::from_str::<Vec<&RawValue>>(tools) else { return text.to_owned() };
            let has_other = |tool: &&RawValue| {
                let schema = splice::get(tool.get(), &["outputSchema"]);
                schema.is_some_and(|schema| splice::get(schema, &["type"]) != Some("\"object\""))
            };
            if !each.iter().any(has_other) {
                return text.to_owned();
            }
            let each: Vec<_> = each
                .iter()
                .map(|tool| if has_other(tool) { without(tool.get(), &["outputSchema"]) } else { tool.get().into() })
                .collect();
            edit(text, &["result", "tools"], &format!("[{}]", each.join(",")))
        }
        _ => text.to_owned(),
    }
}

/// The object with a value at `path`, unless there is one.
fn added(text: &str, path: &[&str], value: &str) -> String {
    if splice::get(text, path).is_some() { text.to_owned() } else { edit(text, path, value) }
}

/// What `initialize` is answered with, of what a stateless server's `server/discover` was answered with.
///
/// # Panics
/// If `discovered` is no JSON object.
pub fn initialized_of(discovered: &RawValue, name: &str) -> Box<RawValue> {
    let mut text = discovered.get().to_owned();
    let info = splice::get(&text, &[META, META_SERVER_INFO]).map(ToOwned::to_owned);
    for key in ["resultType", "supportedVersions", "ttlMs", "cacheScope"] {
        text = without(&text, &[key]).into_owned();
    }
    let info = info.unwrap_or_else(|| json!({"name": name, "version": "unknown"}).to_string());
    text = added(&text, &["serverInfo"], &info);
    text = edit(&text, &["protocolVersion"], &format!("\"{}\"", Version::LATEST_LEGACY));
    RawValue::from_string(text).expect("an object with fields exchanged is one")
}

/// What `server/discover` is answered with, of what a legacy server's `initialize` was answered with.
///
/// # Panics
/// If `initialized` is no JSON object.
pub fn discovered_of(initialized: &RawValue) -> Box<RawValue> {
    let mut text = initialized.get().to_owned();
    let info = splice::get(&text, &["serverInfo"]).map(ToOwned::to_owned);
    for key in ["protocolVersion", "serverInfo"] {
        text = without(&text, &[key]).into_owned();
    }
    // Those of 2025-11-25, which that revision alone has.
    text = without(&text, &["capabilities", "tasks"]).into_owned();
    text = edit(&text, &["supportedVersions"], &json!(Version::MODERN).to_string());
    text = added(&text, &["resultType"], "\"complete\"");
    text = added(&text, &["ttlMs"], "0");
    text = added(&text, &["cacheScope"], "\"private\"");
    if let Some(info) = info {
        text = added(&text, &[META, META_SERVER_INFO], &info);
    }
    RawValue::from_string(text).expect("an object with fields exchanged is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_request_changes_its_id_and_its_token_and_nothing_else() {
        let text = r#"{"x-top":1.0,"id":0,"params":{"zeta":12345678901234567890123,"_meta":{"progressToken":0,"v":[1e2]}},"method":"a\/b","jsonrpc":"2.0"}"#;

        let asked = request(text, 41, true);

        assert_eq!(
            asked,
            r#"{"x-top":1.0,"id":41,"params":{"zeta":12345678901234567890123,"_meta":{"progressToken":41,"v":[1e2]}},"method":"a\/b","jsonrpc":"2.0"}"#
        );
        assert_eq!(request(r#"{"id":"a","method":"m"}"#, 7, false), r#"{"id":7,"method":"m"}"#);
        assert_eq!(
            request(r#"{"id":"a","method":"m"}"#, 7, true),
            r#"{"id":7,"method":"m","params":{"_meta":{"progressToken":7}}}"#
        );
    }

    #[test]
    fn of_what_comes_twice_the_first_is_passed_on() {
        let plain = r#"{"id":1,"method":"m","params":{"a":[{"b":1,"b":2}],"_meta":{"t":1.0}}}"#;
        assert_eq!(unambiguous(plain), plain);
        let twice =
            r#"{"method":"a","params":{"taskId":"x","taskId":"y","_meta":{"p":1,"p":2}},"method":"b","params":{}}"#;
        assert_eq!(unambiguous(twice), r#"{"method":"a","params":{"taskId":"x","_meta":{"p":1}}}"#);
        assert_eq!(unambiguous(r#"{"params":[1]}"#), r#"{"params":[1]}"#);
    }

    #[test]
    fn a_question_keeps_its_text_in_an_answer() {
        let asked =
            r#"{"jsonrpc":"2.0","params":{"z":12345678901234567890123,"a":1e2},"id":"q","method":"roots/list"}"#;

        let text = input_required(&raw("7"), "question", &embedded(asked), "s", None);

        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"input_required","inputRequests":{"question":{"params":{"z":12345678901234567890123,"a":1e2},"method":"roots/list"}},"requestState":"s"}}"#
        );
    }

    #[test]
    fn what_comes_back_gets_the_callers_id_and_token() {
        assert_eq!(
            under_id(r#"{"result":{"id":1},"id":9}"#, &raw(r#""é\u00e9""#)),
            r#"{"result":{"id":1},"id":"é\u00e9"}"#
        );
        let told = r#"{"method":"notifications/progress","params":{"v":1,"progressToken":9,"progress":1.0}}"#;
        assert_eq!(
            progress(told, &raw("0")),
            r#"{"method":"notifications/progress","params":{"v":1,"progressToken":0,"progress":1.0}}"#
        );
    }

    #[test]
    fn a_request_changes_era_and_comes_back() {
        let client = Introduction::of_initialize(&raw(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"x":{}},"clientInfo":{"name":"c","version":"1"}}"#,
        ));
        let text = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;

        let stateless = into_stateless(text, &client, Some(Level::Warning));

        let meta = splice::get(&stateless, &["params", "_meta"]).expect("added");
        let expected = json!({
            META_VERSION: "2026-07-28", META_CAPABILITIES: {"x": {}}, META_CLIENT_INFO: {"name": "c", "version": "1"},
            META_LOG_LEVEL: "warning"
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(meta).expect("JSON"), expected);
        assert_eq!(into_legacy(&stateless), r#"{"id":1,"method":"tools/call","params":{"name":"t","_meta":{}}}"#);
        let params = splice::get(&stateless, &["params"]).map(raw);
        let read = Introduction::of_meta(params.as_deref());
        assert_eq!(read.capabilities.get(), r#"{"x":{}}"#);
        let again: serde_json::Value =
            serde_json::from_str(read.to_initialize(Version::V2025_11_25).get()).expect("JSON");
        assert_eq!(
            again,
            json!({"protocolVersion": "2025-11-25", "capabilities": {"x": {}}, "clientInfo": {"name": "c", "version": "1"}})
        );
    }

    #[test]
    fn an_answer_gets_what_the_stateless_era_requires() {
        let info = raw(r#"{"name":"u","version":"2"}"#);

        assert_eq!(
            answer_for_stateless(r#"{"id":1,"result":{"tools":[ ],"v":1.0}}"#, TOOLS_LIST, Some(&info)),
            r#"{"id":1,"result":{"tools":[ ],"v":1.0,"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"u","version":"2"}},"ttlMs":0,"cacheScope":"private"}}"#
        );
        assert_eq!(
            answer_for_stateless(r#"{"id":1,"error":{"code":-32002,"v":1}}"#, RESOURCES_READ, None),
            r#"{"id":1,"error":{"code":-32602,"v":1}}"#
        );
    }

    #[test]
    fn an_answer_loses_what_the_legacy_era_can_not_read() {
        assert_eq!(
            answer_for_legacy(r#"{"result":{"structuredContent":[1],"content":[]}}"#, TOOLS_CALL),
            r#"{"result":{"content":[]}}"#
        );
        let kept = r#"{"result":{"structuredContent":{"a":1e2},"resultType":"complete"}}"#;
        assert_eq!(answer_for_legacy(kept, TOOLS_CALL), kept);
        assert_eq!(
            answer_for_legacy(
                r#"{"result":{"tools":[{"name":"a","outputSchema":{"type":"array"}},{"n": 1e2,"outputSchema":{"type":"object"}}]}}"#,
                TOOLS_LIST
            ),
            r#"{"result":{"tools":[{"name":"a"},{"n": 1e2,"outputSchema":{"type":"object"}}]}}"#
        );
    }

    #[test]
    fn one_handshake_becomes_the_other() {
        let initialized = raw(
            r#"{"protocolVersion":"2025-11-25","serverInfo":{"name":"u","version":"1","v":1.0},"capabilities":{"tools":{"v":{}},"tasks":{}},"instructions":"i"}"#,
        );

        let discovered = discovered_of(&initialized);

        assert_eq!(
            discovered.get(),
            r#"{"capabilities":{"tools":{"v":{}}},"instructions":"i","supportedVersions":["2026-07-28"],"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"u","version":"1","v":1.0}}}"#
        );
        let back: serde_json::Value = serde_json::from_str(initialized_of(&discovered, "n").get()).expect("JSON");
        assert_eq!(back["serverInfo"], json!({"name": "u", "version": "1", "v": 1.0}));
        assert_eq!(back["protocolVersion"], "2025-11-25");
        assert!(back.get("supportedVersions").is_none() && back.get("resultType").is_none());
    }
}
