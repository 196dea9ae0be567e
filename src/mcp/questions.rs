//! Questions to a session's client: each waits for its answer, as long as the client gets on.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::CallError;
use super::call::Call;
use super::input::InputRequest;
use super::outgoing::{Kind, Outgoing};
use super::session::{Session, Waiting};
use crate::clock;
use crate::protocol::jsonrpc::{self, AskId, Patience};
use crate::protocol::mcp::{ASKS_PER_SESSION_MAX, ELICIT};

/// How long the server waits for a client's program, such as its model.
const PATIENCE: Patience = Patience { idle_ms: 60_000, total_ms: 3_600_000 };
/// How long the server waits for a person.
const PATIENCE_WITH_PEOPLE: Patience = Patience { idle_ms: 600_000, total_ms: 3_600_000 };

impl Session {
    /// Asks the client and waits for its answer.
    pub(super) async fn ask(&self, call: &Call, request: &InputRequest) -> Result<Box<RawValue>, CallError> {
        let patience = if request.method == ELICIT { PATIENCE_WITH_PEOPLE } else { PATIENCE };
        let (sender, mut answer) = oneshot::channel();
        let id = {
            // Both under the peer's lock, so that no answer comes between.
            let mut peer = self.peer.lock();
            let asked = peer.asking.ask(call.number, patience, ASKS_PER_SESSION_MAX, clock::now());
            let id = asked.map_err(|full| CallError::Failed(full.to_string()))?;
            self.lively.lock().asks.insert(id, Waiting::Outcome(sender));
            id
        };
        if self.orphans.get().is_some() {
            drop(Asked::new(self, id, &call.route));
            return Err(CallError::Cancelled);
        }
        let _asked = Asked::new(self, id, &call.route);
        let params = with_progress_token(&request.params, id);
        call.route.push(Kind::Request, jsonrpc::asking::request(id, request.method, &params));
        loop {
            let due = self.peer.lock().asking.due(id);
            let left_ms = due.map_or(0, |due| due.since(clock::now()));
            tokio::select! {
                biased;
                answered = &mut answer => return match answered {
                    Ok(Ok(result)) => Ok(result),
                    Ok(Err(error)) => Err(CallError::Failed(format!("the client answered with an error: {}", error_text(&error)))),
                    // The session has ended.
                    Err(_) => Err(CallError::Cancelled),
                },
                () = tokio::time::sleep(Duration::from_millis(left_ms)), if due.is_some() => {
                    let expired = self.peer.lock().asking.expire(id, clock::now());
                    if let Some(text) = expired {
                        call.route.push(Kind::Request, text);
                        return Err(CallError::Failed("the client did not answer in time".to_owned()));
                    }
                }
            }
        }
    }
}

/// A question that waits; its place is free again when this goes, as when its call is cancelled.
pub(super) struct Asked<'a> {
    session: &'a Session,
    id: AskId,
    route: &'a Outgoing,
}

impl<'a> Asked<'a> {
    pub(super) fn new(session: &'a Session, id: AskId, route: &'a Outgoing) -> Self {
        Asked { session, id, route }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.session.lively.lock().asks.remove(&self.id);
        let told = self.session.peer.lock().asking.withdraw(self.id);
        if let Some(text) = told {
            self.route.push(Kind::Request, text);
        }
    }
}

/// Params with a progress token, so that the client can ask for more time by its progress.
fn with_progress_token(params: &RawValue, id: AskId) -> Box<RawValue> {
    let Ok(serde_json::Value::Object(mut params)) = serde_json::from_str(params.get()) else {
        return params.to_owned();
    };
    let meta = params.entry("_meta").or_insert_with(|| serde_json::json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert("progressToken".to_owned(), id.0.into());
    }
    jsonrpc::raw(&params)
}

/// The message of an error object, as far as it has one.
fn error_text(error: &RawValue) -> String {
    let message = jsonrpc::Object::parse(error.get().as_bytes()).and_then(|error| error.string("message"));
    message.unwrap_or_else(|| "no message".to_owned())
}
