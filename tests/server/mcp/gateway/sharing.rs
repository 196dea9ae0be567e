//! Who shares an upstream, and that nobody hears what is for another.

use bennu::mcp::upstream::Sharing;
use serde_json::{Value, json};

use super::super::peer::{Names, Peer, TestServer};
use super::odd::{Log, ODD, call, client, client_that, noting, unchecked};

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

#[test]
fn what_a_message_says_twice_is_passed_on_once() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let mut peer = unchecked(&server, &json!({}));

    peer.message_text(
        ODD,
        r#"{"jsonrpc":"2.0","id":1,"method":"vendor/x","method":"initialize","params":{"a":1,"a":2},"params":{}}"#,
    );
    peer.wait(|frame| frame.is_response(&json!(1)));

    let passed = log.messages("vendor/x");
    assert_eq!((passed.len(), &passed[0]["params"]["a"]), (1, &json!(1)));
    let text = log.lines().iter().map(Value::to_string).collect::<String>();
    assert_eq!(text.matches("\"method\":\"initialize\"").count(), 1, "that of the shared connection: {text}");
}

#[test]
fn a_stateless_client_can_not_speak_for_all_in_the_words_of_the_other_era() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &["--era", "legacy"], |_| {})]);
    let mut peer = server.connect();
    peer.joined(ODD, &json!({}));

    for (id, method) in
        (1..).zip(["initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "ping"])
    {
        let refused = peer.stateless(ODD, id, method, json!({"uri": "odd://one", "level": "emergency"}));
        assert_eq!(refused["error"]["code"], -32601, "{method}: {refused}");
    }
    assert!(peer.stateless(ODD, 9, "tools/list", json!({})).get("result").is_some());
    assert_eq!(log.messages("initialize").len(), 1);
    assert!(log.messages("logging/setLevel").is_empty() && log.messages("resources/unsubscribe").is_empty());
}

#[test]
fn places_for_single_calls_are_given_back() {
    let log = Log::new();
    let legacy = ["--era", "legacy"];
    let server = TestServer::serving([noting(&log, &legacy, |options| options.instances_max = 3)]);
    let mut peer = server.connect();
    peer.joined(ODD, &json!({}));

    // Each of another client, by what it says of itself.
    let mut failed = 0;
    for id in 0..12 {
        let mut params = super::super::peer::stateless(call("echo_raw", json!({})), &sampling());
        let info = json!({"name": format!("client {id}"), "version": "1"});
        params["_meta"]["io.modelcontextprotocol/clientInfo"] = info;
        let answer = peer.ask(ODD, id, "tools/call", params);
        failed += usize::from(answer.get("result").is_none());
    }
    // Where all places were kept for others, one makes room: then a try later succeeds.
    assert!(failed <= 9, "{failed} of 12 failed");
    super::odd::until("room for a further client", || {
        let mut params = super::super::peer::stateless(call("echo_raw", json!({})), &sampling());
        params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "last", "version": "1"});
        let id = format!("last {}", peer.frames.len());
        peer.ask(ODD, id, "tools/call", params).get("result").is_some()
    });
    let running = log.pids().iter().filter(|pid| super::odd::is_running(**pid)).count();
    assert!(running <= 3, "{running} processes");
}

#[test]
fn a_question_that_nobody_answers_ends_with_the_time_of_its_call() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |options| {
        options.call_timeout = std::time::Duration::from_millis(300);
    })]);
    let mut peer = client_that(&server, &sampling());

    let answer = peer.ask(ODD, 1, "tools/call", call("sample", json!({})));

    assert_eq!(answer["error"]["message"], "timed out after 300 ms");
    log.wait("the cancellation", |line| line["message"]["method"] == "notifications/cancelled");
}
