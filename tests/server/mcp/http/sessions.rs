//! Sessions of clients that open with `initialize`.

use std::time::Instant;

use bennu::mcp::Tool;
use bennu::mcp::auth::Development;
use serde_json::{Value, json};

use crate::mcp_schema::Validator;

use super::lab::{Answer, DEADLINE, Lab, call, initialize, modern, request};

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_session_is_opened_used_and_ended() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    assert!(client.session.len() == 32 && client.session.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(lab.open("2025-06-18").session, client.session);

    let answer = client.post(&request(1, "ping", json!({})));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json(), json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    let answer = client.call(2, "echo");
    assert!(!answer.is_stream(), "a call that ends at once is answered at once");
    assert_eq!(answer.json()["result"]["content"][0]["text"], "{}");

    assert_eq!((client.delete().status, client.delete().status), (204, 404));
    assert_eq!(client.post(&request(3, "ping", json!({}))).status, 404);
    assert_eq!((client.get("").status, lab.held().mcp_http_sessions, lab.core_sessions()), (404, 1, 1));
}

#[test]
fn requests_without_their_session_are_refused() {
    let lab = Lab::new();
    let ping = request(1, "ping", json!({}));
    let with = |session: &str| lab.post(&[("Mcp-Session-Id", session)], &ping).status;
    let known = lab.open("2025-11-25").session;

    assert_eq!(with(""), 400);
    let unknown = format!("{:032x}", 7);
    for session in [&*unknown, "x", &known.to_uppercase(), &known[1..], &format!("{known}0"), &"f".repeat(4_000)] {
        let expected = if session == known { 200 } else { 404 };
        assert_eq!(with(session), expected, "{session}");
    }
    let twice = [("Mcp-Session-Id", &*known), ("Mcp-Session-Id", &*known)];
    assert_eq!(lab.post(&twice, &ping).status, 400);
    assert_eq!(lab.send("GET", "/mcp", &[], None).status, 400);
    assert_eq!(lab.send("DELETE", "/mcp", &[], None).status, 400);
    assert_eq!(lab.send("DELETE", "/mcp", &[("Mcp-Session-Id", &unknown)], None).status, 404);
}

#[test]
fn a_failed_initialize_opens_nothing() {
    let lab = Lab::new();

    let answer = lab.post(&[], &request(1, "initialize", json!({"protocolVersion": 5})));

    assert_eq!((answer.status, answer.header("mcp-session-id")), (400, None));
    assert_eq!(answer.json()["error"]["code"], -32602);
    assert_eq!((lab.held().mcp_http_sessions, lab.core_sessions()), (0, 0));
}

#[test]
fn the_version_header_is_one_that_is_known() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let with = |version: &str| {
        let headers = [("Mcp-Session-Id", &*client.session), ("MCP-Protocol-Version", version)];
        lab.post(&headers, &request(1, "ping", json!({}))).status
    };

    assert_eq!((with(""), with("2025-11-25"), with("2025-03-26"), with("2024-11-05")), (200, 200, 200, 200));
    assert_eq!((with("1999-01-01"), with("x"), with("2025-11-25, 2025-11-25")), (400, 400, 400));
    let answer = client.post(&initialize("2025-11-25"));
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (200, json!(-32600)), "initialized already");
}

#[test]
fn notifications_and_answers_are_taken_without_a_word() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let silent = |message: &Value| {
        let answer = client.post(message);
        (answer.status, answer.body())
    };

    let expected = (202, String::new());
    assert_eq!(silent(&json!({"jsonrpc": "2.0", "method": "notifications/unknown"})), expected);
    assert_eq!(silent(&json!({"jsonrpc": "2.0", "id": 99, "result": {}})), expected);
    assert_eq!(silent(&json!({"jsonrpc": "2.0", "id": 99, "error": {"code": 1, "message": ""}})), expected);
}

#[test]
fn a_batch_is_answered_whole() {
    let lab = Lab::new();
    let client = lab.open("2025-03-26");
    let ids = |answers: &Value| {
        answers.as_array().expect("an array").iter().map(|answer| answer["id"].clone()).collect::<Vec<_>>()
    };
    let note = json!({"jsonrpc": "2.0", "method": "notifications/x"});

    let answers =
        client.post(&json!([request(1, "ping", json!({})), note, call(2, "echo"), 7, [call(8, "echo")]])).json();
    assert_eq!(ids(&answers), [json!(1), json!(2), Value::Null, Value::Null]);
    assert_eq!(client.post(&json!([note, note])).status, 202);

    let mut answer = client.post(&json!([request(3, "ping", json!({})), call(4, "wait"), call(5, "wait")]));
    assert!(answer.is_stream());
    assert_eq!(answer.message().json()["id"], 3);
    lab.gate.add_permits(2);
    let mut rest = [answer.message().json()["id"].clone(), answer.message().json()["id"].clone()];
    rest.sort_by_key(Value::as_u64);
    assert_eq!((rest, answer.next()), ([json!(4), json!(5)], None));

    let among = json!([request(6, "ping", json!({})), modern(7, "tools/list", json!({}))]);
    assert_eq!(client.post(&among).status, 400, "a stateless request has no place in a batch");
    let many: Vec<_> = (0..101).map(|id| request(id, "ping", json!({}))).collect();
    assert_eq!((client.post(&json!([])).status, client.post(&json!(many)).status), (400, 400));
    let later = lab.open("2025-06-18");
    assert_eq!(later.post(&json!([request(1, "ping", json!({}))])).status, 400);
    assert_eq!(lab.post(&[], &json!([initialize("2025-03-26")])).status, 400);
}

#[test]
fn sessions_are_bounded_and_their_places_come_free() {
    let lab = Lab::with(Development, |options| options.sessions_max = 2);
    let (first, _second) = (lab.open("2025-11-25"), lab.open("2025-11-25"));

    let answer = lab.post(&[], &initialize("2025-11-25"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("10")));
    assert_eq!(lab.core_sessions(), 2);
    assert_eq!(first.delete().status, 204);
    lab.open("2025-11-25");
}

#[test]
fn sessions_that_nobody_uses_end_and_those_in_use_do_not() {
    Validator::shared().prepare("2025-11-25");
    let lab = Lab::with(Development, |options| options.session_idle_ms = 2_000);
    let (streaming, calling, idle) = (lab.open("2025-11-25"), lab.open("2025-11-25"), lab.open("2025-11-25"));
    let mut stream = streaming.get("");
    let answer = calling.call(1, "wait");
    assert_eq!(lab.told(), "began");
    answer.vanish();

    until("the idle session ends", || lab.held().mcp_http_sessions == 2);
    assert_eq!(idle.post(&request(1, "ping", json!({}))).status, 404);
    lab.gate.add_permits(1);
    assert_eq!(lab.told(), "finished");
    until("the session ends whose call has ended", || lab.held().mcp_http_sessions == 1);
    lab.server.tools_changed();
    assert_eq!(stream.message().json()["method"], "notifications/tools/list_changed");
    stream.vanish();
    until("the last session ends", || lab.held().mcp_http_sessions == 0);
    until("its core session has ended too", || lab.core_sessions() == 0);
    lab.open("2025-11-25");
}

#[test]
fn the_standing_stream_tells_of_changes_one_at_a_time() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");

    let mut stream = client.get("");
    assert!(stream.is_stream());
    assert_eq!((stream.header("cache-control"), stream.header("x-accel-buffering")), (Some("no-store"), Some("no")));
    assert_eq!(stream.next().expect("an event to begin with").retry, Some(1_000));
    lab.server.add_tool(Tool::untyped("more", json!({"type": "object"}), |_, _| async { Ok("") })).expect("added");
    assert_eq!(stream.message().json(), json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    assert_eq!(client.post(&request(1, "resources/subscribe", json!({"uri": "test://a"}))).status, 200);
    lab.server.resource_updated("test://a");
    assert_eq!(stream.message().json()["params"]["uri"], "test://a");

    let mut newer = client.get("");
    assert_eq!(stream.next(), None, "a client that opens another one has lost this one");
    assert!(newer.next().is_some_and(|event| event.retry.is_some()));
    lab.server.resource_updated("test://a");
    assert_eq!(newer.message().json()["params"]["uri"], "test://a");
    assert_eq!(client.delete().status, 204);
    assert_eq!(newer.next(), None, "the stream ends with its session");
}

#[test]
fn the_end_of_a_session_ends_its_calls() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(1, "wait");
    assert_eq!(lab.told(), "began");

    assert_eq!(client.delete().status, 204);

    assert_eq!(lab.told(), "dropped");
    assert_eq!(answer.message().json()["result"]["isError"], true);
    assert_eq!(answer.next(), None);
}

#[test]
fn whoever_waits_for_a_call_hears_of_its_end_when_the_server_stops() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut legacy = client.call(1, "wait");
    let mut stateless = lab.stateless(1, "tools/call", json!({"name": "wait"}), &[]);
    assert_eq!((lab.told(), lab.told()), ("began", "began"));

    lab.shut_down();

    for answer in [&mut legacy, &mut stateless] {
        let result = answer.message().json()["result"].clone();
        assert_eq!(
            (&result["isError"], &result["content"][0]["text"]),
            (&json!(true), &json!("cancelled: the server stops"))
        );
        assert_eq!(answer.next(), None);
    }
}

#[test]
fn a_cancelled_call_ends_its_stream_without_an_answer() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let mut answer = client.call(1, "wait");
    assert_eq!(lab.told(), "began");

    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(client.post(&cancel).status, 202);

    assert_eq!((lab.told(), answer.next()), ("dropped", None));
}

#[test]
fn the_client_is_asked_on_the_stream_of_the_call() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer: Answer = client.call(1, "ask");

    let asked = answer.message().json();
    assert_eq!(asked["method"], "roots/list");
    let roots = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": [{"uri": "file:///a"}]}});
    assert_eq!(client.post(&roots).status, 202);

    assert_eq!(answer.message().json()["result"]["content"][0]["text"], "1 roots");
    assert_eq!(answer.next(), None);
}
