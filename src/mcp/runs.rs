//! Calls under way and just ended: each call is a *run* with an unguessable id, a bounded log and any number of
//! watchers.
//!
//! A run's log is the truth; what wakes its watchers only says that there is more to read. A watcher keeps a cursor and
//! reads what lies behind it, so that it sees each event once, in order, whenever it came.

mod registry;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;

pub use registry::{Announcement, Publish, Runs, RunsFull};
pub use watch::Watch;

use super::auth::Identity;
use super::tools::{
    CancelReason, Cancellation, ProgressSink, Registered, Seat, Stopwatch, ToolContext, ToolError, ToolOutput, Work,
};
use crate::clock;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::event::{self, Event, EventKind, RunStatus, RunSummary};
use crate::protocol::mcp::progress::{Progress, ProgressGate};
use crate::protocol::mcp::run_log::{Entry, RunLimits, RunLog};
use crate::protocol::mcp::tool::{CallFailure, CallMetadata, CallResult};
use crate::protocol::mcp::{
    EVENT_RESULT_BYTES_MAX, PROGRESS_INTERVAL_MS, RESULT_BYTES_MAX, RUN_TOPIC_PREFIX, STREAMING_EVENT,
};

/// A call that is to become a run.
pub struct NewRun<'a> {
    /// The tool called.
    pub tool: &'a Registered,
    /// What it is to do, its arguments read.
    pub work: Work,
    /// The JSON-RPC id of the call.
    pub request_id: Box<RawValue>,
    /// Whose call it is.
    pub owner: Identity,
    /// On which connection it came.
    pub connection: u64,
}

/// One call of a tool, from its start until its log is forgotten.
pub struct Run {
    id: String,
    topic: String,
    tool: Arc<str>,
    owner: Identity,
    connection: u64,
    request_id: Box<RawValue>,
    started_at: String,
    cancellation: Cancellation,
    publish: Publish,
    state: Mutex<State>,
}

struct State {
    log: RunLog,
    gate: ProgressGate,
    finished_at: Option<String>,
    /// The result for the caller, until its session takes it.
    result: Option<Box<RawValue>>,
    watches: Vec<Arc<Watch>>,
    is_end_published: bool,
}

/// How a run ended.
enum Ending {
    Completed(ToolOutput),
    Failed { reason: &'static str, error: String },
}

impl Run {
    fn new(new: &NewRun<'_>, id: String, limits: RunLimits, publish: Publish) -> Self {
        Run {
            topic: format!("{RUN_TOPIC_PREFIX}{id}"),
            id,
            tool: Arc::clone(&new.tool.name),
            owner: new.owner.clone(),
            connection: new.connection,
            request_id: new.request_id.clone(),
            started_at: clock::wall_iso8601_micros(),
            cancellation: Cancellation::new(),
            publish,
            state: Mutex::new(State {
                log: RunLog::new(limits),
                gate: ProgressGate::new(PROGRESS_INTERVAL_MS),
                finished_at: None,
                result: None,
                watches: Vec::new(),
                is_end_published: false,
            }),
        }
    }

    /// 32 lower-case hex digits: 128 random bits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose call it is.
    pub fn owner(&self) -> &Identity {
        &self.owner
    }

    /// Ends the run as failed, unless it has ended.
    pub fn cancel(&self, reason: CancelReason) {
        self.cancellation.cancel(reason);
    }

    /// The kept events numbered above `seq`, oldest first.
    pub fn events_after(&self, seq: u64) -> Vec<Entry> {
        self.state.lock().log.events_after(seq).cloned().collect()
    }

    /// Where the run stands together with all kept events: one moment, nothing in between.
    pub fn snapshot(&self) -> (RunSummary, Vec<Entry>) {
        let state = self.state.lock();
        (self.summary_of(&state), state.log.events_after(0).cloned().collect())
    }

    /// Where the run stands.
    pub fn summary(&self) -> RunSummary {
        self.summary_of(&self.state.lock())
    }

    /// Takes the result that the caller is to get, once. It is there before the terminal event.
    pub fn take_result(&self) -> Option<Box<RawValue>> {
        self.state.lock().result.take()
    }

    /// Lets someone watch from `after` on: `wake` is called when there is something to read, at once if there already
    /// is.
    ///
    /// `wake` returns whether whoever watches is still there; it may be called from any thread and must not block.
    pub fn watch(
        self: &Arc<Self>,
        after: u64,
        wake: impl Fn(&Arc<Watch>) -> bool + Send + Sync + 'static,
    ) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(Arc::clone(self), after, Box::new(wake)));
        let has_more = {
            let mut state = self.state.lock();
            if state.log.ended().is_none() {
                state.watches.push(Arc::clone(&watch));
            }
            state.log.last_seq() > after
        };
        if has_more {
            watch.notify();
        }
        watch
    }

    /// Ends a watch, however it stands; nothing happens if it has ended.
    pub fn unwatch(&self, watch: &Arc<Watch>) {
        self.state.lock().watches.retain(|other| !Arc::ptr_eq(other, watch));
    }

    /// Those who watch a run that is under way.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.state.lock().watches.len()
    }

    /// Whose call it is, and on which connection.
    fn caller(&self) -> (Arc<str>, u64) {
        (Arc::clone(&self.owner.user), self.connection)
    }

    /// The number of the newest event.
    pub fn last_seq(&self) -> u64 {
        self.state.lock().log.last_seq()
    }

    fn summary_of(&self, state: &State) -> RunSummary {
        let status = match state.log.ended() {
            None => RunStatus::Running,
            Some((EventKind::Completed, _)) => RunStatus::Completed,
            Some(_) => RunStatus::Failed,
        };
        RunSummary {
            run_id: self.id.clone(),
            tool: self.tool.to_string(),
            status,
            started_at: self.started_at.clone(),
            finished_at: state.finished_at.clone(),
            events: state.log.last_seq(),
            dropped_events: state.log.dropped(),
        }
    }

    fn start(&self) {
        self.append(EventKind::Started, &event::Started { tool: &self.tool }, None);
    }

    fn tell(&self, report: &Progress) {
        let Some(progress) = event::number(report.progress) else {
            return;
        };
        let total = report.total.and_then(event::number);
        let data = event::Progress { tool: &self.tool, progress, total, message: report.message.as_deref() };
        self.append(EventKind::Progress, &data, None);
    }

    fn end(&self, ending: Ending, execution_time_ms: u64) {
        let waiting = self.state.lock().gate.flush();
        if let Some(report) = waiting {
            self.tell(&report);
        }
        match ending {
            Ending::Completed(ToolOutput { content, usage }) => {
                let metadata =
                    CallMetadata { tool: &self.tool, execution_time: execution_time_ms, resource_usage: &usage };
                let result = jsonrpc::raw(&CallResult { content: &content, metadata });
                let bytes = result.get().len();
                if bytes > RESULT_BYTES_MAX {
                    let error =
                        format!("the result is too large: expected at most {RESULT_BYTES_MAX} bytes, came {bytes}");
                    return self.end(Ending::Failed { reason: "failed", error }, execution_time_ms);
                }
                let told = (bytes <= EVENT_RESULT_BYTES_MAX).then(|| result.clone());
                let data = event::Completed {
                    tool: &self.tool,
                    result: told.as_deref(),
                    result_bytes_omitted: told.is_none().then_some(bytes),
                    execution_time_ms,
                };
                self.append(EventKind::Completed, &data, Some(result));
            }
            Ending::Failed { reason, error } => {
                let data = event::Failed { tool: &self.tool, reason, error: &error, execution_time_ms };
                self.append(EventKind::Failed, &data, Some(jsonrpc::raw(&CallFailure::new(&error))));
            }
        }
    }

    /// Puts an event into the log and says so to everyone. Nothing happens after the run's end.
    fn append(&self, kind: EventKind, data: &impl Serialize, result: Option<Box<RawValue>>) {
        let data = jsonrpc::raw(data);
        let timestamp = clock::wall_iso8601_micros();
        let mut encoded = Bytes::new();
        let watches = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let appended = state.log.append(kind, clock::now(), |seq| {
                let event = Event {
                    kind,
                    stream_id: &self.id,
                    request_id: &self.request_id,
                    data: &data,
                    timestamp: &timestamp,
                    seq,
                };
                encoded = event.encode();
                encoded.clone()
            });
            if appended.is_err() {
                return;
            }
            if kind.is_terminal() {
                state.finished_at = Some(timestamp);
                state.result = result;
                std::mem::take(&mut state.watches)
            } else {
                state.watches.clone()
            }
        };
        let gone: Vec<_> = watches.iter().filter(|watch| !watch.notify()).map(Arc::as_ptr).collect();
        if !gone.is_empty() {
            self.state.lock().watches.retain(|watch| !gone.contains(&Arc::as_ptr(watch)));
        }
        let is_published = (self.publish)(&self.topic, STREAMING_EVENT, encoded);
        if kind.is_terminal() {
            self.state.lock().is_end_published = is_published;
        }
    }

    fn is_end_published(&self) -> bool {
        self.state.lock().is_end_published
    }

    /// Broadcasts the terminal event again; those who have it already leave it out.
    fn publish_end(&self) {
        let Some(end) = self.state.lock().log.events_after(0).last().cloned() else {
            return;
        };
        let is_published = (self.publish)(&self.topic, STREAMING_EVENT, end.event);
        self.state.lock().is_end_published = is_published;
    }
}

impl ProgressSink for Run {
    fn report(&self, progress: Progress) {
        let due = self.state.lock().gate.offer(progress, clock::now());
        if let Some(report) = due {
            self.tell(&report);
        }
    }
}

/// Runs the tool to its end, whichever that is. The task that holds this future is the run.
async fn drive(run: Arc<Run>, work: Work, execution_ms_max: u64, seat: Seat) {
    let stopwatch = Stopwatch::start();
    let sink = Arc::clone(&run) as Arc<dyn ProgressSink>;
    let context = ToolContext::new(sink, run.cancellation.clone(), seat, stopwatch.clone());
    let work = AssertUnwindSafe(async { work.run(context).await }).catch_unwind();
    // The future of the tool is dropped with this block; all three arms are cancel-safe or final.
    let ending = tokio::select! {
        biased;
        reason = run.cancellation.cancelled() => cancelled(reason, execution_ms_max),
        outcome = work => match outcome {
            Ok(Ok(output)) => Ending::Completed(output),
            Ok(Err(error @ ToolError::InvalidArguments(_))) => {
                Ending::Failed { reason: "invalid_arguments", error: error.to_string() }
            }
            Ok(Err(error @ ToolError::Failed(_))) => Ending::Failed { reason: "failed", error: error.to_string() },
            Ok(Err(error @ ToolError::Cancelled)) => Ending::Failed { reason: "cancelled", error: error.to_string() },
            Err(panic) => {
                let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
                let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(tool = &*run.tool, run = run.id, why, "a tool panicked");
                Ending::Failed { reason: "crashed", error: "the tool crashed".to_owned() }
            }
        },
        () = stopwatch.reaches(execution_ms_max) => cancelled(CancelReason::Timeout, execution_ms_max),
    };
    // Work on another thread may still go on: it is told that nobody waits.
    run.cancellation.cancel(CancelReason::Timeout);
    run.end(ending, stopwatch.worked_ms());
}

fn cancelled(reason: CancelReason, execution_ms_max: u64) -> Ending {
    let (reason, error) = match reason {
        CancelReason::Client => ("cancelled", "cancelled by the client".to_owned()),
        CancelReason::SessionEnded => ("cancelled", "cancelled: the session ended".to_owned()),
        CancelReason::Shutdown => ("cancelled", "cancelled: the server stops".to_owned()),
        CancelReason::Timeout => ("timeout", format!("timed out after {execution_ms_max} ms")),
    };
    Ending::Failed { reason, error }
}

#[cfg(test)]
mod tests;
