//! Sessions that come back from the store, and what the process before left of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use serde_json::value::RawValue;

use super::records::{Change, KeptClient, SessionRecord, StateRecord};
use super::{Joining, Present, Recoverable, Recoveries, records};
use crate::clock;
use crate::mcp::auth::Identity;
use crate::mcp::call::Subject;
use crate::mcp::outgoing::Kind;
use crate::mcp::session::{NewSession, Session};
use crate::mcp::{CallError, Mcp, OnRestart};
use crate::protocol::jsonrpc::{self, AskId, CallNumber, Object, asking};
use crate::protocol::mcp::peer::{self, Peer, Received};
use crate::protocol::mcp::recovery::{Class, Kept, KeptHead, Position, Recovery, Tokens};
use crate::protocol::mcp::session::is_session_id;
use crate::protocol::mcp::{TOOLS_CALL, error};
use crate::store::{Store, StoreError};

/// What is said of a call that was broken off, and which is not run again.
const BROKEN_OFF: &str = "the server was restarted while the call ran: it may have taken effect, and is not run again";
/// The same of another request.
const ASK_AGAIN: &str = "the server was restarted before it answered: ask again";

/// What the process before left of a session, to be settled when its client is back.
pub(super) struct BrokenOff {
    calls: Vec<(CallNumber, Bytes)>,
    /// Requests that were no calls of tools, by their ids.
    pub(super) requests: Vec<Box<RawValue>>,
    /// Requests to the client that nobody waits for any more.
    questions: Vec<AskId>,
}

impl BrokenOff {
    /// All but the calls.
    fn of(kept: &Kept, state: &StateRecord) -> Self {
        // Its answer may be stored though it counted as under way then.
        let is_answered = |id: &RawValue| {
            let answers = kept.messages.iter().filter(|message| message.class == Class::Response);
            let mut ids = answers.filter_map(|answer| Some(jsonrpc::id_key(Object::parse(&answer.text)?.raw("id")?)));
            ids.any(|other| other == jsonrpc::id_key(id))
        };
        let is_call = |id: &RawValue| kept.calls.iter().any(|(_, call)| call.ids.contains(&jsonrpc::id_key(id)));
        let requests = state.asked.iter().filter_map(|id| RawValue::from_string(id.clone()).ok());
        BrokenOff {
            calls: Vec::new(),
            requests: requests.filter(|id| !is_answered(id) && !is_call(id)).collect(),
            questions: state.asking.iter().copied().map(AskId).collect(),
        }
    }
}

impl Recoveries {
    /// Brings a session back from the store for a client whose token is for it, if one is there and it is not too late. Whoever attaches
    /// to it afterwards has it.
    ///
    /// # Errors
    /// The store can't be read: the session may be there.
    pub(super) async fn recall(&self, mcp: &Arc<Mcp>, token: &str, joining: &Joining<'_>) -> Result<(), StoreError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let Some(claims) = self.seal.open(token).filter(|claims| claims.user == *joining.user.user) else {
            return Ok(());
        };
        let _reading = keeper.reading(&claims.session).await;
        if mcp.sessions.find(&claims.session).is_some() || keeper.is_ending(&claims.session) {
            return Ok(());
        }
        if let Some((record, state, kept)) = self.read(&claims.session).await?
            && record.user == *joining.user.user
            && Tokens::restored(state.used, state.given).accepts(claims.serial)
        {
            self.reopen(mcp, &claims.session, record, state, kept, joining);
        }
        Ok(())
    }

    /// Ends a session that is in the store, and that nobody has come back to since the start; whether there is one.
    pub(in crate::mcp) async fn end_stored(&self, mcp: &Mcp, id: &str) -> Result<bool, StoreError> {
        let Some(keeper) = self.keeper.as_ref().filter(|_| is_session_id(id)) else { return Ok(false) };
        let _reading = keeper.reading(id).await;
        let is_there = mcp.sessions.find(id).is_none() && !keeper.is_ending(id);
        if !is_there || records::read_state(keeper.store(), id).await?.is_none() {
            return Ok(false);
        }
        keeper.end(id);
        Ok(true)
    }

    async fn read(&self, id: &str) -> Result<Option<(SessionRecord, StateRecord, Kept)>, StoreError> {
        let Some(keeper) = &self.keeper else { return Ok(None) };
        let store = keeper.store();
        let Some(state) = records::read_state(store, id).await? else { return Ok(None) };
        let Some(record) = records::read_session(store, id).await? else { return Ok(None) };
        let head = KeptHead {
            used: state.used,
            given: state.given,
            last: Position(state.last),
            acknowledged: Position(state.acknowledged),
            begun: state.begun,
            until: None,
        };
        let messages = records::read_messages(store, id, head.last).await?;
        let calls = records::read_calls(store, id).await?;
        Ok(Some((record, state, Kept { head, messages, calls })))
    }

    fn reopen(
        &self,
        mcp: &Arc<Mcp>,
        id: &str,
        record: SessionRecord,
        state: StateRecord,
        kept: Kept,
        joining: &Joining<'_>,
    ) {
        let (now, wall_ms) = (clock::now(), clock::unix_micros() / 1_000);
        // What the process before did not say was there when it ended; `mark` has said until when.
        let left_ms =
            state.until_unix_ms.map_or(self.window_ms, |until| until.saturating_sub(wall_ms).min(self.window_ms));
        let server = mcp.server(&record.server);
        let server = server.filter(|server| !server.passes_on() && mcp.may_use(joining.user, server));
        let (Some(server), true) = (server, left_ms > 0 && record.topic == joining.topic) else { return };
        let client = match record.client.map(KeptClient::into_client) {
            Some(None) => return,
            client => client.flatten(),
        };
        let until = now + left_ms;
        let mut broken_off = BrokenOff::of(&kept, &state);
        let begun = kept.calls.iter().map(|(order, _)| *order).fold(kept.head.begun, u64::max);
        let peer = Peer::going_on(client, record.level, record.is_initialized, begun, kept.head.last.0);
        let recovery = Recovery::restored(kept, self.window_ms, until);
        broken_off.calls = recovery.executions().running();
        let (bytes, present) = (recovery.bytes(), Present::nobody());
        let new = NewSession {
            server,
            user: Identity::new(Arc::clone(&joining.user.user), (*joining.user.rights()).clone()),
            connection: joining.connection,
            peer,
            standing: Arc::new(self.stored(mcp, recovery, &present)),
            is_streaming: record.is_streaming,
            introduction: None,
            is_workflow: false,
        };
        let session = Session::reopen(mcp, new, id);
        for uri in record.subscriptions {
            session.subscribe(uri);
        }
        let Ok(opened) = mcp.open_place(joining.user, id) else { return session.end() };
        session.record.opened_at(record.opened_unix_ms);
        let recoverable = self.hold(&session, joining.topic, present);
        *recoverable.broken_off.lock() = Some(broken_off);
        recoverable.keep(opened.place, opened.session, opened.token);
        mcp.connections.recalled(&session);
        self.put_away(&recoverable, until, bytes);
    }

    /// Goes through what the process before left in the store: takes sessions away whose time is over, and notes of the others until
    /// when their clients may come back. Within a runtime, before anybody is served.
    pub(in crate::mcp) async fn resume(&self, mcp: &Arc<Mcp>) -> Result<(), StoreError> {
        let Some(keeper) = &self.keeper else { return Recoveries::forget_stored(mcp.workflows.store()).await };
        let wall_ms = clock::unix_micros() / 1_000;
        let mut after = String::new();
        let mut is_any = false;
        loop {
            let ids = records::read_ids(keeper.store(), &after).await?;
            let Some(last) = ids.last() else { break };
            after = last.clone();
            let mut changes = Vec::new();
            for id in ids {
                let state = records::read_state(keeper.store(), &id).await?;
                let Some(mut state) = state.filter(|state| state.until_unix_ms.is_none_or(|until| until > wall_ms))
                else {
                    changes.extend(Change::session_gone(&id));
                    continue;
                };
                is_any = true;
                let latest = wall_ms + self.window_ms;
                if state.until_unix_ms.is_none_or(|until| until > latest) {
                    state.until_unix_ms = Some(latest);
                    changes.extend(Change::state(&id, &state));
                }
            }
            keeper.make(changes).await?;
        }
        if is_any {
            let mcp = Arc::downgrade(mcp);
            let window = Duration::from_millis(self.window_ms);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(window).await;
                    let Some(mcp) = mcp.upgrade() else { return };
                    match mcp.recoveries.sweep(&mcp).await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::warn!(%error, "MCP sessions whose time is over could not be taken out of the store");
                        }
                    }
                }
            });
        }
        Ok(())
    }

    /// Takes all sessions out of a store: they are in memory alone from here on.
    pub(in crate::mcp) async fn forget_stored(store: &Store) -> Result<(), StoreError> {
        loop {
            let ids = records::read_ids(store, "").await?;
            if ids.is_empty() {
                return Ok(());
            }
            let gone: Vec<_> = ids.iter().flat_map(|id| Change::session_gone(id)).collect();
            store.change(move |transaction| gone.iter().try_for_each(|change| change.make(transaction))).await?;
        }
    }

    /// Takes sessions of processes before out of the store to which nobody has come back in time.
    async fn sweep(&self, mcp: &Mcp) -> Result<(), StoreError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let mut after = String::new();
        loop {
            let ids = records::read_ids(keeper.store(), &after).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after = last.clone();
            for id in ids {
                let _reading = keeper.reading(&id).await;
                let state = records::read_state(keeper.store(), &id).await?;
                let is_before = state.is_none_or(|state| state.process != keeper.process());
                if is_before && mcp.sessions.find(&id).is_none() {
                    keeper.end(&id);
                }
            }
        }
    }
}

impl Session {
    /// Settles what the process before left, now that the client is back.
    pub(in crate::mcp) fn settle(self: &Arc<Self>, recoverable: &Recoverable) {
        let broken_off = recoverable.broken_off.lock().as_mut().map(|left| BrokenOff {
            calls: std::mem::take(&mut left.calls),
            // They count as left until their answers are said.
            requests: left.requests.clone(),
            questions: std::mem::take(&mut left.questions),
        });
        let Some(BrokenOff { calls, requests, questions }) = broken_off else { return };
        let route = self.standing();
        for question in questions {
            route.push(Kind::Request, asking::cancelled(question, "the server was restarted"));
        }
        for id in requests {
            self.refuse(Some(&id), &error::other(jsonrpc::INTERNAL_ERROR, ASK_AGAIN, None), route);
        }
        *recoverable.broken_off.lock() = None;
        for (number, request) in calls {
            self.go_on(number, &request);
        }
    }

    /// Goes on with a call that had begun: it is run again or fails, as its tool wants.
    fn go_on(self: &Arc<Self>, number: CallNumber, request: &Bytes) {
        let route = self.standing();
        let received = self.peer.lock().receive(request, clock::now());
        let Received::Serve(call) = received else {
            // Its id is another request's by now, or its text no request to this version: it is remembered as one whose outcome is not
            // known.
            let fault = error::other(jsonrpc::INTERNAL_ERROR, BROKEN_OFF, None);
            if let Some(id) = Object::parse(request).and_then(|request| request.raw("id").map(ToOwned::to_owned)) {
                let text = jsonrpc::error_response(Some(&id), &fault, Default::default());
                route.answer(number, Kind::Response(Some(jsonrpc::INTERNAL_ERROR)), text);
            }
            return;
        };
        let asked_as = route.recovery(|recovery| recovery.renumber(number, call.number)).flatten();
        if let Some(id) = asked_as {
            self.peer.lock().rename(call.number, &id);
        }
        let tool = call.params.string("name").and_then(|name| self.server.catalog().tools.find(&name).cloned());
        match tool {
            Some(tool) if call.method == TOOLS_CALL && tool.on_restart == OnRestart::Rerun => {
                self.serve_again(call, route)
            }
            Some(tool) => self.fail_broken_off(call, Subject::Tool(tool)),
            None => self.fail_broken_off(call, Subject::Other),
        }
    }

    fn fail_broken_off(self: &Arc<Self>, call: peer::Call<'_>, subject: Subject) {
        let route = self.standing();
        match self.begin(&call, route, subject, None) {
            Ok(served) => served.start(|_| std::future::ready(Err(CallError::failed(BROKEN_OFF))).boxed()),
            Err(fault) => {
                let compat = self.mcp.compat(call.client.era);
                if self.finish(call.number) {
                    let text = jsonrpc::error_response(Some(call.id), &fault, compat);
                    route.answer(call.number, Kind::Response(Some(fault.code(compat))), text);
                }
            }
        }
    }
}
