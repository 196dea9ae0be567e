//! `yjs:*`: a document that its clients hold and this channel relays, in binary frames.
//!
//! Every message goes to the others as `yjs`. What a newcomer has, such as edits made offline, nobody would ask it for;
//! so the channel does, with the request of someone who has nothing.
//!
//! Source: y-phoenix-channel's provider; the sync protocol of y-protocols.

use bennu::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};

/// Sync message, step 1, with the state vector of an empty document: asks for everything.
const ASK_FOR_ALL: &[u8] = &[0, 0, 1, 0];

/// The channel.
pub struct Document;

/// What the channel sends itself: it has joined.
pub struct Joined;

impl Channel for Document {
    type Info = Joined;

    async fn join(_topic: &str, _params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        cx.send(Joined);
        Ok((Document, Payload::EMPTY))
    }

    async fn handle_info(&mut self, Joined: Joined, cx: &mut Cx<Self>) -> Next {
        cx.push("yjs", Payload::Binary(ASK_FOR_ALL.into()));
        Next::NoReply
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match (event, &payload) {
            ("yjs" | "yjs_sync", Payload::Binary(_)) => {
                cx.broadcast_from("yjs", payload);
                Next::NoReply
            }
            _ => Next::crash(format!("no clause for {event:?} with {payload:?}")),
        }
    }
}
