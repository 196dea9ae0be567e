//! `__absinthe__:control`: GraphQL over a channel, as Absinthe.Phoenix serves it, with a schema of one field each:
//!
//! ```graphql
//! type Query { said(room: String!): [Line!]! }
//! type Mutation { say(room: String!, text: String!): Line! }
//! type Subscription { said(room: String!): Line! }
//! type Line { text: String! }
//! ```
//!
//! Arguments come as variables; the document's first word says which operation it is. Absinthe sends
//! `subscription:data` on a topic named as the subscription; here it comes on the control topic. The client looks at the
//! event alone.
//!
//! Source: `Absinthe.Phoenix.Channel`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bennu::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use serde_json::{Value, json};

/// Event between the channels of the control topic: somebody said something in a room. It is intercepted.
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
    type Info = ();
    const INTERCEPT: &'static [&'static str] = &[SAID];

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
                self.subscriptions.remove(id);
                Next::ok(json!({"subscriptionId": id}))
            }
            other => Next::crash(format!("no clause for {other:?}")),
        }
    }

    async fn handle_out(&mut self, _event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        let said: Value = payload.parse().expect("the channels of this topic broadcast an object");
        for (id, _) in self.subscriptions.iter().filter(|(_, room)| **room == said["room"]) {
            let result = json!({"data": {"said": {"text": said["text"]}}});
            cx.push("subscription:data", json!({"subscriptionId": id, "result": result}));
        }
        Next::NoReply
    }
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
                cx.broadcast(SAID, json!({"room": room, "text": text}));
                Next::ok(json!({"data": {"say": {"text": text}}}))
            }
            Some("subscription") => {
                self.made += 1;
                let id = format!("__absinthe__:doc:{}:{}", cx.connection_id(), self.made);
                self.subscriptions.insert(id.clone(), room.to_owned());
                Next::ok(json!({"subscriptionId": id}))
            }
            other => Next::error(json!({"errors": [{"message": format!("no operation: {other:?}"), "locations": []}]})),
        }
    }
}
