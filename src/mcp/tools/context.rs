//! What a running tool can do beside its work: report progress, notice that nobody waits any more, use a thread.

use std::sync::Arc;

use super::{Cancellation, Seat, Stopwatch, ToolError};
use crate::protocol::mcp::progress::Progress;

/// Where a tool's reports go. Called from any thread; does not block.
pub trait ProgressSink: Send + Sync + 'static {
    /// Takes a report. It may be merged with later ones, see `ProgressGate`.
    fn report(&self, progress: Progress);
}

/// The surroundings of one call. Clones belong to the same call.
#[derive(Clone)]
pub struct ToolContext {
    sink: Arc<dyn ProgressSink>,
    cancellation: Cancellation,
    seat: Seat,
    stopwatch: Stopwatch,
}

impl ToolContext {
    /// The surroundings of a call.
    pub fn new(sink: Arc<dyn ProgressSink>, cancellation: Cancellation, seat: Seat, stopwatch: Stopwatch) -> Self {
        ToolContext { sink, cancellation, seat, stopwatch }
    }

    /// Reports progress in the unit of `total`. It has to grow; what does not is dropped.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<String>) {
        self.sink.report(Progress { progress, total, message });
    }

    /// Whether the call is over for everyone but the tool.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.reason().is_some()
    }

    /// Fails if the call is over: `context.check()?` in a loop.
    ///
    /// # Errors
    /// [`ToolError::Cancelled`].
    pub fn check(&self) -> Result<(), ToolError> {
        if self.is_cancelled() { Err(ToolError::Cancelled) } else { Ok(()) }
    }

    /// Does work that keeps a thread busy on one made for it. Calls above the workers' number wait for their turn,
    /// which does not count against the tool's `max_execution_time`.
    ///
    /// `work` must [`check`](Self::check) often: it is not interrupted. A panic of `work` goes on here.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ToolContext) -> Result<T, ToolError> + Send + 'static,
    ) -> Result<T, ToolError> {
        let turn = {
            let _pause = self.stopwatch.pause();
            self.seat.turn().await
        };
        let context = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            // The turn goes along, so that work which outlives its call still counts.
            let _turn = turn;
            work(&context)
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime stops and never started the work.
            Err(_) => Err(ToolError::Cancelled),
        }
    }
}
