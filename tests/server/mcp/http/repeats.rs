//! Calls of the legacy era that are asked again, because their client does not know whether they were heard.

use serde_json::{Value, json};

use super::lab::{Lab, call, initialize, request};

fn keyed(id: u64, tool: &str, key: &str) -> Value {
    let meta = json!({"progressToken": id, "idempotencyKey": key});
    request(id, "tools/call", json!({"name": tool, "arguments": {}, "_meta": meta}))
}

#[test]
fn a_call_that_is_asked_again_while_it_runs_goes_on_on_the_later_stream() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let mut lost = client.call(1, "report");
    assert_eq!(lost.message().id, "1-1");
    lost.vanish();
    lab.wait_for_events(2);

    let mut again = client.call(1, "report");
    lab.gate.add_permits(4);

    let steps: Vec<_> = (0..3).map(|_| again.message().json()["params"]["progress"].clone()).collect();
    assert_eq!(steps, [json!(2), json!(3), json!(4)], "one call, from there on");
    let answer = again.message().json();
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(1), &json!("reported")));
    assert_eq!(again.next(), None);
}

#[test]
fn a_call_whose_stream_lives_is_not_asked_again() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(1, "wait");
    assert_eq!(lab.told(), "began");

    for refused in [call(1, "wait"), call(1, "report"), keyed(1, "wait", "k")] {
        assert_eq!(client.post(&refused).json()["error"]["code"], -32600, "{refused}");
    }
    assert_eq!(client.post(&request(1, "tools/call", json!({"name": "wait", "arguments": {"a": 1}}))).status, 200);

    lab.gate.add_permits(1);
    assert_eq!(answer.message().json()["result"]["content"][0]["text"], "waited");
    assert_eq!((answer.next(), lab.told()), (None, "finished"));
}

#[test]
fn a_call_that_has_ended_and_was_not_read_is_answered_again_or_gives_way_to_another() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let lose = |id: u64| {
        let answer = client.call(id, "wait");
        assert_eq!(lab.told(), "began");
        answer.vanish();
        while !lab.wait_for_events(1).iter().any(|event| event == "Detached") {}
        lab.gate.add_permits(1);
        assert_eq!(lab.told(), "finished");
    };

    lose(1);
    // Its end may not have been noted yet; then the rest comes on a stream.
    assert!(client.call(1, "wait").body().contains("waited"), "it would wait for its gate if it ran again");

    lose(2);
    let echo = client.call(2, "echo").json();
    assert_eq!((&echo["id"], echo["result"].is_object()), (&json!(2), true), "another call of that id: {echo}");
}

#[test]
fn a_key_names_a_call_whatever_its_id() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let lost = client.post(&keyed(1, "wait", "one"));
    assert_eq!(lab.told(), "began");
    lost.vanish();
    lab.wait_for_events(2);

    let mut again = client.post(&keyed(2, "wait", "one"));
    lab.gate.add_permits(1);
    assert_eq!((again.message().json()["id"].clone(), lab.told()), (json!(2), "finished"));
    assert_eq!(again.next(), None);

    assert_eq!(client.post(&keyed(3, "wait", "one")).json()["id"], 3);
    assert_eq!(client.post(&keyed(4, "echo", "one")).json()["error"]["code"], -32600);
    assert_eq!(client.post(&keyed(5, "echo", "")).json()["error"]["code"], -32602);
}

#[test]
fn a_call_taken_back_is_not_run_again_and_one_not_run_leaves_no_trace() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let mut answer = client.call(1, "wait");
    assert_eq!(lab.told(), "began");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(client.post(&cancel).status, 202);
    assert_eq!((lab.told(), answer.next()), ("dropped", None));
    assert_eq!(client.call(1, "wait").json()["error"]["code"], -32600);

    // A hub asks who has a tool, and counts that as a run.
    let post = |session: &str, message: &Value| {
        lab.post_to("/mcp/lab", &[("Mcp-Session-Id", session)], message.to_string().as_bytes())
    };
    let opened = post("", &initialize("2025-06-18"));
    let session = opened.header("mcp-session-id").expect("a session").to_owned();
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!((opened.json()["id"].clone(), post(&session, &initialized).status), (json!(0), 202));
    assert_eq!(post(&session, &call(2, "unknown")).json()["error"]["code"], -32602);
    assert!(post(&session, &call(2, "echo")).json()["result"].is_object());
}

#[test]
fn a_batch_asks_no_call_again_that_is_under_way() {
    let lab = Lab::new();
    let client = lab.open("2025-03-26");
    let lost = client.post(&json!([call(1, "wait"), call(2, "wait")]));
    assert_eq!((lab.told(), lab.told()), ("began", "began"));
    lost.vanish();
    lab.wait_for_events(2);

    let refused = client.post(&json!([call(1, "wait")])).json();
    assert_eq!((refused[0]["id"].clone(), refused[0]["error"]["code"].clone()), (json!(1), json!(-32600)));

    let mut again = client.call(1, "wait");
    lab.gate.add_permits(2);
    let mut ids = [again.message().json()["id"].clone(), again.message().json()["id"].clone()];
    ids.sort_by_key(Value::as_u64);
    assert_eq!((ids, again.next()), ([json!(1), json!(2)], None), "the stream on which it was asked");
}

#[test]
fn an_id_whose_answer_was_read_is_free_again_and_a_key_is_not() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    lab.gate.add_permits(8);
    for (n, asked) in [call(1, "wait"), call(1, "wait"), keyed(2, "wait", "k"), call(1, "report")].iter().enumerate() {
        let body = client.post(asked).body();
        assert!(body.contains(if n == 3 { "reported" } else { "waited" }), "{asked}: {body}");
    }
    assert!(client.post(&keyed(3, "wait", "k")).body().contains("waited"));
    let told: Vec<_> = (0..6).map(|_| lab.told()).collect();
    assert_eq!(told, ["began", "finished"].repeat(3), "what had a key ran once");
}
