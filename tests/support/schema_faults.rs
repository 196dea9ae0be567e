//! Messages that no server may send, each a small step from one that it may: the check refuses them.

use serde_json::{Value, json};

use crate::mcp_schema::{MODERN, REVISIONS, Validator};

const LEGACY: &str = "2025-11-25";

#[track_caller]
fn accepted(revision: &str, message: Value, method: Option<&str>) {
    if let Err(complaint) = Validator::shared().check_from_server(revision, &message, method) {
        panic!("{revision}: {message}: {complaint}");
    }
}

/// The complaint has to have this in it.
#[track_caller]
fn refused(revision: &str, message: Value, method: Option<&str>, expected: &str) {
    match Validator::shared().check_from_server(revision, &message, method) {
        Ok(()) => panic!("{revision}: accepted {message}"),
        Err(complaint) => assert!(complaint.contains(expected), "expected {expected:?}, the complaint is: {complaint}"),
    }
}

fn response(result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "result": result})
}

fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn error(code: i64, data: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no", "data": data}})
}

fn task(status: &str) -> Value {
    let at = "2026-07-28T00:00:00Z";
    json!({"resultType": "task", "taskId": "a", "status": status, "createdAt": at, "lastUpdatedAt": at, "ttlMs": null})
}

#[test]
fn a_text_result_is_accepted_in_every_revision() {
    for revision in REVISIONS {
        let result = json!({"content": [{"type": "text", "text": "a"}], "resultType": "complete"});
        accepted(revision, response(result), Some("tools/call"));
    }
}

#[test]
fn envelopes_that_json_rpc_does_not_know_are_refused_in_every_revision() {
    for revision in REVISIONS {
        refused(revision, json!({"id": 1, "result": {}}), None, "`jsonrpc`");
        refused(revision, json!({"jsonrpc": "2.0", "id": 1}), None, "a message has");
        refused(revision, json!({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}), None, "a message has");
        refused(
            revision,
            json!({"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}}),
            None,
            "`params` is no member",
        );
        refused(revision, json!({"jsonrpc": "2.0", "id": null, "result": {}}), None, "id");
        refused(revision, json!({"jsonrpc": "2.0", "id": 1.5, "result": {}}), None, "id");
        refused(revision, json!("text"), None, "an object");
        refused(revision, json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}), None, "message");
    }
}

#[test]
fn batches_are_of_one_revision() {
    let batch = json!([response(json!({})), response(json!({}))]);

    accepted("2025-03-26", batch.clone(), None);
    refused("2025-03-26", json!([]), None, "at least one");
    refused("2025-06-18", batch, None, "batches");
}

#[test]
fn a_result_without_its_type_is_refused() {
    let result = json!({"content": []});

    accepted(LEGACY, response(result.clone()), Some("tools/call"));
    refused(MODERN, response(result), Some("tools/call"), "resultType");
}

#[test]
fn a_type_of_result_that_the_method_has_not_is_refused() {
    refused(
        MODERN,
        response(json!({"resultType": "later", "content": []})),
        Some("tools/call"),
        "no result of the type",
    );
    refused(MODERN, response(json!({"resultType": "input_required"})), Some("tools/list"), "no result of the type");
    refused(MODERN, response(task("working")), Some("prompts/get"), "no result of the type");
}

#[test]
fn a_complete_result_can_not_pass_for_one_that_asks() {
    // The schema's union of both lets it pass.
    refused(MODERN, response(json!({"resultType": "complete"})), Some("tools/call"), "content");
}

#[test]
fn a_result_that_asks_for_nothing_is_refused() {
    accepted(MODERN, response(json!({"resultType": "input_required", "requestState": "a"})), Some("tools/call"));
    refused(MODERN, response(json!({"resultType": "input_required"})), Some("tools/call"), "inputRequests");
    let asked = json!({"resultType": "input_required", "inputRequests": {"a": {"method": "ping"}}});
    refused(MODERN, response(asked), Some("tools/call"), "inputRequests");
}

#[test]
fn content_of_an_unknown_type_is_refused() {
    for revision in REVISIONS {
        let result =
            json!({"resultType": "complete", "content": [{"type": "video", "data": "", "mimeType": "video/mp4"}]});
        refused(revision, response(result), Some("tools/call"), "content");
    }
}

#[test]
fn content_that_came_with_a_later_revision_is_refused() {
    let audio = json!({"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]});
    refused("2024-11-05", response(audio.clone()), Some("tools/call"), "content");
    accepted("2025-03-26", response(audio), Some("tools/call"));

    let link = json!({"content": [{"type": "resource_link", "uri": "test://a", "name": "a"}]});
    refused("2025-03-26", response(link.clone()), Some("tools/call"), "content");
    accepted("2025-06-18", response(link), Some("tools/call"));
}

#[test]
fn data_that_is_no_base64_is_refused() {
    for revision in REVISIONS {
        for data in ["%", "AAA", "A==="] {
            let result = json!({"resultType": "complete", "content": [{"type": "image", "data": data, "mimeType": "image/png"}]});
            refused(revision, response(result), Some("tools/call"), "content");
        }
    }
}

#[test]
fn a_tool_without_a_schema_or_with_a_wrong_one_is_refused() {
    let tools =
        |tool: Value| response(json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "public", "tools": [tool]}));
    for revision in REVISIONS {
        accepted(revision, tools(json!({"name": "a", "inputSchema": {"type": "object"}})), Some("tools/list"));
        refused(revision, tools(json!({"name": "a"})), Some("tools/list"), "inputSchema");
        let properties = json!({"name": "a", "inputSchema": {"type": "object", "properties": {"a": {"type": "text"}}}});
        refused(revision, tools(properties), Some("tools/list"), "inputSchema");
    }
}

#[test]
fn a_cacheable_result_without_its_hints_is_refused() {
    for (method, result) in [
        ("tools/list", json!({"resultType": "complete", "tools": []})),
        ("prompts/list", json!({"resultType": "complete", "prompts": []})),
        ("resources/list", json!({"resultType": "complete", "resources": []})),
        ("resources/templates/list", json!({"resultType": "complete", "resourceTemplates": []})),
        ("resources/read", json!({"resultType": "complete", "contents": []})),
        ("server/discover", json!({"resultType": "complete", "supportedVersions": [], "capabilities": {}})),
    ] {
        refused(MODERN, response(result.clone()), Some(method), "cacheScope");
        let mut hinted = result;
        hinted["cacheScope"] = json!("public");
        hinted["ttlMs"] = json!(0);
        accepted(MODERN, response(hinted.clone()), Some(method));
        hinted["ttlMs"] = json!(-1);
        refused(MODERN, response(hinted), Some(method), "ttlMs");
    }
}

#[test]
fn an_empty_result_that_has_something_is_refused() {
    accepted(LEGACY, response(json!({"_meta": {}})), Some("ping"));
    for method in ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        refused(LEGACY, response(json!({"ok": true})), Some(method), "an empty result");
    }
}

#[test]
fn a_result_of_an_unknown_method_may_be_any_object() {
    accepted(MODERN, response(json!({"resultType": "complete", "a": 1})), Some("vendor/do"));
    refused(MODERN, response(json!({"a": 1})), Some("vendor/do"), "resultType");
    refused(LEGACY, response(json!([1])), Some("vendor/do"), "result");
}

#[test]
fn progress_without_a_token_or_a_number_is_refused() {
    for revision in REVISIONS {
        accepted(
            revision,
            notification("notifications/progress", json!({"progressToken": "a", "progress": 0.5})),
            None,
        );
        refused(revision, notification("notifications/progress", json!({"progress": 1})), None, "progressToken");
        let text = json!({"progressToken": "a", "progress": "1"});
        refused(revision, notification("notifications/progress", text), None, "progress");
    }
}

#[test]
fn a_notification_with_an_id_is_refused() {
    for revision in REVISIONS {
        let mut message = notification("notifications/progress", json!({"progressToken": "a", "progress": 1}));
        message["id"] = json!(1);
        refused(revision, message, None, "no server");
    }
}

#[test]
fn notifications_that_are_the_clients_or_nobodys_are_refused() {
    for revision in REVISIONS {
        refused(revision, notification("notifications/initialized", json!({})), None, "no server");
        refused(revision, notification("notifications/roots/list_changed", json!({})), None, "no server");
        refused(revision, notification("notifications/invented", json!({})), None, "no server");
    }
}

#[test]
fn a_log_message_without_a_level_is_refused() {
    for revision in REVISIONS {
        accepted(revision, notification("notifications/message", json!({"level": "info", "data": 1})), None);
        refused(revision, notification("notifications/message", json!({"level": "loud", "data": 1})), None, "level");
    }
}

#[test]
fn a_change_that_names_no_subscription_is_refused() {
    let change = |meta: Value| notification("notifications/tools/list_changed", json!({"_meta": meta}));

    accepted(LEGACY, change(json!({})), None);
    accepted(MODERN, change(json!({"io.modelcontextprotocol/subscriptionId": 1})), None);
    refused(MODERN, change(json!({})), None, "subscriptionId");
    refused(MODERN, change(json!({"io.modelcontextprotocol/subscriptionId": {}})), None, "subscriptionId");
}

#[test]
fn a_request_of_the_server_is_refused_where_there_are_none() {
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for revision in REVISIONS.into_iter().filter(|revision| *revision != MODERN) {
        accepted(revision, ping.clone(), None);
    }
    refused(MODERN, ping, None, "no server");

    let params = json!({"message": "a", "requestedSchema": {"type": "object", "properties": {}}});
    let elicit = json!({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": params});
    refused("2025-03-26", elicit.clone(), None, "no server");
    accepted("2025-06-18", elicit, None);
}

#[test]
fn a_request_for_sampling_without_its_limit_is_refused() {
    let message = json!({"role": "user", "content": {"type": "text", "text": "a"}});
    let sample =
        |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": params});
    for revision in REVISIONS.into_iter().filter(|revision| *revision != MODERN) {
        accepted(revision, sample(json!({"messages": [message], "maxTokens": 1})), None);
        refused(revision, sample(json!({"messages": [message]})), None, "maxTokens");
    }
}

#[test]
fn codes_with_a_meaning_have_its_data() {
    accepted(MODERN, error(-32021, json!({"requiredCapabilities": {"elicitation": {}}})), None);
    refused(MODERN, error(-32021, json!({})), None, "requiredCapabilities");
    accepted(MODERN, error(-32022, json!({"supported": ["a"], "requested": "b"})), None);
    refused(MODERN, error(-32022, json!({"supported": ["a"]})), None, "requested");
    refused(LEGACY, error(-32042, json!({})), None, "elicitations");
}

#[test]
fn reserved_codes_without_a_meaning_are_refused() {
    refused(MODERN, error(-32002, json!({})), None, "reserved");
    refused(MODERN, error(-32099, json!({})), None, "reserved");
    accepted(MODERN, error(-32602, json!({})), None);
    accepted(MODERN, error(-31999, json!({})), None);
    accepted(LEGACY, error(-32002, json!({})), None);
}

#[test]
fn an_error_about_what_could_not_be_read_has_no_id() {
    let mut unread = json!({"jsonrpc": "2.0", "error": {"code": -32700, "message": "no JSON"}});
    for revision in REVISIONS {
        accepted(revision, unread.clone(), None);
    }
    unread["id"] = Value::Null;
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18"] {
        accepted(revision, unread.clone(), None);
    }
    refused(LEGACY, unread.clone(), None, "id");
    refused(MODERN, unread, None, "id");
}

#[test]
fn tasks_have_the_fields_of_their_status() {
    accepted(MODERN, response(task("working")), Some("tools/call"));
    refused(LEGACY, response(task("working")), Some("tools/call"), "content");
    for field in ["taskId", "createdAt", "lastUpdatedAt", "ttlMs", "status"] {
        let mut task = task("working");
        task.as_object_mut().expect("a task is an object").remove(field);
        refused(MODERN, response(task), Some("tools/call"), field);
    }

    let detailed = |status: &str, key: &str, value: Value| {
        let mut task = task(status);
        task["resultType"] = json!("complete");
        task[key] = value;
        response(task)
    };
    accepted(MODERN, detailed("completed", "result", json!({"content": []})), Some("tasks/get"));
    refused(MODERN, detailed("completed", "statusMessage", json!("a")), Some("tasks/get"), "result");
    refused(MODERN, detailed("input_required", "result", json!({})), Some("tasks/get"), "inputRequests");
    refused(MODERN, detailed("failed", "error", json!({})), Some("tasks/get"), "error");
    refused(MODERN, detailed("later", "a", json!({})), Some("tasks/get"), "status");
    accepted(MODERN, response(json!({"resultType": "complete"})), Some("tasks/cancel"));
    refused(MODERN, detailed("cancelled", "a", json!({})), Some("tasks/cancel"), "an empty result");
}
