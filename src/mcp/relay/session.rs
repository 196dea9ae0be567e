//! What a session passes on by itself: its client's notifications, the questions of upstreams, and what these say of changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::clock;
use crate::mcp::call::Call;
use crate::mcp::outgoing::Kind;
use crate::mcp::questions::Asked;
use crate::mcp::session::{Session, Waiting};
use crate::mcp::upstream::{Instance, Slot, Upstream};
use crate::protocol::jsonrpc::{self, AskId, CallNumber, Patience, splice};
use crate::protocol::mcp::client::META_SUBSCRIPTION;
use crate::protocol::mcp::hub::Shelf;
use crate::protocol::mcp::relay;
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::{ASKS_PER_SESSION_MAX, PROMPTS_CHANGED, TOOLS_CHANGED};

/// How long a question of an upstream waits, at most: the upstream takes it back before, and so does the end of the call.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// The same for the book of questions, which must not forget it first.
const NOTED_FOR: Patience = Patience { idle_ms: u64::MAX / 4, total_ms: u64::MAX / 4 };
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

    /// Takes back a subscription that its server refused: by the name that it has there, and by that which it has here.
    pub(super) fn withdraw_subscription(&self, upstream: &Arc<Upstream>, own: &str, here: &str) {
        self.unsubscribe(here);
        let slots = self.attachment.as_ref().map(|attachment| attachment.slots()).unwrap_or_default();
        for slot in slots.iter().filter(|slot| slot.is_of(upstream)) {
            slot.remove_interest(own, self.number());
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
            let asked = peer.asking.ask(NO_CALL, NOTED_FOR, ASKS_PER_SESSION_MAX, clock::now());
            let id = asked.map_err(|full| full.to_string())?;
            let progress = token.map(|token| (token, Arc::clone(instance)));
            self.lively.lock().asks.insert(id, Waiting::Text { sender, progress });
            id
        };
        let _asked = Asked::new(self, id, route);
        route.push(Kind::Request, relay::request(text, id.0, has_token).into());
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| "the client's session has ended".to_owned()),
            Err(_) => Err("the client did not answer in time".to_owned()),
        }
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

    /// Tells the client that lists are others, in another server's words, if the client wants to know.
    pub(in crate::mcp) fn relay_change(&self, method: &str, text: &str) {
        if self.is_ready() {
            self.relay_plain(text);
        }
        self.relay_to_listens(text, |filter| match method {
            TOOLS_CHANGED => filter.tools,
            PROMPTS_CHANGED => filter.prompts,
            _ => filter.resources,
        });
    }

    /// Tells the client that a resource has another content, of a server by whose name here its URI may stand: `wanted` is the URI
    /// that was asked for, of which the one in the text may be a part.
    pub(in crate::mcp) fn relay_update(&self, server: &str, text: &str, wanted: &str) {
        let prefixed = Shelf::Resources.prefixed(server, wanted);
        let is_prefixed = |has: &dyn Fn(&str) -> bool| self.server.is_hub() && has(&prefixed);
        let renamed = || {
            let uri = splice::get(text, &["params", "uri"]).and_then(|uri| serde_json::from_str::<String>(uri).ok())?;
            let uri = jsonrpc::raw(&Shelf::Resources.prefixed(server, &uri));
            splice::set(text, &["params", "uri"], uri.get())
        };
        let (is_plain, is_renamed) = {
            let lively = self.lively.lock();
            let has = |uri: &str| lively.subscriptions.contains(uri);
            (has(wanted), is_prefixed(&has))
        };
        if is_plain {
            self.relay_plain(text);
        }
        let renamed = if self.server.is_hub() { renamed() } else { None };
        if let (true, Some(renamed)) = (is_renamed, &renamed) {
            self.relay_plain(renamed);
        }
        self.relay_to_listens(text, |filter| filter.uris.iter().any(|uri| uri == wanted));
        if let Some(renamed) = &renamed {
            self.relay_to_listens(renamed, |filter| filter.uris.contains(&prefixed));
        }
    }

    /// Sends a notification that may be of a stream of changes which is not this client's.
    fn relay_plain(&self, text: &str) {
        let plain = splice::remove(text, &["params", "_meta", META_SUBSCRIPTION]);
        let plain = plain.unwrap_or(text.into());
        self.standing().push(Kind::Notification, Bytes::copy_from_slice(plain.as_bytes()));
    }

    fn relay_to_listens(&self, text: &str, wants: impl Fn(&Filter) -> bool) {
        for listen in self.lively.lock().listens.iter().filter(|listen| wants(&listen.filter)) {
            if let Some(text) = splice::set(text, &["params", "_meta", META_SUBSCRIPTION], listen.id.get()) {
                listen.route.push(Kind::Notification, text.into());
            }
        }
    }

    /// Takes back what a stream of changes wanted to hear that has ended, and nothing else of this session wants.
    pub(in crate::mcp) fn release(&self, uris: &[String]) {
        let Some(attachment) = &self.attachment else { return };
        let gone: Vec<_> = {
            let lively = self.lively.lock();
            let is_wanted = |uri: &String| {
                lively.subscriptions.contains(uri)
                    || lively.listens.iter().any(|listen| listen.filter.uris.contains(uri))
            };
            uris.iter().filter(|uri| !is_wanted(uri)).cloned().collect()
        };
        for slot in attachment.slots() {
            for uri in &gone {
                slot.release(uri, self.number(), self.server.is_hub());
            }
        }
    }
}
