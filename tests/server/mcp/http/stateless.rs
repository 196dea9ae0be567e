//! Requests that say everything themselves.

use serde_json::{Value, json};

use super::lab::{Answer, Lab, MODERN, modern};

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

#[track_caller]
fn error(answer: Answer) -> (u16, i64, Value) {
    let status = answer.status;
    let body = answer.json();
    (
        status,
        body["error"]["code"].as_i64().unwrap_or_else(|| panic!("expected an error, came {body}")),
        body["id"].clone(),
    )
}

#[test]
fn a_request_is_answered_without_a_session() {
    let lab = Lab::new();

    let answer = lab.stateless(1, "server/discover", json!({}), &[]);
    assert_eq!((answer.status, answer.header("mcp-session-id"), answer.is_stream()), (200, None, false));
    let answer = answer.json();
    assert_eq!(
        (&answer["result"]["supportedVersions"], &answer["result"]["resultType"]),
        (&json!([MODERN]), &json!("complete"))
    );
    let answer = lab.stateless(2, "tools/call", json!({"name": "echo", "arguments": {"a": 1}}), &[]);
    assert_eq!(answer.json()["result"]["content"][0]["text"], r#"{"a":1}"#);
    assert_eq!((lab.held().mcp_http_sessions, lab.core_sessions()), (0, 0));
}

#[test]
fn what_meta_lacks_comes_before_what_headers_say() {
    let lab = Lab::new();
    let raw = |params: Value| {
        let message = json!({"jsonrpc": "2.0", "id": 5, "method": "server/discover", "params": params});
        lab.post(&[("MCP-Protocol-Version", MODERN), ("Mcp-Method", "other")], &message)
    };

    assert_eq!(error(raw(json!({}))), (400, -32602, json!(5)));
    assert_eq!(error(raw(json!([]))), (400, -32602, json!(5)));
    assert_eq!(error(raw(json!({"_meta": 7}))), (400, -32602, json!(5)));
    assert_eq!(error(raw(json!({"_meta": {VERSION_KEY: MODERN}}))), (400, -32602, json!(5)));
    let capabilities = json!({"io.modelcontextprotocol/clientCapabilities": {}});
    assert_eq!(error(raw(json!({"_meta": capabilities}))), (400, -32602, json!(5)));
}

#[test]
fn headers_say_what_the_body_says() {
    let lab = Lab::new();
    let echo = || json!({"name": "echo"});
    let list = |headers: &[(&str, &str)]| lab.stateless(1, "tools/list", json!({}), headers);
    let call = |headers: &[(&str, &str)]| lab.stateless(1, "tools/call", echo(), headers);

    for headers in [
        &[("Mcp-Method", "prompts/list")][..],
        &[("Mcp-Method", "")],
        &[("Mcp-Method", "TOOLS/LIST")],
        &[("Mcp-Method", "tools/list"), ("Mcp-Method", "tools/list")],
        &[("MCP-Protocol-Version", "2025-11-25")],
        &[("MCP-Protocol-Version", "")],
        &[("MCP-Protocol-Version", MODERN), ("MCP-Protocol-Version", MODERN)],
    ] {
        assert_eq!(error(list(headers)), (400, -32020, json!(1)), "{headers:?}");
    }
    assert_eq!(list(&[("Mcp-Name", "x")]).status, 200, "a name is nobody's business where the method has none");
    for headers in [&[("Mcp-Name", "wrong")][..], &[("Mcp-Name", "")], &[("Mcp-Name", "ECHO")]] {
        assert_eq!(error(call(headers)), (400, -32020, json!(1)), "{headers:?}");
    }
    assert_eq!(list(&[("MCP-METHOD", "tools/list")]).status, 200);
    assert_eq!(call(&[("Mcp-Name", "  echo \t")]).status, 200);
    assert_eq!(call(&[("Mcp-Name", "=?base64?ZWNobw==?=")]).status, 200);
}

#[test]
fn arguments_that_a_tool_wants_as_headers_are_compared() {
    let lab = Lab::new();
    let call = |p: &str, header: &str| {
        let params = json!({"name": "headed", "arguments": {"p": p}});
        lab.stateless(1, "tools/call", params, &[("Mcp-Param-P", header)])
    };

    for (p, header) in
        [("Hello", "=?base64?SGVsbG8=?="), ("SGVsbG8=", "SGVsbG8="), ("=?base64?SGVsbG8=", "=?base64?SGVsbG8=")]
    {
        assert_eq!(call(p, header).status, 200, "{header}");
    }
    for header in ["=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "", "hello"] {
        assert_eq!(error(call("Hello", header)), (400, -32020, json!(1)), "{header}");
    }
    // The header is compared with what the tool will read: the last of two.
    let twice = |header: &str| {
        let meta = modern(1, "", json!({}))["params"]["_meta"].clone();
        let params = format!(r#"{{"name":"headed","arguments":{{"p":"first","p":"last"}},"_meta":{meta}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let headers = [
            ("MCP-Protocol-Version", MODERN),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "headed"),
            ("Mcp-Param-P", header),
        ];
        lab.post_to("/mcp", &headers, body.as_bytes()).status
    };
    assert_eq!((twice("last"), twice("first")), (200, 400));
    let without = lab.stateless(1, "tools/call", json!({"name": "headed"}), &[("Mcp-Param-P", "x")]);
    assert_eq!(error(without), (400, -32020, json!(1)));
}

#[test]
fn another_revision_is_named_after_the_headers_agree() {
    let lab = Lab::new();
    let with = |header: &str| {
        let params = json!({"_meta": {VERSION_KEY: "v999.0.0"}});
        lab.stateless(1, "server/discover", params, &[("MCP-Protocol-Version", header)])
    };

    assert_eq!(error(with(MODERN)), (400, -32020, json!(1)));
    let answer = with("v999.0.0");
    assert_eq!(answer.status, 400);
    let answer = answer.json();
    assert_eq!(answer["error"]["code"], -32022);
    assert_eq!(answer["error"]["data"], json!({"supported": [MODERN], "requested": "v999.0.0"}));
}

#[test]
fn methods_that_the_era_does_not_have_are_not_found() {
    let lab = Lab::new();

    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/result",
        "unknown/x",
    ] {
        assert_eq!(error(lab.stateless(1, method, json!({}), &[])), (404, -32601, json!(1)), "{method}");
    }
    let missing = lab.stateless(1, "tasks/get", json!({"taskId": "x"}), &[]);
    assert_eq!(error(missing), (400, -32021, json!(1)));
    let failed = lab.stateless(1, "resources/read", json!({"uri": "test://none"}), &[]);
    assert_eq!(error(failed), (200, -32602, json!(1)), "a failure within a good request");
}

#[test]
fn notifications_are_taken_and_other_messages_are_not() {
    let lab = Lab::new();
    let post = |message: Value| lab.post(&[("MCP-Protocol-Version", MODERN)], &message).status;

    assert_eq!(post(json!({"jsonrpc": "2.0", "method": "notifications/x"})), 202);
    assert_eq!(post(json!({"jsonrpc": "2.0", "id": 1, "result": {}})), 400);
    assert_eq!(post(json!([modern(1, "tools/list", json!({}))])), 400);
    let message = json!({"jsonrpc": "2.0", "method": "notifications/x"});
    assert_eq!(lab.post(&[("MCP-Protocol-Version", MODERN), ("Mcp-Method", "other")], &message).status, 400);
}

#[test]
fn a_call_that_takes_time_is_a_stream_without_ids() {
    let lab = Lab::new();
    let params = json!({"name": "report", "_meta": {"progressToken": "t"}});
    let mut answer = lab.stateless(1, "tools/call", params, &[]);
    assert_eq!((answer.is_stream(), answer.header("x-accel-buffering")), (true, Some("no")));

    let event = answer.message();
    assert_eq!((event.json()["params"]["progressToken"].clone(), event.id.as_str()), (json!("t"), ""));
    lab.gate.add_permits(4);
    let rest: Vec<_> = (0..4).map(|_| answer.message().json()).collect();

    assert_eq!((rest[3]["id"].clone(), answer.next()), (json!(1), None));
}

#[test]
fn a_client_that_leaves_cancels_its_call() {
    let lab = Lab::new();
    let answer = lab.stateless(1, "tools/call", json!({"name": "wait"}), &[]);
    assert_eq!(lab.told(), "began");

    answer.vanish();

    assert_eq!(lab.told(), "dropped");
}

#[test]
fn changes_are_told_on_a_stream_that_ends_in_order_with_the_server() {
    let lab = Lab::new();
    let listen =
        |id: u64, filter: Value| lab.stateless(id, "subscriptions/listen", json!({"notifications": filter}), &[]);
    let mut tools = listen(4_000_000_000, json!({"toolsListChanged": true}));
    let mut prompts = listen(2, json!({"promptsListChanged": true}));
    assert_eq!(tools.message().json()["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(prompts.message().json()["method"], "notifications/subscriptions/acknowledged");

    lab.server.tools_changed();
    lab.server.prompts_changed();

    let changed = tools.message().json();
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 4_000_000_000_u64);
    assert_eq!(prompts.message().json()["method"], "notifications/prompts/list_changed");
    prompts.vanish();

    lab.shut_down();

    assert_eq!(tools.message().json()["result"]["resultType"], "complete");
    assert_eq!(tools.next(), None);
}
