//! Connecting, joining, and how sockets and channels end.

use std::time::Duration;

use bennu::ConnectError;
use bennu::testing::Client;
use serde_json::json;

use crate::room::{joined, socket};

#[tokio::test(start_paused = true)]
async fn connect_is_asked_and_its_answer_is_there() {
    let (_endpoint, socket) = socket();
    let refused = Client::new().param("token", "bad").connect(&socket).await;
    assert_eq!(refused.err(), Some(ConnectError::Reason("bad token".to_owned())));

    let client = Client::new().param("user", "7").connect(&socket).await.expect("it may connect");
    assert_eq!((client.id(), client.assigns::<String>().map(String::as_str)), (Some("user:7"), Some("7")));
    let room = client.join("room:a", json!({})).await.expect("it may join");
    assert_eq!(room.joined(), &json!({"user": "7"}).into());
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_gives_its_reason() {
    let (_endpoint, client, _room) = joined("room:a").await;
    assert_eq!(client.join("room:b", json!({"refuse": true})).await.err(), Some(json!({"reason": "no"}).into()));
    assert_eq!(client.join("lobby", json!({})).await.err(), Some(json!({"reason": "unmatched topic"}).into()));

    let _second = client.join("room:b", json!({})).await.expect("it may join");
    let _third = client.join("room:c", json!({})).await.expect("it may join");
    let fourth = client.join("room:d", json!({})).await;
    assert_eq!(fourth.err(), Some(json!({"reason": "too many channels joined"}).into()));
}

#[tokio::test(start_paused = true)]
async fn channels_end_as_they_should() {
    let (endpoint, client, left) = joined("room:left").await;
    let mut ends = endpoint.subscribe("ends");
    left.leave().await;

    let stopped = client.join("room:stopped", json!({})).await.expect("it may join");
    let stop = stopped.push("stop", json!({"n": 1}));
    stopped.assert_reply(&stop, "ok", json!({"n": 1})).await;
    stopped.assert_closed().await;

    let crashed = client.join("room:crashed", json!({})).await.expect("it may join");
    let crash = crashed.push("crash", json!({}));
    crashed.assert_crashed().await;
    crashed.refute_reply(&crash).await;

    let twice = client.join("room:twice", json!({})).await.expect("it may join");
    let again = client.join("room:twice", json!({})).await.expect("it may join");
    twice.assert_closed().await;
    again.refute_push("phx_close").await;
    client.disconnect().await;

    for (topic, reason) in [
        ("room:left", "Left"),
        ("room:stopped", "Stopped(Normal)"),
        ("room:crashed", r#"Crashed("asked to crash")"#),
        ("room:twice", "DuplicateJoin"),
        ("room:twice", "SocketClosed"),
    ] {
        let end = ends.recv().await.expect("the endpoint lives");
        assert_eq!(end.payload(), &json!({"topic": topic, "reason": reason}).into());
    }
    assert_eq!(endpoint.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn sockets_close_with_the_codes_of_real_ones() {
    let (endpoint, socket) = socket();
    let connect = async || Client::new().param("user", "7").connect(&socket).await.expect("it may connect");

    let (one, two) = (connect().await, connect().await);
    let other = Client::new().param("user", "8").connect(&socket).await.expect("it may connect");
    endpoint.disconnect("user:7").expect("there is room");
    assert_eq!((one.closed().await, two.closed().await), (1001, 1001));
    other.heartbeat().await;

    other.send_text("[");
    assert_eq!(other.closed().await, 1011);

    // The socket's default: a minute without a frame.
    let idle = Client::new().silent().connect(&socket).await.expect("it may connect");
    tokio::time::advance(Duration::from_secs(59)).await;
    idle.heartbeat().await;
    tokio::time::advance(Duration::from_secs(59)).await;
    idle.heartbeat().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(idle.closed().await, 1002);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_goes_away() {
    let (endpoint, client, room) = joined("room:a").await;
    let mut ends = endpoint.subscribe("ends");
    drop(client);
    room.push("push", json!({}));
    room.assert_push("pushed", json!({})).await;
    drop(room);
    let end = ends.recv().await.expect("the endpoint lives");
    assert_eq!(end.payload(), &json!({"topic": "room:a", "reason": "SocketClosed"}).into());
}
