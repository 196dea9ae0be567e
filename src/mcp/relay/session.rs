//! What a session passes on by itself: its client's notifications, the questions of upstreams, and what these say of changes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::clock;
use crate::mcp::call::Call;
use crate::mcp::outgoing::Kind;
use crate::mcp::session::{Asked, Session, Waiting};
use crate::mcp::upstream::{Instance, Slot};
use crate::protocol::jsonrpc::{AskId, CallNumber, Patience, splice};
use crate::protocol::mcp::client::META_SUBSCRIPTION;
use crate::protocol::mcp::relay;
use crate::protocol::mcp::{ASKS_PER_SESSION_MAX, PROMPTS_CHANGED, RESOURCE_UPDATED, RESOURCES_CHANGED, TOOLS_CHANGED};

/// How long a question of an upstream waits: for as long as the upstream does, which takes it back.
const PATIENCE: Patience = Patience { idle_ms: 3_600_000, total_ms: 3_600_000 };
/// The call of a question: none, for which it was asked the upstream may say at best; those of calls begin at 1.
const NO_CALL: CallNumber = CallNumber(0);

impl Session {
    /// The params of `initialize`, or of one that says what the client's join said.
    pub(in crate::mcp) fn introduction(&self) -> Option<Box<RawValue>> {
        self.attachment.as_ref()?.introduction()
    }

    pub(super) fn introduce(&self, params: Box<RawValue>) {
        if let Some(attachment) = &self.attachment {
            attachment.introduce(params);
        }
    }

    /// Hears what an upstream says to all.
    pub(in crate::mcp) fn attach(self: &Arc<Self>, slot: &Arc<Slot>) {
        if self.attachment.as_ref().is_some_and(|attachment| attachment.add(slot)) {
            slot.attach(self);
        }
    }

    /// Lets the upstreams go.
    pub(in crate::mcp) fn detach(&self) {
        if let Some(attachment) = &self.attachment {
            attachment.detach(self.number());
        }
    }

    /// Passes on that the client is ready.
    pub(in crate::mcp) fn pass_initialized(&self, text: &[u8]) {
        let slots = self.attachment.as_ref().map(|attachment| attachment.slots()).unwrap_or_default();
        for slot in slots.iter().filter(|slot| slot.is_owned()) {
            slot.client_is_ready();
            slot.tell_legacy(text);
        }
    }

    /// Passes a notification on to those upstreams that know this client.
    pub(in crate::mcp) fn pass_notification(&self, text: &[u8]) {
        let slots = self.attachment.as_ref().map(|attachment| attachment.slots()).unwrap_or_default();
        for slot in slots.iter().filter(|slot| slot.is_owned()) {
            slot.tell_legacy(text);
        }
    }

    /// Passes on that the client gets on with a question.
    pub(in crate::mcp) fn pass_progress(&self, ask: AskId, text: &[u8]) {
        let lively = self.lively.lock();
        if let Some(Waiting::Text { progress: Some((token, instance)), .. }) = lively.asks.get(&ask)
            && let Ok(text) = std::str::from_utf8(text)
        {
            instance.relay_answer_progress(text, token);
        }
    }

    /// Asks the client what an upstream wants to know, and gives the whole response.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::mcp) async fn relay_question(
        &self,
        call: Option<&Call>,
        text: &str,
        instance: &Arc<Instance>,
    ) -> Result<Bytes, String> {
        let route = call.map_or(self.standing(), |call| &call.route);
        let token = splice::get(text, &["params", "_meta", "progressToken"]);
        let token = token.and_then(|token| RawValue::from_string(token.to_owned()).ok());
        let has_token = token.is_some();
        let (sender, answer) = oneshot::channel();
        let id = {
            // Both under the peer's lock, so that no answer comes between.
            let mut peer = self.peer.lock();
            let asked = peer.asking.ask(NO_CALL, PATIENCE, ASKS_PER_SESSION_MAX, clock::now());
            let id = asked.map_err(|full| full.to_string())?;
            let progress = token.map(|token| (token, Arc::clone(instance)));
            self.lively.lock().asks.insert(id, Waiting::Text { sender, progress });
            id
        };
        let _asked = Asked::new(self, id, route);
        // Held by the call, if there is one: its client's patience does not count as the upstream's work.
        let _pause = call.map(|call| call.stopwatch.pause());
        route.push(Kind::Request, relay::request(text, id.0, has_token).into());
        answer.await.map_err(|_| "the client's session has ended".to_owned())
    }

    /// Passes another server's notification on that no request caused.
    pub(in crate::mcp) fn relay_notification(&self, text: &str) {
        if self.is_ready() {
            self.standing().push(Kind::Notification, Bytes::copy_from_slice(text.as_bytes()));
        }
    }

    /// Whether the client has said that it takes notifications which it did not cause.
    pub(in crate::mcp) fn is_ready(&self) -> bool {
        let peer = self.peer.lock();
        peer.client().is_some() && peer.is_initialized()
    }

    /// Tells the client of a change that another server told, in its words, if the client wants to know.
    pub(in crate::mcp) fn relay_change(&self, method: &str, text: &str, uri: Option<&str>) {
        let is_ready = self.is_ready();
        let lively = self.lively.lock();
        let is_wanted = match method {
            RESOURCE_UPDATED => uri.is_some_and(|uri| lively.subscriptions.contains(uri)),
            _ => is_ready,
        };
        if is_wanted {
            // It may be of a stream of changes that is not this client's.
            let plain = splice::remove(text, &["params", "_meta", META_SUBSCRIPTION]);
            let plain = plain.unwrap_or(text.into());
            self.standing().push(Kind::Notification, Bytes::copy_from_slice(plain.as_bytes()));
        }
        for listen in &lively.listens {
            let filter = &listen.filter;
            let is_wanted = match method {
                TOOLS_CHANGED => filter.tools,
                PROMPTS_CHANGED => filter.prompts,
                RESOURCES_CHANGED => filter.resources,
                _ => uri.is_some_and(|uri| filter.uris.iter().any(|wanted| wanted == uri)),
            };
            if is_wanted && let Some(text) = splice::set(text, &["params", "_meta", META_SUBSCRIPTION], listen.id.get())
            {
                listen.route.push(Kind::Notification, text.into());
            }
        }
    }
}
