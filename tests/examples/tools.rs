//! examples/tools.rs, by both eras of MCP and as a plain channel.

use bennu::Endpoint;
use bennu::mcp::Mcp;
use bennu::mcp::auth::Development;
use bennu::testing::Client;
use serde_json::json;

use super::session::{Session, accept, names, text};

#[path = "../../examples/tools.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

fn socket() -> std::sync::Arc<bennu::channel::SocketSpec> {
    let endpoint = Endpoint::start();
    let server = example::server().expect("a server");
    let mcp = Mcp::builder(&endpoint, Development).server(server).build().expect("one server");
    example::socket(&endpoint, &mcp).build()
}

#[tokio::test(start_paused = true)]
async fn each_tool_is_listed_with_its_schema_and_answers() {
    let session = Session::initialized(&socket(), "demo").await;

    let listed = session.request("tools/list", json!({})).await;
    assert_eq!(names(&listed["tools"]), ["echo", "brew", "count", "primes", "order"]);
    let cups = &listed["tools"][1]["inputSchema"]["properties"]["cups"];
    assert_eq!((&cups["maximum"], &cups["description"]), (&json!(10), &json!("How many cups.")));

    assert_eq!(text(&session.call("echo", json!({"text": "hello"})).await), "hello");
    assert_eq!(text(&session.call("primes", json!({"below": 20})).await), "8 primes");
    let counted = session.call("count", json!({"text": "one two\nthree"})).await;
    assert_eq!(counted["structuredContent"], json!({"words": 3, "lines": 2}));
    let unfit = session.call("brew", json!({"cups": 11})).await;
    assert_eq!((&unfit["isError"], text(&unfit).contains("maximum of 10")), (&json!(true), true), "{unfit}");
}

#[tokio::test(start_paused = true)]
async fn brewing_tells_of_each_cup_and_logs() {
    let session = Session::initialized(&socket(), "demo").await;

    let params = json!({"name": "brew", "arguments": {"cups": 2}, "_meta": {"progressToken": "pot"}});
    let asked = session.ask("tools/call", params);

    for cup in 1..=2 {
        let params = json!({"progressToken": "pot", "progress": cup, "total": 2});
        session.next(json!({"method": "notifications/progress", "params": params})).await;
    }
    session.next(json!({"method": "notifications/message", "params": {"logger": "kitchen"}})).await;
    assert_eq!(text(&session.response(asked).await["result"]), "2 cups of coffee");
}

#[tokio::test(start_paused = true)]
async fn an_order_asks_the_person() {
    let session = Session::initialized(&socket(), "demo").await;

    let asked = session.ask("tools/call", json!({"name": "order", "arguments": {"text": "tea"}}));
    let question = session.answer("elicitation/create", accept(json!({"size": "large"}))).await;
    assert_eq!(question["message"], "Which size of tea?");
    assert_eq!(text(&session.response(asked).await["result"]), "ordered: tea, large");

    let asked = session.ask("tools/call", json!({"name": "order", "arguments": {"text": "tea"}}));
    session.answer("elicitation/create", json!({"action": "decline"})).await;
    assert_eq!(session.response(asked).await["result"]["isError"], true);
}

#[tokio::test(start_paused = true)]
async fn stateless_requests_need_no_handshake() {
    let session = Session::join(&socket(), "demo").await;

    let echo = json!({"name": "echo", "arguments": {"text": "hello"}});
    assert_eq!(text(&session.stateless("tools/call", echo, json!({})).await), "hello");

    let order = json!({"name": "order", "arguments": {"text": "tea"}});
    let asks = session.stateless("tools/call", order.clone(), json!({"elicitation": {}})).await;
    assert_eq!(asks["inputRequests"]["size"]["method"], "elicitation/create");
    let mut again = order;
    again["inputResponses"] = json!({"size": accept(json!({"size": "small"}))});
    again["requestState"] = asks["requestState"].clone();
    assert_eq!(text(&session.stateless("tools/call", again, json!({"elicitation": {}})).await), "ordered: tea, small");
}

#[tokio::test(start_paused = true)]
async fn its_room_echoes() {
    let client = Client::new().connect(&socket()).await.expect("everyone may connect");
    let room = client.join("room:lobby", json!({})).await.expect("everyone may join");

    assert_eq!(room.call("echo", json!({"n": 1})).await.response, json!({"n": 1}).into());
}
