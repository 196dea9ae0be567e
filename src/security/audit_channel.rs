//! The audit log's topics, for dashboards whose user may read it: `admin:audit`.

use std::sync::Arc;

use super::Security;
use crate::auth::live::{Gone, Resident};
use crate::auth::{Admitted, Credential, Door, Presented};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::protocol::mcp::{CREDENTIAL_EXPIRED, UNKNOWN_EVENT};

/// What reading the log needs.
const CAPABILITY: &str = "admin:audit";

/// One dashboard. Entries are broadcast on the topic as `audit_log`, alerts as `security_alert`.
pub(super) struct AuditChannel {
    _resident: Resident,
}

/// The time of the client's credential is over.
pub(super) struct CredentialExpired;

impl Channel for AuditChannel {
    type Info = CredentialExpired;

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let security: Arc<Security> = cx.state().expect("the routes of the audit log are given a Security");
        let json = match &params {
            Payload::Json(text) => text.as_ref(),
            Payload::Binary(_) => b"null",
        };
        let presented = Presented::new(Credential::choose(json), Door::Topic(topic.to_owned()));
        let presented = presented.by(cx.assigns::<Admitted>());
        let user = security.authenticate(presented).await.map_err(|refused| Refusal::reason(refused.0))?;
        if !user.rights().grants.allows(CAPABILITY) {
            security.denied(&user, topic, CAPABILITY);
            return Err(Refusal::reason("unauthorized"));
        }
        let (handle, socket) = (cx.handle(), cx.socket());
        let resident = security.enter(&user, None, move |gone| match gone {
            // Where the connection is going, nobody waits for the message.
            Gone::Expired => drop(handle.send(CredentialExpired)),
            Gone::Revoked => socket.disconnect(),
        });
        Ok((AuditChannel { _resident: resident }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, _event: &str, _payload: Payload, _cx: &mut Cx<Self>) -> Next {
        Next::error(Payload::reason(UNKNOWN_EVENT))
    }

    async fn handle_info(&mut self, _expired: CredentialExpired, _cx: &mut Cx<Self>) -> Next {
        Next::crash(CREDENTIAL_EXPIRED)
    }
}
