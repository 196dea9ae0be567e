//! Requests that are passed on to another server: what of them is answered here, and where the others go.

mod exchange;
mod hub;
mod parked;
mod session;

use std::sync::Arc;

use futures::FutureExt;
use serde_json::json;
use serde_json::value::RawValue;

use exchange::Passed;
pub(super) use hub::Hub;
pub(super) use parked::Parked;

use super::call::{Call, Output, Relayed, Subject};
use super::outgoing::Outgoing;
use super::serve::{Served, invalid, uri_of};
use super::server::Behind;
use super::session::Session;
use super::upstream::{Hello, NotUp, Upstream};
use super::{CallError, elixir};
use crate::protocol::jsonrpc::{self, Fault, Scope};
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::relay::{self, Introduction};
use crate::protocol::mcp::session::Empty;
use crate::protocol::mcp::subscription::Filter;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    CREATE_MESSAGE, DISCOVER, INITIALIZE, LISTENS_PER_SESSION_MAX, PING, RESOURCES_SUBSCRIBE, RESOURCES_UNSUBSCRIBE,
    SET_LEVEL, SUBSCRIPTIONS_LISTEN, SUBSCRIPTIONS_PER_SESSION_MAX, TOOLS_CALL, error, peer,
};

/// Characters of a tool's name that its run keeps.
const RUN_NAME_CHARS_MAX: usize = 128;

impl Session {
    /// Serves a request of a server that passes requests on.
    pub(super) fn pass_on(self: &Arc<Self>, call: peer::Call<'_>, route: &Arc<Outgoing>) -> Result<Served, Fault> {
        match &self.server.behind {
            Behind::Nobody => self.dispatch_here(call, route),
            Behind::Upstream(upstream) => self.pass_to(&Arc::clone(upstream), call, route),
            Behind::Hub(hub) => self.pass_by(&Arc::clone(hub), call, route),
        }
    }

    fn pass_to(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let is_modern = call.client.era == Era::Modern;
        // A connection may be shared, where such a request would be of all.
        if (is_modern && is_of_legacy(&call.method)) || call.method.starts_with("notifications/") {
            return Err(Fault::MethodNotFound(call.method));
        }
        match call.method.as_str() {
            PING if !is_modern => Ok(Served::Now(jsonrpc::raw(&Empty {}))),
            INITIALIZE if !is_modern => self.pass_initialize(upstream, &call, route),
            DISCOVER if is_modern => self.pass_discover(upstream, &call, route),
            SUBSCRIPTIONS_LISTEN if is_modern => self.pass_listen(upstream, &call, route),
            SET_LEVEL if !is_modern => self.pass_level(upstream, &call, route),
            RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE if !is_modern => {
                let uri = uri_of(&call.params)?;
                self.pass_subscription(upstream, &call, route, Subscribed { own: &uri, here: &uri })
            }
            // Of the Elixir deployment: the client asks, and this program answers.
            CREATE_MESSAGE if call.client.era == Era::Elixir => {
                let served = self.begin(&call, route, Subject::Other, None)?;
                let work = elixir::sample(&served, &call.params);
                served.start(|_| work);
                Ok(Served::Later)
            }
            _ => self.exchange(upstream, Passed::of(&call), &call, route),
        }
    }

    /// Passes a request on and its answer back.
    fn exchange(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        passed: Passed,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let name: Option<Arc<str>> = (call.method == TOOLS_CALL).then(|| {
            let name = call.params.string("name").unwrap_or_default();
            name.chars().take(RUN_NAME_CHARS_MAX).collect::<String>().into()
        });
        let served = self.begin_passed(upstream, call, route, name.as_ref())?;
        let (this, upstream) = (Arc::clone(&served), Arc::clone(upstream));
        served.start(move |_| exchange::run(this, upstream, passed).boxed());
        Ok(Served::Later)
    }

    fn begin_passed(
        self: &Arc<Self>,
        upstream: &Upstream,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
        tool: Option<&Arc<str>>,
    ) -> Result<Arc<Call>, Fault> {
        let limit_ms = u64::try_from(upstream.options.call_timeout.as_millis()).unwrap_or(u64::MAX);
        self.begin(call, route, Subject::Relayed { limit_ms }, tool)
    }

    /// `initialize`: with what the upstream answered to it, or to that of all who share the connection.
    fn pass_initialize(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let params = call.raw_params.map(ToOwned::to_owned).unwrap_or_else(|| jsonrpc::raw(&json!({})));
        self.introduce(params.clone());
        let served = self.begin_passed(upstream, call, route, None)?;
        let (this, upstream) = (Arc::clone(&served), Arc::clone(upstream));
        let work = async move {
            let introduction = Introduction::of_initialize(&params);
            let lease = upstream.lease(&this.session, &this.client, &introduction).map_err(unreachable)?;
            let instance = lease.slot().up().await.map_err(unreachable)?;
            let hello = instance.hello().expect("a connection that is up has shaken hands");
            let (text, version) = initialized(hello, &this.client, &upstream.name);
            this.session.initialize(&Arc::new(Client { version, ..Client::clone(&this.client) }));
            let text = relay::under_id(&text, &this.id).into();
            Ok(Output::Relayed(Relayed { text, error: None }))
        };
        served.start(|_| work.boxed());
        Ok(Served::Later)
    }

    /// `server/discover`: passed on, or told in that era's words of a server of the other.
    fn pass_discover(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let passed = Passed::of(call);
        let introduction = Introduction::of_meta(call.raw_params);
        let served = self.begin_passed(upstream, call, route, None)?;
        let (this, upstream) = (Arc::clone(&served), Arc::clone(upstream));
        let work = async move {
            let lease = upstream.lease(&this.session, &this.client, &introduction).map_err(unreachable)?;
            let instance = lease.slot().up().await.map_err(unreachable)?;
            let hello = instance.hello().expect("a connection that is up has shaken hands");
            if hello.is_modern() {
                drop(lease);
                return exchange::run(this, upstream, passed).await;
            }
            let text = jsonrpc::result_response(&this.id, &relay::discovered_of(&hello.result));
            Ok(Output::Relayed(Relayed { text, error: None }))
        };
        served.start(|_| work.boxed());
        Ok(Served::Later)
    }

    /// A stream of changes, which is this program's own: the upstream is asked for what any client wants to hear.
    fn pass_listen(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let filter = Filter { tasks: Vec::new(), ..Filter::read(&call.params)? };
        let uris = filter.uris.clone();
        let slot = upstream.heard(self, &call.client, &Introduction::of_meta(call.raw_params));
        let slot = slot.map_err(|NotUp(why)| error::other(jsonrpc::INTERNAL_ERROR, why, None))?;
        if !self.listen(call.number, call.id, filter, route) {
            return Err(Fault::TooManyCalls { scope: Scope::Session, limit: LISTENS_PER_SESSION_MAX });
        }
        slot.want();
        for uri in uris {
            if slot.add_interest(&uri, self.number()) {
                slot.subscription(RESOURCES_SUBSCRIBE, &uri);
            }
        }
        Ok(Served::Later)
    }

    /// `logging/setLevel`: the upstream's, of a connection for one; else each client gets what it wants of the most verbose.
    fn pass_level(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
    ) -> Result<Served, Fault> {
        let level = call.params.get::<Level>("level");
        let slot = self.slot(upstream, call)?;
        let is_passed = slot.is_owned() && !slot.is_stateless();
        match level {
            Some(level) if !is_passed => {
                self.set_level(level);
                slot.want_level(level);
                Ok(Served::Now(jsonrpc::raw(&Empty {})))
            }
            None if !is_passed => {
                Err(invalid("level must be one of debug, info, notice, warning, error, critical, alert, emergency"))
            }
            level => {
                if let Some(level) = level {
                    // Should the upstream be started again.
                    self.set_level(level);
                    slot.note_level(level);
                }
                self.exchange(upstream, Passed::of(call), call, route)
            }
        }
    }

    /// `resources/subscribe` and its end: passed on where the client is the first, or the last.
    fn pass_subscription(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
        route: &Arc<Outgoing>,
        uri: Subscribed<'_>,
    ) -> Result<Served, Fault> {
        if self.note_subscription(upstream, &call.client, &call.method, uri)? {
            return self.exchange(upstream, Passed::of(call).called(uri.here), call, route);
        }
        Ok(Served::Now(jsonrpc::raw(&Empty {})))
    }

    /// Notes what a client subscribes to, or no longer; whether the upstream is to be told in the client's words.
    fn note_subscription(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        client: &Client,
        method: &str,
        uri: Subscribed<'_>,
    ) -> Result<bool, Fault> {
        let lease = upstream.lease(self, client, &self.introduction_of(None, client));
        let lease = lease.map_err(|NotUp(why)| error::other(jsonrpc::INTERNAL_ERROR, why, None))?;
        let slot = lease.slot();
        let is_passed = if method == RESOURCES_SUBSCRIBE {
            if !self.subscribe(uri.here.to_owned()) {
                let text = format!("expected at most {SUBSCRIPTIONS_PER_SESSION_MAX} subscriptions, came one more");
                return Err(Fault::InvalidRequest(text));
            }
            slot.add_interest(uri.own, self.number())
        } else {
            self.unsubscribe(uri.here);
            slot.remove_interest(uri.own, self.number())
        };
        if slot.is_stateless() {
            slot.subscription(method, uri.own);
            return Ok(false);
        }
        Ok(is_passed || slot.is_owned())
    }

    /// The connection of a session that has shaken hands.
    fn slot(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        call: &peer::Call<'_>,
    ) -> Result<Arc<super::upstream::Slot>, Fault> {
        let lease = upstream.lease(self, &call.client, &self.introduction_of(call.raw_params, &call.client));
        let lease = lease.map_err(|NotUp(why)| error::other(jsonrpc::INTERNAL_ERROR, why, None))?;
        Ok(Arc::clone(lease.slot()))
    }

    /// What the client said of itself: when it opened, or in this request.
    fn introduction_of(&self, params: Option<&RawValue>, client: &Client) -> Introduction {
        match client.era {
            Era::Modern => Introduction::of_meta(params),
            Era::Legacy | Era::Elixir => {
                let opened = self.introduction();
                let opened = opened.as_deref().map(Introduction::of_initialize);
                opened.unwrap_or_else(|| Introduction {
                    capabilities: jsonrpc::raw(&json!({})),
                    info: client.info.clone(),
                })
            }
        }
    }
}

/// A resource that is subscribed to.
#[derive(Clone, Copy)]
struct Subscribed<'a> {
    /// As its server calls it.
    own: &'a str,
    /// As the client does.
    here: &'a str,
}

/// Whether a method is one that the stateless era has not.
fn is_of_legacy(method: &str) -> bool {
    matches!(method, INITIALIZE | PING | SET_LEVEL | RESOURCES_SUBSCRIBE | RESOURCES_UNSUBSCRIBE)
}

/// The response to `initialize`, but for its id, and the revision that it agrees on.
fn initialized(hello: &Hello, client: &Client, name: &str) -> (String, Version) {
    let text = if hello.is_modern() {
        let result = relay::initialized_of(&hello.result, name);
        let text = jsonrpc::result_response(RawValue::NULL, &result);
        String::from_utf8_lossy(&text).into_owned()
    } else {
        String::from_utf8_lossy(&hello.text).into_owned()
    };
    // A connection that others opened may speak a later one than this client; what came later is added, not changed.
    let spoken = if hello.is_modern() { Version::LATEST_LEGACY } else { hello.version };
    let version = client.version.min(spoken);
    let agreed = if version == spoken && !hello.is_modern() { text } else { relay::agreeing_on(&text, version) };
    (agreed, version)
}

/// No upstream, as a failed call tells it.
fn unreachable(NotUp(why): NotUp) -> CallError {
    CallError::rpc(jsonrpc::INTERNAL_ERROR, why, None)
}
