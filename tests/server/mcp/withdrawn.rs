//! What is taken back: calls that their client gave up, questions that nobody waits for any more.

use std::sync::mpsc::channel;
use std::time::Duration;

use bennu::mcp::elicitation::{Form, TextField};
use bennu::mcp::{CallContext, Level, McpServer, NoArguments, Tool};
use serde_json::json;

use super::peer::TestServer;
use crate::lab::DEADLINE;

const OWN: &str = "mcp:server:own";

fn serving(tool: Tool) -> TestServer {
    TestServer::serving([McpServer::builder("own").tool(tool).build().expect("a server")])
}

#[test]
fn a_question_that_its_tool_no_longer_waits_for_is_taken_back() {
    let server = serving(Tool::new("impatient", |_: NoArguments, context: CallContext| async move {
        let form = Form::new("Who are you?").required("name", TextField::new());
        tokio::select! {
            biased;
            answer = context.elicit("name", &form) => answer.map(|_| "answered"),
            () = tokio::time::sleep(Duration::from_millis(1)) => Ok("not waited for"),
        }
    }));
    let mut peer = server.connect();
    peer.initialized(OWN, "2025-11-25", &json!({"elicitation": {}}));

    let answer = peer.ask(OWN, 1, "tools/call", json!({"name": "impatient"}));

    assert_eq!(answer["result"]["content"][0]["text"], "not waited for");
    let asked = peer.told(OWN, "elicitation/create");
    let taken_back = peer.told(OWN, "notifications/cancelled");
    assert_eq!(taken_back["params"]["requestId"], asked["id"]);
    let place = |wanted: &str| peer.frames.iter().position(|frame| frame.payload["method"] == wanted);
    let answered = peer.frames.iter().position(|frame| frame.is_response(&json!(1)));
    assert!(
        place("elicitation/create") < place("notifications/cancelled") && place("notifications/cancelled") < answered
    );
    // An answer that crossed with it means nothing.
    peer.message(OWN, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "cancel"}}));
    assert_eq!(peer.ask(OWN, 2, "ping", json!({}))["result"], json!({}));
}

#[test]
fn nothing_is_said_of_a_call_after_its_client_gave_it_up() {
    let (tell, told) = channel();
    let server = serving(Tool::blocking("stubborn", move |_: NoArguments, context: &CallContext| {
        let mut reports = 0.0;
        let mut report = || {
            reports += 1.0;
            context.progress(reports, None, None);
            context.log(Level::Error, None, "still here");
        };
        report();
        while !context.is_cancelled() {
            std::thread::yield_now();
        }
        (0..100).for_each(|_| report());
        let _ = tell.send(());
        Ok("never heard")
    }));
    let mut peer = server.connect();
    peer.initialized(OWN, "2025-11-25", &json!({}));
    let params = json!({"name": "stubborn", "_meta": {"progressToken": "t"}});
    peer.message(OWN, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    peer.told(OWN, "notifications/progress");

    peer.message(OWN, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    let heard = peer.frames.len();
    told.recv_timeout(DEADLINE).expect("the tool goes on until it looks");
    peer.ask(OWN, 2, "ping", json!({}));

    let after: Vec<_> = peer.frames[heard..].iter().filter(|frame| frame.event == "mcp_message").collect();
    assert!(after.iter().all(|frame| frame.is_response(&json!(2))), "{after:?}");
}

#[test]
fn what_a_client_names_or_says_of_itself_is_bounded() {
    const URI_BYTES_MAX: usize = 8_192;
    const CLIENT_INFO_BYTES_MAX: usize = 8_192;
    let server = serving(Tool::new("any", |_: NoArguments, _| async { Ok("") }));
    let mut peer = server.connect();
    peer.initialized(OWN, "2025-11-25", &json!({}));
    for (method, id) in ["resources/read", "resources/subscribe", "resources/unsubscribe"].into_iter().zip(1..) {
        let refused = peer.ask(OWN, id, method, json!({"uri": format!("test://{}", "x".repeat(URI_BYTES_MAX))}));
        let message = refused["error"]["message"].as_str().expect("an error");
        assert!(
            refused["error"]["code"] == -32602 && message.contains(&URI_BYTES_MAX.to_string()),
            "{method}: {message}"
        );
    }

    peer.joined("mcp:server:own:b", &json!({}));
    let client = json!({"name": "x".repeat(CLIENT_INFO_BYTES_MAX), "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let refused = peer.ask("mcp:server:own:b", 1, "initialize", params)["error"].clone();
    let message = refused["message"].as_str().expect("an error");
    assert!(refused["code"] == -32602 && message.contains(&CLIENT_INFO_BYTES_MAX.to_string()), "{message}");
}
