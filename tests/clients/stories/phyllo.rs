//! The crate `phyllo`: V2, numbers as refs, reconnects.
//!
//! Its joins have `join_ref` 0 whatever their `ref` is, and its pushes carry the join's `ref` as their `join_ref`. Phoenix
//! drops such pushes as stale from 1.8.3 on, and so does Bennu; until a join whose `ref` is 0. That is the first one after
//! it has connected again, when the library counts from 0 anew.

use serde_json::{Value, json};

use super::ENDS;
use crate::app::App;
use crate::driven;

const TOPIC: &str = "room:lobby";

#[test]
fn phyllo() {
    let mut app = App::start();
    let mut client = driven::phyllo(&app.socket("/socket"));
    let join = |topic: &str| json!({"do": "join", "topic": topic, "params": {}});
    let event =
        |event: &str, payload: Value| json!({"saw": "event", "topic": TOPIC, "event": event, "payload": payload});
    let reply =
        |status: &str, response: Value| json!({"saw": "reply", "topic": TOPIC, "status": status, "response": response});
    let push = |event: &str, payload: Value| json!({"do": "push", "topic": TOPIC, "event": event, "payload": payload});

    client.tell(join(TOPIC));
    app.witness.wait_joined(TOPIC, 1);
    app.broadcast(TOPIC, "news", json!({"n": 1}));
    client.expect(event("news", json!({"n": 1})));

    // Stale: a reply would have come before that of the leave behind it.
    client.tell(push("echo", json!({"n": 2})));
    client.tell(join("room:kitchen"));
    app.witness.wait_joined("room:kitchen", 1);
    client.tell(json!({"do": "leave", "topic": "room:kitchen"}));
    client.expect(json!({"saw": "left", "topic": "room:kitchen"}));
    app.witness.wait_left("room:kitchen");

    for (end, joins) in ENDS.into_iter().zip([2, 3]) {
        app.restart(end);
        app.witness.wait_joined(TOPIC, joins);
        app.broadcast(TOPIC, "told", json!({"n": 3}));
        client.expect(event("told", json!({"n": 3})));
        client.tell(push("echo", json!({"n": 4})));
        client.expect(reply("ok", json!({"n": 4})));
        client.tell(push("refuse", json!({"n": 5})));
        client.expect(reply("error", json!({"n": 5})));
        client.tell(push("shout", json!({"n": 6})));
        client.expect_all([event("shout", json!({"n": 6})), reply("ok", json!({}))]);
    }

    client.tell(json!({"do": "leave", "topic": TOPIC}));
    client.expect(json!({"saw": "left", "topic": TOPIC}));
    app.witness.wait_left(TOPIC);
    client.quit();
}
