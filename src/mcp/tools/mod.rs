//! What a client can call: [`Tool`], typed and checked, and three built-in ones.

mod arguments;
mod countdown;
mod output;
mod schema;
mod stream_hash;
#[cfg(test)]
pub(crate) mod testing;
mod text_search;
mod typed;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::value::RawValue;

pub use arguments::Arguments;
pub use countdown::Countdown;
pub use output::ToolOutput;
pub(crate) use schema::Schema;
pub use stream_hash::StreamHash;
pub use text_search::TextSearch;
pub use typed::{NoArguments, OnRestart, Tool};
pub(crate) use typed::{read as typed_read, schema_of};

use super::{CallContext, CallError};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::headers::ParamHeaders;
use crate::protocol::mcp::tool::{TaskSupport, ToolSpec};

/// Something a client can call by name, in full: what [`Tool`] makes of a function.
///
/// A tool is shared by all sessions and may run many times at once. When a call is cancelled or takes longer than the
/// tool's `max_execution_time`, its future is dropped at its next await; work on another thread must look at
/// [`CallContext::is_cancelled`] often, or it goes on for nobody. A panic ends the call as failed, nothing else.
pub trait ToolHandler: Send + Sync + 'static {
    /// Name, description, schemas and capabilities. Asked once, when the tool is added to a server.
    fn spec(&self) -> ToolSpec;

    /// Reads the arguments of a call, which fit the input schema, and gives back its work. Must not block: it runs in the
    /// session.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`]: the caller is told, and there is no run.
    fn prepare(&self, arguments: Arguments<'_>) -> Result<Work, CallError>;
}

/// A call that is ready to run.
pub struct Work(Box<dyn FnOnce(CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>> + Send>);

impl Work {
    /// The work that `run` does.
    pub fn new<F, Fut>(run: F) -> Self
    where
        F: FnOnce(CallContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<ToolOutput, CallError>> + Send + 'static,
    {
        Work(Box::new(move |context| run(context).boxed()))
    }

    /// Does it. A panic may come at once or when the future is polled.
    pub fn run(self, context: CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>> {
        (self.0)(context)
    }
}

/// A tool of a server, with what the server took from its spec.
pub(crate) struct Registered {
    handler: Arc<dyn ToolHandler>,
    pub(crate) name: Arc<str>,
    /// As the revisions before 2026-07-28, from it on, and the Elixir deployment list it.
    pub(crate) listed_legacy: Box<RawValue>,
    pub(crate) listed_modern: Box<RawValue>,
    pub(crate) listed_elixir: Box<RawValue>,
    pub(crate) execution_ms_max: u64,
    pub(crate) tasks: TaskSupport,
    pub(crate) begins_as_task: bool,
    pub(crate) on_restart: OnRestart,
    /// Which arguments come as HTTP headers too.
    pub(crate) param_headers: ParamHeaders,
    input: Schema,
    /// None also where its output is not checked.
    output: Option<Schema>,
}

/// A tool that a server can't have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tool {name:?}: {why}")]
pub struct InvalidTool {
    /// Its name.
    pub name: String,
    /// What was expected, and what came.
    pub why: String,
}

/// Characters that a name may have at most. Source: 2025-11-25, tools, "Tool Names".
const NAME_CHARS_MAX: usize = 128;

impl Registered {
    pub(crate) fn new(tool: Tool) -> Result<Self, InvalidTool> {
        let chosen = tool.restarting();
        let handler = tool.into_handler();
        let spec = handler.spec();
        let has_hint = |hint: &str| spec.annotations.as_ref().is_some_and(|hints| hints[hint] == true);
        let may_repeat = has_hint("readOnlyHint") || has_hint("idempotentHint");
        let on_restart = chosen.unwrap_or(if may_repeat { OnRestart::Rerun } else { OnRestart::Fail });
        let invalid = |why: String| InvalidTool { name: spec.name.clone(), why };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if spec.name.is_empty() || spec.name.len() > NAME_CHARS_MAX || !spec.name.chars().all(is_plain) {
            return Err(invalid(format!("expected a name of 1 to {NAME_CHARS_MAX} letters, digits, _, - and .")));
        }
        if spec.input_schema.get("type").and_then(|kind| kind.as_str()) != Some("object") {
            return Err(invalid(format!("expected an input schema of type object, came {}", spec.input_schema)));
        }
        let input = Schema::compile(&spec.input_schema).map_err(|why| invalid(format!("input schema: {why}")))?;
        let output = spec.output_schema.as_ref().map(Schema::compile).transpose();
        let output = output.map_err(|why| invalid(format!("output schema: {why}")))?;
        let param_headers =
            ParamHeaders::collect(&spec.input_schema).map_err(|bad| invalid(format!("input schema: {bad}")))?;
        let has_object_output =
            spec.output_schema.as_ref().is_none_or(|schema| schema.get("type").is_some_and(|kind| kind == "object"));
        let listed_modern = spec.listed();
        let mut listed_legacy = listed_modern.clone();
        let mut listed_elixir = spec.listed_for_elixir();
        if !has_object_output {
            for listed in [&mut listed_legacy, &mut listed_elixir] {
                listed.as_object_mut().expect("a listing is an object").remove("outputSchema");
            }
        }
        Ok(Registered {
            handler,
            name: spec.name.as_str().into(),
            listed_legacy: jsonrpc::raw(&listed_legacy),
            listed_modern: jsonrpc::raw(&listed_modern),
            listed_elixir: jsonrpc::raw(&listed_elixir),
            execution_ms_max: spec.capabilities.max_execution_time,
            tasks: spec.tasks,
            begins_as_task: spec.begins_as_task,
            on_restart,
            param_headers,
            input,
            output,
        })
    }

    /// Checks the arguments, the text of a JSON object, and reads them. Where `is_lenient`, those that the schema does not
    /// know are left out, as in the Elixir deployment. A panic of the tool is a failure as any other.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`], or what the tool says.
    pub(crate) fn prepare(&self, text: &str, is_lenient: bool) -> Result<Work, CallError> {
        let fields = self.input.check_fields(text, is_lenient).map_err(CallError::InvalidArguments)?;
        let prepare = AssertUnwindSafe(|| self.handler.prepare(Arguments::new(text, fields)));
        std::panic::catch_unwind(prepare).unwrap_or_else(|_| {
            tracing::error!(tool = &*self.name, "a tool panicked over its arguments");
            Err(CallError::failed("the tool crashed"))
        })
    }

    /// Checks what a call brought against the tool's own output schema.
    ///
    /// # Errors
    /// Where it does not fit: the tool's mistake, which no client is to act upon.
    pub(crate) fn check_output(&self, output: &ToolOutput) -> Result<(), String> {
        match (&self.output, &output.structured) {
            (Some(schema), Some(value)) => schema.misfits(value).map_or(Ok(()), Err),
            (Some(_), None) if !output.is_error => Err("expected structured output, came none".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The built-in tools. `search_root` is the folder that `text_search` may read.
pub fn builtin(search_root: Option<PathBuf>) -> [Tool; 3] {
    [Countdown.into(), StreamHash.into(), TextSearch::new(search_root).into()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_built_in_tools_say_whether_they_stream() {
        for tool in builtin(None) {
            let tool = Registered::new(tool).expect("valid");
            let listed: serde_json::Value = serde_json::from_str(tool.listed_elixir.get()).expect("JSON");

            assert_eq!(listed["capabilities"]["supportsStreaming"], true);
            assert_eq!(listed["capabilities"]["maxExecutionTime"], listed["metadata"]["timeout"]);
            assert_eq!(listed["inputSchema"]["additionalProperties"], false);
        }
    }

    #[test]
    fn tools_that_no_client_could_call_are_refused() {
        let refused = |name: &str, schema: serde_json::Value| {
            let tool = Tool::untyped(name, schema, |_, _| async { Ok("") });
            Registered::new(tool).err().map(|invalid| invalid.to_string())
        };

        assert_eq!(refused("a.b-C_9", json!({"type": "object"})), None);
        assert!(refused("", json!({"type": "object"})).is_some());
        assert!(refused("a b", json!({"type": "object"})).is_some());
        assert!(refused(&"x".repeat(129), json!({"type": "object"})).is_some());
        assert!(refused("t", json!({"type": "string"})).is_some());
        let header = |kind: &str| json!({"type": "object", "properties": {"a": {"type": kind, "x-mcp-header": "A"}}});
        assert_eq!(refused("t", header("string")), None);
        assert!(refused("t", header("number")).is_some_and(|text| text.contains("x-mcp-header")));
        let text = refused("t", json!({"type": "object", "properties": {"a": {"type": 3}}})).expect("refused");
        assert!(text.starts_with("tool \"t\": input schema: "), "{text}");
    }

    #[test]
    fn a_schema_never_leaves_the_machine() {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/x.json"}}});

        assert!(Registered::new(Tool::untyped("t", schema, |_, _| async { Ok("") })).is_err());
    }
}
