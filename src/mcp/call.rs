//! One request being served: what its handler says to the client meanwhile, and how it ends.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;

use super::cancel::{CancelReason, Cancellation};
use super::error::InputRequired;
use super::input::{Answers, InputRequest};
use super::outgoing::{Kind, NotStored, Outgoing};
use super::runs::{Ending, Run};
use super::session::Session;
use super::stopwatch::Stopwatch;
use super::tasks::Task;
use super::tools::{Registered, ToolOutput};
use super::workers::Seat;
use super::{CallContext, CallError, OnRestart, respond};
use crate::clock;
use crate::protocol::jsonrpc::{self, CallNumber, Fault, splice};
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::event::{number, progress_notification};
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::log_gate::{LOG_BYTES_MAX, LogGate};
use crate::protocol::mcp::progress::{Progress, ProgressGate};
use crate::protocol::mcp::relay;
use crate::protocol::mcp::tool::TaskSupport;
use crate::protocol::mcp::{LOG_MESSAGE, PROGRESS_BURST, PROGRESS_INTERVAL_MS, RESOURCE_BYTES_MAX};

/// One request under way.
pub(crate) struct Call {
    pub(super) session: Arc<Session>,
    pub(super) number: CallNumber,
    pub(super) id: Box<RawValue>,
    pub(super) subject: Subject,
    pub(super) client: Arc<Client>,
    pub(super) level: Option<Level>,
    pub(super) token: Option<Box<RawValue>>,
    /// Where its messages go.
    pub(super) route: Arc<Outgoing>,
    pub(super) input: Input,
    /// The task that the call has become: then the answer, progress and questions are the task's.
    pub(super) task: OnceLock<Arc<Task>>,
    /// The run that dashboards see, of a tool.
    pub(super) run: Option<Arc<Run>>,
    /// The run of the workflow that it executes.
    pub(super) workflow: OnceLock<Arc<Run>>,
    pub(super) seat: Seat,
    pub(super) cancellation: Cancellation,
    /// What the client said why it takes the request back.
    pub(super) why_taken_back: OnceLock<String>,
    pub(super) stopwatch: Stopwatch,
    /// Whether it is left without an answer, to go on after a restart.
    pub(super) is_left: AtomicBool,
    pub(super) stage: Mutex<Stage>,
}

/// What is asked for.
pub(crate) enum Subject {
    Tool(Arc<Registered>),
    Resource(String),
    Prompt,
    /// What has no failures of a shape of its own.
    Other,
    /// A workflow, whose run has a limit of its own.
    Workflow,
    /// A request that is passed on: for how long at most.
    Relayed {
        limit_ms: u64,
    },
}

/// How questions to the client are answered.
pub(crate) enum Input {
    /// By requests to it, while the call waits.
    Requests,
    /// By what came with the call, whose method and params these are.
    Answers { answers: Answers, method: Box<str>, params: Option<Box<RawValue>> },
}

/// How far a call has got.
#[derive(Debug)]
pub(crate) struct Stage {
    has_ended: bool,
    gate: ProgressGate,
    logs: LogGate,
}

impl Default for Stage {
    fn default() -> Self {
        let gate = ProgressGate::new(PROGRESS_BURST, PROGRESS_INTERVAL_MS);
        Stage { has_ended: false, gate, logs: LogGate::default() }
    }
}

/// What serving brought.
pub(crate) enum Output {
    /// A tool's output; what its result looks like depends on the client.
    Tool(ToolOutput),
    /// The fields of a result.
    Body(Box<RawValue>),
    /// Another server's response.
    Relayed(Relayed),
}

/// Another server's response, as its text under the client's id.
pub(crate) struct Relayed {
    pub(super) text: Bytes,
    /// The code and the words of its error, if it is one.
    pub(super) error: Option<(i64, String)>,
}

/// The future of a handler.
pub(crate) type Work = BoxFuture<'static, Result<Output, CallError>>;

/// The milliseconds that prompts, resources and completions may take.
pub(super) const SERVING_MS_MAX: u64 = 30_000;
/// The same of what executes a workflow: a little more than a run may take.
const WORKFLOW_MS_MAX: u64 = crate::protocol::workflow::TIMEOUT_MS_MAX + 60_000;

impl Call {
    /// Does the work of a call: at once, if it never waits, or else in a task of its own.
    pub(super) fn start(self: &Arc<Self>, work: impl FnOnce(CallContext) -> Work) {
        let context = CallContext::new(Arc::clone(self));
        let work = |context| self.behind_store(work(context));
        let begun = std::panic::catch_unwind(AssertUnwindSafe(|| work(context)));
        let mut work = match begun {
            Ok(work) => AssertUnwindSafe(work).catch_unwind(),
            Err(panic) => return self.end(Err(crashed(panic.as_ref())), "crashed"),
        };
        // Polled once more by the task, which then leaves its waker: a future has to bear that.
        if let Poll::Ready(outcome) = work.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            return self.done(outcome);
        }
        let call = Arc::clone(self);
        call.session.keep(&call);
        if call.order().is_none() {
            // Its client is told of a restart meanwhile.
            call.route.recovery(|recovery| recovery.stir());
        }
        let under_way = call.session.mcp.under_way.begin(&call);
        // Owned by `under_way`: whoever drains cancels the call and waits until the task has ended.
        tokio::spawn(async move {
            let _under_way = under_way;
            let limit_ms = call.execution_ms_max();
            // The future of the handler is dropped with this block; all three arms are cancel-safe or final.
            tokio::select! {
                biased;
                reason = call.cancellation.cancelled() => call.cut(reason),
                outcome = &mut work => call.done(outcome),
                () = call.stopwatch.reaches(limit_ms) => call.cut(CancelReason::Timeout),
            }
        });
    }

    /// The work of a call whose session is stored begins when that it begins is stored.
    fn behind_store(&self, work: Work) -> Work {
        if !self.route.is_stored() || self.order().is_none() {
            return work;
        }
        let route = Arc::clone(&self.route);
        let behind = async move {
            // Where it can't be, the session ends, and this call with it.
            route.until_stored().await.map_err(|NotStored| CallError::Cancelled)?;
            work.await
        };
        behind.boxed()
    }

    /// Which of the calls of a session that can be come back to it is.
    pub(super) fn order(&self) -> Option<u64> {
        self.route.recovery(|recovery| recovery.executions().order(self.number)).flatten()
    }

    /// Whether it goes on after the restart of a server that stops.
    fn goes_on(&self, reason: CancelReason) -> bool {
        let reruns = matches!(&self.subject, Subject::Tool(tool) if tool.on_restart == OnRestart::Rerun);
        reason == CancelReason::Shutdown && reruns && self.route.is_stored() && self.task.get().is_none()
    }

    /// Ends the call from outside. The client gets no answer if it was its wish, and otherwise is told why.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        self.cancellation.cancel(reason);
    }

    /// Whether a workflow's run is what it waits for.
    pub(super) fn executes_workflow(&self) -> bool {
        matches!(self.subject, Subject::Workflow) || self.workflow.get().is_some()
    }

    /// Why the call was ended from outside, if it was.
    pub(super) fn cancel_reason(&self) -> Option<CancelReason> {
        self.cancellation.reason()
    }

    /// Lets whoever observes the session see the run of the workflow that the call executes.
    pub(super) fn shows(&self, run: &Arc<Run>) {
        if self.workflow.set(Arc::clone(run)).is_ok() {
            self.session.show(run);
        }
    }

    /// Gives the caller an event of the workflow that the call executes; nothing follows the answer.
    pub(super) fn show_event(&self, event: Bytes) {
        let stage = self.stage.lock();
        if !stage.has_ended && !self.is_given_up() {
            self.route.push(Kind::Event, event);
        }
    }

    /// Why the call was ended from outside, for whoever works for it elsewhere.
    pub(super) fn why_cancelled(&self) -> Option<String> {
        if let Some(why) = self.why_taken_back.get() {
            return Some(why.clone());
        }
        self.cancellation.reason().map(|reason| self.cut_text(reason).1)
    }

    fn execution_ms_max(&self) -> u64 {
        match &self.subject {
            Subject::Tool(tool) => tool.execution_ms_max,
            Subject::Relayed { limit_ms } => *limit_ms,
            Subject::Workflow => WORKFLOW_MS_MAX,
            _ => SERVING_MS_MAX,
        }
    }

    fn cut(self: &Arc<Self>, reason: CancelReason) {
        let (sort, text) = self.cut_text(reason);
        // For whoever works for it elsewhere, unless the client said why.
        let _ = self.why_taken_back.set(text.clone());
        self.is_left.store(self.goes_on(reason), Ordering::Relaxed);
        self.end(Err(CallError::Failed(text)), sort);
    }

    fn cut_text(&self, reason: CancelReason) -> (&'static str, String) {
        match reason {
            CancelReason::Client => ("cancelled", "cancelled by the client".to_owned()),
            CancelReason::SessionEnded => ("cancelled", "cancelled: the session ended".to_owned()),
            CancelReason::Shutdown => ("cancelled", "cancelled: the server stops".to_owned()),
            CancelReason::Over => ("cancelled", "cancelled".to_owned()),
            CancelReason::Timeout => ("timeout", format!("timed out after {} ms", self.execution_ms_max())),
        }
    }

    fn done(self: &Arc<Self>, outcome: Result<Result<Output, CallError>, Box<dyn std::any::Any + Send>>) {
        match outcome {
            Ok(Ok(output)) => self.end(Ok(output), ""),
            Ok(Err(error)) => {
                let sort = match &error {
                    CallError::InvalidArguments(_) => "invalid_arguments",
                    CallError::Cancelled => "cancelled",
                    CallError::InputRequired(_) => "input_required",
                    _ => "failed",
                };
                self.end(Err(error), sort);
            }
            Err(panic) => {
                let error = crashed(panic.as_ref());
                self.end(Err(error), "crashed");
            }
        }
    }

    /// Ends the call: what is left of progress, the run's last event, then the response; nothing follows it.
    fn end(self: &Arc<Self>, outcome: Result<Output, CallError>, sort: &'static str) {
        let mut stage = self.stage.lock();
        if std::mem::replace(&mut stage.has_ended, true) {
            return;
        }
        if let Some(report) = stage.gate.flush() {
            self.tell(report);
        }
        self.tell_left_out(&mut stage);
        // Work on another thread may still go on: it is told that nobody waits.
        self.cancellation.cancel(CancelReason::Over);
        let worked_ms = self.stopwatch.worked_ms();
        let body = match outcome {
            Ok(Output::Body(body)) => respond::within(body, RESOURCE_BYTES_MAX),
            Ok(Output::Tool(output)) => respond::tool_result(self, &output, worked_ms),
            Ok(Output::Relayed(relayed)) => return self.end_relayed(relayed, worked_ms),
            Err(error) => Err(error),
        };
        let was_not_run = self.run.is_none() && matches!(body, Err(CallError::InvalidArguments(_)));
        if was_not_run || matches!(body, Err(CallError::InputRequired(_))) {
            // One that asks its client for more begins anew with the answers.
            self.route.answers_not_run(self.number);
        }
        let reason = if sort.is_empty() { "failed" } else { sort };
        let ending = match &body {
            Ok(result) => Ending::Completed(result),
            Err(error) => Ending::Failed { reason, error: error.to_string() },
        };
        self.end_run(ending, worked_ms);
        self.session.forget(self);
        self.answer(body.or_else(|error| respond::failure(self, &error)));
    }

    fn end_run(&self, ending: Ending<'_>, worked_ms: u64) {
        let Some(run) = &self.run else { return };
        let completed = matches!(ending, Ending::Completed(_));
        if let Some(event) = run.end(ending, worked_ms, self.session.is_streaming()) {
            self.route.push(Kind::Event, event);
        }
        self.session.mcp.workflows.tool_ended(run, completed);
    }

    /// Ends a call with another server's response.
    fn end_relayed(&self, relayed: Relayed, worked_ms: u64) {
        let Relayed { text, error } = relayed;
        let code = error.as_ref().map(|(code, _)| *code);
        if self.route.remembers_calls()
            && std::str::from_utf8(&text)
                .ok()
                .and_then(|text| splice::get(text, &["result"]))
                .is_some_and(asks_for_input)
        {
            self.route.answers_not_run(self.number);
        }
        if self.run.is_some() {
            let response = jsonrpc::Object::parse(&text).unwrap_or_default();
            match (response.raw("result"), error) {
                (Some(result), None) if asks_for_input(result.get()) => {
                    let error = CallError::InputRequired(InputRequired(())).to_string();
                    self.end_run(Ending::Failed { reason: "input_required", error }, worked_ms);
                }
                (Some(result), None) => self.end_run(Ending::Completed(result), worked_ms),
                (_, error) => {
                    let error = error.map(|(_, message)| message).unwrap_or_default();
                    self.end_run(Ending::Failed { reason: "failed", error }, worked_ms);
                }
            }
        }
        self.session.forget(self);
        if self.session.finish(self.number) {
            self.route.answer(self.number, Kind::Response(code), text);
        } else {
            self.route.unanswered(self.number);
        }
    }

    /// Takes another server's report of progress: its caller gets it as it is, those who watch as reports of any tool.
    pub(super) fn relay_progress(&self, text: &str, params: &jsonrpc::Object<'_>) {
        let mut stage = self.stage.lock();
        if stage.has_ended || self.is_given_up() {
            return;
        }
        if let (Some(run), Some(progress)) = (&self.run, params.get("progress")) {
            let report = Progress { progress, total: params.get("total"), message: params.string("message") };
            let report = stage.gate.offer(report, clock::now());
            if let Some(event) = report.and_then(|report| run.tell(report, self.session.is_streaming())) {
                self.route.push(Kind::Event, event);
            }
        }
        if let Some(token) = &self.token {
            self.route.push(Kind::Notification, relay::progress(text, token).into());
        }
    }

    /// Passes another server's notification on.
    pub(super) fn relay_notification(&self, text: &str) {
        let stage = self.stage.lock();
        if !stage.has_ended && !self.is_given_up() {
            self.route.push(Kind::Notification, Bytes::copy_from_slice(text.as_bytes()));
        }
    }

    fn answer(self: &Arc<Self>, answer: Result<Box<RawValue>, Fault>) {
        if let Some(task) = self.task.get() {
            return task.finish(answer);
        }
        if self.is_left.load(Ordering::Relaxed) {
            self.session.finish(self.number);
            return;
        }
        let compat = self.session.mcp.compat(self.client.era);
        if self.session.finish(self.number) {
            let (text, code) = match &answer {
                Ok(result) => (jsonrpc::result_response(&self.id, result), None),
                Err(fault) => (jsonrpc::error_response(Some(&self.id), fault, compat), Some(fault.code(compat))),
            };
            self.route.answer(self.number, Kind::Response(code), text);
        } else {
            self.route.unanswered(self.number);
        }
    }

    /// Takes a report of progress.
    pub(super) fn progress(&self, report: Progress) {
        let mut stage = self.stage.lock();
        if stage.has_ended {
            return;
        }
        if let Some(report) = stage.gate.offer(report, clock::now()) {
            self.tell(report);
        }
    }

    /// Tells the run's watchers and the caller. Under the lock of the stage, so that nothing follows the end.
    fn tell(&self, report: Progress) {
        let notification = match (&self.token, self.task.get()) {
            (_, Some(task)) => {
                if let Some(message) = &report.message {
                    task.note(message);
                }
                None
            }
            // What another server reports has reached its caller already.
            (Some(token), None) if !self.is_given_up() && !matches!(self.subject, Subject::Relayed { .. }) => {
                let total = report.total.and_then(number);
                number(report.progress)
                    .map(|progress| progress_notification(token, &progress, total.as_ref(), report.message.as_deref()))
            }
            _ => None,
        };
        let event = self.run.as_ref().and_then(|run| run.tell(report, self.session.is_streaming()));
        if let Some(event) = event {
            self.route.push(Kind::Event, event);
        }
        if let Some(notification) = notification {
            self.route.push(Kind::Notification, notification);
        }
    }

    /// Lets the client come back for what follows, where its stream can be picked up again.
    pub(super) fn pause_stream(&self) {
        let stage = self.stage.lock();
        if !stage.has_ended && self.task.get().is_none() {
            self.route.mark(Kind::Pause);
        }
    }

    /// Sends a log message, if the client wants such and is not flooded.
    pub(super) fn log(&self, level: Level, logger: Option<&str>, data: &RawValue) {
        let least = match self.client.era {
            Era::Modern => self.level,
            Era::Legacy | Era::Elixir => Some(self.session.level()),
        };
        if least.is_none_or(|least| level < least) {
            return;
        }
        let mut stage = self.stage.lock();
        if stage.has_ended || self.task.get().is_some() || self.is_given_up() || !stage.logs.admit(clock::now()) {
            return;
        }
        self.tell_left_out(&mut stage);
        let bytes = data.get().len();
        if bytes > LOG_BYTES_MAX {
            let told = jsonrpc::raw(&format!("{bytes} bytes, of which at most {LOG_BYTES_MAX} are sent"));
            return self.send_log(level, logger, &told);
        }
        self.send_log(level, logger, data);
    }

    /// Says how many log messages were left out, if any were.
    fn tell_left_out(&self, stage: &mut Stage) {
        let left_out = stage.logs.take_left_out();
        if left_out > 0 && self.task.get().is_none() && !self.is_given_up() {
            let told = jsonrpc::raw(&format!("{left_out} messages were left out here: too many came at once"));
            self.send_log(Level::Warning, Some("bennu"), &told);
        }
    }

    fn send_log(&self, level: Level, logger: Option<&str>, data: &RawValue) {
        #[derive(Serialize)]
        struct Params<'a> {
            level: Level,
            #[serde(skip_serializing_if = "Option::is_none")]
            logger: Option<&'a str>,
            data: &'a RawValue,
        }

        let text = jsonrpc::notification(LOG_MESSAGE, &jsonrpc::raw(&Params { level, logger, data }));
        self.route.push(Kind::Notification, text);
    }

    /// Whether the client took its request back: nothing more is said of it.
    fn is_given_up(&self) -> bool {
        self.cancellation.reason() == Some(CancelReason::Client)
    }

    /// Asks the client.
    pub(super) async fn ask(self: &Arc<Self>, key: &str, request: &InputRequest) -> Result<Box<RawValue>, CallError> {
        if let Some(missing) = request.missing(&self.client.capabilities) {
            return Err(CallError::MissingCapability(missing));
        }
        if self.stage.lock().has_ended {
            return Err(CallError::Cancelled);
        }
        if let Some(task) = self.task.get() {
            let _pause = self.stopwatch.pause();
            return task.ask(key, request).await;
        }
        match &self.input {
            Input::Answers { answers, .. } => {
                answers.answer(key, request).ok_or(CallError::InputRequired(InputRequired(())))
            }
            Input::Requests => {
                let _pause = self.stopwatch.pause();
                // A clone of the context may outlive the call; nobody answers it then.
                tokio::select! {
                    biased;
                    _ = self.cancellation.cancelled() => Err(CallError::Cancelled),
                    answer = self.session.ask(self, request) => answer,
                }
            }
        }
    }

    /// Turns the call into a task, if its tool and its client have them: the client is answered with the task at once.
    /// Whether it is one now.
    pub(super) fn become_task(self: &Arc<Self>) -> bool {
        let is_able = self.client.era == Era::Modern && self.client.capabilities.tasks;
        let Subject::Tool(tool) = &self.subject else { return false };
        if !is_able || tool.tasks == TaskSupport::Never {
            return false;
        }
        if self.task.get().is_some() {
            return true;
        }
        let stage = self.stage.lock();
        if stage.has_ended {
            return false;
        }
        let Some(task) = self.session.mcp.tasks.begin(self) else { return false };
        if self.task.set(Arc::clone(&task)).is_err() {
            return true;
        }
        if self.session.finish(self.number) {
            let text =
                jsonrpc::result_response(&self.id, &respond::modern(&self.session.server, "task", "", &task.created()));
            self.route.answer(self.number, Kind::Response(None), text);
        } else {
            // Nobody got its id.
            self.route.unanswered(self.number);
            self.cancel(CancelReason::Client);
        }
        drop(stage);
        // From here on it is the task's: it outlives the session.
        self.session.forget(self);
        true
    }
}

/// Whether a result asks for more before the call can be made.
fn asks_for_input(result: &str) -> bool {
    splice::get(result, &["resultType"]) == Some("\"input_required\"")
}

fn crashed(panic: &(dyn std::any::Any + Send)) -> CallError {
    let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
    let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(why, "a handler panicked");
    CallError::Failed("the tool crashed".to_owned())
}
