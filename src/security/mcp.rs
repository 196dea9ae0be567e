//! The way in to MCP.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Security;
use crate::auth::live::Resident;
use crate::auth::sessions::{HeldSession, SessionMeta};
use crate::auth::{AuthRefused, Identity, Presented};
use crate::clock;
use crate::mcp::auth::{Leave, McpAuth, Opened, Operation, RateLimited, SessionEvent, SessionToken};
use crate::protocol::mcp::SERVER_TOPIC_PREFIX;

/// [`Security`] for an [`Mcp`](crate::mcp::Mcp).
#[derive(Clone, Debug)]
pub struct SecuredMcp(pub(super) Arc<Security>);

impl Security {
    /// The way in for an [`Mcp`](crate::mcp::Mcp).
    pub fn mcp(self: &Arc<Self>) -> SecuredMcp {
        SecuredMcp(Arc::clone(self))
    }
}

/// A session's place among those of its user.
struct Place {
    security: Arc<Security>,
    user: Arc<str>,
    held: Option<HeldSession>,
}

impl Place {
    fn take(security: &Arc<Security>, user: &Identity) -> Result<Self, AuthRefused> {
        let max = security.sessions_per_user_max;
        let mut places = security.places.lock();
        let taken = places.entry(Arc::clone(&user.user)).or_default();
        if *taken >= max {
            return Err(AuthRefused::too_many_sessions(max));
        }
        *taken += 1;
        Ok(Place { security: Arc::clone(security), user: Arc::clone(&user.user), held: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            self.security.session_users.lock().remove(held.id());
            self.security.live.end_session(held.id());
        }
        let mut places = self.security.places.lock();
        if let Some(taken) = places.get_mut(&self.user) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.user);
            }
        }
    }
}

impl McpAuth for SecuredMcp {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        self.0.authenticate(presented).boxed()
    }

    fn admit(&self, user: &Identity, method: &str) -> Result<(), RateLimited> {
        self.0.admit(user, method)
    }

    fn open_session(&self, user: &Identity, _session_id: &str) -> Result<Opened, AuthRefused> {
        let security = &self.0;
        let mut place = Place::take(security, user)?;
        let opened = security.sessions.open(&user.user, SessionMeta::default(), clock::unix_micros() / 1_000);
        let (record, token) = opened.map_err(|refused| AuthRefused(refused.to_string()))?;
        security.session_users.lock().insert(Arc::clone(&record.id), user.clone());
        place.held = Some(security.sessions.hold(&record.id));
        let token = Some(told(token, record.expires_unix_ms));
        Ok(Opened { place: Some(Box::new(place)), token, session: Some(record.id) })
    }

    fn refresh_session(&self, token: &str) -> Result<SessionToken, AuthRefused> {
        let refreshed = self.0.sessions.refresh(token, clock::unix_micros() / 1_000);
        let (record, token) = refreshed.map_err(|refused| AuthRefused(refused.to_string()))?;
        Ok(told(token, record.expires_unix_ms))
    }

    fn watch_credential(&self, user: &Identity, session: Option<&Arc<str>>, leave: Leave) -> Option<Resident> {
        Some(self.0.enter(user, session, leave))
    }

    fn is_apart(&self, server: &str) -> bool {
        self.0.is_apart(&format!("{SERVER_TOPIC_PREFIX}{server}"))
    }

    fn may_use_default(&self, user: &Identity, server: &str) -> bool {
        let rights = user.rights();
        rights.grants.may_use_server(server) || !rights.grants.denies_server(server)
    }

    fn operated(&self, operation: &Operation<'_>) {
        self.0.recording.operation(operation);
    }

    fn session_changed(&self, user: &Identity, session_id: &str, event: SessionEvent<'_>) {
        self.0.recording.session(user, session_id, event);
    }

    fn is_audited(&self) -> bool {
        self.0.recording.audit().is_some()
    }
}

fn told(token: String, expires_unix_ms: u64) -> SessionToken {
    SessionToken { token, expires_at: clock::iso8601_micros(expires_unix_ms * 1_000) }
}
