//! A call of a tool under way: what a tool does with its client.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::message::Arguments;
use crate::odd;
use crate::output::Output;
use crate::server::{Era, INVALID_PARAMS, MISSING_CAPABILITY, Reply, Request, Server, Session, Work, lock};

/// How long a client may think.
const PATIENCE_MS: u64 = 60_000;
/// How often a call that waits for its client looks whether it is cancelled.
const LOOK_MS: u64 = 20;

/// What a client has to send back unchanged: as it is written, and what it means.
const REQUEST_STATE: (&str, &str) =
    (r#""odd \"state\" \u00e9\/\ud83d\ude00 1e2 {\"zeta\":1.0}""#, "odd \"state\" é/😀 1e2 {\"zeta\":1.0}");
/// The name under which the stateless era asks: as it is written, and what it means.
const INPUT_KEY: &str = r#""odd \"key\" \u00e9\/""#;

pub struct Call {
    pub session: Arc<Session>,
    pub request: Request,
    pub output: Arc<Output>,
    is_cancelled: Mutex<bool>,
    cancelling: Condvar,
}

/// What a tool asks its client.
pub struct Question {
    pub method: &'static str,
    /// The client's word that it can answer.
    pub capability: &'static str,
    /// The members of the request's parameters.
    pub members: String,
}

impl Call {
    /// Begins a call, so that it can be cancelled.
    pub fn begin(session: &Arc<Session>, request: Request, output: Arc<Output>) -> Arc<Self> {
        let session = session.clone();
        let (is_cancelled, cancelling) = Default::default();
        let call = Arc::new(Call { session, request, output, is_cancelled, cancelling });
        call.session.begin(&call);
        call
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.session.server
    }

    pub fn arguments(&self) -> &Arguments {
        &self.request.params.arguments
    }

    pub fn cancel(&self) {
        self.server().log(&format!(r#""event":"cancelled","id":{}"#, self.request.id.get()));
        *lock(&self.is_cancelled) = true;
        self.cancelling.notify_all();
    }

    pub fn is_cancelled(&self) -> bool {
        *lock(&self.is_cancelled)
    }

    pub fn wait_until_cancelled(&self) {
        let is_cancelled = lock(&self.is_cancelled);
        drop(self.cancelling.wait_while(is_cancelled, |is_cancelled| !*is_cancelled));
    }

    /// Sleeps, or until it is cancelled.
    pub fn sleep(&self, duration: Duration) {
        let is_cancelled = lock(&self.is_cancelled);
        let slept = self.cancelling.wait_timeout_while(is_cancelled, duration, |is_cancelled| !*is_cancelled);
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    /// The response with these members in its result.
    pub fn response(&self, members: &str) -> String {
        odd::response(self.request.id.get(), &self.request.result(members))
    }

    /// The response with a text.
    pub fn text_response(&self, text: &str) -> String {
        self.response(&content(text))
    }

    /// Answers, unless it is cancelled.
    pub fn send(&self, text: &str) {
        if !self.is_cancelled() {
            self.output.send(text);
        }
    }

    pub fn answer(&self, text: &str) {
        self.send(&self.text_response(text));
    }

    /// Answers with a text and structured content of these members.
    pub fn answer_structured(&self, text: &str, members: &str) {
        let structured = format!(r#"{} ,"structuredContent":{{ "x-odd":1.0,{members}}}"#, content(text));
        self.send(&self.response(&structured));
    }

    pub fn fail(&self, code: &str, message: &str, data: &str) {
        if let Work::Answer(answer) = self.request.refuse(code, message, data) {
            self.send(&answer.text);
        }
    }

    pub fn fail_as_tool(&self, text: &str) {
        let members = format!(r#""isError":true , {},"x-odd-error":{}"#, content(text), odd::VALUE);
        self.send(&self.response(&members));
    }

    /// Reports progress, if the client gave a token.
    pub fn progress(&self, progress: u64, total: u64) {
        if let Some(text) = self.progress_text(progress, total) {
            self.output.send(&text);
        }
    }

    pub fn progress_text(&self, progress: u64, total: u64) -> Option<String> {
        let token = self.request.params.meta.progress_token.as_ref()?;
        let params = format!(
            r#"{{ "total":{total}e0,{},"message":"{progress} \/ {total} \u00e9" ,"progress":{progress}.0 , "progressToken":{},"_meta":{{{}}}}}"#,
            odd::MEMBERS,
            token.get(),
            odd::META
        );
        Some(odd::notification("notifications/progress", &params))
    }

    pub fn log_text(&self, level: &str, count: u64) -> String {
        let params = format!(
            r#"{{ "data":{{"zeta":1e2,"count":{count}.0,"alpha":12345678901234567890123}},{},"logger":"odd\/logger" ,"level":{},"_meta":{{{}}}}}"#,
            odd::MEMBERS,
            odd::string(level),
            odd::META
        );
        odd::notification("notifications/message", &params)
    }

    /// Whether the client wants to be sent log messages.
    pub fn may_log(&self) -> bool {
        self.request.era == Era::Legacy || self.request.params.meta.log_level.is_some()
    }

    /// Asks the client and answers with what it said. `id` is that of the request in the legacy era.
    pub fn ask(&self, id: Option<&str>, question: &Question) {
        match self.request.era {
            Era::Legacy => self.ask_by_request(id, question),
            Era::Stateless => self.ask_by_result(question),
        }
    }

    fn ask_by_request(&self, id: Option<&str>, question: &Question) {
        let Question { method, capability, members } = question;
        if !self.session.can(capability) && !self.arguments().is_true("anyway") {
            return self.fail_as_tool(&format!("the client has no {capability}"));
        }
        let id = id.map_or_else(|| self.server().next_ask().to_string(), str::to_owned);
        let id = RawValue::from_string(id).expect("ids of ours are JSON");
        let arrival = self.session.expect_reply(&id);
        self.output.send(&odd::request(id.get(), method, &format!("{{ {},{members}}}", odd::MEMBERS)));
        for _ in 0..PATIENCE_MS / LOOK_MS {
            match arrival.recv_timeout(Duration::from_millis(LOOK_MS)) {
                Ok(Reply { id, result: Ok(result) }) => {
                    let members = format!(r#""answer":{} ,"id":{}"#, result.get(), id.get());
                    return self.answer_structured(result.get(), &members);
                }
                Ok(Reply { result: Err(error), .. }) => return self.fail_as_tool(error.get()),
                Err(RecvTimeoutError::Timeout) if self.is_cancelled() => {
                    let params =
                        format!(r#"{{"reason":"no longer \u00e9",{},"requestId":{}}}"#, odd::MEMBERS, id.get());
                    return self.output.send(&odd::notification("notifications/cancelled", &params));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.fail_as_tool("the client did not answer");
    }

    fn ask_by_result(&self, question: &Question) {
        let Question { method, capability, members } = question;
        let params = &self.request.params;
        if let Some(responses) = &params.input_responses {
            if params.request_state.as_deref() != Some(REQUEST_STATE.1) {
                return self.fail(INVALID_PARAMS, "requestState is not what was sent", odd::VALUE);
            }
            let members = format!(r#""answer":{}"#, responses.get());
            return self.answer_structured(responses.get(), &members);
        }
        let can = params.meta.capabilities.as_ref().is_some_and(|all| all.contains_key(*capability));
        if !can && !self.arguments().is_true("anyway") {
            let data = format!(r#"{{"requiredCapabilities":{{"{capability}":{{ }}}},{}}}"#, odd::MEMBERS);
            return self.fail(MISSING_CAPABILITY, "the client cannot answer", &data);
        }
        let request = format!(
            r#"{{"params":{{ {},{members}}},"x-odd":1e2, "method":{}}}"#,
            odd::MEMBERS,
            odd::string(method).replace('/', r"\/")
        );
        let members = format!(r#""requestState":{},"inputRequests":{{ {INPUT_KEY}:{request}}}"#, REQUEST_STATE.0);
        let result = self.request.result_of_type(&members, "input_required");
        self.send(&odd::response(self.request.id.get(), &result));
    }

    /// Ends a call; it can't be cancelled any more.
    pub fn end(&self) {
        self.session.end(self);
    }
}

/// The member `content`, with a text.
pub fn content(text: &str) -> String {
    format!(r#""content":[ {} ]"#, odd::text_block(text))
}

/// Sleeps, cancelled or not.
pub fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
