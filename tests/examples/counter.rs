//! examples/counter.rs, on virtual time.

use std::time::Duration;

use bennu::Endpoint;
use bennu::testing::{Client, TestChannel, TestSocket};
use serde_json::json;
use tokio::time::{Instant, advance};

#[path = "../../examples/counter.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

async fn joined() -> (TestSocket, TestChannel) {
    let socket = example::socket(&Endpoint::start()).build();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let counter = client.join("counter:a", json!({})).await.expect("everyone may join");
    (client, counter)
}

async fn call(counter: &TestChannel, event: &str, payload: serde_json::Value) -> (String, serde_json::Value) {
    let reply = counter.call(event, payload).await;
    (reply.status.to_string(), reply.response.parse().expect("JSON"))
}

fn ok(response: serde_json::Value) -> (String, serde_json::Value) {
    ("ok".to_owned(), response)
}

#[tokio::test(start_paused = true)]
async fn it_ticks_from_start_to_stop() {
    let (_client, counter) = joined().await;
    counter.refute_push("tick").await;

    let began = Instant::now();
    assert_eq!(call(&counter, "start", json!({})).await, ok(json!({"count": 0})));
    for count in 1..=3 {
        counter.assert_push("tick", json!({"count": count})).await;
        assert_eq!(began.elapsed().as_secs(), count);
    }
    assert_eq!(call(&counter, "stop", json!({})).await, ok(json!({"count": 3})));

    advance(Duration::from_secs(10)).await;
    counter.refute_push("tick").await;
    assert_eq!(call(&counter, "start", json!({})).await, ok(json!({"count": 3})));
    counter.assert_push("tick", json!({"count": 4})).await;
}

#[tokio::test(start_paused = true)]
async fn starting_over_and_over_makes_one_timer() {
    let (_client, counter) = joined().await;
    for _ in 0..5 {
        call(&counter, "stop", json!({})).await;
        call(&counter, "start", json!({})).await;
    }

    let began = Instant::now();
    advance(Duration::from_millis(500)).await;
    call(&counter, "start", json!({})).await;
    for count in 1..=4 {
        counter.assert_push("tick", json!({"count": count})).await;
    }
    assert_eq!(began.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_interval_can_be_changed_within_bounds() {
    let (_client, counter) = joined().await;
    assert_eq!(call(&counter, "set_interval", json!({"ms": 50})).await, ok(json!({})));
    for bad in [json!({"ms": 9}), json!({"ms": 60_001}), json!({"ms": "50"}), json!({})] {
        assert_eq!(call(&counter, "set_interval", bad).await.0, "error");
    }

    let began = Instant::now();
    call(&counter, "start", json!({})).await;
    counter.assert_push("tick", json!({"count": 4})).await;
    assert_eq!(began.elapsed().as_millis() / 10, 20);
}

#[tokio::test(start_paused = true)]
async fn who_awaits_a_count_is_answered_when_it_is_reached() {
    let (_client, counter) = joined().await;
    let third = counter.push("await", json!({"count": 3}));
    let second = counter.push("await", json!({"count": 2}));
    call(&counter, "start", json!({})).await;

    counter.assert_push("tick", json!({"count": 1})).await;
    counter.refute_reply(&second).await;
    counter.assert_reply(&second, "ok", json!({"count": 2})).await;
    counter.refute_reply(&third).await;
    counter.assert_reply(&third, "ok", json!({"count": 3})).await;
    assert_eq!(call(&counter, "await", json!({"count": 1})).await, ok(json!({"count": 3})));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_answers_are_owed() {
    let (_client, counter) = joined().await;
    for _ in 0..16 {
        counter.push("await", json!({"count": 9}));
    }
    assert_eq!(call(&counter, "await", json!({"count": 9})).await.0, "error");
    assert_eq!(call(&counter, "await", json!({})).await.0, "error");
}

#[tokio::test(start_paused = true)]
async fn its_timer_ends_when_it_is_stopped_and_with_it() {
    let (client, counter) = joined().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    call(&counter, "start", json!({})).await;
    assert_eq!(tasks(), before + 1);
    call(&counter, "stop", json!({})).await;
    assert_eq!(tasks(), before);

    call(&counter, "start", json!({})).await;
    counter.leave().await;
    client.heartbeat().await;

    assert_eq!(tasks(), before);
}
