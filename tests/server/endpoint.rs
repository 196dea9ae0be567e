//! What reaches clients from outside of their sockets: broadcasts, disconnects, presences.

use std::time::Instant;

use bennu::channel::Reason;
use bennu::protocol::limits::ORPHAN_HANDLER_MS;
use serde_json::{Value, json};

use crate::lab::{Lab, Message, Peer, until};

#[test]
fn a_broadcast_of_the_endpoint_reaches_the_topic_alone() {
    let lab = Lab::new();
    let mut peers = [lab.joined("probe:a"), lab.joined("probe:a")];
    let mut elsewhere = lab.joined("probe:b");

    lab.broadcast("probe:a", "news", json!({"n": 1}));
    lab.broadcast("probe:nobody", "news", json!({"n": 2}));
    lab.broadcast("probe:b", "news", json!({"n": 3}));

    for peer in &mut peers {
        peer.expect(&[r#"probe:a news {"n":1}"#]);
        peer.heartbeat();
    }
    elsewhere.expect(&[r#"probe:b news {"n":3}"#]);
}

#[test]
fn a_disconnect_closes_the_sockets_of_its_id_alone() {
    let lab = Lab::new();
    let mut of_ann = [lab.open_as("ann"), lab.open_as("ann")];
    let mut others = [lab.open_as("bob"), lab.open()];
    for peer in of_ann.iter_mut().chain(&mut others) {
        peer.join("probe:a");
    }

    lab.broadcast("user:ann", "another_event", json!({}));
    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    for peer in of_ann.iter_mut().chain(&mut others) {
        peer.expect(&[r#"probe:a shout {"n":1}"#]);
        peer.heartbeat();
    }
    lab.endpoint.disconnect("user:ann").expect("the hub has room");

    for peer in &mut of_ann {
        peer.expect(&["close 1001"]);
    }
    for ended in lab.world.wait_ended("probe:a", 2) {
        assert_eq!(ended.reason, Reason::SocketClosed);
    }
    for peer in &mut others {
        peer.exchange("probe:a", "echo", json!({}));
    }
    assert_eq!(lab.world.ended("probe:a").len(), 2);
}

/// The keys that a `presence_diff` says of joins and leaves.
#[track_caller]
fn diff(message: &Message) -> (Vec<String>, Vec<String>) {
    assert_eq!(message.event, "presence_diff", "{message:?}");
    let keys = |part: &str| message.payload[part].as_object().expect("an object").keys().cloned().collect();
    (keys("joins"), keys("leaves"))
}

fn present(lab: &Lab, topic: &str) -> Value {
    lab.endpoint.presences(topic).parse().expect("JSON")
}

/// Tracks a key; the diff comes before the reply.
#[track_caller]
fn track(peer: &mut Peer, key: &str, meta: Value) {
    let reference = peer.send("probe:a", "track", json!({"key": key, "meta": meta}));
    assert_eq!(diff(&peer.message()), (vec![key.to_owned()], vec![]));
    let reply = peer.message();
    assert_eq!((&reply.reference, &reply.payload["status"]), (&json!(reference), &json!("ok")));
    assert!(reply.payload["response"][key].is_object(), "the list has the new presence: {reply:?}");
}

#[test]
fn presences_of_two_sockets_come_and_go_for_both() {
    let lab = Lab::new();
    let (mut ann, mut bob) = (lab.joined("probe:a"), lab.joined("probe:a"));

    track(&mut ann, "ann", json!({"at": 1}));
    assert_eq!(diff(&bob.message()), (vec!["ann".to_owned()], vec![]));
    track(&mut bob, "bob", json!({"at": 2}));
    assert_eq!(diff(&ann.message()), (vec!["bob".to_owned()], vec![]));
    track(&mut bob, "ann", json!({"at": 3}));
    assert_eq!(diff(&ann.message()), (vec!["ann".to_owned()], vec![]));
    let metas: Vec<Value> = present(&lab, "probe:a")["ann"]["metas"]
        .as_array()
        .expect("metas")
        .iter()
        .map(|meta| meta["at"].clone())
        .collect();
    assert_eq!(metas.len(), 2, "one key, two sockets: {metas:?}");

    bob.send("probe:a", "untrack", json!({"key": "bob"}));
    assert_eq!(diff(&bob.message()), (vec![], vec!["bob".to_owned()]));
    assert_eq!(diff(&ann.message()), (vec![], vec!["bob".to_owned()]));
    assert_eq!(bob.message().payload["response"]["bob"], Value::Null);
    drop(bob);

    assert_eq!(diff(&ann.message()), (vec![], vec!["ann".to_owned()]));
    let left = present(&lab, "probe:a");
    assert_eq!((left.as_object().map(serde_json::Map::len), &left["ann"]["metas"][0]["at"]), (Some(1), &json!(1)));
    ann.send("probe:a", "phx_leave", json!({}));
    ann.next_of("probe:a");
    lab.world.wait_ended("probe:a", 2);
    assert_eq!(present(&lab, "probe:a"), json!({}));
}

#[test]
fn keys_that_stock_clients_can_not_hold_are_refused() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");

    for key in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
        peer.send("probe:a", "track", json!({"key": key, "meta": {}}));
        let reply = peer.message();
        assert_eq!(reply.payload["status"], "error", "{key}: {reply:?}");
        let reason = reply.payload["response"]["reason"].as_str().expect("a reason");
        assert!(reason.contains(key), "{reason}");
    }
    assert_eq!(present(&lab, "probe:a"), json!({}));
    track(&mut peer, "ann", json!({}));
    peer.send("probe:a", "track", json!({"key": "ann", "meta": {}}));
    assert_eq!(peer.message().payload["status"], "error", "tracked already");
    peer.heartbeat();
}

#[test]
fn a_presence_leaves_with_its_socket_even_where_its_channel_is_busy() {
    let lab = Lab::new();
    let mut watcher = lab.joined("probe:a");
    let mut peer = lab.joined("probe:a");
    track(&mut peer, "ann", json!({}));
    assert_eq!(diff(&watcher.message()).0, ["ann"]);
    peer.send("probe:a", "hold", json!({"gate": "never"}));
    peer.heartbeat();

    let dropped = Instant::now();
    drop(peer);

    assert_eq!(diff(&watcher.message()), (vec![], vec!["ann".to_owned()]));
    let took = dropped.elapsed();
    assert!(took.as_millis() < u128::from(ORPHAN_HANDLER_MS) / 2, "it does not wait for the handler: {took:?}");
    assert_eq!(present(&lab, "probe:a"), json!({}));
}

#[test]
fn a_presence_that_a_channel_tracks_after_its_end_does_not_stay() {
    let lab = Lab::new();
    let mut watcher = lab.joined("probe:a");
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold_track", json!({"gate": "g", "key": "late"}));
    peer.heartbeat();

    drop(peer);
    lab.joined("probe:b").heartbeat();
    lab.world.gate("g").open();

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    assert_eq!(present(&lab, "probe:a"), json!({}));
    watcher.send("phoenix", "heartbeat", json!({}));
    while watcher.message().event != "phx_reply" {}
}

#[test]
fn a_presence_of_a_handler_that_is_given_up_does_not_stay() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold_track", json!({"gate": "g", "key": "late", "then": "never"}));
    peer.heartbeat();

    drop(peer);
    lab.joined("probe:b").heartbeat();
    lab.world.gate("g").open();

    // The handler may run on for some seconds, and is dropped then.
    lab.world.wait_reached("never");
    until("the presence is gone", || present(&lab, "probe:a") == json!({}));
}
