//! Streams of the legacy era that break, pause, and are picked up again.

use serde_json::json;

use bennu::mcp::auth::Development;

use super::lab::{LARGE_BYTES, Lab, request};

#[test]
fn events_come_as_they_happen_and_end_with_the_answer() {
    let lab = Lab::new();
    let client = lab.open("2025-06-18");

    let mut answer = client.call(1, "report");
    assert!(answer.is_stream());
    for step in 1..=4 {
        let event = answer.message();
        assert_eq!((event.json()["params"]["progress"].clone(), event.id), (json!(step), format!("1-{step}")));
        lab.gate.add_permits(1);
    }
    assert_eq!(answer.message().json()["result"]["content"][0]["text"], "reported");
    assert_eq!(answer.next(), None);

    let mut answer = client.call(2, "quick");
    assert_eq!(answer.message().json()["method"], "notifications/progress");
    assert_eq!((answer.message().id.as_str(), answer.next()), ("2-2", None));
}

#[test]
fn a_stream_that_broke_is_picked_up_and_nothing_comes_twice() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(7, "report");
    let first = answer.next().expect("a beginning");
    assert_eq!((first.id.as_str(), first.data.as_deref(), first.retry), ("1-0", Some(""), Some(1_000)));
    assert_eq!(answer.message().id, "1-1");
    lab.gate.add_permits(1);
    assert_eq!(answer.message().id, "1-2");
    answer.vanish();
    // Meanwhile the call goes on.
    lab.gate.add_permits(1);

    let mut again = client.get("1-1");
    assert_eq!((again.message().id.as_str(), again.message().id.as_str()), ("1-2", "1-3"));
    again.vanish();
    lab.gate.add_permits(2);
    let mut whole = client.get("1-0");
    let ids: Vec<_> = (0..5).map(|_| whole.message().id).collect();
    assert_eq!(ids, ["1-1", "1-2", "1-3", "1-4", "1-5"]);
    assert_eq!(whole.next(), None);

    let mut last = client.get("1-4");
    assert_eq!(last.message().json()["id"], 7);
    assert_eq!(last.next(), None);
    assert_eq!(client.get("1-5").status, 204, "the client has everything");
}

#[test]
fn whoever_picks_a_stream_up_takes_it_over() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(1, "report");
    let id = answer.message().id;

    let mut taken = client.get(&id);
    assert_eq!(answer.next(), None, "one reads at a time");
    lab.gate.add_permits(4);
    let rest: Vec<_> = (0..4).map(|_| taken.message().id).collect();
    assert_eq!(rest, ["1-2", "1-3", "1-4", "1-5"]);

    let mut standing = client.get("");
    let id = standing.next().expect("a beginning").id;
    lab.server.tools_changed();
    assert_eq!(standing.message().id, "0-1");
    let mut again = client.get(&id);
    assert_eq!((again.message().id.as_str(), standing.next()), ("0-1", None));
}

#[test]
fn a_call_may_let_its_client_go_and_have_it_come_back() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");

    let mut answer = client.call(1, "pause");
    assert_eq!(answer.message().json()["params"]["progress"], 1);
    assert_eq!(answer.next(), None, "the stream ends before the answer");
    lab.gate.add_permits(1);

    let mut again = client.get("1-1");
    assert_eq!(again.message().json()["params"]["progress"], 2);
    assert_eq!(again.message().json()["result"]["content"][0]["text"], "paused");
    assert_eq!(again.next(), None);

    let older = lab.open("2025-06-18");
    let mut answer = older.call(1, "pause");
    lab.gate.add_permits(1);
    let kinds: Vec<_> = (0..3).map(|_| answer.message().id).collect();
    assert_eq!((kinds.len(), answer.next()), (3, None), "a client that does not know of pauses has none");
}

#[test]
fn ids_that_were_never_given_are_refused() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(1, "quick");
    while answer.next().is_some() {}

    for wrong in ["x", "1", "1-", "-1-1", "1-+1", "01-1", "1-1-1", "99999999999999999999-1"] {
        assert_eq!(client.get(wrong).status, 400, "{wrong}");
    }
    for unknown in ["1-3", "2-0", "0-1", "1-18446744073709551615", "18446744073709551615-0"] {
        assert_eq!(client.get(unknown).status, 400, "{unknown}");
    }
    let other = lab.open("2025-11-25");
    assert_eq!(other.get("1-1").status, 400, "another session's streams are not found");
}

#[test]
fn a_client_that_leaves_does_not_cancel_its_call() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let answer = client.call(1, "wait");
    assert_eq!(lab.told(), "began");
    answer.vanish();
    assert_eq!(client.post(&request(2, "ping", json!({}))).status, 200);

    lab.gate.add_permits(1);

    assert_eq!(lab.told(), "finished");
}

#[test]
fn few_streams_are_kept_after_their_end() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    for id in 1..=40 {
        let mut answer = client.call(id, "quick");
        while answer.next().is_some() {}
    }

    let is_kept = |stream: u64| client.get(&format!("{stream}-0")).status == 200;

    assert!(!is_kept(1) && is_kept(40));
}

#[test]
fn a_silent_stream_gets_comments() {
    let lab = Lab::with(Development, |options| options.keep_alive_ms = 10);
    let client = lab.open("2025-06-18");
    let mut answer = client.call(1, "wait");

    let silent = answer.next().expect("a comment");

    assert!(silent.comment && silent.data.is_none() && silent.id.is_empty());
}

#[test]
fn ended_streams_of_a_session_are_kept_within_their_bytes_the_newest_in_any_case() {
    const KEPT_BYTES_MAX: usize = 4 << 20;
    let lab = Lab::new();
    let client = lab.open("2025-06-18");
    let fit = (KEPT_BYTES_MAX / LARGE_BYTES) as u64;

    for id in 1..=fit + 2 {
        let mut answer = client.call(id, "large");
        while answer.next().is_some() {}
    }

    let last = fit + 2;
    let mut again = client.get(&format!("{last}-1"));
    assert_eq!(again.message().json()["result"]["content"][0]["text"].as_str().map(str::len), Some(LARGE_BYTES));
    assert_eq!(client.get("1-1").status, 400, "the oldest is forgotten");
    assert_eq!(client.get(&format!("{}-2", last - 1)).status, 204, "the one before is kept");
}
