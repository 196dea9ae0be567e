//! What the built-in server has of the Elixir deployment's resources: projects, memories, tools' documents; in each era, and
//! after the process was killed.

use std::path::PathBuf;
use std::time::Duration;

use bennu::mcp::auth::Development;
use bennu::mcp::deployment::{Deployment, StoreError};
use bennu::mcp::{McpServer, NoArguments, Tool, tools};
use serde_json::{Value, json};

use super::peer::{Names, Peer, TestServer, client_info};
use crate::development::start;
use crate::lab::DEADLINE;
use crate::transcripts::http;

const SESSION: &str = "mcp:session";
const BENNU: &str = "mcp:server:bennu";
const CURRENT: &str = "memory://short-term/current";
const PATTERNS: &str = "memory://patterns/recent";
const UPDATED: &str = "notifications/resources/updated";
const LIST_CHANGED: &str = "notifications/resources/list_changed";

/// The server as the program has it, in memory.
fn server() -> McpServer {
    built_in(&Deployment::in_memory())
}

fn built_in(deployment: &Deployment) -> McpServer {
    deployment.add_to(McpServer::builder("bennu").tools(tools::builtin(None))).build().expect("a server")
}

fn test_server(server: McpServer) -> TestServer {
    TestServer::of([server], |_| {}, Names)
}

/// A client of the Elixir deployment, of that user; also gives its session's id.
fn elixir(server: &TestServer, user: &str) -> (Peer, String) {
    let mut peer = server.connect();
    let mut params = client_info();
    params["token"] = json!(user);
    let reply = peer.joined(SESSION, &params);
    (peer, reply["sessionId"].as_str().expect("an id").to_owned())
}

/// A client of 2025-11-25, of that user.
fn legacy(server: &TestServer, user: &str) -> Peer {
    let mut peer = server.connect();
    peer.joined(BENNU, &json!({"token": user}));
    peer.shake_hands(BENNU, "2025-11-25", &json!({}));
    peer
}

/// Calls a tool and reads what it gave.
#[track_caller]
fn call(peer: &mut Peer, topic: &str, id: &str, name: &str, arguments: Value) -> Value {
    let response = peer.ask(topic, id, "tools/call", json!({"name": name, "arguments": arguments}));
    let result = &response["result"];
    assert_ne!(result["isError"], true, "{result}");
    serde_json::from_str(result["content"][0]["text"].as_str().expect("a text")).expect("JSON")
}

/// Reads a resource whose text is JSON.
#[track_caller]
fn read(peer: &mut Peer, topic: &str, id: &str, uri: &str) -> Value {
    let response = peer.ask(topic, id, "resources/read", json!({"uri": uri}));
    let contents = &response["result"]["contents"][0];
    assert_eq!((&contents["uri"], &contents["mimeType"]), (&json!(uri), &json!("application/json")), "{response}");
    serde_json::from_str(contents["text"].as_str().expect("a text")).expect("JSON")
}

fn uris(list: &Value) -> Vec<&str> {
    let resources = list["resources"].as_array().unwrap_or_else(|| panic!("a list: {list}"));
    resources.iter().map(|resource| resource["uri"].as_str().expect("a URI")).collect()
}

fn contents(current: &Value) -> Vec<&str> {
    let items = current["items"].as_array().expect("items");
    items.iter().map(|item| item["content"].as_str().expect("a text")).collect()
}

#[test]
fn resources_are_listed_in_the_order_of_the_deployment() {
    let server = test_server(server());
    let (mut peer, _) = elixir(&server, "ann");
    let first = call(&mut peer, SESSION, "1", "project_create", json!({"name": "First"}));
    let second = call(&mut peer, SESSION, "2", "project_create", json!({"name": "Second", "description": "d"}));

    let list = peer.request(json!("list"), "resources/list", json!({}))["result"].clone();

    let uri = |project: &Value| format!("workspace://project/{}", project["id"].as_str().expect("an id"));
    let expected = [
        &uri(&first),
        &uri(&second),
        CURRENT,
        PATTERNS,
        "tool://countdown/documentation",
        "tool://countdown/schema",
        "tool://stream_hash/documentation",
    ];
    assert_eq!(uris(&list)[..expected.len()], expected);
    for resource in list["resources"].as_array().expect("a list") {
        for key in ["uri", "name", "description", "mimeType"] {
            assert!(resource[key].is_string(), "{key}: {resource}");
        }
    }
    assert!(uris(&list).contains(&"tool://project_create/examples"));
    assert!(list.get("nextCursor").is_none());
}

#[test]
fn a_project_is_made_read_changed_and_deleted() {
    let server = test_server(server());
    let (mut peer, _) = elixir(&server, "ann");

    let made = call(&mut peer, SESSION, "1", "project_create", json!({"name": "Phoenix", "description": "Rises."}));
    let id = made["id"].as_str().expect("an id").to_owned();
    let uri = format!("workspace://project/{id}");
    let keys: Vec<_> = made.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["created_at", "description", "id", "name", "updated_at"]);
    assert_eq!(read(&mut peer, SESSION, "2", &uri), made);

    let changed = call(&mut peer, SESSION, "3", "project_update", json!({"id": id, "name": "Ash"}));
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Ash"), &json!("Rises.")));
    assert_eq!(changed["created_at"], made["created_at"]);
    assert!(changed["updated_at"].as_str() > made["updated_at"].as_str());
    assert_eq!(read(&mut peer, SESSION, "4", &uri), changed);

    assert_eq!(call(&mut peer, SESSION, "5", "project_delete", json!({"id": id})), changed);
    let gone = peer.request(json!("6"), "resources/read", json!({"uri": uri}))["result"].clone();
    assert_eq!(gone, json!({"contents": [{"type": "text", "text": "Project not found"}], "isError": true}));
    let again = peer.request(json!("7"), "tools/call", json!({"name": "project_delete", "arguments": {"id": id}}));
    assert_eq!(again["result"]["content"][0]["text"], "Tool execution failed: Project not found");
}

#[test]
fn everyone_reads_a_project_and_who_made_it_changes_it() {
    let server = test_server(server());
    let (mut ann, _) = elixir(&server, "ann");
    let mut bob = legacy(&server, "bob");

    let made = call(&mut ann, SESSION, "1", "project_create", json!({"name": "Hers"}));
    let uri = format!("workspace://project/{}", made["id"].as_str().expect("an id"));

    assert_eq!(bob.told(BENNU, LIST_CHANGED)["params"], Value::Null);
    assert_eq!(read(&mut bob, BENNU, "1", &uri), made);
    let arguments = json!({"id": made["id"], "name": "His"});
    let refused = bob.ask(BENNU, "2", "tools/call", json!({"name": "project_update", "arguments": arguments}));
    assert_eq!(refused["result"]["isError"], true);
    assert_eq!(refused["result"]["content"][0]["text"], "only who made a project can change it");

    assert_eq!(bob.ask(BENNU, "3", "resources/subscribe", json!({"uri": uri}))["result"], json!({}));
    call(&mut ann, SESSION, "2", "project_update", json!({"id": made["id"], "name": "Still hers"}));
    assert_eq!(bob.told(BENNU, UPDATED)["params"]["uri"], uri);
    assert_eq!(read(&mut bob, BENNU, "4", &uri)["name"], "Still hers");
    let completed = json!({"ref": {"type": "ref/resource", "uri": "workspace://project/{id}"},
        "argument": {"name": "id", "value": &made["id"].as_str().expect("an id")[..5]}});
    assert_eq!(
        bob.ask(BENNU, "5", "completion/complete", completed)["result"]["completion"]["values"],
        json!([made["id"]])
    );
}

#[test]
fn a_users_sessions_share_their_memory_and_others_learn_nothing() {
    let server = test_server(server());
    let (mut ann, ann_id) = elixir(&server, "ann");
    let mut ann_too = legacy(&server, "ann");
    let (mut bob, bob_id) = elixir(&server, "bob");
    let mut bob_too = legacy(&server, "bob");
    for peer in [&mut ann_too, &mut bob_too] {
        assert_eq!(peer.ask(BENNU, "s", "resources/subscribe", json!({"uri": CURRENT}))["result"], json!({}));
    }

    let first = call(&mut ann, SESSION, "1", "memory_remember", json!({"content": "one"}));
    assert_eq!(ann_too.told(BENNU, UPDATED)["params"]["uri"], CURRENT);
    call(&mut ann_too, BENNU, "2", "memory_remember", json!({"content": "two"}));

    let current = read(&mut ann, SESSION, "3", CURRENT);
    assert_eq!((contents(&current), &current["session_id"]), (vec!["one", "two"], &json!(ann_id)));
    assert_eq!(current["items"][0], first);
    assert_eq!(read(&mut bob, SESSION, "4", CURRENT), json!({"items": [], "session_id": bob_id}));
    assert_eq!(call(&mut ann, SESSION, "5", "memory_forget", json!({"id": first["id"]})), json!({"forgotten": 1}));
    assert_eq!(contents(&read(&mut ann_too, BENNU, "6", CURRENT)), ["two"]);
    assert_eq!(call(&mut bob, SESSION, "7", "memory_forget", json!({"all": true})), json!({"forgotten": 0}));
    assert_eq!(contents(&read(&mut ann, SESSION, "8", CURRENT)), ["two"]);

    // His own change is told, and so everything before would have been.
    assert_eq!(bob_too.told(BENNU, UPDATED)["params"]["uri"], CURRENT);
    bob_too.listen(Duration::from_millis(100));
    let told = bob_too.of(BENNU, "mcp_message");
    assert_eq!(told.iter().filter(|frame| frame.payload["method"] == UPDATED).count(), 1);
}

#[test]
fn a_stateless_client_hears_of_its_memory() {
    let server = test_server(server());
    let mut ann = server.connect();
    let id = ann.joined(BENNU, &json!({"token": "ann"}))["sessionId"].clone();
    let wanted = json!({"notifications": {"resourceSubscriptions": [CURRENT], "resourcesListChanged": true}});
    let listen = super::peer::stateless(wanted, &json!({}));
    ann.message(BENNU, &json!({"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": listen}));
    ann.told(BENNU, "notifications/subscriptions/acknowledged");

    let arguments = json!({"content": "one"});
    ann.stateless(BENNU, "1", "tools/call", json!({"name": "memory_remember", "arguments": arguments}));

    assert_eq!(ann.told(BENNU, UPDATED)["params"]["uri"], CURRENT);
    let read = ann.stateless(BENNU, "2", "resources/read", json!({"uri": CURRENT}));
    let text = read["result"]["contents"][0]["text"].as_str().expect("a text").to_owned();
    let current: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((contents(&current), &current["session_id"]), (vec!["one"], &id));
    let list = ann.stateless(BENNU, "3", "resources/list", json!({}))["result"].clone();
    assert_eq!(
        (&list["cacheScope"], &list["ttlMs"], &list["resultType"]),
        (&json!("private"), &json!(0), &json!("complete"))
    );
    assert_eq!(uris(&list)[..2], [CURRENT, PATTERNS]);
}

#[test]
fn patterns_are_the_calls_of_ones_own() {
    let server = test_server(server());
    let (mut ann, _) = elixir(&server, "ann");
    let (mut bob, _) = elixir(&server, "bob");

    assert_eq!(read(&mut ann, SESSION, "1", PATTERNS), json!([]));
    for id in ["2", "3"] {
        call(&mut ann, SESSION, id, "stream_hash", json!({"bytes": 8}));
    }
    call(&mut bob, SESSION, "4", "memory_remember", json!({"content": "his"}));
    let failed = ann.request(json!("5"), "tools/call", json!({"name": "text_search", "arguments": {"query": "x"}}));
    assert_eq!(failed["result"]["isError"], true);

    let patterns = read(&mut ann, SESSION, "6", PATTERNS);
    let seen: Vec<_> =
        patterns.as_array().expect("a list").iter().map(|p| (&p["tool"], &p["calls"], &p["failed"])).collect();
    assert_eq!(seen, [(&json!("text_search"), &json!(1), &json!(1)), (&json!("stream_hash"), &json!(2), &json!(0))]);
    assert!(patterns[0]["last_called_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{patterns}");
}

#[test]
fn tools_that_come_and_go_take_their_documents_along() {
    let bennu = server();
    let server = test_server(bennu.clone());
    let (mut ann, _) = elixir(&server, "ann");
    let mut bob = legacy(&server, "bob");
    let read = |peer: &mut Peer, id: &str, uri: &str| {
        peer.request(json!(id), "resources/read", json!({"uri": uri}))["result"].clone()
    };

    let tool = Tool::new("nap", |_: NoArguments, _| async { Ok("Yawn.") }).description("Sleeps.");
    bennu.add_tool(tool.spec(|spec| spec.input_schema["examples"] = json!([{}]))).expect("a new tool");

    bob.told(BENNU, LIST_CHANGED);
    let list = bob.ask(BENNU, "1", "resources/list", json!({}))["result"].clone();
    let documents = ["tool://nap/documentation", "tool://nap/examples", "tool://nap/schema"];
    assert_eq!(uris(&list)[uris(&list).len() - 3..], documents);
    let page = &read(&mut ann, "2", documents[0])["contents"][0];
    assert_eq!(page["mimeType"], "text/markdown");
    assert!(page["text"].as_str().is_some_and(|text| text.starts_with("# nap\n\nSleeps.\n")), "{page}");
    let examples = &read(&mut ann, "3", documents[1])["contents"][0];
    assert_eq!(examples["mimeType"], "application/json");
    let schema = &read(&mut ann, "4", documents[2])["contents"][0];
    assert_eq!(schema["mimeType"], "application/schema+json");
    let schema: Value = serde_json::from_str(schema["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(schema["type"], "object");

    assert!(bennu.remove_tool("nap"));
    let failure = json!({"contents": [{"type": "text", "text": "Tool not found: nap"}], "isError": true});
    assert_eq!(read(&mut ann, "5", documents[0]), failure);
    let list = bob.ask(BENNU, "2", "resources/list", json!({}))["result"].clone();
    assert!(!uris(&list).iter().any(|uri| uri.starts_with("tool://nap/")), "{list}");
}

#[test]
fn what_is_not_there_is_said_in_each_eras_words() {
    let server = test_server(server());
    let (mut ann, _) = elixir(&server, "ann");
    let mut bob = legacy(&server, "bob");
    let mut carl = server.connect();
    carl.joined(BENNU, &json!({"token": "ann"}));

    for (n, (uri, text)) in [
        ("nonsense", "Invalid resource URI: nonsense"),
        ("workspace://project/0199f0a5", "Project not found"),
        ("workspace://project/", "Project not found"),
        ("workspace://projects", "Invalid resource URI: workspace://projects"),
        ("memory://long-term/current", "Invalid resource URI: memory://long-term/current"),
        ("tool://nothing/documentation", "Tool not found: nothing"),
        ("tool://nothing", "Tool not found: nothing"),
        ("tool://countdown/examples", "Unknown resource type: examples"),
        ("tool://countdown/source", "Unknown resource type: source"),
        ("tool://countdown", "Invalid resource URI: tool://countdown"),
        ("file:///etc/passwd", "Unknown resource type: file"),
    ]
    .into_iter()
    .enumerate()
    {
        let in_band = ann.request(json!(n), "resources/read", json!({"uri": uri}))["result"].clone();
        assert_eq!(in_band, json!({"contents": [{"type": "text", "text": text}], "isError": true}), "{uri}");
        let error = bob.ask(BENNU, n, "resources/read", json!({"uri": uri}))["error"].clone();
        assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(-32002), &json!(uri)));
        let error = carl.stateless(BENNU, n, "resources/read", json!({"uri": uri}))["error"].clone();
        assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(-32602), &json!(uri)));
    }
}

#[test]
fn lists_of_projects_come_in_pages() {
    let server = test_server(server());
    let mut bob = legacy(&server, "bob");
    let mut ids = Vec::new();
    for n in 0..150 {
        let made = call(&mut bob, BENNU, &format!("m{n}"), "project_create", json!({"name": format!("p{n}")}));
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }

    let first = bob.ask(BENNU, "1", "resources/list", json!({}))["result"].clone();
    call(&mut bob, BENNU, "d", "project_delete", json!({"id": ids[99]}));
    let cursor = first["nextCursor"].as_str().expect("a second page");
    let second = bob.ask(BENNU, "2", "resources/list", json!({"cursor": cursor}))["result"].clone();

    let of = |list: &Value| -> Vec<String> {
        let uris = uris(list).into_iter().filter_map(|uri| uri.strip_prefix("workspace://project/"));
        uris.map(ToOwned::to_owned).collect()
    };
    assert_eq!(of(&first), ids[..100]);
    assert_eq!(of(&second), ids[100..]);
    assert!(uris(&second).contains(&CURRENT) && second.get("nextCursor").is_none());
    let error = bob.ask(BENNU, "3", "resources/list", json!({"cursor": "5"}))["error"].clone();
    assert_eq!(error["code"], -32602);
}

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bennu-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_kept_is_there_after_the_program_was_killed() {
    let folder = Folder::new("killed");
    let file = folder.file();
    let flags = ["--store-path", file.to_str().expect("a path of ASCII")];
    let join = |address| {
        let mut peer = Peer::connect(address);
        let id = peer.joined(SESSION, &client_info())["sessionId"].clone();
        (peer, id)
    };

    let (program, address, _lines) = start(&flags);
    let (mut peer, _) = join(address);
    let made = call(&mut peer, SESSION, "1", "project_create", json!({"name": "Phoenix"}));
    call(&mut peer, SESSION, "2", "memory_remember", json!({"content": "rise"}));
    drop(program);

    let (_program, address, _lines) = start(&flags);
    let (mut peer, id) = join(address);
    let uri = format!("workspace://project/{}", made["id"].as_str().expect("an id"));
    assert_eq!(read(&mut peer, SESSION, "1", &uri), made);
    let current = read(&mut peer, SESSION, "2", CURRENT);
    assert_eq!((contents(&current), &current["session_id"]), (vec!["rise"], &id));

    let second = std::process::Command::new(env!("CARGO_BIN_EXE_bennu"))
        .args(["serve", "--server-listen", "127.0.0.1:0"])
        .args(flags)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("is in use: another process has it open"), "{said}");
}

#[test]
fn a_request_over_http_that_belongs_to_no_session_has_no_id_of_one() {
    let (_program, address, _lines) = start(&[]);
    let params = super::peer::stateless(json!({"uri": CURRENT}), &json!({}));
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params}).to_string();
    let headers = [
        ("Host", "localhost"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "resources/read"),
        ("Mcp-Name", CURRENT),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));

    let request = http::Request {
        method: "POST",
        path: "/mcp",
        qs: None,
        headers: &headers,
        body: Some(body.as_bytes()),
        timeout: DEADLINE,
    };
    let answer: Value = serde_json::from_slice(&http::send(address, &request).expect("an answer").body).expect("JSON");

    let text = answer["result"]["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("a text: {answer}"));
    assert_eq!(text, r#"{"items":[],"session_id":null}"#);
}

#[test]
fn a_deployment_closed_is_opened_by_the_next_and_a_second_is_refused() {
    let folder = Folder::new("closed");
    let runtime = bennu::server::runtime(1).expect("a runtime starts");
    let open = || runtime.block_on(Deployment::open(folder.file()));
    let deployment = open().expect("a new file");
    assert!(matches!(open(), Err(StoreError::InUse { .. })));
    {
        let server = TestServer::of([built_in(&deployment)], |_| {}, Development);
        let mut peer = server.connect();
        peer.joined(SESSION, &client_info());
        call(&mut peer, SESSION, "1", "memory_remember", json!({"content": "rise"}));
    }
    runtime.block_on(deployment.close());

    let server = TestServer::of([built_in(&open().expect("closed by the first"))], |_| {}, Development);
    let mut peer = server.connect();
    peer.joined(SESSION, &client_info());
    assert_eq!(contents(&read(&mut peer, SESSION, "1", CURRENT)), ["rise"]);
}
