//! One request on its way to an upstream and back, through whatever the upstream asks of the client meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::parked::{self, Resumed};
use super::unreachable;
use crate::mcp::CallError;
use crate::mcp::call::{Call, Output, Relayed};
use crate::mcp::upstream::{Event, Instance, Lease, Lost, Ticket, Upstream, whole_list};
use crate::protocol::jsonrpc::{self, Object, splice};
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::hub::Shelf;
use crate::protocol::mcp::peer;
use crate::protocol::mcp::relay::{self, Introduction};
use crate::protocol::mcp::{RESOURCES_SUBSCRIBE, TOOLS_CALL, TOOLS_LIST};

/// How often an upstream of the stateless era may ask a client in the course of one call.
const ROUNDS_MAX: usize = 32;
/// Questions of one such round.
const QUESTIONS_MAX: usize = 64;

/// Method that lists the tasks of 2025-11-25.
const TASKS_LIST: &str = "tasks/list";

/// A request to pass on.
pub(super) struct Passed {
    /// The whole message.
    pub(super) text: String,
    pub(super) method: String,
    params: Option<Box<RawValue>>,
    /// Of a subscription: what the client calls the resource.
    here: Option<String>,
}

impl Passed {
    pub(super) fn of(call: &peer::Call<'_>) -> Self {
        Passed {
            text: relay::unambiguous(&String::from_utf8_lossy(call.text)),
            method: call.method.clone(),
            params: call.raw_params.map(ToOwned::to_owned),
            here: None,
        }
    }

    /// The same, of a resource that the client calls so.
    pub(super) fn called(self, here: &str) -> Self {
        Passed { here: Some(here.to_owned()), ..self }
    }

    /// Takes back a subscription that its server refused.
    fn withdraw_subscription(&self, call: &Call, upstream: &Arc<Upstream>) {
        let own = splice::get(&self.text, &["params", "uri"]);
        let Some(own) = own.and_then(|uri| serde_json::from_str::<String>(uri).ok()) else { return };
        call.session.withdraw_subscription(upstream, &own, self.here.as_deref().unwrap_or(&own));
    }

    /// The task that it is about, if about one.
    fn task(&self) -> Option<String> {
        if !self.method.starts_with("tasks/") {
            return None;
        }
        let id = splice::get(&self.text, &["params", "taskId"])?;
        serde_json::from_str(id).ok()
    }

    /// The same with another name at a place.
    pub(super) fn renamed(self, path: &[&str], name: &str) -> Self {
        let text = splice::set(&self.text, path, jsonrpc::raw(name).get()).unwrap_or(self.text);
        let params = splice::get(&text, &["params"]).and_then(|params| RawValue::from_string(params.to_owned()).ok());
        Passed { text, params, ..self }
    }
}

/// What a request that was sent has come to.
enum Said {
    Answer(Bytes),
    /// The upstream asks, and the client is asked by ending its call.
    Parked(String),
}

/// Passes a request on and gives the client's answer.
pub(super) async fn run(call: Arc<Call>, upstream: Arc<Upstream>, passed: Passed) -> Result<Output, CallError> {
    let said = match Resumed::of(&call, &passed.method, passed.params.as_deref())? {
        Some(resumed) => {
            let (ticket, lease) = parked::take_up(&call, &upstream, resumed)?;
            converse(&call, &upstream, &passed, ticket, lease).await
        }
        None => ask(&call, &upstream, &passed).await,
    };
    let is_subscription = passed.method == RESOURCES_SUBSCRIBE;
    let text = match said {
        Ok(Said::Answer(text)) => text,
        Ok(Said::Parked(text)) => return Ok(Output::Relayed(Relayed { text: text.into(), error: None })),
        Err(lost) => {
            if is_subscription {
                passed.withdraw_subscription(&call, &upstream);
            }
            return Err(CallError::rpc(jsonrpc::INTERNAL_ERROR, lost.why, None));
        }
    };
    let text = String::from_utf8_lossy(&text);
    let error = splice::get(&text, &["error"]).map(|error| {
        let error = Object::parse(error.as_bytes()).unwrap_or_default();
        let code = error.get::<i64>("code").unwrap_or(jsonrpc::INTERNAL_ERROR);
        (code, error.string("message").unwrap_or_default())
    });
    if is_subscription && error.is_some() {
        passed.withdraw_subscription(&call, &upstream);
    }
    let text = relay::under_id(&text, &call.id).into();
    Ok(Output::Relayed(Relayed { text, error }))
}

/// Sends a request, once more if the upstream certainly did nothing, and gives the answer as the client takes it.
async fn ask(call: &Arc<Call>, upstream: &Arc<Upstream>, passed: &Passed) -> Result<Said, Lost> {
    let introduction = call.session.introduction_of(passed.params.as_deref(), &call.client);
    upstream.learn_era(&call.client).await?;
    let task = passed.task();
    let mut is_first = true;
    loop {
        let lease = upstream.lease(&call.session, &call.client, &introduction)?;
        let instance = lease.slot().up().await?;
        if passed.method == TOOLS_CALL && upstream.wants_headers(&instance) {
            // Which arguments it wants as headers, its list says.
            drop(whole_list(upstream, &call.session, &call.client, &introduction, Shelf::Tools).await);
        }
        if let Some(id) = &task
            && !lease.slot().is_owned()
            && !upstream.learned.is_owner(id, &call.session.user.user)
        {
            return Err(Lost::new(format!("there is no task {id:?}, or no longer")));
        }
        if let (Some(level), Era::Modern) = (call.level, call.client.era) {
            lease.slot().want_level(level);
        }
        let asked = send(call, &instance, passed, &introduction, None);
        let said = match asked {
            Ok(ticket) => converse(call, upstream, passed, ticket, lease).await,
            Err(lost) => Err(lost),
        };
        match said {
            Err(lost) if lost.is_unserved && std::mem::replace(&mut is_first, false) => {}
            said => return said,
        }
    }
}

/// Sends a request in the words of the upstream's era, with what was answered to its questions.
fn send(
    call: &Arc<Call>,
    instance: &Arc<Instance>,
    passed: &Passed,
    introduction: &Introduction,
    answered: Option<&(Box<RawValue>, Option<String>)>,
) -> Result<Ticket, Lost> {
    let is_for_modern = instance.hello().is_some_and(|hello| hello.is_modern());
    let mut text = match (call.client.era == Era::Modern, is_for_modern) {
        (false, true) => relay::into_stateless(&passed.text, introduction, call.session.asked_level()),
        (true, false) => relay::into_legacy(&passed.text),
        _ => passed.text.clone(),
    };
    if let Some((responses, state)) = answered {
        text = relay::with_answers(&text, responses, state.as_deref());
    }
    // Those who watch see progress also where the caller does not want it.
    let with_token = call.token.is_some() || passed.method == TOOLS_CALL;
    instance.request(Some(call), &passed.method, |id| relay::request(&text, id, with_token))
}

/// Waits for the answer to a request, through the questions that come before.
async fn converse(
    call: &Arc<Call>,
    upstream: &Arc<Upstream>,
    passed: &Passed,
    mut ticket: Ticket,
    lease: Lease,
) -> Result<Said, Lost> {
    let is_client_modern = call.client.era == Era::Modern;
    for _ in 0..ROUNDS_MAX {
        let text = match ticket.next().await {
            Event::Answer(text) => text,
            Event::Lost(lost) => return Err(lost),
            Event::Question(question) => {
                let params = passed.params.as_deref();
                let parked = parked::park(call, upstream, (&passed.method, params), (ticket, lease), &question)?;
                return Ok(Said::Parked(parked));
            }
        };
        let instance = Arc::clone(ticket.instance());
        let hello = instance.hello().expect("a connection that answers has shaken hands");
        let text = String::from_utf8_lossy(&text).into_owned();
        let user = &call.session.user.user;
        let text = match passed.method.as_str() {
            TOOLS_LIST => {
                upstream.learned.note_tools(&text);
                text
            }
            TOOLS_CALL => {
                upstream.learned.note_task(&text, user);
                text
            }
            TASKS_LIST if !lease.slot().is_owned() => relay::with_tasks(&text, &upstream.learned.tasks_of(user)),
            _ => text,
        };
        match (is_client_modern, hello.is_modern()) {
            (true, false) => {
                let info = hello.server_info();
                return Ok(Said::Answer(relay::answer_for_stateless(&text, &passed.method, info.as_deref()).into()));
            }
            (false, true) => {
                if splice::get(&text, &["result", "resultType"]) != Some("\"input_required\"") {
                    return Ok(Said::Answer(relay::answer_for_legacy(&text, &passed.method).into()));
                }
                let answered = answer_questions(call, &instance, &text).await?;
                let introduction = call.session.introduction_of(passed.params.as_deref(), &call.client);
                ticket = send(call, &instance, passed, &introduction, Some(&answered))?;
            }
            _ => return Ok(Said::Answer(text.into())),
        }
    }
    Err(Lost::new(format!("the MCP server {:?} asked more than {ROUNDS_MAX} times in one call", upstream.name)))
}

/// Asks a client of the legacy era what a stateless upstream wants to know: the answers by their keys, and the state to bring
/// along.
async fn answer_questions(
    call: &Arc<Call>,
    instance: &Arc<Instance>,
    text: &str,
) -> Result<(Box<RawValue>, Option<String>), Lost> {
    let requests = splice::get(text, &["result", "inputRequests"]).unwrap_or("{}");
    let state = splice::get(text, &["result", "requestState"]).map(ToOwned::to_owned);
    let requests = Object::parse(requests.as_bytes()).unwrap_or_default();
    let mut answers = BTreeMap::new();
    for (key, request) in requests.fields().take(QUESTIONS_MAX) {
        let question = Object::parse(request.get().as_bytes()).unwrap_or_default();
        let method = question.string("method").unwrap_or_default();
        if !call.client.capabilities.can_answer(&method) {
            return Err(Lost::new(format!("the client does not have what the call needs: {method}")));
        }
        let question = relay::question_of(&question);
        let answer = call.session.relay_question(Some(call), &question, instance).await.map_err(Lost::new)?;
        let answer = Object::parse(&answer).unwrap_or_default();
        let Some(result) = answer.raw("result") else {
            let error = answer.object("error").and_then(|error| error.string("message")).unwrap_or_default();
            return Err(Lost::new(format!("the client answered {method} with an error: {error}")));
        };
        answers.insert(key.to_owned(), result.to_owned());
    }
    Ok((jsonrpc::raw(&answers), state))
}

impl From<Lost> for CallError {
    fn from(lost: Lost) -> Self {
        unreachable(crate::mcp::upstream::NotUp(lost.why))
    }
}
