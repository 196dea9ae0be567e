//! Calling tools: the order of what the caller gets, failures, cancelling, several calls and sessions at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::peer::{Frame, TestServer, client_info};

fn countdown(seconds: u64, interval_ms: u64) -> Value {
    json!({"name": "countdown", "arguments": {"seconds": seconds, "interval_ms": interval_ms}})
}

/// What a call brought its caller, in a word each.
fn words(frames: &[Frame], topic: &str) -> Vec<String> {
    let mine = frames.iter().filter(|frame| frame.topic == topic && frame.event != "phx_reply");
    mine.map(|frame| match frame.event.as_str() {
        "streaming_event" => frame.kind().expect("an event").to_owned(),
        "mcp_message" => frame.payload["method"].as_str().unwrap_or("response").to_owned(),
        other => other.to_owned(),
    })
    .collect()
}

#[test]
fn a_call_starts_progresses_completes_and_is_answered_in_this_order() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    let (id, token) = (json!({"my": "id"}), json!("tok"));
    let mut params = countdown(1, 500);
    params["_meta"] = json!({"progressToken": token});

    let run = peer.call("mcp:session", &id, &params);
    let response = peer.wait(|frame| frame.is_response(&id)).payload;

    let step = ["tool_progress", "notifications/progress"];
    let expected = [&["tool_started"], &step[..], &step[..], &["tool_completed", "response"]].concat();
    assert_eq!(words(&peer.frames, "mcp:session"), expected);
    assert_eq!(run.len(), 32);
    for (event, seq) in peer.of("mcp:session", "streaming_event").into_iter().zip(1..) {
        let event = &event.payload;
        assert_eq!((&event["stream_id"], &event["request_id"], &event["seq"]), (&json!(run), &id, &json!(seq)));
        assert_eq!(event["data"]["tool"], "countdown");
    }
    let notified: Vec<_> =
        peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/progress").collect();
    let told = json!({"progressToken": token, "progress": 1, "total": 2, "message": "0.5 s left"});
    assert_eq!(notified[0].payload, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": told}));
    assert_eq!(response["result"]["content"], json!([{"type": "text", "text": "counted down 1 s in 2 steps"}]));
    let metadata = &response["result"]["metadata"];
    assert_eq!((&metadata["tool"], &metadata["resourceUsage"]), (&json!("countdown"), &json!({"steps": 2})));
    let time = metadata["executionTime"].as_u64().expect("milliseconds");
    assert!((1_000..3_000).contains(&time), "{time}");
}

#[test]
fn without_a_token_there_are_no_progress_notifications() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    peer.request(json!(1), "tools/call", json!({"name": "stream_hash", "arguments": {"bytes": 5_000_000}}));

    let words = words(&peer.frames, "mcp:session");
    assert!(!words.iter().any(|word| word == "notifications/progress"), "{words:?}");
    assert_eq!(words.iter().filter(|word| *word == "tool_completed").count(), 1);
}

#[test]
fn failures_inside_a_call_are_in_band_and_unfit_parameters_are_not() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    let unknown = peer.request(json!(1), "tools/call", json!({"name": "nothing"}));
    let unfit = peer.request(json!(2), "tools/call", countdown(99, 100));
    let unset = peer.request(json!(3), "tools/call", json!({"name": "text_search", "arguments": {"query": "x"}}));

    let text = |response: &Value| response["result"]["content"][0]["text"].as_str().expect("a text").to_owned();
    for response in [&unknown, &unfit, &unset] {
        assert_eq!(response["result"]["isError"], true);
    }
    assert_eq!(text(&unknown), "Tool execution failed: tool_not_found");
    let expected = "Tool execution failed: invalid arguments: seconds: 99 is greater than the maximum of 60";
    assert_eq!(text(&unfit), expected);
    assert!(text(&unset).contains("mcp.search_root"));
    let runs: Vec<_> = peer.frames.iter().filter(|frame| frame.kind() == Some("tool_failed")).collect();
    assert_eq!(runs.len(), 1, "the unknown tool and the unfit arguments were no runs");
    assert_eq!(runs[0].payload["data"]["reason"], "failed");
    let listed = peer.joined("mcp:runs", &json!({}));
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1));
    let long = json!({"name": "countdown", "arguments": {"seconds": 1, "unknown": "x".repeat(70_000)}});
    let error = peer.request(json!(8), "tools/call", long)["error"].clone();
    let message = error["message"].as_str().expect("a message");
    assert!(error["code"] == -32602 && message.starts_with("Invalid params: arguments: expected at most 65536 bytes"));
    for (id, params) in [(4, json!({})), (5, json!({"name": 7})), (6, Value::Null), (7, json!([]))] {
        assert_eq!(peer.request(json!(id), "tools/call", params)["error"]["code"], -32602);
    }
}

#[test]
fn a_cancelled_call_ends_as_failed_and_gets_no_response() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    peer.call("mcp:session", &json!("a"), &countdown(30, 100));
    peer.call("mcp:session", &json!("b"), &countdown(1, 100));

    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}});
    peer.message("mcp:session", &cancel);

    let end = peer.wait(|frame| frame.is_terminal() && frame.payload["request_id"] == "a").payload;
    assert_eq!((&end["type"], &end["data"]["reason"]), (&json!("tool_failed"), &json!("cancelled")));
    peer.wait(|frame| frame.is_response(&json!("b")));
    peer.request(json!("c"), "ping", json!({}));
    assert!(!peer.frames.iter().any(|frame| frame.is_response(&json!("a"))));
    let after = peer.frames.iter().skip_while(|frame| !frame.is_terminal());
    assert!(!after.skip(1).any(|frame| frame.payload["request_id"] == "a"), "nothing follows the end");
}

#[test]
fn calls_run_side_by_side_and_are_answered_as_they_end() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());

    peer.call("mcp:session", &json!("slow"), &countdown(2, 1_000));
    peer.call("mcp:session", &json!("quick"), &countdown(1, 1_000));
    peer.request(json!("at once"), "ping", json!({}));
    peer.wait(|frame| frame.is_response(&json!("slow")));

    let answered = peer.frames.iter().filter(|frame| frame.event == "mcp_message").map(|frame| &frame.payload["id"]);
    assert_eq!(answered.collect::<Vec<_>>(), ["at once", "quick", "slow"]);
}

#[test]
fn a_session_has_so_many_calls_under_way_and_then_room_again() {
    let server = TestServer::start(|settings| settings.calls_per_session_max = 2);
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    peer.joined("mcp:session:b", &client_info());
    peer.call("mcp:session", &json!(1), &countdown(1, 1_000));
    peer.call("mcp:session", &json!(2), &countdown(1, 1_000));

    let refused = peer.request(json!(3), "tools/call", countdown(1, 1_000));

    let error = json!({"code": -32000, "message": "Too many concurrent calls: the limit is 2"});
    assert_eq!(refused["error"], error);
    peer.call("mcp:session:b", &json!(4), &countdown(1, 1_000));
    peer.wait(|frame| frame.is_response(&json!(1)));
    peer.call("mcp:session", &json!(5), &countdown(1, 1_000));
}

#[test]
fn a_connection_has_a_share_of_the_runs_however_many_sessions_it_has() {
    let server = TestServer::start(|settings| {
        settings.calls_per_session_max = 2;
        settings.runs_max = 16;
    });
    let mut greedy = server.connect();
    for session in 0..3 {
        greedy.joined(&format!("mcp:session:{session}"), &client_info());
    }
    for call in 0..4 {
        greedy.call(&format!("mcp:session:{}", call / 2), &json!(call), &countdown(5, 1_000));
    }

    let params = countdown(5, 1_000);
    let call = json!({"jsonrpc": "2.0", "id": "more", "method": "tools/call", "params": params});
    greedy.message("mcp:session:2", &call);
    let refused = greedy.wait(|frame| frame.is_response(&json!("more"))).payload;

    let message = "Too many concurrent calls on this connection: the limit is 4";
    assert_eq!(refused["error"], json!({"code": -32000, "message": message}));
    let mut other = server.connect();
    other.joined("mcp:session", &client_info());
    other.call("mcp:session", &json!(1), &params);
}

#[test]
fn an_observer_that_rejoins_thousands_of_times_costs_its_socket_nothing() {
    const SESSION: &str = "mcp:session";
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    let id = peer.joined(SESSION, &client_info())["sessionId"].clone();
    for call in 0..16 {
        peer.call(SESSION, &json!(call), &countdown(60, 100));
    }

    for _ in 0..2_000 {
        peer.joined("mcp:session:streaming", &json!({"session_id": id}));
        peer.frames.clear();
    }
    peer.listen(Duration::from_secs(1));

    // Ten steps of sixteen calls, each seen once by the session and once by the last observer.
    let seen = |topic: &str| peer.of(topic, "streaming_event").len();
    assert!((100..=240).contains(&seen(SESSION)), "{}", seen(SESSION));
    assert!(seen("mcp:session:streaming").abs_diff(seen(SESSION)) <= 32, "{}", seen("mcp:session:streaming"));
    peer.request(json!("still"), "ping", json!({}));
}

#[test]
fn two_sessions_on_one_socket_have_their_own_calls_under_the_same_ids() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    peer.joined("mcp:session:b", &client_info());

    let one = peer.call("mcp:session", &json!(1), &countdown(1, 500));
    let other = peer.call("mcp:session:b", &json!(1), &countdown(1, 250));
    for topic in ["mcp:session", "mcp:session:b"] {
        peer.wait(|frame| frame.topic == topic && frame.is_response(&json!(1)));
    }

    for (topic, run, steps) in [("mcp:session", one, 2), ("mcp:session:b", other, 4)] {
        let events = peer.of(topic, "streaming_event");
        assert_eq!(events.len(), steps + 2);
        assert!(events.iter().all(|event| event.payload["stream_id"] == run));
    }
}

#[test]
fn calls_end_with_their_session_left_or_replaced() {
    let server = TestServer::start(|_| {});
    let ways: [fn(super::peer::Peer); 2] = [
        |mut peer| {
            peer.push("mcp:session", "phx_leave", &json!({}));
        },
        |mut peer| {
            peer.joined("mcp:session", &client_info());
        },
    ];

    for end in ways {
        let mut peer = server.connect();
        peer.joined("mcp:session", &client_info());
        let run = peer.call("mcp:session", &json!(1), &countdown(30, 1_000));
        let mut watcher = server.connect();
        watcher.joined(&format!("mcp:run:{run}"), &json!({}));

        end(peer);

        let last = watcher.wait(Frame::is_terminal).payload;
        assert_eq!(last["data"]["error"], "cancelled: the session ended");
    }
}

#[test]
fn calls_of_a_client_that_is_lost_run_to_their_end() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    peer.joined("mcp:session", &client_info());
    let run = peer.call("mcp:session", &json!(1), &countdown(1, 500));
    let mut watcher = server.connect();
    watcher.joined(&format!("mcp:run:{run}"), &json!({}));

    peer.vanish();

    let last = watcher.wait(Frame::is_terminal);
    assert_eq!(last.kind(), Some("tool_completed"));
}

#[test]
fn an_observer_sees_the_events_of_its_session_alone_from_its_join_on() {
    let server = TestServer::start(|_| {});
    let mut peer = server.connect();
    let id = peer.joined("mcp:session", &client_info())["sessionId"].clone();
    peer.joined("mcp:session:b", &client_info());
    peer.call("mcp:session:b", &json!("other"), &countdown(2, 200));
    peer.call("mcp:session", &json!("early"), &countdown(2, 200));

    let stranger = server.connect().refused("mcp:session:streaming", &json!({"session_id": id}));
    let observed = peer.joined("mcp:session:streaming", &json!({"session_id": id}));
    peer.call("mcp:session", &json!("late"), &countdown(1, 200));
    peer.wait(|frame| frame.is_response(&json!("early")));
    peer.wait(|frame| frame.is_response(&json!("late")));
    peer.listen(Duration::from_millis(100));

    assert_eq!((stranger.as_str(), observed), ("Session not found", json!({})));
    let seen = |topic: &str, request: &str| -> Vec<Value> {
        let events = peer.of(topic, "streaming_event");
        events.into_iter().map(|frame| frame.payload.clone()).filter(|event| event["request_id"] == request).collect()
    };
    assert_eq!(seen("mcp:session:streaming", "late"), seen("mcp:session", "late"));
    assert_eq!(seen("mcp:session:streaming", "other"), Vec::<Value>::new());
    let (early, whole) = (seen("mcp:session:streaming", "early"), seen("mcp:session", "early"));
    assert!(!early.is_empty() && early.len() < whole.len() && whole.ends_with(&early), "{early:#?}");
}
