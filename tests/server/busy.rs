//! A channel whose handler, or whose join, waits: what comes meanwhile waits in order, and other topics go on.

use std::time::Duration;

use bennu::channel::Reason;
use serde_json::json;

use crate::lab::{Counted, Lab, Tell};

/// Messages that wait for a busy channel before its socket is not read any more.
const WAITING_MAX: u64 = bennu::protocol::limits::CHANNEL_WAITING_MAX as u64;

/// Longer than an answer takes that would come at once; each test that has to see nothing waits this once.
const QUIET: Duration = Duration::from_millis(150);

#[test]
fn messages_for_a_busy_channel_wait_in_order_and_other_topics_do_not() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");

    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.send("probe:a", "echo", json!({"n": 1}));
    peer.send("probe:b", "echo", json!({"n": 2}));
    peer.send("probe:a", "echo", json!({"n": 3}));
    peer.expect(&[r#"probe:b #5 ok {"n":2}"#]);
    lab.world.gate("g").open();

    peer.expect(&[r#"probe:a #3 ok {"gate":"g"}"#, r#"probe:a #4 ok {"n":1}"#, r#"probe:a #6 ok {"n":3}"#]);
}

#[test]
fn broadcasts_reach_the_client_of_a_busy_channel_at_once() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.heartbeat();

    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    lab.broadcast("probe:a", "seen", json!({"n": 2}));
    peer.expect(&[r#"probe:a shout {"n":1}"#]);
    lab.world.gate("g").open();

    peer.expect(&[r#"probe:a #2 ok {"gate":"g"}"#, r#"probe:a seen {"n":2}"#]);
}

#[test]
fn a_socket_is_not_read_while_a_channel_has_as_much_waiting_as_it_may() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold", json!({"gate": "g"}));
    for n in 1..WAITING_MAX {
        peer.send("probe:a", "echo", json!({"n": n}));
    }
    peer.heartbeat();

    peer.send("probe:a", "echo", json!({"n": WAITING_MAX}));
    let heartbeat = peer.send("phoenix", "heartbeat", json!({}));
    peer.expect_quiet(QUIET);
    lab.world.gate("g").open();

    peer.expect(&[r#"probe:a #2 ok {"gate":"g"}"#]);
    for n in 1..=WAITING_MAX {
        let reply = peer.message();
        assert_eq!((reply.topic.as_str(), reply.n_replied()), ("probe:a", n));
    }
    peer.expect(&[&format!("phoenix #{heartbeat} ok {{}}")]);
}

#[test]
fn a_socket_whose_channel_takes_no_messages_of_the_server_is_ended() {
    let counted = Counted::slow_consumers();
    let lab = Lab::with_socket(|options| options.inbox_messages_max = 8);
    let mut peer = lab.joined("probe:a");
    let mut neighbour = lab.joined("probe:b");
    let told = lab.world.handle("probe:a");
    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.heartbeat();

    let sent = (0..).take_while(|n| told.send(Tell::Push(*n)).is_ok()).take(10_000).count();

    let waiting_max = usize::try_from(WAITING_MAX).expect("a small number");
    assert!((8..=8 + 8 + waiting_max).contains(&sent), "{sent} messages were taken");
    peer.until_gone();
    assert_eq!(counted.growth(), 1);
    lab.world.gate("g").open();
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    neighbour.exchange("probe:b", "echo", json!({}));
}

#[test]
fn messages_from_elsewhere_arrive_in_order() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let told = lab.world.handle("probe:a");

    std::thread::scope(|scope| {
        scope.spawn(|| (0..500).for_each(|n| told.send(Tell::Push(n)).expect("the inbox has room")));
        for n in 0..500 {
            assert_eq!(peer.message().n(), n);
        }
    });
}

#[test]
fn a_leave_waits_for_the_handler_before_it() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");

    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.send("probe:a", "phx_leave", json!({}));
    peer.send("probe:a", "echo", json!({}));
    peer.heartbeat();
    lab.world.gate("g").open();

    peer.expect(&[
        r#"probe:a #2 ok {"gate":"g"}"#,
        "probe:a #3 ok {}",
        "probe:a phx_close of 1",
        r#"probe:a #4 error {"reason":"unmatched topic"}"#,
    ]);
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::Left);
}

#[test]
fn a_join_behind_a_leave_that_waits_is_answered_after_it() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");

    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.send("probe:a", "phx_leave", json!({}));
    peer.send("probe:a", "phx_join", json!({}));
    peer.send("probe:a", "echo", json!({"n": 1}));
    peer.send("probe:a", "phx_join", json!({}));
    peer.send("probe:a", "echo", json!({"n": 2}));
    peer.heartbeat();
    lab.world.gate("g").open();

    peer.expect(&[
        r#"probe:a #2 ok {"gate":"g"}"#,
        "probe:a #3 ok {}",
        "probe:a phx_close of 1",
        "probe:a #4 ok {}",
        r#"probe:a #5 ok {"n":1}"#,
        "probe:a #6 ok {}",
        "probe:a phx_close of 4",
        r#"probe:a #7 ok {"n":2}"#,
    ]);
}

#[test]
fn joins_that_waited_for_a_join_do_not_wait_for_the_handlers_behind_that() {
    let lab = Lab::new();
    let mut peer = lab.open();

    peer.send("probe:a", "phx_join", json!({"gate": "first"}));
    peer.send("probe:a", "hold", json!({"gate": "second"}));
    peer.send("probe:a", "phx_join", json!({}));
    peer.heartbeat();
    lab.world.gate("first").open();
    peer.expect(&["probe:a #1 ok {}", "probe:a #3 ok {}", "probe:a phx_close of 1"]);
    peer.send("probe:a", "phx_join", json!({}));
    lab.world.gate("second").open();

    peer.expect(&["probe:a #5 ok {}", "probe:a phx_close of 3"]);
}

#[test]
fn a_second_join_does_not_wait_for_a_busy_handler() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.exchange("probe:a", "echo", json!({}));
    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.heartbeat();

    peer.send("probe:a", "phx_join", json!({}));
    peer.expect(&["probe:a #5 ok {}", "probe:a phx_close of 1"]);
    peer.exchange("probe:a", "echo", json!({"n": 1}));
    lab.world.gate("g").open();

    let ended = lab.world.wait_ended("probe:a", 1);
    assert_eq!((&ended[0].reason, ended[0].handled), (&Reason::DuplicateJoin, 2));
    peer.heartbeat();
    assert_eq!(peer.exchange("probe:a", "echo", json!({"n": 2})), json!({"n": 2}));
}

#[test]
fn a_second_join_waits_for_the_first_and_both_are_answered() {
    let lab = Lab::new();
    let mut peer = lab.open();

    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.send("probe:a", "echo", json!({"n": 1}));
    peer.heartbeat();
    lab.world.gate("g").open();

    peer.expect(&["probe:a #1 ok {}", "probe:a #2 ok {}", "probe:a phx_close of 1", r#"probe:a #3 ok {"n":1}"#]);
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::DuplicateJoin);
    lab.broadcast("probe:a", "shout", json!({}));
    peer.expect(&["probe:a shout {}"]);
    peer.heartbeat();
}

#[test]
fn messages_sent_while_a_join_waits_are_handled_after_it() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:b");

    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.send("probe:a", "shout", json!({"n": 1}));
    peer.send("probe:a", "echo", json!({"n": 2}));
    peer.exchange("probe:b", "echo", json!({}));
    lab.world.gate("g").open();

    peer.expect(&["probe:a #2 ok {}", r#"probe:a shout {"n":1}"#, "probe:a #3 ok {}", r#"probe:a #4 ok {"n":2}"#]);
}

#[test]
fn what_waited_for_a_refused_join_was_sent_to_a_topic_that_is_not_joined() {
    let lab = Lab::new();
    let mut peer = lab.open();

    peer.send("probe:a", "phx_join", json!({"gate": "g", "refuse": true}));
    peer.send("probe:a", "echo", json!({}));
    peer.send("probe:a", "phx_leave", json!({}));
    peer.send("probe:a", "phx_join", json!({}));
    peer.send("probe:a", "echo", json!({"n": 5}));
    peer.heartbeat();
    lab.world.gate("g").open();

    // The second join makes what follows it stale for the first, not for itself.
    peer.expect(&[
        r#"probe:a #1 error {"reason":"refused"}"#,
        r#"probe:a #2 error {"reason":"unmatched topic"}"#,
        "probe:a #3 ok {}",
        "probe:a #4 ok {}",
        r#"probe:a #5 ok {"n":5}"#,
    ]);
}

#[test]
fn a_leave_of_a_join_that_waits_is_answered_after_it() {
    let lab = Lab::new();
    let mut peer = lab.open();

    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.send("probe:a", "phx_leave", json!({}));
    peer.heartbeat();
    lab.world.gate("g").open();

    peer.expect(&["probe:a #1 ok {}", "probe:a #2 ok {}", "probe:a phx_close of 1"]);
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::Left);
}

#[test]
fn a_join_that_waits_ends_with_its_socket() {
    let lab = Lab::new();
    let mut peer = lab.open();
    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.heartbeat();

    drop(peer);
    let mut other = lab.joined("probe:b");
    other.heartbeat();
    lab.world.gate("g").open();

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
}
