//! Who a socket's client is: by `authToken`, else by the connect params `token` or `api_key`.

use std::sync::Arc;

use super::{SOCKET_ID_PREFIX, Security};
use crate::auth::{Admitted, Credential, Door, Presented};
use crate::channel::{ConnectError, ConnectInfo, Connected};

impl Security {
    /// Lets a client in, or not: whatever the reason, it gets 403, and the reason is only logged.
    pub(super) async fn connect(self: &Arc<Self>, info: ConnectInfo) -> Result<Connected, ConnectError> {
        let mut presented = Presented::new(credential(&info), Door::Socket(info.uri.path.clone()));
        presented.ip = Some(info.peer.ip());
        presented.forwarded = info.header("x-forwarded-for").map(|_| {
            let all = info.headers.iter().filter(|(name, _)| name == "x-forwarded-for");
            all.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(",")
        });
        presented.user_agent = info.header("user-agent").map(ToOwned::to_owned);
        let ip = self.client_ip(&presented);
        let identity = self.authenticate(presented).await.map_err(|refused| {
            tracing::debug!(?ip, reason = refused.0, "a socket is refused");
            ConnectError::Refused
        })?;
        let admitted = Admitted::new(Some(identity.clone()), ip);
        let (security, settled, user) = (Arc::clone(self), admitted.clone(), identity.clone());
        let id = format!("{SOCKET_ID_PREFIX}{}", identity.user);
        let connected = Connected::with(admitted).id(id);
        let rights = identity.rights();
        if rights.credential.is_none() && rights.expires_unix_ms.is_none() {
            // Only the user can be revoked, and that is the socket's id.
            return Ok(connected);
        }
        Ok(connected.when_open(move |socket| settled.settle(security.enter(&user, None, move |_| socket.disconnect()))))
    }
}

/// As phoenix.js sends it. A token wins over an API key, whatever they are worth.
fn credential(info: &ConnectInfo) -> Option<Credential> {
    let param = |name: &str| info.params.get_str(name).map(ToOwned::to_owned);
    let token = info.auth_token.clone().or_else(|| param("token")).map(Credential::Token);
    token.or_else(|| param("api_key").or_else(|| param("apiKey")).map(Credential::ApiKey))
}
