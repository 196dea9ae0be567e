//! What a handler can do beside its work: report progress, log, ask the client, notice that nobody waits any more, use a
//! thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::auth::Identity;
use super::call::{Call, Input};
use super::error::InputRequired;
use super::input::InputRequest;
use super::server::ServerShared;
use super::{CallError, CancelReason};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::client::Client;
use crate::protocol::mcp::elicitation::{Answer, Form, UrlRequest};
use crate::protocol::mcp::event::RunSummary;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::progress::Progress;
use crate::protocol::mcp::roots::{self, Root};
use crate::protocol::mcp::sampling::{SamplingRequest, SamplingResult};

/// The surroundings of one call of a tool, a resource or a prompt. Clones belong to the same call.
///
/// # Questions to the client
///
/// [`elicit`](CallContext::elicit), [`sample`](CallContext::sample), [`roots`](CallContext::roots) and
/// [`ask_all`](CallContext::ask_all) wait for the answer where the client's revision has requests of the server. In a stateless
/// revision they fail with [`CallError::InputRequired`], which the handler passes on with `?`; the client calls again with the
/// answer, **the handler runs from its beginning**, and the question is answered at once. So a handler does what has effects
/// after its last question, and gives each question a key of its own.
#[derive(Clone)]
pub struct CallContext {
    call: Arc<Call>,
}

impl CallContext {
    pub(super) fn new(call: Arc<Call>) -> Self {
        CallContext { call }
    }

    /// Reports progress in the unit of `total`. It has to grow; what does not is dropped, and a flood is thinned.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<String>) {
        self.call.progress(Progress { progress, total, message });
    }

    /// Sends the client a log message, if it wants such of this level. What has no JSON form is logged as null.
    pub fn log(&self, level: Level, logger: Option<&str>, data: impl Serialize) {
        let data = serde_json::value::to_raw_value(&data).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.call.log(level, logger, &data);
    }

    /// Who calls.
    pub fn user(&self) -> &Identity {
        &self.call.session.user
    }

    /// The id of the session that calls: on a channel that of the join's reply; over HTTP the server's own name for the
    /// session, since that of the header is its client's secret. None for a request over HTTP that belongs to no session, as
    /// those of the stateless revision, and after the session's end.
    pub fn session_id(&self) -> Option<&str> {
        let session = &self.call.session;
        session.mcp.sessions.find(session.id()).map(|_| session.id())
    }

    /// What tells this call from all others, also after a restart of the server that has it run again ([`OnRestart::Rerun`]): a tool that
    /// keeps what it did under this id does it once.
    ///
    /// [`OnRestart::Rerun`]: super::OnRestart::Rerun
    pub fn execution_id(&self) -> String {
        let session = self.call.session.id();
        match self.call.order() {
            Some(order) => format!("{session}.{order}"),
            None => format!("{session}.c{}", self.call.number.0),
        }
    }

    /// Whether a restart of the server may have the call run again.
    pub(super) fn may_run_again(&self) -> bool {
        self.call.route.is_stored() && self.call.order().is_some()
    }

    /// The runs of this user that are remembered, in the order in which they began; of many the newest.
    pub(super) fn runs(&self) -> Vec<RunSummary> {
        self.call.session.mcp.runs().list(|owner| owner == self.user()).0
    }

    /// The call itself.
    pub(super) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.call)
    }

    /// The server that is called.
    pub(super) fn server(&self) -> &ServerShared {
        &self.call.session.server
    }

    /// What is known of the client: its revision, its capabilities, its name.
    pub fn client(&self) -> &Client {
        &self.call.client
    }

    /// Whether the call is over for everyone but the handler.
    pub fn is_cancelled(&self) -> bool {
        self.call.cancellation.reason().is_some()
    }

    /// Waits until the call is over for everyone but the handler; its future is then dropped, unless it is on a thread.
    pub async fn cancelled(&self) -> CancelReason {
        self.call.cancellation.cancelled().await
    }

    /// Fails if the call is over: `context.check()?` in a loop.
    ///
    /// # Errors
    /// [`CallError::Cancelled`].
    pub fn check(&self) -> Result<(), CallError> {
        if self.is_cancelled() { Err(CallError::Cancelled) } else { Ok(()) }
    }

    /// Asks the client's user to fill in a form. An answer that does not fit it is asked for again where the revision allows.
    ///
    /// # Errors
    /// [`CallError::MissingCapability`], [`CallError::InputRequired`] (pass it on), or [`CallError::Failed`] if the client gave
    /// no fitting answer in time.
    pub async fn elicit(&self, key: &str, form: &Form) -> Result<Answer, CallError> {
        self.ask(key, &InputRequest::form(form, self.call.client.version), |answer| form.read(answer)).await
    }

    /// Asks the client's user to visit a page; the answer says whether they agreed to.
    ///
    /// # Errors
    /// As [`CallContext::elicit`].
    pub async fn elicit_url(&self, key: &str, page: &UrlRequest) -> Result<Answer, CallError> {
        self.ask(key, &InputRequest::url(page), Answer::parse).await
    }

    /// Asks the client's model.
    ///
    /// # Errors
    /// As [`CallContext::elicit`].
    pub async fn sample(&self, key: &str, sampling: &SamplingRequest) -> Result<SamplingResult, CallError> {
        self.ask(key, &InputRequest::sampling(sampling), SamplingResult::read).await
    }

    /// Asks in which folders the client works.
    ///
    /// # Errors
    /// As [`CallContext::elicit`].
    pub async fn roots(&self, key: &str) -> Result<Vec<Root>, CallError> {
        self.ask(key, &InputRequest::roots(), roots::read).await
    }

    /// Asks several questions at once; gives the answers as they came, by their keys. A stateless client gets them all in one
    /// round.
    ///
    /// # Errors
    /// As [`CallContext::elicit`]; answers are not checked.
    pub async fn ask_all(
        &self,
        requests: impl IntoIterator<Item = (String, InputRequest)>,
    ) -> Result<BTreeMap<String, Box<RawValue>>, CallError> {
        let requests: Vec<_> = requests.into_iter().collect();
        let asked = requests.iter().map(|(key, request)| self.call.ask(key, request));
        let answers = futures::future::join_all(asked).await;
        requests.iter().zip(answers).map(|((key, _), answer)| Ok((key.clone(), answer?))).collect()
    }

    /// What the handler kept with [`CallContext::keep`] in an earlier round of this call; none in the first, and none where
    /// the client's revision has no rounds.
    pub fn kept<T: DeserializeOwned>(&self) -> Option<T> {
        let Input::Answers { answers, .. } = &self.call.input else { return None };
        serde_json::from_str(answers.state()?.get()).ok()
    }

    /// Keeps a value for the next round of this call, in `requestState`: the client can read it, but neither change it nor use
    /// it for another request, another user or after a while.
    pub fn keep<T: Serialize>(&self, value: &T) {
        if let (Input::Answers { answers, .. }, Ok(value)) = (&self.call.input, serde_json::value::to_raw_value(value))
        {
            answers.set_state(value);
        }
    }

    /// Turns the call of a tool that begins its tasks by itself ([`ToolSpec::begins_as_task`]) into one, where its client has
    /// them: the client is answered with the task at once, and the call goes on beside it. Whether it is a task now.
    ///
    /// [`ToolSpec::begins_as_task`]: crate::protocol::mcp::tool::ToolSpec::begins_as_task
    pub fn become_task(&self) -> bool {
        self.call.become_task()
    }

    /// Ends the HTTP response that the client reads, and goes on with the call: the client comes back for its messages after a
    /// while, so that work of minutes holds no connection. Does nothing where the client could not come back: on a channel,
    /// and in revisions other than 2025-11-25.
    pub fn close_stream(&self) {
        self.call.pause_stream();
    }

    /// Does work that keeps a thread busy on one made for it. Calls above the workers' number wait for their turn,
    /// which does not count against the time that a call may take.
    ///
    /// `work` must [`check`](Self::check) often: it is not interrupted. A panic of `work` goes on here.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CallContext) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let turn = {
            let _pause = self.call.stopwatch.pause();
            self.call.seat.turn().await
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
            Err(_) => Err(CallError::Cancelled),
        }
    }

    /// Asks, and again where the answer does not fit and the call has a way to.
    async fn ask<T, E: std::fmt::Display>(
        &self,
        key: &str,
        request: &InputRequest,
        read: impl Fn(&RawValue) -> Result<T, E>,
    ) -> Result<T, CallError> {
        loop {
            let answer = self.call.ask(key, request).await?;
            let unfit = match read(&answer) {
                Ok(answer) => return Ok(answer),
                Err(unfit) => unfit,
            };
            if self.call.task.get().is_some() {
                // Its client learns by `tasks/get` that the answer is still wanted.
                continue;
            }
            if let Input::Answers { answers, .. } = &self.call.input {
                answers.refuse(key, request);
                return Err(CallError::InputRequired(InputRequired(())));
            }
            return Err(CallError::Failed(format!("the client's answer does not fit: {unfit}")));
        }
    }
}

impl std::fmt::Debug for CallContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallContext({})", jsonrpc::id_key(&self.call.id))
    }
}
