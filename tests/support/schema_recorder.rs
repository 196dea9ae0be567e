//! The recorder: connections that are well pass, and what no single message shows is found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use crate::mcp_schema::{Flavour, MODERN, Recorder};

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn response(id: u64, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn progress(token: &str, progress: f64) -> Value {
    let params = json!({"progressToken": token, "progress": progress});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

fn call(id: u64, token: &str) -> Value {
    request(id, "tools/call", json!({"name": "a", "arguments": {}, "_meta": {"progressToken": token}}))
}

fn text(id: u64) -> Value {
    response(id, json!({"content": [{"type": "text", "text": "a"}]}))
}

/// After the handshake of a client with these capabilities.
fn legacy(revision: &str, capabilities: Value) -> Recorder {
    let mut recorder = Recorder::new(Flavour::Standard);
    let info = json!({"name": "a", "version": "1"});
    let params = json!({"protocolVersion": revision, "capabilities": capabilities, "clientInfo": info});
    recorder.sent(&request(0, "initialize", params));
    recorder.received(&response(0, json!({"protocolVersion": revision, "capabilities": {}, "serverInfo": info})));
    recorder.sent(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    recorder
}

/// A request of the revision without a handshake, of a client that can be asked for its roots.
fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"roots": {}});
    request(id, method, params)
}

/// The panic's text has to have both in it.
#[track_caller]
fn refused(mut recorder: Recorder, message: Value, expected: &str) {
    let panic = catch_unwind(AssertUnwindSafe(|| recorder.received(&message))).expect_err("it is refused");
    let said = panic.downcast_ref::<String>().expect("a text");
    assert!(said.contains(expected) && said.contains(&message.to_string()), "expected {expected:?}, it said: {said}");
}

#[test]
fn a_session_that_is_well_passes() {
    let mut recorder = legacy("2025-11-25", json!({"roots": {}}));

    recorder.sent(&call(1, "a"));
    recorder.sent(&request(2, "ping", json!({})));
    recorder.received(&response(2, json!({})));
    recorder.received(&progress("a", 1.0));
    recorder.received(&request(1, "roots/list", json!({})));
    recorder.sent(&response(1, json!({"roots": []})));
    recorder.received(&progress("a", 2.5));
    assert_eq!(recorder.unanswered(), ["1"]);
    recorder.received(&text(1));

    assert!(recorder.unanswered().is_empty());
}

#[test]
fn requests_without_a_handshake_are_of_the_revision_that_they_state() {
    let mut recorder = Recorder::new(Flavour::Standard);
    recorder.sent(&modern(1, "tools/call", json!({"name": "a"})));
    refused(recorder, text(1), "resultType");

    let mut recorder = Recorder::new(Flavour::Standard);
    recorder.sent(&modern(1, "tools/call", json!({"name": "a"})));
    recorder.received(&response(1, json!({"resultType": "complete", "content": []})));
}

#[test]
fn the_handshake_decides_the_revision() {
    let mut recorder = legacy("2024-11-05", json!({}));
    recorder.sent(&call(1, "a"));
    let audio = json!({"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]});
    refused(recorder, response(1, audio), "no CallToolResult of 2024-11-05");
}

#[test]
fn answers_to_nothing_and_second_answers_are_found() {
    refused(legacy("2025-11-25", json!({})), text(1), "which was not asked");

    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.sent(&call(1, "a"));
    recorder.received(&text(1));
    refused(recorder, text(1), "a second time");
}

#[test]
fn an_id_that_comes_back_as_another_type_is_found() {
    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.sent(&call(1, "a"));
    refused(recorder, json!({"jsonrpc": "2.0", "id": "1", "result": {"content": []}}), "which was not asked");
}

#[test]
fn progress_that_stands_still_or_goes_back_is_found() {
    for next in [1.0, 0.5] {
        let mut recorder = legacy("2025-11-25", json!({}));
        recorder.sent(&call(1, "a"));
        recorder.received(&progress("a", 1.0));
        refused(recorder, progress("a", next), "has to grow");
    }
}

#[test]
fn progress_of_no_request_or_after_its_answer_is_found() {
    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.sent(&call(1, "a"));
    refused(recorder, progress("b", 1.0), "which no request had");

    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.sent(&call(1, "a"));
    recorder.received(&text(1));
    refused(recorder, progress("a", 1.0), "after the answer");
}

#[test]
fn a_cancelled_request_may_still_be_told_of() {
    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.sent(&call(1, "a"));
    recorder.sent(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));

    assert!(recorder.unanswered().is_empty());
    recorder.received(&progress("a", 1.0));
    recorder.received(&text(1));
}

#[test]
fn asking_a_client_that_can_not_answer_is_found() {
    refused(legacy("2025-11-25", json!({})), request(1, "roots/list", json!({})), "capability `roots`");

    let asked = |method: &str, params: Value| json!({"resultType": "input_required", "inputRequests": {"a": {"method": method, "params": params}}});
    let mut recorder = Recorder::new(Flavour::Standard);
    recorder.sent(&modern(1, "tools/call", json!({"name": "a"})));
    recorder.received(&response(1, asked("roots/list", json!({}))));
    recorder.sent(&modern(2, "tools/call", json!({"name": "a"})));
    let elicit = json!({"message": "a", "requestedSchema": {"type": "object", "properties": {}}});
    refused(recorder, response(2, asked("elicitation/create", elicit)), "capability `elicitation`");
}

#[test]
fn a_second_question_under_the_id_of_one_that_waits_is_found() {
    let mut recorder = legacy("2025-11-25", json!({}));
    recorder.received(&request(1, "ping", json!({})));
    refused(recorder, request(1, "ping", json!({})), "while it waits");
}

#[test]
fn structured_content_is_held_against_the_tools_schema() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let answered = |result: Value| {
        let mut recorder = legacy("2025-11-25", json!({}));
        recorder.sent(&request(1, "tools/list", json!({})));
        let tool = json!({"name": "a", "inputSchema": {"type": "object"}, "outputSchema": schema});
        recorder.received(&response(1, json!({"tools": [tool]})));
        recorder.sent(&call(2, "a"));
        (recorder, response(2, result))
    };

    let (mut recorder, message) = answered(json!({"content": [], "structuredContent": {"n": 1}}));
    recorder.received(&message);
    let (mut recorder, message) = answered(json!({"content": [], "isError": true}));
    recorder.received(&message);
    let (recorder, message) = answered(json!({"content": [], "structuredContent": {"n": "1"}}));
    refused(recorder, message, "`outputSchema`");
    let (recorder, message) = answered(json!({"content": []}));
    refused(recorder, message, "`structuredContent`");
}

#[test]
fn subscriptions_are_told_while_they_are_open() {
    let changed = |id: u64| {
        let params = json!({"_meta": {"io.modelcontextprotocol/subscriptionId": id}});
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params})
    };
    let listening = || {
        let mut recorder = Recorder::new(Flavour::Standard);
        recorder.sent(&modern(1, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})));
        recorder
    };
    let end = response(1, json!({"resultType": "complete", "_meta": {"io.modelcontextprotocol/subscriptionId": 1}}));

    let mut recorder = listening();
    recorder.received(&changed(1));
    recorder.received(&end);
    refused(recorder, changed(1), "not open");
    refused(listening(), changed(2), "not open");
}

#[test]
fn batches_pass_where_the_revision_has_them() {
    let both = json!([text(1), text(2)]);
    let asked = |revision: &str| {
        let mut recorder = legacy(revision, json!({}));
        recorder.sent(&json!([call(1, "a"), call(2, "b")]));
        recorder
    };

    let mut recorder = asked("2025-03-26");
    recorder.received(&both);
    assert!(recorder.unanswered().is_empty());
    refused(asked("2025-06-18"), both, "batches");
}

#[test]
fn of_the_elixir_flavour_only_envelopes_are_checked() {
    let mut recorder = Recorder::new(Flavour::Elixir);
    recorder.received(&response(7, json!({"content": "anything"})));
    refused(recorder, json!({"id": 7, "result": {}}), "`jsonrpc`");
}
