//! examples/conformance: everything in it once, by both eras of MCP, over channels. The official suites drive it over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bennu::Endpoint;
use bennu::channel::SocketSpec;
use bennu::mcp::Mcp;
use serde_json::{Value, json};

use super::session::{Session, TASKS, accept, names, text};

#[path = "../../examples/conformance/main.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

fn started() -> (Arc<Mcp>, Arc<SocketSpec>) {
    let endpoint = Endpoint::start();
    let mcp = example::mcp(&endpoint, example::ONE_PAGE).expect("a server");
    let socket = example::socket(&endpoint, &mcp).build();
    (mcp, socket)
}

async fn initialized() -> Session {
    Session::initialized(&started().1, "conformance").await
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({"name": tool, "arguments": arguments})
}

#[tokio::test(start_paused = true)]
async fn everything_is_on_one_page_and_described_and_the_plainest_first() {
    let session = initialized().await;

    for (method, key, first) in [
        ("tools/list", "tools", "test_simple_text"),
        ("resources/list", "resources", "static-text"),
        ("resources/templates/list", "resourceTemplates", "template-data"),
        ("prompts/list", "prompts", "test_simple_prompt"),
    ] {
        let list = session.request(method, json!({})).await;
        assert_eq!((names(&list[key])[0], list.get("nextCursor")), (first, None));
        assert!(list[key].as_array().expect("a list").iter().all(|item| item["description"].is_string()), "{list}");
    }
}

#[tokio::test(start_paused = true)]
async fn tools_that_ask_nothing_answer() {
    let session = initialized().await;

    for (tool, arguments, expected) in [
        (
            "test_simple_text",
            json!({}),
            json!([{"type": "text", "text": "This is a simple text response for testing."}]),
        ),
        ("test_image_content", json!({}), json!([{"type": "image", "mimeType": "image/png"}])),
        ("test_audio_content", json!({}), json!([{"type": "audio", "mimeType": "audio/wav"}])),
        ("test_embedded_resource", json!({}), json!([{"type": "resource"}])),
        ("test_multiple_content_types", json!({}), json!([{"type": "text"}, {"type": "image"}, {"type": "resource"}])),
        ("test_tool_with_logging", json!({}), json!([{"type": "text"}])),
        ("test_logging_tool", json!({}), json!([{"type": "text"}])),
        ("test_tool_with_progress", json!({}), json!([{"type": "text"}])),
        ("test_reconnection", json!({}), json!([{"type": "text"}])),
        ("json_schema_2020_12_tool", json!({"email": "a@b"}), json!([{"text": r#"{"email":"a@b"}"#}])),
        ("test_custom_header", json!({"region": "north"}), json!([{"text": "north"}])),
        ("greet", json!({"name": "Ada"}), json!([{"text": "Hello, Ada!"}])),
        ("slow_compute", json!({"seconds": 1.5, "label": "x"}), json!([{"text": "computed x for 1.5 s"}])),
        ("echo", json!({"text": "hello"}), json!([{"text": "hello"}])),
        ("many_progress", json!({"count": 100}), json!([{"text": "reported progress 100 times"}])),
        ("big", json!({"bytes": 1_000}), json!([{"text": "x".repeat(1_000)}])),
        ("test_trigger_tool_change", json!({}), json!([{"type": "text"}])),
        ("test_trigger_prompt_change", json!({}), json!([{"type": "text"}])),
        ("test_trigger_resource_change", json!({}), json!([{"type": "text"}])),
        ("test_trigger_resource_update", json!({}), json!([{"type": "text"}])),
    ] {
        session.ask("tools/call", call(tool, arguments));
        let response = session.next(json!({"result": {"content": expected}})).await;
        assert_eq!(response["result"].get("isError"), None, "{tool}");
    }
    let structured = session.call("structured", json!({"text": "one two"})).await;
    assert_eq!(structured["structuredContent"], json!({"letters": 6, "words": 2, "lines": 1}));
}

#[tokio::test(start_paused = true)]
async fn tools_that_fail_say_so() {
    let session = initialized().await;

    for (tool, arguments) in [
        ("test_error_handling", json!({})),
        ("panics", json!({})),
        ("big", json!({"bytes": 1_000_000})),
        ("big", json!({"bytes": 100_000_000})),
    ] {
        assert_eq!(session.call(tool, arguments).await["isError"], true, "{tool}");
    }
    for tool in ["failing_job", "protocol_error_job", "test_tool_with_task"] {
        let response = session.response(session.ask("tools/call", call(tool, json!({})))).await;
        assert!(response["error"]["code"].is_i64(), "{tool} without tasks: {response}");
    }
}

#[tokio::test(start_paused = true)]
async fn progress_and_log_messages_come_before_the_answer() {
    let session = initialized().await;

    let mut params = call("test_tool_with_progress", json!({}));
    params["_meta"] = json!({"progressToken": 7});
    let asked = session.ask("tools/call", params);
    for progress in [0, 50, 100] {
        let params = json!({"progressToken": 7, "progress": progress, "total": 100});
        session.next(json!({"method": "notifications/progress", "params": params})).await;
    }
    session.response(asked).await;

    let asked = session.ask("tools/call", call("test_tool_with_logging", json!({})));
    for data in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        session.next(json!({"method": "notifications/message", "params": {"level": "info", "data": data}})).await;
    }
    session.response(asked).await;
}

#[tokio::test(start_paused = true)]
async fn questions_are_requests_to_a_client_that_was_initialized() {
    let session = initialized().await;
    let said = json!({"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"});
    let roots = json!({"roots": [{"uri": "file:///a", "name": "A"}]});
    let (sampling, elicitation, list) = ("sampling/createMessage", "elicitation/create", "roots/list");

    for (tool, arguments, answers, expected) in [
        ("test_sampling", json!({"prompt": "?"}), vec![(sampling, said.clone())], "LLM response: Paris"),
        (
            "test_elicitation",
            json!({"message": "?"}),
            vec![(elicitation, accept(json!({"username": "u", "email": "u@e"})))],
            r#"User response: action=accept, content={"email":"u@e","username":"u"}"#,
        ),
        (
            "test_elicitation_sep1034_defaults",
            json!({}),
            vec![(elicitation, accept(json!({"age": 30})))],
            r#"Elicitation completed: action=accept, content={"age":30}"#,
        ),
        (
            "test_elicitation_sep1330_enums",
            json!({}),
            vec![(elicitation, accept(json!({"titledMulti": ["value1"]})))],
            r#"Elicitation completed: action=accept, content={"titledMulti":["value1"]}"#,
        ),
        (
            "test_streaming_elicitation",
            json!({}),
            vec![(elicitation, json!({"action": "cancel"}))],
            "Hello, whoever you are!",
        ),
        ("test_missing_capability", json!({}), vec![(sampling, said.clone())], "Paris"),
        ("test_input_required_result_list_roots", json!({}), vec![(list, roots.clone())], "the client works in: A"),
        (
            "test_input_required_result_multi_round",
            json!({}),
            vec![(elicitation, accept(json!({"name": "A"}))), (elicitation, accept(json!({"color": "b"})))],
            r#"name: action=accept, content={"name":"A"}; color: action=accept, content={"color":"b"}"#,
        ),
        (
            "test_input_required_result_capabilities",
            json!({}),
            vec![(sampling, said.clone()), (elicitation, json!({"action": "decline"})), (list, roots.clone())],
            "the client answered 3 questions",
        ),
        (
            "confirm_delete",
            json!({"filename": "f"}),
            vec![(elicitation, accept(json!({"confirm": true})))],
            "deleted f",
        ),
    ] {
        let asked = session.ask("tools/call", call(tool, arguments));
        for (method, answer) in answers {
            session.answer(method, answer).await;
        }
        assert_eq!(text(&session.response(asked).await["result"]), expected, "{tool}");
    }
}

/// Calls statelessly until the call is complete, with an answer to each question; gives the rounds and the result.
async fn rounds(session: &Session, method: &str, params: Value, answers: Value) -> (usize, Value) {
    let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {}, "extensions": {TASKS: {}}});
    let mut again = params;
    for round in 1.. {
        let result = session.stateless(method, again.clone(), capabilities.clone()).await;
        if result["resultType"] != "input_required" {
            return (round, result);
        }
        let wanted = result["inputRequests"].as_object().expect("questions").keys();
        let given = wanted.map(|key| (key.clone(), answers[key].clone())).collect();
        again["inputResponses"] = Value::Object(given);
        again["requestState"] = result["requestState"].clone();
    }
    unreachable!("rounds have no end")
}

#[tokio::test(start_paused = true)]
async fn questions_are_results_for_a_stateless_client() {
    let session = Session::join(&started().1, "conformance").await;
    let said = json!({"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"});
    let answers = json!({
        "user_name": accept(json!({"name": "Ada"})), "capital_question": said, "greeting": said,
        "client_roots": {"roots": [{"uri": "file:///a"}]}, "confirm": accept(json!({"ok": true})),
        "step1": accept(json!({"name": "A"})), "step2": accept(json!({"color": "b"})),
        "user_context": accept(json!({"context": "c"})),
    });

    for (tool, expected, rounds_expected) in [
        ("test_input_required_result_elicitation", "Hello, Ada!", 2),
        ("test_input_required_result_sampling", "Paris", 2),
        ("test_input_required_result_list_roots", "the client works in: file:///a", 2),
        (
            "test_input_required_result_request_state",
            r#"state-ok after 2 rounds, action=accept, content={"ok":true}"#,
            2,
        ),
        (
            "test_input_required_result_multi_round",
            r#"name: action=accept, content={"name":"A"}; color: action=accept, content={"color":"b"}"#,
            3,
        ),
    ] {
        let (count, result) = rounds(&session, "tools/call", json!({"name": tool}), answers.clone()).await;
        assert_eq!((text(&result), count), (expected, rounds_expected), "{tool}");
    }
    let several = json!({"name": "test_input_required_result_multiple_inputs"});
    let (count, result) = rounds(&session, "tools/call", several, answers.clone()).await;
    assert_eq!((text(&result).lines().count(), count), (3, 2), "all at once");
    let prompt = json!({"name": "test_input_required_result_prompt"});
    let (count, result) = rounds(&session, "prompts/get", prompt, answers).await;
    assert_eq!((&result["messages"][0]["content"]["text"], count), (&json!("Use this context: c"), 2));
}

/// Waits until a task has this status.
async fn task(session: &Session, id: &Value, status: &str) -> Value {
    loop {
        let task = session.stateless("tasks/get", json!({"taskId": id}), json!({"extensions": {TASKS: {}}})).await;
        if task["status"] == status {
            return task;
        }
        assert!(["working", "input_required"].contains(&task["status"].as_str().expect("a status")), "{task}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn task_capabilities() -> Value {
    json!({"elicitation": {}, "extensions": {TASKS: {}}})
}

/// Begins a task; gives its id.
async fn begin(session: &Session, tool: &str, arguments: Value) -> Value {
    let mut created = session.stateless("tools/call", call(tool, arguments), task_capabilities()).await;
    assert_eq!(created["resultType"], "task", "{tool}");
    created["taskId"].take()
}

async fn update(session: &Session, id: &Value, responses: Value) {
    let params = json!({"taskId": id, "inputResponses": responses});
    session.stateless("tasks/update", params, task_capabilities()).await;
}

#[tokio::test(start_paused = true)]
async fn tasks_go_on_beside_their_calls() {
    let session = Session::join(&started().1, "conformance").await;

    let computed = begin(&session, "slow_compute", json!({"seconds": 100})).await;
    assert_eq!(text(&task(&session, &computed, "completed").await["result"]), "computed something for 100 s");
    let failed = begin(&session, "failing_job", json!({})).await;
    assert_eq!(task(&session, &failed, "completed").await["result"]["isError"], true);
    let broken = begin(&session, "protocol_error_job", json!({})).await;
    assert_eq!(task(&session, &broken, "failed").await["error"]["code"], -32603);

    let deleted = begin(&session, "confirm_delete", json!({"filename": "f"})).await;
    let asks = task(&session, &deleted, "input_required").await;
    assert_eq!(asks["inputRequests"]["confirm"]["method"], "elicitation/create");
    update(&session, &deleted, json!({"confirm": accept(json!({"confirm": true}))})).await;
    assert_eq!(text(&task(&session, &deleted, "completed").await["result"]), "deleted f");

    let several = begin(&session, "multi_input", json!({})).await;
    let asks = task(&session, &several, "input_required").await;
    assert_eq!(asks["inputRequests"].as_object().expect("questions").len(), 2);
    update(&session, &several, json!({"name": accept(json!({"name": "Ada"}))})).await;
    let asks = task(&session, &several, "input_required").await;
    assert_eq!(asks["inputRequests"].as_object().expect("questions").len(), 1);
    update(&session, &several, json!({"confirm": accept(json!({"confirm": true}))})).await;
    task(&session, &several, "completed").await;

    let answers = json!({"user_name": accept(json!({"name": "Ada"}))});
    let (count, created) = rounds(&session, "tools/call", json!({"name": "test_tool_with_task"}), answers).await;
    assert_eq!((&created["resultType"], count), (&json!("task"), 2));
    assert_eq!(text(&task(&session, &created["taskId"], "completed").await["result"]), "Hello, Ada!");
}

#[tokio::test(start_paused = true)]
async fn a_task_asks_again_for_what_does_not_fit() {
    let session = Session::join(&started().1, "conformance").await;
    let deleted = begin(&session, "confirm_delete", json!({"filename": "f"})).await;
    task(&session, &deleted, "input_required").await;

    update(&session, &deleted, json!({"confirm": accept(json!({"confirm": "perhaps"}))})).await;
    let asks = task(&session, &deleted, "input_required").await;
    assert_eq!(asks["inputRequests"]["confirm"]["method"], "elicitation/create");

    update(&session, &deleted, json!({"confirm": accept(json!({"confirm": true}))})).await;
    assert_eq!(text(&task(&session, &deleted, "completed").await["result"]), "deleted f");
}

#[tokio::test(start_paused = true)]
async fn resources_are_read_and_prompts_filled_in() {
    let session = initialized().await;

    for (uri, key, value) in [
        ("test://static-text", "text", json!("This is the content of the static text resource.")),
        ("test://static-binary", "mimeType", json!("image/png")),
        ("test://watched-resource", "text", json!("Nothing new.")),
        ("test://template/123/data", "text", json!(r#"{"data":"Data for ID: 123","id":"123","templateTest":true}"#)),
    ] {
        assert_eq!(session.request("resources/read", json!({"uri": uri})).await["contents"][0][key], value);
    }
    for (prompt, arguments, kind) in [
        ("test_simple_prompt", json!({}), "text"),
        ("test_prompt_with_arguments", json!({"arg1": "a", "arg2": "b"}), "text"),
        ("test_prompt_with_embedded_resource", json!({"resourceUri": "test://x"}), "resource"),
        ("test_prompt_with_image", json!({}), "image"),
    ] {
        let filled = session.request("prompts/get", json!({"name": prompt, "arguments": arguments})).await;
        assert_eq!(filled["messages"][0]["content"]["type"], kind, "{prompt}");
    }
    for (reference, argument) in [
        (json!({"type": "ref/prompt", "name": "test_prompt_with_arguments"}), "arg1"),
        (json!({"type": "ref/resource", "uri": "test://template/{id}/data"}), "id"),
    ] {
        let params = json!({"ref": reference, "argument": {"name": argument, "value": "testV"}});
        let completion = session.request("completion/complete", params).await;
        assert_eq!(completion["completion"]["values"], json!(["testValue1", "testValue2"]));
    }
}

#[tokio::test(start_paused = true)]
async fn triggers_tell_those_who_listen() {
    let session = initialized().await;
    session.request("resources/subscribe", json!({"uri": "test://watched-resource"})).await;

    for (tool, method) in [
        ("test_trigger_tool_change", "notifications/tools/list_changed"),
        ("test_trigger_prompt_change", "notifications/prompts/list_changed"),
        ("test_trigger_resource_change", "notifications/resources/list_changed"),
        ("test_trigger_resource_update", "notifications/resources/updated"),
    ] {
        session.call(tool, json!({})).await;
        session.next(json!({"method": method})).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_cancelled() {
    let (mcp, socket) = started();
    let session = Session::initialized(&socket, "conformance").await;

    for tool in ["hangs", "floods", "blocks"] {
        let mut params = call(tool, json!({}));
        params["_meta"] = json!({"progressToken": tool});
        let asked = session.ask("tools/call", params);
        if tool == "floods" {
            session.next(json!({"method": "notifications/progress", "params": {"progressToken": tool}})).await;
        }
        session.cancel(asked);
    }

    mcp.idle().await;
    session.request("ping", json!({})).await;
}
