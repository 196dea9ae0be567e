//! The seam at which authentication, policy, limits and audit are put in, and what is there in development.

use std::any::Any;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::live::{Gone, Resident};
pub use crate::auth::{Admitted, AuthRefused, Authenticator, Chain, Credential, Door, Identity, Presented, Rights};
pub use crate::protocol::mcp::session::SessionToken;
use crate::protocol::policy::Grants;
use crate::protocol::topic::is_reserved;
use crate::protocol::workflow::trigger::EVENT_TOPIC_PREFIX;

/// The rights that a workflow's run or a trigger goes on with after a restart: those that its user had when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptRights {
    /// Its roles.
    pub roles: Vec<String>,
    /// Its capabilities, as texts.
    pub capabilities: Vec<String>,
}

impl KeptRights {
    /// Those of an identity.
    pub fn of(identity: &Identity) -> Self {
        KeptRights { roles: identity.rights().roles.clone(), capabilities: identity.rights().grants.texts() }
    }

    /// The identity of a user with them.
    pub fn identity(&self, user: &str) -> Identity {
        let grants = Grants::parse(&self.capabilities).unwrap_or_default();
        Identity::new(user, Rights { roles: self.roles.clone(), grants, ..Rights::default() })
    }
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Whole seconds until it would be let through.
    pub retry_after_s: u64,
}

/// A request of a client that was decided on: for the audit log.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// Who asked.
    pub user: &'a Identity,
    /// The session.
    pub session_id: &'a str,
    /// The server's name.
    pub server: &'a str,
    /// The method.
    pub method: &'a str,
    /// Its params as they came, secrets among them.
    pub params: Option<&'a RawValue>,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It is being served.
    Allowed,
    /// It was not: the text of the error.
    Denied(&'a str),
    /// It came too soon.
    RateLimited(RateLimited),
}

/// Something of a session that is not a request: for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent<'a> {
    /// It ended; why.
    Terminated(&'a str),
    /// Its client had been silent too long.
    TimedOut,
}

/// A place that a session holds until it is dropped.
pub type SessionPlace = Box<dyn Any + Send + Sync>;

/// What an authenticator gives a session that begins.
#[derive(Default)]
pub struct Opened {
    /// Held as long as the session.
    pub place: Option<SessionPlace>,
    /// A token by which the client may come back, and when it ends.
    pub token: Option<SessionToken>,
    /// The name by which the session can be revoked.
    pub session: Option<Arc<str>>,
}

/// Says who is behind a credential, and what they may do.
///
/// It is asked at each join of an MCP topic, and phoenix.js repeats a refused join for ever: refusing must be cheap.
pub trait McpAuth: Send + Sync + 'static {
    /// Finds out who is asking.
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>>;

    /// Whether that user may use the server of that name: `servers:use:<name>`. It is asked at each join and each HTTP request,
    /// and by the hub for each of its servers.
    fn may_use(&self, user: &Identity, server: &str) -> bool {
        user.rights().grants.may_use_server(server)
    }

    /// Whether a server takes other credentials than the rest: then it is reached by its own topic and path alone, and is none of
    /// the hub's.
    fn is_apart(&self, _server: &str) -> bool {
        false
    }

    /// As [`McpAuth::may_use`], for the server that is meant where none is named.
    fn may_use_default(&self, user: &Identity, server: &str) -> bool {
        self.may_use(user, server)
    }

    /// Whether that user's triggers may hear what is broadcast on a topic: on those for such events, and where they may join; on
    /// the topics of runs with `runs:watch`, and on no reserved one.
    fn may_hear(&self, user: &Identity, topic: &str) -> bool {
        let rights = user.rights();
        let is_of_runs = ["mcp:", "status:"].iter().any(|prefix| topic.starts_with(prefix));
        match topic.starts_with(EVENT_TOPIC_PREFIX) {
            true => true,
            false if is_reserved(topic) => false,
            false if is_of_runs => rights.grants.allows("runs:watch"),
            false => rights.grants.may_join(topic),
        }
    }

    /// Whether that user may broadcast events for triggers on a topic, which begin runs of others: `topics:broadcast:<topic>`.
    fn may_emit(&self, user: &Identity, topic: &str) -> bool {
        !is_reserved(topic) && user.rights().grants.may_broadcast(topic)
    }

    /// Whether `watcher` may see the runs of `owner`: their own, and all with `runs:watch`.
    fn may_watch(&self, watcher: &Identity, owner: &Identity) -> bool {
        watcher == owner || watcher.rights().grants.allows("runs:watch")
    }

    /// Whether that user may do one more request of that method now.
    ///
    /// # Errors
    /// When to come again.
    fn admit(&self, _user: &Identity, _method: &str) -> Result<(), RateLimited> {
        Ok(())
    }

    /// A session begins.
    ///
    /// # Errors
    /// The user has as many as they may.
    fn open_session(&self, _user: &Identity, _session_id: &str) -> Result<Opened, AuthRefused> {
        Ok(Opened::default())
    }

    /// A session's client wants its token made anew.
    ///
    /// # Errors
    /// It is too early or too late for that, or there are no such tokens.
    fn refresh_session(&self, _token: &str) -> Result<SessionToken, AuthRefused> {
        Err(AuthRefused("Token not eligible for refresh".to_owned()))
    }

    /// Tells `leave` when that user's credential ends or is revoked, or the session that [`McpAuth::open_session`] named is, as
    /// long as what is given back is kept.
    fn watch_credential(&self, _user: &Identity, _session: Option<&Arc<str>>, _leave: Leave) -> Option<Resident> {
        None
    }

    /// A request was decided on.
    fn operated(&self, _operation: &Operation<'_>) {}

    /// Something happened to a session.
    fn session_changed(&self, _user: &Identity, _session_id: &str, _event: SessionEvent<'_>) {}

    /// Whether [`McpAuth::operated`] and [`McpAuth::session_changed`] do anything: params are kept for it.
    fn is_audited(&self) -> bool {
        false
    }
}

/// What is told to whoever came by a credential that ends.
pub type Leave = Box<dyn Fn(Gone) + Send + Sync>;

/// The development setting: any credential, or none, is the user `dev`. For loopback only.
#[derive(Clone, Copy, Debug)]
pub struct Development;

impl McpAuth for Development {
    fn authenticate(&self, _presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        async { Ok(Identity::unrestricted("dev")) }.boxed()
    }
}

/// An [`McpAuth`] that is shared.
impl<A: McpAuth + ?Sized> McpAuth for Arc<A> {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        (**self).authenticate(presented)
    }

    fn may_use(&self, user: &Identity, server: &str) -> bool {
        (**self).may_use(user, server)
    }

    fn is_apart(&self, server: &str) -> bool {
        (**self).is_apart(server)
    }

    fn may_use_default(&self, user: &Identity, server: &str) -> bool {
        (**self).may_use_default(user, server)
    }

    fn may_hear(&self, user: &Identity, topic: &str) -> bool {
        (**self).may_hear(user, topic)
    }

    fn may_emit(&self, user: &Identity, topic: &str) -> bool {
        (**self).may_emit(user, topic)
    }

    fn may_watch(&self, watcher: &Identity, owner: &Identity) -> bool {
        (**self).may_watch(watcher, owner)
    }

    fn admit(&self, user: &Identity, method: &str) -> Result<(), RateLimited> {
        (**self).admit(user, method)
    }

    fn open_session(&self, user: &Identity, session_id: &str) -> Result<Opened, AuthRefused> {
        (**self).open_session(user, session_id)
    }

    fn refresh_session(&self, token: &str) -> Result<SessionToken, AuthRefused> {
        (**self).refresh_session(token)
    }

    fn watch_credential(&self, user: &Identity, session: Option<&Arc<str>>, leave: Leave) -> Option<Resident> {
        (**self).watch_credential(user, session, leave)
    }

    fn operated(&self, operation: &Operation<'_>) {
        (**self).operated(operation);
    }

    fn session_changed(&self, user: &Identity, session_id: &str, event: SessionEvent<'_>) {
        (**self).session_changed(user, session_id, event);
    }

    fn is_audited(&self) -> bool {
        (**self).is_audited()
    }
}
