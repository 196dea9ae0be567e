//! `mcp:hub`: several servers as one.

use bennu::mcp::McpServer;
use bennu::mcp::auth::{AuthRefused, Identity, McpAuth, Presented};
use bennu::mcp::upstream::{Command, Reach, UpstreamOptions};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::super::lab::lab;
use super::super::peer::{Names, Peer, TestServer, bennu, client_info};
use super::odd::{Log, call, named, noting, until};
use crate::upstreams;

const HUB: &str = "mcp:hub";

/// What is listed, over all pages.
fn listed(peer: &mut Peer, method: &str, key: &str, name: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), Value::Null);
    for page in 0.. {
        let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
        let id = format!("{method} {page} {}", peer.frames.len());
        let result = peer.ask(HUB, id, method, params)["result"].clone();
        let items = result[key].as_array().cloned().unwrap_or_else(|| panic!("{key}: {result}"));
        all.extend(items.iter().map(|item| item[name].as_str().expect("a name").to_owned()));
        cursor = result["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    all
}

fn tools(peer: &mut Peer) -> Vec<String> {
    listed(peer, "tools/list", "tools", "name")
}

fn other(log: &Log) -> McpServer {
    named("o_2", &upstreams::odd(&["--plain-envelope"]).with_env("ODD_LOG", log.path()), |_| {})
}

fn absent() -> McpServer {
    McpServer::upstream("absent", UpstreamOptions::new(Reach::Stdio(Command::new("/does/not/exist", [""; 0]))))
        .expect("a name")
}

fn client(server: &TestServer) -> Peer {
    let mut peer = server.connect();
    peer.initialized(HUB, "2025-11-25", &json!({}));
    peer
}

#[test]
fn lists_are_one_and_names_that_clash_stand_behind_their_server() {
    let log = Log::new();
    let server = TestServer::serving([bennu(), noting(&log, &[], |_| {}), absent(), other(&log)]);
    let mut peer = client(&server);

    let names = tools(&mut peer);

    for name in ["countdown", "echo_raw", "o_2__echo_raw"] {
        assert_eq!(names.iter().filter(|listed| *listed == name).count(), 1, "{name}: {names:?}");
    }
    let uris = listed(&mut peer, "resources/list", "resources", "uri");
    assert!(uris.contains(&"odd://one".to_owned()) && uris.contains(&"s-o-2+odd://one".to_owned()), "{uris:?}");
    let prompts = listed(&mut peer, "prompts/list", "prompts", "name");
    assert!(prompts.iter().any(|name| name.starts_with("o_2__")), "{prompts:?}");
    listed(&mut peer, "resources/templates/list", "resourceTemplates", "uriTemplate");
}

#[test]
fn a_request_goes_to_the_server_that_has_what_it_names() {
    let (one, two) = (Log::new(), Log::new());
    let server = TestServer::serving([lab(), noting(&one, &[], |_| {}), other(&two)]);
    let mut peer = client(&server);

    // Nothing was listed yet.
    assert!(peer.ask(HUB, 1, "tools/call", call("o_2__echo_raw", json!({"a": 1}))).get("result").is_some());
    assert_eq!(two.messages("tools/call")[0]["params"]["name"], "echo_raw");
    assert!(peer.ask(HUB, 2, "tools/call", call("echo_raw", json!({}))).get("result").is_some());
    assert_eq!(one.messages("tools/call").len(), 1);
    let here = peer.ask(HUB, 3, "tools/call", call("echo", json!({"b": 2})));
    assert_eq!(here["result"]["content"][0]["text"], r#"{"b":2}"#);
    let here = peer.ask(HUB, 4, "tools/call", call("lab__echo", json!({"b": 2})));
    assert_eq!(here["result"]["content"][0]["text"], r#"{"b":2}"#);
    assert!(peer.ask(HUB, 5, "resources/read", json!({"uri": "s-o-2+odd://one"})).get("result").is_some());
    assert_eq!(two.messages("resources/read")[0]["params"]["uri"], "odd://one");
    assert_eq!(
        peer.ask(HUB, 6, "resources/read", json!({"uri": "lab://clock"}))["result"]["contents"][0]["text"],
        "noon"
    );
    let unknown = peer.ask(HUB, 7, "tools/call", call("nobody", json!({})));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let unknown = peer.ask(HUB, 8, "resources/read", json!({"uri": "x:y"}));
    assert_eq!(unknown["error"]["code"], -32002, "{unknown}");
}

#[test]
fn stateless_clients_and_those_of_the_deployment_have_it_too() {
    let log = Log::new();
    let server = TestServer::serving([bennu(), noting(&log, &[], |_| {})]);
    let mut peer = server.connect();
    peer.joined(HUB, &json!({}));
    let found = peer.stateless(HUB, 1, "server/discover", json!({}))["result"].clone();
    assert_eq!(found["supportedVersions"], json!(["2026-07-28"]));
    let page = peer.stateless(HUB, 2, "tools/list", json!({}))["result"].clone();
    assert_eq!(page["resultType"], "complete");
    assert!(peer.stateless(HUB, 3, "tools/call", call("echo_raw", json!({}))).get("result").is_some());

    peer.joined("mcp:hub:second", &client_info());
    let listed = peer.ask("mcp:hub:second", 1, "tools/list", json!({}))["result"]["tools"].clone();
    let names: Vec<_> = listed.as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"countdown") && names.contains(&"echo_raw"), "{names:?}");
}

#[test]
fn changes_of_any_server_reach_a_client_of_all() {
    let log = Log::new();
    let lab = lab();
    let server = TestServer::serving([lab.clone(), noting(&log, &[], |_| {})]);
    let mut peer = server.connect_unchecked();
    peer.initialized(HUB, "2025-11-25", &json!({}));
    tools(&mut peer);
    peer.ask(HUB, 1, "resources/subscribe", json!({"uri": "odd://one"}));
    listed(&mut peer, "resources/list", "resources", "uri");
    let answer = peer.ask(HUB, 2, "resources/subscribe", json!({"uri": "odd://one"}));
    assert!(answer.get("result").is_some(), "{answer}");

    peer.ask(HUB, 3, "tools/call", call("touch", json!({"uri": "odd://one"})));
    peer.told(HUB, "notifications/resources/updated");
    lab.tools_changed();
    peer.told(HUB, "notifications/tools/list_changed");
    let seen = |peer: &Peer| {
        peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/tools/list_changed").count()
    };
    let before = seen(&peer);
    peer.ask(HUB, 4, "tools/call", call("notify_changed", json!({})));
    peer.ask(HUB, 5, "ping", json!({}));
    assert!(seen(&peer) > before);
}

#[test]
fn a_server_that_comes_back_is_told_of() {
    let log = Log::new();
    let server = TestServer::serving([bennu(), noting(&log, &[], |_| {})]);
    let mut peer = client(&server);
    assert!(tools(&mut peer).contains(&"echo_raw".to_owned()));

    peer.ask(HUB, 1, "tools/call", call("crash", json!({})));

    peer.told(HUB, "notifications/tools/list_changed");
    until("it to be listed again", || tools(&mut peer).contains(&"echo_raw".to_owned()));
}

/// Lets `ann` use everything, and `bob` what is this program's own.
struct Choosy;

impl McpAuth for Choosy {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        Names.authenticate(presented)
    }

    fn may_use(&self, user: &Identity, server: &str) -> bool {
        &*user.user == "ann" || server == "bennu"
    }
}

#[test]
fn whoever_may_not_use_a_server_does_not_see_it() {
    let log = Log::new();
    let server = TestServer::of([bennu(), noting(&log, &[], |_| {})], |_| {}, Choosy);
    let mut bob = server.connect();
    assert_eq!(bob.refused("mcp:server:odd", &json!({"token": "bob"})), "unknown MCP server");
    bob.joined(HUB, &json!({"token": "bob"}));
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    bob.ask(HUB, "i", "initialize", hello);
    let names = tools(&mut bob);
    assert!(names.contains(&"countdown".to_owned()) && !names.contains(&"echo_raw".to_owned()), "{names:?}");
    let refused = bob.ask(HUB, 1, "tools/call", call("odd__echo_raw", json!({})));
    assert_eq!(refused["error"]["code"], -32602);
    assert_eq!(log.pids(), [] as [u64; 0]);
}

#[test]
fn a_call_behind_its_servers_name_can_be_asked_and_gone_on_with() {
    let log = Log::new();
    let legacy = upstreams::odd(&["--plain-envelope", "--era", "legacy"]).with_env("ODD_LOG", log.path());
    let server = TestServer::serving([bennu(), named("first", &legacy, |_| {}), named("second", &legacy, |_| {})]);
    let mut peer = server.connect();
    peer.joined(HUB, &json!({}));
    let params = |name: &str| {
        let mut params = call(name, json!({}));
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
        });
        params
    };

    let asked = peer.ask(HUB, 1, "tools/call", params("second__sample"))["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let mut again = params("second__sample");
    again["requestState"] = asked["requestState"].clone();
    again["inputResponses"] = json!({"question": {"answer": "yes"}});
    let answered = peer.ask(HUB, 2, "tools/call", again)["result"].clone();
    assert!(answered.to_string().contains(r#"{"answer":"yes"}"#), "{answered}");
}

#[test]
fn a_resource_of_a_later_server_is_subscribed_to_and_told_of_by_its_name_here() {
    let (one, two) = (Log::new(), Log::new());
    let server = TestServer::serving([absent(), noting(&one, &[], |_| {}), other(&two)]);
    let mut peer = server.connect_unchecked();
    peer.initialized(HUB, "2025-11-25", &json!({}));
    let answer = peer.ask(HUB, 1, "resources/subscribe", json!({"uri": "s-o-2+odd://one"}));
    assert!(answer.get("result").is_some(), "{answer}");

    // The other server's, which has the same URI, is not what was asked for.
    peer.ask(HUB, 2, "tools/call", call("touch", json!({"uri": "odd://one"})));
    peer.ask(HUB, 3, "tools/call", call("o_2__touch", json!({"uri": "odd://one"})));
    let told = peer.told(HUB, "notifications/resources/updated");
    assert_eq!(told["params"]["uri"], "s-o-2+odd://one");
    assert_eq!(
        peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/resources/updated").count(),
        1
    );
}
