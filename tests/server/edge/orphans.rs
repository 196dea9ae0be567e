//! Handlers whose connection has ended: they run on for a while, and no longer.

use std::time::{Duration, Instant};

use bennu::channel::LongPollOptions;
use bennu::protocol::limits::{CLOSE_LINGER_MS, ORPHAN_HANDLER_MS};
use serde_json::json;

use crate::lab::{Lab, Peer, Poll, reset_at_end, until};
use crate::transcripts::frames::{FrameBits, encode_frame};

/// A client one of whose handlers waits for good.
fn holding(lab: &Lab, topic: &str) -> Peer {
    let mut peer = lab.joined(topic);
    peer.send(topic, "hold", json!({"gate": topic}));
    lab.world.wait_reached(topic);
    peer
}

#[test]
fn a_handler_is_dropped_when_its_connection_has_been_gone_for_long_enough() {
    let lab = Lab::with_socket(|options| options.longpoll = Some(LongPollOptions::default()));
    let mut neighbour = lab.joined("probe:n");
    until("the neighbour's topic is held", || lab.held().topics == 1);
    let before = (lab.held(), lab.tasks());

    let reset = holding(&lab, "probe:reset");
    let closed = holding(&lab, "probe:closed");
    let cut = holding(&lab, "probe:cut");
    let poll = Poll::joined(&lab, "probe:poll");
    assert_eq!(poll.post(r#"["1","2","probe:poll","hold",{"gate":"probe:poll"}]"#), json!({"status": 200}));
    lab.world.wait_reached("probe:poll");
    let ended = Instant::now();
    reset_at_end(reset.stream());
    drop(reset);
    closed.write(&encode_frame(8, &1000_u16.to_be_bytes(), FrameBits::default()));
    drop(closed);
    drop(cut);
    assert_eq!(poll.post("[malformed"), json!({"status": 408}));

    until("they hear nothing more at once", || lab.held().topics == before.0.topics && lab.held().longpoll_tokens == 0);
    let held = lab.held();
    assert_eq!(held.conversations, before.0.conversations + 4, "but go on: {held:?}");
    until("the last one is dropped", || {
        neighbour.heartbeat();
        (lab.held(), lab.tasks()) == before
    });

    let took = ended.elapsed();
    assert!(took >= Duration::from_millis(ORPHAN_HANDLER_MS.min(CLOSE_LINGER_MS)), "dropped after {took:?}");
    for topic in ["probe:reset", "probe:closed", "probe:cut", "probe:poll"] {
        assert!(lab.world.ended(topic).is_empty(), "{topic}: what was dropped has no state to terminate");
    }
    neighbour.exchange("probe:n", "echo", json!({}));
}

#[test]
fn a_handler_that_ends_in_time_is_the_end_of_its_conversation() {
    let lab = Lab::new();
    let mut neighbour = lab.joined("probe:n");
    until("the neighbour's topic is held", || lab.held().topics == 1);
    let before = (lab.held(), lab.tasks());
    let peer = holding(&lab, "probe:a");

    drop(peer);
    until("it hears nothing more", || lab.held().topics == before.0.topics);
    lab.world.gate("probe:a").open();

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].handled, 1);
    until("nothing is left of it", || {
        neighbour.heartbeat();
        (lab.held(), lab.tasks()) == before
    });
}
