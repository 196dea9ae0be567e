//! Planted faults that the check of the order has to find, and what it must let pass.

use serde_json::{Value, json};

use crate::run_order::{Call, Seen, Work};

const WORK: Work = Work { sessions: 2, calls_per_session: 2, steps: 3, tool: "count", steps_argument: "steps" };

type Frames = Vec<(String, &'static str, Value)>;

fn calls() -> Vec<Call> {
    WORK.calls(|session| format!("mcp:server:test:{session}"))
}

fn progress(call: &Call, progress: u64) -> (String, &'static str, Value) {
    let params = json!({"progressToken": call.id, "progress": progress, "total": WORK.steps});
    (call.topic.clone(), "mcp_message", json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
}

fn end(call: &Call) -> (String, &'static str, Value) {
    (call.topic.clone(), "mcp_message", json!({"jsonrpc": "2.0", "id": call.id, "result": {"content": []}}))
}

/// What a caller sees if all is well: the steps of the calls interleave.
fn caller() -> Frames {
    let calls = calls();
    let steps = (1..=WORK.steps).flat_map(|n| calls.iter().map(move |call| progress(call, n)));
    steps.chain(calls.iter().rev().map(end)).collect()
}

fn event(kind: &str, data: Value) -> Value {
    json!({"type": kind, "data": data})
}

/// What an observer sees if all is well; it joined the runs at different moments.
fn observer() -> Frames {
    let mut frames = Vec::new();
    for (run, joined_at) in ["a", "b", "c", "d"].into_iter().zip(0..) {
        let topic = format!("mcp:run:{run}");
        let mut events = vec![event("tool_started", json!({}))];
        events.extend((1..=WORK.steps).map(|n| event("tool_progress", json!({"progress": n}))));
        events.push(event("tool_completed", json!({})));
        let live = events.split_off(1 + joined_at);
        let reply = json!({"status": "ok", "response": {"run": {"run_id": run}, "events": events}});
        frames.push((topic.clone(), "phx_reply", reply));
        frames.extend(live.into_iter().map(|event| (topic.clone(), "streaming_event", event)));
    }
    frames
}

fn seen(frames: &Frames) -> impl Iterator<Item = Seen<'_>> {
    frames.iter().map(|(topic, event, payload)| Seen { topic, event, payload })
}

#[track_caller]
fn refused_at_caller(frames: &Frames, expected: &[&str]) {
    let faults = WORK.check_caller(&calls(), seen(frames)).expect_err("it is refused");
    assert_eq!(faults, expected);
}

#[track_caller]
fn refused_at_observer(frames: &Frames, expected: &[&str]) {
    let faults = WORK.check_observer(4, seen(frames)).expect_err("it is refused");
    assert_eq!(faults, expected);
}

#[test]
fn interleaved_calls_in_their_order_pass() {
    assert_eq!(WORK.check_caller(&calls(), seen(&caller())), Ok(()));
    assert_eq!(WORK.check_observer(4, seen(&observer())), Ok(()));
}

#[test]
fn a_run_that_is_told_as_json_rpc_passes() {
    let call = &calls()[0];
    let frames: Frames = (1..=3).map(|n| progress(call, n)).chain([end(call)]).collect();
    let frames = frames.into_iter().map(|(_, event, payload)| ("mcp:run:a".to_owned(), event, payload)).collect();

    assert_eq!(WORK.check_observer(1, seen(&frames)), Ok(()));
}

#[test]
fn swapped_progress_is_found() {
    let mut frames = caller();
    frames.swap(0, 4);

    refused_at_caller(
        &frames,
        &[
            "call-0-0: progress 2 where 1 was next",
            "call-0-0: progress 1 where 3 was next",
            "call-0-0: progress 3 where 2 was next",
        ],
    );
}

#[test]
fn missing_progress_is_found() {
    let mut frames = caller();
    frames.remove(4);

    refused_at_caller(&frames, &["call-0-0: progress 3 where 2 was next"]);
}

#[test]
fn missing_progress_before_the_end_is_found() {
    let mut frames = caller();
    frames.remove(8);

    refused_at_caller(&frames, &["call-0-0: Ended after 2 of 3 steps"]);
}

#[test]
fn progress_after_its_result_is_found() {
    let mut frames = caller();
    let last = frames.remove(8);
    frames.push(last);

    refused_at_caller(&frames, &["call-0-0: Ended after 2 of 3 steps", "call-0-0: Progress(3.0) after the end"]);
}

#[test]
fn repeated_progress_is_found() {
    let mut frames = caller();
    frames.insert(5, frames[4].clone());

    refused_at_caller(&frames, &["call-0-0: progress 2 where 3 was next"]);
}

#[test]
fn a_second_result_is_found() {
    let mut frames = caller();
    frames.push(end(&calls()[0]));

    refused_at_caller(&frames, &["call-0-0: Ended after the end"]);
}

#[test]
fn a_call_without_a_result_is_found() {
    let mut frames = caller();
    frames.pop();

    refused_at_caller(&frames, &["call-0-0: no end after 3 steps"]);
}

#[test]
fn a_failure_is_found() {
    let mut frames = caller();
    frames.last_mut().expect("frames").2 = json!({"jsonrpc": "2.0", "id": "call-0-0", "error": {"code": -32000}});

    refused_at_caller(&frames, &["call-0-0: Failed after 3 of 3 steps"]);
}

#[test]
fn progress_on_the_topic_of_another_session_is_found() {
    let mut frames = caller();
    frames[0].0 = calls()[3].topic.clone();

    refused_at_caller(
        &frames,
        &[
            "call-0-0: Progress(1.0) on mcp:server:test:1, which is not its topic",
            "call-0-0: progress 2 where 1 was next",
        ],
    );
}

#[test]
fn an_observers_swapped_events_are_found() {
    let mut frames = observer();
    frames.swap(1, 2);

    refused_at_observer(
        &frames,
        &[
            "run a: progress 2 where 1 was next",
            "run a: progress 1 where 3 was next",
            "run a: progress 3 where 2 was next",
        ],
    );
}

#[test]
fn what_an_observer_gets_in_the_reply_and_again_live_is_found() {
    let mut frames = observer();
    let again = frames[2].clone();
    let at_join = frames.iter().position(|(topic, event, _)| topic == "mcp:run:c" && *event == "phx_reply");
    let at_join = at_join.expect("it joined");
    frames.insert(at_join + 1, ("mcp:run:c".to_owned(), again.1, again.2));

    refused_at_observer(&frames, &["run c: progress 2 where 3 was next"]);
}

#[test]
fn an_observers_missing_end_is_found() {
    let mut frames = observer();
    frames.pop();

    refused_at_observer(&frames, &["run d: no end after 3 steps"]);
}

#[test]
fn an_observers_missing_run_is_found() {
    let mut frames = observer();
    frames.retain(|(topic, _, _)| topic != "mcp:run:d");

    refused_at_observer(&frames, &["expected 4 runs, saw 3"]);
}
