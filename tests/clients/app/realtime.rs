//! `realtime:*`: broadcast and presence as Supabase Realtime's clients speak them.
//!
//! The join's `config` says whether a client hears its own broadcasts (`broadcast.self`), whether they are acknowledged
//! (`broadcast.ack`), and under which key it is present (`presence`). After the join come `presence_state`, where
//! presence is enabled, and `system`.
//!
//! Source: `RealtimeWeb.RealtimeChannel` of supabase/realtime, as far as the Python client needs it.

use std::sync::Arc;

use bennu::channel::{Channel, Cx, JoinCx, Next, Payload, Reason, Refusal, TrackError};
use serde_json::{Value, json};

use crate::witness::Witness;

/// The channel.
pub struct Realtime {
    witness: Arc<Witness>,
    acknowledges: bool,
    hears_itself: bool,
    presence_key: Option<String>,
}

/// What the channel sends itself: it has joined.
pub struct Joined;

impl Channel for Realtime {
    type Info = Joined;

    async fn join(_topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let params: Value = params.parse()?;
        let config = &params["config"];
        let presence = &config["presence"];
        let channel = Realtime {
            witness: cx.state().expect("the route gives the witness"),
            acknowledges: config["broadcast"]["ack"] == true,
            hears_itself: config["broadcast"]["self"] == true,
            presence_key: (presence["enabled"] == true)
                .then(|| presence["key"].as_str().unwrap_or_default().to_owned()),
        };
        cx.send(Joined);
        Ok((channel, json!({"postgres_changes": []}).into()))
    }

    async fn handle_info(&mut self, Joined: Joined, cx: &mut Cx<Self>) -> Next {
        if self.presence_key.is_some() {
            let present = cx.presences();
            cx.push("presence_state", present);
        }
        let channel = cx.topic().trim_start_matches("realtime:").to_owned();
        cx.push(
            "system",
            json!({
                "channel": channel, "extension": "system", "message": "Subscribed", "status": "ok",
            }),
        );
        Next::NoReply
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "broadcast" => {
                if self.hears_itself {
                    cx.broadcast("broadcast", payload);
                } else {
                    cx.broadcast_from("broadcast", payload);
                }
                if self.acknowledges { Next::ok(Payload::EMPTY) } else { Next::NoReply }
            }
            "presence" => match payload.parse() {
                Ok(asked) => self.present(&asked, cx),
                Err(error) => Next::crash(error.to_string()),
            },
            "access_token" => Next::NoReply,
            other => Next::unknown(other),
        }
    }

    async fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) {
        self.witness.ended(cx.topic(), reason);
    }
}

impl Realtime {
    /// `{"event": "track", "payload": meta}`, or `{"event": "untrack"}`. Who tracks again replaces the meta.
    fn present(&self, asked: &Value, cx: &mut Cx<Self>) -> Next {
        let Some(key) = &self.presence_key else {
            return Next::error(Payload::reason("presence is not enabled"));
        };
        let done = match asked["event"].as_str() {
            Some("track") => {
                let meta = asked["payload"].clone().into();
                match cx.track(key, &meta) {
                    Err(TrackError::AlreadyTracked(_)) => cx.update(key, &meta).map(drop),
                    tracked => tracked.map(drop),
                }
            }
            Some("untrack") => {
                cx.untrack(key);
                Ok(())
            }
            _ => return Next::crash(format!("neither track nor untrack: {asked}")),
        };
        match done {
            Ok(()) => Next::ok(Payload::EMPTY),
            Err(error) => Next::error(Payload::reason(&error.to_string())),
        }
    }
}
