//! Who is behind a session: the seam at which authenticators are put in, and the one for development.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::protocol::mcp::session::Credential;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's id, unique in the deployment.
    pub user: Arc<str>,
}

/// A credential was not accepted. The text is the join's `reason`; it says nothing that helps to guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthRefused(pub String);

impl AuthRefused {
    /// No credential, where one is needed.
    pub fn no_credentials() -> Self {
        AuthRefused("No authentication credentials provided".to_owned())
    }
}

/// Says who is behind a credential, and who may see whose runs.
///
/// It is asked at each join of an MCP topic, and phoenix.js repeats a refused join for ever: refusing must be cheap.
pub trait McpAuth: Send + Sync + 'static {
    /// Finds out who is asking. `None` is a join without a credential.
    fn authenticate(&self, credential: Option<Credential>) -> BoxFuture<'_, Result<Identity, AuthRefused>>;

    /// Whether that user may use the server of that name: any, unless the authenticator says less. It is asked at each join and each
    /// HTTP request, and by the hub for each of its servers.
    fn may_use(&self, _user: &Identity, _server: &str) -> bool {
        true
    }

    /// Whether that user's triggers may hear what is broadcast on a topic: on those for such events alone, unless the
    /// authenticator says more.
    fn may_hear(&self, _user: &Identity, topic: &str) -> bool {
        topic.starts_with(crate::protocol::workflow::trigger::EVENT_TOPIC_PREFIX)
    }

    /// Whether that user may broadcast events for triggers on a topic: no, unless the authenticator says so, since they begin runs
    /// of others.
    fn may_emit(&self, _user: &Identity, _topic: &str) -> bool {
        false
    }

    /// Whether `watcher` may see the runs of `owner`: their own, unless the authenticator says more.
    fn may_watch(&self, watcher: &Identity, owner: &Identity) -> bool {
        watcher == owner
    }
}

/// The development setting: any credential, or none, is the user `dev`. For loopback only.
#[derive(Clone, Copy, Debug)]
pub struct Development;

impl McpAuth for Development {
    fn authenticate(&self, _credential: Option<Credential>) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        async { Ok(Identity { user: "dev".into() }) }.boxed()
    }

    fn may_hear(&self, _user: &Identity, _topic: &str) -> bool {
        true
    }

    fn may_emit(&self, _user: &Identity, _topic: &str) -> bool {
        true
    }
}
