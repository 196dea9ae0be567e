//! What a server sends in MCP, held against the official schema of its revision (`tests/fixtures/mcp`).
//!
//! Test targets include this folder by path. [`Validator`] looks at one message; [`Recorder`] follows a connection. Where the
//! schema is looser than the text of the specification, or has no word (extensions), the check is written out here and says so.

#![allow(dead_code, reason = "each target that includes this uses another part")]

mod recorder;
mod tasks;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::ValidatorMap;
use serde_json::{Map, Value};

pub use recorder::{Flavour, Recorder};

/// Every released revision, oldest first.
pub const REVISIONS: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN];

/// The revision without sessions.
pub const MODERN: &str = "2026-07-28";

/// The key of `_meta` that names the stream of subscriptions.
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Requests whose answer may ask the client for input first.
const MAY_ASK: [&str; 3] = ["prompts/get", "resources/read", "tools/call"];

/// Notifications that the modern revision sends on a stream of `subscriptions/listen` alone.
const OF_SUBSCRIPTIONS: [&str; 6] = [
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks",
    "notifications/tools/list_changed",
];

/// The schemas, each compiled when it is first needed.
pub struct Validator {
    revisions: BTreeMap<&'static str, OnceLock<Revision>>,
}

/// What a JSON-RPC object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    Response,
    Error,
}

struct Revision {
    name: &'static str,
    /// `definitions` or `$defs`.
    root: &'static str,
    types: ValidatorMap,
    /// Types by the method that they are of.
    results: BTreeMap<String, String>,
    requests: BTreeMap<String, String>,
    notifications: BTreeMap<String, String>,
    errors: BTreeMap<i64, ErrorType>,
}

struct ErrorType {
    name: String,
    /// Whether the type is that of the message, not of its member `error`.
    of_message: bool,
}

impl Validator {
    /// The one of this process.
    pub fn shared() -> &'static Validator {
        static SHARED: OnceLock<Validator> = OnceLock::new();
        SHARED.get_or_init(|| Validator { revisions: REVISIONS.map(|name| (name, OnceLock::new())).into() })
    }

    /// Compiles a schema now, so that it takes no time later.
    pub fn prepare(&self, revision: &str) {
        self.revision(revision).expect("a revision");
    }

    /// Checks a message from a server, or a batch of them where the revision has batches.
    ///
    /// `method_of_request` is what a response answers; without it, its result is any.
    ///
    /// # Errors
    /// What is wrong, with its place in the message.
    pub fn check_from_server(
        &self,
        revision: &str,
        message: &Value,
        method_of_request: Option<&str>,
    ) -> Result<(), String> {
        let revision = self.revision(revision)?;
        let Some(batch) = message.as_array() else { return revision.check(message, method_of_request) };
        if revision.name != "2025-03-26" {
            return Err(format!("batches are of 2025-03-26 alone, not of {}", revision.name));
        }
        if batch.is_empty() {
            return Err("a batch has at least one message".to_owned());
        }
        batch.iter().try_for_each(|message| revision.check(message, method_of_request))
    }

    /// Checks a value against a type of the schema, by its name there.
    ///
    /// # Errors
    /// What is wrong, with its place in the value.
    pub fn check_type(&self, revision: &str, name: &str, value: &Value) -> Result<(), String> {
        self.revision(revision)?.check_type(name, value)
    }

    fn revision(&self, name: &str) -> Result<&Revision, String> {
        let (name, revision) = self
            .revisions
            .get_key_value(name)
            .ok_or_else(|| format!("expected a revision of {REVISIONS:?}, got {name:?}"))?;
        Ok(revision.get_or_init(|| Revision::compile(name)))
    }
}

/// Says what a JSON-RPC object is.
///
/// Members that JSON-RPC doesn't name are refused although the schema has nothing against them: the TypeScript SDK drops a
/// message that has any.
///
/// # Errors
/// What is wrong with the envelope.
pub fn kind(message: &Value) -> Result<Kind, String> {
    let object = message.as_object().ok_or("a message is an object")?;
    if object.get("jsonrpc") != Some(&Value::from("2.0")) {
        return Err("`jsonrpc` is \"2.0\"".to_owned());
    }
    let has = |key| object.contains_key(key);
    let (kind, members): (_, &[&str]) = match (has("method"), has("id"), has("result"), has("error")) {
        (true, true, false, false) => (Kind::Request, &["method", "id", "params"]),
        (true, false, false, false) => (Kind::Notification, &["method", "params"]),
        (false, true, true, false) => (Kind::Response, &["id", "result"]),
        (false, _, false, true) => (Kind::Error, &["id", "error"]),
        _ => return Err("a message has `method`, or `id` and `result`, or `error`, and no two of them".to_owned()),
    };
    match object.keys().find(|key| *key != "jsonrpc" && !members.contains(&key.as_str())) {
        Some(key) => Err(format!("`{key}` is no member of a {kind:?}")),
        None => Ok(kind),
    }
}

impl Revision {
    fn compile(name: &'static str) -> Self {
        let schema: Value = serde_json::from_str(text(name)).expect("the schema is JSON");
        let root = if schema.get("$defs").is_some() { "$defs" } else { "definitions" };
        let defined = schema[root].as_object().expect("types");
        // `byte` is base64; formats are annotations to drafts since 2019 unless one insists.
        let options = jsonschema::options().should_validate_formats(true).with_format("byte", is_base64);
        let types = options.build_map(&schema).expect("the official schema compiles");

        let results = members(defined, "ClientRequest")
            .into_iter()
            .map(|(method, request)| {
                let result = request.strip_suffix("Request").expect("requests are named so").to_owned() + "Result";
                (method, if defined.contains_key(&result) { result } else { "EmptyResult".to_owned() })
            })
            .collect();
        Revision {
            name,
            root,
            types,
            results,
            requests: members(defined, "ServerRequest"),
            notifications: members(defined, "ServerNotification"),
            errors: errors(defined),
        }
    }

    fn is_modern(&self) -> bool {
        self.name == MODERN
    }

    fn has(&self, name: &str) -> bool {
        self.types.contains_key(&format!("#/{}/{name}", self.root))
    }

    fn check_type(&self, name: &str, value: &Value) -> Result<(), String> {
        let types = self.types.get(&format!("#/{}/{name}", self.root));
        let validator = types.ok_or_else(|| format!("{} has no type {name}", self.name))?;
        validator.validate(value).map_err(|error| {
            let at = error.instance_path().to_string();
            format!("no {name} of {}: at `{at}`: {error}", self.name)
        })
    }

    fn check(&self, message: &Value, method_of_request: Option<&str>) -> Result<(), String> {
        match kind(message)? {
            Kind::Request => self.check_request(message),
            Kind::Notification => self.check_notification(message),
            Kind::Error => self.check_error(message),
            Kind::Response => {
                let envelope =
                    if self.has("JSONRPCResultResponse") { "JSONRPCResultResponse" } else { "JSONRPCResponse" };
                self.check_type(envelope, message)?;
                self.check_result(&message["result"], method_of_request)
            }
        }
    }

    fn check_request(&self, message: &Value) -> Result<(), String> {
        self.check_type("JSONRPCRequest", message)?;
        let method = method(message)?;
        // The modern schema has requests that stand in a result, none that a server sends.
        match self.requests.get(method) {
            Some(request) => self.check_type(request, message),
            None => Err(format!("no server of {} sends the request {method:?}", self.name)),
        }
    }

    fn check_notification(&self, message: &Value) -> Result<(), String> {
        self.check_type("JSONRPCNotification", message)?;
        let method = method(message)?;
        match self.notifications.get(method) {
            Some(notification) => self.check_type(notification, message)?,
            None if self.is_modern() && method == "notifications/tasks" => tasks::check_detailed(&message["params"])?,
            None => return Err(format!("no server of {} sends the notification {method:?}", self.name)),
        }
        // The schema leaves it optional, because the same type of `_meta` is that of notifications of a request.
        if self.is_modern()
            && OF_SUBSCRIPTIONS.contains(&method)
            && message["params"]["_meta"].get(SUBSCRIPTION_ID).is_none()
        {
            return Err(format!("{method:?} without `_meta[\"{SUBSCRIPTION_ID}\"]`"));
        }
        Ok(())
    }

    fn check_error(&self, message: &Value) -> Result<(), String> {
        let mut checked = message.clone();
        let without_id = self.errors_need_id() && message.get("id").is_none_or(Value::is_null);
        // JSON-RPC answers what it can't read with `id` null. Older schemas know no error without a request's id, so that
        // whatever a server says there breaks one of the two.
        if without_id {
            checked["id"] = Value::from("unknown");
        }
        let envelope = if self.has("JSONRPCErrorResponse") { "JSONRPCErrorResponse" } else { "JSONRPCError" };
        self.check_type(envelope, &checked)?;

        let code = message["error"]["code"].as_i64().ok_or("an error's code is an integer of 64 bits")?;
        match self.errors.get(&code) {
            Some(ErrorType { name, of_message: true }) => self.check_type(name, &checked),
            Some(ErrorType { name, of_message: false }) => self.check_type(name, &message["error"]),
            None if self.is_modern() && (-32099..=-32000).contains(&code) => {
                Err(format!("the code {code} is reserved, and {} gives it no meaning", self.name))
            }
            None => Ok(()),
        }
    }

    fn errors_need_id(&self) -> bool {
        !self.has("JSONRPCErrorResponse")
    }

    fn check_result(&self, result: &Value, method: Option<&str>) -> Result<(), String> {
        let Some(method) = method else { return self.check_type("Result", result) };
        if self.is_modern() {
            self.check_type("Result", result)?;
            match result["resultType"].as_str().unwrap_or_default() {
                "complete" => {}
                "input_required" if MAY_ASK.contains(&method) => return self.check_asking(result),
                "task" if method == "tools/call" => return tasks::check_task(result),
                other => return Err(format!("{method} has no result of the type {other:?}")),
            }
            if method.starts_with("tasks/") {
                return tasks::check_result(method, result);
            }
        }
        // A call that became a task, in the revision whose tasks are the client's wish.
        if method == "tools/call" && result.get("task").is_some() && self.has("CreateTaskResult") {
            return self.check_type("CreateTaskResult", result);
        }
        let name = self.results.get(method).map_or("Result", String::as_str);
        self.check_type(name, result)?;
        match name {
            "EmptyResult" => check_empty(result),
            "ListToolsResult" => result["tools"].as_array().into_iter().flatten().try_for_each(check_tool),
            _ => Ok(()),
        }
    }

    /// Its type has neither member required: one of them has to be there.
    fn check_asking(&self, result: &Value) -> Result<(), String> {
        if result.get("inputRequests").is_none() && result.get("requestState").is_none() {
            return Err("a result that requires input has `inputRequests` or `requestState`".to_owned());
        }
        self.check_type("InputRequiredResult", result)
    }
}

fn text(revision: &str) -> &'static str {
    match revision {
        "2024-11-05" => include_str!("../../fixtures/mcp/schema/2024-11-05.json"),
        "2025-03-26" => include_str!("../../fixtures/mcp/schema/2025-03-26.json"),
        "2025-06-18" => include_str!("../../fixtures/mcp/schema/2025-06-18.json"),
        "2025-11-25" => include_str!("../../fixtures/mcp/schema/2025-11-25.json"),
        MODERN => include_str!("../../fixtures/mcp/schema/2026-07-28.json"),
        other => unreachable!("{other} is none of REVISIONS"),
    }
}

/// The types that a union is of, by the method of each.
fn members(defined: &Map<String, Value>, union: &str) -> BTreeMap<String, String> {
    let alternatives = defined.get(union).and_then(|union| union["anyOf"].as_array());
    let names = alternatives.into_iter().flatten().filter_map(|alternative| alternative["$ref"].as_str());
    names
        .map(|reference| {
            let name = reference.rsplit('/').next().expect("a reference has parts");
            let method = &defined[name]["properties"]["method"]["const"];
            (method.as_str().expect("a method").to_owned(), name.to_owned())
        })
        .collect()
}

/// The types of errors that are bound to a code.
fn errors(defined: &Map<String, Value>) -> BTreeMap<i64, ErrorType> {
    let code = |schema: &Value| schema["properties"]["code"]["const"].as_i64();
    let bound = |(name, schema): (&String, &Value)| {
        let error = &schema["properties"]["error"];
        let in_message = || error["allOf"].as_array()?.iter().find_map(code);
        let (code, of_message) = match in_message() {
            Some(code) => (code, true),
            None => (code(schema)?, false),
        };
        Some((code, ErrorType { name: name.clone(), of_message }))
    };
    defined.iter().filter_map(bound).collect()
}

fn method(message: &Value) -> Result<&str, String> {
    message["method"].as_str().ok_or_else(|| "`method` is a string".to_owned())
}

/// The schema's empty result is any result.
fn check_empty(result: &Value) -> Result<(), String> {
    let members = result.as_object().into_iter().flatten();
    match members.map(|(key, _)| key).find(|key| *key != "_meta" && *key != "resultType") {
        Some(key) => Err(format!("an empty result has no `{key}`")),
        None => Ok(()),
    }
}

/// A tool's schemas have to be schemas.
fn check_tool(tool: &Value) -> Result<(), String> {
    ["inputSchema", "outputSchema"].into_iter().filter_map(|key| Some((key, tool.get(key)?))).try_for_each(
        |(key, schema)| {
            jsonschema::meta::validate(schema)
                .map_err(|error| format!("the `{key}` of the tool {}: {error}", tool["name"]))
        },
    )
}

/// RFC 4648, section 4, with padding.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}
