//! The shapes of results, failures included, as each era has them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::CallError;
use super::call::{Call, Input, Subject};
use super::request_state::{Sealed, request_digest};
use super::server::ServerShared;
use super::tools::{Registered, ToolOutput};
use crate::protocol::jsonrpc::{self, Fault};
use crate::protocol::mcp::client::{Era, META_SUBSCRIPTION};
use crate::protocol::mcp::error;
use crate::protocol::mcp::tool::{CallFailure, CallMetadata, CallResult};
use crate::protocol::mcp::{PROMPTS_GET, RESULT_BYTES_MAX};

/// How long the state of a call that waits for answers is good, in milliseconds: an hour, for people are asked.
const STATE_MS: u64 = 3_600_000;

/// The result of a call of a tool.
///
/// # Errors
/// Output that is too large, or that does not fit the tool's own schema.
pub(super) fn tool_result(call: &Call, output: &ToolOutput, worked_ms: u64) -> Result<Box<RawValue>, CallError> {
    let Subject::Tool(tool) = &call.subject else { unreachable!("only tools have a tool's output") };
    tool.check_output(output).map_err(|places| {
        tracing::error!(tool = &*tool.name, places, "a tool's output does not fit its output schema");
        CallError::Failed("the tool's output does not fit its output schema".to_owned())
    })?;
    within(tool_body(call, tool, output, worked_ms), RESULT_BYTES_MAX).map(|body| complete(call, body))
}

/// A result, unless it is too large.
pub(super) fn within(body: Box<RawValue>, bytes_max: usize) -> Result<Box<RawValue>, CallError> {
    let bytes = body.get().len();
    if bytes > bytes_max {
        let text = format!("the result is too large: expected at most {bytes_max} bytes, came {bytes}");
        return Err(CallError::Failed(text));
    }
    Ok(body)
}

fn tool_body(call: &Call, tool: &Registered, output: &ToolOutput, worked_ms: u64) -> Box<RawValue> {
    let metadata = (call.client.era == Era::Elixir).then(|| CallMetadata {
        tool: &tool.name,
        execution_time: worked_ms,
        resource_usage: &output.usage,
    });
    // Revisions before 2026-07-28 take objects only.
    let takes = |value: &serde_json::Value| value.is_object() || call.client.era == Era::Modern;
    let for_elixir = (call.client.era == Era::Elixir).then(|| output.content_for_elixir()).flatten();
    jsonrpc::raw(&CallResult {
        content: for_elixir.as_ref().map_or(&*output.content, std::slice::from_ref),
        structured_content: output.structured.as_ref().filter(|value| takes(value)),
        is_error: output.is_error,
        metadata,
        meta: &output.meta,
    })
}

/// What a failed call is answered with: a result that says so, or an error.
pub(super) fn failure(call: &Call, error: &CallError) -> Result<Box<RawValue>, Fault> {
    let (era, version) = (call.client.era, call.client.version);
    match error {
        CallError::InputRequired(_) => return input_required(call),
        CallError::MissingCapability(required) if era == Era::Modern => {
            return Err(error::missing_capability(required));
        }
        CallError::Rpc(object) => return Err(Fault::Coded(object.clone())),
        _ => {}
    }
    match &call.subject {
        Subject::Tool(_) => {
            if let CallError::InvalidArguments(text) = error
                && era == Era::Legacy
                && !version.reports_unfit_arguments_in_band()
            {
                return Err(Fault::InvalidParams(text.clone()));
            }
            let body = match era {
                Era::Elixir => CallFailure::for_elixir(error),
                Era::Legacy | Era::Modern => CallFailure::new(error.to_string()),
            };
            Ok(complete(call, jsonrpc::raw(&body)))
        }
        Subject::Resource(uri) => match error {
            CallError::NotFound if era == Era::Elixir => {
                Ok(super::elixir::resource_not_found(uri, &call.session.server.catalog()))
            }
            CallError::NotFound => Err(error::resource_not_found(uri, version)),
            other if era == Era::Elixir => Ok(super::elixir::resource_failure(&other.to_string())),
            other => Err(plain(other)),
        },
        Subject::Prompt if era == Era::Elixir => Ok(super::elixir::prompt_failure(&error.to_string())),
        Subject::Prompt | Subject::Other | Subject::Workflow | Subject::Relayed { .. } => Err(plain(error)),
    }
}

fn plain(error: &CallError) -> Fault {
    match error {
        CallError::InvalidArguments(text) => Fault::InvalidParams(text.clone()),
        CallError::NotFound => Fault::InvalidParams("not found".to_owned()),
        other => error::other(jsonrpc::INTERNAL_ERROR, other.to_string(), None),
    }
}

/// `input_required`: what the client has to answer, and what it is to bring along when it calls again.
fn input_required(call: &Call) -> Result<Box<RawValue>, Fault> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        input_requests: &'a RawValue,
        request_state: String,
    }

    let Input::Answers { answers, method, params } = &call.input else {
        return Err(error::other(jsonrpc::INTERNAL_ERROR, "no questions can be asked in this call", None));
    };
    let params = params.as_ref().and_then(|params| jsonrpc::Object::parse(params.get().as_bytes())).unwrap_or_default();
    let wanted = answers.wanted();
    let sealed = Sealed {
        user: call.session.user.user.to_string(),
        expires_unix_ms: crate::clock::unix_micros() / 1_000 + STATE_MS,
        digest: request_digest(method, &params),
        answers: wanted.given,
        state: wanted.state,
    };
    let too_large =
        |error: super::request_state::StateTooLarge| error::other(jsonrpc::INTERNAL_ERROR, error.to_string(), None);
    let request_state = call.session.mcp.sealer.seal(&sealed, &call.session.server.name).map_err(too_large)?;
    let body = jsonrpc::raw(&Body { input_requests: &wanted.requests, request_state });
    Ok(modern(&call.session.server, "input_required", "", &body))
}

/// The result of a served request, of these fields.
pub(super) fn complete(call: &Call, body: Box<RawValue>) -> Box<RawValue> {
    if call.client.era != Era::Modern {
        return body;
    }
    let caching = match &call.subject {
        Subject::Resource(_) => caching(&call.session.server),
        _ => String::new(),
    };
    modern(&call.session.server, "complete", &caching, &body)
}

/// The fields that say how long a list or a resource may be kept, each behind a comma.
pub(super) fn caching(server: &ServerShared) -> String {
    let scope = if server.caching.is_public { "public" } else { "private" };
    format!(r#","ttlMs":{},"cacheScope":"{scope}""#, server.caching.ttl_ms)
}

/// A result of the stateless era: its type, who answers, `further` fields (each behind a comma), then those of `body`.
///
/// The body's own `_meta` is kept, with who answers added.
pub(super) fn modern(server: &Arc<ServerShared>, kind: &str, further: &str, body: &RawValue) -> Box<RawValue> {
    const META: &str = "_meta";
    let info = server.facts.info.get();
    let fields = body.get().strip_prefix('{').unwrap_or("}");
    let has_meta = fields.contains("\"_meta\"")
        && jsonrpc::Object::parse(body.get().as_bytes()).is_some_and(|body| body.has(META));
    let text = if has_meta {
        let mut value: serde_json::Map<_, _> = serde_json::from_str(body.get()).unwrap_or_default();
        if let Some(meta) = value.get_mut(META).and_then(|meta| meta.as_object_mut()) {
            meta.insert(
                crate::protocol::mcp::client::META_SERVER_INFO.to_owned(),
                serde_json::from_str(info).unwrap_or_default(),
            );
        }
        let fields = serde_json::Value::Object(value).to_string();
        format!(r#"{{"resultType":"{kind}"{further},{}"#, &fields[1..])
    } else {
        let comma = if fields.trim_start() == "}" { "" } else { "," };
        format!(
            r#"{{"resultType":"{kind}","_meta":{{"io.modelcontextprotocol/serverInfo":{info}}}{further}{comma}{fields}"#
        )
    };
    RawValue::from_string(text).unwrap_or_else(|_| unreachable!("an object with fields added is an object"))
}

/// The result that ends a stream of changes in order.
pub(super) fn listen_ended(server: &Arc<ServerShared>, id: &RawValue) -> Box<RawValue> {
    let id: serde_json::Value = serde_json::from_str(id.get()).unwrap_or_default();
    modern(server, "complete", "", &jsonrpc::raw(&json!({"_meta": {META_SUBSCRIPTION: id}})))
}

/// The fault of a prompt that is not there.
pub(super) fn prompt_not_found(name: &str) -> Fault {
    Fault::InvalidParams(format!("{PROMPTS_GET}: no prompt is named {name:?}"))
}
