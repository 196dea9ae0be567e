//! `mcp:server:<name>`: named servers, in both eras of the specification.

use std::time::Duration;

use bennu::mcp::{McpServer, Tool};
use serde_json::{Value, json};

use super::lab::lab;
use super::peer::{Peer, TestServer, bennu, client_info, stateless};

const LAB: &str = "mcp:server:lab";
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

fn call(name: &str) -> Value {
    json!({"name": name, "arguments": {}})
}

/// The text of a result's first content.
fn text(response: &Value) -> &str {
    response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("a text: {response}"))
}

fn send(peer: &mut Peer, id: impl Into<Value>, method: &str, params: &Value) {
    peer.message(LAB, &json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}));
}

fn answered(peer: &mut Peer, id: impl Into<Value>) -> Value {
    let id = id.into();
    peer.wait(|frame| frame.topic == LAB && frame.is_response(&id)).payload
}

#[test]
fn a_server_is_found_by_its_name_and_introduces_itself() {
    let server = TestServer::serving([bennu(), lab()]);
    let mut peer = server.connect();

    let reply = peer.joined(LAB, &json!({}));
    assert_eq!(reply["serverInfo"]["name"], "lab");
    assert_eq!(reply["supportedVersions"].as_array().map(Vec::len), Some(LEGACY.len() + 1));
    assert!(reply["sessionId"].as_str().is_some_and(|id| id.starts_with("mcp_session_")));
    let reply = peer.joined("mcp:server:lab:of-the-deployment", &client_info());
    assert_eq!(reply["protocolVersion"], "2024-11-05", "whoever says who it is has shaken hands");
    let listed = peer.ask("mcp:server:lab:of-the-deployment", 1, "tools/list", json!({}));
    assert!(listed["result"]["tools"][0].get("metadata").is_some());

    for (topic, reason) in [
        ("mcp:server:nobody", "unknown MCP server"),
        ("mcp:server:nobody:x", "unknown MCP server"),
        ("mcp:server:", "unknown MCP server"),
        ("mcp:server:LAB", "unknown MCP server"),
        ("mcp:server:lab:", "Unknown channel topic"),
        ("mcp:server", "Unknown channel topic"),
    ] {
        assert_eq!(peer.refused(topic, &json!({})), reason, "{topic}");
    }
}

#[test]
fn without_a_handshake_nothing_but_a_ping_is_served() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));

    assert_eq!(peer.ask(LAB, 1, "ping", json!({}))["result"], json!({}));
    for (method, id) in ["tools/list", "tools/call", "resources/list", "nonsense"].into_iter().zip(2..) {
        assert_eq!(peer.ask(LAB, id, method, call("echo"))["error"]["code"], -32600, "{method}");
    }
}

#[test]
fn each_legacy_revision_is_agreed_on_and_another_gets_the_last() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();

    for version in LEGACY {
        let topic = format!("mcp:server:lab:{version}");
        let result = peer.initialized(&topic, version, &json!({}));
        assert_eq!(
            (&result["protocolVersion"], &result["instructions"]),
            (&json!(version), &json!("Handle with care."))
        );
        assert_eq!(result["serverInfo"]["name"], "lab");
        let listed = peer.ask(&topic, 1, "tools/list", json!({}))["result"].clone();
        assert!(listed["tools"][0].get("metadata").is_none() && listed.get("resultType").is_none(), "{listed}");
        let echoed = peer.ask(&topic, 2, "tools/call", json!({"name": "echo", "arguments": {"a": [1, null]}}));
        assert_eq!(echoed["result"], json!({"content": [{"type": "text", "text": r#"{"a":[1,null]}"#}]}));
        let unknown = peer.ask(&topic, 3, "tools/call", call("nothing"))["error"].clone();
        assert_eq!(unknown, json!({"code": -32602, "message": "Invalid params: Unknown tool: nothing"}));
        let again =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}});
        assert_eq!(peer.ask(&topic, 4, "initialize", again)["error"]["code"], -32600);
    }
    assert_eq!(peer.initialized(LAB, "1999-01-01", &json!({}))["protocolVersion"], "2025-11-25");
}

#[test]
fn stateless_requests_need_no_handshake() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));

    let discovered = peer.stateless(LAB, 1, "server/discover", json!({}))["result"].clone();
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(
        (&discovered["resultType"], &discovered["instructions"]),
        (&json!("complete"), &json!("Handle with care."))
    );
    assert_eq!(discovered["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "lab");
    let listed = peer.stateless(LAB, 2, "tools/list", json!({}))["result"].clone();
    assert_eq!(
        (&listed["resultType"], &listed["cacheScope"], &listed["ttlMs"]),
        (&json!("complete"), &json!("private"), &json!(0))
    );
    let echoed = peer.stateless(LAB, 3, "tools/call", json!({"name": "echo", "arguments": {"a": 1}}));
    assert_eq!((text(&echoed), &echoed["result"]["resultType"]), (r#"{"a":1}"#, &json!("complete")));
    for (method, id) in ["ping", "initialize", "logging/setLevel", "resources/subscribe"].into_iter().zip(4..) {
        assert_eq!(peer.stateless(LAB, id, method, json!({}))["error"]["code"], -32601, "{method}");
    }

    let mut params = stateless(json!({}), &json!({}));
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2031-01-01");
    let error = peer.ask(LAB, "v", "tools/list", params)["error"].clone();
    assert_eq!(error["code"], -32022);
    assert_eq!(error["data"], json!({"supported": ["2026-07-28"], "requested": "2031-01-01"}));
    let mut params = stateless(json!({}), &json!({}));
    params["_meta"].as_object_mut().expect("an object").remove("io.modelcontextprotocol/clientCapabilities");
    assert_eq!(peer.ask(LAB, "c", "tools/list", params)["error"]["code"], -32602);
    let gone = peer.stateless(LAB, "r", "resources/read", json!({"uri": "lab://gone"}))["error"].clone();
    assert_eq!((&gone["code"], &gone["data"]), (&json!(-32602), &json!({"uri": "lab://gone"})));
}

#[test]
fn sessions_stand_side_by_side_each_with_its_revision() {
    let server = TestServer::serving([bennu(), lab()]);
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    peer.initialized(LAB, "2025-06-18", &json!({}));
    peer.initialized("mcp:server:lab:x", "2024-11-05", &json!({}));
    peer.joined("mcp:server:bennu", &json!({}));

    send(&mut peer, 1, "tools/call", &call("forever"));
    for (topic, first) in [("mcp:session", "countdown"), (LAB, "echo"), ("mcp:server:lab:x", "echo")] {
        assert_eq!(peer.ask(topic, 2, "tools/list", json!({}))["result"]["tools"][0]["name"], first);
    }
    let listed = peer.stateless("mcp:server:bennu", 2, "tools/list", json!({}))["result"].clone();
    assert_eq!(listed["tools"][0]["name"], "countdown");
    peer.push(LAB, "phx_leave", &json!({}));

    assert_eq!(peer.ask("mcp:server:lab:x", 3, "ping", json!({}))["result"], json!({}));
}

#[test]
fn streaming_events_come_where_the_join_asks_for_them() {
    let server = TestServer::serving([bennu()]);
    let mut peer = server.connect();
    peer.joined("mcp:server:bennu:plain", &json!({}));
    peer.joined("mcp:server:bennu:streaming", &json!({"streaming": true}));
    let hash = json!({"name": "stream_hash", "arguments": {"bytes": 8}});

    for topic in ["mcp:server:bennu:plain", "mcp:server:bennu:streaming"] {
        peer.stateless(topic, 1, "tools/call", hash.clone());
    }

    assert!(peer.of("mcp:server:bennu:plain", "streaming_event").is_empty());
    let kinds: Vec<_> = peer
        .of("mcp:server:bennu:streaming", "streaming_event")
        .iter()
        .map(|frame| frame.kind().map(ToOwned::to_owned))
        .collect();
    assert_eq!(kinds.first().cloned().flatten().as_deref(), Some("tool_started"));
    let last = peer.frames.iter().rposition(super::peer::Frame::is_terminal).expect("an end");
    let response = peer.frames.iter().rposition(|frame| frame.is_response(&json!(1))).expect("a response");
    assert!(last < response, "the terminal event comes before the response");
}

#[test]
fn a_batch_of_its_one_revision_is_answered_message_by_message() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-03-26", &json!({}));
    let request = |id: i32, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": call("echo")});

    let note = json!({"jsonrpc": "2.0", "method": "notifications/nonsense"});
    let batch = json!([request(1, "ping"), note, request(2, "tools/call"), request(3, "nonsense"), 7]);
    peer.message(LAB, &batch);

    assert_eq!(answered(&mut peer, 1)["result"], json!({}));
    assert_eq!(text(&answered(&mut peer, 2)), "{}");
    assert_eq!(answered(&mut peer, 3)["error"]["code"], -32601);
    assert_eq!(answered(&mut peer, Value::Null)["error"]["code"], -32600);
}

#[test]
fn a_cancelled_call_is_not_answered() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-11-25", &json!({}));
    send(&mut peer, "a", "tools/call", &call("forever"));

    let cancel = |id: &str| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    peer.message(LAB, &cancel("nobody"));
    peer.message(LAB, &cancel("a"));
    peer.message(LAB, &cancel("a"));

    assert_eq!(text(&peer.ask(LAB, "b", "tools/call", call("echo"))), "{}");
    peer.listen(Duration::from_millis(100));
    assert!(!peer.frames.iter().any(|frame| frame.is_response(&json!("a"))));
    send(&mut peer, "a", "ping", &json!({}));
    assert_eq!(answered(&mut peer, "a")["result"], json!({}), "the id is free again");
}

#[test]
fn an_id_in_use_is_refused() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-11-25", &json!({}));
    send(&mut peer, 1, "tools/call", &call("forever"));

    let refused = peer.ask(LAB, 1, "ping", json!({}))["error"].clone();

    assert_eq!(refused["code"], -32600);
}

#[test]
fn a_tool_asks_its_client_and_goes_on_with_the_answer() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-11-25", &json!({"sampling": {}, "elicitation": {"form": {}}, "roots": {}}));
    let cases = [
        (
            "sample",
            "sampling/createMessage",
            json!({"role": "assistant", "content": {"type": "text", "text": "42"}, "model": "m"}),
            "42",
        ),
        ("name", "elicitation/create", json!({"action": "accept", "content": {"name": "Ann"}}), "Ann"),
        ("roots", "roots/list", json!({"roots": [{"uri": "file:///a"}, {"uri": "file:///b"}]}), "file:///a file:///b"),
    ];

    for (tool, method, answer, expected) in cases {
        send(&mut peer, tool, "tools/call", &call(tool));
        let asked = peer.told(LAB, method);
        peer.message(LAB, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer}));
        assert_eq!(text(&answered(&mut peer, tool)), expected);
    }

    for (id, answer, expected) in
        [("decline", json!({"action": "decline"}), "declined"), ("cancel", json!({"action": "cancel"}), "went away")]
    {
        peer.frames.clear();
        send(&mut peer, id, "tools/call", &call("name"));
        let asked = peer.told(LAB, "elicitation/create");
        peer.message(LAB, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer}));
        assert_eq!(text(&answered(&mut peer, id)), expected);
    }
}

#[test]
fn answers_that_are_errors_or_do_not_fit_fail_the_call_and_nothing_else() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-06-18", &json!({"elicitation": {}}));
    let cases = [
        ("error", json!({"error": {"code": -1, "message": "no user"}}), "the client answered with an error: no user"),
        ("unfit", json!({"result": {"action": "accept", "content": {"name": 7}}}), "the client's answer does not fit"),
        ("shapeless", json!({"result": 7}), "the client's answer does not fit"),
    ];

    for (id, answer, expected) in cases {
        peer.frames.clear();
        send(&mut peer, id, "tools/call", &call("name"));
        let asked = peer.told(LAB, "elicitation/create");
        let mut message = json!({"jsonrpc": "2.0", "id": asked["id"]});
        message.as_object_mut().expect("an object").extend(answer.as_object().expect("an object").clone());
        peer.message(LAB, &message);
        peer.message(LAB, &message);
        let response = answered(&mut peer, id);
        assert!(response["result"]["isError"] == true && text(&response).starts_with(expected), "{response}");
    }
    peer.message(LAB, &json!({"jsonrpc": "2.0", "id": 4_711, "result": {}}));
    assert_eq!(peer.ask(LAB, "ping", "ping", json!({}))["result"], json!({}));
}

#[test]
fn a_question_is_taken_back_when_its_call_is_cancelled() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-11-25", &json!({"sampling": {}}));
    send(&mut peer, 1, "tools/call", &call("sample"));
    let asked = peer.told(LAB, "sampling/createMessage");

    peer.message(LAB, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));

    let taken_back = peer.told(LAB, "notifications/cancelled");
    assert_eq!(taken_back["params"]["requestId"], asked["id"]);
    peer.message(LAB, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}}));
    peer.ask(LAB, 2, "ping", json!({}));
    assert!(!peer.frames.iter().any(|frame| frame.topic == LAB && frame.is_response(&json!(1))));
}

#[test]
fn a_client_without_the_capability_is_not_asked() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-11-25", &json!({}));

    for tool in ["sample", "name", "roots"] {
        let response = peer.ask(LAB, tool, "tools/call", call(tool));
        assert!(response["result"]["isError"] == true, "{response}");
        assert!(text(&response).starts_with("the client does not have the capability"), "{response}");
    }
    peer.joined("mcp:server:lab:stateless", &json!({}));
    let refused = peer.stateless("mcp:server:lab:stateless", 1, "tools/call", call("sample"))["error"].clone();
    assert_eq!(
        (&refused["code"], &refused["data"]),
        (&json!(-32021), &json!({"requiredCapabilities": {"sampling": {}}}))
    );
}

#[test]
fn whoever_subscribed_to_a_resource_hears_of_it() {
    let lab = lab();
    let server = TestServer::serving([lab.clone()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-06-18", &json!({}));
    let uri = json!({"uri": "lab://clock"});
    lab.resource_updated("lab://clock");

    assert_eq!(peer.ask(LAB, 1, "resources/subscribe", uri.clone())["result"], json!({}));
    lab.resource_updated("lab://broken");
    lab.resource_updated("lab://clock");
    let told = peer.told(LAB, "notifications/resources/updated");
    assert_eq!(told["params"], uri);
    assert_eq!(peer.ask(LAB, 2, "resources/unsubscribe", uri.clone())["result"], json!({}));
    lab.resource_updated("lab://clock");
    assert_eq!(peer.ask(LAB, 3, "resources/read", uri)["result"]["contents"][0]["text"], "noon");

    let told = peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/resources/updated");
    assert_eq!(told.count(), 1);
    let gone = json!({"uri": "lab://gone"});
    for (method, id) in ["resources/subscribe", "resources/read"].into_iter().zip(4..) {
        let error = peer.ask(LAB, id, method, gone.clone())["error"].clone();
        assert_eq!((&error["code"], &error["data"]), (&json!(-32002), &gone), "{method}");
    }
    let broken = peer.ask(LAB, 6, "resources/read", json!({"uri": "lab://broken"}))["error"].clone();
    assert_eq!((&broken["code"], &broken["message"]), (&json!(-32603), &json!("no luck")));
}

#[test]
fn changes_of_the_list_are_told_once_the_client_is_ready() {
    let lab = lab();
    let server = TestServer::serving([lab.clone(), bennu()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let client = json!({"name": "n", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    peer.ask(LAB, 0, "initialize", params);
    peer.initialized("mcp:server:bennu", "2025-06-18", &json!({}));
    let extra = || Tool::untyped("extra", json!({"type": "object"}), |_, _| async { Ok("") });

    lab.add_tool(extra()).expect("a new tool");
    peer.ask(LAB, 1, "ping", json!({}));
    assert!(!peer.frames.iter().any(|frame| frame.payload["method"] == "notifications/tools/list_changed"));

    peer.message(LAB, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(lab.remove_tool("extra") && !lab.remove_tool("extra"));
    peer.told(LAB, "notifications/tools/list_changed");
    assert_eq!(text(&peer.ask(LAB, 2, "tools/call", call("echo"))), "{}");
    assert_eq!(peer.ask(LAB, 3, "tools/call", call("extra"))["error"]["code"], -32602);
    let told = peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/tools/list_changed");
    assert_eq!(
        told.map(|frame| frame.topic.as_str()).collect::<Vec<_>>(),
        [LAB],
        "nor does another server's session hear"
    );
    assert!(lab.add_tool(Tool::untyped("echo", json!({"type": "object"}), |_, _| async { Ok("") })).is_err());
}

#[test]
fn a_stream_of_changes_begins_with_what_it_brings_and_ends_when_it_is_cancelled() {
    const TAG: &str = "io.modelcontextprotocol/subscriptionId";
    let lab = lab();
    let server = TestServer::serving([lab.clone()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let wanted =
        json!({"toolsListChanged": true, "resourceSubscriptions": ["lab://clock"], "nonsense": true, "taskIds": ["t"]});

    send(&mut peer, "s", "subscriptions/listen", &stateless(json!({"notifications": wanted}), &json!({})));
    let begun = peer.told(LAB, "notifications/subscriptions/acknowledged");
    let expected = json!({"toolsListChanged": true, "resourceSubscriptions": ["lab://clock"]});
    assert_eq!((&begun["params"]["notifications"], &begun["params"]["_meta"][TAG]), (&expected, &json!("s")));
    lab.prompts_changed();
    lab.resources_changed();
    lab.resource_updated("lab://broken");
    lab.resource_updated("lab://clock");
    lab.tools_changed();
    let tools = peer.told(LAB, "notifications/tools/list_changed");
    assert_eq!(tools["params"]["_meta"][TAG], "s");
    let methods: Vec<_> = peer.of(LAB, "mcp_message").iter().map(|frame| frame.payload["method"].clone()).collect();
    assert_eq!(methods[1..], ["notifications/resources/updated", "notifications/tools/list_changed"]);
    let updated = peer.told(LAB, "notifications/resources/updated");
    assert_eq!(updated["params"], json!({"uri": "lab://clock", "_meta": {TAG: "s"}}));

    peer.message(LAB, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s"}}));
    peer.frames.clear();
    lab.tools_changed();
    peer.stateless(LAB, 2, "tools/list", json!({}));
    assert_eq!(peer.of(LAB, "mcp_message").len(), 1, "{:#?}", peer.frames);
}

#[test]
fn a_batch_is_answered_as_far_as_its_answers_have_room_together() {
    const RESULT_BYTES: usize = 250_000;
    const BATCH_ANSWER_BYTES_MAX: usize = 4 << 20;
    let large = Tool::untyped("large", json!({"type": "object"}), |_, _| async { Ok("x".repeat(RESULT_BYTES)) });
    let server = TestServer::serving([McpServer::builder("lab").tool(large).build().expect("a server")]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-03-26", &json!({}));
    let batch: Vec<_> = (0..20)
        .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call("large")}))
        .collect();

    peer.message(LAB, &json!(batch));

    let answers: Vec<_> = (0..20).map(|id| answered(&mut peer, id)).collect();
    let fit = BATCH_ANSWER_BYTES_MAX / RESULT_BYTES + 1;
    assert!(answers[..fit].iter().all(|answer| text(answer).len() == RESULT_BYTES));
    assert!(answers[fit..].iter().all(|answer| answer["error"]["code"] == -32600), "{}", answers[fit]);
    assert_eq!(text(&peer.ask(LAB, "then", "tools/call", call("large"))).len(), RESULT_BYTES);
}

#[test]
fn streams_of_changes_are_bounded() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let listen = stateless(json!({"notifications": {"toolsListChanged": true}}), &json!({}));
    for id in 0..16 {
        send(&mut peer, id, "subscriptions/listen", &listen);
    }

    let refused = peer.ask(LAB, 16, "subscriptions/listen", listen)["error"].clone();

    assert_eq!(refused["code"], 429);
    assert_eq!(peer.stateless(LAB, 17, "tools/call", call("echo"))["result"]["resultType"], "complete");
}

#[test]
fn a_stateless_call_asks_in_rounds_and_its_state_can_not_be_forged() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let with_forms = |params: Value| stateless(params, &json!({"elicitation": {}}));
    let answer = |name: &str| json!({"action": "accept", "content": {"name": name}});
    let round = |state: &Value, key: &str, name: &str| {
        let mut params = call("names");
        params["requestState"] = state.clone();
        params["inputResponses"] = json!({key: answer(name)});
        with_forms(params)
    };

    let first = peer.ask(LAB, 1, "tools/call", with_forms(call("names")))["result"].clone();
    assert_eq!(first["resultType"], "input_required");
    assert_eq!(first["inputRequests"]["first"]["method"], "elicitation/create");
    let second = peer.ask(LAB, 2, "tools/call", round(&first["requestState"], "first", "Ann"))["result"].clone();
    let keys = second["inputRequests"].as_object().expect("questions").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys, ["second"]);
    let done = peer.ask(LAB, 3, "tools/call", round(&second["requestState"], "second", "Bob"));
    assert_eq!(text(&done), r#"Ann and Bob, kept Some("Ann")"#);
    let again = peer.ask(LAB, 4, "tools/call", round(&second["requestState"], "second", "7"))["result"].clone();
    assert_eq!(again["resultType"], "complete", "a state counts until it expires");

    let state = second["requestState"].as_str().expect("a text");
    let middle = state.len() / 2;
    let other = if &state[middle..=middle] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &state[..middle], &state[middle + 1..]);
    let mut elsewhere = round(&json!(state), "second", "Bob");
    elsewhere["arguments"] = json!({"other": 1});
    let bad = [
        round(&json!(forged), "second", "Bob"),
        round(&json!(""), "second", "Bob"),
        round(&json!("x".repeat(300_000)), "second", "Bob"),
        round(&json!(7), "second", "Bob"),
        elsewhere,
    ];
    for (params, id) in bad.into_iter().zip(5..) {
        let error = peer.ask(LAB, id, "tools/call", params)["error"].clone();
        let message = error["message"].as_str().expect("a message");
        assert!(error["code"] == -32602 && message.starts_with("Invalid params: requestState"), "{error}");
        assert_eq!(message.matches("requestState").count(), 1, "{error}");
    }
}

#[test]
fn long_lists_come_in_pages() {
    let none = || json!({"type": "object"});
    let tools = (0..250).map(|n| Tool::untyped(format!("tool_{n}"), none(), |_, _| async { Ok("") }));
    let server = TestServer::serving([McpServer::builder("many").tools(tools).build().expect("a server")]);
    let mut peer = server.connect();
    let topic = "mcp:server:many";
    peer.initialized(topic, "2025-06-18", &json!({}));

    let (mut names, mut sizes, mut params) = (Vec::new(), Vec::new(), json!({}));
    loop {
        let page = peer.ask(topic, sizes.len(), "tools/list", params)["result"].clone();
        let tools = page["tools"].as_array().expect("tools");
        names.extend(tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()));
        sizes.push(tools.len());
        match page.get("nextCursor") {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => break,
        }
    }

    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(names, (0..250).map(|n| format!("tool_{n}")).collect::<Vec<_>>());
    for (cursor, id) in [json!(""), json!("nonsense"), json!(7), json!("x".repeat(10_000))].into_iter().zip(10..) {
        assert_eq!(peer.ask(topic, id, "tools/list", json!({"cursor": cursor}))["error"]["code"], -32602, "{cursor}");
    }
    let of_tools = peer.ask(topic, 20, "tools/list", json!({}))["result"]["nextCursor"].clone();
    assert_eq!(peer.ask(topic, 21, "prompts/list", json!({"cursor": of_tools}))["error"]["code"], -32602);
    peer.joined("mcp:session", &client_info());
    let whole = peer.request(json!("all"), "tools/list", json!({}))["result"].clone();
    assert_eq!((whole["tools"].as_array().map(Vec::len), whole.get("nextCursor")), (Some(250), None));
}

#[test]
fn too_large_requests_are_refused_and_the_session_goes_on() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-06-18", &json!({}));

    let large = peer.ask(LAB, 1, "tools/call", json!({"name": "x".repeat(1 << 20)}))["error"].clone();
    assert_eq!(large, json!({"code": -32600, "message": "Request too large"}));
    let arguments = json!({"name": "echo", "arguments": {"x": "x".repeat(70_000)}});
    assert_eq!(peer.ask(LAB, 2, "tools/call", arguments)["error"]["code"], -32602);

    assert_eq!(text(&peer.ask(LAB, 3, "tools/call", call("echo"))), "{}");
}

#[test]
fn log_messages_come_from_the_level_that_was_set() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.initialized(LAB, "2025-06-18", &json!({}));
    let logged = |peer: &Peer| -> Vec<Value> {
        let messages = peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/message");
        messages.map(|frame| frame.payload["params"].clone()).collect()
    };
    let big = json!({"level": "error", "logger": "lab", "data": {"big": true}});
    let small = json!({"level": "debug", "logger": "lab", "data": {"small": true}});

    peer.ask(LAB, 1, "tools/call", call("log"));
    assert_eq!(logged(&peer), std::slice::from_ref(&big));
    peer.frames.clear();
    peer.ask(LAB, 2, "logging/setLevel", json!({"level": "debug"}));
    peer.ask(LAB, 3, "tools/call", call("log"));
    assert_eq!(logged(&peer), [small, big]);

    peer.joined("mcp:server:lab:stateless", &json!({}));
    peer.frames.clear();
    peer.stateless("mcp:server:lab:stateless", 1, "tools/call", call("log"));
    assert_eq!(logged(&peer), Vec::<Value>::new(), "who asks for none gets none");
}
