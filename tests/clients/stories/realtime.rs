//! Supabase's Python client: two of them on one topic broadcast and are present, through two restarts.

use serde_json::{Value, json};

use super::ENDS;
use crate::app::{API_KEY, App};
use crate::driven::{self, Driven};

const TOPIC: &str = "realtime:lobby";

#[test]
fn realtime() {
    let mut app = App::start();
    // Ada hears herself and is told when a broadcast was taken; Bob neither.
    let mut ada = join(&app, "ada", true);
    track(&mut ada, "ada", &mut []);
    let mut bob = join(&app, "bob", false);
    track(&mut bob, "bob", &mut [&mut ada]);
    talk(&app, &mut ada, &mut bob);

    for end in ENDS {
        app.restart(end);
        for client in [&mut ada, &mut bob] {
            // Whoever is told later sees the other go.
            client.until(&["present"], json!({"saw": "disconnected"}));
            expect_joined(client);
        }
        ada.tell(json!({"do": "track", "meta": {"mood": "ada"}}));
        bob.tell(json!({"do": "track", "meta": {"mood": "bob"}}));
        for client in [&mut ada, &mut bob] {
            client.until(&["present"], present(&["ada", "bob"]));
        }
        talk(&app, &mut ada, &mut bob);
    }

    ada.tell(json!({"do": "crash"}));
    ada.until(&["present"], json!({"saw": "disconnected"}));
    expect_joined(&mut ada);
    bob.expect(present(&["bob"]));
    talk(&app, &mut ada, &mut bob);

    ada.tell(json!({"do": "track", "meta": {"mood": "merry"}}));
    for client in [&mut ada, &mut bob] {
        client.until(
            &["present"],
            json!({"saw": "present", "keys": {"ada": [{"mood": "merry"}], "bob": [{"mood": "bob"}]}}),
        );
    }
    ada.tell(json!({"do": "untrack"}));
    for client in [&mut ada, &mut bob] {
        client.until(&["present"], present(&["bob"]));
    }
    bob.kill();
    ada.until(&["present"], present(&[]));
    // A token is pushed and nothing comes back; the leave behind it shows that the channel lived on.
    ada.tell(json!({"do": "set_auth", "token": "another"}));
    ada.tell(json!({"do": "leave"}));
    ada.expect(json!({"saw": "left"}));
    app.witness.wait_left(TOPIC);
    ada.quit();
}

fn join(app: &App, name: &str, hears_itself: bool) -> Driven {
    let mut client = driven::python("realtime_driver", &[&app.socket("/realtime/v1"), API_KEY]);
    let config = json!({
        "broadcast": {"ack": hears_itself, "self": hears_itself},
        "presence": {"key": name, "enabled": true},
        "private": false,
    });
    client.tell(json!({"do": "join", "name": "lobby", "config": config}));
    expect_joined(&mut client);
    client
}

/// The join's answer, then who is present, then the word of the system; presences may change at once.
#[track_caller]
fn expect_joined(client: &mut Driven) {
    client.expect(json!({"saw": "joined"}));
    client.until(&["present"], json!({"saw": "system", "message": "Subscribed"}));
}

#[track_caller]
fn track(client: &mut Driven, name: &str, others: &mut [&mut Driven]) {
    client.tell(json!({"do": "track", "meta": {"mood": name}}));
    let keys = if others.is_empty() { present(&[name]) } else { present(&["ada", name]) };
    client.until(&["present"], keys.clone());
    for other in others {
        other.until(&["present"], keys.clone());
    }
}

fn present(names: &[&str]) -> Value {
    let keys: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!([{"mood": name}]))).collect();
    json!({"saw": "present", "keys": keys})
}

#[track_caller]
fn talk(app: &App, ada: &mut Driven, bob: &mut Driven) {
    let heard = |event: &str, payload: Value| json!({"saw": "broadcast", "event": event, "payload": payload});

    let line = json!({"text": "Grüße"});
    ada.tell(json!({"do": "broadcast_and_wait", "event": "line", "payload": line}));
    ada.expect_all([heard("line", line.clone()), json!({"saw": "acknowledged"})]);
    bob.expect(heard("line", line));

    let line = json!({"text": "and back"});
    bob.tell(json!({"do": "broadcast", "event": "line", "payload": line}));
    ada.expect(heard("line", line));

    // Bob's own line would have come before this.
    let news = json!({"n": 1});
    app.broadcast(TOPIC, "broadcast", json!({"type": "broadcast", "event": "news", "payload": news}));
    ada.expect(heard("news", news.clone()));
    bob.expect(heard("news", news));
}
