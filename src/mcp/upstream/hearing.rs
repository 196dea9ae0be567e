//! What an upstream says by itself: progress and logs of calls, questions to clients, changes.
//!
//! A message belongs to the call on whose stream it came; where the carrier has one stream for all, to the only session that
//! has calls under way, or that the connection is for. What could be of several sessions reaches none of them.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::instance::{ASKED_MAX, Asked, Instance};
use crate::mcp::call::Call;
use crate::mcp::session::Session;
use crate::protocol::jsonrpc::{self, Notification, Object, Request, id_key};
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::relay;
use crate::protocol::mcp::{
    CANCELLED, LOG_MESSAGE, PING, PROGRESS, PROMPTS_CHANGED, RESOURCE_UPDATED, RESOURCES_CHANGED,
    SUBSCRIPTIONS_ACKNOWLEDGED, TOOLS_CHANGED,
};

/// Notification of how a task of 2025-11-25 stands.
const TASK_STATUS: &str = "notifications/tasks/status";

impl Instance {
    /// The call that a message belongs to, with the number of its request.
    fn cause(&self, stream: Option<u64>) -> Option<(u64, Arc<Call>)> {
        let state = self.state.lock();
        if let Some(id) = stream {
            // Of no other call, also where this one was answered already, or is nobody's.
            return Some((id, state.pending.get(&id)?.call.clone()?));
        }
        let calls = || state.pending.iter().filter_map(|(id, pending)| Some((*id, pending.call.as_ref()?)));
        let (id, last) = calls().next_back()?;
        let is_sole = calls().all(|(_, call)| call.session.number() == last.session.number());
        is_sole.then(|| (id, Arc::clone(last)))
    }

    /// The session that the connection is for, if for one.
    fn owner(&self) -> Option<Arc<Session>> {
        self.slot.upgrade()?.owner()
    }

    /// Takes a question of the upstream.
    pub(super) fn asked(self: &Arc<Self>, text: &[u8], request: &Request<'_>, stream: Option<u64>) {
        if request.method == PING {
            return self.tell(jsonrpc::result_response(request.id, &jsonrpc::raw(&serde_json::json!({}))));
        }
        let key = id_key(request.id);
        {
            let state = self.state.lock();
            let refused = match state.asked.contains_key(&key) {
                true => Some("the id is in use by a request under way".to_owned()),
                false if state.asked.len() >= ASKED_MAX => {
                    Some(format!("expected at most {ASKED_MAX} requests under way, came one more"))
                }
                false => None,
            };
            drop(state);
            if let Some(why) = refused {
                return self.refuse(request.id, jsonrpc::INVALID_REQUEST, &why);
            }
        }
        let Ok(text) = String::from_utf8(text.to_vec()) else { return };
        let (cause, session) = match (self.cause(stream), self.owner()) {
            (Some(cause), _) => {
                let session = Arc::clone(&cause.1.session);
                (Some(cause), session)
            }
            (None, Some(owner)) => (None, owner),
            (None, None) => {
                self.stats.unattributed.inc();
                let why = "expected a request in the course of one client's call: several share this connection";
                return self.refuse(request.id, jsonrpc::INTERNAL_ERROR, why);
            }
        };
        if let Some((_, call)) = &cause
            && !call.client.capabilities.can_answer(&request.method)
        {
            return self.refuse(request.id, jsonrpc::METHOD_NOT_FOUND, "the client does not have this");
        }
        if let Some((id, call)) = &cause
            && call.client.era == Era::Modern
        {
            // Its client is asked by ending the call, which whoever waits for the answer does.
            let is_taken = self.state.lock().pending.get_mut(id).is_some_and(|pending| pending.question(text.into()));
            if !is_taken {
                let why = "expected one question at a time of a client whose requests are stateless";
                self.refuse(request.id, jsonrpc::INTERNAL_ERROR, why);
            }
            return;
        }
        let id = request.id.to_owned();
        let instance = Arc::clone(self);
        let cause_id = cause.as_ref().map(|(id, _)| *id).filter(|id| stream == Some(*id));
        let call = cause.map(|(_, call)| call);
        let place = key.clone();
        // Held until it is noted, so that an answer which is there at once finds it.
        let mut state = self.state.lock();
        // Owned by `asked`: ended with the request that caused it, with the connection, or by the upstream.
        let task = tokio::spawn(async move {
            let answer = session.relay_question(call.as_deref(), &text, &instance).await;
            instance.state.lock().asked.remove(&place);
            match answer {
                Ok(answer) => instance.tell(relay::under_id(&String::from_utf8_lossy(&answer), &id)),
                Err(why) => instance.refuse(&id, jsonrpc::INTERNAL_ERROR, &why),
            }
        });
        state.asked.insert(key, Asked { cause: cause_id, id: request.id.to_owned(), task: task.abort_handle() });
    }

    /// Takes a notification of the upstream.
    pub(super) fn told(self: &Arc<Self>, text: &[u8], notification: &Notification<'_>, stream: Option<u64>) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let params = notification.params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
        match notification.method.as_str() {
            PROGRESS => {
                let token = params.raw("progressToken").and_then(|token| token.get().parse::<u64>().ok());
                let call = token.and_then(|token| self.state.lock().pending.get(&token)?.call.clone());
                match call {
                    Some(call) => call.relay_progress(text, &params),
                    None => self.stats.late.inc(),
                }
            }
            CANCELLED => {
                let asked = params.raw("requestId").and_then(|id| self.state.lock().asked.remove(&id_key(id)));
                if let Some(asked) = asked {
                    asked.task.abort();
                }
            }
            LOG_MESSAGE => self.logged(text, params.get::<Level>("level"), stream),
            TOOLS_CHANGED | PROMPTS_CHANGED | RESOURCES_CHANGED | RESOURCE_UPDATED => {
                let Some(slot) = self.slot.upgrade() else { return };
                match (notification.method.as_str(), params.string("uri")) {
                    (RESOURCE_UPDATED, Some(uri)) => slot.updated(text, &uri),
                    (RESOURCE_UPDATED, None) => self.stats.garbage.inc(),
                    (method, _) => slot.changed(method, text),
                }
            }
            TASK_STATUS if self.owner().is_none() => {
                // Where several share the connection, it is for the user whose task it is.
                let Some(slot) = self.slot.upgrade() else { return };
                let task = params.string("taskId").unwrap_or_default();
                let learned = &slot.upstream.learned;
                for session in slot.sessions().iter().filter(|session| learned.is_owner(&task, &session.user.user)) {
                    session.relay_notification(text);
                }
            }
            SUBSCRIPTIONS_ACKNOWLEDGED => {}
            _ => self.passed_on(text, stream),
        }
    }

    /// Passes a log message on. A connection for all has the level of the most curious: each client gets what it wants.
    fn logged(&self, text: &str, level: Option<Level>, stream: Option<u64>) {
        if let Some(owner) = self.owner() {
            return match self.cause(stream) {
                Some((_, call)) => call.relay_notification(text),
                None => owner.relay_notification(text),
            };
        }
        let is_wanted = |least: Option<Level>| least.is_some_and(|least| level.is_none_or(|level| level >= least));
        if let Some((_, call)) = self.cause(stream) {
            let least = match call.client.era {
                Era::Modern => call.level,
                Era::Legacy | Era::Elixir => Some(call.session.level()),
            };
            if is_wanted(least) {
                call.relay_notification(text);
            }
            return;
        }
        let is_quiet = self.state.lock().pending.values().all(|pending| pending.call.is_none());
        let slot = self.slot.upgrade().filter(|_| is_quiet);
        let Some(slot) = slot else { return self.stats.unattributed.inc() };
        // Of no call: for those who asked for logs.
        for session in slot.sessions().iter().filter(|session| is_wanted(session.asked_level())) {
            session.relay_notification(text);
        }
    }

    /// Passes on what is not known here.
    fn passed_on(&self, text: &str, stream: Option<u64>) {
        match (self.cause(stream), self.owner()) {
            (Some((_, call)), _) => call.relay_notification(text),
            (None, Some(owner)) => owner.relay_notification(text),
            (None, None) => self.stats.unattributed.inc(),
        }
    }

    /// Passes on that a client gets on with a question; the client knows it by another token.
    pub(in crate::mcp) fn relay_answer_progress(&self, text: &str, token: &RawValue) {
        self.tell(relay::progress(text, token));
    }
}
