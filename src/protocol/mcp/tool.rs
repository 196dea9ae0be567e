//! The shapes of `tools/list` and `tools/call`: what a tool says of itself, what a call asks, what it gets.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::jsonrpc::{Fault, Object};
use crate::protocol::mcp::{ARGUMENT_BYTES_MAX, ID_BYTES_MAX};

/// What `tools/list` says of one tool, with the deployment's keys.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolSpec {
    /// By which `tools/call` names it.
    pub name: String,
    /// For a person or a model to read.
    pub description: String,
    /// What the arguments may be.
    pub input_schema: InputSchema,
    /// What it can do and how long it may take.
    pub capabilities: ToolCapabilities,
    /// What else is known of it.
    pub metadata: ToolMetadata,
}

/// A JSON Schema of `{"type":"object","properties":…,"required":[…],"additionalProperties":false}`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputSchema {
    #[serde(rename = "type")]
    kind: &'static str,
    properties: Map<String, Value>,
    required: Vec<String>,
    additional_properties: bool,
}

impl InputSchema {
    /// A schema of these properties; `required` names those that must be there.
    ///
    /// `properties` maps each name to its property schema (`type`, `description`, `default`, `minimum`, …).
    pub fn new(properties: Map<String, Value>, required: &[&str]) -> Self {
        InputSchema {
            kind: "object",
            properties,
            required: required.iter().map(|&name| name.to_owned()).collect(),
            additional_properties: false,
        }
    }
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
    /// Its arguments; empty where none were sent.
    pub arguments: Object<'a>,
    /// `_meta.progressToken`, a string or a number as it came.
    pub progress_token: Option<Box<RawValue>>,
}

impl<'a> CallParams<'a> {
    /// Reads the parameters. Fields not named here are ignored.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`]: no object, `name` missing or not a non-empty string, `arguments` there and neither
    /// object nor `null`, or above [`ARGUMENT_BYTES_MAX`], a progress token of another type than MCP allows.
    pub fn parse(params: Option<&'a RawValue>) -> Result<Self, Fault> {
        let invalid = |text: &str| Err(Fault::InvalidParams(text.to_owned()));
        let Some(params) = Object::parse(params.map_or("{}", RawValue::get).as_bytes()) else {
            return invalid("params must be an object");
        };
        let Some(name) = params.string("name").filter(|name| !name.is_empty()) else {
            return invalid("name must be a non-empty string");
        };
        let arguments = match params.raw("arguments").map(RawValue::get) {
            None | Some("null") => Object::default(),
            Some(text) if text.len() > ARGUMENT_BYTES_MAX => {
                let came = text.len();
                return invalid(&format!("arguments: expected at most {ARGUMENT_BYTES_MAX} bytes, came {came}"));
            }
            Some(text) => match Object::parse(text.as_bytes()) {
                Some(arguments) => arguments,
                None => return invalid("arguments must be an object"),
            },
        };
        let progress_token = params.object("_meta").and_then(|meta| meta.raw("progressToken"));
        match progress_token.map(RawValue::get) {
            Some(token) if token.len() > ID_BYTES_MAX => return invalid("progressToken is too long"),
            Some(token) if !token.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) => {
                return invalid("progressToken must be a string or a number");
            }
            _ => {}
        }
        Ok(CallParams { name, arguments, progress_token: progress_token.map(ToOwned::to_owned) })
    }
}

/// One piece of a result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'static str>,
}

impl Content {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Content { kind: "text", text: text.into(), mime_type: None }
    }

    /// A map or a list: pretty JSON, said so by its MIME type.
    pub fn json(value: &Value) -> Self {
        let text = serde_json::to_string_pretty(value).expect("a JSON value always serializes");
        Content { kind: "text", text, mime_type: Some("application/json") }
    }
}

/// The result of a call that worked.
#[derive(Clone, Debug, Serialize)]
pub struct CallResult<'a> {
    /// What the tool has to say.
    pub content: &'a [Content],
    /// About the call itself.
    pub metadata: CallMetadata<'a>,
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
    /// A failure with the deployment's wording, `Tool execution failed: <why>`.
    pub fn new(why: impl std::fmt::Display) -> Self {
        CallFailure { content: [Content::text(format!("Tool execution failed: {why}"))], is_error: true }
    }

    /// The failure of a call to a tool that is not there. Nothing ran, so there is no run.
    pub fn tool_not_found() -> Self {
        Self::new("tool_not_found")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(params: &str) -> Result<CallParams<'_>, String> {
        let raw = serde_json::from_str(params).expect("JSON");
        CallParams::parse(Some(raw)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn call_params_that_do_not_fit_are_invalid_params() {
        let long = format!(r#"{{"name":"t","_meta":{{"progressToken":"{}"}}}}"#, "x".repeat(ID_BYTES_MAX));
        let cases: &[(&str, &str)] = &[
            ("null", "Invalid params: params must be an object"),
            (r#"["t"]"#, "Invalid params: params must be an object"),
            ("{}", "Invalid params: name must be a non-empty string"),
            (r#"{"name":""}"#, "Invalid params: name must be a non-empty string"),
            (r#"{"name":7}"#, "Invalid params: name must be a non-empty string"),
            (r#"{"name":"t","arguments":[]}"#, "Invalid params: arguments must be an object"),
            (r#"{"name":"t","arguments":"x"}"#, "Invalid params: arguments must be an object"),
            (
                r#"{"name":"t","_meta":{"progressToken":null}}"#,
                "Invalid params: progressToken must be a string or a number",
            ),
            (
                r#"{"name":"t","_meta":{"progressToken":[1]}}"#,
                "Invalid params: progressToken must be a string or a number",
            ),
            (&long, "Invalid params: progressToken is too long"),
        ];

        for (params, expected) in cases {
            assert_eq!(parse(params).map(|_| ()), Err((*expected).to_owned()), "{params}");
        }
        assert!(CallParams::parse(None).is_err());
    }

    #[test]
    fn arguments_are_bounded_in_bytes() {
        let params = |bytes: usize| format!(r#"{{"name":"t","arguments":{{"a":"{}"}}}}"#, "x".repeat(bytes - 8));
        let error = "Invalid params: arguments: expected at most 65536 bytes, came 65537";

        assert!(parse(&params(ARGUMENT_BYTES_MAX)).is_ok());
        assert_eq!(parse(&params(ARGUMENT_BYTES_MAX + 1)).map(|_| ()), Err(error.to_owned()));
    }

    #[test]
    fn arguments_default_to_none_and_tokens_keep_their_text() {
        let bare = parse(r#"{"name":"t"}"#).expect("valid");
        let null = parse(r#"{"name":"t","arguments":null,"_meta":{}}"#).expect("valid");
        let full = parse(r#"{"name":"t","arguments":{"a":1},"_meta":{"progressToken":-1.50}}"#).expect("valid");

        assert!(bare.arguments.fields().next().is_none() && bare.progress_token.is_none());
        assert!(null.arguments.fields().next().is_none() && null.progress_token.is_none());
        assert_eq!(full.arguments.get::<u8>("a"), Some(1));
        assert_eq!(full.progress_token.as_deref().map(RawValue::get), Some("-1.50"));
    }

    #[test]
    fn a_tool_is_listed_with_the_keys_of_the_deployment() {
        let properties = json!({"n": {"type": "integer"}}).as_object().cloned().expect("an object");
        let spec = ToolSpec {
            name: "t".into(),
            description: "d".into(),
            input_schema: InputSchema::new(properties, &["n"]),
            capabilities: ToolCapabilities::default(),
            metadata: ToolMetadata::new("c", &["x"], 30_000),
        };

        assert_eq!(
            serde_json::to_value(spec).expect("serializes"),
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
            metadata: CallMetadata { tool: "t", execution_time: 5, resource_usage: &usage },
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
            serde_json::to_value(CallFailure::tool_not_found()).expect("serializes"),
            json!({"content": [{"type": "text", "text": "Tool execution failed: tool_not_found"}], "isError": true})
        );
    }
}
