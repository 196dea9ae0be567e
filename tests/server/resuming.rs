//! Clients with positions that read slowly: what they miss they get from the history, or are told of.
//!
//! What a topic's history gives to those who come back is held by `tests/kit/resume.rs`.

use bennu::channel::{HistoryOptions, OnSlow};
use serde_json::{Value, json};

use crate::lab::{Counted, Lab, Message, Peer, Poll};
use crate::transcripts::frames::text_frame;

/// The channel of the second intercepts events, so that its broadcasts take another way.
const TOPICS: [&str; 2] = ["plain:a", "probe:a"];
/// Far more than a client that does not read has room for, in the kernel and here.
const SENT: u64 = 3_000;

fn lab(change: impl FnOnce(&mut HistoryOptions)) -> Lab {
    let lab = Lab::with_socket(|options| {
        options.outbox_bytes_max = 64 * 1024;
        options.longpoll = Some(Default::default());
        options.longpoll.as_mut().expect("it was just set").buffer_bytes_max = 64 * 1024;
    });
    let mut options = HistoryOptions::default();
    options.messages_max = 10_000;
    options.bytes_max = 64 << 20;
    change(&mut options);
    lab.endpoint.keep("plain:*", options.clone());
    lab.endpoint.keep("probe:*", options);
    lab
}

/// Joins with positions; gives the first.
#[track_caller]
fn join(peer: &mut Peer, topic: &str, resume: Value) -> Value {
    let response = peer.exchange(topic, "phx_join", json!({"resume": resume}));
    response["resume"].clone()
}

/// Broadcasts numbers while somebody reads them all and nobody else does.
fn flood(lab: &Lab, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    let fill = "x".repeat(2_000);
    let mut reading = lab.joined(topic);
    for n in numbers {
        lab.broadcast(topic, "shout", json!({"n": n, "key": n % 3, "fill": fill}));
        assert_eq!(reading.message().n(), n);
    }
}

fn offset(message: &Message) -> u64 {
    let offset = message.reference.as_str().and_then(|reference| reference.strip_prefix('@')?.parse().ok());
    offset.unwrap_or_else(|| panic!("expected a position, got {message:?}"))
}

#[test]
fn a_slow_client_gets_all_that_the_history_has_and_is_not_cut() {
    for topic in TOPICS {
        let counted = Counted::slow_consumers();
        let lab = lab(|_| {});
        let mut slow = Peer::open_narrow(lab.address(), "vsn=2.0.0");
        join(&mut slow, topic, Value::Null);

        flood(&lab, topic, 1..=SENT);
        for n in 1..=SENT {
            let message = slow.message();
            assert_eq!((message.n(), offset(&message)), (n, n));
        }
        // It is a reader like any other again.
        flood(&lab, topic, SENT + 1..=SENT + 10);
        for n in SENT + 1..=SENT + 10 {
            assert_eq!(slow.message().n(), n);
        }
        slow.heartbeat();
        assert_eq!(counted.growth(), 0);
    }
}

#[test]
fn a_slow_client_is_told_of_what_the_history_has_no_longer() {
    for topic in TOPICS {
        let counted = Counted::slow_consumers();
        let lab = lab(|options| options.messages_max = 20);
        let mut slow = Peer::open_narrow(lab.address(), "vsn=2.0.0");
        let epoch = join(&mut slow, topic, Value::Null)["epoch"].clone();

        flood(&lab, topic, 1..=SENT);
        let (mut last, mut gaps) = (0, 0);
        while last < SENT {
            let message = slow.message();
            if message.event == "gap" {
                gaps += 1;
                assert_eq!((&message.payload["epoch"], &message.payload["from"]), (&epoch, &json!(last)));
                assert_eq!(message.payload["reason"], "slow");
                assert_eq!(message.payload["offset"], offset(&message));
                assert!(offset(&message) > last, "{message:?}");
                last = offset(&message);
            } else {
                assert_eq!((message.n(), offset(&message)), (last + 1, last + 1));
                last += 1;
            }
        }
        assert!(gaps > 0);
        flood(&lab, topic, SENT + 1..=SENT + 1);
        assert_eq!(slow.message().n(), SENT + 1);
        assert_eq!(counted.growth(), 0);
    }
}

#[test]
fn of_what_waits_for_a_slow_client_the_latest_of_each_key_is_left_where_only_that_counts() {
    for topic in TOPICS {
        let lab = lab(|options| options.on_slow = OnSlow::Latest { key: Some("key".to_owned()) });
        let mut slow = Peer::open_narrow(lab.address(), "vsn=2.0.0");
        join(&mut slow, topic, Value::Null);

        flood(&lab, topic, 1..=SENT);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| *last < SENT) {
            let message = slow.message();
            assert_eq!((message.event.as_str(), message.n()), ("shout", offset(&message)));
            seen.push(message.n());
        }

        assert!(seen.is_sorted_by(|a, b| a < b), "in order, and once");
        assert!(seen.ends_with(&[SENT - 2, SENT - 1, SENT]), "the latest of each key: {:?}", &seen[seen.len() - 5..]);
        assert!((seen.len() as u64) < SENT - SENT / 5, "{} of {SENT} came", seen.len());
        slow.heartbeat();
    }
}

#[test]
fn a_client_whose_other_channel_stands_still_catches_up() {
    let lab = lab(|_| {});
    let mut peer = lab.open();
    let at = join(&mut peer, "plain:a", Value::Null);
    drop(peer);
    flood(&lab, "plain:a", 1..=500);

    let mut peer = lab.joined("probe:b");
    let mut said = vec![
        peer.text("probe:b", "hold", json!({"gate": "still"})),
        peer.text("plain:a", "phx_join", json!({"resume": at})),
    ];
    // Once as many wait as may, the socket is not read.
    said.extend((0..100).map(|_| peer.text("probe:b", "echo", json!({}))));
    peer.write(&said.iter().flat_map(|text| text_frame(text)).collect::<Vec<_>>());
    assert_eq!(peer.message().event, "phx_reply");
    for n in 1..=500 {
        assert_eq!(peer.message().n(), n);
    }
    lab.world.gate("still").open();
    for _ in 0..101 {
        assert_eq!(peer.message().event, "phx_reply");
    }
}

#[test]
fn a_broadcast_of_which_a_channel_crashes_does_not_come_again() {
    let lab = lab(|_| {});
    let mut peer = lab.open();
    let mut at = join(&mut peer, "probe:a", Value::Null);
    lab.broadcast("probe:a", "crash_out", json!({}));
    let position = peer.message();
    assert_eq!((position.event.as_str(), offset(&position)), ("position", 1));
    assert_eq!(peer.message().event, "phx_error");

    at["offset"] = 1.into();
    join(&mut peer, "probe:a", at);
    lab.broadcast("probe:a", "shout", json!({"n": 2}));
    assert_eq!(peer.message().n(), 2);
}

#[test]
fn a_slow_client_is_cut_where_the_topic_wants_that() {
    let counted = Counted::slow_consumers();
    let lab = lab(|options| options.on_slow = OnSlow::Disconnect);
    let mut slow = Peer::open_narrow(lab.address(), "vsn=2.0.0");
    join(&mut slow, "plain:a", Value::Null);

    flood(&lab, "plain:a", 1..=SENT);

    let before = slow.until_gone();
    assert!((before.len() as u64) < SENT);
    assert_eq!(counted.growth(), 1);
}

#[test]
fn a_long_poll_that_comes_late_gets_everything() {
    for topic in TOPICS {
        let counted = Counted::slow_consumers();
        let lab = lab(|_| {});
        let poll = Poll::start(&lab);
        assert_eq!(
            poll.post(&json!(["1", "1", topic, "phx_join", {"resume": null}]).to_string()),
            json!({"status": 200})
        );
        assert_eq!(poll.messages()[0][4]["response"]["resume"]["offset"], 0);

        flood(&lab, topic, 1..=SENT);
        let mut last = 0;
        while last < SENT {
            for message in poll.messages() {
                last += 1;
                assert_eq!((&message[4]["n"], &message[1]), (&json!(last), &json!(format!("@{last}"))));
            }
        }
        assert_eq!(counted.growth(), 0);
    }
}
