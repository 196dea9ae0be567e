//! The contract of the Elixir deployment, as its clients find it on `mcp:session`: what is there, and in which words.
//!
//! The order of a call's events and answers is in `calls`, observers and runs in `watching`, refusals in `sessions`.

use bennu::mcp::auth::Development;
use bennu::mcp::{CallContext, CallError, McpServer, Prompt, Resource, Tool, tools};
use bennu::protocol::jsonrpc::Compat;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::peer::{Names, Peer, TestServer, client_info};

const SESSION: &str = "mcp:session";

#[derive(Deserialize, JsonSchema)]
struct Analyze {
    /// The code to look at.
    code: String,
    language: Option<String>,
}

fn deployment() -> McpServer {
    let analyze = Prompt::new("analyze_code", |asked: Analyze, _: CallContext| async move {
        Ok(format!("Analyze this {} code: {}", asked.language.unwrap_or_default(), asked.code))
    });
    let patterns = Resource::new("memory://patterns/recent", "patterns", |_: CallContext| async { Ok("[]") });
    let broken = Resource::new("workspace://project/7", "broken", |_: CallContext| async {
        Err::<&str, _>(CallError::failed("Project not found"))
    });
    McpServer::builder("deployment")
        .tools(tools::builtin(None))
        .resource(patterns.mime_type("application/json"))
        .resource(broken)
        .prompt(analyze.description("Analyzes code"))
        .build()
        .expect("a server")
}

fn joined(server: &TestServer) -> Peer {
    let mut peer = server.connect();
    peer.joined(SESSION, &client_info());
    peer
}

#[test]
fn the_join_reply_has_the_keys_of_the_deployment() {
    let server = TestServer::serving([deployment()]);

    let reply = server.connect().joined(SESSION, &client_info());

    let capabilities = json!({
        "tools": {"listChanged": true},
        "resources": {"subscribe": true, "listChanged": true},
        "prompts": {"listChanged": true},
        "logging": {},
        "sampling": {},
        "experimental": {"streaming": true, "workflows": true, "multiTool": true},
    });
    for (name, stated) in capabilities.as_object().expect("an object") {
        assert_eq!(reply["capabilities"][name], *stated, "{name}");
    }
    assert_eq!(reply["protocolVersion"], "2024-11-05");
    assert!(reply["serverInfo"]["name"].is_string() && reply["serverInfo"]["version"].is_string());
    let id = reply["sessionId"].as_str().expect("an id").strip_prefix("mcp_session_").expect("the prefix");
    assert!(id.len() == 16 && id.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()), "{id}");
}

#[test]
fn a_join_is_refused_for_the_first_of_its_faults() {
    let server = TestServer::with(|_| {}, Names);
    let mut peer = server.connect();
    let mut params =
        json!({"clientInfo": {"name": "", "version": 7, "capabilities": []}, "token": "", "apiKey": "ann"});

    assert_eq!(peer.refused(SESSION, &params), "Missing or invalid client name");
    params["clientInfo"]["name"] = json!("n");
    assert_eq!(peer.refused(SESSION, &params), "Missing or invalid client version");
    params["clientInfo"]["version"] = json!("1");
    assert_eq!(peer.refused(SESSION, &params), "Invalid client capabilities format");
    params["clientInfo"]["capabilities"] = json!({});
    assert_eq!(peer.refused(SESSION, &params), "Invalid token: invalid", "a token wins, even an empty one");
    params["token"] = json!(7);
    params["apiKey"] = json!(null);
    assert_eq!(peer.refused(SESSION, &params), "No authentication credentials provided");
    params["token"] = json!("ann");
    peer.joined(SESSION, &params);
}

#[test]
fn tools_are_listed_with_capabilities_and_metadata() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);

    let listed = peer.request(json!(1), "tools/list", json!({}))["result"].clone();

    let tool = &listed["tools"][0];
    assert_eq!((&tool["name"], listed.get("nextCursor")), (&json!("countdown"), None));
    let schema = &tool["inputSchema"];
    assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
    assert!(schema["properties"]["seconds"]["default"] == 5 && schema["required"].is_array(), "{schema}");
    let keys = ["supportsAsync", "supportsStreaming", "supportsCancellation", "maxExecutionTime", "resourceLimits"];
    for key in keys.into_iter().chain(["securityConstraints"]) {
        assert!(tool["capabilities"].get(key).is_some(), "capabilities.{key}: {tool}");
    }
    for key in ["requiresAuthentication", "requiresAuthorization", "allowedRoles", "deniedRoles"] {
        assert!(tool["capabilities"]["securityConstraints"].get(key).is_some(), "{key}: {tool}");
    }
    for key in ["version", "category", "tags", "async", "timeout"] {
        assert!(tool["metadata"].get(key).is_some(), "metadata.{key}: {tool}");
    }
}

#[test]
fn unknown_arguments_and_nulls_are_dropped_and_defaults_filled_in() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);

    let arguments = json!({"bytes": 8, "seed": null, "unknown": [1], "_x": {}});
    let response = peer.request(json!(1), "tools/call", json!({"name": "stream_hash", "arguments": arguments}));

    let content = &response["result"]["content"][0];
    assert_eq!((&content["type"], &content["mimeType"]), (&json!("text"), &json!("application/json")));
    let hashed: Value = serde_json::from_str(content["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!((&hashed["seed"], &hashed["bytes"]), (&json!(0), &json!(8)));
    let metadata = response["result"]["metadata"].as_object().expect("metadata");
    assert_eq!(metadata.keys().collect::<Vec<_>>(), ["executionTime", "resourceUsage", "tool"]);
}

#[test]
fn failures_of_tools_are_in_band() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);

    let unknown = peer.request(json!(1), "tools/call", json!({"name": "nothing"}));

    let text = "Tool execution failed: tool_not_found";
    assert_eq!(unknown["result"], json!({"content": [{"type": "text", "text": text}], "isError": true}));
}

#[test]
fn prompts_come_with_their_placeholders_where_arguments_are_missing() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);
    let mut get = |id: i32, params: Value| peer.request(json!(id), "prompts/get", params)["result"].clone();
    let text = |result: &Value| result["messages"][0]["content"]["text"].as_str().map(ToOwned::to_owned);

    let bare = get(1, json!({"name": "analyze_code"}));
    assert_eq!(text(&bare).as_deref(), Some("Analyze this {{language}} code: {{code}}"));
    assert_eq!((&bare["description"], &bare["messages"][0]["role"]), (&json!("Analyzes code"), &json!("user")));
    let argument = |name: &str| bare["arguments"].as_array()?.iter().find(|argument| argument["name"] == name);
    assert_eq!(argument("code").map(|code| &code["required"]), Some(&json!(true)));
    assert_eq!(argument("language").map(|language| &language["required"]), Some(&json!(false)));
    let partly = get(2, json!({"name": "analyze_code", "arguments": {"language": "Rust"}}));
    assert_eq!(text(&partly).as_deref(), Some("Analyze this Rust code: {{code}}"));
    let filled = get(3, json!({"name": "analyze_code", "arguments": {"code": "x", "unknown": "y"}}));
    assert_eq!(text(&filled).as_deref(), Some("Analyze this  code: x"));
    for (id, arguments) in [(4, json!({"code": 7, "language": null})), (5, json!([1])), (6, json!("x"))] {
        let result = get(id, json!({"name": "analyze_code", "arguments": arguments}));
        assert!(text(&result).is_some(), "arguments were never looked at: {arguments} {result}");
    }
    let failure = json!({"description": "Prompt not found", "messages": [], "isError": true});
    for (id, params) in [(7, json!({"name": "nothing"})), (8, json!({})), (9, json!({"name": 7}))] {
        assert_eq!(get(id, params), failure);
    }

    let listed = peer.request(json!(10), "prompts/list", json!({}))["result"]["prompts"].clone();
    assert_eq!((&listed[0]["name"], &listed[0]["arguments"]), (&json!("analyze_code"), &bare["arguments"]));
}

#[test]
fn resources_are_read_and_what_can_not_be_is_in_band() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);
    let mut read = |id: i32, params: Value| peer.request(json!(id), "resources/read", params)["result"].clone();
    let failure = |text: &str| json!({"contents": [{"type": "text", "text": text}], "isError": true});

    let uri = "memory://patterns/recent";
    let contents = json!([{"uri": uri, "mimeType": "application/json", "text": "[]"}]);
    assert_eq!(read(1, json!({"uri": uri})), json!({"contents": contents}));
    assert_eq!(read(2, json!({"uri": "nonsense"})), failure("Invalid resource URI: nonsense"));
    assert_eq!(read(3, json!({"uri": "workspace://project/7"})), failure("Project not found"));
    for (id, params) in [(4, json!({})), (5, json!({"uri": 7})), (6, Value::Null)] {
        assert_eq!(read(id, params), failure("Invalid resource URI: "));
    }

    let listed = peer.request(json!(7), "resources/list", json!({"cursor": "1"}))["result"].clone();
    let uris: Vec<_> = listed["resources"].as_array().expect("resources").iter().map(|each| &each["uri"]).collect();
    assert_eq!((uris.len(), listed.get("nextCursor")), (2, None), "everything, without pages");
}

#[test]
fn a_client_has_a_tool_chosen_in_both_forms() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);
    let mut sample = |id: i32, config: Value| {
        peer.request(json!(id), "sampling/createMessage", json!({"config": config}))["result"].clone()
    };
    let tools = json!(["file_reader", {"name": "web_search"}]);

    let chosen = sample(1, json!({"model": "m", "prompt": "search the web", "tools": tools}));
    assert_eq!((&chosen["selected_tool"], &chosen["status"]), (&tools[1], &json!("completed")));
    assert_eq!(chosen["sampling_type"], "tool_selection");
    assert!(chosen["timestamp"].as_str().is_some_and(|timestamp| timestamp.ends_with('Z')));
    let chosen = sample(2, json!({"type": "tool_selection", "criteria": {"task": "read a file"}, "tools": tools}));
    assert_eq!((&chosen["selected_tool"], &chosen["sampling_type"]), (&tools[0], &json!("tool_selection")));

    let cases = [
        (json!({}), "Missing required sampling field: model"),
        (json!({"model": "m", "tools": tools}), "Missing required sampling field: prompt"),
        (json!({"model": "m", "prompt": "p", "tools": []}), "No tools available for sampling"),
        (json!({"type": "other"}), "Invalid sampling"),
        (json!({"type": "tool_selection", "criteria": {}, "tools": 7}), "Invalid sampling"),
    ];
    for ((config, error), id) in cases.into_iter().zip(3..) {
        let failed = sample(id, config);
        assert_eq!((&failed["status"], &failed["isError"]), (&json!("failed"), &json!(true)));
        assert!(failed["error"].as_str().is_some_and(|text| text.starts_with(error)), "{failed}");
    }
}

#[test]
fn ids_of_any_json_come_back_as_they_were_written() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);

    let ids = [
        "null",
        "true",
        "0",
        "-0",
        "1.50",
        "1e2",
        "12345678901234567890123456789",
        r#""""#,
        r#""\u00e4\n\"\\""#,
        r#""ä""#,
        r#"{"b":1,"a":[null,1.0]}"#,
        "[]",
    ];
    for id in ids {
        peer.frames.clear();
        peer.message_text(SESSION, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
        let answer = peer.wait(|frame| frame.event == "mcp_message");
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        assert!(answer.text.contains(&expected), "{id}: {}", answer.text);
    }
}

#[test]
fn what_the_deployment_did_not_have_is_added_and_takes_nothing_away() {
    let server = TestServer::serving([deployment()]);
    let mut peer = joined(&server);

    assert_eq!(peer.request(json!(1), "ping", json!({}))["result"], json!({}));
    assert_eq!(peer.request(json!(2), "logging/setLevel", json!({"level": "error"}))["result"], json!({}));
    assert_eq!(peer.request(json!(3), "logging/setLevel", json!({"level": "loud"}))["error"]["code"], -32602);
    assert_eq!(
        peer.request(json!(4), "resources/templates/list", json!({}))["result"],
        json!({"resourceTemplates": []})
    );
    let uri = json!({"uri": "memory://patterns/recent"});
    assert_eq!(peer.request(json!(5), "resources/subscribe", uri)["result"], json!({}));
    assert!(peer.request(json!(6), "tools/list", json!({}))["result"]["tools"][0].get("metadata").is_some());

    let client = json!({"name": "n", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let initialized = peer.request(json!(7), "initialize", params)["result"].clone();
    assert_eq!(initialized["protocolVersion"], "2025-06-18");
    assert_eq!(initialized["capabilities"]["tools"], json!({"listChanged": true}));
    let unknown = peer.request(json!(8), "tools/call", json!({"name": "nothing"}));
    assert_eq!(unknown["error"]["code"], -32602, "from here on in the words of that revision");
}

#[test]
fn methods_that_are_not_there_are_named() {
    for (compat, code) in [(Compat::Standard, -32601), (Compat::Elixir, -32000)] {
        let server = TestServer::of([deployment()], |settings| settings.compat = compat, Development);
        let mut peer = joined(&server);

        for method in ["workflows/nonsense", "tools/nonsense", "server/shutdown", "räksmörgås"] {
            let error = json!({"code": code, "message": format!("Method not found: {method}")});
            assert_eq!(peer.request(json!(method), method, json!({}))["error"], error);
        }
        peer.message(SESSION, &json!({"jsonrpc": "2.0", "id": "broken"}));
        let invalid = peer.wait(|frame| frame.is_response(&json!("broken"))).payload;
        assert_eq!(invalid["error"]["message"], "Invalid JSON-RPC 2.0 message format");
        assert_eq!(invalid["error"]["code"], if compat == Compat::Elixir { -32000 } else { -32600 });
    }
}

#[test]
fn the_codes_of_the_deployment_are_for_its_clients_alone() {
    let server = TestServer::of([deployment()], |settings| settings.compat = Compat::Elixir, Development);
    let mut peer = server.connect();
    peer.initialized("mcp:server:deployment", "2025-06-18", &json!({}));

    assert_eq!(peer.ask("mcp:server:deployment", 1, "nonsense", json!({}))["error"]["code"], -32601);
}

#[test]
fn a_session_hears_that_the_tools_are_others() {
    let changing = deployment();
    let server = TestServer::serving([changing.clone()]);
    let mut peer = joined(&server);

    let extra = Tool::untyped("extra", json!({"type": "object"}), |_, _| async { Ok("") });
    changing.add_tool(extra).expect("a new tool");

    let told = peer.told(SESSION, "notifications/tools/list_changed");
    assert_eq!(told, json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    let listed = peer.request(json!(1), "tools/list", json!({}))["result"]["tools"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
}

#[test]
fn what_a_tool_gives_becomes_content_by_the_rule_of_the_deployment() {
    #[derive(serde::Serialize, JsonSchema)]
    struct Page {
        output: String,
        format: String,
    }

    let value = |name: &str, value: Value| {
        Tool::untyped(name, json!({"type": "object"}), move |_, _| {
            let value = value.clone();
            async move { Ok(value) }
        })
    };
    let page = Tool::structured("page", |_: bennu::mcp::NoArguments, _: CallContext| async {
        Ok(Page { output: "# Hi".to_owned(), format: "markdown".to_owned() })
    });
    let server = McpServer::builder("deployment").tools([
        value("string", json!("plain")),
        value("json", json!({"output": {"a": 1}, "format": "json"})),
        value("markdown", json!({"output": "# Hi", "format": "markdown"})),
        value("output", json!({"output": "plain"})),
        value("map", json!({"a": 1})),
        value("list", json!([1])),
        page,
    ]);
    let server = TestServer::serving([server.build().expect("a server")]);
    let mut peer = joined(&server);

    let pretty = "{\n  \"a\": 1\n}";
    for (name, text, mime) in [
        ("string", "plain", None),
        ("json", pretty, Some("application/json")),
        ("markdown", "# Hi", Some("text/markdown")),
        ("output", "plain", None),
        ("map", pretty, Some("application/json")),
        ("list", "[\n  1\n]", Some("application/json")),
        ("page", "# Hi", Some("text/markdown")),
    ] {
        let response = peer.request(json!(name), "tools/call", json!({"name": name, "arguments": {}}));
        let mut content = json!({"type": "text", "text": text});
        if let Some(mime) = mime {
            content["mimeType"] = json!(mime);
        }
        assert_eq!(response["result"]["content"], json!([content]), "{name}");
    }
    peer.initialized("mcp:server:deployment", "2025-11-25", &json!({}));
    let params = json!({"name": "page", "arguments": {}});
    let response = peer.ask("mcp:server:deployment", 1, "tools/call", params);
    let text = r##"{"format":"markdown","output":"# Hi"}"##;
    assert_eq!(response["result"]["content"], json!([{"type": "text", "text": text}]), "others get the value's JSON");
}
