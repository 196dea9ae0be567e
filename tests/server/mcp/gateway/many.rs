//! Many clients on one upstream, whose ids and tokens are all the same.

use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer};
use super::odd::{Listening, Log, ODD, call, client, noting};

const CLIENTS: usize = 50;
const CALLS: u64 = 3;
const REPORTS: u64 = 20;

fn check(server: &TestServer) {
    let mut peers: Vec<Peer> = (0..CLIENTS).map(|_| client(server)).collect();
    for peer in &mut peers {
        for id in 0..CALLS {
            let mut params = call("progress", json!({"count": REPORTS}));
            params["_meta"] = json!({"progressToken": id});
            peer.send(
                ODD,
                "mcp_message",
                &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}),
            );
        }
    }
    for peer in &mut peers {
        for id in 0..CALLS {
            let answer = peer.wait(|frame| frame.is_response(&json!(id))).payload;
            assert!(answer.get("result").is_some(), "{answer}");
        }
        for id in 0..CALLS {
            let answer = peer.frames.iter().position(|frame| frame.is_response(&json!(id))).expect("it came above");
            let of_token = |frame: &Value| frame["params"]["progressToken"] == json!(id);
            let told: Vec<_> = peer.frames[..answer].iter().filter(|frame| of_token(&frame.payload)).collect();
            let numbers: Vec<_> =
                told.iter().filter_map(|frame| frame.payload["params"]["progress"].as_f64()).collect();
            assert_eq!(numbers.len() as u64, REPORTS);
            assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
            assert!(!peer.frames[answer..].iter().any(|frame| of_token(&frame.payload)), "nothing follows the answer");
        }
    }
}

#[test]
fn fifty_clients_on_one_process_hear_their_own_and_in_order() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);

    check(&server);

    assert_eq!(log.pids().len(), 1);
    let mut ids: Vec<_> = log.messages("tools/call").iter().map(|call| call["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, CLIENTS as u64 * CALLS, "each has an id of its own there");
}

#[test]
fn fifty_clients_on_one_endpoint_hear_their_own_and_in_order() {
    let listening = Listening::start(&[], None);
    let server = TestServer::serving([listening.server(|_| {})]);

    check(&server);
}
