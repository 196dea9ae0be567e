//! Watching runs of others: what was, then what is, nothing twice and nothing missing.

use std::time::Duration;

use serde_json::{Value, json};

use super::peer::{Peer, TestServer, client_info};

fn countdown(seconds: u64, interval_ms: u64) -> Value {
    json!({"name": "countdown", "arguments": {"seconds": seconds, "interval_ms": interval_ms}})
}

/// A watcher's events: those of the join reply, then those that came.
pub fn watched(peer: &mut Peer, topic: &str, reply: &Value) -> Vec<Value> {
    let mut events = reply["events"].as_array().expect("events").clone();
    let ended = |event: &Value| event["type"] == "tool_completed" || event["type"] == "tool_failed";
    if !events.iter().any(ended) {
        peer.wait(|frame| frame.topic == topic && frame.is_terminal());
    }
    events.extend(peer.of(topic, "streaming_event").into_iter().map(|frame| frame.payload.clone()));
    events
}

#[test]
fn whoever_joins_a_run_at_whatever_moment_sees_each_event_once_in_order() {
    let server = TestServer::start(|_| {});
    let mut caller = server.connect();
    caller.joined("mcp:session", &client_info());
    let run = caller.call("mcp:session", &json!(1), &countdown(2, 100));
    let topic = format!("mcp:run:{run}");

    // Joins fall before, between and upon the steps of 100 ms.
    let mut watchers = Vec::new();
    for _ in 0..60 {
        let mut peer = server.connect();
        let reply = peer.joined(&topic, &json!({}));
        watchers.push((peer, reply));
        std::thread::sleep(Duration::from_millis(29));
    }
    caller.wait(|frame| frame.is_response(&json!(1)));
    let expected: Vec<_> =
        caller.of("mcp:session", "streaming_event").iter().map(|frame| frame.payload.clone()).collect();
    assert_eq!(expected.len(), 22);

    for (mut peer, reply) in watchers {
        assert_eq!(watched(&mut peer, &topic, &reply), expected);
    }
    let late = server.connect().joined(&topic, &json!({}));
    assert_eq!(late["events"], json!(expected));
    let about = &late["run"];
    let told = (&about["run_id"], &about["tool"], &about["status"], &about["events"], &about["dropped_events"]);
    assert_eq!(told, (&json!(run), &json!("countdown"), &json!("completed"), &json!(22), &json!(0)));
    assert!(about["started_at"].is_string() && about["finished_at"].is_string());
}

#[test]
fn a_run_that_ends_while_it_is_joined_is_seen_to_its_end() {
    let server = TestServer::start(|_| {});
    let mut caller = server.connect();
    let mut watchers: Vec<_> = (0..16).map(|_| server.connect()).collect();
    caller.joined("mcp:session", &client_info());

    // Runs of some microseconds to some milliseconds: their ends fall before, into and after the joins.
    for round in 0..200 {
        let hash = json!({"name": "stream_hash", "arguments": {"bytes": round % 100 * 20_000}});
        let run = caller.call("mcp:session", &json!(round), &hash);
        let topic = format!("mcp:run:{run}");
        let joins: Vec<_> = watchers.iter_mut().map(|peer| peer.send(&topic, "phx_join", &json!({}))).collect();
        caller.wait(|frame| frame.is_response(&json!(round)));
        let expected: Vec<_> =
            caller.of("mcp:session", "streaming_event").iter().map(|frame| frame.payload.clone()).collect();

        for (peer, join) in watchers.iter_mut().zip(joins) {
            let reply = peer.reply_to(join);
            assert_eq!(watched(peer, &topic, &reply["response"]), expected, "round {round}");
            peer.push(&topic, "phx_leave", &json!({}));
            peer.frames.clear();
        }
        caller.frames.clear();
    }
}

#[test]
fn a_log_at_its_bound_tells_how_much_it_dropped() {
    let server = TestServer::start(|settings| settings.run_events_max = 4);
    let mut caller = server.connect();
    caller.joined("mcp:session", &client_info());

    let run = caller.call("mcp:session", &json!(1), &countdown(1, 100));
    caller.wait(|frame| frame.is_response(&json!(1)));

    let late = server.connect().joined(&format!("mcp:run:{run}"), &json!({}));
    let seqs: Vec<_> = late["events"].as_array().expect("events").iter().map(|event| event["seq"].clone()).collect();
    assert_eq!(seqs, [1, 10, 11, 12]);
    assert_eq!((&late["run"]["events"], &late["run"]["dropped_events"]), (&json!(12), &json!(8)));
    assert_eq!(caller.of("mcp:session", "streaming_event").len(), 12, "the caller saw them all");
}

#[test]
fn a_run_can_be_joined_until_its_retention_is_over() {
    let server = TestServer::start(|settings| settings.run_retention_ms = 300);
    let mut caller = server.connect();
    caller.joined("mcp:session", &client_info());
    let run = caller.call("mcp:session", &json!(1), &countdown(1, 1_000));
    caller.wait(|frame| frame.is_response(&json!(1)));
    let topic = format!("mcp:run:{run}");
    server.connect().joined(&topic, &json!({}));

    std::thread::sleep(Duration::from_millis(350));

    assert_eq!(server.connect().refused(&topic, &json!({})), "run not found");
    assert_eq!(server.connect().joined("mcp:runs", &json!({})), json!({"runs": []}));
}

#[test]
fn runs_are_listed_and_their_begin_and_end_announced() {
    let server = TestServer::start(|_| {});
    let mut caller = server.connect();
    let session = caller.joined("mcp:session", &client_info())["sessionId"].clone();
    let early = caller.call("mcp:session", &json!(1), &countdown(1, 1_000));
    let mut watcher = server.connect();

    let reply = watcher.joined("mcp:runs", &json!({}));
    let late = caller.call("mcp:session", &json!(2), &countdown(1, 1_000));
    for run in [&early, &late] {
        watcher.wait(|frame| frame.event == "run_finished" && frame.payload["run_id"] == **run);
    }

    let runs = reply["runs"].as_array().expect("runs");
    assert_eq!((runs.len(), &runs[0]["run_id"], &runs[0]["status"]), (1, &json!(early), &json!("running")));
    let started: Vec<_> = watcher.of("mcp:runs", "run_started").iter().map(|frame| &frame.payload["run_id"]).collect();
    assert_eq!(started, [&late]);
    let finished = watcher.of("mcp:runs", "run_finished");
    assert_eq!(finished.len(), 2);
    assert!(finished.iter().all(|frame| frame.payload["status"] == "completed"));
    let session = session.as_str().expect("an id");
    let told = watcher.frames.iter().map(|frame| frame.payload.to_string()).collect::<String>();
    assert!(!told.contains(session) && !told.contains("mcp_session_"), "no session id leaves its client");
}

#[test]
fn watching_topics_take_no_events() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    let id = peer.joined("mcp:session", &client_info())["sessionId"].clone();
    peer.joined("mcp:session:streaming", &json!({"session_id": id}));
    let run = peer.call("mcp:session", &json!(1), &countdown(1, 1_000));
    peer.joined(&format!("mcp:run:{run}"), &json!({}));
    peer.joined("mcp:runs", &json!({}));

    for topic in ["mcp:session:streaming", &format!("mcp:run:{run}"), "mcp:runs"] {
        let reply = peer.push(topic, "streaming_event", &json!({"forged": true}));
        assert_eq!(reply, json!({"status": "error", "response": {"reason": "unknown event"}}));
    }
}
