//! Joining, JSON-RPC without calls, liveness, authentication.

use std::time::Duration;

use bennu::protocol::jsonrpc::Compat;
use serde_json::{Value, json};

use super::peer::{Names, TestServer, client_info};

#[test]
fn a_session_is_joined_with_the_keys_of_the_deployment() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();

    let reply = peer.joined("mcp:session", &client_info());

    assert_eq!(reply["protocolVersion"], "2024-11-05");
    assert_eq!(reply["serverInfo"], json!({"name": "Bennu", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(reply["capabilities"]["experimental"]["streaming"], true);
    let id = reply["sessionId"].as_str().expect("an id").strip_prefix("mcp_session_").expect("the prefix");
    assert!(id.len() == 16 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert_ne!(peer.joined("mcp:session:b", &client_info())["sessionId"], reply["sessionId"]);
}

#[test]
fn joins_are_refused_with_the_reasons_of_the_deployment() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();

    let cases = [
        ("mcp:session", json!({}), "Missing required clientInfo parameter"),
        ("mcp:session", json!({"clientInfo": {"version": "1"}}), "Missing or invalid client name"),
        ("mcp:session:x", json!({"clientInfo": {"name": "a"}}), "Missing or invalid client version"),
        (
            "mcp:session",
            json!({"clientInfo": {"name": "a", "version": "1", "capabilities": 1}}),
            "Invalid client capabilities format",
        ),
        ("mcp:session:", client_info(), "Unknown channel topic"),
        ("mcp:session:streaming", json!({}), "Unknown channel topic"),
        ("mcp:session:streaming", json!({"session_id": "mcp_session_0000000000000000"}), "Session not found"),
        ("mcp:session:streaming", json!({"session_id": 7}), "Session not found"),
        ("mcp:other", client_info(), "Unknown channel topic"),
        ("mcp:", json!({}), "Unknown channel topic"),
        ("mcp:run:", json!({}), "run not found"),
        ("mcp:run:00000000000000000000000000000000", json!({}), "run not found"),
        ("room:lobby", json!({}), "unmatched topic"),
    ];
    for (topic, params, reason) in cases {
        assert_eq!(peer.refused(topic, &params), reason, "{topic} {params}");
    }
}

#[test]
fn requests_are_answered_by_id_and_notifications_not_at_all() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    assert_eq!(peer.request(json!({"a": [1.5]}), "ping", Value::Null)["result"], json!({}));
    let tools = peer.request(json!("t"), "tools/list", json!({"cursor": 7}));
    let names: Vec<_> = tools["result"]["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["countdown", "stream_hash", "text_search"]);
    for method in ["workflows/such", "no/such", ""] {
        let error = json!({"code": -32601, "message": format!("Method not found: {method}")});
        assert_eq!(peer.request(json!(method), method, json!({}))["error"], error);
    }
    let before = peer.of("mcp:session", "mcp_message").len();
    peer.message("mcp:session", &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    peer.message("mcp:session", &json!({"jsonrpc": "2.0", "method": "no/such"}));
    peer.message("mcp:session", &json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    peer.message("mcp:session", &json!({"jsonrpc": "2.0", "id": 1, "error": {}}));
    peer.request(json!("last"), "ping", json!({}));
    assert_eq!(peer.of("mcp:session", "mcp_message").len(), before + 1);
}

#[test]
fn an_invalid_message_echoes_its_id() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    let cases = [
        (json!({"jsonrpc": "1.0", "id": "x", "method": "ping"}), json!("x")),
        (json!({"id": [1]}), json!([1])),
        (json!([{"jsonrpc": "2.0", "id": 1, "method": "ping"}]), Value::Null),
        (json!("text"), Value::Null),
        (Value::Null, Value::Null),
    ];
    for (message, id) in cases {
        peer.frames.clear();
        peer.message("mcp:session", &message);
        let error = json!({"code": -32600, "message": "Invalid JSON-RPC 2.0 message format"});
        let expected = json!({"jsonrpc": "2.0", "id": id, "error": error});
        assert_eq!(peer.wait(|frame| frame.event == "mcp_message").payload, expected);
    }
}

#[test]
fn the_elixir_setting_answers_every_error_with_its_code() {
    let server = TestServer::start(|settings| settings.compat = Compat::Elixir);
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    let error = json!({"code": -32000, "message": "Method not found: x"});
    assert_eq!(peer.request(json!(1), "x", json!({}))["error"], error);
}

#[test]
fn a_request_above_a_mebibyte_is_too_large() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    // `{"method":"ping","params":{"x":"…"}}` is 35 bytes and the string's.
    let fits = "x".repeat((1 << 20) - 35);

    assert_eq!(peer.request(json!(1), "ping", json!({"x": fits}))["result"], json!({}));
    let error = json!({"code": -32600, "message": "Request too large"});
    assert_eq!(peer.request(json!(2), "ping", json!({"x": fits + "x"}))["error"], error);
    // An id too long to be kept is not sent back.
    let long_id = json!({"jsonrpc": "2.0", "id": "x".repeat(2_000), "method": "ping"});
    peer.message("mcp:session", &long_id);
    assert_eq!(peer.wait(|frame| frame.is_response(&Value::Null)).payload["error"], error);
}

#[test]
fn heartbeats_are_acknowledged_and_unknown_events_refused() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    assert_eq!(peer.push("mcp:session", "heartbeat", &json!([])), json!({"status": "ok", "response": {}}));
    let ack = peer.wait(|frame| frame.event == "heartbeat_ack").payload;
    let timestamp = ack["timestamp"].as_str().expect("a time");
    assert!(timestamp.len() == "2026-01-01T00:00:00.000000Z".len() && timestamp.ends_with('Z'), "{timestamp}");

    let unknown = json!({"status": "error", "response": {"reason": "unknown event"}});
    assert_eq!(peer.push("mcp:session", "nonsense", &json!({})), unknown);
    assert_eq!(peer.request(json!(1), "ping", json!({}))["result"], json!({}), "the channel lives");
}

#[test]
fn silence_ends_a_session_with_phx_error_and_any_frame_of_the_socket_is_life() {
    let server = TestServer::start(|settings| settings.heartbeat_timeout_ms = 400);
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    for _ in 0..8 {
        peer.send("phoenix", "heartbeat", &json!({}));
        peer.listen(Duration::from_millis(100));
    }
    assert!(peer.of("mcp:session", "phx_error").is_empty(), "twice the timeout, and alive");

    peer.wait(|frame| frame.topic == "mcp:session" && frame.event == "phx_error");
    peer.joined("mcp:session", &client_info());
}

#[test]
fn with_authentication_a_client_sees_its_own_runs_alone() {
    let server = TestServer::with(|_| {}, Names);
    let (ann, bob) = (json!({"token": "ann"}), json!({"token": "bob"}));
    let mut owner = server.connect();
    let mut other = server.connect();
    assert_eq!(owner.refused("mcp:session", &client_info()), "No authentication credentials provided");
    let mut wrong = client_info();
    wrong["token"] = json!("eve");
    assert_eq!(owner.refused("mcp:session", &wrong), "Invalid token: invalid");
    assert_eq!(owner.refused("mcp:session", &json!({})), "Missing required clientInfo parameter");
    assert_eq!(other.refused("mcp:runs", &json!({})), "No authentication credentials provided");
    let mut right = client_info();
    right["token"] = json!("ann");
    owner.joined("mcp:session", &right);
    other.joined("mcp:runs", &bob);

    let run = owner.call("mcp:session", &json!(1), &json!({"name": "countdown", "arguments": {"seconds": 1}}));

    assert_eq!(other.refused(&format!("mcp:run:{run}"), &bob), "run not found");
    assert_eq!(other.refused(&format!("mcp:run:{run}"), &json!({})), "No authentication credentials provided");
    assert_eq!(server.connect().joined("mcp:runs", &bob), json!({"runs": []}));
    assert_eq!(server.connect().joined("mcp:runs", &ann)["runs"][0]["run_id"], run);
    assert_eq!(server.connect().joined(&format!("mcp:run:{run}"), &ann)["run"]["run_id"], run);
    owner.wait(|frame| frame.is_response(&json!(1)));
    other.listen(Duration::from_millis(100));
    assert!(other.frames.iter().all(|frame| frame.topic != "mcp:runs" || frame.event == "phx_reply"));
}
