//! `room:*`: what a client of any library can do on a topic.
//!
//! Join: ok with `{"room": topic, "params": params}`; `room:locked` is refused with `{"reason": "locked"}`. Events:
//! `echo` is answered with its payload, `refuse` with an error of its payload; `shout` is broadcast and answered ok. The
//! broadcast `told` is intercepted and comes to each client as a push. Any other event crashes the channel.

use std::sync::Arc;

use bennu::channel::{Channel, Cx, JoinCx, Next, Payload, Reason, Refusal};
use serde_json::{Value, json};

use crate::witness::Witness;

/// The channel.
pub struct Room(Arc<Witness>);

/// What the channel sends itself: it has joined.
pub struct Joined;

impl Channel for Room {
    type Info = Joined;
    const INTERCEPT: &'static [&'static str] = &["told"];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        if topic == "room:locked" {
            return Err(Refusal::reason("locked"));
        }
        let witness = cx.state().expect("the route gives the witness");
        cx.send(Joined);
        Ok((Room(witness), json!({"room": topic, "params": params.parse::<Value>()?}).into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "echo" => Next::ok(payload),
            "refuse" => Next::error(payload),
            "shout" => {
                cx.broadcast("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            other => Next::unknown(other),
        }
    }

    async fn handle_info(&mut self, Joined: Joined, cx: &mut Cx<Self>) -> Next {
        self.0.joined(cx.topic());
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) {
        self.0.ended(cx.topic(), reason);
    }
}
