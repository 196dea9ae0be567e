//! Tools that panic, hang, flood or never end: who calls them is told so, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::lab;
use super::peer::{Peer, TestServer, client_info};

const BAD: &str = "mcp:server:lab:bad";
const GOOD: &str = "mcp:server:lab:good";

fn call(name: &str) -> Value {
    json!({"name": name, "arguments": {}, "_meta": {"progressToken": name}})
}

/// What a session beside the bad one and one on another socket are to be spared.
#[track_caller]
fn unimpressed(peer: &mut Peer, topic: &str, id: i32) {
    let begun = Instant::now();
    let echoed = peer.ask(topic, id, "tools/call", json!({"name": "echo", "arguments": {"n": id}}));
    assert_eq!(echoed["result"]["content"][0]["text"], format!(r#"{{"n":{id}}}"#));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn each_gets_the_right_error_and_others_notice_nothing() {
    let server = TestServer::serving([lab()]);
    let (mut peer, mut other) = (server.connect(), server.connect());
    for topic in [BAD, GOOD] {
        peer.initialized(topic, "2025-11-25", &json!({}));
    }
    other.initialized(GOOD, "2025-11-25", &json!({}));
    let mut next = 0;
    let mut spared = |peer: &mut Peer| {
        next += 1;
        unimpressed(peer, GOOD, next);
        unimpressed(&mut other, GOOD, next);
    };

    for id in 0..4 {
        let forever =
            json!({"jsonrpc": "2.0", "id": format!("forever {id}"), "method": "tools/call", "params": call("forever")});
        peer.message(BAD, &forever);
    }
    spared(&mut peer);
    for (tool, error) in [("panic", "the tool crashed"), ("hang", "timed out after 300 ms")] {
        let failed = peer.ask(BAD, tool, "tools/call", call(tool));
        assert_eq!(failed["result"], json!({"content": [{"type": "text", "text": error}], "isError": true}));
        assert!(!failed.to_string().contains("secret"));
        spared(&mut peer);
    }
    peer.frames.clear();
    peer.message(BAD, &json!({"jsonrpc": "2.0", "id": "flood", "method": "tools/call", "params": call("flood")}));
    spared(&mut peer);
    let flooded = peer.wait(|frame| frame.topic == BAD && frame.is_response(&json!("flood"))).payload;
    assert_eq!(flooded["result"]["content"][0]["text"], "flooded");
    let told = peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/progress").count();
    assert!((64..1_500).contains(&told), "a burst, then one each 50 ms: {told}");
    let logged = peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/message").count();
    assert!((65..3_000).contains(&logged), "{logged}");
    spared(&mut peer);

    peer.push(BAD, "phx_leave", &json!({}));
    spared(&mut peer);
    peer.initialized(BAD, "2025-11-25", &json!({}));
    spared(&mut peer);
}

#[test]
fn a_panic_is_told_to_the_clients_of_the_deployment_in_their_words() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    let failed = peer.request(json!(1), "tools/call", json!({"name": "panic"}));

    let text = "Tool execution failed: the tool crashed";
    assert_eq!(failed["result"], json!({"content": [{"type": "text", "text": text}], "isError": true}));
    let end = peer.wait(super::peer::Frame::is_terminal).payload;
    assert_eq!((&end["type"], &end["data"]["reason"]), (&json!("tool_failed"), &json!("crashed")));
}

#[test]
fn calls_that_never_end_leave_the_session_its_other_calls_until_it_is_full() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(BAD, "2025-11-25", &json!({}));
    for id in 0..16 {
        peer.message(BAD, &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call("forever")}));
    }

    let refused = peer.ask(BAD, "one more", "tools/call", call("echo"))["error"].clone();
    assert_eq!(refused, json!({"code": -32000, "message": "Too many concurrent calls: the limit is 16"}));
    assert_eq!(peer.ask(BAD, "list", "tools/list", json!({}))["result"]["tools"][0]["name"], "echo");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 0}});
    peer.message(BAD, &cancel);

    assert!(peer.ask(BAD, "room", "tools/call", call("echo")).get("result").is_some());
}
