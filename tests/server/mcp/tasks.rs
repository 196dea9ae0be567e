//! Calls that become tasks, which outlive their request and their session.

use serde_json::{Value, json};

use super::lab::lab;
use super::peer::{TestServer, bennu, stateless};

const LAB: &str = "mcp:server:lab";
const TASKS: &str = "io.modelcontextprotocol/tasks";

fn job() -> Value {
    with_tasks(json!({"name": "job", "arguments": {}}))
}

/// Params of a client that has tasks and forms.
fn with_tasks(params: Value) -> Value {
    stateless(params, &json!({"elicitation": {}, "extensions": {TASKS: {}}}))
}

#[test]
fn a_call_becomes_a_task_that_is_asked_for_answered_and_ends() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));

    let created = peer.ask(LAB, 1, "tools/call", job())["result"].clone();
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")));
    let id = created["taskId"].clone();
    let wanted = json!({"notifications": {"taskIds": [id, "another"]}});
    let listen = json!({"jsonrpc": "2.0", "id": "s", "method": "subscriptions/listen", "params": with_tasks(wanted)});
    peer.message(LAB, &listen);
    let task = peer.ask(LAB, 2, "tasks/get", with_tasks(json!({"taskId": id})))["result"].clone();
    assert_eq!((&task["status"], &task["statusMessage"]), (&json!("input_required"), &json!("half")));
    assert_eq!(task["inputRequests"]["go"]["method"], "elicitation/create");

    let answers = json!({"go": {"action": "accept", "content": {"name": "Ann"}}, "nobody": {}});
    let updated = peer.ask(LAB, 3, "tasks/update", with_tasks(json!({"taskId": id, "inputResponses": answers})));
    assert_eq!(updated["result"]["resultType"], "complete");
    let ended = peer.wait(|frame| frame.payload["params"]["status"] == "completed").payload;

    assert_eq!(ended["method"], "notifications/tasks");
    let told = &ended["params"];
    assert_eq!((&told["taskId"], &told["_meta"]["io.modelcontextprotocol/subscriptionId"]), (&id, &json!("s")));
    assert_eq!(told["result"]["content"][0]["text"], "Ann");
    let task = peer.ask(LAB, 4, "tasks/get", with_tasks(json!({"taskId": id})))["result"].clone();
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &told["result"]));
    assert!(task.get("inputRequests").is_none());
}

#[test]
fn a_task_outlives_its_session_and_is_cancelled_from_another() {
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let id = peer.ask(LAB, 1, "tools/call", job())["result"]["taskId"].clone();
    peer.vanish();

    let mut later = server.connect();
    later.joined(LAB, &json!({}));
    let of = |id: &Value| with_tasks(json!({"taskId": id}));
    assert_eq!(later.ask(LAB, 1, "tasks/get", of(&id))["result"]["status"], "input_required");
    assert_eq!(later.ask(LAB, 2, "tasks/cancel", of(&id))["result"]["resultType"], "complete");
    assert_eq!(later.ask(LAB, 3, "tasks/get", of(&id))["result"]["status"], "cancelled");
    assert_eq!(later.ask(LAB, 4, "tasks/cancel", of(&id))["result"]["resultType"], "complete");

    assert_eq!(later.ask(LAB, 5, "tasks/get", of(&json!("nobody")))["error"]["code"], -32602);
    assert_eq!(later.stateless(LAB, 6, "tasks/get", json!({"taskId": id}))["error"]["code"], -32021);
    let plain = stateless(json!({"name": "job", "arguments": {}}), &json!({"elicitation": {}}));
    assert_eq!(
        later.ask(LAB, 7, "tools/call", plain)["result"]["resultType"],
        "input_required",
        "without the extension"
    );
}

#[test]
fn a_task_is_its_servers_alone() {
    let server = TestServer::serving([lab(), bennu()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    peer.joined("mcp:server:bennu", &json!({}));
    let id = peer.ask(LAB, 1, "tools/call", job())["result"]["taskId"].clone();

    for (method, number) in ["tasks/get", "tasks/cancel"].into_iter().zip(2..) {
        let refused = peer.ask("mcp:server:bennu", number, method, with_tasks(json!({"taskId": id})));
        assert_eq!(refused["error"]["code"], -32602, "{method}: {refused}");
    }
    assert_eq!(peer.ask(LAB, 2, "tasks/get", with_tasks(json!({"taskId": id})))["result"]["status"], "input_required");
}

#[test]
fn a_user_has_so_many_tasks_under_way_and_further_calls_become_none() {
    const TASKS_PER_USER_MAX: u64 = 100;
    let server = TestServer::serving([lab()]);
    let mut peer = server.connect();
    peer.joined(LAB, &json!({}));
    let ids: Vec<_> =
        (0..TASKS_PER_USER_MAX).map(|id| peer.ask(LAB, id, "tools/call", job())["result"]["taskId"].clone()).collect();

    let further = peer.ask(LAB, "further", "tools/call", job())["result"].clone();
    assert_eq!(further["resultType"], "input_required", "its question comes in its answer: {further}");
    peer.ask(LAB, "cancel", "tasks/cancel", with_tasks(json!({"taskId": ids[0]})));
    assert_eq!(peer.ask(LAB, "again", "tools/call", job())["result"]["resultType"], "task");
}
