//! Many calls at a time over one socket: the caller and an observer see each call's progress in order and to its end.

#[path = "../../support/run_order.rs"]
mod run_order;

use bennu::mcp::{CallContext, McpServer, Tool};
use serde_json::{Map, Value, json};

use super::peer::{Frame, Peer, TestServer, client_info};
use run_order::{Call, MANY, Seen};

/// The topic of a session by its number.
fn topic(session: usize) -> String {
    format!("mcp:server:test:{session}")
}

fn seen(frames: &[Frame]) -> impl Iterator<Item = Seen<'_>> {
    frames.iter().map(|frame| Seen { topic: &frame.topic, event: &frame.event, payload: &frame.payload })
}

/// Sends all calls before it reads an answer; the observer joins each run as soon as it hears of it.
fn drive(caller: &mut Peer, observer: &mut Peer, calls: &[Call]) {
    observer.joined("mcp:runs", &json!({}));
    for call in calls {
        caller.send(&call.topic, "mcp_message", &MANY.request(call));
    }

    let mut runs: Vec<String> = Vec::new();
    while runs.len() < calls.len() {
        let is_new = |frame: &Frame| {
            let id = frame.payload["run_id"].as_str();
            frame.event == "run_started" && id.is_some_and(|id| runs.iter().all(|run| run != id))
        };
        let run = observer.wait(is_new).payload["run_id"].as_str().expect("a run id").to_owned();
        observer.send(&format!("mcp:run:{run}"), "phx_join", &json!({}));
        runs.push(run);
    }
    for run in runs {
        let topic = format!("mcp:run:{run}");
        let ended =
            |event: &serde_json::Value| matches!(event["type"].as_str(), Some("tool_completed" | "tool_failed"));
        observer.wait(|frame| {
            let before = frame.payload["response"]["events"].as_array();
            frame.topic == topic && (ended(&frame.payload) || before.is_some_and(|events| events.iter().any(ended)))
        });
    }
    for call in calls {
        caller.wait(|frame| frame.topic == call.topic && frame.is_response(&json!(call.id)));
    }
}

/// A server whose tool counts its steps.
fn counting() -> McpServer {
    let count = Tool::untyped(
        MANY.tool,
        json!({"type": "object"}),
        |arguments: Map<String, Value>, context: CallContext| async move {
            let steps = arguments[MANY.steps_argument].as_u64().and_then(|steps| u32::try_from(steps).ok());
            let steps = steps.expect("a small number");
            for step in 1..=steps {
                context.progress(f64::from(step), Some(f64::from(steps)), None);
                tokio::task::yield_now().await;
            }
            Ok("counted")
        },
    );
    McpServer::builder("test").tool(count).build().expect("a server")
}

#[test]
fn progress_of_many_calls_keeps_its_order_for_the_caller_and_an_observer() {
    let server = TestServer::serving([counting()]);
    let (mut caller, mut observer) = (server.connect(), server.connect());
    (0..MANY.sessions).for_each(|session| drop(caller.joined(&topic(session), &client_info())));
    let calls = MANY.calls(topic);

    drive(&mut caller, &mut observer, &calls);

    assert_eq!(MANY.check_caller(&calls, seen(&caller.frames)), Ok(()));
    assert_eq!(MANY.check_observer(calls.len(), seen(&observer.frames)), Ok(()));
}
