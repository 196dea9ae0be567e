//! A user on a topic: who came with which credential, until when, and a later one in its place.

use std::sync::Arc;

use super::Security;
use crate::auth::live::{Gone, Resident};
use crate::auth::{Admitted, Credential, Door, Identity, Presented};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::clock;
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::CREDENTIAL_EXPIRED;
use crate::protocol::policy::Grants;

/// What a client gets that may not.
pub(super) const UNAUTHORIZED: &str = "unauthorized";

/// Who asks to join a topic.
pub(super) struct Came {
    security: Arc<Security>,
    user: Identity,
}

/// Who is on a topic, until its channel ends.
pub(super) struct Stay {
    security: Arc<Security>,
    user: Identity,
    resident: Resident,
}

impl Stay {
    /// Looks at the credential of a join: that among its parameters, or the socket's. The route was given a [`Security`].
    ///
    /// # Errors
    /// The refusal.
    pub(super) async fn come<C: Channel>(topic: &str, params: &Payload, cx: &JoinCx<C>) -> Result<Came, Refusal> {
        let security: Arc<Security> = cx.state().expect("the routes of topics are given a Security");
        let presented = Presented::new(credential(params), Door::Topic(topic.to_owned()));
        let presented = presented.by(cx.assigns::<Admitted>());
        let user = security.authenticate(presented).await.map_err(|refused| Refusal::reason(refused.0))?;
        Ok(Came { security, user })
    }

    /// Who it is.
    pub(super) fn user(&self) -> &Identity {
        &self.user
    }

    /// What the user may, now.
    pub(super) fn may(&self, may: impl FnOnce(&Grants) -> bool) -> bool {
        may(&self.user.rights().grants)
    }

    /// Notes that the user asked for what they may not.
    pub(super) fn denied(&self, topic: &str, capability: &str) {
        self.security.denied(&self.user, topic, capability);
    }

    /// The time of the credential is over, unless a later one was taken meanwhile.
    pub(super) fn expire(&self) -> Next {
        let now_ms = clock::unix_micros() / 1_000;
        match self.user.rights().expires_unix_ms.is_none_or(|ends| ends <= now_ms) {
            true => Next::crash(CREDENTIAL_EXPIRED),
            false => Next::NoReply,
        }
    }

    /// Takes a later credential of the same user. A channel whose user may no longer be there by it ends.
    pub(super) async fn renew<C: Channel>(&self, payload: &Payload, cx: &Cx<C>, may: impl Fn(&Grants) -> bool) -> Next {
        let Some(token) = field(payload, "access_token") else {
            return Next::error(Payload::reason("access_token must be a string"));
        };
        let presented = Presented::new(Some(Credential::Token(token)), Door::Topic(cx.topic().to_owned()));
        let admitted = cx.assigns::<Admitted>();
        match self.security.authenticate(presented.by(admitted).renewal()).await {
            Ok(later) if later.rights().session.is_some() => {
                Next::error(Payload::reason("access_token is a session's, which ends with it"))
            }
            Ok(later) if later == self.user => {
                // Who came in as their socket's user ends with it, and not before.
                if !admitted.and_then(Admitted::identity).is_some_and(|of| of.shares_rights(&self.user)) {
                    self.user.renew(&later);
                    self.resident.renewed();
                }
                if let Some(admitted) = admitted {
                    admitted.renew(&later);
                }
                match self.may(may) {
                    true => Next::ok(Payload::EMPTY),
                    false => Next::crash(UNAUTHORIZED),
                }
            }
            Ok(_) => Next::error(Payload::reason("access_token is another user's")),
            Err(refused) => Next::error(Payload::reason(&refused.0)),
        }
    }
}

impl Came {
    /// What the user may, now.
    pub(super) fn may(&self, may: impl FnOnce(&Grants) -> bool) -> bool {
        may(&self.user.rights().grants)
    }

    /// Who it is.
    pub(super) fn user(&self) -> &Identity {
        &self.user
    }

    /// Notes that they may not, and refuses.
    pub(super) fn refuse(&self, topic: &str, capability: &str) -> Refusal {
        self.security.denied(&self.user, topic, capability);
        Refusal::reason(UNAUTHORIZED)
    }

    /// Lets them stay while their credential holds; `expired` is what the channel is told when it does not any more.
    pub(super) fn stay<C: Channel>(self, cx: &JoinCx<C>, expired: fn() -> C::Info) -> Stay {
        let Came { security, user } = self;
        let (handle, socket) = (cx.handle(), cx.socket());
        let resident = security.enter(&user, None, move |gone| match gone {
            // Where the connection is going, nobody waits for the message.
            Gone::Expired => drop(handle.send(expired())),
            Gone::Revoked => socket.disconnect(),
        });
        Stay { security, user, resident }
    }
}

/// The credential among a join's parameters; `access_token` is what realtime clients call it.
fn credential(params: &Payload) -> Option<Credential> {
    let json = match params {
        Payload::Json(text) => text.as_ref(),
        Payload::Binary(_) => b"null",
    };
    Credential::choose(json).or_else(|| field(params, "access_token").map(Credential::Token))
}

fn field(payload: &Payload, name: &str) -> Option<String> {
    match payload {
        Payload::Json(text) => Object::parse(text)?.string(name),
        Payload::Binary(_) => None,
    }
}
