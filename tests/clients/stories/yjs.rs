//! Two Yjs documents become one, also after edits that were made while there was no server.

use serde_json::{Value, json};

use super::ENDS;
use crate::app::App;
use crate::driven::{self, Driven};

const TOPIC: &str = "yjs:letter";

/// What comes in between as it likes: who else is there, and texts on the way.
const PASSING: [&str; 2] = ["others", "text"];

#[test]
fn y_phoenix_channel() {
    let mut app = App::start();
    let mut ada = join(&app);
    insert(&mut ada, None, "Dear Bob");
    let mut bob = join(&app);
    bob.until(&PASSING, json!({"saw": "text", "text": "Dear Bob"}));
    insert(&mut bob, None, ",");
    ada.until(&PASSING, json!({"saw": "text", "text": "Dear Bob,"}));

    ada.tell(json!({"do": "be", "state": {"cursor": 3}}));
    expect_other(&mut bob, &json!({"cursor": 3}));

    for (end, line) in ENDS.into_iter().zip(["first", "second"]) {
        app.stop(end);
        for client in [&mut ada, &mut bob] {
            client.until(&PASSING, json!({"saw": "disconnected"}));
        }
        insert(&mut ada, Some(0), &format!("({line})"));
        insert(&mut bob, None, &format!(" {line}"));
        app.start_again();
        for client in [&mut ada, &mut bob] {
            client.until(&PASSING, json!({"saw": "joined", "topic": TOPIC}));
        }
        let both = if line == "first" { "(first)Dear Bob, first" } else { "(second)(first)Dear Bob, first second" };
        for client in [&mut ada, &mut bob] {
            client.until(&PASSING, json!({"saw": "text", "text": both}));
        }
    }

    let [of_ada, of_bob] = [&mut ada, &mut bob].map(read);
    assert_eq!(of_ada["text"], "(second)(first)Dear Bob, first second");
    assert_eq!(of_ada, of_bob);
    bob.tell(json!({"do": "leave"}));
    bob.until(&PASSING, json!({"saw": "left"}));
    bob.quit();
    ada.quit();
}

fn join(app: &App) -> Driven {
    let mut client = driven::node("y_phoenix_channel", &[&app.socket("/socket")]);
    client.tell(json!({"do": "join", "topic": TOPIC}));
    client.expect(json!({"saw": "joined", "topic": TOPIC}));
    client
}

fn insert(client: &mut Driven, at: Option<usize>, what: &str) {
    client.tell(json!({"do": "insert", "at": at, "what": what}));
}

/// Waits until another client shows this state.
#[track_caller]
fn expect_other(client: &mut Driven, state: &Value) {
    while !client.next()["states"].as_array().is_some_and(|states| states.contains(state)) {}
}

#[track_caller]
fn read(client: &mut Driven) -> Value {
    client.tell(json!({"do": "read"}));
    loop {
        let saw = client.next();
        if saw["saw"] == "document" {
            return saw;
        }
    }
}
