//! Calling a tool by itself in a test: a call as the server makes one, whose progress is kept.

use std::sync::{Arc, OnceLock, Weak};

use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Registered, Tool, ToolHandler, ToolOutput};
use crate::mcp::auth::{Development, Identity};
use crate::mcp::call::{Call, Input, Output, Stage, Subject};
use crate::mcp::outgoing::Outgoing;
use crate::mcp::session::{NewSession, Session};
use crate::mcp::stopwatch::Stopwatch;
use crate::mcp::{CallContext, CallError, CancelReason, McpBuilder, McpServer, NoArguments};
use crate::protocol::jsonrpc::{self, CallNumber, Object};
use crate::protocol::mcp::client::Client;
use crate::protocol::mcp::peer::Peer;
use crate::protocol::mcp::progress::Progress;

/// The progress that a call's client is told.
pub(crate) struct Reports {
    call: Arc<Call>,
    told: Arc<Mutex<Vec<Progress>>>,
}

impl Reports {
    /// Ends the call and gives every report, in order.
    pub(crate) fn all(&self) -> Vec<Progress> {
        let nothing = jsonrpc::raw(&serde_json::json!({}));
        self.call.start(|_| std::future::ready(Ok(Output::Body(nothing))).boxed());
        self.told.lock().clone()
    }
}

/// The surroundings of a call.
pub(crate) fn context() -> (CallContext, Reports) {
    context_cancelled_after(usize::MAX)
}

/// The surroundings of a call that its client cancels after `count` reports; 0 for from the start.
pub(crate) fn context_cancelled_after(count: usize) -> (CallContext, Reports) {
    let told = Arc::<Mutex<Vec<Progress>>>::default();
    let call = Arc::<OnceLock<Weak<Call>>>::default();
    let route = Arc::new_cyclic(|route: &Weak<Outgoing>| {
        let (route, told, call) = (Weak::clone(route), Arc::clone(&told), Arc::clone(&call));
        Outgoing::new(move || {
            let Some(route) = route.upgrade() else { return };
            let mut told = told.lock();
            told.extend(route.take().iter().filter_map(|item| progress(&item.text)));
            if told.len() >= count
                && let Some(call) = call.get().and_then(Weak::upgrade)
            {
                call.cancel(CancelReason::Client);
            }
        })
    });
    let made = Arc::new(new_call(route));
    call.set(Arc::downgrade(&made)).unwrap_or_else(|_| unreachable!("set once"));
    if count == 0 {
        made.cancel(CancelReason::Client);
    }
    (CallContext::new(Arc::clone(&made)), Reports { call: made, told })
}

/// Calls a tool; `arguments` is a JSON object, checked as those of a client.
pub(crate) async fn call(
    tool: impl ToolHandler,
    arguments: Value,
    context: CallContext,
) -> Result<ToolOutput, CallError> {
    let tool = Registered::new(tool.into()).expect("a tool that a server can have");
    tool.prepare(&arguments.to_string(), false)?.run(context).await
}

fn new_call(route: Arc<Outgoing>) -> Call {
    let tool = || Tool::new("t", |_: NoArguments, _| async { Ok("") });
    let server = McpServer::builder("s").tool(tool()).build().expect("a server");
    let publish = Arc::new(|_: &str, _: &str, _| true);
    let mcp = McpBuilder::new(publish, Development).server(server).build().expect("an MCP");
    let client = Client::joined("test", "1", &jsonrpc::raw(&serde_json::json!({})));
    let new = NewSession {
        server: mcp.default_server(),
        user: Identity::member("u"),
        connection: 1,
        peer: Peer::joined(client.clone()),
        standing: Arc::clone(&route),
        is_streaming: false,
        introduction: None,
        is_workflow: false,
    };
    Call {
        workflow: std::sync::OnceLock::new(),
        session: Session::passing(&mcp, new),
        number: CallNumber(1),
        id: jsonrpc::raw(&1),
        subject: Subject::Tool(Arc::new(Registered::new(tool()).expect("a tool"))),
        client: Arc::new(client),
        level: None,
        token: Some(jsonrpc::raw(&"token")),
        route,
        input: Input::Requests,
        task: OnceLock::new(),
        run: None,
        seat: mcp.workers.admit(1).expect("the first"),
        cancellation: Default::default(),
        why_taken_back: Default::default(),
        stopwatch: Stopwatch::start(),
        is_left: Default::default(),
        stage: Mutex::new(Stage::default()),
    }
}

/// What a message tells of progress, if that is what it does.
fn progress(text: &[u8]) -> Option<Progress> {
    let params = Object::parse(text)?.object("params")?;
    Some(Progress { progress: params.get("progress")?, total: params.get("total"), message: params.string("message") })
}
