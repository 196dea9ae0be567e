//! Topics with history: clients that come back get what they missed, and those who did not ask see plain Phoenix.

use std::sync::Arc;
use std::time::Duration;

use bennu::channel::{HistoryOptions, SocketSpec};
use bennu::protocol::limits::HISTORY_TOPIC_BYTES_MAX;
use bennu::protocol::wire::WireVersion;
use bennu::testing::{Client, TestChannel, TestSocket};
use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal};
use serde_json::{Value, json};

use crate::room::Room;

/// A channel that intercepts nothing. Rooms do: what they broadcast reaches their clients by another way.
struct Plain;

impl Channel for Plain {
    type Info = ();

    async fn join(_topic: &str, params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let params: Value = params.parse()?;
        Ok((Plain, params.get("answer").cloned().unwrap_or(json!({"user": null})).into()))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "shout" => cx.broadcast("shout", payload),
            "shout_from" => cx.broadcast_from("shout", payload),
            "track" => drop(cx.track("somebody", json!({}))),
            _ => return Next::ok(payload),
        }
        Next::NoReply
    }
}

/// Both ways.
const TOPICS: [&str; 2] = ["plain:a", "room:a"];

fn kept(change: impl FnOnce(&mut HistoryOptions)) -> (Endpoint, Arc<SocketSpec>) {
    let endpoint = Endpoint::start();
    let mut options = HistoryOptions::default();
    change(&mut options);
    endpoint.keep("plain:*", options.clone());
    endpoint.keep("room:*", options);
    let socket = endpoint.socket("/socket").channel::<Plain>("plain:*").channel::<Room>("room:*").build();
    (endpoint, socket)
}

async fn connect(socket: &Arc<SocketSpec>) -> TestSocket {
    Client::new().connect(socket).await.expect("everyone may connect")
}

fn shout(endpoint: &Endpoint, topic: &str, n: u64) {
    endpoint.broadcast(topic, "shout", json!({"n": n})).expect("there is room");
}

async fn join(client: &TestSocket, topic: &str, resume: Value) -> TestChannel {
    client.join(topic, json!({"resume": resume})).await.expect("everyone may join")
}

fn position(channel: &TestChannel) -> Value {
    let joined: Value = channel.joined().parse().expect("JSON");
    joined["resume"].clone()
}

/// The next message in short: event, `n` or payload, and ref.
async fn next(client: &TestSocket) -> String {
    let Some(message) = client.next().await else { return "nothing".to_owned() };
    let payload: Value = message.payload.parse().unwrap_or_default();
    let payload = if payload["n"].is_null() { payload } else { payload["n"].clone() };
    format!("{} {payload} {}", message.event, message.reference)
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_sees_plain_phoenix() {
    for topic in TOPICS {
        let (endpoint, socket) = kept(|_| {});
        let client = connect(&socket).await;
        let channel = client.join(topic, json!({})).await.expect("everyone may join");
        assert_eq!(channel.joined().parse::<Value>().expect("JSON"), json!({"user": null}));

        shout(&endpoint, topic, 1);
        assert_eq!(next(&client).await, "shout 1 null");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_gets_what_it_missed_and_then_what_comes() {
    for topic in TOPICS {
        let (endpoint, socket) = kept(|_| {});
        shout(&endpoint, topic, 1);
        let client = connect(&socket).await;
        let channel = join(&client, topic, Value::Null).await;
        let mut at = position(&channel);
        assert_eq!(at["offset"], 1);
        shout(&endpoint, topic, 2);
        assert_eq!(next(&client).await, "shout 2 \"@2\"");
        client.disconnect().await;

        at["offset"] = 2.into();
        (3..=6).for_each(|n| shout(&endpoint, topic, n));
        let client = connect(&socket).await;
        let channel = join(&client, topic, at.clone()).await;
        assert_eq!(position(&channel), at, "it goes on from where it was");
        shout(&endpoint, topic, 7);
        for n in 3..=7 {
            assert_eq!(next(&client).await, format!("shout {n} \"@{n}\""));
        }
        assert_eq!(next(&client).await, "nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_piece_comes_whole_in_order_and_once_while_others_go_on() {
    const MISSED: u64 = 700;
    for topic in TOPICS {
        let (endpoint, socket) = kept(|_| {});
        let client = connect(&socket).await;
        let at = position(&join(&client, topic, json!(true)).await);
        client.disconnect().await;
        let fill = "x".repeat(600);
        for n in 1..=MISSED {
            endpoint.broadcast(topic, "shout", json!({"n": n, "fill": fill})).expect("there is room");
        }

        let client = connect(&socket).await;
        join(&client, topic, at).await;
        for n in 1..=MISSED + 100 {
            if n > 100 {
                // One more with each that comes.
                shout(&endpoint, topic, MISSED + n - 100);
            }
            assert_eq!(next(&client).await, format!("shout {n} \"@{n}\""));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_no_longer_be_had_is_a_gap_and_nothing_of_it_comes() {
    for topic in TOPICS {
        let (endpoint, socket) = kept(|options| options.messages_max = 3);
        let client = connect(&socket).await;
        let at = position(&join(&client, topic, json!({})).await);
        let epoch = at["epoch"].as_str().expect("an epoch").to_owned();
        (1..=5).for_each(|n| shout(&endpoint, topic, n));
        client.disconnect().await;

        let cases = [
            (json!({"epoch": epoch, "offset": 1}), json!(1), "expired"),
            (json!({"epoch": epoch, "offset": 6}), json!(6), "future"),
            (json!({"epoch": "0123456789abcdef", "offset": 5}), Value::Null, "epoch"),
        ];
        for (asked, from, reason) in cases {
            let client = connect(&socket).await;
            let channel = join(&client, topic, asked.clone()).await;
            assert_eq!(position(&channel), asked);
            let gap = client.next().await.expect("a gap");
            assert_eq!((gap.event.as_str(), &gap.reference), ("gap", &json!("@5")));
            let payload: Value = gap.payload.parse().expect("JSON");
            assert_eq!(payload, json!({"epoch": epoch, "offset": 5, "from": from, "reason": reason}));
            assert_eq!(next(&client).await, "nothing");
        }
        let client = connect(&socket).await;
        join(&client, topic, json!({"epoch": epoch, "offset": 2})).await;
        assert_eq!(next(&client).await, "shout 3 \"@3\"", "three are kept");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_gone_and_a_topic_that_nobody_reads_is_forgotten() {
    let (endpoint, socket) = kept(|options| options.age_ms = 60_000);
    let client = connect(&socket).await;
    let at = position(&join(&client, "plain:a", Value::Null).await);
    shout(&endpoint, "plain:a", 1);
    tokio::time::sleep(Duration::from_secs(59)).await;
    shout(&endpoint, "plain:a", 2);
    tokio::time::sleep(Duration::from_secs(2)).await;

    let later = connect(&socket).await;
    join(&later, "plain:a", at.clone()).await;
    assert!(next(&later).await.starts_with("gap"));
    join(&later, "plain:b", Value::Null).await;
    assert_eq!(endpoint.histories(), 2);

    client.disconnect().await;
    later.disconnect().await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!((endpoint.histories(), endpoint.history_bytes()), (0, 0));
    let anew = connect(&socket).await;
    join(&anew, "plain:a", at).await;
    let gap = next(&anew).await;
    assert!(gap.contains("\"reason\":\"epoch\""), "{gap}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_in_use_on_which_nothing_is_said_is_not_forgotten_with_its_last_reader() {
    let (_endpoint, socket) = kept(|options| options.age_ms = 60_000);
    let client = connect(&socket).await;
    let at = position(&join(&client, "plain:a", Value::Null).await);
    tokio::time::sleep(Duration::from_secs(300)).await;
    client.disconnect().await;
    tokio::time::sleep(Duration::from_secs(30)).await;

    let client = connect(&socket).await;
    assert_eq!(position(&join(&client, "plain:a", at.clone()).await), at);
    assert_eq!(next(&client).await, "nothing", "no gap");
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_larger_than_all_that_may_wait_or_be_kept_reaches_those_who_are_there() {
    for topic in TOPICS {
        let (endpoint, socket) = kept(|options| options.bytes_max = 100_000);
        let client = connect(&socket).await;
        let at = position(&join(&client, topic, Value::Null).await);
        let large = "x".repeat(3 << 20);
        endpoint.broadcast(topic, "shout", json!({"n": 1, "fill": large})).expect("there is room");
        assert_eq!(next(&client).await, "shout 1 \"@1\"");

        let late = connect(&socket).await;
        join(&late, topic, at).await;
        assert!(next(&late).await.contains("\"reason\":\"expired\""));
    }
}

#[tokio::test(start_paused = true)]
async fn its_own_broadcast_from_moves_a_client_without_coming_back() {
    for topic in TOPICS {
        let (_endpoint, socket) = kept(|_| {});
        let (client, other) = (connect(&socket).await, connect(&socket).await);
        let channel = join(&client, topic, Value::Null).await;
        join(&other, topic, Value::Null).await;

        channel.push("shout_from", json!({"n": 1}));
        channel.push("shout", json!({"n": 2}));

        assert_eq!(next(&client).await, "position {} \"@1\"");
        assert_eq!(next(&client).await, "shout 2 \"@2\"");
        assert_eq!(next(&other).await, "shout 1 \"@1\"");
        assert_eq!(next(&other).await, "shout 2 \"@2\"");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binary_broadcast_is_followed_by_its_position() {
    for topic in TOPICS {
        let (endpoint, socket) = kept(|_| {});
        let client = connect(&socket).await;
        let at = position(&join(&client, topic, Value::Null).await);
        endpoint.broadcast(topic, "shout", Payload::binary(vec![1, 2, 3])).expect("there is room");
        shout(&endpoint, topic, 2);
        let old = Client::new().version(WireVersion::V1).connect(&socket).await.expect("everyone may connect");
        join(&old, topic, at.clone()).await;

        assert_eq!(next(&client).await, "shout null null");
        assert_eq!(next(&client).await, "position {} \"@1\"");
        assert_eq!(next(&client).await, "shout 2 \"@2\"");
        assert_eq!(next(&old).await, "shout 2 \"@2\"", "version 1 has no binary");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_present_has_no_position() {
    let (endpoint, socket) = kept(|_| {});
    let client = connect(&socket).await;
    let channel = join(&client, "plain:a", Value::Null).await;
    let at = position(&channel);

    channel.push("track", json!({}));
    channel.call("echo", json!({})).await;
    shout(&endpoint, "plain:a", 1);
    let diff = next(&client).await;
    assert!(diff.starts_with("presence_diff") && diff.ends_with(" null"), "{diff}");
    assert_eq!(next(&client).await, "shout 1 \"@1\"");

    let other = connect(&socket).await;
    join(&other, "plain:a", at).await;
    assert_eq!(next(&other).await, "shout 1 \"@1\"", "the diff is not kept");
}

#[tokio::test(start_paused = true)]
async fn an_intercepted_broadcast_keeps_its_place_and_comes_again() {
    let (endpoint, socket) = kept(|_| {});
    let client = connect(&socket).await;
    let at = position(&join(&client, "room:a", Value::Null).await);
    let secret = |n: u64| endpoint.broadcast("room:a", "secret", json!({"n": n})).expect("there is room");
    shout(&endpoint, "room:a", 1);
    secret(2);
    shout(&endpoint, "room:a", 3);
    let other = connect(&socket).await;
    join(&other, "room:a", at).await;

    for client in [client, other] {
        assert_eq!(next(&client).await, "shout 1 \"@1\"");
        assert_eq!(next(&client).await, "secret 2 null", "what a handler pushes has no position of its own");
        assert_eq!(next(&client).await, "position {} \"@2\"");
        assert_eq!(next(&client).await, "shout 3 \"@3\"");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_of_another_shape_is_refused_with_what_was_expected() {
    let (endpoint, socket) = kept(|_| {});
    let client = connect(&socket).await;
    let long = "x".repeat(5_000);
    for wrong in [json!(5), json!("@3"), json!({"epoch": "zz", "offset": 1}), json!({"offset": 1}), json!(long)] {
        let refused = client.join("plain:a", json!({"resume": wrong})).await.expect_err("it is refused");
        let reason = refused.parse::<Value>().expect("JSON")["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.starts_with("resume: expected true, null or {\"epoch\""), "{reason}");
        assert!(reason.len() < 300, "{reason}");
    }
    assert_eq!(endpoint.subscriptions("plain:a").await, 0);
    let elsewhere = endpoint.socket("/other").channel::<Plain>("else:*").build();
    let client = connect(&elsewhere).await;
    client.join("else:a", json!({"resume": 5})).await.expect("a topic without history reads no such key");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_kept_a_join_is_plain() {
    let (endpoint, socket) = kept(|_| {});
    endpoint.limit_histories(1, 1 << 20);
    let client = connect(&socket).await;
    join(&client, "plain:a", Value::Null).await;
    let second = join(&client, "plain:b", Value::Null).await;
    assert_eq!(position(&second), Value::Null);
    let answer = client.join("plain:a", json!({"resume": null, "answer": [1]})).await.expect("everyone may join");
    assert_eq!(answer.joined().parse::<Value>().expect("JSON"), json!([1]), "no object, no place for a position");
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_great_length_keeps_nothing() {
    let (endpoint, socket) = kept(|_| {});
    let client = connect(&socket).await;
    let longest = format!("plain:{}", "x".repeat(HISTORY_TOPIC_BYTES_MAX - 6));
    assert_eq!(position(&join(&client, &longest, Value::Null).await)["offset"], 0);

    let longer = format!("{longest}x");
    assert_eq!(position(&join(&client, &longer, Value::Null).await), Value::Null);
    shout(&endpoint, &longer, 1);
    assert_eq!(next(&client).await, "shout 1 null");
    assert_eq!(endpoint.histories(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_topics_together_keep_no_more_than_they_may() {
    let (endpoint, _socket) = kept(|_| {});
    endpoint.limit_histories(100, 10_000);
    let fill = "x".repeat(1_000);
    for n in 0..200 {
        let topic = format!("plain:{}", n % 20);
        endpoint.broadcast(&topic, "shout", json!({"fill": fill})).expect("there is room");
        assert!(endpoint.history_bytes() <= 10_000, "{}", endpoint.history_bytes());
    }
    assert!(endpoint.history_bytes() > 5_000);
}

#[tokio::test(start_paused = true)]
async fn eight_thousand_clients_that_resume_at_once_each_get_what_they_missed() {
    const CLIENTS: usize = 8_000;
    const MISSED: u64 = 12;
    let (endpoint, socket) = kept(|_| {});
    let client = connect(&socket).await;
    let at = position(&join(&client, "plain:a", Value::Null).await);
    client.disconnect().await;
    // More than goes with the reply to a join.
    let fill = "x".repeat(900);
    for n in 1..=MISSED {
        endpoint.broadcast("plain:a", "shout", json!({"n": n, "fill": fill})).expect("there is room");
    }

    let mut joining = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (socket, at) = (Arc::clone(&socket), at.clone());
        joining.spawn(async move {
            let client = connect(&socket).await;
            join(&client, "plain:a", at).await;
            client
        });
    }
    let clients = joining.join_all().await;
    shout(&endpoint, "plain:a", MISSED + 1);
    for client in &clients {
        for n in 1..=MISSED + 1 {
            assert_eq!(next(client).await, format!("shout {n} \"@{n}\""));
        }
    }
}
