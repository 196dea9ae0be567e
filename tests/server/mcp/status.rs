//! Dashboards of the Elixir deployment: `status:system` and `status:system:tool`. Rates and throttling are in `tests/kit`.

use serde_json::{Value, json};

use super::lab::lab;
use super::peer::{Names, Peer, TestServer, bennu, client_info};

const TOOLS: &str = "status:system:tool";

/// The updates that came on a topic, without their timestamps.
fn updates(peer: &Peer, topic: &str) -> Vec<(String, String, Value)> {
    let text = |update: &Value, key: &str| update[key].as_str().expect("a text").to_owned();
    let updates = peer.of(topic, "status_update").into_iter().map(|frame| &frame.payload);
    updates
        .map(|update| {
            let timestamp = text(update, "timestamp");
            assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
            (text(update, "category"), text(update, "text"), update["metadata"].clone())
        })
        .collect()
}

fn is_update(text: &'static str) -> impl Fn(&super::peer::Frame) -> bool {
    move |frame| frame.event == "status_update" && frame.payload["text"] == text
}

#[test]
fn a_dashboard_sees_begin_and_end_of_runs() {
    let server = TestServer::serving([bennu()]);
    let (mut caller, mut board) = (server.connect(), server.connect());
    caller.joined("mcp:session", &client_info());
    let reply = board.joined(TOOLS, &json!({}));
    assert_eq!((&reply["conversation_id"], &reply["subscribed_categories"]), (&json!("system"), &json!(["tool"])));
    let available = json!(["engine", "tool", "workflow", "progress", "error", "info", "planning"]);
    assert_eq!(reply["available_categories"], available);

    let run = caller.call("mcp:session", &json!(1), &json!({"name": "stream_hash", "arguments": {"bytes": 8}}));
    board.wait(is_update("stream_hash completed"));

    let metadata = |status: &str| json!({"run_id": run, "tool": "stream_hash", "status": status});
    let expected = [
        ("tool".to_owned(), "stream_hash started".to_owned(), metadata("running")),
        ("tool".to_owned(), "stream_hash completed".to_owned(), metadata("completed")),
    ];
    assert_eq!(updates(&board, TOOLS), expected);
}

#[test]
fn failures_are_told_as_errors_too_where_they_are_wanted() {
    let server = TestServer::serving([lab()]);
    let (mut caller, mut board) = (server.connect(), server.connect());
    caller.joined("mcp:session", &client_info());
    let reply = board.joined("status:system", &json!({}));
    assert_eq!(reply["subscribed_categories"], json!([]), "nothing, until it is asked for");
    caller.request(json!(1), "tools/call", json!({"name": "panic"}));
    let subscribed = board.push("status:system", "subscribe_categories", &json!({"categories": ["tool", "error"]}));
    assert_eq!(subscribed, json!({"status": "ok", "response": {"subscribed": ["tool", "error"]}}));

    caller.request(json!(2), "tools/call", json!({"name": "panic"}));
    board.wait(|frame| frame.payload["category"] == "error");
    let left = board.push("status:system", "unsubscribe_categories", &json!({"categories": ["tool"]}));
    assert_eq!(left["response"], json!({"subscribed": ["error"]}));
    caller.request(json!(3), "tools/call", json!({"name": "panic"}));
    board.wait(|frame| {
        frame.event == "status_update"
            && frame.payload["category"] == "error"
            && frame.payload["metadata"]["run_id"] != Value::Null
    });
    board.push("status:system", "get_subscriptions", &json!({}));

    let told: Vec<_> =
        updates(&board, "status:system").into_iter().map(|(category, text, _)| (category, text)).collect();
    let line = |category: &str, text: &str| (category.to_owned(), text.to_owned());
    assert_eq!(
        told[..3],
        [
            line("tool", "panic started"),
            line("tool", "panic failed: the tool crashed"),
            line("error", "panic failed: the tool crashed")
        ]
    );
    assert!(told[3..].iter().all(|update| *update == line("error", "panic failed: the tool crashed")), "{told:?}");
}

#[test]
fn a_dashboard_asks_what_there_is_and_is_told_what_it_did_wrong() {
    let server = TestServer::serving([bennu()]);
    let mut board = server.connect();
    board.joined(TOOLS, &json!({}));

    let listed = board.push(TOOLS, "get_subscriptions", &json!({}))["response"].clone();
    assert_eq!(listed["subscribed_categories"], json!(["tool"]));
    let available = board.push(TOOLS, "get_available_categories", &json!({}))["response"].clone();
    assert_eq!(available["available_categories"], listed["available_categories"]);
    assert!(available["descriptions"]["progress"].is_string());
    let mut refused = |categories: Value| {
        let reply = board.push(TOOLS, "subscribe_categories", &json!({"categories": categories}));
        assert_eq!(reply["status"], "error");
        reply["response"].clone()
    };
    let unknown = refused(json!(["tool", "gossip"]));
    assert_eq!((&unknown["reason"], &unknown["invalid"]), (&json!("invalid_categories"), &json!(["gossip"])));
    assert_eq!(refused(json!("tool"))["reason"], "invalid_categories");
    assert_eq!(refused(json!(vec!["tool"; 11]))["reason"], "too_many_categories");
    let unknown = board.push(TOOLS, "status_update", &json!({"forged": true}));
    assert_eq!(unknown, json!({"status": "error", "response": {"reason": "unknown event"}}));
    for other in ["status:", "status:system:", "status:system:engine", "status:system:tool:x", "status:42"] {
        assert_eq!(board.refused(other, &json!({})), "unmatched topic", "{other}");
    }
}

#[test]
fn a_dashboard_sees_what_its_user_may_see() {
    let server = TestServer::with(|_| {}, Names);
    let (mut caller, mut own, mut strange) = (server.connect(), server.connect(), server.connect());
    let mut params = client_info();
    params["token"] = json!("ann");
    caller.joined("mcp:session", &params);
    assert_eq!(own.refused(TOOLS, &json!({})), "No authentication credentials provided");
    assert_eq!(own.refused(TOOLS, &json!({"token": "eve"})), "Invalid token: invalid");
    own.joined(TOOLS, &json!({"token": "ann"}));
    strange.joined(TOOLS, &json!({"token": "bob"}));

    caller.request(json!(1), "tools/call", json!({"name": "stream_hash", "arguments": {"bytes": 8}}));
    own.wait(is_update("stream_hash completed"));
    strange.push(TOOLS, "get_subscriptions", &json!({}));

    assert_eq!(updates(&strange, TOOLS), []);
}
