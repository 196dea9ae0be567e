//! The shapes of `tools/list` and `tools/call`: what a tool says of itself, what a call asks, what it gets.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::jsonrpc::{Fault, Object};
use crate::protocol::mcp::content::{Content, Icon};

/// What a tool says of itself.
#[derive(Clone, Debug)]
pub struct ToolSpec {
    /// By which `tools/call` names it: letters, digits, `_`, `-` and `.`, 128 at most.
    pub name: String,
    /// For a person to read, in place of the name.
    pub title: Option<String>,
    /// For a person or a model to read.
    pub description: String,
    /// What the arguments may be: a JSON Schema of type `object`, by default of draft 2020-12.
    pub input_schema: Value,
    /// What its structured output is: a JSON Schema.
    pub output_schema: Option<Value>,
    /// Hints about what it does: an object of `ToolAnnotations`.
    pub annotations: Option<Value>,
    /// Pictures for it.
    pub icons: Vec<Icon>,
    /// Further facts, by names of whoever reads them.
    pub meta: Map<String, Value>,
    /// Whether a call may become a task.
    pub tasks: TaskSupport,
    /// Whether such a call is a task from its start; otherwise its handler says when, after questions for instance.
    pub begins_as_task: bool,
    /// What it can do and how long it may take.
    pub capabilities: ToolCapabilities,
    /// What else is known of it.
    pub metadata: ToolMetadata,
}

/// Whether a call may become a task, for clients that have the extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskSupport {
    /// Each call is answered when it ends.
    #[default]
    Never,
    /// With the extension a call is a task, without it is answered when it ends.
    Optional,
    /// Clients without the extension can't call it.
    Required,
}

impl ToolSpec {
    /// A tool that takes any object and says nothing more of itself.
    pub fn new(name: impl Into<String>) -> Self {
        ToolSpec {
            name: name.into(),
            title: None,
            description: String::new(),
            input_schema: object_schema(Map::new(), &[]),
            output_schema: None,
            annotations: None,
            icons: Vec::new(),
            meta: Map::new(),
            tasks: TaskSupport::Never,
            begins_as_task: true,
            capabilities: ToolCapabilities::default(),
            metadata: ToolMetadata::new("general", &[], EXECUTION_MS_DEFAULT),
        }
    }

    /// How `tools/list` tells it to clients of the specification.
    pub fn listed(&self) -> Value {
        let mut listed = Map::new();
        listed.insert("name".into(), self.name.clone().into());
        let mut add = |key: &str, value: Option<Value>| value.map(|value| listed.insert(key.to_owned(), value));
        add("title", self.title.clone().map(Value::from));
        add("description", Some(self.description.clone().into()));
        add("inputSchema", Some(self.input_schema.clone()));
        add("outputSchema", self.output_schema.clone());
        add("annotations", self.annotations.clone());
        add("icons", (!self.icons.is_empty()).then(|| serde_json::to_value(&self.icons).expect("icons are JSON")));
        add("_meta", (!self.meta.is_empty()).then(|| self.meta.clone().into()));
        listed.into()
    }

    /// The same with the keys that the clients of the Elixir deployment know.
    pub fn listed_for_elixir(&self) -> Value {
        const STRING_KEYS: &str = "a listing has string keys";
        let mut listed = self.listed();
        listed["capabilities"] = serde_json::to_value(&self.capabilities).expect(STRING_KEYS);
        listed["metadata"] = serde_json::to_value(&self.metadata).expect(STRING_KEYS);
        listed
    }
}

/// The schema `{"type":"object","properties":…,"required":[…],"additionalProperties":false}`.
///
/// `properties` maps each name to its property schema (`type`, `description`, `default`, `minimum`, …).
pub fn object_schema(properties: Map<String, Value>, required: &[&str]) -> Value {
    serde_json::json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// How a tool runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCapabilities {
    /// Whether other requests are answered while it runs.
    pub supports_async: bool,
    /// Whether it streams progress.
    pub supports_streaming: bool,
    /// Whether `notifications/cancelled` ends it.
    pub supports_cancellation: bool,
    /// Milliseconds after which a call is ended as failed. It is enforced.
    pub max_execution_time: u64,
    /// What it may use; only the limits it really has.
    pub resource_limits: ResourceLimits,
    /// Who may call it.
    pub security_constraints: SecurityConstraints,
}

impl Default for ToolCapabilities {
    fn default() -> Self {
        ToolCapabilities {
            supports_async: true,
            supports_streaming: false,
            supports_cancellation: true,
            max_execution_time: EXECUTION_MS_DEFAULT,
            resource_limits: ResourceLimits::default(),
            security_constraints: SecurityConstraints::default(),
        }
    }
}

/// Milliseconds a tool may take where it says nothing; from the deployment.
pub const EXECUTION_MS_DEFAULT: u64 = 30_000;

/// Limits that a tool keeps to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLimits {
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// Processor cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu: Option<u64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time: Option<u64>,
    /// Bytes of one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_size: Option<u64>,
}

/// Who may call a tool.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityConstraints {
    /// Whether only an authenticated session may call it. Every session is.
    pub requires_authentication: bool,
    /// Whether a capability is needed beside that.
    pub requires_authorization: bool,
    /// Roles that may; empty for all.
    pub allowed_roles: Vec<String>,
    /// Roles that may not.
    pub denied_roles: Vec<String>,
}

impl Default for SecurityConstraints {
    fn default() -> Self {
        SecurityConstraints {
            requires_authentication: true,
            requires_authorization: false,
            allowed_roles: Vec::new(),
            denied_roles: Vec::new(),
        }
    }
}

/// What is known of a tool beside what it does.
#[derive(Clone, Debug, Serialize)]
pub struct ToolMetadata {
    /// Of the tool.
    pub version: String,
    /// A word to group tools by.
    pub category: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Whether it runs beside other requests.
    #[serde(rename = "async")]
    pub is_async: bool,
    /// Milliseconds, as [`ToolCapabilities::max_execution_time`].
    pub timeout: u64,
}

impl ToolMetadata {
    /// Metadata of version 1.0.0.
    pub fn new(category: &str, tags: &[&str], timeout_ms: u64) -> Self {
        ToolMetadata {
            version: "1.0.0".to_owned(),
            category: category.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            is_async: true,
            timeout: timeout_ms,
        }
    }
}

/// The parameters of `tools/call`.
#[derive(Clone, Debug)]
pub struct CallParams<'a> {
    /// The tool asked for.
    pub name: String,
    /// Its arguments, the text of a JSON object.
    pub arguments: &'a str,
}

impl<'a> CallParams<'a> {
    /// Reads the parameters. Fields not named here are ignored.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`]: `name` missing or not a non-empty string, `arguments` there and neither object nor `null`, or
    /// above `bytes_max`, which is [`ARGUMENT_BYTES_MAX`](crate::protocol::mcp::ARGUMENT_BYTES_MAX) for clients.
    pub fn read(params: &Object<'a>, bytes_max: usize) -> Result<Self, Fault> {
        let invalid = |text: &str| Err(Fault::InvalidParams(text.to_owned()));
        let Some(name) = params.string("name").filter(|name| !name.is_empty()) else {
            return invalid("name must be a non-empty string");
        };
        let arguments = match params.raw("arguments").map(RawValue::get) {
            None | Some("null") => "{}",
            Some(text) if text.len() > bytes_max => {
                let came = text.len();
                return invalid(&format!("arguments: expected at most {bytes_max} bytes, came {came}"));
            }
            Some(text) if text.starts_with('{') => text,
            Some(_) => return invalid("arguments must be an object"),
        };
        Ok(CallParams { name, arguments })
    }
}

/// The result of a call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallResult<'a> {
    /// What the tool has to say.
    pub content: &'a [Content],
    /// The same as a value, where the tool has an output schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_content: Option<&'a Value>,
    /// Whether it failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// About the call itself, for the clients of the Elixir deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<CallMetadata<'a>>,
    /// Further facts.
    #[serde(rename = "_meta", skip_serializing_if = "Map::is_empty")]
    pub meta: &'a Map<String, Value>,
}

/// What a result says of its call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallMetadata<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Milliseconds.
    pub execution_time: u64,
    /// What the tool counted of its own work, such as `bytesRead`.
    pub resource_usage: &'a BTreeMap<&'static str, u64>,
}

/// The result of a call that failed inside the tool: a JSON-RPC *success* that says so in band.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallFailure {
    content: [Content; 1],
    is_error: bool,
}

impl CallFailure {
    /// A failure in these words.
    pub fn new(why: impl Into<String>) -> Self {
        CallFailure { content: [Content::text(why)], is_error: true }
    }

    /// A failure with the Elixir deployment's wording, `Tool execution failed: <why>`.
    pub fn for_elixir(why: impl std::fmt::Display) -> Self {
        Self::new(format!("Tool execution failed: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::mcp::ARGUMENT_BYTES_MAX;
    use serde_json::json;

    use super::*;

    fn read(params: &str) -> Result<CallParams<'_>, String> {
        let params = Object::parse(params.as_bytes()).expect("an object");
        CallParams::read(&params, ARGUMENT_BYTES_MAX).map_err(|fault| fault.to_string())
    }

    #[test]
    fn call_params_that_do_not_fit_are_invalid_params() {
        let cases: &[(&str, &str)] = &[
            ("{}", "Invalid params: name must be a non-empty string"),
            (r#"{"name":""}"#, "Invalid params: name must be a non-empty string"),
            (r#"{"name":7}"#, "Invalid params: name must be a non-empty string"),
            (r#"{"name":"t","arguments":[]}"#, "Invalid params: arguments must be an object"),
            (r#"{"name":"t","arguments":"x"}"#, "Invalid params: arguments must be an object"),
        ];

        for (params, expected) in cases {
            assert_eq!(read(params).map(|_| ()), Err((*expected).to_owned()), "{params}");
        }
    }

    #[test]
    fn arguments_are_bounded_in_bytes() {
        let params = |bytes: usize| format!(r#"{{"name":"t","arguments":{{"a":"{}"}}}}"#, "x".repeat(bytes - 8));
        let error = "Invalid params: arguments: expected at most 65536 bytes, came 65537";

        assert!(read(&params(ARGUMENT_BYTES_MAX)).is_ok());
        assert_eq!(read(&params(ARGUMENT_BYTES_MAX + 1)).map(|_| ()), Err(error.to_owned()));
    }

    #[test]
    fn arguments_default_to_none() {
        assert_eq!(read(r#"{"name":"t"}"#).expect("valid").arguments, "{}");
        assert_eq!(read(r#"{"name":"t","arguments":null}"#).expect("valid").arguments, "{}");
        assert_eq!(read(r#"{"name":"t","arguments":{"a":1}}"#).expect("valid").arguments, r#"{"a":1}"#);
    }

    #[test]
    fn a_tool_is_listed_with_the_keys_of_the_deployment() {
        let properties = json!({"n": {"type": "integer"}}).as_object().cloned().expect("an object");
        let spec = ToolSpec {
            description: "d".into(),
            input_schema: object_schema(properties, &["n"]),
            metadata: ToolMetadata::new("c", &["x"], 30_000),
            ..ToolSpec::new("t")
        };

        assert_eq!(
            spec.listed_for_elixir(),
            json!({
                "name": "t",
                "description": "d",
                "inputSchema": {
                    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false
                },
                "capabilities": {
                    "supportsAsync": true, "supportsStreaming": false, "supportsCancellation": true, "maxExecutionTime": 30000,
                    "resourceLimits": {},
                    "securityConstraints": {
                        "requiresAuthentication": true, "requiresAuthorization": false, "allowedRoles": [], "deniedRoles": []
                    }
                },
                "metadata": {"version": "1.0.0", "category": "c", "tags": ["x"], "async": true, "timeout": 30000}
            })
        );
    }

    #[test]
    fn results_have_the_shapes_of_the_deployment() {
        let usage = BTreeMap::from([("bytesRead", 3)]);
        let content = [Content::text("plain"), Content::json(&json!({"a": 1}))];
        let result = CallResult {
            content: &content,
            structured_content: None,
            is_error: false,
            metadata: Some(CallMetadata { tool: "t", execution_time: 5, resource_usage: &usage }),
            meta: &Map::new(),
        };

        assert_eq!(
            serde_json::to_value(result).expect("serializes"),
            json!({
                "content": [
                    {"type": "text", "text": "plain"},
                    {"type": "text", "text": "{\n  \"a\": 1\n}", "mimeType": "application/json"}
                ],
                "metadata": {"tool": "t", "executionTime": 5, "resourceUsage": {"bytesRead": 3}}
            })
        );
        assert_eq!(
            serde_json::to_value(CallFailure::for_elixir("tool_not_found")).expect("serializes"),
            json!({"content": [{"type": "text", "text": "Tool execution failed: tool_not_found"}], "isError": true})
        );
    }
}
