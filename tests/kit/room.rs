//! The channel of these tests.

use std::time::Duration;

use bennu::channel::{Reason, StopReason};
use bennu::testing::{Client, TestChannel, TestSocket};
use bennu::{
    Broadcast, Channel, ConnectError, ConnectInfo, Connected, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Reply,
};
use serde_json::{Value, json};

/// What a room is told by the server's own code.
pub enum Info {
    Say(&'static str),
    Heard(Broadcast),
    Crash(Broadcast),
}

/// Says what it is told to.
pub struct Room {
    topic: String,
    endpoint: Endpoint,
}

impl Channel for Room {
    type Info = Info;
    const INTERCEPT: &'static [&'static str] = &["secret"];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let params: Value = params.parse()?;
        if let Some(other) = params["subscribe"].as_str() {
            cx.subscribe(other, Info::Heard).expect("there is room for one");
        }
        if params["refuse"] == true {
            return Err(Refusal::reason("no"));
        }
        let user = cx.assigns::<String>().cloned();
        Ok((Room { topic: topic.to_owned(), endpoint: cx.endpoint() }, json!({"user": user}).into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        let asked: Value = payload.parse().unwrap_or_default();
        let topic = asked["topic"].as_str().unwrap_or_default();
        match event {
            "echo" => return Next::ok(payload),
            "refuse" => return Next::error(payload),
            "later" => {
                let reply = cx.reply_handle().expect("a message is being handled");
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    reply.send(Reply::ok(json!({"late": true})))
                });
            }
            "push" => cx.push("pushed", payload),
            "shout" => cx.broadcast("shout", payload),
            "shout_from" => cx.broadcast_from("shout", payload),
            "secret" => cx.broadcast("secret", payload),
            "subscribe" => {
                let subscribed = match asked["crash"] == true {
                    true => cx.subscribe(topic, Info::Crash),
                    false => cx.subscribe(topic, Info::Heard),
                };
                return match subscribed {
                    Ok(()) => Next::ok(Payload::EMPTY),
                    Err(error) => Next::error(json!({"reason": error.to_string()})),
                };
            }
            "unsubscribe" => cx.unsubscribe(topic),
            "subscribe_to_own" => cx.subscribe(&self.topic, Info::Heard).expect("there is room"),
            "after" => {
                let after = Duration::from_millis(asked["ms"].as_u64().expect("a number"));
                cx.send_after(after, Info::Say("time"));
            }
            "cancelled" => cx.send_after(Duration::from_secs(1), Info::Say("time")).abort(),
            "work" => {
                cx.spawn(async {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Info::Say("done")
                });
            }
            "stop" => return Next::Stop { reason: StopReason::Normal, reply: Some(Reply::ok(payload)) },
            "crash" => panic!("asked to crash"),
            _ => return Next::unknown(event),
        }
        Next::NoReply
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::Say(text) => cx.push("said", json!({"text": text})),
            Info::Heard(broadcast) => {
                let payload: Value = broadcast.payload().parse().expect("JSON");
                cx.push("heard", json!({"topic": broadcast.topic(), "event": broadcast.event(), "payload": payload}));
            }
            Info::Crash(broadcast) => panic!("told to crash by {broadcast:?}"),
        }
        Next::NoReply
    }

    async fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        let mut open: Value = payload.parse().expect("JSON");
        open["word"] = "***".into();
        cx.push(event, open);
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, _cx: &mut Cx<Self>) {
        let why = json!({"topic": self.topic, "reason": format!("{reason:?}")});
        self.endpoint.broadcast("ends", "end", why).expect("there is room");
    }
}

async fn connect(info: ConnectInfo) -> Result<Connected, ConnectError> {
    if info.params.get_str("token") == Some("bad") {
        return Err(ConnectError::Reason("bad token".to_owned()));
    }
    let Some(user) = info.params.get_str("user") else { return Ok(Connected::default()) };
    Ok(Connected::with(user.to_owned()).id(format!("user:{user}")))
}

/// An endpoint, and its socket.
pub fn socket() -> (Endpoint, std::sync::Arc<bennu::channel::SocketSpec>) {
    let endpoint = Endpoint::start();
    let socket = endpoint
        .socket("/socket")
        .connect(connect)
        .channel::<Room>("room:*")
        .options(|options| options.channels_max = 3)
        .build();
    (endpoint, socket)
}

/// A client that has joined a room.
pub async fn joined(topic: &str) -> (Endpoint, TestSocket, TestChannel) {
    let (endpoint, socket) = socket();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let room = client.join(topic, json!({})).await.expect("everyone may join");
    (endpoint, client, room)
}
