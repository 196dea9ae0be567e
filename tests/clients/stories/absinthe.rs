//! GraphQL over a channel: a subscription that lives through restarts, mutations and queries beside it.

use serde_json::{Value, json};

use super::ENDS;
use crate::app::App;
use crate::driven::{self, Driven};

const SUBSCRIPTION: &str = "subscription Said($room: String!) { said(room: $room) { text } }";
const MUTATION: &str = "mutation Say($room: String!, $text: String!) { say(room: $room, text: $text) { text } }";
const QUERY: &str = "query Said($room: String!) { said(room: $room) { text } }";

#[test]
fn absinthe_socket() {
    let mut app = App::start();
    let mut ada = driven::node("absinthe_socket", &[&app.socket("/socket")]);
    let mut bob = driven::node("absinthe_socket", &[&app.socket("/socket")]);

    send(&mut ada, "lines", SUBSCRIPTION, json!({"room": "lobby"}));
    ada.expect(json!({"saw": "joined"}));
    ada.expect(json!({"saw": "start", "as": "lines"}));
    send(&mut bob, "said", QUERY, json!({"room": "lobby"}));
    bob.expect(json!({"saw": "joined"}));
    expect_said(&mut bob, &[]);
    say(&mut bob, "lobby", "one");
    expect_line(&mut ada, "one");
    // Another room's line is not hers: it would have come before the next.
    say(&mut bob, "kitchen", "elsewhere");
    say(&mut bob, "lobby", "two");
    expect_line(&mut ada, "two");
    ask(&mut bob, &["one", "two"]);

    for (end, line) in ENDS.into_iter().zip(["three", "four"]) {
        app.restart(end);
        ada.expect(json!({"saw": "disconnected"}));
        ada.expect(json!({"saw": "error", "as": "lines", "message": "connection: close"}));
        // Each attempt in vain is an error again.
        ada.until(&["error"], json!({"saw": "joined"}));
        ada.expect(json!({"saw": "start", "as": "lines"}));
        bob.expect(json!({"saw": "disconnected"}));
        bob.expect(json!({"saw": "joined"}));
        say(&mut bob, "lobby", line);
        expect_line(&mut ada, line);
        // What was said before went with the server.
        ask(&mut bob, &[line]);
    }

    send(&mut bob, "wrong", MUTATION, json!({"text": "nowhere"}));
    let aborted = bob.next();
    assert_eq!((&aborted["saw"], &aborted["as"]), (&json!("abort"), &json!("wrong")), "{aborted}");

    ada.tell(json!({"do": "cancel", "as": "lines"}));
    ada.expect(json!({"saw": "cancel", "as": "lines"}));
    ask(&mut ada, &["four"]);
    say(&mut bob, "lobby", "five");
    // The line would have come before this answer.
    ask(&mut ada, &["four", "five"]);
    ada.quit();
    bob.quit();
}

fn send(client: &mut Driven, name: &str, operation: &str, variables: Value) {
    client.tell(json!({"do": "send", "as": name, "operation": operation, "variables": variables}));
}

#[track_caller]
fn say(client: &mut Driven, room: &str, text: &str) {
    send(client, text, MUTATION, json!({"room": room, "text": text}));
    client.expect(json!({"saw": "result", "as": text, "result": {"data": {"say": {"text": text}}}}));
}

#[track_caller]
fn ask(client: &mut Driven, lines: &[&str]) {
    send(client, "said", QUERY, json!({"room": "lobby"}));
    expect_said(client, lines);
}

#[track_caller]
fn expect_said(client: &mut Driven, lines: &[&str]) {
    let lines: Vec<Value> = lines.iter().map(|text| json!({"text": text})).collect();
    client.expect(json!({"saw": "result", "as": "said", "result": {"data": {"said": lines}}}));
}

#[track_caller]
fn expect_line(client: &mut Driven, text: &str) {
    client.expect(json!({"saw": "result", "as": "lines", "result": {"data": {"said": {"text": text}}}}));
}
