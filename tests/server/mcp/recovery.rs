//! MCP sessions whose connections are cut, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bennu::mcp::{CallContext, McpServer, Tool};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::peer::{Frame, Names, Peer, TestServer, client_info};
use crate::lab::until;

const SESSION: &str = "mcp:session";

/// A server whose tools count how often they run, and wait until a test lets them go.
struct Workshop {
    server: TestServer,
    runs: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Workshop {
    fn start() -> Self {
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, opened) = (Arc::clone(&runs), Arc::clone(&gate));
        let any = json!({"type": "object"});
        let held = Tool::untyped("held", any, move |arguments: Map<String, Value>, context: CallContext| {
            counted.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&opened);
            async move {
                context.progress(1.0, Some(2.0), None);
                gate.acquire().await.expect("it stays open").forget();
                context.progress(2.0, Some(2.0), None);
                let bytes = arguments.get("bytes").and_then(Value::as_u64).unwrap_or(1);
                Ok("x".repeat(usize::try_from(bytes).expect("it fits")))
            }
        });
        let server = McpServer::builder("lab").tools([held]).build().expect("a server");
        Workshop { server: TestServer::of([server], |_| {}, Names), runs, gate }
    }

    /// A client that joins as a user, with a wish.
    fn visit(&self, user: &str, wish: Value) -> (Peer, Value) {
        let mut peer = self.server.connect_unchecked();
        let mut params = client_info();
        params["token"] = json!(user);
        params["lastMessageId"] = wish["lastMessageId"].clone();
        params["recoveryToken"] = wish["recoveryToken"].clone();
        let reply = peer.joined(SESSION, &params);
        (peer, reply)
    }
}

fn call(peer: &mut Peer, id: u64, arguments: Value) {
    let params = json!({"name": "held", "arguments": arguments, "_meta": {"progressToken": id}});
    peer.message(SESSION, &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
}

/// The positions that came, in order.
fn positions(peer: &Peer) -> Vec<u64> {
    let position = |frame: &Frame| frame.reference.as_str()?.strip_prefix('@')?.parse().ok();
    peer.frames.iter().filter_map(position).collect()
}

#[test]
fn an_answer_that_was_under_way_when_the_connection_broke_comes_after_the_next_join() {
    let workshop = Workshop::start();
    let (mut peer, joined) = workshop.visit("ann", json!({}));
    call(&mut peer, 1, json!({}));
    peer.wait(|frame| frame.reference == "@3");
    let seen = positions(&peer);
    assert_eq!(seen, [1, 2, 3]);
    peer.vanish();

    let (mut peer, again) =
        workshop.visit("ann", json!({"recoveryToken": joined["recoveryToken"], "lastMessageId": "@2"}));
    workshop.gate.add_permits(1);
    peer.wait(|frame| frame.is_response(&json!(1)));

    assert_eq!((&again["sessionId"], &again["resumed"]), (&joined["sessionId"], &json!(true)));
    assert_eq!(positions(&peer), [3, 4, 5, 6, 7]);
    assert_eq!(workshop.runs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_replay_of_more_than_an_outbox_holds_comes_as_fast_as_it_is_taken() {
    let workshop = Workshop::start();
    let (mut peer, joined) = workshop.visit("ann", json!({}));
    for id in 0..16 {
        call(&mut peer, id, json!({"bytes": 260_000}));
    }
    peer.vanish();
    // What is said before its loss was noticed counts as sent, and goes where the log is full.
    until("the client's loss is noticed", || workshop.server.mcp().session_stats().detached == 1);
    workshop.gate.add_permits(16);

    let (mut peer, again) = workshop.visit("ann", json!({"recoveryToken": joined["recoveryToken"]}));
    for id in 0..16 {
        let answer = peer.wait(|frame| frame.is_response(&json!(id))).payload;
        assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(260_000));
    }

    assert_eq!(again["resumed"], true);
    let seen = positions(&peer);
    assert!(seen.is_sorted_by(|one, other| one < other), "{seen:?}");
}

#[test]
fn a_token_is_worth_nothing_to_another_user() {
    let workshop = Workshop::start();
    let (peer, joined) = workshop.visit("ann", json!({}));

    let (_other, fresh) = workshop.visit("bob", json!({"recoveryToken": joined["recoveryToken"]}));
    assert_eq!(fresh["resumed"], false);
    assert!(peer.is_open());

    let (_newer, again) = workshop.visit("ann", json!({"recoveryToken": joined["recoveryToken"]}));
    assert_eq!(again["sessionId"], joined["sessionId"]);
    let mut peer = peer;
    peer.wait(|frame| frame.event == "phx_close" && frame.topic == SESSION);
}

#[test]
fn a_call_that_is_cut_off_and_asked_again_a_hundred_times_runs_once() {
    let workshop = Workshop::start();
    let (mut peer, mut reply) = workshop.visit("ann", json!({}));
    let mut last = 0;
    for round in 0..100 {
        call(&mut peer, 1, json!({"same": true}));
        last = positions(&peer).into_iter().max().unwrap_or(last);
        peer.vanish();
        if round == 50 {
            workshop.gate.add_permits(1);
        }
        let back = json!({"recoveryToken": reply["recoveryToken"], "lastMessageId": format!("@{last}")});
        (peer, reply) = workshop.visit("ann", back);
        assert_eq!(reply["resumed"], true, "round {round}");
    }

    call(&mut peer, 1, json!({"same": true}));
    peer.wait(|frame| frame.is_response(&json!(1)));
    assert_eq!(workshop.runs.load(Ordering::SeqCst), 1);
}
