//! What a session can call: the [`Tool`] trait, the registry, and three built-in tools.

mod arguments;
mod cancel;
mod context;
mod countdown;
mod execution;
mod stream_hash;
#[cfg(test)]
mod testing;
mod text_search;
mod workers;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::value::RawValue;

pub use arguments::Arguments;
pub use cancel::{CancelReason, Cancellation};
pub use context::{ProgressSink, ToolContext};
pub use countdown::Countdown;
pub use execution::Stopwatch;
pub use stream_hash::StreamHash;
pub use text_search::TextSearch;
pub use workers::{ConnectionFull, Seat, Workers};

use crate::protocol::jsonrpc;
use crate::protocol::mcp::tool::{Content, ToolSpec};

/// Something a session can call by name.
///
/// A tool is shared by all sessions and may run many times at once. When a call is cancelled or takes longer than the
/// tool's `max_execution_time`, its future is dropped at its next await; work on another thread must look at
/// [`ToolContext::is_cancelled`] often, or it goes on for nobody. A panic ends the call as failed, nothing else.
pub trait Tool: Send + Sync + 'static {
    /// Name, description, input schema and capabilities. Asked once, when the tool is registered.
    fn spec(&self) -> ToolSpec;

    /// Reads the arguments of a call and gives back its work. Must not block: it runs in the session.
    ///
    /// `arguments` have not been checked against the schema; what the tool does not ask for is ignored. The text that
    /// they are read from goes when this returns, so that a call holds what it needs and no more.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`]: the caller is told in band, and there is no run.
    fn prepare(&self, arguments: &Arguments<'_>) -> Result<Work, ToolError>;
}

/// A call that is ready to run.
pub struct Work(Box<dyn FnOnce(ToolContext) -> BoxFuture<'static, Result<ToolOutput, ToolError>> + Send>);

impl Work {
    /// The work that `run` does.
    pub fn new<F, Fut>(run: F) -> Self
    where
        F: FnOnce(ToolContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<ToolOutput, ToolError>> + Send + 'static,
    {
        Work(Box::new(move |context| run(context).boxed()))
    }

    /// Does it. A panic may come at once or when the future is polled.
    pub fn run(self, context: ToolContext) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        (self.0)(context)
    }
}

/// What a call brought.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutput {
    /// For the caller.
    pub content: Vec<Content>,
    /// What the tool counted of its work, by name and unit such as `bytesRead`.
    pub usage: BTreeMap<&'static str, u64>,
}

/// Why a call failed inside the tool. The caller gets the text in band.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// An argument does not fit: which one, what was expected, what came.
    #[error("invalid arguments: {0}")]
    InvalidArguments(String),
    /// The tool could not do it.
    #[error("{0}")]
    Failed(String),
    /// The tool noticed that it was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A tool with what the registry took from its spec.
pub struct Registered {
    /// The tool.
    pub tool: Arc<dyn Tool>,
    /// Its name.
    pub name: Arc<str>,
    /// Milliseconds after which a call is ended.
    pub execution_ms_max: u64,
}

impl Registered {
    /// [`Tool::prepare`]; a panic of it is a failure as any other.
    ///
    /// # Errors
    /// Those of the tool.
    pub fn prepare(&self, arguments: &Arguments<'_>) -> Result<Work, ToolError> {
        let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| self.tool.prepare(arguments)));
        prepared.unwrap_or_else(|_| {
            tracing::error!(tool = &*self.name, "a tool panicked over its arguments");
            Err(ToolError::Failed("the tool crashed".to_owned()))
        })
    }
}

/// The tools of a server, by name.
pub struct Tools {
    by_name: BTreeMap<String, (Registered, ToolSpec)>,
    listing: Box<RawValue>,
}

/// A name is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two tools are named {0:?}, expected one")]
pub struct DuplicateTool(pub String);

impl Tools {
    /// The built-in tools. `search_root` is the folder that `text_search` may read.
    pub fn builtin(search_root: Option<PathBuf>) -> Self {
        let tools: [Arc<dyn Tool>; 3] =
            [Arc::new(Countdown), Arc::new(StreamHash), Arc::new(TextSearch::new(search_root))];
        Self::new(tools).expect("the built-in tools have different names")
    }

    /// These tools and no others.
    ///
    /// # Errors
    /// [`DuplicateTool`].
    pub fn new(tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Result<Self, DuplicateTool> {
        let mut by_name = BTreeMap::new();
        for tool in tools {
            let spec = tool.spec();
            let registered = Registered {
                tool,
                name: spec.name.as_str().into(),
                execution_ms_max: spec.capabilities.max_execution_time,
            };
            if let Some((_, earlier)) = by_name.insert(spec.name.clone(), (registered, spec)) {
                return Err(DuplicateTool(earlier.name));
            }
        }
        let listing = Listing { tools: by_name.values().map(|(_, spec)| spec).collect() };
        Ok(Tools { listing: jsonrpc::raw(&listing), by_name })
    }

    /// The tool of that name.
    pub fn find(&self, name: &str) -> Option<&Registered> {
        self.by_name.get(name).map(|(registered, _)| registered)
    }

    /// The result of `tools/list`: all tools in the order of their names, without pages.
    pub fn listing(&self) -> &RawValue {
        &self.listing
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    tools: Vec<&'a ToolSpec>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_built_in_tools_are_listed_by_name_and_say_whether_they_stream() {
        let listing: Value = serde_json::from_str(Tools::builtin(None).listing().get()).expect("JSON");

        let tools = listing["tools"].as_array().expect("a list");
        let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["countdown", "stream_hash", "text_search"]);
        for tool in tools {
            assert_eq!(tool["capabilities"]["supportsStreaming"], true);
            assert_eq!(tool["capabilities"]["maxExecutionTime"], tool["metadata"]["timeout"]);
            assert_eq!(tool["inputSchema"]["additionalProperties"], false);
        }
    }

    #[test]
    fn two_tools_of_one_name_are_refused() {
        let tools: [Arc<dyn Tool>; 2] = [Arc::new(Countdown), Arc::new(Countdown)];

        assert_eq!(Tools::new(tools).err(), Some(DuplicateTool("countdown".into())));
    }
}
