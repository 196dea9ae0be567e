//! `__absinthe__:control`: GraphQL over a channel, as Absinthe.Phoenix serves it, with a schema of one field each:
//!
//! ```graphql
//! type Query { said(room: String!): [Line!]! }
//! type Mutation { say(room: String!, text: String!): Line! }
//! type Subscription { said(room: String!): Line! }
//! type Line { text: String! }
//! ```
//!
//! Arguments come as variables; the document's first word says which operation it is. Who
//! subscribes to what is said in a room has its channel subscribe to that room's topic, as Absinthe does; but Absinthe sends
//! `subscription:data` on a topic named as the subscription, and here it comes on the control topic. The client looks at
//! the event alone.
//!
//! Source: `Absinthe.Phoenix.Channel`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bennu::channel::{Broadcast, Channel, Cx, JoinCx, Next, Payload, Refusal};
use serde_json::{Value, json};

/// Event on a room's topic: somebody said something there.
const SAID: &str = "said";

/// What was said, by room.
#[derive(Default)]
pub struct Said(Mutex<BTreeMap<String, Vec<String>>>);

impl Said {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The channel: one client's subscriptions, each id with its room.
pub struct Control {
    said: Arc<Said>,
    subscriptions: BTreeMap<String, String>,
    made: u64,
}

impl Channel for Control {
    type Info = Broadcast;

    async fn join(_topic: &str, _params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let said = cx.state().expect("the route gives what was said");
        Ok((Control { said, subscriptions: BTreeMap::new(), made: 0 }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        let asked: Value = match payload.parse() {
            Ok(asked) => asked,
            Err(error) => return Next::crash(error.to_string()),
        };
        match event {
            "doc" => self.run(&asked, cx),
            "unsubscribe" => {
                let id = asked["subscriptionId"].as_str().unwrap_or_default();
                if let Some(room) = self.subscriptions.remove(id)
                    && self.subscriptions.values().all(|other| *other != room)
                {
                    cx.unsubscribe(&room_topic(&room));
                }
                Next::ok(json!({"subscriptionId": id}))
            }
            other => Next::unknown(other),
        }
    }

    async fn handle_info(&mut self, said: Broadcast, cx: &mut Cx<Self>) -> Next {
        let said: Value = said.payload().parse().expect("what is broadcast on a room's topic is an object");
        for (id, _) in self.subscriptions.iter().filter(|(_, room)| **room == said["room"]) {
            let result = json!({"data": {"said": {"text": said["text"]}}});
            cx.push("subscription:data", json!({"subscriptionId": id, "result": result}));
        }
        Next::NoReply
    }
}

/// Where what is said in a room is published.
fn room_topic(room: &str) -> String {
    format!("__absinthe__:field:said:{room}")
}

impl Control {
    fn run(&mut self, asked: &Value, cx: &mut Cx<Self>) -> Next {
        let variables = &asked["variables"];
        let Some(room) = variables["room"].as_str() else {
            return Next::error(json!({"errors": [{"message": "variable room is missing", "locations": []}]}));
        };
        let document = asked["query"].as_str().unwrap_or_default();
        match document.split(|char: char| !char.is_alphanumeric()).find(|word| !word.is_empty()) {
            Some("query") => {
                let lines = self.said.lock().get(room).cloned().unwrap_or_default();
                let lines: Vec<Value> = lines.into_iter().map(|text| json!({"text": text})).collect();
                Next::ok(json!({"data": {"said": lines}}))
            }
            Some("mutation") => {
                let text = variables["text"].as_str().unwrap_or_default();
                self.said.lock().entry(room.to_owned()).or_default().push(text.to_owned());
                let line = json!({"room": room, "text": text});
                if let Err(error) = cx.broadcast_on(&room_topic(room), SAID, line) {
                    return Next::error(json!({"errors": [{"message": error.to_string(), "locations": []}]}));
                }
                Next::ok(json!({"data": {"say": {"text": text}}}))
            }
            Some("subscription") => {
                self.made += 1;
                let id = format!("__absinthe__:doc:{}:{}", cx.connection_id(), self.made);
                if self.subscriptions.values().all(|other| other != room)
                    && let Err(error) = cx.subscribe(&room_topic(room), |said| said)
                {
                    return Next::error(json!({"errors": [{"message": error.to_string(), "locations": []}]}));
                }
                self.subscriptions.insert(id.clone(), room.to_owned());
                Next::ok(json!({"subscriptionId": id}))
            }
            other => Next::error(json!({"errors": [{"message": format!("no operation: {other:?}"), "locations": []}]})),
        }
    }
}
