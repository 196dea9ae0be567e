//! The story that every library for ordinary channels can live through: join, push, reply, broadcast, two restarts, a
//! crash of the channel, leave, a refused join.

use serde_json::{Value, json};

use super::ENDS;
use crate::app::{App, End};
use crate::driven::{self, Driven};

/// What a library lets its user do and know.
#[derive(Clone, Copy)]
struct Library {
    /// It sends parameters with a join.
    sends_params: bool,
    /// It tells what a join was answered.
    tells_join_response: bool,
    /// It passes on broadcasts, whose `join_ref` is null in V2.
    hears_broadcasts: bool,
    /// It joins again by itself after its channel has crashed.
    rejoins_after_crash: bool,
}

const ABLE: Library =
    Library { sends_params: true, tells_join_response: true, hears_broadcasts: true, rejoins_after_crash: true };

#[test]
fn phxsocket() {
    let library = Library { rejoins_after_crash: false, ..ABLE };
    tell(library, |url| driven::python("phxsocket_driver", &[url]));
}

#[test]
fn phoenix_channels_python_client_v1() {
    let library = Library { sends_params: false, tells_join_response: false, ..ABLE };
    tell(library, |url| driven::python("phoenix_channels_python_client_driver", &[url, "1.0"]));
}

/// The library drops what does not carry its `join_ref`, and so all broadcasts but the intercepted ones.
#[test]
fn phoenix_channels_python_client_v2() {
    let library = Library { sends_params: false, tells_join_response: false, hears_broadcasts: false, ..ABLE };
    tell(library, |url| driven::python("phoenix_channels_python_client_driver", &[url, "2.0"]));
}

#[test]
fn phoenix_channels() {
    tell(ABLE, |url| driven::node("phoenix_channels", &[url]));
}

#[test]
fn phoenix_channel_client() {
    tell(ABLE, driven::managed);
}

/// The library stays away after a close with 1000, which Phoenix sends at its end to sockets without a channel; Bennu says
/// 1012 to them too.
#[test]
fn phoenix_channel_client_comes_back_without_a_channel() {
    let mut app = App::start();
    let mut client = driven::managed(&app.socket("/socket"));
    let join = |client: &mut Driven, topic: &str| {
        client.tell(json!({"do": "join", "topic": topic, "params": {}}));
        assert_eq!(client.next()["saw"], "joined");
    };
    join(&mut client, "room:first");
    client.tell(json!({"do": "leave", "topic": "room:first"}));
    client.expect(json!({"saw": "left", "topic": "room:first"}));
    app.witness.wait_left("room:first");

    app.restart(End::Drained);

    client.expect(json!({"saw": "disconnected"}));
    join(&mut client, "room:second");
    client.quit();
}

/// Both wire versions and five libraries on one topic of one server: everyone hears everyone.
#[test]
fn all_in_one_room() {
    let topic = "room:all";
    let app = App::start();
    let url = app.socket("/socket");
    let mut clients = [
        ("phxsocket", driven::python("phxsocket_driver", &[&url])),
        ("python v1", driven::python("phoenix_channels_python_client_driver", &[&url, "1.0"])),
        ("node v1", driven::node("phoenix_channels", &[&url])),
        ("managed", driven::managed(&url)),
    ];
    // It can only listen at first: stories/phyllo.rs.
    let mut listener = driven::phyllo(&url);
    for (_, client) in &mut clients {
        client.tell(json!({"do": "join", "topic": topic, "params": {}}));
        assert_eq!(client.next()["saw"], "joined");
    }
    listener.tell(json!({"do": "join", "topic": topic, "params": {}}));
    app.witness.wait_joined(topic, clients.len() + 1);

    for speaker in 0..clients.len() {
        let line = json!({"from": clients[speaker].0});
        let event = json!({"saw": "event", "topic": topic, "event": "shout", "payload": line});
        let reply = json!({"saw": "reply", "topic": topic, "status": "ok", "response": {}});
        clients[speaker].1.tell(json!({"do": "push", "topic": topic, "event": "shout", "payload": line}));
        for (at, (_, client)) in clients.iter_mut().enumerate() {
            if at == speaker {
                client.expect_all([event.clone(), reply.clone()]);
            } else {
                client.expect(event.clone());
            }
        }
        listener.expect(event);
    }
    for (_, client) in clients {
        client.quit();
    }
    listener.quit();
}

fn tell(library: Library, start: impl FnOnce(&str) -> Driven) {
    let topic = "room:lobby";
    let mut app = App::start();
    let mut client = start(&app.socket("/socket"));

    client.tell(json!({"do": "join", "topic": topic, "params": {"name": "Zoë"}}));
    expect_joined(library, &mut client, topic);
    talk(library, &app, &mut client, topic);
    for end in ENDS {
        app.restart(end);
        client.expect(json!({"saw": "disconnected"}));
        expect_joined(library, &mut client, topic);
        talk(library, &app, &mut client, topic);
    }

    client.tell(json!({"do": "crash", "topic": topic}));
    client.expect(json!({"saw": "crashed", "topic": topic}));
    if !library.rejoins_after_crash {
        client.tell(json!({"do": "join", "topic": topic, "params": {"name": "Zoë"}}));
    }
    expect_joined(library, &mut client, topic);
    talk(library, &app, &mut client, topic);

    client.tell(json!({"do": "leave", "topic": topic}));
    client.expect(json!({"saw": "left", "topic": topic}));
    app.witness.wait_left(topic);
    client.tell(json!({"do": "join", "topic": "room:locked", "params": {}}));
    client.expect(json!({"saw": "refused", "topic": "room:locked", "response": {"reason": "locked"}}));
    client.quit();
}

#[track_caller]
fn expect_joined(library: Library, client: &mut Driven, topic: &str) {
    let params = if library.sends_params { json!({"name": "Zoë"}) } else { json!({}) };
    let response = if library.tells_join_response { json!({"room": topic, "params": params}) } else { Value::Null };
    client.expect(json!({"saw": "joined", "topic": topic, "response": response}));
}

/// Broadcasts, a push and their answers, on a joined topic.
#[track_caller]
fn talk(library: Library, app: &App, client: &mut Driven, topic: &str) {
    let event =
        |event: &str, payload: Value| json!({"saw": "event", "topic": topic, "event": event, "payload": payload});
    let reply =
        |status: &str, response: Value| json!({"saw": "reply", "topic": topic, "status": status, "response": response});
    let push = |event: &str, payload: &Value| json!({"do": "push", "topic": topic, "event": event, "payload": payload});

    app.broadcast(topic, "news", json!({"n": 1}));
    if library.hears_broadcasts {
        client.expect(event("news", json!({"n": 1})));
    }
    // A push of the channel, behind the broadcast: one that is not heard is not only late.
    app.broadcast(topic, "told", json!({"n": 2}));
    client.expect(event("told", json!({"n": 2})));

    let payload = json!({"text": "Grüße \u{1F44B} \"\\\n", "list": [1, 2.5, null, true], "nested": {"": {}}});
    client.tell(push("echo", &payload));
    client.expect(reply("ok", payload.clone()));
    client.tell(push("refuse", &payload));
    client.expect(reply("error", payload.clone()));

    client.tell(push("shout", &payload));
    if library.hears_broadcasts {
        client.expect_all([event("shout", payload), reply("ok", json!({}))]);
    } else {
        client.expect(reply("ok", json!({})));
    }
}
