//! Calling a tool by itself in a test.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    Arguments, CancelReason, Cancellation, ProgressSink, Stopwatch, Tool, ToolContext, ToolError, ToolOutput, Workers,
};
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::progress::Progress;

/// Every report, in order.
pub(crate) type Reports = Arc<Mutex<Vec<Progress>>>;

struct Recorder(Reports, Cancellation, usize);

impl ProgressSink for Recorder {
    fn report(&self, progress: Progress) {
        let mut reports = self.0.lock();
        reports.push(progress);
        if reports.len() == self.2 {
            self.1.cancel(CancelReason::Client);
        }
    }
}

/// A context that keeps what is reported.
pub(crate) fn context() -> (ToolContext, Reports) {
    context_cancelled_after(usize::MAX)
}

/// A context that is cancelled by its `count`th report; 0 for from the start.
pub(crate) fn context_cancelled_after(count: usize) -> (ToolContext, Reports) {
    let (reports, cancellation) = (Reports::default(), Cancellation::new());
    if count == 0 {
        cancellation.cancel(CancelReason::Client);
    }
    let sink = Arc::new(Recorder(Arc::clone(&reports), cancellation.clone(), count));
    let seat = Workers::new(1, 1).admit(1).expect("the first");
    (ToolContext::new(sink, cancellation, seat, Stopwatch::start()), reports)
}

/// Calls a tool; `arguments` is a JSON object.
pub(crate) async fn call(tool: &dyn Tool, arguments: Value, context: ToolContext) -> Result<ToolOutput, ToolError> {
    let text = arguments.to_string();
    let arguments = Arguments(Object::parse(text.as_bytes()).expect("an object of arguments"));
    tool.prepare(&arguments)?.run(context).await
}
