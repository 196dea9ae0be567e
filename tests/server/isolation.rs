//! What one topic or one socket does wrong stays with it.

use bennu::channel::Reason;
use serde_json::{Value, json};

use crate::lab::{Lab, Peer, Tell, World};
use crate::transcripts::frames::text_frame;

/// Checks that `crash` ends the channel of `probe:a`, joined with ref 1, and nothing else.
fn check_crash(crash: impl FnOnce(&mut Peer, &World), why: &str) {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");
    let mut neighbour = lab.joined("probe:c");
    for n in 0..3 {
        peer.exchange("probe:a", "echo", json!({"n": n}));
    }
    peer.exchange("probe:b", "echo", json!({}));

    crash(&mut peer, &lab.world);

    let end = peer.next_of("probe:a");
    assert_eq!((end.event.as_str(), &end.join_ref, &end.reference), ("phx_error", &json!(1), &json!(1)));
    assert_eq!(end.payload, json!({"reason": "channel_crash"}));
    let ended = lab.world.wait_ended("probe:a", 1);
    assert!(matches!(&ended[0].reason, Reason::Crashed(text) if text == why), "{ended:?}");
    assert!(ended[0].handled >= 3, "terminate has the state of the handlers before: {ended:?}");
    assert_eq!(peer.exchange("probe:b", "echo", json!({"still": "here"})), json!({"still": "here"}));
    assert_eq!(neighbour.exchange("probe:c", "echo", json!({"me": "too"})), json!({"me": "too"}));
    peer.join("probe:a");
    peer.exchange("probe:a", "echo", json!({}));
    assert_eq!(lab.world.ended("probe:b").len() + lab.world.ended("probe:c").len(), 0);
}

#[test]
fn a_panic_in_handle_in_ends_its_channel_alone() {
    check_crash(
        |peer, _| {
            peer.send("probe:a", "crash", json!({}));
        },
        "asked to crash",
    );
}

#[test]
fn a_panic_after_a_wait_ends_its_channel_alone() {
    check_crash(
        |peer, world| {
            peer.send("probe:a", "hold", json!({"gate": "g", "crash": true}));
            peer.heartbeat();
            world.gate("g").open();
        },
        "asked to crash after the gate",
    );
}

#[test]
fn a_panic_in_handle_info_ends_its_channel_alone() {
    check_crash(|_, world| world.handle("probe:a").send(Tell::Crash).expect("the channel lives"), "told to crash");
}

#[test]
fn a_panic_in_handle_out_ends_its_channel_alone() {
    check_crash(
        |peer, _| {
            let reference = peer.send("probe:a", "crash_out", json!({}));
            peer.expect(&[&format!("probe:a #{reference} ok {{}}")]);
        },
        "asked to crash in handle_out",
    );
}

#[test]
fn a_panic_in_join_is_a_refused_join() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:b");

    peer.send("probe:a", "phx_join", json!({"crash": true}));
    peer.expect(&[r#"probe:a #2 error {"reason":"join crashed"}"#]);

    peer.exchange("probe:b", "echo", json!({}));
    peer.send("probe:a", "echo", json!({}));
    peer.expect(&[r#"probe:a #4 error {"reason":"unmatched topic"}"#]);
    peer.join("probe:a");
    assert!(lab.world.ended("probe:a").is_empty(), "there was no channel to terminate");
}

#[test]
fn a_panic_in_terminate_is_nobodys_business() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");
    peer.exchange("probe:a", "crash_at_end", json!({}));

    peer.send("probe:a", "phx_leave", json!({}));
    peer.expect(&["probe:a #4 ok {}", "probe:a phx_close of 1"]);

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::Left);
    peer.exchange("probe:b", "echo", json!({}));
    peer.join("probe:a");
}

#[test]
fn a_crash_ends_what_the_channel_sends_and_what_it_is_sent() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let old = lab.world.handle("probe:a");

    peer.send("probe:a", "crash", json!({}));
    peer.expect(&["probe:a phx_error of 1: channel_crash"]);
    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    old.send(Tell::Push(1)).expect("the connection lives");
    peer.join("probe:a");
    old.send(Tell::Push(2)).expect("the connection lives");
    lab.broadcast("probe:a", "shout", json!({"n": 2}));

    peer.expect(&[r#"probe:a shout {"n":2}"#]);
    peer.heartbeat();
}

#[test]
fn a_malformed_message_ends_its_socket_alone() {
    let lab = Lab::new();
    let mut watcher = lab.joined("probe:a");
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");
    peer.exchange("probe:b", "echo", json!({}));
    peer.send("probe:a", "track", json!({"key": "peer", "meta": {"at": 1}}));
    let diff = watcher.next_of("probe:a");
    assert_eq!(diff.payload["joins"]["peer"]["metas"][0]["at"], 1);

    peer.send_text(r#"["1","5","probe:a"]"#);

    peer.expect_close(1011);
    let left = watcher.next_of("probe:a");
    assert_eq!((&left.event[..], &left.payload["joins"]), ("presence_diff", &json!({})));
    assert_eq!(left.payload["leaves"]["peer"]["metas"][0]["at"], 1);
    for (topic, handled) in [("probe:a", 1), ("probe:b", 1)] {
        let ended = lab.world.wait_ended(topic, 1);
        assert_eq!((&ended[0].reason, ended[0].handled), (&Reason::SocketClosed, handled), "{topic}");
    }
    assert_eq!(watcher.exchange("probe:a", "echo", json!({"n": 1})), json!({"n": 1}));
    assert_eq!(lab.world.ended("probe:a").len(), 1, "the watcher's channel goes on");
}

#[test]
fn what_stands_before_a_malformed_message_is_still_handled_and_what_stands_after_it_is_not() {
    let lab = Lab::new();
    let mut watcher = lab.joined("probe:a");
    let mut peer = lab.joined("probe:a");
    let before = peer.text("probe:a", "shout", json!({"n": 1}));
    let after = peer.text("probe:a", "shout", json!({"n": 2}));

    peer.write(&[text_frame(&before), text_frame("{"), text_frame(&after)].concat());

    peer.expect(&[r#"probe:a shout {"n":1}"#, "probe:a #2 ok {}", "close 1011"]);
    watcher.expect(&[r#"probe:a shout {"n":1}"#]);
    lab.world.wait_ended("probe:a", 1);
    watcher.heartbeat();
}

#[test]
fn a_connection_that_breaks_off_ends_its_channels() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.exchange("probe:a", "echo", json!({}));

    drop(peer);

    let ended = lab.world.wait_ended("probe:a", 1);
    assert_eq!((&ended[0].reason, ended[0].handled), (&Reason::SocketClosed, 1));
    assert_eq!(lab.endpoint.presences("probe:a").parse::<Value>().expect("JSON"), json!({}));
}
