//! In which order a client sees what happens.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::lab::{Lab, Peer, SHARDS};
use crate::transcripts::frames::text_frame;

/// Room enough that no client of these tests is too slow.
fn roomy() -> Lab {
    Lab::with_socket(|options| options.outbox_bytes_max = 256 << 20)
}

/// The frames of `n` messages with the numbers `from..from + n`.
fn numbered(peer: &mut Peer, topic: &str, event: &str, from: u64, n: u64) -> Vec<u8> {
    (from..from + n).flat_map(|n| text_frame(&peer.text(topic, event, json!({"n": n})))).collect()
}

#[test]
fn a_sender_sees_its_broadcast_before_the_reply() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");

    for n in 0..200 {
        let reference = peer.send("probe:a", "shout", json!({"n": n}));
        peer.expect(&[&format!(r#"probe:a shout {{"n":{n}}}"#), &format!("probe:a #{reference} ok {{}}")]);
    }
}

#[test]
fn pushes_and_broadcasts_of_one_handler_keep_their_order() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");

    for n in 0..200 {
        let reference = peer.send("probe:a", "push_shout_push", json!({"n": n}));
        peer.expect(&[
            &format!(r#"probe:a first {{"n":{n}}}"#),
            &format!(r#"probe:a shout {{"n":{n}}}"#),
            &format!(r#"probe:a second {{"n":{n}}}"#),
            &format!("probe:a #{reference} ok {{}}"),
        ]);
    }
}

#[test]
fn broadcasts_and_replies_of_pipelined_messages_interleave_exactly() {
    let lab = roomy();
    let mut peer = lab.joined("probe:a");
    let burst = numbered(&mut peer, "probe:a", "shout", 0, 1_000);

    peer.write(&burst);

    for n in 0..1_000 {
        peer.expect(&[&format!(r#"probe:a shout {{"n":{n}}}"#), &format!("probe:a #{} ok {{}}", n + 2)]);
    }
}

#[test]
fn a_reply_does_not_overtake_the_broadcast_of_another_topic_of_its_socket() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");

    for n in 0..200 {
        let shout = text_frame(&peer.text("probe:a", "shout", json!({"n": n})));
        let echo = text_frame(&peer.text("probe:b", "echo", json!({"n": n})));
        peer.write(&[shout, echo].concat());
        let reference = 3 + 2 * n;
        peer.expect(&[
            &format!(r#"probe:a shout {{"n":{n}}}"#),
            &format!("probe:a #{reference} ok {{}}"),
            &format!(r#"probe:b #{} ok {{"n":{n}}}"#, reference + 1),
        ]);
    }
}

#[test]
fn subscribers_on_every_shard_see_each_publishers_order() {
    const EACH: u64 = 1_000;
    let lab = roomy();
    // Connections take the shards in turn: each shard has two subscribers and publishes for one of the publishers.
    let mut subscribers: Vec<Peer> = (0..2 * SHARDS).map(|_| lab.joined("probe:a")).collect();
    let mut publishers: Vec<Peer> = (0..SHARDS).map(|_| lab.joined("probe:a")).collect();
    let bursts: Vec<Vec<u8>> = (0u64..)
        .zip(&mut publishers)
        .map(|(at, publisher)| numbered(publisher, "probe:a", "shout_from", at * EACH, EACH))
        .collect();

    std::thread::scope(|scope| {
        for (publisher, burst) in publishers.iter().zip(&bursts) {
            scope.spawn(move || publisher.write(burst));
        }
        for subscriber in &mut subscribers {
            scope.spawn(move || {
                let mut next: Vec<u64> = (0..SHARDS as u64).map(|at| at * EACH).collect();
                for _ in 0..SHARDS as u64 * EACH {
                    let n = subscriber.message().n();
                    let of_publisher = &mut next[usize::try_from(n / EACH).expect("a small number")];
                    assert_eq!(n, *of_publisher);
                    *of_publisher += 1;
                }
                subscriber.heartbeat();
            });
        }
    });
}

/// Runs `round` with a client of `probe:a` over and over, while another floods the topic with numbered broadcasts.
fn under_flood(rounds: u64, mut round: impl FnMut(&mut Peer)) {
    const WINDOW: u64 = 20;
    let lab = roomy();
    let mut peer = lab.open();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut flooder = lab.joined("probe:a");
            let mut n = 0;
            // A window at a time, so that it is not ahead of the server.
            while !over.load(Ordering::Relaxed) {
                let burst = numbered(&mut flooder, "probe:a", "shout", n, WINDOW);
                flooder.write(&burst);
                for _ in 0..2 * WINDOW {
                    flooder.message();
                }
                n += WINDOW;
            }
        });
        // Ends the flood also where a round panics.
        let _stop = OnDrop(|| over.store(true, Ordering::Relaxed));
        for _ in 0..rounds {
            round(&mut peer);
        }
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_joins_reply_comes_first_nothing_is_missed_until_the_close_and_nothing_comes_after_it() {
    /// Sent in one write with a join or a leave: the server is at them while it carries that out.
    const HEARTBEATS: u64 = 50;
    /// Sends an event and the heartbeats; gives the ref of the last of these.
    fn send(peer: &mut Peer, event: &str) -> u64 {
        let mut burst = text_frame(&peer.text("probe:a", event, json!({})));
        for _ in 0..HEARTBEATS {
            burst.extend(text_frame(&peer.text("phoenix", "heartbeat", json!({}))));
        }
        peer.write(&burst);
        peer.last_ref()
    }
    under_flood(300, |peer| {
        let last = send(peer, "phx_join");
        let reply = peer.next_of("probe:a");
        assert_eq!(
            (reply.event.as_str(), &reply.reference),
            ("phx_reply", &json!(last - HEARTBEATS)),
            "the reply is the first thing of the topic"
        );
        let mut next = peer.next_of("probe:a").n() + 1;
        let last = send(peer, "phx_leave");
        loop {
            let message = peer.next_of("probe:a");
            match message.event.as_str() {
                "shout" => {
                    assert_eq!(message.n(), next, "no broadcast is missed or repeated while joined");
                    next += 1;
                }
                "phx_reply" => assert_eq!(message.reference, json!(last - HEARTBEATS)),
                "phx_close" => break,
                other => panic!("{other}: {message:?}"),
            }
        }
        loop {
            let message = peer.message();
            assert_eq!(message.topic, "phoenix", "nothing of the topic comes after its close: {message:?}");
            if message.reference == json!(last) {
                break;
            }
        }
    });
}

#[test]
fn a_second_join_neither_repeats_nor_reorders_broadcasts() {
    let mut last = None;
    let mut joined = 0;
    under_flood(300, |peer| {
        let join = peer.send("probe:a", "phx_join", json!({}));
        joined += 1;
        let mut awaited = if joined == 1 { 1 } else { 2 };
        while awaited > 0 || last.is_none() {
            let message = peer.message();
            match message.event.as_str() {
                "shout" => {
                    assert!(last.is_none_or(|last| last < message.n()), "{last:?}, then {}", message.n());
                    last = Some(message.n());
                }
                "phx_reply" => {
                    assert_eq!(message.reference, json!(join));
                    awaited -= 1;
                }
                // The old channel's close follows the new one's reply.
                "phx_close" => {
                    assert!(message.join_ref.as_u64() < Some(join) && awaited == 1, "{message:?}");
                    awaited -= 1;
                }
                other => panic!("{other}: {message:?}"),
            }
        }
    });
}

#[test]
fn what_is_broadcast_after_a_joins_reply_came_is_not_missed() {
    let lab = Lab::new();
    let mut peer = lab.open();

    for n in 0..500 {
        let topic = format!("probe:{}", n % 50);
        peer.send(&topic, "phx_join", json!({}));
        while peer.message().event != "phx_reply" {}
        lab.broadcast(&topic, "shout", json!({"n": n}));
        let message = loop {
            let message = peer.message();
            if message.event != "phx_close" {
                break message;
            }
        };
        assert_eq!((message.topic.as_str(), message.n()), (topic.as_str(), n));
    }
}

#[test]
fn a_client_left_out_of_its_own_broadcast_is_left_out_alone() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let mut other = lab.joined("probe:a");

    let reference = peer.send("probe:a", "shout_from", json!({"n": 1}));

    peer.expect(&[&format!("probe:a #{reference} ok {{}}")]);
    other.expect(&[r#"probe:a shout {"n":1}"#]);
    lab.broadcast("probe:a", "shout", json!({"n": 2}));
    peer.expect(&[r#"probe:a shout {"n":2}"#]);
}
