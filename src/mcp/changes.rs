//! What a session's client hears of changes: streams of them in the stateless era, subscriptions in the legacy one.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::outgoing::{Kind, Outgoing};
use super::respond;
use super::server::Change;
use super::session::{Listen, Session};
use crate::protocol::jsonrpc::{self, CallNumber};
use crate::protocol::mcp::recovery::STORED_SUBSCRIPTION_BYTES_MAX;
use crate::protocol::mcp::subscription::{Filter, tagged};
use crate::protocol::mcp::{
    LISTENS_PER_SESSION_MAX, PROMPTS_CHANGED, RESOURCE_UPDATED, RESOURCES_CHANGED, SUBSCRIPTIONS_PER_SESSION_MAX,
    TASKS_CHANGED, TOOLS_CHANGED,
};

impl Session {
    /// Begins a stream of changes; false if there are as many as may be.
    pub(super) fn listen(
        self: &Arc<Self>,
        number: CallNumber,
        id: &RawValue,
        filter: Filter,
        route: &Arc<Outgoing>,
    ) -> bool {
        {
            let mut lively = self.lively.lock();
            if lively.listens.len() >= LISTENS_PER_SESSION_MAX {
                return false;
            }
            route.push(Kind::Notification, filter.acknowledged(id));
            lively.listens.push(Listen { number, id: id.to_owned(), filter, route: Arc::clone(route) });
        }
        route.recovery(|recovery| recovery.stir());
        self.server.join(self.number(), self);
        true
    }

    /// Asks to hear of a resource, in the legacy era; false if there are as many as may be.
    pub(super) fn subscribe(&self, uri: String) -> bool {
        let mut lively = self.lively.lock();
        if lively.subscriptions.contains(&uri) {
            return true;
        }
        let bytes = || lively.subscriptions.iter().map(String::len).sum::<usize>() + uri.len();
        if lively.subscriptions.len() >= SUBSCRIPTIONS_PER_SESSION_MAX
            || self.standing().is_stored() && bytes() > STORED_SUBSCRIPTION_BYTES_MAX
        {
            return false;
        }
        lively.subscriptions.insert(uri);
        drop(lively);
        self.note_change();
        true
    }

    /// Takes [`Session::subscribe`] back.
    pub(super) fn unsubscribe(&self, uri: &str) {
        self.lively.lock().subscriptions.remove(uri);
        self.note_change();
    }

    /// Hears of a change of its server, and tells its client if that wants to know.
    pub(super) fn hear(&self, change: Change<'_>) {
        #[derive(Serialize)]
        struct Updated<'a> {
            uri: &'a str,
        }

        // Results may be large, and most sessions listen to nothing.
        if matches!(change, Change::Task { .. }) && self.lively.lock().listens.is_empty() {
            return;
        }
        let (method, params) = match change {
            Change::Tools => (TOOLS_CHANGED, None),
            Change::Resources => (RESOURCES_CHANGED, None),
            Change::Prompts => (PROMPTS_CHANGED, None),
            Change::Resource { user: Some(user), .. } if *user != self.user => return,
            Change::Resource { uri, .. } => (RESOURCE_UPDATED, Some(jsonrpc::raw(&Updated { uri }))),
            Change::Task { task, .. } => (TASKS_CHANGED, Some(task.to_owned())),
        };
        let wants_all = {
            let peer = self.peer.lock();
            peer.client().is_some() && peer.is_initialized()
        };
        let lively = self.lively.lock();
        let is_wanted = match change {
            Change::Tools | Change::Resources | Change::Prompts => wants_all,
            Change::Resource { uri, .. } => lively.subscriptions.contains(uri),
            Change::Task { .. } => false,
        };
        if is_wanted {
            let text = match &params {
                Some(params) => jsonrpc::notification(method, params),
                None => jsonrpc::bare_notification(method),
            };
            self.standing().push(Kind::Notification, text);
        }
        for listen in &lively.listens {
            let is_wanted = match change {
                Change::Tools => listen.filter.tools,
                Change::Resources => listen.filter.resources,
                Change::Prompts => listen.filter.prompts,
                Change::Resource { uri, .. } => listen.filter.uris.iter().any(|wanted| wanted == uri),
                Change::Task { id, owner, .. } => {
                    *owner == self.user && listen.filter.tasks.iter().any(|wanted| wanted == id)
                }
            };
            if is_wanted {
                listen.route.push(Kind::Notification, tagged(method, params.as_deref(), &listen.id));
            }
        }
    }

    /// Ends a stream of changes in order.
    pub(super) fn end_listen(&self, listen: &Listen) {
        if self.finish(listen.number) {
            let result = respond::listen_ended(&self.server, &listen.id);
            listen.route.push(Kind::Response(None), jsonrpc::result_response(&listen.id, &result));
        }
    }
}
