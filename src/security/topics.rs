//! Topics without code: what a client sends there, the others hear, as far as the policy lets them.
//!
//! ```text
//! join        topics:join:<topic>        replies {}
//! any event   topics:broadcast:<topic>   goes to all others on the topic; replies ok {} or error {"reason":"unauthorized"}
//! presence    topics:presence:<topic>    is tracked under the user's id, and gets presence_state and presence_diff
//! ```

use std::sync::Arc;

use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::clock;
use crate::protocol::mcp::ACCESS_TOKEN;
use crate::protocol::message::{GAP, POSITION, PRESENCE_DIFF};
use crate::protocol::topic::is_reserved;

use super::stay::{Stay, UNAUTHORIZED};

/// Event of all who are present.
const PRESENCE_STATE: &str = "presence_state";

/// One client on one topic.
pub(crate) struct TopicChannel {
    stay: Stay,
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
        let came = Stay::come(topic, &params, cx).await?;
        // What is broadcast on these is obeyed, so they are no clients' whatever the patterns and the policy say.
        if is_reserved(topic) || !came.may(|grants| grants.may_join(topic)) {
            return Err(came.refuse(topic, "topics:join"));
        }
        let stay = came.stay(cx, || Info::CredentialExpired);
        cx.send(Info::Joined);
        Ok((TopicChannel { stay }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        if event == ACCESS_TOKEN {
            return self.stay.renew(&payload, cx, |grants| grants.may_join(cx.topic())).await;
        }
        // What clients believe of the server is not to be had from another client.
        let is_reserved =
            event.starts_with("phx_") || event.starts_with("presence_") || matches!(event, POSITION | GAP);
        if is_reserved || !self.stay.may(|grants| grants.may_broadcast(cx.topic())) {
            self.stay.denied(cx.topic(), "topics:broadcast");
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
            Info::CredentialExpired => return self.stay.expire(),
            Info::Joined if self.sees_presence(cx.topic()) => {
                let presences = cx.presences();
                cx.push(PRESENCE_STATE, presences);
                let meta = serde_json::json!({"online_at": clock::unix_micros() / 1_000_000});
                let user = Arc::clone(&self.stay.user().user);
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
        self.stay.may(|grants| grants.may_see_presence(topic))
    }
}
