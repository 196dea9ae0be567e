//! Subscriptions to further topics: of channels, and of code that is none.

use bennu::channel::RecvError;
use bennu::protocol::limits::{SUBSCRIBER_BROADCASTS_MAX, SUBSCRIPTIONS_PER_CHANNEL_MAX};
use bennu::testing::Client;
use bennu::{Endpoint, Payload};
use serde_json::json;

use crate::room::{joined, socket};

#[tokio::test(start_paused = true)]
async fn a_channel_hears_a_topic_that_it_subscribed_to_until_it_unsubscribes() {
    let (endpoint, _client, room) = joined("room:a").await;
    endpoint.broadcast("news", "early", json!({})).expect("there is room");
    assert_eq!(room.call("subscribe", json!({"topic": "news"})).await.status, "ok");
    endpoint.broadcast("news", "goal", json!({"n": 1})).expect("there is room");
    endpoint.broadcast("other", "goal", json!({"n": 2})).expect("there is room");
    room.assert_push("heard", json!({"topic": "news", "event": "goal", "payload": {"n": 1}})).await;
    room.refute_push("heard").await;

    room.push("unsubscribe", json!({"topic": "news"}));
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
    endpoint.broadcast("news", "goal", json!({"n": 3})).expect("there is room");
    room.refute_push("heard").await;
    room.push("shout", json!({}));
    room.assert_push("shout", json!({})).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_subscribes_twice_hears_twice_and_unsubscribes_once() {
    let (endpoint, _client, room) = joined("room:a").await;
    for _ in 0..2 {
        assert_eq!(room.call("subscribe", json!({"topic": "news"})).await.status, "ok");
    }
    endpoint.broadcast("news", "goal", json!({})).expect("there is room");
    room.assert_push("heard", json!({})).await;
    room.assert_push("heard", json!({})).await;
    room.refute_push("heard").await;

    room.push("unsubscribe", json!({"topic": "news"}));
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
    endpoint.broadcast("news", "goal", json!({})).expect("there is room");
    room.refute_push("heard").await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_may_hear_its_own_topic_but_not_what_it_broadcasts_from_itself() {
    let (_endpoint, _client, room) = joined("room:a").await;
    room.push("subscribe_to_own", json!({}));
    room.push("shout", json!({"n": 1}));
    room.push("shout_from", json!({"n": 2}));
    room.assert_push("shout", json!({"n": 1})).await;
    room.assert_push("heard", json!({"payload": {"n": 1}})).await;
    room.refute_push("heard").await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_in_join_holds_from_then_on_and_ends_with_a_refusal() {
    let (endpoint, client, _room) = joined("room:a").await;
    let hearing = client.join("room:b", json!({"subscribe": "news"})).await.expect("it may join");
    let refused = client.join("room:c", json!({"subscribe": "news", "refuse": true})).await;
    assert!(refused.is_err());
    endpoint.broadcast("news", "goal", json!({})).expect("there is room");
    hearing.assert_push("heard", json!({"event": "goal"})).await;
    assert_eq!(endpoint.subscriptions("news").await, 1);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_end_with_their_channel_and_their_socket() {
    let (endpoint, socket) = socket();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let mut rooms = Vec::new();
    for topic in ["room:a", "room:b", "room:c"] {
        let room = client.join(topic, json!({"subscribe": "news"})).await.expect("everyone may join");
        assert_eq!(room.call("subscribe", json!({"topic": "news"})).await.status, "ok");
        rooms.push(room);
    }
    assert_eq!(endpoint.subscriptions("news").await, 6);
    rooms.pop().expect("three were joined").leave().await;
    assert_eq!(endpoint.subscriptions("news").await, 4);

    let crashed = rooms.pop().expect("three were joined");
    crashed.push("crash", json!({}));
    crashed.assert_crashed().await;
    assert_eq!(endpoint.subscriptions("news").await, 2);

    client.disconnect().await;
    assert_eq!(endpoint.subscriptions("news").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_subscription_makes_of_a_broadcast_may_crash_the_channel_alone() {
    let (endpoint, client, room) = joined("room:a").await;
    assert_eq!(room.call("subscribe", json!({"topic": "news", "crash": true})).await.status, "ok");
    endpoint.broadcast("news", "goal", json!({})).expect("there is room");
    room.assert_crashed().await;
    client.heartbeat().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_holds_so_many_subscriptions_and_no_more() {
    let (_endpoint, client, room) = joined("room:a").await;
    for n in 0..SUBSCRIPTIONS_PER_CHANNEL_MAX {
        assert_eq!(room.call("subscribe", json!({"topic": format!("news:{n}")})).await.status, "ok");
    }
    let refused = room.call("subscribe", json!({"topic": "news:more"})).await;
    let reason = "a channel may hold 1000 subscriptions to further topics, it has as many";
    assert_eq!((refused.status.as_str(), refused.response), ("error", json!({"reason": reason}).into()));

    let other = client.join("room:b", json!({})).await.expect("it may join");
    assert_eq!(other.call("subscribe", json!({"topic": "news:more"})).await.status, "ok");
    room.push("unsubscribe", json!({"topic": "news:0"}));
    assert_eq!(room.call("subscribe", json!({"topic": "news:more"})).await.status, "ok");
}

#[tokio::test]
async fn a_subscriber_that_is_no_channel_hears_in_order_and_is_told_of_a_gap_where_it_is() {
    let endpoint = Endpoint::start();
    let mut news = endpoint.subscribe("news");
    assert!(matches!(news.try_recv(), Ok(None)));
    let broadcast = |n: usize| endpoint.broadcast("news", "n", json!({"n": n})).expect("there is room");
    let n = |payload: &Payload| payload.parse::<serde_json::Value>().expect("JSON")["n"].as_u64();

    (0..SUBSCRIBER_BROADCASTS_MAX + 10).for_each(broadcast);
    endpoint.subscriptions("news").await;
    for expected in 0..SUBSCRIBER_BROADCASTS_MAX as u64 {
        assert_eq!(n(news.recv().await.expect("a broadcast").payload()), Some(expected));
    }
    broadcast(0);
    endpoint.subscriptions("news").await;
    assert_eq!(news.recv().await.err(), Some(RecvError::Missed(11)));
    broadcast(7);
    assert_eq!(n(news.recv().await.expect("a broadcast").payload()), Some(7));
    drop(news);
    assert_eq!(endpoint.subscriptions("news").await, 0);
}

#[test]
fn an_endpoint_is_used_from_threads_that_know_no_runtime() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let endpoint = runtime.block_on(async { Endpoint::start() });
    let mut news = endpoint.subscribe("news");
    std::thread::scope(|scope| {
        scope.spawn(|| endpoint.broadcast("news", "goal", json!({"n": 1})).expect("there is room"));
        let heard = scope.spawn(|| news.blocking_recv().expect("a broadcast")).join().expect("no panic");
        assert_eq!((heard.topic(), heard.event(), heard.payload()), ("news", "goal", &json!({"n": 1}).into()));
    });
    endpoint.disconnect("user:7").expect("there is room");
    assert_eq!(endpoint.presences("room:a"), Payload::EMPTY);

    drop(runtime);
    assert_eq!(news.blocking_recv().err(), Some(RecvError::Closed));
    endpoint.broadcast("news", "late", json!({})).expect("nobody is there, and that is no error");
}
