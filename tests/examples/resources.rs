//! examples/resources.rs, by both eras of MCP.

use bennu::Endpoint;
use bennu::mcp::Mcp;
use bennu::mcp::auth::Development;
use serde_json::{Value, json};

use super::session::{Session, names, text};

#[path = "../../examples/resources.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

fn socket() -> std::sync::Arc<bennu::channel::SocketSpec> {
    let endpoint = Endpoint::start();
    let server = example::server().expect("a server");
    let mcp = Mcp::builder(&endpoint, Development).server(server).build().expect("one server");
    example::socket(&endpoint, &mcp).build()
}

async fn read(session: &Session, uri: &str) -> Value {
    session.request("resources/read", json!({"uri": uri})).await["contents"][0].take()
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_can_be_read() {
    let session = Session::initialized(&socket(), "notebook").await;

    let listed = session.request("resources/list", json!({})).await;
    assert_eq!(names(&listed["resources"]), ["about", "index"]);
    let templates = session.request("resources/templates/list", json!({})).await;
    assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "notebook://notes/{name}");

    assert_eq!(read(&session, "notebook://about").await["text"], "A notebook of short notes.");
    let milk = json!({"uri": "notebook://notes/milk", "mimeType": "text/plain", "text": "Buy some."});
    assert_eq!(read(&session, "notebook://notes/milk").await, milk);
    let unknown = session.response(session.ask("resources/read", json!({"uri": "notebook://notes/tea"}))).await;
    assert_eq!(unknown["error"]["data"]["uri"], "notebook://notes/tea");
}

#[tokio::test(start_paused = true)]
async fn the_names_of_notes_are_completed() {
    let session = Session::initialized(&socket(), "notebook").await;
    let template = json!({"type": "ref/resource", "uri": "notebook://notes/{name}"});

    for (typed, values) in [("", json!(["milk"])), ("mi", json!(["milk"])), ("x", json!([]))] {
        let params = json!({"ref": template, "argument": {"name": "name", "value": typed}});
        assert_eq!(session.request("completion/complete", params).await["completion"]["values"], values);
    }
}

#[tokio::test(start_paused = true)]
async fn who_subscribed_is_told_of_changes() {
    let session = Session::initialized(&socket(), "notebook").await;
    assert_eq!(session.request("resources/subscribe", json!({"uri": "notebook://index"})).await, json!({}));

    let written = session.call("write", json!({"name": "tea", "text": "Green."})).await;

    assert_eq!(text(&written), "wrote notebook://notes/tea");
    let updated = json!({"method": "notifications/resources/updated", "params": {"uri": "notebook://index"}});
    session.next(updated).await;
    assert_eq!(read(&session, "notebook://index").await["text"], "milk\ntea");
    assert_eq!(read(&session, "notebook://notes/tea").await["text"], "Green.");
    assert_eq!(session.call("write", json!({"name": "T E A", "text": ""})).await["isError"], true);
}

#[tokio::test(start_paused = true)]
async fn stateless_clients_listen_to_what_they_name() {
    let session = Session::join(&socket(), "notebook").await;
    let read = session.stateless("resources/read", json!({"uri": "notebook://index"}), json!({})).await;
    assert_eq!(read["contents"][0]["text"], "milk");

    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let wanted = json!({"resourceSubscriptions": ["notebook://notes/milk"]});
    session.ask("subscriptions/listen", json!({"notifications": wanted, "_meta": meta}));
    session.next(json!({"method": "notifications/subscriptions/acknowledged"})).await;
    let write = json!({"name": "write", "arguments": {"name": "milk", "text": "Drink it."}});
    session.stateless("tools/call", write, json!({})).await;

    session
        .next(json!({"method": "notifications/resources/updated", "params": {"uri": "notebook://notes/milk"}}))
        .await;
}
