//! Who shares an upstream, and that nobody hears what is for another.

use bennu::mcp::upstream::Sharing;
use serde_json::{Value, json};

use super::super::peer::{Names, Peer, TestServer};
use super::odd::{Log, ODD, call, client, client_that, noting};

fn sampling() -> Value {
    json!({"sampling": {}})
}

fn message(text: &str) -> Value {
    json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": text}})
}

/// Has two clients asked at once, each of which has to answer its own.
fn asked_at_once(one: &mut Peer, other: &mut Peer) {
    for peer in [&mut *one, &mut *other] {
        peer.message(
            ODD,
            &json!({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": call("sample", json!({}))}),
        );
    }
    for (peer, word) in [(&mut *other, "other"), (&mut *one, "one")] {
        let asked = peer.told(ODD, "sampling/createMessage");
        peer.message(ODD, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": message(word)}));
    }
    for (peer, word) in [(one, "\"one\""), (other, "\"other\"")] {
        let answer = peer.wait(|frame| frame.is_response(&json!(0))).text;
        assert!(answer.contains(word), "{answer}");
    }
}

#[test]
fn those_that_can_be_asked_have_an_upstream_each_and_others_share_one() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let (_first, _second) = (client(&server), client(&server));
    assert_eq!(log.pids().len(), 1);

    let (mut one, mut other) = (client_that(&server, &sampling()), client_that(&server, &sampling()));
    assert_eq!(log.pids().len(), 3);
    let hello = log.messages("initialize");
    assert_eq!(hello[1]["params"]["capabilities"], sampling(), "the client's own words");
    assert_eq!(hello[1]["params"]["clientInfo"]["name"], "test");

    asked_at_once(&mut one, &mut other);
}

#[test]
fn where_all_share_a_question_of_nobody_known_is_refused() {
    let server = TestServer::serving([noting(&Log::new(), &[], |options| options.sharing = Sharing::Shared)]);
    let (mut one, mut other) = (client_that(&server, &sampling()), client_that(&server, &sampling()));
    let sample =
        |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call("sample", json!({}))});
    one.message(ODD, &sample(1));
    let asked = one.told(ODD, "sampling/createMessage");
    other.message(ODD, &sample(1));

    let refused = other.wait(|frame| frame.is_response(&json!(1))).text;

    assert!(refused.contains("several share this connection"), "{refused}");
    assert!(!other.frames.iter().any(|frame| frame.payload["method"] == "sampling/createMessage"));
    one.message(ODD, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": message("x")}));
    assert!(one.wait(|frame| frame.is_response(&json!(1))).payload.get("result").is_some());
}

#[test]
fn over_http_the_stream_tells_whose_question_it_is() {
    let listening = super::odd::Listening::start(&[], None);
    let server = TestServer::serving([listening.server(|options| options.sharing = Sharing::Shared)]);
    let (mut one, mut other) = (client_that(&server, &sampling()), client_that(&server, &sampling()));

    asked_at_once(&mut one, &mut other);
}

#[test]
fn one_users_call_is_not_seen_by_another() {
    let server = TestServer::of([noting(&Log::new(), &[], |_| {})], |_| {}, Names);
    let mut ann = server.connect();
    ann.joined(ODD, &json!({"token": "ann", "streaming": true}));
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    ann.ask(ODD, "i", "initialize", hello);

    let run = ann.call(ODD, &json!(1), &call("progress", json!({"count": 2})));

    let topic = format!("mcp:run:{run}");
    let mut bob = server.connect();
    assert_eq!(bob.refused(&topic, &json!({"token": "bob"})), "run not found");
    let mut own = server.connect();
    own.joined(&topic, &json!({"token": "ann"}));
}
