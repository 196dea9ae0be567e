//! A chat: rooms, names, who is here. `cargo run --example chat`, then open what it prints in two tabs. `PORT` is 4000.

use bennu::channel::SocketSpecBuilder;
use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Server};
use serde_json::{Value, json};
use warp::Filter;

/// Someone in a room, by name.
pub struct Member(String);
pub struct Joined;

impl Channel for Member {
    type Info = Joined;

    async fn join(_room: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let Some(name) = text(&params, "name", 40) else { return Err(Refusal::reason("names have 1 to 40 letters")) };
        cx.send(Joined);
        Ok((Member(name), ().into()))
    }

    async fn handle_info(&mut self, _: Joined, cx: &mut Cx<Self>) -> Next {
        let key = format!("user:{}", self.0); // A bare name could be a key that breaks old clients.
        cx.track(&key, json!({"name": self.0})).expect("the channel tracks one key, once");
        cx.push("presence_state", cx.presences());
        Next::NoReply
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match (event, text(&payload, "text", 2_000)) {
            ("say", Some(text)) => {
                cx.broadcast("said", json!({"name": self.0, "text": text}));
                Next::ok(())
            }
            ("say", None) => Next::error(Payload::reason("a message has 1 to 2000 characters")),
            _ => Next::unknown(event),
        }
    }
}

fn text(payload: &Payload, field: &str, chars_max: usize) -> Option<String> {
    let text = payload.parse::<Value>().ok()?[field].as_str()?.trim().to_owned();
    (1..=chars_max).contains(&text.chars().count()).then_some(text)
}

pub fn socket(endpoint: &Endpoint) -> SocketSpecBuilder {
    endpoint.socket("/socket").channel::<Member>("room:*")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = warp::path::end().map(|| warp::reply::html(include_str!("chat/index.html")));
    const PHOENIX: &str = include_str!("../src/dashboard/vendor/phoenix.mjs");
    let js = warp::path!("phoenix.mjs").map(|| warp::reply::with_header(PHOENIX, "content-type", "text/javascript"));
    let port = std::env::var("PORT").map_or(Ok(4000), |port| port.parse())?;
    let endpoint = Endpoint::start();
    let server = Server::new(&endpoint).socket(socket(&endpoint)).routes(page.or(js)).listen(([127, 0, 0, 1], port))?;
    println!("listening on http://localhost:{}", server.address().port());
    server.until_signalled().await;
    Ok(())
}
