//! MCP on virtual time: what it does when time goes by.

use std::time::Duration;

use bennu::Endpoint;
use bennu::mcp::auth::Development;
use bennu::mcp::sampling::{SamplingMessage, SamplingRequest};
use bennu::mcp::{CallContext, Level, Mcp, McpServer, Tool};
use bennu::testing::{Client, TestChannel, TestSocket};
use serde_json::{Map, Value, json};
use tokio::time::advance;

/// Five steps in one and a half seconds.
async fn steps(context: CallContext) {
    for step in 1..=5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        context.progress(f64::from(step), Some(5.0), None);
    }
}

async fn client() -> (Endpoint, TestSocket) {
    let any = || json!({"type": "object"});
    let steps = Tool::untyped("steps", any(), |_: Map<String, Value>, context: CallContext| async move {
        steps(context).await;
        Ok("done")
    });
    let sample = Tool::untyped("sample", any(), |_: Map<String, Value>, context: CallContext| async move {
        let asked = SamplingRequest::new([SamplingMessage::user("What?")], 10);
        Ok(context.sample("q", &asked).await?.text())
    });
    let log = Tool::untyped("log", any(), |_: Map<String, Value>, context: CallContext| async move {
        (0..100).for_each(|n| context.log(Level::Error, None, n));
        tokio::time::sleep(Duration::from_secs(1)).await;
        context.log(Level::Error, None, "x".repeat(20_000));
        Ok("logged")
    });
    let server = McpServer::builder("lab").tool(steps).tool(sample).tool(log).build().expect("a server");
    let endpoint = Endpoint::start();
    let mcp = Mcp::builder(&endpoint, Development).server(server).build().expect("one server");
    let socket = mcp.routes(endpoint.socket("/socket")).build();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    (endpoint, client)
}

async fn session(client: &TestSocket) -> TestChannel {
    client.join("mcp:server:lab", json!({})).await.expect("a session")
}

async fn ask(session: &TestChannel, id: u64, method: &str, params: Value) {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    assert_eq!(session.call("mcp_message", request).await.status, "ok");
}

async fn initialize(session: &TestChannel) {
    let client = json!({"name": "kit", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}}, "clientInfo": client});
    ask(session, 0, "initialize", params).await;
    session.assert_push("mcp_message", json!({"id": 0})).await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_once_a_second_however_much_there_is() {
    let (_endpoint, client) = client().await;
    let session = session(&client).await;
    initialize(&session).await;
    let board = client.join("status:system", json!({})).await.expect("a dashboard");
    let wanted = json!({"categories": ["progress", "tool"]});
    assert_eq!(board.call("subscribe_categories", wanted).await.status, "ok");

    ask(&session, 1, "tools/call", json!({"name": "steps"})).await;

    board.assert_push("status_update", json!({"category": "tool", "text": "steps started"})).await;
    let metadata = json!({"tool": "steps", "status": "running", "progress": 3, "total": 5});
    let told = json!({"category": "progress", "text": "steps: 3 of 5", "metadata": metadata});
    board.assert_push("status_update", told).await;
    board.assert_push("status_update", json!({"category": "tool", "text": "steps completed"})).await;
    advance(Duration::from_secs(10)).await;
    board.refute_push("status_update").await;
}

#[tokio::test(start_paused = true)]
async fn a_dashboard_that_comes_late_sees_the_progress_of_what_runs() {
    let (_endpoint, client) = client().await;
    let session = session(&client).await;
    initialize(&session).await;
    ask(&session, 1, "tools/call", json!({"name": "steps"})).await;

    let board = client.join("status:system", json!({})).await.expect("a dashboard");
    assert_eq!(board.call("subscribe_categories", json!({"categories": ["progress"]})).await.status, "ok");

    board.assert_push("status_update", json!({"category": "progress", "text": "steps: 3 of 5"})).await;
    session.assert_push("mcp_message", json!({"id": 1})).await;
    advance(Duration::from_secs(10)).await;
    board.refute_push("status_update").await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_change_thirty_times_a_minute() {
    let (_endpoint, client) = client().await;
    let board = client.join("status:system:tool", json!({})).await.expect("a dashboard");
    let change = |n: usize| if n.is_multiple_of(2) { "unsubscribe_categories" } else { "subscribe_categories" };
    for n in 0..30 {
        let reply = board.call(change(n), json!({"categories": ["tool"]})).await;
        assert_eq!(reply.status, "ok", "{n}");
    }

    let refused = board.call("subscribe_categories", json!({"categories": ["info"]})).await;
    let response: Value = refused.response.parse().expect("JSON");
    assert_eq!((&*refused.status, &response["reason"]), ("error", &json!("rate_limit_exceeded")));
    assert_eq!(board.call("get_subscriptions", json!({})).await.status, "ok", "asking is no change");
    advance(Duration::from_secs(61)).await;

    assert_eq!(board.call("subscribe_categories", json!({"categories": ["info"]})).await.status, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answers_is_taken_back_and_fails_its_call() {
    let (_endpoint, client) = client().await;
    let session = session(&client).await;
    initialize(&session).await;
    ask(&session, 1, "tools/call", json!({"name": "sample"})).await;
    let asked: Value =
        session.assert_push("mcp_message", json!({"method": "sampling/createMessage"})).await.parse().expect("JSON");

    // A sign of life gives the client another minute.
    advance(Duration::from_secs(59)).await;
    let progress = json!({"progressToken": asked["params"]["_meta"]["progressToken"], "progress": 1});
    let sign = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress});
    assert_eq!(session.call("mcp_message", sign).await.status, "ok");
    advance(Duration::from_secs(59)).await;
    session.refute_push("mcp_message").await;
    advance(Duration::from_secs(2)).await;

    let taken_back = json!({"method": "notifications/cancelled", "params": {"requestId": asked["id"]}});
    session.assert_push("mcp_message", taken_back).await;
    let text = "the client did not answer in time";
    let failed = json!({"id": 1, "result": {"isError": true, "content": [{"type": "text", "text": text}]}});
    session.assert_push("mcp_message", failed).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_log_messages_is_a_burst_and_how_many_were_left_out() {
    let (_endpoint, client) = client().await;
    let session = session(&client).await;
    initialize(&session).await;

    ask(&session, 1, "tools/call", json!({"name": "log"})).await;

    for n in 0..64 {
        session.assert_push("mcp_message", json!({"params": {"level": "error", "data": n}})).await;
    }
    let left_out = json!({"level": "warning", "data": "36 messages were left out here: too many came at once"});
    session.assert_push("mcp_message", json!({"method": "notifications/message", "params": left_out})).await;
    let large = json!({"level": "error", "data": "20002 bytes, of which at most 16384 are sent"});
    session.assert_push("mcp_message", json!({"method": "notifications/message", "params": large})).await;
    session.assert_push("mcp_message", json!({"id": 1})).await;
    session.refute_push("mcp_message").await;
}
