//! Topics without code: what a client sends there, the others hear, as far as the policy lets them.
//!
//! ```text
//! join        topics:join:<topic>        replies {}
//! any event   topics:broadcast:<topic>   goes to all others on the topic; replies ok {} or error {"reason":"unauthorized"}
//! presence    topics:presence:<topic>    is tracked under the user's id, and gets presence_state and presence_diff
//! ```

use std::sync::Arc;

use crate::auth::live::{Gone, Resident};
use crate::auth::{Admitted, Credential, Door, Identity, Presented};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::clock;
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::{ACCESS_TOKEN, CREDENTIAL_EXPIRED};
use crate::protocol::topic::is_reserved;

use super::Security;

/// What a client gets that may not.
const UNAUTHORIZED: &str = "unauthorized";
/// Event of a change among those present.
const PRESENCE_DIFF: &str = "presence_diff";
/// Event of all who are present.
const PRESENCE_STATE: &str = "presence_state";

/// One client on one topic.
pub(crate) struct TopicChannel {
    security: Arc<Security>,
    user: Identity,
    resident: Resident,
}

/// What the channel is told by the server's own code.
pub(crate) enum Info {
    /// The join has been answered.
    Joined,
    /// The time of its credential is over.
    CredentialExpired,
}

impl Channel for TopicChannel {
    type Info = Info;

    const INTERCEPT: &'static [&'static str] = &[PRESENCE_DIFF];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let security: Arc<Security> = cx.state().expect("the routes of topics are given a Security");
        let presented = Presented::new(credential(&params), Door::Topic(topic.to_owned()));
        let presented = presented.by(cx.assigns::<Admitted>());
        let user = security.authenticate(presented).await.map_err(|refused| Refusal::reason(refused.0))?;
        // What is broadcast on these is obeyed, so they are no clients' whatever the patterns and the policy say.
        if is_reserved(topic) || !user.rights().grants.may_join(topic) {
            security.denied(&user, topic, "topics:join");
            return Err(Refusal::reason(UNAUTHORIZED));
        }
        let (handle, socket) = (cx.handle(), cx.socket());
        let resident = security.enter(&user, None, move |gone| match gone {
            // Where the connection is going, nobody waits for the message.
            Gone::Expired => drop(handle.send(Info::CredentialExpired)),
            Gone::Revoked => socket.disconnect(),
        });
        cx.send(Info::Joined);
        Ok((TopicChannel { security, user, resident }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        if event == ACCESS_TOKEN {
            return self.renew(&payload, cx).await;
        }
        let is_reserved = event.starts_with("phx_") || event.starts_with("presence_");
        if is_reserved || !self.user.rights().grants.may_broadcast(cx.topic()) {
            self.security.denied(&self.user, cx.topic(), "topics:broadcast");
            return Next::error(Payload::reason(UNAUTHORIZED));
        }
        if matches!(payload, Payload::Json(_)) && !payload.is_object() {
            return Next::error(Payload::reason("expected an object or binary data"));
        }
        cx.broadcast_from(event, payload);
        Next::ok(Payload::EMPTY)
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::CredentialExpired => {
                let now_ms = clock::unix_micros() / 1_000;
                // A later one may have been taken meanwhile.
                if self.user.rights().expires_unix_ms.is_none_or(|ends| ends <= now_ms) {
                    return Next::crash(CREDENTIAL_EXPIRED);
                }
            }
            Info::Joined if self.sees_presence(cx.topic()) => {
                let presences = cx.presences();
                cx.push(PRESENCE_STATE, presences);
                let meta = serde_json::json!({"online_at": clock::unix_micros() / 1_000_000});
                let user = Arc::clone(&self.user.user);
                if let Err(error) = cx.track(&user, meta) {
                    tracing::debug!(%error, "a user is not tracked");
                }
            }
            Info::Joined => {}
        }
        Next::NoReply
    }

    async fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        if self.sees_presence(cx.topic()) {
            cx.push(event, payload.clone());
        }
        Next::NoReply
    }
}

impl TopicChannel {
    fn sees_presence(&self, topic: &str) -> bool {
        self.user.rights().grants.may_see_presence(topic)
    }

    async fn renew(&self, payload: &Payload, cx: &Cx<Self>) -> Next {
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
                match self.user.rights().grants.may_join(cx.topic()) {
                    true => Next::ok(Payload::EMPTY),
                    false => Next::crash(UNAUTHORIZED),
                }
            }
            Ok(_) => Next::error(Payload::reason("access_token is another user's")),
            Err(refused) => Next::error(Payload::reason(&refused.0)),
        }
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
